//! The other side: a key that is made for one process and never leaves it, and proofs with it.

use crate::json::put;
use crate::token::new_id;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key with which proofs are made: ECDSA with P-256 and SHA-256, which every verifier knows.
pub struct ProofKey {
    pair: EcdsaKeyPair,
    jwk: Value,
}

impl std::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProofKey")
    }
}

/// What a proof says.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// Its URL. Query and fragment are left out.
    pub url: &'a str,
    /// The nonce that the server has asked for.
    pub nonce: Option<&'a str>,
    /// The token that is presented with it.
    pub access_token: Option<&'a str>,
    /// The time, in seconds since the epoch.
    pub now: u64,
}

impl ProofKey {
    /// Makes a new key. `None` without random bytes.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        // SEC 1 section 2.3.3: what form it has, and the two halves.
        let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
        let text = |half: &[u8]| URL_SAFE_NO_PAD.encode(half);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)});
        Some(Self { pair, jwk })
    }

    /// A proof of this. `None` without random bytes.
    #[must_use]
    pub fn prove(&self, claim: &Claim<'_>) -> Option<String> {
        let url = claim.url.split(['?', '#']).next()?;
        let mut claims = json!({"jti": new_id().ok()?, "htm": claim.method, "htu": url, "iat": claim.now});
        if let Some(nonce) = claim.nonce {
            put(&mut claims, "nonce", json!(nonce));
        }
        if let Some(token) = claim.access_token {
            put(&mut claims, "ath", json!(URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()))));
        }
        self.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}), &claims)
    }

    /// The public half.
    pub(super) const fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// A JWS with this header and these claims.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> Option<String> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
