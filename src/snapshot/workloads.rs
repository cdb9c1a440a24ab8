//! Which pods and ServiceAccounts exist, as sets of UIDs: 16 bytes each, whatever their size. Of ServiceAccounts also the names.

use std::collections::HashSet;
use std::hash::Hash;
use uuid::Uuid;

/// Live pods and ServiceAccounts. What has a `deletionTimestamp` is not live, although the API server still takes its
/// tokens for a minute.
#[derive(Debug, Default)]
pub struct Workloads {
    /// UIDs of pods.
    pub pods: LiveSet<Uuid>,
    /// UIDs of ServiceAccounts.
    pub service_accounts: LiveSet<Uuid>,
    /// Namespaces and names of ServiceAccounts.
    pub service_account_names: LiveSet<(String, String)>,
}

impl Workloads {
    /// Whether there is a ServiceAccount of that name; `None` if nobody knows, because they are not watched or not listed yet.
    #[must_use]
    pub fn has_service_account(&self, namespace: &str, name: &str) -> Option<bool> {
        self.service_account_names.has(&(namespace.to_owned(), name.to_owned()))
    }
}

/// The live objects of one kind, kept current by a watch.
#[derive(Debug)]
pub struct LiveSet<T> {
    live: HashSet<T>,
    /// Collects a fresh list while the old one still answers.
    next: Option<HashSet<T>>,
    /// Whether a list was ever complete.
    listed: bool,
}

impl<T> Default for LiveSet<T> {
    fn default() -> Self {
        Self { live: HashSet::new(), next: None, listed: false }
    }
}

impl<T: Eq + Hash> LiveSet<T> {
    /// Whether the object is there and not being deleted.
    #[must_use]
    pub fn contains(&self, object: &T) -> bool {
        self.live.contains(object)
    }

    /// The same; `None` if nobody knows, because they are not watched or not listed yet.
    #[must_use]
    pub fn has(&self, object: &T) -> Option<bool> {
        self.listed.then(|| self.contains(object))
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
    pub fn listed(&mut self, object: T, deleting: bool) {
        if let (Some(next), false) = (&mut self.next, deleting) {
            next.insert(object);
        }
    }

    /// The new list is complete and replaces the old one, which is returned if it was complete.
    pub fn complete(&mut self) -> Option<HashSet<T>> {
        let next = self.next.take()?;
        let old = std::mem::replace(&mut self.live, next);
        std::mem::replace(&mut self.listed, true).then_some(old)
    }

    /// An object was created or changed. Returns whether it is new, or gone by that.
    pub fn applied(&mut self, object: T, deleting: bool) -> bool {
        if deleting { self.live.remove(&object) } else { self.live.insert(object) }
    }

    /// An object is gone. Returns whether it was there.
    pub fn deleted(&mut self, object: &T) -> bool {
        self.live.remove(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_deleted_is_gone() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut set = LiveSet::default();
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
        let mut set = LiveSet::default();
        set.applied(Uuid::from_u128(1), false);
        set.begin();
        assert!(set.contains(&Uuid::from_u128(1)), "the old list answers until the new one is complete");
        set.complete();
        assert!(set.is_empty());
    }
}
