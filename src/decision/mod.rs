//! May it? The one place that says yes, for every grant type.
//!
//! Pure: an agent as registered, on whose behalf it comes, what is asked, and the time, in; a [`Permit`] or a [`Denial`] out. A `Permit`
//! cannot be made anywhere else, and [`crate::token::mint`] takes nothing else, so that a token without a decision does not compile.

mod attempt;
mod evaluation;
mod operation;
mod possession;
mod reason;
mod standing;
mod subject;
mod terms;

pub use attempt::Attempt;
pub(crate) use attempt::approval_rule;
pub use evaluation::{Claimed, Query, Step, evaluate, explain, is_that, requestable};
pub use operation::{Approvable, Approval, OperationGrant, Redemption, may_request, permit_operation};
pub(crate) use possession::proved;
pub use reason::{Denial, Reason};
pub use standing::{Grants, Issued, chain_stands, standing, stands};
pub use subject::{Parent, Subject};

use crate::agent::{Admission, AllowedAudience, Delegation, Granted, RegisteredAgent};
use crate::capability::Catalogue;
use crate::chain::{Chain, MayAct, Proof};
use crate::crd::SigningAlgorithm;
use crate::dpop::Confirmation;
use crate::grammar::{AgentId, Audience, CapabilityName};
use crate::operation::Operation;
use crate::snapshot::{AgentIndex, IssuerIndex, LiveSet};
use standing::rights;
use uuid::Uuid;

/// What the cluster says now, as far as decisions depend on it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The agents.
    pub agents: &'a AgentIndex,
    /// The trusted issuers.
    pub issuers: &'a IssuerIndex,
    /// The catalogue.
    pub catalogue: &'a Catalogue,
    /// The live pods.
    pub pods: &'a LiveSet<Uuid>,
}

/// Who asks, on whose behalf, and for what.
#[derive(Debug)]
pub struct Case<'a> {
    /// Who asks, as it is registered now.
    pub agent: &'a RegisteredAgent,
    /// How it proved that.
    pub proof: Proof,
    /// When the credential with which it did ends, in seconds since the epoch.
    pub credential_expires_at: u64,
    /// Which key it has shown to have, to which the token will be bound.
    pub confirmation: Option<Confirmation>,
    /// On whose behalf.
    pub subject: &'a Subject,
    /// What for.
    pub ask: &'a Ask,
    /// Identifies the chain, if one begins. It was never used before.
    pub txn: String,
    /// Our issuer URL.
    pub issuer: &'a str,
}

/// What a caller asks for. `None` is "not said", never "everything there is".
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The capabilities; not said: every standing capability of the agent.
    pub capabilities: Option<Vec<CapabilityName>>,
    /// The audience; not said: the agent's only one.
    pub audience: Option<String>,
    /// The one operation for which the token is to be good; not said: whatever its capabilities allow.
    pub operation: Option<Attempt>,
}

/// The answer.
#[derive(Debug)]
#[must_use]
pub enum Decision {
    /// Yes, this much.
    Allow(Box<Permit>),
    /// No, and why.
    Deny(Denial),
}

/// A decision to issue one token. Only [`decide`] and [`permit_operation`] make one.
#[derive(Debug)]
pub struct Permit {
    chain: Chain,
    capabilities: Vec<Granted>,
    audience: Audience,
    /// The agent that alone may exchange the token, if it is for one.
    may_act: Option<MayAct>,
    sign_with: SignWith,
    issued_at: u64,
    expires_at: u64,
    confirmation: Option<Confirmation>,
    /// The one operation for which the token is good; `None` is anything within the capabilities.
    operation: Option<Box<OperationGrant>>,
}

/// With which key a token is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignWith {
    /// With the key of this algorithm that signs when the token is issued.
    Algorithm(SigningAlgorithm),
    /// With the key of this name, whatever else there is by now: it was fixed when an approval was turned into the token.
    Key(String),
}

impl From<Result<Permit, Denial>> for Decision {
    fn from(result: Result<Permit, Denial>) -> Self {
        match result {
            Ok(permit) => Self::Allow(Box::new(permit)),
            Err(denial) => Self::Deny(denial),
        }
    }
}

/// Decides whether the agent gets what it asks for at `now`, in seconds since the epoch.
pub fn decide(case: &Case<'_>, view: &View<'_>, now: u64) -> Decision {
    permit(case, view, now).into()
}

fn permit(case: &Case<'_>, view: &View<'_>, now: u64) -> Result<Permit, Denial> {
    let agent = case.agent;
    standing(agent)?;
    let rights = rights(agent)?;
    possession::proved(agent, case.confirmation.is_some())?;
    let chain = subject::chain(case, view, now)?;
    let capabilities = terms::capabilities(case, &chain, view)?;
    let target = target(agent, &rights.audiences, case.ask.audience.as_deref(), &chain, view)?;
    if case.ask.operation.is_some() && target.agent.is_some() {
        let message =
            "a token for one operation is for the service that does it: to call an agent, ask for capabilities with scope";
        return Err(Denial::new(Reason::AudienceNotAllowed, message));
    }
    let expires_at =
        now.saturating_add(rights.expiration_seconds.into()).min(case.credential_expires_at).min(case.subject.expires_at());
    if expires_at <= now {
        return Err(Denial::new(Reason::CredentialSpent, "the credential has expired"));
    }
    let operation = case.ask.operation.as_ref().map(|attempt| OperationGrant {
        operation: Operation {
            capability: attempt.capability.clone(),
            resource: attempt.resource.clone(),
            parameters: attempt.parameters.clone(),
            audience: target.audience.clone(),
        },
        approval: None,
    });
    let may_act = target.agent.map(|agent| MayAct { iss: Some(case.issuer.to_owned()), sub: agent.to_string() });
    Ok(Permit {
        chain,
        capabilities,
        audience: target.audience,
        may_act,
        sign_with: SignWith::Algorithm(target.signing_algorithm),
        issued_at: now,
        expires_at,
        confirmation: case.confirmation.clone(),
        operation: operation.map(Box::new),
    })
}

