//! `POST /oauth2/revoke` (RFC 7009): an agent gives up a token for one operation, which completes it, or withdraws a request that has
//! none yet.

use super::caller::{identify, no_authorization_header, required_client_assertion};
use super::complete::of;
use super::error::Refusal;
use super::form::Form;
use super::poll::{is_of, seconds};
use super::swap::{ATTEMPTS, Swapped, swap};
use super::{App, now_if_fresh, post};
use crate::agent::RegisteredAgent;
use crate::audit::{Outcome, Record};
use crate::controller::jit_request::describe;
use crate::crd::Phase;
use crate::jit::{self, Change};
use crate::token::verify;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

/// The endpoint.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    post(&app, "token.revoke", request, |app, request, mut record| async move {
        let result = revoke(&app, request, &mut record).await;
        (record, result.map(|()| StatusCode::OK.into_response()))
    })
    .await
}

async fn revoke(app: &App, request: Request<Body>, record: &mut Record) -> Result<(), Refusal> {
    no_authorization_header(request.headers())?;
    let form = Form::read(request).await?;
    let credential = required_client_assertion(&form)?;
    let now = now_if_fresh(app)?;
    let (agent, _) = identify(app, credential, now, record).await?;
    let token = form.require("token")?;
    // RFC 7009 section 2.1: the hint may be wrong, so it is not used.
    form.get("token_type_hint")?;
    if let Some(request) = app.snapshot.request(token).filter(|request| is_of(request, &agent)) {
        describe(record, &request);
        return end(app, request, record, "withdrawn", |request| jit::cancel(request, seconds(now))).await;
    }
    let Some(claims) = verify(token, &app.issuer, &app.keys, now) else {
        // RFC 7009 section 2.2: what is unknown is as good as revoked.
        record.conclude(Outcome::Allow, "token_unknown_or_expired");
        return Ok(());
    };
    record.text("jti", claims.jti.as_str());
    owned(&agent, &claims.agent_uid)?;
    if !matches!(claims.operation(), Ok(Some(_))) {
        let description = "only tokens for one operation can be revoked singly; suspending the Agent ends the others";
        return Err(Refusal::new("unsupported_token_type", "token_not_for_operation", description));
    }
    let Ok(request) = of(app, &claims).await else {
        record.conclude(Outcome::Allow, "request_ended");
        return Ok(());
    };
    describe(record, &request);
    end(app, request, record, "completed", |request| jit::complete(request, &claims.jti, seconds(now))).await
}

/// RFC 7009 section 2.1: a client revokes its own tokens only.
fn owned(agent: &RegisteredAgent, agent_uid: &str) -> Result<(), Refusal> {
    if agent.uid == agent_uid {
        return Ok(());
    }
    Err(Refusal::new("unauthorized_client", "token_of_another_agent", "the token was issued to another agent"))
}

/// Ends a request. One that has ended is fine too.
async fn end(
    app: &App,
    mut request: Arc<jit::Request>,
    record: &mut Record,
    reason: &'static str,
    make: impl Fn(&jit::Request) -> Result<Change, Option<Phase>>,
) -> Result<(), Refusal> {
    for _ in 0..ATTEMPTS {
        match make(&request) {
            Ok(change) => match swap(app, &request, change).await? {
                Swapped::Done(_) => {
                    record.conclude(Outcome::Allow, reason);
                    return Ok(());
                }
                Swapped::Lost(theirs) => request = theirs,
                Swapped::Gone => break,
            },
            // Not taken in yet, or its token is out: neither can be withdrawn by its auth_req_id.
            Err(None) => return Err(Refusal::unavailable("request_new", "the request was filed a moment ago")),
            Err(Some(Phase::Issued)) => {
                let description = "the token was issued: revoke that";
                return Err(Refusal::new("invalid_request", "token_issued", description));
            }
            Err(Some(_)) => break,
        }
    }
    record.conclude(Outcome::Allow, "request_ended");
    Ok(())
}
