//! `POST /oauth2/bc-authorize`: an agent asks a person to approve one operation (CIBA Core section 7, poll mode, without an ID token;
//! the operation in `authorization_details`, RFC 9396).

use super::caller::{check_client_id, identify, no_authorization_header, required_client_assertion};
use super::details::Details;
use super::error::{CredentialRole, Refusal};
use super::exchange::{describe_parent, read_parent};
use super::form::Form;
use super::poll::seconds;
use super::polls::INTERVAL;
use super::swap::taken_in;
use super::token::audience;
use super::{App, json, now_if_fresh, post};
use crate::agent::{EXPIRATION_MAX, RegisteredAgent};
use crate::audit::{Outcome, Record};
use crate::chain::Chain;
use crate::controller::jit_request::describe;
use crate::controller::writing;
use crate::crd::{AgentReference, ChainLink, JitRequest, JitRequestSpec, Lineage, OnBehalfOf, UserReference};
use crate::decision::may_request;
use crate::grammar::{Audience, CapabilityName};
use crate::jit::{DECIDE_SECONDS, DECIDE_SECONDS_MAX, OPEN_MAX, Request as Approval, RequestId};
use crate::operation::Operation;
use crate::readable::is_invisible;
use crate::token::{OPERATION_DETAILS, new_id};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;

/// Longest justification, in characters: the limit of the schema.
const JUSTIFICATION_MAX: usize = 1000;
/// Longest idempotency key, in bytes.
const KEY_MAX: usize = 255;

/// The reply (CIBA Core section 7.3).
#[derive(Serialize)]
struct Acknowledgement {
    auth_req_id: String,
    expires_in: u64,
    interval: u64,
}

/// What a client asks, before it is held against what it may.
struct Ask {
    operation: Operation,
    expiration_seconds: Option<u32>,
    decide_within: u32,
    justification: Option<String>,
    /// Names the request: the same key is the same request.
    key: Option<String>,
}

/// The endpoint.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    post(&app, "jit.file", request, |app, request, mut record| async move {
        let result = file(&app, request, &mut record).await;
        (record, result)
    })
    .await
}

async fn file(app: &App, request: Request<Body>, record: &mut Record) -> Result<Response, Refusal> {
    no_authorization_header(request.headers())?;
    let key = idempotency_key(request.headers())?;
    let form = Form::read(request).await?;
    let credential = required_client_assertion(&form)?;
    let now = now_if_fresh(app)?;
    let (agent, _) = identify(app, credential, now, record).await?;
    check_client_id(form.get("client_id")?, &agent, CredentialRole::CLIENT)?;
    let (behalf, chain) = hint(app, &form, &agent, now, record).await?;
    let ask = Ask::parse(&form, &agent, key)?;
    record.text("capability", ask.operation.capability.as_str()).text("audience", ask.operation.audience.as_str());
    if let Some(resource) = &ask.operation.resource {
        record.text("resource", resource.as_str());
    }
    let max_expiration = {
        let catalogue = app.snapshot.catalogue();
        let approvable = may_request(&agent, &chain, &catalogue, &ask.operation);
        approvable.map_err(|denial| CredentialRole::CLIENT.denied(denial))?.max_expiration_seconds
    };
    if !app.policies.in_force() {
        let detail = "the admission policies are not in force: no approval would be honoured";
        return Err(Refusal::unavailable("policies_not_in_force", detail));
    }
    let filed = create(app, &agent, &ask, behalf, max_expiration, now).await?;
    describe(record, &filed);
    record.conclude(Outcome::Allow, "filed");
    let decide_by = filed.question.as_ref().map_or(0, |question| question.decide_by);
    json(&Acknowledgement {
        auth_req_id: filed.uid.clone(),
        // At least 1: a request that was filed before with this key, and has run out, is answered so at the first poll.
        expires_in: u64::try_from(decide_by.saturating_sub(seconds(now))).unwrap_or(0).max(1),
        interval: INTERVAL.as_secs(),
    })
}

/// Exactly one hint says on whose behalf the agent asks (CIBA Core section 7.1): its own, or that of whoever called it, by the access
/// token of ours with which it was called. With the chain that ends with the agent.
async fn hint(
    app: &App,
    form: &Form,
    agent: &RegisteredAgent,
    now: u64,
    record: &mut Record,
) -> Result<(Option<OnBehalfOf>, Chain), Refusal> {
    if form.raw("id_token_hint").is_some() {
        let description = "id_token_hint is not accepted: exchange the ID token, and be called with a token, or ask for yourself";
        return Err(Refusal::new("invalid_request", "hint_unsupported", description));
    }
    match (form.get("login_hint")?, form.get("login_hint_token")?) {
        (Some(hint), None) if hint == agent.id.to_string() => Ok((None, Chain::begin(None, agent.link(), String::new()))),
        (Some(_), None) => {
            let description = format!("login_hint must be the client itself, {}", agent.id);
            Err(Refusal::new("unknown_user_id", "hint_not_client", description))
        }
        (None, Some(token)) => {
            let (behalf, chain) = called(app, token, agent, now, record).await?;
            Ok((Some(behalf), chain))
        }
        _ => {
            let description = "exactly one of login_hint and login_hint_token must say on whose behalf the agent asks";
            Err(Refusal::malformed(description))
        }
    }
}

