//! `/api/v1/agents`: registering agents over HTTP.
//!
//! It is the Kubernetes API with less around it, and no way past it: whoever calls shows their own Kubernetes token, with which everything
//! is asked of the API server. Admission, RBAC and the verb `grant` hold as for kubectl, and what they refuse is refused here, for their
//! reasons.

mod agents;
mod openapi;
mod wire;

pub(super) use agents::{Agents, Intent, Wanted};
pub(crate) use openapi::document;

use super::audit::parameters;
use super::caller::bearer;
use super::error::Refusal;
use super::form::read_body;
use super::{App, REQUEST_WITHIN, begin, finish, json, kubernetes};
use crate::audit::{Outcome, Record};
use crate::crd::User;
use crate::grammar::{AgentId, is_dns_label};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use serde_json::Value;
use std::sync::Arc;

/// Where all Agents are.
const ALL: &str = "/api/v1/agents";
/// Where one is.
const ONE: &str = "/api/v1/agents/{namespace}/{name}";
/// Where the description of it all is.
const DESCRIPTION: &str = "/api/v1/openapi.json";
/// Most Agents in one page, and how many there are if nobody says.
const PAGE_MAX: u32 = 500;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route(ALL, any(endpoint)).route(ONE, any(endpoint)).route(DESCRIPTION, any(openapi::endpoint))
}

async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let id = request.uri().path().strip_prefix(ALL).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned);
    let (method, is_one) = (request.method().clone(), id.is_some());
    let event = match (method.as_str(), is_one) {
        ("GET", false) => "registration.list",
        ("GET", true) => "registration.get",
        ("POST", false) => "registration.create",
        ("PUT", true) => "registration.replace",
        ("DELETE", true) => "registration.delete",
        _ => {
            let refusal = Refusal::method(if is_one { "GET, PUT, DELETE" } else { "GET, POST" });
            return finish(&app, begin("http.request", &request), Err(refusal.closing())).await;
        }
    };
    let mut record = begin(event, &request);
    let _place = match super::place(&app, &request) {
        Ok(place) => place,
        Err(refusal) => return finish(&app, record, Err(refusal)).await,
    };
    let done = tokio::time::timeout(REQUEST_WITHIN, serve(&app, &method, id.as_deref(), request, &mut record)).await;
    let result = done.unwrap_or_else(|_| {
        let refusal = Refusal::new("invalid_request", "request_timeout", "the request was not complete within 10 s");
        Err(refusal.status(StatusCode::REQUEST_TIMEOUT).closing())
    });
    finish(&app, record, result).await
}

async fn serve(
    app: &App,
    method: &Method,
    id: Option<&str>,
    request: Request<Body>,
    record: &mut Record,
) -> Result<Response, Refusal> {
    let token = bearer(request.headers())?.ok_or_else(|| {
        let description = "show a Kubernetes token of your own: Authorization: Bearer <token>";
        Refusal::new("invalid_token", "caller_unauthenticated", description)
            .status(StatusCode::UNAUTHORIZED)
            .challenged()
            .closing()
    })?;
    let client = kubernetes::client_of(app, &token)?;
    let user = kubernetes::whoami(&client).await?;
    record.text("by", user.username.as_str());
    let id = id.map(place).transpose()?;
    if let Some(id) = &id {
        record.text("agent", id.to_string());
    }
    let caller = Caller { agents: Agents(&client), user };
    let answer = match (method.as_str(), id) {
        ("GET", None) => caller.list(request.uri().query().unwrap_or_default()).await,
        ("GET", Some(id)) => caller.get(&id).await,
        ("POST", _) => caller.create(request, record).await,
        ("PUT", Some(id)) => caller.replace(&id, request).await,
        (_, Some(id)) => caller.delete(&id, request.headers()).await,
        (_, None) => Err(Refusal::method("GET, POST").closing()),
    }?;
    record.conclude(Outcome::Allow, "done");
    Ok(answer)
}

/// Whoever calls.
struct Caller<'a> {
    agents: Agents<'a>,
    user: User,
}

