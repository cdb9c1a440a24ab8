//! `POST /ask`: may I, in plain words. What the question is taken for is shown, and decided as if each part had been asked at
//! `/access/v1/evaluation`; whatever is not understood is a no.

use super::access::{Answer, Asked, access_request, asking, conclude, judge, question_of, record_all, respond};
use super::error::Refusal;
use super::{App, json};
use crate::agent::RegisteredAgent;
use crate::ask::{Asked as Part, Entry, Lexicon, Reading, read};
use crate::audit::{Outcome, Record};
use crate::decision::{Attempt, Denial, Reason};
use crate::grammar::{AgentId, CapabilityName, Resource};
use crate::json::put;
use crate::operation::Parameters;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use moka::future::Cache;
use serde_json::{Map, Value, json as value};
use std::sync::Arc;

/// How many lexicons are kept.
const LEXICONS_MAX: u64 = 64;

/// The endpoint.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    respond(&app, "access.ask", request, |app, asked, mut record| async move {
        let result = ask(&app, asked, &mut record).await;
        (record, result)
    })
    .await
}

async fn ask(app: &App, mut asked: Asked, record: &mut Record) -> Result<Response, Refusal> {
    let question = match asked.body.remove("question") {
        Some(Value::String(question)) if !question.trim().is_empty() => question,
        Some(Value::String(_)) => return Err(Refusal::malformed("question is empty")),
        Some(_) => return Err(Refusal::malformed("question must be a text")),
        None => return Err(Refusal::malformed("question is missing: {\"question\": \"Can I read documents?\"}")),
    };
    record.text("question", question.as_str());
    let id = subject(app, &mut asked)?;
    record.text("asked_subject", id.to_string());
    let agent = app.snapshot.agent(&id);
    let lexicon = app.lexicons.of(app, agent.as_deref()).await?;
    let reading = read(&question, &lexicon);
    let (mut parts, mut records, mut refused) = (Vec::new(), Vec::new(), None);
    for part in &reading.asked {
        let mut own = record.clone();
        own.number("item", parts.len() as u64);
        let question = question_of(id.clone(), part.user.clone(), attempt(part));
        let answer = judge(app, &asked.caller, &question, asked.now, &mut own).await?;
        conclude(&mut own, &answer);
        if let (Err(no), None) = (&answer, &refused) {
            refused = Some(value!({"code": no.code, "message": no.message}));
        }
        parts.push(shown(app, &id, part, &answer));
        records.push(own);
    }
    let reason = not_understood(&reading).or(refused);
    record_all(app, &records).await?;
    let decision = reason.is_none();
    match &reason {
        None => _ = record.conclude(Outcome::Allow, "allowed"),
        Some(_) if reading.is_clear() => _ = record.conclude(Outcome::Deny, "denied"),
        Some(_) => _ = record.conclude(Outcome::Deny, "question_not_understood"),
    }
    let unresolved: Vec<Value> =
        reading.unresolved.iter().map(|part| value!({"text": part.text, "nearest": part.nearest})).collect();
    json(&value!({
        "decision": decision,
        "reason": reason.unwrap_or_else(|| value!({"code": "allowed", "message": "all that was asked is allowed"})),
        "interpretation": parts,
        "unresolved": unresolved,
        "evaluation_id": record.request_id(),
    }))
}

/// About which agent: the one that asks, or the one that a caller names who may evaluate it.
fn subject(app: &App, asked: &mut Asked) -> Result<AgentId, Refusal> {
    match asked.body.remove("agent") {
        Some(Value::String(agent)) => AgentId::parse_short(&agent).map_err(|error| Refusal::malformed(format!("agent: {error}"))),
        Some(_) => Err(Refusal::malformed("agent must be a text")),
        None => asking(app, &asked.caller).map(|agent| agent.id.clone()).ok_or_else(|| {
            let description = "the caller is no agent: name the one that is meant in agent";
            Refusal::new("access_denied", "agent_unknown", description).status(StatusCode::FORBIDDEN)
        }),
    }
}

/// The words for all capabilities there are: those of the catalogue, and those that an agent holds beside it. Putting them in order takes a
/// while where there are thousands, so it is done once for each state of the catalogue and each such set.
#[derive(Debug)]
pub struct Lexicons(Cache<(u64, Vec<CapabilityName>), Arc<Lexicon>>);

