//! `countersign serve`: puts the parts together and runs them until it is told to stop.

use crate::audit::Recorder;
use crate::config::{ServeArgs, ServiceAccountValidation};
use crate::controller::credentials::{Credentials, CredentialsError, Loaded};
use crate::controller::policies::Policies;
use crate::controller::{agent, capability, jit_request, lease};
use crate::crd::User;
use crate::http::{App, Authority, probes, router, server};
use crate::identity::{ApiServerKeys, Validation, Verifier};
use crate::metrics::Metrics;
use crate::snapshot::{Snapshot, Source, watches};
use crate::time::Clock;
use crate::tls::{Files, ServingCertificate, TlsError};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, PostParams};
use kube::runtime::events::{Recorder as Events, Reporter};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// How many requests are worked on at once. One costs less than a tenth of a millisecond of a core; what is beyond is shed.
const IN_FLIGHT_MAX: usize = 1024;
/// How often the start is tried again while the API server or the chart's objects are not there yet.
const START_RETRY: Duration = Duration::from_millis(500);

/// Why the operator cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No usable configuration of the Kubernetes client.
    #[error("the Kubernetes client cannot be configured: {0}")]
    Client(String),
    /// The audit log cannot be opened.
    #[error("the audit log cannot be opened: {0}")]
    AuditLog(std::io::Error),
    /// An address cannot be listened on.
    #[error("{0} cannot be listened on: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// The keys or certificates cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The given certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A part that runs for ever has ended.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the operator until `shutdown` says true.
