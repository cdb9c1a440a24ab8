//! The record: one line for each outcome, allow or deny, and never a token in it.

use crate::world::{DOCS, PATIENCE, TOKEN_EXCHANGE, TYPE_JWT, World, wait_until};
use serde_json::json;

#[test]
fn an_issued_token_is_recorded_with_who_asked_and_what_was_given() {
    let world = World::shared();
    let tenant = world.tenant("record");
    let reply = world.exchange(&tenant.token).expect(200);
    let record = world.record_of(&reply);
    let claims = crate::world::claims(&reply.text("access_token"));
    for (field, value) in [
        ("event", json!("token.issue")),
        ("outcome", json!("allow")),
        ("reason", json!("granted")),
        ("grant_type", json!(TOKEN_EXCHANGE)),
        ("subject", json!(tenant.subject())),
        ("agent_uid", claims["agent_uid"].clone()),
        ("agent_generation", json!(1)),
        ("service_account", json!(format!("system:serviceaccount:{}:bot", tenant.namespace))),
        ("service_account_uid", json!(tenant.service_account_uid)),
        ("pod", json!("pod")),
        ("pod_uid", json!(tenant.pod_uid)),
        ("credential_id", crate::world::claims(&tenant.token)["jti"].clone()),
        ("audience", json!(DOCS)),
        ("scope", json!("document.read web.search")),
        ("jti", claims["jti"].clone()),
        ("issued_at", claims["iat"].clone()),
        ("expires_at", claims["exp"].clone()),
        ("client_address", json!("127.0.0.1")),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    let time = record["time"].as_str().expect("a time");
    assert!(time.ends_with('Z') && time.len() == 24, "RFC 3339 in UTC with milliseconds: {time}");
}

#[test]
fn a_refusal_is_recorded_with_the_rule_that_the_caller_is_not_told() {
    let world = World::shared();
    let tenant = world.tenant("record-refusal");
    let body = world.exchange("a.b.c").refused(400, "invalid_request");
    let gone = crate::world::claims(&tenant.token)["kubernetes.io"]["pod"]["name"].clone();
    assert_eq!(gone, "pod");
    let record = world.record_of(&body);
    assert_eq!((&record["outcome"], &record["error"]), (&json!("deny"), &json!("invalid_request")));
    assert!(record["detail"].as_str().expect("a detail").len() > 20);
    assert_ne!(record["detail"], body.body["error_description"]);
}

#[test]
fn l10_what_was_asked_is_recorded_on_one_line_of_ascii() {
    let world = World::shared();
    let tenant = world.tenant("record-hostile");
    let hostile = "\u{202e}evil\u{2028}\u{1f600}\",\"outcome\":\"allow";
    let form = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", &tenant.token),
        ("subject_token_type", TYPE_JWT),
        ("audience", hostile),
    ];
    let reply = world.request(&form).refused(400, "invalid_target");
    assert_eq!(world.record_of(&reply)["requested_audience"], hostile);
    let log = world.operator.audit_text().expect("the audit log").into_bytes();
    assert!(log.iter().all(|b| matches!(b, b' '..=b'~' | b'\n')), "nothing but printable ASCII");
}

#[test]
fn l9_no_token_is_in_any_record_or_log() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("canary"), world.resource_server(DOCS));
    let access = tenant.access_token();
    world.introspect(&server, &access);
    world.exchange(&format!("{}x", tenant.token)).refused(400, "invalid_request");
    world.request(&[("grant_type", &tenant.token)]).refused(400, "unsupported_grant_type");
    world.request(&[("grant_type", "client_credentials"), ("client_assertion", &tenant.token)]).refused(400, "invalid_request");
    let records = world.operator.audit_text().expect("the audit log");
    let log = world.operator.process().log();
    for token in [&tenant.token, &server, &access] {
        let signature = token.rsplit('.').next().expect("a signature");
        let payload = token.split('.').nth(1).expect("a payload");
        for secret in [signature, &payload[..40.min(payload.len())]] {
            assert!(!records.contains(secret), "part of a token is in the records");
            assert!(!log.contains(secret), "part of a token is in the log");
        }
    }
}

#[test]
fn an_agents_life_is_recorded_with_who_changed_it() {
    // A world of its own: of several operators on one cluster, any may be the one that sees to an Agent and records it.
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant("record-life");
    let life = || -> Vec<(String, String)> {
        let lines = world.operator.audit_lines().expect("the audit log");
        let of_agent = lines
            .into_iter()
            .filter(|l| l["subject"] == tenant.subject() && l["event"].as_str().is_some_and(|e| e.starts_with("agent.")));
        of_agent
            .map(|l| (l["event"].as_str().expect("an event").to_owned(), l["changed_by"].as_str().unwrap_or_default().to_owned()))
            .collect()
    };
    // Each is seen before the next: of changes that follow each other at once only the last may be.
    let recorded = |event: &str| wait_until(event, PATIENCE, || life().iter().any(|(known, _)| known == event));
    recorded("agent.registered");
    tenant.patch(&json!({"spec": {"displayName": "Bot"}}));
    recorded("agent.changed");
    tenant.patch(&json!({"spec": {"suspended": true}}));
    recorded("agent.suspended");
    world.kubectl().run(&["delete", "agent", "bot", "-n", &tenant.namespace]).expect("deleted");
    recorded("agent.deleted");
    let life = life();
    for event in ["agent.registered", "agent.suspended"] {
        assert!(life.contains(&(event.to_owned(), "admin".to_owned())), "{event} in {life:?}");
    }
}

#[test]
fn l1_without_a_record_nothing_is_issued() {
    // /dev/full takes no byte: each write fails as on a full disk.
    let options = crate::support::operator::OperatorOptions {
        name: "full-disk".to_owned(),
        args: vec!["--audit-log=/dev/full".to_owned()],
        ..Default::default()
    };
    let operator = World::shared().another(options);
    let failures = || operator.metric("countersign_record_failures").expect("a number");
    let http = crate::world::client(&operator);
    let ask = || {
        let reply = http.post(format!("{}/oauth2/token", operator.url())).form(&[("grant_type", "client_credentials")]).send();
        crate::world::Reply::from(reply.expect("an answer"))
    };
    // The first record may be in the ledger before its copy is missed.
    wait_until("the copy is missed", PATIENCE, || ask().status == 503);
    // It counts more than these while others change Agents beside it.
    let before = failures();
    let reply = ask().refused(503, "temporarily_unavailable");
    assert_eq!(reply.headers["retry-after"], "1");
    assert!(failures() > before);
}
