//! `countersign rotate-signing-keys`: new signing keys now, by hand.

use super::{ATTEMPTS, CredentialsError, EVIDENCE_KEY, complete_evidence, signing};
use crate::token::rotation::Slot;
use crate::token::{KeyRing, SigningKey};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use std::fmt;

/// What is to happen to the keys that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of them go now, and the new ones sign at once: every token signed so far dies.
    Replace,
    /// They stay as long as in any rotation. The new ones are published now, and sign so many seconds later.
    Begin(u64),
}

/// What was done.
#[derive(Debug)]
pub struct Rotated {
    mode: Mode,
    before: Result<KeyRing, CredentialsError>,
    after: KeyRing,
}

/// Makes new signing keys in the Secret, over exactly the version that was looked at. `now` is the time of the API server.
///
/// # Errors
/// A [`CredentialsError`]. Keys that cannot be read are an error if they are to stay.
pub async fn rotate(
    client: &kube::Client,
    namespace: &str,
    secret: &str,
    mode: Mode,
    now: impl Fn() -> u64,
) -> Result<Rotated, CredentialsError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for _ in 0..ATTEMPTS {
        let mut stored = secrets.get(secret).await?;
        let data = stored.data.get_or_insert_default();
        let before = signing::stored(data).map(Option::unwrap_or_default).map_err(CredentialsError::from);
        let after = match (mode, &before) {
            (Mode::Replace, _) => Some(KeyRing::generate(now())?),
            (Mode::Begin(ahead), Ok(ring)) => ring.begun(ahead, now())?,
            (Mode::Begin(_), Err(_)) => None,
        };
        let Some(after) = after else {
            return before.map(|before| Rotated { mode, after: before.clone(), before: Ok(before) });
        };
        signing::store(data, &after)?;
        match secrets.replace(secret, &crate::controller::writing(), &stored).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            written => return written.map(|_| Rotated { mode, before, after }).map_err(Into::into),
        }
    }
    Err(CredentialsError::Contended)
}

/// Makes other keys in place of those that sign tokens and attest approvals: what rests on the old ones is worth nothing any more. `now` is
/// the time of the API server. Keys that cannot be read are replaced too.
///
/// # Errors
/// A [`CredentialsError`].
pub async fn distrust(
    client: &kube::Client,
    namespace: &str,
    secret: &str,
    now: impl Fn() -> u64,
) -> Result<(), CredentialsError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for _ in 0..ATTEMPTS {
        let mut stored = secrets.get(secret).await?;
        let data = stored.data.get_or_insert_default();
        signing::store(data, &KeyRing::generate(now())?)?;
        data.remove(EVIDENCE_KEY);
        complete_evidence(data)?;
        match secrets.replace(secret, &crate::controller::writing(), &stored).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            written => return written.map(drop).map_err(Into::into),
        }
    }
    Err(CredentialsError::Contended)
}

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = KeyRing::default();
        let before = self.before.as_ref().unwrap_or(&none);
        if let Err(error) = &self.before {
            writeln!(f, "what was there is removed: {error}")?;
        }
        let mut line = |what: &str, key: &SigningKey| {
            let Slot { algorithm, active_from } = key.slot();
            let from =
                i64::try_from(active_from).ok().and_then(|from| Timestamp::from_second(from).ok()).unwrap_or(Timestamp::MAX);
            writeln!(f, "{what} {} {}, signs from {from} on", algorithm.as_str(), key.kid())
        };
        for key in before.keys() {
            line(if self.after.find(key.kid()).is_some() { "kept   " } else { "removed" }, key)?;
        }
        for key in self.after.keys().filter(|key| before.find(key.kid()).is_none()) {
            line("added  ", key)?;
        }
        match self.mode {
            Mode::Replace => f.write_str(
                "Every token signed before is dead: at introspection now, and where tokens are verified offline as soon as the \
                 published keys are read again.\n",
            ),
            Mode::Begin(_) => f.write_str("No token dies. A key that is kept goes when its last token has expired.\n"),
        }
    }
}
