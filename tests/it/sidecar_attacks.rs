//! Who must not get anything from a sidecar: pages, proxies, servers that can be made to fetch, and floods.

use crate::sidecars::Sidecar;
use crate::support::certificates::{Authority, Certificate};
use crate::world::World;
use std::time::{Duration, Instant};

const MEANT: &str = "Countersign-Sidecar: true\r\n";

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn h20_a_request_that_does_not_mean_it_is_refused() {
    let world = World::shared();
    let bot = world.tenant("sidecar-gate");
    let sidecar = Sidecar::beside(&bot, &[]);
    let get = |lines: &str| sidecar.raw(&format!("GET /token HTTP/1.1\r\nConnection: close\r\n{lines}\r\n"));
    let local = format!("Host: {}\r\n", sidecar.address);
    assert_eq!(status(&get(&format!("{local}{MEANT}"))), 200);
    for lines in [
        local.clone(),
        format!("{local}Countersign-Sidecar: false\r\n"),
        format!("{local}{MEANT}{MEANT}"),
        format!("Host: rebound.example:{}\r\n{MEANT}", sidecar.address.port()),
        format!("{local}{MEANT}Origin: https://evil.example\r\n"),
        format!("{local}{MEANT}X-Forwarded-For: 10.0.0.1\r\n"),
        format!("{local}{MEANT}Via: 1.1 proxy\r\n"),
    ] {
        let answer = get(&lines);
        assert_eq!(status(&answer), 403, "{lines}: {answer}");
        assert!(!answer.contains("access_token") && !answer.to_lowercase().contains("access-control-allow"), "{answer}");
    }
    for path in ["/healthz", "/readyz", "/jit/x", "/nowhere"] {
        let answer = sidecar.raw(&format!("GET {path} HTTP/1.1\r\n{local}Connection: close\r\n\r\n"));
        assert_eq!(status(&answer), 403, "{path}: {answer}");
    }
    // The question of a browser whether it may, as it asks before a page sends a header.
    let preflight = format!(
        "OPTIONS /token HTTP/1.1\r\n{local}Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: countersign-sidecar\r\nConnection: close\r\n\r\n"
    );
    let answer = sidecar.raw(&preflight);
    assert!(status(&answer) == 403 && !answer.to_lowercase().contains("access-control-allow"), "{answer}");
    // As one asks a proxy, and as one cannot ask at all.
    let absolute = sidecar.raw(&format!("GET http://evil.example/token HTTP/1.1\r\n{local}{MEANT}Connection: close\r\n\r\n"));
    assert!(matches!(status(&absolute), 400 | 403), "{absolute}");
    assert_ne!(status(&sidecar.raw(&format!("GET /token HTTP/1.0\r\n{MEANT}\r\n"))), 200, "HTTP/1.0 names no Host");
    assert_ne!(status(&sidecar.raw("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\r\n\r\n")), 200);
}

#[test]
fn h22_floods_end_and_the_agent_is_served_meanwhile() {
    let world = World::shared();
    let bot = world.tenant("sidecar-flood");
    let sidecar = Sidecar::beside(&bot, &[]);
    let local = format!("Host: {}\r\n", sidecar.address);
    // Bodies and heads that are too large.
    let large = format!("POST /ask HTTP/1.1\r\n{local}{MEANT}Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(status(&sidecar.raw(&format!("{large}{}", "x".repeat(70_000)))), 413);
    let head = format!("GET /token HTTP/1.1\r\n{local}{MEANT}X: {}\r\n\r\n", "x".repeat(200_000));
    assert_ne!(status(&sidecar.raw(&head)), 200);
    let path = format!("/token?audience={}", "x".repeat(5000));
    sidecar.ask(&path).refused(400, "invalid_request");
    // Connections that say nothing are closed, and the next is served.
    let silent: Vec<_> = (0..300).filter_map(|_| std::net::TcpStream::connect(sidecar.address).ok()).collect();
    let start = Instant::now();
    sidecar.token();
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    drop(silent);
    assert!(sidecar.resident_kib() < 64 * 1024, "{} KiB", sidecar.resident_kib());
    assert!(sidecar.process().exited().is_none());
}

#[test]
fn h23_no_answer_of_a_bad_server_ends_it_or_reaches_the_agent_as_a_token() {
    use std::io::{Read as _, Write as _};
    let world = World::shared();
    let bot = world.tenant("sidecar-bad-server");
    let authority = Authority::new().expect("an authority");
    let (config, listener) = (authority.config(Certificate::Good), std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = listener.local_addr().expect("an address");
    let answers: &'static [&'static str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"a\":",
        "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n{\"access_token\":\"a\",\"token_type\":\"Bearer\"} ",
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n{}",
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        "nonsense\r\n\r\n",
        "",
    ];
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (Ok(stream), answer) = (stream, answers[number % answers.len()]) else { continue };
            let Ok(connection) = rustls::ServerConnection::new(std::sync::Arc::clone(&config)) else { continue };
            let mut tls = rustls::StreamOwned::new(connection, stream);
            _ = tls.read(&mut [0; 4096]);
            _ = tls.write_all(answer.as_bytes());
            tls.conn.send_close_notify();
            _ = tls.flush();
        }
    });
    let sidecar = Sidecar::start_at(&format!("https://{address}"), authority.pem(), &bot.token, &[]);
    for _ in 0..3 {
        sidecar.ask("/token").refused(503, "temporarily_unavailable");
    }
    sidecar.question("/ask", &serde_json::json!({"question": "Can I read documents?"})).refused(503, "temporarily_unavailable");
    assert!(sidecar.process().exited().is_none(), "{}", sidecar.log());
    assert_eq!(sidecar.ask("/readyz").status, 503);
}
