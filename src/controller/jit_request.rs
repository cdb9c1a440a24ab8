//! Moves requests for approval on: takes them in, turns decisions into approvals, ends what ran out, removes what is finished.
//!
//! Every replica does this; what each writes is a compare-and-swap, so that one step is taken once.

use super::due::Due;
use super::notifications::Seen;
use super::policies::Policies;
use crate::admission::enforcement::Verdict;
use crate::agent::Holding;
use crate::audit::{Outcome, Record, Recorder};
use crate::crd::{JitRequest, Phase, User};
use crate::decision::{Denial, View, chain_stands};
use crate::jit::{Change, EvidenceKey, Facts, OPEN_MAX, Request, RequestId, Step, Why, step};
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::snapshot::watches::RequestEvent;
use crate::time::Clock;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kube::Resource as _;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder as Events};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

/// How many finished requests of one agent are kept until their time is over. Beyond that the oldest go earlier.
const FINISHED_MAX: usize = 200;
/// How many requests are worked on at once.
const AT_ONCE: usize = 16;
/// How soon a failed step is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How soon a step is tried again whose compare-and-swap lost: the watch brings the other version within that time.
const CONFLICT_RETRY: Duration = Duration::from_millis(50);
/// How far a request with a decision is put ahead of others, so that nobody's flood of questions delays anybody's answer.
const AHEAD: Duration = Duration::from_secs(60);

/// What the controller needs.
pub struct Controller {
    /// The API server.
    pub client: kube::Client,
    /// The view of the cluster.
    pub snapshot: Arc<Snapshot>,
    /// The admission policies.
    pub policies: Arc<Policies>,
    /// Where records go.
    pub recorder: Recorder,
    /// Where Events go.
    pub events: Events,
    /// The key of the evidence.
    pub evidence: EvidenceKey,
    /// Tells people, if anybody is to be told.
    pub seen: Option<UnboundedSender<Seen>>,
    /// Counts decisions.
    pub metrics: Arc<Metrics>,
    /// Who we are to the API server.
    pub own: User,
    /// The time.
    pub clock: Clock,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Controller")
    }
}

