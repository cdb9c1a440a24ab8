//! What was recorded: searching it, and who really did something, with the chain as a picture. Whoever reads needs the verb `get` on
//! `auditrecords`, which the API server is asked with their own token; each reading is a record itself.

use super::super::error::Refusal;
use super::super::kubernetes::may;
use super::super::{begin_for, settle};
use super::Visit;
use super::chain::Picture;
use super::page::{Frame, Text, encoded, render};
use crate::audit::ask::{self, AskError};
use crate::audit::scan::{self, Budget, Cursor};
use crate::audit::trace::{Event, Hop, Subject};
use crate::audit::{Entry, Filter, Outcome, Record};
use crate::store::StoreError;
use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use std::time::Duration;

/// How long one page may be searched for.
const PAGE_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer may be searched for.
const TRACE_WITHIN: Duration = Duration::from_secs(8);
/// How many records a page has.
const ROWS: usize = 100;
/// The filters, as they are named in the form and at `/audit/v1/records`.
const FILTERS: [(&str, &str, &str); 8] = [
    ("event", "Event", "token.*"),
    ("outcome", "Outcome", "deny"),
    ("agent", "Agent", "agent:research/bot"),
    ("user", "User", "alice@acme.com"),
    ("jti", "Token (jti)", ""),
    ("mentions", "Mentions", ""),
    ("since", "Since", "2h"),
    ("until", "Until", ""),
];

#[derive(Template)]
#[template(path = "portal/audit.html")]
struct Records {
    frame: Frame,
    problem: Option<Text>,
    fields: Vec<Field>,
    rows: Vec<Row>,
    next: Option<String>,
    kubectl: Text,
}

struct Field {
    name: &'static str,
    label: &'static str,
    example: &'static str,
    value: String,
}

struct Row {
    id: Text,
    time: Text,
    event: Text,
    outcome: Text,
    is_denied: bool,
    reason: Text,
    who: Text,
    line: Text,
    trace: Option<String>,
}

/// Searches.
pub(super) async fn records(visit: &Visit) -> Result<Response, Refusal> {
    let asked: Vec<(&str, &str)> = FILTERS.iter().filter_map(|(name, ..)| visit.get(name).map(|value| (*name, value))).collect();
    let question: Vec<String> = asked.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let found = recorded(visit, "records", question.join("&"), search(visit, &asked)).await;
    let flags: Vec<String> = asked.iter().map(|(name, value)| format!(" --{name}={}", quoted(value))).collect();
    let mut page = Records {
        frame: Frame::of(visit, Text::of("Audit"), "audit"),
        problem: None,
        fields: FILTERS
            .map(|(name, label, example)| Field { name, label, example, value: visit.get(name).unwrap_or_default().to_owned() })
            .into(),
        rows: Vec::new(),
        next: None,
        kubectl: Text::of(&format!("countersign audit query{}", flags.concat())),
    };
    let status = match found {
        Ok((rows, next)) => {
            page.rows = rows;
            let filters: Vec<String> = asked.iter().map(|(name, value)| format!("&{name}={}", encoded(value))).collect();
            page.next = next.map(|next| format!("/portal/audit?after={}{}", encoded(&next.to_string()), filters.concat()));
            StatusCode::OK
        }
        Err(refusal) => {
            page.problem = Some(Text::of(refusal.description()));
            refusal.code()
        }
    };
    render(status, &page)
}

async fn search(visit: &Visit, asked: &[(&str, &str)]) -> Result<(Vec<Row>, Option<Cursor>), Refusal> {
    let mut filter = Filter::default();
    for (name, value) in asked {
        filter = filter.with(name, value).map_err(|error| Refusal::malformed(error.to_string()))?;
    }
    let reader = visit.app.store.reader();
    let cursor = match visit.get("after") {
        Some(after) => after.parse().map_err(|_| Refusal::malformed("after is no place in the records"))?,
        // Without a question the newest are of interest.
        None if asked.is_empty() => scan::last(&reader, ROWS as u32).await.map_err(|error| unread(&error))?,
        None => Cursor::default(),
    };
    let page = scan::page(&reader, &filter, &cursor, Budget { time: PAGE_WITHIN, records: ROWS }).await;
    let page = page.map_err(|error| unread(&error))?;
    Ok((page.entries.iter().map(row).collect(), page.is_more.then_some(page.next)))
}

fn row(entry: &Entry) -> Row {
    let who = ["subject", "by", "reader", "agent", "changed_by", "revoked_by", "asked_subject"];
    let about = ["jti", "jit_request_uid"].iter().find_map(|name| entry.find(name));
    Row {
        id: Text::of(&entry.id()),
        time: Text::of(entry.time()),
        event: Text::of(entry.event()),
        outcome: Text::of(entry.text("outcome")),
        is_denied: !entry.is_allowed(),
        reason: Text::of(entry.text("reason")),
        who: Text::of(who.iter().find_map(|name| entry.find(name)).unwrap_or_default()),
        line: Text::readable(ask::shown(entry)),
        trace: about.map(|about| format!("/portal/audit/trace?subject={}", encoded(about))),
    }
}

