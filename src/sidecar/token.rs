//! `GET /token`: a token for the agent itself. `POST /token`: one for whoever called it, or for a user (RFC 8693).

use super::Sidecar;
use super::answer::{overloaded, refuse, text};
use super::tokens::{Subject, Target, Wanted};
use crate::http::error::Refusal;
use crate::http::form::Form;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, header};
use axum::response::Response;
use std::sync::Arc;

/// Longest audience and scope, in bytes.
const TARGET_MAX: usize = 4096;
/// Token types (RFC 8693 section 3) that stand for somebody else.
const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

pub(super) async fn obtain(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    let target = Form::of_query(request.uri()).and_then(|form| {
        only(&form, &["audience", "scope"])?;
        target(&form)
    });
    match target {
        Ok(target) => {
            // A request that says nothing is for what is usual; one that says something is taken at its word.
            let target = if target == Target::default() { sidecar.usual.clone() } else { target };
            grant(&sidecar, Wanted { target, subject: None }, request.headers()).await
        }
        Err(refusal) => refuse(refusal),
    }
}

pub(super) async fn exchange(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    let headers = request.headers().clone();
    let wanted = Form::read(request).await.and_then(|form| {
        only(&form, &["subject_token", "subject_token_type", "audience", "scope"])?;
        let kind = form.get("subject_token_type")?.unwrap_or(TYPE_ACCESS_TOKEN);
        if kind != TYPE_ACCESS_TOKEN && kind != TYPE_ID_TOKEN {
            let description = format!(
                "subject_token_type may be left out for the access token with which the agent was called ({TYPE_ACCESS_TOKEN}); it is \
                 {TYPE_ID_TOKEN} for a user's ID token"
            );
            return Err(Refusal::malformed(description));
        }
        let subject = Subject { token: form.require("subject_token")?.to_owned(), kind: kind.to_owned() };
        Ok(Wanted { target: target(&form)?, subject: Some(subject) })
    });
    match wanted {
        Ok(wanted) => grant(&sidecar, wanted, &headers).await,
        Err(refusal) => refuse(refusal),
    }
}

async fn grant(sidecar: &Sidecar, wanted: Wanted, headers: &HeaderMap) -> Response {
    let Ok(_slot) = sidecar.in_flight.try_acquire() else { return overloaded() };
    match sidecar.tokens.get(wanted, demands_new(headers)).await {
        Ok((token, left)) if wants_text(headers) => {
            let mut response = text(token.text());
            response.headers_mut().insert("x-expires-in", HeaderValue::from(left.as_secs()));
            response
        }
        Ok((token, left)) => token.response(left),
        Err(why) => why.response(),
    }
}

/// For whom and for what.
fn target(form: &Form) -> Result<Target, Refusal> {
    let bounded = |name: &'static str| match form.get(name)? {
        Some(value) if value.len() > TARGET_MAX => Err(Refusal::malformed(format!("parameter {name} is too long"))),
        value => Ok(value.map(str::to_owned)),
    };
    if form.all("audience").count() > 1 {
        return Err(Refusal::new("invalid_target", "target_malformed", "a token is for one audience: ask for each by itself"));
    }
    Ok(Target { audience: bounded("audience")?, scope: bounded("scope")? })
}

/// Refuses what would be ignored: whoever sends it means something by it.
pub(super) fn only(form: &Form, known: &[&str]) -> Result<(), Refusal> {
    match form.names().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(_) => Err(Refusal::malformed(format!("the parameters are {}", known.join(", ")))),
    }
}

/// Whether the agent wants none that is held (RFC 9111 section 5.2.1.4), for example because a resource server refused it.
fn demands_new(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
}

/// Whether the agent wants the token, or the proof, alone, for a shell.
pub(super) fn wants_text(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/plain")
}
