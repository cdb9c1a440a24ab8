//! An Agent as the rest of the program sees it: parsed once from the stored object, never half valid.

use crate::crd::{self, CONDITION_ADMITTED};
use crate::grammar::{AgentId, Audience, CapabilityName, GrammarError, Resource, ResourcePattern};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

/// Longest life of a token in seconds, whatever an object says.
pub const EXPIRATION_MAX: u32 = 900;

/// One registered agent, as of one version of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredAgent {
    /// Namespace and name.
    pub id: AgentId,
    /// `metadata.uid`: the identity of this registration, as against a later one of the same name.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Creation time in seconds since the epoch. Of two Agents that claim one credential, the older keeps it.
    pub created: i64,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// `spec.owner`: who answers for it, a user or a group.
    pub owner: String,
    /// `spec.suspended`.
    pub suspended: bool,
    /// `status.revocationEpoch`.
    pub epoch: i64,
    /// Whether this generation was written under the admission policies.
    pub admission: Admission,
    /// ServiceAccounts of the Agent's namespace that are this agent.
    pub service_accounts: Vec<String>,
    /// What it may do, or why its spec cannot be read: an object may be older than the rules of its schema.
    pub rights: Result<Rights, InvalidAgent>,
}

/// What an agent may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// The capabilities, in the order of the spec.
    pub capabilities: Vec<Granted>,
    /// The audiences for which it may obtain tokens.
    pub audiences: Vec<Audience>,
    /// Life of its tokens in seconds.
    pub expiration_seconds: u32,
}

/// One capability of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Its name.
    pub name: CapabilityName,
    /// The resources to which it is limited; `None` is any.
    pub resources: Option<Vec<ResourcePattern>>,
    /// Whether the Agent itself says that a person must approve each use.
    pub approval_required: bool,
}

impl Granted {
    /// Whether this is as wide as `other`, a capability of the same name. Patterns are compared as texts: a token is
    /// issued with the very patterns of the Agent.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.resources, &other.resources) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => theirs.iter().all(|r| mine.contains(r)),
        }
    }

    /// Whether it holds for `resource`; where it is limited, nothing named is nothing allowed.
    #[must_use]
    pub fn allows(&self, resource: Option<&Resource>) -> bool {
        match (&self.resources, resource) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(patterns), Some(resource)) => patterns.iter().any(|pattern| pattern.matches(resource)),
        }
    }
}

/// What the operator has found about the generation at hand (condition `Admitted`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It was written while the policies were in force.
    Proven,
    /// It was not, or nobody can tell.
    Unproven,
    /// The operator has not looked at it yet.
    Pending,
}

/// Why the spec of a stored Agent cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct InvalidAgent {
    field: &'static str,
    problem: String,
}

impl RegisteredAgent {
    /// Parses a stored object.
    ///
    /// # Errors
    /// If its namespace and name cannot be those of an Agent. Anything wrong in the spec is kept in `rights`.
    pub fn parse(agent: &crd::Agent) -> Result<Self, GrammarError> {
        let status = agent.status.as_ref();
        let generation = agent.metadata.generation.unwrap_or_default();
        Ok(Self {
            id: AgentId::new(&agent.namespace().unwrap_or_default(), &agent.name_any())?,
            uid: agent.uid().unwrap_or_default(),
            generation,
            created: agent.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second()),
            deleting: agent.metadata.deletion_timestamp.is_some(),
            owner: agent.spec.owner.clone(),
            suspended: agent.spec.suspended,
            epoch: status.map_or(0, |s| s.revocation_epoch),
            admission: Admission::of(status.map_or(&[], |s| &s.conditions), generation),
            service_accounts: agent.spec.identity.service_accounts.iter().map(|s| s.name.clone()).collect(),
            rights: Rights::parse(&agent.spec),
        })
    }

    /// Who comes first when two Agents claim the same credential.
    #[must_use]
    pub fn seniority(&self) -> (i64, &str) {
        (self.created, &self.uid)
    }
}

impl Rights {
    fn parse(spec: &crd::AgentSpec) -> Result<Self, InvalidAgent> {
        let invalid = |field, problem: &dyn std::fmt::Display| InvalidAgent { field, problem: problem.to_string() };
        let mut capabilities = Vec::with_capacity(spec.capabilities.len());
        for entry in &spec.capabilities {
            let name = CapabilityName::parse(&entry.name).map_err(|e| invalid("capabilities", &e))?;
            if capabilities.iter().any(|c: &Granted| c.name == name) {
                return Err(invalid("capabilities", &format!("{name} is listed twice")));
            }
            let resources = match &entry.resources {
                None => None,
                Some(list) if list.is_empty() => {
                    return Err(invalid("capabilities", &format!("{name} is limited to no resource")));
                }
                Some(list) => Some(
                    list.iter()
                        .map(|r| ResourcePattern::parse(r))
                        .collect::<Result<_, _>>()
                        .map_err(|e| invalid("capabilities", &e))?,
                ),
            };
            capabilities.push(Granted { name, resources, approval_required: entry.approval.is_some() });
        }
        let (expiration_seconds, audiences) = match &spec.tokens {
            None => (crd::default_expiration(), Vec::new()),
            Some(tokens) => (
                tokens.expiration_seconds,
                tokens
                    .audiences
                    .iter()
                    .map(|a| Audience::parse(&a.name))
                    .collect::<Result<_, _>>()
                    .map_err(|e| invalid("tokens.audiences", &e))?,
            ),
        };
        if !(1..=EXPIRATION_MAX).contains(&expiration_seconds) {
            return Err(invalid("tokens.expirationSeconds", &"must be 1 to 900"));
        }
        Ok(Self { capabilities, audiences, expiration_seconds })
    }
}

impl Admission {
    /// What the conditions say about `generation`.
    #[must_use]
    pub fn of(conditions: &[Condition], generation: i64) -> Self {
        match conditions.iter().find(|c| c.type_ == CONDITION_ADMITTED && c.observed_generation == Some(generation)) {
            Some(condition) if condition.status == "True" => Self::Proven,
            Some(_) => Self::Unproven,
            None => Self::Pending,
        }
    }
}
