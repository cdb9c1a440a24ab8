//! `delegation` of an Agent: for whom it may act, and who may call it.

use crate::grammar::SUBDOMAIN_PATTERN;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// For whom an agent may act, and who may hand it a task.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Delegation {
    /// The users for whom the agent may act, at most 16 entries: it exchanges their ID token for an access token with their name in it.
    /// A user must match one of the entries as a whole. Absent: none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub act_for: Vec<ActForEntry>,

    /// The agents that may call this one and hand it a task, at most 64: a token that one of them obtained for this agent as audience
    /// ('agent:<namespace>/<name>') can be exchanged by this agent for one that carries the whole chain. Absent: none.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub callers: Vec<CallerReference>,

    /// How many agents may call one another, this one included, in a chain of which this agent is part: 1 to 8, by default 4. Of all
    /// agents in a chain the strictest counts.
    #[serde(default = "default_depth")]
    #[schemars(range(min = 1, max = 8))]
    pub max_depth: u32,
}

/// How many agents may call one another if the Agent does not say.
pub(crate) const fn default_depth() -> u32 {
    4
}

/// Some users of one issuer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.subjects) || has(self.groups)")
    .message("say for which users: subjects, groups or both; subjects: ['*'] is every user of the issuer"))]
pub struct ActForEntry {
    /// The name of the TrustedIssuer, whose 'provides' must be Users.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub issuer: String,

    /// The applications whose ID tokens count, 1 to 16: 'aud' of the ID token must name one of them, and so must 'azp' if it is there.
    /// It must have been issued in the last 10 minutes.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,

    /// The users, 1 to 64 patterns of names as the TrustedIssuer's claimMappings make them, without prefix: '*' stands for any
    /// characters, for example *@acme.com; compared as a whole and in their case. Absent: whoever is in one of the groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub subjects: Option<Vec<String>>,

    /// The groups of which a user must be in at least one, 1 to 64, as Kubernetes knows them (with the prefix of the TrustedIssuer).
    /// With subjects beside it both must hold. Absent: groups do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Option<Vec<String>>,
}

/// An agent that may call.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CallerReference {
    /// Namespace of the Agent.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("a namespace is an RFC 1123 label"))]
    pub namespace: String,

    /// Name of the Agent.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name of an Agent is an RFC 1123 label"))]
    pub name: String,
}
