//! What an agent's own calls make of a request: turning an approval into the one token, reporting the operation as done,
//! withdrawing.

use super::status::{Change, Why, change, seconds, time};
use super::step::{authentic, counted, denial};
use super::{EvidenceKey, Question, Request};
use crate::agent::RegisteredAgent;
use crate::crd::{JitRequestStatus, Phase};
use crate::decision::{Approval, Denial, OperationGrant, Reason, Redemption, View, chain_stands, may_request, proved};
use crate::dpop::Confirmation;
use crate::token::Signers;

/// For how long after it was issued the same agent can have the same token again, in seconds: a crash or a lost reply burns no
/// approval.
pub const REDELIVER_SECONDS: i64 = 10;

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nobody has decided yet.
    Pending,
    /// A person, or a rule, said no; or it was withdrawn, or taken back.
    Denied,
    /// It ran out.
    Expired,
    /// There was one, and it was handed out, or the request is not one that could have any.
    Spent,
}

/// What a poll finds.
#[derive(Debug, Clone)]
pub enum Claim<'a> {
    /// An approval that waits.
    Redeemable(Redeemable<'a>),
    /// A token that was issued a moment ago.
    Again(Box<Redemption>),
}

/// An approval that waits to be turned into a token, found intact. Only [`claim`] makes one.
#[derive(Debug, Clone)]
pub struct Redeemable<'a> {
    request: &'a Request,
    question: &'a Question,
    agent_uid: &'a str,
}

/// What there is for the agent of `request` at `now`, in seconds since the epoch.
///
/// # Errors
/// Why there is nothing.
pub fn claim<'a>(request: &'a Request, evidence: &EvidenceKey, now: i64) -> Result<Claim<'a>, Refused> {
    if request.deleting {
        return Err(Refused::Denied);
    }
    match request.status.phase {
        None => Err(Refused::Pending),
        Some(Phase::Pending) => match (&request.question, denial(request)) {
            (_, Some(_)) => Err(Refused::Denied),
            // The controller is about to say so.
            (Ok(question), None) if now >= question.decide_by => Err(Refused::Expired),
            _ => Err(Refused::Pending),
        },
        Some(Phase::Denied | Phase::Cancelled | Phase::Revoked) => Err(Refused::Denied),
        Some(Phase::Expired) if request.status.jti.is_none() => Err(Refused::Expired),
        Some(Phase::Expired | Phase::Completed) => Err(Refused::Spent),
        Some(Phase::Approved) => {
            // Deny wins, also while the controller has not seen it.
            if denial(request).is_some() {
                return Err(Refused::Denied);
            }
            if seconds(request.status.redeem_by.as_ref()).is_none_or(|limit| now >= limit) {
                return Err(Refused::Expired);
            }
            let question = authentic(request, evidence).map_err(|_| Refused::Spent)?;
            let agent_uid = request.status.agent_uid.as_deref().ok_or(Refused::Spent)?;
            if counted(&request.status) == 0 || request.status.jti.is_some() {
                return Err(Refused::Spent);
            }
            Ok(Claim::Redeemable(Redeemable { request, question, agent_uid }))
        }
        Some(Phase::Issued) => redelivery(request, evidence, now).map(Box::new).map(Claim::Again).ok_or(Refused::Spent),
    }
}

/// The token that was issued, if that was a moment ago.
#[must_use]
pub fn redelivery(request: &Request, evidence: &EvidenceKey, now: i64) -> Option<Redemption> {
    let status = &request.status;
    let issued_at = seconds(status.issued_at.as_ref())?;
    if status.phase != Some(Phase::Issued) || now < issued_at - REDELIVER_SECONDS || now > issued_at + REDELIVER_SECONDS {
        return None;
    }
    issued(request, authentic(request, evidence).ok()?, status)
}

/// Everything about a token that its status fixes.
fn issued(request: &Request, question: &Question, status: &JitRequestStatus) -> Option<Redemption> {
    Some(Redemption {
        grant: OperationGrant {
            operation: question.operation.clone(),
            approval: Some(Approval { digest: question.digest.clone(), request_uid: request.uid.clone() }),
        },
        chain: question.chain(&request.uid, status.agent_uid.as_deref()?, status.agent_epoch?)?,
        issued_at: u64::try_from(seconds(status.issued_at.as_ref())?).ok()?,
        expires_at: u64::try_from(seconds(status.token_expires_at.as_ref())?).ok()?,
        key_id: status.key_id.clone()?,
        confirmation: status.bound_to.clone().map(|jkt| Confirmation { jkt }),
    })
}

