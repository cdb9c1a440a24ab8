//! One operation, asked for, approved with kubectl, done once: from the agent's call to the end of its token.

use crate::payments::{Asked, answered, ask, ask_at, asked, asked_for, details, docs_server, kubectl_of, object, send};
use crate::world::{PATIENCE, World, claims, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn an_approved_operation_gets_one_token_that_is_good_for_it_once() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("once");
    let server = docs_server(world);
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    assert_eq!(asked.poll().refused(400, "authorization_pending").body["error"], "authorization_pending");
    asked.approve("bob");
    // That comes after the status, and the trail below is in order.
    wait_until("it is recorded", PATIENCE, || asked.records().iter().any(|record| record["reason"] == "approved"));
    let reply = asked.redeemed();
    let (token, status) = (reply.text("access_token"), asked.status());
    let claims = claims(&token);
    assert_eq!((&claims["jti"], &claims["scope"]), (&status["jti"], &json!(capability)));
    let granted = &claims["authorization_details"][0];
    assert_eq!(*granted, reply.body["authorization_details"][0]);
    assert_eq!(
        *granted,
        json!({"type": "countersign_operation", "capability": capability, "resource": "invoice:2026/7", "parameters": {"amount": 5},
            "digest": status["digest"], "jit_request": asked.id})
    );
    let lives = claims["exp"].as_u64().expect("exp") - claims["iat"].as_u64().expect("iat");
    assert!(lives <= 300 && reply.body["expires_in"].as_u64().expect("expires_in") <= lives);
    let introspected = world.introspect(&server, &token);
    assert!(introspected.is_active());
    assert_eq!(introspected.body["authorization_details"][0], *granted);

    // A lost reply is made good for a few seconds, with the very same token.
    assert_eq!(asked.token(), token);
    let done = asked.complete_as(&server, &token).expect(200);
    assert_eq!((&done.body["completed"], &done.body["jti"]), (&json!(true), &claims["jti"]));
    asked.complete_as(&server, &token).refused(409, "already_completed");
    asked.complete(&token).refused(409, "already_completed");
    assert!(!world.introspect(&server, &token).is_active());
    asked.poll().refused(400, "invalid_grant");
    assert_eq!(asked.status()["phase"], "Completed");

    let trail: Vec<String> = asked.records().iter().map(|r| format!("{} {}", r["event"], r["reason"]).replace('"', "")).collect();
    let expected =
        ["jit.file filed", "jit.requested requested", "jit.approved approved", "token.issue granted", "jit.complete completed"];
    let mut rest = trail.iter();
    assert!(expected.iter().all(|step| rest.any(|t| t == step)), "{trail:?}");
    let issued = asked.records().into_iter().find(|r| r["reason"] == "granted").expect("a record");
    assert_eq!((&issued["approved_by"], &issued["jti"], &issued["digest"]), (&json!("bob"), &claims["jti"], &status["digest"]));
}

#[test]
fn a_poll_is_held_until_somebody_decides() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("held");
    world.approver("bob", &tenant.namespace, &capability);
    let url = world.operator.url();
    for (verdict, status) in [("Approved", 200), ("Denied", 400)] {
        let asked = asked(&tenant, &capability);
        let (reply, decided) = std::thread::scope(|scope| {
            let poll = scope.spawn(|| asked.poll_at(&url, "25"));
            std::thread::sleep(Duration::from_millis(300));
            assert!(!poll.is_finished(), "it is held");
            asked.decide("bob", verdict).expect("decided");
            let decided = Instant::now();
            (poll.join().expect("answered"), decided.elapsed())
        });
        assert!(decided < Duration::from_secs(10), "woken, not timed out");
        assert_eq!(reply.status, status, "{:?}", reply.body);
        if verdict == "Denied" {
            assert!(reply.refused(400, "access_denied").text("error_description").contains("denied by bob"));
        }
    }
}

#[test]
fn a_client_that_polls_too_often_is_slowed_down() {
    let (tenant, capability) = World::shared().payments_tenant("slow");
    let asked = asked(&tenant, &capability);
    asked.poll().refused(400, "authorization_pending");
    asked.poll().refused(400, "slow_down");
}

