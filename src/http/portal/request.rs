//! One request: what would be done, for whom and through whom, what happened to it, and the form to decide on it.

use super::super::error::Refusal;
use super::super::kubernetes::{may, refused};
use super::inbox::risk;
use super::page::{Frame, Left, Text, clock, encoded, render};
use super::{Place, Visit, titled};
use crate::crd::{Agent, Approval, Capability, JitRequest, JitRequestStatus, Phase, User, Verdict};
use crate::grammar::AgentId;
use crate::headline::{Wording, headline};
use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::{Map, Value, json};

#[derive(Template)]
#[template(path = "portal/request.html")]
struct Page {
    frame: Frame,
    here: String,
    events: String,
    action: String,
    uid: String,
    namespace: Text,
    name: Text,
    headline: Text,
    risk: Option<&'static str>,
    phase: &'static str,
    progress: Option<Text>,
    left: Option<Left>,
    problem: Option<Text>,
    mine: Option<Mine>,
    capability: Text,
    title: Option<Text>,
    description: Option<Text>,
    resource: Option<Text>,
    audience: Text,
    seconds: u32,
    parameters: Vec<(Text, Text)>,
    digest: Option<Text>,
    justification: Option<Text>,
    user: Option<Text>,
    chain: Vec<Step>,
    path: Option<Text>,
    /// Who made the object, if it was not the token service for an agent that had asked there.
    requester: Option<Text>,
    reasons: Vec<Text>,
    is_open: bool,
    is_pending: bool,
    approve_command: String,
    deny_command: String,
    timeline: Vec<Event>,
}

/// What came of the decision of whoever looks.
struct Mine {
    is_void: bool,
    text: Text,
}

/// An agent of the chain.
struct Step {
    name: Text,
    owner: Option<Text>,
    is_last: bool,
}

/// Something that happened.
struct Event {
    at: String,
    clock: String,
    text: Text,
    comment: Option<Text>,
    is_void: bool,
}

/// The page, with what was refused if something was.
pub(super) async fn page(visit: &Visit, place: &Place, refusal: Option<&Refusal>) -> Result<Response, Refusal> {
    let api: Api<JitRequest> = Api::namespaced(visit.client.clone(), &place.namespace);
    let request = api.get(&place.name).await.map_err(refused)?;
    let status = request.status.clone().unwrap_or_default();
    let operation = &request.spec.operation;
    let (entry, owners, may_decide) = futures::join!(
        entry(visit, &operation.capability),
        owners(visit, place, &request),
        may(&visit.client, "approve", "capabilities", Some(&operation.capability), Some(&place.namespace)),
    );
    let wording = entry.as_ref().map_or_else(Wording::default, |entry| Wording::of(&entry.spec));
    let here = format!("/portal/requests/{}/{}", encoded(&place.namespace), encoded(&place.name));
    let (is_pending, is_open) =
        (status.phase == Some(Phase::Pending), matches!(status.phase, Some(Phase::Pending | Phase::Approved)));
    let mut reasons = reasons(&request, &visit.session.user, &owners);
    if !may_decide? {
        let capability = &operation.capability;
        reasons.push(format!(
            "You may not decide on this: it needs the verb approve on capabilities.countersign.dev/{capability} in namespace {}",
            place.namespace
        ));
    }
    let behalf = request.spec.on_behalf_of.as_ref();
    let page = Page {
        frame: Frame::living(visit, titled("Request", place), "requests", &here),
        events: format!("/portal/events/requests/{}/{}", encoded(&place.namespace), encoded(&place.name)),
        action: here.clone(),
        here,
        uid: request.uid().unwrap_or_default(),
        namespace: Text::of(&place.namespace),
        name: Text::of(&place.name),
        headline: Text::readable(headline(&place.namespace, &request.spec, &wording)),
        risk: entry.as_ref().and_then(|entry| entry.spec.risk).map(risk),
        phase: status.phase.map_or("New", Phase::as_str),
        progress: status.approval_progress.as_deref().map(Text::of),
        left: status.expires_at.as_ref().filter(|_| super::inbox::is_open(status.phase)).map(|at| Left::until(at, visit.now)),
        problem: refusal.map(|refusal| Text::of(refusal.description())),
        mine: mine(&status, &visit.session.user),
        capability: Text::of(&operation.capability),
        title: entry.as_ref().and_then(|entry| entry.spec.title.as_deref()).map(Text::of),
        description: entry.as_ref().and_then(|entry| entry.spec.description.as_deref()).map(Text::of),
        resource: operation.resource.as_deref().map(Text::of),
        audience: Text::of(&operation.audience),
        seconds: request.spec.expiration_seconds,
        parameters: operation.parameters.as_ref().map(rows).unwrap_or_default(),
        digest: status.digest.as_deref().map(Text::of),
        justification: request.spec.justification.as_deref().map(Text::of),
        user: behalf.and_then(|behalf| behalf.user.as_deref()).map(Text::of),
        path: path(&request, place),
        chain: steps(owners),
        requester: request
            .spec
            .requested_by
            .as_ref()
            .map(|user| user.username.as_str())
            .filter(|name| *name != visit.app.own.username)
            .map(Text::of),
        reasons: reasons.iter().map(|reason| Text::of(reason)).collect(),
        is_open: is_open && status.digest.is_some(),
        is_pending,
        approve_command: command(place, Verdict::Approved, status.digest.as_deref()),
        deny_command: command(place, Verdict::Denied, status.digest.as_deref()),
        timeline: timeline(&request, &status),
    };
    render(refusal.map_or(StatusCode::OK, Refusal::code), &page)
}

