//! The token service: one file per group of endpoints.

mod access;
mod ask;
mod audit;
mod authority;
mod backchannel;
mod caller;
mod complete;
mod details;
#[cfg(test)]
mod documented;
pub(crate) mod error;
mod exchange;
pub(crate) mod form;
mod introspect;
mod kubernetes;
mod limits;
mod metadata;
mod poll;
mod polls;
mod portal;
mod possession;
mod probes;
mod prompt;
mod registration;
mod revocations;
mod revoke;
pub mod server;
mod swap;
mod token;

pub use ask::Lexicons;
pub use audit::READERS_MAX;
pub use authority::Authority;
pub use limits::{RateLimits, Rates};
pub use polls::Polls;
pub use portal::Portal;
pub use probes::router as probes;
pub(crate) use registration::document as registration_document;
pub use revocations::Feed;

use crate::audit::flood::Floodgate;
use crate::audit::{Outcome, Record, Recorder};
use crate::cluster::OnBehalf;
use crate::controller::credentials::SigningKeys;
use crate::controller::policies::Policies;
use crate::crd::User;
use crate::dpop::Nonces;
use crate::identity::Verifier;
use crate::jit::EvidenceKey;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::telemetry::{self, Traces};
use crate::time::Clock;
use crate::token::{AccessClaims, NotOurs, Reader};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use error::Refusal;
use kube::runtime::events::Recorder as Events;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many requests are worked on at once. One costs less than a tenth of a millisecond of a core; what is beyond is shed.
pub const IN_FLIGHT_MAX: usize = 1024;
/// How long one request may take, its body included.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// The address of the peer of a connection, as the socket says. No header changes it.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub SocketAddr);

/// What every request needs.
pub struct App {
    /// Our issuer URL, exactly as in tokens.
    pub issuer: String,
    /// The view of the cluster.
    pub snapshot: Arc<Snapshot>,
    /// Verifies credentials.
    pub verifier: Verifier,
    /// Sign tokens.
    pub keys: Arc<SigningKeys>,
    /// Reads them back.
    pub tokens: Reader,
    /// For how long others may keep the published keys, in seconds.
    pub keys_max_age: u64,
    /// Writes records.
    pub recorder: Recorder,
    /// Writes those of refused strangers.
    pub floodgate: Floodgate,
    /// Knows which assertions were consumed.
    pub store: Store,
    /// Asks the API server who may introspect, and who may still approve.
    pub authority: Authority,
    /// The API server, for requests for approval.
    pub client: kube::Client,
    /// The API server as our callers see it.
    pub on_behalf: OnBehalf,
    /// The pages for people, unless they are switched off.
    pub portal: Option<Portal>,
    /// Shows on a request what became of it.
    pub events: Events,
    /// The admission policies: without them no approval is honoured.
    pub policies: Arc<Policies>,
    /// The key with which approvals are attested.
    pub evidence: EvidenceKey,
    /// Nonces in proofs of possession.
    pub nonces: Nonces,
    /// Who we are to the API server.
    pub own: User,
    /// What is alive, for verifiers that work offline.
    pub feed: Arc<Feed>,
    /// Who waits for a decision, and how often they ask.
    pub polls: Arc<Polls>,
    /// Says true when the process is to end: nobody is kept waiting then.
    pub shutdown: tokio::sync::watch::Receiver<bool>,
    /// Counts outcomes.
    pub metrics: Arc<Metrics>,
    /// Sends spans, if anybody takes them.
    pub traces: Option<Arc<Traces>>,
    /// The time.
    pub clock: Clock,
    /// How much one caller may ask.
    pub limits: Arc<RateLimits>,
    /// How many requests are worked on at once.
    pub in_flight: Semaphore,
    /// The words of the catalogue.
    pub lexicons: Lexicons,
    /// How many may read the ledger at once.
    pub readers: Semaphore,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// All endpoints.
pub fn router(app: Arc<App>) -> Router {
    let pages = if app.portal.is_some() { portal::routes() } else { Router::new() };
    Router::new()
        .merge(pages)
        .merge(registration::routes())
        .route(token::PATH, any(token::endpoint))
        .route("/oauth2/introspect", any(introspect::endpoint))
        .route("/oauth2/bc-authorize", any(backchannel::endpoint))
        .route("/oauth2/revoke", any(revoke::endpoint))
        .route("/jit/complete", any(complete::endpoint))
        .route("/access/v1/evaluation", any(access::evaluation))
        .route("/access/v1/evaluations", any(access::evaluations))
        .route("/access/v1/search/action", any(access::search_action))
        .route("/ask", any(ask::endpoint))
        .route("/.well-known/authzen-configuration", get(metadata::access))
        .route("/audit/v1/{what}", any(audit::endpoint))
        .route("/oauth2/jwks", get(metadata::jwks))
        .route("/revocations", get(revocations::endpoint))
        .route("/.well-known/oauth-authorization-server", get(metadata::document))
        .route("/.well-known/openid-configuration", get(metadata::document))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .method_not_allowed_fallback(wrong_method)
        .fallback(not_found)
        .layer(from_fn_with_state(Arc::clone(&app), plain))
        .with_state(app)
}

/// Refuses a request that whoever passed it on may have read otherwise.
async fn plain(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    match ambiguity(&request) {
        None => next.run(request).await,
        Some(why) => finish(&app, begin("http.request", &request), Err(Refusal::malformed(why).closing())).await,
    }
}

/// What hyper accepts in the head of a message, and HTTP does not.
fn ambiguity(request: &Request<Body>) -> Option<&'static str> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    if match hosts.next() {
        Some(_) => hosts.next().is_some(),
        None => request.version() > Version::HTTP_10,
    } {
        return Some("a request has exactly one header Host (RFC 9112 section 3.2)");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => None,
        _ => Some("the only transfer coding here is chunked, once (RFC 9112 section 6.1)"),
    }
}

