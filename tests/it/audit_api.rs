//! `/audit/v1` and `countersign audit` on a running operator: who may read, what is found, and what bad input leads to.

use crate::auditor::{Auditor, audit, get};
use crate::payments::asked;
use crate::world::{DOCS, PATIENCE, World, claims, wait_until};
use serde_json::{Value, json};

#[test]
fn only_who_holds_the_right_reads_and_each_reading_is_recorded() {
    let world = World::shared();
    let (auditor, other) = (Auditor::of(world, "audit-right"), Auditor::without_right(world, "audit-none"));
    let tenant = world.tenant("audit-agent");
    let question = format!("records?agent={}", tenant.subject());
    let access = tenant.access_token();
    for (token, status, error, reason) in [
        (None, 401, "invalid_client", "caller_unauthenticated"),
        (Some(""), 401, "invalid_client", "client_authentication_unsupported"),
        (Some("a.b.c"), 401, "invalid_client", "credential_review_refused"),
        // A token for us is none for the API server, and neither is one from us.
        (Some(tenant.token.as_str()), 401, "invalid_client", "credential_review_refused"),
        (Some(access.as_str()), 401, "invalid_client", "credential_review_refused"),
        (Some(other.token.as_str()), 403, "access_denied", "reader_not_allowed"),
    ] {
        let reply = get(world, &question, token).refused(status, error);
        assert_eq!(reply.headers.contains_key("www-authenticate"), status == 401);
        let record = world.record_of(&reply);
        assert_eq!(
            (&record["event"], &record["outcome"], &record["reason"]),
            (&json!("audit.read"), &json!("deny"), &json!(reason))
        );
        let reader = if status == 403 { json!(other.name) } else { Value::Null };
        assert_eq!((&record["reader"], &record["read"]), (&reader, &Value::Null), "nothing was read");
    }
    let reply = auditor.get(&question).expect(200);
    let record = world.record_of(&reply);
    for (field, value) in [
        ("event", json!("audit.read")),
        ("outcome", json!("allow")),
        ("reason", json!("read")),
        ("reader", json!(auditor.name)),
        ("read", json!("records")),
        ("question", json!(format!("agent={}", tenant.subject()))),
        ("client_address", json!("127.0.0.1")),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    assert_eq!(reply.headers["cache-control"], "no-store");
    // A right that is taken away is gone.
    let namespace = auditor.name.split(':').nth(2).expect("a namespace");
    world.kubectl().run(&["delete", "clusterrolebinding", namespace]).expect("deleted");
    wait_until("the right is gone", PATIENCE, || auditor.get("checkpoints").status == 403);
}

#[test]
fn h6_a_question_that_could_mean_two_things_is_refused() {
    let world = World::shared();
    let auditor = Auditor::of(world, "audit-bad");
    for (path, status, error) in [
        ("records?jti=a&jti=b", 400, "invalid_request"),
        ("records?jti", 400, "invalid_request"),
        ("records?jti=%ff", 400, "invalid_request"),
        ("records?jti=%zz", 400, "invalid_request"),
        ("records?jti=%1b%5b31m", 400, "invalid_request"),
        ("records?color=red", 400, "invalid_request"),
        ("records?outcome=maybe", 400, "invalid_request"),
        ("records?agent=x", 400, "invalid_request"),
        ("records?since=yesterday", 400, "invalid_request"),
        ("records?limit=0", 400, "invalid_request"),
        ("records?limit=1001", 400, "invalid_request"),
        ("records?limit=-1", 400, "invalid_request"),
        ("records?limit=1&limit=1", 400, "invalid_request"),
        ("records?after=x", 400, "invalid_request"),
        ("records?after=0_", 400, "invalid_request"),
        ("records?after=99999999999999999999", 400, "invalid_request"),
        ("records?last=0", 400, "invalid_request"),
        ("records?last=5&after=0", 400, "invalid_request"),
        ("trace", 400, "invalid_request"),
        ("trace?subject=", 400, "invalid_request"),
        ("trace?subject=agent:x", 400, "invalid_request"),
        ("trace?subject=a%20b", 400, "invalid_request"),
        ("trace?subject=a&subject=b", 400, "invalid_request"),
        ("trace?subject=a&since=x", 400, "invalid_request"),
        ("trace?subject=nobody-has-this", 404, "invalid_request"),
        ("proof", 400, "invalid_request"),
        ("proof?log=x&seq=1", 400, "invalid_request"),
        ("proof?log=0123456789abcdef0123456789abcdef&seq=-1", 400, "invalid_request"),
        ("proof?log=0123456789abcdef0123456789abcdef&seq=1", 404, "invalid_request"),
        ("proof?log=0123456789abcdef0123456789abcdef&seq=18446744073709551615", 404, "invalid_request"),
        ("checkpoints?x=1", 400, "invalid_request"),
        ("nothing", 404, "invalid_request"),
        ("%ff", 404, "invalid_request"),
    ] {
        let reply = auditor.get(path).refused(status, error);
        let record = world.record_of(&reply);
        assert_eq!((&record["event"], &record["outcome"]), (&json!("audit.read"), &json!("deny")), "{path}");
    }
    let many = format!("records?{}", (0..100).map(|i| format!("mentions={i}")).collect::<Vec<_>>().join("&"));
    auditor.get(&many).refused(400, "invalid_request");
    let url = format!("{}/audit/v1/records", world.operator.url());
    for method in [reqwest::Method::POST, reqwest::Method::DELETE, reqwest::Method::HEAD] {
        let reply = world.http.request(method.clone(), &url).bearer_auth(&auditor.token).send().expect("an answer");
        assert_eq!((reply.status().as_u16(), reply.headers()["allow"].to_str().expect("text")), (405, "GET"), "{method}");
    }
    // There is no way in the URL for a credential.
    get(world, &format!("records?access_token={}", auditor.token), None).refused(401, "invalid_client");
    let log = world.operator.audit_text().expect("the audit log");
    assert!(!log.contains(auditor.token.rsplit('.').next().expect("a signature")), "L9: a token was recorded");
}

#[test]
fn records_are_found_by_every_filter_and_none_is_found_twice() {
    let world = World::shared();
    let auditor = Auditor::of(world, "audit-query");
    let tenant = world.tenant("audit-found");
    let issued: Vec<Value> = (0..5).map(|_| claims(&tenant.access_token())["jti"].clone()).collect();
    let form = [
        ("grant_type", crate::world::TOKEN_EXCHANGE),
        ("subject_token", tenant.token.as_str()),
        ("subject_token_type", crate::world::TYPE_JWT),
        ("scope", "payments.authorize"),
    ];
    let refused = world.request(&form).refused(400, "invalid_scope");
    let agent = tenant.subject();
    let jtis = |records: &[Value]| -> Vec<Value> {
        records.iter().filter(|r| r["event"] == "token.issue" && r["outcome"] == "allow").map(|r| r["jti"].clone()).collect()
    };
    let all = auditor.audit(&["query", "--agent", &agent, "-o", "json"]).records();
    assert_eq!(jtis(&all), issued, "in the order of their time");
    assert_eq!(all[0]["event"], "agent.registered");
    for args in [
        &["--event=token.issue", "--outcome=allow"][..],
        &["--event=token.*", "--reason=granted"],
        &["--since=1h", "--event=token.issue", "--outcome=allow", "--until=2100-01-01T00:00:00Z"],
    ] {
        let found = auditor.audit(&[&["query", "--agent", &agent, "-o", "json"], args].concat()).records();
        assert_eq!((found.len(), jtis(&found)), (5, issued.clone()), "{args:?}");
    }
    let one = issued[2].as_str().expect("a jti");
    let found = auditor.audit(&["query", "--jti", one, "-o", "json"]).records();
    assert_eq!(jtis(&found), [one]);
    let id = refused.request_id.as_deref().expect("an id");
    let found = auditor.audit(&["query", "--mentions", id, "--mentions", one, "-o", "json"]).records();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1]["reason"], "capability_not_granted");
    for args in
        [&["--until=2020-01-01T00:00:00Z"][..], &["--since=2100-01-01T00:00:00Z"], &["--user=nobody"], &["--outcome=error"]]
    {
        assert_eq!(auditor.audit(&[&["query", "--agent", &agent, "-o", "json"], args].concat()).records(), [] as [Value; 0]);
    }
    // A page at a time comes to the same.
    let (mut paged, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = auditor.get(&format!("records?agent={agent}&limit=2&after={after}")).expect(200).body;
        paged.extend(page["records"].as_array().expect("records").clone());
        after = page["next"].as_str().expect("a cursor").to_owned();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(paged, all);
    // What is recorded later follows from there.
    assert_eq!(auditor.get(&format!("records?agent={agent}&after={after}")).expect(200).body["records"], json!([]));
    let later = claims(&tenant.access_token())["jti"].clone();
    let page = auditor.get(&format!("records?agent={agent}&after={after}")).expect(200).body;
    assert_eq!((page["records"].as_array().map(Vec::len), &page["records"][0]["jti"]), (Some(1), &later));
    // For people: the newest, on one line each.
    let text = auditor.audit(&["tail", "-n", "2", "--agent", &agent]).expect(0);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[1].contains("token.issue allow granted"), "{text}");
    assert!(lines[1].contains(later.as_str().expect("a jti")) && lines[1].contains(" record="), "{text}");
    assert_eq!(auditor.audit(&["query", "--agent", &agent, "--limit", "3", "-o", "json"]).records(), all[..3]);
}

