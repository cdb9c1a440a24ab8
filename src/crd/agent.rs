//! `Agent`: who an AI agent is, how it proves it, and what it may do.

use crate::grammar::{AUDIENCE_PATTERN, CAPABILITY_PATTERN, OWNER_PATTERN, RESOURCE_PATTERN, SUBDOMAIN_PATTERN};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Condition: the agent can obtain tokens.
pub const CONDITION_READY: &str = "Ready";
/// Condition: this generation was written while the admission policies were in force.
pub const CONDITION_ADMITTED: &str = "Admitted";
/// Condition: the suspension of the agent has taken effect and its earlier tokens are dead for good.
pub const CONDITION_SUSPENDED: &str = "Suspended";

/// What the user writes about an agent.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "Agent",
    plural = "agents",
    singular = "agent",
    shortname = "ag",
    category = "countersign",
    namespaced,
    status = "AgentStatus",
    derive = "PartialEq",
    doc = "An Agent gives one AI agent an identity of its own and exactly the capabilities listed here. \
           Its subject in tokens is agent:<namespace>/<name>. Creating or widening an Agent needs the RBAC verb \
           'grant' on each capability added (resource 'capabilities', group 'countersign.dev'). \
           An Agent that is deleted and created anew is another agent: tokens of the first stay dead.",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of an Agent is an RFC 1123 label: lower-case letters, digits and '-', at most 63 characters"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.revocationEpoch) || \
         (has(self.status) && has(self.status.revocationEpoch) && self.status.revocationEpoch >= oldSelf.status.revocationEpoch)"
    )
    .message("status.revocationEpoch only grows: lowering or removing it would bring revoked tokens back to life"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended"),
    printcolumn(name = "Capabilities", type_ = "string", json_path = ".spec.capabilities[*].name", priority = 1),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.revocationEpoch", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.owner"
)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// A name for people, shown in lists and approvals. Up to 100 characters; no control or
    /// text-direction characters. Absent: the name of the object is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new(super::READABLE)
        .message("displayName must not contain control or text-direction characters"))]
    pub display_name: Option<String>,

    /// The person or team that answers for this agent, as Kubernetes knows them: a user name, a group
    /// name or a mail address. Printable ASCII, up to 253 characters. Changing it needs 'grant' on every
    /// capability of the agent.
    #[schemars(length(min = 1, max = 253), regex(pattern = OWNER_PATTERN))]
    pub owner: String,

    /// true stops the agent at once: it gets no new token, and every token issued so far is dead for good,
    /// also after it is resumed. Anyone who may update the Agent may set it. Setting it back to false needs
    /// 'grant' on every capability of the agent, and condition Suspended to be True for the current
    /// generation, so that no suspension can pass unnoticed.
    #[serde(default)]
    pub suspended: bool,

    /// How the agent proves who it is. Any one way suffices. Changing it needs 'grant' on every capability of the agent.
    pub identity: Identity,

    /// What the agent may do. Nothing else is allowed: there are no wildcards and no defaults. Each name at most
    /// once, at most 64. Adding an entry, or changing one other than by taking away resources or demanding approval, needs 'grant' on its name;
    /// at most 24 may be added in one update, unless the user may grant all capabilities.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub capabilities: Vec<CapabilityEntry>,

    /// The tokens that the agent can obtain. Absent: no audience, hence no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

/// How an agent proves who it is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// ServiceAccounts in the namespace of the Agent, 1 to 16. A pod that runs under one of them exchanges its
    /// projected token, requested for the issuer's URL as audience. A ServiceAccount belongs to one Agent: if two
    /// claim it, the older keeps it and the other is not Ready.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub service_accounts: Vec<ServiceAccountRef>,
}

/// A ServiceAccount in the namespace of the Agent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// Name of the ServiceAccount, which is in the namespace of the Agent.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub name: String,
}

/// Whether a person must approve each use of a capability.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalMode {
    /// Each use needs a JitRequest that a person has approved.
    Required,
}

/// One thing that an agent may do.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityEntry {
    /// Name of the capability, for example document.read. It is the scope value in tokens. Lower-case letters,
    /// digits, '-' and '.', at most 100 characters.
    #[schemars(length(min = 1, max = 100), regex(pattern = CAPABILITY_PATTERN))]
    pub name: String,

    /// The resources to which the capability is limited, 1 to 32, each 'type:id', for example document:reports/*.
    /// '*' stands for characters of one path segment, '**' as last segment for the rest of the path. They are
    /// carried in the token's authorization_details, for the resource server to compare, and an operation that needs approval must
    /// be on one of them. Absent: any resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 256), regex(pattern = RESOURCE_PATTERN)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(r"self.all(r, !r.matches('(:|/)[.]{1,2}(/|$)'))").message("a resource has no '.' or '..' segment"),
        validation = Rule::new(r"self.all(r, !r.matches('[*][*]') || (r.matches('(:|/)[*][*]$') && !r.matches('[*][*].')))")
            .message("'**' stands only alone in the last segment of a resource")
    )]
    pub resources: Option<Vec<String>>,

    /// Required: the capability is usable only for one operation at a time, each asked for by a JitRequest that a person with the
    /// RBAC verb 'approve' has approved. The catalogue must then have a Capability of this name. Absent: as the catalogue says, and
    /// of two rules the strictest counts. Removing it needs 'grant' on the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ApprovalMode")]
    pub approval: Option<ApprovalMode>,
}

/// The tokens that an agent can obtain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Life of an access token in seconds, 1 to 900, by default 300. A token never outlives the credential it was
    /// exchanged for. Raising it needs 'grant' on every capability of the agent.
    #[serde(default = "default_expiration")]
    #[schemars(range(min = 1, max = 900))]
    pub expiration_seconds: u32,

    /// For whom the agent's tokens may be, at most 32. Each token is for exactly one. With one entry it need not be named
    /// in a request. Adding one needs 'grant' on every capability of the agent.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub audiences: Vec<AudienceEntry>,
}

/// Life of a token if the Agent does not say, in seconds.
pub(crate) const fn default_expiration() -> u32 {
    300
}

/// One audience.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AudienceEntry {
    /// The value of 'aud', usually the URL of the service that will receive the token. Compared character by character.
    #[schemars(length(min = 1, max = 256), regex(pattern = AUDIENCE_PATTERN))]
    #[x_kube(validation = Rule::new("!self.startsWith('agent:') && !self.startsWith('user:')")
        .message("an audience must not begin with 'agent:' or 'user:', which name agents and users"))]
    pub name: String,
}

/// What the operator reports about an agent. Only the operator writes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Ready: the agent can obtain tokens. Admitted: this generation was written while the admission policies were
    /// in force. Suspended: the suspension has taken effect. A reason other than the expected one says what to do.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The generation of the Agent that the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Counts revocations and only grows. A token lives only while the number in it equals this one.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub revocation_epoch: i64,
}
