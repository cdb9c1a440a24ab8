//! A token that is held, and when it is time to ask for the next.
//!
//! The token service can end an agent's tokens at any time, and says so to nobody who does not ask. So a token is not handed out for as
//! long as it lives, but asked for again after a while: early enough that nobody waits for it, and soon enough that a suspended agent does
//! not go on being given one that is dead.

use super::answer::AccessToken;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A token is not handed out this long before it dies, or for a tenth of its life if that is less: it should live to be used.
const REST: Duration = Duration::from_secs(5);

/// A token, from when it was asked for.
#[derive(Debug, Clone)]
pub(super) struct Held {
    token: Arc<AccessToken>,
    asked_at: Instant,
    /// From here on the next is asked for, and this one handed out meanwhile.
    refresh_at: Instant,
    /// From here on the next is asked for first.
    ask_first_at: Instant,
    ends_at: Instant,
}

/// What to do when somebody wants the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Hand it out.
    Hand,
    /// Hand it out, and ask for the next.
    HandAndAsk,
    /// Ask for the next, and hand this one out only if nobody answers.
    AskFirst,
    /// It is as good as dead.
    Ended,
}

impl Held {
    /// A token that was asked for at `asked_at`. `jitter`, from 0 to 255, keeps many sidecars from asking at once.
    pub(super) fn new(token: Arc<AccessToken>, asked_at: Instant, max_age: Duration, jitter: u8) -> Self {
        let life = token.lifetime();
        let usual = (life * 2 / 3).min(max_age);
        // From 90 % to 110 % of it.
        let refresh = usual * (230 + u32::from(jitter) / 5) / 256;
        let ask_first = (usual * 2).min(life * 5 / 6).max(refresh);
        let rest = REST.min(life / 10);
        Self {
            token,
            asked_at,
            refresh_at: asked_at + refresh,
            ask_first_at: asked_at + ask_first,
            ends_at: asked_at + life.saturating_sub(rest),
        }
    }

    pub(super) fn plan(&self, now: Instant) -> Plan {
        match now {
            now if now >= self.ends_at => Plan::Ended,
            now if now >= self.ask_first_at => Plan::AskFirst,
            now if now >= self.refresh_at => Plan::HandAndAsk,
            _ => Plan::Hand,
        }
    }

    /// Whether it was asked for within the last `age`.
    pub(super) fn is_younger_than(&self, age: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.asked_at) < age
    }

    /// The token, and how long it lives yet.
    pub(super) fn grant(&self, now: Instant) -> (Arc<AccessToken>, Duration) {
        let age = now.saturating_duration_since(self.asked_at);
        (Arc::clone(&self.token), self.token.lifetime().saturating_sub(age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(life: u64, max_age: u64, jitter: u8) -> (Held, Instant) {
        let start = Instant::now();
        let token = AccessToken::of(&serde_json::json!({"access_token": "a", "token_type": "Bearer", "expires_in": life}));
        (Held::new(Arc::new(token.expect("a token")), start, Duration::from_secs(max_age), jitter), start)
    }

    fn plans(held: &Held, start: Instant, seconds: &[u64]) -> Vec<Plan> {
        seconds.iter().map(|s| held.plan(start + Duration::from_secs(*s))).collect()
    }

    #[test]
    fn a_token_is_replaced_early_and_never_handed_out_dead() {
        use Plan::{AskFirst, Ended, Hand, HandAndAsk};
        let (long, start) = held(300, 60, 128);
        assert_eq!(
            plans(&long, start, &[0, 53, 67, 119, 120, 294, 295, 300, 9999]),
            [Hand, Hand, HandAndAsk, HandAndAsk, AskFirst, AskFirst, Ended, Ended, Ended]
        );
        let (token, left) = long.grant(start + Duration::from_secs(100));
        assert_eq!((token.lifetime().as_secs(), left.as_secs()), (300, 200));
        assert_eq!(long.grant(start + Duration::from_secs(400)).1, Duration::ZERO);
        let (short, start) = held(30, 60, 128);
        assert_eq!(plans(&short, start, &[0, 17, 23, 24, 26, 27]), [Hand, Hand, HandAndAsk, HandAndAsk, AskFirst, Ended]);
    }

    proptest::proptest! {
        #[test]
        fn its_times_are_in_order_for_every_life(life in 1..86_400_u64, max_age in 1..900_u64, jitter: u8) {
            let (held, start) = held(life, max_age, jitter);
            let life = Duration::from_secs(life);
            assert!(start < held.refresh_at && held.refresh_at <= held.ask_first_at && held.ask_first_at <= held.ends_at);
            assert!(held.ends_at < start + life && held.ends_at >= start + life * 9 / 10 - REST);
            assert!(held.refresh_at <= start + Duration::from_secs(max_age) * 111 / 100);
        }
    }
}
