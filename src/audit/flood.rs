//! Floods of refused requests: whoever proves nothing must not be able to fill the ledger.
//!
//! Refusals of callers who proved no identity are recorded one by one up to a rate for each kind of request and client address. Beyond it
//! those of a tenth of a second share one record, which says how many there were and of which reasons. Each reply still waits until the
//! record that counts it is durable. What is lost are the single lines: their time within that tenth, request id and details.
//!
//! The reason is not part of what is counted apart: how long a reply takes would tell which it was, and so which agents there are.

use super::{Outcome, Record, Recorder, Unrecorded};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// The time within which refusals are counted against the rate.
const WINDOW: Duration = Duration::from_secs(1);
/// How long refusals beyond the rate are gathered.
const GATHER: Duration = Duration::from_millis(100);
/// How many addresses are told apart within a window. All others are counted as one.
const ADDRESSES_MAX: usize = 1024;
/// How long a reply may wait for its record.
const WRITE_WITHIN: Duration = Duration::from_millis(1500);

/// A kind of request, and where it comes from: none for all that are not told apart.
type Source = (&'static str, Option<IpAddr>);

/// Records refusals of strangers.
#[derive(Debug, Clone)]
pub struct Floodgate {
    recorder: Recorder,
    rate: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    seen: HashMap<Source, u32>,
    gathered: HashMap<Source, Gathered>,
}

/// Refusals that will share a record.
#[derive(Debug)]
struct Gathered {
    reasons: BTreeMap<&'static str, u64>,
    written: watch::Receiver<Option<bool>>,
}

/// What becomes of a refusal.
enum Share {
    /// It has a record of its own.
    Alone,
    /// It is the first that is counted in the next record.
    First(watch::Sender<Option<bool>>),
    /// It is counted in one that is gathered.
    Counted(watch::Receiver<Option<bool>>),
}

impl Floodgate {
    /// Lets so many refusals in a second through of each kind of request and client address.
    #[must_use]
    pub fn new(recorder: Recorder, rate: u32) -> Self {
        let state = State { begun: Instant::now(), seen: HashMap::new(), gathered: HashMap::new() };
        Self { recorder, rate, state: Arc::new(Mutex::new(state)) }
    }

    /// Records the refusal of a caller who proved no identity. Returns when it is durable, or counted in a durable record.
    ///
    /// # Errors
    /// [`Unrecorded`] as from [`Recorder::write`].
    pub async fn write(&self, record: &Record) -> Result<(), Unrecorded> {
        let address = record.client_address();
        let share = |state: &mut State| state.share(record, address, self.rate, Instant::now());
        let (source, share) = share(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        let mut written = match share {
            Share::Alone => return self.recorder.write(record).await,
            Share::Counted(written) => written,
            Share::First(sender) => {
                let written = sender.subscribe();
                // A task of its own: whoever came first may go away, and the others wait.
                tokio::spawn(self.clone().write_gathered(source, sender));
                written
            }
        };
        let told = timeout(WRITE_WITHIN, written.wait_for(Option::is_some)).await;
        if told.is_ok_and(|told| told.is_ok_and(|told| *told == Some(true))) { Ok(()) } else { Err(Unrecorded) }
    }

    async fn write_gathered(self, source: Source, sender: watch::Sender<Option<bool>>) {
        tokio::time::sleep(GATHER).await;
        let gathered = self.state.lock().unwrap_or_else(PoisonError::into_inner).gathered.remove(&source);
        let Some(Gathered { reasons, .. }) = gathered else { return };
        let written = self.recorder.write(&shared_record(source, &reasons)).await;
        sender.send_replace(Some(written.is_ok()));
    }
}

impl State {
    fn share(&mut self, record: &Record, address: Option<IpAddr>, rate: u32, now: Instant) -> (Source, Share) {
        if now.saturating_duration_since(self.begun) >= WINDOW {
            self.seen.clear();
            self.begun = now;
        }
        let mut source = (record.event(), address);
        if !self.seen.contains_key(&source) && self.seen.len() >= ADDRESSES_MAX {
            source.1 = None;
        }
        let seen = self.seen.entry(source).or_default();
        if *seen < rate {
            *seen += 1;
            return (source, Share::Alone);
        }
        let (_, reason) = record.conclusion();
        if let Some(gathered) = self.gathered.get_mut(&source) {
            *gathered.reasons.entry(reason).or_default() += 1;
            return (source, Share::Counted(gathered.written.clone()));
        }
        let (sender, written) = watch::channel(None);
        self.gathered.insert(source, Gathered { reasons: BTreeMap::from([(reason, 1)]), written });
        (source, Share::First(sender))
    }
}

/// The record of many refusals.
fn shared_record((event, address): Source, reasons: &BTreeMap<&'static str, u64>) -> Record {
    let mut record = Record::new(event, crate::token::new_id().unwrap_or_default());
    if let Some(address) = address {
        record.text("client_address", address.to_string());
    }
    record.number("count", reasons.values().sum());
    let each: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
    record.text("reasons", each.join(" ")).conclude(Outcome::Deny, "many_refusals");
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: &'static str) -> Record {
        let mut record = Record::new("token.issue", String::new());
        record.conclude(Outcome::Deny, reason);
        record
    }

    fn state() -> State {
        State { begun: Instant::now(), seen: HashMap::new(), gathered: HashMap::new() }
    }

    #[test]
    fn l11_so_many_in_a_second_have_their_own_record_and_the_others_share_one() {
        let (mut state, now) = (state(), Instant::now());
        let here = Some(IpAddr::from([10, 0, 0, 1]));
        let mut alone = 0;
        for number in 0..50 {
            let reason = if number % 2 == 0 { "agent_unknown" } else { "signature" };
            match state.share(&refusal(reason), here, 10, now).1 {
                Share::Alone => alone += 1,
                Share::First(_) => assert_eq!(number, 10),
                Share::Counted(_) => assert!(number > 10),
            }
        }
        assert_eq!(alone, 10);
        let source = ("token.issue", here);
        assert_eq!(state.gathered[&source].reasons, BTreeMap::from([("agent_unknown", 20), ("signature", 20)]));
        // Nobody pays for others, and a second later it begins anew.
        assert!(matches!(state.share(&refusal("signature"), Some(IpAddr::from([10, 0, 0, 2])), 10, now).1, Share::Alone));
        let later = now + WINDOW;
        assert!(matches!(state.share(&refusal("signature"), here, 10, later).1, Share::Alone));
    }

    #[test]
    fn l11_many_addresses_are_bounded_too() {
        let (mut state, now) = (state(), Instant::now());
        let alone = (0..100_000u32)
            .filter(|number| {
                matches!(state.share(&refusal("signature"), Some(IpAddr::from(number.to_be_bytes())), 10, now).1, Share::Alone)
            })
            .count();
        assert_eq!(alone, ADDRESSES_MAX + 10);
        assert_eq!((state.seen.len(), state.gathered.len()), (ADDRESSES_MAX + 1, 1));
    }
}
