//! What is to be looked at again, and when.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// How soon what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Keys, each with the time at which it is due.
#[derive(Debug)]
pub(super) struct Due<K> {
    by_time: BTreeSet<(Instant, K)>,
    times: HashMap<K, Instant>,
    /// What is being worked on, and when it is due after that, if it is.
    busy: HashMap<K, Option<Instant>>,
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), times: HashMap::new(), busy: HashMap::new() }
    }
}

impl<K: Ord + Hash + Clone> Due<K> {
    /// `key` is due at `at`, or earlier if it was.
    pub(super) fn at(&mut self, key: K, at: Instant) {
        if let Some(then) = self.busy.get_mut(&key) {
            *then = Some(then.map_or(at, |known| known.min(at)));
            return;
        }
        match self.times.get(&key) {
            Some(known) if *known <= at => return,
            Some(known) => drop(self.by_time.remove(&(*known, key.clone()))),
            None => {}
        }
        self.times.insert(key.clone(), at);
        self.by_time.insert((at, key));
    }

    /// `key` is not due at all.
    pub(super) fn forget(&mut self, key: &K) {
        if let Some(then) = self.busy.get_mut(key) {
            *then = None;
        }
        if let Some(at) = self.times.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// Waits until something is due, for ever if nothing will be.
    pub(super) async fn wait(&self) {
        match self.by_time.first() {
            Some((at, _)) => tokio::time::sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes note of how the work on `key` ended: what failed is due again soon.
    pub(super) fn ended(&mut self, key: K, what: &'static str, outcome: kube::Result<()>)
    where
        K: Display,
    {
        let Err(error) = outcome else { return };
        let conflict = matches!(&error, kube::Error::Api(status) if status.is_conflict());
        if !conflict {
            tracing::warn!(%key, error = %crate::error_chain(&error), "the status of {what} could not be written");
        }
        // Later than now, so that one that always fails does not keep the others waiting.
        self.at(key, Instant::now() + if conflict { Duration::from_millis(1) } else { RETRY_AFTER });
    }

    /// Takes the first that is due at `now`, for somebody who works on several at once: whatever happens meanwhile, it is not due again
    /// before it is [released](Self::release).
    pub(super) fn take_one(&mut self, now: Instant) -> Option<K> {
        let key = self.take(now)?;
        self.busy.insert(key.clone(), None);
        Some(key)
    }

    /// Whether it was [taken alone](Self::take_one) and not released yet.
    pub(super) fn is_busy(&self, key: &K) -> bool {
        self.busy.contains_key(key)
    }

    /// The work on what was [taken alone](Self::take_one) has ended.
    pub(super) fn release(&mut self, key: &K) {
        if let Some(Some(then)) = self.busy.remove(key) {
            self.at(key.clone(), then);
        }
    }

    /// Takes the first that is due at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<K> {
        if self.by_time.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_time_counts_and_each_key_comes_once() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut due = Due::default();
        due.at("a", later);
        due.at("b", now);
        due.at("a", later + Duration::from_secs(1));
        assert_eq!(due.take(now), Some("b"));
        assert_eq!(due.take(now), None);
        due.at("a", now);
        due.at("c", later);
        assert_eq!(due.take(later), Some("a"), "an earlier time replaces a later one");
        due.forget(&"c");
        assert_eq!(due.take(later), None);
    }

    #[test]
    fn what_is_being_worked_on_is_not_taken_by_another() {
        let now = Instant::now();
        let mut due = Due::default();
        due.at("a", now);
        assert_eq!(due.take_one(now), Some("a"));
        due.at("a", now + Duration::from_secs(1));
        due.at("a", now);
        assert_eq!(due.take_one(now), None);
        due.release(&"a");
        assert_eq!(due.take_one(now), Some("a"), "what happened meanwhile is looked at");
        due.release(&"a");
        assert_eq!(due.take_one(now + Duration::from_secs(2)), None);
        due.at("a", now);
        assert_eq!(due.take_one(now), Some("a"));
        due.at("a", now);
        due.forget(&"a");
        due.release(&"a");
        assert_eq!(due.take_one(now), None, "what is gone is not looked at again");
    }
}