/// On whose behalf the agent was called with `token`, which must be one that it could exchange.
async fn called(
    app: &App,
    token: &str,
    agent: &RegisteredAgent,
    now: u64,
    record: &mut Record,
) -> Result<(OnBehalfOf, Chain), Refusal> {
    let Some(parent) = read_parent(app, token, now).await? else {
        let description =
            "login_hint_token is not an access token of this service with which an agent was called, or it has expired";
        return Err(Refusal::new("expired_login_hint_token", "hint_token_refused", description));
    };
    describe_parent(record, &parent, agent);
    let view = app.snapshot.view();
    let view = view.as_view();
    parent.admits(agent, &app.issuer, &view, now).map_err(|denial| CredentialRole::SUBJECT.denied(denial))?;
    let chain = &parent.chain;
    // As the API server knows the user: who may not approve is said in its words.
    let user = chain.user().map(|user| {
        let rules = view.issuers.look_up(&user.issuer.name).and_then(|issuer| issuer.rules.as_ref().ok());
        rules.map_or_else(|| user.name.clone(), |rules| rules.kubernetes_name(&user.name))
    });
    let ancestors = chain.ancestors().iter().cloned().chain([parent.jti.clone()]).collect();
    let behalf = OnBehalfOf {
        user,
        chain: chain.links().iter().map(|link| link.agent.to_string()).collect(),
        lineage: Some(Lineage {
            user: chain.user().map(|user| UserReference {
                name: user.name.clone(),
                issuer: user.issuer.name.clone(),
                issuer_uid: user.issuer.uid.clone(),
                epoch: user.epoch,
            }),
            links: chain.links().iter().map(|link| ChainLink { uid: link.uid.clone(), epoch: link.epoch }).collect(),
            transaction: chain.txn().to_owned(),
            ancestors,
        }),
    };
    Ok((behalf, chain.extended(&parent.jti, agent.link())))
}

impl Ask {
    fn parse(form: &Form, agent: &RegisteredAgent, key: Option<String>) -> Result<Self, Refusal> {
        let text = form.get("authorization_details")?.ok_or_else(|| {
            let description = format!("authorization_details is missing: it must have one object of type {OPERATION_DETAILS}");
            Refusal::new("invalid_request", "authorization_details_missing", description)
        })?;
        let Details { capability, resource, parameters, audience: named, expiration_seconds } = Details::parse(text)?;
        let operation = Operation { capability, resource, parameters, audience: target(named, audience(form)?, agent)? };
        scope(form, &operation.capability)?;
        Ok(Self {
            operation,
            expiration_seconds,
            decide_within: requested_expiry(form)?,
            justification: justification(form)?,
            key,
        })
    }
}

/// For whom the token will be: named in the details or as a parameter, else the agent's only audience.
fn target(in_details: Option<String>, parameter: Option<String>, agent: &RegisteredAgent) -> Result<Audience, Refusal> {
    let refuse = |description: &str| Refusal::new("invalid_target", "target_malformed", description);
    let named = match (in_details, parameter) {
        (Some(a), Some(b)) if a != b => return Err(refuse("authorization_details and the request name different audiences")),
        (Some(named), _) | (None, Some(named)) => Some(named),
        (None, None) => None,
    };
    if let Some(named) = named {
        return Audience::parse(&named).map_err(|error| refuse(&error.to_string()));
    }
    match agent.rights.as_ref().map(|rights| rights.audiences.as_slice()) {
        Ok([only]) => Ok(only.name.clone()),
        _ => Err(refuse("the agent does not have exactly one audience: name the one that the token will be for")),
    }
}

/// `scope` may repeat the capability. `openid`, which CIBA demands, changes nothing: there is no ID token.
fn scope(form: &Form, capability: &CapabilityName) -> Result<(), Refusal> {
    let Some(scope) = form.get("scope")? else { return Ok(()) };
    if scope.split(' ').any(|name| name != "openid" && name != capability.as_str()) {
        let description = format!("scope may be left out; if it is sent, it is {capability}, the capability of the operation");
        return Err(Refusal::new("invalid_scope", "scope_mismatch", description));
    }
    Ok(())
}

/// `requested_expiry` (CIBA Core section 7.1): a positive whole number of seconds.
fn requested_expiry(form: &Form) -> Result<u32, Refusal> {
    let Some(text) = form.get("requested_expiry")? else { return Ok(DECIDE_SECONDS) };
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|seconds| digits && (1..=DECIDE_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        Refusal::malformed(format!("requested_expiry must be a whole number of seconds from 1 to {DECIDE_SECONDS_MAX}"))
    })
}

