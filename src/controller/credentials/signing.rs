//! The signing keys as they stand in the Secret.

use super::{CredentialsError, Data};
use crate::audit::{Outcome, Record};
use crate::token::rotation::RotationPolicy;
use crate::token::{KeyError, KeyRing, SigningKey, new_id};
use k8s_openapi::ByteString;

/// The item of the Secret.
pub(super) const SIGNING_KEYS: &str = "signing-keys";
/// Where earlier versions kept the one key that they had.
const SIGNING_KEY: &str = "signing-key.pem";

/// The keys in `data`, if there are any.
pub(super) fn stored(data: &Data) -> Result<Option<KeyRing>, KeyError> {
    match (data.get(SIGNING_KEYS), data.get(SIGNING_KEY)) {
        (Some(list), _) => KeyRing::from_json(&list.0).map(Some),
        // An upgrade kills no token.
        (None, Some(pem)) => KeyRing::of_one(String::from_utf8_lossy(&pem.0).into_owned()).map(Some),
        (None, None) => Ok(None),
    }
}

/// Puts `ring` into `data`, in place of whatever keys are there.
pub(super) fn store(data: &mut Data, ring: &KeyRing) -> Result<(), KeyError> {
    data.insert(SIGNING_KEYS.to_owned(), ByteString(ring.to_json()?));
    data.remove(SIGNING_KEY);
    Ok(())
}

/// Makes what is missing or due, and removes what has run out. Returns whether anything changed.
///
/// # Errors
/// A [`KeyError`]. What is there but unreadable is an error too: it is never overwritten.
pub(super) fn complete(data: &mut Data, policy: RotationPolicy, now: u64) -> Result<bool, KeyError> {
    let wanted = match stored(data)? {
        None => Some(KeyRing::generate(now)?),
        Some(ring) => match ring.rotated(policy, now)? {
            // An older version that ran beside us has put its own there again.
            None if data.contains_key(SIGNING_KEY) => Some(ring),
            rotated => rotated,
        },
    };
    wanted.map_or(Ok(false), |ring| store(data, &ring).map(|()| true))
}

/// Another set of keys than before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The names of keys that are new.
    pub(super) added: Vec<String>,
    /// The names of keys that are gone.
    pub(super) removed: Vec<String>,
    /// Short, stable name of what happened.
    pub(super) reason: &'static str,
}

impl Change {
    /// What happened to the keys, if anything did.
    pub(super) fn between(before: &KeyRing, after: &KeyRing, now: u64) -> Option<Self> {
        let missing = |of: &KeyRing, from: &KeyRing| -> Vec<String> {
            of.keys().map(SigningKey::kid).filter(|kid| from.find(kid).is_none()).map(str::to_owned).collect()
        };
        let (added, removed) = (missing(after, before), missing(before, after));
        if added.is_empty() && removed.is_empty() {
            return None;
        }
        // Whoever removed one may have a clock a little ahead of ours.
        let over = before.run_out(now.saturating_add(10));
        let reason = match before.keys().next() {
            None => "started",
            Some(_) if removed.iter().all(|kid| over.iter().any(|key| key.kid() == kid)) => "rotated",
            Some(_) => "replaced",
        };
        Some(Self { added, removed, reason })
    }

    /// The record of it.
    pub(super) fn record(&self) -> Record {
        let mut record = Record::new("signing_keys.rotated", new_id().unwrap_or_default());
        for (name, kids) in [("added", &self.added), ("removed", &self.removed)] {
            if !kids.is_empty() {
                record.text(name, kids.join(" "));
            }
        }
        record.conclude(Outcome::Allow, self.reason);
        record
    }
}

impl From<KeyError> for CredentialsError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Random => Self::Random,
            error => Self::SigningKeys(error),
        }
    }
}

#[cfg(test)]
mod tests;
