//! Our own secrets: the signing keys, the keys of the evidence and of the ledger's checkpoints, the CA, and the serving certificate, in
//! one Secret that the chart creates empty.
//!
//! What is missing or due is made and written by compare-and-swap, so that several replicas agree on one. That is all the fencing
//! there is: who writes over a version that is not the latest has written nothing.

mod certificates;
mod live;
mod rotate;
mod signing;

pub use live::{SigningKeys, Unread};
pub(super) use rotate::distrust;
pub use rotate::{Mode, Rotated, rotate};

use crate::audit::Recorder;
use crate::audit::ledger::note::CheckpointKey;
use crate::jit::EvidenceKey;
use crate::snapshot::watches::follow_one;
use crate::snapshot::{Snapshot, Source};
use crate::time::Clock;
use crate::tls::{ServingCertificate, TlsError};
use crate::token::KeyError;
use crate::token::rotation::RotationPolicy;
use certificates::{CA_CERT, TLS_CERT, TLS_KEY};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::watcher::Event;
use signing::Change;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::watch;
use tokio::time::Instant;

/// The item of the Secret that holds the key of the evidence.
const EVIDENCE_KEY: &str = "evidence-key";
/// The item that holds the key of the ledger's checkpoints.
const AUDIT_KEY: &str = "audit-key";

/// How often the Secret is looked at though nothing is due and no watch says that it changed.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How soon again if the API server did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a race is tried again that somebody else won.
const ATTEMPTS: usize = 8;

/// Why our credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The Secret or ConfigMap cannot be read or written.
    #[error("the Secret or ConfigMap of the operator (the chart creates both) cannot be read or written: {}", crate::error_chain(.0))]
    Kubernetes(#[from] kube::Error),
    /// The operating system gives no random bytes.
    #[error("no key can be made: no random bytes from the operating system")]
    Random,
    /// The signing keys cannot be read.
    #[error(
        "the Secret's signing-keys (or signing-key.pem, of an earlier version) cannot be used: {0}. \
         Restore it; or, if it is lost, `countersign rotate-signing-keys` makes new keys, and every token signed so far dies"
    )]
    SigningKeys(KeyError),
    /// The key of the evidence cannot be read.
    #[error("the Secret's evidence-key has fewer than 32 bytes")]
    Evidence,
    /// The key of the checkpoints cannot be read.
    #[error("the Secret's audit-key is no Ed25519 key in PKCS#8 PEM. Restore it; or remove it, and a new one is made")]
    AuditKey,
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate cannot be served.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// Another writer is always faster.
    #[error("the Secret keeps changing")]
    Contended,
}

type Data = BTreeMap<String, ByteString>;
/// Makes what is missing or due of one part of the Secret. Returns whether anything changed.
type Part<'a> = &'a dyn Fn(&mut Data) -> Result<bool, CredentialsError>;

/// Where our credentials are kept, and what they are to be like.
#[derive(Debug, Clone)]
pub struct Place {
    /// Our namespace.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// The host of the issuer URL, from which the key of the checkpoints has its name.
    pub host: String,
    /// Name of the ConfigMap in which the CA certificate is published.
    pub config_map: String,
    /// The DNS names and IP addresses of the serving certificate.
    pub names: Vec<String>,
    /// How often the signing keys change.
    pub policy: RotationPolicy,
}

/// Our credentials.
pub struct Credentials {
    place: Place,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    keys: Arc<SigningKeys>,
    changes: UnboundedReceiver<Change>,
    checkpoint_key: watch::Sender<Option<Arc<CheckpointKey>>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What the Secret holds beside the signing keys.
#[derive(Debug)]
pub struct Loaded {
    /// The key with which approvals are attested.
    pub evidence: EvidenceKey,
    /// The key with which the ledger's checkpoints are signed.
    pub checkpoint_key: Arc<CheckpointKey>,
    serving: ServingPem,
}

/// Chain and private key of the serving certificate, PEM.
#[derive(Clone, PartialEq, Eq)]
struct ServingPem(String, String);

impl std::fmt::Debug for ServingPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServingPem")
    }
}