/// Runs a POST endpoint: bounds it, and writes exactly one record before the reply leaves. If the record cannot be
/// written, nothing of the outcome leaves.
async fn post<F>(
    app: &Arc<App>,
    event: &'static str,
    request: Request<Body>,
    work: impl FnOnce(Arc<App>, Request<Body>, Record) -> F,
) -> Response
where
    F: Future<Output = (Record, Result<Response, Refusal>)>,
{
    let record = begin(event, &request);
    let (record, result) = bounded(app, request, record, work).await;
    finish(app, record, result).await
}

/// Runs the work of a POST endpoint, bounded in time and in how many there are at once.
async fn bounded<T, F>(
    app: &Arc<App>,
    request: Request<Body>,
    record: Record,
    work: impl FnOnce(Arc<App>, Request<Body>, Record) -> F,
) -> (Record, Result<T, Refusal>)
where
    F: Future<Output = (Record, Result<T, Refusal>)>,
{
    let interrupted = record.clone();
    if request.method() != Method::POST {
        return (interrupted, Err(Refusal::method("POST").closing()));
    }
    let _place = match place(app, &request) {
        Ok(place) => place,
        Err(refusal) => return (interrupted, Err(refusal)),
    };
    match tokio::time::timeout(REQUEST_WITHIN, work(Arc::clone(app), request, record)).await {
        Ok(done) => done,
        Err(_) => {
            let refusal = Refusal::new("invalid_request", "request_timeout", "the request was not complete within 10 s");
            (interrupted, Err(refusal.status(StatusCode::REQUEST_TIMEOUT).closing()))
        }
    }
}

/// A place among those that are worked on, before anything of the request is read.
fn place<'a>(app: &'a App, request: &Request<Body>) -> Result<SemaphorePermit<'a>, Refusal> {
    if let Some(ClientAddress(address)) = request.extensions().get() {
        app.limits.source(address.ip())?;
    }
    app.in_flight.try_acquire().map_err(|_| Refusal::overloaded())
}

/// Begins the record of a request.
fn begin(event: &'static str, request: &Request<Body>) -> Record {
    let mut record = begin_for(event, request.extensions().get().copied());
    if let Some(span) = telemetry::caller(request.headers()) {
        record.within(span);
    }
    record
}

