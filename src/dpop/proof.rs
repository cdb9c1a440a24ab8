//! A proof, and the checks of RFC 9449 section 4.3.

use super::jwk::Key;
use super::{Confirmation, target};
use crate::identity::jws::{JwsError, Unverified, Verified};
use crate::time::LEEWAY;

/// The algorithms of proofs, by all their names.
pub const ALGORITHMS: [&str; 7] = ["EdDSA", "Ed25519", "ES256", "ES384", "RS256", "RS384", "RS512"];

/// `typ` of a proof, in lower case.
const TYPE: &str = "dpop+jwt";
/// How old a proof may be, in seconds.
const AGE_MAX: u64 = 60;

/// What a proof must be for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// The URL of the endpoint, as everybody knows it: never what a header of the request says.
    pub url: &'a str,
    /// The time, in seconds since the epoch.
    pub now: u64,
}

/// A proof that was found good, but for its nonce, and for whether it was used before. Only [`Proof::parse`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    thumbprint: String,
    jti: String,
    issued_at: u64,
    nonce: Option<String>,
}

/// Why a proof is none. The text is for the client's developer: a proof holds no secret, and whoever made it can make another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no JWS that is accepted.
    #[error("{0}")]
    Jws(#[from] JwsError),
    /// Its `typ` is another.
    #[error("the proof's typ is not dpop+jwt")]
    Type,
    /// Its key cannot be used.
    #[error("{0}")]
    Key(&'static str),
    /// A claim is not as it must be.
    #[error("{0}")]
    Claim(&'static str),
}

impl ProofError {
    /// Short, stable name for records and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Jws(_) | Self::Type | Self::Key(_) => "dpop_proof_malformed",
            Self::Claim(_) => "dpop_proof_claim_refused",
        }
    }
}

impl Proof {
    /// Reads a proof and checks all about it that needs no memory.
    ///
    /// # Errors
    /// A [`ProofError`].
    pub fn parse(text: &str, expected: &Expected<'_>) -> Result<Self, ProofError> {
        let (unverified, jwk) = Unverified::parse_with_key(text)?;
        if unverified.typ.as_deref() != Some(TYPE) {
            return Err(ProofError::Type);
        }
        let key = Key::parse(&jwk, unverified.algorithm).map_err(ProofError::Key)?;
        let claims = match &key {
            Key::Ed25519(key) => unverified.verify_with_one_of(&[key])?.0,
            Key::Other(key, _) => unverified.verify_once(key)?,
        };
        check(&claims, expected).map_err(ProofError::Claim).map(|(jti, issued_at, nonce)| Self {
            thumbprint: key.thumbprint().to_owned(),
            jti,
            issued_at,
            nonce,
        })
    }

    /// Thumbprint of the key of whoever made it.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// To which key a token is bound that is issued upon it.
    #[must_use]
    pub fn confirmation(&self) -> Confirmation {
        Confirmation { jkt: self.thumbprint.clone() }
    }

    /// Its identifier, which counts once for this key.
    #[must_use]
    pub fn jti(&self) -> &str {
        &self.jti
    }

    /// The nonce in it.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// When it was made, in seconds since the epoch.
    #[must_use]
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// When nobody takes it any more, in seconds since the epoch.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.issued_at.saturating_add(AGE_MAX + LEEWAY)
    }
}

/// Checks the claims. Returns `jti`, `iat` and `nonce`.
fn check(claims: &Verified, expected: &Expected<'_>) -> Result<(String, u64, Option<String>), &'static str> {
    let Expected { method, url, now } = *expected;
    if claims.text("htm") != Some(method) {
        return Err("htm is not the method of the request");
    }
    if !claims.text("htu").is_some_and(|htu| target::is_same(htu, url)) {
        return Err("htu is not the URL of this endpoint as the metadata of this service has it");
    }
    let issued_at = claims.seconds("iat").ok_or("iat is missing or not a whole number of seconds")?;
    if issued_at > now.saturating_add(LEEWAY) || issued_at.saturating_add(AGE_MAX + LEEWAY) < now {
        return Err("iat is not of now: a proof is made for one request and is good for 60 s");
    }
    // Neither is asked for. Who says them means them.
    let time = |name| match claims.get(name) {
        None => Ok(None),
        Some(_) => claims.seconds(name).map(Some).ok_or("exp or nbf is not a whole number of seconds"),
    };
    if time("exp")?.is_some_and(|exp| exp.saturating_add(LEEWAY) <= now)
        || time("nbf")?.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY))
    {
        return Err("the proof has expired, or does not count yet");
    }
    let nonce = match claims.get("nonce") {
        None => None,
        Some(_) => Some(claims.text("nonce").ok_or("nonce is not a text")?.to_owned()),
    };
    let jti = claims.identifier().ok_or("jti is missing, or not 1 to 128 printable ASCII characters")?;
    Ok((jti.to_owned(), issued_at, nonce))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
