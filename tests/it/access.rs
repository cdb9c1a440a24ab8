//! The authorization check (AuthZEN 1.0): asked by agents and resource servers, by name and with tokens.

use crate::payments::{asked_for, docs_server};
use crate::world::{PATIENCE, Reply, Tenant, World, wait_until};
use serde_json::{Value, json};

/// Asks with this credential.
fn post(world: &World, path: &str, bearer: &str, body: &Value) -> Reply {
    let url = format!("{}{path}", world.operator.url());
    world.http.post(url).bearer_auth(bearer).json(body).send().expect("an answer").into()
}

pub fn evaluate(world: &World, bearer: &str, body: &Value) -> Reply {
    post(world, "/access/v1/evaluation", bearer, body)
}

pub fn subject(tenant: &Tenant<'_>) -> Value {
    json!({"type": "agent", "id": tenant.subject()})
}

/// A question about `type:id`.
pub fn question(subject: &Value, capability: &str, resource: &str, parameters: &Value) -> Value {
    let (kind, id) = resource.split_once(':').expect("type:id");
    json!({"subject": subject, "action": {"name": capability, "properties": parameters}, "resource": {"type": kind, "id": id}})
}

pub fn with_token(mut question: Value, token: &str) -> Value {
    question["context"] = json!({"access_token": token});
    question
}

/// The decision and the code of its reason.
#[track_caller]
pub fn decided(reply: Reply) -> (bool, String) {
    let body = reply.expect(200).body;
    let code = body["context"]["reason"]["code"].as_str().expect("a reason").to_owned();
    (body["decision"].as_bool().expect("a decision"), code)
}

pub fn no(code: &str) -> (bool, String) {
    (false, code.to_owned())
}

pub fn yes() -> (bool, String) {
    (true, "allowed".to_owned())
}

#[test]
fn an_agent_is_told_what_it_may_and_why_not() {
    let world = World::shared();
    let bot = world.tenant("access-self");
    let ask =
        |capability, resource| decided(evaluate(world, &bot.token, &question(&subject(&bot), capability, resource, &json!({}))));
    assert_eq!(ask("document.read", "document:reports/q3"), yes());
    assert_eq!(ask("document.read", "document:drafts/q3"), no("resource_not_granted"));
    assert_eq!(ask("document.delete", "document:reports/q3"), no("capability_not_granted"));
    assert_eq!(ask("web.search", "site:example.com"), yes());
    let reply =
        evaluate(world, &bot.token, &question(&subject(&bot), "document.delete", "document:reports/q3", &json!({}))).expect(200);
    let context = &reply.body["context"];
    assert_eq!(context["reason"]["rule"], "Agent spec.capabilities");
    assert!(context["reason"]["message"].as_str().expect("a sentence").contains("document.delete is not granted"));
    assert_eq!(context["evaluation_id"].as_str(), reply.request_id.as_deref());
    assert!(context.get("access_request").is_none(), "nobody can approve what is not granted");
    let record = world.record_of(&reply);
    assert_eq!(
        (&record["event"], &record["outcome"], &record["reason"]),
        (&json!("access.evaluate"), &json!("deny"), &json!("capability_not_granted"))
    );
    assert_eq!(record["asked_subject"], bot.subject());
    bot.patch(&json!({"spec": {"suspended": true}}));
    wait_until("the suspension is seen", PATIENCE, || ask("document.read", "document:reports/q3") == no("agent_suspended"));
}

#[test]
fn a_resource_server_asks_with_the_token_that_the_agent_presents() {
    let world = World::shared();
    let bot = world.tenant("access-token");
    let server = docs_server(world);
    let token = bot.access_token();
    let about = |resource| with_token(question(&subject(&bot), "document.read", resource, &json!({})), &token);
    assert_eq!(decided(evaluate(world, &server, &about("document:reports/q3"))), yes());
    assert_eq!(decided(evaluate(world, &server, &about("document:drafts/q3"))), no("resource_not_granted"));
    let narrow = world.request(&[("grant_type", crate::world::JWT_BEARER), ("assertion", &bot.token), ("scope", "web.search")]);
    let narrow = narrow.expect(200).text("access_token");
    let asked = with_token(question(&subject(&bot), "document.read", "document:reports/q3", &json!({})), &narrow);
    assert_eq!(decided(evaluate(world, &server, &asked)), no("capability_not_granted"), "the token does not have it");
    let other = json!({"type": "agent", "id": "agent:elsewhere/bot"});
    let asked = with_token(question(&other, "document.read", "document:reports/q3", &json!({})), &token);
    assert_eq!(decided(evaluate(world, &server, &asked)), no("subject_mismatch"));
    let stranger = world.tenant("access-stranger");
    assert_eq!(decided(evaluate(world, &stranger.token, &about("document:reports/q3"))), no("caller_may_not_introspect"));
    let rubbish = with_token(question(&subject(&bot), "document.read", "document:reports/q3", &json!({})), "a.b.c");
    assert_eq!(decided(evaluate(world, &server, &rubbish)), no("token_unknown_or_expired"));
    bot.patch(&json!({"spec": {"suspended": true}}));
    wait_until("the token is dead", PATIENCE, || !decided(evaluate(world, &server, &about("document:reports/q3"))).0);
}

