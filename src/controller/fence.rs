//! One database at a time: who may write the Lease.
//!
//! What was consumed is in a database. Two processes with two databases would each accept what the other has consumed, so only one
//! database is in use, and the Lease says which. Replicas that share a database never wait for each other.

use std::time::{Duration, Instant};

/// How long it takes at least until a database is taken to be out of use, and how long at most.
const WAIT: std::ops::RangeInclusive<u64> = 10..=60;
/// Beyond that, for a request that its holder took up while it still could.
const MARGIN: Duration = Duration::from_secs(2);
/// A Lease that nobody looked at for so long is looked at anew: its holder may have been cut off as we were.
const LOOK_AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// A Lease as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The database of whoever wrote it last.
    pub store: Option<&'a str>,
    /// Changes with every write.
    pub version: &'a str,
    /// For how many seconds its holder goes on after a write.
    pub duration: Option<u64>,
}

/// What may be done with a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is our database's: write it.
    Ours,
    /// It is nobody's, or nobody has renewed it for long enough: write it, and remember that everything begins now.
    TakeOver,
    /// Another database is in use, for so long at least.
    Wait(Duration),
}

/// Watches a Lease for one process.
#[derive(Debug)]
pub struct Fence {
    store: String,
    foreign: Option<Foreign>,
}

/// Another database's Lease.
#[derive(Debug)]
struct Foreign {
    version: String,
    /// When this version was seen first, and last.
    since: Instant,
    last: Instant,
}

impl Fence {
    /// For a process whose database is `store`.
    #[must_use]
    pub const fn new(store: String) -> Self {
        Self { store, foreign: None }
    }

    /// What may be done with the Lease that was `seen` at `now`.
    pub fn judge(&mut self, seen: Seen<'_>, now: Instant) -> Verdict {
        if seen.store.is_none_or(|store| store == self.store) {
            self.foreign = None;
            return if seen.store.is_some() { Verdict::Ours } else { Verdict::TakeOver };
        }
        let begun = Foreign { version: seen.version.to_owned(), since: now, last: now };
        let foreign = self.foreign.get_or_insert(begun);
        if foreign.version != seen.version || now.saturating_duration_since(foreign.last) > LOOK_AGAIN_WITHIN {
            *foreign = Foreign { version: seen.version.to_owned(), since: now, last: now };
        }
        foreign.last = now;
        // A duration that is missing or absurd is the longest that a holder can have.
        let duration = seen.duration.unwrap_or(*WAIT.end()).clamp(*WAIT.start(), *WAIT.end());
        let wait = Duration::from_secs(duration) + MARGIN;
        match wait.checked_sub(now.saturating_duration_since(foreign.since)) {
            Some(left) if !left.is_zero() => Verdict::Wait(left),
            _ => Verdict::TakeOver,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seen<'a>(store: &'a str, version: &'a str) -> Seen<'a> {
        Seen { store: Some(store), version, duration: Some(10) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_has_the_database_of_the_lease_never_waits() {
        let mut fence = Fence::new("a".to_owned());
        let now = Instant::now();
        assert_eq!(fence.judge(Seen { store: None, version: "1", duration: None }, now), Verdict::TakeOver);
        for version in ["2", "2", "3"] {
            assert_eq!(fence.judge(seen("a", version), now), Verdict::Ours);
        }
    }

    #[test]
    fn another_database_is_waited_for_until_nobody_renews_its_lease() {
        let mut fence = Fence::new("a".to_owned());
        let start = Instant::now();
        for second in 0..30 {
            // Renewed every second.
            let verdict = fence.judge(seen("b", &second.to_string()), start + seconds(second));
            assert_eq!(verdict, Verdict::Wait(seconds(12)), "{second}");
        }
        for second in 30..41 {
            let verdict = fence.judge(seen("b", "29"), start + seconds(second));
            assert_eq!(verdict, Verdict::Wait(seconds(41 - second)), "{second}");
        }
        assert_eq!(fence.judge(seen("b", "29"), start + seconds(41)), Verdict::TakeOver);
        // Somebody was faster.
        assert_eq!(fence.judge(seen("c", "30"), start + seconds(41)), Verdict::Wait(seconds(12)));
        assert_eq!(fence.judge(seen("c", "30"), start + seconds(42)), Verdict::Wait(seconds(11)));
        // Or our own replica: nothing of the wait is left over for the next.
        assert_eq!(fence.judge(seen("a", "31"), start + seconds(43)), Verdict::Ours);
        assert_eq!(fence.judge(seen("c", "30"), start + seconds(44)), Verdict::Wait(seconds(12)));
    }

    #[test]
    fn a_lease_that_could_not_be_looked_at_is_not_taken_for_one_that_nobody_renews() {
        let mut fence = Fence::new("a".to_owned());
        let start = Instant::now();
        assert_eq!(fence.judge(seen("b", "1"), start), Verdict::Wait(seconds(12)));
        assert_eq!(fence.judge(seen("b", "1"), start + seconds(5)), Verdict::Wait(seconds(7)));
        assert_eq!(fence.judge(seen("b", "1"), start + seconds(20)), Verdict::Wait(seconds(12)), "its holder was cut off too");
    }

    #[test]
    fn it_takes_as_long_as_the_holder_goes_on_without_a_write() {
        for (duration, wait) in [(Some(0), 12), (Some(5), 12), (Some(30), 32), (Some(60), 62), (Some(1 << 40), 62), (None, 62)] {
            let mut fence = Fence::new("a".to_owned());
            let verdict = fence.judge(Seen { duration, ..seen("b", "1") }, Instant::now());
            assert_eq!(verdict, Verdict::Wait(seconds(wait)), "{duration:?}");
        }
    }
}
