//! `POST /oauth2/revoke` (RFC 7009): an agent gives up a token of its own, and with it everything that descends from it. One for an
//! approved operation completes that. A request that has no token yet is withdrawn.

use super::caller::{check_client_id, identify, no_authorization_header, required_client_assertion};
use super::complete::{approval, of};
use super::error::{CredentialRole, Refusal};
use super::form::Form;
use super::introspect::describe_chain;
use super::poll::{is_of, seconds};
use super::swap::{ATTEMPTS, Swapped, swap};
use super::{App, now_if_fresh, post, read_back};
use crate::agent::RegisteredAgent;
use crate::audit::{Outcome, Record};
use crate::controller::jit_request::describe;
use crate::controller::writing;
use crate::crd::{Agent, Phase};
use crate::jit::{self, Change};
use crate::revocation;
use crate::token::AccessClaims;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use kube::ResourceExt as _;
use kube::api::Api;
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
    check_client_id(form.get("client_id")?, &agent, CredentialRole::CLIENT)?;
    let token = form.require("token")?;
    // RFC 7009 section 2.1: the hint may be wrong, so it is not used.
    form.get("token_type_hint")?;
    if let Some(request) = app.snapshot.request(token).filter(|request| is_of(request, &agent)) {
        describe(record, &request);
        return end(app, request, record, "withdrawn", |request| jit::cancel(request, seconds(now))).await;
    }
    let Some(claims) = read_back(app, token, now).await? else {
        // RFC 7009 section 2.2: what is unknown is as good as revoked.
        record.conclude(Outcome::Allow, "token_unknown_or_expired");
        return Ok(());
    };
    record.text("jti", claims.jti.as_str());
    owned(&agent, &claims.agent_uid)?;
    if approval(&claims).is_none() {
        return end_token(app, &agent, &claims, record).await;
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

/// Writes into the status of the agent that the token is revoked, and takes it into the view: when this returns, the token is dead on this
/// replica, and on the others as soon as their watch shows it.
async fn end_token(app: &App, agent: &RegisteredAgent, claims: &AccessClaims, record: &mut Record) -> Result<(), Refusal> {
    if let Some(chain) = claims.chain() {
        describe_chain(record, &chain);
    }
    let api: Api<Agent> = Api::namespaced(app.client.clone(), agent.id.namespace());
    let unavailable = |error: &kube::Error| Refusal::unavailable("revocation_unwritable", crate::error_chain(error));
    for _ in 0..ATTEMPTS {
        let stored = api.get_opt(agent.id.name()).await.map_err(|error| unavailable(&error))?;
        // Gone, and everything of it with it.
        let Some(mut object) = stored.filter(|stored| stored.uid().as_deref() == Some(agent.uid.as_str())) else {
            record.conclude(Outcome::Allow, "agent_gone");
            return Ok(());
        };
        let status = object.status.get_or_insert_default();
        let now = app.clock.now();
        // One that was issued under an earlier epoch is dead, and takes no place in the list.
        let issued_under = claims.links.iter().find(|link| link.agent_uid == agent.uid).map(|link| link.epoch);
        let is_news = issued_under.is_none_or(|epoch| epoch >= status.revocation_epoch)
            && revocation::revoke(status, &claims.jti, revocation::keep(seconds(claims.exp)), now);
        let written = if is_news { api.replace_status(agent.id.name(), &writing(), &object).await } else { Ok(object) };
        match written {
            Ok(stored) => {
                if let Ok(stored) = RegisteredAgent::parse(&stored) {
                    app.snapshot.update_agents(|agents| agents.refresh(stored));
                }
                record.conclude(Outcome::Allow, if is_news { "revoked" } else { "revoked_before" });
                return Ok(());
            }
            // Changed, or gone, in between.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
            Err(error) => return Err(unavailable(&error)),
        }
    }
    Err(Refusal::unavailable("agent_contended", "the Agent kept changing"))
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
