//! Metrics. Every label has a small, fixed set of values: none holds what a caller sent.

mod process;

use crate::audit::Outcome;
use crate::crd::Phase;
use crate::snapshot::Source;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    event: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    event: &'static str,
    outcome: &'static str,
}

/// A receiver by its name in the configuration, of which there are at most 64.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotificationLabels {
    receiver: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

/// What is looked up when the metrics are read, rather than counted when it happens.
#[derive(Debug, Default)]
pub struct Observation {
    /// How long each source of the view of the cluster has been silent; `None` if it was never heard.
    pub ages: Vec<(Source, Option<Duration>)>,
    /// Agents by how they stand: `standing`, or the code of the reason why they do not.
    pub agents: HashMap<&'static str, u64>,
    /// The sum of the revocation epochs of all Agents.
    pub epochs: u64,
    /// JitRequests by their phase; one without is new.
    pub requests: HashMap<Phase, u64>,
    /// Outcomes that could not be recorded.
    pub record_failures: u64,
    /// Records that no published checkpoint covers.
    pub unwitnessed: u64,
    /// Appends to the ledger that are not in its copy.
    pub uncopied: usize,
    /// Whether the store can be reached.
    pub store_reachable: bool,
    /// What waits for the database.
    pub store_queue: usize,
    /// Requests that are worked on.
    pub in_flight: usize,
}

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    outcomes: Family<OutcomeLabels, Counter>,
    durations: Family<DurationLabels, Histogram, Buckets>,
    limited: Family<LimitLabels, Counter>,
    in_flight: Gauge,
    policies_in_force: Gauge,
    view_age: Gauge<f64, AtomicU64>,
    source_ages: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    agents: Family<StateLabels, Gauge>,
    epochs: Gauge,
    requests: Family<PhaseLabels, Gauge>,
    decisions: Family<PhaseLabels, Histogram, Buckets>,
    record_failures: Gauge,
    store_reachable: Gauge,
    store_queue: Gauge,
    redeem_conflicts: Counter,
    unwitnessed: Gauge,
    uncopied: Gauge,
    discontinuities: Counter,
    restorations: Gauge,
    notifications: Family<NotificationLabels, Counter>,
    notifications_waiting: Gauge,
    registry: Registry,
}

/// The upper bounds of a histogram's buckets, in seconds.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// From half a millisecond, in which a token is issued, to the ten seconds after which a request is given up. A quarter of a second is
/// what is promised of revocations and approvals.
const REQUEST_SECONDS: Buckets = Buckets(&[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
/// From seconds, in which somebody who sits at the portal decides, to a day.
const DECISION_SECONDS: Buckets = Buckets(&[5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0]);

/// Registers a metric that begins with nothing.
fn begun<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    registered(registry, name, help, M::default())
}

fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(process::Process));
        let registry = root.sub_registry_with_prefix("countersign");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the program", build);
        Self {
            outcomes: begun(registry, "outcomes", "Requests by event, outcome and reason"),
            durations: registered(
                registry,
                "request_duration_seconds",
                "How long requests took until their outcome was recorded",
                Family::new_with_constructor(REQUEST_SECONDS),
            ),
            limited: begun(registry, "limited_requests", "Requests that were turned away because of a limit, by which"),
            in_flight: begun(registry, "requests_in_flight", "Requests that are worked on"),
            policies_in_force: begun(
                registry,
                "admission_policies_in_force",
                "Whether the admission policies are installed as this version expects them; Agents written while they are not get no token",
            ),
            view_age: begun(registry, "view_age_seconds", "Age of the view of the cluster; -1 before it is complete"),
            source_ages: begun(
                registry,
                "watch_age_seconds",
                "How long each source of the view of the cluster has been silent; -1 if it was never heard",
            ),
            agents: begun(registry, "agents", "Agents by how they stand: standing, which can get tokens, or the reason why not"),
            epochs: begun(
                registry,
                "revocation_epochs",
                "Sum of the revocation epochs of all Agents: it rises with each revocation of everything that an agent holds",
            ),
            requests: begun(registry, "jit_requests", "JitRequests by phase"),
            decisions: registered(
                registry,
                "jit_decision_seconds",
                "How long JitRequests waited for a decision, by what came of it; counted by the replica that saw to it",
                Family::new_with_constructor(DECISION_SECONDS),
            ),
            record_failures: begun(
                registry,
                "record_failures",
                "Outcomes that could not be recorded since the start, hence were refused",
            ),
            store_reachable: begun(
                registry,
                "store_reachable",
                "Whether the database could be reached when it was last asked; what is consumed once is refused while it cannot",
            ),
            store_queue: begun(registry, "store_queue", "Records and claims that wait for the database"),
            redeem_conflicts: begun(
                registry,
                "jit_redeem_conflicts",
                "Attempts to turn an approval into a token that another attempt, here or on another replica, was ahead of",
            ),
            unwitnessed: begun(
                registry,
                "ledger_unwitnessed_records",
                "Records of this process that no published checkpoint covers yet; it rises while the ConfigMap cannot be written",
            ),
            uncopied: begun(
                registry,
                "ledger_uncopied_appends",
                "Appends to the ledger that the audit log does not have yet; when it cannot take them, nothing is issued",
            ),
            discontinuities: begun(
                registry,
                "ledger_discontinuities",
                "Logs that turned out not to be as they were: an old copy of the database was restored, or somebody has changed it",
            ),
            restorations: begun(
                registry,
                "cluster_restorations",
                "How often the cluster was found to be an older copy of itself; each time all tokens and open requests end",
            ),
            notifications: begun(
                registry,
                "notifications",
                "Attempts to tell a receiver of a request: delivered, failed (and sent again), given_up",
            ),
            notifications_waiting: begun(
                registry,
                "notifications_waiting",
                "Notifications in the queue that have not arrived; only the process that sends says it, others 0",
            ),
            registry: root,
        }
    }
}

