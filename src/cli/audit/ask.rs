//! The questions that any source of records can answer.

use super::source::{Source, Start};
use super::{AuditError, Output, QueryQuestion, TailQuestion, TraceQuestion};
use crate::audit::ledger::LogId;
use crate::audit::plain::{Plain, json_line};
use crate::audit::scan::{Cursor, PAGE_MAX};
use crate::audit::trace::{Gathering, Trace};
use crate::audit::{Entry, ask};
use crate::time::Clock;
use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

/// How often it is looked whether more was recorded.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// How many of the newest records are looked through for those that are wanted, at least.
const TAIL_WINDOW: u32 = 1000;
/// Reading is recorded: whoever follows would see themselves for ever.
const READING: &str = "audit.read";

/// Where records come from, once they are needed: what is no question is refused before.
type Opening = Result<Source, AuditError>;

/// Who really did this?
pub(crate) async fn trace(
    question: &TraceQuestion,
    source: impl Future<Output = Opening>,
    clock: Clock,
    out: &mut dyn Write,
) -> Result<u8, AuditError> {
    let trace = gather(question, source, clock).await?;
    match question.output {
        Output::Text => write!(out, "{trace}")?,
        Output::Json => writeln!(out, "{}", json_line(&serde_json::to_string(&trace).map_err(std::io::Error::other)?))?,
    }
    out.flush()?;
    Ok(0)
}

/// What led to what, a line for each token.
pub(crate) async fn tree(
    question: &TraceQuestion,
    source: impl Future<Output = Opening>,
    clock: Clock,
    out: &mut dyn Write,
) -> Result<u8, AuditError> {
    let trace = gather(question, source, clock).await?;
    match question.output {
        Output::Text => write!(out, "{}", trace.tree())?,
        Output::Json => writeln!(out, "{}", json_line(&serde_json::to_string(&trace.hops).map_err(std::io::Error::other)?))?,
    }
    out.flush()?;
    Ok(0)
}

async fn gather(question: &TraceQuestion, source: impl Future<Output = Opening>, clock: Clock) -> Result<Trace, AuditError> {
    let since = question.since.map(|since| since.resolve(clock));
    let mut gathering = Gathering::new(question.subject.clone(), since.as_deref())?;
    let source = source.await?;
    while let Some((search, cursor)) = gathering.next_search() {
        gathering.take(source.page(&search, &Start::After(cursor), PAGE_MAX).await?);
    }
    gathering.finish().ok_or_else(|| AuditError::Unknown(Plain(question.subject.as_str()).to_string()))
}

/// The newest records, so many of them, and those that follow.
pub(crate) async fn tail(
    question: &TailQuestion,
    lines: u32,
    source: impl Future<Output = Opening>,
    out: &mut dyn Write,
) -> Result<u8, AuditError> {
    let filter = question.filter.filter()?;
    let source = source.await?;
    let is_wanted = |entry: &Entry| entry.event() != READING || question.filter.event.is_some();
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    let mut newest = VecDeque::new();
    let mut start = Start::Last(lines.max(TAIL_WINDOW));
    loop {
        let page = source.page(&filter, &start, PAGE_MAX).await?;
        start = Start::After(page.next);
        newest.extend(page.entries.into_iter().filter(is_wanted));
        newest.drain(..newest.len().saturating_sub(wanted));
        if !page.is_more {
            break;
        }
    }
    newest.iter().try_for_each(|entry| print(entry, question.output, out))?;
    if !question.follow {
        return Ok(0);
    }
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let page = source.page(&filter, &start, PAGE_MAX).await?;
        page.entries.iter().filter(|entry| is_wanted(entry)).try_for_each(|entry| print(entry, question.output, out))?;
        start = Start::After(page.next);
    }
}

/// The records to which all filters apply.
pub(crate) async fn query(
    question: &QueryQuestion,
    source: impl Future<Output = Opening>,
    clock: Clock,
    out: &mut dyn Write,
) -> Result<u8, AuditError> {
    let mut filter = question.filter.filter()?;
    for (name, when) in [("since", question.since), ("until", question.until)] {
        if let Some(when) = when {
            filter = filter.with(name, &when.resolve(clock))?;
        }
    }
    let source = source.await?;
    let (mut start, mut left) = (Start::After(Cursor::default()), question.limit);
    while left > 0 {
        let page = source.page(&filter, &start, left).await?;
        page.entries.iter().try_for_each(|entry| print(entry, question.output, out))?;
        left = left.saturating_sub(page.entries.len());
        start = Start::After(page.next);
        if !page.is_more {
            break;
        }
    }
    out.flush()?;
    Ok(0)
}

/// The proof that a record is in the ledger.
pub(crate) async fn prove(
    (log, seq): &(LogId, u64),
    source: impl Future<Output = Opening>,
    out: &mut dyn Write,
) -> Result<u8, AuditError> {
    let proof = source.await?.prove(log, *seq).await?;
    // What a server sent is a proof before it is printed.
    let proof = crate::audit::ledger::proof::Proof::parse(&proof).map_err(ask::AskError::from)?;
    write!(out, "{proof}")?;
    out.flush()?;
    Ok(0)
}

/// One record.
pub(super) fn print(entry: &Entry, output: Output, out: &mut dyn Write) -> Result<(), AuditError> {
    match output {
        Output::Json => writeln!(out, "{}", ask::shown(entry))?,
        Output::Text => writeln!(out, "{}", text(entry))?,
    }
    Ok(out.flush()?)
}

/// A record as people read it: when, what, what came of it, and the rest by name.
fn text(entry: &Entry) -> String {
    let head = ["time", "event", "outcome", "reason"];
    let mut line = head.map(|name| Plain(entry.text(name)).to_string()).join(" ");
    for (name, value) in entry.members().filter(|(name, _)| !head.contains(name) && !["log", "seq"].contains(name)) {
        let value = Plain(&value).to_string();
        let quote = if value.is_empty() || value.contains([' ', '"']) { "\"" } else { "" };
        line.push_str(&format!(" {}={quote}{}{quote}", Plain(name), value.replace('"', "\\\"")));
    }
    line.push_str(&format!(" record={}", Plain(&entry.id())));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l10_a_record_is_one_line_of_plain_text() {
        let line = "{\"time\":\"t\",\"event\":\"e\",\"outcome\":\"deny\",\"reason\":\"r\",\"a\u{202e}\":\"x\u{1b}y\",\"b\":\"1 \\\" 2\",\"n\":7,\"log\":\"l\",\"seq\":1}";
        let line = line.replace('\u{1b}', "\\u001b");
        let shown = text(&Entry::read("l", 1, line.as_bytes()));
        assert_eq!(shown, r#"t e deny r a\u{202e}=x\u{1b}y b="1 \" 2" n=7 record=l/1"#);
        let unreadable = text(&Entry::read("l\n", 1, b"\x1b[31m"));
        assert_eq!(unreadable, r" ledger.unreadable error unreadable record=l\u{a}/1");
    }
}
