//! Does it still stand? What was given to an agent lives only while everybody in its chain stands where they stood.

use super::attempt::{Attempt, Usage, usable_at_once};
use super::operation::covered;
use super::{Denial, Reason, View, audience, callable, holding, proved};
use crate::agent::{Admission, Granted, Holding, RegisteredAgent, Rights};
use crate::chain::{Chain, IssuerRef, Link, Principal, Proof, subject_digest};
use crate::grammar::AgentId;
use crate::operation::Operation;

/// What a token that was issued earlier says about itself.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'a> {
    /// Its identifier.
    pub jti: &'a str,
    /// On whose behalf and through whom.
    pub chain: &'a Chain,
    /// What it allows.
    pub grants: Grants<'a>,
    /// Its audience.
    pub audience: &'a str,
    /// Whether it is bound to a key.
    pub is_bound: bool,
}

/// What a token allows.
#[derive(Debug, Clone, Copy)]
pub enum Grants<'a> {
    /// Its scope values, each with the resources to which the token limits it.
    Capabilities(&'a [Granted]),
    /// One operation, and nothing else.
    Operation(&'a Operation),
    /// One operation that a person has approved.
    Approved(&'a Operation),
}

/// Whether what was issued still stands at `now`, in seconds since the epoch: everybody in its chain, nothing of it revoked, and nothing
/// in it that one of the agents does not hold any more. Whether the request of an operation is alive is another question.
///
/// # Errors
/// The rule that ended it.
pub fn stands(issued: &Issued<'_>, view: &View<'_>, now: u64) -> Result<(), Denial> {
    chain_stands(issued.chain, Some(issued.jti), view, now)?;
    let agents = || issued.chain.links().iter().filter_map(|link| view.agents.look_up(&link.agent));
    let Some(acting) = agents().next_back() else { return Err(unknown(&issued.chain.subject())) };
    proved(acting, issued.is_bound)?;
    let usage = |attempt| Usage { acting, chain: issued.chain, attempt };
    match issued.grants {
        Grants::Approved(operation) => return covered(acting, issued.chain, view.catalogue, operation).map(drop),
        Grants::Operation(operation) => {
            let attempt = Attempt::of(operation);
            for agent in agents() {
                let held = holding(agent, &rights(agent)?.capabilities, &operation.capability)?;
                usable_at_once(agent, held, usage(Some(&attempt)), view.catalogue)?;
            }
        }
        Grants::Capabilities(capabilities) => {
            for agent in agents() {
                holds(agent, capabilities, usage(None), view)?;
            }
        }
    }
    let rights = rights(acting)?;
    match AgentId::parse(issued.audience) {
        Ok(callee) => callable(&callee, acting, view).map(drop),
        Err(_) => audience(acting, &rights.audiences, Some(issued.audience)).map(drop),
    }
}

/// Whether everybody in a chain stands where they stood, lets themselves be called by who called them, and neither the chain nor a token
/// of it, nor `jti`, is revoked.
///
/// # Errors
/// The rule that ended it.
pub fn chain_stands(chain: &Chain, jti: Option<&str>, view: &View<'_>, now: u64) -> Result<(), Denial> {
    let mut caller: Option<&RegisteredAgent> = None;
    for link in chain.links() {
        let agent = view.agents.look_up(&link.agent).ok_or_else(|| unknown(&link.agent.to_string()))?;
        same_registration(agent, &link.uid, link.epoch)?;
        not_revoked(agent, chain, jti)?;
        proof_stands(agent, link, view, now)?;
        let rights = rights(agent)?;
        match (caller, chain.user()) {
            (Some(caller), _) if !rights.delegation.callers.contains(&caller.id) => {
                let message = format!("{} does not let {} call it any more", agent.id, caller.id);
                return Err(Denial::new(Reason::CallerNotAllowed, message));
            }
            (None, Some(user)) => {
                user_stands(user, view)?;
                if !rights.delegation.may_still_act_for(&user.issuer.name, &user.name) {
                    let message = format!("{} may not act for the user any more", agent.id);
                    return Err(Denial::new(Reason::DelegationNotGranted, message));
                }
            }
            _ => {}
        }
        caller = Some(agent);
    }
    pod_lives(chain, view)?;
    match chain.depth() <= depth_limit(chain, view) {
        true => Ok(()),
        false => Err(Denial::new(Reason::ChainTooDeep, "an agent of the chain allows fewer agents in it by now")),
    }
}

/// How many agents may stand in the chain: what the strictest of those in it allows.
pub(super) fn depth_limit(chain: &Chain, view: &View<'_>) -> usize {
    let limit = |link: &Link| {
        let rights = view.agents.look_up(&link.agent).and_then(|agent| agent.rights.as_ref().ok());
        rights.map_or(0, |rights| rights.delegation.max_depth)
    };
    chain.links().iter().map(limit).min().unwrap_or(0)
}

/// What the agent may do, or that its spec cannot be read.
pub(super) fn rights(agent: &RegisteredAgent) -> Result<&Rights, Denial> {
    agent.rights.as_ref().map_err(|invalid| Denial::new(Reason::AgentInvalid, invalid.to_string()))
}

/// Whether the agent may act at all. Everything unknown is a no.
///
/// # Errors
/// The rule that keeps it from acting.
pub fn standing(agent: &RegisteredAgent) -> Result<(), Denial> {
    let id = &agent.id;
    if agent.deleting {
        return Err(Denial::new(Reason::AgentDeleted, format!("{id} is being deleted")));
    }
    if agent.suspended {
        return Err(Denial::new(Reason::AgentSuspended, format!("{id} is suspended")));
    }
    match agent.admission {
        Admission::Proven => Ok(()),
        Admission::Unproven => Err(Denial::new(
            Reason::AgentNotAdmitted,
            format!("{id} was written while the admission policies were not in force: it must be written again"),
        )),
        Admission::Pending => {
            Err(Denial::new(Reason::AgentPending, format!("generation {} of {id} has not been checked yet", agent.generation)))
        }
    }
}

/// Whether the agent is the one to which something was issued, was not stopped since, and may act.
pub(super) fn same_registration(agent: &RegisteredAgent, agent_uid: &str, epoch: i64) -> Result<(), Denial> {
    if agent.uid != agent_uid {
        return Err(Denial::new(Reason::Revoked, format!("{} was deleted and registered anew", agent.id)));
    }
    if agent.epoch != epoch {
        return Err(Denial::new(Reason::Revoked, format!("the tokens of {} up to epoch {epoch} are revoked", agent.id)));
    }
    // A generation that has not been checked yet ends nothing that an earlier one was given.
    if agent.admission != Admission::Pending || agent.suspended || agent.deleting {
        standing(agent)?;
    }
    Ok(())
}

/// Whether neither the chain, nor one of its tokens, nor `jti` was revoked at this agent.
fn not_revoked(agent: &RegisteredAgent, chain: &Chain, jti: Option<&str>) -> Result<(), Denial> {
    if agent.revoked.is_empty() {
        return Ok(());
    }
    let mut ids = chain.ancestors().iter().map(String::as_str).chain(jti).chain([chain.txn()]);
    match ids.any(|id| agent.revoked.contains_key(id)) {
        true => {
            Err(Denial::new(Reason::Revoked, format!("the token, or one from which it descends, was revoked at {}", agent.id)))
        }
        false => Ok(()),
    }
}

/// Whether that with which the agent proved itself still counts for it.
fn proof_stands(agent: &RegisteredAgent, link: &Link, view: &View<'_>, now: u64) -> Result<(), Denial> {
    let is_own = |holding| view.agents.owner_of(&holding).is_some_and(|owner| owner.uid == agent.uid);
    let (good, what) = match &link.proof {
        Proof::Unsaid => return Ok(()),
        Proof::ServiceAccount { name, .. } => {
            (is_own(Holding::service_account(agent.id.namespace(), name)), format!("ServiceAccount {name}"))
        }
        Proof::Key(thumbprint) => {
            let listed = agent.credentials.keys_at(now).any(|(_, key)| key.thumbprint() == thumbprint);
            (listed && is_own(Holding::Key(thumbprint.clone())), format!("key {thumbprint}"))
        }
        Proof::Issuer(issuer, digest) => {
            let of_issuer = agent.credentials.federated.iter().filter(|identity| identity.issuer == issuer.name);
            let listed = of_issuer.into_iter().any(|identity| subject_digest(&identity.subject) == *digest);
            (listed && still_counts(issuer, view), format!("the word of TrustedIssuer {}", issuer.name))
        }
    };
    match good {
        true => Ok(()),
        false => Err(Denial::new(
            Reason::ProofEnded,
            format!("{what}, by which {} proved itself, does not count for it any more", agent.id),
        )),
    }
}

/// Whether the pod that acts is there: what it was given ends with it. Those that called it may be gone: what they asked for is still to
/// be done.
fn pod_lives(chain: &Chain, view: &View<'_>) -> Result<(), Denial> {
    match chain.acting().and_then(Link::pod) {
        Some(pod) if view.pods.has(&pod) == Some(false) => Err(Denial::new(
            Reason::ProofEnded,
            format!("the pod to which the token was given, UID {pod}, is gone or being deleted"),
        )),
        _ => Ok(()),
    }
}

/// Whether the user's tokens count.
pub(super) fn user_stands(user: &Principal, view: &View<'_>) -> Result<(), Denial> {
    let issuer = view.issuers.look_up(&user.issuer.name).filter(|_| still_counts(&user.issuer, view));
    let Some(issuer) = issuer else {
        let message = format!("TrustedIssuer {}, which vouched for the user, is not trusted any more", user.issuer.name);
        return Err(Denial::new(Reason::UserRevoked, message));
    };
    match issuer.revoked_users.epoch(&user.name) == user.epoch {
        true => Ok(()),
        false => Err(Denial::new(Reason::UserRevoked, "the tokens of the user were revoked")),
    }
}

fn still_counts(issuer: &IssuerRef, view: &View<'_>) -> bool {
    view.issuers.look_up(&issuer.name).is_some_and(|known| known.still_counts(&issuer.uid))
}

/// Whether the agent holds all of `capabilities`, and may use them without asking anybody.
fn holds(agent: &RegisteredAgent, capabilities: &[Granted], usage: Usage<'_>, view: &View<'_>) -> Result<(), Denial> {
    let rights = rights(agent)?;
    for issued in capabilities {
        let held = holding(agent, &rights.capabilities, &issued.name)?;
        if !held.covers(issued) {
            let message = format!("{} holds {} for fewer resources by now", agent.id, issued.name);
            return Err(Denial::new(Reason::CapabilityNotGranted, message));
        }
        usable_at_once(agent, held, usage, view.catalogue)?;
    }
    Ok(())
}

pub(super) fn unknown(agent: &str) -> Denial {
    Denial::new(Reason::AgentUnknown, format!("{agent} is not registered any more"))
}
