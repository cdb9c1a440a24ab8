//! `Agent`: who an AI agent is, how it proves it, and what it may do.

use super::{AgentRevocation, Delegation};
use crate::grammar::{AUDIENCE_PATTERN, CAPABILITY_PATTERN, OWNER_PATTERN, RESOURCE_PATTERN, SUBDOMAIN_PATTERN};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Condition: the agent can obtain tokens.
pub const CONDITION_READY: &str = "Ready";
/// Condition: this generation was written while the admission policies were in force.
pub const CONDITION_ADMITTED: &str = "Admitted";
/// Condition: every credential that the Agent lists can be used, or what stands in the way of one.
pub const CONDITION_IDENTITY_RESOLVED: &str = "IdentityResolved";
/// Condition: the suspension of the agent has taken effect and its earlier tokens are dead for good.
pub const CONDITION_SUSPENDED: &str = "Suspended";

/// RFC 3339 section 5.6, of this millennium and the next.
const NOT_AFTER_PATTERN: &str =
    r"^[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

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
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.revoke) || (has(self.status) && ( \
         (has(self.status.revoke) && self.status.revoke == oldSelf.status.revoke) || \
         (has(self.status.revocationEpoch) && (has(oldSelf.status.revocationEpoch) ? oldSelf.status.revocationEpoch : 0) \
         < self.status.revocationEpoch) || \
         (!has(oldSelf.status.revoke.all) && has(self.status.revokedTokens) && self.status.revokedTokens.exists(t, \
         t.id == (has(oldSelf.status.revoke.token) ? oldSelf.status.revoke.token : oldSelf.status.revoke.chain)))))"
    )
    .message("there is an instruction in status.revoke, which cannot be changed or taken back: retry once the operator has carried it out"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended"),
    printcolumn(name = "Identity", type_ = "string", json_path = ".status.conditions[?(@.type=='IdentityResolved')].reason", priority = 1),
    printcolumn(name = "Capabilities", type_ = "string", json_path = ".spec.capabilities[*].name", priority = 1),
    printcolumn(name = "Possession", type_ = "string", json_path = ".spec.tokens.proofOfPossession", priority = 1),
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
    /// once, at most 64. Adding an entry, or changing one other than by taking away resources, demanding approval or adding a condition, needs 'grant' on its name;
    /// at most 24 may be added in one update, unless the user may grant all capabilities.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub capabilities: Vec<CapabilityEntry>,

    /// For whom the agent may act, and who may hand it a task. Absent: it acts for itself only, and nobody calls it. Changing it, other
    /// than by taking it away as a whole, needs 'grant' on every capability of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Delegation>,

    /// The tokens that the agent can obtain. Absent: none for any service, only such with which it calls agents that name it as caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

/// How an agent proves who it is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("size(self.serviceAccounts) + size(self.keys) + size(self.federated) > 0")
    .message("an agent needs at least one way to prove who it is: serviceAccounts, keys or federated"))]
pub struct Identity {
    /// ServiceAccounts in the namespace of the Agent, at most 16. A pod that runs under one of them exchanges its
    /// projected token, requested for the issuer's URL as audience. A ServiceAccount belongs to one Agent: if two
    /// claim it, the older keeps it and the other is not Ready. Do not use 'default': every pod that names no other
    /// ServiceAccount runs under it.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub service_accounts: Vec<ServiceAccountRef>,

    /// Public Ed25519 keys, at most 8, for agents outside the cluster: they sign client assertions (private_key_jwt) with
    /// the private key, which 'countersign keygen' makes and nobody else holds. Several overlap while one replaces another.
    /// Removing a key ends it at once. A key belongs to one Agent: if two list it, the older keeps it and the other is not Ready.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub keys: Vec<KeyEntry>,

    /// Identities that other issuers vouch for, at most 16: a workload in another cluster, AWS, GCP, Azure, GitHub, SPIFFE.
    /// If two Agents list the same one, the older keeps it and the other is not Ready.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub federated: Vec<FederatedEntry>,
}

/// A ServiceAccount in the namespace of the Agent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// Name of the ServiceAccount, which is in the namespace of the Agent.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub name: String,
}

/// One public key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeyEntry {
    /// The name of the key, which an assertion may say in its header: letters, digits, '.', '_' and '-', at most 64. Absent: the
    /// key's thumbprint (RFC 7638), by which an assertion may name any key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub kid: Option<String>,

    /// The public key: Ed25519, as PEM ('BEGIN PUBLIC KEY') or as a JWK in JSON (RFC 8037). Never the private key.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("!self.contains('PRIVATE KEY') && !self.matches('\"d\"[ \\t\\r\\n]*:')")
            .message("this is a private key: nobody but the agent may have it, so it is worthless now; make another and paste only the public key"),
        validation = Rule::new("self.startsWith('-----BEGIN PUBLIC KEY-----') || self.startsWith('{')")
            .message("publicKey is PEM that begins with '-----BEGIN PUBLIC KEY-----', or a JWK as a JSON object")
    )]
    pub public_key: String,

    /// From when on the key counts no more, and no token that was issued for it lives longer: a time with zone (RFC 3339), for example
    /// 2027-01-31T00:00:00Z. Absent: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), regex(pattern = NOT_AFTER_PATTERN), extend("format" = "date-time"))]
    pub not_after: Option<String>,
}

