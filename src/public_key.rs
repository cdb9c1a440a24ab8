//! A public key, parsed once and fixed to one algorithm, which remembers what it has verified.

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::Algorithm;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::fmt;
use std::sync::OnceLock;

/// How many signatures a key remembers: those of 16,384 users and workloads, whose tokens come again and again until they are renewed.
const REMEMBERED: u64 = 16 * 1024;

/// The digest of a message with its signature.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// A public key and the only algorithm with which it is used.
///
/// The same bytes verify for ever under the same key, so what has been verified once is recognised by its digest afterwards. It is
/// forgotten with the key: one that is removed leaves nothing behind that would still be accepted. Everything else about a token, such as
/// its times and whether its pod is alive, is none of this and is checked each time.
pub struct PublicKey {
    algorithm: Algorithm,
    key: ParsedPublicKey,
    /// What it has verified. Most keys of most issuers never verify anything, and have none.
    verified: OnceLock<Cache<Digest, ()>>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// An RSA key: modulus and exponent, big-endian without leading zeros (RFC 7518 section 6.3.1). `None` if it is none, or `algorithm` is
    /// not for such keys. One of fewer than 2048 or more than 8192 bits verifies nothing.
    #[must_use]
    pub fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<Self> {
        let parameters: &'static RsaParameters = match algorithm {
            Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
            _ => return None,
        };
        let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()?;
        Some(Self { algorithm, key, verified: OnceLock::new() })
    }

    /// A key on a curve: 32 bytes for Ed25519, the uncompressed point for ECDSA (SEC 1 section 2.3.3). `None` if it is none, or `algorithm`
    /// is not for such keys.
    #[must_use]
    pub fn on_curve(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let parameters: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::EdDSA => &ED25519,
            Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
            _ => return None,
        };
        let key = ParsedPublicKey::new(parameters, bytes).ok()?;
        Some(Self { algorithm, key, verified: OnceLock::new() })
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature`, as JWS has it (RFC 7518 section 3, RFC 8037 section 3.1), is one of this key over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let digest = digest(message, signature);
        if self.verified.get().is_some_and(|verified| verified.get(&digest).is_some()) {
            return true;
        }
        let verifies = self.verifies_once(message, signature);
        if verifies {
            let remember = || Cache::builder().max_capacity(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build();
            self.verified.get_or_init(remember).insert(digest, ());
        }
        verifies
    }

    /// The same, and nothing of it is remembered: for a key that nobody keeps.
    #[must_use]
    pub fn verifies_once(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

/// The digest of both, which no other two have: it says where the signature ends.
fn digest(message: &[u8], signature: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(&u64::try_from(signature.len()).unwrap_or(u64::MAX).to_be_bytes());
    context.update(signature);
    context.update(message);
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    #[test]
    fn a_signature_that_was_verified_is_one_of_that_key_and_message_alone() {
        let signer = Ed25519KeyPair::generate().expect("a key");
        let key = || PublicKey::on_curve(Algorithm::EdDSA, signer.public_key().as_ref()).expect("a key");
        let (first, other) = (key(), Ed25519KeyPair::generate().expect("a key"));
        let other = PublicKey::on_curve(Algorithm::EdDSA, other.public_key().as_ref()).expect("a key");
        let signature = signer.sign(b"message");
        for _ in 0..3 {
            assert!(first.verifies(b"message", signature.as_ref()));
            assert!(!other.verifies(b"message", signature.as_ref()));
            assert!(!first.verifies(b"massage", signature.as_ref()));
            // Neither a byte that moves from one to the other, nor one that is lost.
            let (start, end) = signature.as_ref().split_at(63);
            assert!(!first.verifies(&[end, b"message"].concat(), start));
            assert!(!first.verifies(b"message", start));
            let mut flipped = signature.as_ref().to_vec();
            flipped[5] ^= 1;
            assert!(!first.verifies(b"message", &flipped));
        }
        assert_eq!(first.verified.get().map(|verified| verified.iter().count()), Some(1), "what fails is not remembered");
        assert!(other.verified.get().is_none());
        assert!(key().verified.get().is_none(), "a key that is read anew remembers nothing");
    }
}