impl Controller {
    /// Handles `events` for ever.
    pub async fn run(self, mut events: UnboundedReceiver<RequestEvent>) {
        let mut due: Due<RequestId> = Due::default();
        let mut running = FuturesUnordered::new();
        // What is being worked on, and whether it must be looked at again afterwards.
        let (mut busy, mut again): (HashSet<RequestId>, HashSet<RequestId>) = Default::default();
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return };
                    for (id, at) in self.concerned(event).await {
                        if busy.contains(&id) {
                            again.insert(id);
                        } else {
                            due.at(id, at);
                        }
                    }
                }
                Some((id, next)) = running.next() => {
                    busy.remove(&id);
                    let next = if again.remove(&id) { Some(Instant::now()) } else { next };
                    next.into_iter().for_each(|at| due.at(id.clone(), at));
                }
                () = due.wait(), if running.len() < AT_ONCE => {
                    if let Some(id) = due.take(Instant::now()) {
                        busy.insert(id.clone());
                        let controller = &self;
                        running.push(async move {
                            let next = controller.attempt(&id).await;
                            (id, next)
                        });
                    }
                }
            }
        }
    }

    /// The requests that an event concerns, and when they are due.
    async fn concerned(&self, event: RequestEvent) -> Vec<(RequestId, Instant)> {
        let now = Instant::now();
        let open = |request: &Arc<Request>| (!request.is_finished()).then(|| (request.id.clone(), now));
        match event {
            RequestEvent::Applied(id) => {
                self.show(|| Seen::Applied(id.clone()));
                let decided = self.snapshot.requests().named(&id).is_some_and(|r| r.status.decision.is_some());
                vec![(id, if decided { now.checked_sub(AHEAD).unwrap_or(now) } else { now })]
            }
            RequestEvent::Deleted(request) => {
                self.show(|| Seen::Deleted(Arc::clone(&request)));
                if !request.is_finished() {
                    let mut record = about("jit.withdrawn", &request);
                    record.text("detail", "the object was deleted").conclude(Outcome::Allow, "deleted");
                    self.write(&record).await;
                }
                Vec::new()
            }
            RequestEvent::AgentChanged(id) => {
                // Compared without making anything: ten thousand Agents, each with a look at every request, are a part of every start.
                let concerns = |request: &Arc<Request>| {
                    let asks = request.spec.agent.name == id.name() && request.id.namespace == id.namespace();
                    asks || request.descends_from(&id)
                };
                self.snapshot.requests().iter().filter(|request| concerns(request)).filter_map(open).collect()
            }
            RequestEvent::CatalogueChanged => self.snapshot.requests().iter().filter_map(open).collect(),
        }
    }

    /// Lets those know who tell people. A send fails only while the process ends.
    fn show(&self, seen: impl FnOnce() -> Seen) {
        if let Some(sender) = &self.seen {
            _ = sender.send(seen());
        }
    }

    /// One step of one request. Returns when it is due again.
    async fn attempt(&self, id: &RequestId) -> Option<Instant> {
        match self.reconcile(id).await {
            Ok(next) => next,
            Err(kube::Error::Api(status)) if status.is_conflict() => Some(Instant::now() + CONFLICT_RETRY),
            Err(kube::Error::Api(status)) if status.is_not_found() => None,
            Err(error) => {
                tracing::warn!(request = %id, error = %crate::error_chain(&error), "a JitRequest could not be moved on");
                Some(Instant::now() + RETRY_AFTER)
            }
        }
    }

    async fn reconcile(&self, id: &RequestId) -> kube::Result<Option<Instant>> {
        let Some(request) = self.snapshot.requests().named(id) else { return Ok(None) };
        // First of all, however old the rest of the view: what was written without the policies must not wait until they are back.
        let admitted = self.admitted(&request).await?;
        if self.snapshot.freshness.check(std::time::Instant::now()).is_err() {
            return Ok(Some(Instant::now() + RETRY_AFTER));
        }
        let now = self.clock.now().as_second();
        let step = self.step(&request, admitted, now);
        // What time alone ends is ended by a clock that the API server agrees with at this very moment: its answer says what time it is
        // there, and the view is unusable if ours is off.
        let by_time = match &step {
            Step::Remove => true,
            Step::Write(change) => change.status.phase == Some(Phase::Expired),
            Step::Wait(_) => false,
        };
        if by_time {
            self.api(id).get_opt(&id.name).await?;
            if self.snapshot.freshness.check(std::time::Instant::now()).is_err() {
                return Ok(Some(Instant::now() + RETRY_AFTER));
            }
        }
        match step {
            Step::Wait(until) => {
                let left = u64::try_from(until.saturating_sub(now)).unwrap_or_default();
                // A day is as good as for ever: it only means another look.
                Ok(Some(Instant::now() + Duration::from_secs(left.min(86_400))))
            }
            Step::Remove => {
                let preconditions =
                    Preconditions { uid: Some(request.uid.clone()), resource_version: Some(request.version.clone()) };
                let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                self.api(id).delete(&id.name, &parameters).await?;
                Ok(None)
            }
            Step::Write(change) => {
                let object = request.with_status(change.status.clone());
                let stored = self.api(id).replace_status(&id.name, &super::writing(), &object).await?;
                self.policies.told(&request.uid);
                if let Some(stored) = Request::parse(stored) {
                    self.snapshot.update_requests(|requests| requests.insert(Arc::new(stored)));
                    self.show(|| Seen::Applied(id.clone()));
                }
                self.tell(&request, &change).await;
                Ok(Some(Instant::now()))
            }
        }
    }

    fn api(&self, id: &RequestId) -> Api<JitRequest> {
        Api::namespaced(self.client.clone(), &id.namespace)
    }

    /// Whether what is new in the object was written under the admission policies.
    async fn admitted(&self, request: &Request) -> kube::Result<Result<(), String>> {
        if !request.needs_proof() {
            return Ok(Ok(()));
        }
        Ok(match self.policies.judge(&request.uid, request.created).await? {
            Verdict::Proven => Ok(()),
            Verdict::Unproven(why) => Err(why),
        })
    }

    fn step(&self, request: &Request, admitted: Result<(), String>, now: i64) -> Step {
        let agent = request.agent().and_then(|id| self.snapshot.agent(&id));
        let (namespace, name) = (&request.id.namespace, &request.spec.agent.name);
        let requests = self.snapshot.requests();
        // Those that came later do not count against this one: which are too many must not depend on the order of looks. Nor do those
        // that are not the agent's own.
        let is_senior = |r: &Request| {
            let requester = r.requester().map(|user| user.username.as_str());
            let own = requester.is_some_and(|name| name == self.own.username || self.is_of_agent(r, name));
            own && (r.created, &r.uid) < (request.created, &request.uid)
        };
        let over_quota = request.status.phase.is_none() && requests.open_of_agent(namespace, name, is_senior) >= OPEN_MAX;
        let later = |r: &&Arc<Request>| r.is_finished() && (r.created, &r.uid) > (request.created, &request.uid);
        let crowded = request.is_finished() && requests.of_agent(namespace, name).filter(later).count() >= FINISHED_MAX;
        drop(requests);
        let requester = request.requester().map(|user| user.username.as_str());
        let by_agent = requester.is_some_and(|requester| self.is_of_agent(request, requester));
        // From here on nothing else is looked up in the snapshot: a lock that is held must not be taken again.
        let view = self.snapshot.view();
        let view = view.as_view();
        let chain = callers(request, &view, now);
        let name_prefixes = view.issuers.kubernetes_prefixes();
        let facts = Facts {
            agent: agent.as_deref(),
            catalogue: view.catalogue,
            chain: chain.as_deref().map_err(Clone::clone),
            name_prefixes: &name_prefixes,
            by_operator: requester == Some(&self.own.username),
            by_agent,
            over_quota,
            admitted,
            crowded,
            evidence: &self.evidence,
        };
        step(request, &facts, now)
    }

    /// Whether `requester` is a ServiceAccount of the agent in the request.
    fn is_of_agent(&self, request: &Request, requester: &str) -> bool {
        let account = requester.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        account.is_some_and(|(namespace, name)| {
            let owner = self.snapshot.agents().owner_of(&Holding::service_account(namespace, name));
            owner.is_some_and(|owner| request.agent().is_some_and(|agent| owner.id == agent))
        })
    }

    /// Records a step that was taken, and shows it to whoever looks at the object. After the write: of several replicas the one whose
    /// write counts does this.
    async fn tell(&self, request: &Request, change: &Change) {
        let mut record = about(event_of(change), request);
        let outcome = match change.status.phase {
            Some(Phase::Denied | Phase::Expired | Phase::Revoked) => Outcome::Deny,
            _ if change.warning => Outcome::Deny,
            _ => Outcome::Allow,
        };
        if let Some(last) = change.status.approvals.last() {
            record.text("by", last.by.username.as_str());
        }
        record.text("detail", change.message.as_str()).conclude(outcome, change.reason.code());
        self.write(&record).await;
        let is_open = |phase| matches!(phase, None | Some(Phase::Pending));
        if let Some(phase) = change.status.phase.filter(|phase| is_open(request.status.phase) && !is_open(Some(*phase))) {
            self.metrics.decided(phase, self.clock.now().as_second().saturating_sub(request.created));
        }
        publish(&self.events, request, change).await;
    }

    /// What happened in the cluster has happened: if it cannot be recorded, that is logged and counted, not undone. The token, when it
    /// comes to that, is not issued without a record of its own.
    async fn write(&self, record: &Record) {
        if self.recorder.write(record).await.is_err() {
            tracing::error!(
                event = record.event(),
                request_id = record.request_id(),
                "a step of a JitRequest could not be recorded"
            );
        }
    }
}

