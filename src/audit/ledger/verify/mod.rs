//! Whether a ledger is what was written: every record in its place, every log there, and all of it under the roots that were signed.
//!
//! Pure: whoever reads the database, or an archive, gives what it reads to a [`Verification`].

mod finding;
mod log;
mod report;

pub use finding::{Changed, Finding, Gap, Source, Witness};
pub use log::LogCheck;
pub use report::{LogSummary, Report, Verdict};

use super::LogId;
use super::note::{Checkpoint, NoteError, Vkey};
use super::tree::Hash;
use crate::store::{StoredLog, StoredSegment};
use log::{Checked, Mark, differs, index};
use std::collections::BTreeMap;

/// What the table `logs` says of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// How many records it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The log that took over from it; itself if its process ended in order.
    pub sealed_by: Option<LogId>,
    /// Whether its records were moved to the archive.
    pub is_archived: bool,
}

impl Row {
    /// Reads a row, which may hold anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(stored: &StoredLog) -> Result<Self, &'static str> {
        let sealed_by = stored.sealed_by.as_ref().map(|log| log.parse()).transpose();
        Ok(Self {
            size: stored.size.try_into().map_err(|_| "its size is below 0")?,
            root: stored.root.as_slice().try_into().map_err(|_| "its root is no hash")?,
            sealed_by: sealed_by.map_err(|_| "its successor is no name of a log")?,
            is_archived: stored.archived_at.is_some(),
        })
    }
}

impl<'a> Segment<'a> {
    /// Reads a row, which may hold anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(stored: &'a StoredSegment) -> Result<Self, &'static str> {
        Ok(Self {
            first: stored.first.try_into().map_err(|_| "its first record has a number below 0")?,
            count: stored.count.try_into().map_err(|_| "it has less than no records")?,
            body: &stored.body,
            hashes: Some(&stored.hashes),
        })
    }
}

/// A row of the table `segments`, or a piece of an archived log.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The number of its first record.
    pub first: u64,
    /// How many records it says to have.
    pub count: u64,
    /// The records, each with its newline.
    pub body: &'a [u8],
    /// Their leaf hashes one after another, if they are stored.
    pub hashes: Option<&'a [u8]>,
}

/// The verification of a ledger.
#[derive(Debug)]
pub struct Verification {
    keys: Vec<Vkey>,
    /// The checkpoints whose signatures hold.
    marks: BTreeMap<LogId, Vec<Mark>>,
    logs: BTreeMap<LogId, Checked>,
    /// The logs in the order in which they were read.
    order: Vec<LogId>,
    findings: Vec<Finding>,
    gaps: Vec<Gap>,
    /// Published ones that hold.
    published: u64,
    /// Of either source: signed with a key that is not known.
    unknown: [u64; 2],
}

impl Verification {
    /// Begins, with the keys that are trusted.
    #[must_use]
    pub const fn new(keys: Vec<Vkey>) -> Self {
        Self {
            keys,
            marks: BTreeMap::new(),
            logs: BTreeMap::new(),
            order: Vec::new(),
            findings: Vec::new(),
            gaps: Vec::new(),
            published: 0,
            unknown: [0; 2],
        }
    }

    /// Takes a checkpoint that was kept outside of the database. All of them come before the first log.
    pub fn published(&mut self, note: &str) {
        match Checkpoint::open(note, &self.keys) {
            Ok(checkpoint) => {
                self.published = self.published.saturating_add(1);
                self.mark(Source::Published, checkpoint);
            }
            Err(NoteError::UnknownKey) => self.is_unknown(Source::Published),
            Err(error @ NoteError::WrongSignature(_)) => self.forged(Source::Published, note, &error),
            Err(error) => self.gaps.push(Gap::NoCheckpoint(error.to_string())),
        }
    }

    /// Takes a checkpoint from the database, stored under that log and size. All of them come before the first log.
    pub fn stored(&mut self, log: &str, size: i64, note: &str) {
        match Checkpoint::open(note, &self.keys) {
            Ok(checkpoint) if checkpoint.log.as_str() == log && i64::try_from(checkpoint.size) == Ok(size) => {
                self.mark(Source::Stored, checkpoint);
            }
            Ok(_) => {
                let why = "it is stored as one of another log or size".to_owned();
                self.findings.push(Finding::Forged { source: Source::Stored, log: log.to_owned(), why });
            }
            Err(NoteError::UnknownKey) => self.is_unknown(Source::Stored),
            Err(error) => self.forged(Source::Stored, note, &error),
        }
    }

    fn mark(&mut self, source: Source, checkpoint: Checkpoint) {
        let Checkpoint { log, size, root, .. } = checkpoint;
        self.marks.entry(log).or_default().push(Mark { size, source, root });
    }

    fn is_unknown(&mut self, source: Source) {
        if let Some(count) = self.unknown.get_mut(index(source)) {
            *count = count.saturating_add(1);
        }
    }

    fn forged(&mut self, source: Source, note: &str, error: &NoteError) {
        let log =
            Checkpoint::read_unverified(note).map_or_else(|_| "unknown log".to_owned(), |checkpoint| checkpoint.log.to_string());
        self.findings.push(Finding::Forged { source, log, why: error.to_string() });
    }

