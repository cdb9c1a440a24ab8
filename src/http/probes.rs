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

/// The view of the cluster is current, or which part of it is not.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.snapshot.freshness.check(Instant::now()) {
        Ok(()) => "ok\n".into_response(),
        Err(stale) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stale}\n")).into_response(),
    }
}

/// Metrics in the OpenMetrics text format.
async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.metrics.observe_view(app.snapshot.freshness.oldest(Instant::now()).and_then(|(_, age)| age));
    app.metrics.observe_record_failures(app.recorder.failures());
    match app.metrics.encode() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
