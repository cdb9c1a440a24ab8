//! The Ed25519 keys of agents (RFC 8032), with which an agent outside the cluster proves who it is.
//!
//! A public key is parsed once and strictly: one key has one encoding and one thumbprint, so that two texts never stand for
//! one key, and a key under which many signatures would verify is none.

mod jwk;
mod pem;
mod secret;
#[cfg(test)]
mod tests;

pub(crate) use jwk::has_private_member;
pub use secret::{AgentSecretKey, SecretKeyError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::spki::SubjectPublicKeyInfoRef;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// Longest text of a key that is looked at, in bytes.
pub const KEY_TEXT_MAX: usize = 4 * 1024;

/// The pattern of a `kid`, the name of a key within its agent.
pub const KID_PATTERN: &str = "^[A-Za-z0-9._-]{1,64}$";

/// Whether `kid` matches [`KID_PATTERN`]. Every thumbprint does.
#[must_use]
pub fn is_kid(kid: &str) -> bool {
    (1..=64).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What stands before the 32 bytes of the key in its SPKI form (RFC 8410 section 4). DER has one form for one value.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a text is no key that an agent may have. No variant holds any of the text, which could be a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentKeyError {
    /// Longer than [`KEY_TEXT_MAX`].
    #[error("longer than 4096 bytes; an Ed25519 public key has about 110")]
    TooLong,
    /// A private key, in whatever form.
    #[error(
        "this is the private key; only the public key belongs here. Everyone who can read this object can now act as the agent: \
         treat it as leaked, take it out everywhere, and make a new pair (countersign keygen)"
    )]
    PrivateKey,
    /// Neither PEM nor JSON.
    #[error(
        "neither a PEM block that begins with '-----BEGIN PUBLIC KEY-----' nor one JWK, which begins with '{{', and nothing may stand \
         before them"
    )]
    Unrecognised,
    /// More than one PEM block.
    #[error("holds several PEM blocks; each key is an entry of its own")]
    SeveralBlocks,
    /// Something stands before or behind the PEM block.
    #[error("something stands before or behind the PEM block; only one line break may")]
    TextAroundPem,
    /// Not the form of RFC 7468.
    #[error(
        "the PEM block is malformed: base64 in lines of 64 characters between its BEGIN and its END line, nothing else (in YAML write \
         'publicKey: |', which keeps the line breaks)"
    )]
    MalformedPem,
    /// PEM of something else: a certificate, an RSA key in PKCS#1.
    #[error("the PEM block is labelled otherwise than 'PUBLIC KEY' (make one with: openssl pkey -in private-key.pem -pubout)")]
    PemLabel,
    /// The PEM block holds no SPKI structure, or one that is not written as RFC 8410 wants.
    #[error("the PEM block holds no Ed25519 public key in its one DER form (RFC 8410 section 4)")]
    MalformedSpki,
    /// A key of another kind.
    #[error("this is a key of the kind {0}; only Ed25519 keys are accepted (countersign keygen makes one)")]
    NotEd25519(&'static str),
    /// Not one JSON object, or a member twice.
    #[error("the JWK is no JSON object in which each member occurs once: {0}")]
    MalformedJwk(String),
    /// A set of keys (RFC 7517 section 5) where one is wanted.
    #[error("this is a set of keys; each key is an entry of its own")]
    KeySet,
    /// `use` is there and is not `sig`.
    #[error("the JWK's 'use' is not 'sig'")]
    Use,
    /// `alg` is there and is neither `EdDSA` nor `Ed25519`.
    #[error("the JWK's 'alg' is neither 'EdDSA' nor 'Ed25519'")]
    Algorithm,
    /// `key_ops` is there and does not hold `verify`.
    #[error("the JWK's 'key_ops' is no list that names 'verify' and nothing twice")]
    Operations,
    /// `x` is not 32 bytes of canonical, unpadded base64url.
    #[error("the JWK's 'x' is not 32 bytes in canonical base64url without padding")]
    Coordinate,
    /// No point of the curve has this encoding.
    #[error("the key's bytes are no point of the curve")]
    NotAPoint,
    /// Another encoding than that of RFC 8032 section 5.1.2: `y` not below the prime, or the sign of an `x` that is zero.
    #[error("the key's bytes are not the canonical encoding of their point (RFC 8032 section 5.1.2)")]
    NonCanonical,
    /// A point of small order: anyone could sign under it.
    #[error("a weak key: its point has small order, so that signatures under it can be made by anyone")]
    SmallOrder,
    /// A point with a part of small order: no Ed25519 private key belongs to it.
    #[error("a malformed key: its point is outside the group of prime order, where every key made as RFC 8032 says lies")]
    MixedOrder,
}

