//! Whether the cluster is still the one that we knew: an older copy of etcd may have been put in its place.
//!
//! What was used, revoked and decided since that copy was made is then forgotten, and versions of objects that this process has seen never
//! were. Numbers of versions do not show it: after a restore they may be smaller, or larger. So the Lease counts how often it was written,
//! and who remembers a higher count, in memory or in the database, knows.

/// What a Lease says of its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// How often it was written; 0 if it does not say.
    pub writes: u64,
    /// How often the cluster was found to be an older copy.
    pub restorations: u64,
    /// Whether an operator has ever written it. One that was made anew has no past.
    pub is_used: bool,
}

/// What a Lease means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It goes on: this is what the next write says.
    On(Past),
    /// It was written this often, and does not know it: the cluster is an older copy. What is to be written once everything that
    /// it brought back has been made worthless.
    Back(Past),
    /// Another process has found that, and written it down.
    Elsewhere,
}

/// What one process knows of the past of the Lease.
#[derive(Debug)]
pub struct Timeline {
    /// How often it was written, at least.
    writes: u64,
    /// What it said of restorations when this process first read it: everything in memory is from after that.
    restorations: Option<u64>,
}

impl Timeline {
    /// For a process whose database has heard of so many writes.
    #[must_use]
    pub const fn new(writes: u64) -> Self {
        Self { writes, restorations: None }
    }

    /// What a Lease that was read means.
    pub fn judge(&mut self, read: Past) -> Course {
        let next = |restorations| Past { writes: self.writes.max(read.writes).saturating_add(1), restorations, is_used: true };
        if read.is_used && read.writes < self.writes {
            return Course::Back(next(read.restorations.max(self.restorations.unwrap_or_default()).saturating_add(1)));
        }
        if read.is_used && self.restorations.is_some_and(|known| known != read.restorations) {
            return Course::Elsewhere;
        }
        let restorations = *self.restorations.get_or_insert(read.restorations);
        Course::On(next(restorations))
    }

    /// The Lease was written, with this count.
    pub fn written(&mut self, writes: u64) {
        self.writes = self.writes.max(writes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn past(writes: u64, restorations: u64) -> Past {
        Past { writes, restorations, is_used: true }
    }

    #[test]
    fn a_lease_that_only_grows_is_of_the_same_cluster() {
        let mut timeline = Timeline::new(0);
        for writes in [0, 1, 1, 7] {
            assert_eq!(timeline.judge(past(writes, 0)), Course::On(past(writes + 1, 0)), "{writes}");
        }
        timeline.written(8);
        assert_eq!(timeline.judge(past(8, 0)), Course::On(past(9, 0)));
        let anew = Past { is_used: false, ..past(0, 0) };
        assert_eq!(timeline.judge(anew), Course::On(past(9, 0)), "one that was made anew has forgotten nothing");
    }

    #[test]
    fn a_lease_that_was_written_more_often_than_it_says_is_of_an_older_copy() {
        let mut remembers = Timeline::new(0);
        remembers.written(100);
        assert_eq!(remembers.judge(past(99, 2)), Course::Back(past(101, 3)));
        let mut from_the_database = Timeline::new(100);
        assert_eq!(from_the_database.judge(past(40, 0)), Course::Back(past(101, 1)));
        assert_eq!(from_the_database.judge(past(100, 0)), Course::On(past(101, 0)));
    }

    #[test]
    fn who_did_not_find_it_hears_of_it_from_who_did() {
        let (mut first, mut second) = (Timeline::new(0), Timeline::new(0));
        for timeline in [&mut first, &mut second] {
            assert_eq!(timeline.judge(past(100, 0)), Course::On(past(101, 0)));
            timeline.written(101);
        }
        let Course::Back(found) = first.judge(past(40, 0)) else { panic!("not found") };
        assert_eq!(second.judge(found), Course::Elsewhere);
        assert_eq!(Timeline::new(101).judge(found), Course::On(past(103, 1)), "who starts afterwards knows nothing else");
        let mut second = Timeline::new(0);
        second.judge(past(100, 1));
        assert_eq!(second.judge(past(50, 0)), Course::Elsewhere, "a copy from before the last time");
    }
}
