//! When signing keys are made, when they begin to sign, and when they go.
//!
//! There is one list of keys, and everything follows from it and the time: of each algorithm that key signs which began last
//! ([`signer`]). So nobody has to promote anything, and all replicas that see the same list agree. A key is in the list, hence
//! published, for a while before it signs, and stays for as long afterwards as a token of it can be alive.

use crate::agent::EXPIRATION_MAX;
use crate::crd::SigningAlgorithm;

/// For how long a key is kept after another has taken over, in seconds: the longest life of a token, and two minutes for whoever
/// signs with a list that is a little old (60 s at most), or has a clock that is a little off (5 s at most).
pub const KEPT_SECONDS: u64 = EXPIRATION_MAX as u64 + 120;

/// How often keys change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    period: u64,
    ahead: u64,
}

/// Why a rotation policy makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signing key must be published for at least 1 s, and for less than half of the time for which it signs")]
pub struct InvalidPolicy;

impl RotationPolicy {
    /// A key signs for `period` seconds, and is published for `ahead` seconds before.
    ///
    /// # Errors
    /// [`InvalidPolicy`].
    pub const fn new(period: u64, ahead: u64) -> Result<Self, InvalidPolicy> {
        if ahead == 0 || ahead >= period.div_ceil(2) {
            return Err(InvalidPolicy);
        }
        Ok(Self { period, ahead })
    }

    /// For how long a verifier may keep the published keys, in seconds: for five minutes, and never for more than half of the time
    /// for which a key is published before it signs. The other half is for the way of the key to all replicas.
    #[must_use]
    pub fn published_max_age(&self) -> u64 {
        (self.ahead / 2).min(300)
    }
}

/// What counts of a key for its rotation. Keys are given, and named by their index, in the order of this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Its algorithm.
    pub algorithm: SigningAlgorithm,
    /// From when on it signs, in seconds since the epoch.
    pub active_from: u64,
}

/// What is to be done with a list of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The keys to remove, by index.
    pub remove: Vec<usize>,
    /// The keys to make.
    pub make: Vec<Slot>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.make.is_empty()
    }
}

/// The key of `algorithm` that signs at `now`: the last that is active. If none is yet, the first: a key that was made with a clock
/// ahead of ours signs all the same if there is no other.
pub fn signer<K>(keys: &[K], slot: impl Fn(&K) -> Slot, algorithm: SigningAlgorithm, now: u64) -> Option<&K> {
    let of_it = |key: &&K| slot(key).algorithm == algorithm;
    keys.iter().filter(of_it).rfind(|key| slot(key).active_from <= now).or_else(|| keys.iter().find(of_it))
}

/// What is due at `now`. It may come as late as it likes: what follows is counted from `now` on.
#[must_use]
pub fn plan(keys: &[Slot], policy: RotationPolicy, now: u64) -> Plan {
    plan_if(keys, policy.ahead, now, |last| now >= last.saturating_add(policy.period - policy.ahead))
}

/// What begins a rotation at `now`, however young the keys are. A key that is published already is not followed by another.
#[must_use]
pub fn plan_now(keys: &[Slot], ahead: u64, now: u64) -> Plan {
    plan_if(keys, ahead, now, |last| last <= now)
}

/// `is_due` says whether another key is to be made after the last, which signs, or will sign, from the given time on.
fn plan_if(keys: &[Slot], ahead: u64, now: u64, is_due: impl Fn(u64) -> bool) -> Plan {
    let mut plan = Plan::default();
    for algorithm in SigningAlgorithm::ALL {
        match keys.iter().rfind(|slot| slot.algorithm == algorithm) {
            None => plan.make.push(Slot { algorithm, active_from: now }),
            Some(last) if is_due(last.active_from) => {
                plan.make.push(Slot { algorithm, active_from: now.saturating_add(ahead) });
            }
            Some(_) => {}
        }
    }
    plan.remove = run_out(keys, now).collect();
    plan
}

/// The keys of which no token can be alive at `now`, by index.
pub fn run_out(keys: &[Slot], now: u64) -> impl Iterator<Item = usize> {
    superseded(keys).filter(move |(_, at)| now >= at.saturating_add(KEPT_SECONDS)).map(|(index, _)| index)
}

/// The keys that are not the last of their algorithm, and when another takes over from each.
fn superseded(keys: &[Slot]) -> impl Iterator<Item = (usize, u64)> {
    let pairs = keys.iter().zip(keys.iter().skip(1)).enumerate();
    pairs.filter(|(_, (key, next))| key.algorithm == next.algorithm).map(|(index, (_, next))| (index, next.active_from))
}

/// When something will be due if nothing else happens, in seconds since the epoch. Before that [`plan`] is empty.
#[must_use]
pub fn next_due(keys: &[Slot], policy: RotationPolicy) -> u64 {
    let begins = SigningAlgorithm::ALL.iter().map(|algorithm| {
        let last = keys.iter().rfind(|slot| slot.algorithm == *algorithm);
        last.map_or(0, |last| last.active_from.saturating_add(policy.period - policy.ahead))
    });
    let ends = superseded(keys).map(|(_, at)| at.saturating_add(KEPT_SECONDS));
    begins.chain(ends).min().unwrap_or(0)
}

#[cfg(test)]
mod tests;
