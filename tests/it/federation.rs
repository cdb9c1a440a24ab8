//! What the tests of federation share: an issuer that is trusted, an agent that it vouches for, and its tokens by every grant.

use crate::support::issuer::{Issuer, P256};
use crate::world::{CLIENT_ASSERTION, JWT_BEARER, PATIENCE, Reply, World, agent, claims, stamped, wait_until, with_members};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whom the issuer of the tests vouches for.
pub const SUBJECT: &str = "workload-7";

/// How soon after one fetch of an issuer's keys the next may begin.
pub const COOLDOWN: Duration = Duration::from_secs(10);

/// Networks that the operator may connect to, in the tests.
pub const LOOPBACK: &str = "127.0.0.0/8";

/// An issuer that is trusted, and an agent that it vouches for. The TrustedIssuer goes with it.
pub struct Federated<'a> {
    pub world: &'a World,
    pub issuer: Issuer,
    /// Of the TrustedIssuer.
    pub name: String,
    /// Of the agent, which is `bot`.
    pub namespace: String,
}

impl<'a> Federated<'a> {
    /// Both are Ready. `spec` replaces members of the TrustedIssuer's spec, and `spec.issuer` members of that.
    pub fn start(world: &'a World, purpose: &str, spec: &Value) -> Self {
        let federated = Self::apart(world, purpose);
        federated.trust(spec);
        federated.is_ready();
        let claimed = json!([{"issuer": federated.name, "subject": SUBJECT}]);
        federated.register(&claimed);
        federated
    }

    /// Neither is there yet.
    pub fn apart(world: &'a World, purpose: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{purpose}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let issuer = Issuer::start(&format!("/{name}")).expect("an issuer");
        Self { world, issuer, name, namespace: world.namespace(purpose) }
    }

    /// Writes the TrustedIssuer.
    pub fn trust(&self, spec: &Value) {
        let object = trusted_issuer(self.world, &self.name, &self.issuer, spec);
        self.world.apply(&stamped(object, "admin")).expect("the TrustedIssuer is accepted");
    }

    /// Waits until it is Ready.
    pub fn is_ready(&self) {
        ready(self.world, &self.name);
    }

    /// Writes the Agent, with these entries of `federated`, and waits until it is Ready.
    pub fn register(&self, federated: &Value) {
        let identity = json!({"identity": {"federated": federated}});
        self.world.apply(&stamped(agent(&self.namespace, "bot", &identity), "admin")).expect("the Agent is accepted");
        let kubectl = self.world.kubectl();
        kubectl.wait_for(&self.namespace, "agent/bot", "condition=Ready", PATIENCE).expect("the Agent is Ready");
    }

    /// The subject of the agent in our tokens.
    pub fn subject(&self) -> String {
        format!("agent:{}/bot", self.namespace)
    }

    /// The claims of a good token.
    pub fn claims(&self) -> Value {
        let now = now();
        json!({
            "iss": self.issuer.url(),
            "sub": SUBJECT,
            "aud": self.world.operator.issuer(),
            "iat": now,
            "exp": now + 300,
        })
    }

    /// A good token.
    pub fn token(&self) -> String {
        self.token_with(&json!({}))
    }

    /// The same with claims replaced.
    pub fn token_with(&self, changed: &Value) -> String {
        self.token_of(P256, &with_members(self.claims(), changed))
    }

    /// These claims, signed with the key `kid` and named so.
    pub fn token_of(&self, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": self.issuer.algorithm(kid).expect("a key"), "kid": kid, "typ": "JWT"});
        self.issuer.sign(&header, claims).expect("a token")
    }

    /// Merges `patch` into the TrustedIssuer.
    pub fn patch(&self, patch: &Value) {
        let arguments = ["patch", "trustedissuer", &self.name, "--type=merge", "-p", &patch.to_string()];
        self.world.kubectl().run(&arguments).expect("the patch is accepted");
    }

    /// Removes the TrustedIssuer.
    pub fn remove(&self) {
        self.world.kubectl().run(&["delete", "trustedissuer", &self.name, "--ignore-not-found"]).expect("deleted");
    }

    /// A condition of the TrustedIssuer; null if it is not there.
    pub fn condition(&self, kind: &str) -> Value {
        condition(self.world, &self.name, kind)
    }
}

