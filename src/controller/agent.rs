//! Keeps the status of Agents: whether a generation was admitted, whether a suspension has taken effect, the epoch,
//! and what a person must do when an agent is not Ready. Writes the record of each Agent's life.

mod identity;
mod revocation;

use super::credentials::SigningKeys;
use super::due::Due;
use super::policies::Policies;
use crate::admission::enforcement::Verdict;
use crate::agent::{Admission, RegisteredAgent, Told};
use crate::audit::{Outcome, Record, Recorder};
use crate::condition::condition;
use crate::crd::{
    Agent, AgentStatus, CHANGED_BY, CONDITION_ADMITTED, CONDITION_IDENTITY_RESOLVED, CONDITION_READY, CONDITION_SUSPENDED,
};
use crate::grammar::AgentId;
use crate::revocation::{carry_out, prune};
use crate::snapshot::Snapshot;
use crate::snapshot::watches::AgentEvent;
use crate::time::Clock;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use identity::Resolved;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::Api;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

/// How many conditions that cannot be used are named.
const CONDITIONS_SHOWN: usize = 5;
/// What condition Admitted says of an Agent that was.
const ADMITTED: &str = "written under the admission policies";
/// How many Agents are worked on at once. Their looks at the admission policies are one look.
const AT_ONCE: usize = 16;

/// What the controller needs.
pub struct Controller {
    /// The API server.
    pub client: kube::Client,
    /// The view of the cluster.
    pub snapshot: Arc<Snapshot>,
    /// Our own signing keys, which no agent can have.
    pub keys: Arc<SigningKeys>,
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

/// What was found about a generation that is new, before it is written into the status.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    /// The status has it already.
    Kept,
    /// It is new, and this is what it is worth.
    New(Verdict),
}

