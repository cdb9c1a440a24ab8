//! An Agent as the rest of the program sees it: parsed once from the stored object, never half valid.

mod condition;
mod credentials;
mod delegation;
mod told;

pub use condition::{Condition, Facts, Unmet};
pub use credentials::{Credentials, FederatedIdentity, Holding, RegisteredKey};
pub use delegation::{ActFor, DEPTH_MAX, Delegation};
pub use told::Told;

use crate::chain::{Link, Proof};
use crate::crd::{self, CONDITION_ADMITTED, SigningAlgorithm};
use crate::grammar::{AgentId, Audience, CapabilityName, GrammarError, Resource, ResourcePattern};
use crate::revocation::{self, Target};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as StatusCondition;
use kube::ResourceExt as _;
use std::collections::HashMap;

/// Longest life of a token in seconds, whatever an object says.
pub const EXPIRATION_MAX: u32 = 900;

/// One registered agent, as of one version of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredAgent {
    /// Namespace and name.
    pub id: AgentId,
    /// `metadata.uid`: the identity of this registration, as against a later one of the same name.
    pub uid: String,
    /// `metadata.resourceVersion`, which says which of two versions is the later.
    pub version: String,
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
    /// `status.revocationEpoch`, one more if an instruction to revoke everything waits to be carried out.
    pub epoch: i64,
    /// The single tokens and chains of it that are revoked, by `jti` and `txn`, be it by an instruction that waits to be carried out.
    /// With the time, in seconds since the epoch, from which on nobody needs to know.
    pub revoked: HashMap<String, i64>,
    /// Whether this generation was written under the admission policies.
    pub admission: Admission,
    /// What its status says.
    pub told: Option<Told>,
    /// How it proves who it is.
    pub credentials: Credentials,
    /// What it may do, or why its spec cannot be read: an object may be older than the rules of its schema.
    pub rights: Result<Rights, InvalidAgent>,
}

/// What an agent may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// The capabilities, in the order of the spec.
    pub capabilities: Vec<Granted>,
    /// The audiences for which it may obtain tokens.
    pub audiences: Vec<AllowedAudience>,
    /// Life of its tokens in seconds.
    pub expiration_seconds: u32,
    /// Whether its tokens must be bound to a key.
    pub possession_required: bool,
    /// For whom it may act, and who may call it.
    pub delegation: Delegation,
}

/// One audience of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedAudience {
    /// For whom.
    pub name: Audience,
    /// How the tokens are signed.
    pub signing_algorithm: SigningAlgorithm,
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
    /// Under which condition. Tokens carry none: each agent's own is asked whenever the capability is used.
    pub when: Option<Condition>,
}

