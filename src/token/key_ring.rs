//! The keys with which we sign: those that do, those that will, and those that did.

use super::rotation::{self, Plan, RotationPolicy, Slot};
use super::signing_key::SigningKey;
use crate::crd::SigningAlgorithm;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The operating system gives no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// The stored list cannot be read. What stands there is not repeated: it may be a key.
    #[error("it is no JSON list of {{alg, pem, active_from}}, at line {line}, column {column}")]
    List {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A stored key is none.
    #[error("its key number {number} is no {} private key in PKCS#8 PEM", algorithm.as_str())]
    Malformed {
        /// Its place in the list, from 1.
        number: usize,
        /// What it should be.
        algorithm: SigningAlgorithm,
    },
    /// One key stands there twice.
    #[error("it has the key {0} twice")]
    Twice(String),
    /// The key that is to sign is not there.
    #[error("there is no key to sign with")]
    Missing,
    /// The claims could not be written.
    #[error("the claims cannot be written as JSON")]
    Claims,
}

/// Our keys, and their public halves as a verifier sees them.
#[derive(Debug, Clone)]
pub struct KeyRing {
    /// In the order of [`Slot`], those of one time by name: so all replicas agree on which of them signs.
    keys: Vec<Arc<SigningKey>>,
    jwks: JwkSet,
}

impl Default for KeyRing {
    /// No key.
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

/// The names of the keys that sign at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// The key for EdDSA.
    pub eddsa: String,
    /// The key for ES256.
    pub es256: String,
}

impl Signers {
    /// The name of the key for `algorithm`.
    #[must_use]
    pub fn of(&self, algorithm: SigningAlgorithm) -> &str {
        match algorithm {
            SigningAlgorithm::EdDSA => &self.eddsa,
            SigningAlgorithm::ES256 => &self.es256,
        }
    }
}

/// A key as it is stored. Unknown members are refused: they may be what an older version does not honour.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    alg: SigningAlgorithm,
    pem: String,
    active_from: u64,
}

impl KeyRing {
    fn of(mut keys: Vec<Arc<SigningKey>>) -> Self {
        keys.sort_by(|a, b| (a.slot(), a.kid()).cmp(&(b.slot(), b.kid())));
        let jwks = JwkSet { keys: keys.iter().map(|key| key.jwk().clone()).collect() };
        Self { keys, jwks }
    }

    /// Reads the list that [`Self::to_json`] wrote. The names of the keys are computed, not read.
    ///
    /// # Errors
    /// A [`KeyError`] if any of it cannot be used: half a list would silently kill tokens.
    pub fn from_json(text: &[u8]) -> Result<Self, KeyError> {
        let stored: Vec<StoredKey> =
            serde_json::from_slice(text).map_err(|e| KeyError::List { line: e.line(), column: e.column() })?;
        let mut keys: Vec<Arc<SigningKey>> = Vec::with_capacity(stored.len());
        for (index, StoredKey { alg: algorithm, pem, active_from }) in stored.into_iter().enumerate() {
            let key = SigningKey::parse(Slot { algorithm, active_from }, pem);
            let key = key.ok_or(KeyError::Malformed { number: index + 1, algorithm })?;
            if keys.iter().any(|other| other.kid() == key.kid()) {
                return Err(KeyError::Twice(key.kid().to_owned()));
            }
            keys.push(Arc::new(key));
        }
        Ok(Self::of(keys))
    }

    /// The list as it is stored, private halves included.
    ///
    /// # Errors
    /// [`KeyError::Claims`] if it cannot be written as JSON, which its type rules out.
    pub fn to_json(&self) -> Result<Vec<u8>, KeyError> {
        let stored = self.keys.iter().map(|key| {
            let Slot { algorithm, active_from } = key.slot();
            StoredKey { alg: algorithm, pem: key.pem().to_owned(), active_from }
        });
        serde_json::to_vec(&stored.collect::<Vec<_>>()).map_err(|_| KeyError::Claims)
    }

    /// The ring of the one key that earlier versions had: an Ed25519 private key in PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn of_one(pem: String) -> Result<Self, KeyError> {
        let algorithm = SigningAlgorithm::EdDSA;
        let key = SigningKey::parse(Slot { algorithm, active_from: 0 }, pem);
        Ok(Self::of(vec![Arc::new(key.ok_or(KeyError::Malformed { number: 1, algorithm })?)]))
    }

    /// New keys of all algorithms, which sign at once.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate(now: u64) -> Result<Self, KeyError> {
        let make = SigningAlgorithm::ALL.map(|algorithm| Slot { algorithm, active_from: now });
        Self::default().after(&Plan { remove: Vec::new(), make: make.into() })
    }

    /// The ring as it should be at `now`; `None` if it is so.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn rotated(&self, policy: RotationPolicy, now: u64) -> Result<Option<Self>, KeyError> {
        self.if_any(&rotation::plan(&self.slots(), policy, now))
    }

    /// The ring with a next key of each algorithm that has none, which signs from `ahead` seconds after `now` on; `None` if all have one.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn begun(&self, ahead: u64, now: u64) -> Result<Option<Self>, KeyError> {
        self.if_any(&rotation::plan_now(&self.slots(), ahead, now))
    }

    fn if_any(&self, plan: &Plan) -> Result<Option<Self>, KeyError> {
        if plan.is_empty() { Ok(None) } else { self.after(plan).map(Some) }
    }

    fn after(&self, plan: &Plan) -> Result<Self, KeyError> {
        let kept = self.keys.iter().enumerate().filter(|(index, _)| !plan.remove.contains(index));
        let mut keys: Vec<_> = kept.map(|(_, key)| Arc::clone(key)).collect();
        for slot in &plan.make {
            keys.push(Arc::new(SigningKey::generate(*slot)?));
        }
        Ok(Self::of(keys))
    }

    /// What counts of the keys for their rotation.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        self.keys.iter().map(|key| key.slot()).collect()
    }

    /// The keys of which no token can be alive at `now`, in seconds since the epoch.
    #[must_use]
    pub fn run_out(&self, now: u64) -> Vec<&SigningKey> {
        rotation::run_out(&self.slots(), now).filter_map(|index| self.keys.get(index).map(Arc::as_ref)).collect()
    }

    /// Whether there is a key of each algorithm.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        SigningAlgorithm::ALL.iter().all(|algorithm| self.keys.iter().any(|key| key.slot().algorithm == *algorithm))
    }

    /// All keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().map(Arc::as_ref)
    }

    /// The key of that name.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&SigningKey> {
        self.keys().find(|key| key.kid() == kid)
    }

    /// The key of `algorithm` that signs at `now`, in seconds since the epoch.
    #[must_use]
    pub fn signer(&self, algorithm: SigningAlgorithm, now: u64) -> Option<&SigningKey> {
        rotation::signer(&self.keys, |key| key.slot(), algorithm, now).map(Arc::as_ref)
    }

    /// The names of the keys that sign at `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// [`KeyError::Missing`] if there is none of one of the algorithms.
    pub fn signers(&self, now: u64) -> Result<Signers, KeyError> {
        let of = |algorithm| self.signer(algorithm, now).map(|key| key.kid().to_owned()).ok_or(KeyError::Missing);
        Ok(Signers { eddsa: of(SigningAlgorithm::EdDSA)?, es256: of(SigningAlgorithm::ES256)? })
    }

    /// The public keys, as published (RFC 7517 section 5).
    #[must_use]
    pub const fn jwks(&self) -> &JwkSet {
        &self.jwks
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

#[cfg(test)]
mod tests;
