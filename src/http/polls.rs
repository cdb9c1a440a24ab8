//! Who waits for a decision, and how often they ask: CIBA's polling interval, and a bound on those that are kept waiting.
//!
//! Kept in memory, per process: it guards against busy clients, not against double use, which is a compare-and-swap's.

use crate::grammar::AgentId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// How long a client must pause between one poll and the next (`interval`, CIBA Core section 7.3): from when it is sent, so that a poll
/// that was held may be followed by another at once.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// By how much that grows with each poll that comes too soon (`slow_down`, RFC 8628 section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest it grows.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How many polls are kept waiting at once. Each is a connection and a few hundred bytes.
const WAITING_MAX: usize = 2048;
/// From how many requests on those that nobody polls any more are forgotten.
const FORGET_FROM: usize = 4096;

/// The polls of one process.
#[derive(Debug)]
pub struct Polls {
    /// By UID of the request.
    states: Mutex<HashMap<String, State>>,
    waiting: Arc<Semaphore>,
    /// How many requests an agent is filing at this moment.
    filing: Mutex<HashMap<AgentId, usize>>,
    /// Which approvals this process is turning into tokens, by UID of the request.
    redeeming: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug)]
struct State {
    interval: Duration,
    next: Instant,
    waiting: bool,
}

/// The poll came too soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSoon;

/// One poll at work.
#[derive(Debug)]
pub struct Turn {
    polls: Arc<Polls>,
    uid: String,
    place: Option<OwnedSemaphorePermit>,
}

/// One request for approval that is being filed.
#[derive(Debug)]
pub struct Filing {
    polls: Arc<Polls>,
    agent: AgentId,
}

impl Default for Polls {
    fn default() -> Self {
        Self {
            states: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            filing: Mutex::default(),
            redeeming: Mutex::default(),
        }
    }
}

impl Polls {
    fn states(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filing(&self) -> MutexGuard<'_, HashMap<AgentId, usize>> {
        self.filing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poll of an undecided request begins at `now`.
    ///
    /// # Errors
    /// [`TooSoon`] if another poll of it is at work, or its client has not paused: it must pause longer from now on.
    pub fn begin(self: &Arc<Self>, uid: &str, now: Instant) -> Result<Turn, TooSoon> {
        let mut states = self.states();
        if states.len() >= FORGET_FROM {
            states.retain(|_, state| state.waiting || now.saturating_duration_since(state.next) < INTERVAL_MAX);
        }
        let state = states.entry(uid.to_owned()).or_insert(State { interval: INTERVAL, next: now, waiting: false });
        if state.waiting || now < state.next {
            state.interval = (state.interval + SLOW_DOWN).min(INTERVAL_MAX);
            state.next = state.next.max(now + state.interval);
            return Err(TooSoon);
        }
        state.waiting = true;
        state.next = now + state.interval;
        let place = Arc::clone(&self.waiting).try_acquire_owned().ok();
        Ok(Turn { polls: Arc::clone(self), uid: uid.to_owned(), place })
    }

    /// Waits until nobody else in this process is turning the approval of this request into a token. It makes nothing safer: that of
    /// many polls at once one asks the API server, and the others find what that one has made, spares the API server.
    pub async fn alone(&self, uid: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut redeeming = self.redeeming.lock().unwrap_or_else(PoisonError::into_inner);
            if redeeming.len() >= FORGET_FROM {
                redeeming.retain(|_, lock| lock.strong_count() > 0);
            }
            let known = redeeming.get(uid).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                redeeming.insert(uid.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// `agent` begins to file a request, while `open` of its requests are open and it may have `max`. `None` if that is too many.
    pub fn file(self: &Arc<Self>, agent: &AgentId, open: usize, max: usize) -> Option<Filing> {
        let mut filing = self.filing();
        let count = filing.entry(agent.clone()).or_default();
        if open + *count >= max {
            return None;
        }
        *count += 1;
        Some(Filing { polls: Arc::clone(self), agent: agent.clone() })
    }
}

impl Turn {
    /// Whether it may be kept waiting, or must be answered at once because too many are.
    #[must_use]
    pub const fn may_wait(&self) -> bool {
        self.place.is_some()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(state) = self.polls.states().get_mut(&self.uid) {
            state.waiting = false;
        }
    }
}

impl Drop for Filing {
    fn drop(&mut self) {
        let mut filing = self.polls.filing();
        if let Some(count) = filing.get_mut(&self.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                filing.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_pause_must_pause_longer() {
        let polls = Arc::new(Polls::default());
        let start = Instant::now();
        let turn = polls.begin("a", start).expect("the first");
        assert!(turn.may_wait());
        assert_eq!(polls.begin("a", start).err(), Some(TooSoon), "one at a time");
        assert!(polls.begin("b", start).is_ok(), "another request is another matter");
        drop(turn);
        assert!(polls.begin("a", start + INTERVAL).is_err(), "the interval has grown by 5 s");
        assert!(polls.begin("a", start + Duration::from_secs(30)).is_ok());
        let held = polls.begin("c", start).expect("the first");
        drop(held);
        assert!(polls.begin("c", start + INTERVAL).is_ok(), "one that was held may be followed at once");
    }

    #[test]
    fn what_is_being_filed_counts() {
        let polls = Arc::new(Polls::default());
        let agent = AgentId::new("ns", "bot").expect("a name");
        let first = polls.file(&agent, 0, 2).expect("the first");
        let second = polls.file(&agent, 0, 2).expect("the second");
        assert!(polls.file(&agent, 0, 2).is_none());
        drop((first, second));
        assert!(polls.file(&agent, 1, 2).is_some());
        assert!(polls.file(&agent, 2, 2).is_none());
    }
}