impl Granted {
    /// Whether this is as wide as `other`, a capability of the same name.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.resources, &other.resources) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => theirs.iter().all(|theirs| mine.iter().any(|mine| mine.covers(theirs))),
        }
    }

    /// What this and `other`, a capability of the same name, both allow: of their resources each that the other covers. `None` if that
    /// is nothing. Two patterns of which neither covers the other count as having nothing in common.
    #[must_use]
    pub fn narrowed(&self, other: &Self) -> Option<Self> {
        let resources = match (&self.resources, &other.resources) {
            (None, resources) | (resources, None) => resources.clone(),
            (Some(mine), Some(theirs)) => {
                let within = |these: &'_ [ResourcePattern], those: &[ResourcePattern]| -> Vec<ResourcePattern> {
                    these.iter().filter(|this| those.iter().any(|that| that.covers(this))).cloned().collect()
                };
                let mut both = within(mine, theirs);
                both.extend(within(theirs, mine).into_iter().filter(|theirs| !mine.contains(theirs)));
                if both.is_empty() {
                    return None;
                }
                Some(both)
            }
        };
        let approval_required = self.approval_required || other.approval_required;
        Some(Self { name: self.name.clone(), resources, approval_required, when: None })
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
    /// The agent, as it is now, as the last of a chain: without what it would prove itself by.
    #[must_use]
    pub fn link(&self) -> Link {
        Link { agent: self.id.clone(), uid: self.uid.clone(), epoch: self.epoch, proof: Proof::Unsaid }
    }

    /// Parses a stored object.
    ///
    /// # Errors
    /// If its namespace and name cannot be those of an Agent. Anything wrong in the spec is kept in `rights`.
    pub fn parse(agent: &crd::Agent) -> Result<Self, GrammarError> {
        let status = agent.status.as_ref();
        let generation = agent.metadata.generation.unwrap_or_default();
        // In force from the moment it is seen, as if it had been carried out.
        let revoke = status.and_then(|s| s.revoke.as_ref()).map(revocation::target);
        let (ended, single) = match revoke {
            None => (0, None),
            Some(Target::All) => (1, None),
            Some(Target::Token(id) | Target::Chain(id)) => (0, Some((id.to_owned(), i64::MAX))),
        };
        let listed = status.iter().flat_map(|s| &s.revoked_tokens);
        let listed = listed.map(|token| (token.id.clone(), token.expires_at.0.as_second()));
        Ok(Self {
            id: AgentId::new(&agent.namespace().unwrap_or_default(), &agent.name_any())?,
            uid: agent.uid().unwrap_or_default(),
            version: agent.resource_version().unwrap_or_default(),
            generation,
            created: agent.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second()),
            deleting: agent.metadata.deletion_timestamp.is_some(),
            owner: agent.spec.owner.clone(),
            suspended: agent.spec.suspended,
            epoch: status.map_or(0, |s| s.revocation_epoch).saturating_add(ended),
            revoked: listed.chain(single).collect(),
            admission: Admission::of(status.map_or(&[], |s| &s.conditions), generation),
            told: status.and_then(Told::of),
            credentials: Credentials::parse(&agent.spec.identity),
            rights: Rights::parse(&agent.spec),
        })
    }

    /// Whether what was issued to it can be alive: a generation that has not been checked yet ends nothing.
    #[must_use]
    pub fn still_counts(&self) -> bool {
        !self.suspended && !self.deleting && self.admission != Admission::Unproven && self.rights.is_ok()
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
            let when = entry.when.as_deref().map(Condition::parse);
            capabilities.push(Granted { name, resources, approval_required: entry.approval.is_some(), when });
        }
        let (expiration_seconds, audiences) = match &spec.tokens {
            None => (crd::default_expiration(), Vec::new()),
            Some(tokens) => (
                tokens.expiration_seconds,
                tokens
                    .audiences
                    .iter()
                    .map(|a| Ok(AllowedAudience { name: Audience::parse(&a.name)?, signing_algorithm: a.signing_algorithm }))
                    .collect::<Result<_, GrammarError>>()
                    .map_err(|e| invalid("tokens.audiences", &e))?,
            ),
        };
        if !(1..=EXPIRATION_MAX).contains(&expiration_seconds) {
            return Err(invalid("tokens.expirationSeconds", &"must be 1 to 900"));
        }
        let possession_required = spec.tokens.as_ref().is_some_and(|t| t.proof_of_possession == crd::ProofOfPossession::DPoP);
        let delegation = Delegation::parse(spec.delegation.as_ref()).map_err(|problem| invalid("delegation", &problem))?;
        Ok(Self { capabilities, audiences, expiration_seconds, possession_required, delegation })
    }
}

impl Admission {
    /// What the conditions say about `generation`.
    #[must_use]
    pub fn of(conditions: &[StatusCondition], generation: i64) -> Self {
        match conditions.iter().find(|c| c.type_ == CONDITION_ADMITTED && c.observed_generation == Some(generation)) {
            Some(condition) if condition.status == "True" => Self::Proven,
            Some(_) => Self::Unproven,
            None => Self::Pending,
        }
    }
}
