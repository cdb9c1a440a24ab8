//! Signing in at the organisation's OpenID Provider: the authorization code flow with PKCE (OpenID Connect Core 1.0 section 3.1, RFC 7636,
//! RFC 9700).
//!
//! What ties the answer to the browser that asked, state, nonce and the PKCE verifier, is derived from a random cookie of that browser.
//! Nothing is kept here meanwhile, and nobody else's answer fits. The ID token is the person's Kubernetes credential: whether it is
//! genuine, and whose, the API server says.

mod id_token;
mod provider;

pub(super) use provider::Provider;

use super::super::error::Refusal;
use super::super::{App, begin, settle};
use super::session::{Secret, Way, cookie, cookie_of};
use super::{Portal, claims, identified, sign_in};
use crate::audit::Record;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use id_token::Asked;
use std::sync::Arc;

/// The cookie of a browser that is signing in.
const COOKIE: &str = "__Host-countersign-sign-in";
/// How long signing in may take, in seconds.
const SECONDS: u64 = 600;

/// To the provider. Only this browser's cookie changes by it.
pub(super) async fn start(portal: &Portal, head: &Parts) -> Result<Response, Refusal> {
    let provider = portal.provider.as_ref().ok_or_else(super::not_there)?;
    let metadata = provider.metadata().await.map_err(unreachable)?;
    let asked = super::super::audit::parameters(head.uri.query().unwrap_or_default())?;
    let next = asked.iter().find(|(name, _)| name == "next").map_or("", |(_, next)| next.as_str());
    let secret = Secret::random()?;
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, secret.derive_text("verifier")?.as_bytes()));
    let mut url = metadata.authorization_endpoint.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &provider.client_id)
        .append_pair("redirect_uri", &provider.redirect_uri)
        .append_pair("scope", &provider.scopes)
        .append_pair("state", &secret.derive_text("state")?)
        .append_pair("nonce", &secret.derive_text("nonce")?)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256");
    let mut response = super::page::see_other(url.as_str())?;
    let value = format!("{}.{}", secret.text(), URL_SAFE_NO_PAD.encode(sign_in::within(next)));
    response.headers_mut().append(header::SET_COOKIE, cookie(COOKIE, &value, &format!("; Max-Age={SECONDS}"))?);
    Ok(response)
}

/// Back from the provider.
pub(super) async fn callback(app: &Arc<App>, portal: &Portal, request: Request<Body>) -> Response {
    let mut record = begin("portal.sign_in", &request);
    record.text("signed_in_with", Way::Provider.code());
    let (head, _) = request.into_parts();
    let result = answered(app, portal, &head, &mut record).await;
    let (record, result) = settle(app, record, result).await;
    let mut response = result.unwrap_or_else(|refusal| sign_in::form(app, &head, Some(&refusal)));
    // Whatever came of it, it was the one answer.
    if let Ok(gone) = cookie(COOKIE, "", "; Max-Age=0") {
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    identified(response, &record)
}

async fn answered(app: &App, portal: &Portal, head: &Parts, record: &mut Record) -> Result<Response, Refusal> {
    let provider = portal.provider.as_ref().ok_or_else(super::not_there)?;
    let asked = super::super::audit::parameters(head.uri.query().unwrap_or_default())?;
    let get = |name: &str| {
        let mut values = asked.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(|(_, value)| value.as_str())),
            // RFC 6749 section 3.1.
            _ => Err(refused("answer_malformed", "the provider's answer says something twice")),
        }
    };
    let started = || {
        refused("sign_in_unknown", "this sign-in was not begun in this browser, or took longer than ten minutes: sign in again")
    };
    let value = cookie_of(&head.headers, COOKIE).ok_or_else(started)?;
    let (secret, next) = value.split_once('.').ok_or_else(started)?;
    let secret = Secret::parse(secret).ok_or_else(started)?;
    let next = URL_SAFE_NO_PAD.decode(next).ok().and_then(|next| String::from_utf8(next).ok()).unwrap_or_default();
    let state = secret.derive_text("state")?;
    verify_slices_are_equal(get("state")?.unwrap_or_default().as_bytes(), state.as_bytes()).map_err(|_| {
        refused("state_wrong", "the answer belongs to another sign-in than the one of this browser: sign in again")
    })?;
    let metadata = provider.metadata().await.map_err(unreachable)?;
    // RFC 9207 section 2.4: an answer of another provider is not brought to this one.
    match get("iss")? {
        Some(issuer) if issuer != provider.issuer => {
            return Err(refused("issuer_wrong", "the answer is of another provider than the one that was asked"));
        }
        None if metadata.says_issuer => {
            return Err(refused(
                "issuer_missing",
                "the answer does not say which provider it is of, which this provider always does",
            ));
        }
        _ => {}
    }
    if let Some(error) = get("error")? {
        return Err(refused("provider_refused", format!("the provider did not let you in: {error}")));
    }
    let code = get("code")?.filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| refused("answer_malformed", "the provider's answer has no code"))?;
    let now = app.clock.seconds();
    let is_first = app.store.accept_once("portal sign-in", &state, now.saturating_add(SECONDS), now).await;
    if !is_first.map_err(|error| Refusal::unavailable("store_unavailable", error.to_string()))? {
        return Err(refused("answer_replayed", "this answer was used before: sign in again"));
    }
    let token = provider.id_token(&metadata, code, &secret.derive_text("verifier")?).await;
    let token = token.map_err(|why| refused("code_refused", "the provider gave no ID token for its answer").detail(why))?;
    let claims =
        claims::claims(&token).ok_or_else(|| refused("id_token_unreadable", "the provider's ID token cannot be read"))?;
    let nonce = secret.derive_text("nonce")?;
    let asked = Asked { issuer: &provider.issuer, client_id: &provider.client_id, nonce: &nonce };
    id_token::check(&claims, asked, now).map_err(|why| refused("id_token_refused", why))?;
    sign_in::enter(app, &head.headers, token, Way::Provider, sign_in::within(&next), record).await.map_err(|refusal| {
        if refusal.code() != StatusCode::UNAUTHORIZED {
            return refusal;
        }
        let description = "you are known to the provider, but the API server does not accept its ID tokens: an administrator must name the \
             provider and this client in kube-apiserver's authentication configuration";
        refused("id_token_unaccepted", description)
    })
}

/// Nobody is let in.
fn refused(reason: &'static str, description: impl Into<String>) -> Refusal {
    Refusal::new("access_denied", reason, description).status(StatusCode::UNAUTHORIZED)
}

fn unreachable(why: String) -> Refusal {
    tracing::warn!(%why, "the portal's OpenID Provider cannot be used");
    let description = "the provider cannot be reached, or not be used: try again, or sign in with a token";
    Refusal::new("temporarily_unavailable", "provider_unavailable", description).status(StatusCode::BAD_GATEWAY).detail(why)
}