#[test]
fn a_question_that_nobody_answers_expires() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("expire");
    let details = details(&capability, "invoice:2026/7", &json!({})).to_string();
    let reply = ask_at(&world.operator.url(), &tenant, &[("authorization_details", &details), ("requested_expiry", "2")], &[])
        .expect(200);
    assert!(reply.body["expires_in"].as_u64().is_some_and(|seconds| (1..=2).contains(&seconds)), "{:?}", reply.body);
    let asked = Asked::of(&tenant, reply.text("auth_req_id"));
    asked.poll_at(&world.operator.url(), "20").refused(400, "expired_token");
    asked.reaches("Expired");
    world.approver("bob", &tenant.namespace, &capability);
    assert!(asked.decide("bob", "Approved").expect_err("too late").contains("only while the request is Pending"));
}

#[test]
fn a_request_applied_by_the_agents_service_account_works_too() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("kubectl");
    let server = docs_server(world);
    world.approver("bob", &tenant.namespace, &capability);
    let carol = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "carol"});
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests"], "verbs": ["create", "get"]}]);
    world.bind(&tenant.namespace, "carol", &rules, &[carol]);
    let by_agent = object(&tenant, "by-agent", &capability, &json!({"amount": 5})).to_string();
    kubectl_of(&tenant).apply(&by_agent).expect("the agent may make it");
    let request = |name: &str| {
        let found = tenant.requests().into_iter().find(|r| r["metadata"]["name"] == name).expect("there");
        Asked { tenant: &tenant, id: found["metadata"]["uid"].as_str().expect("a uid").to_owned(), name: name.to_owned() }
    };
    let asked = request("by-agent");
    asked.reaches("Pending");
    let account = format!("system:serviceaccount:{}:bot", tenant.namespace);
    assert_eq!(asked.object()["spec"]["requestedBy"]["username"], account);
    asked.approve("bob");
    assert!(world.introspect(&server, &asked.token()).is_active());

    // Whoever is not the agent asks for nobody.
    let by_carol = object(&tenant, "by-carol", &capability, &json!({"amount": 5})).to_string();
    world.cluster.kubectl_as("carol").expect("a user").apply(&by_carol).expect("carol may create it");
    let forged = request("by-carol");
    forged.reaches("Denied");
    assert_eq!(forged.status()["conditions"][0]["reason"], "RequesterNotAgent");
    forged.poll().refused(400, "access_denied");
}

#[test]
fn two_persons_must_be_two_and_a_denial_by_one_is_enough() {
    let world = World::shared();
    let (tenant, _) = world.payments_tenant("two");
    let capability = world.capability(&json!({"approval": {"approvals": 2, "maxExpirationSeconds": 60}}));
    tenant.patch(&json!({"spec": {"capabilities": [{"name": capability}]}}));
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE).expect("seen");
    for user in ["alice", "bob", "carol"] {
        world.approver(user, &tenant.namespace, &capability);
    }
    let first = asked(&tenant, &capability);
    first.decide("bob", "Approved").expect("one");
    wait_until("one is recorded", PATIENCE, || first.status()["approvalProgress"] == "1/2");
    first.poll().refused(400, "authorization_pending");
    first.decide("bob", "Approved").expect("admission cannot see it");
    wait_until("it does not count", PATIENCE, || first.status()["approvals"].as_array().is_some_and(|a| a.len() == 2));
    assert!(first.status()["approvals"][1]["void"].as_str().expect("void").contains("approved already"));
    assert_eq!(first.status()["phase"], "Pending");
    first.decide("carol", "Approved").expect("two");
    first.reaches("Approved");
    let token = claims(&first.token());
    assert_eq!(token["exp"].as_u64().expect("exp") - token["iat"].as_u64().expect("iat"), 60, "the rule's limit");

    let second = asked(&tenant, &capability);
    second.decide("alice", "Approved").expect("one");
    wait_until("one is recorded", PATIENCE, || second.status()["approvalProgress"] == "1/2");
    second.decide("bob", "Denied").expect("denied");
    second.reaches("Denied");
    assert!(second.decide("carol", "Approved").is_err(), "Denied is final");
    std::thread::sleep(Duration::from_secs(2));
    second.poll().refused(400, "access_denied");
}

