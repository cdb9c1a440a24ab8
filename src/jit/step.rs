//! What becomes of a request by itself, by a person's decision, or because its agent changed.

use super::person::{Prefixes, is_workload};
use super::status::{Change, Why, change, seconds, time};
use super::{EvidenceKey, Question, Request};
use crate::agent::RegisteredAgent;
use crate::capability::{Catalogue, Rule};
use crate::crd::{Approval, Decision, JitRequestStatus, Phase, User, Verdict};
use crate::decision::{Approvable, Denial, Reason, may_request};

/// How long an approval may wait to be turned into a token, in seconds.
pub const REDEEM_SECONDS: i64 = 600;
/// Most decisions of one request, those that did not count included: the limit of the schema.
const DECISIONS_MAX: usize = 8;
/// How soon a look is worth repeating when the agent has not been judged yet, in seconds.
const LOOK_AGAIN: i64 = 1;

/// What is known about the world at this step.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The agent of the name in the request.
    pub agent: Option<&'a RegisteredAgent>,
    /// The catalogue.
    pub catalogue: &'a Catalogue,
    /// The owners of the agents through which the agent was called, or who of them does not stand any more.
    pub chain: Result<&'a [String], Denial>,
    /// What the API server puts before the names of the organisation's users and groups.
    pub name_prefixes: &'a [String],
    /// Whether the object was made by the operator, for an agent that had proved itself.
    pub by_operator: bool,
    /// Whether the object was made by a ServiceAccount of the agent.
    pub by_agent: bool,
    /// Whether the agent had as many open requests as it may before this one.
    pub over_quota: bool,
    /// Whether what is new in the object was written under the admission policies, or why that is not known. It matters for a new
    /// object and for an approval: [`Request::needs_proof`].
    pub admitted: Result<(), String>,
    /// Whether the agent has so many finished requests that this one is not kept any longer.
    pub crowded: bool,
    /// The key of the evidence.
    pub evidence: &'a EvidenceKey,
}

impl Facts<'_> {
    const fn people(&self) -> Prefixes<'_> {
        Prefixes(self.name_prefixes)
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Step {
    /// Nothing before that time, in seconds since the epoch.
    Wait(i64),
    /// Write this status over the version at hand.
    Write(Box<Change>),
    /// Remove the object: it has ended long enough ago.
    Remove,
}

impl Request {
    /// Whether the next step depends on whether the object was written under the admission policies.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        let approval = |d: &Decision| d.verdict == Verdict::Approved;
        match self.status.phase {
            None => true,
            Some(Phase::Pending) => self.status.decision.as_ref().is_some_and(approval),
            Some(_) => false,
        }
    }
}

/// The next step of `request` at `now`, in seconds since the epoch.
pub fn step(request: &Request, facts: &Facts<'_>, now: i64) -> Step {
    let write = |change: Change| Step::Write(Box::new(change));
    if request.is_finished() {
        return match request.remove_at() {
            Some(at) if now < at && !facts.crowded => Step::Wait(at),
            _ => Step::Remove,
        };
    }
    if request.deleting {
        return Step::Wait(i64::MAX);
    }
    let Some(phase) = request.status.phase else { return open(request, facts, now) };
    // A person's no counts whatever else is the case, and even if nobody can tell whether it was written under the policies.
    if let Some(decision) = denial(request)
        && phase != Phase::Issued
    {
        return write(denied(request, decision, facts, now));
    }
    let question = match authentic(request, facts.evidence) {
        Ok(question) => question,
        Err(message) => {
            return write(change(request, request.status.clone(), Phase::Revoked, Why::EvidenceMissing, message, now));
        }
    };
    let limit = match phase {
        Phase::Pending => Some(question.decide_by),
        Phase::Approved => seconds(request.status.redeem_by.as_ref()),
        _ => seconds(request.status.token_expires_at.as_ref()),
    };
    let Some(limit) = limit.filter(|limit| now < *limit) else {
        return write(change(request, request.status.clone(), Phase::Expired, Why::Expired, expired(phase), now));
    };
    let approvable = match standing(request, question, facts) {
        Ok(approvable) => approvable,
        Err(denial) if denial.reason.is_passing() => return Step::Wait(now.saturating_add(LOOK_AGAIN).min(limit)),
        Err(denial) => {
            return write(change(request, request.status.clone(), Phase::Revoked, Why::NoLongerAllowed, denial.message, now));
        }
    };
    match (phase, &request.status.decision) {
        (Phase::Pending, Some(decision)) => write(decided(request, question, decision, approvable.rule, facts, now)),
        (Phase::Approved, _) if counted(&request.status) < approvable.rule.approvals => {
            let message = "the rule of the capability was tightened after the approval";
            write(change(request, request.status.clone(), Phase::Revoked, Why::NoLongerAllowed, message, now))
        }
        _ => Step::Wait(limit),
    }
}

/// The decision that says no, if there is one.
pub(super) fn denial(request: &Request) -> Option<&Decision> {
    request.status.decision.as_ref().filter(|d| d.verdict == Verdict::Denied)
}

