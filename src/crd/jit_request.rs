//! `JitRequest`: one operation for which an agent asks a person's approval.

use super::any_object;
use crate::grammar::{AUDIENCE_PATTERN, CAPABILITY_PATTERN, OPERATION_RESOURCE_PATTERN};
use crate::json::object_member;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Condition: a person has approved the request (True), or it ended without (False), or nobody has decided yet (Unknown).
pub const CONDITION_APPROVED: &str = "Approved";
/// Condition: the request has ended, one way or another.
pub const CONDITION_FINISHED: &str = "Finished";

/// Condition: those who are to be told of the request were told (True), or some could not be (False).
pub const CONDITION_NOTIFIED: &str = "Notified";

/// The pattern of a time with its zone (RFC 3339).
const TIME_PATTERN: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";
/// The pattern of a digest.
const DIGEST_PATTERN: &str = "^sha256:[0-9a-f]{64}$";

/// What an agent asks. It never changes once it is written.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "JitRequest",
    plural = "jitrequests",
    singular = "jitrequest",
    shortname = "jit",
    category = "countersign",
    namespaced,
    status = "JitRequestStatus",
    derive = "PartialEq",
    doc = "A JitRequest asks a person to approve one operation of one agent. Agents file it through the token service \
           (POST /oauth2/bc-authorize), or with kubectl under the agent's own ServiceAccount. Whoever has the RBAC verb 'approve' on \
           its capability (resource 'capabilities', group 'countersign.dev', in this namespace) decides with \
           kubectl patch jit NAME --subresource=status --type=merge -p '{\"status\":{\"decision\":{\"verdict\":\"Approved\"}}}'. \
           The agent then obtains exactly one token, good for exactly this operation. Phases only move forward. Deleting a request \
           withdraws it and ends its token.",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec cannot be changed: what was asked is what is approved; file another request"),
    validation = Rule::new("!has(oldSelf.status) || has(self.status)").message("status cannot be removed: what is decided stays decided"),
    validation = Rule::new(
        "(has(oldSelf.status) && has(oldSelf.status.phase)) || !has(self.status) || !has(self.status.phase) \
         || self.status.phase in ['Pending', 'Denied', 'Expired', 'Revoked']"
    )
    .message("a request begins as Pending, or is refused at once"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agent.name"),
    printcolumn(name = "Capability", type_ = "string", json_path = ".spec.operation.capability"),
    printcolumn(name = "Resource", type_ = "string", json_path = ".spec.operation.resource"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Approvals", type_ = "string", json_path = ".status.approvalProgress"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.agent.name",
    selectable = ".spec.operation.capability",
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
pub struct JitRequestSpec {
    /// The agent that asks. It is in the namespace of the request.
    pub agent: AgentReference,

    /// What it wants to do, exactly.
    pub operation: OperationSpec,

    /// On whose behalf the agent acts: the user and the agents in between, at the time of asking. Only the operator may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,

    /// Why, in the agent's words: up to 1,000 characters, no control or text-direction characters. It is not part of the digest
    /// and proves nothing: decide by the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    #[x_kube(validation = Rule::new(super::READABLE)
        .message("justification must not contain control or text-direction characters"))]
    pub justification: Option<String>,

    /// Life of the token once it is issued, in seconds, 1 to 900, by default 300. It is never longer than the Agent and the
    /// Capability allow.
    #[serde(default = "super::default_expiration")]
    #[schemars(range(min = 1, max = 900))]
    pub expiration_seconds: u32,

    /// Until when the question stands: a time with zone (RFC 3339), at most 7 days after the request was made. Absent: 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 35), regex(pattern = TIME_PATTERN), extend("format" = "date-time"))]
    pub decide_by: Option<String>,

    /// How long the object stays after the request has ended, in seconds, 10 to 604800, by default 3600. The audit log stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 604_800))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// Who made this object. Written at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<User>,
}

/// An agent in the namespace of the request.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AgentReference {
    /// Name of the Agent.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// UID of the Agent: of this registration and no later one of the same name. Absent: whichever has the name when the operator
    /// first sees the request; status.agentUid then says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub uid: Option<String>,
}

/// One operation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OperationSpec {
    /// Name of the capability, one that the Agent holds and that needs approval.
    #[schemars(length(min = 1, max = 100), regex(pattern = CAPABILITY_PATTERN))]
    pub capability: String,

    /// On what, 'type:id', for example invoice:INV-7. No wildcards. Needed where the Agent's capability is limited to resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 256), regex(pattern = OPERATION_RESOURCE_PATTERN))]
    pub resource: Option<String>,

    /// With what: an object that matches the parameterSchema of the Capability. At most 4 KiB as canonical JSON (RFC 8785), 8
    /// levels deep. Names are ASCII letters, digits, '_', '-' and '.'; numbers are those that a double holds exactly; texts have
    /// no control or text-direction characters. What is beyond that is denied by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_member")]
    #[schemars(schema_with = "any_object")]
    pub parameters: Option<Map<String, Value>>,

    /// For whom the token will be: one of the Agent's audiences.
    #[schemars(length(min = 1, max = 256), regex(pattern = AUDIENCE_PATTERN))]
    pub audience: String,
}