#[test]
fn owners_of_an_agent_do_not_approve_what_it_asks() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("owner");
    tenant.patch(&json!({"spec": {"owner": "countersign:testers"}}));
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE).expect("seen");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    asked.decide("bob", "Approved").expect("admission cannot see who owns the agent");
    wait_until("it does not count", PATIENCE, || asked.status()["approvals"].as_array().is_some_and(|a| a.len() == 1));
    let status = asked.status();
    assert!(status["approvals"][0]["void"].as_str().expect("void").contains("owns an agent"), "{status}");
    assert_eq!((&status["phase"], &status["approvalProgress"]), (&json!("Pending"), &json!("0/1")));
    asked.poll().refused(400, "authorization_pending");
    // It is published after the status is written.
    wait_until("an Event says so", PATIENCE, || {
        let void = ["get", "events", "-n", &tenant.namespace, "--field-selector=reason=DecisionVoid"];
        world.kubectl().run(&void).expect("events").contains("owns an agent")
    });
    asked.decide("bob", "Denied").expect("an owner may say no");
    asked.reaches("Denied");
}

#[test]
fn a16_an_approver_who_has_lost_the_right_has_approved_nothing() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("lost");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    asked.approve("bob");
    let binding = format!("{capability}-bob");
    world.kubectl().run(&["delete", "rolebinding", &binding, "-n", &tenant.namespace]).expect("taken away");
    let bob = world.kubectl().impersonating("bob", &["system:authenticated"]);
    let can = ["auth", "can-i", "approve", &format!("capabilities.countersign.dev/{capability}"), "-n", &tenant.namespace];
    wait_until("the API server knows", PATIENCE, || bob.run(&can).is_err());
    let refused = answered(|| asked.poll()).refused(400, "access_denied");
    assert_eq!(world.record_of(&refused)["reason"], "approver_lost_right");
    assert_eq!(asked.status()["phase"], "Approved", "nothing was used up");
    world.approver("bob", &tenant.namespace, &capability);
    wait_until("the right is back", PATIENCE, || asked.poll().status == 200);
}

#[test]
fn a20_an_approval_is_worth_nothing_to_anybody_else_and_for_nothing_else() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("mine");
    let (other, _) = world.payments_tenant("other");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    asked.approve("bob");
    let theirs = Asked { tenant: &other, id: asked.id.clone(), name: asked.name.clone() };
    theirs.poll().refused(400, "invalid_grant");
    let url = world.operator.url();
    let poll = |form: &[(&str, &str)]| {
        send(
            &url,
            "/oauth2/token",
            &tenant,
            &[&[("grant_type", crate::payments::CIBA), ("auth_req_id", asked.id.as_str())], form].concat(),
            &[],
        )
    };
    poll(&[("scope", "document.read")]).refused(400, "invalid_scope");
    poll(&[("audience", "https://other.example.com")]).refused(400, "invalid_target");
    poll(&[("authorization_details", "[]")]).refused(400, "invalid_authorization_details");
    poll(&[("client_id", &other.subject())]).refused(401, "invalid_client");
    let token = poll(&[("scope", &capability), ("audience", crate::world::DOCS)]).expect(200).text("access_token");
    theirs.complete(&token).refused(403, "access_denied");
    theirs.revoke(&token).refused(400, "unauthorized_client");
    let stranger = world.resource_server("https://other.example.com");
    asked.complete_as(&stranger, &token).refused(403, "access_denied");
    let unknown = Asked { tenant: &tenant, id: "0b0e7a9c-0000-4000-8000-000000000000".to_owned(), name: String::new() };
    unknown.poll().refused(400, "invalid_grant");
    asked.complete(&token).expect(200);
}

#[test]
fn whatever_ends_a_request_ends_its_token_at_once() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("ends");
    let server = docs_server(world);
    world.approver("bob", &tenant.namespace, &capability);
    let issued = || {
        let asked = asked(&tenant, &capability);
        asked.approve("bob");
        let token = asked.token();
        assert!(world.introspect(&server, &token).is_active());
        (asked, token)
    };
    let (asked, token) = issued();
    asked.revoke(&token).expect(200);
    assert!(!world.introspect(&server, &token).is_active(), "revoking completes");
    assert_eq!(asked.status()["phase"], "Completed");
    asked.revoke(&token).expect(200);

    let (asked, token) = issued();
    world.kubectl().run(&["delete", "jit", &asked.name, "-n", &tenant.namespace]).expect("withdrawn");
    wait_until("the token is dead", PATIENCE, || !world.introspect(&server, &token).is_active());
    asked.complete(&token).refused(409, "operation_ended");

    let (asked, token) = issued();
    tenant.patch(&json!({"spec": {"suspended": true}}));
    wait_until("the token is dead", PATIENCE, || !world.introspect(&server, &token).is_active());
    asked.reaches("Revoked");
    asked.complete_as(&server, &token).refused(409, "operation_ended");
}

