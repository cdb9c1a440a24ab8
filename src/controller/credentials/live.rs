//! The signing keys as this process knows them now.

use super::signing::{Change, SIGNING_KEYS};
use crate::snapshot::{Snapshot, Source, is_older};
use crate::time::Clock;
use crate::token::KeyRing;
use crate::token::rotation::{self, RotationPolicy};
use arc_swap::{ArcSwap, Guard};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

/// How often the Secret is read for a key that nobody knows, however many ask.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How many may wait for that.
const ASKERS_MAX: usize = 64;
/// How long each of them may wait.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How many names that are no key's are remembered.
const STRANGERS_MAX: usize = 256;

/// The signing keys as this process knows them now, replaced without a restart.
pub struct SigningKeys {
    secrets: Api<Secret>,
    secret: String,
    snapshot: Arc<Snapshot>,
    clock: Clock,
    ring: ArcSwap<KeyRing>,
    taken: StdMutex<Taken>,
    changes: UnboundedSender<Change>,
    /// Names that were asked for and are no key's, or are those of keys that were removed. A key is stored before it signs, so that
    /// what was not there when its token was shown never will be.
    strangers: StdMutex<VecDeque<String>>,
    /// Held during a reading.
    reading: Mutex<Readings>,
    askers: Semaphore,
}

/// Which version of the Secret was looked at last, whether its list could be used, and the last list that could.
#[derive(Default)]
struct Taken {
    version: String,
    is_usable: bool,
    list: Vec<u8>,
}

/// The readings of the Secret for keys that nobody knew.
#[derive(Default)]
struct Readings {
    /// When the last was begun.
    begun: Option<Instant>,
    /// When the last that ended was begun, and how it ended.
    ended: Option<(Instant, Result<(), Unread>)>,
}

/// Whether a key exists cannot be told now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token is signed with a key that is not known here, and our Secret cannot be read to look for it: {0}")]
pub struct Unread(String);

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeys").field("secret", &self.secret).field("ring", &self.ring.load()).finish_non_exhaustive()
    }
}

impl SigningKeys {
    /// No key yet. What changes is told to `changes`.
    pub(super) fn new(
        secrets: Api<Secret>,
        secret: String,
        snapshot: Arc<Snapshot>,
        changes: UnboundedSender<Change>,
        clock: Clock,
    ) -> Self {
        Self {
            secrets,
            secret,
            snapshot,
            clock,
            ring: ArcSwap::default(),
            taken: StdMutex::default(),
            changes,
            strangers: StdMutex::default(),
            reading: Mutex::default(),
            askers: Semaphore::new(ASKERS_MAX),
        }
    }

    /// The keys, for the time of one request.
    #[must_use]
    pub fn current(&self) -> Guard<Arc<KeyRing>> {
        self.ring.load()
    }

    /// Whether there is a key `kid`. Another replica may have made it a moment ago, so the Secret is read for one that is not known
    /// here: at once, but not more than once in a second. Who asks meanwhile waits for the next reading.
    ///
    /// # Errors
    /// [`Unread`] if it cannot be read in time, or if too many ask.
    pub async fn knows(&self, kid: &str) -> Result<bool, Unread> {
        let known = || self.ring.load().find(kid).is_some();
        if known() {
            return Ok(true);
        }
        if self.strangers.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|stranger| stranger == kid) {
            return Ok(false);
        }
        let Ok(_place) = self.askers.try_acquire() else { return Err(Unread("too many ask".to_owned())) };
        let reading = tokio::time::timeout(ASK_WITHIN, self.read_again(Instant::now(), known)).await;
        reading.unwrap_or_else(|_| Err(Unread("it takes too long".to_owned())))?;
        let found = known();
        if !found {
            self.remember(kid);
        }
        Ok(found)
    }

    /// Returns when the Secret has been read by somebody who began after `asked`, or there is nothing to look for any more.
    async fn read_again(&self, asked: Instant, known: impl Fn() -> bool) -> Result<(), Unread> {
        let mut reading = self.reading.lock().await;
        match &reading.ended {
            _ if known() => return Ok(()),
            Some((begun, outcome)) if *begun > asked => return outcome.clone(),
            _ => {}
        }
        if let Some(begun) = reading.begun {
            tokio::time::sleep_until(begun + READ_EVERY).await;
        }
        if known() {
            return Ok(());
        }
        // Whoever asks may go away in the middle: what was begun counts, and what was not ended says nothing.
        let begun = Instant::now();
        reading.begun = Some(begun);
        let outcome = match self.secrets.get(&self.secret).await {
            Ok(secret) if self.take_in(&secret) => Ok(()),
            Ok(_) => Err(Unread("its signing-keys are missing or cannot be used".to_owned())),
            Err(error) => Err(Unread(crate::error_chain(&error))),
        };
        reading.ended = Some((begun, outcome.clone()));
        outcome
    }

    /// This is no key's name, or not any more.
    fn remember(&self, kid: &str) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.iter().any(|stranger| stranger == kid) {
            return;
        }
        if strangers.len() >= STRANGERS_MAX {
            strangers.pop_front();
        }
        strangers.push_back(kid.to_owned());
    }

    /// Takes in a version of the Secret, unless a later one was. Returns whether our keys are those of that version or a later one.
    pub(super) fn take_in(&self, secret: &Secret) -> bool {
        let version = secret.metadata.resource_version.clone().unwrap_or_default();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_older(&version, &taken.version) {
            taken.version = version;
            taken.is_usable = self.replace(secret, &mut taken.list);
        }
        taken.is_usable
    }

    /// Replaces our keys by those in the Secret, if they are others than in the list `current`. Returns whether they could be used.
    fn replace(&self, secret: &Secret, current: &mut Vec<u8>) -> bool {
        match secret.data.as_ref().and_then(|data| data.get(SIGNING_KEYS)) {
            Some(ByteString(list)) if list == current => {}
            Some(ByteString(list)) => match KeyRing::from_json(list) {
                Ok(ring) if ring.is_complete() => {
                    let before = self.ring.swap(Arc::new(ring));
                    current.clone_from(list);
                    self.tell(&before);
                }
                Ok(_) => return self.lost("the Secret has no signing key of one of the algorithms"),
                Err(error) => {
                    tracing::error!(%error, "the Secret's signing-keys cannot be used: those that were loaded before stay");
                    return false;
                }
            },
            None => return self.lost("the Secret has no signing-keys"),
        }
        self.snapshot.freshness.complete(Source::Keys);
        true
    }

    /// Our keys are gone. Whoever removed them did not want them to sign any more: nothing is issued until there are others. They go
    /// on being published, so that nobody remembers that there were none. Returns false.
    pub(super) fn lost(&self, why: &str) -> bool {
        tracing::error!(secret = %self.secret, "{why}: nothing is issued until there are");
        self.snapshot.freshness.incomplete(Source::Keys);
        false
    }

    fn tell(&self, before: &KeyRing) {
        if let Some(change) = Change::between(before, &self.ring.load(), self.now()) {
            tracing::info!(added = ?change.added, removed = ?change.removed, reason = change.reason, "the signing keys changed");
            change.removed.iter().for_each(|kid| self.remember(kid));
            // A send fails only while the process ends.
            _ = self.changes.send(change);
        }
    }

    /// The time, by the API server's clock: so that all replicas rotate by one.
    pub(super) fn now(&self) -> u64 {
        self.snapshot.freshness.corrected(self.clock.seconds())
    }

    /// When something will be due, in seconds since the epoch.
    pub(super) fn next_due(&self, policy: RotationPolicy) -> u64 {
        rotation::next_due(&self.ring.load().slots(), policy)
    }
}
