//! Liveness, readiness and metrics.

use super::{App, IN_FLIGHT_MAX};
use crate::crd::Phase;
use crate::decision::standing;
use crate::metrics::Observation;
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
    app.metrics.observe(&observation(&app));
    match app.metrics.encode() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn observation(app: &App) -> Observation {
    let mut now = Observation {
        ages: app.snapshot.freshness.ages(Instant::now()).collect(),
        record_failures: app.recorder.failures(),
        unwitnessed: app.recorder.uncovered(),
        uncopied: app.recorder.uncopied(),
        store_reachable: app.store.check().is_ok(),
        store_queue: app.store.waiting(),
        in_flight: IN_FLIGHT_MAX.saturating_sub(app.in_flight.available_permits()),
        ..Observation::default()
    };
    for agent in app.snapshot.agents().iter() {
        let state = standing(agent).map_or_else(|denial| denial.reason.code(), |()| "standing");
        *now.agents.entry(state).or_default() += 1;
        now.epochs = now.epochs.saturating_add_signed(agent.epoch);
    }
    for request in app.snapshot.requests().iter() {
        *now.requests.entry(request.status.phase.unwrap_or(Phase::Pending)).or_default() += 1;
    }
    now
}
