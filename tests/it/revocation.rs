//! What ends a token: suspension, deletion, the epoch, and losing what it says.

use crate::support::workload;
use crate::world::{DOCS, PATIENCE, World, agent, next_second, wait_until};
use serde_json::json;
use std::time::Duration;

/// Milliseconds in practice; the limit is for a busy machine.
const PROMPTLY: Duration = Duration::from_secs(10);

#[test]
fn a_suspended_agent_gets_no_token_and_none_of_its_tokens_is_alive() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("suspend"), world.resource_server(DOCS));
    let token = tenant.access_token();
    assert!(world.introspect(&server, &token).is_active());
    tenant.patch(&json!({"spec": {"suspended": true}}));
    wait_until("no new token", PROMPTLY, || world.exchange(&tenant.token).status != 200);
    let refused = world.exchange(&tenant.token).refused(400, "invalid_request");
    assert_eq!(world.record_of(&refused)["reason"], "agent_suspended");
    assert!(!world.introspect(&server, &token).is_active());
}

#[test]
fn r13_what_was_issued_before_a_suspension_stays_dead_after_it() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("resume"), world.resource_server(DOCS));
    let before = tenant.access_token();
    tenant.patch(&json!({"spec": {"suspended": true}}));
    world
        .kubectl()
        .wait_for(&tenant.namespace, "agent/bot", "condition=Suspended", PATIENCE)
        .expect("the suspension takes effect");
    tenant.patch(&json!({"spec": {"suspended": false}}));
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "condition=Ready", PATIENCE).expect("resumed");
    let after = tenant.access_token();
    assert!(world.introspect(&server, &after).is_active());
    assert!(!world.introspect(&server, &before).is_active());
    assert_eq!(crate::world::claims(&after)["links"][0]["epoch"], 1);
}

#[test]
fn a_suspension_cannot_be_undone_before_it_has_taken_effect() {
    // A world of its own: its operator is frozen, as if it were down.
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant_with("unseen", &json!({}));
    let before = tenant.access_token();
    let server = world.resource_server(DOCS);
    let resume = ["patch", "agent", "bot", "-n", &tenant.namespace, "--type=merge", "-p", r#"{"spec":{"suspended":false}}"#];
    world.operator.process().signal("STOP").expect("frozen");
    tenant.patch(&json!({"spec": {"suspended": true}}));
    let refused = world.kubectl().run(&resume).expect_err("nobody has counted the suspension yet");
    assert!(refused.stderr.contains("has not taken effect yet"), "{}", refused.stderr);
    world.operator.process().signal("CONT").expect("thawed");
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "condition=Suspended", PATIENCE).expect("it takes effect");

    // A change while suspended makes a generation that has not been counted either.
    world.operator.process().signal("STOP").expect("frozen");
    tenant.patch(&json!({"spec": {"displayName": "Bot"}}));
    world.kubectl().run(&resume).expect_err("nor has this generation been counted");
    world.operator.process().signal("CONT").expect("thawed");
    wait_until("it is counted and can be resumed", PATIENCE, || world.kubectl().run(&resume).is_ok());
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "condition=Ready", PATIENCE).expect("resumed");
    assert!(!world.introspect(&server, &before).is_active());
    assert!(world.introspect(&server, &tenant.access_token()).is_active());
}

#[test]
fn a_deleted_agent_is_gone_and_its_namesake_is_somebody_else() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("delete"), world.resource_server(DOCS));
    let token = tenant.access_token();
    world.kubectl().run(&["delete", "agent", "bot", "-n", &tenant.namespace]).expect("deleted");
    wait_until("no new token", PROMPTLY, || world.exchange(&tenant.token).status != 200);
    let refused = world.exchange(&tenant.token);
    assert_eq!(world.record_of(&refused)["reason"], "agent_unknown");
    assert!(!world.introspect(&server, &token).is_active());
    world.apply(&agent(&tenant.namespace, "bot", &json!({}))).expect("created anew");
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "condition=Ready", PATIENCE).expect("Ready");
    assert!(world.introspect(&server, &tenant.access_token()).is_active());
    assert!(!world.introspect(&server, &token).is_active(), "tokens of the first stay dead");
}

#[test]
fn the_epoch_ends_what_was_issued_under_another_and_only_grows() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("epoch"), world.resource_server(DOCS));
    let token = tenant.access_token();
    let set = |status: &str| {
        world.kubectl().run(&[
            "patch",
            "agent",
            "bot",
            "-n",
            &tenant.namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])
    };
    set(r#"{"status":{"revocationEpoch":5}}"#).expect("an administrator may raise it");
    wait_until("the old token is dead", PROMPTLY, || !world.introspect(&server, &token).is_active());
    let new = tenant.access_token();
    assert_eq!(crate::world::claims(&new)["links"][0]["epoch"], 5);
    assert!(world.introspect(&server, &new).is_active());
    for lower in [r#"{"status":{"revocationEpoch":4}}"#, r#"{"status":{"revocationEpoch":null}}"#, r#"{"status":null}"#] {
        let refused = set(lower).expect_err("the epoch only grows");
        assert!(refused.stderr.contains("revocationEpoch only grows"), "{}", refused.stderr);
    }
}