impl Metrics {
    /// Counts an outcome.
    pub fn outcome(&self, event: &'static str, outcome: Outcome, reason: &'static str) {
        self.outcomes.get_or_create(&OutcomeLabels { event, outcome: outcome.as_str(), reason }).inc();
    }

    /// Notes how long a request took.
    pub fn took(&self, event: &'static str, outcome: Outcome, time: Duration) {
        self.durations.get_or_create(&DurationLabels { event, outcome: outcome.as_str() }).observe(time.as_secs_f64());
    }

    /// Counts a request that a limit turned away.
    pub fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&LimitLabels { limit }).inc();
    }

    /// Notes how many seconds a JitRequest waited until it became what `phase` says.
    pub fn decided(&self, phase: Phase, seconds: i64) {
        // Both times are the API server's or corrected to it; none is more than 2^52.
        let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        self.decisions.get_or_create(&PhaseLabels { phase: phase.as_str() }).observe(seconds.into());
    }

    /// Notes whether the admission policies are in force.
    pub fn policies_in_force(&self, in_force: bool) {
        self.policies_in_force.set(in_force.into());
    }

    /// Counts an attempt to turn an approval into a token that came second.
    pub fn redeem_conflict(&self) {
        self.redeem_conflicts.inc();
    }

    /// Counts logs that are not as they were.
    pub fn discontinuities(&self, logs: usize) {
        self.discontinuities.inc_by(logs.try_into().unwrap_or(u64::MAX));
    }

    /// Notes how often the cluster was found to be an older copy of itself.
    pub fn restorations(&self, count: u64) {
        self.restorations.set(whole(count));
    }

    /// Counts an attempt to tell a receiver.
    pub fn notification(&self, receiver: &str, outcome: &'static str) {
        self.notifications.get_or_create(&NotificationLabels { receiver: receiver.to_owned(), outcome }).inc();
    }

    /// Notes how many notifications have not arrived.
    pub fn observe_notifications(&self, waiting: u64) {
        self.notifications_waiting.set(whole(waiting));
    }

    /// Notes what was looked up for whoever reads the metrics now.
    pub fn observe(&self, now: &Observation) {
        let said = |age: Option<Duration>| age.map_or(-1.0, |age| age.as_secs_f64());
        let oldest = now.ages.iter().map(|(_, age)| *age).max_by_key(|age| age.unwrap_or(Duration::MAX));
        self.view_age.set(said(oldest.flatten()));
        for (source, age) in &now.ages {
            self.source_ages.get_or_create(&SourceLabels { source: source.as_str() }).set(said(*age));
        }
        self.agents.clear();
        for (state, count) in &now.agents {
            self.agents.get_or_create(&StateLabels { state }).set(whole(*count));
        }
        for phase in PHASES {
            let count = now.requests.get(&phase).copied().unwrap_or_default();
            self.requests.get_or_create(&PhaseLabels { phase: phase.as_str() }).set(whole(count));
        }
        self.epochs.set(whole(now.epochs));
        self.record_failures.set(whole(now.record_failures));
        self.unwitnessed.set(whole(now.unwitnessed));
        self.uncopied.set(whole(now.uncopied));
        self.store_reachable.set(now.store_reachable.into());
        self.store_queue.set(whole(now.store_queue));
        self.in_flight.set(whole(now.in_flight));
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

/// All phases: a gauge of one in which no request is says 0.
const PHASES: [Phase; 8] = [
    Phase::Pending,
    Phase::Approved,
    Phase::Denied,
    Phase::Expired,
    Phase::Cancelled,
    Phase::Issued,
    Phase::Completed,
    Phase::Revoked,
];

fn whole(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
