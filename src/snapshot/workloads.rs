//! Which pods and ServiceAccounts exist, as sets of UIDs: 16 bytes each, whatever their size.

use std::collections::HashSet;
use uuid::Uuid;

/// Live pods and ServiceAccounts. What has a `deletionTimestamp` is not live, although the API server still takes its
/// tokens for a minute.
#[derive(Debug, Default)]
pub struct Workloads {
    /// UIDs of pods.
    pub pods: UidSet,
    /// UIDs of ServiceAccounts.
    pub service_accounts: UidSet,
}

/// The UIDs of the live objects of one kind, kept current by a watch.
#[derive(Debug, Default)]
pub struct UidSet {
    live: HashSet<Uuid>,
    /// Collects a fresh list while the old one still answers.
    next: Option<HashSet<Uuid>>,
}

impl UidSet {
    /// Whether the object is there and not being deleted.
    #[must_use]
    pub fn contains(&self, uid: &Uuid) -> bool {
        self.live.contains(uid)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// A new list begins.
    pub fn begin(&mut self) {
        self.next = Some(HashSet::new());
    }

    /// An object of the new list.
    pub fn listed(&mut self, uid: Uuid, deleting: bool) {
        if let (Some(next), false) = (&mut self.next, deleting) {
            next.insert(uid);
        }
    }

    /// The new list is complete and replaces the old one.
    pub fn complete(&mut self) {
        if let Some(next) = self.next.take() {
            self.live = next;
        }
    }

    /// An object was created or changed.
    pub fn applied(&mut self, uid: Uuid, deleting: bool) {
        if deleting {
            self.live.remove(&uid);
        } else {
            self.live.insert(uid);
        }
    }

    /// An object is gone.
    pub fn deleted(&mut self, uid: &Uuid) {
        self.live.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_deleted_is_gone() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut set = UidSet::default();
        set.applied(a, false);
        assert!(set.contains(&a));
        set.applied(a, true);
        assert!(!set.contains(&a), "F6: a terminating pod still counts");
        set.begin();
        set.listed(a, true);
        set.listed(b, false);
        assert!(set.is_empty(), "a list counts only when it is complete");
        set.complete();
        assert!(!set.contains(&a) && set.contains(&b));
    }

    #[test]
    fn what_was_deleted_while_nobody_watched_is_gone_after_the_next_list() {
        let mut set = UidSet::default();
        set.applied(Uuid::from_u128(1), false);
        set.begin();
        assert!(set.contains(&Uuid::from_u128(1)), "the old list answers until the new one is complete");
        set.complete();
        assert!(set.is_empty());
    }
}
