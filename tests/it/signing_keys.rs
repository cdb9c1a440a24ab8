//! Our own signing keys: one by one under load, all at once in an emergency, and from an earlier version.

use crate::forged_tokens::encode;
use crate::payments::asked;
use crate::replicas::replica;
use crate::support::install::NAMESPACE;
use crate::support::operator::Operator;
use crate::world::{DOCS, PATIENCE, Reply, TOKEN_EXCHANGE, TYPE_JWT, Tenant, World, binary, claims, header, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// An audience that knows no EdDSA.
pub const KUBERNETES: &str = "https://kubernetes.example.com";

/// An agent with an audience for each algorithm.
pub fn tenant<'a>(world: &'a World, purpose: &str) -> Tenant<'a> {
    let audiences = json!([{"name": DOCS}, {"name": KUBERNETES, "signingAlgorithm": "ES256"}]);
    world.tenant_with(purpose, &json!({"tokens": {"audiences": audiences}}))
}

/// A token of the agent for `audience`, from this replica.
pub fn issued(tenant: &Tenant<'_>, operator: &Operator, audience: &str) -> Reply {
    let form = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", tenant.token.as_str()),
        ("subject_token_type", TYPE_JWT),
        ("audience", audience),
    ];
    tenant.world.http.post(format!("{}/oauth2/token", operator.url())).form(&form).send().expect("an answer").into()
}

/// Whether the token is alive to this replica.
pub fn is_active(world: &World, operator: &Operator, server: &str, token: &str) -> bool {
    let url = format!("{}/oauth2/introspect", operator.url());
    Reply::from(world.http.post(url).bearer_auth(server).form(&[("token", token)]).send().expect("an answer")).is_active()
}

/// The keys that a replica publishes.
pub fn published(world: &World, operator: &Operator) -> Vec<Value> {
    let answer = world.http.get(format!("{}/oauth2/jwks", operator.url())).send().expect("an answer");
    answer.json::<Value>().expect("JSON")["keys"].as_array().expect("keys").clone()
}

/// Their names.
pub fn kids(world: &World, operator: &Operator) -> BTreeSet<String> {
    published(world, operator).iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

/// Runs `countersign rotate-signing-keys` as whoever the kubeconfig belongs to.
pub fn rotate(kubeconfig: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(binary());
    command.args(["rotate-signing-keys", "--namespace", NAMESPACE]).args(arguments).env_clear().env("KUBECONFIG", kubeconfig);
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    assert!(!text(&output.stdout).contains("PRIVATE") && !text(&output.stderr).contains("PRIVATE"));
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What the operator's Secret holds.
fn secret(world: &World) -> Value {
    world.kubectl().get_json(&["get", "secret", "countersign", "-n", NAMESPACE]).expect("the Secret")["data"].clone()
}

/// The stored keys, private halves included.
fn stored(world: &World) -> Vec<Value> {
    let list = STANDARD.decode(secret(world)["signing-keys"].as_str().expect("signing-keys")).expect("base64");
    serde_json::from_slice(&list).expect("a list")
}

/// A token with these claims and the header of `like`, signed with the very key of ours that signed that one.
pub fn signed_with_our_key(world: &World, like: &str, claims: &Value) -> String {
    use jsonwebtoken::{Algorithm, EncodingKey};
    let (head, _) = like.split_once('.').expect("a token");
    let text = format!("{head}.{}", crate::forged_tokens::encode(claims));
    let signing = stored(world).into_iter().filter(|key| key["alg"] == "EdDSA");
    let candidates = signing.map(|key| EncodingKey::from_ed_pem(key["pem"].as_str().expect("PEM").as_bytes()).expect("a key"));
    // Of several the one that signs like the other.
    let unchanged = like.rsplit_once('.').expect("a token");
    let sign =
        |text: &str, key: &EncodingKey| jsonwebtoken::crypto::sign(text.as_bytes(), key, Algorithm::EdDSA).expect("signed");
    let key = candidates.into_iter().find(|key| sign(unchanged.0, key) == unchanged.1).expect("the key that signed it");
    format!("{text}.{}", sign(&text, &key))
}

/// Changes the Secret as the administrator.
fn patch_secret(world: &World, kind: &str, patch: &Value) {
    let (kind, patch) = (format!("--type={kind}"), patch.to_string());
    let arguments = ["patch", "secret", "countersign", "-n", NAMESPACE, &kind, "-p", &patch];
    world.kubectl().run(&arguments).expect("patched");
}

/// What is recorded of changes of the keys, for this reason.
fn records(operator: &Operator, reason: &str) -> Vec<Value> {
    let lines = operator.audit_lines().expect("the audit log").into_iter();
    lines.filter(|r| r["event"] == "signing_keys.rotated" && r["reason"] == reason).collect()
}

/// A token as whoever stole a key would make it: `like` another, under an identifier of its own.
fn forged(pem: &str, like: &str) -> String {
    let mut claims = claims(like);
    claims["jti"] = json!("made-by-a-thief");
    let (key, algorithm) = match header(like)["alg"].as_str() {
        Some("EdDSA") => (EncodingKey::from_ed_pem(pem.as_bytes()), Algorithm::EdDSA),
        _ => (EncodingKey::from_ec_pem(pem.as_bytes()), Algorithm::ES256),
    };
    let signed = format!("{}.{}", encode(&header(like)), encode(&claims));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key.expect("a key"), algorithm).expect("a signature");
    format!("{signed}.{signature}")
}

#[test]
fn keys_and_metadata_name_both_algorithms_and_nothing_private() {
    let world = World::shared();
    let get = |path: &str| world.http.get(format!("{}{path}", world.operator.url())).send().expect("an answer");
    let answer = get("/oauth2/jwks");
    assert_eq!(answer.headers()["cache-control"], "public, max-age=300");
    assert_eq!(answer.headers()["content-type"], "application/jwk-set+json");
    let keys = published(world, &world.operator);
    for (algorithm, members) in [
        ("EdDSA", ["alg", "crv", "kid", "kty", "use", "x"].as_slice()),
        ("ES256", &["alg", "crv", "kid", "kty", "use", "x", "y"]),
    ] {
        let key = keys.iter().find(|key| key["alg"] == algorithm).expect("a key").as_object().expect("an object");
        assert!(key.keys().map(String::as_str).eq(members.iter().copied()), "{key:?}");
        assert_eq!(key["use"], "sig");
    }
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let document: Value = get(path).json().expect("JSON");
        assert_eq!(document["id_token_signing_alg_values_supported"], json!(["EdDSA", "ES256"]), "{path}");
    }
}

