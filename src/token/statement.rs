//! Statements about what is alive, signed with the keys that sign tokens, and of types of their own so that none is taken for a token
//! (RFC 8725 section 3.11).

use super::{KeyError, KeyRing};
use crate::crd::SigningAlgorithm;
use crate::revocation::{Changes, State};
use serde::Serialize;

/// What is stated.
#[derive(Debug, Clone, Copy)]
pub enum Statement<'a> {
    /// All of it.
    Whole(&'a State),
    /// What is different from the state `prev`.
    Change {
        /// The state before.
        prev: &'a str,
        /// What is different.
        changes: &'a Changes,
    },
    /// That nothing is.
    Heartbeat,
}

/// About which state it is stated, and when.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct About<'a> {
    /// Our issuer URL.
    pub iss: &'a str,
    /// When it is signed, in seconds since the epoch.
    pub iat: u64,
    /// From when on nothing may be built on it.
    pub exp: u64,
    /// Up to when the state certainly includes everything that the API server had stored.
    pub as_of: u64,
    /// The state.
    pub id: &'a str,
}

impl Statement<'_> {
    /// `typ` of the JWT.
    #[must_use]
    pub const fn typ(&self) -> &'static str {
        match self {
            Self::Whole(_) => "revocations+jwt",
            Self::Change { .. } => "revocations-change+jwt",
            Self::Heartbeat => "revocations-heartbeat+jwt",
        }
    }

    /// Signs it with the EdDSA key of its time.
    ///
    /// # Errors
    /// [`KeyError::Missing`] if there is no key to sign with.
    pub fn sign(&self, about: About<'_>, keys: &KeyRing) -> Result<String, KeyError> {
        #[derive(Serialize)]
        struct Claims<'a, T: Serialize> {
            #[serde(flatten)]
            about: About<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            prev: Option<&'a str>,
            #[serde(flatten)]
            content: Option<T>,
        }
        let key = keys.signer(SigningAlgorithm::EdDSA, about.iat).ok_or(KeyError::Missing)?;
        match *self {
            Self::Whole(content) => key.sign(self.typ(), &Claims { about, prev: None, content: Some(content) }),
            Self::Change { prev, changes } => key.sign(self.typ(), &Claims { about, prev: Some(prev), content: Some(changes) }),
            Self::Heartbeat => key.sign(self.typ(), &about),
        }
    }
}
