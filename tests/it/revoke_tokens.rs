//! Revocation by the holder (RFC 7009): an agent gives up a token of its own, and with it everything that descends from it.

use crate::chains::{From, Team, id_token};
use crate::key_agents::{Key, now};
use crate::payments::send;
use crate::replicas::replica;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, World, agent, claims, wait_until};
use serde_json::{Value, json};
use std::sync::Arc;

/// Revokes as the holder of a credential.
fn revoke(world: &World, credential: &str, token: &str) -> Reply {
    let form = [("token", token), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", credential)];
    world.post("/oauth2/revoke", &form)
}

fn status(world: &World, namespace: &str, name: &str) -> Value {
    world.kubectl().get_json(&["get", "agent", name, "-n", namespace]).expect("the Agent")["status"].clone()
}

/// The identifiers that the Agent lists as revoked.
fn listed(status: &Value) -> Vec<&str> {
    status["revokedTokens"].as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(|e| e["id"].as_str()).collect()
}

#[test]
fn an_agent_gives_up_a_token_and_it_is_dead_when_the_reply_comes() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("give-up"), world.resource_server(DOCS));
    let (token, other) = (tenant.access_token(), tenant.access_token());
    let reply = revoke(world, &tenant.token, &token).expect(200);
    assert!(!world.introspect(&server, &token).is_active(), "at once, on the replica that was asked");
    assert!(world.introspect(&server, &other).is_active(), "and no other token");
    let record = world.record_of(&reply);
    let said = claims(&token);
    assert_eq!(
        (&record["event"], &record["outcome"], &record["reason"]),
        (&json!("token.revoke"), &json!("allow"), &json!("revoked"))
    );
    assert_eq!((&record["jti"], &record["txn"], &record["subject"]), (&said["jti"], &said["txn"], &json!(tenant.subject())));

    let stored = status(world, &tenant.namespace, "bot");
    assert_eq!(listed(&stored), [said["jti"].as_str().expect("jti")]);
    let until = countersign::time::parse(stored["revokedTokens"][0]["expiresAt"].as_str().expect("a time"));
    let expires = said["exp"].as_i64().expect("exp");
    assert!(until.is_some_and(|until| (expires..=expires + 60).contains(&until)), "{until:?} {expires}");
    assert_eq!(stored["revocationEpoch"], 0);

    // Again: it is as revoked as before, and takes no second place.
    let again = revoke(world, &tenant.token, &token).expect(200);
    assert_eq!(world.record_of(&again)["reason"], "revoked_before");
    assert_eq!(listed(&status(world, &tenant.namespace, "bot")).len(), 1);
    revoke(world, &tenant.token, &other).expect(200);
    assert_eq!(listed(&status(world, &tenant.namespace, "bot")).len(), 2);
    assert!(world.introspect(&server, &tenant.access_token()).is_active(), "the agent itself goes on");
}

#[test]
fn r12_with_the_token_that_began_a_chain_everything_below_it_dies() {
    let team = Team::start("root");
    let (world, server) = (team.world, team.world.resource_server(DOCS));
    let id_token = id_token();
    let (called, beside) = (team.called(&id_token), team.called(&id_token));
    let found = team.reads("search", &called).expect(200).text("access_token");
    let passed_on = team.passes_on(&called);
    let read = team.reads("reader", &passed_on).expect(200).text("access_token");
    let as_callee = |name: &str, token: &str| world.introspect(team.credential(name), token).is_active();
    let alive = || {
        [
            as_callee("search", &called),
            world.introspect(&server, &found).is_active(),
            as_callee("reader", &passed_on),
            world.introspect(&server, &read).is_active(),
        ]
    };
    assert_eq!(alive(), [true; 4]);

    // In the middle: what is above it lives on.
    revoke(world, team.credential("search"), &passed_on).expect(200);
    assert_eq!(alive(), [true, true, false, false]);
    // At the root.
    revoke(world, team.credential("bot"), &called).expect(200);
    assert_eq!(alive(), [false; 4]);
    for (name, token) in [("search", &called), ("reader", &passed_on)] {
        let reply = team.exchange(name, &From::AccessToken(token), &[("audience", DOCS)]);
        team.refused(reply, "invalid_request", "chain_ended");
    }
    assert!(as_callee("search", &beside), "another chain of the same agents lives on");
    team.reads("search", &beside).expect(200);
}

