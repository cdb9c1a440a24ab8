//! `countersign serve`: puts the parts together and runs them until it is told to stop.

use crate::audit::archive::Archive;
use crate::audit::flood::Floodgate;
use crate::audit::{Limits, Recorder, RecorderError, Recording};
use crate::cluster::OnBehalf;
use crate::config::{ServeArgs, ServiceAccountValidation};
use crate::controller::credentials::{Credentials, CredentialsError, Loaded, Place};
use crate::controller::ledger::{Checkpoints, LookError, Witness, look_back};
use crate::controller::notifications::{self, FilesError, Leadership, Notifications};
use crate::controller::policies::Policies;
use crate::controller::{agent, capability, jit_request, lease, ledger, trusted_issuer};
use crate::crd::User;
use crate::dpop::Nonces;
use crate::http::server::{self, Shutdown};
use crate::http::{App, Authority, Feed, IN_FLIGHT_MAX, Portal, READERS_MAX, RateLimits, probes, router};
use crate::identity::{ApiServerKeys, Federation, Recognised, Validation, Verifier};
use crate::metrics::Metrics;
use crate::snapshot::{Snapshot, Source, watches};
use crate::store::{Store, StoreError};
use crate::telemetry::Traces;
use crate::time::Clock;
use crate::tls::{Files, ServingCertificate, TlsError};
use crate::token::Reader;
use crate::token::rotation::InvalidPolicy;
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