/// `binding_message`: a word to whoever decides. It proves nothing, and nothing in it may hide or reorder what is shown beside it.
fn justification(form: &Form) -> Result<Option<String>, Refusal> {
    let Some(text) = form.get("binding_message")? else { return Ok(None) };
    if text.chars().count() > JUSTIFICATION_MAX || text.chars().any(|c| c.is_control() || is_invisible(c)) {
        let description = "binding_message has at most 1000 characters, and no control, invisible or text-direction characters";
        return Err(Refusal::new("invalid_binding_message", "binding_message_refused", description));
    }
    Ok(Some(text.to_owned()))
}

/// The header `Idempotency-Key`, with or without the quotes of a structured field.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => "",
    };
    let key = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let description =
            format!("Idempotency-Key must occur once, with 1 to {KEY_MAX} printable ASCII characters without spaces");
        return Err(Refusal::malformed(description).closing());
    }
    Ok(Some(key.to_owned()))
}

/// Creates the request. Its name is made from the agent's uid and the idempotency key, so that creating it is the compare-and-swap.
async fn create(
    app: &App,
    agent: &RegisteredAgent,
    ask: &Ask,
    behalf: Option<OnBehalfOf>,
    max_expiration: u32,
    now: u64,
) -> Result<Arc<Approval>, Refusal> {
    let random = || new_id().map_err(|e| Refusal::unavailable("name_unmakeable", e.to_string()));
    let key = ask.key.clone().map_or_else(random, Ok)?;
    let name = name(agent, &key);
    let api: Api<JitRequest> = Api::namespaced(app.client.clone(), agent.id.namespace());
    let id = RequestId { namespace: agent.id.namespace().to_owned(), name: name.clone() };
    let open = {
        let requests = app.snapshot.requests();
        if let Some(known) = requests.named(&id) {
            return same(known, agent, ask, behalf.as_ref());
        }
        requests.open_of_agent(agent.id.namespace(), agent.id.name(), |r| r.requester() == Some(&app.own))
    };
    let Some(_filing) = app.polls.file(&agent.id, open, OPEN_MAX) else {
        let detail = format!("{} has {OPEN_MAX} open requests, as many as it may", agent.id);
        return Err(Refusal::unavailable("too_many_requests", detail).status(StatusCode::TOO_MANY_REQUESTS));
    };
    let decide_by = Timestamp::from_second(seconds(now.saturating_add(ask.decide_within.into())));
    let spec = JitRequestSpec {
        agent: AgentReference { name: agent.id.name().to_owned(), uid: Some(agent.uid.clone()) },
        operation: ask.operation.to_spec(),
        on_behalf_of: behalf.clone(),
        justification: ask.justification.clone(),
        expiration_seconds: ask.expiration_seconds.unwrap_or(max_expiration).min(EXPIRATION_MAX),
        decide_by: Some(decide_by.map_err(|e| Refusal::unavailable("time_unusable", e.to_string()))?.to_string()),
        ttl_seconds_after_finished: None,
        requested_by: Some(app.own.clone()),
    };
    let unwritable = |error: kube::Error| Refusal::unavailable("request_unwritable", crate::error_chain(&error));
    let unreadable = || Refusal::unavailable("request_unreadable", "the stored request cannot be read");
    match api.create(&writing(), &JitRequest::new(&name, spec)).await {
        Ok(stored) => taken_in(app, stored).ok_or_else(unreadable),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let stored = api.get(&name).await.map_err(unwritable)?;
            same(taken_in(app, stored).ok_or_else(unreadable)?, agent, ask, behalf.as_ref())
        }
        Err(error) => Err(unwritable(error)),
    }
}

/// The request that an earlier call with the same key has filed, if it asked the same.
fn same(known: Arc<Approval>, agent: &RegisteredAgent, ask: &Ask, behalf: Option<&OnBehalfOf>) -> Result<Arc<Approval>, Refusal> {
    let life = ask.expiration_seconds.is_none_or(|seconds| seconds == known.spec.expiration_seconds);
    let operation = known.question.as_ref().is_ok_and(|question| question.operation == ask.operation);
    // The agent may have been called again meanwhile, with another token of the same chain.
    let txn = |behalf: &OnBehalfOf| behalf.lineage.as_ref().map(|lineage| lineage.transaction.clone());
    let called = known.spec.on_behalf_of.as_ref().map(txn) == behalf.map(txn);
    if known.spec.agent.uid.as_deref() == Some(&agent.uid) && operation && life && called {
        return Ok(known);
    }
    Err(Refusal::malformed("this Idempotency-Key was used before, for another operation: use a new one"))
}

/// The name of the request that an agent files with a key: 80 bits of a hash, behind the agent's name for people.
fn name(agent: &RegisteredAgent, key: &str) -> String {
    let text = format!("{}\n{key}", agent.uid);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().take(10).fold(format!("{}-", agent.id.name()), |mut name, byte| {
        // Writing into a String cannot fail.
        _ = write!(name, "{byte:02x}");
        name
    })
}
