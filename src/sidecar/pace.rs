//! How often a request for approval may be looked at: as often as the token service allows (CIBA Core section 7.3), however often the
//! agent asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many requests are remembered. What is forgotten is looked at at once, and slowed down by the token service if that is too soon.
const REMEMBERED_MAX: usize = 256;
/// The interval until the token service has said another.
const INTERVAL: Duration = Duration::from_secs(2);
/// By how much it grows with each poll that came too soon (RFC 8628 section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest it grows.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The requests that are waited for.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Pace>>>>);

/// One request. Whoever holds it is who polls.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Option<Instant>,
}

impl Paces {
    /// That of this request.
    pub(super) fn of(&self, id: &str) -> Arc<tokio::sync::Mutex<Pace>> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= REMEMBERED_MAX && !paces.contains_key(id) {
            // Those that nobody waits for.
            paces.retain(|_, pace| Arc::strong_count(pace) > 1);
        }
        Arc::clone(paces.entry(id.to_owned()).or_default())
    }

    /// It was decided, or never was.
    pub(super) fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { interval: INTERVAL, next: None }
    }
}

impl Pace {
    /// From when the next poll may be sent.
    pub(super) fn next(&self, now: Instant) -> Instant {
        self.next.unwrap_or(now).max(now)
    }

    /// A poll was sent at `sent`.
    pub(super) fn sent(&mut self, sent: Instant) {
        self.next = Some(sent + self.interval);
    }

    /// It came too soon.
    pub(super) fn slow_down(&mut self, now: Instant) {
        self.interval = (self.interval + SLOW_DOWN).min(INTERVAL_MAX);
        self.next = Some(now + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_looked_at_no_more_often_than_is_allowed() {
        let (paces, now) = (Paces::default(), Instant::now());
        let pace = paces.of("a");
        let mut held = pace.lock().await;
        assert_eq!(held.next(now), now);
        held.sent(now);
        assert_eq!(held.next(now), now + INTERVAL);
        held.slow_down(now);
        assert_eq!(held.next(now), now + INTERVAL + SLOW_DOWN);
        held.sent(now);
        assert_eq!(held.next(now), now + INTERVAL + SLOW_DOWN, "it stays slower");
        (0..99).for_each(|_| held.slow_down(now));
        assert_eq!(held.next(now), now + INTERVAL_MAX);
        assert!(paces.of("a").try_lock().is_err(), "one polls at a time");
    }

    #[test]
    fn those_that_nobody_waits_for_are_forgotten() {
        let paces = Paces::default();
        let waits = paces.of("waits");
        (0..2 * REMEMBERED_MAX).for_each(|i| drop(paces.of(&i.to_string())));
        assert!(paces.0.lock().expect("a lock").len() <= REMEMBERED_MAX);
        assert!(Arc::ptr_eq(&waits, &paces.of("waits")));
        paces.forget("waits");
        assert!(!Arc::ptr_eq(&waits, &paces.of("waits")));
    }
}
