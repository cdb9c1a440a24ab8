//! What the tests of agents with keys share: keys, assertions of any shape, and every place to which one can be sent.

use crate::payments::CIBA;
use crate::support::operator::Operator;
use crate::world::{CLIENT_ASSERTION, PATIENCE, Reply, World, agent, client, wait_until, with_members};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use countersign::agent_key::AgentSecretKey;
use reqwest::blocking::Client;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// A key pair of an agent.
pub struct Key(AgentSecretKey);

impl Key {
    pub fn new() -> Self {
        Self(AgentSecretKey::generate().expect("random bytes"))
    }

    /// The name that every key has.
    pub fn thumbprint(&self) -> String {
        self.0.public().thumbprint().to_owned()
    }

    /// The public key as SPKI in PEM.
    pub fn pem(&self) -> String {
        self.0.public().to_pem()
    }

    /// The public key as SPKI in DER (RFC 8410 section 4).
    pub fn der(&self) -> Vec<u8> {
        let base64: String = self.pem().lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(base64).expect("base64")
    }

    /// The 32 bytes of the public key.
    pub fn bytes(&self) -> [u8; 32] {
        self.der()[12..].try_into().expect("32 bytes")
    }

    /// The public key as JWK.
    pub fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": B64.encode(self.bytes())})
    }

    /// The private key in PKCS#8 PEM.
    pub fn private_pem(&self) -> String {
        self.0.to_pem().to_string()
    }

    /// What to put into `spec.identity.keys`.
    pub fn entry(&self) -> Value {
        json!({"publicKey": self.pem()})
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&signing_input(header, claims))
    }

    /// A token of what is to be signed.
    pub fn sign_text(&self, signed: &str) -> String {
        format!("{signed}.{}", B64.encode(self.0.sign(signed.as_bytes())))
    }
}

/// The first two parts of a token.
pub fn signing_input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()))
}

/// A text that nobody else has.
pub fn unique() -> String {
    countersign::token::new_id().expect("random bytes")
}

/// The time, in seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// That time as Kubernetes writes it.
pub fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).expect("a time");
    k8s_openapi::jiff::Timestamp::from_second(seconds).expect("a time").to_string()
}

/// `identity` of an Agent whose only credentials are these keys.
pub fn keys(entries: &[Value]) -> Value {
    json!({"identity": {"keys": entries}})
}

/// The usual header.
pub fn header() -> Value {
    json!({"alg": "EdDSA"})
}

/// An agent `bot` with a key, in a namespace of its own, and the operator that it talks to.
#[derive(Clone)]
pub struct KeyAgent<'a> {
    pub world: &'a World,
    pub operator: &'a Operator,
    pub http: Client,
    pub namespace: String,
    pub key: Arc<Key>,
}

impl World {
    /// One that has obtained a token.
    pub fn key_agent(&self, purpose: &str) -> KeyAgent<'_> {
        self.key_agent_with(purpose, &json!({}))
    }

    /// The same, with members of the spec replaced.
    pub fn key_agent_with(&self, purpose: &str, spec: &Value) -> KeyAgent<'_> {
        let key = Arc::new(Key::new());
        let spec = with_members(keys(&[key.entry()]), spec);
        let agent = self.registered(purpose, key, &spec);
        agent.is_served();
        agent
    }

    /// One that is registered with `spec`, whatever becomes of it.
    pub fn registered(&self, purpose: &str, key: Arc<Key>, spec: &Value) -> KeyAgent<'_> {
        let namespace = self.namespace(purpose);
        self.apply(&agent(&namespace, "bot", spec)).expect("the Agent is accepted");
        KeyAgent { world: self, operator: &self.operator, http: self.http.clone(), namespace, key }
    }
}

impl<'a> KeyAgent<'a> {
    /// The same agent, at another operator.
    pub fn at(&self, operator: &'a Operator) -> Self {
        Self { operator, http: client(operator), ..self.clone() }
    }

    /// The same agent, with another key.
    pub fn with(&self, key: &Arc<Key>) -> Self {
        Self { key: Arc::clone(key), ..self.clone() }
    }

