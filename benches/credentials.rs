//! Agents that prove themselves by other means than a ServiceAccount: with a key of their own, or by the word of another issuer.

use crate::fixture::{AGENTS, AGENTS_NAMESPACE, Fixture, PATIENCE, capabilities, exchanges, register, request};
use crate::load::{Requests, Target};
use crate::support::issuer::{Document, Issuer, RSA};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::agent_key::AgentSecretKey;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How many assertions are made for a round. They live for a minute, which is much longer than a round.
const ASSERTIONS: usize = 30_000;
/// How many tokens of the other issuer each agent has.
const TOKENS_PER_AGENT: usize = 4;

/// The operator, asked by agents with keys. Each request has an assertion of its own.
pub fn assertions(fixture: &Fixture) -> Target {
    let agents: Vec<_> = (0..AGENTS).map(|number| keyed(fixture, &format!("keyed-{number}"))).collect();
    let (audience, serial) = (fixture.operator.issuer().to_owned(), AtomicU64::new(0));
    let make = move || {
        let now = now();
        let agents = agents.iter().cycle().take(ASSERTIONS);
        agents.map(|agent| agent.request(&audience, now, serial.fetch_add(1, Ordering::Relaxed))).collect()
    };
    Target { requests: Requests::Once(Arc::new(make)), ..fixture.ours.tls.clone() }
}

/// An agent with a key.
struct Keyed {
    client_id: String,
    key: AgentSecretKey,
}

fn keyed(fixture: &Fixture, name: &str) -> Keyed {
    let key = AgentSecretKey::generate().expect("a key");
    let identity = json!({"keys": [{"publicKey": key.public().to_pem()}]});
    register(&fixture.cluster.kubectl(), name, &identity, &capabilities());
    Keyed { client_id: format!("agent:{AGENTS_NAMESPACE}/{name}"), key }
}

impl Keyed {
    /// A token request by `private_key_jwt` (RFC 7523 section 2.2).
    fn request(&self, audience: &str, now: u64, serial: u64) -> Vec<u8> {
        let client_id = &self.client_id;
        let header = json!({"alg": "EdDSA", "typ": "client-authentication+jwt"});
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": audience, "iat": now, "exp": now + 60, "jti": serial.to_string(),
        });
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        request(&format!(
            "grant_type=client_credentials&client_assertion={signed}.{signature}\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        ))
    }
}

/// The operator, asked by agents for which another issuer vouches. Its keys are in the TrustedIssuer.
pub fn federated(fixture: &Fixture) -> Target {
    let issuer = Issuer::start("").expect("an issuer");
    let kubectl = fixture.cluster.kubectl();
    let trusted = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "TrustedIssuer",
        "metadata": {"name": "bench"},
        "spec": {
            "provides": "Workloads",
            "issuer": {
                "url": issuer.url(),
                "audiences": [fixture.operator.issuer()],
                "jwks": issuer.document(Document::Keys).to_string(),
            },
        },
    });
    kubectl.apply(&trusted.to_string()).expect("the TrustedIssuer is accepted");
    kubectl.wait_for("default", "trustedissuer/bench", "condition=Ready", PATIENCE).expect("the TrustedIssuer is Ready");
    let subjects: Vec<_> = (0..AGENTS).map(|number| format!("workload-{number}")).collect();
    for subject in &subjects {
        let identity = json!({"federated": [{"issuer": "bench", "subject": subject}]});
        register(&kubectl, subject, &identity, &capabilities());
    }
    let now = now();
    let token = |(number, subject): (usize, &String)| {
        let claims = json!({
            "iss": issuer.url(), "sub": subject, "aud": fixture.operator.issuer(), "iat": now, "exp": now + 3600, "jti": number.to_string(),
        });
        issuer.sign(&json!({"alg": "RS256", "kid": RSA, "typ": "JWT"}), &claims).expect("a token")
    };
    let tokens: Vec<_> = subjects.iter().cycle().take(AGENTS * TOKENS_PER_AGENT).enumerate().map(token).collect();
    Target { requests: exchanges(&tokens), ..fixture.ours.tls.clone() }
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
