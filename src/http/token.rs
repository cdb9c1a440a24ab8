//! `POST /oauth2/token`: the way of every grant, and there is one.
//!
//! The grants differ only in the parameter that holds the credential and in the error code that their standards
//! give to its refusal. Everything else is shared: who is this, may it, sign, record. Only a poll for an approved operation
//! ([`super::poll`]) has its permit from elsewhere in `decision`, and may wait for it.

use super::caller::{Presented, check_client_id, client_assertion, identify, no_authorization_header};
use super::details::Details;
use super::error::{CredentialRole, Refusal};
use super::exchange::{Exchange, SubjectToken, TYPE_ACCESS_TOKEN};
use super::form::Form;
use super::introspect::describe_chain;
use super::poll::{self, CIBA, Poll};
use super::possession::{Shown, shown, spend};
use super::{App, begin, bounded, exchange, finish, json, now_if_fresh};
use crate::agent::RegisteredAgent;
use crate::audit::{Outcome, Record};
use crate::decision::{Ask, Attempt, Case, Decision, Permit, Subject, decide};
use crate::grammar::CapabilityName;
use crate::identity::Caller;
use crate::token::{Minted, mint, new_id};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use serde::Serialize;
use serde_json::Map;
use std::sync::Arc;

/// Grant types.
pub(super) const CLIENT_CREDENTIALS: &str = "client_credentials";
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A grant request: what proves the agent, a client assertion beside it if there is one, and what is asked.
#[derive(Debug)]
struct GrantRequest<'a> {
    credential: Presented<'a>,
    client: Option<Presented<'a>>,
    /// On whose behalf the agent says to come.
    subject: SubjectToken<'a>,
    client_id: Option<&'a str>,
    ask: Ask,
    /// Whether the reply names the type of the token (RFC 8693 section 2.2.1).
    exchange: bool,
}

#[derive(Debug, Serialize)]
struct TokenResponse {
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
    token_type: &'static str,
    expires_in: u64,
    scope: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_details: Vec<crate::token::AuthorizationDetails>,
}

/// The path of the endpoint.
pub(super) const PATH: &str = "/oauth2/token";

/// What a request leads to.
enum Answer {
    /// A reply.
    Reply(Response),
    /// A request for approval that is to be looked at, and waited for if nobody has decided.
    Poll(Box<Poll>),
}

/// The endpoint.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let record = begin("token.issue", &request);
    let (record, answer) = bounded(&app, request, record, |app, request, mut record| async move {
        let answer = answer(&app, request, &mut record).await;
        (record, answer)
    })
    .await;
    match answer {
        Ok(Answer::Reply(response)) => finish(&app, record, Ok(response)).await,
        Ok(Answer::Poll(poll)) => poll::answer(app, *poll, record).await,
        Err(refusal) => finish(&app, record, Err(refusal)).await,
    }
}

async fn answer(app: &Arc<App>, request: Request<Body>, record: &mut Record) -> Result<Answer, Refusal> {
    no_authorization_header(request.headers())?;
    let headers = request.headers().clone();
    let form = Form::read(request).await?;
    if form.get("grant_type")? == Some(CIBA) {
        return poll::begin(app, &headers, &form, record).await.map(Box::new).map(Answer::Poll);
    }
    issue(app, &headers, &form, record).await.map(Answer::Reply)
}

async fn issue(app: &App, headers: &HeaderMap, form: &Form, record: &mut Record) -> Result<Response, Refusal> {
    let request = GrantRequest::parse(form, record)?;
    let now = now_if_fresh(app)?;
    let shown = shown(app, headers, PATH, now)?;
    let (agent, caller) = request.authenticate(app, now, record).await?;
    let subject = request.subject(app, &agent, now, record).await?;
    let id = || new_id().map_err(|e| Refusal::unavailable("signing_failed", e.to_string()));
    let (txn, jti) = (id()?, id()?);
    let case = Case {
        agent: &agent,
        proof: caller.proof(),
        credential_expires_at: caller.expires_at(),
        confirmation: shown.as_ref().map(Shown::confirmation),
        subject: &subject,
        ask: &request.ask,
        txn,
        issuer: &app.issuer,
    };
    let decision = decide(&case, &app.snapshot.view().as_view(), now);
    let permit = match decision {
        Decision::Allow(permit) => permit,
        Decision::Deny(denial) => return Err(request.credential.role.denied(denial)),
    };
    spend(app, shown.as_ref(), now).await?;
    let mut response = reply(app, &permit, jti, request.exchange.then_some(TYPE_ACCESS_TOKEN), now, record)?;
    if let Some(shown) = &shown {
        shown.renew(&mut response);
    }
    Ok(response)
}

