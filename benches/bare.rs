//! The bare stack: axum on hyper, TLS, keep-alive, and the cryptography of an exchange. It verifies the RS256 signature of the
//! ServiceAccount token, signs an Ed25519 token and replies. It knows no agent, decides nothing and records nothing, and shares
//! no code with the operator's way of a request.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Makes this binary the bare stack: `--bare-stack DIRECTORY ISSUER TLS_ADDRESS PLAIN_ADDRESS`. DIRECTORY has `jwks.json` of the
/// API server, `tls.crt` and `tls.key`.
pub const ARGUMENT: &str = "--bare-stack";
/// The audience of its tokens.
const AUDIENCE: &str = "https://docs.example.com";
/// How long its tokens live, in seconds.
const LIFETIME: u64 = 300;

/// Serves until it is killed.
pub fn run(arguments: &[String]) {
    let [directory, issuer, tls, plain] = arguments else {
        panic!("usage: {ARGUMENT} DIRECTORY ISSUER TLS_ADDRESS PLAIN_ADDRESS")
    };
    let directory = Path::new(directory);
    let jwks = std::fs::read_to_string(directory.join("jwks.json")).expect("the JWKS");
    let stack = Arc::new(Bare::new(&jwks, issuer));
    let router =
        Router::new().route("/oauth2/token", post(exchange)).route("/oauth2/introspect", post(constant)).with_state(stack);
    let acceptor = acceptor(directory);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bind = |address: &str| TcpListener::bind(address.parse::<SocketAddr>().expect("an address"));
        let (tls, plain) = (bind(tls).await.expect("a port"), bind(plain).await.expect("a port"));
        tokio::join!(serve(tls, Some(acceptor), router.clone()), serve(plain, None, router));
    });
}

/// TLS as the operator speaks it, with the same certificate.
fn acceptor(directory: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(directory.join("tls.crt")).expect("a chain").map(|c| c.expect("a certificate"));
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let mut config = builder.with_no_client_auth().with_single_cert(chain.collect(), key).expect("a key of the certificate");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Accepts connections and lets axum answer.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            match tls {
                None => speak(stream, router).await,
                Some(tls) => speak(tls.accept(stream).await.expect("a handshake"), router).await,
            }
        });
    }
}

/// Answers the requests of one connection.
async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    // That the client hangs up is how each round ends.
    _ = http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

/// The keys.
struct Bare {
    verify: DecodingKey,
    validation: Validation,
    sign: EncodingKey,
    header: Header,
    issued: AtomicU64,
}

/// What is read of a ServiceAccount token.
#[derive(Deserialize)]
struct Credential {
    sub: String,
    exp: u64,
}

/// The claims of the token that is issued.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: u64,
}

/// The reply.
#[derive(Serialize)]
struct Reply {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
}

/// The reply of [`constant`].
#[derive(Serialize)]
struct Active {
    active: bool,
}

impl Bare {
    fn new(jwks: &str, issuer: &str) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[issuer]);
        let header = Header { typ: Some("at+jwt".to_owned()), ..Header::new(Algorithm::EdDSA) };
        Self { verify: api_server_key(jwks), validation, sign: signing_key(), header, issued: AtomicU64::new(0) }
    }
}

/// The endpoint.
async fn exchange(State(bare): State<Arc<Bare>>, body: Bytes) -> Result<Json<Reply>, StatusCode> {
    let mut parameters = body.split(|b| *b == b'&');
    let token = parameters.find_map(|p| p.strip_prefix(b"subject_token=")).ok_or(StatusCode::BAD_REQUEST)?;
    let decoded = jsonwebtoken::decode::<Credential>(token, &bare.verify, &bare.validation);
    let caller = decoded.map_err(|_| StatusCode::UNAUTHORIZED)?.claims;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.as_secs();
    let claims = Claims {
        iss: "https://bare.example.com",
        sub: &caller.sub,
        aud: AUDIENCE,
        iat: now,
        exp: caller.exp.min(now + LIFETIME),
        jti: bare.issued.fetch_add(1, Ordering::Relaxed),
    };
    let access_token = jsonwebtoken::encode(&bare.header, &claims, &bare.sign).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Reply { access_token, token_type: "Bearer", expires_in: claims.exp - now }))
}

/// What an introspection costs that looks at nothing: HTTP and TLS alone.
async fn constant(_: Bytes) -> Json<Active> {
    Json(Active { active: true })
}

/// The key with which the API server signs ServiceAccount tokens.
fn api_server_key(jwks: &str) -> DecodingKey {
    let set: JwkSet = serde_json::from_str(jwks).expect("a JWKS");
    DecodingKey::from_jwk(set.keys.first().expect("a key")).expect("an RSA key")
}

/// A new Ed25519 key.
fn signing_key() -> EncodingKey {
    let key = aws_lc_rs::signature::Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).expect("random bytes");
    EncodingKey::from_ed_der(key.as_ref())
}

/// What verifying `token` (RS256) and signing as much (Ed25519) cost alone, in microseconds, on this thread.
pub fn cost_of_cryptography(jwks: &str, token: &str) -> (f64, f64) {
    let (verify, sign) = (api_server_key(jwks), signing_key());
    let (message, signature) = token.rsplit_once('.').expect("a JWS");
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        (0..2000).for_each(|_| work());
        start.elapsed().as_secs_f64() / 2000.0 * 1e6
    };
    let verified =
        || jsonwebtoken::crypto::verify(signature, message.as_bytes(), &verify, Algorithm::RS256).expect("a signature");
    (
        time(&|| assert!(verified())),
        time(&|| assert!(jsonwebtoken::crypto::sign(message.as_bytes(), &sign, Algorithm::EdDSA).is_ok())),
    )
}
