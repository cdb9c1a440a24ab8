//! A stored JitRequest, parsed.

use crate::agent::RegisteredAgent;
use crate::chain::{Chain, IssuerRef, Link, Principal, Proof};
use crate::crd::{self, CONDITION_APPROVED, JitRequest, JitRequestSpec, JitRequestStatus, Phase, User};
use crate::decision::{Denial, Reason};
use crate::grammar::{AgentId, is_dns_label, is_dns_subdomain};
use crate::json;
use crate::operation::{InvalidOperation, Operation};
use crate::time;
use kube::ResourceExt as _;
use serde_json::Value;
use std::fmt;
use std::fmt::Write as _;

/// How long a question stands if it does not say, in seconds.
pub const DECIDE_SECONDS: u32 = 600;
/// How long a question may stand, in seconds.
pub const DECIDE_SECONDS_MAX: u32 = 7 * 86_400;
/// How many requests an agent may have open, that is neither ended nor turned into a token.
pub const OPEN_MAX: usize = 32;
/// How long a finished request stays if it does not say, in seconds.
const TTL_SECONDS: u32 = 3600;

/// Namespace and name of a JitRequest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    /// Its namespace, which is that of its agent.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One request, as of one version of its object.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Namespace and name.
    pub id: RequestId,
    /// `metadata.uid`; also its `auth_req_id`.
    pub uid: String,
    /// `metadata.resourceVersion`: what a compare-and-swap compares.
    pub version: String,
    /// Creation time in seconds since the epoch.
    pub created: i64,
    /// Whether the object is being deleted: withdrawn.
    pub deleting: bool,
    /// `metadata.generation`.
    pub generation: i64,
    /// What is asked, or why that cannot be read.
    pub question: Result<Question, InvalidRequest>,
    /// The spec as it is stored.
    pub spec: JitRequestSpec,
    /// What became of it.
    pub status: JitRequestStatus,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Who asks.
    pub agent: AgentId,
    /// What for.
    pub operation: Operation,
    /// On whose behalf, and through which agents it was called: those before the agent itself.
    pub callers: Option<Chain>,
    /// Until when the question stands, in seconds since the epoch.
    pub decide_by: i64,
    /// SHA-256 of the canonical JSON of the spec without justification and requestedBy.
    pub digest: String,
}

/// Why a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// The operation is not as it must be.
    #[error("spec.operation: {0}")]
    Operation(#[from] InvalidOperation),
    /// Another field is not.
    #[error("{0}")]
    Field(&'static str),
}

impl Request {
    /// Parses a stored object. `None` if it has no name or namespace that could be one.
    #[must_use]
    pub fn parse(object: JitRequest) -> Option<Self> {
        let id = RequestId { namespace: object.namespace()?, name: object.name_any() };
        if !is_dns_label(&id.namespace) || !is_dns_subdomain(&id.name) {
            return None;
        }
        let created = object.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second());
        Some(Self {
            question: Question::parse(&id.namespace, &object.spec, created),
            id,
            uid: object.uid()?,
            version: object.resource_version()?,
            created,
            deleting: object.metadata.deletion_timestamp.is_some(),
            generation: object.metadata.generation.unwrap_or_default(),
            spec: object.spec,
            status: object.status.unwrap_or_default(),
        })
    }

    /// The object with another status, to be written over exactly this version.
    #[must_use]
    pub fn with_status(&self, status: JitRequestStatus) -> JitRequest {
        let mut object = JitRequest::new(&self.id.name, self.spec.clone());
        object.metadata.namespace = Some(self.id.namespace.clone());
        object.metadata.uid = Some(self.uid.clone());
        object.metadata.resource_version = Some(self.version.clone());
        object.status = Some(status);
        object
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase, Some(Phase::Denied | Phase::Expired | Phase::Cancelled | Phase::Completed | Phase::Revoked))
    }

    /// Why there will be no token, in a sentence, if that has been said.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let unprocessed = super::step::denial(self).and_then(|decision| decision.by.as_ref()).map(super::step::denied_by);
        let said = || {
            let conditions = &self.status.conditions;
            conditions.iter().find(|c| c.type_ == CONDITION_APPROVED && c.status == "False").map(|c| c.message.clone())
        };
        unprocessed.or_else(said)
    }

    /// When the object may be removed, in seconds since the epoch; `None` while it has not ended.
    #[must_use]
    pub fn remove_at(&self) -> Option<i64> {
        let ttl = self.spec.ttl_seconds_after_finished.unwrap_or(TTL_SECONDS);
        self.status.finished_at.as_ref().map(|t| t.0.as_second().saturating_add(ttl.into()))
    }

    /// The agent that asks, as far as its name can be one.
    #[must_use]
    pub fn agent(&self) -> Option<AgentId> {
        AgentId::new(&self.id.namespace, &self.spec.agent.name).ok()
    }

    /// Whether `agent` stands among those through which the agent that asks was called.
    #[must_use]
    pub fn descends_from(&self, agent: &AgentId) -> bool {
        self.question.as_ref().is_ok_and(|question| question.callers.as_ref().is_some_and(|chain| chain.contains(agent)))
    }

    /// Who made the object, as stamped at admission.
    #[must_use]
    pub fn requester(&self) -> Option<&User> {
        self.spec.requested_by.as_ref()
    }
}