#[test]
fn an_emergency_rotation_kills_whatever_the_old_keys_signed_and_the_new_ones_sign_at_once() {
    let world = World::start_shareable();
    let tenant = tenant(&world, "emergency");
    // Started after it, so that it knows it.
    let second = replica(&world, "second", &[]);
    let operators = [&world.operator, &second];
    let servers = [(DOCS, "EdDSA", world.resource_server(DOCS)), (KUBERNETES, "ES256", world.resource_server(KUBERNETES))];
    let old = kids(&world, &world.operator);
    assert_eq!(old, kids(&world, &second));
    // A thief has both keys, and a true token for each audience.
    let stolen = stored(&world);
    let mut dead = Vec::new();
    for (audience, algorithm, server) in &servers {
        let token = issued(&tenant, &world.operator, audience).expect(200).text("access_token");
        assert_eq!(header(&token)["alg"], *algorithm);
        let key = stolen.iter().find(|key| key["alg"] == *algorithm).expect("a key");
        let forged = forged(key["pem"].as_str().expect("PEM"), &token);
        for operator in operators {
            assert!(is_active(&world, operator, server, &token));
            assert!(is_active(&world, operator, server, &forged), "the key is good, so the theft matters");
        }
        dead.extend([(server, token), (server, forged)]);
    }
    // An approval that was turned into a token a moment ago.
    let (payer, capability) = world.payments_tenant("emergency-payment");
    world.approver("bob", &payer.namespace, &capability);
    let asked = asked(&payer, &capability);
    asked.approve("bob");
    let (first, issued_at) = (asked.token(), Instant::now());
    assert_eq!(asked.token(), first, "the identical token, for ten seconds");

    let said = rotate(world.cluster.kubeconfig(), &[]).expect("rotated");
    let after = Instant::now();
    for (server, token) in &dead {
        for operator in operators {
            wait_until("the token is dead", PATIENCE, || !is_active(&world, operator, server, token));
        }
    }
    eprintln!("everything old was dead {:?} after the command", after.elapsed());
    let new = kids(&world, &world.operator);
    assert!(new.is_disjoint(&old) && new.len() == 2, "{old:?} {new:?}");
    for kid in &old {
        assert!(said.contains(&format!("removed EdDSA {kid}")) || said.contains(&format!("removed ES256 {kid}")), "{said}");
    }
    let refused = asked.poll().refused(400, "invalid_grant");
    if issued_at.elapsed() < Duration::from_secs(8) {
        assert!(refused.text("error_description").contains("key"), "{:?}", refused.body);
    }
    for operator in operators {
        wait_until("it has the new keys", PATIENCE, || kids(&world, operator) == new);
        for (audience, algorithm, server) in &servers {
            let token = issued(&tenant, operator, audience).expect(200).text("access_token");
            let header = header(&token);
            assert!(new.contains(header["kid"].as_str().expect("a kid")) && header["alg"] == *algorithm, "{header}");
            for operator in operators {
                assert!(is_active(&world, operator, server, &token));
            }
        }
        wait_until("it is recorded", PATIENCE, || !records(operator, "replaced").is_empty());
        let record = records(operator, "replaced")[0].clone();
        for (field, kids) in [("added", &new), ("removed", &old)] {
            let recorded: BTreeSet<String> = record[field].as_str().expect(field).split(' ').map(str::to_owned).collect();
            assert_eq!(recorded, *kids, "{field}");
        }
        assert!(!operator.audit_text().expect("the audit log").contains("PRIVATE"));
        assert!(!operator.process().log().contains("PRIVATE"));
    }
    // Taking the item away by hand does the same.
    patch_secret(&world, "json", &json!([{"op": "remove", "path": "/data/signing-keys"}]));
    for operator in operators {
        wait_until("there are others again", PATIENCE, || {
            let kids = kids(&world, operator);
            kids.is_disjoint(&new) && kids.len() == 2
        });
        wait_until("and they sign", PATIENCE, || issued(&tenant, operator, DOCS).status == 200);
    }
    assert_eq!(kids(&world, &world.operator), kids(&world, &second), "whoever was first has decided");
}

