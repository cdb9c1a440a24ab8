//! Keeps the keys of trusted issuers fetched and their status current, and writes the record of each change of one and who made it.

use super::due::Due;
use super::policies::Policies;
use crate::admission::enforcement::Verdict;
use crate::agent::Admission;
use crate::audit::{Outcome, Record, Recorder};
use crate::condition::{condition, message};
use crate::crd::{
    CHANGED_BY, CONDITION_ADMITTED, CONDITION_KEYS_FETCHED, CONDITION_READY, TrustedIssuer, TrustedIssuerStatus, UserRevocation,
};
use crate::identity::{ApiServerKeys, COOLDOWN, Federation, Fetched};
use crate::issuer::{KeySource, RegisteredIssuer, Rules};
use crate::revocation::{Users, carry_out_users, users};
use crate::snapshot::Snapshot;
use crate::time::Clock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::Api;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often keys are fetched at least.
const REFRESH_MAX: Duration = Duration::from_secs(300);

/// What the controller needs.
pub struct Controller {
    /// The API server.
    pub client: kube::Client,
    /// The view of the cluster.
    pub snapshot: Arc<Snapshot>,
    /// The keys of the issuers.
    pub federation: Arc<Federation>,
    /// This cluster's own issuer, for which no other can speak.
    pub cluster: Arc<ApiServerKeys>,
    /// Our own issuer URL, for which no other can speak either.
    pub issuer: String,
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

/// Status, reason and message of a condition.
type Finding = (&'static str, &'static str, String);

impl Controller {
    /// Handles the names of issuers that changed, for ever. Each is looked at in a task of its own, so that one whose server is slow
    /// keeps no other waiting.
    pub async fn run(self, mut changed: UnboundedReceiver<String>) {
        let this = Arc::new(self);
        let mut due: Due<String> = Due::default();
        let mut tasks: JoinSet<(String, kube::Result<Option<Duration>>)> = JoinSet::new();
        let mut running: HashSet<String> = HashSet::new();
        loop {
            tokio::select! {
                name = changed.recv() => match name {
                    Some(name) => due.at(name, Instant::now()),
                    None => return,
                },
                () = due.wait() => {
                    let now = Instant::now();
                    while let Some(name) = due.take(now) {
                        if running.insert(name.clone()) {
                            let this = Arc::clone(&this);
                            tasks.spawn(async move { (name.clone(), this.reconcile(&name).await) });
                        } else {
                            due.at(name, now + Duration::from_millis(20));
                        }
                    }
                }
                Some(ended) = tasks.join_next() => {
                    // A task ends in no other way than by returning.
                    let Ok((name, outcome)) = ended else { return };
                    running.remove(&name);
                    if let Ok(Some(pause)) = &outcome {
                        due.at(name.clone(), Instant::now() + *pause);
                    }
                    due.ended(name, "a TrustedIssuer", outcome.map(drop));
                }
            }
        }
    }

    /// Brings one issuer up to date. Returns when to look at it again.
    async fn reconcile(&self, name: &str) -> kube::Result<Option<Duration>> {
        let api: Api<TrustedIssuer> = Api::all(self.client.clone());
        let Some(mut object) = api.get_opt(name).await? else {
            self.federation.retain(|uid| self.snapshot.issuers().iter().any(|issuer| issuer.uid == uid));
            let mut record = Record::new("trusted_issuer.deleted", crate::token::new_id().unwrap_or_default());
            record.text("trusted_issuer", name).conclude(Outcome::Allow, "deleted");
            self.write(name, &record).await;
            return Ok(None);
        };
        let issuer = RegisteredIssuer::parse(&object);
        let mut current = object.status.clone().unwrap_or_default();
        // Not after the keys have been fetched, which may take a while.
        if let Some(instruction) = carry_out_users(&mut current, self.clock.now()) {
            let verdict = self.policies.judge(&issuer.uid, issuer.created).await?;
            object.status = Some(current);
            api.replace_status(name, &super::writing(), &object).await?;
            if issuer.admission != Admission::Pending {
                self.policies.told(&issuer.uid);
            }
            self.write(name, &revoked(&issuer, &instruction, &verdict)).await;
            return Ok(Some(Duration::ZERO));
        }
        let verdict = match issuer.admission {
            Admission::Proven => Verdict::Proven,
            Admission::Unproven => Verdict::Unproven(message(&current.conditions, CONDITION_ADMITTED)),
            Admission::Pending => self.policies.judge(&issuer.uid, issuer.created).await?,
        };
        let obstacle = self.obstacle(&issuer, &verdict);
        let (known, pause) = match (&obstacle, &issuer.rules) {
            (None, Ok(rules)) => {
                let keys = self.federation.keys_of(&issuer, rules);
                let (known, usable) = keys.refresh().await;
                // Or when what is known counts no more, which nothing else would say.
                let pause =
                    pause(rules, &known).map(|pause| known.counts_for(rules.keys_max_age).map_or(pause, |left| pause.min(left)));
                (Some((known, usable)), pause)
            }
            _ => (None, None),
        };
        let desired = self.desired(&issuer, &current, &verdict, obstacle, known.as_ref());
        if is_told(&current, &desired, pause) {
            return Ok(pause);
        }
        let record = (current.observed_generation != desired.observed_generation).then(|| changed(&object, &issuer, &desired));
        object.status = Some(desired);
        api.replace_status(name, &super::writing(), &object).await?;
        self.policies.told(&issuer.uid);
        // After the write: of several replicas the one whose write counts makes the record.
        if let Some(record) = record {
            self.write(name, &record).await;
        }
        Ok(pause)
    }

