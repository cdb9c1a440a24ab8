//! What is passed on to the token service with the agent's credential, and its answer as it is.

use super::answer::{overloaded, refuse, unanswered};
use super::token::only;
use super::upstream::{Asked, Unanswered};
use super::{Sidecar, answer::Answer};
use crate::http::error::Refusal;
use crate::http::form::{Form, read_body};
use crate::json::parse_object;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long somebody waits for a token service that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// `POST /access/v1/evaluation`.
pub(super) async fn evaluation(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    question(&sidecar, "/access/v1/evaluation", request).await
}

/// `POST /access/v1/evaluations`.
pub(super) async fn evaluations(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    question(&sidecar, "/access/v1/evaluations", request).await
}

/// `POST /access/v1/search/action`.
pub(super) async fn search_action(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    question(&sidecar, "/access/v1/search/action", request).await
}

/// `POST /ask`.
pub(super) async fn ask(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    question(&sidecar, "/ask", request).await
}

/// `POST /revoke`: the agent gives a token up, or withdraws a request. What is sent twice is answered twice alike.
pub(super) async fn revoke(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    let Ok(_slot) = sidecar.in_flight.try_acquire() else { return overloaded() };
    match named(request).await {
        Ok(token) => pass(sidecar.upstream.insist(&Asked::form("/oauth2/revoke", &[("token", &token)]), PATIENCE).await),
        Err(refusal) => refuse(refusal),
    }
}

/// The token that a request is about, which is all that it says.
pub(super) async fn named(request: Request<Body>) -> Result<String, Refusal> {
    let form = Form::read(request).await?;
    only(&form, &["token"])?;
    form.require("token").map(str::to_owned)
}

/// Asks a question, which changes nothing.
async fn question(sidecar: &Sidecar, path: &'static str, request: Request<Body>) -> Response {
    let Ok(_slot) = sidecar.in_flight.try_acquire() else { return overloaded() };
    let body = read_body(request, "application/json").await.and_then(|body| {
        let object = parse_object(&body);
        object.map_err(|error| {
            Refusal::malformed(format!("the body must be one JSON object that can be read in one way only: {error}"))
        })
    });
    let mut body = match body {
        Ok(body) => body,
        Err(refusal) => return refuse(refusal),
    };
    // An agent that asks about itself need not know its name.
    if path != "/ask" && !body.contains_key("subject") {
        match sidecar.upstream.credential().await {
            Ok(credential) => {
                let own = sidecar.name.of(&credential).map(|name| json!({"type": "agent", "id": name.to_string()}));
                body.extend(own.map(|own| ("subject".to_owned(), own)));
            }
            Err(failed) => return unanswered(&failed.why),
        }
    }
    pass(sidecar.upstream.insist(&Asked::json(path, Value::Object(body).to_string()), PATIENCE).await)
}

/// The answer as it is.
pub(super) fn pass(answer: Result<Answer, Unanswered>) -> Response {
    match answer {
        Ok(answer) => answer.response(),
        Err(failed) => unanswered(&failed.why),
    }
}
