//! What the token service says, read with suspicion, and what is said to the agent.

use crate::dpop;
use crate::http::error::Refusal;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest access token that is taken, in bytes.
const ACCESS_TOKEN_MAX: usize = 16 * 1024;
/// Longest life that is believed, in seconds.
const LIFE_MAX: u64 = 86_400;

/// An answer of the token service: a status, and a JSON object.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) members: Map<String, Value>,
    /// By which the audit record is found.
    pub(super) request_id: Option<HeaderValue>,
    pub(super) retry_after: Option<HeaderValue>,
    /// With which nonce the next proof is wanted (RFC 9449 section 8).
    pub(super) nonce: Option<String>,
}

impl Answer {
    /// The code of a refusal (RFC 6749 section 5.2).
    pub(super) fn error(&self) -> Option<&str> {
        self.members.get("error").and_then(Value::as_str)
    }

    /// Whether asking again, with the same words, may be answered otherwise.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_server_error()
            || matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY)
    }

    /// Why, for a log.
    pub(super) fn shown(&self) -> String {
        let description = self.members.get("error_description").and_then(Value::as_str).unwrap_or_default();
        format!("{} {}: {description}", self.status.as_u16(), self.error().unwrap_or("no error code"))
    }

    /// The answer as the agent gets it.
    pub(super) fn response(&self) -> Response {
        let mut response = reply(self.status, &Value::Object(self.members.clone()));
        let headers = response.headers_mut();
        let request_id = HeaderName::from_static("x-request-id");
        for (name, value) in [(request_id, &self.request_id), (header::RETRY_AFTER, &self.retry_after)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        response
    }
}

/// Why there is no token.
#[derive(Debug, Clone)]
pub(super) enum NoToken {
    /// The token service says so, for now or for good.
    Refused(Arc<Answer>),
    /// There is no answer that means anything.
    Unanswered(Arc<str>),
}

impl NoToken {
    /// Whether it may be had in a moment.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Refused(answer) => answer.is_passing(),
            Self::Unanswered(_) => true,
        }
    }

    /// Whether the credential itself was refused, so that no token can be had at all.
    pub(super) fn is_of_credential(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer.error() == Some("invalid_client"))
    }

    /// As the agent gets it.
    pub(super) fn response(&self) -> Response {
        match self {
            Self::Refused(answer) => answer.response(),
            Self::Unanswered(why) => unanswered(why),
        }
    }
}

impl std::fmt::Display for NoToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(answer) => f.write_str(&answer.shown()),
            Self::Unanswered(why) => f.write_str(why),
        }
    }
}

/// A reply with an access token (RFC 6749 section 5.1) that can be used.
pub(super) struct AccessToken {
    members: Map<String, Value>,
    life: Duration,
}

/// Never the token.
impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessToken").field("life", &self.life).finish_non_exhaustive()
    }
}

impl AccessToken {
    /// Reads a reply.
    pub(super) fn parse(members: Map<String, Value>) -> Result<Self, &'static str> {
        let token = members.get("access_token").and_then(Value::as_str).unwrap_or_default();
        if token.is_empty() || token.len() > ACCESS_TOKEN_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the answer of the token service has no access_token");
        }
        let usable = |kind: &str| kind.eq_ignore_ascii_case("bearer") || kind.eq_ignore_ascii_case(dpop::TOKEN_TYPE);
        if !members.get("token_type").and_then(Value::as_str).is_some_and(usable) {
            return Err("the token_type in the answer of the token service is neither Bearer nor DPoP");
        }
        let life = members.get("expires_in").and_then(Value::as_u64).filter(|life| (1..=LIFE_MAX).contains(life));
        let life = life.map(Duration::from_secs).ok_or("the answer of the token service has no usable expires_in")?;
        Ok(Self { members, life })
    }

    #[cfg(test)]
    pub(super) fn of(reply: &Value) -> Result<Self, &'static str> {
        Self::parse(reply.as_object().cloned().unwrap_or_default())
    }

    /// How long it lives, from when it was asked for.
    pub(super) const fn lifetime(&self) -> Duration {
        self.life
    }

    /// The token itself.
    pub(super) fn text(&self) -> &str {
        self.members.get("access_token").and_then(Value::as_str).unwrap_or_default()
    }

    /// For what it is good.
    pub(super) fn scope(&self) -> &str {
        self.members.get("scope").and_then(Value::as_str).unwrap_or_default()
    }

    /// The reply to the agent, to which the token lives `left`.
    pub(super) fn response(&self, left: Duration) -> Response {
        let mut members = self.members.clone();
        members.insert("expires_in".to_owned(), json!(left.as_secs()));
        reply(StatusCode::OK, &Value::Object(members))
    }
}

/// The token service says nothing that means anything: 503, to be tried again.
pub(super) fn unanswered(why: &str) -> Response {
    let refusal = Refusal::new("temporarily_unavailable", "unanswered", format!("the token service does not answer: {why}"));
    let mut response = refuse(refusal.status(StatusCode::SERVICE_UNAVAILABLE));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// There is no room for another request.
pub(super) fn overloaded() -> Response {
    let refusal = Refusal::new("temporarily_unavailable", "overloaded", "the sidecar has too many requests at once");
    let mut response = refuse(refusal.status(StatusCode::SERVICE_UNAVAILABLE).closing());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A refusal of our own.
pub(super) fn refuse(refusal: Refusal) -> Response {
    let mut response = refusal.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn reply(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(value.to_string())).into_response()
}

/// A text alone, for a shell.
pub(super) fn text(text: &str) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain")], text.to_owned()).into_response()
}

pub(super) async fn wrong_method() -> Response {
    refuse(Refusal::method("GET, POST").closing())
}

pub(super) async fn not_found(_: Request<Body>) -> Response {
    let refusal = Refusal::new("invalid_request", "not_found", "the sidecar has no such endpoint");
    refuse(refusal.status(StatusCode::NOT_FOUND).closing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_token_is_none() {
        let good = json!({"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 300, "scope": "x.y"});
        assert_eq!(AccessToken::of(&good).expect("a token").scope(), "x.y");
        for (member, value) in [
            ("access_token", json!(null)),
            ("access_token", json!("")),
            ("access_token", json!("a b")),
            ("access_token", json!("a\nb")),
            ("access_token", json!("a".repeat(ACCESS_TOKEN_MAX + 1))),
            ("token_type", json!("N_A")),
            ("token_type", json!(1)),
            ("expires_in", json!(0)),
            ("expires_in", json!(-1)),
            ("expires_in", json!("300")),
            ("expires_in", json!(300.5)),
            ("expires_in", json!(LIFE_MAX + 1)),
        ] {
            let mut bad = good.clone();
            crate::json::put(&mut bad, member, value.clone());
            assert!(AccessToken::of(&bad).is_err(), "{member}: {value}");
        }
        assert!(AccessToken::of(&json!({})).is_err());
    }
}
