//! `GET /audit/v1/…`: the ledger, for people and programs that may read it.
//!
//! Whoever asks shows their own Kubernetes token and needs the verb `get` on `auditrecords.countersign.dev` in the whole cluster. Each
//! reading is itself a record.

mod access;

use super::error::Refusal;
use super::form::decode;
use super::{App, begin, finish};
use crate::audit::ask::{self, AskError};
use crate::audit::ledger::LogId;
use crate::audit::ledger::proof::ProofError;
use crate::audit::plain::json_line;
use crate::audit::scan::{self, Budget, Cursor, PAGE_MAX};
use crate::audit::trace::Subject;
use crate::audit::{Filter, Outcome, Record};
use crate::store::StoreError;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;
use std::time::Duration;

/// The event of a reading.
const EVENT: &str = "audit.read";
/// Below which path all of it is.
const BELOW: &str = "/audit/v1/";
/// How many readings there are at once: each takes turns with what is being recorded.
pub const READERS_MAX: usize = 4;
/// How long one page may be searched for.
const PAGE_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer may be searched for.
const TRACE_WITHIN: Duration = Duration::from_secs(8);
/// How many logs are listed with their checkpoints, the newest.
const LOGS_MAX: usize = 1000;
/// Most parameters.
const PARAMETERS_MAX: usize = 80;
/// Most records that a page has if nobody says how many.
const PAGE: usize = 100;

/// The endpoints.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let mut record = begin(EVENT, &request);
    // A body is not looked at.
    let (head, _) = request.into_parts();
    let what = head.uri.path().strip_prefix(BELOW).unwrap_or_default();
    let result = tokio::time::timeout(super::REQUEST_WITHIN, read(&app, what, &head, &mut record)).await;
    let result = result.unwrap_or_else(|_| Err(Refusal::unavailable("request_timeout", "the answer took longer than 10 s")));
    finish(&app, record, result).await
}

async fn read(app: &App, what: &str, head: &Parts, record: &mut Record) -> Result<Response, Refusal> {
    if head.method != Method::GET {
        return Err(Refusal::method("GET").closing());
    }
    let Ok(_turn) = app.readers.try_acquire() else {
        return Err(Refusal::unavailable("overloaded", "the ledger is being read by as many as it can be"));
    };
    access::check(&app.client, &head.headers, record).await?;
    let parameters = parameters(head.uri.query().unwrap_or_default())?;
    let question: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    record.text("read", what).text("question", question.join("&"));
    let (content, body) = match what {
        "records" => (JSON, records(app, &parameters).await?),
        "trace" => (JSON, trace(app, &parameters).await?),
        "proof" => ("text/plain; charset=utf-8", proof(app, &parameters).await?),
        "checkpoints" => (JSON, checkpoints(app, &parameters).await?),
        _ => {
            let description = "there are /audit/v1/records, /audit/v1/trace, /audit/v1/proof and /audit/v1/checkpoints";
            return Err(Refusal::new("invalid_request", "not_found", description).status(StatusCode::NOT_FOUND));
        }
    };
    record.conclude(Outcome::Allow, "read");
    Ok(([(header::CONTENT_TYPE, content), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body).into_response())
}

const JSON: &str = "application/json";

/// `records?…`: those to which the filter applies, in the order of their time.
async fn records(app: &App, parameters: &[(String, String)]) -> Result<String, Refusal> {
    let (mut filter, mut limit, mut after, mut last) = (Filter::default(), None, None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "limit" => once("limit", &mut limit, value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit)))?,
            "after" => once("after", &mut after, value.parse::<Cursor>().ok())?,
            "last" => once("last", &mut last, value.parse::<u32>().ok().filter(|last| (1..=10_000).contains(last)))?,
            _ => filter = filter.with(name, value).map_err(|error| Refusal::malformed(error.to_string()))?,
        }
    }
    let reader = app.store.reader();
    let cursor = match (after, last) {
        (Some(_), Some(_)) => return Err(Refusal::malformed("after and last say where to begin: give one of them")),
        (Some(after), None) => after,
        (None, Some(last)) => scan::last(&reader, last).await.map_err(|error| unread(&error))?,
        (None, None) => Cursor::default(),
    };
    let budget = Budget { time: PAGE_WITHIN, records: limit.unwrap_or(PAGE) };
    let page = scan::page(&reader, &filter, &cursor, budget).await.map_err(|error| unread(&error))?;
    let records: Vec<String> = page.entries.iter().map(ask::shown).collect();
    Ok(format!("{{\"records\":[{}],\"next\":\"{}\",\"more\":{}}}\n", records.join(","), page.next, page.is_more))
}

