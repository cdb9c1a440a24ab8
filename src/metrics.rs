//! Metrics. Every label has a small, fixed set of values: none holds what a caller sent.

use crate::audit::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    event: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

/// A receiver by its name in the configuration, of which there are at most 64.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotificationLabels {
    receiver: String,
    outcome: &'static str,
}

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    outcomes: Family<OutcomeLabels, Counter>,
    policies_in_force: Gauge,
    view_age: Gauge<f64, AtomicU64>,
    record_failures: Gauge,
    store_reachable: Gauge,
    redeem_conflicts: Counter,
    unwitnessed: Gauge,
    uncopied: Gauge,
    discontinuities: Counter,
    notifications: Family<NotificationLabels, Counter>,
    notifications_waiting: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("countersign"),
            outcomes: Family::default(),
            policies_in_force: Gauge::default(),
            view_age: Gauge::default(),
            record_failures: Gauge::default(),
            store_reachable: Gauge::default(),
            redeem_conflicts: Counter::default(),
            unwitnessed: Gauge::default(),
            uncopied: Gauge::default(),
            discontinuities: Counter::default(),
            notifications: Family::default(),
            notifications_waiting: Gauge::default(),
        };
        let Self {
            mut registry,
            outcomes,
            policies_in_force,
            view_age,
            record_failures,
            store_reachable,
            redeem_conflicts,
            unwitnessed,
            uncopied,
            discontinuities,
            notifications,
            notifications_waiting,
        } = metrics;
        registry.register("outcomes", "Requests by event, outcome and reason", outcomes.clone());
        registry.register(
            "admission_policies_in_force",
            "Whether the admission policies are installed as this version expects them; Agents written while they are not get no token",
            policies_in_force.clone(),
        );
        registry.register("view_age_seconds", "Age of the view of the cluster; -1 before it is complete", view_age.clone());
        registry.register(
            "record_failures",
            "Outcomes that could not be recorded since the start, hence were refused",
            record_failures.clone(),
        );
        registry.register(
            "store_reachable",
            "Whether the database could be reached when it was last asked; what is consumed once is refused while it cannot",
            store_reachable.clone(),
        );
        registry.register(
            "jit_redeem_conflicts",
            "Attempts to turn an approval into a token that another attempt, here or on another replica, was ahead of",
            redeem_conflicts.clone(),
        );
        registry.register(
            "ledger_unwitnessed_records",
            "Records of this process that no published checkpoint covers yet; it rises while the ConfigMap cannot be written",
            unwitnessed.clone(),
        );
        registry.register(
            "ledger_uncopied_appends",
            "Appends to the ledger that the audit log does not have yet; when it cannot take them, nothing is issued",
            uncopied.clone(),
        );
        registry.register(
            "ledger_discontinuities",
            "Logs that turned out not to be as they were: an old copy of the database was restored, or somebody has changed it",
            discontinuities.clone(),
        );
        registry.register(
            "notifications",
            "Attempts to tell a receiver of a request: delivered, failed (and sent again), given_up",
            notifications.clone(),
        );
        registry.register(
            "notifications_waiting",
            "Notifications in the queue that have not arrived; only the process that sends says it, others 0",
            notifications_waiting.clone(),
        );
        Self {
            registry,
            outcomes,
            policies_in_force,
            view_age,
            record_failures,
            store_reachable,
            redeem_conflicts,
            unwitnessed,
            uncopied,
            discontinuities,
            notifications,
            notifications_waiting,
        }
    }
}

impl Metrics {
    /// Counts an outcome.
    pub fn outcome(&self, event: &'static str, outcome: Outcome, reason: &'static str) {
        self.outcomes.get_or_create(&OutcomeLabels { event, outcome: outcome.as_str(), reason }).inc();
    }

    /// Notes whether the admission policies are in force.
    pub fn policies_in_force(&self, in_force: bool) {
        self.policies_in_force.set(in_force.into());
    }

    /// Notes the age of the view.
    pub fn observe_view(&self, age: Option<Duration>) {
        self.view_age.set(age.map_or(-1.0, |age| age.as_secs_f64()));
    }

    /// Notes how many outcomes could not be recorded.
    pub fn observe_record_failures(&self, failures: u64) {
        self.record_failures.set(failures.try_into().unwrap_or(i64::MAX));
    }

    /// Notes whether the store can be reached.
    pub fn observe_store(&self, reachable: bool) {
        self.store_reachable.set(reachable.into());
    }

    /// Counts an attempt to turn an approval into a token that came second.
    pub fn redeem_conflict(&self) {
        self.redeem_conflicts.inc();
    }

    /// Notes how many records no published checkpoint covers.
    pub fn observe_unwitnessed(&self, records: u64) {
        self.unwitnessed.set(records.try_into().unwrap_or(i64::MAX));
    }

    /// Notes how many appends to the ledger are not in its copy.
    pub fn observe_uncopied(&self, appends: usize) {
        self.uncopied.set(appends.try_into().unwrap_or(i64::MAX));
    }

    /// Counts logs that are not as they were.
    pub fn discontinuities(&self, logs: usize) {
        self.discontinuities.inc_by(logs.try_into().unwrap_or(u64::MAX));
    }

    /// Counts an attempt to tell a receiver.
    pub fn notification(&self, receiver: &str, outcome: &'static str) {
        self.notifications.get_or_create(&NotificationLabels { receiver: receiver.to_owned(), outcome }).inc();
    }

    /// Notes how many notifications have not arrived.
    pub fn observe_notifications(&self, waiting: u64) {
        self.notifications_waiting.set(waiting.try_into().unwrap_or(i64::MAX));
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// If a value cannot be written as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
