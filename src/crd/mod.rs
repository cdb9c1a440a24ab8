//! The resources of API group `countersign.dev`: wire types, documentation and validation, no behaviour.
//!
//! Field comments are the user's manual: `kubectl explain` prints them.

mod agent;
mod capability;
mod delegation;
mod jit_request;
mod revocation;
mod trusted_issuer;

pub(crate) use agent::default_expiration;
pub use agent::{
    Agent, AgentSpec, AgentStatus, ApprovalMode, AudienceEntry, CONDITION_ADMITTED, CONDITION_IDENTITY_RESOLVED, CONDITION_READY,
    CONDITION_SUSPENDED, CapabilityEntry, ClaimValue, FederatedEntry, Identity, KeyEntry, ProofOfPossession, RevokedToken,
    ServiceAccountRef, SigningAlgorithm, Tokens,
};
pub use capability::{ApprovalRule, Capability, CapabilitySpec, CapabilityStatus, Risk};
pub(crate) use delegation::default_depth;
pub use delegation::{ActForEntry, CallerReference, Delegation};
pub use jit_request::{
    AgentReference, Approval, CONDITION_APPROVED, CONDITION_FINISHED, CONDITION_NOTIFIED, ChainLink, Decision, JitRequest,
    JitRequestSpec, JitRequestStatus, Lineage, OnBehalfOf, OperationSpec, Phase, User, UserReference, Verdict,
};
pub use revocation::{AgentRevocation, UserRevocation};
pub use trusted_issuer::{
    CONDITION_KEYS_FETCHED, ClaimMapping, ClaimMappings, ClaimValidationRule, IssuerAlgorithm, IssuerSpec, Provides, RevokedUser,
    TrustedIssuer, TrustedIssuerSpec, TrustedIssuerStatus, UsernameMapping,
};

/// The API group of all resources and of the virtual resources in RBAC rules.
pub const GROUP: &str = "countersign.dev";

/// Names the user who made the current spec of an object. Written at admission.
pub const CHANGED_BY: &str = "countersign.dev/changed-by";

/// CEL: a text that people read has no control or text-direction characters, so that nothing in it hides or reorders the rest.
const READABLE: &str = r"!self.matches('[\\x{00}-\\x{1f}\\x{7f}-\\x{9f}\\x{61c}\\x{200b}-\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{2069}\\x{feff}]')";

/// CEL: the same for each text of a list.
const READABLE_EACH: &str = r"self.all(t, !t.matches('[\\x{00}-\\x{1f}\\x{7f}-\\x{9f}\\x{61c}\\x{200b}-\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{2069}\\x{feff}]'))";

/// Every CustomResourceDefinition of this crate, as `countersign crds` prints them.
#[must_use]
pub fn all() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt as _;
    vec![Agent::crd(), JitRequest::crd(), Capability::crd(), TrustedIssuer::crd()]
}

/// The schema of an object whose members we do not know: the operator checks what is in it.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
