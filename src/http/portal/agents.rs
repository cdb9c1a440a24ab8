//! Agents: who is registered, one of them, and registering or changing one: by a manifest that is shown, with what the API server would
//! say to it, before anything is written.

use super::super::error::Refusal;
use super::super::form::Form;
use super::super::kubernetes::whoami;
use super::super::registration::{Agents, Intent};
use super::manifest::{self, Manifest};
use super::page::{Frame, Text, encoded, render, see_other};
use super::{Place, Visit, titled};
use crate::audit::{Outcome, Record};
use crate::grammar::AgentId;
use crate::readable::is_invisible;
use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use std::collections::BTreeSet;

/// How many are shown at once.
const ROWS_MAX: u32 = 500;

#[derive(Template)]
#[template(path = "portal/agents.html")]
struct List {
    frame: Frame,
    problem: Option<Text>,
    rows: Vec<Row>,
    next: Option<String>,
    kubectl: String,
}

struct Row {
    uid: String,
    link: String,
    name: Text,
    display_name: Option<Text>,
    namespace: Text,
    owner: Text,
    ready: Text,
    is_ready: bool,
    is_suspended: bool,
    capabilities: Text,
}

/// Who is registered.
pub(super) async fn list(visit: &Visit) -> Result<Response, Refusal> {
    let namespace = visit.namespace()?;
    let place = namespace.map_or_else(|| "--all-namespaces".to_owned(), |namespace| format!("--namespace={namespace}"));
    let mut page = List {
        frame: Frame::of(visit, Text::of("Agents"), "agents"),
        problem: None,
        rows: Vec::new(),
        next: None,
        kubectl: format!("kubectl get agents {place}"),
    };
    let status = match Agents(&visit.client).list(namespace, ROWS_MAX, visit.get("continue")).await {
        Ok(list) => {
            page.rows = list.get("items").and_then(Value::as_array).into_iter().flatten().map(row).collect();
            let rest = list.pointer("/metadata/continue").and_then(Value::as_str).filter(|rest| !rest.is_empty());
            page.next = rest.map(|rest| format!("/portal/agents?continue={}{}", encoded(rest), page.frame.and_place()));
            StatusCode::OK
        }
        Err(refusal) if matches!(refusal.code(), StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
            page.problem = Some(Text::of(refusal.description()));
            refusal.code()
        }
        Err(refusal) => return Err(refusal),
    };
    render(status, &page)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Condition Ready: whether it holds, and why or why not.
fn ready(object: &Value) -> (bool, String) {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| text(condition, "/type") == "Ready");
    ready.map_or((false, "not seen yet".to_owned()), |ready| match text(ready, "/status") {
        "True" => (true, "Ready".to_owned()),
        _ => (false, text(ready, "/reason").to_owned()),
    })
}

fn row(object: &Value) -> Row {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let capabilities = object.pointer("/spec/capabilities").and_then(Value::as_array);
    let names: Vec<&str> = capabilities.into_iter().flatten().map(|capability| text(capability, "/name")).collect();
    let (is_ready, ready) = ready(object);
    Row {
        uid: text(object, "/metadata/uid").to_owned(),
        link: format!("/portal/agents/{}/{}", encoded(namespace), encoded(name)),
        name: Text::of(name),
        display_name: object.pointer("/spec/displayName").and_then(Value::as_str).map(Text::of),
        namespace: Text::of(namespace),
        owner: Text::of(text(object, "/spec/owner")),
        ready: Text::of(&ready),
        is_ready,
        is_suspended: object.pointer("/spec/suspended") == Some(&Value::Bool(true)),
        capabilities: Text::of(&names.join(", ")),
    }
}

