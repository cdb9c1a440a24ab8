//! The heartbeat: our Lease is written every second.
//!
//! It elects nobody. A write goes through the API server into etcd and back, so it tells a frozen etcd from a quiet one,
//! which open watches do not.

use crate::snapshot::{Snapshot, Source};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::Api;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is written.
const BEAT: Duration = Duration::from_secs(1);

/// Writes the Lease for ever.
pub async fn beat(
    client: kube::Client,
    namespace: String,
    name: String,
    holder: String,
    snapshot: Arc<Snapshot>,
    clock: crate::time::Clock,
) {
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let mut known: Option<Lease> = None;
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        match write(&api, &name, &holder, known.take(), clock).await {
            Ok(written) => {
                snapshot.freshness.heard(Source::Lease, asked);
                known = Some(written);
            }
            // Another replica wrote it meanwhile: read it anew.
            Err(kube::Error::Api(status)) if status.is_conflict() => ticks.reset_immediately(),
            Err(error) => tracing::warn!(lease = %name, error = %crate::error_chain(&error), "the Lease could not be written"),
        }
    }
}

async fn write(
    api: &Api<Lease>,
    name: &str,
    holder: &str,
    known: Option<Lease>,
    clock: crate::time::Clock,
) -> kube::Result<Lease> {
    let mut lease = match known {
        Some(lease) => lease,
        None => api.get(name).await?,
    };
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(holder.to_owned());
    spec.lease_duration_seconds = Some(10);
    spec.renew_time = Some(MicroTime(clock.now()));
    api.replace(name, &super::writing(), &lease).await
}
