//! The rules that can say no, and what is said then.

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
    /// The condition under which an Agent holds the capability is false.
    ConditionUnmet,
    /// That condition cannot be evaluated with what is known.
    ConditionUndecided,
    /// That condition is no CEL expression that can be used.
    ConditionInvalid,
    /// The token is for another operation.
    OperationMismatch,
    /// The audience is not one of the Agent's.
    AudienceNotAllowed,
    /// No audience was named and the Agent does not have exactly one.
    AudienceAmbiguous,
    /// Nothing is left of the credential's life.
    CredentialSpent,
    /// The Agent's tokens must be bound to a key, and this one is not or would not be.
    PossessionUnproved,
    /// The agent may not act for the user.
    DelegationNotGranted,
    /// The user's tokens were revoked, or the issuer that vouched for the user is not trusted any more.
    UserRevoked,
    /// The token that the agent presents was not issued for it.
    SubjectNotAddressed,
    /// The token says that somebody else alone may act with it.
    ActorNotAllowed,
    /// The agent does not name whoever calls it among its callers.
    CallerNotAllowed,
    /// The agent stands in the chain already.
    ChainCycle,
    /// There would be more agents in the chain than one of them allows.
    ChainTooDeep,
    /// Somebody in the chain was stopped, or lost what the token says.
    ChainEnded,
    /// What the credential of a token was issued for counts no more: the key, the ServiceAccount or the issuer is gone.
    ProofEnded,
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
            Self::ConditionUnmet => "condition_unmet",
            Self::ConditionUndecided => "condition_undecided",
            Self::ConditionInvalid => "condition_invalid",
            Self::OperationMismatch => "operation_mismatch",
            Self::AudienceNotAllowed => "audience_not_allowed",
            Self::AudienceAmbiguous => "audience_ambiguous",
            Self::CredentialSpent => "credential_spent",
            Self::PossessionUnproved => "possession_unproved",
            Self::DelegationNotGranted => "delegation_not_granted",
            Self::UserRevoked => "user_revoked",
            Self::SubjectNotAddressed => "subject_not_addressed",
            Self::ActorNotAllowed => "actor_not_allowed",
            Self::CallerNotAllowed => "caller_not_allowed",
            Self::ChainCycle => "chain_cycle",
            Self::ChainTooDeep => "chain_too_deep",
            Self::ChainEnded => "chain_ended",
            Self::ProofEnded => "proof_ended",
        }
    }
}

impl Reason {
    /// Where the rule is written that said no: which field of which resource, for whoever is to change it.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::AgentUnknown => "Agent",
            Self::AgentDeleted => "Agent metadata.deletionTimestamp",
            Self::AgentSuspended => "Agent spec.suspended",
            Self::AgentNotAdmitted | Self::AgentPending => "Agent status.conditions[Admitted]",
            Self::AgentInvalid => "Agent spec",
            Self::Revoked | Self::ChainEnded => "Agent status.revocationEpoch, status.revokedTokens",
            Self::CapabilityNotGranted | Self::NoCapability => "Agent spec.capabilities",
            Self::ApprovalRequired | Self::ApprovalNotNeeded => "Agent spec.capabilities[].approval, Capability spec.approval",
            Self::RuleMissing => "Capability",
            Self::RuleUnreadable => "Capability spec",
            Self::RulePending => "Capability status.conditions[Admitted]",
            Self::ResourceNotGranted => "Agent spec.capabilities[].resources",
            Self::ParametersRefused => "Capability spec.parameterSchema",
            Self::ConditionUnmet | Self::ConditionUndecided | Self::ConditionInvalid => "Agent spec.capabilities[].when",
            Self::OperationMismatch => "token authorization_details",
            Self::AudienceNotAllowed | Self::AudienceAmbiguous => "Agent spec.tokens.audiences",
            Self::CredentialSpent => "token exp",
            Self::PossessionUnproved => "Agent spec.tokens.proofOfPossession",
            Self::DelegationNotGranted => "Agent spec.delegation.actFor",
            Self::UserRevoked => "TrustedIssuer status.revokedUsers",
            Self::SubjectNotAddressed => "token aud",
            Self::ActorNotAllowed => "token may_act",
            Self::CallerNotAllowed => "Agent spec.delegation.callers",
            Self::ChainCycle => "token act",
            Self::ChainTooDeep => "Agent spec.delegation.maxDepth",
            Self::ProofEnded => "Agent spec.identity",
        }
    }

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