    /// Waits until it is Ready and obtains a token. For some seconds a new database accepts no assertion.
    pub fn is_served(&self) {
        self.reaches("condition=Ready");
        wait_until("it obtains a token", PATIENCE, || self.obtain().status == 200);
    }

    /// Its subject, which is its `client_id`.
    pub fn subject(&self) -> String {
        format!("agent:{}/bot", self.namespace)
    }

    /// The claims of a new assertion.
    pub fn claims(&self) -> Value {
        let (subject, now) = (self.subject(), now());
        json!({"iss": subject, "sub": subject, "aud": self.operator.issuer(), "iat": now, "exp": now + 60, "jti": unique()})
    }

    /// The claims of a new assertion with these in place of its own; null takes one away.
    pub fn claims_with(&self, changes: &Value) -> Value {
        let mut claims = with_members(self.claims(), changes);
        claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        claims
    }

    /// A new assertion.
    pub fn assertion(&self) -> String {
        self.key.sign(&header(), &self.claims())
    }

    /// A new assertion with these claims in place of its own; null takes one away.
    pub fn assertion_with(&self, changes: &Value) -> String {
        self.key.sign(&header(), &self.claims_with(changes))
    }

    /// A new assertion with this header.
    pub fn assertion_under(&self, header: &Value) -> String {
        self.key.sign(header, &self.claims())
    }

    /// POSTs a form.
    pub fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        self.http.post(format!("{}{path}", self.operator.url())).form(form).send().expect("an answer").into()
    }

    /// POSTs a form with `assertion` as client assertion.
    pub fn send(&self, path: &str, assertion: &str, form: &[(&str, &str)]) -> Reply {
        self.post(path, &[&[("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", assertion)], form].concat())
    }

    /// The same with a new assertion.
    pub fn call(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        self.send(path, &self.assertion(), form)
    }

    /// Asks for a token with `assertion`.
    pub fn ask(&self, assertion: &str) -> Reply {
        self.send("/oauth2/token", assertion, &[("grant_type", "client_credentials")])
    }

    /// Asks for a token with a new assertion.
    pub fn obtain(&self) -> Reply {
        self.ask(&self.assertion())
    }

    /// The Agent as it is stored.
    pub fn stored(&self) -> Value {
        self.world.kubectl().get_json(&["get", "agent", "bot", "--namespace", &self.namespace]).expect("the Agent")
    }

    /// Merges `spec` into the Agent as the administrator.
    pub fn patch(&self, spec: &Value) {
        let patch = json!({"spec": spec}).to_string();
        let arguments = ["patch", "agent", "bot", "--namespace", &self.namespace, "--type=merge", "-p", &patch];
        self.world.kubectl().run(&arguments).expect("the patch is accepted");
    }

    pub fn reaches(&self, condition: &str) {
        let waited = self.world.kubectl().wait_for(&self.namespace, "agent/bot", condition, PATIENCE);
        waited.unwrap_or_else(|error| panic!("{error}: {}", self.stored()["status"]));
    }

    /// Waits until a condition has this status and reason for the current generation. Returns its message.
    #[track_caller]
    pub fn says(&self, kind: &str, status: &str, reason: &str) -> String {
        says(self.world, &self.namespace, "bot", kind, status, reason)
    }

    /// The thumbprints that the status lists.
    pub fn thumbprints(&self) -> Vec<String> {
        let status = self.stored()["status"]["keyThumbprints"].clone();
        let texts = status.as_array().into_iter().flatten();
        texts.map(|text| text.as_str().expect("text").to_owned()).collect()
    }

    /// Everything that was recorded about the request of `reply`, which is one line.
    #[track_caller]
    pub fn record(&self, reply: &Reply) -> Value {
        record(self.operator, reply)
    }

    /// Sends what `make` makes to two places, and expects each to be refused as [`Self::refused`] says.
    #[track_caller]
    pub fn refuses(&self, reason: &str, make: impl Fn() -> String) {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let other = 1 + TURN.fetch_add(1, Ordering::Relaxed) % (PLACES.len() - 1);
        for place in [0, other] {
            let assertion = make();
            let (path, form) = PLACES[place];
            self.refused(&self.send(path, &assertion, form), &assertion, reason);
        }
    }

    /// The same, sent to all places.
    #[track_caller]
    pub fn refuses_everywhere(&self, reason: &str, make: impl Fn() -> String) {
        for (path, form) in PLACES {
            let assertion = make();
            self.refused(&self.send(path, &assertion, form), &assertion, reason);
        }
    }

    /// Fails unless `reply` is the refusal of a client's credential, in the words in which every credential is refused; one record
    /// says why; and nothing of `credential` is in a record or in the log.
    #[track_caller]
    pub fn refused(&self, reply: &Reply, credential: &str, reason: &str) {
        let answer = (reply.status, reply.body["error"].as_str());
        assert_eq!(answer, (401, Some("invalid_client")), "{:?} for {reason}", reply.body);
        self.refused_alike(reply, credential, reason);
    }

    /// The same, whatever status and code the grant has for it.
    #[track_caller]
    pub fn refused_alike(&self, reply: &Reply, credential: &str, reason: &str) {
        static WORDS: OnceLock<String> = OnceLock::new();
        let description = reply.text("error_description");
        assert_eq!(WORDS.get_or_init(|| description.clone()), &description, "all are refused in the same words");
        assert!(description.starts_with("the credential was not accepted."), "{description}");
        assert_eq!(reply.body.as_object().expect("an object").len(), 2, "{:?}", reply.body);
        assert_eq!(reply.headers["cache-control"], "no-store");
        let record = self.record(reply);
        assert_eq!((&record["reason"], &record["outcome"]), (&json!(reason), &json!("deny")), "{record}");
        is_kept_nowhere(self.operator, credential);
    }
}

