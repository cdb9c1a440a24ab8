//! One question answered: who may ask it, of whom, and what is said beside yes or no.

use super::question::{Circumstances, Question, Subject};
use crate::audit::{Outcome, Record};
use crate::decision::{Attempt, Claimed, Denial, Query, Reason, evaluate, is_that, requestable};
use crate::grammar::AgentId;
use crate::http::caller::judged;
use crate::http::complete::is_agent_of;
use crate::http::error::Refusal;
use crate::http::introspect::{Said, describe_token, may_introspect};
use crate::http::poll::{CIBA, seconds};
use crate::http::{App, read_back};
use crate::identity::Caller;
use crate::jit::{self, Claim};
use crate::json::put;
use crate::operation::Operation;
use crate::token::OPERATION_DETAILS;
use serde_json::{Value, json};

/// Why not, for whoever asked.
#[derive(Debug, Clone)]
pub(in crate::http) struct No {
    pub(in crate::http) code: &'static str,
    pub(in crate::http) message: String,
    rule: Option<&'static str>,
    /// What a person could approve.
    pub(in crate::http) request: Option<Operation>,
}

/// An approval that waits for the agent that asked for it.
#[derive(Debug, Clone)]
pub(in crate::http) struct Waiting {
    auth_req_id: String,
    redeem_by: Option<String>,
}

/// An answer: yes, and by which approval if by one, or why not.
pub(in crate::http) type Answer = Result<Option<Waiting>, Box<No>>;

impl From<Denial> for Box<No> {
    fn from(denial: Denial) -> Self {
        let (code, rule) = (denial.reason.code(), Some(denial.reason.rule()));
        Self::new(No { code, message: denial.message, rule, request: None })
    }
}

fn no(code: &'static str, message: &str) -> Box<No> {
    Box::new(No { code, message: message.to_owned(), rule: None, request: None })
}

/// Answers one question of `caller`.
///
/// # Errors
/// If nobody can tell now.
pub(in crate::http) async fn judge(
    app: &App,
    caller: &Caller,
    question: &Question,
    now: u64,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    describe(record, question);
    let attempt = match &question.attempt {
        Ok(attempt) => attempt,
        Err(denial) => return Ok(Err(denial.clone().into())),
    };
    let answer = match &question.circumstances.token {
        Some(token) => by_token(app, caller, token, question, attempt, now, record).await?,
        None => by_name(app, caller, question, attempt, now, record).await?,
    };
    if let Err(no) = &answer
        && passing(no)
    {
        // Not a decision yet, and the next answer may be another.
        return Err(Refusal::unavailable(no.code, no.message.as_str()));
    }
    Ok(answer)
}

fn passing(no: &No) -> bool {
    [Reason::AgentPending, Reason::RulePending].iter().any(|reason| reason.code() == no.code)
}

/// By the access token that an agent has presented.
async fn by_token(
    app: &App,
    caller: &Caller,
    token: &str,
    question: &Question,
    attempt: &Attempt,
    now: u64,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let Some(claims) = read_back(app, token, now).await? else {
        return Ok(Err(no("token_unknown_or_expired", "context.access_token is no access token of this service that is alive")));
    };
    if !is_agent_of(app, caller, &claims) && !may_introspect(app, caller, &claims).await? {
        // As at introspection: whoever may not ask learns nothing of it.
        let message = "the caller is neither the agent of the token nor somebody with verb introspect on its audience";
        return Ok(Err(no("caller_may_not_introspect", message)));
    }
    describe_token(record, &claims);
    let is_meant = match &question.subject {
        Subject::Agent(agent, _) => agent.to_string() == claims.client_id || agent.to_string() == claims.sub,
        Subject::User(user) => claims.sub.strip_prefix("user:") == Some(user),
        Subject::Other => false,
    };
    if !is_meant {
        let message = "subject is neither the agent to which the token was issued nor whom it acts for";
        return Ok(Err(no("subject_mismatch", message)));
    }
    let said = match Said::read(&claims).and_then(|said| said.to_be_done(app).map(|()| said)) {
        Ok(said) => said,
        Err(code) => return Ok(Err(no(code, "the token is not alive any more"))),
    };
    let query = Query { claimed: Claimed::Token(said.issued()), attempt };
    let view = app.snapshot.view();
    let view = view.as_view();
    Ok(evaluate(query, &view, now).map(|()| None).map_err(|denial| {
        let request = (denial.reason == Reason::ApprovalRequired || denial.reason == Reason::CapabilityNotGranted)
            .then(|| requestable(query, Some(&claims.aud), &view))
            .flatten();
        Box::new(No { request, ..*Box::<No>::from(denial) })
    }))
}

