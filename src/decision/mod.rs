//! May it? The one place that says yes, for every grant type.
//!
//! Pure: an agent as registered, what is asked, and the time, in; a [`Permit`] or a [`Denial`] out. A `Permit` cannot
//! be made anywhere else, and [`crate::token::mint`] takes nothing else, so that a token without a decision does
//! not compile.

mod operation;

pub use operation::{Approvable, OperationGrant, Redemption, may_request, operation_stands, permit_operation};

use crate::agent::{Admission, Granted, RegisteredAgent};
use crate::capability::{Catalogue, Rule, Unusable};
use crate::grammar::{AgentId, Audience, CapabilityName};

/// What a caller asks for. `None` is "not said", never "everything there is".
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The capabilities; not said: every standing capability of the agent.
    pub capabilities: Option<Vec<CapabilityName>>,
    /// The audience; not said: the agent's only one.
    pub audience: Option<String>,
}

/// The answer.
#[derive(Debug)]
#[must_use]
pub enum Decision {
    /// Yes, this much.
    Allow(Permit),
    /// No, and why.
    Deny(Denial),
}

/// A decision to issue one token. Only [`decide`] and [`permit_operation`] make one.
#[derive(Debug)]
pub struct Permit {
    subject: AgentId,
    agent_uid: String,
    epoch: i64,
    capabilities: Vec<Granted>,
    audience: Audience,
    issued_at: u64,
    expires_at: u64,
    /// The one operation for which the token is good; `None` is anything within the capabilities.
    operation: Option<Box<OperationGrant>>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Which rule said no.
    pub reason: Reason,
    /// A sentence for the agent's developer: what was refused, and what would be possible.
    pub message: String,
}

/// The rules that can say no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No Agent is registered for the caller.
    AgentUnknown,
    /// The Agent is being deleted.
    AgentDeleted,
    /// The Agent is suspended.
    AgentSuspended,
    /// The Agent was written while the admission policies were not in force.
    AgentNotAdmitted,
    /// The generation of the Agent has not been checked yet.
    AgentPending,
    /// The spec of the Agent is invalid.
    AgentInvalid,
    /// Another registration of the Agent, or an earlier epoch.
    Revoked,
    /// A capability was asked that the Agent does not hold.
    CapabilityNotGranted,
    /// The Agent holds no capability, or none that needs no approval.
    NoCapability,
    /// The capability needs a person's approval for each use.
    ApprovalRequired,
    /// The capability needs no approval, so there is nothing to request.
    ApprovalNotNeeded,
    /// The Agent demands approval, and the catalogue has no rule that says whose.
    RuleMissing,
    /// The catalogue has a rule that cannot be enforced.
    RuleUnreadable,
    /// The catalogue has a rule that the operator has not looked at yet.
    RulePending,
    /// The operation is on a resource to which the capability does not extend, or names none where it must.
    ResourceNotGranted,
    /// The parameters of the operation do not match the catalogue's schema.
    ParametersRefused,
    /// The audience is not one of the Agent's.
    AudienceNotAllowed,
    /// No audience was named and the Agent does not have exactly one.
    AudienceAmbiguous,
    /// Nothing is left of the credential's life.
    CredentialSpent,
}

impl Reason {
    /// Short, stable name for records and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AgentUnknown => "agent_unknown",
            Self::AgentDeleted => "agent_deleted",
            Self::AgentSuspended => "agent_suspended",
            Self::AgentNotAdmitted => "agent_not_admitted",
            Self::AgentPending => "agent_pending",
            Self::AgentInvalid => "agent_invalid",
            Self::Revoked => "revoked",
            Self::CapabilityNotGranted => "capability_not_granted",
            Self::NoCapability => "no_capability",
            Self::ApprovalRequired => "approval_required",
            Self::ApprovalNotNeeded => "approval_not_needed",
            Self::RuleMissing => "rule_missing",
            Self::RuleUnreadable => "rule_unreadable",
            Self::RulePending => "rule_pending",
            Self::ResourceNotGranted => "resource_not_granted",
            Self::ParametersRefused => "parameters_refused",
            Self::AudienceNotAllowed => "audience_not_allowed",
            Self::AudienceAmbiguous => "audience_ambiguous",
            Self::CredentialSpent => "credential_spent",
        }
    }
}