/// Signs what was decided, writes it into the record, and makes the reply.
pub(super) fn reply(
    app: &App,
    permit: &Permit,
    jti: String,
    issued_token_type: Option<&'static str>,
    now: u64,
    record: &mut Record,
) -> Result<Response, Refusal> {
    let minted =
        mint(permit, &app.issuer, &app.keys.current(), jti).map_err(|e| Refusal::unavailable("signing_failed", e.to_string()))?;
    describe(record, permit, &minted);
    json(&TokenResponse {
        access_token: minted.token,
        issued_token_type,
        token_type: minted.claims.token_type(),
        expires_in: permit.expires_at().saturating_sub(now),
        scope: minted.claims.scope,
        authorization_details: minted.claims.authorization_details,
    })
}

/// Writes into the record what is issued: everything but the token.
fn describe(record: &mut Record, permit: &Permit, minted: &Minted) {
    describe_chain(record, permit.chain());
    if let Some(confirmation) = permit.confirmation() {
        record.text("bound_to", confirmation.jkt.as_str());
    }
    record
        .text("audience", permit.audience().as_str())
        .text("scope", minted.claims.scope.as_str())
        .text("jti", minted.claims.jti.as_str())
        .text("key_id", minted.kid.as_str())
        .number("issued_at", permit.issued_at())
        .number("expires_at", permit.expires_at())
        .conclude(Outcome::Allow, "granted");
}

impl<'a> GrantRequest<'a> {
    fn parse(form: &'a Form, record: &mut Record) -> Result<Self, Refusal> {
        let grant = form.require("grant_type")?;
        record.text("grant_type", grant);
        for parameter in ["scope", "audience", "resource"] {
            let values: Vec<&str> = form.all(parameter).collect();
            if !values.is_empty() {
                record.text(asked_field(parameter), values.join(" "));
            }
        }
        let client = client_assertion(form)?;
        let mut subject = SubjectToken::Itself;
        let (credential, client) = match grant {
            CLIENT_CREDENTIALS => match client {
                Some(presented) => (presented, None),
                None => {
                    let description = "client_credentials needs client_assertion and client_assertion_type";
                    return Err(Refusal::unauthenticated("client_assertion_missing", description));
                }
            },
            JWT_BEARER => (Presented { token: form.require("assertion")?, role: CredentialRole::GRANT }, client),
            TOKEN_EXCHANGE => {
                let exchange = Exchange::parse(form)?;
                subject = exchange.subject;
                exchange.credentials(client)?
            }
            _ => {
                let description = format!("grant_type must be {CLIENT_CREDENTIALS}, {JWT_BEARER}, {TOKEN_EXCHANGE} or {CIBA}");
                return Err(Refusal::new("unsupported_grant_type", "grant_type_unsupported", description));
            }
        };
        let ask = ask(form)?;
        if let Some(attempt) = &ask.operation {
            record.text("capability", attempt.capability.as_str());
            if let Some(resource) = &attempt.resource {
                record.text("resource", resource.as_str());
            }
        }
        Ok(Self { credential, client, subject, client_id: form.get("client_id")?, ask, exchange: grant == TOKEN_EXCHANGE })
    }

    /// On whose behalf the agent comes, verified.
    async fn subject(&self, app: &App, agent: &RegisteredAgent, now: u64, record: &mut Record) -> Result<Subject, Refusal> {
        match self.subject {
            SubjectToken::Itself => Ok(Subject::Itself),
            SubjectToken::User(token) => exchange::user(app, token, now, record).await,
            SubjectToken::Access(token) => exchange::parent(app, token, agent, now, record).await,
        }
    }

    /// Who is this? The agent to which the credential belongs, and nobody else's.
    async fn authenticate(&self, app: &App, now: u64, record: &mut Record) -> Result<(Arc<RegisteredAgent>, Caller), Refusal> {
        let role = self.credential.role;
        let (agent, caller) = identify(app, self.credential, now, record).await?;
        check_client_id(self.client_id, &agent, role)?;
        if let Some(client) = self.client {
            let mut discarded = record.clone();
            let (other, _) = identify(app, client, now, &mut discarded).await?;
            if other.uid != agent.uid {
                let description = "client_assertion and the credential belong to different agents";
                return Err(Refusal::unauthenticated("client_mismatch", description));
            }
        }
        Ok((agent, caller))
    }
}