/// By what an agent is, without any token.
async fn by_name(
    app: &App,
    caller: &Caller,
    question: &Question,
    attempt: &Attempt,
    now: u64,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let (id, user) = match &question.subject {
        Subject::Agent(id, user) => (id, user.as_deref()),
        Subject::User(_) => {
            let message = "a user does nothing here but through an agent: name that, or send its token in context.access_token";
            return Ok(Err(no("subject_unknown", message)));
        }
        Subject::Other => return Ok(Err(no("subject_unknown", "subject is neither an agent ('agent') nor a user ('user')"))),
    };
    let itself = is(app, caller, id);
    if !itself && !app.authority.may_evaluate(caller, id).await? {
        let message = "the caller is not that agent, and does not have verb evaluate on it";
        return Ok(Err(no("caller_may_not_evaluate", message)));
    }
    let Some(agent) = app.snapshot.agent(id) else {
        let (reason, message) = (Reason::AgentUnknown, format!("no Agent {id} is registered"));
        return Ok(Err(Denial { reason, message }.into()));
    };
    let agent = judged(app, agent, || app.snapshot.agent(id)).await;
    record.text("agent_uid", agent.uid.as_str());
    let path = [&*agent];
    let query = Query { claimed: Claimed::Name(&path, user), attempt };
    let denial = match evaluate(query, &app.snapshot.view().as_view(), now) {
        Ok(()) => return Ok(Ok(None)),
        Err(denial) => denial,
    };
    if denial.reason != Reason::ApprovalRequired {
        return Ok(Err(denial.into()));
    }
    // What was approved is the agent's alone to use, and once: others are told when it presents the token.
    if itself && let Some(waiting) = waiting(app, id, &agent.uid, user, attempt, now) {
        return Ok(Ok(Some(waiting)));
    }
    let request = requestable(query, question.circumstances.audience.as_deref(), &app.snapshot.view().as_view());
    Ok(Err(Box::new(No { request, ..*Box::<No>::from(denial) })))
}

/// Whether the caller is that agent.
fn is(app: &App, caller: &Caller, id: &AgentId) -> bool {
    caller.agent(&app.snapshot).is_some_and(|agent| agent.id == *id)
}

/// An approval of exactly that, which the agent has yet to turn into its token.
fn waiting(app: &App, id: &AgentId, uid: &str, user: Option<&str>, attempt: &Attempt, now: u64) -> Option<Waiting> {
    if !app.policies.in_force() {
        return None;
    }
    let requests = app.snapshot.requests();
    requests.of_agent(id.namespace(), id.name()).find_map(|request| {
        let Ok(Claim::Redeemable(approval)) = jit::claim(request, &app.evidence, seconds(now)) else { return None };
        let question = approval.question();
        let behalf = question.callers.as_ref().and_then(|chain| chain.user()).map(|user| user.name.as_str());
        let fits = approval.agent_uid() == uid && behalf == user && is_that(&question.operation, attempt).is_ok();
        fits.then(|| Waiting {
            auth_req_id: request.uid.clone(),
            redeem_by: request.status.redeem_by.as_ref().map(|time| time.0.to_string()),
        })
    })
}

/// Writes into the record what was asked.
fn describe(record: &mut Record, question: &Question) {
    match &question.subject {
        Subject::Agent(id, user) => {
            record.text("asked_subject", id.to_string());
            if let Some(user) = user {
                record.text("asked_user", format!("user:{user}"));
            }
        }
        Subject::User(user) => _ = record.text("asked_user", format!("user:{user}")),
        Subject::Other => {}
    }
    if let Ok(attempt) = &question.attempt {
        record.text("capability", attempt.capability.as_str());
        if let Some(resource) = &attempt.resource {
            record.text("resource", resource.as_str());
        }
    }
}

/// Writes into the record what was answered.
pub(in crate::http) fn conclude(record: &mut Record, answer: &Answer) {
    match answer {
        Ok(None) => _ = record.conclude(Outcome::Allow, "allowed"),
        Ok(Some(waiting)) => {
            _ = record.text("jit_request_uid", waiting.auth_req_id.as_str()).conclude(Outcome::Allow, "approved")
        }
        Err(no) => _ = record.text("detail", no.message.as_str()).conclude(Outcome::Deny, no.code),
    }
}

/// The answer as AuthZEN has it (section 6.2), with the context that is ours.
pub(in crate::http) fn shown(app: &App, answer: &Answer, evaluation_id: &str) -> Value {
    match answer {
        Ok(None) => json!({"decision": true, "context": {"evaluation_id": evaluation_id, "reason": {"code": "allowed"}}}),
        Ok(Some(waiting)) => json!({"decision": true, "context": {
            "evaluation_id": evaluation_id,
            "reason": {"code": "approved", "message": "a person has approved it: turn the approval into its token"},
            "approval": {
                "auth_req_id": waiting.auth_req_id,
                "redeem_by": waiting.redeem_by,
                "token_endpoint": format!("{}/oauth2/token", app.issuer),
                "grant_type": CIBA,
            },
        }}),
        Err(no) => {
            let mut reason = json!({"code": no.code, "message": no.message});
            if let Some(rule) = no.rule {
                put(&mut reason, "rule", json!(rule));
            }
            let mut context = json!({"evaluation_id": evaluation_id, "reason": reason});
            if let Some(operation) = &no.request {
                put(&mut context, "access_request", access_request(app, operation));
            }
            json!({"decision": false, "context": context})
        }
    }
}

/// How to ask a person.
pub(in crate::http) fn access_request(app: &App, operation: &Operation) -> Value {
    let mut details =
        json!({"type": OPERATION_DETAILS, "capability": operation.capability.as_str(), "audience": operation.audience.as_str()});
    if let Some(resource) = &operation.resource {
        put(&mut details, "resource", json!(resource.as_str()));
    }
    if let Some(parameters) = &operation.parameters {
        put(&mut details, "parameters", Value::Object(parameters.members().clone()));
    }
    json!({
        "requestable": true,
        "endpoint": format!("{}/oauth2/bc-authorize", app.issuer),
        "authorization_details": [details],
        "reason": "a person with the RBAC verb approve on the capability can approve exactly this",
    })
}

/// What else an attempt may know, for questions that name no action.
pub(super) fn attempt_of(
    capability: crate::grammar::CapabilityName,
    resource: Option<crate::grammar::Resource>,
    properties: serde_json::Map<String, Value>,
    circumstances: &Circumstances,
) -> Attempt {
    Attempt { capability, resource, parameters: None, resource_properties: properties, context: circumstances.context().clone() }
}
