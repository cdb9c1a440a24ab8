//! Agents at the API server, with the caller's own credential: read and written as JSON, so that nothing is lost on the way that this
//! version does not know.

use super::super::error::Refusal;
use super::super::kubernetes::refused;
use crate::crd::{AgentSpec, CHANGED_BY, GROUP, User};
use crate::grammar::AgentId;
use crate::json::put;
use axum::http::{Method, Request, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

/// Who writes, in `metadata.managedFields`.
const MANAGER: &str = "countersign-registration";
/// Nothing that the schema does not know is dropped silently.
const STRICTLY: &str = "fieldValidation=Strict";

/// What somebody wants an Agent to be.
#[derive(Debug, Clone)]
pub(in crate::http) struct Wanted {
    pub(in crate::http) id: AgentId,
    /// Absent: as they are.
    pub(in crate::http) labels: Option<Map<String, Value>>,
    /// Absent: as they are.
    pub(in crate::http) annotations: Option<Map<String, Value>>,
    pub(in crate::http) spec: Map<String, Value>,
    /// Of the registration that is meant, if it must be that one.
    pub(in crate::http) uid: Option<String>,
}

/// Whether what is asked is done, or only judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Intent {
    /// Do it.
    Do,
    /// Say whether it would be done (`kubectl --dry-run=server`).
    Try,
}

/// The Agents, as whoever the client is for may see and write them.
pub(in crate::http) struct Agents<'a>(pub(in crate::http) &'a kube::Client);

impl Agents<'_> {
    /// Some of those in a namespace, or in the whole cluster.
    ///
    /// # Errors
    /// What the API server says, here and below.
    pub(in crate::http) async fn list(&self, namespace: Option<&str>, limit: u32, rest: Option<&str>) -> Result<Value, Refusal> {
        let place = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
        let rest = rest.map(|rest| format!("&continue={}", encoded(rest))).unwrap_or_default();
        self.call(Method::GET, &format!("{place}agents?limit={limit}{rest}"), None).await
    }

    /// One.
    pub(in crate::http) async fn get(&self, id: &AgentId) -> Result<Value, Refusal> {
        self.call(Method::GET, &path(id), None).await
    }

    /// A new one.
    pub(in crate::http) async fn create(&self, wanted: &Wanted, user: &User, intent: Intent) -> Result<Value, Refusal> {
        let mut annotations = wanted.annotations.clone().unwrap_or_default();
        annotations.insert(CHANGED_BY.to_owned(), json!(user.username));
        let mut metadata = json!({"namespace": wanted.id.namespace(), "name": wanted.id.name(), "annotations": annotations});
        if let Some(labels) = &wanted.labels {
            put(&mut metadata, "labels", json!(labels));
        }
        let object =
            json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Agent", "metadata": metadata, "spec": wanted.spec});
        let path = format!("namespaces/{}/agents?{}", wanted.id.namespace(), how(intent));
        self.call(Method::POST, &path, Some(&object)).await
    }

    /// Another in the place of the version that is meant. What is not ours to write, such as finalizers, stays.
    pub(in crate::http) async fn replace(
        &self,
        wanted: &Wanted,
        version: &str,
        user: &User,
        intent: Intent,
    ) -> Result<Value, Refusal> {
        let mut object = self.get(&wanted.id).await?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let outdated = || {
            let description = "the Agent was changed meanwhile: read it again, and replace the version that you have read";
            Refusal::new("conflict", "version_outdated", description).status(StatusCode::PRECONDITION_FAILED)
        };
        if text("/metadata/resourceVersion") != Some(version) {
            return Err(outdated());
        }
        if wanted.uid.as_deref().is_some_and(|uid| text("/metadata/uid") != Some(uid)) {
            let description = "the Agent of that uid is gone: another was registered under its name";
            return Err(Refusal::new("conflict", "registration_outdated", description).status(StatusCode::CONFLICT));
        }
        let was: Option<AgentSpec> = object.get("spec").cloned().and_then(|spec| serde_json::from_value(spec).ok());
        let is: Option<AgentSpec> = serde_json::from_value(json!(wanted.spec)).ok();
        let before = object.pointer("/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut annotations = wanted.annotations.clone().unwrap_or_else(|| before.clone());
        // Where no policy writes who wrote the spec, whoever writes it does. A spec that stays keeps its name.
        let author = match before.get(CHANGED_BY) {
            Some(author) if was.is_some() && was == is => author.clone(),
            _ => json!(user.username),
        };
        annotations.insert(CHANGED_BY.to_owned(), author);
        put(&mut object, "spec", json!(wanted.spec));
        if let Some(metadata) = object.get_mut("metadata") {
            put(metadata, "annotations", json!(annotations));
            if let Some(labels) = &wanted.labels {
                put(metadata, "labels", json!(labels));
            }
        }
        let replaced = self.call(Method::PUT, &format!("{}?{}", path(&wanted.id), how(intent)), Some(&object)).await;
        replaced.map_err(|refusal| if refusal.code() == StatusCode::CONFLICT { outdated() } else { refusal })
    }

    /// Removes one; of that version, if one is meant.
    pub(in crate::http) async fn delete(&self, id: &AgentId, version: Option<&str>) -> Result<(), Refusal> {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(version) = version {
            put(&mut options, "preconditions", json!({"resourceVersion": version}));
        }
        self.call(Method::DELETE, &path(id), Some(&options)).await.map(drop)
    }

    async fn call(&self, method: Method, below: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let builder = Request::builder().method(method).uri(format!("/apis/{GROUP}/v1alpha1/{below}"));
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = builder.header(header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| Refusal::malformed(error.to_string()))?;
        self.0.request(request).await.map_err(refused)
    }
}

fn path(id: &AgentId) -> String {
    format!("namespaces/{}/agents/{}", id.namespace(), id.name())
}

fn how(intent: Intent) -> String {
    let dry = if intent == Intent::Try { "&dryRun=All" } else { "" };
    format!("{STRICTLY}&fieldManager={MANAGER}{dry}")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