impl Redeemable<'_> {
    /// What was asked.
    #[must_use]
    pub const fn question(&self) -> &Question {
        self.question
    }

    /// The registration of the agent for which it was approved.
    #[must_use]
    pub const fn agent_uid(&self) -> &str {
        self.agent_uid
    }
}

/// The one token into which an approval is being turned.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its identifier, which was never used.
    pub jti: String,
    /// The keys of which one will sign it.
    pub signers: Signers,
    /// When the credential of the agent ends, in seconds since the epoch: the token ends no later.
    pub credential_expires_at: u64,
    /// Which key the agent has shown to have, to which the token will be bound.
    pub confirmation: Option<Confirmation>,
}

/// Turns an approval into a token at `now`. Everything about the agent and the rule is asked again. Until the status is written over
/// the very version it was made from, there is no token.
///
/// # Errors
/// The rule that says no by now.
pub fn redeem(
    approval: &Redeemable<'_>,
    agent: &RegisteredAgent,
    view: &View<'_>,
    evidence: &EvidenceKey,
    token: NewToken,
    now: i64,
) -> Result<(Change, Redemption), Denial> {
    let request = approval.request;
    if agent.uid != approval.agent_uid {
        return Err(Denial::new(Reason::Revoked, format!("{} was registered anew after the approval", agent.id)));
    }
    let chain = approval.question.chain_of(request, agent)?;
    let approvable = may_request(agent, &chain, view.catalogue, &approval.question.operation)?;
    chain_stands(&chain, None, view, u64::try_from(now).unwrap_or(0))?;
    proved(agent, token.confirmation.is_some())?;
    if counted(&request.status) < approvable.rule.approvals {
        let message = "the rule of the capability was tightened after the approval";
        return Err(Denial::new(Reason::ApprovalRequired, message));
    }
    let life = request.spec.expiration_seconds.min(approvable.max_expiration_seconds);
    let credential_expires_at = i64::try_from(token.credential_expires_at).unwrap_or(i64::MAX);
    let expires_at = now.saturating_add(life.into()).min(credential_expires_at);
    let mut status = JitRequestStatus {
        jti: Some(token.jti),
        issued_at: Some(time(now)),
        token_expires_at: Some(time(expires_at)),
        expires_at: Some(time(expires_at)),
        key_id: Some(token.signers.of(approvable.signing_algorithm).to_owned()),
        agent_epoch: Some(agent.epoch),
        bound_to: token.confirmation.map(|confirmation| confirmation.jkt),
        ..request.status.clone()
    };
    status.evidence = evidence.attest(&request.uid, &status);
    let change = change(request, status, Phase::Issued, Why::Issued, "the token was issued", now);
    let redemption = issued(request, approval.question, &change.status);
    let spent = || Denial::new(Reason::CredentialSpent, "nothing is left of the credential's life");
    redemption.filter(|r| r.expires_at > r.issued_at).map(|r| (change, r)).ok_or_else(spent)
}

/// The operation for which the token `jti` was issued is done.
///
/// # Errors
/// The phase in which the request is instead.
pub fn complete(request: &Request, jti: &str, now: i64) -> Result<Change, Option<Phase>> {
    if request.deleting || request.status.phase != Some(Phase::Issued) || request.status.jti.as_deref() != Some(jti) {
        return Err(request.status.phase);
    }
    let status = JitRequestStatus { completed_at: Some(time(now)), ..request.status.clone() };
    Ok(change(request, status, Phase::Completed, Why::Completed, "the operation was reported as done", now))
}

/// The agent withdraws what it asked.
///
/// # Errors
/// The phase in which the request is, if it cannot be withdrawn any more.
pub fn cancel(request: &Request, now: i64) -> Result<Change, Option<Phase>> {
    match request.status.phase {
        Some(Phase::Pending | Phase::Approved) if denial(request).is_none() => {
            Ok(change(request, request.status.clone(), Phase::Cancelled, Why::Cancelled, "the agent withdrew the request", now))
        }
        phase => Err(phase),
    }
}
