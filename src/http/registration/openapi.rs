//! The description of the registration API (OpenAPI 3.1). The schemas are those of the CustomResourceDefinition, which come from the Rust
//! types, so that the three cannot differ.

use super::super::error::Refusal;
use super::super::{App, begin, finish};
use super::{ALL, DESCRIPTION, ONE};
use crate::crd::Agent;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request};
use axum::response::{IntoResponse as _, Response};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};
use std::sync::Arc;

/// The endpoint. Public: it says nothing of any agent.
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return finish(&app, begin("http.request", &request), Err(Refusal::method("GET, HEAD").closing())).await;
    }
    Json(document(&app.issuer)).into_response()
}

/// The description, of the API at `server`.
pub(crate) fn document(server: &str) -> Value {
    let agent = reference("Agent");
    let one = json!({"200": reply("The Agent, and its version as ETag.", &agent)});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Countersign registration API",
            "version": "v1",
            "description": "Registers agents. Whoever calls shows their own Kubernetes token, and may what it may: what the API server \
                refuses is refused here.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "security": [{"kubernetes": []}],
        "paths": {
            ALL: {
                "get": operation("listAgents", "List Agents", &json!([
                    query("namespace", "Those of one namespace. Absent: of the whole cluster.", &json!({"type": "string", "maxLength": 63})),
                    query("limit", "How many at most.", &json!({"type": "integer", "minimum": 1, "maximum": 500, "default": 500})),
                    query("continue", "Go on where a page ended: what it gave as continue.", &json!({"type": "string"})),
                ]), None, &json!({"200": reply("A page of Agents.", &reference("AgentList"))})),
                "post": operation("createAgent", "Register an Agent", &json!([]), Some("NewAgent"),
                    &json!({"201": reply("The Agent as it was registered.", &agent)})),
            },
            ONE: {
                "parameters": [step("namespace"), step("name")],
                "get": operation("getAgent", "Get an Agent", &json!([]), None, &one),
                "put": operation("replaceAgent", "Replace an Agent", &json!([
                    if_match("The version that is replaced. Without it resourceVersion must be in the body."),
                ]), Some("AgentReplacement"), &one),
                "delete": operation("deleteAgent", "Remove an Agent, whose tokens are dead then", &json!([
                    if_match("Only if this is still its version."),
                ]), None, &json!({"204": {"description": "It is removed."}})),
            },
            DESCRIPTION: {
                "get": {
                    "operationId": "getDescription",
                    "summary": "This document",
                    "security": [],
                    "responses": {"200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}},
                },
            },
        },
        "components": {
            "securitySchemes": {"kubernetes": {"type": "http", "scheme": "bearer", "description": "A token for the Kubernetes API."}},
            "schemas": schemas(),
        },
    })
}

fn schemas() -> Value {
    let crd = serde_json::to_value(Agent::crd()).unwrap_or_default();
    let of = |part: &str| {
        let pointer = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{part}");
        crd.pointer(&pointer).cloned().unwrap_or_default()
    };
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let name = json!({"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"});
    let version = json!({"type": "string", "description": "Which version of the Agent this is."});
    let spec = reference("AgentSpec");
    json!({
        "AgentSpec": of("spec"),
        "AgentStatus": of("status"),
        "NewAgent": {
            "type": "object",
            "required": ["namespace", "name", "spec"],
            "additionalProperties": false,
            "properties": {"namespace": name, "name": name, "labels": texts, "annotations": texts, "spec": spec},
        },
        "AgentReplacement": {
            "type": "object",
            "required": ["spec"],
            "additionalProperties": false,
            "properties": {
                "namespace": name, "name": name, "labels": texts, "annotations": texts, "spec": spec, "resourceVersion": version,
                "uid": {"type": "string", "description": "Of the registration that is meant, if it must be that one."},
            },
            "description": "Labels and annotations that are left out stay.",
        },
        "Agent": {
            "type": "object",
            "required": ["namespace", "name", "uid", "resourceVersion", "spec"],
            "properties": {
                "namespace": name, "name": name, "labels": texts, "annotations": texts, "spec": spec, "resourceVersion": version,
                "uid": {"type": "string", "description": "Of this registration, and of no later one of the same name."},
                "generation": {"type": "integer"},
                "createdAt": {"type": "string", "format": "date-time"},
                "deletingSince": {"type": "string", "format": "date-time"},
                "status": reference("AgentStatus"),
            },
        },
        "AgentList": {
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": {"type": "array", "items": reference("Agent")},
                "continue": {"type": "string", "description": "There are more: ask again with this."},
                "resourceVersion": version,
            },
        },
        "Problem": {
            "type": "object",
            "required": ["error", "error_description"],
            "properties": {
                "error": {"type": "string", "description": "A short, stable code."},
                "error_description": {"type": "string", "description": "What to do about it, or what the API server said."},
            },
        },
    })
}

fn operation(id: &str, summary: &str, parameters: &Value, body: Option<&str>, replies: &Value) -> Value {
    let mut operation = json!({"operationId": id, "summary": summary, "parameters": parameters, "responses": replies});
    if let Some(body) = body {
        let content = json!({"application/json": {"schema": reference(body)}});
        crate::json::put(&mut operation, "requestBody", json!({"required": true, "content": content}));
    }
    if let Some(replies) = operation.get_mut("responses") {
        crate::json::put(replies, "default", reply("It was refused.", &reference("Problem")));
    }
    operation
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn reply(description: &str, schema: &Value) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

fn query(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn step(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "maxLength": 63}})
}

fn if_match(description: &str) -> Value {
    json!({"name": "If-Match", "in": "header", "description": description, "schema": {"type": "string"}})
}