    /// What has happened in the cluster has happened: if it cannot be recorded, that is logged and counted, not undone.
    async fn write(&self, name: &str, record: &Record) {
        if self.recorder.write(record).await.is_err() {
            tracing::error!(trusted_issuer = %name, event = record.event(), "a change of a TrustedIssuer could not be recorded");
        }
    }

    /// Why its tokens do not count, keys aside.
    fn obstacle(&self, issuer: &RegisteredIssuer, verdict: &Verdict) -> Option<Finding> {
        let no = |reason, message: String| Some(("False", reason, message));
        if issuer.stopped {
            return no(
                "Suspended",
                "spec.suspended is true, or the object is being deleted: no token of this issuer is accepted".to_owned(),
            );
        }
        if let Verdict::Unproven(_) = verdict {
            return no("NotAdmitted", "see condition Admitted; no token of this issuer is accepted".to_owned());
        }
        if let Err(invalid) = &issuer.rules {
            return no("InvalidSpec", format!("{invalid}; until it is mended no token of this issuer is accepted"));
        }
        if issuer.url == self.issuer {
            return no("IssuerReserved", "this is the URL of this service itself, whose tokens are no credentials".to_owned());
        }
        if self.cluster.issuer().is_some_and(|own| *own == issuer.url) {
            return no(
                "IssuerReserved",
                "this is the issuer of this cluster's own ServiceAccount tokens, which need no TrustedIssuer. Another cluster with the same \
                 issuer URL cannot be told from this one: give it a URL of its own (kube-apiserver --service-account-issuer)"
                    .to_owned(),
            );
        }
        let first = self.snapshot.issuers().with_url(&issuer.url, issuer.provides);
        if let Some(first) = first.filter(|first| first.uid != issuer.uid && first.seniority() < issuer.seniority()) {
            return no(
                "IssuerTaken",
                format!(
                    "TrustedIssuer {} has the same url and provides, and is older: only that one counts; put both into one",
                    first.name
                ),
            );
        }
        None
    }