impl Default for Lexicons {
    fn default() -> Self {
        Self(Cache::new(LEXICONS_MAX))
    }
}

impl Lexicons {
    async fn of(&self, app: &App, agent: Option<&RegisteredAgent>) -> Result<Arc<Lexicon>, Refusal> {
        let rights = agent.and_then(|agent| agent.rights.as_ref().ok());
        let held = rights.iter().flat_map(|rights| &rights.capabilities).map(|held| held.name.clone());
        let (version, beside) = {
            let catalogue = app.snapshot.catalogue();
            let mut beside: Vec<CapabilityName> = held.filter(|name| catalogue.get(name).is_none()).collect();
            beside.sort();
            (catalogue.version(), beside)
        };
        let snapshot = Arc::clone(&app.snapshot);
        let names = beside.clone();
        let make = async move {
            // The state may be a later one than that of the key. That is never the wrong side: both were there since the question came.
            let entries: Vec<(CapabilityName, Vec<String>)> = {
                let catalogue = snapshot.catalogue();
                let known = catalogue
                    .iter()
                    .map(|(name, entry)| (name.clone(), entry.as_ref().map_or_else(|_| Vec::new(), |rule| rule.phrases.clone())));
                known.chain(names.into_iter().map(|name| (name, Vec::new()))).collect()
            };
            let build = move || Lexicon::new(entries.iter().map(|(name, phrases)| Entry { name: name.as_str(), phrases }));
            tokio::task::spawn_blocking(build).await.map(Arc::new).map_err(|error| error.to_string())
        };
        let made = self.0.try_get_with((version, beside), make).await;
        made.map_err(|error| Refusal::unavailable("lexicon_unmade", error.as_str()))
    }
}

/// What a part of a question would have the agent do.
fn attempt(part: &Part) -> Result<Attempt, Denial> {
    let denied = |reason, problem: String| Denial { reason, message: problem };
    let parameters = match part.parameters.is_empty() {
        true => None,
        false => Some(
            Parameters::parse(part.parameters.clone()).map_err(|error| denied(Reason::ParametersRefused, error.to_string()))?,
        ),
    };
    Ok(Attempt {
        capability: CapabilityName::parse(&part.capability)
            .map_err(|error| denied(Reason::CapabilityNotGranted, error.to_string()))?,
        resource: part
            .resource
            .as_deref()
            .map(Resource::parse)
            .transpose()
            .map_err(|error| denied(Reason::ResourceNotGranted, error.to_string()))?,
        parameters,
        resource_properties: Map::new(),
        context: Map::new(),
    })
}

/// Why a question is a no, whatever its parts are: somebody who is not understood is never told yes.
fn not_understood(reading: &Reading) -> Option<Value> {
    if let Some(objection) = &reading.objection {
        return Some(value!({"code": objection.code(), "message": objection.to_string()}));
    }
    if !reading.unresolved.is_empty() {
        let texts: Vec<&str> = reading.unresolved.iter().map(|part| part.text.as_str()).collect();
        return Some(value!({"code": "not_understood", "message": format!("this is not understood: {}", texts.join("; "))}));
    }
    reading
        .asked
        .is_empty()
        .then(|| value!({"code": "not_understood", "message": "the question names nothing that could be done"}))
}

fn shown(app: &App, id: &AgentId, part: &Part, answer: &Answer) -> Value {
    let mut shown = value!({
        "capability": part.capability,
        "resource": part.resource,
        "subject": part.user.as_ref().map_or_else(|| id.to_string(), |user| format!("user:{user}")),
        "parameters": part.parameters,
        "words": part.words,
        "decision": answer.is_ok(),
        "requestable": false,
    });
    match answer {
        Ok(None) => put(&mut shown, "reason", value!({"code": "allowed"})),
        Ok(Some(_)) => put(&mut shown, "reason", value!({"code": "approved", "message": "a person has approved it"})),
        Err(no) => {
            put(&mut shown, "reason", value!({"code": no.code, "message": no.message}));
            if let Some(operation) = &no.request {
                put(&mut shown, "requestable", value!(true));
                put(&mut shown, "access_request", access_request(app, operation));
            }
        }
    }
    shown
}
