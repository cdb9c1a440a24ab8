//! Instructions to revoke: what an administrator writes into a status, and the operator carries out.

use super::{READABLE, User};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An instruction to revoke tokens of an agent, and everything derived from them: all of them, one token, or one chain. Whoever has
/// the RBAC verb 'revoke' on the Agent (resource 'agents', group 'countersign.dev', in its namespace) writes it with kubectl patch
/// --subresource=status. It is in force from the moment it is stored; the operator carries it out and removes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.all) ? 1 : 0) + (has(self.token) ? 1 : 0) + (has(self.chain) ? 1 : 0) == 1")
        .message("say what to revoke: exactly one of all, token and chain"),
    validation = Rule::new("!has(self.all) || self.all").message("all can only be true")
)]
pub struct AgentRevocation {
    /// true: every token of the agent that was issued so far, and of every chain through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub all: Option<bool>,

    /// The token of this identifier ('jti').
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub token: Option<String>,

    /// All tokens of the chain of this identifier ('txn'), through whichever agents: this agent must be one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub chain: Option<String>,

    /// Why, for the audit record. Up to 256 characters, no control or text-direction characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(READABLE).message("reason must not contain control or text-direction characters"))]
    pub reason: Option<String>,

    /// Who revokes. Written at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<User>,
}

/// An instruction to revoke the tokens that act for users of an issuer: for one of them, or for all. Whoever has the RBAC verb
/// 'revoke' on the TrustedIssuer (resource 'trustedissuers', group 'countersign.dev', in the whole cluster) writes it with kubectl
/// patch --subresource=status. It is in force from the moment it is stored; the operator carries it out and removes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.user) != has(self.allUsers)").message("say whose tokens to revoke: either user or allUsers"),
    validation = Rule::new("!has(self.allUsers) || self.allUsers").message("allUsers can only be true")
)]
pub struct UserRevocation {
    /// The user of this name, as claimMappings make it, without prefix: what tokens have behind 'user:'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(READABLE).message("user must not contain control or text-direction characters"))]
    pub user: Option<String>,

    /// true: all users of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub all_users: Option<bool>,

    /// Why, for the audit record. Up to 256 characters, no control or text-direction characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(READABLE).message("reason must not contain control or text-direction characters"))]
    pub reason: Option<String>,

    /// Who revokes. Written at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<User>,
}
