//! Connections: HTTP/1.1, over TLS or in the clear, each bounded in time and all bounded in number.
//!
//! HTTP/2 is not spoken: its clients fall back, and rapid resets, CONTINUATION floods and window games have nothing
//! to reset, flood or play with.

use super::ClientAddress;
use super::prompt::Prompt;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a peer may take nothing of what is written to it.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Longest head of a request, in bytes. An Authorization header holds a token of up to 8 KiB.
const HEAD_MAX: usize = 32 * 1024;
/// Most connections at once.
const CONNECTIONS_MAX: usize = 4096;
/// How long open requests may take to finish after a shutdown was asked for.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// How a server ends: in two steps, so that nobody finds a closed door.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Says true when the process is about to end. Whoever is connected is told to connect anew, which leads to another replica.
    pub told: watch::Receiver<bool>,
    /// Says true when nobody is sent here any more: open requests finish, nothing new is accepted.
    pub closing: watch::Receiver<bool>,
}

impl Shutdown {
    /// From `told` on, the door stays open for so long: others take that time to hear that this process is going.
    #[must_use]
    pub fn new(told: watch::Receiver<bool>, delay: Duration) -> Self {
        let (close, closing) = watch::channel(false);
        let mut waiting = told.clone();
        tokio::spawn(async move {
            stop(&mut waiting).await;
            tokio::time::sleep(delay).await;
            close.send_replace(true);
        });
        Self { told, closing }
    }
}

/// Serves `router` on `listener` until it is told to close, then lets open requests finish.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, shutdown: Shutdown) {
    serve_at_most(CONNECTIONS_MAX, listener, tls, router, shutdown).await;
}

/// The same, on so many connections at once.
pub async fn serve_at_most(most: usize, listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, mut shutdown: Shutdown) {
    let connections = Arc::new(Semaphore::new(most));
    loop {
        let Ok(slot) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop(&mut shutdown.closing) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, for example. A pause lets connections end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            connection(stream, peer, tls, router, shutdown).await;
            drop(slot);
        });
    }
    let all = u32::try_from(most).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN_WITHIN, connections.acquire_many(all)).await.is_err() {
        tracing::warn!("open requests did not finish in time and are cut off");
    }
}

/// Waits until we are told to stop, or nobody is left who could tell.
async fn stop(shutdown: &mut watch::Receiver<bool>) {
    _ = shutdown.wait_for(|stop| *stop).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, router: Router, shutdown: Shutdown) {
    // Replies are small and written at once: waiting to gather more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let stream = Prompt::new(stream, READ_WITHIN);
    match tls {
        None => speak(stream, peer, router, shutdown).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => speak(stream, peer, router, shutdown).await,
            Ok(Err(error)) => tracing::debug!(client_address = %peer.ip(), %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(client_address = %peer.ip(), "a TLS handshake took too long"),
        },
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    shutdown: Shutdown,
) {
    let Shutdown { told, mut closing } = shutdown;
    let service = router
        .into_service::<hyper::body::Incoming>()
        .map_request(move |mut request: Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ClientAddress(peer));
            request
        })
        .map_response(move |mut response: Response| {
            if *told.borrow() {
                // A connection that ends with a reply is one on which no request gets lost.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_headers(HEADERS_MAX).max_buf_size(HEAD_MAX);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = stop(&mut closing) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(client_address = %peer.ip(), %error, "a connection ended early");
    }
}