#[test]
fn tail_follows_what_is_recorded() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    let world = World::shared();
    let auditor = Auditor::of(world, "audit-tail");
    let tenant = world.tenant("audit-followed");
    let token_file = auditor.file("t", &auditor.token);
    let mut child = Command::new(crate::world::binary())
        .args(["audit", "tail", "-f", "-n", "1", "-o", "json", "--event=token.issue", "--agent", &tenant.subject()])
        .args(["--server", &world.operator.url(), "--ca", &world.operator.ca_file().display().to_string()])
        .args(["--token-file", &token_file.display().to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    // Whether it has looked before or looks later, it sees each once and in order.
    let issued: Vec<Value> = (0..3)
        .map(|_| {
            let jti = claims(&tenant.access_token())["jti"].clone();
            let seen: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
            assert_eq!(seen["jti"], jti);
            jti
        })
        .collect();
    assert_eq!(issued.len(), 3);
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

#[test]
fn who_really_did_this_is_answered_by_one_command() {
    let world = World::shared();
    let auditor = Auditor::of(world, "audit-trace");
    let tenant = world.tenant_with("audit-traced", &json!({"displayName": "Research Bot"}));
    let access = claims(&tenant.access_token());
    let server = world.resource_server(DOCS);
    assert!(world.introspect(&server, &tenant.access_token()).is_active());
    let jti = access["jti"].as_str().expect("a jti");
    let text = auditor.audit(&["trace", jti]).expect(0);
    let told = format!(
        "Research Bot ({}), acting for itself, got a token for document.read web.search at https://docs.example.com on 20",
        tenant.subject()
    );
    assert!(text.starts_with(&told), "{text}");
    assert!(
        text.contains(&format!("+- token {jti}")) && text.contains("signed with key ") && text.contains("client 127.0.0.1"),
        "{text}"
    );
    // The same from the API, and by the agent.
    let body = auditor.get(&format!("trace?subject={jti}")).expect(200).body;
    assert!(body["sentences"][0].as_str().expect("a sentence").starts_with(&told), "{body}");
    assert_eq!((&body["hops"][0]["jti"], &body["hops"][0]["agent_name"]), (&json!(jti), &json!("Research Bot")));
    let of_agent = auditor.audit(&["trace", &tenant.subject()]).expect(0);
    assert!(
        of_agent.starts_with(&format!(
            "In the records for Research Bot ({}): 2 tokens issued, 0 requests refused.",
            tenant.subject()
        )),
        "{of_agent}"
    );
    assert!(of_agent.contains("introspected 1 times") && of_agent.contains("agent.registered"), "{of_agent}");
    tenant.patch(&json!({"spec": {"suspended": true}}));
    wait_until("the suspension is told", PATIENCE, || {
        let text = auditor.audit(&["trace", jti]).expect(0);
        text.contains(&format!("{} was suspended by admin on 20", tenant.subject()))
    });
    let unknown = auditor.audit(&["trace", "nobody-has-this"]);
    assert!(unknown.status == Some(2) && unknown.err.contains("no record knows of nobody-has-this"), "{unknown:?}");
}

#[test]
fn a_request_for_approval_is_told_with_who_approved_it() {
    let (tenant, capability) = World::shared().payments_tenant("audit-jit");
    let world = tenant.world;
    let auditor = Auditor::of(world, "audit-jit-reader");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    asked.approve("bob");
    let token = asked.token();
    let token = claims(&token);
    let jti = token["jti"].as_str().expect("a jti");
    let request = asked.object();
    let name = request["metadata"]["name"].as_str().expect("a name").to_owned();
    let uid = request["metadata"]["uid"].as_str().expect("a UID").to_owned();
    let digest = request["status"]["digest"].as_str().expect("a digest");
    // The approval is recorded after the status is written.
    wait_until("the approval is told", PATIENCE, || {
        auditor.audit(&["trace", jti]).expect(0).contains(&format!("; it was approved by bob (digest {digest})."))
    });
    for subject in [uid.as_str(), &format!("{}/{name}", tenant.namespace)] {
        let text = auditor.audit(&["trace", subject]).expect(0);
        assert!(text.starts_with(&format!("Request {}/{name}: ", tenant.namespace)), "{text}");
        assert!(text.contains("filed on ") && text.contains("approved by bob on ") && text.contains(jti), "{text}");
    }
}

#[test]
fn l9_l10_what_was_sent_comes_back_escaped_and_without_any_token() {
    let world = World::shared();
    let auditor = Auditor::of(world, "audit-hostile");
    let hostile = "\u{202e}evil\u{2028}\u{1f600}\",\"outcome\":\"allow";
    let tenant = world.tenant_with("audit-escaped", &json!({"displayName": "Bot (agent:a/root), acting for alice, got a token"}));
    let form = [
        ("grant_type", crate::world::TOKEN_EXCHANGE),
        ("subject_token", tenant.token.as_str()),
        ("subject_token_type", crate::world::TYPE_JWT),
        ("audience", hostile),
        ("scope", tenant.token.as_str()),
    ];
    let refused = world.request(&form).refused(400, "invalid_scope");
    let id = refused.request_id.as_deref().expect("an id");
    let access = tenant.access_token();
    let jti = claims(&access)["jti"].as_str().expect("a jti").to_owned();
    let subject = tenant.subject();
    let outputs = [
        auditor.audit(&["trace", id]).expect(0),
        auditor.audit(&["trace", id, "-o", "json"]).expect(0),
        auditor.audit(&["trace", &jti]).expect(0),
        auditor.audit(&["trace", &subject]).expect(0),
        auditor.audit(&["query", "--mentions", id]).expect(0),
        auditor.audit(&["query", "--mentions", id, "-o", "json"]).expect(0),
        auditor.audit(&["query", "--agent", &subject]).expect(0),
        auditor.audit(&["query", "--agent", &subject, "-o", "json"]).expect(0),
        auditor.audit(&["tail", "-n", "1000"]).expect(0),
        auditor.get(&format!("trace?subject={subject}")).expect(200).body.to_string(),
    ];
    for output in &outputs {
        for token in [&tenant.token, &access, &auditor.token] {
            assert!(!output.contains(token.rsplit('.').next().expect("a signature")), "part of a token: {output}");
        }
    }
    assert!(
        outputs[0].starts_with("Somebody at 127.0.0.1 was refused a token for [looks like a token, not recorded] at "),
        "{}",
        outputs[0]
    );
    assert!(outputs[0].contains(r"\u{202e}evil\u{2028}\u{1f600}"), "{}", outputs[0]);
    assert!(
        outputs[2].starts_with(&format!("\"Bot (agent:a/root), acting for alice, got a token\" ({subject}), acting for itself,")),
        "{}",
        outputs[2]
    );
    let api = world.http.get(format!("{}/audit/v1/trace?subject={subject}", world.operator.url())).bearer_auth(&auditor.token);
    let bytes = api.send().expect("an answer").bytes().expect("a body");
    assert!(bytes.iter().all(|b| matches!(b, b' '..=b'~' | b'\n')), "the API speaks ASCII too");
}

#[test]
fn the_command_says_what_it_needs() {
    let world = World::shared();
    let auditor = Auditor::without_right(world, "audit-usage");
    let refused = auditor.audit(&["tail"]);
    assert!(refused.status == Some(2) && refused.err.contains("bind the ClusterRole countersign-auditor"), "{refused:?}");
    assert!(!refused.err.contains(&auditor.token));
    let absent = audit(&["tail", &format!("--server={}", world.operator.url()), "--token-file=/nonexistent"]);
    assert!(absent.status == Some(2) && absent.err.contains("/nonexistent: cannot be read"), "{absent:?}");
    // Without its CA nobody is told the token.
    let token = auditor.file("again", &auditor.token);
    let untrusted = audit(&["tail", &format!("--server={}", world.operator.url()), &format!("--token-file={}", token.display())]);
    assert!(untrusted.status == Some(2) && untrusted.err.contains("certificate"), "{untrusted:?}");
}

#[test]
fn a_ledger_that_cannot_be_read_stops_nobody_from_working() {
    let postgres = crate::support::postgres::Postgres::shared();
    let url = postgres.database().expect("a database");
    let world = World::start_on_database(url.clone());
    let auditor = Auditor::of(&world, "audit-spoilt");
    let tenant = world.tenant("audit-works");
    auditor.get("records").expect(200);
    postgres.sql(&url, "ALTER TABLE logs ALTER writer DROP NOT NULL; UPDATE logs SET writer = NULL").expect("spoilt");
    for _ in 0..10 {
        let reply = auditor.get("records").refused(503, "temporarily_unavailable");
        assert_eq!(world.record_of(&reply)["reason"], "ledger_unreadable");
        tenant.access_token();
    }
    let log = world.operator.process().log();
    assert!(!log.contains("the store cannot be reached"), "{log}");
}

#[test]
fn every_event_field_and_reason_that_is_recorded_is_explained() {
    let world = World::shared();
    let server = world.resource_server(DOCS);
    let tenant = world.tenant("audit-explained");
    assert!(world.introspect(&server, &tenant.access_token()).is_active());
    Auditor::of(world, "audit-explainer").get("records").expect(200);
    let read = |page: &str| std::fs::read_to_string(crate::support::repository().join("docs").join(page)).expect("the page");
    let (page, reasons) = (read("audit.md"), read("errors.md"));
    for record in world.operator.audit_lines().expect("the audit log") {
        let event = record["event"].as_str().expect("an event");
        let family = format!("`{}.*`", event.split('.').next().expect("a word"));
        let is_explained = page.contains(&format!("`{event}`")) || page.contains(&family) || event == "ledger.checkpoint";
        assert!(is_explained, "event {event}");
        if let Some(reason) = record["reason"].as_str() {
            assert!(reasons.contains(&format!("`{reason}`")), "reason {reason} of {event}");
        }
        for field in record.as_object().expect("members").keys() {
            assert!(page.contains(&format!("`{field}`")), "field {field} of {event}");
        }
    }
}