impl Drop for Federated<'_> {
    fn drop(&mut self) {
        // Whoever is trusted and not there any more is asked for keys in vain until the end of all tests.
        _ = self.world.kubectl().run(&["delete", "trustedissuer", &self.name, "--ignore-not-found", "--wait=false"]);
    }
}

/// A TrustedIssuer for the test issuer, with members of its spec replaced, and with those of `spec.issuer` in place of its own.
pub fn trusted_issuer(world: &World, name: &str, issuer: &Issuer, spec: &Value) -> Value {
    let usual = json!({
        "url": issuer.url(),
        "audiences": [world.operator.issuer()],
        "certificateAuthority": issuer.ca_pem(),
        "allowedNetworks": [LOOPBACK],
    });
    let mut whole = with_members(json!({"provides": "Workloads"}), spec);
    whole["issuer"] = with_members(usual, spec.get("issuer").unwrap_or(&json!({})));
    json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "TrustedIssuer",
        "metadata": {"name": name},
        "spec": whole,
    })
}

/// Waits until a TrustedIssuer is Ready.
pub fn ready(world: &World, name: &str) {
    let object = format!("trustedissuer/{name}");
    if let Err(error) = world.kubectl().wait_for("default", &object, "condition=Ready", PATIENCE) {
        panic!("{error}: {} {}", condition(world, name, "Ready"), condition(world, name, "KeysFetched"));
    }
}

/// A condition of a TrustedIssuer; null if it is not there.
pub fn condition(world: &World, name: &str, kind: &str) -> Value {
    let object = world.kubectl().get_json(&["get", "trustedissuer", name]).expect("the TrustedIssuer");
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

/// Waits until a condition of a TrustedIssuer is `False`. Returns it.
pub fn fails(world: &World, name: &str, kind: &str) -> Value {
    wait_until(&format!("{kind} of {name} is False"), PATIENCE, || condition(world, name, kind)["status"] == "False");
    condition(world, name, kind)
}

/// Presents a token by each grant: token exchange, JWT bearer, client credentials.
pub fn present(world: &World, token: &str) -> [Reply; 3] {
    [
        world.exchange(token),
        world.request(&[("grant_type", JWT_BEARER), ("assertion", token)]),
        client_credentials(world, token, CLIENT_ASSERTION),
    ]
}

/// Presents a token as client assertion of this type.
pub fn client_credentials(world: &World, token: &str, assertion_type: &str) -> Reply {
    let form = [("grant_type", "client_credentials"), ("client_assertion_type", assertion_type), ("client_assertion", token)];
    world.request(&form)
}

/// Fails unless the token proves the agent `subject`, by each grant, and nothing issued for it outlives it.
#[track_caller]
pub fn accepted(world: &World, token: &str, subject: &str) {
    for reply in present(world, token) {
        accepted_reply(world, reply, token, subject);
    }
}

/// Fails unless this is the reply to a token that proves the agent `subject`.
#[track_caller]
pub fn accepted_reply(world: &World, reply: Reply, token: &str, subject: &str) {
    let reply = reply.expect(200);
    let (issued, presented) = (claims(&reply.text("access_token")), claims(token));
    assert_eq!((&issued["sub"], &issued["client_id"]), (&json!(subject), &json!(subject)));
    assert!(issued["exp"].as_u64() <= presented["exp"].as_u64(), "it outlives the token that it was issued for");
    let record = world.record_of(&reply);
    assert_eq!(record["subject"], subject);
    assert_eq!(record["federated_subject"], presented["sub"]);
    assert!(record["trusted_issuer"].is_string());
}

/// Fails unless nothing was issued. Returns how it was refused.
#[track_caller]
pub fn no_token(reply: &Reply) -> u16 {
    assert!(matches!(reply.status, 400 | 401 | 503), "{reply:?}");
    assert!(reply.body.get("access_token").is_none());
    reply.status
}

/// Fails unless nobody can tell now whether the token is good: the keys are not there.
#[track_caller]
pub fn unavailable(world: &World, token: &str) {
    for reply in present(world, token) {
        let reply = reply.refused(503, "temporarily_unavailable");
        assert_eq!(world.record_of(&reply)["reason"], "credential_check_unavailable");
    }
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
