//! Keeps the status of catalogue entries, and writes the record of each change of one and who made it.

use super::due::Due;
use super::policies::Policies;
use crate::admission::enforcement::Verdict;
use crate::agent::Admission;
use crate::audit::{Outcome, Record, Recorder};
use crate::capability::Rule;
use crate::condition::{condition, message};
use crate::crd::{CHANGED_BY, CONDITION_ADMITTED, CONDITION_READY, Capability, CapabilityStatus};
use crate::grammar::CapabilityName;
use crate::time::Clock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::Api;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

/// What the controller needs.
pub struct Controller {
    /// The API server.
    pub client: kube::Client,
    /// The admission policies.
    pub policies: Arc<Policies>,
    /// Where records go.
    pub recorder: Recorder,
    /// The time.
    pub clock: Clock,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Controller")
    }
}

impl Controller {
    /// Handles the names of entries that changed, for ever.
    pub async fn run(self, mut changed: UnboundedReceiver<String>) {
        let mut due: Due<String> = Due::default();
        loop {
            tokio::select! {
                name = changed.recv() => match name {
                    Some(name) => due.at(name, Instant::now()),
                    None => return,
                },
                () = due.wait() => {
                    let now = Instant::now();
                    while let Some(name) = due.take(now) {
                        let outcome = self.reconcile(&name).await;
                        due.ended(name, "a Capability", outcome);
                    }
                }
            }
        }
    }

    async fn reconcile(&self, name: &str) -> kube::Result<()> {
        let api: Api<Capability> = Api::all(self.client.clone());
        let Some(mut capability) = api.get_opt(name).await? else {
            let mut record = Record::new("capability.deleted", crate::token::new_id().unwrap_or_default());
            record.text("capability", name).conclude(Outcome::Allow, "deleted");
            self.write(name, &record).await;
            return Ok(());
        };
        let (uid, generation) = (capability.uid().unwrap_or_default(), capability.metadata.generation.unwrap_or_default());
        let current = capability.status.clone().unwrap_or_default();
        let verdict = match Admission::of(&current.conditions, generation) {
            Admission::Proven => Verdict::Proven,
            Admission::Unproven => Verdict::Unproven(message(&current.conditions, CONDITION_ADMITTED)),
            Admission::Pending => {
                let created = capability.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second());
                self.policies.judge(&uid, created).await?
            }
        };
        let desired = self.desired(&capability, &current, &verdict);
        if desired == current {
            return Ok(());
        }
        let record = (current.observed_generation != desired.observed_generation).then(|| changed(&capability, &desired));
        capability.status = Some(desired);
        api.replace_status(name, &super::writing(), &capability).await?;
        self.policies.told(&uid);
        // After the write: of several replicas the one whose write counts makes the record.
        if let Some(record) = record {
            self.write(name, &record).await;
        }
        Ok(())
    }

    /// What happened in the cluster has happened: if it cannot be recorded, that is logged and counted, not undone.
    async fn write(&self, name: &str, record: &Record) {
        if self.recorder.write(record).await.is_err() {
            tracing::error!(capability = %name, event = record.event(), "a change of the catalogue could not be recorded");
        }
    }

    fn desired(&self, capability: &Capability, current: &CapabilityStatus, verdict: &Verdict) -> CapabilityStatus {
        let admitted = match verdict {
            Verdict::Proven => ("True", "Admitted", "written under the admission policies".to_owned()),
            Verdict::Unproven(why) => (
                "False",
                "PoliciesNotInForce",
                format!(
                    "nobody can tell who made this rule: {why}. Once they are in force, change its spec, or delete and create it"
                ),
            ),
        };
        let ready = match (verdict, CapabilityName::parse(&capability.name_any()), Rule::parse(&capability.spec)) {
            (Verdict::Unproven(_), ..) => {
                ("False", "NotAdmitted", "see condition Admitted; the capability is denied to everybody".to_owned())
            }
            (_, Err(invalid), _) => ("False", "InvalidName", invalid.to_string()),
            (_, _, Err(problem)) => {
                ("False", "InvalidRule", format!("{problem}; until it is mended the capability is denied to everybody"))
            }
            (Verdict::Proven, Ok(_), Ok(_)) => ("True", "Ready", "the rule is in force".to_owned()),
        };
        let conditions = [(CONDITION_READY, ready), (CONDITION_ADMITTED, admitted)].map(|(kind, (status, reason, message))| {
            let generation = capability.metadata.generation.unwrap_or_default();
            condition(&current.conditions, kind, status, reason, message, generation, Time(self.clock.now()))
        });
        CapabilityStatus { conditions: conditions.into(), observed_generation: capability.metadata.generation }
    }
}

/// The record of an entry that was made or changed, and by whom.
fn changed(capability: &Capability, status: &CapabilityStatus) -> Record {
    let ready = status.conditions.iter().all(|c| c.status == "True");
    let approval = capability.spec.approval.as_ref();
    let mut record = Record::new("capability.changed", crate::token::new_id().unwrap_or_default());
    record
        .text("capability", capability.name_any())
        .number("generation", status.observed_generation.and_then(|g| u64::try_from(g).ok()).unwrap_or_default())
        .text("changed_by", capability.annotations().get(CHANGED_BY).map_or("unknown", String::as_str))
        .number("approvals", approval.filter(|a| a.required).map_or(0, |a| a.approvals.into()))
        .conclude(if ready { Outcome::Allow } else { Outcome::Deny }, if ready { "in_force" } else { "not_in_force" });
    record
}
