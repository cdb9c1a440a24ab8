//! What is asked of a ledger: who really did this, and for the proof that a record is in it.

use super::ledger::LogId;
use super::ledger::proof::{Proof, ProofError};
use super::ledger::tree::Hash;
use super::scan::{self, Budget, PAGE_MAX};
use super::trace::{Gathering, Subject, Trace};
use super::{Entry, FilterError};
use crate::store::{LedgerReader, StoreError};
use std::time::{Duration, Instant};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was given is no time.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// There is no such record, or none that is covered.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// There is no such record.
    #[error("there is no record {0}/{1} in the database; it may be archived")]
    NoRecord(LogId, u64),
    /// It takes too long.
    #[error("the ledger is too large to be searched in that time: narrow it down with since, or ask the database itself")]
    TooLong,
}

/// Who really did this. `None` if no record knows of the subject. `within` bounds how long it may be searched for.
///
/// # Errors
/// An [`AskError`].
pub async fn trace(
    reader: &LedgerReader,
    subject: Subject,
    since: Option<&str>,
    within: Duration,
) -> Result<Option<Trace>, AskError> {
    let begun = Instant::now();
    let mut gathering = Gathering::new(subject, since)?;
    while let Some((search, cursor)) = gathering.next_search() {
        let time = within.checked_sub(begun.elapsed()).ok_or(AskError::TooLong)?;
        gathering.take(scan::page(reader, &search, &cursor, Budget { time, records: PAGE_MAX }).await?);
    }
    Ok(gathering.finish())
}

/// The proof that the record `seq` is in a log, under the newest checkpoint that covers it.
///
/// # Errors
/// An [`AskError`].
pub async fn prove(reader: &LedgerReader, log: &LogId, seq: u64) -> Result<Proof, AskError> {
    let unknown = || AskError::NoRecord(log.clone(), seq);
    let number = i64::try_from(seq).map_err(|_| unknown())?;
    let first = reader.segment_of(log.as_str(), number).await?.ok_or_else(unknown)?;
    let segments = reader.segments(log.as_str(), first).await?;
    let segment = segments.first().ok_or_else(unknown)?;
    let within = usize::try_from(number.saturating_sub(segment.first)).map_err(|_| unknown())?;
    let body = segment.body.strip_suffix(b"\n").unwrap_or(&segment.body);
    let record = body.split(|b| *b == b'\n').nth(within).ok_or_else(unknown)?;
    let checkpoint = reader.checkpoint_over(log.as_str(), number).await?.ok_or(ProofError::NotCovered)?;
    let leaves = leaves(reader, log, checkpoint.size).await?;
    Ok(Proof::make(record, seq, &leaves, &checkpoint.note)?)
}

/// The first leaf hashes of a log.
async fn leaves(reader: &LedgerReader, log: &LogId, size: i64) -> Result<Vec<Hash>, AskError> {
    let mut leaves: Vec<Hash> = Vec::new();
    let mut from = 0;
    while i64::try_from(leaves.len()).is_ok_and(|count| count < size) {
        let rows = reader.hashes(log.as_str(), from).await?;
        let Some(last) = rows.last() else { return Err(ProofError::Damaged("records are missing").into()) };
        from = last.first.saturating_add(1);
        for row in &rows {
            if i64::try_from(leaves.len()) != Ok(row.first) {
                return Err(ProofError::Damaged("records are missing").into());
            }
            leaves.extend_from_slice(row.hashes.as_chunks::<32>().0);
        }
    }
    Ok(leaves)
}

/// The entries as they are shown in JSON: each as it stands in the log, and a line that is no record as one that says so.
#[must_use]
pub fn shown(entry: &Entry) -> String {
    if entry.is_unreadable() {
        let log = super::plain::json_line(entry.log());
        return format!(
            r#"{{"log":"{log}","seq":{},"event":"{}","outcome":"error","reason":"unreadable"}}"#,
            entry.seq(),
            super::UNREADABLE
        );
    }
    super::plain::json_line(entry.line())
}