#[test]
fn only_the_holder_gives_a_token_up() {
    let team = Team::start("holder");
    let (world, server) = (team.world, team.world.resource_server(DOCS));
    let called = team.called_by_itself();
    let found = team.reads("search", &called).expect(200).text("access_token");
    for (name, token) in [("search", &called), ("reader", &called), ("bot", &found), ("reader", &found)] {
        let reply = revoke(world, team.credential(name), token).refused(400, "unauthorized_client");
        assert_eq!(world.record_of(&reply)["reason"], "token_of_another_agent", "{name}");
    }
    // A resource server is no agent.
    let reply = revoke(world, &server, &found);
    assert!(matches!(reply.status, 400 | 401), "{reply:?}");
    assert!(world.introspect(team.credential("search"), &called).is_active());
    assert!(world.introspect(&server, &found).is_active());
    revoke(world, team.credential("search"), &found).expect(200);
    assert!(!world.introspect(&server, &found).is_active());
}

#[test]
fn what_is_no_living_token_of_ours_is_as_good_as_revoked() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("worthless"), world.resource_server(DOCS));
    let token = tenant.access_token();
    let (signed, _) = token.rsplit_once('.').expect("a JWT");
    for worthless in ["x", "a.b.c", signed, &format!("{signed}."), &format!("{token}A"), &tenant.token, &"z".repeat(9000)] {
        let reply = revoke(world, &tenant.token, worthless).expect(200);
        assert_eq!(world.record_of(&reply)["reason"], "token_unknown_or_expired", "{worthless}");
    }
    assert!(world.introspect(&server, &token).is_active());
    assert_eq!(listed(&status(world, &tenant.namespace, "bot")), [""; 0]);
    let url = world.operator.url();
    for form in [vec![], vec![("token", "")], vec![("token", token.as_str()), ("token", token.as_str())]] {
        send(&url, "/oauth2/revoke", &tenant, &form, &[]).refused(400, "invalid_request");
    }
    // The hint may say anything.
    for hint in ["refresh_token", "unheard_of"] {
        let form = [("token", token.as_str()), ("token_type_hint", hint)];
        send(&url, "/oauth2/revoke", &tenant, &form, &[]).expect(200);
    }
    assert!(!world.introspect(&server, &token).is_active());
}

#[test]
fn a_namesake_cannot_revoke_what_the_first_was_given_and_it_is_dead_anyway() {
    let world = World::shared();
    let tenant = world.tenant("namesake");
    let token = tenant.access_token();
    world.kubectl().run(&["delete", "agent", "bot", "-n", &tenant.namespace]).expect("deleted");
    world.apply(&agent(&tenant.namespace, "bot", &json!({}))).expect("created anew");
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "condition=Ready", PATIENCE).expect("Ready");
    wait_until("it is seen", PATIENCE, || world.exchange(&tenant.token).status == 200);
    revoke(world, &tenant.token, &token).refused(400, "unauthorized_client");
    assert_eq!(listed(&status(world, &tenant.namespace, "bot")), [""; 0]);
}