/// Who has approved. Each must still have the right to when the token is issued.
pub fn approvers(request: &Request) -> impl Iterator<Item = &User> {
    counting(&request.status).map(|approval| &approval.by)
}

/// The approvals that count.
fn counting(status: &JitRequestStatus) -> impl Iterator<Item = &Approval> {
    status.approvals.iter().filter(|a| a.verdict == Verdict::Approved && a.void.is_none())
}

/// How many persons have approved.
pub(super) fn counted(status: &JitRequestStatus) -> usize {
    counting(status).count()
}

/// What is asked, if the object is as the operator left it.
///
/// # Errors
/// What is wrong with it: somebody wrote what only the operator may write.
pub(super) fn authentic<'a>(request: &'a Request, evidence: &EvidenceKey) -> Result<&'a Question, String> {
    let question = request.question.as_ref().map_err(|e| format!("the request is not valid any more: {e}"))?;
    if request.status.digest.as_deref() != Some(&question.digest) {
        return Err("the digest in the status is not that of the request: somebody other than the operator wrote it".to_owned());
    }
    if !evidence.confirms(&request.uid, &request.status) {
        return Err(
            "the status lacks the evidence that the operator wrote it: somebody else did, or the cluster was restored since"
                .to_owned(),
        );
    }
    if !is_phase_of(&request.status) {
        return Err("the phase is not that of what the operator recorded: somebody else wrote it".to_owned());
    }
    Ok(question)
}

/// Whether the phase of an open request is the one that goes with what is attested, of which it is no part: whoever approves fixes until
/// when, whoever issues fixes the token.
const fn is_phase_of(status: &JitRequestStatus) -> bool {
    let (approved, issued) = (status.redeem_by.is_some(), status.jti.is_some() && status.token_expires_at.is_some());
    match status.phase {
        Some(Phase::Pending) => !approved && !issued,
        Some(Phase::Approved) => approved && !issued,
        Some(Phase::Issued) => approved && issued,
        _ => true,
    }
}

/// Whether the agent still stands where it stood and may still ask this.
fn standing<'a>(request: &Request, question: &Question, facts: &'a Facts<'_>) -> Result<Approvable<'a>, Denial> {
    let agent = facts.agent.ok_or_else(|| Denial::new(Reason::AgentUnknown, format!("{} is not registered", question.agent)))?;
    facts.chain.clone()?;
    let meant = request.status.agent_uid.as_deref().or(request.spec.agent.uid.as_deref());
    if meant.is_some_and(|uid| uid != agent.uid) {
        let message = format!("{} was deleted and registered anew: it is another agent", agent.id);
        return Err(Denial::new(Reason::Revoked, message));
    }
    if request.status.agent_epoch.is_some_and(|epoch| epoch != agent.epoch) {
        return Err(Denial::new(Reason::Revoked, format!("the tokens of {} are revoked", agent.id)));
    }
    may_request(agent, &question.chain_of(request, agent)?, facts.catalogue, &question.operation)
}

const fn expired(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "nobody decided in time",
        Phase::Approved => "the approval was not used in time",
        _ => "the token ended before the operation was reported as done",
    }
}

/// The first step: the request is taken in, or refused at once.
fn open(request: &Request, facts: &Facts<'_>, now: i64) -> Step {
    let mut status = JitRequestStatus { approvals: Vec::new(), decision: None, ..request.status.clone() };
    let refuse =
        |status, reason, message: String| Step::Write(Box::new(change(request, status, Phase::Denied, reason, message, now)));
    if let Err(why) = &facts.admitted {
        return refuse(status, Why::NotAdmitted, format!("nobody can tell who made this request: {why}; file it again"));
    }
    if !facts.by_operator && !facts.by_agent {
        let message = format!(
            "a request must be made by a ServiceAccount of Agent {}, or by the agent through the token service",
            request.spec.agent.name
        );
        return refuse(status, Why::RequesterNotAgent, message);
    }
    if request.spec.on_behalf_of.is_some() && !facts.by_operator {
        return refuse(status, Why::RequesterNotAgent, "only the operator may set onBehalfOf".to_owned());
    }
    let question = match &request.question {
        Ok(question) => question,
        Err(invalid) => return refuse(status, Why::InvalidRequest, invalid.to_string()),
    };
    let approvable = match standing(request, question, facts) {
        Ok(approvable) => approvable,
        Err(denial) if denial.reason.is_passing() => return Step::Wait(now.saturating_add(LOOK_AGAIN)),
        Err(denial) => return refuse(status, Why::NotAllowed, denial.message),
    };
    if facts.over_quota {
        let message = "the agent has as many open requests as it may: wait until some are decided".to_owned();
        return refuse(status, Why::TooManyRequests, message);
    }
    status.digest = Some(question.digest.clone());
    status.agent_uid = facts.agent.map(|agent| agent.uid.clone());
    if now >= question.decide_by {
        return Step::Write(Box::new(change(request, status, Phase::Expired, Why::Expired, expired(Phase::Pending), now)));
    }
    let needed = approvable.rule.approvals;
    let message = format!("{} asks for {}", question.agent, question.operation.headline());
    Step::Write(Box::new(pending(request, status, question, needed, facts, Why::Requested, message, now)))
}