#[test]
fn who_names_an_agent_needs_the_right_to() {
    let world = World::shared();
    let bot = world.tenant("access-named");
    let namespace = world.namespace("access-asker");
    let asker = world.workload(&namespace, "server");
    let asked = question(&subject(&bot), "document.read", "document:reports/q3", &json!({}));
    assert_eq!(decided(evaluate(world, &asker, &asked)), no("caller_may_not_evaluate"));
    let nobody = question(&json!({"type": "agent", "id": "nobody/bot"}), "document.read", "document:reports/q3", &json!({}));
    assert_eq!(
        decided(evaluate(world, &asker, &nobody)),
        no("caller_may_not_evaluate"),
        "who is not there is nobody's business either"
    );
    let rules =
        json!([{"apiGroups": ["countersign.dev"], "resources": ["agents"], "resourceNames": ["bot"], "verbs": ["evaluate"]}]);
    let server = json!({"kind": "ServiceAccount", "name": "server", "namespace": namespace});
    world.bind(&bot.namespace, "evaluate", &rules, &[server]);
    wait_until("the right is seen", PATIENCE, || decided(evaluate(world, &asker, &asked)) == yes());
    let user = question(&json!({"type": "user", "id": "alice@acme.com"}), "document.read", "document:reports/q3", &json!({}));
    assert_eq!(decided(evaluate(world, &asker, &user)), no("subject_unknown"));
}

#[test]
fn several_questions_are_answered_in_order_and_each_is_recorded() {
    let world = World::shared();
    let bot = world.tenant("access-batch");
    let item = |capability: &str| json!({"action": {"name": capability}});
    let batch = |semantic: Option<&str>| {
        let mut body = json!({"subject": subject(&bot), "resource": {"type": "document", "id": "reports/q3"},
            "evaluations": [item("document.read"), item("document.delete"), item("web.search"), {"action": {"name": 5}}]});
        if let Some(semantic) = semantic {
            body["options"] = json!({"evaluations_semantic": semantic});
        }
        post(world, "/access/v1/evaluations", &bot.token, &body).expect(200)
    };
    let decisions = |reply: &Reply| -> Vec<bool> {
        let list = reply.body["evaluations"].as_array().expect("evaluations");
        list.iter().map(|answer| answer["decision"].as_bool().expect("a decision")).collect()
    };
    let all = batch(None);
    assert_eq!(decisions(&all), [true, false, true, false]);
    assert_eq!(all.body["evaluations"][3]["context"]["error"]["status"], 400);
    let id = all.request_id.clone().expect("an id");
    let lines = world.operator.audit_lines().expect("the audit log");
    let records: Vec<&Value> = lines.iter().filter(|line| line["request_id"] == id.as_str()).collect();
    assert_eq!(records.len(), 5, "one of each, and one of all");
    assert_eq!(decisions(&batch(Some("execute_all"))), [true, false, true, false]);
    assert_eq!(decisions(&batch(Some("deny_on_first_deny"))), [true, false]);
    assert_eq!(decisions(&batch(Some("permit_on_first_permit"))), [true]);
    let single = json!({"subject": subject(&bot), "action": {"name": "document.read"}, "resource": {"type": "document", "id": "reports/q3"}, "evaluations": []});
    assert_eq!(decided(post(world, "/access/v1/evaluations", &bot.token, &single)), yes());
}

