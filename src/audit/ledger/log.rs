//! A log that this process writes: how records become lines, and lines a tree.

use super::LogId;
use super::tree::{Hash, Tree, leaf_hash};
use k8s_openapi::jiff::Timestamp;
use std::io::Write as _;

/// How far a log is: what a checkpoint says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which log.
    pub log: LogId,
    /// How many records it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// A log as its writer knows it.
#[derive(Debug, Clone)]
pub struct Log {
    id: LogId,
    tree: Tree,
    /// The time of the last record.
    last: Option<Timestamp>,
}

/// Records that are appended at once.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The number of the first.
    pub first: u64,
    /// Each as a line with its newline.
    pub body: Vec<u8>,
    /// Their leaf hashes, 32 bytes each.
    pub hashes: Vec<u8>,
    /// How far the log is with them.
    pub head: Head,
    after: Log,
}

impl Log {
    /// A log without records. `last` is the time of the last record of the log before it.
    #[must_use]
    pub const fn new(id: LogId, last: Option<Timestamp>) -> Self {
        Self { id, tree: Tree::new(), last }
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> &LogId {
        &self.id
    }

    /// How many records it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The time of the last record.
    #[must_use]
    pub const fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// The next records, each given by the members of its JSON object that follow the time, and written at `now`. The log is not changed:
    /// [`Self::take_in`] does that, once they are stored.
    ///
    /// When the clock has gone back since the record before, the first of them says by how many milliseconds.
    #[must_use]
    pub fn batch<'a>(&self, records: impl IntoIterator<Item = &'a [u8]>, now: Timestamp) -> Batch {
        let mut after = self.clone();
        let (mut body, mut hashes) = (Vec::new(), Vec::new());
        let beginning = format!(r#"{{"log":"{}","seq":"#, self.id);
        let middle = format!(r#","time":"{now:.3}","#);
        for members in records {
            let start = body.len();
            // Writing into memory cannot fail.
            _ = write!(body, "{beginning}{}{middle}", after.tree.size());
            body.extend_from_slice(members);
            let went_back = after.last.map_or(0, |last| last.as_millisecond().saturating_sub(now.as_millisecond()));
            if went_back > 0 && body.pop().is_some() {
                _ = write!(body, r#","time_went_back":{went_back}}}"#);
            }
            after.last = Some(now);
            let leaf = leaf_hash(body.get(start..).unwrap_or_default());
            body.push(b'\n');
            hashes.extend_from_slice(&leaf);
            after.tree.append(leaf);
        }
        let head = Head { log: self.id.clone(), size: after.tree.size(), root: after.tree.root() };
        Batch { first: self.tree.size(), body, hashes, head, after }
    }

    /// The records of `batch`, which was made from this log as it is, are stored.
    pub fn take_in(&mut self, batch: &Batch) {
        self.clone_from(&batch.after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn log() -> Log {
        Log::new("0123456789abcdef0123456789abcdef".parse().expect("a name"), None)
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).expect("a time")
    }

    const MEMBERS: &[u8] = br#""event":"a","n":1}"#;

    #[test]
    fn records_are_numbered_without_gaps_and_hashed_as_they_are_stored() {
        let (mut log, mut lines) = (log(), Vec::new());
        for count in [1, 3, 2] {
            let batch = log.batch(vec![MEMBERS; count], at(1_800_000_000_000));
            assert_eq!(batch.first, log.size());
            log.take_in(&batch);
            assert_eq!(batch.head.size, log.size());
            lines.extend(String::from_utf8(batch.body).expect("ASCII").lines().map(str::to_owned));
            let hashes: Vec<Hash> = batch.hashes.chunks(32).map(|hash| hash.try_into().expect("32 bytes")).collect();
            let leaves: Vec<Hash> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
            assert!(leaves.ends_with(&hashes));
            assert_eq!(batch.head.root, Tree::of(&leaves).root());
        }
        for (number, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!(r#"{{"log":"{}","seq":{number},"time":"2027-"#, log.id())), "{line}");
            let record: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!((&record["time"], &record["n"]), (&"2027-01-15T08:00:00.000Z".into(), &1.into()));
        }
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn l15_a_clock_that_goes_back_is_noted_once_and_numbers_go_on() {
        let mut log = log();
        let mut went_back = |times: &[i64]| -> Vec<Option<u64>> {
            let batches = times.iter().map(|time| {
                let batch = log.batch([MEMBERS, MEMBERS], at(*time));
                log.take_in(&batch);
                batch.body
            });
            let bodies: Vec<u8> = batches.flatten().collect();
            let lines = String::from_utf8(bodies).expect("ASCII");
            lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["time_went_back"].as_u64()).collect()
        };
        assert_eq!(went_back(&[10_000, 10_000, 20_000]), [None; 6]);
        assert_eq!(went_back(&[5_500, 5_500]), [Some(14_500), None, None, None]);
        assert_eq!(went_back(&[5_499, 6_000]), [Some(1), None, None, None]);
        assert_eq!(log.size(), 14);
        // Its successor goes on from there.
        let next = Log::new(log.id().clone(), log.last()).batch([MEMBERS], at(0));
        assert!(String::from_utf8(next.body).expect("ASCII").contains(r#""n":1,"time_went_back":6000}"#));
    }
}
