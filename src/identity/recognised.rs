//! ServiceAccount tokens that were found to be genuine before.

use super::validity::Validity;
use super::{Caller, Holder, ServiceAccount};
use crate::public_key::PublicKey;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::sync::Arc;

/// How many: those of 16,384 pods, which exchange one token again and again until it is rotated.
const REMEMBERED: u64 = 16 * 1024;

/// Remembers tokens by their digest, with what they say. The same bytes say the same for ever, and verify for ever under the same key: so
/// one that comes again is neither read nor verified again. What may be otherwise the next time is none of this, and is checked each time:
/// whether the key and the issuer are still those of the cluster, the time, and whether pod and ServiceAccount are alive.
pub struct Recognised(Cache<[u8; SHA256_OUTPUT_LEN], Arc<Genuine>>);

/// A token whose signature was verified and whose claims were checked.
pub(super) struct Genuine {
    /// The `kid` that it names.
    pub(super) kid: String,
    /// The key that verified it. It counts as long as the issuer has this one.
    pub(super) key: Arc<PublicKey>,
    /// The issuer that it is from, where that was known.
    pub(super) issuer: Option<Arc<String>>,
    /// From when to when it counts.
    pub(super) validity: Validity,
    /// What it proves.
    pub(super) account: ServiceAccount,
    /// Its `jti`.
    pub(super) id: Option<String>,
}

impl Genuine {
    /// Whose credential it is.
    pub(super) fn caller(&self) -> Caller {
        Caller { holder: Holder::ServiceAccount(self.account.clone()), credential_id: self.id.clone() }
    }
}

impl std::fmt::Debug for Recognised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recognised").field("count", &self.0.entry_count()).finish()
    }
}

impl Default for Recognised {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl Recognised {
    /// What is remembered of `token`.
    pub(super) fn get(&self, token: &str) -> Option<Arc<Genuine>> {
        self.0.get(&digest_of(token))
    }

    /// Remembers `token`.
    pub(super) fn insert(&self, token: &str, genuine: Genuine) {
        self.0.insert(digest_of(token), Arc::new(genuine));
    }
}

/// The SHA-256 of the token as it was sent. Its parts are canonical base64url, so no other text is the same token.
pub(crate) fn digest_of(token: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::LEEWAY;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use jsonwebtoken::Algorithm;
    use uuid::Uuid;

    #[test]
    fn a_token_is_recognised_as_it_was_and_no_other_and_is_checked_against_the_time_again() {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let key = PublicKey::on_curve(Algorithm::EdDSA, pair.public_key().as_ref()).expect("a key");
        let (name, uid) = ("bot".to_owned(), Uuid::nil());
        let genuine = Genuine {
            kid: "k".to_owned(),
            key: Arc::new(key),
            issuer: None,
            validity: Validity { issued_at: Some(1000), not_before: None, expires_at: 2000 },
            account: ServiceAccount { namespace: "ns".to_owned(), name, uid, pod: None, issued_at: 1000, expires_at: 2000 },
            id: Some("jti".to_owned()),
        };
        let recognised = Recognised::default();
        recognised.insert("a.b.c", genuine);
        let found = recognised.get("a.b.c").expect("remembered");
        assert_eq!(found.caller().credential_id.as_deref(), Some("jti"));
        assert!(["a.b.d", "a.b.", "a.b.c.", "A.b.c", ""].into_iter().all(|other| recognised.get(other).is_none()));
        let counts = |now| found.validity.check(now).is_ok();
        assert!(counts(1000) && counts(2000 + LEEWAY - 1) && !counts(2000 + LEEWAY) && !counts(1000 - LEEWAY - 1));
    }
}