/// Where a client authenticates, and the least that has to be sent beside that.
pub const PLACES: [(&str, &[(&str, &str)]); 6] = [
    ("/oauth2/token", &[("grant_type", "client_credentials")]),
    ("/oauth2/token", &[("grant_type", CIBA), ("auth_req_id", "unknown")]),
    ("/oauth2/bc-authorize", &[("login_hint", "agent:a/b"), ("authorization_details", "[]")]),
    ("/oauth2/introspect", &[("token", "unknown")]),
    ("/oauth2/revoke", &[("token", "unknown")]),
    ("/jit/complete", &[("token", "unknown")]),
];

/// Waits until a condition of an Agent has this status and reason for the current generation. Returns its message.
#[track_caller]
pub fn says(world: &World, namespace: &str, name: &str, kind: &str, status: &str, reason: &str) -> String {
    let mut seen = Value::Null;
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        let agent = world.kubectl().get_json(&["get", "agent", name, "--namespace", namespace]).expect("the Agent");
        let conditions = agent["status"]["conditions"].as_array();
        seen = conditions.into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or_default();
        if seen["observedGeneration"] == agent["metadata"]["generation"] && seen["status"] == status && seen["reason"] == reason {
            return seen["message"].as_str().expect("a message").to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{kind} of {namespace}/{name} is not {status} because of {reason}: {seen}");
}

/// The one record of the request that got `reply`.
#[track_caller]
pub fn record(operator: &Operator, reply: &Reply) -> Value {
    let id = reply.request_id.as_deref().expect("the reply names its request");
    let text = operator.audit_text().expect("the audit log");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(id)).collect();
    let [line] = lines.as_slice() else { panic!("{} records of request {id}", lines.len()) };
    let record: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(record["request_id"], id);
    record
}

/// Fails if a part of a token that is somebody's own is in the log or the records of an operator.
#[track_caller]
pub fn is_kept_nowhere(operator: &Operator, token: &str) {
    let records = operator.audit_text().expect("the audit log");
    let log = operator.process().log();
    let parts = token.split('.').skip(1).filter(|part| part.len() >= 24);
    for part in parts.chain([token].into_iter().filter(|token| token.len() >= 24)) {
        assert!(!records.contains(part), "in a record: {part}");
        assert!(!log.contains(part), "in the log: {part}");
    }
}
