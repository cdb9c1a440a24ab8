//! Connections: HTTP/1.1, over TLS or in the clear, each bounded in time and all bounded in number.
//!
//! HTTP/2 is not spoken: its clients fall back, and rapid resets, CONTINUATION floods and window games have nothing
//! to reset, flood or play with.

use super::ClientAddress;
use super::limits::network;
use super::prompt::Prompt;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// Most of them from one address. A proxy may be one address for everybody, so that this is most of all, but never all.
const CONNECTIONS_OF_ONE: usize = CONNECTIONS_MAX / 4 * 3;
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
    serve_crowd(CONNECTIONS_MAX, CONNECTIONS_OF_ONE, listener, tls, router, shutdown).await;
}

/// The same, on so many connections at once, from wherever.
pub async fn serve_at_most(most: usize, listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, shutdown: Shutdown) {
    serve_crowd(most, most, listener, tls, router, shutdown).await;
}

/// The same, on so many connections at once, and so many of one address.
async fn serve_crowd(
    most: usize,
    of_one: usize,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut shutdown: Shutdown,
) {
    let connections = Arc::new(Semaphore::new(most));
    let crowd = Arc::new(Crowd::default());
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
        let Some(place) = crowd.enter(peer.ip(), of_one) else {
            tracing::debug!(client_address = %peer.ip(), "an address has as many connections as one may");
            continue;
        };
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            connection(stream, peer, tls, router, shutdown).await;
            drop((slot, place));
        });
    }
    let all = u32::try_from(most).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN_WITHIN, connections.acquire_many(all)).await.is_err() {
        tracing::warn!("open requests did not finish in time and are cut off");
    }
}

/// How many connections each address has, so that nobody takes those of all others.
#[derive(Debug, Default)]
struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// The place of one connection. It is free again when this is dropped.
struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let address = network(address);
        let mut counts = self.lock();
        let count = counts.get(&address).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        counts.insert(address, count + 1);
        Some(Place { crowd: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.lock();
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = counts.remove(&self.address),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    /// The answer; nothing if the connection is turned away.
    async fn ask(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn h1_one_address_does_not_take_the_connections_of_all() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tell, told) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "ok" }));
        let serving = tokio::spawn(serve_crowd(4, 3, listener, None, router, Shutdown::new(told, Duration::ZERO)));
        let mut greedy = Vec::new();
        for _ in 0..8 {
            greedy.push(TcpStream::connect(address).await.expect("connected"));
        }
        let elsewhere = TcpSocket::new_v4().expect("a socket");
        elsewhere.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
        let elsewhere = elsewhere.connect(address).await.expect("connected");
        let answered = tokio::time::timeout(HEAD_WITHIN / 2, ask(elsewhere)).await.expect("it is not kept waiting");
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        drop(greedy);
        let until = tokio::time::Instant::now() + HEAD_WITHIN;
        while !ask(TcpStream::connect(address).await.expect("connected")).await.starts_with("HTTP/1.1 200") {
            assert!(tokio::time::Instant::now() < until, "a place that is left is free");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tell.send_replace(true);
        serving.await.expect("it ends");
    }
}
