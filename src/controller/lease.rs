//! The heartbeat: our Lease is written every second.
//!
//! It elects nobody. A write goes through the API server into etcd and back, so it tells a frozen etcd from a quiet one,
//! which open watches do not. And it says which database is in use: a process with another one does not write it, and so does
//! not serve ([`fence`](super::fence)). And it counts how often it was written, so that an older copy of the cluster shows
//! ([`timeline`](super::timeline)).

use super::credentials::distrust;
use super::fence::{Fence, Seen, Verdict};
use super::timeline::{Course, Past, Timeline};
use crate::audit::{Outcome, Record, Recorder};
use crate::metrics::Metrics;
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
/// The annotation that counts how often it was written.
const WRITES: &str = "countersign.dev/writes";
/// The annotation that counts how often the cluster was found to be an older copy.
const RESTORATIONS: &str = "countersign.dev/restorations";
/// After how many of our writes the database hears of the count.
const NOTE_EVERY: u64 = 4;
/// How often a restoration is tried to be recorded that cannot be.
const RECORD_ATTEMPTS: usize = 10;

/// Writes the Lease.
pub struct Heart {
    /// The API server.
    pub client: kube::Client,
    /// Our namespace.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The name of our Secret.
    pub secret: String,
    /// Who we are.
    pub holder: String,
    /// For how many seconds after a write we go on without another.
    pub bound: u64,
    /// Our database.
    pub store: Store,
    /// Hears of an older copy of the cluster.
    pub recorder: Recorder,
    /// Shows how often there was one.
    pub metrics: Arc<Metrics>,
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

/// What came of an attempt to write the Lease.
enum Beat {
    /// It is written: this is the newest version that we know of.
    Written(Box<Lease>),
    /// It is not ours to write now.
    Held,
    /// What this process knows is of another past than that of the cluster.
    Lost,
}

impl Heart {
    /// Writes the Lease for as long as the cluster is the one that this process has come to know. Nothing in memory counts afterwards: the
    /// process has to begin anew.
    pub async fn beat(self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut fence = Fence::new(self.store.id().to_owned());
        let mut timeline = Timeline::new(self.store.lease_writes());
        let mut known: Option<Lease> = None;
        let (mut ticks, mut count) = (tokio::time::interval(BEAT), 0_u64);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.snapshot.freshness.confirmation_wanted() => {}
            }
            match self.write(&api, &mut fence, &mut timeline, known.take()).await {
                Ok(Beat::Written(lease)) => {
                    if count.is_multiple_of(NOTE_EVERY) {
                        self.note(past(&lease).writes);
                    }
                    count = count.wrapping_add(1);
                    known = Some(*lease);
                }
                Ok(Beat::Held) => {}
                Ok(Beat::Lost) => return,
                // Somebody else wrote it meanwhile: read it anew.
                Err(kube::Error::Api(status)) if status.is_conflict() => ticks.reset_immediately(),
                Err(error) => {
                    tracing::warn!(lease = %self.name, error = %crate::error_chain(&error), "the Lease could not be written")
                }
            }
        }
    }

    /// Has the database remember how often the Lease was written. Nobody waits for it: whoever starts later only knows a little less.
    fn note(&self, writes: u64) {
        let store = self.store.clone();
        tokio::spawn(async move { store.note_lease_writes(writes).await });
    }

    /// Writes the Lease, of which `known` is the newest version that we know of.
    async fn write(
        &self,
        api: &Api<Lease>,
        fence: &mut Fence,
        timeline: &mut Timeline,
        known: Option<Lease>,
    ) -> kube::Result<Beat> {
        let asked = Instant::now();
        let mut lease = match known {
            Some(lease) => lease,
            None => api.get(&self.name).await?,
        };
        let verdict = fence.judge(seen(&lease), asked);
        if let Verdict::Wait(left) = verdict {
            self.bar(&lease, left);
            return Ok(Beat::Held);
        }
        if verdict == Verdict::TakeOver && !self.snapshot.freshness.clocks_agree() {
            // The time of the takeover would be wrong for everybody.
            tracing::warn!(lease = %self.name, "the Lease is not taken over by a clock that is off that of the API server");
            return Ok(Beat::Held);
        }
        let next = match timeline.judge(past(&lease)) {
            Course::On(next) => next,
            Course::Back(next) => return self.went_back(api, lease, next).await,
            Course::Elsewhere => {
                self.snapshot.freshness.bar(Some(RESTORED.to_owned()));
                tracing::error!(lease = %self.name, "{RESTORED}, as another process has found: this one ends, to begin anew");
                return Ok(Beat::Lost);
            }
        };
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = Some(self.bound.try_into().unwrap_or(i32::MAX));
        spec.renew_time = Some(MicroTime(self.clock.now()));
        set_past(&mut lease, next);
        if verdict == Verdict::TakeOver {
            let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            lease.spec.get_or_insert_default().acquire_time = renewed;
            lease.metadata.annotations.get_or_insert_default().insert(STORE.to_owned(), self.store.id().to_owned());
        }
        let written = api.replace(&self.name, &super::writing(), &lease).await?;
        timeline.written(next.writes);
        self.metrics.restorations(next.restorations);
        if verdict == Verdict::TakeOver {
            tracing::info!(lease = %self.name, store = self.store.id(), "the Lease is now our database's");
        }
        // Before anything is served: it may be another process of ours that took over.
        let acquired = written.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref());
        self.store.taken_over(acquired.map_or(0, |at| at.0.as_second().try_into().unwrap_or(0)));
        self.snapshot.freshness.bar(None);
        self.snapshot.freshness.heard(Source::Lease, asked);
        Ok(Beat::Written(Box::new(written)))
    }

    /// The cluster is an older copy of itself. Nothing is served any more; the keys go on which every token and every approval rests, those
    /// that came back with the copy too; then the Lease says so, and this process ends. What fails here is done again at the next beat.
    async fn went_back(&self, api: &Api<Lease>, mut lease: Lease, next: Past) -> kube::Result<Beat> {
        let found = past(&lease).writes;
        self.snapshot.freshness.bar(Some(RESTORED.to_owned()));
        let now = || self.snapshot.freshness.corrected(self.clock.seconds());
        if let Err(error) = distrust(&self.client, &self.namespace, &self.secret, now).await {
            tracing::error!(%error, "{RESTORED}, and the keys from before cannot be replaced: nothing is issued until they are");
            return Ok(Beat::Held);
        }
        set_past(&mut lease, next);
        api.replace(&self.name, &super::writing(), &lease).await?;
        tracing::error!(
            lease = %self.name, found, expected = next.writes.saturating_sub(1),
            "{RESTORED}: every token and every request for approval from before has ended, and this process ends, to begin anew"
        );
        let mut record = Record::new("cluster.restored", crate::token::new_id().unwrap_or_default());
        record.number("expected_writes", next.writes.saturating_sub(1)).number("found_writes", found);
        record.conclude(Outcome::Error, "older");
        for _ in 0..RECORD_ATTEMPTS {
            if self.recorder.write(&record).await.is_ok() {
                return Ok(Beat::Lost);
            }
            tokio::time::sleep(BEAT).await;
        }
        tracing::error!("that the cluster is an older copy could not be recorded");
        Ok(Beat::Lost)
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

/// What is said of an older copy of the cluster.
const RESTORED: &str = "the cluster has forgotten what it knew: an older copy of etcd was put in its place";

fn past(lease: &Lease) -> Past {
    let count = |name| lease.metadata.annotations.as_ref()?.get(name)?.parse().ok();
    Past {
        writes: count(WRITES).unwrap_or_default(),
        restorations: count(RESTORATIONS).unwrap_or_default(),
        is_used: seen(lease).store.is_some(),
    }
}

fn set_past(lease: &mut Lease, past: Past) {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(WRITES.to_owned(), past.writes.to_string());
    annotations.insert(RESTORATIONS.to_owned(), past.restorations.to_string());
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