impl Loaded {
    /// The serving certificate.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn serving(&self) -> Result<Arc<ServingCertificate>, TlsError> {
        ServingCertificate::new(&self.serving.0, &self.serving.1)
    }
}

impl Credentials {
    /// Our credentials in that place. The view is unusable as long as we have no signing keys, or cannot see whether they are still ours.
    #[must_use]
    pub fn new(client: &kube::Client, place: Place, snapshot: Arc<Snapshot>, clock: Clock) -> Self {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &place.namespace);
        let config_maps = Api::namespaced(client.clone(), &place.namespace);
        let (told, changes) = mpsc::unbounded_channel();
        let keys = Arc::new(SigningKeys::new(secrets.clone(), place.secret.clone(), snapshot, told, clock));
        Self { place, secrets, config_maps, keys, changes, checkpoint_key: watch::Sender::default() }
    }

    /// The signing keys, which stay current while [`Self::keep`] runs.
    #[must_use]
    pub fn keys(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.keys)
    }

    /// The key of the checkpoints, which stays current while [`Self::keep`] runs. None before [`Self::load`].
    #[must_use]
    pub fn checkpoint_key(&self) -> watch::Receiver<Option<Arc<CheckpointKey>>> {
        self.checkpoint_key.subscribe()
    }

    /// Reads what is there and makes what is missing or due.
    ///
    /// # Errors
    /// A [`CredentialsError`]. What is there but unreadable is an error too: it is never overwritten.
    pub async fn load(&self) -> Result<Loaded, CredentialsError> {
        let (data, unusable) = self.complete().await?;
        match unusable {
            Some(error) => Err(error),
            None => Ok(Loaded {
                evidence: evidence(&data)?,
                checkpoint_key: self.take_checkpoint_key(&data)?,
                serving: ServingPem(text(&data, TLS_CERT), text(&data, TLS_KEY)),
            }),
        }
    }

    /// Keeps the signing keys and the certificate current, rotates and renews them in time, and records what happens to the keys, for ever.
    /// `serving` is the certificate of [`Self::load`], if that is what is served.
    pub async fn keep(mut self, loaded: Loaded, serving: Option<Arc<ServingCertificate>>, recorder: Recorder) {
        let (keys, secrets) = (self.keys(), self.secrets.clone());
        let secret = self.place.secret.clone();
        let changed = Notify::new();
        let mut listed = false;
        let watching = follow_one(secrets, &secret, Source::Keys.as_str(), |event| {
            match event {
                Event::Init => listed = false,
                Event::InitApply(secret) | Event::Apply(secret) => {
                    listed = true;
                    _ = keys.take_in(&secret);
                }
                Event::Delete(_) => _ = keys.lost("the Secret was deleted"),
                Event::InitDone if !listed => _ = keys.lost("there is no Secret"),
                Event::InitDone => {}
            }
            changed.notify_one();
        });
        let keeping = async {
            let mut current = loaded.serving;
            let mut due = Instant::now() + self.until_due();
            loop {
                tokio::select! {
                    Some(change) = self.changes.recv() => {
                        if recorder.write(&change.record()).await.is_err() {
                            tracing::error!("a change of the signing keys could not be recorded");
                        }
                        continue;
                    }
                    () = changed.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                }
                let pause = match self.complete().await {
                    Ok((data, unusable)) => {
                        let stored = ServingPem(text(&data, TLS_CERT), text(&data, TLS_KEY));
                        let served = serving.as_ref().map_or(Ok(()), |serving| replace(serving, &mut current, stored));
                        let taken = self.take_checkpoint_key(&data).err();
                        match unusable.or(served.err().map(Into::into)).or(taken) {
                            None => self.until_due(),
                            Some(error) => {
                                tracing::error!(%error, "our Secret could not be used; what was loaded before stays");
                                HEARTBEAT
                            }
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "our Secret could not be looked at");
                        RETRY_AFTER
                    }
                };
                due = Instant::now() + pause;
            }
        };
        tokio::join!(watching, keeping);
    }

    /// Makes what is missing or due in the Secret as it is stored now. Returns what it holds then, and what of it cannot be used.
    async fn complete(&self) -> Result<(Data, Option<CredentialsError>), CredentialsError> {
        for _ in 0..ATTEMPTS {
            let mut secret = self.secrets.get(&self.place.secret).await?;
            let mut data = secret.data.clone().unwrap_or_default();
            let now = self.keys.now();
            let date = OffsetDateTime::from_unix_timestamp(i64::try_from(now).unwrap_or(0)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let parts: [Part<'_>; 4] = [
                &|data| signing::complete(data, self.place.policy, now).map_err(Into::into),
                &complete_evidence,
                &|data| complete_audit(data, &self.place.host),
                &|data| certificates::complete(data, &self.place.names, date),
            ];
            // One part that cannot be used keeps no other from being rotated, and is left as it is.
            let (mut is_changed, mut unusable) = (false, None);
            for part in parts {
                let mut completed = data.clone();
                match part(&mut completed) {
                    Ok(changed) => {
                        is_changed |= changed;
                        data = completed;
                    }
                    Err(error) => unusable = unusable.or(Some(error)),
                }
            }
            if is_changed {
                secret.data = Some(data);
                match self.secrets.replace(&self.place.secret, &super::writing(), &secret).await {
                    Err(kube::Error::Api(status)) if status.is_conflict() => continue,
                    written => secret = written?,
                }
            }
            _ = self.keys.take_in(&secret);
            let data = secret.data.unwrap_or_default();
            super::policies::set(&self.config_maps, &self.place.config_map, CA_CERT, &text(&data, CA_CERT)).await?;
            return Ok((data, unusable));
        }
        Err(CredentialsError::Contended)
    }

    /// Takes the key of the checkpoints from `data`. Nobody hears of one that is the same.
    fn take_checkpoint_key(&self, data: &Data) -> Result<Arc<CheckpointKey>, CredentialsError> {
        let key = Arc::new(audit(data, &self.place.host)?);
        self.checkpoint_key.send_if_modified(|current| {
            let is_other = current.as_ref().is_none_or(|current| current.vkey() != key.vkey());
            if is_other {
                *current = Some(Arc::clone(&key));
            }
            is_other
        });
        Ok(key)
    }

    /// How long nothing is due. Never nothing at all, whatever the clocks say.
    fn until_due(&self) -> Duration {
        let seconds = self.keys.next_due(self.place.policy).saturating_sub(self.keys.now());
        Duration::from_secs(seconds).clamp(Duration::from_millis(200), HEARTBEAT)
    }
}

