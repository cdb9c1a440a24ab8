//! What an Agent's conditions say about its credentials: which of them cannot be used, why, and what to do about it.

use crate::key_agents::{Key, KeyAgent, keys, says};
use crate::support::workload;
use crate::world::{DOCS, PATIENCE, World, agent, next_second, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as B64};
use ed25519_dalek::VerifyingKey;
use serde_json::{Value, json};
use std::sync::Arc;

const RSA: &str = include_str!("../vectors/other_keys/rsa.pem");
const P256: &str = include_str!("../vectors/other_keys/p256.pem");
const ED448: &str = include_str!("../vectors/other_keys/ed448.pem");
const X25519: &str = include_str!("../vectors/other_keys/x25519.pem");

/// A JWK with this `x`.
fn jwk(x: &[u8]) -> String {
    json!({"kty": "OKP", "crv": "Ed25519", "x": B64.encode(x)}).to_string()
}

/// SPKI in PEM with these bytes as the key.
fn pem(key: &[u8]) -> String {
    let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let base64 = STANDARD.encode([prefix.as_slice(), key].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
}

/// 32 bytes: the first, all between, the last.
fn bytes(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    (bytes[0], bytes[31]) = (first, last);
    bytes
}

#[test]
fn a_key_that_cannot_be_one_is_refused_and_said_why() {
    let world = World::shared();
    let good = world.key_agent("refused");
    // The sum of a good key and the point of order two: no private key belongs to it.
    let point = |bytes: &[u8; 32]| VerifyingKey::from_bytes(bytes).expect("a point").to_edwards();
    let mixed = VerifyingKey::from(point(&good.key.bytes()) + point(&bytes(0xec, 0xff, 0x7f))).to_bytes();
    let with = |member: &str, value: Value| {
        let mut jwk = good.key.jwk();
        jwk[member] = value;
        jwk.to_string()
    };
    let private = good.key.jwk().to_string().replace('{', "{\"\\u0064\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\",");
    for (key, why) in [
        // Weak: the neutral element, the points of order two and four.
        (jwk(&bytes(1, 0, 0)), "a weak key"),
        (pem(&bytes(1, 0, 0)), "a weak key"),
        (pem(&bytes(0xec, 0xff, 0x7f)), "a weak key"),
        (jwk(&bytes(0, 0, 0)), "a weak key"),
        (jwk(&bytes(0, 0, 0x80)), "a weak key"),
        (pem(&mixed), "a malformed key"),
        // The neutral element again, as p + 1 and with the sign of a zero; y = p + 3, which is a point of large order.
        (jwk(&bytes(0xee, 0xff, 0x7f)), "not the canonical encoding"),
        (pem(&bytes(1, 0, 0x80)), "not the canonical encoding"),
        (pem(&bytes(0xf0, 0xff, 0x7f)), "not the canonical encoding"),
        (jwk(&bytes(2, 0, 0)), "no point of the curve"),
        (jwk(&[7; 31]), "not 32 bytes"),
        (jwk(&[7; 33]), "not 32 bytes"),
        (RSA.to_owned(), "a key of the kind RSA"),
        (P256.to_owned(), "a key of the kind EC"),
        (ED448.to_owned(), "a key of the kind Ed448"),
        (X25519.to_owned(), "a key of the kind X25519"),
        (with("crv", json!("X25519")), "a key of the kind X25519"),
        (with("kty", json!("RSA")), "a key of the kind RSA"),
        (with("alg", json!("ES256")), "neither 'EdDSA' nor 'Ed25519'"),
        (with("use", json!("enc")), "is not 'sig'"),
        (with("key_ops", json!(["sign"])), "key_ops"),
        (json!({"keys": [good.key.jwk()]}).to_string(), "a set of keys"),
        ("{".to_owned(), "no JSON object"),
        (format!("{}{}", good.key.pem(), good.key.pem()), "several PEM blocks"),
        (good.key.pem().replace('\n', " "), "malformed"),
        // The rule of the schema looks for "d"; this is the same member, written otherwise.
        (private, "this is the private key"),
    ] {
        good.patch(&keys(&[json!({"kid": "k-1", "publicKey": key})]));
        let message = good.says("IdentityResolved", "False", "KeyRefused");
        assert!(message.starts_with("key k-1: ") && message.contains(why), "{key}: {message}");
        assert_eq!(good.says("Ready", "False", "KeyRefused"), message);
        assert_eq!(good.thumbprints(), [""; 0], "{key}");
        assert!(!message.contains("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"), "{message}");
    }
    good.refuses("credential_key_unknown", || good.assertion());

    // Beside a good one it is a mistake to be mended; the good one works on.
    good.patch(&keys(&[good.key.entry(), json!({"publicKey": RSA}), json!({"publicKey": ED448})]));
    let message = good.says("Ready", "False", "KeyRefused");
    assert!(message.starts_with("spec.identity.keys[1]: "), "{message}");
    let message = good.says("IdentityResolved", "False", "KeyRefused");
    assert!(message.ends_with("(and 1 more of the Agent's credentials cannot be used)"), "{message}");
    assert_eq!(good.thumbprints(), [good.key.thumbprint()]);
    good.obtain().expect(200);
}

#[test]
fn j19_our_own_signing_key_is_no_key_of_an_agent() {
    let world = World::shared();
    let agent = world.key_agent("ours");
    let url = format!("{}/oauth2/jwks", world.operator.url());
    let jwks: Value = world.http.get(url).send().expect("an answer").json().expect("JSON");
    let ours = jwks["keys"].as_array().expect("keys").iter().filter(|key| key["kty"] == "OKP").collect::<Vec<_>>();
    assert!(!ours.is_empty(), "{jwks}");
    for key in ours {
        let x = B64.decode(key["x"].as_str().expect("x")).expect("base64url");
        for text in [key.to_string(), jwk(&x), pem(&x)] {
            agent.patch(&keys(&[agent.key.entry(), json!({"kid": "stolen", "publicKey": text})]));
            let message = agent.says("Ready", "False", "KeyRefused");
            assert!(message.contains("key stolen: ") && message.contains("with which this service signs tokens"), "{message}");
            assert_eq!(agent.thumbprints(), [agent.key.thumbprint()]);
            agent.obtain().expect(200);
        }
    }
    // What we signed for the agent is not its word either.
    let token = agent.obtain().expect(200).text("access_token");
    agent.refuses_everywhere("credential_claim_refused", || token.clone());
}

#[test]
fn j19_a_key_belongs_to_the_older_agent_until_it_drops_it() {
    let world = World::shared();
    let key = Arc::new(Key::new());
    let older = world.registered("older", Arc::clone(&key), &keys(&[json!({"kid": "shared", "publicKey": key.pem()})]));
    older.is_served();
    let namespace = world.namespace("younger");
    // The same key, written otherwise and called otherwise.
    let own = Arc::new(Key::new());
    let listed = [json!({"kid": "mine", "publicKey": key.jwk().to_string()}), own.entry()];
    next_second();
    world.apply(&agent(&namespace, "bot", &keys(&listed))).expect("accepted");
    let younger = KeyAgent { namespace, ..older.clone() };
    let message = younger.says("IdentityResolved", "False", "KeyTaken");
    assert!(message.starts_with("key mine belongs to ") && message.contains(&older.subject()), "{message}");
    assert_eq!(younger.says("Ready", "False", "KeyTaken"), message);
    assert_eq!(younger.thumbprints(), [own.thumbprint()]);
    // An assertion is its agent's, not its key's. The older goes on.
    for kid in [None, Some("mine"), Some("shared"), Some(key.thumbprint().as_str())] {
        let mut header = crate::key_agents::header();
        kid.into_iter().for_each(|kid| header["kid"] = json!(kid));
        let reason = if kid.is_none() { "credential_malformed_or_forged" } else { "credential_key_unknown" };
        younger.refuses(reason, || younger.assertion_under(&header));
    }
    older.obtain().expect(200);
    younger.with(&own).obtain().expect(200);
    let both = json!({"iss": older.subject(), "sub": younger.subject()});
    older.refuses("credential_claim_refused", || older.assertion_with(&both));
    older.says("Ready", "True", "Ready");

    older.patch(&keys(&[Key::new().entry()]));
    wait_until("the key is the younger's", PATIENCE, || younger.obtain().status == 200);
    older.refuses("credential_malformed_or_forged", || older.assertion());

    // So it is when the older is deleted.
    older.patch(&keys(&[key.entry()]));
    wait_until("the key is the older's", PATIENCE, || younger.obtain().status != 200);
    younger.says("Ready", "False", "KeyTaken");
    world.kubectl().run(&["delete", "agent", "bot", "--namespace", &older.namespace]).expect("deleted");
    younger.says("Ready", "True", "Ready");
    younger.says("IdentityResolved", "True", "Resolved");
    assert_eq!(younger.thumbprints(), [key.thumbprint(), own.thumbprint()]);
    younger.obtain().expect(200);
}

#[test]
fn a_service_account_that_is_not_there_is_named_and_found_once_it_is() {
    let world = World::shared();
    let namespace = world.namespace("accounts");
    let accounts =
        |names: &[&str]| json!({"identity": {"serviceAccounts": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}});
    let kubectl = world.kubectl();
    world.apply(&agent(&namespace, "old", &accounts(&["late"]))).expect("accepted");
    let says = |name: &str, kind: &str, status: &str, reason: &str| says(world, &namespace, name, kind, status, reason);
    let message = says("old", "IdentityResolved", "False", "ServiceAccountNotFound");
    assert!(message.contains(&format!("no ServiceAccount late in namespace {namespace}")), "{message}");
    // It may come with the pod, and the Agent need not be changed then.
    says("old", "Ready", "True", "Ready");
    workload::create_service_account(&kubectl, &namespace, "late").expect("created");
    says("old", "Ready", "True", "Ready");
    says("old", "IdentityResolved", "True", "Resolved");
    kubectl.run(&["delete", "serviceaccount", "late", "--namespace", &namespace]).expect("deleted");
    says("old", "IdentityResolved", "False", "ServiceAccountNotFound");
    // So is one of several.
    workload::create_service_account(&kubectl, &namespace, "there").expect("created");
    world.apply(&agent(&namespace, "old", &accounts(&["late", "there"]))).expect("accepted");
    says("old", "IdentityResolved", "False", "ServiceAccountNotFound");
    says("old", "Ready", "True", "Ready");

    next_second();
    world.apply(&agent(&namespace, "young", &accounts(&["there"]))).expect("accepted");
    let message = says("young", "Ready", "False", "ServiceAccountTaken");
    assert!(
        message.contains("ServiceAccount there belongs to") && message.contains(&format!("agent:{namespace}/old")),
        "{message}"
    );
    kubectl.run(&["delete", "agent", "old", "--namespace", &namespace]).expect("deleted");
    says("young", "Ready", "True", "Ready");

    world.apply(&agent(&namespace, "anybody", &accounts(&["default"]))).expect("accepted");
    let message = says("anybody", "IdentityResolved", "True", "DefaultServiceAccount");
    assert!(message.contains("every pod of the namespace"), "{message}");
    says("anybody", "Ready", "True", "Ready");
}

/// A TrustedIssuer whose one key is `key`, and which fetches nothing.
fn trusted(name: &str, provides: &str, key: &Key) -> Value {
    let mut jwk = key.jwk();
    (jwk["kid"], jwk["alg"]) = (json!("k"), json!("EdDSA"));
    let jwks = json!({"keys": [jwk]}).to_string();
    let mut spec =
        json!({"provides": provides, "issuer": {"url": format!("https://{name}.example"), "audiences": [DOCS], "jwks": jwks}});
    if provides == "Users" {
        spec["claimMappings"] = json!({"username": {"claim": "sub", "prefix": "oidc:"}});
    }
    json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustedIssuer", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn an_identity_of_an_issuer_waits_for_it_and_belongs_to_one_agent() {
    let world = World::shared();
    let namespace = world.namespace("federated");
    let issuer = format!("{namespace}-issuer");
    let federated = |entries: Value| json!({"identity": {"federated": entries}});
    let main = json!({"issuer": issuer, "subject": "repo:acme/app", "claims": {"ref": "main"}});
    let any = json!({"issuer": issuer, "subject": "repo:acme/app"});
    let says = |name: &str, kind: &str, status: &str, reason: &str| says(world, &namespace, name, kind, status, reason);
    world.apply(&agent(&namespace, "old", &federated(json!([main])))).expect("accepted");
    let message = says("old", "Ready", "False", "TrustedIssuerNotFound");
    assert!(message.contains(&format!("no TrustedIssuer {issuer}")), "{message}");

    let key = Key::new();
    world.apply(&trusted(&issuer, "Workloads", &key)).expect("accepted");
    says("old", "Ready", "True", "Ready");
    says("old", "IdentityResolved", "True", "Resolved");

    next_second();
    world.apply(&agent(&namespace, "young", &federated(json!([any])))).expect("accepted");
    let message = says("young", "Ready", "False", "FederatedIdentityTaken");
    assert!(message.contains(&format!("repo:acme/app of {issuer} belongs to agent:{namespace}/old")), "{message}");
    // Entries that no one token can prove are no rivals.
    let dev = json!({"issuer": issuer, "subject": "repo:acme/app", "claims": {"ref": "dev"}});
    world.apply(&agent(&namespace, "young", &federated(json!([dev])))).expect("accepted");
    says("young", "Ready", "True", "Ready");
    world.apply(&agent(&namespace, "young", &federated(json!([any])))).expect("accepted");
    says("young", "Ready", "False", "FederatedIdentityTaken");
    world.kubectl().run(&["delete", "agent", "old", "--namespace", &namespace]).expect("deleted");
    says("young", "Ready", "True", "Ready");

    let patch = |spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        world.kubectl().run(&["patch", "trustedissuer", &issuer, "--type=merge", "-p", &patch]).expect("patched");
    };
    patch(json!({"suspended": true}));
    let message = says("young", "Ready", "False", "TrustedIssuerNotReady");
    assert!(message.contains(&issuer), "{message}");
    patch(json!({"suspended": false}));
    says("young", "Ready", "True", "Ready");
    world.kubectl().run(&["delete", "trustedissuer", &issuer]).expect("deleted");
    says("young", "Ready", "False", "TrustedIssuerNotFound");
    // Of the same name, but for other purposes.
    world.apply(&trusted(&issuer, "Users", &key)).expect("accepted");
    let message = says("young", "Ready", "False", "TrustedIssuerNotForWorkloads");
    assert!(message.contains("provides users, not workloads"), "{message}");
}