/// What the catalogue says of a capability, to whoever may read it.
async fn entry(visit: &Visit, name: &str) -> Option<Capability> {
    let api: Api<Capability> = Api::all(visit.client.clone());
    // The name is of the schema's pattern; it is checked again because it becomes part of a path.
    crate::grammar::CapabilityName::parse(name).ok()?;
    api.get_opt(name).await.ok().flatten()
}

/// The agents in the order in which they called one another, the one that asks last, each with its owner, if that may be seen.
async fn owners(visit: &Visit, place: &Place, request: &JitRequest) -> Vec<(String, Option<String>)> {
    let asks = format!("agent:{}/{}", place.namespace, request.spec.agent.name);
    let callers = request.spec.on_behalf_of.iter().flat_map(|behalf| behalf.chain.iter().cloned());
    let all = callers.chain([asks]).map(|subject| async move {
        let owner = match AgentId::parse(&subject) {
            Ok(id) => {
                let api: Api<Agent> = Api::namespaced(visit.client.clone(), id.namespace());
                api.get_opt(id.name()).await.ok().flatten().map(|agent| agent.spec.owner)
            }
            Err(_) => None,
        };
        (subject, owner)
    });
    futures::future::join_all(all).await
}

fn steps(owners: Vec<(String, Option<String>)>) -> Vec<Step> {
    let last = owners.len().saturating_sub(1);
    let step = |(at, (name, owner)): (usize, (String, Option<String>))| Step {
        name: Text::of(&name),
        owner: owner.as_deref().map(Text::of),
        is_last: at == last,
    };
    owners.into_iter().enumerate().map(step).collect()
}

/// The whole way in words, for whoever confirms.
fn path(request: &JitRequest, place: &Place) -> Option<Text> {
    let behalf = request.spec.on_behalf_of.as_ref()?;
    let user = behalf.user.iter().cloned();
    let agents = behalf.chain.iter().cloned();
    let steps: Vec<String> =
        user.chain(agents).chain([format!("agent:{}/{}", place.namespace, request.spec.agent.name)]).collect();
    Some(Text::of(&steps.join(" → ")))
}

/// Why an approval by whoever looks would not count, as far as it can be seen here. What counts is what the API server and the operator say.
fn reasons(request: &JitRequest, user: &User, owners: &[(String, Option<String>)]) -> Vec<String> {
    let mut reasons = Vec::new();
    if request.spec.requested_by.as_ref().is_some_and(|requester| requester.username == user.username) {
        reasons.push("You made this request yourself, and nobody approves a request of their own.".to_owned());
    }
    let is_mine = |owner: &&String| **owner == user.username || user.groups.contains(owner);
    for (agent, owner) in owners {
        if let Some(owner) = owner.as_ref().filter(is_mine) {
            reasons.push(format!("{owner} owns {agent}: your approval will not count. You may deny."));
        }
    }
    let subject = request.spec.on_behalf_of.as_ref().and_then(|behalf| behalf.user.as_ref());
    if subject.is_some_and(|subject| *subject == user.username) {
        reasons.push("It is done for you: unless the capability says otherwise, your approval will not count.".to_owned());
    }
    if user.username.starts_with("system:serviceaccount:") {
        reasons.push("A ServiceAccount never approves: a person must.".to_owned());
    }
    reasons
}