/// One identity that another issuer vouches for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FederatedEntry {
    /// The name of the TrustedIssuer, whose 'provides' must be Workloads.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub issuer: String,

    /// The subject: 'sub' of the token, compared character by character. There are no wildcards.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(super::READABLE).message("a subject has no control characters and none that change the direction of text"))]
    pub subject: String,

    /// More claims that the token must carry, at most 16. A name that begins with '/' is a JSON Pointer (RFC 6901) into the claims, for
    /// example /google/compute_engine/project_id; any other is the name of a claim. Values are compared as texts: a string as it is,
    /// true, false and whole numbers as JSON writes them; nothing else matches.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub claims: BTreeMap<String, ClaimValue>,
}

/// The value that a claim must have, as text. Up to 512 characters.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct ClaimValue(#[schemars(length(min = 1, max = 512))] pub String);

/// How a token is signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SigningAlgorithm {
    /// Ed25519.
    #[default]
    EdDSA,
    /// ECDSA with P-256 and SHA-256.
    ES256,
}

impl SigningAlgorithm {
    /// All of them, in their order.
    pub const ALL: [Self; 2] = [Self::EdDSA, Self::ES256];

    /// Its name in a JWS header and in metadata.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDSA => "EdDSA",
            Self::ES256 => "ES256",
        }
    }
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

    /// A condition in CEL (the language of Kubernetes' own admission policies), up to 1,024 characters, for example
    /// context.amount < 1000. The capability is usable only while it is true; if it is false, cannot be evaluated, or asks for something
    /// that nobody has said, that is a no. It sees:
    /// agent (id, namespace, name, owner): the agent that acts;
    /// subject (type, id, name; issuer of a user): on whose behalf, a user or the agent that began;
    /// chain (agents, depth): the ids of all agents that called one another, first the one that began;
    /// action (name, properties): the capability, and the parameters of the operation;
    /// resource (type, id, properties): what it is done to, if that is known;
    /// context: the parameters of the operation and, in an authorization check, what the resource server says beside them.
    /// A condition that needs a resource or context is not met by asking for a token with scope alone: name the operation in
    /// authorization_details. In a chain, the condition of each agent must be true. There are no regular expressions. If it is no CEL,
    /// the capability is denied and condition Ready says why. Adding it needs no right, changing or removing it needs 'grant' on the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
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

    /// Whether a token of the agent is bound to a key (RFC 9449). DPoP: the agent gets a token only with a proof that it has a key, and
    /// the token is of use only to whoever has that key, so that a token which is read in a log or taken on its way is worthless;
    /// tokens that the agent was given before without one are dead at once. Its resource servers must ask for proofs too. None, the
    /// default: an agent that sends a proof gets a bound token, one that sends none a bearer token. Going back to None needs 'grant' on
    /// every capability of the agent.
    #[serde(default)]
    pub proof_of_possession: ProofOfPossession,
}

/// Whether a token is bound to a key.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProofOfPossession {
    /// Only if the agent wants it.
    #[default]
    None,
    /// Always (RFC 9449).
    DPoP,
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

    /// How tokens for this audience are signed: EdDSA (Ed25519), the default, or ES256 (ECDSA with P-256 and SHA-256) for services that
    /// know no EdDSA, such as kube-apiserver. The keys for both are published. Changing it needs 'grant' on every capability of the
    /// agent.
    #[serde(default)]
    pub signing_algorithm: SigningAlgorithm,
}

/// What the operator reports about an agent. Only the operator writes it, but for 'revoke'.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Ready: the agent can obtain tokens. IdentityResolved: every ServiceAccount, key and federated identity that it lists can be
    /// used. Admitted: this generation was written while the admission policies were in force. Suspended: the suspension has taken
    /// effect. A reason other than the expected one says what to do.
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

    /// Single tokens and chains of this agent that are revoked, and everything derived from them: until they would have ended anyway. At
    /// most 256; one more, and the epoch grows instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub revoked_tokens: Vec<RevokedToken>,

    /// An instruction to revoke, by whoever has the RBAC verb 'revoke' on this Agent: the one thing in the status that people write. It is
    /// in force at once; the operator carries it out, removes it and records who gave it. It cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<AgentRevocation>,

    /// The thumbprints (RFC 7638) of the keys that can be used now, in the order of spec.identity.keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub key_thumbprints: Vec<String>,
}

/// A token or chain that is revoked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevokedToken {
    /// Identifier: 'jti' of the token, or 'txn' of the chain.
    #[schemars(length(min = 1, max = 64))]
    pub id: String,

    /// When no such token can be alive any more, and the entry may go.
    pub expires_at: Time,
}
