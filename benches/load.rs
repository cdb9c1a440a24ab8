//! The load generator: keep-alive connections, requests made beforehand, a reader that does no more than it must.

use rustls::pki_types::ServerName;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server, and the requests that are sent to it in turn.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// `None` is plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub requests: Arc<Vec<Vec<u8>>>,
}

/// One round. Times are in seconds.
#[derive(Debug)]
pub struct Measured {
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
}

/// Loads `target` for `length` over `connections` connections. Any answer but 200 with a token of its own ends the benchmark.
pub async fn run(target: &Target, connections: usize, length: Duration) -> Measured {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(target).await);
    }
    let start = Instant::now();
    let tasks = streams.into_iter().enumerate().map(|(i, stream)| {
        let requests = Arc::clone(&target.requests);
        async move { speak(stream, &requests, i, start + length).await }
    });
    let done = futures::future::join_all(tasks).await;
    let elapsed = start.elapsed().as_secs_f64();
    let mut tokens = HashSet::new();
    let mut times: Vec<f64> = Vec::new();
    for (latencies, sample) in done {
        assert!(sample.into_iter().all(|token| tokens.insert(token)), "two answers had one token");
        times.extend(latencies);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    Measured { per_second: times.len() as f64 / elapsed, p50: at(0.5), p99: at(0.99) }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(target: &Target) -> Box<dyn Stream> {
    let stream = TcpStream::connect(target.address).await.expect("connected");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    match &target.tls {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::from(target.address.ip());
            Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await.expect("a TLS handshake"))
        }
    }
}

/// Sends requests one after the other until `end`. Returns the latencies and every sixteenth token.
async fn speak(mut stream: Box<dyn Stream>, requests: &[Vec<u8>], first: usize, end: Instant) -> (Vec<f64>, Vec<Vec<u8>>) {
    let (mut latencies, mut sample) = (Vec::with_capacity(65_536), Vec::new());
    let mut buffer = vec![0; 16 * 1024];
    for request in requests.iter().cycle().skip(first) {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        stream.write_all(request).await.expect("sent");
        stream.flush().await.expect("sent");
        let body = read_answer(&mut stream, &mut buffer).await;
        latencies.push(begin.elapsed().as_secs_f64());
        if latencies.len() % 16 == 0 {
            let token = body.split(|b| *b == b'"').max_by_key(|part| part.len()).expect("a token");
            assert!(token.len() > 100, "no token in {}", String::from_utf8_lossy(body));
            sample.push(token.to_vec());
        }
    }
    (latencies, sample)
}

/// Reads one answer with a Content-Length and returns its body.
async fn read_answer<'a>(stream: &mut Box<dyn Stream>, buffer: &'a mut [u8]) -> &'a [u8] {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
        let Some(head) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head]).expect("a head");
        assert!(text.starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let end = head + 4 + length.parse::<usize>().expect("a number");
        if filled >= end {
            return &buffer[head + 4..end];
        }
    }
}
