//! Which Agents, Capabilities and TrustedIssuers are not in use, and why?

use super::{Finding, said};
use crate::crd::{Agent, CONDITION_READY, Capability, TrustedIssuer};
use crate::plugin::session::Session;
use crate::plugin::stored::{Stored, all};
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::ApiResource;
use serde_json::Value;

/// How many of one kind are named.
const NAMED_MAX: usize = 20;

/// Looks at each kind: at Agents in the namespace, or in all with -A.
pub(super) async fn look(session: &Session) -> Vec<Finding> {
    let everywhere = |resource: &ApiResource| Api::<Stored>::all_with(session.client.clone(), resource);
    let mut findings = kind("Capability", &everywhere(&ApiResource::erase::<Capability>(&()))).await;
    findings.extend(kind("TrustedIssuer", &everywhere(&ApiResource::erase::<TrustedIssuer>(&()))).await);
    findings.extend(kind("Agent", &session.listed::<Agent>()).await);
    findings
}

async fn kind(kind: &str, api: &Api<Stored>) -> Vec<Finding> {
    let objects = match all(api).await {
        Ok(objects) => objects,
        Err(error) => return vec![Finding::unknown(&format!("kind {kind}"), &error.into())],
    };
    let mut findings: Vec<Finding> = objects.iter().filter_map(|object| problem(kind, object)).collect();
    if findings.is_empty() {
        return vec![Finding::good(format!("kind {kind}: {} there, none of them out of use", objects.len()))];
    }
    let more = findings.len().saturating_sub(NAMED_MAX);
    findings.truncate(NAMED_MAX);
    if more > 0 {
        findings.push(Finding::notice(format!("kind {kind}: {more} more are not ready"), "mend these first"));
    }
    findings
}

fn problem(kind: &str, object: &Stored) -> Option<Finding> {
    let place = object.namespace().map(|namespace| format!("{}/", said(&namespace))).unwrap_or_default();
    let name = format!("{kind} {place}{}", said(&object.name_any()));
    let value = object.value();
    if !value.is_object() {
        return Some(Finding::notice(format!("{name} nests too deep to be read"), "see who wrote it, and delete it"));
    }
    let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
    let text = |condition: &Value, member: &str| said(condition.get(member).and_then(Value::as_str).unwrap_or_default());
    let ready = conditions.into_iter().flatten().find(|condition| text(condition, "type") == CONDITION_READY)?;
    let reason = text(ready, "reason");
    // What somebody has stopped is as they want it.
    if text(ready, "status") != "False" || reason == "Suspended" {
        return None;
    }
    Some(Finding::notice(
        format!("{name} is not ready: {}", text(ready, "message")),
        format!("{reason}: kubectl describe says more"),
    ))
}
