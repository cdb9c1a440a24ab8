//! Liveness, readiness and metrics.

use super::App;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use std::sync::Arc;
use std::time::Instant;

/// The endpoints of the metrics port: plain HTTP, no secrets, nothing that changes anything.
pub fn router(app: Arc<App>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", get(metrics)).with_state(app)
}

/// The process works.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The view of the cluster is current, or all that it lacks, a line each. A database that cannot be reached is said too, but makes no
/// replica unready: it is the same for all of them, and a Service without any serves neither our keys nor the many requests that need no
/// database.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ending = (*app.shutdown.borrow()).then(|| "this process is about to end\n".to_owned());
    let faults = app.snapshot.freshness.faults(Instant::now());
    let missing: String = ending.into_iter().chain(faults.iter().map(|fault| format!("{fault}\n"))).collect();
    if !missing.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, missing).into_response();
    }
    match app.store.check() {
        Ok(()) => "ok\n".into_response(),
        Err(error) => format!("ok, but what may be used once is refused: {error}\n").into_response(),
    }
}

/// Metrics in the OpenMetrics text format.
async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.metrics.observe_view(app.snapshot.freshness.oldest(Instant::now()).and_then(|(_, age)| age));
    app.metrics.observe_record_failures(app.recorder.failures());
    app.metrics.observe_unwitnessed(app.recorder.uncovered());
    app.metrics.observe_uncopied(app.recorder.uncopied());
    app.metrics.observe_store(app.store.check().is_ok());
    match app.metrics.encode() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