#[test]
fn one_revoked_token_more_than_an_agent_can_list_ends_all_of_them() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("overflow"), world.resource_server(DOCS));
    let set = |entries: Vec<Value>| {
        let patch = json!({"status": {"revokedTokens": entries}}).to_string();
        let arguments = ["patch", "agent", "bot", "-n", &tenant.namespace, "--subresource=status", "--type=merge", "-p", &patch];
        world.kubectl().run(&arguments).map_err(|f| f.stderr)
    };
    let entry = |i: usize, at: u64| json!({"id": format!("id-{i}"), "expiresAt": crate::key_agents::rfc3339(at)});
    let (soon, past) = (now() + 600, now() - 600);
    // Expired ones make room, one at a time is enough.
    set((0..256).map(|i| entry(i, if i == 7 { past } else { soon })).collect()).expect("an administrator may");
    let (first, second, third) = (tenant.access_token(), tenant.access_token(), tenant.access_token());
    revoke(world, &tenant.token, &first).expect(200);
    let full = status(world, &tenant.namespace, "bot");
    assert_eq!((listed(&full).len(), &full["revocationEpoch"]), (256, &json!(0)));
    assert!(!listed(&full).contains(&"id-7") && world.introspect(&server, &second).is_active());
    assert!(set((0..257).map(|i| entry(i, soon)).collect()).is_err_and(|e| e.contains("at most 256")));

    revoke(world, &tenant.token, &second).expect(200);
    for dead in [&first, &second, &third] {
        assert!(!world.introspect(&server, dead).is_active());
    }
    let after = status(world, &tenant.namespace, "bot");
    assert_eq!((listed(&after).len(), &after["revocationEpoch"]), (0, &json!(1)));
    assert!(world.introspect(&server, &tenant.access_token()).is_active());
}

#[test]
fn what_has_expired_leaves_the_list_by_itself() {
    let world = World::shared();
    let tenant = world.tenant("pruned");
    let entry = |id: &str, at: u64| json!({"id": id, "expiresAt": crate::key_agents::rfc3339(at)});
    let patch = json!({"status": {"revokedTokens": [entry("a", now() - 5), entry("b", now() + 2)]}}).to_string();
    let arguments = ["patch", "agent", "bot", "-n", &tenant.namespace, "--subresource=status", "--type=merge", "-p", &patch];
    world.kubectl().run(&arguments).expect("an administrator may");
    wait_until("the list is empty", PATIENCE, || listed(&status(world, &tenant.namespace, "bot")).is_empty());
}

#[test]
fn r12_a_token_that_was_revoked_at_one_replica_dies_on_the_others() {
    let world = World::start_shareable();
    let second = replica(&world, "second", &[]);
    let team = Team::start_in(&world, "everywhere");
    let server = world.resource_server(DOCS);
    let called = team.called_by_itself();
    let found = team.reads("search", &called).expect(200).text("access_token");
    let http = crate::world::client(&second);
    let elsewhere = || {
        let reply =
            http.post(format!("{}/oauth2/introspect", second.url())).bearer_auth(&server).form(&[("token", &found)]).send();
        Reply::from(reply.expect("an answer")).is_active()
    };
    wait_until("the other replica knows the token", PATIENCE, elsewhere);
    revoke(&world, team.credential("bot"), &called).expect(200);
    assert!(!world.introspect(&server, &found).is_active());
    let took = wait_until("it is dead there too", PATIENCE, || !elsewhere());
    eprintln!("dead on the other replica after {took:?}");
}

#[test]
fn r14_a_connection_that_stays_open_is_no_longer_worth_anything_than_the_key() {
    let world = World::shared();
    let agent = world.key_agent("keep-alive");
    let server = world.resource_server(DOCS);
    // One connection, and one only: the client has no more in its pool, and the server closes none that is busy.
    let pem = std::fs::read(world.operator.ca_file()).expect("the CA");
    let http = reqwest::blocking::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
        .pool_max_idle_per_host(1)
        .timeout(PATIENCE)
        .build()
        .expect("a client");
    let kept = crate::key_agents::KeyAgent { http, ..agent.clone() };
    let token = kept.obtain().expect(200).text("access_token");
    let other = Arc::new(Key::new());
    let patch = json!({"spec": {"identity": {"keys": [other.entry()]}}}).to_string();
    world.kubectl().run(&["patch", "agent", "bot", "-n", &agent.namespace, "--type=merge", "-p", &patch]).expect("rotated");
    wait_until("the key does not count", PATIENCE, || kept.obtain().status != 200);
    kept.obtain().refused(401, "invalid_client");
    assert!(!world.introspect(&server, &token).is_active(), "what was issued for the key ends with it");
    let rotated = kept.with(&other);
    wait_until("the new key counts", PATIENCE, || rotated.obtain().status == 200);
    assert!(world.introspect(&server, &rotated.obtain().expect(200).text("access_token")).is_active());
}