impl Controller {
    /// Handles `events` for ever.
    pub async fn run(self, mut events: UnboundedReceiver<AgentEvent>) {
        let mut due: Due<AgentId> = Due::default();
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => {
                        // The end of an Agent is recorded after what was found about it while it lived.
                        while let AgentEvent::Deleted(agent) = &event
                            && due.is_busy(&agent.id)
                            && let Some(done) = running.next().await
                        {
                            self.ended(done, &mut due);
                        }
                        self.note(event, &mut due).await;
                    }
                    None => return,
                },
                Some(done) = running.next() => self.ended(done, &mut due),
                () = due.wait(), if running.len() < AT_ONCE => {
                    if let Some(id) = due.take_one(Instant::now()) {
                        let controller = &self;
                        running.push(async move {
                            let outcome = controller.reconcile(&id).await;
                            (id, outcome)
                        });
                    }
                }
            }
        }
    }

    /// Takes note of how the work on one Agent ended.
    fn ended(&self, (id, outcome): (AgentId, kube::Result<()>), due: &mut Due<AgentId>) {
        due.release(&id);
        if let Some(agent) = self.snapshot.agent(&id) {
            self.look_again(&self.resolve(&agent), &agent, due);
        }
        due.ended(id, "an Agent", outcome);
    }

    /// Finds out whose status may have to change.
    async fn note(&self, event: AgentEvent, due: &mut Due<AgentId>) {
        let now = Instant::now();
        let (agent, rivals) = match event {
            AgentEvent::Applied(id) => {
                // One that is gone by now has an event of its own.
                let Some(agent) = self.snapshot.agent(&id).filter(|agent| !agent.deleting) else { return };
                let resolved = self.resolve(&agent);
                self.look_again(&resolved, &agent, due);
                // A status that is as it must be needs no look at the API server: ten thousand Agents at start cost none.
                if !self.is_settled(&agent, &resolved) {
                    due.at(id, now);
                }
                let rivals = self.snapshot.agents().rivals(&agent);
                (agent, rivals)
            }
            AgentEvent::Affected(id) => return due.at(id, now),
            AgentEvent::Deleted(agent) => {
                due.forget(&agent.id);
                let mut record = life("agent.deleted", &agent);
                record.conclude(Outcome::Allow, "deleted");
                self.write(&record).await;
                let rivals = self.snapshot.agents().rivals(&agent);
                (agent, rivals)
            }
        };
        for rival in rivals.into_iter().filter(|id| *id != agent.id) {
            due.at(rival, now);
        }
    }

    /// Whether its status says what it must, so that nothing has to be written. False if that cannot be told from what is known of it.
    fn is_settled(&self, agent: &RegisteredAgent, resolved: &Resolved) -> bool {
        let now = self.clock.now().as_second();
        let has_expired = !agent.revoked.is_empty() && agent.revoked.values().all(|until| *until <= now);
        // Why it was not admitted stands only in its status.
        if agent.admission != Admission::Proven || has_expired {
            return false;
        }
        let mut status = AgentStatus { revocation_epoch: agent.epoch, ..AgentStatus::default() };
        // Of the conditions before, two count for what they should be: that it was admitted, and that a suspension was counted.
        let holds = |kind| condition(&[], kind, "True", "", ADMITTED, agent.generation, Time(self.clock.now()));
        status.conditions.push(holds(CONDITION_ADMITTED));
        status.conditions.extend(agent.suspended.then(|| holds(CONDITION_SUSPENDED)));
        agent.told.is_some() && agent.told == Told::of(&self.desired(&status, agent, &Judgement::Kept, resolved))
    }

    /// Sees to it that an Agent is looked at when a key of it ends, or the last of its revoked tokens, which nobody writes anything for.
    fn look_again(&self, resolved: &Resolved, agent: &RegisteredAgent, due: &mut Due<AgentId>) {
        let listed = agent.revoked.values().copied().filter(|until| *until < i64::MAX).max();
        let listed = listed.and_then(|until| u64::try_from(until).ok());
        if let Some(until) = resolved.until.into_iter().chain(listed).min() {
            let seconds = until.saturating_sub(self.clock.seconds()).saturating_add(1);
            due.at(agent.id.clone(), Instant::now() + Duration::from_secs(seconds));
        }
    }

    /// Brings the status of one Agent up to date.
    async fn reconcile(&self, id: &AgentId) -> kube::Result<()> {
        let api: Api<Agent> = Api::namespaced(self.client.clone(), id.namespace());
        let Some(mut agent) = api.get_opt(id.name()).await? else { return Ok(()) };
        let Ok(parsed) = RegisteredAgent::parse(&agent) else { return Ok(()) };
        if parsed.deleting {
            return Ok(());
        }
        let current = agent.status.clone().unwrap_or_default();
        let verdict = match (parsed.admission, &current.revoke) {
            (Admission::Pending, _) | (_, Some(_)) => Some(self.policies.judge(&parsed.uid, parsed.created).await?),
            (Admission::Proven | Admission::Unproven, None) => None,
        };
        let judgement = match &verdict {
            Some(verdict) if parsed.admission == Admission::Pending => Judgement::New(verdict.clone()),
            _ => Judgement::Kept,
        };
        let desired = self.desired(&current, &parsed, &judgement, &self.resolve(&parsed));
        if desired == current {
            return Ok(());
        }
        if current.observed_generation != desired.observed_generation {
            self.write(&Self::changed(&agent, &parsed, &judgement, current.observed_generation.is_none())).await;
        }
        agent.status = Some(desired);
        let stored = api.replace_status(id.name(), &super::writing(), &agent).await?;
        self.policies.told(&parsed.uid);
        if let Ok(stored) = RegisteredAgent::parse(&stored) {
            self.snapshot.update_agents(|agents| agents.refresh(stored));
        }
        // After the write: of several replicas the one whose write counts makes the record.
        if let (Some(instruction), Some(verdict)) = (&current.revoke, &verdict) {
            self.write(&revocation::record(&parsed, instruction, verdict)).await;
        }
        Ok(())
    }

    /// The status as it should be. Written only by compare-and-swap on the version that it was made from.
    fn desired(
        &self,
        current: &AgentStatus,
        parsed: &RegisteredAgent,
        judgement: &Judgement,
        resolved: &Resolved,
    ) -> AgentStatus {
        let mut next = current.clone();
        carry_out(&mut next, self.clock.now());
        // While suspended, every generation ends what was issued before it: so no suspension can pass uncounted.
        if parsed.suspended && !is_suspended(current, parsed.generation) {
            next.revocation_epoch = next.revocation_epoch.saturating_add(1);
            next.revoked_tokens.clear();
        }
        next.observed_generation = Some(parsed.generation);
        next.key_thumbprints.clone_from(&resolved.thumbprints);
        next.conditions.clear();
        let conditions = [
            (CONDITION_READY, ready(parsed, judgement, resolved)),
            (CONDITION_IDENTITY_RESOLVED, resolved.condition()),
            (CONDITION_ADMITTED, admitted(current, judgement)),
            (CONDITION_SUSPENDED, suspended(parsed)),
        ];
        for (kind, (status, reason, message)) in conditions {
            let now = Time(self.clock.now());
            next.conditions.push(condition(&current.conditions, kind, status, reason, message, parsed.generation, now));
        }
        // What has expired goes when there is something to write anyway, or when all of it has.
        let now = self.clock.now();
        if next != *current || current.revoked_tokens.iter().all(|token| token.expires_at.0 <= now) {
            prune(&mut next, now);
        }
        next
    }

    fn resolve(&self, agent: &RegisteredAgent) -> Resolved {
        let ours = self.keys.current();
        Resolved::of(agent, &self.snapshot, |thumbprint| ours.find(thumbprint).is_some(), self.clock.seconds())
    }

    /// The record of an Agent that was registered or changed, and by whom.
    fn changed(agent: &Agent, parsed: &RegisteredAgent, judgement: &Judgement, first: bool) -> Record {
        let event = match (first, parsed.suspended) {
            (true, _) => "agent.registered",
            (false, true) => "agent.suspended",
            (false, false) => "agent.changed",
        };
        let mut record = life(event, parsed);
        if let Some(name) = &agent.spec.display_name {
            record.text("display_name", name.as_str());
        }
        record
            .text("changed_by", agent.annotations().get(CHANGED_BY).map_or("unknown", String::as_str))
            .text("owner", agent.spec.owner.as_str())
            .text("capabilities", agent.spec.capabilities.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" "));
        match judgement {
            Judgement::New(Verdict::Unproven(why)) => record.text("detail", why.as_str()).conclude(Outcome::Deny, "not_admitted"),
            _ => record.conclude(Outcome::Allow, "admitted"),
        };
        record
    }

    /// What happened in the cluster has happened: if it cannot be recorded, that is logged and counted, not undone.
    async fn write(&self, record: &Record) {
        if self.recorder.write(record).await.is_err() {
            tracing::error!(
                event = record.event(),
                request_id = record.request_id(),
                "an event in an Agent's life could not be recorded"
            );
        }
    }
}

