//! How much one caller may ask, so that the others are still answered.
//!
//! Who has proved an identity is limited by it: an agent, or a resource server. Who has not is limited by the address it comes from, and
//! only by how often it was refused: behind one address, a proxy's for example, there may be a thousand agents that do nothing wrong.
//! From an address that is beyond its limit nothing is read until the limit allows it again, whatever it is.

use super::error::Refusal;
use crate::metrics::Metrics;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is forgotten who has asked nothing for a while.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// How many requests in a second, by whom; 0 is without limit. Each may ask twice as many at once.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Of one agent.
    pub agent: u32,
    /// Of one resource server.
    pub resource_server: u32,
    /// Refused ones from one address, of callers who proved no identity.
    pub source: u32,
}

/// Counts who asks how much.
#[derive(Debug)]
pub struct RateLimits {
    agents: Limit<String>,
    resource_servers: Limit<String>,
    sources: Limit<IpAddr>,
    /// Addresses that are beyond their limit, and until when.
    away: Mutex<HashMap<IpAddr, Instant>>,
    metrics: Arc<Metrics>,
}

/// One kind of limit.
#[derive(Debug)]
struct Limit<K: Hash + Eq + Clone>(Option<DefaultKeyedRateLimiter<K>>);

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(rate: u32) -> Self {
        let quota = |rate: NonZeroU32| Quota::per_second(rate).allow_burst(rate.saturating_add(rate.get()));
        Self(NonZeroU32::new(rate).map(|rate| RateLimiter::keyed(quota(rate))))
    }

    /// Counts one more of `key`.
    ///
    /// # Errors
    /// How long it has to wait, if that is too much.
    fn count(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        limiter.check_key(key).map_err(|beyond| beyond.wait_time_from(DefaultClock::default().now()))
    }

    fn forget(&self) {
        if let Some(limiter) = &self.0 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

impl RateLimits {
    /// Limits everybody to `rates`.
    #[must_use]
    pub fn new(rates: Rates, metrics: Arc<Metrics>) -> Self {
        Self {
            agents: Limit::new(rates.agent),
            resource_servers: Limit::new(rates.resource_server),
            sources: Limit::new(rates.source),
            away: Mutex::default(),
            metrics,
        }
    }

    /// Counts a request of an agent, by its UID.
    pub(super) fn agent(&self, uid: &String) -> Result<(), Refusal> {
        let counted = self.agents.count(uid);
        counted.map_err(|wait| self.beyond("agent", "agent_rate_limited", "this agent asks more than it may in a second", wait))
    }

    /// Counts a request of a resource server, by what it proved to be.
    pub(super) fn resource_server(&self, name: &String) -> Result<(), Refusal> {
        let counted = self.resource_servers.count(name);
        let why = "this caller asks more than it may in a second";
        counted.map_err(|wait| self.beyond("resource_server", "caller_rate_limited", why, wait))
    }

    /// Whether anything is read from `address` now.
    pub(super) fn source(&self, address: IpAddr) -> Result<(), Refusal> {
        let (source, now) = (network(address), Instant::now());
        let until = self.away.lock().unwrap_or_else(PoisonError::into_inner).get(&source).copied();
        match until.and_then(|until| until.checked_duration_since(now)) {
            None => Ok(()),
            Some(wait) => {
                let why = "too many requests from this address were refused in a second";
                Err(self.beyond("source", "source_rate_limited", why, wait))
            }
        }
    }

    /// Counts a request from `address` that was refused, and whose caller proved no identity.
    pub(super) fn refused(&self, address: IpAddr) {
        let source = network(address);
        if let Err(wait) = self.sources.count(&source) {
            let until = Instant::now() + wait;
            self.away.lock().unwrap_or_else(PoisonError::into_inner).insert(source, until);
        }
    }

    fn beyond(&self, limit: &'static str, reason: &'static str, why: &str, wait: Duration) -> Refusal {
        self.metrics.limited(limit);
        let seconds = wait.as_secs().saturating_add(1);
        Refusal::limited(reason, format!("{why}; try again in {seconds} s"), seconds)
    }

    /// Forgets, for ever, who has asked nothing for a while.
    pub async fn forget(self: Arc<Self>) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            self.agents.forget();
            self.resource_servers.forget();
            self.sources.forget();
            let now = Instant::now();
            self.away.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, until| *until > now);
        }
    }
}

/// Whom an address belongs to: of IPv6, where one host has as many as it likes, the network of 64 bits.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(agent: u32, resource_server: u32, source: u32) -> RateLimits {
        RateLimits::new(Rates { agent, resource_server, source }, Arc::default())
    }

    #[test]
    fn one_that_asks_too_much_is_turned_away_and_no_other() {
        let limits = limits(5, 5, 0);
        let asks = |uid: &str| limits.agent(&uid.to_owned());
        // Twice the rate at once, and a few more if this takes long.
        let beyond = (0..1000).position(|_| asks("a").is_err()).expect("a limit");
        assert!(beyond >= 10, "{beyond}");
        assert!(asks("b").is_ok() && limits.resource_server(&"a".to_owned()).is_ok());
    }

    #[test]
    fn h9_an_address_is_judged_by_what_was_refused_alone() {
        let limits = limits(0, 0, 5);
        let [flood, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().expect("an address"));
        assert!((0..1000).all(|_| limits.source(flood).is_ok()), "who is not refused may ask");
        let beyond = (0..1000).position(|_| {
            limits.refused(flood);
            limits.source(flood).is_err()
        });
        assert!(beyond.expect("a limit") >= 10);
        assert!(limits.source(other).is_ok());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let limits = limits(0, 0, 0);
        let address = "10.0.0.1".parse().expect("an address");
        for _ in 0..10_000 {
            limits.refused(address);
            let asked = [limits.agent(&String::new()), limits.resource_server(&String::new()), limits.source(address)];
            assert!(asked.iter().all(Result::is_ok));
        }
    }

    #[test]
    fn a_host_with_many_addresses_is_one() {
        let same = |a: &str, b: &str| network(a.parse().expect("one")) == network(b.parse().expect("another"));
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1") && !same("10.0.0.1", "10.0.0.2"));
    }
}