/// How often the start is tried again while the API server, the chart's objects or the database are not there yet.
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
    /// The ledger cannot be held against what was published of it.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Nothing can be recorded.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// The flags name no database.
    #[error("the database: {0}")]
    Database(String),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be listened on.
    #[error("{0} cannot be listened on: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// The keys or certificates cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The times of the signing keys do not fit each other.
    #[error("--signing-key-publish-ahead and --signing-key-rotation: {0}")]
    Rotation(#[from] InvalidPolicy),
    /// Nobody can tell who is to be told of requests.
    #[error("--notifications-file: {0}")]
    Notifications(#[from] FilesError),
    /// The given certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Spans cannot be sent.
    #[error("--otlp-endpoint: {0}")]
    Traces(String),
    /// The portal cannot be set up.
    #[error("the portal: {0}")]
    Portal(String),
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
    let policy = args.rotation()?;
    let copy = audit_target(&args.audit_log).map_err(ServeError::AuditLog)?;
    let metrics = Arc::new(Metrics::default());
    let holder = std::env::var("POD_NAME").unwrap_or_else(|_| format!("countersign-{}", std::process::id()));
    let traces = args
        .traces
        .otlp_endpoint
        .as_ref()
        .map(|endpoint| Traces::start(endpoint, args.traces.trace_sample_ratio, &holder).map(Arc::new));
    let traces = traces.transpose().map_err(|e| ServeError::Traces(crate::error_chain(&e)))?;
    let Some(store) = open_store(&args, shutdown.clone()).await? else { return Ok(()) };
    let sources: &[Source] = match args.service_account_validation {
        ServiceAccountValidation::Watch => &[
            Source::Agents,
            Source::Requests,
            Source::Capabilities,
            Source::Issuers,
            Source::Pods,
            Source::ServiceAccounts,
            Source::Keys,
            Source::Lease,
        ],
        ServiceAccountValidation::TokenReview => {
            &[Source::Agents, Source::Requests, Source::Capabilities, Source::Issuers, Source::Keys, Source::Lease]
        }
    };
    let snapshot = Snapshot::new(sources, Duration::from_secs(args.staleness_bound));
    let config = kube::Config::infer().await.map_err(|e| ServeError::Client(crate::error_chain(&e)))?;
    let on_behalf = OnBehalf::new(config.clone()).map_err(|e| ServeError::Client(crate::error_chain(&e)))?;
    let client = crate::cluster::client(config, &snapshot, clock).map_err(|e| ServeError::Client(crate::error_chain(&e)))?;
    let portal = Portal::new(&args.portal, &args.issuer).map_err(ServeError::Portal)?;

    let mut names = vec![args.issuer_host()];
    names.extend(args.tls_dns_names.iter().cloned());
    let place = Place {
        namespace: args.namespace.clone(),
        secret: args.secret_name.clone(),
        host: args.issuer_host(),
        config_map: args.config_map_name.clone(),
        names,
        policy,
    };
    let credentials = Credentials::new(&client, place, Arc::clone(&snapshot), clock);
    let Some((loaded, own)) = first_load(&credentials, &client, shutdown.clone()).await? else { return Ok(()) };
    let (keys, evidence) = (credentials.keys(), loaded.evidence.clone());
    let recording = Recording {
        writer: holder.clone(),
        vkey: loaded.checkpoint_key.vkey().to_string(),
        copy,
        limits: Limits::default(),
        clock,
    };
    let witness = Arc::new(Witness::new(client.clone(), &args.namespace, args.audit_config_map_name.clone()));
    let key = Arc::clone(&loaded.checkpoint_key);
    let past =
        waiting("the ledger", shutdown.clone(), |_: &LookError| true, || look_back(&witness, &store, &key, clock.seconds()));
    let Some(past) = past.await? else { return Ok(()) };
    let recorder = Recorder::start(store.clone(), recording).await?;
    past.record(&recorder, &store, &witness, &metrics, &key, clock.seconds()).await;

    let mut parts: JoinSet<&'static str> = JoinSet::new();
    let opened = store.clone();
    parts.spawn(named("the store", async move { opened.ended().await }));
    let (serving, own_certificate) = match (&args.tls_cert_file, &args.tls_key_file) {
        (Some(certificate), Some(key)) => {
            let files = Files { certificate: certificate.clone(), key: key.clone() };
            let read = files.read().await?;
            let serving = ServingCertificate::new(&read.0, &read.1)?;
            parts.spawn(named("the watch of the certificate files", files.follow(Arc::clone(&serving), read)));
            (serving, None)
        }
        _ => {
            let serving = loaded.serving()?;
            (Arc::clone(&serving), Some(serving))
        }
    };
    let checkpoints = Checkpoints {
        recorder: recorder.clone(),
        key: credentials.checkpoint_key(),
        witness: Arc::clone(&witness),
        store: store.clone(),
        metrics: Arc::clone(&metrics),
        clock,
    };
    parts.spawn(named("the signer of checkpoints", checkpoints.keep(Arc::clone(&key))));
    if let (Some(directory), Some(retention)) = (args.audit_archive_dir.clone(), args.audit_retention) {
        let archive = Archive { directory, retention, store: store.clone(), recorder: recorder.clone(), clock };
        parts.spawn(named("the archive of the ledger", archive.keep()));
    }
    parts.spawn(named("the watch of the Secret", credentials.keep(loaded, own_certificate, recorder.clone())));
    let acceptor = serving.acceptor()?;

    let (agents, agent_events) = mpsc::unbounded_channel();
    let cluster = Arc::new(ApiServerKeys::new(client.clone()));
    let current = Arc::clone(&cluster);
    parts.spawn(named("the refresh of the API server's keys", async move { current.keep_current().await }));
    let validation = match args.service_account_validation {
        ServiceAccountValidation::Watch => {
            parts.spawn(named("the watch of Pods", watches::pods(client.clone(), Arc::clone(&snapshot))));
            let accounts = watches::service_accounts(client.clone(), Arc::clone(&snapshot), agents.clone());
            parts.spawn(named("the watch of ServiceAccounts", accounts));
            Validation::Watch
        }
        ServiceAccountValidation::TokenReview => Validation::TokenReview(client.clone()),
    };
    let policies = Policies::new(client.clone(), &args.namespace, args.config_map_name.clone(), Arc::clone(&metrics), clock);
    parts.spawn(named("the watch of the admission policies", Arc::clone(&policies).watch()));
    let (issuers, issuer_events) = mpsc::unbounded_channel();
    let (requests, request_events) = mpsc::unbounded_channel();
    let (capabilities, capability_events) = mpsc::unbounded_channel();
    let (watched, seen) = (|| client.clone(), || Arc::clone(&snapshot));
    parts.spawn(named("the watch of TrustedIssuers", watches::issuers(watched(), seen(), issuers, agents.clone())));
    parts.spawn(named("the watch of Agents", watches::agents(watched(), seen(), agents, requests.clone())));
    parts.spawn(named("the watch of Capabilities", watches::capabilities(watched(), seen(), capabilities, requests.clone())));
    parts.spawn(named("the watch of JitRequests", watches::requests(watched(), seen(), requests)));
    let controller = agent::Controller {
        client: client.clone(),
        snapshot: Arc::clone(&snapshot),
        keys: Arc::clone(&keys),
        policies: Arc::clone(&policies),
        recorder: recorder.clone(),
        clock,
    };
    parts.spawn(named("the controller of Agents", controller.run(agent_events)));
    let controller =
        capability::Controller { client: client.clone(), policies: Arc::clone(&policies), recorder: recorder.clone(), clock };
    parts.spawn(named("the controller of Capabilities", controller.run(capability_events)));
    let federation = Arc::new(Federation::default());
    let controller = trusted_issuer::Controller {
        client: client.clone(),
        snapshot: Arc::clone(&snapshot),
        federation: Arc::clone(&federation),
        cluster: Arc::clone(&cluster),
        issuer: args.issuer.clone(),
        policies: Arc::clone(&policies),
        recorder: recorder.clone(),
        clock,
    };
    parts.spawn(named("the controller of TrustedIssuers", controller.run(issuer_events)));
    let reporter = Reporter { controller: "countersign".to_owned(), instance: Some(holder.clone()) };
    let events = Events::new(client.clone(), reporter);
    let (mut seen, mut leadership) = (None, None);
    if let Some(file) = &args.notifications_file {
        let files = notifications::Files { file: file.clone(), secrets: args.notification_secrets_dir.clone() };
        let lease = Leadership {
            client: client.clone(),
            namespace: args.namespace.clone(),
            name: args.notifier_lease_name.clone(),
            holder: holder.clone(),
            clock,
        };
        let notifications = Notifications {
            client: client.clone(),
            snapshot: Arc::clone(&snapshot),
            store: store.clone(),
            events: events.clone(),
            metrics: Arc::clone(&metrics),
            issuer: args.issuer.clone(),
            portal: args.portal.portal.then(|| args.portal.url(&args.issuer)),
            clock,
        };
        seen = Some(notifications.start(files, lease.clone(), &mut parts)?);
        leadership = Some(lease);
    }
    let controller = jit_request::Controller {
        client: client.clone(),
        snapshot: Arc::clone(&snapshot),
        policies: Arc::clone(&policies),
        recorder: recorder.clone(),
        events: events.clone(),
        evidence: evidence.clone(),
        seen,
        metrics: Arc::clone(&metrics),
        own: own.clone(),
        clock,
    };
    parts.spawn(named("the controller of JitRequests", controller.run(request_events)));
    let heart = lease::Heart {
        client: client.clone(),
        namespace: args.namespace.clone(),
        name: args.lease_name.clone(),
        secret: args.secret_name.clone(),
        holder,
        bound: args.staleness_bound,
        store: store.clone(),
        recorder: recorder.clone(),
        metrics: Arc::clone(&metrics),
        snapshot: Arc::clone(&snapshot),
        clock,
    };
    parts.spawn(named("the heartbeat", heart.beat()));

    let (sealing, closing) = (recorder.clone(), store.clone());
    let feed = Feed::new(args.issuer.clone(), Arc::clone(&snapshot), Arc::clone(&keys), args.staleness_bound, clock);
    parts.spawn(named("the revocation feed", Arc::clone(&feed).run()));
    let limits = Arc::new(RateLimits::new(args.rates.rates(), Arc::clone(&metrics)));
    parts.spawn(named("the memory of limits", Arc::clone(&limits).forget()));
    let app = Arc::new(App {
        issuer: args.issuer.clone(),
        snapshot,
        verifier: Verifier {
            policy: args.credential_policy(),
            audience: args.issuer.clone(),
            cluster,
            validation,
            recognised: Recognised::default(),
            federation,
            store: store.clone(),
        },
        keys,
        tokens: Reader::new(args.issuer.clone()),
        keys_max_age: policy.published_max_age(),
        floodgate: Floodgate::new(recorder.clone(), args.audit_refusals_per_second),
        recorder,
        store,
        authority: Authority::new(client.clone()),
        client,
        on_behalf,
        portal,
        events,
        policies,
        nonces: Nonces::new(&evidence.derived("dpop nonces"), args.require_dpop_nonce),
        evidence,
        own,
        feed,
        polls: Arc::default(),
        shutdown: shutdown.clone(),
        metrics,
        traces: traces.clone(),
        clock,
        limits,
        in_flight: Semaphore::new(IN_FLIGHT_MAX),
        lexicons: crate::http::Lexicons::default(),
        readers: Semaphore::new(READERS_MAX),
    });
    let shutdown = Shutdown::new(shutdown, Duration::from_secs(args.shutdown_delay));
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

    let served = tokio::select! {
        // Every part runs for ever. One that ends, or panics, takes the process with it: half an operator is none.
        ended = parts.join_next() => Err(ServeError::Ended(ended.and_then(Result::ok).unwrap_or("a part"))),
        () = async { while servers.join_next().await.is_some() {} } => Ok(()),
    };
    parts.shutdown().await;
    if let Some(leadership) = leadership {
        leadership.release().await;
    }
    ledger::finish(&sealing, &key, &witness).await;
    if let Err(error) = closing.close().await {
        tracing::warn!(%error, "the database was not closed in order; nothing is lost");
    }
    if let Some(traces) = traces {
        traces.end().await;
    }
    served
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

/// Opens the database, waiting for a server that is not there yet. `None` if told to stop meanwhile.
async fn open_store(args: &ServeArgs, shutdown: watch::Receiver<bool>) -> Result<Option<Store>, ServeError> {
    let url = args.database.url().map_err(ServeError::Database)?;
    let passes = |error: &StoreError| matches!(error, StoreError::Unreachable(_));
    let store = waiting("the database", shutdown, passes, || Store::open(&url)).await?;
    if let Some(store) = &store {
        tracing::info!(database = %url, id = store.id(), "the store is open");
    }
    Ok(store)
}

/// Loads our credentials and learns who we are, waiting for the API server and for what the chart creates a moment after our pod.
/// `None` if told to stop meanwhile.
async fn first_load(
    credentials: &Credentials,
    client: &kube::Client,
    shutdown: watch::Receiver<bool>,
) -> Result<Option<(Loaded, User)>, ServeError> {
    let passes = |error: &CredentialsError| matches!(error, CredentialsError::Kubernetes(_));
    let loaded = || async { Ok((credentials.load().await?, own_name(client).await?)) };
    Ok(waiting("our Secret", shutdown, passes, loaded).await?)
}

/// Does `work` until it succeeds, as long as its error is one that passes. `None` if told to stop meanwhile.
async fn waiting<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    what: &'static str,
    mut shutdown: watch::Receiver<bool>,
    passes: impl Fn(&E) -> bool,
    work: impl Fn() -> F,
) -> Result<Option<T>, E> {
    loop {
        let done = tokio::select! {
            done = work() => done,
            _ = shutdown.wait_for(|stop| *stop) => return Ok(None),
        };
        match done {
            Ok(done) => return Ok(Some(done)),
            Err(error) if passes(&error) => tracing::warn!(%error, "waiting for {what}"),
            Err(error) => return Err(error),
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
