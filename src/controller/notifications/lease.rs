//! Who sends: the holder of a Lease. It elects nobody for anything else, and no token waits for it.
//!
//! A holder that is dead is replaced after [`DURATION`]; one that is frozen stops by its own clock before that. Should two send all the
//! same, the database gives each notification to one of them.

use crate::time::Clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::Api;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How long after the last write of its holder others leave the Lease alone.
const DURATION: Duration = Duration::from_secs(8);
/// How long after a write its holder sends.
const HELD: Duration = Duration::from_secs(5);
/// How often it is written, and looked at by those who wait.
const BEAT: Duration = Duration::from_secs(1);
/// How long giving it back may take.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// Takes and keeps the Lease.
#[derive(Clone)]
pub struct Leadership {
    /// The API server.
    pub client: kube::Client,
    /// Our namespace.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who we are.
    pub holder: String,
    /// The time.
    pub clock: Clock,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leadership")
    }
}

/// Whether the Lease is held at this moment.
pub(super) fn is_held(leads: &watch::Receiver<Option<Instant>>) -> bool {
    leads.borrow().is_some_and(|until| Instant::now() < until)
}

impl Leadership {
    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Takes the Lease when it can be had and keeps it, for ever. Says until when it is held.
    pub async fn keep(self, leads: watch::Sender<Option<Instant>>) {
        // The version that another holder wrote last, and when we saw it first: their clock and ours need not agree.
        let mut theirs: Option<(String, Instant)> = None;
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            match self.attempt(&mut theirs).await {
                Ok(true) => {
                    if leads.send_replace(Some(asked + HELD)).is_none_or(|until| until < asked) {
                        tracing::info!(lease = %self.name, "this process sends the notifications");
                    }
                }
                Ok(false) => {
                    leads.send_replace(None);
                }
                Err(kube::Error::Api(status)) if status.is_conflict() => ticks.reset_immediately(),
                Err(error) => {
                    tracing::warn!(lease = %self.name, error = %crate::error_chain(&error), "the Lease could not be written")
                }
            }
        }
    }

    /// Writes the Lease if it is ours or nobody's.
    async fn attempt(&self, theirs: &mut Option<(String, Instant)>) -> kube::Result<bool> {
        let mut lease = self.api().get(&self.name).await?;
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if !holder.is_empty() && holder != self.holder {
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let first_seen = match theirs {
                Some((known, at)) if *known == version => *at,
                _ => theirs.insert((version, Instant::now())).1,
            };
            if first_seen.elapsed() < DURATION {
                return Ok(false);
            }
        }
        let is_new = holder != self.holder;
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = Some(MicroTime(self.clock.now()));
        if is_new {
            spec.acquire_time = spec.renew_time.clone();
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        self.api().replace(&self.name, &crate::controller::writing(), &lease).await?;
        *theirs = None;
        Ok(true)
    }

    /// Gives the Lease back, so that another need not wait until it is over.
    pub async fn release(self) {
        let given_back = async {
            let mut lease = self.api().get(&self.name).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.holder)) {
                spec.holder_identity = None;
                self.api().replace(&self.name, &crate::controller::writing(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(RELEASE_WITHIN, given_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.name, error = %crate::error_chain(&error), "the Lease was not given back")
            }
            Err(_) => tracing::warn!(lease = %self.name, "the Lease was not given back in time"),
        }
    }
}