/// What came of the last decision of `user`.
fn mine(status: &JitRequestStatus, user: &User) -> Option<Mine> {
    if status.decision.as_ref().is_some_and(|decision| decision.by.as_ref().is_some_and(|by| by.username == user.username)) {
        let text = Text::of("Your decision is there; the operator has not recorded it yet.");
        return Some(Mine { is_void: false, text });
    }
    let last = status.approvals.iter().rev().find(|approval| approval.by.username == user.username)?;
    let (is_void, text) = match (&last.void, last.verdict) {
        (Some(why), _) => (true, format!("Your approval does not count: {why}.")),
        (None, Verdict::Approved) => (false, "You approved this.".to_owned()),
        (None, Verdict::Denied) => (false, "You denied this.".to_owned()),
    };
    Some(Mine { is_void, text: Text::of(&text) })
}

/// The parameters as lines, those of nested objects with dots between.
fn rows(parameters: &Map<String, Value>) -> Vec<(Text, Text)> {
    fn add(rows: &mut Vec<(Text, Text)>, name: &str, value: &Value) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                members.iter().for_each(|(member, value)| add(rows, &format!("{name}.{member}"), value));
            }
            Value::String(text) => rows.push((Text::of(name), Text::of(text))),
            other => rows.push((Text::of(name), Text::of(&other.to_string()))),
        }
    }
    let mut all = Vec::new();
    parameters.iter().for_each(|(name, value)| add(&mut all, name, value));
    all
}

/// The same decision with kubectl. The digest has no character that a shell knows.
fn command(place: &Place, verdict: Verdict, digest: Option<&str>) -> String {
    let patch = json!({"status": {"decision": {"verdict": verdict, "digest": digest}}});
    format!(
        "kubectl patch jitrequest {} --namespace {} --subresource=status --type=merge -p '{patch}'",
        place.name, place.namespace
    )
}

fn timeline(request: &JitRequest, status: &JitRequestStatus) -> Vec<Event> {
    let event = |at: &Time, text: String| Event {
        at: at.0.to_string(),
        clock: clock(at.0),
        text: Text::of(&text),
        comment: None,
        is_void: false,
    };
    let mut all: Vec<(&Time, Event)> = Vec::new();
    if let Some(at) = &request.metadata.creation_timestamp {
        all.push((at, event(at, format!("{} asked", request.spec.agent.name))));
    }
    all.extend(status.approvals.iter().map(|approval| (&approval.at, decided(approval))));
    // Both conditions say the same of one step.
    let mut said: Vec<&str> = Vec::new();
    for condition in &status.conditions {
        if !said.contains(&condition.message.as_str()) {
            said.push(&condition.message);
            let text = format!("{} ({})", condition.message, condition.reason);
            all.push((&condition.last_transition_time, event(&condition.last_transition_time, text)));
        }
    }
    for (at, text) in [
        (&status.issued_at, "the agent got its token"),
        (&status.completed_at, "the operation was reported as done"),
        (&status.finished_at, "the request ended"),
    ] {
        all.extend(at.as_ref().map(|at| (at, event(at, text.to_owned()))));
    }
    all.sort_by_key(|(at, _)| at.0);
    all.into_iter().map(|(_, event)| event).collect()
}

fn decided(approval: &Approval) -> Event {
    let verdict = match approval.verdict {
        Verdict::Approved => "approved",
        Verdict::Denied => "denied",
    };
    let void = approval.void.as_ref().map(|why| format!(", which does not count: {why}")).unwrap_or_default();
    Event {
        at: approval.at.0.to_string(),
        clock: clock(approval.at.0),
        text: Text::of(&format!("{} {verdict}{void}", approval.by.username)),
        comment: approval.comment.as_deref().map(Text::of),
        is_void: approval.void.is_some(),
    }
}
