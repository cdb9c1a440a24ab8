//! The bare stack: the same axum, hyper, TLS and keep-alive, which verifies the RS256 signature of the ServiceAccount token,
//! signs an Ed25519 token, and does nothing else. It knows no agent, decides nothing and records nothing.

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use countersign::http::server;
use countersign::tls::ServingCertificate;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::net::TcpListener;

/// Makes this binary the bare stack: `--bare-stack DIRECTORY TLS_ADDRESS PLAIN_ADDRESS`. DIRECTORY has `jwks.json` of the API
/// server, `tls.crt` and `tls.key`.
pub const ARGUMENT: &str = "--bare-stack";

/// Serves until it is killed.
pub fn run(arguments: &[String]) {
    let [directory, tls, plain] = arguments else { panic!("usage: {ARGUMENT} DIRECTORY TLS_ADDRESS PLAIN_ADDRESS") };
    let read = |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).expect(name);
    let set: JwkSet = serde_json::from_str(&read("jwks.json")).expect("a JWKS");
    let verify = DecodingKey::from_jwk(set.keys.first().expect("a key")).expect("an RSA key");
    let state = Arc::new(State::new(verify));
    let router = Router::new().route(
        "/oauth2/token",
        post(move |body: Bytes| {
            let state = Arc::clone(&state);
            async move { state.exchange(&body) }
        }),
    );
    let acceptor = ServingCertificate::new(&read("tls.crt"), &read("tls.key")).and_then(|c| c.acceptor()).expect("a certificate");
    let (tls, plain): (SocketAddr, SocketAddr) = (tls.parse().expect("an address"), plain.parse().expect("an address"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_stop, never) = tokio::sync::watch::channel(false);
        let (tls, plain) = (TcpListener::bind(tls).await.expect("a port"), TcpListener::bind(plain).await.expect("a port"));
        tokio::join!(
            server::serve(tls, Some(acceptor), router.clone(), never.clone()),
            server::serve(plain, None, router, never)
        );
    });
}

struct State {
    verify: DecodingKey,
    validation: Validation,
    sign: EncodingKey,
    count: AtomicU64,
}

impl State {
    fn new(verify: DecodingKey) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_aud = false;
        let pem = countersign::token::generate_pem().expect("a key");
        let sign = EncodingKey::from_ed_pem(pem.as_bytes()).expect("an Ed25519 key");
        Self { verify, validation, sign, count: AtomicU64::new(0) }
    }

    fn exchange(&self, body: &[u8]) -> ([(&'static str, &'static str); 1], String) {
        let token = body.split(|b| *b == b'&').find_map(|p| p.strip_prefix(b"subject_token=")).expect("a token");
        let claims = jsonwebtoken::decode::<Value>(token, &self.verify, &self.validation).expect("a good token").claims;
        let claims = json!({"sub": claims["sub"], "aud": "https://docs.example.com", "exp": claims["exp"], "jti": self.count.fetch_add(1, Ordering::Relaxed)});
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.sign).expect("signed");
        let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 300});
        ([("content-type", "application/json")], answer.to_string())
    }
}

/// What verifying RS256 and signing Ed25519 cost alone, in microseconds.
pub fn cost_of_cryptography() -> (f64, f64) {
    let made = std::process::Command::new("openssl").args(["genrsa", "2048"]).output().expect("openssl");
    let rsa = EncodingKey::from_rsa_pem(&made.stdout).expect("an RSA key");
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&rsa, Algorithm::RS256).expect("a JWK");
    let verify = DecodingKey::from_jwk(&jwk).expect("a key");
    let message = vec![b'a'; 900];
    let signature = jsonwebtoken::crypto::sign(&message, &rsa, Algorithm::RS256).expect("signed");
    let ed = EncodingKey::from_ed_pem(countersign::token::generate_pem().expect("a key").as_bytes()).expect("an Ed25519 key");
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        (0..2000).for_each(|_| work());
        start.elapsed().as_secs_f64() / 2000.0 * 1e6
    };
    (
        time(&|| assert!(jsonwebtoken::crypto::verify(&signature, &message, &verify, Algorithm::RS256).expect("verified"))),
        time(&|| assert!(!jsonwebtoken::crypto::sign(&message, &ed, Algorithm::EdDSA).expect("signed").is_empty())),
    )
}
