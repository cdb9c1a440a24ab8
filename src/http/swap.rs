//! The compare-and-swap by which a handler changes a request: written over exactly the version that was looked at, or not at all.

use super::App;
use super::error::Refusal;
use crate::controller::jit_request::publish;
use crate::controller::writing;
use crate::crd::JitRequest;
use crate::jit::{Change, Request};
use kube::api::Api;
use std::sync::Arc;
use std::time::Duration;

/// How often a race is tried again that somebody else won.
pub(super) const ATTEMPTS: usize = 8;
/// How long a request that our watch has not shown yet is waited for: another replica may have written it a moment ago.
pub(super) const NEWBORN_PATIENCE: Duration = Duration::from_millis(500);

/// What came of it.
pub(super) enum Swapped {
    /// It is written; this is the new version.
    Done(Arc<Request>),
    /// Somebody else was faster; this is their version.
    Lost(Arc<Request>),
    /// The request is gone.
    Gone,
}

/// Writes `change` over the version `request`.
///
/// # Errors
/// If the API server does not answer: then nobody knows whether it was written, and nothing may follow from it.
pub(super) async fn swap(app: &App, request: &Request, change: Change) -> Result<Swapped, Refusal> {
    let object = request.with_status(change.status.clone());
    match api(app, request).replace_status(&request.id.name, &writing(), &object).await {
        Ok(stored) => {
            let (events, request) = (app.events.clone(), request.clone());
            // Nobody waits for it.
            tokio::spawn(async move { publish(&events, &request, &change).await });
            Ok(taken_in(app, stored).map_or(Swapped::Gone, Swapped::Done))
        }
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            Ok(live(app, request).await?.map_or(Swapped::Gone, Swapped::Lost))
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Swapped::Gone),
        Err(error) => Err(Refusal::unavailable("request_unwritable", crate::error_chain(&error))),
    }
}

/// The request as the API server has it now, whatever our watch has shown; `None` if it is gone.
///
/// # Errors
/// If the API server does not answer.
pub(super) async fn live(app: &App, request: &Request) -> Result<Option<Arc<Request>>, Refusal> {
    let stored = api(app, request).get_opt(&request.id.name).await;
    let stored = stored.map_err(|error| Refusal::unavailable("request_unreadable", crate::error_chain(&error)))?;
    Ok(stored.and_then(|stored| taken_in(app, stored)).filter(|found| found.uid == request.uid))
}

/// Takes a stored version into the view at once, so that this process never acts on an older one than it has seen.
pub(super) fn taken_in(app: &App, stored: JitRequest) -> Option<Arc<Request>> {
    let request = Arc::new(Request::parse(stored)?);
    app.snapshot.update_requests(|requests| requests.insert(Arc::clone(&request)));
    Some(request)
}

fn api(app: &App, request: &Request) -> Api<JitRequest> {
    Api::namespaced(app.client.clone(), &request.id.namespace)
}
