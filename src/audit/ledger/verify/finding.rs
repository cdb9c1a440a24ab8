//! What is wrong with a ledger, and where.

use super::super::LogId;
use crate::audit::plain::Plain;
use std::fmt;

/// Where a checkpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// From outside of the database: whoever can write to that alone cannot change it.
    Published,
    /// From the database itself.
    Stored,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Stored => "stored",
        })
    }
}

/// Who says that there is a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// A checkpoint of so many records.
    Checkpoint(Source, u64),
    /// The record with which another log took over from it.
    Successor(LogId),
    /// The row of another log, which says that it was taken over by this one.
    Predecessor(LogId),
    /// The row of the log itself.
    Row,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint(source, size) => write!(f, "a {source} checkpoint of {size} records"),
            Self::Successor(log) => write!(f, "the first records of its successor {log}"),
            Self::Predecessor(log) => write!(f, "its predecessor {log}"),
            Self::Row => f.write_str("its row in the table logs"),
        }
    }
}

/// One thing that is wrong. Numbers of records count from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A record is not what was hashed when it was written.
    Altered {
        /// The log.
        log: LogId,
        /// The record.
        seq: u64,
        /// Which of the two was changed, as far as a checkpoint tells.
        changed: Option<Changed>,
    },
    /// A line says that it is another record than the one in whose place it stands.
    Misplaced {
        /// The log.
        log: LogId,
        /// Where it stands.
        seq: u64,
        /// How it begins.
        begins: String,
    },
    /// Records are not there, though later ones are.
    Missing {
        /// The log.
        log: LogId,
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// Records have a number that earlier ones have.
    Repeated {
        /// The log.
        log: LogId,
        /// The first such number.
        seq: u64,
        /// How many.
        count: u64,
    },
    /// A row of the table segments does not agree with itself.
    Segment {
        /// The log.
        log: LogId,
        /// Its first record.
        first: u64,
        /// How it does not.
        why: &'static str,
    },
    /// Records were changed, exchanged, removed or added between two checkpoints, with hashes that fit.
    Rewritten {
        /// The log.
        log: LogId,
        /// The first record that may be wrong.
        from: u64,
        /// The last record that may be wrong.
        to: u64,
        /// Whose root is another.
        source: Source,
    },
    /// The end of a log is not there.
    Truncated {
        /// The log.
        log: LogId,
        /// How many records there are.
        size: u64,
        /// How many there were.
        was: u64,
        /// Who says so.
        witness: Witness,
    },
    /// A log goes on behind where it ended.
    Longer {
        /// The log.
        log: LogId,
        /// How many records there are.
        size: u64,
        /// With how many it ended.
        was: u64,
        /// Who says so.
        witness: Witness,
    },
    /// A log ended with another root than the one that it has now.
    OtherRoot {
        /// The log.
        log: LogId,
        /// How many records there are.
        size: u64,
        /// Who says so.
        witness: Witness,
    },
    /// A whole log is not there.
    LogMissing {
        /// The log.
        log: LogId,
        /// Who says that there is one.
        witness: Witness,
    },
    /// A log says of another that it took over from it, and that one does not.
    NotAdopted {
        /// The log that ended.
        log: LogId,
        /// The one that it names.
        successor: LogId,
    },
    /// A log was taken over by another, and its row does not name that one.
    NotSealed {
        /// The log that ended.
        log: LogId,
        /// The one that took over.
        successor: LogId,
    },
    /// The key has signed two histories.
    TwoHistories {
        /// The log.
        log: LogId,
        /// How many records each has.
        size: u64,
    },
    /// A checkpoint is forged, or was changed.
    Forged {
        /// Where it is from.
        source: Source,
        /// Of which log, as far as it can be told.
        log: String,
        /// What is wrong with it.
        why: String,
    },
    /// A row of a table, or the file itself, cannot be read.
    Unreadable {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
}

/// What does not agree with the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The record.
    Record,
    /// The hash that is stored beside it.
    Hash,
}