#[test]
fn what_the_agent_withdraws_is_never_approved() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("withdraw");
    world.approver("bob", &tenant.namespace, &capability);
    let pending = asked(&tenant, &capability);
    pending.revoke(&pending.id).expect(200);
    assert_eq!(pending.status()["phase"], "Cancelled");
    assert!(pending.decide("bob", "Approved").is_err());
    let approved = asked(&tenant, &capability);
    approved.approve("bob");
    approved.revoke(&approved.id).expect(200);
    approved.poll().refused(400, "access_denied");
    approved.revoke("unknown").expect(200);
}

#[test]
fn of_agent_and_catalogue_the_strictest_counts_and_a_missing_rule_denies() {
    let world = World::shared();
    let demands = world.capability(&json!({}));
    let lenient = world.capability(&json!({"approval": {"required": false}}));
    let broken = world.capability(&json!({}));
    let entries = json!([{"name": demands}, {"name": lenient}, {"name": broken}, {"name": "no.rule", "approval": "Required"}, {"name": "web.search"}]);
    let tenant = world.tenant_with("strict", &json!({"capabilities": entries}));
    let plain = world.exchange(&tenant.token).expect(200).text("scope");
    assert_eq!(plain, format!("{lenient} {broken} web.search").replace(&format!(" {broken}"), ""), "standing capabilities only");
    let scope =
        |name: &str| world.request(&[("grant_type", crate::world::JWT_BEARER), ("assertion", &tenant.token), ("scope", name)]);
    for (name, reason) in [(demands.as_str(), "approval_required"), ("no.rule", "rule_missing")] {
        let refused = scope(name).refused(400, "invalid_scope");
        assert_eq!(world.record_of(&refused)["reason"], reason);
    }
    let standing = scope(&lenient).expect(200).text("access_token");
    let server = docs_server(world);
    assert!(world.introspect(&server, &standing).is_active());
    let refused = ask(&tenant, &details(&lenient, "invoice:1", &json!({}))).refused(400, "invalid_scope");
    assert_eq!(world.record_of(&refused)["reason"], "approval_not_needed");
    let refused = ask(&tenant, &details("no.rule", "invoice:1", &json!({}))).refused(400, "invalid_scope");
    assert_eq!(world.record_of(&refused)["reason"], "rule_missing");

    // A rule that cannot be read denies, and one that comes later ends what was standing.
    let patch = |name: &str, spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        world.kubectl().run(&["patch", "capability", name, "--type=merge", "-p", &patch]).expect("patched");
    };
    patch(&broken, json!({"parameterSchema": {"type": "elephant"}}));
    world.kubectl().wait_for("default", &format!("capability/{broken}"), "condition=Ready=False", PATIENCE).expect("said so");
    let refused = scope(&broken).refused(400, "invalid_scope");
    assert_eq!(world.record_of(&refused)["reason"], "rule_unreadable");
    patch(&lenient, json!({"approval": {"required": true}}));
    wait_until("what was standing needs approval now", PATIENCE, || !world.introspect(&server, &standing).is_active());
}

#[test]
fn a_finished_request_is_removed_when_its_time_is_over() {
    let world = World::shared();
    let namespace = world.namespace("ttl");
    let object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "JitRequest", "metadata": {"name": "old", "namespace": namespace},
        "spec": {"agent": {"name": "nobody"}, "operation": {"capability": "a.b", "audience": crate::world::DOCS}, "ttlSecondsAfterFinished": 10}});
    world.apply(&object).expect("created, and denied by the operator");
    let get = || world.kubectl().get_json(&["get", "jitrequests", "--namespace", &namespace]).expect("a list")["items"].clone();
    wait_until("it is denied", PATIENCE, || get()[0]["status"]["phase"] == "Denied");
    assert_eq!(get()[0]["status"]["conditions"][1]["type"], "Finished");
    wait_until("it is removed", PATIENCE, || get().as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_request_can_be_waited_for() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("wait");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked_for(&tenant, &details(&capability, "invoice:2026/a-b", &json!({})));
    asked.decide("bob", "Approved").expect("approved");
    let object = format!("jitrequest/{}", asked.name);
    world.kubectl().wait_for(&tenant.namespace, &object, "condition=Approved", PATIENCE).expect("kubectl sees it");
}