impl Reason {
    /// Whether the answer will be another in a moment: something was written that has not been looked at yet.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::AgentPending | Self::RulePending)
    }
}

impl Denial {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<Result<Permit, Denial>> for Decision {
    fn from(result: Result<Permit, Denial>) -> Self {
        match result {
            Ok(permit) => Self::Allow(permit),
            Err(denial) => Self::Deny(denial),
        }
    }
}

/// Decides whether `agent` gets what it asks for at `now`, with a credential that ends at `credential_expires_at`
/// (both in seconds since the epoch).
pub fn decide(agent: &RegisteredAgent, catalogue: &Catalogue, ask: &Ask, credential_expires_at: u64, now: u64) -> Decision {
    permit(agent, catalogue, ask, credential_expires_at, now).into()
}

fn permit(
    agent: &RegisteredAgent,
    catalogue: &Catalogue,
    ask: &Ask,
    credential_expires_at: u64,
    now: u64,
) -> Result<Permit, Denial> {
    standing(agent)?;
    let rights = agent.rights.as_ref().map_err(|e| Denial::new(Reason::AgentInvalid, e.to_string()))?;
    let capabilities = capabilities(agent, catalogue, &rights.capabilities, ask.capabilities.as_deref())?;
    let audience = audience(agent, &rights.audiences, ask.audience.as_deref())?;
    let expires_at = now.saturating_add(rights.expiration_seconds.into()).min(credential_expires_at);
    if expires_at <= now {
        return Err(Denial::new(Reason::CredentialSpent, "the credential has expired"));
    }
    Ok(Permit {
        subject: agent.id.clone(),
        agent_uid: agent.uid.clone(),
        epoch: agent.epoch,
        capabilities,
        audience,
        issued_at: now,
        expires_at,
        operation: None,
    })
}

/// The rule under which a capability that an Agent holds may be used: `None` if it needs no approval. Of what Agent and catalogue
/// say the strictest counts, and a rule that is missing or cannot be read is a no.
fn approval_rule<'a>(held: &Granted, catalogue: &'a Catalogue) -> Result<Option<&'a Rule>, Denial> {
    match (catalogue.get(&held.name), held.approval_required) {
        (Some(Err(Unusable::Pending)), _) => {
            Err(Denial::new(Reason::RulePending, format!("the catalogue's rule for {} has not been looked at yet", held.name)))
        }
        (Some(Err(Unusable::Invalid(problem))), _) => Err(Denial::new(
            Reason::RuleUnreadable,
            format!("the catalogue's rule for {} cannot be enforced: {problem}", held.name),
        )),
        (Some(Ok(rule)), of_agent) => Ok((of_agent || rule.approval_required).then_some(rule)),
        (None, true) => Err(Denial::new(
            Reason::RuleMissing,
            format!("{} needs approval and the catalogue has no Capability of that name that says whose", held.name),
        )),
        (None, false) => Ok(None),
    }
}

/// Whether a capability may be used without asking anybody.
fn needs_no_approval(held: &Granted, catalogue: &Catalogue) -> Result<(), Denial> {
    match approval_rule(held, catalogue)? {
        None => Ok(()),
        Some(_) => Err(Denial::new(
            Reason::ApprovalRequired,
            format!("{} needs a person's approval for each use: ask for one operation at /oauth2/bc-authorize", held.name),
        )),
    }
}

