//! The authorization check (AuthZEN 1.0): may this agent do this? Asked by the agent itself, or by the resource server in front of which
//! it stands.

mod judge;
mod question;

pub(super) use judge::{Answer, access_request, conclude, judge, shown};

use super::caller::{bearer, count, describe_caller};
use super::error::{CredentialRole, Refusal};
use super::form::read_body;
use super::{App, begin, bounded, finish, json, now_if_fresh};
use crate::agent::RegisteredAgent;
use crate::audit::{Outcome, Record};
use crate::grammar::CapabilityName;
use crate::identity::{Accepts, Caller};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use axum::response::Response;
use futures::future::join_all;
use judge::attempt_of;
use question::{Batch, Beside, Members, Question, Subject};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The header by which a caller finds its own request again (AuthZEN 1.0 section 10.1.4).
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest value of it that is given back, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// `POST /access/v1/evaluation`.
pub(super) async fn evaluation(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    respond(&app, "access.evaluate", request, |app, asked, mut record| async move {
        let result = one(&app, &asked, &mut record).await;
        (record, result)
    })
    .await
}

/// `POST /access/v1/evaluations`.
pub(super) async fn evaluations(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    respond(&app, "access.evaluate", request, |app, asked, mut record| async move {
        let result = several(&app, asked, &mut record).await;
        (record, result)
    })
    .await
}

/// `POST /access/v1/search/action`: what may this agent do on this resource?
pub(super) async fn search_action(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    respond(&app, "access.search", request, |app, asked, mut record| async move {
        let result = search(&app, asked, &mut record).await;
        (record, result)
    })
    .await
}

/// A request that was read: who asks, and the members of its body.
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) body: Map<String, Value>,
    pub(super) now: u64,
}