#[test]
fn a_rotation_can_be_begun_by_hand_with_the_operators_own_rights_and_kills_nothing() {
    let world = World::start(4, &[], &[]);
    let (tenant, server) = (tenant(&world, "begun"), world.resource_server(DOCS));
    let (old, token) = (kids(&world, &world.operator), tenant_token(&tenant));
    // As in its pod.
    let kubeconfig = world.cluster.directory().path().join("operator.kubeconfig");
    let arguments = ["--keep-old", "--signing-key-publish-ahead=4s"];
    let said = rotate(&kubeconfig, &arguments).expect("rotated");
    let count = |text: &str, what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!((count(&said, "kept"), count(&said, "added")), (2, 2), "{said}");
    let again = rotate(&kubeconfig, &arguments).expect("nothing to do");
    assert_eq!((count(&again, "kept"), count(&again, "added")), (4, 0), "{again}");
    wait_until("the next keys are published", PATIENCE, || kids(&world, &world.operator).len() == 4);
    assert!(kids(&world, &world.operator).is_superset(&old));
    let kid = |token: &str| header(token)["kid"].as_str().expect("a kid").to_owned();
    wait_until("they sign", PATIENCE, || !old.contains(&kid(&tenant_token(&tenant))));
    assert!(is_active(&world, &world.operator, &server, &token), "the old one stays");
    // Who may not, cannot.
    let carol = world.cluster.kubeconfig_for("carol").expect("a user");
    let refused = rotate(&carol, &[]).expect_err("it was allowed");
    assert!(refused.contains("forbidden"), "{refused}");
    assert_eq!(kids(&world, &world.operator).len(), 4);
}

fn tenant_token(tenant: &Tenant<'_>) -> String {
    issued(tenant, &tenant.world.operator, DOCS).expect(200).text("access_token")
}

#[test]
fn an_upgrade_from_the_one_key_of_earlier_versions_kills_no_token() {
    let mut world = World::start(4, &[], &[]);
    let server = world.resource_server(DOCS);
    let tenant = world.tenant("upgrade");
    let (agent, namespace, credential) = (tenant.access_token(), tenant.namespace.clone(), tenant.token.clone());
    let kid = header(&agent)["kid"].as_str().expect("a kid").to_owned();
    // As an earlier version left it: this key, and no other.
    let pem = stored(&world).into_iter().find(|key| key["alg"] == "EdDSA").expect("a key")["pem"].clone();
    world.operator.process().signal("STOP").expect("frozen: it is not to repair this");
    let pem = STANDARD.encode(pem.as_str().expect("PEM"));
    patch_secret(&world, "merge", &json!({"data": {"signing-keys": null, "signing-key.pem": pem}}));
    world.operator.process().signal("KILL").expect("killed");
    world.restart().expect("it starts");
    let data = secret(&world);
    assert!(data.get("signing-key.pem").is_none() && data.get("signing-keys").is_some(), "the old item is gone");
    assert!(is_active(&world, &world.operator, &server, &agent), "the token of before lives");
    let found: Vec<(Value, bool)> =
        published(&world, &world.operator).iter().map(|key| (key["alg"].clone(), key["kid"] == kid.as_str())).collect();
    let of = |algorithm: &str, is_old: bool| found.iter().filter(|key| **key == (json!(algorithm), is_old)).count();
    assert_eq!((of("EdDSA", true), of("EdDSA", false), of("ES256", false)), (1, 1, 1), "the next one is published: {found:?}");
    let again = world.exchange(&credential).expect(200).text("access_token");
    assert_eq!(header(&again)["kid"], kid.as_str(), "and the old one signs until then");
    assert_eq!(claims(&again)["sub"], format!("agent:{namespace}/bot"));
}

