//! What came of a verification.

use super::super::LogId;
use super::finding::{Finding, Gap};
use std::fmt;

/// What can be said of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is what was written, as far as checkpoints cover it.
    Clean,
    /// It is not.
    Tampered,
    /// Nobody can tell from what was given.
    Unknown,
}

/// One log of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Which.
    pub log: LogId,
    /// How many records it has.
    pub records: u64,
    /// How many of them a published checkpoint covers.
    pub covered: u64,
    /// How many of them a checkpoint in the database covers.
    pub covered_by_stored: u64,
    /// Whether its records were read.
    pub is_read: bool,
}

/// What came of a verification. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The logs, in the order in which they were read.
    pub logs: Vec<LogSummary>,
    /// What is wrong: the records of each log in order, the logs as they were read, and what is between them.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub more: u64,
    /// What could not be checked.
    pub gaps: Vec<Gap>,
    /// How many published checkpoints were given whose signatures hold.
    pub published: u64,
}

impl Report {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.findings.is_empty(), self.gaps.is_empty()) {
            (false, _) => Verdict::Tampered,
            (true, false) => Verdict::Unknown,
            (true, true) => Verdict::Clean,
        }
    }

    /// How many records were read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.logs.iter().filter(|log| log.is_read).map(|log| log.records).sum()
    }

    /// How many records no published checkpoint covers.
    #[must_use]
    pub fn uncovered(&self) -> u64 {
        self.logs.iter().map(|log| log.records.saturating_sub(log.covered)).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "TAMPERED {finding}")?;
        }
        if self.more > 0 {
            writeln!(f, "TAMPERED and {} findings more", self.more)?;
        }
        for gap in &self.gaps {
            writeln!(f, "UNCHECKED {gap}")?;
        }
        for log in &self.logs {
            let read = if log.is_read { "" } else { ", not read" };
            writeln!(
                f,
                "log {}: {} records, {} of them under a published checkpoint, {} under a stored one{read}",
                log.log, log.records, log.covered, log.covered_by_stored
            )?;
        }
        let (logs, records, published) = (self.logs.len(), self.records(), self.published);
        writeln!(f, "{records} records in {logs} logs were read, and compared with {published} published checkpoints.")?;
        let uncovered = self.uncovered();
        if published == 0 {
            writeln!(
                f,
                "WARNING: no published checkpoint was given. Whoever can write to the database may have removed whole logs or their \
                 ends, or restored an old copy: give --checkpoints."
            )?;
        } else if uncovered > 0 {
            writeln!(f, "{uncovered} records are not under a published checkpoint: what was done to these cannot be told.")?;
        }
        f.write_str(match self.verdict() {
            Verdict::Clean => "CLEAN\n",
            Verdict::Tampered => "TAMPERED\n",
            Verdict::Unknown => "UNKNOWN: not everything could be checked\n",
        })
    }
}