#[test]
fn what_an_agent_may_do_on_a_resource_is_listed() {
    let world = World::shared();
    let bot = world.tenant("access-search");
    let search = |resource: &str, page: Option<Value>| {
        let mut body = json!({"subject": subject(&bot), "resource": {"type": "document", "id": resource}});
        if let Some(page) = page {
            body["page"] = page;
        }
        post(world, "/access/v1/search/action", &bot.token, &body).expect(200).body
    };
    assert_eq!(search("reports/q3", None)["results"], json!([{"name": "document.read"}, {"name": "web.search"}]));
    assert_eq!(search("drafts/q3", None)["results"], json!([{"name": "web.search"}]));
    let first = search("reports/q3", Some(json!({"limit": 1})));
    assert_eq!(first["results"], json!([{"name": "document.read"}]));
    let second = search("reports/q3", Some(json!({"limit": 1, "token": first["page"]["next_token"]})));
    assert_eq!((&second["results"], &second["page"]["next_token"]), (&json!([{"name": "web.search"}]), &json!("")));
}

#[test]
fn a_malformed_request_is_refused_before_anything_is_decided() {
    let world = World::shared();
    let bot = world.tenant("access-malformed");
    let good = question(&subject(&bot), "document.read", "document:reports/q3", &json!({}));
    let url = format!("{}/access/v1/evaluation", world.operator.url());
    let send = |content_type: &str, body: String| -> Reply {
        world
            .http
            .post(&url)
            .bearer_auth(&bot.token)
            .header("content-type", content_type)
            .body(body)
            .send()
            .expect("an answer")
            .into()
    };
    for (content_type, body) in [
        ("application/json", String::new()),
        ("application/json", "{".to_owned()),
        ("application/json", "[]".to_owned()),
        ("application/json", "null".to_owned()),
        ("application/json", r#"{"subject": {"type": "agent", "type": "user"}}"#.to_owned()),
        ("application/json", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        ("application/json", json!({"subject": 5}).to_string()),
        ("text/plain", good.to_string()),
        ("application/x-www-form-urlencoded", good.to_string()),
    ] {
        send(content_type, body).refused(400, "invalid_request");
    }
    decided(send("application/json; charset=utf-8", good.to_string()));
    send("application/json", format!("{{\"x\": \"{}\"}}", "y".repeat(70_000))).refused(413, "invalid_request");
    let many = json!({"subject": subject(&bot), "evaluations": vec![json!({}); 10_000]});
    post(world, "/access/v1/evaluations", &bot.token, &many).refused(400, "invalid_request");
    let anonymous: Reply = world.http.post(&url).json(&good).send().expect("an answer").into();
    let anonymous = anonymous.refused(401, "invalid_client");
    assert!(anonymous.headers.contains_key("www-authenticate"));
    evaluate(world, "a.b.c", &good).refused(401, "invalid_client");
    assert_eq!(world.http.get(&url).send().expect("an answer").status(), 405);
    let named: Reply = world
        .http
        .post(&url)
        .bearer_auth(&bot.token)
        .header("x-request-id", "mine-7")
        .json(&good)
        .send()
        .expect("an answer")
        .into();
    assert_eq!(named.request_id.as_deref(), Some("mine-7"));
}

#[test]
fn the_metadata_says_where_to_ask() {
    let world = World::shared();
    let url = format!("{}/.well-known/authzen-configuration", world.operator.url());
    let document = Reply::from(world.http.get(url).send().expect("an answer")).expect(200).body;
    let issuer = world.operator.issuer();
    assert_eq!(document["policy_decision_point"], issuer);
    for (name, path) in [
        ("access_evaluation_endpoint", "/access/v1/evaluation"),
        ("access_evaluations_endpoint", "/access/v1/evaluations"),
        ("search_action_endpoint", "/access/v1/search/action"),
    ] {
        assert_eq!(document[name], format!("{issuer}{path}"));
    }
}

#[test]
fn a_denial_that_a_person_can_lift_says_how_and_the_answer_is_yes_once_one_has() {
    let world = World::shared();
    let (bot, capability) = world.payments_tenant("access-request");
    world.approver("alice", &bot.namespace, &capability);
    let asked = question(&subject(&bot), &capability, "invoice:2026/7", &json!({"amount": 5}));
    let reply = evaluate(world, &bot.token, &asked).expect(200);
    assert_eq!(reply.body["context"]["reason"]["code"], "approval_required");
    let request = &reply.body["context"]["access_request"];
    assert_eq!(
        (&request["requestable"], &request["endpoint"]),
        (&json!(true), &json!(format!("{}/oauth2/bc-authorize", world.operator.issuer())))
    );
    let details = request["authorization_details"].clone();
    assert_eq!(details[0]["parameters"], json!({"amount": 5}));
    let elsewhere = question(&subject(&bot), &capability, "invoice:2025/7", &json!({"amount": 5}));
    let denied = evaluate(world, &bot.token, &elsewhere).expect(200);
    assert!(denied.body["context"].get("access_request").is_none(), "nobody can approve what is not granted");
    let filed = asked_for(&bot, &details);
    assert_eq!(decided(evaluate(world, &bot.token, &asked)), no("approval_required"), "asking is not having");
    filed.approve("alice");
    assert_eq!(decided(evaluate(world, &bot.token, &asked)), (true, "approved".to_owned()));
    let more = question(&subject(&bot), &capability, "invoice:2026/7", &json!({"amount": 6}));
    assert_eq!(decided(evaluate(world, &bot.token, &more)), no("approval_required"), "another amount is another operation");
    let server = docs_server(world);
    let token = filed.token();
    assert_eq!(decided(evaluate(world, &bot.token, &asked)), no("approval_required"), "the approval was used");
    assert_eq!(decided(evaluate(world, &server, &with_token(asked.clone(), &token))), yes());
    assert_eq!(decided(evaluate(world, &server, &with_token(more, &token))), no("operation_mismatch"));
    filed.complete(&token).expect(200);
    assert_eq!(decided(evaluate(world, &server, &with_token(asked, &token))), no("operation_completed"));
}

#[test]
fn a_condition_is_asked_when_a_token_is_issued_and_whenever_it_is_used() {
    let world = World::shared();
    let entry = json!({"name": "payments.small", "resources": ["invoice:**"], "when": "context.amount < 1000"});
    let bot = world.tenant_with("access-when", &json!({"capabilities": [entry, {"name": "web.search"}]}));
    let ask =
        |amount: Value| decided(evaluate(world, &bot.token, &question(&subject(&bot), "payments.small", "invoice:7", &amount)));
    assert_eq!(ask(json!({"amount": 999})), yes());
    assert_eq!(ask(json!({"amount": 1000})), no("condition_unmet"));
    assert_eq!(ask(json!({})), no("condition_undecided"));
    assert_eq!(ask(json!({"amount": "5"})), no("condition_undecided"));
    let all = world.exchange(&bot.token).expect(200);
    assert_eq!(all.text("scope"), "web.search", "what depends on the operation is in no token for whatever comes");
    let by_scope =
        |scope: &str| world.request(&[("grant_type", crate::world::JWT_BEARER), ("assertion", &bot.token), ("scope", scope)]);
    by_scope("payments.small").refused(400, "invalid_scope");
    let details = |amount: u32| json!([{"type": "countersign_operation", "capability": "payments.small", "resource": "invoice:7", "parameters": {"amount": amount}}]);
    let for_operation = |amount: u32| {
        let details = details(amount).to_string();
        world.request(&[("grant_type", crate::world::JWT_BEARER), ("assertion", &bot.token), ("authorization_details", &details)])
    };
    for_operation(1000).refused(400, "invalid_scope");
    let issued = for_operation(999).expect(200);
    assert_eq!(issued.text("scope"), "payments.small");
    assert_eq!(issued.body["authorization_details"], details(999));
    let (token, server) = (issued.text("access_token"), docs_server(world));
    let used = |amount: u32| {
        let asked = with_token(question(&subject(&bot), "payments.small", "invoice:7", &json!({"amount": amount})), &token);
        decided(evaluate(world, &server, &asked))
    };
    assert_eq!((used(999), used(998)), (yes(), no("operation_mismatch")));
    assert!(world.introspect(&server, &token).is_active());
    bot.patch(
        &json!({"spec": {"capabilities": [{"name": "payments.small", "when": "context.amount < 500"}, {"name": "web.search"}]}}),
    );
    wait_until("a token ends with the condition under which it was issued", PATIENCE, || {
        !world.introspect(&server, &token).is_active()
    });
}

#[test]
fn a_condition_that_is_none_is_said_on_the_agent_and_denies() {
    let world = World::shared();
    let bot = world.tenant("access-broken");
    let broken = json!([{"name": "document.read", "when": "context.amount <"}, {"name": "web.search"}]);
    bot.patch(&json!({"spec": {"capabilities": broken}}));
    let kubectl = world.kubectl();
    kubectl.wait_for(&bot.namespace, "agent/bot", "condition=Ready=False", PATIENCE).expect("it is not Ready");
    let ready =
        bot.agent()["status"]["conditions"].as_array().expect("conditions").iter().find(|c| c["type"] == "Ready").cloned();
    let ready = ready.expect("Ready");
    assert_eq!(ready["reason"], "ConditionInvalid");
    assert!(ready["message"].as_str().expect("a message").contains("document.read: when is no CEL expression"), "{ready}");
    let ask = |capability| {
        decided(evaluate(world, &bot.token, &question(&subject(&bot), capability, "document:reports/q3", &json!({}))))
    };
    assert_eq!((ask("document.read"), ask("web.search")), (no("condition_invalid"), yes()));
}

#[test]
fn asking_in_words_gives_the_answer_of_the_check_and_shows_how_it_was_read() {
    let world = World::shared();
    let bot = world.tenant_with(
        "access-ask",
        &json!({"capabilities": [{"name": "document.read", "resources": ["document:reports/*"]},
        {"name": "document.summarize"}, {"name": "document.translate"}]}),
    );
    let ask = |question: &str| post(world, "/ask", &bot.token, &json!({"question": question})).expect(200);
    let yes = ask("Can I read document reports/q3?");
    assert_eq!(
        (&yes.body["decision"], &yes.body["interpretation"][0]["capability"]),
        (&json!(true), &json!("document.read")),
        "{}",
        yes.body
    );
    assert_eq!(yes.body["interpretation"][0]["resource"], "document:reports/q3");
    let record = world
        .operator
        .audit_lines()
        .expect("the audit log")
        .into_iter()
        .filter(|l| l["request_id"] == yes.request_id.as_deref().unwrap_or_default());
    assert!(
        record.clone().count() == 2 && record.clone().all(|line| line["event"] == "access.ask"),
        "asking is recorded as asking"
    );
    let both = ask("May I read and translate document reports/q3?");
    assert_eq!(
        (both.body["decision"].as_bool(), both.body["interpretation"].as_array().map(Vec::len)),
        (Some(true), Some(2)),
        "{}",
        both.body
    );
    let part = ask("Can I read document drafts/q3?");
    assert_eq!((&part.body["decision"], &part.body["reason"]["code"]), (&json!(false), &json!("resource_not_granted")));
    let for_alice = ask("Can I read and summarize documents for user alice@acme.com?");
    assert_eq!(for_alice.body["decision"], false);
    assert_eq!(for_alice.body["interpretation"][0]["subject"], "user:alice@acme.com");
    assert_eq!(for_alice.body["interpretation"][0]["reason"]["code"], "delegation_not_granted");
    for never in [
        "Can't I read document reports/q3?",
        "Can I read document reports/q3 if nobody looks?",
        "Can I shred document reports/q3?",
        "Can I read d\u{43e}cument reports/q3?",
    ] {
        let reply = ask(never);
        assert_eq!(reply.body["decision"], false, "{never}: {}", reply.body);
    }
    post(world, "/ask", &bot.token, &json!({})).refused(400, "invalid_request");
    post(world, "/ask", &bot.token, &json!({"question": 5})).refused(400, "invalid_request");
    let long = post(world, "/ask", &bot.token, &json!({"question": "read ".repeat(12_000)})).expect(200);
    assert_eq!(long.body["reason"]["code"], "too_long");
}

#[test]
fn c1_a_condition_is_loosened_only_by_who_may_grant() {
    let world = World::shared();
    let bot = world.tenant_with(
        "access-grant",
        &json!({"capabilities": [{"name": "payments.small", "when": "context.amount < 10"}, {"name": "web.search"}]}),
    );
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "patch", "update"]}]);
    world.bind(&bot.namespace, "edit", &rules, &[crate::world::user("carol")]);
    let carol = world.cluster.kubectl_as("carol").expect("a user");
    let patch = |capabilities: Value| {
        let patch = json!({"spec": {"capabilities": capabilities}}).to_string();
        let arguments = ["patch", "agent", "bot", "--namespace", &bot.namespace, "--type=merge", "-p", &patch];
        carol.run(&arguments).map_err(|failure| failure.stderr)
    };
    wait_until("the right is seen", PATIENCE, || {
        carol.run(&["auth", "can-i", "patch", "agents.countersign.dev", "-n", &bot.namespace]).is_ok()
    });
    let small = |when: Option<&str>| match when {
        Some(when) => json!({"name": "payments.small", "when": when}),
        None => json!({"name": "payments.small"}),
    };
    for wider in [Some("context.amount < 11"), Some("true"), None] {
        crate::world::forbidden(patch(json!([small(wider), {"name": "web.search"}])), "payments.small");
    }
    patch(json!([small(Some("context.amount < 10")), {"name": "web.search", "when": "chain.depth == 1"}]))
        .expect("a condition more narrows");
}
