//! The sidecar: a small server beside an agent that holds its credential, so that the agent holds none.
//!
//! It listens on the loopback address of the pod. Whoever is there may ask for what the agent may have: tokens, which it keeps for a while
//! and replaces early, requests for approval, and answers of the token service. It decides nothing: every decision is the token service's,
//! and what cannot be had there is not had here.

mod answer;
mod gate;
mod held;
mod jit;
mod pace;
mod pass;
mod possession;
mod proof;
mod ready;
mod token;
mod tokens;
mod upstream;
mod whoami;

pub use ready::probe;
pub use upstream::{Authority, Upstream};

use crate::cli::sidecar::SidecarArgs;
use crate::http::server::{self, Shutdown};
use answer::wrong_method;
use axum::Router;
use axum::routing::{get, post};
use pace::Paces;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokens::Tokens;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use whoami::OwnName;

/// Most connections at once.
const CONNECTIONS_MAX: usize = 256;
/// How many requests are worked on at once.
const IN_FLIGHT_MAX: usize = 64;
/// How many may wait for a decision at once.
const WAITING_MAX: usize = 64;

/// Why the sidecar does not run.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
}

/// What every request needs.
struct Sidecar {
    upstream: Arc<Upstream>,
    tokens: Arc<Tokens>,
    paces: Paces,
    name: Arc<OwnName>,
    /// What is meant by a request for a token that says nothing.
    usual: tokens::Target,
    is_ready: AtomicBool,
    in_flight: Semaphore,
    waiting: Semaphore,
}

/// Serves until told to stop.
///
/// # Errors
/// If the address cannot be listened on. Nothing that the token service does or fails to do ends it.
pub async fn serve(args: SidecarArgs, stopped: watch::Receiver<bool>) -> Result<(), SidecarError> {
    let address = args.listen_address;
    let listener = TcpListener::bind(address).await.map_err(|error| SidecarError::Listen(address, error))?;
    tracing::info!(%address, url = args.url, version = env!("CARGO_PKG_VERSION"), "the sidecar listens");
    let upstream = Arc::new(Upstream::new(args.url, args.token_file, args.authority.into()));
    let name = Arc::new(OwnName::new(args.agent));
    let tokens = Tokens::new(Arc::clone(&upstream), Arc::clone(&name), Duration::from_secs(args.max_age));
    let sidecar = Arc::new(Sidecar {
        upstream,
        tokens: Arc::new(tokens),
        paces: Paces::default(),
        name,
        usual: tokens::Target { audience: args.audience.filter(|a| !a.is_empty()), scope: args.scope.filter(|s| !s.is_empty()) },
        is_ready: AtomicBool::new(false),
        in_flight: Semaphore::new(IN_FLIGHT_MAX),
        waiting: Semaphore::new(WAITING_MAX),
    });
    let becoming_ready = tokio::spawn(ready::become_ready(Arc::clone(&sidecar)));
    // Nobody else listens here, so there is nobody to send to.
    let shutdown = Shutdown::new(stopped, Duration::ZERO);
    server::serve_at_most(CONNECTIONS_MAX, listener, None, router(sidecar), shutdown).await;
    becoming_ready.abort();
    tracing::info!("the sidecar has ended");
    Ok(())
}

fn router(sidecar: Arc<Sidecar>) -> Router {
    Router::new()
        .route("/token", get(token::obtain).post(token::exchange))
        .route("/proof", post(proof::prove))
        .route("/jit", post(jit::file))
        .route("/jit/complete", post(jit::complete))
        .route("/jit/{auth_req_id}", get(jit::look))
        .route("/revoke", post(pass::revoke))
        .route("/access/v1/evaluation", post(pass::evaluation))
        .route("/access/v1/evaluations", post(pass::evaluations))
        .route("/access/v1/search/action", post(pass::search_action))
        .route("/ask", post(pass::ask))
        .route("/healthz", get(ready::healthz))
        .route("/readyz", get(ready::readyz))
        .method_not_allowed_fallback(wrong_method)
        .fallback(answer::not_found)
        .layer(axum::middleware::from_fn(gate::check))
        .with_state(sidecar)
}