/// Serves `stored` from now on, unless that is what is served.
fn replace(serving: &ServingCertificate, current: &mut ServingPem, stored: ServingPem) -> Result<(), TlsError> {
    if stored != *current {
        serving.replace(&stored.0, &stored.1)?;
        *current = stored;
        tracing::info!("the serving certificate was replaced");
    }
    Ok(())
}

fn complete_evidence(data: &mut Data) -> Result<bool, CredentialsError> {
    if data.contains_key(EVIDENCE_KEY) {
        return evidence(data).map(|_| false);
    }
    let mut key = [0u8; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| CredentialsError::Random)?;
    data.insert(EVIDENCE_KEY.to_owned(), ByteString(key.to_vec()));
    Ok(true)
}

fn evidence(data: &Data) -> Result<EvidenceKey, CredentialsError> {
    data.get(EVIDENCE_KEY).and_then(|key| EvidenceKey::new(&key.0)).ok_or(CredentialsError::Evidence)
}

fn complete_audit(data: &mut Data, host: &str) -> Result<bool, CredentialsError> {
    if data.contains_key(AUDIT_KEY) {
        return audit(data, host).map(|_| false);
    }
    let pem = CheckpointKey::generate_pem().ok_or(CredentialsError::Random)?;
    put(data, AUDIT_KEY, pem.to_string());
    Ok(true)
}

fn audit(data: &Data, host: &str) -> Result<CheckpointKey, CredentialsError> {
    CheckpointKey::from_pem(host, &text(data, AUDIT_KEY)).ok_or(CredentialsError::AuditKey)
}

fn text(data: &Data, key: &str) -> String {
    data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

fn put(data: &mut Data, key: &str, value: String) {
    data.insert(key.to_owned(), ByteString(value.into_bytes()));
}
