//! `POST /oauth2/introspect` (RFC 7662): is this token alive, and what does it say?
//!
//! Only a resource server that has the RBAC verb `introspect` on the token's audience learns anything. To everybody else
//! every token is inactive.

use super::caller::{authenticate, bearer};
use super::error::Refusal;
use super::form::Form;
use super::{App, json, now_if_fresh, post, read_back};
use crate::agent::Granted;
use crate::audit::{Outcome, Record};
use crate::chain::Chain;
use crate::crd::Phase;
use crate::decision::{Approval, Grants, Issued, OperationGrant, stands};
use crate::grammar::AgentId;
use crate::identity::Caller;
use crate::token::AccessClaims;
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
    /// On whose behalf: a user, or the agent that began.
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
    let verdict = match read_back(app, token, now).await? {
        None => Err("token_unknown_or_expired"),
        Some(claims) if !may_introspect(app, &caller, &claims).await? => Err("caller_may_not_introspect"),
        Some(claims) => alive(app, &claims, now).map(|()| claims),
    };
    match verdict {
        Ok(claims) => {
            describe_token(record, &claims);
            record.conclude(Outcome::Allow, "active");
            json(&Active { active: true, token_type: claims.token_type(), username: &claims.sub, claims: &claims })
        }
        Err(reason) => {
            record.conclude(Outcome::Deny, reason);
            json(&serde_json::json!({"active": false}))
        }
    }
}

/// Whether the caller is whom the token is for: a resource server that may introspect its audience, or the agent that is.
pub(super) async fn may_introspect(app: &App, caller: &Caller, claims: &AccessClaims) -> Result<bool, Refusal> {
    match AgentId::parse(&claims.aud) {
        Ok(audience) => Ok(caller.agent(&app.snapshot).is_some_and(|agent| agent.id == audience)),
        Err(_) => app.authority.may_introspect(caller, &claims.aud).await,
    }
}

/// Writes into a record what a token of ours says.
pub(super) fn describe_token(record: &mut Record, claims: &AccessClaims) {
    record.text("subject", claims.client_id.as_str()).text("audience", claims.aud.as_str()).text("jti", claims.jti.as_str());
    if let Some(chain) = claims.chain() {
        describe_chain(record, &chain);
    }
}

/// Writes into a record on whose behalf and through whom.
pub(super) fn describe_chain(record: &mut Record, chain: &Chain) {
    if let Some(user) = chain.user() {
        record.text("user", user.to_string()).text("trusted_issuer", user.issuer.name.as_str());
    }
    record.text("chain", chain.subjects()).text("txn", chain.txn());
    if let Some(parent) = chain.ancestors().last() {
        record.text("parent_jti", parent.as_str()).text("ancestors", chain.ancestors().join(" "));
    }
}

/// Whether everybody on whom the token depends still stands where they stood, and still holds what the token says; and if the token is
/// for an operation that was approved, whether that is still to be done.
pub(super) fn alive(app: &App, claims: &AccessClaims, now: u64) -> Result<(), &'static str> {
    let said = Said::read(claims)?;
    said.to_be_done(app)?;
    stands(&said.issued(), &app.snapshot.view().as_view(), now).map_err(|denial| denial.reason.code())
}

/// What a token of ours says, read once.
pub(super) struct Said<'a> {
    claims: &'a AccessClaims,
    pub(super) chain: Chain,
    grant: Grant,
}

enum Grant {
    Capabilities(Vec<Granted>),
    Operation(Box<OperationGrant>),
}

impl<'a> Said<'a> {
    /// # Errors
    /// A reason if it is not what we would have written.
    pub(super) fn read(claims: &'a AccessClaims) -> Result<Self, &'static str> {
        let malformed = "token_malformed";
        let chain = claims.chain().ok_or(malformed)?;
        let grant = match claims.operation().map_err(|_| malformed)? {
            Some(grant) => Grant::Operation(Box::new(grant)),
            None => Grant::Capabilities(claims.capabilities().ok_or(malformed)?),
        };
        Ok(Self { claims, chain, grant })
    }

    pub(super) fn issued(&self) -> Issued<'_> {
        let grants = match &self.grant {
            Grant::Capabilities(capabilities) => Grants::Capabilities(capabilities),
            Grant::Operation(grant) if grant.approval.is_some() => Grants::Approved(&grant.operation),
            Grant::Operation(grant) => Grants::Operation(&grant.operation),
        };
        let claims = self.claims;
        Issued { jti: &claims.jti, chain: &self.chain, grants, audience: &claims.aud, is_bound: claims.cnf.is_some() }
    }

    /// If the token is for an operation that was approved: whether that is still to be done.
    pub(super) fn to_be_done(&self, app: &App) -> Result<(), &'static str> {
        match &self.grant {
            Grant::Operation(grant) => grant.approval.as_ref().map_or(Ok(()), |approval| to_be_done(app, self.claims, approval)),
            Grant::Capabilities(_) => Ok(()),
        }
    }
}

/// Whether the request of an approved operation is there, and this its one token, not yet completed or ended in another way.
fn to_be_done(app: &App, claims: &AccessClaims, approval: &Approval) -> Result<(), &'static str> {
    let request = app.snapshot.request(&approval.request_uid).ok_or("request_unknown")?;
    let status = &request.status;
    if status.jti.as_deref() != Some(&claims.jti) || status.digest.as_deref() != Some(&approval.digest) {
        return Err("request_mismatch");
    }
    match status.phase {
        Some(Phase::Issued) if !request.deleting => Ok(()),
        Some(Phase::Completed) => Err("operation_completed"),
        _ => Err("request_ended"),
    }
}
