//! Who calls: an agent with any of its credentials, or a resource server with its ServiceAccount token.

use super::App;
use super::error::{CredentialRole, Refusal};
use super::form::Form;
use crate::agent::{Admission, RegisteredAgent};
use crate::audit::Record;
use crate::decision::{Denial, Reason};
use crate::identity::{Accepts, Caller, Holder};
use axum::http::{HeaderMap, header};
use std::sync::Arc;
use std::time::Duration;

/// `client_assertion_type` (RFC 7523 section 2.2).
pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The same for a JWT-SVID (draft-ietf-oauth-spiffe-client-auth). What is presented says itself what it is.
const SPIFFE_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// How long a request waits for the controller to judge a generation that was written a moment ago.
const JUDGEMENT_PATIENCE: Duration = Duration::from_secs(2);

/// One credential in a request, and how its refusal is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presented<'a> {
    /// The credential.
    pub token: &'a str,
    /// In which role it was sent.
    pub role: CredentialRole,
}

/// The client assertion of a request (RFC 7521 section 4.2), if there is one.
pub(super) fn client_assertion(form: &Form) -> Result<Option<Presented<'_>>, Refusal> {
    let client = match (form.get("client_assertion_type")?, form.get("client_assertion")?) {
        (None, None) => None,
        (Some(ASSERTION_TYPE | SPIFFE_ASSERTION_TYPE), Some(token)) => Some(Presented { token, role: CredentialRole::CLIENT }),
        (Some(ASSERTION_TYPE | SPIFFE_ASSERTION_TYPE), None) => return Err(Refusal::malformed("client_assertion is missing")),
        (None, Some(_)) => return Err(Refusal::malformed("client_assertion_type is missing")),
        (Some(_), _) => {
            let description = format!("client_assertion_type must be {ASSERTION_TYPE}");
            return Err(Refusal::unauthenticated("client_assertion_type_unsupported", description));
        }
    };
    if form.raw("client_secret").is_some() {
        let description = "there are no client secrets here: send client_assertion";
        return Err(Refusal::unauthenticated("client_authentication_unsupported", description));
    }
    Ok(client)
}

/// The client assertion of a request that must have one.
pub(super) fn required_client_assertion(form: &Form) -> Result<Presented<'_>, Refusal> {
    client_assertion(form)?.ok_or_else(|| {
        let description = "the client must authenticate with client_assertion and client_assertion_type";
        Refusal::unauthenticated("client_assertion_missing", description)
    })
}

/// The Authorization header is no way to authenticate at an endpoint that takes client assertions (RFC 7521 section 4.2: one way).
pub(super) fn no_authorization_header(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::AUTHORIZATION) {
        let description = "the Authorization header is not a way to authenticate here: send client_assertion";
        return Err(Refusal::unauthenticated("client_authentication_unsupported", description).challenged().closing());
    }
    Ok(())
}

/// If a request says `client_id`, it must name the agent to which the credential belongs.
pub(super) fn check_client_id(client_id: Option<&str>, agent: &RegisteredAgent, role: CredentialRole) -> Result<(), Refusal> {
    if client_id.is_some_and(|client_id| client_id != agent.id.to_string()) {
        let description = "client_id does not name the agent to which the credential belongs; it may be left out";
        return Err(Refusal::new(role.error, "client_id_mismatch", description).status(role.status));
    }
    Ok(())
}

/// Verifies a credential and finds the agent to which it belongs.
pub(super) async fn identify(
    app: &App,
    presented: Presented<'_>,
    now: u64,
    record: &mut Record,
) -> Result<(Arc<RegisteredAgent>, Caller), Refusal> {
    let verified = app.verifier.verify(presented.token, presented.role.accepts, &app.snapshot, now).await;
    let caller = verified.map_err(|error| presented.role.unidentified(&error))?;
    describe_caller(record, &caller);
    let agent = agent_of(app, &caller, presented.role, record).await?;
    app.limits.agent(&agent.uid)?;
    Ok((agent, caller))
}

/// Counts a request of whoever proved to be `caller`: an agent, or a resource server.
pub(super) fn count(app: &App, caller: &Caller) -> Result<(), Refusal> {
    match caller.agent(&app.snapshot) {
        Some(agent) => app.limits.agent(&agent.uid),
        None => app.limits.resource_server(&caller.describe()),
    }
}

/// Verifies a credential that was verified a while ago again, and finds the agent to which it belongs now.
pub(super) async fn identify_again(
    app: &App,
    presented: Presented<'_>,
    caller: &Caller,
    now: u64,
    record: &mut Record,
) -> Result<(Arc<RegisteredAgent>, Caller), Refusal> {
    let verified = app.verifier.verify_again(presented.token, caller, &app.snapshot, now).await;
    let caller = verified.map_err(|error| presented.role.unidentified(&error))?;
    let agent = agent_of(app, &caller, presented.role, record).await?;
    Ok((agent, caller))
}