/// Shows a step that was taken to whoever looks at the object (`kubectl describe`).
pub async fn publish(events: &Events, request: &Request, change: &Change) {
    let event = Event {
        type_: if change.warning { EventType::Warning } else { EventType::Normal },
        reason: change.reason.as_str().to_owned(),
        // The API server takes 1 kB.
        note: Some(change.message.chars().take(250).collect()),
        action: change.status.phase.map_or_else(String::new, |phase| format!("{phase:?}")),
        secondary: None,
    };
    let reference = request.with_status(change.status.clone()).object_ref(&());
    if let Err(error) = events.publish(&event, &reference).await {
        tracing::warn!(request = %request.id, error = %crate::error_chain(&error), "an Event could not be written");
    }
}

/// The name in records of what happened.
fn event_of(change: &Change) -> &'static str {
    match (change.reason, change.status.phase) {
        (Why::Requested, _) => "jit.requested",
        (_, Some(Phase::Pending) | None) => "jit.decision",
        (_, Some(Phase::Approved)) => "jit.approved",
        (_, Some(Phase::Denied)) => "jit.denied",
        (_, Some(Phase::Expired)) => "jit.expired",
        (_, Some(Phase::Cancelled)) => "jit.cancelled",
        (_, Some(Phase::Issued)) => "jit.issued",
        (_, Some(Phase::Completed)) => "jit.completed",
        (_, Some(Phase::Revoked)) => "jit.revoked",
    }
}

/// Begins a record about a request.
pub fn about(event: &'static str, request: &Request) -> Record {
    let mut record = Record::new(event, crate::token::new_id().unwrap_or_default());
    describe(&mut record, request);
    record
}

/// Writes into a record which request it is about, and what that asks.
pub fn describe(record: &mut Record, request: &Request) {
    record
        .text("jit_request", request.id.to_string())
        .text("jit_request_uid", request.uid.as_str())
        .text("agent", request.agent().map_or_else(|| request.spec.agent.name.clone(), |agent| agent.to_string()))
        .text("capability", request.spec.operation.capability.as_str());
    if let Some(resource) = &request.spec.operation.resource {
        record.text("resource", resource.as_str());
    }
    if let Some(digest) = &request.status.digest {
        record.text("digest", digest.as_str());
    } else if let Ok(question) = &request.question {
        record.text("digest", question.digest.as_str());
    }
}

/// The owners of the agents through which the agent of `request` was called, if all of them stand where they stood.
fn callers(request: &Request, view: &View<'_>, now: i64) -> Result<Vec<String>, Denial> {
    let Some(chain) = request.question.as_ref().ok().and_then(|question| question.callers.as_ref()) else {
        return Ok(Vec::new());
    };
    chain_stands(chain, None, view, u64::try_from(now).unwrap_or(0))?;
    Ok(chain.links().iter().filter_map(|link| view.agents.look_up(&link.agent)).map(|agent| agent.owner.clone()).collect())
}