#[derive(Template)]
#[template(path = "portal/trace.html")]
struct Answer {
    frame: Frame,
    problem: Option<Text>,
    subject: Text,
    sentences: Vec<Text>,
    picture: Picture,
    steps: Vec<Step>,
    events: Vec<Happened>,
    left_out: u64,
    kubectl: Text,
}

/// A token, or the refusal of one, as a line of text.
struct Step {
    depth: usize,
    text: Text,
    facts: Vec<(&'static str, Text)>,
}

struct Happened {
    time: Text,
    text: Text,
}

/// Who really did this?
pub(super) async fn trace(visit: &Visit) -> Result<Response, Refusal> {
    let subject = visit.get("subject").unwrap_or_default();
    let mut page = Answer {
        frame: Frame::of(visit, Text::of("Who really did this?"), "audit"),
        problem: None,
        subject: Text::of(subject),
        sentences: Vec::new(),
        picture: Picture::default(),
        steps: Vec::new(),
        events: Vec::new(),
        left_out: 0,
        kubectl: Text::of(&format!("countersign audit trace {}", quoted(subject))),
    };
    if subject.is_empty() {
        return render(StatusCode::OK, &page);
    }
    let answer = recorded(visit, "trace", format!("subject={subject}"), answer(visit, subject)).await;
    let status = match answer {
        Ok(trace) => {
            page.sentences = trace.sentences.iter().map(|sentence| Text::of(sentence)).collect();
            page.picture = Picture::of(&trace.hops);
            trace.hops.iter().for_each(|hop| steps(&mut page.steps, hop, 0));
            page.events = trace.events.iter().map(happened).collect();
            page.left_out = trace.left_out;
            StatusCode::OK
        }
        Err(refusal) => {
            page.problem = Some(Text::of(refusal.description()));
            refusal.code()
        }
    };
    render(status, &page)
}

async fn answer(visit: &Visit, subject: &str) -> Result<crate::audit::trace::Trace, Refusal> {
    let subject = Subject::parse(subject).map_err(|error| Refusal::malformed(format!("what is asked about {error}")))?;
    let found = ask::trace(&visit.app.store.reader(), subject, None, TRACE_WITHIN).await;
    let found = found.map_err(|error| match error {
        AskError::Store(error) => unread(&error),
        AskError::TooLong => Refusal::unavailable("search_too_long", error.to_string()),
        error => Refusal::malformed(error.to_string()),
    })?;
    found.ok_or_else(|| {
        Refusal::new("invalid_request", "subject_unknown", "no record knows of that").status(StatusCode::NOT_FOUND)
    })
}

fn steps(all: &mut Vec<Step>, hop: &Hop, depth: usize) {
    let agent = hop.agent.as_deref().unwrap_or("unknown");
    let text = match hop.is_issued() {
        true => format!("{agent} got a token"),
        false => format!("{agent} got none ({})", hop.reason),
    };
    let fact = |label, value: &Option<String>| value.as_deref().map(|value| (label, Text::of(value)));
    let facts = [
        Some(("at", Text::of(&hop.time))),
        fact("for", &hop.user),
        fact("capabilities", &hop.scope),
        fact("on", &hop.resource),
        fact("audience", &hop.audience),
        fact("token", &hop.jti),
        fact("approved by", &hop.approved_by),
        fact("from", &hop.client_address),
        Some(("record", Text::of(&hop.record))),
    ];
    all.push(Step { depth: depth.min(8), text: Text::of(&text), facts: facts.into_iter().flatten().collect() });
    hop.children.iter().for_each(|child| steps(all, child, depth + 1));
}

fn happened(event: &Event) -> Happened {
    let part =
        |before: &str, value: &Option<String>| value.as_deref().map(|value| format!("{before}{value}")).unwrap_or_default();
    let text = format!(
        "{}{}{}: {} ({}){}",
        event.event,
        part(" ", &event.about),
        part(" by ", &event.by),
        event.outcome,
        event.reason,
        part(": ", &event.detail)
    );
    Happened { time: Text::of(&event.time), text: Text::of(&text) }
}

/// Reads, if whoever asks may, and records it either way. Nothing that could not be recorded is shown.
async fn recorded<T>(
    visit: &Visit,
    what: &'static str,
    question: String,
    reading: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut record: Record = begin_for("audit.read", visit.address);
    record.text("reader", visit.session.user.username.as_str());
    if let Some(uid) = &visit.session.user.uid {
        record.text("reader_uid", uid.as_str());
    }
    let result = async {
        let Ok(_turn) = visit.app.readers.try_acquire() else {
            return Err(Refusal::unavailable("overloaded", "the ledger is being read by as many as it can be"));
        };
        if !may(&visit.client, "get", "auditrecords", None, None).await? {
            let description = "reading what was recorded needs the verb get on auditrecords in countersign.dev, in the whole cluster: an \
                 administrator can bind the ClusterRole countersign-auditor to you";
            return Err(Refusal::new("access_denied", "reader_not_allowed", description).status(StatusCode::FORBIDDEN));
        }
        record.text("read", what).text("question", question);
        reading.await
    };
    let result = result.await;
    if result.is_ok() {
        record.conclude(Outcome::Allow, "read");
    }
    settle(&visit.app, record, result).await.1
}

fn unread(error: &StoreError) -> Refusal {
    Refusal::unavailable("ledger_unreadable", error.to_string())
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'@');
    if !text.is_empty() && text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