#[test]
fn r2_a_token_ends_when_the_agent_loses_what_it_says() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("narrow"), world.resource_server(DOCS));
    let whole = tenant.access_token();
    let form = |scope| {
        [
            ("grant_type", crate::world::TOKEN_EXCHANGE),
            ("subject_token", tenant.token.as_str()),
            ("subject_token_type", crate::world::TYPE_JWT),
            ("scope", scope),
        ]
    };
    let search_only = world.request(&form("web.search")).expect(200).text("access_token");
    tenant.patch(&json!({"spec": {"capabilities": [{"name": "web.search"}]}}));
    wait_until("the wider token is dead", PROMPTLY, || !world.introspect(&server, &whole).is_active());
    assert!(world.introspect(&server, &search_only).is_active(), "the other says nothing that the agent lost");
    world.request(&form("document.read")).refused(400, "invalid_scope");
}

#[test]
fn a_pod_that_is_deleted_takes_its_credential_with_it() {
    let world = World::shared();
    let tenant = world.tenant("pod");
    let server = world.resource_server(DOCS);
    let issued = world.exchange(&tenant.token).expect(200).text("access_token");
    assert!(world.introspect(&server, &issued).is_active());
    world.kubectl().run(&["delete", "pod", "pod", "-n", &tenant.namespace, "--wait=false"]).expect("deleted");
    wait_until("the token is refused", Duration::from_secs(1), || world.exchange(&tenant.token).status != 200);
    let reply = world.introspect(&server, &issued);
    assert!(!reply.is_active(), "what it was given before ends with it");
    assert_eq!(world.record_of(&reply)["reason"], "proof_ended");
    let refused = world.exchange(&tenant.token).refused(400, "invalid_request");
    assert_eq!(world.record_of(&refused)["reason"], "credential_holder_gone");
    // A namesake is another pod.
    let uid = workload::create_pod(&world.kubectl(), &tenant.namespace, "pod", "bot").expect("a Pod");
    world.exchange(&tenant.token).refused(400, "invalid_request");
    let reply = world.exchange(&tenant.pod_token("bot", "pod", &uid)).expect(200);
    assert!(world.introspect(&server, &reply.text("access_token")).is_active());
    assert!(!world.introspect(&server, &issued).is_active(), "and what the old one was given stays dead");
}

#[test]
fn f6_a_pod_that_a_finalizer_keeps_is_gone_all_the_same() {
    let world = World::shared();
    let tenant = world.tenant("finalizer");
    let finalize = |value: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{value}}}}}"#);
        world.kubectl().run(&["patch", "pod", "pod", "-n", &tenant.namespace, "--type=merge", "-p", &patch]).expect("patched");
    };
    let server = world.resource_server(DOCS);
    let issued = world.exchange(&tenant.token).expect(200).text("access_token");
    assert!(world.introspect(&server, &issued).is_active());
    finalize(r#"["example.com/hold"]"#);
    world.kubectl().run(&["delete", "pod", "pod", "-n", &tenant.namespace, "--wait=false"]).expect("marked");
    wait_until("the token is refused", Duration::from_secs(1), || world.exchange(&tenant.token).status != 200);
    assert!(!world.introspect(&server, &issued).is_active(), "what it was given before is dead as well");
    let still = world.kubectl().get_json(&["get", "pod", "pod", "-n", &tenant.namespace]).expect("the pod is still there");
    assert!(still["metadata"]["deletionTimestamp"].is_string());
    finalize("[]");
}

#[test]
fn a_service_account_that_is_deleted_takes_its_credentials_with_it() {
    let world = World::shared();
    let tenant = world.tenant("service-account");
    world.exchange(&tenant.token).expect(200);
    world.kubectl().run(&["delete", "serviceaccount", "bot", "-n", &tenant.namespace]).expect("deleted");
    wait_until("the token is refused", PROMPTLY, || world.exchange(&tenant.token).status != 200);
    workload::create_service_account(&world.kubectl(), &tenant.namespace, "bot").expect("a namesake");
    world.exchange(&tenant.token).refused(400, "invalid_request");
}

#[test]
fn c6_a_second_agent_cannot_take_a_service_account_over() {
    let world = World::shared();
    let tenant = world.tenant("rival");
    next_second();
    let rival = agent(
        &tenant.namespace,
        "rival",
        &json!({"identity": {"serviceAccounts": [{"name": "bot"}]}, "capabilities": [{"name": "payments.authorize"}]}),
    );
    world.apply(&rival).expect("it can be written");
    let reason = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=ServiceAccountTaken";
    world.kubectl().wait_for(&tenant.namespace, "agent/rival", reason, PATIENCE).expect("the second is not Ready");
    let message = world.kubectl().run(&[
        "get",
        "agent",
        "rival",
        "-n",
        &tenant.namespace,
        "-o",
        "jsonpath={.status.conditions[?(@.type==\"Ready\")].message}",
    ]);
    assert!(message.expect("a message").contains(&tenant.subject()), "and names the first");
    let reply = world.exchange(&tenant.token).expect(200);
    assert_eq!(crate::world::claims(&reply.text("access_token"))["sub"], tenant.subject(), "the first keeps working");
    // When the first is gone, the second takes its place.
    world.kubectl().run(&["delete", "agent", "bot", "-n", &tenant.namespace]).expect("deleted");
    world.kubectl().wait_for(&tenant.namespace, "agent/rival", "condition=Ready", PATIENCE).expect("now it is Ready");
    assert_eq!(world.exchange(&tenant.token).expect(200).text("scope"), "payments.authorize");
}