    fn desired(
        &self,
        issuer: &RegisteredIssuer,
        current: &TrustedIssuerStatus,
        verdict: &Verdict,
        obstacle: Option<Finding>,
        known: Option<&(Arc<Fetched>, bool)>,
    ) -> TrustedIssuerStatus {
        let fetched = match known {
            None => ("Unknown", "NotFetched", "its keys are not fetched while its tokens are not accepted".to_owned()),
            Some((known, usable)) => fetched(known, *usable),
        };
        let ready = match (obstacle, known) {
            (Some(obstacle), _) => obstacle,
            (None, Some((_, true))) => ("True", "Ready", "tokens of this issuer are accepted".to_owned()),
            (None, _) => ("False", "NoKeys", "there are no keys of it that count: see condition KeysFetched".to_owned()),
        };
        let admitted = match verdict {
            Verdict::Proven => ("True", "Admitted", "written under the admission policies".to_owned()),
            Verdict::Unproven(why) => (
                "False",
                "PoliciesNotInForce",
                format!(
                    "nobody can tell who said that this issuer is to be trusted: {why}. Once they are in force, change its spec, or delete and \
                     create it"
                ),
            ),
        };
        let all = [(CONDITION_READY, ready), (CONDITION_KEYS_FETCHED, fetched), (CONDITION_ADMITTED, admitted)];
        let conditions = all.map(|(kind, (status, reason, message))| {
            condition(&current.conditions, kind, status, reason, message, issuer.generation, Time(self.clock.now()))
        });
        TrustedIssuerStatus {
            conditions: conditions.into(),
            observed_generation: Some(issuer.generation),
            keys_fetched_at: known.and_then(|(known, _)| time_of(known)),
            keys: known.map(|(known, _)| known.keys.kids()).unwrap_or_default(),
            ..current.clone()
        }
    }
}

/// When the keys of an issuer are to be fetched next; `None` if they never are.
fn pause(rules: &Rules, known: &Fetched) -> Option<Duration> {
    match (&rules.source, &known.failure) {
        (KeySource::Inline(_), _) => None,
        (_, Some(_)) => Some(COOLDOWN),
        (_, None) => Some(Duration::from_secs(rules.keys_max_age / 4).clamp(COOLDOWN, REFRESH_MAX)),
    }
}

fn fetched(known: &Fetched, usable: bool) -> Finding {
    match (&known.failure, usable) {
        (None, true) => ("True", "Fetched", format!("{} keys are known", known.keys.kids().len())),
        (Some(failure), true) => {
            ("False", "FetchFailed", format!("the keys of the last time still count for a while, but: {failure}"))
        }
        (Some(failure), false) => ("False", "FetchFailed", failure.clone()),
        (None, false) => ("Unknown", "NotFetched", "they have not been fetched yet".to_owned()),
    }
}

/// When the keys were fetched.
fn time_of(known: &Fetched) -> Option<Time> {
    let since_epoch = known.at?.1.duration_since(std::time::UNIX_EPOCH).ok()?;
    Timestamp::from_second(i64::try_from(since_epoch.as_secs()).ok()?).ok().map(Time)
}

/// Whether the status says already what there is to say. Several replicas fetch, each for itself, and one tells.
fn is_told(current: &TrustedIssuerStatus, desired: &TrustedIssuerStatus, pause: Option<Duration>) -> bool {
    let timeless = |status: &TrustedIssuerStatus| TrustedIssuerStatus { keys_fetched_at: None, ..status.clone() };
    if timeless(current) != timeless(desired) {
        return false;
    }
    let second = |status: &TrustedIssuerStatus| status.keys_fetched_at.as_ref().map(|time| time.0.as_second());
    match (second(current), second(desired), pause) {
        (Some(told), Some(new), Some(pause)) => {
            new <= told.saturating_add(i64::try_from(pause.as_secs() / 2).unwrap_or(i64::MAX))
        }
        (told, new, _) => told == new,
    }
}

/// The record of an issuer that was made or changed, and by whom.
fn changed(object: &TrustedIssuer, issuer: &RegisteredIssuer, status: &TrustedIssuerStatus) -> Record {
    let event = if issuer.stopped { "trusted_issuer.suspended" } else { "trusted_issuer.changed" };
    let admitted = status.conditions.iter().any(|c| c.type_ == CONDITION_ADMITTED && c.status == "True");
    let mut record = Record::new(event, crate::token::new_id().unwrap_or_default());
    record
        .text("trusted_issuer", issuer.name.as_str())
        .text("trusted_issuer_uid", issuer.uid.as_str())
        .number("generation", u64::try_from(issuer.generation).unwrap_or_default())
        .text("changed_by", object.annotations().get(CHANGED_BY).map_or("unknown", String::as_str))
        .text("url", issuer.url.as_str())
        .text("provides", format!("{:?}", issuer.provides))
        .conclude(if admitted { Outcome::Allow } else { Outcome::Deny }, if admitted { "admitted" } else { "not_admitted" });
    record
}

/// The record of an instruction to revoke that was carried out, and of who gave it.
fn revoked(issuer: &RegisteredIssuer, instruction: &UserRevocation, verdict: &Verdict) -> Record {
    let mut record = Record::new("user.revoked", crate::token::new_id().unwrap_or_default());
    record.text("trusted_issuer", issuer.name.as_str()).text("trusted_issuer_uid", issuer.uid.as_str());
    match users(instruction) {
        Users::Named(name) => record.text("user", format!("user:{name}")),
        Users::All => record.text("users", "all"),
    };
    super::given_by(&mut record, instruction.by.as_ref(), instruction.reason.as_deref(), verdict);
    record.conclude(Outcome::Allow, "revoked");
    record
}
