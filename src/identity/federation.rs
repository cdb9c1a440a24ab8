//! The keys of the trusted issuers, one cache for each version of an object that says where they are.

use super::IdentityError;
use super::fetch::Fetcher;
use super::key_cache::{Fetched, KeyCache, Pace};
use crate::issuer::{KeySource, RegisteredIssuer, Rules};
use crate::public_key::PublicKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The keys of all trusted issuers.
#[derive(Debug, Default)]
pub struct Federation {
    /// By UID of the object, with the generation that the keys are for.
    issuers: Mutex<HashMap<String, (i64, Arc<IssuerKeys>)>>,
}

/// The keys of one issuer, and how to fetch them.
#[derive(Debug)]
pub struct IssuerKeys {
    cache: KeyCache,
    fetcher: Fetcher,
}

impl Federation {
    /// The keys of `issuer`, of which `rules` are the rules.
    #[must_use]
    pub fn keys_of(&self, issuer: &RegisteredIssuer, rules: &Rules) -> Arc<IssuerKeys> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        match issuers.get(&issuer.uid) {
            Some((generation, keys)) if *generation == issuer.generation => Arc::clone(keys),
            _ => {
                let keys = Arc::new(IssuerKeys::new(issuer, rules));
                issuers.insert(issuer.uid.clone(), (issuer.generation, Arc::clone(&keys)));
                keys
            }
        }
    }

    /// Forgets the keys of every issuer whose UID `is_there` does not know.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| is_there(uid));
    }
}

impl IssuerKeys {
    fn new(issuer: &RegisteredIssuer, rules: &Rules) -> Self {
        // Keys in the object are as current as the object.
        let max_age = match rules.source {
            KeySource::Inline(_) => None,
            KeySource::Discovery(..) | KeySource::Jwks(..) => Some(Duration::from_secs(rules.keys_max_age)),
        };
        Self {
            cache: KeyCache::new(Pace { max_age, eager: false }),
            fetcher: Fetcher::new(&issuer.url, &rules.source, &rules.algorithms),
        }
    }

    /// The key `kid`.
    ///
    /// # Errors
    /// As [`KeyCache::find`].
    pub async fn find(&self, kid: Option<&str>) -> Result<Arc<PublicKey>, IdentityError> {
        self.cache.find(kid, || self.fetcher.fetch()).await
    }

    /// Fetches the keys now, unless that was begun a moment ago. Returns what is known then, and whether it may be used.
    pub async fn refresh(&self) -> (Arc<Fetched>, bool) {
        self.cache.refresh(|| self.fetcher.fetch()).await;
        (self.cache.known(), self.cache.is_usable())
    }
}