/// The same, of a request from this address.
fn begin_for(event: &'static str, address: Option<ClientAddress>) -> Record {
    // Without random bytes nothing is issued anyway (`token::new_id` fails there too).
    let mut record = Record::new(event, crate::token::new_id().unwrap_or_default());
    if let Some(ClientAddress(address)) = address {
        record.text("client_address", address.ip().to_string());
    }
    record
}

/// Writes the record. What comes back may leave: the outcome, or that it could not be recorded.
async fn settle<T>(app: &App, mut record: Record, result: Result<T, Refusal>) -> (Record, Result<T, Refusal>) {
    if let Err(refusal) = &result {
        refusal.conclude(&mut record);
    }
    let written = app.traces.as_ref().map(|_| SystemTime::now());
    let is_bulk = result.as_ref().is_err_and(Refusal::is_bulk);
    let is_refused_stranger = record.conclusion().0 == Outcome::Deny && record.is_of_stranger();
    if is_refused_stranger
        && !is_bulk
        && let Some(address) = record.client_address()
    {
        app.limits.refused(address);
    }
    let recorded =
        if is_bulk || is_refused_stranger { app.floodgate.write(&record).await } else { app.recorder.write(&record).await };
    let (outcome, reason) = record.conclusion();
    app.metrics.outcome(record.event(), outcome, reason);
    app.metrics.took(record.event(), outcome, record.age());
    if let (Some(traces), Some(written)) = (&app.traces, written) {
        traces.request(&record, written);
    }
    let result = match recorded {
        Ok(()) => result,
        Err(unrecorded) => {
            app.metrics.outcome(record.event(), Outcome::Error, "unrecorded");
            Err(Refusal::unavailable("unrecorded", unrecorded.to_string()))
        }
    };
    (record, result)
}

/// Writes the record, then lets the reply go.
async fn finish(app: &App, record: Record, result: Result<Response, Refusal>) -> Response {
    let (record, result) = settle(app, record, result).await;
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    // RFC 6749 section 5.1: neither tokens nor refusals are kept by caches.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    if let Ok(id) = HeaderValue::from_str(record.request_id()) {
        headers.insert("x-request-id", id);
    }
    response
}

/// A JSON reply.
fn json(value: &impl serde::Serialize) -> Result<Response, Refusal> {
    // What most replies with a token have room in.
    let mut body = Vec::with_capacity(2048);
    serde_json::to_writer(&mut body, value).map_err(|e| Refusal::unavailable("reply_unwritable", e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The time of a request, or the reason why the view of the cluster cannot answer it.
fn now_if_fresh(app: &App) -> Result<u64, Refusal> {
    app.snapshot.freshness.check(Instant::now()).map_err(|stale| Refusal::unavailable("view_stale", stale.to_string()))?;
    Ok(app.clock.seconds())
}

/// The claims of a token of ours that is alive. One that another replica has signed with a key that we have not seen yet is not taken
/// for dead.
///
/// # Errors
/// If nobody can tell.
async fn read_back(app: &App, token: &str, now: u64) -> Result<Option<Arc<AccessClaims>>, Refusal> {
    let read = || app.tokens.read(token, &app.keys.current(), now);
    let claims = match read() {
        Err(NotOurs::KeyUnknown(kid)) if knows(app, &kid).await? => read().ok(),
        read => read.ok(),
    };
    if let Some((claims, pod)) = claims.as_ref().and_then(|claims| Some((claims, claims.links.last()?.pod?))) {
        app.snapshot.await_newborn(pod, claims.iat, now).await;
    }
    Ok(claims)
}

/// Whether there is a key `kid`, by now at the latest.
async fn knows(app: &App, kid: &str) -> Result<bool, Refusal> {
    app.keys.knows(kid).await.map_err(|unread| Refusal::unavailable("keys_unreadable", unread.to_string()))
}

async fn wrong_method(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    finish(&app, begin("http.request", &request), Err(Refusal::method("GET, HEAD").closing())).await
}

async fn not_found(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let mut record = begin("http.request", &request);
    record.text("path", request.uri().path());
    let refusal =
        Refusal::new("invalid_request", "not_found", "there is no such endpoint; see /.well-known/oauth-authorization-server");
    finish(&app, record, Err(refusal.status(StatusCode::NOT_FOUND).closing())).await
}