/// `trace?subject=…`: who really did this.
async fn trace(app: &App, parameters: &[(String, String)]) -> Result<String, Refusal> {
    let (mut subject, mut since) = (None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "subject" => {
                let parsed = Subject::parse(value).map_err(|error| Refusal::malformed(format!("subject {error}")))?;
                once("subject", &mut subject, Some(parsed))?;
            }
            "since" => once("since", &mut since, Some(value.as_str()))?,
            _ => return Err(Refusal::malformed("there are the parameters subject and since")),
        }
    }
    let subject = subject.ok_or_else(|| Refusal::malformed("parameter subject is missing: what is asked about"))?;
    let trace = ask::trace(&app.store.reader(), subject, since, TRACE_WITHIN).await.map_err(refusal)?;
    let trace = trace.ok_or_else(|| {
        let description = "no record knows of that subject";
        Refusal::new("invalid_request", "subject_unknown", description).status(StatusCode::NOT_FOUND)
    })?;
    let text = serde_json::to_string(&trace).map_err(|error| Refusal::unavailable("reply_unwritable", error.to_string()))?;
    Ok(format!("{}\n", json_line(&text)))
}

/// `proof?log=…&seq=…`: the proof that a record is in its log (<https://c2sp.org/tlog-proof>).
async fn proof(app: &App, parameters: &[(String, String)]) -> Result<String, Refusal> {
    let (mut log, mut seq) = (None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "log" => once("log", &mut log, value.parse::<LogId>().ok())?,
            "seq" => once("seq", &mut seq, value.parse::<u64>().ok())?,
            _ => return Err(Refusal::malformed("there are the parameters log and seq")),
        }
    }
    let (Some(log), Some(seq)) = (log, seq) else {
        return Err(Refusal::malformed("parameters log and seq say which record: both are needed"));
    };
    let proof = ask::prove(&app.store.reader(), &log, seq).await.map_err(refusal)?;
    Ok(proof.to_string())
}

/// `checkpoints`: the newest of each log.
async fn checkpoints(app: &App, parameters: &[(String, String)]) -> Result<String, Refusal> {
    if !parameters.is_empty() {
        return Err(Refusal::malformed("there are no parameters"));
    }
    let reader = app.store.reader();
    let logs = reader.logs().await.map_err(|error| unread(&error))?;
    let mut newest = Vec::new();
    for log in logs.iter().rev().take(LOGS_MAX) {
        let checkpoint = reader.checkpoint_over(&log.id, 0).await.map_err(|error| unread(&error))?;
        newest.extend(checkpoint.map(|c| serde_json::json!({"log": log.id, "size": c.size, "note": c.note})));
    }
    Ok(format!("{}\n", json_line(&serde_json::json!({"checkpoints": newest}).to_string())))
}

/// The parameters of a query, strictly read.
pub(in crate::http) fn parameters(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = query.as_bytes().split(|b| *b == b'&').filter(|pair| !pair.is_empty());
    let pair = |pair: &[u8]| {
        let mut halves = pair.splitn(2, |b| *b == b'=');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        Ok((decode(name, &[])?, decode(value, &[])?))
    };
    let parameters: Vec<(String, String)> = pairs.map(pair).collect::<Result<_, _>>()?;
    if parameters.len() > PARAMETERS_MAX {
        return Err(Refusal::malformed("there are more than 80 parameters"));
    }
    Ok(parameters)
}

/// Sets a parameter that may occur once, to what it says.
fn once<T>(name: &'static str, parameter: &mut Option<T>, value: Option<T>) -> Result<(), Refusal> {
    if parameter.is_some() {
        return Err(Refusal::malformed(format!("parameter {name} occurs more than once")));
    }
    *parameter = Some(value.ok_or_else(|| {
        Refusal::malformed(match name {
            "limit" => "limit must be a number from 1 to 1000",
            "last" => "last must be a number from 1 to 10000",
            "after" => "after must be what was given as next with a page before",
            "log" => "log must be the name of a log: 32 lower-case hexadecimal digits",
            _ => "seq must be the number of a record",
        })
    })?);
    Ok(())
}

fn unread(error: &StoreError) -> Refusal {
    Refusal::unavailable("ledger_unreadable", error.to_string())
}

fn refusal(error: AskError) -> Refusal {
    let text = error.to_string();
    match error {
        AskError::Store(error) => unread(&error),
        AskError::Filter(_) => Refusal::malformed(text),
        AskError::TooLong => Refusal::unavailable("search_too_long", text),
        AskError::NoRecord(..) => Refusal::new("invalid_request", "record_unknown", text).status(StatusCode::NOT_FOUND),
        AskError::Proof(ProofError::NotCovered) => {
            Refusal::new("invalid_request", "not_covered", text).status(StatusCode::CONFLICT)
        }
        AskError::Proof(_) => Refusal::new("server_error", "ledger_damaged", text).status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
