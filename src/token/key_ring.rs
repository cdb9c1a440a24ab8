//! The keys with which we sign.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Serialize;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system gives no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// The stored key is no Ed25519 private key in PKCS#8 PEM.
    #[error("the signing key is no Ed25519 private key in PKCS#8 PEM")]
    Malformed,
    /// The claims could not be written.
    #[error("the claims cannot be written as JSON")]
    Claims,
}

/// The signing key and its public half as a verifier sees it.
pub struct KeyRing {
    signer: Ed25519KeyPair,
    kid: String,
    verifier: DecodingKey,
    jwks: JwkSet,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Makes a new Ed25519 key as PKCS#8 PEM.
///
/// # Errors
/// [`KeyError::Random`].
pub fn generate_pem() -> Result<String, KeyError> {
    let mut seed = [0u8; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| KeyError::Random)?;
    let pem = SigningKey::from_bytes(&seed).to_pkcs8_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF);
    pem.map(|pem| pem.to_string()).map_err(|_| KeyError::Malformed)
}

impl KeyRing {
    /// Reads a key that [`generate_pem`] made.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let key = SigningKey::from_pkcs8_pem(pem).map_err(|_| KeyError::Malformed)?;
        let public = key.verifying_key().to_bytes();
        let signer = Ed25519KeyPair::from_seed_and_public_key(key.as_bytes(), &public).map_err(|_| KeyError::Malformed)?;
        let verifier = DecodingKey::from_ed_der(signer.public_key().as_ref());
        let mut jwk = Jwk::from_decoding_key(&verifier, Some(Algorithm::EdDSA)).map_err(|_| KeyError::Malformed)?;
        // RFC 7638: the name of a key is what it is, so that no two keys share one.
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::Malformed)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_algorithm = Some(KeyAlgorithm::EdDSA);
        Ok(Self { signer, kid, verifier, jwks: JwkSet { keys: vec![jwk] } })
    }

    /// The `kid` with which new tokens are signed.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public keys, as published (RFC 7517 section 5).
    #[must_use]
    pub const fn jwks(&self) -> &JwkSet {
        &self.jwks
    }

    /// The public key `kid` and the only algorithm with which it is used.
    #[must_use]
    pub fn verification_key(&self, kid: &str) -> Option<(&DecodingKey, Algorithm)> {
        (kid == self.kid).then_some((&self.verifier, Algorithm::EdDSA))
    }

    /// Signs `claims` as a compact JWS (RFC 7515 section 3.1) of the given `typ`. The key pair is parsed once, not for each token.
    pub(super) fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String, KeyError> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'static str,
            kid: &'a str,
            typ: &'a str,
        }
        let json = |value: &dyn Fn() -> serde_json::Result<Vec<u8>>| value().map_err(|_| KeyError::Claims);
        let header = json(&|| serde_json::to_vec(&Header { alg: "EdDSA", kid: &self.kid, typ }))?;
        let payload = json(&|| serde_json::to_vec(claims))?;
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.signer.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

/// A new token identifier: 128 random bits in base64url.
///
/// # Errors
/// [`KeyError::Random`].
pub fn new_id() -> Result<String, KeyError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