/// Whether the agent may act at all. Everything unknown is a no.
fn standing(agent: &RegisteredAgent) -> Result<(), Denial> {
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

fn capabilities(
    agent: &RegisteredAgent,
    catalogue: &Catalogue,
    held: &[Granted],
    asked: Option<&[CapabilityName]>,
) -> Result<Vec<Granted>, Denial> {
    let Some(asked) = asked else {
        let standing: Vec<Granted> = held.iter().filter(|c| needs_no_approval(c, catalogue).is_ok()).cloned().collect();
        if standing.is_empty() {
            let message = format!("{} holds no capability that it may use without approval", agent.id);
            return Err(Denial::new(Reason::NoCapability, message));
        }
        return Ok(standing);
    };
    let mut granted: Vec<Granted> = Vec::with_capacity(asked.len());
    for name in asked {
        let capability = holding(agent, held, name)?;
        needs_no_approval(capability, catalogue)?;
        if !granted.iter().any(|c| c.name == *name) {
            granted.push(capability.clone());
        }
    }
    Ok(granted)
}

/// The capability of that name among those that the agent holds.
fn holding<'a>(agent: &RegisteredAgent, held: &'a [Granted], name: &CapabilityName) -> Result<&'a Granted, Denial> {
    held.iter()
        .find(|c| c.name == *name)
        .ok_or_else(|| Denial::new(Reason::CapabilityNotGranted, format!("capability {name} is not granted to {}", agent.id)))
}

fn audience(agent: &RegisteredAgent, allowed: &[Audience], asked: Option<&str>) -> Result<Audience, Denial> {
    match (asked, allowed) {
        (Some(asked), _) => {
            allowed.iter().find(|a| a.as_str() == asked).cloned().ok_or_else(|| {
                Denial::new(Reason::AudienceNotAllowed, format!("the audience asked for is not one of {}", agent.id))
            })
        }
        (None, [only]) => Ok(only.clone()),
        (None, []) => {
            Err(Denial::new(Reason::AudienceAmbiguous, format!("{} has no audience in spec.tokens.audiences", agent.id)))
        }
        (None, several) => Err(Denial::new(
            Reason::AudienceAmbiguous,
            format!("{} has {} audiences: name the one that the token is for", agent.id, several.len()),
        )),
    }
}

/// What a token that was issued earlier says about itself.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'a> {
    /// `agent_uid` in the token.
    pub agent_uid: &'a str,
    /// The epoch in the token.
    pub epoch: i64,
    /// Its scope values, each with the resources to which the token limits it.
    pub capabilities: &'a [Granted],
    /// Its audience.
    pub audience: &'a str,
}

/// Whether what was issued still stands: the same registration, the same epoch, not suspended, and nothing in the
/// token that the Agent does not hold any more.
///
/// # Errors
/// The rule that ended it.
pub fn still_stands(agent: &RegisteredAgent, catalogue: &Catalogue, issued: &Issued<'_>) -> Result<(), Denial> {
    same_registration(agent, issued.agent_uid, issued.epoch)?;
    let rights = agent.rights.as_ref().map_err(|e| Denial::new(Reason::AgentInvalid, e.to_string()))?;
    for issued in issued.capabilities {
        let held = rights.capabilities.iter().find(|held| held.name == issued.name).filter(|held| held.covers(issued));
        let Some(held) = held else {
            let message = format!("{} does not hold {} any more, or for fewer resources", agent.id, issued.name);
            return Err(Denial::new(Reason::CapabilityNotGranted, message));
        };
        needs_no_approval(held, catalogue)?;
    }
    audience(agent, &rights.audiences, Some(issued.audience))?;
    Ok(())
}

/// Whether the agent is the one to which something was issued, was not stopped since, and may act.
fn same_registration(agent: &RegisteredAgent, agent_uid: &str, epoch: i64) -> Result<(), Denial> {
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

impl Permit {
    /// The agent that acts.
    #[must_use]
    pub const fn subject(&self) -> &AgentId {
        &self.subject
    }

    /// The UID of its registration.
    #[must_use]
    pub fn agent_uid(&self) -> &str {
        &self.agent_uid
    }

    /// Its revocation epoch.
    #[must_use]
    pub const fn epoch(&self) -> i64 {
        self.epoch
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

    /// The one operation for which the token is good, if it was approved for one.
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
mod tests;
