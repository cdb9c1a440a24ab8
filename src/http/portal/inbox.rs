//! The requests that wait for a decision, the one that ends first at the top.

use super::super::error::Refusal;
use super::super::kubernetes::refused;
use super::Visit;
use super::page::{Frame, Left, Text, encoded, render};
use crate::crd::{Capability, CapabilitySpec, JitRequest, Phase, Risk};
use crate::headline::{Wording, headline};
use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// How many are shown at once.
const ROWS_MAX: u32 = 500;

#[derive(Template)]
#[template(path = "portal/inbox.html")]
struct Inbox {
    frame: Frame,
    problem: Option<Text>,
    all: bool,
    here: String,
    events: String,
    count: String,
    rows: Vec<Row>,
    more: bool,
    kubectl: String,
}

struct Row {
    uid: String,
    link: String,
    headline: Text,
    risk: Option<&'static str>,
    phase: &'static str,
    progress: Option<Text>,
    left: Option<Left>,
    capability: Text,
    namespace: Text,
    ends: i64,
}

/// The page.
pub(super) async fn page(visit: &Visit) -> Result<Response, Refusal> {
    let namespace = visit.namespace()?;
    let all = visit.get("show") == Some("all");
    let query = match (all, namespace) {
        (false, None) => String::new(),
        (true, None) => "?show=all".to_owned(),
        (false, Some(namespace)) => format!("?namespace={}", encoded(namespace)),
        (true, Some(namespace)) => format!("?show=all&namespace={}", encoded(namespace)),
    };
    let here = format!("/portal{query}");
    let place = namespace.map_or_else(|| "--all-namespaces".to_owned(), |namespace| format!("--namespace={namespace}"));
    let filter = if all { "" } else { " --field-selector=status.phase=Pending" };
    let mut page = Inbox {
        frame: Frame::living(visit, Text::of("Requests"), "requests", &here),
        problem: None,
        all,
        events: format!("/portal/events/requests{}", namespace.map(|n| format!("?namespace={}", encoded(n))).unwrap_or_default()),
        here,
        count: String::new(),
        rows: Vec::new(),
        more: false,
        kubectl: format!("kubectl get jitrequests {place}{filter}"),
    };
    let status = match list(visit, namespace, all).await {
        Ok((rows, more)) => {
            page.count = match (rows.len(), all) {
                (0, false) => "Nothing waits.".to_owned(),
                (1, false) => "1 request waits.".to_owned(),
                (n, false) => format!("{n} requests wait."),
                (1, true) => "1 request.".to_owned(),
                (n, true) => format!("{n} requests."),
            };
            page.rows = rows;
            page.more = more;
            StatusCode::OK
        }
        // Who may not list everywhere may still list somewhere.
        Err(refusal) if matches!(refusal.code(), StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
            page.problem = Some(Text::of(refusal.description()));
            refusal.code()
        }
        Err(refusal) => return Err(refusal),
    };
    render(status, &page)
}

async fn list(visit: &Visit, namespace: Option<&str>, all: bool) -> Result<(Vec<Row>, bool), Refusal> {
    let api: Api<JitRequest> = match namespace {
        Some(namespace) => Api::namespaced(visit.client.clone(), namespace),
        None => Api::all(visit.client.clone()),
    };
    let mut parameters = ListParams::default().limit(ROWS_MAX);
    if !all {
        parameters = parameters.fields("status.phase=Pending");
    }
    let list = api.list(&parameters).await.map_err(refused)?;
    let catalogue = if list.items.is_empty() { BTreeMap::new() } else { catalogue(visit).await };
    let mut rows: Vec<Row> = list.items.iter().map(|request| row(request, &catalogue, visit.now)).collect();
    // What waits ends soon; of what has ended the newest is looked for.
    rows.sort_by_key(|row| if all { row.ends.saturating_neg() } else { row.ends });
    Ok((rows, list.metadata.continue_.is_some_and(|rest| !rest.is_empty())))
}

/// What the catalogue says. Who may not read it sees the requests without.
async fn catalogue(visit: &Visit) -> BTreeMap<String, CapabilitySpec> {
    let api: Api<Capability> = Api::all(visit.client.clone());
    let list = api.list(&ListParams::default()).await;
    list.map(|list| list.items.into_iter().map(|entry| (entry.name_any(), entry.spec)).collect()).unwrap_or_default()
}

fn row(request: &JitRequest, catalogue: &BTreeMap<String, CapabilitySpec>, now: u64) -> Row {
    let entry = catalogue.get(&request.spec.operation.capability);
    let wording = entry.map_or_else(Wording::default, Wording::of);
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
    let status = request.status.clone().unwrap_or_default();
    let made = request.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Row {
        uid: request.uid().unwrap_or_default(),
        link: format!("/portal/requests/{}/{}", encoded(&namespace), encoded(&name)),
        headline: Text::readable(headline(&namespace, &request.spec, &wording)),
        risk: entry.and_then(|entry| entry.risk).map(risk),
        phase: status.phase.map_or("New", Phase::as_str),
        progress: status.approval_progress.as_deref().map(Text::of),
        ends: status.expires_at.as_ref().map_or(made, |time| time.0.as_second()),
        left: status.expires_at.filter(|_| is_open(status.phase)).map(|at| Left::until(&at, now)),
        capability: Text::of(&request.spec.operation.capability),
        namespace: Text::of(&namespace),
    }
}

/// Whether something can still become of it.
pub(super) const fn is_open(phase: Option<Phase>) -> bool {
    matches!(phase, None | Some(Phase::Pending | Phase::Approved | Phase::Issued))
}

/// A risk as it is shown.
pub(super) const fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Low => "Low",
        Risk::Medium => "Medium",
        Risk::High => "High",
        Risk::Critical => "Critical",
    }
}