/// Whom a token will be for.
struct Target {
    audience: Audience,
    signing_algorithm: SigningAlgorithm,
    /// The agent, if it is one.
    agent: Option<AgentId>,
}

/// Whom the token will be for: one of the agent's audiences, or an agent that lets this one call it.
fn target(
    agent: &RegisteredAgent,
    allowed: &[AllowedAudience],
    asked: Option<&str>,
    chain: &Chain,
    view: &View<'_>,
) -> Result<Target, Denial> {
    if let Some(callee) = asked.and_then(|asked| AgentId::parse(asked).ok()) {
        extends(chain, &callee, agent, view)?;
        let audience = Audience::of_agent(&callee);
        return Ok(Target { audience, signing_algorithm: SigningAlgorithm::default(), agent: Some(callee) });
    }
    let found = audience(agent, allowed, asked)?;
    Ok(Target { audience: found.name.clone(), signing_algorithm: found.signing_algorithm, agent: None })
}

/// Whether `caller`, the last of `chain`, may call `callee`.
fn extends(chain: &Chain, callee: &AgentId, caller: &RegisteredAgent, view: &View<'_>) -> Result<(), Denial> {
    if chain.contains(callee) {
        let message = format!("{callee} stands in the chain already: agents do not call one another in a circle");
        return Err(Denial::new(Reason::ChainCycle, message));
    }
    let called = callable(callee, caller, view)?;
    let limit = standing::depth_limit(chain, view).min(called.max_depth);
    if chain.depth() >= limit {
        let message =
            format!("with {callee} there would be {} agents in the chain, and one of them allows {limit}", chain.depth() + 1);
        return Err(Denial::new(Reason::ChainTooDeep, message));
    }
    Ok(())
}

/// Whether an agent is not stopped. One whose generation has not been checked yet may be called; what it may do is decided when it acts.
const fn may_be_called(agent: &RegisteredAgent) -> bool {
    !agent.deleting && !agent.suspended && !matches!(agent.admission, Admission::Unproven)
}

/// The delegation of `callee`, if `caller` may call it.
fn callable<'a>(callee: &AgentId, caller: &RegisteredAgent, view: &'a View<'_>) -> Result<&'a Delegation, Denial> {
    let delegation = view
        .agents
        .look_up(callee)
        .filter(|callee| may_be_called(callee))
        .and_then(|callee| callee.rights.as_ref().ok().map(|rights| &rights.delegation));
    // One answer for an agent that there is not and one that does not let itself be called.
    delegation.filter(|delegation| delegation.callers.contains(&caller.id)).ok_or_else(|| {
        let message =
            format!("{callee} is not an agent that lets {} call it: its spec.delegation.callers must name it", caller.id);
        Denial::new(Reason::AudienceNotAllowed, message)
    })
}

/// The capability of that name among those that the agent holds.
fn holding<'a>(agent: &RegisteredAgent, held: &'a [Granted], name: &CapabilityName) -> Result<&'a Granted, Denial> {
    held.iter()
        .find(|c| c.name == *name)
        .ok_or_else(|| Denial::new(Reason::CapabilityNotGranted, format!("capability {name} is not granted to {}", agent.id)))
}

fn audience<'a>(
    agent: &RegisteredAgent,
    allowed: &'a [AllowedAudience],
    asked: Option<&str>,
) -> Result<&'a AllowedAudience, Denial> {
    match (asked, allowed) {
        (Some(asked), _) => allowed
            .iter()
            .find(|a| a.name.as_str() == asked)
            .ok_or_else(|| Denial::new(Reason::AudienceNotAllowed, format!("the audience asked for is not one of {}", agent.id))),
        (None, [only]) => Ok(only),
        (None, []) => {
            Err(Denial::new(Reason::AudienceAmbiguous, format!("{} has no audience in spec.tokens.audiences", agent.id)))
        }
        (None, several) => Err(Denial::new(
            Reason::AudienceAmbiguous,
            format!("{} has {} audiences: name the one that the token is for", agent.id, several.len()),
        )),
    }
}

impl Permit {
    /// On whose behalf and through whom; the agent that acts is the last.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Who alone may exchange the token.
    #[must_use]
    pub const fn may_act(&self) -> Option<&MayAct> {
        self.may_act.as_ref()
    }

    /// What is granted.
    #[must_use]
    pub fn capabilities(&self) -> &[Granted] {
        &self.capabilities
    }

    /// Whom the token is for.
    #[must_use]
    pub const fn audience(&self) -> &Audience {
        &self.audience
    }

    /// With which key it is signed.
    #[must_use]
    pub const fn sign_with(&self) -> &SignWith {
        &self.sign_with
    }

    /// When, in seconds since the epoch.
    #[must_use]
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Until when, in seconds since the epoch.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// To which key the token is bound, if it is.
    #[must_use]
    pub const fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation.as_ref()
    }

    /// The one operation for which the token is good, if it is for one.
    #[must_use]
    pub fn operation(&self) -> Option<&OperationGrant> {
        self.operation.as_deref()
    }

    /// The scope as in a token (RFC 6749 section 3.3).
    #[must_use]
    pub fn scope(&self) -> String {
        self.capabilities.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod chains;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
