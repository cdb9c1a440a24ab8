//! The keys of one issuer as last fetched, and when they may be fetched again.
//!
//! However many tokens name a key that is not there, and whatever the issuer's server does, there is at most one fetch within
//! [`COOLDOWN`], and nobody waits for it but a bounded crowd.

use super::IdentityError;
use super::jwks::KeySet;
use crate::public_key::PublicKey;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Mutex, Semaphore};

/// How soon after one fetch the next may begin.
pub const COOLDOWN: Duration = Duration::from_secs(10);
/// How many requests may wait for a fetch at once. What is beyond is told to come back.
const WAITING_MAX: usize = 256;

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeyCache {
    current: ArcSwap<Fetched>,
    /// When the last fetch began; held while one runs, so that a crowd makes one fetch.
    begun: Mutex<Option<Instant>>,
    waiting: Semaphore,
    pace: Pace,
}

/// What is known of an issuer's keys.
#[derive(Debug, Default, Clone)]
pub struct Fetched {
    /// The keys as last fetched.
    pub keys: Arc<KeySet>,
    /// When, on the monotonic clock and on the wall clock; `None` for never.
    pub at: Option<(Instant, SystemTime)>,
    /// Why the last fetch failed, if it did.
    pub failure: Option<String>,
}

impl Fetched {
    /// How much longer the keys count, if they do for `max_age` seconds and are not too old already.
    #[must_use]
    pub fn counts_for(&self, max_age: u64) -> Option<Duration> {
        let left = Duration::from_secs(max_age).checked_sub(self.at?.0.elapsed())?;
        // A moment more, so that they are too old then.
        Some(left + Duration::from_millis(10))
    }
}

/// How keys grow old.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long keys count if they cannot be fetched again; `None` for ever.
    pub max_age: Option<Duration>,
    /// For a server that we have to trust anyway: a fetch that failed while nothing is known may be repeated at once, and a new key is
    /// looked for at once although all of them were just fetched.
    pub eager: bool,
}

impl KeyCache {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { current: ArcSwap::default(), begun: Mutex::new(None), waiting: Semaphore::new(WAITING_MAX), pace }
    }

    /// What is known.
    #[must_use]
    pub fn known(&self) -> Arc<Fetched> {
        self.current.load_full()
    }

    /// Whether keys are known and not too old.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        usable(&self.current.load(), self.pace)
    }

    /// The key `kid`. One that is not known causes a fetch, unless one began within [`COOLDOWN`].
    ///
    /// # Errors
    /// [`IdentityError::UnknownKey`] if the issuer does not publish it, [`IdentityError::Unavailable`] if that cannot be said: no keys
    /// are known, or they are too old, and they cannot be fetched now.
    pub async fn find<F>(&self, kid: Option<&str>, fetch: impl FnOnce() -> F) -> Result<Arc<PublicKey>, IdentityError>
    where
        F: Future<Output = Result<KeySet, String>>,
    {
        let kid = kid.ok_or(IdentityError::UnknownKey)?;
        match self.look(kid) {
            Some(key) => Ok(key),
            // In a box: what is seldom done need not make room in everything that may have to do it.
            None => Box::pin(self.find_again(kid, fetch)).await,
        }
    }

    async fn find_again<F>(&self, kid: &str, fetch: impl FnOnce() -> F) -> Result<Arc<PublicKey>, IdentityError>
    where
        F: Future<Output = Result<KeySet, String>>,
    {
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(IdentityError::Unavailable("too many requests wait for the issuer's keys".to_owned()));
        };
        let mut begun = self.begun.lock().await;
        if let Some(key) = self.look(kid) {
            return Ok(key);
        }
        if begun.is_none_or(|at| at.elapsed() >= COOLDOWN) {
            self.fetch(&mut begun, fetch).await;
        }
        let known = self.current.load();
        match (usable(&known, self.pace), known.keys.get(kid)) {
            (true, Some(key)) => Ok(key),
            (true, None) => Err(IdentityError::UnknownKey),
            (false, _) => {
                let why = known.failure.clone().unwrap_or_else(|| "they have not been fetched yet".to_owned());
                Err(IdentityError::Unavailable(format!("the issuer's keys are not known or too old: {why}")))
            }
        }
    }

    /// Fetches the keys now, unless a fetch that counts began within [`COOLDOWN`]. Returns whether they were fetched.
    pub async fn refresh<F>(&self, fetch: impl FnOnce() -> F) -> bool
    where
        F: Future<Output = Result<KeySet, String>>,
    {
        let mut begun = self.begun.lock().await;
        if begun.is_some_and(|at| at.elapsed() < COOLDOWN) {
            return false;
        }
        let before = *begun;
        let done = self.fetch(&mut begun, fetch).await;
        if self.pace.eager {
            *begun = before;
        }
        done
    }

    /// The key `kid`, if it is known and counts.
    pub fn look(&self, kid: &str) -> Option<Arc<PublicKey>> {
        let known = self.current.load();
        known.keys.get(kid).filter(|_| usable(&known, self.pace))
    }

    async fn fetch<F>(&self, begun: &mut Option<Instant>, fetch: impl FnOnce() -> F) -> bool
    where
        F: Future<Output = Result<KeySet, String>>,
    {
        let now = Instant::now();
        *begun = Some(now);
        let (next, done) = match fetch().await {
            // As old as the question, not as the answer.
            Ok(keys) => (Fetched { keys: Arc::new(keys), at: Some((now, SystemTime::now())), failure: None }, true),
            Err(failure) => (Fetched { failure: Some(failure), ..Fetched::clone(&self.current.load()) }, false),
        };
        if self.pace.eager && next.keys.is_empty() {
            *begun = None;
        }
        self.current.store(Arc::new(next));
        done
    }
}