#[test]
fn what_cannot_be_read_is_never_overwritten_and_what_is_gone_signs_nothing() {
    let mut world = World::start(4, &[], &[]);
    let tenant = world.tenant("kept");
    let (credential, old) = (tenant.token.clone(), kids(&world, &world.operator));
    let garbage = STANDARD.encode("garbage");
    patch_secret(&world, "merge", &json!({"data": {"signing-keys": garbage}}));
    wait_until("it complains", PATIENCE, || world.operator.process().log().contains("the Secret's signing-keys cannot be used"));
    world.exchange(&credential).expect(200);
    assert_eq!(kids(&world, &world.operator), old, "what was loaded before stays");
    let refused = rotate(world.cluster.kubeconfig(), &["--keep-old"]).expect_err("there is nothing to keep");
    assert!(refused.contains("signing-keys") && refused.contains("no JSON list"), "{refused}");
    let refused = world.restart().expect_err("it must not start").to_string();
    assert!(refused.contains("signing-keys") && refused.contains("countersign rotate-signing-keys"), "{refused}");
    let stored = world.kubectl().get_json(&["get", "secret", "countersign", "-n", NAMESPACE]).expect("the Secret");
    assert_eq!(stored["data"]["signing-keys"], garbage, "it was not overwritten");
    // What a person says is another matter.
    let said = rotate(world.cluster.kubeconfig(), &[]).expect("rotated");
    assert!(said.contains("what was there is removed") && said.matches("added ").count() == 2, "{said}");
    world.restart().expect("it starts");
    let tenant = world.tenant("again");
    tenant.access_token();

    // Whoever takes the Secret away wants its keys to sign no more.
    let before = kids(&world, &world.operator);
    let mut data = secret(&world);
    world.kubectl().run(&["delete", "secret", "countersign", "-n", NAMESPACE]).expect("deleted");
    wait_until("nothing is issued", PATIENCE, || world.exchange(&tenant.token).status == 503);
    let reply = world.exchange(&tenant.token).refused(503, "temporarily_unavailable");
    let record = world.record_of(&reply);
    assert_eq!(record["reason"], "view_stale");
    assert!(record["detail"].as_str().expect("a detail").contains("secret"), "{record}");
    assert_eq!(kids(&world, &world.operator), before, "nobody is told that there are no keys");
    data.as_object_mut().expect("items").remove("signing-keys");
    let metadata = json!({"name": "countersign", "namespace": NAMESPACE});
    world
        .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}))
        .expect("the rest of it is back");
    wait_until("all is well with other keys", PATIENCE, || world.exchange(&tenant.token).status == 200);
    assert!(kids(&world, &world.operator).is_disjoint(&before));
}

#[test]
fn an_approved_token_that_is_delivered_again_is_signed_by_the_key_that_was_fixed() {
    let world = World::start_shareable();
    let capability = world.capability(&json!({}));
    let entry = json!({"name": capability, "approval": "Required", "resources": ["invoice:2026/*"]});
    let audiences = json!([{"name": KUBERNETES, "signingAlgorithm": "ES256"}]);
    let tenant = world.tenant_with("fixed", &json!({"capabilities": [entry], "tokens": {"audiences": audiences}}));
    world.approver("bob", &tenant.namespace, &capability);
    let (server, witness) = (world.resource_server(KUBERNETES), self::tenant(&world, "witness"));
    let second = replica(&world, "second", &[]);
    for attempt in 1.. {
        let asked = asked(&tenant, &capability);
        asked.approve("bob");
        let issued_at = Instant::now();
        let first = asked.token();
        assert_eq!(header(&first)["alg"], "ES256");
        rotate(world.cluster.kubeconfig(), &["--keep-old", "--signing-key-publish-ahead=1s"]).expect("rotated");
        // Another key signs by now.
        wait_until("another key signs", PATIENCE, || {
            let token = issued(&witness, &second, KUBERNETES).expect(200).text("access_token");
            header(&token)["kid"] != header(&first)["kid"]
        });
        let again = asked.poll_at(&second.url(), "0");
        if issued_at.elapsed() < Duration::from_secs(8) {
            let again = again.expect(200).text("access_token");
            assert_eq!((header(&again), claims(&again)), (header(&first), claims(&first)), "the same key, the same claims");
            for token in [&first, &again] {
                assert!(is_active(&world, &second, &server, token));
            }
            asked.complete(&again).expect(200);
            // The other operator hears of it.
            wait_until("they are one token", PATIENCE, || !is_active(&world, &second, &server, &first));
            return;
        }
        assert!(attempt < 5, "the machine is too busy");
        asked.revoke(&first).expect(200);
    }
}
