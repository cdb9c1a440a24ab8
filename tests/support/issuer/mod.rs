//! An issuer of tokens for the tests: OpenID discovery and a key set over real TLS on 127.0.0.1, keys that come and go, tokens
//! of any shape, and every way to be a bad server.
//!
//! ```ignore
//! let issuer = Issuer::start("/id/1")?;
//! let token = issuer.sign(&json!({"alg": "RS256", "kid": RSA}), &json!({"iss": issuer.url(), ..}))?;
//! issuer.behave(Document::Keys, Behaviour::Silent);
//! assert_eq!(issuer.requests(Document::Keys).len(), 1);
//! ```
//!
//! It ends with its value, and every connection with it.
#![expect(clippy::indexing_slicing, reason = "a JSON value takes any name: what is not there is null")]

pub mod behaviour;
pub mod hostile;
mod keys;
mod server;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::certificates::{Authority, Certificate};
use super::error::{Context, Error, Result};
use behaviour::Behaviour;
use keys::Key;

/// Names of the keys that an issuer starts with, one for each algorithm.
pub const RSA: &str = "rsa-1";
/// For ES256.
pub const P256: &str = "p256-1";
/// For ES384.
pub const P384: &str = "p384-1";
/// For EdDSA.
pub const ED25519: &str = "ed25519-1";

/// What the issuer serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Document {
    /// `<url>/.well-known/openid-configuration` (OpenID Connect Discovery 1.0 section 4).
    Discovery,
    /// `<url>/keys`, a JWK Set (RFC 7517 section 5).
    Keys,
    /// `<url>/token`, the token endpoint (RFC 6749 section 3.2). What is right is to refuse: a test says what it gives.
    Token,
}

impl Document {
    const ALL: [Self; 3] = [Self::Discovery, Self::Keys, Self::Token];

    fn path(self) -> &'static str {
        match self {
            Self::Discovery => "/.well-known/openid-configuration",
            Self::Keys => "/keys",
            Self::Token => "/token",
        }
    }
}

/// A running issuer.
pub struct Issuer {
    shared: Arc<Shared>,
    /// `None` once it is ending.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Starts one whose URL has this path: nothing, or a text that begins with `/`. It has a key for each algorithm.
    pub fn start(path: &str) -> Result<Self> {
        Self::start_at("127.0.0.1", path)
    }

    /// The same, with a URL that says `host`: `127.0.0.1` or `localhost`. It listens on 127.0.0.1 in either case.
    pub fn start_at(host: &str, path: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("test-issuer")
            .enable_all()
            .build()
            .context("a runtime for the test issuer")?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).context("a port for the test issuer")?;
        let port = listener.local_addr().context("the port of the test issuer")?.port();
        let shared = Arc::new(Shared {
            url: format!("https://{host}:{port}{path}"),
            path: path.trim_end_matches('/').to_owned(),
            authority: Authority::new()?,
            keys: Mutex::default(),
            behaviours: Mutex::default(),
            certificate: Mutex::new(Certificate::Good),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        runtime.spawn(server::run(listener, Arc::clone(&shared)));
        let issuer = Self { shared, runtime: Some(runtime) };
        for (name, algorithm) in
            [(RSA, Algorithm::RS256), (P256, Algorithm::ES256), (P384, Algorithm::ES384), (ED25519, Algorithm::EdDSA)]
        {
            issuer.add_key(name, algorithm)?;
        }
        Ok(issuer)
    }

    /// Its URL, which is `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Where a document is.
    pub fn url_of(&self, document: Document) -> String {
        format!("{}{}", self.url().trim_end_matches('/'), document.path())
    }

    /// The certificate of its authority.
    pub fn ca_pem(&self) -> &str {
        self.shared.authority.pem()
    }

    /// The right text of a document, as it is now.
    pub fn document(&self, document: Document) -> Value {
        self.shared.right(document)
    }

    /// Makes a key and publishes it.
    pub fn add_key(&self, name: &str, algorithm: Algorithm) -> Result<()> {
        let key = Key::generate(name, algorithm)?;
        lock(&self.shared.keys).push(Entry { key, published: true });
        Ok(())
    }

    /// Makes another key pair under the name of one that there is, and forgets that.
    pub fn replace_key(&self, name: &str, algorithm: Algorithm) -> Result<()> {
        let key = Key::generate(name, algorithm)?;
        self.entry(name, |entry| entry.key = key)
    }

    /// Whether a key is published. One that is not can sign all the same: it is what an attacker has who took it.
    pub fn publish(&self, name: &str, published: bool) -> Result<()> {
        self.entry(name, |entry| entry.published = published)
    }

    fn entry(&self, name: &str, change: impl FnOnce(&mut Entry)) -> Result<()> {
        let mut keys = lock(&self.shared.keys);
        let entry = keys.iter_mut().find(|entry| entry.key.name() == name);
        entry.map(change).ok_or_else(|| no_key(name))
    }

    /// A token of exactly this header and these claims, signed with the key that its `kid` names.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let name = header["kid"].as_str().ok_or_else(|| Error::new("the header has no kid: use sign_with"))?;
        self.sign_with(name, header, claims)
    }

