//! Where the operator is: its Service, the authority of its certificate, and a way to it from outside the cluster.

use super::failure::Failure;
use super::session::{ClusterArgs, Session};
use crate::readable::Readable;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// What all objects of the chart are labelled with.
pub(super) const LABEL: &str = "app.kubernetes.io/name=countersign";
/// Where the operator usually is.
const USUAL: &str = "countersign-system";
/// How long kubectl may take to open a way.
const OPEN_WITHIN: Duration = Duration::from_secs(20);
/// How much of its complaint is shown, in bytes.
const COMPLAINT_MAX: u64 = 4096;

/// An installed operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its namespace.
    pub namespace: String,
    /// The name of its Service, ConfigMap, Lease and workload.
    pub name: String,
}

impl Installed {
    /// Looks for the Service of the chart: in that namespace, or wherever whoever looks may.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub async fn find(session: &Session, namespace: Option<&str>) -> Result<Self, Failure> {
        let labelled = ListParams::default().labels(LABEL);
        let within = |namespace: &str| Api::<Service>::namespaced(session.client.clone(), namespace);
        let services = match namespace {
            Some(namespace) => within(namespace).list(&labelled).await?,
            None => match Api::<Service>::all(session.client.clone()).list(&labelled).await {
                Err(kube::Error::Api(status)) if status.is_forbidden() => within(USUAL).list(&labelled).await?,
                listed => listed?,
            },
        };
        let mut found =
            services.items.iter().filter_map(|service| Some(Self { namespace: service.namespace()?, name: service.name_any() }));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Failure::Failed(format!(
                "there is no Service labelled {LABEL} {}: is Countersign installed? --operator-namespace says where",
                namespace.map_or_else(|| "to be seen".to_owned(), |namespace| format!("in namespace {}", Readable(namespace)))
            ))),
            (Some(one), Some(other)) => Err(Failure::Failed(format!(
                "there are several operators, in namespaces {} and {}: say which with --operator-namespace",
                one.namespace, other.namespace
            ))),
        }
    }

    /// The authority of its certificate in PEM, if it is the operator's own.
    ///
    /// # Errors
    /// If the ConfigMap may not be read.
    pub async fn authority(&self, session: &Session) -> Result<Option<String>, Failure> {
        let api: Api<ConfigMap> = Api::namespaced(session.client.clone(), &self.namespace);
        let found = api.get_opt(&self.name).await?;
        Ok(found.and_then(|found| found.data?.remove("ca.crt")).filter(|pem| !pem.is_empty()))
    }
}

/// A way to the operator. It is open as long as the value lives.
#[derive(Debug)]
pub struct Way {
    /// Where to connect to.
    pub at: SocketAddr,
    /// kubectl, which holds it open.
    pub kubectl: Child,
}

impl Way {
    /// Has kubectl open one: it speaks with whatever version the API server and the node have.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn open(installed: &Installed, args: &ClusterArgs) -> Result<Self, Failure> {
        let mut command = Command::new("kubectl");
        command.arg("port-forward").arg(format!("--namespace={}", installed.namespace)).arg("--address=127.0.0.1");
        for (flag, value) in [("context", &args.context), ("as", &args.as_user)] {
            command.args(value.as_ref().map(|value| format!("--{flag}={value}")));
        }
        command.args(args.kubeconfig.as_ref().map(|file| format!("--kubeconfig={}", file.display())));
        command.args(args.as_group.iter().map(|group| format!("--as-group={group}")));
        command.arg(format!("service/{}", installed.name)).arg(":https");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut kubectl = command.spawn().map_err(|error| Failure::failed(format!("kubectl cannot be run: {error}")))?;
        let opened = tokio::time::timeout(OPEN_WITHIN, port(&mut kubectl)).await;
        match opened {
            Ok(Some(port)) => Ok(Self { at: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), kubectl }),
            Ok(None) => Err(Failure::failed(format!("kubectl port-forward: {}", complaint(kubectl).await))),
            Err(_) => Err(Failure::Failed(format!("kubectl port-forward: nothing for {} s", OPEN_WITHIN.as_secs()))),
        }
    }
}

/// On which port kubectl says that it listens; `None` if it ends.
async fn port(kubectl: &mut Child) -> Option<u16> {
    let mut lines = BufReader::new(kubectl.stdout.take()?).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next()).map(str::parse);
        if let Some(Ok(port)) = port {
            // It says a word for each connection, which nobody needs, but it must not wait for somebody to read it.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(port);
        }
    }
    None
}

/// What it says of why it ended.
async fn complaint(mut kubectl: Child) -> String {
    let mut text = Vec::new();
    if let Some(stderr) = kubectl.stderr.take() {
        // Whatever was read of it is what there is to say.
        _ = stderr.take(COMPLAINT_MAX).read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).trim().replace('\n', "; ")
}