/// The agent to which the credential of a caller belongs.
async fn agent_of(
    app: &App,
    caller: &Caller,
    role: CredentialRole,
    record: &mut Record,
) -> Result<Arc<RegisteredAgent>, Refusal> {
    let find = || caller.agent(&app.snapshot);
    let Some(agent) = find() else {
        let message = format!("no Agent claims {}", caller.describe());
        return Err(role.denied(Denial { reason: Reason::AgentUnknown, message }));
    };
    let agent = judged(app, agent, find).await;
    record
        .text("subject", agent.id.to_string())
        .text("agent_uid", agent.uid.as_str())
        .number("agent_generation", u64::try_from(agent.generation).unwrap_or_default());
    Ok(agent)
}

/// The agent, once its generation is judged: one that was written a moment ago is about to be.
pub(super) async fn judged(
    app: &App,
    agent: Arc<RegisteredAgent>,
    find: impl Fn() -> Option<Arc<RegisteredAgent>>,
) -> Arc<RegisteredAgent> {
    if agent.admission != Admission::Pending || agent.suspended || agent.deleting {
        return agent;
    }
    let judged = |_: &crate::snapshot::Snapshot| find().filter(|a| a.admission != Admission::Pending);
    app.snapshot.wait_for(JUDGEMENT_PATIENCE, judged).await.unwrap_or(agent)
}

/// Writes into the record who presented the credential.
pub(super) fn describe_caller(record: &mut Record, caller: &Caller) {
    match &caller.holder {
        Holder::ServiceAccount(account) => {
            record.text("service_account", account.username()).text("service_account_uid", account.uid.to_string());
            if let Some(pod) = &account.pod {
                record.text("pod", pod.name.as_str()).text("pod_uid", pod.uid.to_string());
            }
        }
        Holder::Key(key) => {
            record.text("key_thumbprint", key.thumbprint.as_str());
        }
        Holder::Workload(workload) => {
            record.text("trusted_issuer", workload.issuer.as_str()).text("federated_subject", workload.subject.as_str());
        }
    }
    if let Some(id) = &caller.credential_id {
        record.text("credential_id", id.as_str());
    }
}

/// The token in the Authorization header, if there is one (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let token =
                value.to_str().ok().and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let unsupported = || {
                Refusal::unauthenticated(
                    "client_authentication_unsupported",
                    "the Authorization header must be 'Bearer <token>', a ServiceAccount token",
                )
            };
            token.map(|(_, token)| Some(token.to_owned())).ok_or_else(|| unsupported().challenged().closing())
        }
        (Some(_), Some(_)) => Err(Refusal::malformed("the Authorization header occurs more than once").closing()),
    }
}

/// Whoever calls: an agent or a resource server, by its own projected token, in the Authorization header or as client assertion.
pub(super) async fn authenticate(
    app: &App,
    bearer: Option<&str>,
    form: &Form,
    now: u64,
    record: &mut Record,
) -> Result<Caller, Refusal> {
    let assertion = form.get("client_assertion")?;
    let (token, accepts) = match (bearer, assertion) {
        (Some(token), None) => (token, Accepts::Tokens),
        (None, Some(token)) => match form.get("client_assertion_type")? {
            Some(ASSERTION_TYPE | SPIFFE_ASSERTION_TYPE) => (token, Accepts::Assertions),
            _ => return Err(Refusal::malformed(format!("client_assertion_type must be {ASSERTION_TYPE}"))),
        },
        (Some(_), Some(_)) => {
            return Err(Refusal::malformed("authenticate in one way: by the Authorization header or by client_assertion"));
        }
        (None, None) => {
            let description = "the caller must authenticate: with its own ServiceAccount token, as Bearer token or as client_assertion, or an agent with its client_assertion";
            return Err(Refusal::unauthenticated("caller_unauthenticated", description).challenged());
        }
    };
    match app.verifier.verify(token, accepts, &app.snapshot, now).await {
        Ok(caller) => {
            describe_caller(record, &caller);
            count(app, &caller)?;
            // A resource server has no client_id that it could be held against.
            if bearer.is_none()
                && let Some(agent) = caller.agent(&app.snapshot)
            {
                check_client_id(form.get("client_id")?, &agent, CredentialRole::CLIENT)?;
            }
            Ok(caller)
        }
        Err(error) => {
            let refusal = CredentialRole::CLIENT.unidentified(&error);
            Err(if bearer.is_some() { refusal.challenged() } else { refusal })
        }
    }
}
