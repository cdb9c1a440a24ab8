//! The load generator: keep-alive connections, requests made beforehand, a reader that does no more than it must. What it
//! spends, both servers lack, and that would flatter the ratio.

use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Longest answer.
const ANSWER_MAX: usize = 16 * 1024;
/// How long one answer may take before the benchmark fails.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A server, and the requests that are sent to it in turn.
#[derive(Clone)]
pub struct Target {
    /// For messages.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// `None` is plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// What is sent.
    pub requests: Requests,
    /// What every answer must be.
    pub answer: Answer,
}

/// What an answer must be, beside 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An access token that no other answer had.
    NewToken,
    /// An access token.
    Token,
    /// That the token is alive.
    Active,
    /// That it is allowed, and of several that the first is.
    Allowed,
}

/// Whole requests, head and body.
#[derive(Clone)]
pub enum Requests {
    /// The same again and again.
    Repeated(Arc<Vec<Vec<u8>>>),
    /// Each is good once, and soon for nothing: they are made before each round, which is over when they are used up.
    Once(Arc<dyn Fn() -> Vec<Vec<u8>>>),
}

/// The requests of one round. Each connection takes the next one.
struct Queue {
    requests: Arc<Vec<Vec<u8>>>,
    repeated: bool,
    taken: AtomicUsize,
}

impl Queue {
    fn new(requests: &Requests) -> Self {
        let (requests, repeated) = match requests {
            Requests::Repeated(requests) => (Arc::clone(requests), true),
            Requests::Once(make) => (Arc::new(make()), false),
        };
        Self { requests, repeated, taken: AtomicUsize::new(0) }
    }

    fn next(&self) -> Option<&[u8]> {
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        let index = if self.repeated { index % self.requests.len() } else { index };
        self.requests.get(index).map(Vec::as_slice)
    }
}

/// One round. Times are in seconds.
#[derive(Debug)]
pub struct Measured {
    /// Answers per second over all connections.
    pub per_second: f64,
    /// The median latency.
    pub p50: f64,
    /// The latency that one in a hundred exceeds.
    pub p99: f64,
}

/// What one connection saw.
#[derive(Debug, Default)]
struct Seen {
    latencies: Vec<f64>,
    /// The end of each access token, which is a part of its signature: equal tokens have equal ends.
    tokens: Vec<u128>,
}

/// Loads `target` for `length` over `connections` connections, opened beforehand. Any answer but 200 with what it must be
/// ends the benchmark.
pub async fn run(target: &Target, connections: usize, length: Duration) -> Measured {
    // Before the connections, which do not wait for long.
    let queue = Arc::new(Queue::new(&target.requests));
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(target).await);
    }
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for stream in streams {
        let (queue, name, answer) = (Arc::clone(&queue), target.name, target.answer);
        tasks.spawn(async move { speak(stream, &queue, name, answer, start + length).await });
    }
    let (mut latencies, mut tokens) = (Vec::new(), Vec::new());
    while let Some(seen) = tasks.join_next().await {
        let seen = seen.expect("every answer is as it must be");
        latencies.extend(seen.latencies);
        tokens.extend(seen.tokens);
    }
    let elapsed = start.elapsed().as_secs_f64();
    tokens.sort_unstable();
    tokens.dedup();
    let expected = if target.answer == Answer::NewToken { latencies.len() } else { 0 };
    assert_eq!(tokens.len(), expected, "{}: two answers had one token", target.name);
    latencies.sort_by(f64::total_cmp);
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().expect("an answer");
    Measured { per_second: latencies.len() as f64 / elapsed, p50: at(50), p99: at(99) }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens a connection.
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

/// Sends requests one after the other until `end`, or until there are no more.
async fn speak(mut stream: Box<dyn Stream>, queue: &Queue, name: &str, answer: Answer, end: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut buffer = vec![0; ANSWER_MAX];
    let deadline = tokio::time::sleep_until((end + ANSWER_WITHIN).into());
    let mut deadline = std::pin::pin!(deadline);
    loop {
        let begin = Instant::now();
        let Some(request) = queue.next().filter(|_| begin < end) else { return seen };
        stream.write_all(request).await.expect("sent");
        stream.flush().await.expect("sent");
        let body = tokio::select! {
            biased;
            body = read_answer(&mut stream, &mut buffer, name) => body,
            () = deadline.as_mut() => panic!("{name}: no answer"),
        };
        seen.latencies.push(begin.elapsed().as_secs_f64());
        match answer {
            Answer::NewToken => seen.tokens.push(end_of_token(body)),
            Answer::Token => _ = end_of_token(body),
            Answer::Allowed => {
                let allowed = body.windows(15).any(|part| part == br#""decision":true"#);
                assert!(allowed, "{name}: {}", String::from_utf8_lossy(body));
            }
            Answer::Active => assert!(body.starts_with(br#"{"active":true"#), "{name}: {}", String::from_utf8_lossy(body)),
        }
    }
}

/// Reads one answer with a Content-Length and returns its body.
async fn read_answer<'a>(stream: &mut Box<dyn Stream>, buffer: &'a mut [u8], name: &str) -> &'a [u8] {
    let (mut filled, mut head) = (0, None);
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(read > 0, "{name}: the connection ended, or an answer is too long");
        filled += read;
        if head.is_none() {
            head = read_head(&buffer[..filled], name);
        }
        match head {
            Some((start, end)) if filled >= end => return &buffer[start..end],
            _ => {}
        }
    }
}

/// Where the body begins and ends, once the head is complete.
fn read_head(bytes: &[u8], name: &str) -> Option<(usize, usize)> {
    let start = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..start]).expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{name} answers: {}", String::from_utf8_lossy(bytes));
    let length = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().expect("a number"))
    };
    let length = head.lines().find_map(length).expect("a length");
    Some((start, start + length))
}

/// The last 16 characters of the access token in `body`.
fn end_of_token(body: &[u8]) -> u128 {
    const MEMBER: &[u8] = br#""access_token":""#;
    let start = body.windows(MEMBER.len()).position(|w| w == MEMBER).expect("an access token") + MEMBER.len();
    let length = body[start..].iter().position(|b| *b == b'"').expect("the end of a text");
    let end = body[start..start + length].last_chunk::<16>().expect("a long token");
    u128::from_ne_bytes(*end)
}
