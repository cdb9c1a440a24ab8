//! Signing in with a token, and out. Who somebody is, the API server says.

use super::super::error::Refusal;
use super::super::form::Form;
use super::super::{App, begin, kubernetes, settle};
use super::claims::expiry;
use super::page::{Frame, Text, encoded, render, see_other};
use super::session::{self, Way};
use super::{Portal, guard, identified, page};
use crate::audit::{Outcome, Record};
use askama::Template;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use std::sync::Arc;

/// Where people go who wanted to go nowhere else.
const HOME: &str = "/portal";

#[derive(Template)]
#[template(path = "portal/sign_in.html")]
struct SignIn {
    frame: Frame,
    problem: Option<Text>,
    provider: Option<Text>,
    next: String,
    next_query: String,
}

/// The form, with what was wrong with the last one.
pub(super) fn form(app: &App, head: &Parts, problem: Option<&Refusal>) -> Response {
    let asked = super::super::audit::parameters(head.uri.query().unwrap_or_default()).unwrap_or_default();
    let next = asked.iter().find(|(name, _)| name == "next").map(|(_, next)| next.as_str()).unwrap_or_default();
    form_to(app, next, problem)
}

fn form_to(app: &App, next: &str, problem: Option<&Refusal>) -> Response {
    let next = within(next);
    let page = SignIn {
        frame: Frame::stranger("Sign in"),
        problem: problem.map(|refusal| Text::of(refusal.description())),
        provider: app.portal.as_ref().and_then(|portal| portal.provider.as_ref()).map(|provider| Text::of(provider.name())),
        next_query: encoded(next),
        next: next.to_owned(),
    };
    let status = problem.map_or(StatusCode::OK, Refusal::code);
    render(status, &page).unwrap_or_else(|refusal| page::problem(None, refusal))
}

/// Somebody shows their own token.
pub(super) async fn with_token(app: &Arc<App>, portal: &Portal, request: Request<Body>) -> Response {
    let mut record = begin("portal.sign_in", &request);
    record.text("signed_in_with", Way::Token.code());
    let mut next = HOME.to_owned();
    let result = async {
        let _place = super::super::place(app, &request)?;
        guard::same_origin(request.headers(), &portal.origin).map_err(Refusal::closing)?;
        let headers = request.headers().clone();
        let form = Form::read_with_lines(request, &["token"]).await?;
        form.raw("next").unwrap_or_default().clone_into(&mut next);
        // People paste it with the line ends of their terminal.
        let token: String = form.require("token")?.split_ascii_whitespace().collect();
        enter(app, &headers, token, Way::Token, within(&next), &mut record).await
    };
    let result = result.await;
    let (record, result) = settle(app, record, result).await;
    let response = result.unwrap_or_else(|refusal| form_to(app, &next, Some(&refusal)));
    identified(response, &record)
}

/// Lets in whoever the API server says that the token is of. There is a new session for it, and none from before.
pub(super) async fn enter(
    app: &App,
    headers: &HeaderMap,
    token: String,
    way: Way,
    next: &str,
    record: &mut Record,
) -> Result<Response, Refusal> {
    let now = app.clock.seconds();
    let client = kubernetes::client_of(app, &token)?;
    let user = kubernetes::whoami(&client).await?;
    record.text("by", user.username.as_str());
    let latest = now.saturating_add(session::SECONDS_MAX);
    let expires_at = expiry(&token).map_or(latest, |expiry| expiry.min(latest));
    if expires_at <= now {
        return Err(kubernetes::unaccepted());
    }
    session::end(app, headers).await?;
    let cookie = session::begin(app, user, token, way, expires_at, now).await?;
    record.number("expires_at", expires_at).conclude(Outcome::Allow, "signed_in");
    let mut response = see_other(next)?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Ends the session, on every replica.
pub(super) async fn out(app: &Arc<App>, portal: &Portal, request: Request<Body>) -> Response {
    let mut record = begin("portal.sign_out", &request);
    let result = leave(app, portal, request, &mut record).await;
    let (record, result) = settle(app, record, result).await;
    identified(result.unwrap_or_else(|refusal| page::problem(None, refusal)), &record)
}

async fn leave(app: &App, portal: &Portal, request: Request<Body>, record: &mut Record) -> Result<Response, Refusal> {
    guard::same_origin(request.headers(), &portal.origin).map_err(Refusal::closing)?;
    let headers = request.headers().clone();
    let form = Form::read(request).await?;
    if let Some(session) = session::find(app, &headers, false, app.clock.seconds()).await? {
        record.text("by", session.user.username.as_str());
        guard::same_session(form.raw(guard::FIELD), &session)?;
        session::end(app, &headers).await?;
    }
    record.conclude(Outcome::Allow, "signed_out");
    let mut response = see_other("/portal/sign-in")?;
    response.headers_mut().append(header::SET_COOKIE, session::forget()?);
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(response)
}

/// A page of the portal, wherever somebody says that they want to go: a link must lead nobody elsewhere.
pub(super) fn within(next: &str) -> &str {
    let is_ours = next.strip_prefix(HOME).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let is_plain = next.len() <= 1024 && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') && !next.contains("//");
    if is_ours && is_plain && !next.contains("..") && !next.starts_with("/portal/sign-") { next } else { HOME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_nowhere_else() {
        for good in ["/portal", "/portal/", "/portal/requests/a/b", "/portal?show=all"] {
            assert_eq!(within(good), good);
        }
        for bad in [
            "",
            "/",
            "//evil.example.com",
            "https://evil.example.com/portal",
            "/portal//evil.example.com",
            "/portalx",
            "/portal/../oauth2/token",
            "/portal\\@evil",
            "/portal/\r\nSet-Cookie: a",
            "/portal/sign-out",
            "/portal/é",
        ] {
            assert_eq!(within(bad), HOME, "{bad:?}");
        }
    }
}
