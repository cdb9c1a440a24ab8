//! Token exchange (RFC 8693): on whose behalf an agent comes, and with what it says so.
//!
//! The subject is a user, by an ID token, or whoever the agent was called by, with an access token of ours that was issued for this agent.
//! The actor is always the agent that presents it, by its own credential: a client assertion, or an actor token.

use super::caller::Presented;
use super::error::{CredentialRole, Refusal};
use super::form::Form;
use super::introspect::describe_chain;
use super::{App, read_back};
use crate::agent::RegisteredAgent;
use crate::audit::Record;
use crate::decision::{Parent, Subject};

/// Token types (RFC 8693 section 3).
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
pub(super) const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// What only this service says. A client that sends one of them wants something that it will not get.
const OURS_TO_SAY: [&str; 3] = ["act", "may_act", "claims"];

/// The tokens of an exchange.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) subject: SubjectToken<'a>,
    /// What proves the agent, if the client assertion does not.
    own: Option<Presented<'a>>,
}

/// On whose behalf an agent says to come.
#[derive(Debug, Clone, Copy)]
pub(super) enum SubjectToken<'a> {
    /// Its own: the subject token is what proves the agent.
    Itself,
    /// A user's, with this ID token.
    User(&'a str),
    /// That of whoever called it, with this access token of ours.
    Access(&'a str),
}

impl<'a> Exchange<'a> {
    /// Reads the parameters (RFC 8693 section 2.1).
    pub(super) fn parse(form: &'a Form) -> Result<Self, Refusal> {
        if let Some(name) = OURS_TO_SAY.into_iter().find(|name| form.raw(name).is_some()) {
            let description = format!("parameter {name} is not accepted: who acts for whom is said by this service alone");
            return Err(Refusal::new("invalid_request", "claims_supplied", description));
        }
        let token = form.require("subject_token")?;
        let actor = match (form.get("actor_token")?, form.get("actor_token_type")?) {
            (None, None) => None,
            (None, Some(_)) => return Err(Refusal::malformed("actor_token_type is sent without actor_token")),
            (Some(token), Some(TYPE_JWT)) => Some(Presented { token, role: CredentialRole::SUBJECT }),
            (Some(_), _) => {
                let description = format!("actor_token_type must be {TYPE_JWT}: the token that proves which agent asks");
                return Err(Refusal::malformed(description));
            }
        };
        match form.get("requested_token_type")? {
            None | Some(TYPE_ACCESS_TOKEN | TYPE_JWT) => {}
            Some(_) => return Err(Refusal::malformed(format!("requested_token_type must be {TYPE_ACCESS_TOKEN}"))),
        }
        match (form.require("subject_token_type")?, actor) {
            (TYPE_JWT, None) => {
                Ok(Self { subject: SubjectToken::Itself, own: Some(Presented { token, role: CredentialRole::SUBJECT }) })
            }
            (TYPE_JWT, Some(_)) => {
                let description = "a subject token of type jwt proves the agent itself: there is no other actor";
                Err(Refusal::malformed(description))
            }
            (TYPE_ID_TOKEN, own) => Ok(Self { subject: SubjectToken::User(token), own }),
            (TYPE_ACCESS_TOKEN, own) => Ok(Self { subject: SubjectToken::Access(token), own }),
            _ => Err(Refusal::malformed(format!(
                "subject_token_type must be {TYPE_JWT} for a token that proves which agent asks, {TYPE_ID_TOKEN} for a user's ID token, or \
                 {TYPE_ACCESS_TOKEN} for the access token with which the agent was called"
            ))),
        }
    }

    /// What proves the agent, and a second proof beside it if there is one.
    pub(super) fn credentials(&self, client: Option<Presented<'a>>) -> Result<(Presented<'a>, Option<Presented<'a>>), Refusal> {
        match (self.subject, self.own, client) {
            (SubjectToken::Itself, Some(own), client) => Ok((own, client)),
            (_, own, Some(client)) => Ok((client, own)),
            (_, Some(own), None) => Ok((own, None)),
            (_, None, None) => {
                let description =
                    "the agent that exchanges a token must prove which it is: with client_assertion, or with actor_token";
                Err(Refusal::new("invalid_request", "actor_missing", description))
            }
        }
    }
}

/// Verifies the ID token of the user for whom an agent wants to act.
pub(super) async fn user(app: &App, token: &str, now: u64, record: &mut Record) -> Result<Subject, Refusal> {
    let verified = app.verifier.user(token, &app.snapshot, now).await;
    let user = verified.map_err(|error| CredentialRole::SUBJECT.unidentified(&error))?;
    record
        .text("user", format!("user:{}", user.name.name))
        .text("trusted_issuer", user.issuer.as_str())
        .text("user_subject", user.subject.as_str());
    if let Some(id) = &user.token_id {
        record.text("user_token_id", id.as_str());
    }
    Ok(Subject::User(Box::new(user)))
}

/// Reads the access token with which `agent` was called.
pub(super) async fn parent(
    app: &App,
    token: &str,
    agent: &RegisteredAgent,
    now: u64,
    record: &mut Record,
) -> Result<Subject, Refusal> {
    let refuse = |reason, description: &str| Refusal::new("invalid_request", reason, description);
    let Some(parent) = read_parent(app, token, now).await? else {
        let description = "the subject token is not an access token of this service that can be exchanged, or it has expired";
        return Err(refuse("subject_token_refused", description));
    };
    describe_parent(record, &parent, agent);
    Ok(Subject::Token(Box::new(parent)))
}

/// What a token of ours says with which an agent was called. `None` if it is no token that anybody can be called with.
pub(super) async fn read_parent(app: &App, token: &str, now: u64) -> Result<Option<Parent>, Refusal> {
    let claims = read_back(app, token, now).await?.filter(|claims| matches!(claims.operation(), Ok(None)));
    Ok(claims.and_then(|claims| {
        Some(Parent {
            chain: claims.chain()?,
            capabilities: claims.capabilities()?,
            jti: claims.jti.clone(),
            audience: claims.aud.clone(),
            may_act: claims.may_act.clone(),
            expires_at: claims.exp,
            is_bound: claims.cnf.is_some(),
        })
    }))
}

/// Writes into the record with what `agent` comes; of what is not addressed to it only which token it is.
pub(super) fn describe_parent(record: &mut Record, parent: &Parent, agent: &RegisteredAgent) {
    if parent.audience != agent.id.to_string() {
        record.text("parent_jti", parent.jti.as_str());
        return;
    }
    describe_chain(record, &parent.chain.extended(&parent.jti, agent.link()));
}