/// The user and the call chain for whom an agent asks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OnBehalfOf {
    /// The user's name in Kubernetes, if there is a user. Unless the Capability says otherwise, this user cannot approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub user: Option<String>,

    /// The agents that called one another until they called this one, first the one that began: subjects,
    /// 'agent:<namespace>/<name>'. Their owners cannot approve.
    #[serde(default)]
    #[schemars(length(max = 8), inner(length(min = 1, max = 200)))]
    pub chain: Vec<String>,

    /// What the token with which this agent was called said of them: whoever of them is stopped, or revoked, ends this request too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// What ties a request to the tokens from which it descends.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// The user, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserReference>,

    /// For each agent of the chain its registration and revocation epoch, in the order of the chain.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub links: Vec<ChainLink>,

    /// The identifier of the chain ('txn').
    #[schemars(length(min = 1, max = 64))]
    pub transaction: String,

    /// The identifiers ('jti') of the tokens, first the one that began.
    #[serde(default)]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    pub ancestors: Vec<String>,
}

/// A user of the organisation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UserReference {
    /// The name, as in tokens behind 'user:'.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The TrustedIssuer that vouched.
    #[schemars(length(min = 1, max = 253))]
    pub issuer: String,

    /// UID of the TrustedIssuer.
    #[schemars(length(min = 1, max = 64))]
    pub issuer_uid: String,

    /// The revocation count of the user.
    pub epoch: i64,
}

/// An agent of a chain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChainLink {
    /// UID of the Agent.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// Its revocation epoch.
    pub epoch: i64,
}

/// Somebody as the API server knows them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user name.
    #[schemars(length(min = 1, max = 1024))]
    pub username: String,

    /// The user's unique identifier, if the authenticator gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub uid: Option<String>,

    /// The groups.
    #[serde(default)]
    #[schemars(length(max = 512), inner(length(max = 512)))]
    pub groups: Vec<String>,
}

/// How far a request has come. It only moves forward.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nobody has decided.
    Pending,
    /// Enough persons approved; the agent has not obtained its token.
    Approved,
    /// A person said no, or a rule did.
    Denied,
    /// The question, the approval or the token ran out.
    Expired,
    /// The agent withdrew it.
    Cancelled,
    /// The one token was issued and is alive.
    Issued,
    /// The operation is done and the token dead.
    Completed,
    /// The agent was stopped, or lost what it asked for.
    Revoked,
}

/// What a person decides.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Yes.
    Approved,
    /// No. Final.
    Denied,
}

/// The decision of one person, written by that person.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Approved or Denied.
    pub verdict: Verdict,

    /// A word to whoever reads it later, up to 1,000 characters, no control or text-direction characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    #[x_kube(validation = Rule::new(super::READABLE).message("comment must not contain control or text-direction characters"))]
    pub comment: Option<String>,

    /// The digest of what was decided on. Optional: if it is there, it must be that of the request, so that nobody decides on another
    /// request that took the name meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST_PATTERN))]
    pub digest: Option<String>,

    /// Who decided. Written at admission; where the cluster has no MutatingAdmissionPolicy, write your own user name, uid and
    /// groups (kubectl auth whoami).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<User>,
}

/// A decision as the operator has recorded it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Who.
    pub by: User,

    /// What.
    pub verdict: Verdict,

    /// The comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub comment: Option<String>,

    /// When it was recorded.
    pub at: Time,

    /// Why it does not count, if it does not: for example because the person owns the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub void: Option<String>,
}

