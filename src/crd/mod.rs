//! The resources of API group `countersign.dev`: wire types, documentation and validation, no behaviour.
//!
//! Field comments are the user's manual: `kubectl explain` prints them.

mod agent;

pub(crate) use agent::default_expiration;
pub use agent::{
    Agent, AgentSpec, AgentStatus, AudienceEntry, CONDITION_ADMITTED, CONDITION_READY, CONDITION_SUSPENDED, Capability, Identity,
    ServiceAccountRef, Tokens,
};

/// The API group of all resources and of the virtual resources in RBAC rules.
pub const GROUP: &str = "countersign.dev";

/// Names the user who made the current spec of an object. Written at admission.
pub const CHANGED_BY: &str = "countersign.dev/changed-by";

/// Every CustomResourceDefinition of this crate, as `countersign crds` prints them.
#[must_use]
pub fn all() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    vec![<Agent as kube::CustomResourceExt>::crd()]
}
