//! What is said: a CloudEvent (<https://github.com/cloudevents/spec>, version 1.0, structured mode).

use super::Occasion;
use crate::crd::{CONDITION_APPROVED, Phase, Risk, Verdict};
use crate::headline::{Wording, headline};
use crate::jit::Request;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The content type of an event on its own.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// What an event says that is not in the request.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// Our issuer URL: who speaks.
    pub issuer: &'a str,
    /// The URL of the pages on which people decide, if they are served.
    pub portal: Option<&'a str>,
    /// How the catalogue speaks of the capability.
    pub wording: &'a Wording,
    /// How bad its misuse would be, if the catalogue says so.
    pub risk: Option<Risk>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The version of CloudEvents.
    pub specversion: String,
    /// Identifies it: the same for every receiver and every attempt.
    pub id: String,
    /// Our issuer URL.
    pub source: String,
    /// What happened: `dev.countersign.jitrequest.` and the occasion.
    #[serde(rename = "type")]
    pub kind: String,
    /// Namespace and name of the request.
    pub subject: String,
    /// When it was noticed.
    pub time: String,
    /// Of the data.
    pub datacontenttype: String,
    /// The request.
    pub data: Data,
}

/// What is said of a request. Texts are as they are in the object: whoever shows them escapes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// The request in one sentence, without anything that acts on what shows it.
    pub headline: String,
    /// What happened last, in one sentence.
    pub message: String,
    /// Namespace of the request.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// How far it has come.
    pub phase: Option<Phase>,
    /// Until when the question, or the approval, stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The agent: `agent:<namespace>/<name>`.
    pub agent: String,
    /// The user for whom it acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The agents that called one another until they called this one, first the one that began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// The capability.
    pub capability: String,
    /// What that is, in the words of the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How bad its misuse would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// On what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    /// For whom the token will be.
    pub audience: String,
    /// Why, in the agent's words. It proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
    /// The digest of what is asked: what a person signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How many have approved of how many: "0/1".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<String>,
    /// Who decided so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decided>,
    /// The page on which to decide, if there are pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How to decide in a terminal.
    pub command: String,
}

/// A decision of one person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// Who.
    pub by: String,
    /// What.
    pub verdict: Verdict,
    /// The comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When.
    pub at: String,
    /// Why it does not count, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub void: Option<String>,
}

impl Event {
    /// What is said of `request` on `occasion`, at `now` in seconds since the epoch.
    #[must_use]
    pub fn new(request: &Request, occasion: Occasion, source: &Source<'_>, now: i64) -> Self {
        let (id, spec, status) = (&request.id, &request.spec, &request.status);
        let (namespace, name) = (&id.namespace, &id.name);
        let behalf = spec.on_behalf_of.as_ref();
        let approved = status.conditions.iter().find(|c| c.type_ == CONDITION_APPROVED);
        let message = match occasion {
            Occasion::Cancelled if request.status.phase == Some(Phase::Pending) => "the request was deleted".to_owned(),
            _ => approved.map(|c| c.message.clone()).unwrap_or_default(),
        };
        let decisions = status.approvals.iter().map(|approval| Decided {
            by: approval.by.username.clone(),
            verdict: approval.verdict,
            comment: approval.comment.clone(),
            at: approval.at.0.to_string(),
            void: approval.void.clone(),
        });
        let data = Data {
            headline: headline(namespace, spec, source.wording),
            message,
            namespace: namespace.clone(),
            name: name.clone(),
            uid: request.uid.clone(),
            phase: status.phase,
            expires_at: status.expires_at.as_ref().map(|at| at.0.to_string()),
            agent: format!("agent:{namespace}/{}", spec.agent.name),
            user: behalf.and_then(|behalf| behalf.user.clone()),
            chain: behalf.map(|behalf| behalf.chain.clone()).unwrap_or_default(),
            capability: spec.operation.capability.clone(),
            title: source.wording.title().map(str::to_owned),
            risk: source.risk,
            resource: spec.operation.resource.clone(),
            parameters: spec.operation.parameters.clone(),
            audience: spec.operation.audience.clone(),
            justification: spec.justification.clone(),
            digest: status.digest.clone(),
            approvals: status.approval_progress.clone(),
            decisions: decisions.collect(),
            url: source.portal.map(|portal| format!("{portal}/requests/{namespace}/{name}")),
            command: format!("kubectl countersign show -n {namespace} {name}"),
        };
        Self {
            specversion: "1.0".to_owned(),
            id: format!("{}.{}", request.uid, occasion.as_str()),
            source: source.issuer.to_owned(),
            kind: format!("dev.countersign.jitrequest.{}", occasion.as_str()),
            subject: format!("{namespace}/{name}"),
            time: Timestamp::from_second(now).unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }
}