/// What is asked for: capabilities, or one operation (RFC 9396 section 5), and for whom.
fn ask(form: &Form) -> Result<Ask, Refusal> {
    let (capabilities, audience) = (capabilities(form)?, audience(form)?);
    let Some(text) = form.get("authorization_details")? else { return Ok(Ask { capabilities, audience, operation: None }) };
    let Details { capability, resource, parameters, audience: named, expiration_seconds } = Details::parse(text)?;
    if capabilities.is_some_and(|scope| scope.iter().any(|name| *name != capability)) {
        let description = format!("scope may be left out; if it is sent, it is {capability}, the capability of the operation");
        return Err(Refusal::new("invalid_scope", "scope_mismatch", description));
    }
    if expiration_seconds.is_some() {
        let description = "expiration_seconds is for operations that a person approves: ask at /oauth2/bc-authorize";
        return Err(Refusal::new("invalid_authorization_details", "authorization_details_malformed", description));
    }
    if audience.as_ref().zip(named.as_ref()).is_some_and(|(one, other)| one != other) {
        let description = "authorization_details and the request name different audiences";
        return Err(Refusal::new("invalid_target", "target_malformed", description));
    }
    let operation = Attempt { capability, resource, parameters, resource_properties: Map::new(), context: Map::new() };
    Ok(Ask { capabilities: None, audience: audience.or(named), operation: Some(operation) })
}

/// The scope (RFC 6749 section 3.3): names separated by single spaces, each exactly a capability name.
pub(super) fn capabilities(form: &Form) -> Result<Option<Vec<CapabilityName>>, Refusal> {
    let Some(scope) = form.raw("scope") else { return Ok(None) };
    let names = scope.split(' ').map(CapabilityName::parse).collect::<Result<Vec<_>, _>>();
    names.map(Some).map_err(|error| {
        Refusal::new(
            "invalid_scope",
            "scope_malformed",
            format!("scope is a list of capability names, separated by single spaces: {error}"),
        )
    })
}

/// The one audience that `audience` and `resource` name (RFC 8693 section 2.1, RFC 8707 section 2).
pub(super) fn audience(form: &Form) -> Result<Option<String>, Refusal> {
    let refuse = |description: &str| Refusal::new("invalid_target", "target_malformed", description);
    let mut named: Option<&str> = None;
    for (parameter, value) in ["audience", "resource"].iter().flat_map(|p| form.all(p).map(move |v| (*p, v))) {
        if value.is_empty() {
            return Err(refuse(&format!("parameter {parameter} is empty: leave it out if it is not meant")));
        }
        if parameter == "resource" && !is_absolute(value) {
            return Err(refuse("resource must be an absolute URI without fragment (RFC 8707 section 2)"));
        }
        if named.is_some_and(|before| before != value) {
            return Err(refuse("a token is for one audience: ask for each in a request of its own"));
        }
        named = Some(value);
    }
    Ok(named.map(str::to_owned))
}

/// Whether this is an absolute URI (RFC 3986 section 4.3). It need not be one of a server: `urn:example:docs`, `agent:tools/search`.
fn is_absolute(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            && rest.starts_with(|c| c != '?')
            && rest.bytes().all(|b| b.is_ascii_graphic() && !br##""#<>\^`{|}"##.contains(&b))
    })
}

/// The name in the record of a parameter that says what is asked.
fn asked_field(parameter: &str) -> &'static str {
    match parameter {
        "scope" => "requested_scope",
        "audience" => "requested_audience",
        _ => "requested_resource",
    }
}

#[cfg(test)]
mod tests {
    use super::is_absolute;

    #[test]
    fn x2_a_resource_is_an_absolute_uri_of_any_scheme() {
        for absolute in
            ["https://docs.example.com", "https://docs.example.com/a?b=c", "urn:example:docs", "agent:tools/search-tool"]
        {
            assert!(is_absolute(absolute), "{absolute}");
        }
        for other in
            ["", "/docs", "docs", "//docs.example.com", ":docs", "urn:", "urn:?a", "1a:b", "a b:c", "urn:a b", "urn:a#b", "urn:ä"]
        {
            assert!(!is_absolute(other), "{other}");
        }
    }
}