impl Question {
    /// The chain with the agent that asks at its end, in its registration `uid` and epoch. A request on nobody's behalf is a chain of its
    /// own, named after the object, so that its token can be delivered again as it was.
    #[must_use]
    pub fn chain(&self, request_uid: &str, uid: &str, epoch: i64) -> Option<Chain> {
        let link = Link { agent: self.agent.clone(), uid: uid.to_owned(), epoch, proof: Proof::Unsaid };
        match &self.callers {
            None => Some(Chain::begin(None, link, request_uid.to_owned())),
            Some(callers) => {
                let links = callers.links().iter().cloned().chain([link]).collect();
                Chain::read(callers.user().cloned(), links, callers.txn().to_owned(), callers.ancestors().to_vec())
            }
        }
    }

    /// The same for the agent as it is registered now.
    ///
    /// # Errors
    /// If there are more agents in it than there may be.
    pub fn chain_of(&self, request: &Request, agent: &RegisteredAgent) -> Result<Chain, Denial> {
        let chain = self.chain(&request.uid, &agent.uid, agent.epoch);
        chain.ok_or_else(|| Denial::new(Reason::ChainTooDeep, "there are too many agents in the chain"))
    }

    fn parse(namespace: &str, spec: &JitRequestSpec, created: i64) -> Result<Self, InvalidRequest> {
        let agent = AgentId::new(namespace, &spec.agent.name)
            .map_err(|_| InvalidRequest::Field("spec.agent.name is not the name of an Agent"))?;
        if !(1..=crate::agent::EXPIRATION_MAX).contains(&spec.expiration_seconds) {
            return Err(InvalidRequest::Field("spec.expirationSeconds must be 1 to 900"));
        }
        let latest = created.saturating_add(DECIDE_SECONDS_MAX.into());
        let decide_by = match &spec.decide_by {
            None => created.saturating_add(DECIDE_SECONDS.into()),
            Some(text) => time::parse(text).ok_or(InvalidRequest::Field("spec.decideBy is not a time with zone (RFC 3339)"))?,
        };
        if decide_by > latest {
            return Err(InvalidRequest::Field("spec.decideBy is more than 7 days after the request was made"));
        }
        let callers = spec.on_behalf_of.as_ref().map(|behalf| {
            callers(behalf).filter(|chain| !chain.contains(&agent)).ok_or(InvalidRequest::Field(
                "spec.onBehalfOf is not what the operator would have written: chain and lineage do not fit each other",
            ))
        });
        let operation = Operation::parse(&spec.operation)?;
        let digest = digest(spec).ok_or(InvalidRequest::Field("spec cannot be written as canonical JSON"))?;
        Ok(Self { agent, operation, callers: callers.transpose()?, decide_by, digest })
    }
}

/// The chain as the token said it with which the agent was called.
fn callers(behalf: &crd::OnBehalfOf) -> Option<Chain> {
    let lineage = behalf.lineage.as_ref().filter(|lineage| lineage.links.len() == behalf.chain.len())?;
    let link = |(subject, link): (&String, &crd::ChainLink)| {
        Some(Link { agent: AgentId::parse(subject).ok()?, uid: link.uid.clone(), epoch: link.epoch, proof: Proof::Unsaid })
    };
    let links = behalf.chain.iter().zip(&lineage.links).map(link).collect::<Option<Vec<_>>>()?;
    let user = lineage.user.as_ref().map(|user| Principal {
        name: user.name.clone(),
        issuer: IssuerRef { name: user.issuer.clone(), uid: user.issuer_uid.clone() },
        epoch: user.epoch,
    });
    Chain::read(user, links, lineage.transaction.clone(), lineage.ancestors.clone())
}

/// The digest of a spec: `sha256:` and the hexadecimal SHA-256 of the canonical JSON (RFC 8785) of all of it but justification and
/// requestedBy.
pub(super) fn digest(spec: &crd::JitRequestSpec) -> Option<String> {
    let mut value = serde_json::to_value(spec).ok()?;
    let members = value.as_object_mut()?;
    members.remove("justification");
    members.remove("requestedBy");
    let text = json::canonical(&Value::Object(std::mem::take(members))).ok()?;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut digest = String::from("sha256:");
    for byte in hash.as_ref() {
        // Writing into a String cannot fail.
        _ = write!(digest, "{byte:02x}");
    }
    Some(digest)
}