/// Condition Ready: the first thing that stands in the way, and what to do about it.
fn ready(agent: &RegisteredAgent, judgement: &Judgement, resolved: &Resolved) -> (&'static str, &'static str, String) {
    let proven = match judgement {
        Judgement::Kept => agent.admission == Admission::Proven,
        Judgement::New(verdict) => *verdict == Verdict::Proven,
    };
    if agent.suspended {
        let message = "spec.suspended is true: no token is issued and none issued before is alive";
        return ("False", "Suspended", message.to_owned());
    }
    if !proven {
        return ("False", "NotAdmitted", "see condition Admitted".to_owned());
    }
    if let Err(invalid) = &agent.rights {
        return ("False", "InvalidSpec", format!("{invalid}; write it again as the current schema allows"));
    }
    let capabilities = agent.rights.iter().flat_map(|rights| &rights.capabilities);
    let unusable: Vec<String> = capabilities
        .filter_map(|held| Some(format!("{}: when {}", held.name, held.when.as_ref()?.problem()?)))
        .take(CONDITIONS_SHOWN)
        .collect();
    if !unusable.is_empty() {
        return ("False", "ConditionInvalid", format!("denied until it is mended: {}", unusable.join("; ")));
    }
    if let Some(finding) = resolved.obstacle() {
        return ("False", finding.reason, finding.message.clone());
    }
    match agent.rights.as_ref().map_or(0, |rights| rights.audiences.len()) {
        0 => (
            "False",
            "NoAudience",
            "spec.tokens.audiences is empty: no token can be issued for anybody; add the URL of a service".to_owned(),
        ),
        _ => ("True", "Ready", format!("{} can obtain tokens", agent.id)),
    }
}

/// Begins a record of an event in the life of an Agent.
fn life(event: &'static str, agent: &RegisteredAgent) -> Record {
    let mut record = Record::new(event, crate::token::new_id().unwrap_or_default());
    record
        .text("subject", agent.id.to_string())
        .text("agent_uid", agent.uid.as_str())
        .number("agent_generation", u64::try_from(agent.generation).unwrap_or_default());
    record
}

/// Whether the suspension of this very generation has been counted.
fn is_suspended(status: &AgentStatus, generation: i64) -> bool {
    status
        .conditions
        .iter()
        .any(|c| c.type_ == CONDITION_SUSPENDED && c.status == "True" && c.observed_generation == Some(generation))
}

fn suspended(agent: &RegisteredAgent) -> (&'static str, &'static str, String) {
    if agent.suspended {
        ("True", "Suspended", "the suspension is in force and what was issued before is dead for good".to_owned())
    } else {
        ("False", "NotSuspended", "spec.suspended is false".to_owned())
    }
}

fn admitted(current: &AgentStatus, judgement: &Judgement) -> (&'static str, &'static str, String) {
    match judgement {
        Judgement::New(Verdict::Proven) => ("True", "Admitted", ADMITTED.to_owned()),
        Judgement::New(Verdict::Unproven(why)) => (
            "False",
            "PoliciesNotInForce",
            format!(
                "nobody can tell who granted what this generation holds: {why}. Once they are in force, write the Agent again \
                (change its spec, or delete and create it), with the right to grant all its capabilities"
            ),
        ),
        Judgement::Kept => match current.conditions.iter().find(|c| c.type_ == CONDITION_ADMITTED) {
            Some(c) if c.status == "True" => ("True", "Admitted", c.message.clone()),
            Some(c) => ("False", "PoliciesNotInForce", c.message.clone()),
            None => ("Unknown", "NotJudged", "this generation has not been judged yet".to_owned()),
        },
    }
}
