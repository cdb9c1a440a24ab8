//! Connections that are slow, huge, many, or speak something else.

use crate::world::World;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A TLS connection by openssl: what goes into stdin is sent as it is.
struct Raw(std::process::Child);

impl Raw {
    fn open(world: &World, arguments: &[&str]) -> Self {
        let address = world.operator.url().replace("https://", "");
        let child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &address, "-CAfile"])
            .arg(world.operator.ca_file())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("openssl"))
    }

    fn send(&mut self, bytes: &[u8]) {
        // A peer that has closed is what some tests want to see: the answer tells.
        let stdin = self.0.stdin.as_mut().expect("stdin");
        _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
    }

    /// What comes until the peer closes.
    fn read(mut self) -> String {
        let mut text = Vec::new();
        _ = self.0.stdout.take().expect("stdout").read_to_end(&mut text);
        _ = self.0.kill();
        _ = self.0.wait();
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[test]
fn h1_a_head_that_does_not_come_ends_the_connection() {
    let world = World::shared();
    let start = Instant::now();
    let mut raw = Raw::open(world, &[]);
    raw.send(b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    assert!(!raw.read().contains("200"), "no answer to half a head");
    assert!((Duration::from_secs(3)..Duration::from_secs(20)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn h2_a_body_that_does_not_come_is_answered_in_time() {
    let world = World::shared();
    let start = Instant::now();
    let mut raw = Raw::open(world, &[]);
    raw.send(b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\ngrant_");
    let answer = raw.read();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request was not complete"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

#[test]
fn h16_a_handshake_that_does_not_come_ends_the_connection() {
    let world = World::shared();
    let mut stream = TcpStream::connect(world.operator.url().replace("https://", "")).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut byte = [0];
    assert_eq!(stream.read(&mut byte).expect("closed, not stuck"), 0);
}

#[test]
fn h2_h4_a_message_with_two_lengths_is_refused() {
    let world = World::shared();
    for lengths in [
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: -1",
        "Content-Length: 3x",
    ] {
        let mut raw = Raw::open(world, &[]);
        raw.send(format!("POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n{lengths}\r\nConnection: close\r\n\r\na=b").as_bytes());
        let answer = raw.read();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{lengths}: {answer}");
    }
}

#[test]
fn h4_a_head_that_another_server_could_read_otherwise_is_refused() {
    let world = World::shared();
    let form = "Content-Type: application/x-www-form-urlencoded";
    let chunks = "3\r\na=b\r\n0\r\n\r\n";
    for head in [
        "GET /.well-known/oauth-authorization-server HTTP/1.1".to_owned(),
        "GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: x\r\nHost: x".to_owned(),
        format!("POST /oauth2/token HTTP/1.1\r\nHost: x\r\n{form}\r\nTransfer-Encoding: gzip, chunked"),
        format!("POST /oauth2/token HTTP/1.1\r\nHost: x\r\n{form}\r\nTransfer-Encoding: chunked, chunked"),
        format!("POST /oauth2/token HTTP/1.1\r\nHost: x\r\n{form}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ] {
        let mut raw = Raw::open(world, &[]);
        // What comes behind it is not answered.
        raw.send(format!("{head}\r\n\r\n{chunks}GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        let answer = raw.read();
        assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("HTTP/1.1 200"), "{head}: {answer}");
        assert!(answer.contains("RFC 9112"), "{head}: {answer}");
    }
    let mut raw = Raw::open(world, &[]);
    raw.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(raw.read().starts_with("HTTP/1.0 200"), "HTTP/1.0 knows no Host");
}

#[test]
fn h4_a_body_without_end_is_cut_off() {
    let world = World::shared();
    let mut raw = Raw::open(world, &[]);
    raw.send(b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..64 {
        raw.send(format!("800\r\n{}\r\n", "a".repeat(0x800)).as_bytes());
    }
    let answer = raw.read();
    assert!(answer.starts_with("HTTP/1.1 413") || answer.is_empty(), "{answer}");
}

#[test]
fn h2_pipelined_requests_are_answered_in_order_and_bounded_heads_are_refused() {
    let world = World::shared();
    let mut raw = Raw::open(world, &[]);
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    raw.send(request.repeat(99).as_bytes());
    raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(raw.read().matches("HTTP/1.1 200 OK").count(), 100);

    let mut raw = Raw::open(world, &[]);
    raw.send(b"GET /healthz HTTP/1.1\r\n");
    for i in 0..200 {
        raw.send(format!("X-{i}: y\r\n").as_bytes());
    }
    raw.send(b"\r\n");
    assert!(raw.read().starts_with("HTTP/1.1 431"), "too many headers");
}

#[test]
fn h3_http_2_is_not_spoken() {
    let world = World::shared();
    let mut raw = Raw::open(world, &["-alpn", "h2"]);
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let answer = raw.read();
    assert!(!answer.contains("200"), "{answer}");
    let mut raw = Raw::open(world, &["-alpn", "h2,http/1.1"]);
    raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(raw.read().starts_with("HTTP/1.1 200"));
}

#[test]
fn h1_many_slow_connections_do_not_keep_others_out() {
    let world = World::shared();
    let address = world.operator.url().replace("https://", "");
    let slow: Vec<TcpStream> = (0..500).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    let tenant = world.tenant("crowded");
    for _ in 0..20 {
        world.exchange(&tenant.token).expect(200);
    }
    drop(slow);
}

#[test]
fn tls_below_1_2_is_refused() {
    let world = World::shared();
    for old in ["-tls1", "-tls1_1"] {
        let mut raw = Raw::open(world, &[old, "-cipher", "ALL:@SECLEVEL=0"]);
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(!raw.read().contains("200"), "{old}");
    }
}
