//! One log, read from its first record to its last.

use super::super::LogId;
use super::super::tree::{Hash, Tree, leaf_hash};
use super::finding::{Changed, Finding, Source, Witness};
use super::{Row, Segment};
use crate::audit::Entry;
use crate::store::StoredSegment;
use memchr::memchr_iter;
use memchr::memmem;
use std::io::Write as _;

/// How many findings about one log are kept; the rest is counted.
const FINDINGS_MAX: usize = 16;
/// How much of a line is quoted.
const QUOTED: usize = 80;

/// A checkpoint whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) size: u64,
    pub(super) source: Source,
    pub(super) root: Hash,
}

/// With which log a log took over from which other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adoption {
    pub(super) predecessor: LogId,
    pub(super) size: u64,
    pub(super) root: Hash,
}

/// What is known of a log after it was read.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) log: LogId,
    pub(super) size: u64,
    /// `None` where it could not be computed for records that are missing.
    pub(super) root: Option<Hash>,
    pub(super) sealed_by: Option<LogId>,
    /// Whether there is a row that could say so.
    pub(super) has_row: bool,
    pub(super) adoptions: Vec<Adoption>,
    /// How many of its records the largest published checkpoint that fits covers, and the largest stored one.
    pub(super) covered: [u64; 2],
    pub(super) findings: Vec<Finding>,
    pub(super) more: u64,
    /// Whether its records were read; not if they are in an archive that was not given.
    pub(super) is_read: bool,
}

/// Reads one log. Give it all [segments](Self::segment) in the order of their first record, then [finish](super::Verification::done).
#[derive(Debug)]
pub struct LogCheck {
    log: LogId,
    row: Option<Row>,
    /// By size, those of one size one after another.
    marks: Vec<Mark>,
    next_mark: usize,
    /// How many records were read: the number that the next one must have.
    next: u64,
    /// The tree over the records. `None` behind a gap.
    tree: Option<Tree>,
    /// The tree over the stored hashes, from the first on that does not agree with its record.
    stored: Option<Tree>,
    /// Size of the last checkpoint that fitted, of either source.
    fitted: [u64; 2],
    /// Whether one did not.
    is_broken: [bool; 2],
    /// Findings of which it is not known yet what was changed.
    unresolved: Vec<usize>,
    prefix: Vec<u8>,
    adoptions: Vec<Adoption>,
    findings: Vec<Finding>,
    more: u64,
}

impl LogCheck {
    pub(super) fn new(log: LogId, row: Option<Row>, mut marks: Vec<Mark>) -> Self {
        marks.sort();
        marks.dedup();
        let mut check = Self {
            log,
            row,
            marks,
            next_mark: 0,
            next: 0,
            tree: Some(Tree::new()),
            stored: None,
            fitted: [0; 2],
            is_broken: [false; 2],
            unresolved: Vec::new(),
            prefix: Vec::new(),
            adoptions: Vec::new(),
            findings: Vec::new(),
            more: 0,
        };
        check.compare();
        check
    }

