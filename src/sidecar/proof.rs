//! `POST /proof`: a proof for one request of the agent to a service, with a token that is bound to the sidecar's key.

use super::Sidecar;
use super::answer::{overloaded, refuse, reply, text};
use super::token::{only, wants_text};
use crate::dpop::Claim;
use crate::http::error::Refusal;
use crate::http::form::Form;
use crate::time::Clock;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;

/// Longest value of a parameter, in bytes; a token is longer.
const VALUE_MAX: usize = 2048;
/// Longest token, in bytes.
const TOKEN_MAX: usize = 16 * 1024;

pub(super) async fn prove(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    let Ok(_slot) = sidecar.in_flight.try_acquire() else { return overloaded() };
    let is_text = wants_text(request.headers());
    match proof(&sidecar, request).await {
        Ok(proof) if is_text => text(&proof),
        Ok(proof) => reply(StatusCode::OK, &json!({"proof": proof})),
        Err(refusal) => refuse(refusal),
    }
}

async fn proof(sidecar: &Sidecar, request: Request<Body>) -> Result<String, Refusal> {
    let form = Form::read(request).await?;
    only(&form, &["method", "url", "access_token", "nonce"])?;
    let plain = |name: &'static str, value: &str, max: usize| match value {
        value if value.len() <= max && value.bytes().all(|b| b.is_ascii_graphic()) => Ok(()),
        _ => Err(Refusal::malformed(format!("parameter {name} is at most {max} printable ASCII characters without a space"))),
    };
    // One without a token would be good at a token endpoint, where the agent has no business.
    let (method, url, token) = (form.require("method")?, form.require("url")?, form.require("access_token")?);
    let nonce = form.get("nonce")?;
    plain("method", method, 32)?;
    plain("url", url, VALUE_MAX)?;
    plain("access_token", token, TOKEN_MAX)?;
    plain("nonce", nonce.unwrap_or_default(), VALUE_MAX)?;
    let uri = url.parse::<axum::http::Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.authority().is_some());
    if uri.is_none() {
        return Err(Refusal::malformed("url is the absolute URL of the request that the proof is for"));
    }
    let possession = &sidecar.upstream.possession;
    if !possession.is_wanted() {
        let description = "the agent's tokens are not bound to a key: present them as Bearer tokens, without a proof";
        return Err(Refusal::malformed(description));
    }
    let claim = Claim { method, url, nonce, access_token: Some(token), now: Clock::system().seconds() };
    possession.prove(&claim).ok_or_else(|| Refusal::unavailable("random", "no random bytes from the operating system"))
}
