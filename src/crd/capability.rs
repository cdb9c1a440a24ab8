//! `Capability`: the catalogue of what agents can be allowed to do, and under which rule.

use super::any_object;
use crate::json::object_member;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the catalogue says about one capability.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "Capability",
    plural = "capabilities",
    singular = "capability",
    shortname = "cap",
    category = "countersign",
    status = "CapabilityStatus",
    derive = "PartialEq",
    doc = "A Capability is one entry of the catalogue: what a capability of that name means, how risky it is, and the rule under \
           which agents may use it. The name of the object is the name of the capability. An Agent may hold a capability that is \
           not in the catalogue, unless the Agent demands approval for it: then the rule must be here. Of the rules of Agent and \
           Capability the strictest counts. Writing or deleting an entry needs the RBAC verb 'grant' on it in the whole cluster, \
           because it changes what every Agent that holds it may do.",
    validation = Rule::new("self.metadata.name.size() <= 100")
        .message("the name of a capability has at most 100 characters"),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title"),
    printcolumn(name = "Risk", type_ = "string", json_path = ".spec.risk"),
    printcolumn(name = "Approval", type_ = "boolean", json_path = ".spec.approval.required"),
    printcolumn(name = "Persons", type_ = "integer", json_path = ".spec.approval.approvals"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.risk"
)]
#[serde(rename_all = "camelCase")]
pub struct CapabilitySpec {
    /// What it is, in a few words for people: shown to whoever approves. Up to 100 characters; no control or
    /// text-direction characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new(super::READABLE)
        .message("title must not contain control or text-direction characters"))]
    pub title: Option<String>,

    /// What one operation of it does, in words that go on from "wants to": 'pay {amount} {currency} on {id}'. In braces: the name of a
    /// parameter, with dots for nested ones, {resource}, or {id}, the part of the resource behind its type. Shown to whoever approves, above
    /// all the parameters; a request that lacks one of them is shown without these words. Up to 200 characters; no control or
    /// text-direction characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new(super::READABLE)
        .message("headline must not contain control or text-direction characters"),
        validation = Rule::new(r"self.matches('^([^{}]|[{][A-Za-z0-9_.-]+[}])*$')")
        .message("headline has a brace without its other, or a name in braces that no parameter can have"))]
    pub headline: Option<String>,

    /// What an agent that holds it can do, and what could go wrong. Up to 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2000))]
    pub description: Option<String>,

    /// What people call it, for questions in plain words (POST /ask): verbs ("pay"), nouns ("invoice"), or a verb with its noun ("settle an
    /// invoice"), in any language. Up to 32 of up to 64 characters; no control or text-direction characters. The words of the name count
    /// anyhow: document.read is "read" and "document".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new(super::READABLE_EACH)
        .message("phrases must not contain control or text-direction characters"))]
    pub phrases: Vec<String>,

    /// How bad its misuse would be: Low, Medium, High or Critical. By itself it changes no decision; it is shown to whoever
    /// approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Risk")]
    pub risk: Option<Risk>,

    /// Whether each use needs a person's approval, and whose. Absent: it needs none, unless the Agent says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRule>,

    /// A JSON Schema (draft 2020-12 unless '$schema' says otherwise) for the parameters of an operation, at most 32 KiB. A
    /// request whose parameters do not match it is refused. References to other documents are not followed, and regular
    /// expressions have no look-around and no back-references. If it cannot be used, the capability is denied to everybody and
    /// condition Ready says why. Absent: any parameters within the general limits.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_member")]
    #[schemars(schema_with = "any_object")]
    pub parameter_schema: Option<Map<String, Value>>,
}

/// How bad the misuse of a capability would be.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// Nothing to speak of.
    Low,
    /// A nuisance.
    Medium,
    /// Damage.
    High,
    /// Damage that cannot be undone.
    Critical,
}

/// Who must approve the use of a capability.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRule {
    /// Whether each use needs approval, for every Agent. By default true. false: only where the Agent says so; the other fields
    /// then hold for those.
    #[serde(default = "default_required")]
    pub required: bool,

    /// How many different persons must approve, 1 or 2. By default 1.
    #[serde(default = "default_approvals")]
    #[schemars(range(min = 1, max = 2))]
    pub approvals: u8,

    /// Whether the user on whose behalf the agent acts may approve. By default false. The agent's owner and the requester never
    /// may.
    #[serde(default)]
    pub subject_may_approve: bool,

    /// Longest life of a token that was approved, in seconds, 1 to 900. Absent: as the request and the Agent say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 900))]
    pub max_expiration_seconds: Option<u32>,
}

const fn default_required() -> bool {
    true
}

const fn default_approvals() -> u8 {
    1
}

/// What the operator reports about a catalogue entry. Only the operator writes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityStatus {
    /// Ready: the rule is in force. False: the capability is denied to everybody, and the message says what to mend. Admitted: this
    /// generation was written while the admission policies were in force.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The generation that the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
