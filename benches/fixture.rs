//! A real control plane with agents, pods and their tokens, the operator, and the bare stack.

use crate::bare;
use crate::load::Target;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::install_chart;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::process::{Guarded, clean_env};
use crate::support::{kubectl::Kubectl, workload};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many agents take turns, each with a pod.
const AGENTS: usize = 16;

/// Everything that runs, and the servers to load: ours and the bare one, over TLS and in the clear.
pub struct Fixture {
    // Dropped in this order.
    _operator: Operator,
    _bare: Guarded,
    _cluster: Cluster,
    pub tls: [Target; 2],
    pub plain: [Target; 2],
}

impl Fixture {
    /// Starts it all.
    pub fn start() -> Self {
        let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
        install_chart(&cluster, 4, &[]).expect("the chart installs");
        let [plain, bare_tls, bare_plain] = free_addresses();
        let options = OperatorOptions { args: vec![format!("--insecure-http-address={plain}")], ..OperatorOptions::default() };
        let operator =
            Operator::start(&cluster, Path::new(env!("CARGO_BIN_EXE_countersign")), &options).expect("the operator starts");
        let kubectl = cluster.kubectl();
        let requests: Vec<Vec<u8>> =
            (0..AGENTS).map(|i| request(&agent_token(&kubectl, &format!("agent-{i}"), operator.issuer()))).collect();
        let bare = start_bare(&cluster, &kubectl, bare_tls, bare_plain);

        let address: SocketAddr = operator.url().trim_start_matches("https://").parse().expect("an address");
        let client = tls_client(operator.ca_file());
        let requests = Arc::new(requests);
        let target = |address, tls: Option<&Arc<rustls::ClientConfig>>| Target {
            address,
            tls: tls.cloned(),
            requests: Arc::clone(&requests),
        };
        Self {
            tls: [target(address, Some(&client)), target(bare_tls, Some(&client))],
            plain: [target(plain, None), target(bare_plain, None)],
            _operator: operator,
            _bare: bare,
            _cluster: cluster,
        }
    }
}

/// Registers an agent that is Ready and returns its pod's token.
fn agent_token(kubectl: &Kubectl, name: &str, issuer: &str) -> String {
    let namespace = "bench";
    workload::create_namespace(kubectl, namespace).expect("a namespace");
    workload::create_service_account(kubectl, namespace, name).expect("a ServiceAccount");
    let uid = workload::create_pod(kubectl, namespace, name, name).expect("a Pod");
    let agent = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Agent", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "owner": "bench", "identity": {"serviceAccounts": [{"name": name}]},
            "capabilities": [{"name": "document.read", "resources": ["document:reports/*"]}, {"name": "web.search"}],
            "tokens": {"audiences": [{"name": "https://docs.example.com"}]},
        },
    });
    kubectl.apply(&agent.to_string()).expect("the Agent is accepted");
    kubectl
        .wait_for(namespace, &format!("agent/{name}"), "condition=Ready", Duration::from_secs(30))
        .expect("the Agent is Ready");
    workload::pod_token(kubectl, namespace, name, name, &uid, issuer, 3600).expect("a token")
}

/// The exchange of `token` (RFC 8693), as bytes on the wire.
fn request(token: &str) -> Vec<u8> {
    let body = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&subject_token={token}"
    );
    let head = format!(
        "POST /oauth2/token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// Starts this binary as the bare stack, with the operator's certificate and the API server's keys.
fn start_bare(cluster: &Cluster, kubectl: &Kubectl, tls: SocketAddr, plain: SocketAddr) -> Guarded {
    let directory = cluster.directory().subdirectory("bare").expect("a directory");
    let jwks = kubectl.run(&["get", "--raw", "/openid/v1/jwks"]).expect("the JWKS");
    std::fs::write(directory.join("jwks.json"), jwks).expect("written");
    for file in ["tls.crt", "tls.key"] {
        let template = format!("go-template={{{{index .data {file:?} | base64decode}}}}");
        let pem =
            kubectl.run(&["get", "secret", "countersign", "-n", "countersign-system", "-o", &template]).expect("the certificate");
        std::fs::write(directory.join(file), pem).expect("written");
    }
    let arguments = [bare::ARGUMENT.to_owned(), directory.display().to_string(), tls.to_string(), plain.to_string()];
    let binary = std::env::current_exe().expect("this binary");
    let process = Guarded::spawn(&directory, "bare", &binary, &arguments, &clean_env(&directory)).expect("the bare stack starts");
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(plain).is_err() {
        assert!(Instant::now() < deadline && process.exited().is_none(), "the bare stack does not start: {}", process.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}

fn tls_client(ca_file: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).expect("the CA")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Addresses on loopback that were free a moment ago.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}