#[derive(Template)]
#[template(path = "portal/agent.html")]
struct One {
    frame: Frame,
    row: Row,
    subject: String,
    conditions: Vec<(Text, Text, Text)>,
    capabilities: Vec<(Text, Text, &'static str, Text)>,
    manifest: Text,
    edit: String,
    trace: String,
    kubectl: String,
    suspend: String,
}

/// One of them.
pub(super) async fn one(visit: &Visit, id: &AgentId) -> Result<Response, Refusal> {
    let object = Agents(&visit.client).get(id).await?;
    let (namespace, name) = (id.namespace(), id.name());
    let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let condition = |c: &Value| {
        let state = format!("{} ({})", text(c, "/status"), text(c, "/reason"));
        (Text::of(text(c, "/type")), Text::of(&state), Text::of(text(c, "/message")))
    };
    let capability = |c: &Value| {
        let resources = c.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
        let resources: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
        let resources = if resources.is_empty() { "any".to_owned() } else { resources.join(", ") };
        let approval = if text(c, "/approval") == "Required" { "a person, each time" } else { "as the catalogue says" };
        (Text::of(text(c, "/name")), Text::of(&resources), approval, Text::of(text(c, "/when")))
    };
    let page = One {
        frame: Frame::of(visit, titled("Agent", &Place { namespace: namespace.to_owned(), name: name.to_owned() }), "agents"),
        row: row(&object),
        subject: id.to_string(),
        conditions: list("/status/conditions").iter().map(condition).collect(),
        capabilities: list("/spec/capabilities").iter().map(capability).collect(),
        manifest: Text::readable(manifest::of_object(&object)),
        edit: format!("/portal/agents/{namespace}/{name}/edit"),
        trace: format!("/portal/audit/trace?subject={}", encoded(&id.to_string())),
        kubectl: format!("kubectl get agent {name} --namespace {namespace} -o yaml"),
        suspend: format!(
            "kubectl patch agent {name} --namespace {namespace} --type=merge -p '{{\"spec\":{{\"suspended\":true}}}}'"
        ),
    };
    render(StatusCode::OK, &page)
}

#[derive(Template)]
#[template(path = "portal/agent_new.html")]
struct Blank {
    frame: Frame,
}

/// The form for a new one.
pub(super) fn blank(visit: &Visit) -> Result<Response, Refusal> {
    render(StatusCode::OK, &Blank { frame: Frame::of(visit, Text::of("Register an agent"), "agents") })
}

#[derive(Template)]
#[template(path = "portal/agent_review.html")]
struct Review {
    frame: Frame,
    problem: Option<Text>,
    /// Whether the API server would accept it.
    is_good: bool,
    is_new: bool,
    /// Characters in it that nobody sees.
    hidden: Option<String>,
    manifest: Shown,
    kubectl: &'static str,
}

/// A manifest in a text field: as it is, since it is written as it stands there. A text field shows it and does nothing with it.
struct Shown(String);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn page(visit: &Visit, manifest: String, is_new: bool, judged: Option<Result<(), &Refusal>>) -> Result<Response, Refusal> {
    let title = if is_new { "Register an agent" } else { "Change an agent" };
    let problem = match &judged {
        Some(Err(refusal)) => Some(Text::of(refusal.description())),
        _ => None,
    };
    let status = match &judged {
        Some(Err(refusal)) => refusal.code(),
        _ => StatusCode::OK,
    };
    let page = Review {
        frame: Frame::of(visit, Text::of(title), "agents"),
        problem,
        is_good: matches!(judged, Some(Ok(()))),
        is_new,
        hidden: hidden(&manifest),
        manifest: Shown(manifest),
        kubectl: if is_new { "kubectl create -f agent.yaml" } else { "kubectl replace -f agent.yaml" },
    };
    render(status, &page)
}

/// The characters of a manifest that a text field does not show, by their names in Unicode.
fn hidden(manifest: &str) -> Option<String> {
    let unseen = |c: &char| is_invisible(*c) || (c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    let all: BTreeSet<char> = manifest.chars().filter(unseen).collect();
    let names: Vec<String> = all.iter().take(16).map(|c| format!("U+{:04X}", u32::from(*c))).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// One to be changed.
pub(super) async fn edit(visit: &Visit, id: &AgentId) -> Result<Response, Refusal> {
    let object = Agents(&visit.client).get(id).await?;
    page(visit, manifest::of_object(&object), false, None)
}

/// What would be written, and what the API server would say to it. Nothing is.
pub(super) async fn review(visit: &Visit, form: &Form, record: &mut Record) -> Result<Response, Refusal> {
    let text = match form.raw("yaml") {
        // Browsers send text with the line ends of the network.
        Some(text) => text.replace("\r\n", "\n"),
        None => manifest::of_form(form)?,
    };
    let read = manifest::read(&text);
    let is_new = read.as_ref().map_or_else(|_| !text.contains("resourceVersion"), |manifest| manifest.version.is_none());
    let judged = match &read {
        Ok(manifest) => {
            record.text("agent", manifest.wanted.id.to_string());
            write(visit, manifest, Intent::Try).await.map(drop)
        }
        Err(_) => Ok(()),
    };
    let judged = read.map(drop).and(judged);
    record.conclude(Outcome::Allow, if judged.is_ok() { "would_be_accepted" } else { "would_be_refused" });
    page(visit, text, is_new, Some(judged.as_ref().copied()))
}

/// Writes it.
pub(super) async fn apply(visit: &Visit, form: &Form, record: &mut Record) -> Result<Response, Refusal> {
    let manifest = manifest::read(&form.require("yaml")?.replace("\r\n", "\n"))?;
    let id = &manifest.wanted.id;
    record.text("agent", id.to_string());
    write(visit, &manifest, Intent::Do).await?;
    record.conclude(Outcome::Allow, if manifest.version.is_none() { "registered" } else { "changed" });
    see_other(&format!("/portal/agents/{}/{}", encoded(id.namespace()), encoded(id.name())))
}

async fn write(visit: &Visit, manifest: &Manifest, intent: Intent) -> Result<Value, Refusal> {
    let user = whoami(&visit.client).await?;
    let agents = Agents(&visit.client);
    match &manifest.version {
        None => agents.create(&manifest.wanted, &user, intent).await,
        Some(version) => agents.replace(&manifest.wanted, version, &user, intent).await,
    }
}
