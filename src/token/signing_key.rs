//! One of the keys with which we sign.

use super::KeyError;
use super::rotation::Slot;
use crate::crd::SigningAlgorithm;
use crate::public_key::PublicKey;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, Signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::spki::der::pem::{LineEnding, encode_string};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

/// About as long as the claims of most tokens are, in bytes.
const USUAL: usize = 1024;

/// The label of a PKCS#8 private key in PEM (RFC 7468 section 10).
const PEM_LABEL: &str = "PRIVATE KEY";

/// A key pair, parsed once, with its public half as a verifier sees it.
pub struct SigningKey {
    slot: Slot,
    kid: String,
    pem: String,
    pair: Pair,
    verifier: PublicKey,
    jwk: Jwk,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("slot", &self.slot).field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub(super) fn generate(slot: Slot) -> Result<Self, KeyError> {
        let pkcs8 = match slot.algorithm {
            SigningAlgorithm::EdDSA => Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()),
            SigningAlgorithm::ES256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).and_then(|pair| pair.to_pkcs8v1())
            }
        };
        let pkcs8 = pkcs8.map_err(|_| KeyError::Random)?;
        let pem = encode_string(PEM_LABEL, LineEnding::LF, pkcs8.as_ref()).map_err(|_| KeyError::Random)?;
        Self::parse(slot, pem).ok_or(KeyError::Random)
    }

    /// Reads a private key in PKCS#8 PEM; `None` if it is none of that algorithm.
    pub(super) fn parse(slot: Slot, pem: String) -> Option<Self> {
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let pkcs8 = pkcs8.secret_pkcs8_der();
        let (pair, verifier, readable, published_as) = match slot.algorithm {
            SigningAlgorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
                let public = pair.public_key().as_ref();
                let (verifier, readable) = (PublicKey::on_curve(Algorithm::EdDSA, public)?, DecodingKey::from_ed_der(public));
                (Pair::Ed25519(pair), verifier, readable, KeyAlgorithm::EdDSA)
            }
            SigningAlgorithm::ES256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
                let public = pair.public_key().as_ref();
                let (verifier, readable) = (PublicKey::on_curve(Algorithm::ES256, public)?, DecodingKey::from_ec_der(public));
                (Pair::P256(pair), verifier, readable, KeyAlgorithm::ES256)
            }
        };
        let mut jwk = Jwk::from_decoding_key(&readable, Some(verifier.algorithm())).ok()?;
        // RFC 7638: the name of a key is what it is, so that no two keys share one. It is never stored, so that nobody can give one
        // key the name of another.
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_algorithm = Some(published_as);
        Some(Self { slot, kid, pem, pair, verifier, jwk })
    }

    /// Its name: the thumbprint of its public half (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its algorithm, and from when on it signs.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// The public half.
    #[must_use]
    pub const fn verifier(&self) -> &PublicKey {
        &self.verifier
    }

    /// The public half, as published (RFC 7517 section 4).
    pub(super) const fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The private half in PKCS#8 PEM, for the Secret and for nobody else.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs `claims` as a compact JWS (RFC 7515 section 3.1) of the given `typ`. The key pair is parsed once, not for each token.
    pub(super) fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String, KeyError> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'static str,
            kid: &'a str,
            typ: &'a str,
        }
        let header = Header { alg: self.slot.algorithm.as_str(), kid: &self.kid, typ };
        let header = serde_json::to_vec(&header).map_err(|_| KeyError::Claims)?;
        let mut payload = Vec::with_capacity(USUAL);
        serde_json::to_writer(&mut payload, claims).map_err(|_| KeyError::Claims)?;
        let mut token = String::with_capacity(2 * USUAL);
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// Signs `message` as JWS wants it (RFC 7518 section 3.4, RFC 8037 section 3.1).
    fn signature(&self, message: &[u8]) -> Result<Signature, KeyError> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message)),
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Random),
        }
    }
}
