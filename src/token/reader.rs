//! Reading tokens of ours that are presented again and again.

use super::{AccessClaims, KeyRing, NotOurs, verify};
use crate::identity::digest_of;
use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::sync::Arc;

/// How much is remembered, in bytes of tokens: about four thousand usual ones. A resource server asks about one for each request that
/// comes with it, which is soon or never.
const REMEMBERED: u64 = 4 * 1024 * 1024;

/// Reads tokens of ours, and remembers those that it has read by their digest. The same bytes were signed by the same key for ever, and say
/// the same: what may be otherwise the next time is the time, and whether the key is one of ours, and both are checked each time. Whether
/// everybody in a token still stands where they stood is not its matter.
pub struct Reader {
    issuer: String,
    read: Cache<[u8; SHA256_OUTPUT_LEN], Arc<Read>>,
}

struct Read {
    /// The thumbprint of the key that signed it.
    kid: String,
    claims: Arc<AccessClaims>,
    /// Length of the token.
    length: u32,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("count", &self.read.entry_count()).finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads the tokens of `issuer`, this service.
    #[must_use]
    pub fn new(issuer: String) -> Self {
        let read = Cache::builder().max_capacity(REMEMBERED).weigher(|_, read: &Arc<Read>| read.length);
        Self { issuer, read: read.eviction_policy(EvictionPolicy::lru()).build() }
    }

    /// Reads back a token of ours.
    ///
    /// # Errors
    /// [`NotOurs`] unless it is an access token that we signed with one of `keys` and that has not expired at `now`.
    pub fn read(&self, token: &str, keys: &KeyRing, now: u64) -> Result<Arc<AccessClaims>, NotOurs> {
        let key = digest_of(token);
        if let Some(read) = self.read.get(&key).filter(|read| keys.find(&read.kid).is_some()) {
            return if read.claims.counts(now) { Ok(Arc::clone(&read.claims)) } else { Err(NotOurs::Worthless) };
        }
        let (claims, kid) = verify(token, &self.issuer, keys, now)?;
        let claims = Arc::new(claims);
        let length = u32::try_from(token.len()).unwrap_or(u32::MAX);
        self.read.insert(key, Arc::new(Read { kid, claims: Arc::clone(&claims), length }));
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::world::{US, World, agent};
    use crate::decision::{Ask, Subject};

    #[test]
    fn a_token_that_was_read_before_is_checked_against_time_and_keys_again_and_no_other_is_taken_for_it() {
        let bot = agent("bot", &["a.read"], &["https://docs"]);
        let permit = World::of(&[&bot]).decide(&bot, &Subject::Itself, &Ask::default(), 2000).expect("allowed");
        let keys = KeyRing::generate(0).expect("keys");
        let token = crate::token::mint(&permit, US, &keys, "j".to_owned()).expect("a token").token;
        let reader = Reader::new(US.to_owned());
        let first = reader.read(&token, &keys, 1001).expect("ours");
        assert!(Arc::ptr_eq(&first, &reader.read(&token, &keys, 1001).expect("ours")), "it is remembered");
        assert_eq!(reader.read(&token, &keys, first.exp), Err(NotOurs::Worthless), "it has expired");
        assert_eq!(reader.read(&token, &keys, first.iat - crate::time::LEEWAY - 1), Err(NotOurs::Worthless));
        let others = KeyRing::generate(0).expect("keys");
        assert!(matches!(reader.read(&token, &others, 1001), Err(NotOurs::KeyUnknown(_))), "its key is gone");
        for other in
            [format!("{token}A"), token.replacen('.', "..", 1), token.split_at(token.len() - 1).0.to_owned(), String::new()]
        {
            assert_eq!(reader.read(&other, &keys, 1001), Err(NotOurs::Worthless));
        }
        assert!(reader.read(&token, &keys, 1001).is_ok());
    }
}
