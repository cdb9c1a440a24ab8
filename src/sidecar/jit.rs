//! Asking a person: `POST /jit` files a request for approval, `GET /jit/{auth_req_id}` waits for the decision and its token,
//! `POST /jit/complete` reports that the operation is done.

use super::Sidecar;
use super::answer::{Answer, NoToken, overloaded, refuse, unanswered};
use super::pass::{named, pass};
use super::token::only;
use super::tokens::read;
use super::upstream::{Asked, Unanswered};
use crate::http::error::Refusal;
use crate::http::form::Form;
use crate::token::new_id;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, Request, header};
use axum::response::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a request may be waited for at once, in seconds.
const WAIT_MAX: u64 = 600;
/// How long one poll is held: as long as the token service does.
const HOLD_MAX: Duration = Duration::from_secs(25);
/// How long somebody who files waits for a token service that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a poll that was not answered; it doubles with each.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest it grows.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What may be said of a request. The sidecar says who asks.
const FILED: [&str; 7] =
    ["authorization_details", "audience", "resource", "scope", "binding_message", "requested_expiry", "login_hint_token"];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(super) async fn file(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    let Ok(_slot) = sidecar.in_flight.try_acquire() else { return overloaded() };
    match filing(&sidecar, request).await {
        Ok(Ok(asked)) => pass(sidecar.upstream.insist(&asked, PATIENCE).await),
        Ok(Err(failed)) => unanswered(&failed.why),
        Err(refusal) => refuse(refusal),
    }
}

async fn filing(sidecar: &Sidecar, request: Request<Body>) -> Result<Result<Asked, Unanswered>, Refusal> {
    let given: Vec<HeaderValue> = request.headers().get_all(&IDEMPOTENCY_KEY).iter().cloned().collect();
    let form = Form::read(request).await?;
    only(&form, &FILED)?;
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    for name in FILED {
        parameters.extend(form.all(name).map(|value| (name, value)));
    }
    let own = match sidecar.upstream.credential().await {
        Ok(credential) => sidecar.name.of(&credential).map(|name| name.to_string()),
        Err(failed) => return Ok(Err(failed)),
    };
    if form.raw("login_hint_token").is_none() {
        let Some(own) = &own else {
            let description = "nobody knows which agent this is: start the sidecar with --agent";
            return Err(Refusal::new("unknown_user_id", "agent_unknown", description));
        };
        parameters.push(("login_hint", own));
    }
    let mut asked = Asked::form("/oauth2/bc-authorize", &parameters);
    if given.is_empty() {
        // With a key, a request that arrives twice is one request.
        let key = new_id().ok().and_then(|id| HeaderValue::from_str(&id).ok());
        asked.headers.extend(key.map(|key| (IDEMPOTENCY_KEY, key)));
    }
    for key in given {
        asked.headers.append(IDEMPOTENCY_KEY, key);
    }
    Ok(Ok(asked))
}

pub(super) async fn complete(State(sidecar): State<Arc<Sidecar>>, request: Request<Body>) -> Response {
    let Ok(_slot) = sidecar.in_flight.try_acquire() else { return overloaded() };
    match named(request).await {
        // 200 comes once: what may have arrived is not sent again.
        Ok(token) => pass(sidecar.upstream.insist_once(&Asked::form("/jit/complete", &[("token", &token)]), PATIENCE).await),
        Err(refusal) => refuse(refusal),
    }
}

pub(super) async fn look(State(sidecar): State<Arc<Sidecar>>, Path(id): Path<String>, request: Request<Body>) -> Response {
    let wait = Form::of_query(request.uri()).and_then(|form| {
        only(&form, &["wait"])?;
        let seconds = form.get("wait")?.map_or(Ok(0), str::parse).ok().filter(|seconds| *seconds <= WAIT_MAX);
        let seconds = seconds.ok_or_else(|| Refusal::malformed(format!("wait is a number of seconds, at most {WAIT_MAX}")))?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if id.len() > 128 || !id.bytes().all(plain) {
            return Err(Refusal::malformed("auth_req_id is none that was given out"));
        }
        Ok(Duration::from_secs(seconds))
    });
    let wait = match wait {
        Ok(wait) => wait,
        Err(refusal) => return refuse(refusal),
    };
    let Ok(_place) = sidecar.waiting.try_acquire() else { return overloaded() };
    let until = Instant::now() + wait;
    let pace = sidecar.paces.of(&id);
    // Another one waits for the same: it hears first, and a moment later the token service gives us the same token.
    let patience = wait.max(Duration::from_millis(100));
    let Ok(mut pace) = tokio::time::timeout(patience, pace.lock()).await else { return pending() };
    let mut pause = PAUSE;
    loop {
        let next = pace.next(Instant::now());
        if next > until {
            if next > Instant::now() {
                tokio::time::sleep_until(until.into()).await;
                return pending();
            }
        } else {
            tokio::time::sleep_until(next.into()).await;
        }
        let sent = Instant::now();
        let hold = until.saturating_duration_since(sent).min(HOLD_MAX);
        pace.sent(sent);
        let answer = sidecar.upstream.ask(&poll(&id, hold)).await;
        let is_over = Instant::now() >= until;
        match &answer {
            Ok(answer) if matches!(answer.error(), Some("authorization_pending")) => {
                if is_over {
                    return pending();
                }
                // Held for as long as it could be, or not at all, by a token service that is too busy or about to end.
                pause = PAUSE;
            }
            Ok(answer) if matches!(answer.error(), Some("slow_down")) => pace.slow_down(Instant::now()),
            _ if !is_over && answer.as_ref().map_or(true, Answer::is_passing) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            _ => {
                let passing = answer.as_ref().map_or(true, Answer::is_passing);
                if !passing {
                    sidecar.paces.forget(&id);
                }
                return concluded(answer);
            }
        }
    }
}

fn poll(id: &str, hold: Duration) -> Asked {
    let mut asked = Asked::form("/oauth2/token", &[("grant_type", "urn:openid:params:grant-type:ciba"), ("auth_req_id", id)]);
    let prefer = HeaderValue::from_str(&format!("wait={}", hold.as_secs()));
    asked.headers.extend(prefer.ok().map(|value| (HeaderName::from_static("prefer"), value)));
    asked.hold = hold;
    asked
}

/// The token, or why there will be none.
fn concluded(answer: Result<Answer, Unanswered>) -> Response {
    match read(answer) {
        Ok(token) => token.response(token.lifetime()),
        Err(NoToken::Refused(answer)) => answer.response(),
        Err(NoToken::Unanswered(why)) => unanswered(&why),
    }
}

/// Nobody has decided yet.
fn pending() -> Response {
    let refusal = Refusal::new("authorization_pending", "authorization_pending", "nobody has decided yet: ask again");
    let mut response = refuse(refusal);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_asks_to_be_held_as_long_as_the_agent_waits() {
        let asked = poll("a", Duration::from_secs(7));
        assert_eq!((asked.headers["prefer"].as_bytes(), asked.hold.as_secs()), (&b"wait=7"[..], 7));
    }
}