/// A status that waits for a decision.
#[expect(clippy::too_many_arguments, reason = "the parts of one status, named at both places where it is made")]
fn pending(
    request: &Request,
    mut status: JitRequestStatus,
    question: &Question,
    needed: usize,
    facts: &Facts<'_>,
    reason: Why,
    message: String,
    now: i64,
) -> Change {
    status.approval_progress = Some(format!("{}/{needed}", counted(&status)));
    status.expires_at = Some(time(question.decide_by));
    status.evidence = facts.evidence.attest(&request.uid, &status);
    change(request, status, Phase::Pending, reason, message, now)
}

/// What is said of a denial.
pub(super) fn denied_by(by: &User) -> String {
    format!("the request was denied by {}", by.username)
}

/// A person said no.
fn denied(request: &Request, decision: &Decision, facts: &Facts<'_>, now: i64) -> Change {
    let by = decision.by.clone().unwrap_or_default();
    let message = denied_by(&by);
    let mut status = request.status.clone();
    if status.approvals.len() < DECISIONS_MAX {
        status.decision = None;
        status.approvals.push(recorded(decision, by, None, now));
    }
    status.evidence = facts.evidence.attest(&request.uid, &status);
    change(request, status, Phase::Denied, Why::Denied, message, now)
}

/// A person said yes.
fn decided(request: &Request, question: &Question, decision: &Decision, rule: &Rule, facts: &Facts<'_>, now: i64) -> Change {
    let mut status = JitRequestStatus { decision: None, ..request.status.clone() };
    if status.approvals.len() >= DECISIONS_MAX {
        let message = "there were too many decisions that do not count";
        return change(request, request.status.clone(), Phase::Denied, Why::TooManyDecisions, message, now);
    }
    let by = decision.by.clone().unwrap_or_default();
    let void = objection(request, decision, &by, rule, facts);
    status.approvals.push(recorded(decision, by.clone(), void.clone(), now));
    if let Some(why) = void {
        let message = format!("the approval by {} does not count: {why}", by.username);
        let change = pending(request, status, question, rule.approvals, facts, Why::DecisionVoid, message, now);
        return Change { warning: true, ..change };
    }
    let (given, needed) = (counted(&status), rule.approvals);
    if given < needed {
        let message = format!("approved by {}; {} more must approve", by.username, needed - given);
        return pending(request, status, question, needed, facts, Why::ApprovedByOne, message, now);
    }
    let redeem_by = time(now.saturating_add(REDEEM_SECONDS));
    status.approval_progress = Some(format!("{given}/{needed}"));
    status.expires_at = Some(redeem_by.clone());
    status.redeem_by = Some(redeem_by);
    status.evidence = facts.evidence.attest(&request.uid, &status);
    change(request, status, Phase::Approved, Why::Approved, format!("the request was approved by {}", by.username), now)
}

fn recorded(decision: &Decision, by: User, void: Option<String>, now: i64) -> Approval {
    Approval { by, verdict: decision.verdict, comment: decision.comment.clone(), at: time(now), void }
}

/// Why an approval does not count, if it does not. Admission has refused what it can see; here is the rest, and that again.
fn objection(request: &Request, decision: &Decision, by: &User, rule: &Rule, facts: &Facts<'_>) -> Option<String> {
    if let Err(why) = &facts.admitted {
        return Some(format!("nobody can tell who wrote it: {why}; decide again once they are in force"));
    }
    if by.username.is_empty() {
        return Some("it does not say whose it is".to_owned());
    }
    if decision.digest.is_some() && decision.digest != request.status.digest {
        return Some("it is for another digest".to_owned());
    }
    if is_workload(by) {
        return Some("ServiceAccounts and nodes never approve".to_owned());
    }
    if request.requester().is_some_and(|requester| facts.people().same_user(requester, by)) {
        return Some("nobody approves a request of their own".to_owned());
    }
    let owners = facts
        .agent
        .iter()
        .map(|agent| agent.owner.as_str())
        .chain(facts.chain.as_ref().copied().unwrap_or_default().iter().map(String::as_str));
    if let Some(owner) = owners.into_iter().find(|owner| facts.people().is_or_belongs_to(by, owner)) {
        return Some(format!("{owner} owns an agent that asks"));
    }
    let subject = request.spec.on_behalf_of.as_ref().and_then(|behalf| behalf.user.as_deref());
    if !rule.subject_may_approve && subject.is_some_and(|subject| facts.people().same_name(&by.username, subject)) {
        return Some("the agent acts on behalf of this very user".to_owned());
    }
    approvers(request).any(|earlier| facts.people().same_user(earlier, by)).then(|| "this person has approved already".to_owned())
}