#[test]
fn a_credential_that_the_older_agent_drops_makes_the_newer_ready() {
    let world = World::shared();
    let namespace = world.namespace("dropped");
    let (key, kubectl) = (Key::new(), world.kubectl());
    let issuer = format!("{namespace}-issuer");
    world.apply(&trusted(&issuer, "Workloads", &key)).expect("accepted");
    for name in ["bot", "shared"] {
        workload::create_service_account(&kubectl, &namespace, name).expect("created");
    }
    let says = |kind: &str, status: &str, reason: &str| says(world, &namespace, "young", kind, status, reason);
    for (contested, reason) in [
        (json!({"keys": [key.entry()]}), "KeyTaken"),
        (json!({"serviceAccounts": [{"name": "shared"}]}), "ServiceAccountTaken"),
        (json!({"federated": [{"issuer": issuer, "subject": "w"}]}), "FederatedIdentityTaken"),
    ] {
        let spec = json!({"identity": contested});
        world.apply(&agent(&namespace, "old", &spec)).expect("accepted");
        next_second();
        world.apply(&agent(&namespace, "young", &spec)).expect("accepted");
        says("Ready", "False", reason);
        world.apply(&agent(&namespace, "old", &json!({"identity": {"serviceAccounts": [{"name": "bot"}]}}))).expect("accepted");
        says("Ready", "True", "Ready");
        says("IdentityResolved", "True", "Resolved");
        kubectl.run(&["delete", "agent", "young", "--namespace", &namespace]).expect("deleted");
    }
}

#[test]
fn an_end_that_the_schema_accepts_is_one_that_the_operator_can_read() {
    let world = World::shared();
    let agent = world.key_agent("odd-times");
    for end in [
        "9999-12-31T23:59:59Z",
        "2099-01-01T00:00:00.123456789012Z",
        "2099-01-01T00:00:00+99:99",
        "2099-01-01T00:00:00Ztrailing",
        "2099-01-01T00:00:00x1Z",
    ] {
        let spec = keys(&[json!({"publicKey": agent.key.pem(), "notAfter": end})]);
        if world.apply(&crate::world::agent(&agent.namespace, "bot", &spec)).is_err() {
            continue;
        }
        let generation = agent.stored()["metadata"]["generation"].clone();
        wait_until(&format!("somebody says something about {end}"), PATIENCE, || {
            agent.stored()["status"]["observedGeneration"] == generation
        });
    }
}
