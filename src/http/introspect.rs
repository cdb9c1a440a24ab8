//! `POST /oauth2/introspect` (RFC 7662): is this token alive, and what does it say?
//!
//! Only a resource server that has the RBAC verb `introspect` on the token's audience learns anything. To everybody else
//! every token is inactive.

use super::caller::{authenticate, bearer};
use super::error::Refusal;
use super::form::Form;
use super::{App, json, now_if_fresh, post};
use crate::audit::{Outcome, Record};
use crate::crd::Phase;
use crate::decision::{Issued, operation_stands, still_stands};
use crate::token::{AccessClaims, ApprovedOperation, verify};
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
struct Active<'a> {
    active: bool,
    token_type: &'static str,
    /// The agent is the client and the user of its own token.
    username: &'a str,
    #[serde(flatten)]
    claims: &'a AccessClaims,
}

/// The endpoint.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    post(&app, "token.introspect", request, |app, request, mut record| async move {
        let result = introspect(&app, request, &mut record).await;
        (record, result)
    })
    .await
}

async fn introspect(app: &App, request: Request<Body>, record: &mut Record) -> Result<Response, Refusal> {
    let bearer = bearer(request.headers())?;
    let form = Form::read(request).await?;
    let now = now_if_fresh(app)?;
    let caller = authenticate(app, bearer.as_deref(), &form, now, record).await?;
    let token = form.require("token")?;
    // RFC 7662 section 2.1: the hint may be wrong, so it is not used; there is one kind of token.
    form.get("token_type_hint")?;
    let verdict = match verify(token, &app.issuer, &app.keys, now) {
        None => Err("token_unknown_or_expired"),
        Some(claims) if !app.authority.may_introspect(&caller, &claims.aud).await? => Err("caller_may_not_introspect"),
        Some(claims) => alive(app, &claims).map(|()| claims),
    };
    match verdict {
        Ok(claims) => {
            record.text("subject", claims.sub.as_str()).text("audience", claims.aud.as_str()).text("jti", claims.jti.as_str());
            record.conclude(Outcome::Allow, "active");
            json(&Active { active: true, token_type: "Bearer", username: &claims.sub, claims: &claims })
        }
        Err(reason) => {
            record.conclude(Outcome::Deny, reason);
            json(&serde_json::json!({"active": false}))
        }
    }
}

/// Whether every agent on which the token depends still stands where it stood, and still holds what the token says; and if the token is
/// for one operation, whether that is still to be done.
pub(super) fn alive(app: &App, claims: &AccessClaims) -> Result<(), &'static str> {
    let (Some(id), [link]) = (claims.agent(), claims.links.as_slice()) else { return Err("token_malformed") };
    if link.agent_uid != claims.agent_uid || link.sub != claims.sub {
        return Err("token_malformed");
    }
    let agent = app.snapshot.agent(&id).ok_or("agent_unknown")?;
    let catalogue = app.snapshot.catalogue();
    let stands = match claims.operation().map_err(|_| "token_malformed")? {
        Some(approved) => {
            to_be_done(app, claims, &approved)?;
            operation_stands(&agent, &catalogue, &link.agent_uid, link.epoch, &approved.operation)
        }
        None => {
            let capabilities = claims.capabilities().ok_or("token_malformed")?;
            let (agent_uid, audience) = (&link.agent_uid, &claims.aud);
            let issued = Issued { agent_uid, epoch: link.epoch, capabilities: &capabilities, audience };
            still_stands(&agent, &catalogue, &issued)
        }
    };
    stands.map_err(|denial| denial.reason.code())
}

/// Whether the request of an approved operation is there, and this its one token, not yet completed or ended in another way.
fn to_be_done(app: &App, claims: &AccessClaims, approved: &ApprovedOperation) -> Result<(), &'static str> {
    let request = app.snapshot.request(&approved.request_uid).ok_or("request_unknown")?;
    let status = &request.status;
    if status.jti.as_deref() != Some(&claims.jti) || status.digest.as_deref() != Some(&approved.digest) {
        return Err("request_mismatch");
    }
    match status.phase {
        Some(Phase::Issued) if !request.deleting => Ok(()),
        Some(Phase::Completed) => Err("operation_completed"),
        _ => Err("request_ended"),
    }
}
