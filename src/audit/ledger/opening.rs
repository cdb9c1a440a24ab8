//! How a process begins its logs.

use super::LogId;
use super::log::Head;
use crate::audit::copy::Copy;
use crate::audit::{Outcome, Record};
use crate::time::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// After how many records a checkpoint is due, however short the time.
pub(crate) const CHECKPOINT_RECORDS: u64 = 1000;

/// When a log ends and the same process goes on with another.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many records it has at most, those of one append more or less.
    pub records: u64,
    /// How old it gets.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 1_000_000, age: Duration::from_secs(24 * 3600) }
    }
}

/// What its writer must know to write a log.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) writer: String,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) copy: Copy,
    pub(crate) heads: std::sync::Arc<Heads>,
}

/// How far the logs of this process are, for whoever signs checkpoints.
#[derive(Debug)]
pub struct Heads {
    state: Mutex<State>,
    due: Notify,
}

#[derive(Debug)]
struct State {
    vkey: String,
    current: Option<Head>,
    /// Logs that have ended and are not signed yet.
    ended: Vec<Head>,
    /// How far each log of ours is, and how far a published checkpoint covers it. What has ended and is covered is gone.
    covered: BTreeMap<LogId, (u64, u64)>,
    /// What was found that cannot be, and nobody has recorded yet.
    discontinuities: Vec<Discontinuity>,
}

/// A log that is not as it was: it was restored from an old copy, or somebody has changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discontinuity {
    /// Which log, and how far it was.
    pub was: Head,
    /// What is wrong with it.
    pub kind: Break,
    /// How many records it has now. None if it is gone.
    pub size: Option<u64>,
}

/// How a log can be other than it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// It is not there.
    Missing,
    /// It has fewer records.
    Shorter,
    /// It has other records.
    OtherRoot,
}

impl Break {
    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Shorter => "shorter",
            Self::OtherRoot => "other_root",
        }
    }
}

impl Heads {
    /// No log yet. Checkpoints will be signed with the key of which `vkey` is the public half.
    pub(crate) fn new(vkey: String) -> Self {
        let (ended, discontinuities) = (Vec::new(), Vec::new());
        let state = State { vkey, current: None, ended, covered: BTreeMap::new(), discontinuities };
        Self { state: Mutex::new(state), due: Notify::new() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that signs is another from now on. Returns the one before.
    pub(crate) fn set_vkey(&self, vkey: String) -> String {
        self.with(|state| std::mem::replace(&mut state.vkey, vkey))
    }

    pub(crate) fn vkey(&self) -> String {
        self.with(|state| state.vkey.clone())
    }

    /// The log that is written has grown.
    pub(crate) fn grown(&self, head: Head) {
        let (before, after) = self.with(|state| {
            let after = head.size;
            match state.covered.get_mut(&head.log) {
                Some((size, _)) => *size = after,
                None => _ = state.covered.insert(head.log.clone(), (after, 0)),
            }
            let log = head.log.clone();
            let before = state.current.replace(head).filter(|before| before.log == log).map(|before| before.size);
            (before, after)
        });
        // Of a new log soon, so that it is known that there is one.
        if before.is_none_or(|before| before / CHECKPOINT_RECORDS != after / CHECKPOINT_RECORDS) {
            self.due.notify_one();
        }
    }

    /// A log has ended in order with these records.
    pub(crate) fn ended(&self, head: Head) {
        self.with(|state| {
            state.current = state.current.take().filter(|current| current.log != head.log);
            state.ended.push(head);
        });
        self.due.notify_one();
    }

    /// The log that is written belongs to another: nothing more is to be said of it.
    pub(crate) fn lost(&self) {
        self.with(|state| {
            if let Some(current) = state.current.take() {
                state.covered.remove(&current.log);
            }
        });
    }

    /// A log is not as it was left.
    pub(crate) fn broken(&self, discontinuity: Discontinuity) {
        self.with(|state| state.discontinuities.push(discontinuity));
        self.due.notify_one();
    }

    /// Takes what was found to be broken.
    pub(crate) fn take_broken(&self) -> Vec<Discontinuity> {
        self.with(|state| std::mem::take(&mut state.discontinuities))
    }

    /// A checkpoint of that log and size is published.
    pub(crate) fn covered(&self, log: &LogId, size: u64) {
        self.with(|state| {
            if let Some((_, covered)) = state.covered.get_mut(log) {
                *covered = size.max(*covered);
            }
            let current = state.current.as_ref();
            state.covered.retain(|log, (size, covered)| covered < size || current.is_some_and(|current| current.log == *log));
        });
    }

    /// How many records of this process no published checkpoint covers.
    #[must_use]
    pub fn uncovered(&self) -> u64 {
        self.with(|state| state.covered.values().map(|(size, covered)| size.saturating_sub(*covered)).sum())
    }

    /// How far the log is that is written.
    #[must_use]
    pub fn current(&self) -> Option<Head> {
        self.with(|state| state.current.clone())
    }

    /// Takes the logs that have ended and are to be signed a last time.
    pub(crate) fn take_ended(&self) -> Vec<Head> {
        self.with(|state| std::mem::take(&mut state.ended))
    }

    /// Returns when a checkpoint is due because there are many new records.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }
}

/// The first records of a log: which key will sign its checkpoints, and which logs it follows. `predecessors` are their names, sizes and
/// roots.
pub(crate) fn opened(
    opening: &Opening,
    reason: &'static str,
    predecessors: impl IntoIterator<Item = (String, u64, Vec<u8>)>,
) -> Vec<Vec<u8>> {
    let record = || {
        let mut record = Record::new("ledger.opened", crate::token::new_id().unwrap_or_default());
        record.text("writer", opening.writer.as_str()).own("vkey", opening.heads.vkey()).conclude(Outcome::Allow, reason);
        record
    };
    let mut records: Vec<Vec<u8>> = predecessors
        .into_iter()
        .map(|(id, size, root)| {
            let mut record = record();
            record.text("predecessor", id).number("predecessor_size", size).own("predecessor_root", STANDARD.encode(root));
            record.members()
        })
        .collect();
    if records.is_empty() {
        records.push(record().members());
    }
    records
}