fn usable(known: &Fetched, pace: Pace) -> bool {
    known.at.is_some_and(|(at, _)| pace.max_age.is_none_or(|max_age| at.elapsed() <= max_age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::Algorithm;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn set(kid: &str) -> Result<KeySet, String> {
        let jwk = serde_json::json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": kid}]});
        KeySet::parse(jwk.to_string().as_bytes(), &[Algorithm::EdDSA]).map_err(|e| e.to_string())
    }

    fn cache(max_age: Option<Duration>, eager: bool) -> KeyCache {
        KeyCache::new(Pace { max_age, eager })
    }

    #[tokio::test]
    async fn a_crowd_with_unknown_keys_makes_one_fetch() {
        let (cache, fetches) = (cache(None, false), AtomicUsize::new(0));
        let fetch = || async {
            fetches.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            set("a")
        };
        let crowd = (0..1000).map(|n| {
            let (cache, kid) = (&cache, if n % 2 == 0 { "a" } else { "b" });
            async move { (kid, cache.find(Some(kid), fetch).await) }
        });
        let (mut found, mut waited) = (0, 0);
        for (kid, result) in futures::future::join_all(crowd).await {
            match result {
                Ok(_) => {
                    assert_eq!(kid, "a");
                    found += 1;
                }
                Err(IdentityError::UnknownKey) => assert_eq!(kid, "b"),
                Err(IdentityError::Unavailable(_)) => waited += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        assert!(found >= WAITING_MAX / 2 && waited <= 1000 - WAITING_MAX, "{found} found, {waited} turned away");
        assert!(cache.find(None, fetch).await.is_err(), "a token that names no key");
        assert!(!cache.refresh(fetch).await && fetches.load(Ordering::SeqCst) == 1, "the cooldown holds for a refresh too");
    }

    #[tokio::test]
    async fn keys_that_are_too_old_are_not_used() {
        let cache = cache(Some(Duration::from_millis(30)), false);
        assert!(cache.find(Some("a"), || async { set("a") }).await.is_ok() && cache.is_usable());
        tokio::time::sleep(Duration::from_millis(60)).await;
        let refused = cache.find(Some("a"), || async { panic!("within the cooldown") }).await;
        assert!(matches!(refused, Err(IdentityError::Unavailable(_))) && !cache.is_usable());
    }

    #[tokio::test]
    async fn a_failed_fetch_keeps_what_is_known_and_says_why() {
        let hostile = cache(None, false);
        let failed = hostile.find(Some("a"), || async { Err("no answer".to_owned()) }).await;
        assert!(matches!(&failed, Err(IdentityError::Unavailable(why)) if why.contains("no answer")), "{failed:?}");
        let again = hostile.find(Some("a"), || async { panic!("within the cooldown") }).await;
        assert!(matches!(again, Err(IdentityError::Unavailable(_))));
        let eager = cache(None, true);
        assert!(eager.find(Some("a"), || async { Err("not yet".to_owned()) }).await.is_err());
        assert!(eager.find(Some("a"), || async { set("a") }).await.is_ok(), "nothing was known: the next may try at once");
        *eager.begun.lock().await = None;
        assert!(!eager.refresh(|| async { Err("gone".to_owned()) }).await);
        assert!(eager.find(Some("a"), || async { panic!("known") }).await.is_ok());
        assert_eq!(eager.known().failure.as_deref(), Some("gone"));
    }
}
