//! Tokens that are bound to a key, on the ways that have more than one step: approval, delegation, the sidecar, and clients of others.

use crate::chains::{Team, id_token};
use crate::dpop::{bound, post, proof};
use crate::key_agents::Key;
use crate::payments::{Asked, CIBA, asked};
use crate::sidecars::Sidecar;
use crate::support::postgres::Postgres;
use crate::support::repository;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, TOKEN_EXCHANGE, TYPE_JWT, World, claims, header, wait_until};
use serde_json::{Value, json};
use std::process::Command;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The agent polls with these proofs.
fn poll(asked: &Asked<'_>, proofs: &[&str]) -> Reply {
    let world = asked.tenant.world;
    let form = [
        ("grant_type", CIBA),
        ("auth_req_id", asked.id.as_str()),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", asked.tenant.token.as_str()),
    ];
    post(&world.operator, &world.http, proofs, &form)
}

#[test]
fn the_token_of_an_approval_is_bound_to_one_key_and_a_poll_without_proof_spends_nothing() {
    let world = World::shared();
    let capability = world.capability(&json!({}));
    let entry = json!({"name": capability, "approval": "Required", "resources": ["invoice:2026/*"]});
    let mut spec = bound();
    spec["capabilities"] = json!([entry]);
    let tenant = world.tenant_with("dpop-jit", &spec);
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    poll(&asked, &[]).refused(400, "invalid_dpop_proof");
    asked.approve("bob");
    let refused = poll(&asked, &[]).refused(400, "invalid_dpop_proof");
    assert_eq!(world.record_of(&refused)["reason"], "possession_unproved");
    assert_eq!(asked.status()["phase"], "Approved", "the approval is there yet");

    let (key, other) = (Key::new(), Key::new());
    let mut first = proof(&world.operator, &key);
    let mut reply = poll(&asked, &[&first]);
    wait_until("the operator has heard of the approval", PATIENCE, || {
        if reply.status != 200 {
            std::thread::sleep(std::time::Duration::from_secs(6));
            first = proof(&world.operator, &key);
            reply = poll(&asked, &[&first]);
        }
        reply.status == 200
    });
    assert_eq!(reply.text("token_type"), "DPoP");
    let token = reply.text("access_token");
    assert_eq!(claims(&token)["cnf"], json!({"jkt": key.thumbprint()}));
    assert_eq!(asked.status()["boundTo"], key.thumbprint());
    assert_eq!(world.record_of(&reply)["bound_to"], key.thumbprint());
    // Within ten seconds the same key gets the same token again, and no other key, nor the same proof, any.
    let again = poll(&asked, &[&proof(&world.operator, &key)]);
    assert!(again.status == 200 || again.body["error"] == "invalid_grant", "{:?}", again.body);
    if again.status == 200 {
        assert_eq!(claims(&again.text("access_token")), claims(&token));
    }
    let foreign = poll(&asked, &[&proof(&world.operator, &other)]);
    assert!(matches!(foreign.body["error"].as_str(), Some("invalid_dpop_proof" | "invalid_grant")), "{:?}", foreign.body);
    poll(&asked, &[&first]).refused(400, "invalid_dpop_proof");
    assert_eq!(asked.complete(&token).status, 200);
}

#[test]
fn an_agent_that_is_called_binds_the_next_token_to_its_own_key() {
    let team = Team::start("dpop-chain");
    let (world, server) = (team.world, team.world.resource_server(DOCS));
    let (bots, searchs, search) = (Key::new(), Key::new(), team.subject("search"));
    let exchange = |agent: &str, key: &Key, subject: &str, kind: &str, audience: &str| {
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", kind),
            ("audience", audience),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", team.credential(agent)),
        ];
        post(&world.operator, &world.http, &[&proof(&world.operator, key)], &form)
    };
    let id_token = id_token();
    let call = exchange("bot", &bots, &id_token, "urn:ietf:params:oauth:token-type:id_token", &search);
    let call = call.expect(200).text("access_token");
    assert_eq!(claims(&call)["cnf"]["jkt"], bots.thumbprint());
    let next = exchange("search", &searchs, &call, ACCESS_TOKEN, DOCS).expect(200).text("access_token");
    let said = claims(&next);
    assert_eq!((&said["cnf"]["jkt"], &said["client_id"]), (&json!(searchs.thumbprint()), &json!(search)));
    assert!(world.introspect(&server, &next).is_active());
}

/// An operator of its own world that demands nonces, and has a database that is old enough: a new one takes no proof that may be older than
/// it is.
fn demanding_nonces() -> World {
    let world = World::start(4, &[], &["--require-dpop-nonce"]);
    let agent = world.key_agent("dpop-first");
    wait_until("the database accepts what counts once", PATIENCE, || agent.obtain().status == 200);
    world
}

