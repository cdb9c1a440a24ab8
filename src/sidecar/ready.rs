//! When the agent may start: once the token service knows it. And the probe that asks, because a kubelet cannot reach the loopback address
//! of a pod.

use super::Sidecar;
use super::answer::NoToken;
use super::tokens::Wanted;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The pause after the first attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest it grows.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the probe waits.
const PROBE_WITHIN: Duration = Duration::from_secs(3);

/// Asks for the usual token until there is one, or until it is plain that the agent is known and nothing is usual.
pub(super) async fn become_ready(sidecar: Arc<Sidecar>) {
    let (mut pause, mut said) = (PAUSE, String::new());
    loop {
        let outcome = sidecar.tokens.get(Wanted { target: sidecar.usual.clone(), subject: None }, false).await;
        let no_token = outcome.err();
        let why = match &no_token {
            None => break,
            Some(NoToken::Refused(answer)) if sidecar.usual.audience.is_none() && is_known(answer.error()) => break,
            Some(why) => why.to_string(),
        };
        if why != said {
            tracing::warn!(why, "not ready: the agent gets no token yet");
            said = why;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    tracing::info!("ready: the token service knows the agent");
    sidecar.is_ready.store(true, Ordering::Release);
}

/// Whether this is said only to an agent that is known: it has no capability without approval, or several audiences.
fn is_known(error: Option<&str>) -> bool {
    matches!(error, Some("invalid_scope" | "invalid_target"))
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(sidecar): State<Arc<Sidecar>>) -> Response {
    if sidecar.is_ready.load(Ordering::Acquire) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the agent gets no token yet: the log of the sidecar says why\n").into_response()
    }
}

/// Asks the sidecar at `address` whether it is ready, once.
///
/// # Errors
/// Why it is not, or that nobody answers.
pub fn probe(address: SocketAddr) -> Result<(), String> {
    let answer = fetch(address).map_err(|error| format!("no sidecar answers at {address}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(answer.split_once("\r\n\r\n").map_or("the answer is none", |(_, body)| body).trim().to_owned())
}

fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE_WITHIN)?;
    stream.set_read_timeout(Some(PROBE_WITHIN))?;
    stream.set_write_timeout(Some(PROBE_WITHIN))?;
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nCountersign-Sidecar: true\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