    /// How many records were read so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.next
    }

    /// Whether its records were moved to the archive, says its row.
    #[must_use]
    pub fn is_archived(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.is_archived)
    }

    /// Reads the next segment as it is stored.
    pub fn stored(&mut self, stored: &StoredSegment) {
        match Segment::read(stored) {
            Ok(segment) => self.segment(&segment),
            Err(why) => self.unreadable(format!("a row of table segments of log {}", self.log), why),
        }
    }

    /// Something of this log that could not be read at all.
    pub fn unreadable(&mut self, what: String, why: &str) {
        self.find(Finding::Unreadable { what, why: why.to_owned() });
    }

    /// Reads the next segment.
    pub fn segment(&mut self, segment: &Segment<'_>) {
        let first = segment.first;
        if first < self.next {
            // What was there first is the record; that one is compared with the checkpoints.
            return self.find(Finding::Repeated { log: self.log.clone(), seq: first, count: segment.count });
        }
        if first > self.next {
            self.find(Finding::Missing { log: self.log.clone(), from: self.next, to: first.saturating_sub(1) });
            self.tree = None;
            self.stored = None;
            self.next = first;
        }
        let hashes = segment.hashes.map(|hashes| hashes.as_chunks::<32>());
        let mut stored = hashes.map(|(hashes, _)| hashes.iter());
        let mut start = 0;
        let mut lines = 0u64;
        for end in memchr_iter(b'\n', segment.body) {
            let line = segment.body.get(start..end).unwrap_or_default();
            start = end.saturating_add(1);
            lines = lines.saturating_add(1);
            self.record(line, stored.as_mut().map(Iterator::next));
        }
        let whole = start == segment.body.len();
        let hashed = hashes.is_none_or(|(hashes, rest)| rest.is_empty() && u64::try_from(hashes.len()) == Ok(lines));
        let why = match (whole, lines == segment.count, hashed) {
            (false, ..) => "ends within a record",
            (_, false, _) => "has another number of records than it says",
            (.., false) => "has another number of hashes than of records",
            _ => return,
        };
        self.find(Finding::Segment { log: self.log.clone(), first, why });
    }

    /// One record. `stored` is the hash that is stored with it: `None` where none are, `Some(None)` where it is missing.
    fn record(&mut self, line: &[u8], stored: Option<Option<&Hash>>) {
        let seq = self.next;
        let leaf = leaf_hash(line);
        let agrees = stored.is_none_or(|hash| hash == Some(&leaf));
        if !agrees {
            if self.stored.is_none() {
                self.stored = self.tree.clone();
            }
            if self.findings.len() < FINDINGS_MAX {
                self.unresolved.push(self.findings.len());
            }
            self.find(Finding::Altered { log: self.log.clone(), seq, changed: None });
        }
        self.prefix.clear();
        // Writing into memory cannot fail.
        _ = write!(self.prefix, "{{\"log\":\"{}\",\"seq\":{seq},\"time\":\"", self.log);
        if agrees && !line.starts_with(&self.prefix) {
            let begins = String::from_utf8_lossy(line.get(..line.len().min(QUOTED)).unwrap_or_default()).into_owned();
            self.find(Finding::Misplaced { log: self.log.clone(), seq, begins });
        }
        // No text of a record can hold this: its quotes would be escaped.
        if memmem::find(line, b"\"event\":\"ledger.opened\"").is_some() {
            self.adoptions.extend(adoption(&Entry::read(self.log.as_str(), seq, line)));
        }
        if let Some(tree) = &mut self.tree {
            tree.append(leaf);
        }
        if let Some(tree) = &mut self.stored {
            tree.append(stored.flatten().copied().unwrap_or(leaf));
        }
        self.next = self.next.saturating_add(1);
        if self.marks.get(self.next_mark).is_some_and(|mark| mark.size <= self.next) {
            self.compare();
        }
    }

    /// Compares the root with all checkpoints of the current size.
    fn compare(&mut self) {
        let roots = (self.tree.as_ref().map(Tree::root), self.stored.as_ref().map(Tree::root));
        while let Some(mark) = self.marks.get(self.next_mark).filter(|mark| mark.size <= self.next).cloned() {
            self.next_mark = self.next_mark.saturating_add(1);
            let (Some(root), true) = (roots.0, mark.size == self.next) else { continue };
            let source = index(mark.source);
            let (changed, fits) = match (root == mark.root, roots.1 == Some(mark.root)) {
                (true, _) => (Some(Changed::Hash), true),
                (false, true) => (Some(Changed::Record), false),
                (false, false) => (None, false),
            };
            if let Some(changed) = changed {
                for at in std::mem::take(&mut self.unresolved) {
                    if let Some(Finding::Altered { changed: unknown, .. }) = self.findings.get_mut(at) {
                        *unknown = Some(changed);
                    }
                }
            }
            let was = self.fitted.get(source).copied().unwrap_or_default();
            if fits && let Some(fitted) = self.fitted.get_mut(source) {
                *fitted = mark.size;
            }
            // A record that is named is enough, and so is the first of a source.
            if !fits && changed.is_none() && !self.is_broken.get(source).copied().unwrap_or_default() {
                let to = mark.size.saturating_sub(1);
                self.find(Finding::Rewritten { log: self.log.clone(), from: was, to, source: mark.source });
            }
            if !fits && let Some(broken) = self.is_broken.get_mut(source) {
                *broken = true;
            }
        }
    }

    /// Notes a finding, of too many only that there was one.
    pub(super) fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// After the last segment.
    pub(super) fn finish(mut self, is_read: bool) -> Checked {
        let mut size = self.next;
        let mut root = self.tree.as_ref().map(Tree::root);
        let row = self.row.take();
        if let (false, Some(row)) = (is_read, &row) {
            (size, root) = (row.size, Some(row.root));
        } else {
            if let Some(row) = &row {
                self.expect(row.size, &row.root, &Witness::Row);
            }
            for source in [Source::Published, Source::Stored] {
                // Of those behind the end the largest says most.
                if let Some(mark) = self.marks.iter().rev().find(|mark| mark.source == source && mark.size > size) {
                    let witness = Witness::Checkpoint(source, mark.size);
                    self.find(Finding::Truncated { log: self.log.clone(), size, was: mark.size, witness });
                }
            }
        }
        Checked {
            log: self.log,
            size,
            root,
            has_row: row.is_some(),
            sealed_by: row.and_then(|row| row.sealed_by),
            adoptions: self.adoptions,
            covered: self.fitted,
            findings: self.findings,
            more: self.more,
            is_read,
        }
    }

    fn expect(&mut self, size: u64, root: &Hash, witness: &Witness) {
        let ours = self.tree.as_ref().map(Tree::root);
        let finding = differs(&self.log, (self.next, ours.as_ref()), (size, root), witness);
        finding.into_iter().for_each(|finding| self.find(finding));
    }
}

/// How a log of this size and root differs from what `witness` says of its end.
pub(super) fn differs(
    log: &LogId,
    (size, root): (u64, Option<&Hash>),
    (was, was_root): (u64, &Hash),
    witness: &Witness,
) -> Option<Finding> {
    let (log, witness) = (log.clone(), witness.clone());
    match size.cmp(&was) {
        std::cmp::Ordering::Less => Some(Finding::Truncated { log, size, was, witness }),
        std::cmp::Ordering::Greater => Some(Finding::Longer { log, size, was, witness }),
        std::cmp::Ordering::Equal => {
            root.is_some_and(|root| root != was_root).then_some(Finding::OtherRoot { log, size, witness })
        }
    }
}

pub(super) const fn index(source: Source) -> usize {
    match source {
        Source::Published => 0,
        Source::Stored => 1,
    }
}

/// Which log a record of `ledger.opened` takes over, if any.
fn adoption(entry: &Entry) -> Option<Adoption> {
    use base64::Engine as _;
    let root = base64::engine::general_purpose::STANDARD.decode(entry.find("predecessor_root")?).ok()?;
    Some(Adoption {
        predecessor: entry.find("predecessor")?.parse().ok()?,
        size: entry.number("predecessor_size")?,
        root: root.try_into().ok()?,
    })
}