#[test]
fn a_sidecar_proves_a_key_of_its_own_when_the_agent_must_and_makes_proofs_for_the_agent() {
    let world = demanding_nonces();
    let (bot, server) = (world.tenant_with("dpop-sidecar", &bound()), world.resource_server(DOCS));
    // At another address than the issuer's, as in a cluster with several names for one service.
    let url = world.operator.url();
    let ca = std::fs::read_to_string(world.operator.ca_file()).expect("a CA");
    let sidecar = Sidecar::start_at(&url, &ca, &bot.token, &[]);
    let early = [("method", "GET"), ("url", "https://docs.example.com/a"), ("access_token", "t")];
    sidecar.wait_until_ready();
    let reply = sidecar.ask("/token").expect(200);
    assert_eq!(reply.text("token_type"), "DPoP");
    let token = reply.text("access_token");
    assert!(world.introspect(&server, &token).is_active());
    let form = [
        ("method", "GET"),
        ("url", "https://docs.example.com/reports/7?page=2#top"),
        ("access_token", token.as_str()),
        ("nonce", "n-1"),
    ];
    let proof = sidecar.send("/proof", &form).expect(200).text("proof");
    let (head, said) = (header(&proof), claims(&proof));
    assert_eq!((&head["typ"], &head["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
    assert!(head["jwk"].get("d").is_none());
    assert_eq!(thumbprint(&head["jwk"]), claims(&token)["cnf"]["jkt"], "the key to which the token is bound");
    assert_eq!(
        (&said["htm"], &said["htu"], &said["nonce"], &said["ath"]),
        (&json!("GET"), &json!("https://docs.example.com/reports/7"), &json!("n-1"), &json!(digest(&token)))
    );
    let another = sidecar.send("/proof", &form).expect(200).text("proof");
    assert_ne!(claims(&another)["jti"], said["jti"]);
    // For a shell, alone; and nothing that could be used where tokens are issued.
    let text = sidecar.post("/proof").header("accept", "text/plain").form(&form).send().expect("an answer");
    assert_eq!(text.headers()["content-type"], "text/plain");
    for bad in [
        &form[..2],
        &form[1..],
        &[form[0], ("url", "/reports/7"), form[2]],
        &[form[0], ("url", "https://a b"), form[2]],
        &[("method", "GET\n"), form[1], form[2]],
        &[form[0], form[1], form[2], ("jwk", "{}")],
    ] {
        sidecar.send("/proof", bad).refused(400, "invalid_request");
    }
    let log = sidecar.log();
    assert!(!log.contains("eyJ"), "{log}");
    // One proof was lacking once, then one nonce: no more is asked in vain.
    let records = world.operator.audit_lines().expect("records");
    let refused = |reason: &str| records.iter().filter(|r| r["reason"] == reason).count();
    assert_eq!((refused("possession_unproved"), refused("dpop_nonce_wanted")), (1, 1));
    // An agent with bearer tokens has no use for a proof.
    let plain = Sidecar::beside(&world.tenant("dpop-none"), &[]);
    plain.send("/proof", &early).refused(400, "invalid_request");
}

fn digest(text: &str) -> String {
    use base64::Engine as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}

/// RFC 7638, of a key on P-256.
fn thumbprint(jwk: &Value) -> String {
    let part = |name: &str| jwk[name].as_str().expect("a text").to_owned();
    digest(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, part("x"), part("y")))
}

#[test]
fn openid_client_obtains_bound_tokens_unmodified_and_oauth4webapi_takes_them_from_the_holder_of_the_key_alone() {
    let world = demanding_nonces();
    let tenant = world.tenant_with("dpop-client", &bound());
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, &tenant.token).expect("written");
    let output = Command::new("node")
        .arg(repository().join("tests/clients/dpop.mjs"))
        .env("COUNTERSIGN_URL", world.operator.url())
        .env("NODE_EXTRA_CA_CERTS", world.operator.ca_file())
        .env("AUDIENCE", DOCS)
        .env("TOKEN_FILE", &token_file)
        .output()
        .expect("node");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\n(run `make clients` if a package is missing)");
    let done: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(done["algorithms"], json!(["ES256", "Ed25519", "RS256"]));
}

#[test]
fn while_the_database_does_not_answer_a_proof_makes_no_token_and_afterwards_at_most_one() {
    let server = Postgres::start().expect("a server");
    let world = World::start_on_database(server.database().expect("a database"));
    let (tenant, key) = (world.tenant_with("dpop-frozen", &bound()), Key::new());
    let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", tenant.token.as_str()), ("subject_token_type", TYPE_JWT)];
    let ask = |proof: &str| post(&world.operator, &world.http, &[proof], &form);
    wait_until("a new database accepts proofs", PATIENCE, || ask(&proof(&world.operator, &key)).status == 200);
    let frozen = server.freeze().expect("frozen");
    let meanwhile = proof(&world.operator, &key);
    ask(&meanwhile).refused(503, "temporarily_unavailable");
    drop(frozen);
    wait_until("it recovers", PATIENCE, || ask(&proof(&world.operator, &key)).status == 200);
    let replies = [ask(&meanwhile), ask(&meanwhile), ask(&meanwhile)];
    assert!(replies.iter().all(|reply| reply.status == 200 || reply.body["error"] == "invalid_dpop_proof"), "{replies:?}");
    assert!(replies.iter().filter(|reply| reply.status == 200).count() <= 1 && replies[2].status == 400, "{replies:?}");
}