impl Caller<'_> {
    async fn list(&self, query: &str) -> Result<Response, Refusal> {
        let (mut namespace, mut limit, mut rest) = (None, None, None);
        for (name, value) in &parameters(query)? {
            let known = match name.as_str() {
                "namespace" if is_dns_label(value) => namespace.replace(value.clone()).is_some(),
                "namespace" => return Err(Refusal::malformed("namespace is no name of a namespace")),
                "limit" => match value.parse::<u32>() {
                    Ok(number @ 1..=PAGE_MAX) => limit.replace(number).is_some(),
                    _ => return Err(Refusal::malformed("limit must be a number from 1 to 500")),
                },
                "continue" => rest.replace(value.clone()).is_some(),
                _ => return Err(Refusal::malformed("there are the parameters namespace, limit and continue")),
            };
            if known {
                return Err(Refusal::malformed(format!("parameter {name} occurs more than once")));
            }
        }
        let list = self.agents.list(namespace.as_deref(), limit.unwrap_or(PAGE_MAX), rest.as_deref()).await?;
        json(&wire::shown_list(&list))
    }

    async fn get(&self, id: &AgentId) -> Result<Response, Refusal> {
        told(StatusCode::OK, &self.agents.get(id).await?)
    }

    async fn create(&self, request: Request<Body>, record: &mut Record) -> Result<Response, Refusal> {
        let body = read_body(request, "application/json").await?;
        let given = wire::read(&body, None)?;
        let id = &given.wanted.id;
        record.text("agent", id.to_string());
        let made = self.agents.create(&given.wanted, &self.user, Intent::Do).await?;
        let mut response = told(StatusCode::CREATED, &made)?;
        let location = HeaderValue::from_str(&format!("{ALL}/{}/{}", id.namespace(), id.name()));
        response.headers_mut().extend(location.ok().map(|location| (header::LOCATION, location)));
        Ok(response)
    }

    async fn replace(&self, id: &AgentId, request: Request<Body>) -> Result<Response, Refusal> {
        let expected = if_match(request.headers())?;
        let body = read_body(request, "application/json").await?;
        let given = wire::read(&body, Some(id))?;
        let version = match (expected, given.version) {
            (Some(expected), Some(version)) if expected != version => {
                return Err(Refusal::malformed("If-Match and resourceVersion name two versions"));
            }
            (expected, version) => expected.or(version),
        };
        let version = version.ok_or_else(|| {
            let description = "say which version is to be replaced: its ETag as If-Match, or its resourceVersion in the body";
            Refusal::new("invalid_request", "version_missing", description).status(StatusCode::PRECONDITION_REQUIRED)
        })?;
        told(StatusCode::OK, &self.agents.replace(&given.wanted, &version, &self.user, Intent::Do).await?)
    }

    async fn delete(&self, id: &AgentId, headers: &HeaderMap) -> Result<Response, Refusal> {
        self.agents.delete(id, if_match(headers)?.as_deref()).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }
}

/// The agent in a path.
fn place(path: &str) -> Result<AgentId, Refusal> {
    let id = path.split_once('/').and_then(|(namespace, name)| AgentId::new(namespace, name).ok());
    id.ok_or_else(|| Refusal::new("not_found", "not_found", "no Agent can have that name").status(StatusCode::NOT_FOUND))
}

/// An Agent, and its version as the entity tag.
fn told(status: StatusCode, object: &Value) -> Result<Response, Refusal> {
    let mut response = json(&wire::shown(object))?;
    *response.status_mut() = status;
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    let tag = HeaderValue::from_str(&format!("\"{version}\""));
    response.headers_mut().extend(tag.ok().map(|tag| (header::ETAG, tag)));
    Ok(response)
}

/// The version that a request is about (RFC 9110 section 13.1.1): one.
fn if_match(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let tag = value.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
            let tag = tag.filter(|tag| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric()));
            tag.map(|tag| Some(tag.to_owned())).ok_or_else(|| Refusal::malformed("If-Match must be one ETag, as it was given"))
        }
        (Some(_), Some(_)) => Err(Refusal::malformed("If-Match occurs more than once")),
    }
}