/// Runs an endpoint that takes JSON and a Bearer credential: bounds it, and writes its record before the reply leaves.
pub(super) async fn respond<F>(
    app: &Arc<App>,
    event: &'static str,
    request: Request<Body>,
    work: impl FnOnce(Arc<App>, Asked, Record) -> F,
) -> Response
where
    F: Future<Output = (Record, Result<Response, Refusal>)>,
{
    let theirs = theirs(request.headers());
    let mut record = begin(event, &request);
    if let Some(id) = theirs.as_ref().and_then(|id| id.to_str().ok()) {
        record.text("client_request_id", id);
    }
    let (record, result) = bounded(app, request, record, |app, request, mut record| async move {
        match read(&app, request, &mut record).await {
            Ok(asked) => work(app, asked, record).await,
            Err(refusal) => (record, Err(refusal)),
        }
    })
    .await;
    let mut response = finish(app, record, result).await;
    if let Some(id) = theirs {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The caller's own name of the request.
fn theirs(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(&REQUEST_ID)?;
    let plain =
        id.to_str().is_ok_and(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.bytes().all(|b| b.is_ascii_graphic()));
    plain.then(|| id.clone())
}

async fn read(app: &App, request: Request<Body>, record: &mut Record) -> Result<Asked, Refusal> {
    let token = bearer(request.headers())?;
    let body = read_body(request, "application/json").await?;
    let now = now_if_fresh(app)?;
    let Some(token) = token else {
        let description =
            "the caller must authenticate with a Bearer token: its projected ServiceAccount token, or what else proves an agent";
        return Err(Refusal::unauthenticated("caller_unauthenticated", description).challenged());
    };
    let verified = app.verifier.verify(&token, Accepts::Assertions, &app.snapshot, now).await;
    let caller = verified.map_err(|error| CredentialRole::CLIENT.unidentified(&error).challenged())?;
    describe_caller(record, &caller);
    count(app, &caller)?;
    if let Some(agent) = caller.agent(&app.snapshot) {
        record.text("caller", agent.id.to_string());
    }
    let body = crate::json::parse_object(&body).map_err(|error| {
        Refusal::malformed(format!("the body must be one JSON object that can be read in one way only: {error}"))
    })?;
    Ok(Asked { caller, body, now })
}

/// The agent that asks, if it is one.
pub(super) fn asking(app: &App, caller: &Caller) -> Option<Arc<RegisteredAgent>> {
    caller.agent(&app.snapshot)
}

async fn one(app: &App, asked: &Asked, record: &mut Record) -> Result<Response, Refusal> {
    let question = Members::take(&mut asked.body.clone()).question().map_err(Refusal::malformed)?;
    let answer = judge(app, &asked.caller, &question, asked.now, record).await?;
    conclude(record, &answer);
    json(&shown(app, &answer, record.request_id()))
}

async fn several(app: &App, mut asked: Asked, record: &mut Record) -> Result<Response, Refusal> {
    let Some(batch) = Batch::take(&mut asked.body).map_err(Refusal::malformed)? else {
        return one(app, &asked, record).await;
    };
    let mut answers = Vec::with_capacity(batch.questions.len());
    let mut records = Vec::with_capacity(batch.questions.len());
    for question in &batch.questions {
        let mut own = record.clone();
        own.number("item", answers.len() as u64);
        let (answer, is_yes) = item(app, &asked, question, &mut own).await;
        answers.push(answer);
        records.push(own);
        if batch.semantic.ends_with(is_yes) {
            break;
        }
    }
    let allowed = answers.iter().filter(|answer| answer.get("decision") == Some(&Value::Bool(true))).count();
    record_all(app, &records).await?;
    record.number("evaluations", answers.len() as u64).number("allowed", allowed as u64).conclude(Outcome::Allow, "answered");
    json(&serde_json::json!({"evaluations": answers}))
}

/// Answers one of several. What is wrong with it is its own answer, and a no.
async fn item(app: &App, asked: &Asked, question: &Result<Question, String>, record: &mut Record) -> (Value, bool) {
    let failed = |status: u16, message: &str| serde_json::json!({"decision": false, "context": {"error": {"status": status, "message": message}}});
    let question = match question {
        Ok(question) => question,
        Err(problem) => {
            record.text("detail", problem.as_str()).conclude(Outcome::Deny, "request_malformed");
            return (failed(400, problem), false);
        }
    };
    match judge(app, &asked.caller, question, asked.now, record).await {
        Ok(answer) => {
            conclude(record, &answer);
            (shown(app, &answer, record.request_id()), answer.is_ok())
        }
        Err(refusal) => {
            refusal.conclude(record);
            (failed(503, "the service cannot decide now; try again shortly"), false)
        }
    }
}

/// Writes the records of the parts of an answer, before the answer's own.
pub(super) async fn record_all(app: &App, records: &[Record]) -> Result<(), Refusal> {
    let written = join_all(records.iter().map(|record| app.recorder.write(record))).await;
    for record in records {
        let (outcome, reason) = record.conclusion();
        app.metrics.outcome(record.event(), outcome, reason);
    }
    match written.into_iter().find_map(Result::err) {
        Some(unrecorded) => Err(Refusal::unavailable("unrecorded", unrecorded.to_string())),
        None => Ok(()),
    }
}

async fn search(app: &App, mut asked: Asked, record: &mut Record) -> Result<Response, Refusal> {
    let (from, limit) = page(&mut asked.body).map_err(Refusal::malformed)?;
    let beside = Members::take(&mut asked.body).beside().map_err(Refusal::malformed)?;
    let Beside { subject, circumstances, resource, resource_properties: properties } = beside;
    let mut names = match &subject {
        Subject::Agent(id, _) => held(app, id),
        Subject::User(_) | Subject::Other => Vec::new(),
    };
    // A user is named with the token of the agent that acts: it says which names there are.
    if let (Subject::User(_), Some(token)) = (&subject, &circumstances.token)
        && let Some(claims) = super::read_back(app, token, asked.now).await?
    {
        names = claims.scope.split(' ').filter_map(|name| CapabilityName::parse(name).ok()).collect();
    }
    names.sort();
    let mut allowed = Vec::new();
    for name in names {
        let attempt = resource.clone().map(|resource| attempt_of(name.clone(), resource, properties.clone(), &circumstances));
        let question = Question { subject: subject.clone(), circumstances: circumstances.clone(), attempt };
        let mut own = record.clone();
        if judge(app, &asked.caller, &question, asked.now, &mut own).await?.is_ok() {
            allowed.push(name);
        }
    }
    if let Ok(Some(resource)) = &resource {
        record.text("resource", resource.as_str());
    }
    if let Subject::Agent(id, _) = &subject {
        record.text("asked_subject", id.to_string());
    }
    let next = if from + limit < allowed.len() { (from + limit).to_string() } else { String::new() };
    let results: Vec<Value> =
        allowed.iter().skip(from).take(limit).map(|name| serde_json::json!({"name": name.as_str()})).collect();
    record.number("allowed", allowed.len() as u64).conclude(Outcome::Allow, "answered");
    json(&serde_json::json!({"results": results, "page": {"next_token": next, "count": results.len(), "total": allowed.len()}}))
}

/// The names of the capabilities that an agent holds.
fn held(app: &App, id: &crate::grammar::AgentId) -> Vec<CapabilityName> {
    let agent = app.snapshot.agent(id);
    let rights = agent.as_ref().and_then(|agent| agent.rights.as_ref().ok());
    rights.map(|rights| rights.capabilities.iter().map(|held| held.name.clone()).collect()).unwrap_or_default()
}

/// Which page is wanted: from which result on, and how many.
fn page(body: &mut Map<String, Value>) -> Result<(usize, usize), String> {
    let Some(page) = body.remove("page") else { return Ok((0, usize::from(u16::MAX))) };
    let Value::Object(page) = page else { return Err("page must be an object".to_owned()) };
    let from = match page.get("token") {
        None => 0,
        Some(token) => {
            let token = token.as_str().ok_or("page.token must be a text")?;
            if token.is_empty() { 0 } else { token.parse::<u16>().map_err(|_| "page.token is none that was given out")?.into() }
        }
    };
    let limit = match page.get("limit") {
        None => u64::from(u16::MAX),
        Some(limit) => limit.as_u64().filter(|limit| *limit > 0).ok_or("page.limit must be a positive whole number")?,
    };
    Ok((from, usize::try_from(limit).unwrap_or(usize::MAX).min(u16::MAX.into())))
}

/// A question about an agent by its name.
pub(super) fn question_of(
    agent: crate::grammar::AgentId,
    user: Option<String>,
    attempt: Result<crate::decision::Attempt, crate::decision::Denial>,
) -> Question {
    Question { subject: Subject::Agent(agent, user), circumstances: question::Circumstances::default(), attempt }
}