    /// Something that could not be read at all.
    pub fn unreadable(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.findings.push(Finding::Unreadable { what: what.into(), why: why.into() });
    }

    /// Begins to read a log that is in the database. `None` if its row makes no sense, which is noted.
    pub fn row(&mut self, stored: &StoredLog) -> Option<LogCheck> {
        let name = |why: &str| format!("the row of log {}: {why}", stored.id);
        let read = stored.id.parse().map_err(|_| "its name is none").and_then(|log| Ok((log, Row::read(stored)?)));
        match read {
            Ok((log, row)) => Some(self.log(log, Some(row))),
            Err(why) => {
                self.unreadable(name("table logs"), why);
                None
            }
        }
    }

    /// Begins to read a log. `row` is what the table `logs` says of it, if that was read.
    #[must_use]
    pub fn log(&self, log: LogId, row: Option<Row>) -> LogCheck {
        let marks = self.marks.get(&log).cloned().unwrap_or_default();
        LogCheck::new(log, row, marks)
    }

    /// Ends it.
    pub fn done(&mut self, check: LogCheck) {
        self.keep(check.finish(true));
    }

    /// Ends it for a log whose records are in an archive that is not at hand.
    pub fn not_at_hand(&mut self, check: LogCheck) {
        let checked = check.finish(false);
        self.gaps.push(Gap::Archived { log: checked.log.clone(), records: checked.size });
        self.keep(checked);
    }

    fn keep(&mut self, checked: Checked) {
        self.order.push(checked.log.clone());
        self.logs.insert(checked.log.clone(), checked);
    }

    /// What came of it.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let mut findings = std::mem::take(&mut self.findings);
        for log in &self.order {
            findings.extend(self.logs.get_mut(log).map(|checked| std::mem::take(&mut checked.findings)).unwrap_or_default());
        }
        findings.extend(self.histories());
        findings.extend(self.absent());
        for checked in self.order.iter().filter_map(|log| self.logs.get(log)) {
            findings.extend(self.succession(checked));
        }
        let more = self.logs.values().map(|checked| checked.more).sum();
        for source in [Source::Published, Source::Stored] {
            let count = self.unknown.get(index(source)).copied().unwrap_or_default();
            if count > 0 {
                self.gaps.push(Gap::UnknownKey { source, count });
            }
        }
        let logs = self.order.iter().filter_map(|log| self.logs.remove(log)).map(|checked| LogSummary {
            records: checked.size,
            covered: checked.covered.first().copied().unwrap_or_default(),
            covered_by_stored: checked.covered.get(1).copied().unwrap_or_default(),
            is_read: checked.is_read,
            log: checked.log,
        });
        Report { logs: logs.collect(), findings, more, gaps: self.gaps, published: self.published }
    }

    /// Sizes at which there are two roots.
    fn histories(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (log, marks) in &self.marks {
            let mut roots: BTreeMap<u64, Hash> = BTreeMap::new();
            for mark in marks {
                if *roots.entry(mark.size).or_insert(mark.root) != mark.root {
                    found.push(Finding::TwoHistories { log: log.clone(), size: mark.size });
                    break;
                }
            }
        }
        found
    }

    /// Logs of which there are checkpoints, and no records.
    fn absent(&self) -> Vec<Finding> {
        let absent = self.marks.iter().filter(|(log, _)| !self.logs.contains_key(*log));
        let largest = |marks: &[Mark]| marks.iter().max_by_key(|mark| (std::cmp::Reverse(mark.source), mark.size)).cloned();
        absent
            .filter_map(|(log, marks)| {
                let mark = largest(marks)?;
                Some(Finding::LogMissing { log: log.clone(), witness: Witness::Checkpoint(mark.source, mark.size) })
            })
            .collect()
    }

    /// Whether the logs before and behind this one are what it says of them.
    fn succession(&self, checked: &Checked) -> Vec<Finding> {
        let mut found = Vec::new();
        for adoption in &checked.adoptions {
            let witness = Witness::Successor(checked.log.clone());
            match self.logs.get(&adoption.predecessor) {
                None if self.marks.contains_key(&adoption.predecessor) => {}
                None => found.push(Finding::LogMissing { log: adoption.predecessor.clone(), witness }),
                Some(before) => {
                    found.extend(differs(
                        &before.log,
                        (before.size, before.root.as_ref()),
                        (adoption.size, &adoption.root),
                        &witness,
                    ));
                    if before.has_row && before.sealed_by.as_ref() != Some(&checked.log) {
                        found.push(Finding::NotSealed { log: before.log.clone(), successor: checked.log.clone() });
                    }
                }
            }
        }
        if let Some(successor) = checked.sealed_by.as_ref().filter(|successor| **successor != checked.log) {
            match self.logs.get(successor) {
                None => {
                    found.push(Finding::LogMissing { log: successor.clone(), witness: Witness::Predecessor(checked.log.clone()) })
                }
                // The records of one that is archived elsewhere are not known.
                Some(after) if after.is_read && !after.adoptions.iter().any(|a| a.predecessor == checked.log) => {
                    found.push(Finding::NotAdopted { log: checked.log.clone(), successor: successor.clone() });
                }
                Some(_) => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
