//! The heartbeat: our Lease is written every second.
//!
//! It elects nobody. A write goes through the API server into etcd and back, so it tells a frozen etcd from a quiet one,
//! which open watches do not. And it says which database is in use: a process with another one does not write it, and so does
//! not serve ([`fence`](super::fence)).

use super::fence::{Fence, Seen, Verdict};
use crate::snapshot::{Snapshot, Source};
use crate::store::Store;
use crate::time::Clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::Api;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is written.
const BEAT: Duration = Duration::from_secs(1);
/// The annotation that says which database whoever wrote the Lease uses.
const STORE: &str = "countersign.dev/store";

/// Writes the Lease.
pub struct Heart {
    /// The API server.
    pub client: kube::Client,
    /// Our namespace.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who we are.
    pub holder: String,
    /// For how many seconds after a write we go on without another.
    pub bound: u64,
    /// Our database.
    pub store: Store,
    /// Learns when the Lease was written.
    pub snapshot: Arc<Snapshot>,
    /// The time.
    pub clock: Clock,
}

impl std::fmt::Debug for Heart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Heart")
    }
}

impl Heart {
    /// Writes the Lease for ever.
    pub async fn beat(self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut fence = Fence::new(self.store.id().to_owned());
        let mut known: Option<Lease> = None;
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.write(&api, &mut fence, known.take()).await {
                Ok(written) => known = written,
                // Somebody else wrote it meanwhile: read it anew.
                Err(kube::Error::Api(status)) if status.is_conflict() => ticks.reset_immediately(),
                Err(error) => {
                    tracing::warn!(lease = %self.name, error = %crate::error_chain(&error), "the Lease could not be written")
                }
            }
        }
    }

    /// Writes the Lease, of which `known` is the newest version that we know of, and returns what was written: nothing while another
    /// database is in use.
    async fn write(&self, api: &Api<Lease>, fence: &mut Fence, known: Option<Lease>) -> kube::Result<Option<Lease>> {
        let asked = Instant::now();
        let mut lease = match known {
            Some(lease) => lease,
            None => api.get(&self.name).await?,
        };
        let verdict = fence.judge(seen(&lease), asked);
        if let Verdict::Wait(left) = verdict {
            self.bar(&lease, left);
            return Ok(None);
        }
        if verdict == Verdict::TakeOver && !self.snapshot.freshness.clocks_agree() {
            // The time of the takeover would be wrong for everybody.
            tracing::warn!(lease = %self.name, "the Lease is not taken over by a clock that is off that of the API server");
            return Ok(None);
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = Some(self.bound.try_into().unwrap_or(i32::MAX));
        spec.renew_time = Some(MicroTime(self.clock.now()));
        if verdict == Verdict::TakeOver {
            spec.acquire_time = spec.renew_time.clone();
            lease.metadata.annotations.get_or_insert_default().insert(STORE.to_owned(), self.store.id().to_owned());
        }
        let written = api.replace(&self.name, &super::writing(), &lease).await?;
        if verdict == Verdict::TakeOver {
            tracing::info!(lease = %self.name, store = self.store.id(), "the Lease is now our database's");
        }
        // Before anything is served: it may be another process of ours that took over.
        let acquired = written.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref());
        self.store.taken_over(acquired.map_or(0, |at| at.0.as_second().try_into().unwrap_or(0)));
        self.snapshot.freshness.bar(None);
        self.snapshot.freshness.heard(Source::Lease, asked);
        Ok(Some(written))
    }

    /// Stops serving: another database is in use.
    fn bar(&self, lease: &Lease, left: Duration) {
        let theirs = seen(lease).store.unwrap_or_default();
        let why = format!(
            "another database is in use: the Lease {} is written with store {theirs}, and this process has {}",
            self.name,
            self.store.id()
        );
        if self.snapshot.freshness.bar(Some(why.clone())) {
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
            tracing::warn!(holder, "{why}; it serves when nobody has written that for {} s", left.as_secs());
        }
    }
}

fn seen(lease: &Lease) -> Seen<'_> {
    let annotations = lease.metadata.annotations.as_ref();
    let duration = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    Seen {
        store: annotations.and_then(|annotations| annotations.get(STORE)).map(String::as_str),
        version: lease.metadata.resource_version.as_deref().unwrap_or_default(),
        duration: duration.and_then(|seconds| seconds.try_into().ok()),
    }
}