    /// The same, signed with the key `name`, whatever the header says.
    pub fn sign_with(&self, name: &str, header: &Value, claims: &Value) -> Result<String> {
        self.sign_text(name, &header.to_string(), &claims.to_string())
    }

    /// The same of two texts, which need not be JSON.
    pub fn sign_text(&self, name: &str, header: &str, claims: &str) -> Result<String> {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let keys = lock(&self.shared.keys);
        let entry = keys.iter().find(|entry| entry.key.name() == name).ok_or_else(|| no_key(name))?;
        Ok(format!("{signed}.{}", entry.key.sign(&signed)?))
    }

    /// The name in `alg` of the key `name`.
    pub fn algorithm(&self, name: &str) -> Result<String> {
        let keys = lock(&self.shared.keys);
        let entry = keys.iter().find(|entry| entry.key.name() == name).ok_or_else(|| no_key(name))?;
        Ok(format!("{:?}", entry.key.algorithm()))
    }

    /// From now on, what happens when a document is asked for.
    pub fn behave(&self, document: Document, behaviour: Behaviour) {
        lock(&self.shared.behaviours).insert(document, behaviour);
    }

    /// From now on, what it shows when a client connects.
    pub fn present(&self, certificate: Certificate) {
        *lock(&self.shared.certificate) = certificate;
    }

    /// From now on, nothing but what is right.
    pub fn mend(&self) {
        lock(&self.shared.behaviours).clear();
        self.present(Certificate::Good);
    }

    /// Every request for a document, in order.
    pub fn requests(&self, document: Document) -> Vec<Seen> {
        let path = format!("{}{}", self.shared.path, document.path());
        lock(&self.shared.requests).iter().filter(|request| request.path == path).map(|request| request.seen()).collect()
    }

    /// The bodies and Authorization headers of the requests for a document, in order.
    pub fn bodies(&self, document: Document) -> Vec<(String, String)> {
        let path = format!("{}{}", self.shared.path, document.path());
        let requests = lock(&self.shared.requests);
        let of_document = requests.iter().filter(|request| request.path == path);
        of_document.map(|request| (request.authorization.clone(), request.body.clone())).collect()
    }

    /// How many connections were opened, those included that failed before a request.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn no_key(name: &str) -> Error {
    Error::new(format!("the test issuer has no key {name}"))
}

/// One request, as it stood when it was looked at.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When its head was read.
    pub at: Instant,
    /// When the connection ended, if it has.
    pub ended: Option<Instant>,
    /// How many bytes of the reply, head and body, were taken off our hands.
    pub sent: usize,
}

/// A request that may still be under way.
#[derive(Debug)]
struct Request {
    path: String,
    authorization: String,
    body: String,
    at: Instant,
    ended: Mutex<Option<Instant>>,
    sent: AtomicUsize,
}

impl Request {
    fn seen(&self) -> Seen {
        Seen { at: self.at, ended: *lock(&self.ended), sent: self.sent.load(Ordering::SeqCst) }
    }
}

/// A key, and whether it is in the key set.
struct Entry {
    key: Key,
    published: bool,
}

/// What the server and the value that stands for it both see.
struct Shared {
    url: String,
    /// Of the URL, without a slash at its end.
    path: String,
    authority: Authority,
    keys: Mutex<Vec<Entry>>,
    behaviours: Mutex<HashMap<Document, Behaviour>>,
    certificate: Mutex<Certificate>,
    requests: Mutex<Vec<Arc<Request>>>,
    connections: AtomicUsize,
}

impl Shared {
    /// Which document a path is.
    fn at(&self, path: &str) -> Option<Document> {
        let rest = path.strip_prefix(&self.path)?;
        Document::ALL.into_iter().find(|document| document.path() == rest)
    }

    fn right(&self, document: Document) -> Value {
        match document {
            Document::Discovery => json!({
                "issuer": self.url,
                "jwks_uri": format!("{}{}", self.url.trim_end_matches('/'), Document::Keys.path()),
                "authorization_endpoint": format!("{}/authorize", self.url.trim_end_matches('/')),
                "token_endpoint": format!("{}{}", self.url.trim_end_matches('/'), Document::Token.path()),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "ES384", "EdDSA"],
            }),
            Document::Token => json!({"error": "invalid_grant"}),
            Document::Keys => {
                let keys = lock(&self.keys);
                json!({"keys": keys.iter().filter(|entry| entry.published).map(|entry| entry.key.jwk()).collect::<Vec<_>>()})
            }
        }
    }

    fn behaviour(&self, document: Document) -> Behaviour {
        lock(&self.behaviours).get(&document).cloned().unwrap_or_default()
    }

    fn certificate(&self) -> Certificate {
        *lock(&self.certificate)
    }

    fn begin(&self, [path, authorization, body]: [String; 3]) -> Arc<Request> {
        let (ended, sent) = (Mutex::default(), AtomicUsize::new(0));
        let request = Arc::new(Request { path, authorization, body, at: Instant::now(), ended, sent });
        lock(&self.requests).push(Arc::clone(&request));
        request
    }
}

/// A test that failed while it held the lock has said so itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