///
/// # Errors
/// A [`ServeError`] if it cannot start or a part of it ends.
pub async fn serve(args: ServeArgs, shutdown: watch::Receiver<bool>) -> Result<(), ServeError> {
    let clock = Clock::system();
    let recorder =
        Recorder::start(audit_target(&args.audit_log).map_err(ServeError::AuditLog)?, clock).map_err(ServeError::AuditLog)?;
    let metrics = Arc::new(Metrics::default());
    let sources: &[Source] = match args.service_account_validation {
        ServiceAccountValidation::Watch => {
            &[Source::Agents, Source::Requests, Source::Capabilities, Source::Pods, Source::ServiceAccounts, Source::Lease]
        }
        ServiceAccountValidation::TokenReview => &[Source::Agents, Source::Requests, Source::Capabilities, Source::Lease],
    };
    let snapshot = Snapshot::new(sources, Duration::from_secs(args.staleness_bound));
    let config = kube::Config::infer().await.map_err(|e| ServeError::Client(crate::error_chain(&e)))?;
    let client = crate::cluster::client(config, &snapshot, clock).map_err(|e| ServeError::Client(crate::error_chain(&e)))?;

    let mut names = vec![args.issuer_host()];
    names.extend(args.tls_dns_names.iter().cloned());
    let credentials = Credentials::new(&client, &args.namespace, args.secret_name.clone(), args.config_map_name.clone(), names);
    let Some((loaded, own)) = first_load(&credentials, &client, shutdown.clone()).await? else { return Ok(()) };

    let mut parts: JoinSet<&'static str> = JoinSet::new();
    let serving = match (&args.tls_cert_file, &args.tls_key_file) {
        (Some(certificate), Some(key)) => {
            let files = Files { certificate: certificate.clone(), key: key.clone() };
            let read = files.read().await?;
            let serving = ServingCertificate::new(&read.0, &read.1)?;
            parts.spawn(named("the watch of the certificate files", files.follow(Arc::clone(&serving), read)));
            serving
        }
        _ => {
            let serving = loaded.serving()?;
            parts.spawn(named("the watch of the Secret", credentials.clone().follow(Arc::clone(&serving), loaded.serving_pem())));
            serving
        }
    };
    let acceptor = serving.acceptor()?;

    let validation = match args.service_account_validation {
        ServiceAccountValidation::Watch => {
            let keys = Arc::new(ApiServerKeys::new(client.clone()));
            let current = Arc::clone(&keys);
            parts.spawn(named("the refresh of the API server's keys", async move { current.keep_current().await }));
            parts.spawn(named("the watch of Pods", watches::pods(client.clone(), Arc::clone(&snapshot))));
            parts.spawn(named("the watch of ServiceAccounts", watches::service_accounts(client.clone(), Arc::clone(&snapshot))));
            Validation::Watch(keys)
        }
        ServiceAccountValidation::TokenReview => Validation::TokenReview(client.clone()),
    };
    let policies = Policies::new(client.clone(), &args.namespace, args.config_map_name.clone(), Arc::clone(&metrics), clock);
    parts.spawn(named("the watch of the admission policies", Arc::clone(&policies).watch()));
    let (agents, agent_events) = mpsc::unbounded_channel();
    let (requests, request_events) = mpsc::unbounded_channel();
    let (capabilities, capability_events) = mpsc::unbounded_channel();
    let (watched, seen) = (|| client.clone(), || Arc::clone(&snapshot));
    parts.spawn(named("the watch of Agents", watches::agents(watched(), seen(), agents, requests.clone())));
    parts.spawn(named("the watch of Capabilities", watches::capabilities(watched(), seen(), capabilities, requests.clone())));
    parts.spawn(named("the watch of JitRequests", watches::requests(watched(), seen(), requests)));
    let holder = std::env::var("POD_NAME").unwrap_or_else(|_| format!("countersign-{}", std::process::id()));
    let controller = agent::Controller {
        client: client.clone(),
        snapshot: Arc::clone(&snapshot),
        policies: Arc::clone(&policies),
        recorder: recorder.clone(),
        clock,
    };
    parts.spawn(named("the controller of Agents", controller.run(agent_events)));
    let controller =
        capability::Controller { client: client.clone(), policies: Arc::clone(&policies), recorder: recorder.clone(), clock };
    parts.spawn(named("the controller of Capabilities", controller.run(capability_events)));
    let reporter = Reporter { controller: "countersign".to_owned(), instance: Some(holder.clone()) };
    let events = Events::new(client.clone(), reporter);
    let controller = jit_request::Controller {
        client: client.clone(),
        snapshot: Arc::clone(&snapshot),
        policies: Arc::clone(&policies),
        recorder: recorder.clone(),
        events: events.clone(),
        evidence: loaded.evidence.clone(),
        own: own.clone(),
        clock,
    };
    parts.spawn(named("the controller of JitRequests", controller.run(request_events)));
    let beat = lease::beat(client.clone(), args.namespace.clone(), args.lease_name.clone(), holder, Arc::clone(&snapshot), clock);
    parts.spawn(named("the heartbeat", beat));

    let app = Arc::new(App {
        issuer: args.issuer.clone(),
        snapshot,
        verifier: Verifier { policy: args.credential_policy(), audience: args.issuer.clone(), validation },
        keys: loaded.keys,
        recorder,
        authority: Authority::new(client.clone()),
        client,
        events,
        policies,
        evidence: loaded.evidence,
        own,
        polls: Arc::default(),
        shutdown: shutdown.clone(),
        metrics,
        clock,
        in_flight: Semaphore::new(IN_FLIGHT_MAX),
    });
    let service = router(Arc::clone(&app));
    let mut servers: JoinSet<()> = JoinSet::new();
    let listener = listen(args.listen_address).await?;
    servers.spawn(server::serve(listener, Some(acceptor), service.clone(), shutdown.clone()));
    servers.spawn(server::serve(listen(args.metrics_address).await?, None, probes(app), shutdown.clone()));
    if let Some(address) = args.insecure_http_address {
        tracing::warn!(%address, "the token service is also served in the clear on loopback");
        servers.spawn(server::serve(listen(address).await?, None, service, shutdown.clone()));
    }
    tracing::info!(issuer = %args.issuer, address = %args.listen_address, "serving");

    tokio::select! {
        // Every part runs for ever. One that ends, or panics, takes the process with it: half an operator is none.
        ended = parts.join_next() => Err(ServeError::Ended(ended.and_then(Result::ok).unwrap_or("a part"))),
        () = async { while servers.join_next().await.is_some() {} } => Ok(()),
    }
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

/// Loads our credentials and learns who we are, waiting for the API server and for what the chart creates a moment after our pod.
/// `None` if told to stop meanwhile.
async fn first_load(
    credentials: &Credentials,
    client: &kube::Client,
    mut shutdown: watch::Receiver<bool>,
) -> Result<Option<(Loaded, User)>, ServeError> {
    loop {
        let loaded = async { Ok((credentials.load().await?, own_name(client).await?)) };
        match loaded.await {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(error @ CredentialsError::Kubernetes(_)) => tracing::warn!(%error, "waiting for our Secret"),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(START_RETRY) => {}
            _ = shutdown.wait_for(|stop| *stop) => return Ok(None),
        }
    }
}

/// Who we are to the API server: what the requests for approval that we make say of who made them.
async fn own_name(client: &kube::Client) -> kube::Result<User> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    Ok(User { username: user.username.unwrap_or_default(), uid: user.uid, groups: user.groups.unwrap_or_default() })
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|e| ServeError::Listen(address, e))
}

fn audit_target(path: &Path) -> std::io::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdout()));
    }
    Ok(Box::new(OpenOptions::new().create(true).append(true).open(path)?))
}
