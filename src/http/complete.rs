//! `POST /jit/complete`: the operation for which a token was issued is done, and the token dead. 200 exactly once.
//!
//! The agent reports it, or the resource server. A resource server that must have single use reports before it acts, and acts on 200
//! alone.

use super::caller::{authenticate, bearer};
use super::error::Refusal;
use super::form::Form;
use super::introspect::{alive, describe_token};
use super::poll::seconds;
use super::swap::{ATTEMPTS, NEWBORN_PATIENCE, Swapped, live, swap};
use super::{App, json, now_if_fresh, post, read_back};
use crate::audit::{Outcome, Record};
use crate::crd::Phase;
use crate::decision::Approval;
use crate::identity::Caller;
use crate::jit;
use crate::token::AccessClaims;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use std::sync::Arc;

/// The endpoint.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    post(&app, "jit.complete", request, |app, request, mut record| async move {
        let result = handle(&app, request, &mut record).await;
        (record, result)
    })
    .await
}

async fn handle(app: &App, request: Request<Body>, record: &mut Record) -> Result<Response, Refusal> {
    let bearer = bearer(request.headers())?;
    let form = Form::read(request).await?;
    let now = now_if_fresh(app)?;
    let caller = authenticate(app, bearer.as_deref(), &form, now, record).await?;
    let claims = read_back(app, form.require("token")?, now).await?.ok_or_else(|| {
        let description = "token is not an access token of ours, or it has expired";
        Refusal::new("invalid_token", "token_unknown_or_expired", description)
    })?;
    describe_token(record, &claims);
    if !is_agent_of(app, &caller, &claims) && !app.authority.may_introspect(&caller, &claims.aud).await? {
        let description =
            "only the agent of the token, and a resource server with verb introspect on its audience, may complete it";
        return Err(Refusal::new("access_denied", "caller_may_not_complete", description).status(StatusCode::FORBIDDEN));
    }
    let request = of(app, &claims).await?;
    crate::controller::jit_request::describe(record, &request);
    let completed_at = complete(app, request, &claims, now).await?;
    record.conclude(Outcome::Allow, "completed");
    json(&serde_json::json!({"completed": true, "jti": claims.jti, "completed_at": completed_at}))
}

/// Whether the caller is the very agent to which the token was issued.
pub(super) fn is_agent_of(app: &App, caller: &Caller, claims: &AccessClaims) -> bool {
    caller.agent(&app.snapshot).is_some_and(|agent| agent.uid == claims.agent_uid && agent.id.to_string() == claims.client_id)
}

/// The request of a token for one operation.
pub(super) async fn of(app: &App, claims: &AccessClaims) -> Result<Arc<jit::Request>, Refusal> {
    let Some(approval) = approval(claims) else {
        let description = "the token is not for an operation that was approved: there is nothing to complete";
        return Err(Refusal::new("invalid_token", "token_not_for_operation", description));
    };
    let issued = |s: &crate::snapshot::Snapshot| s.request(&approval.request_uid).filter(|r| r.status.jti.is_some());
    app.snapshot.wait_for_request(NEWBORN_PATIENCE, issued).await.ok_or_else(|| ended("the request was withdrawn"))
}

/// The approval on which a token rests, if it rests on one.
pub(super) fn approval(claims: &AccessClaims) -> Option<Approval> {
    claims.operation().ok().flatten().and_then(|grant| grant.approval)
}

/// Writes that the operation is done; at most one caller gets to.
///
/// # Errors
/// 409 if it is done already, or the token died in another way.
async fn complete(app: &App, mut request: Arc<jit::Request>, claims: &AccessClaims, now: u64) -> Result<i64, Refusal> {
    let mut is_live = false;
    for _ in 0..ATTEMPTS {
        // A dead token completes nothing: whoever acts on a 200 must be able to rely on it.
        let stands = alive(app, claims, now);
        match (jit::complete(&request, &claims.jti, seconds(now)), stands) {
            (Ok(_), Err(reason)) => return Err(ended(reason)),
            (Ok(change), Ok(())) => match swap(app, &request, change).await? {
                Swapped::Done(_) => return Ok(seconds(now)),
                Swapped::Lost(theirs) => {
                    request = theirs;
                    is_live = true;
                }
                Swapped::Gone => return Err(ended("the request was withdrawn")),
            },
            (Err(Some(Phase::Completed)), _) => {
                let description = "the operation was reported as done before: do not do it again";
                return Err(Refusal::new("already_completed", "already_completed", description).status(StatusCode::CONFLICT));
            }
            (Err(_), _) if !is_live => {
                request = live(app, &request).await?.ok_or_else(|| ended("the request was withdrawn"))?;
                is_live = true;
            }
            (Err(phase), _) => return Err(ended(&format!("the request is {phase:?}"))),
        }
    }
    Err(Refusal::unavailable("request_contended", "the request kept changing"))
}

fn ended(why: &str) -> Refusal {
    let description = format!("the token is not alive any more: {why}");
    Refusal::new("operation_ended", "operation_ended", description).status(StatusCode::CONFLICT)
}
