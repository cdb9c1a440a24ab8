//! `POST /oauth2/introspect` (RFC 7662): is this token alive, and what does it say?
//!
//! Only a resource server that has the RBAC verb `introspect` on the token's audience learns anything. To everybody else
//! every token is inactive.

use super::error::{CredentialRole, Refusal};
use super::form::Form;
use super::token::{ASSERTION_TYPE, describe_caller};
use super::{App, json, now_if_fresh, post};
use crate::audit::{Outcome, Record};
use crate::decision::{Issued, still_stands};
use crate::identity::Caller;
use crate::token::{AccessClaims, verify};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, header};
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

/// Whether every agent on which the token depends still stands where it stood, and still holds what the token says.
fn alive(app: &App, claims: &AccessClaims) -> Result<(), &'static str> {
    let (Some(id), Some(capabilities), [link]) = (claims.agent(), claims.capabilities(), claims.links.as_slice()) else {
        return Err("token_malformed");
    };
    if link.agent_uid != claims.agent_uid || link.sub != claims.sub {
        return Err("token_malformed");
    }
    let agent = app.snapshot.agent(&id).ok_or("agent_unknown")?;
    let issued = Issued { agent_uid: &link.agent_uid, epoch: link.epoch, capabilities: &capabilities, audience: &claims.aud };
    still_stands(&agent, &issued).map_err(|denial| denial.reason.code())
}

/// The token in the Authorization header, if there is one (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let token =
                value.to_str().ok().and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let unsupported = || {
                Refusal::unauthenticated(
                    "client_authentication_unsupported",
                    "the Authorization header must be 'Bearer <ServiceAccount token>'",
                )
            };
            token.map(|(_, token)| Some(token.to_owned())).ok_or_else(|| unsupported().challenged().closing())
        }
        (Some(_), Some(_)) => Err(Refusal::malformed("the Authorization header occurs more than once").closing()),
    }
}

/// The resource server: it proves itself with its own projected token, in the Authorization header or as client assertion.
async fn authenticate(app: &App, bearer: Option<&str>, form: &Form, now: u64, record: &mut Record) -> Result<Caller, Refusal> {
    let assertion = form.get("client_assertion")?;
    let token = match (bearer, assertion) {
        (Some(token), None) => token,
        (None, Some(token)) if form.get("client_assertion_type")? == Some(ASSERTION_TYPE) => token,
        (None, Some(_)) => return Err(Refusal::malformed(format!("client_assertion_type must be {ASSERTION_TYPE}"))),
        (Some(_), Some(_)) => {
            return Err(Refusal::malformed("authenticate in one way: by the Authorization header or by client_assertion"));
        }
        (None, None) => {
            let description =
                "the caller must authenticate with its own ServiceAccount token, as Bearer token or as client_assertion";
            return Err(Refusal::unauthenticated("caller_unauthenticated", description).challenged());
        }
    };
    match app.verifier.verify(token, &app.snapshot, now).await {
        Ok(caller) => {
            describe_caller(record, &caller);
            Ok(caller)
        }
        Err(error) => {
            let refusal = CredentialRole::CLIENT.unidentified(&error);
            Err(if bearer.is_some() { refusal.challenged() } else { refusal })
        }
    }
}