/// A public Ed25519 key that may be the credential of an agent.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentKey {
    verifier: VerifyingKey,
    thumbprint: Arc<str>,
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentKey").field(&self.thumbprint).finish()
    }
}

impl AgentKey {
    /// Reads a key as SPKI in PEM (RFC 7468 section 13) or as one JWK (RFC 8037 section 2). One line break may follow, and lines
    /// may end in CRLF; other text around the key is refused.
    ///
    /// # Errors
    /// An [`AgentKeyError`] that says what the text is instead.
    pub fn parse(text: &str) -> Result<Self, AgentKeyError> {
        if text.len() > KEY_TEXT_MAX {
            return Err(AgentKeyError::TooLong);
        }
        // Before anything else, wherever it stands: no other error is as urgent.
        if text.contains("PRIVATE KEY-----") {
            return Err(AgentKeyError::PrivateKey);
        }
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        let bytes = if text.starts_with('{') {
            jwk::public_key(text)?
        } else if text.contains("-----BEGIN ") {
            from_spki(text)?
        } else {
            return Err(AgentKeyError::Unrecognised);
        };
        Self::from_bytes(&bytes)
    }

    /// Reads a key as a JWK that stands in something else.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn of_jwk(members: &Map<String, Value>) -> Result<Self, AgentKeyError> {
        Self::from_bytes(&jwk::of_members(members)?)
    }

    fn from_bytes(bytes: &[u8; 32]) -> Result<Self, AgentKeyError> {
        // The crate decodes leniently (ZIP 215); what it lets through and RFC 8032 does not is refused here.
        let verifier = VerifyingKey::from_bytes(bytes).map_err(|_| AgentKeyError::NotAPoint)?;
        let point = verifier.to_edwards();
        if point.compress().as_bytes() != bytes {
            return Err(AgentKeyError::NonCanonical);
        }
        if point.is_small_order() {
            return Err(AgentKeyError::SmallOrder);
        }
        if !point.is_torsion_free() {
            return Err(AgentKeyError::MixedOrder);
        }
        Ok(Self::of(verifier))
    }

    fn of(verifier: VerifyingKey) -> Self {
        let x = URL_SAFE_NO_PAD.encode(verifier.as_bytes());
        // RFC 7638 section 3 and RFC 8037 section 2: these members, in this order, without white space.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Self { verifier, thumbprint: thumbprint.into() }
    }

    /// The thumbprint (RFC 7638, SHA-256, base64url): one for each key, however the key was written.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Whether `signature` is the signature of `message` under this key. Strict: 64 bytes, `S` below the group's order and `R` in
    /// canonical encoding and not of small order, so that nobody can make a second signature of a first.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.verifier.verify_strict(message, &signature).is_ok())
    }

    /// The key as SPKI in PEM, with a line break at the end.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut der = SPKI_PREFIX.to_vec();
        der.extend_from_slice(self.verifier.as_bytes());
        pem::write("PUBLIC KEY", &der).to_string()
    }
}

/// The 32 bytes of the key in a PEM block of type `PUBLIC KEY`.
fn from_spki(text: &str) -> Result<[u8; 32], AgentKeyError> {
    let block = pem::read(text)?;
    if block.label != "PUBLIC KEY" {
        return Err(AgentKeyError::PemLabel);
    }
    let spki = SubjectPublicKeyInfoRef::try_from(block.der.as_slice()).map_err(|_| AgentKeyError::MalformedSpki)?;
    match pem::algorithm(&spki.algorithm.oid) {
        "Ed25519" => {}
        other => return Err(AgentKeyError::NotEd25519(other)),
    }
    block.der.strip_prefix(&SPKI_PREFIX).and_then(|key| <[u8; 32]>::try_from(key).ok()).ok_or(AgentKeyError::MalformedSpki)
}