impl Finding {
    /// The record that it is about or begins with, if it is about some.
    #[must_use]
    pub const fn first_record(&self) -> Option<(&LogId, u64)> {
        match self {
            Self::Altered { log, seq, .. } | Self::Misplaced { log, seq, .. } | Self::Repeated { log, seq, .. } => {
                Some((log, *seq))
            }
            Self::Missing { log, from, .. } | Self::Rewritten { log, from, .. } => Some((log, *from)),
            Self::Segment { log, first, .. } => Some((log, *first)),
            Self::Truncated { log, size, .. } => Some((log, *size)),
            Self::Longer { log, was, .. } => Some((log, *was)),
            _ => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered { log, seq, changed } => match changed {
                None => write!(f, "{log}/{seq}: the record and the hash that is stored with it do not agree"),
                Some(Changed::Record) => write!(f, "{log}/{seq}: the record was changed after it was written"),
                Some(Changed::Hash) => {
                    write!(f, "{log}/{seq}: the hash that is stored with the record was changed, the record was not")
                }
            },
            Self::Misplaced { log, seq, begins } => {
                write!(f, "{log}/{seq}: in the place of this record stands another, which begins {}", Plain(begins))
            }
            Self::Missing { log, from, to } => write!(f, "{log}/{from} to {log}/{to}: these records were removed"),
            Self::Repeated { log, seq, count } => {
                write!(f, "{log}/{seq}: {count} records were inserted under numbers that others have, from this one on")
            }
            Self::Segment { log, first, why } => write!(f, "{log}/{first}: the row of table segments that begins here {why}"),
            Self::Rewritten { log, from, to, source } => write!(
                f,
                "{log}/{from} to {log}/{to}: among these, records were changed, exchanged, removed or inserted: the root of the {source} \
                 checkpoint of {} records is another",
                to.saturating_add(1)
            ),
            Self::Truncated { log, size, was, witness } => write!(
                f,
                "{log}/{size} to {log}/{}: these records were removed from the end, or an old copy was restored: {witness} shows them",
                was.saturating_sub(1)
            ),
            Self::Longer { log, size, was, witness } => write!(
                f,
                "{log}/{was} to {log}/{}: these records were added after the log had ended, says {witness}",
                size.saturating_sub(1)
            ),
            Self::OtherRoot { log, size, witness } => {
                write!(f, "{log}: with {size} records it has another root than {witness} says: records were changed")
            }
            Self::LogMissing { log, witness } => {
                write!(f, "{log}: the whole log was removed, or an old copy was restored: {witness} names it")
            }
            Self::NotAdopted { log, successor } => {
                write!(f, "{log}: its row says that log {successor} took over from it, and no record there does")
            }
            Self::NotSealed { log, successor } => {
                write!(f, "{log}: log {successor} took over from it, and its row does not say so")
            }
            Self::TwoHistories { log, size } => write!(
                f,
                "{log}: there are two signed checkpoints of {size} records with different roots: the history was rewritten with the key"
            ),
            Self::Forged { source, log, why } => {
                write!(f, "{}: a {source} checkpoint is not to be believed: {}", Plain(log), Plain(why))
            }
            Self::Unreadable { what, why } => write!(f, "{}: cannot be read: {}", Plain(what), Plain(why)),
        }
    }
}

/// Something that could not be checked, so that nobody can say that all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// A checkpoint that is signed with a key that was not given.
    UnknownKey {
        /// Where it is from.
        source: Source,
        /// How many of them.
        count: u64,
    },
    /// A log that was moved to the archive, which was not given.
    Archived {
        /// The log.
        log: LogId,
        /// How many records it has.
        records: u64,
    },
    /// Something given as a checkpoint is none.
    NoCheckpoint(String),
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { source, count } => write!(
                f,
                "{count} {source} checkpoints are signed with a key that was not given. If the key was replaced (records \
                 ledger.key_changed say so), give the others too with --vkey"
            ),
            Self::Archived { log, records } => {
                write!(f, "{log}: its {records} records were archived: give the directory with --archive")
            }
            Self::NoCheckpoint(why) => write!(f, "one of the checkpoints given is none: {}", Plain(why)),
        }
    }
}