/// What became of the request. Only 'decision' is written by people; the rest only by the operator.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(oldSelf.phase) || (has(self.phase) && (self.phase == oldSelf.phase \
         || (oldSelf.phase == 'Pending' && self.phase in ['Approved', 'Denied', 'Expired', 'Cancelled', 'Revoked']) \
         || (oldSelf.phase == 'Approved' && self.phase in ['Issued', 'Denied', 'Expired', 'Cancelled', 'Revoked']) \
         || (oldSelf.phase == 'Issued' && self.phase in ['Completed', 'Expired', 'Revoked'])))"
    )
    .message("status.phase only moves forward: Pending, Approved, Issued, Completed, or to Denied, Expired, Cancelled, Revoked"),
    validation = Rule::new(
        "(!has(oldSelf.digest) || has(self.digest)) && (!has(oldSelf.agentUid) || has(self.agentUid)) \
         && (!has(oldSelf.redeemBy) || has(self.redeemBy)) && (!has(oldSelf.jti) || has(self.jti)) \
         && (!has(oldSelf.issuedAt) || has(self.issuedAt)) && (!has(oldSelf.tokenExpiresAt) || has(self.tokenExpiresAt)) \
         && (!has(oldSelf.keyId) || has(self.keyId)) && (!has(oldSelf.agentEpoch) || has(self.agentEpoch)) \
         && (!has(oldSelf.boundTo) || has(self.boundTo)) \
         && (!has(oldSelf.finishedAt) || has(self.finishedAt)) && (!has(oldSelf.completedAt) || has(self.completedAt))"
    )
    .message("what status says once it says for good: digest, agentUid, redeemBy, jti, issuedAt, tokenExpiresAt, keyId, agentEpoch, boundTo, finishedAt and completedAt cannot be removed"),
    validation = Rule::new(
        "size(self.approvals) >= size(oldSelf.approvals) && oldSelf.approvals.all(o, self.approvals.exists(a, \
         a.by.username == o.by.username && a.verdict == o.verdict && a.at == o.at))"
    )
    .message("status.approvals only grows"),
    validation = Rule::new(
        "!has(oldSelf.decision) || has(self.decision) || (size(self.approvals) > size(oldSelf.approvals) && has(oldSelf.decision.by) \
         && self.approvals.exists(a, a.verdict == oldSelf.decision.verdict && a.by.username == oldSelf.decision.by.username))"
    )
    .message("a decision cannot be undone: it leaves status.decision only into status.approvals"),
    validation = Rule::new(
        "!has(oldSelf.decision) || oldSelf.decision.verdict != 'Denied' || (has(self.phase) && self.phase == 'Denied') \
         || (has(self.decision) && self.decision == oldSelf.decision && has(self.phase) && has(oldSelf.phase) && self.phase == oldSelf.phase)"
    )
    .message("Denied is final"),
    validation = Rule::new(
        "!has(self.phase) || self.phase != 'Issued' || (has(self.jti) && has(self.issuedAt) && has(self.tokenExpiresAt) && has(self.keyId) \
         && has(self.agentEpoch) && has(self.redeemBy) && has(self.evidence))"
    )
    .message("an issued request names its token")
)]
pub struct JitRequestStatus {
    /// How far the request has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Phase")]
    pub phase: Option<Phase>,

    /// SHA-256 of the canonical JSON (RFC 8785) of spec without justification and requestedBy: what is approved, and what the token
    /// carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST_PATTERN))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the digest cannot be changed"))]
    pub digest: Option<String>,

    /// UID of the Agent that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the agent cannot be changed"))]
    pub agent_uid: Option<String>,

    /// A person's decision, until the operator has moved it into approvals. It is accepted while the phase is Pending and the digest
    /// is set; a Denied also while the phase is Approved, and in place of an Approved that was not moved yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,

    /// The decisions so far. At most 8; the request is denied where more would be needed.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub approvals: Vec<Approval>,

    /// How many persons have approved, of how many who must, for example '1/2'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub approval_progress: Option<String>,

    /// When the present phase ends by itself: the question, the approval or the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// Until when an approval can be turned into a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("redeemBy cannot be changed"))]
    pub redeem_by: Option<Time>,

    /// Identifier (jti) of the one token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("one approval is good for one token: jti cannot be changed"))]
    pub jti: Option<String>,

    /// When the token was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("issuedAt cannot be changed"))]
    pub issued_at: Option<Time>,

    /// When the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("tokenExpiresAt cannot be changed"))]
    pub token_expires_at: Option<Time>,

    /// The key (kid) that signed the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("keyId cannot be changed"))]
    pub key_id: Option<String>,

    /// The Agent's revocation epoch when the token was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("agentEpoch cannot be changed"))]
    pub agent_epoch: Option<i64>,

    /// Thumbprint (RFC 7638) of the key to which the token is bound (RFC 9449). Absent: whoever has the token can use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("boundTo cannot be changed"))]
    pub bound_to: Option<String>,

    /// When the operation was reported as done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("completedAt cannot be changed"))]
    pub completed_at: Option<Time>,

    /// When the request ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("finishedAt cannot be changed"))]
    pub finished_at: Option<Time>,

    /// Proves that the operator itself recorded these approvals for this digest (HMAC-SHA256 under a key that only it has). What
    /// lacks it was written by somebody else and is not honoured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub evidence: Option<String>,

    /// Approved: True once enough persons approved, False if the request ended without, with the reason. Finished: True once it has ended.
    /// Notified: whether those who are to be told of the last thing that happened were told; absent if nobody is to be.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The generation that the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
