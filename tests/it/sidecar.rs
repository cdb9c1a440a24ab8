//! The sidecar beside agents: tokens, delegation, approvals and answers, with no credential in the agent's hands.

use crate::injection;
use crate::payments::{Asked, details};
use crate::sidecars::Sidecar;
use crate::support::cluster::ClusterOptions;
use crate::support::directory::write_private;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::ports::free_ports;
use crate::support::process::{Guarded, clean_env};
use crate::support::repository;
use crate::world::{DOCS, PATIENCE, World, agent, binary, claims, stamped, wait_until};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn an_agent_gets_its_tokens_without_a_credential() {
    let world = World::shared();
    let bot = world.tenant("sidecar");
    let sidecar = Sidecar::beside(&bot, &[]);
    let reply = sidecar.ask(&format!("/token?audience={DOCS}&scope=document.read")).expect(200);
    assert_eq!((reply.text("token_type"), reply.text("scope")), ("Bearer".to_owned(), "document.read".to_owned()));
    assert_eq!(
        (&reply.headers["cache-control"], &reply.headers["content-type"]),
        (&json_value("no-store"), &json_value("application/json"))
    );
    let expires_in = reply.body["expires_in"].as_u64().expect("a number");
    assert!((250..=300).contains(&expires_in), "{expires_in}");
    let token = reply.text("access_token");
    let said = claims(&token);
    assert_eq!((&said["sub"], &said["aud"], &said["scope"]), (&json!(bot.subject()), &json!(DOCS), &json!("document.read")));
    assert!(world.introspect(&world.resource_server(DOCS), &token).is_active());
    // Kept: the same for the same, another for another.
    assert_eq!(sidecar.ask(&format!("/token?scope=document.read&audience={DOCS}")).text("access_token"), token);
    let usual = sidecar.token();
    assert_ne!(usual, token);
    assert_eq!(claims(&usual)["scope"], "document.read web.search");
    // For a shell, the token alone.
    let text = sidecar.get("/token").header("accept", "text/plain").send().expect("an answer");
    assert_eq!((text.headers()["content-type"].clone(), text.text().expect("text")), (json_value("text/plain"), usual.clone()));
    // One who was refused with a token asks for another, and that is the usual one from then on.
    wait_until("a second has passed", PATIENCE, || {
        let fresh: crate::world::Reply =
            sidecar.get("/token").header("cache-control", "no-cache").send().expect("an answer").into();
        fresh.expect(200).text("access_token") != usual
    });
    assert_ne!(sidecar.token(), usual);
    let log = sidecar.log();
    assert!(!log.contains(&token[..40]) && !log.contains(&bot.token[..40]) && !log.contains("eyJ"), "{log}");
}

fn json_value(text: &str) -> reqwest::header::HeaderValue {
    text.parse().expect("a value")
}

#[test]
fn a_refusal_is_passed_on_with_its_reason() {
    let world = World::shared();
    let bot = world.tenant("sidecar-refused");
    let sidecar = Sidecar::beside(&bot, &[]);
    sidecar.ask("/token?scope=document.delete").refused(400, "invalid_scope");
    let reply = sidecar.ask("/token?audience=https://elsewhere.example").refused(400, "invalid_target");
    let record = world.record_of(&reply);
    assert_eq!((&record["outcome"], &record["reason"]), (&json!("deny"), &json!("audience_not_allowed")));
    for (path, error) in [
        ("/token?scope=", "invalid_request"),
        ("/token?scope=a&scope=b", "invalid_request"),
        ("/token?audience=a&audience=b", "invalid_target"),
        ("/token?resource=https://docs.example.com", "invalid_request"),
        ("/token?scope=%00", "invalid_request"),
    ] {
        sidecar.ask(path).refused(400, error);
    }
    sidecar.ask("/oauth2/token").refused(404, "invalid_request");
    sidecar.ask("/ask").refused(405, "invalid_request");
    // Asked in a loop, the token service hears of it once a second.
    let records =
        || world.operator.audit_lines().expect("records").iter().filter(|r| r["requested_scope"] == "loop.loop").count();
    let start = Instant::now();
    for _ in 0..50 {
        sidecar.ask("/token?scope=loop.loop").refused(400, "invalid_scope");
    }
    assert!(records() <= 2 + usize::try_from(start.elapsed().as_secs()).expect("few"), "{}", records());
}

#[test]
fn the_agent_waits_until_the_token_service_knows_it() {
    let world = World::shared();
    let namespace = world.namespace("sidecar-waits");
    let credential = world.workload(&namespace, "bot");
    let sidecar = Sidecar::start(world, &credential, &[&format!("--audience={DOCS}")]);
    let probe = || {
        let output = Command::new(binary()).arg("sidecar-ready").arg(format!("--listen-address={}", sidecar.address)).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    wait_until("it says why", PATIENCE, || sidecar.log().contains("not ready"));
    let (status, says) = probe();
    assert!(status == Some(1) && says.contains("no token yet"), "{status:?} {says}");
    assert_eq!(sidecar.ask("/healthz").expect(200).body, "ok\n");
    sidecar.ask("/readyz").expect(503);
    world.apply(&stamped(agent(&namespace, "bot", &json!({})), "admin")).expect("the Agent is accepted");
    sidecar.wait_until_ready();
    assert_eq!(probe(), (Some(0), String::new()));
    assert_eq!(claims(&sidecar.token())["client_id"], format!("agent:{namespace}/bot"));
    // Nobody there.
    let gone = Command::new(binary()).args(["sidecar-ready", "--listen-address=127.0.0.1:1"]).output().expect("it runs");
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn only_a_loopback_address_is_listened_on_and_only_a_given_authority_trusted() {
    let world = World::shared();
    for (args, says) in [
        (&["--listen-address=0.0.0.0:0"][..], "loopback"),
        (&["--listen-address=10.0.0.1:7710"], "loopback"),
        (&[], "--ca-file"),
        (&["--ca-file=/a", "--ca-pem=b"], "cannot be used with"),
        (&["--ca-file=/a", "--max-age=1h"], "15m"),
    ] {
        let output =
            Command::new(binary()).args(["sidecar", "--url=https://a"]).args(args).env_clear().output().expect("it runs");
        let says_so = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && says_so.contains(says), "{args:?}: {says_so}");
    }
    // Another authority than the token service's.
    let other = crate::support::certificates::Authority::new().expect("an authority");
    let bot = world.tenant("sidecar-authority");
    let sidecar = Sidecar::start_at(&world.operator.url(), other.pem(), &bot.token, &[]);
    let reply = sidecar.ask("/token").refused(503, "temporarily_unavailable");
    assert!(reply.text("error_description").contains("certificate"), "{:?}", reply.body);
    // Replaced by the right one, without a restart.
    std::fs::copy(world.operator.ca_file(), &sidecar.ca_file).expect("replaced");
    sidecar.wait_until_ready();
    sidecar.token();
}

#[test]
fn a_credential_that_the_kubelet_replaced_is_used_at_once() {
    let world = World::shared();
    let bot = world.tenant("sidecar-rotates");
    let sidecar = Sidecar::beside(&bot, &[]);
    let reply = sidecar.ask("/token?scope=web.search").expect(200);
    let used = |reply: &crate::world::Reply| {
        let jti = claims(&reply.text("access_token"))["jti"].clone();
        let lines = world.operator.audit_lines().expect("records");
        lines.into_iter().find(|line| line["jti"] == jti).expect("a record")["credential_id"].clone()
    };
    let (before, second) = (used(&reply), bot.pod_token("bot", "pod", &bot.pod_uid));
    sidecar.replace_credential(&second);
    let reply = sidecar.ask("/token?scope=document.read").expect(200);
    assert_ne!(used(&reply), before);
    assert_eq!(used(&reply), json!(format!("{}", claims(&second)["jti"].as_str().expect("an id"))));
    // Gone for a moment: what is held is handed out, and what is not is not to be had.
    std::fs::remove_file(&sidecar.token_file).expect("removed");
    sidecar.ask("/token?scope=document.read").expect(200);
    let refused = sidecar.ask("/token?scope=document.read+web.search").refused(503, "temporarily_unavailable");
    assert!(refused.text("error_description").contains("cannot be read"), "{:?}", refused.body);
    for senseless in ["", "two words", "\u{0}", "ey\ny"] {
        sidecar.replace_credential(senseless);
        sidecar.ask("/token?scope=document.read+web.search").refused(503, "temporarily_unavailable");
    }
    sidecar.replace_credential(&format!("{second}\n"));
    wait_until("it is used again", PATIENCE, || sidecar.ask("/token?scope=document.read+web.search").status == 200);
}

#[test]
fn h21_a_suspended_agent_is_not_given_its_dead_token_for_long() {
    let world = World::shared();
    let bot = world.tenant("sidecar-suspended");
    let sidecar = Sidecar::beside(&bot, &["--max-age=1s"]);
    let (one, other) =
        (sidecar.ask("/token?scope=web.search").expect(200), sidecar.ask("/token?scope=document.read").expect(200));
    bot.patch(&json!({"spec": {"suspended": true}}));
    let server = world.resource_server(DOCS);
    wait_until("the token is dead", PATIENCE, || !world.introspect(&server, &one.text("access_token")).is_active());
    // With one question, everything that is held is dropped: it is about the agent, not about one audience.
    wait_until("no token is handed out", PATIENCE, || sidecar.ask("/token?scope=web.search").status == 401);
    sidecar.ask("/token?scope=web.search").refused(401, "invalid_client");
    sidecar.ask("/token?scope=document.read").refused(401, "invalid_client");
    bot.patch(&json!({"spec": {"suspended": false}}));
    wait_until("it has one again", PATIENCE, || {
        let reply = sidecar.ask("/token?scope=document.read");
        reply.status == 200 && reply.text("access_token") != other.text("access_token")
    });
}

#[test]
fn a_token_is_replaced_before_it_ends_and_nobody_waits_for_it() {
    let world = World::shared();
    let bot = world.tenant_with("sidecar-refresh", &json!({"tokens": {"expirationSeconds": 60, "audiences": [{"name": DOCS}]}}));
    let sidecar = Sidecar::beside(&bot, &["--max-age=1s"]);
    let first = sidecar.token();
    let mut seen = vec![first.clone()];
    wait_until("there is another", PATIENCE, || {
        let reply = sidecar.ask("/token").expect(200);
        assert!(reply.body["expires_in"].as_u64().is_some_and(|left| left > 30), "{:?}", reply.body);
        let token = reply.text("access_token");
        if seen.last() != Some(&token) {
            seen.push(token);
        }
        seen.len() > 2
    });
    // However many ask at once, one question goes to the token service.
    let asked = |scope: &str| {
        world
            .operator
            .audit_lines()
            .expect("records")
            .iter()
            .filter(|r| r["requested_scope"] == scope && r["subject"] == bot.subject())
            .count()
    };
    std::thread::scope(|threads| {
        let same: Vec<_> = (0..20)
            .map(|_| threads.spawn(|| sidecar.ask("/token?scope=document.read").expect(200).text("access_token")))
            .collect();
        let tokens: std::collections::HashSet<String> = same.into_iter().map(|thread| thread.join().expect("a token")).collect();
        assert!(tokens.len() <= 2, "{}", tokens.len());
    });
    assert!(asked("document.read") <= 3, "{}", asked("document.read"));
}

#[test]
fn a_task_is_handed_from_agent_to_agent_each_with_its_own_sidecar() {
    let world = World::shared();
    let namespace = world.namespace("sidecar-chain");
    let delegation = json!({"delegation": {"callers": [{"namespace": namespace, "name": "planner"}], "maxDepth": 3}});
    let credentials = [("planner", json!({})), ("searcher", delegation)].map(|(name, spec)| {
        let credential = world.workload(&namespace, name);
        world.apply(&stamped(agent(&namespace, name, &spec), "admin")).expect("the Agent is accepted");
        credential
    });
    for name in ["planner", "searcher"] {
        world.kubectl().wait_for(&namespace, &format!("agent/{name}"), "condition=Ready", PATIENCE).expect("it is Ready");
    }
    let [planner, searcher] = credentials.map(|credential| {
        let sidecar = Sidecar::start(world, &credential, &[]);
        sidecar.wait_until_ready();
        sidecar
    });
    let called = planner.ask(&format!("/token?audience=agent:{namespace}/searcher")).expect(200).text("access_token");
    let form = [("subject_token", called.as_str()), ("audience", DOCS), ("scope", "document.read")];
    let reply = searcher.send("/token", &form).expect(200);
    let said = claims(&reply.text("access_token"));
    assert_eq!(
        (&said["sub"], &said["act"]["sub"]),
        (&json!(format!("agent:{namespace}/planner")), &json!(format!("agent:{namespace}/searcher")))
    );
    assert_eq!(reply.text("issued_token_type"), "urn:ietf:params:oauth:token-type:access_token");
    // The same task, the same token; another task, another one.
    assert_eq!(searcher.send("/token", &form).expect(200).text("access_token"), reply.text("access_token"));
    planner.get("/token").header("cache-control", "no-cache").send().expect("an answer");
    wait_until("another task", PATIENCE, || {
        let path = format!("/token?audience=agent:{namespace}/searcher");
        let other: crate::world::Reply = planner.get(&path).header("cache-control", "no-cache").send().expect("an answer").into();
        let other = other.expect(200).text("access_token");
        if other == called {
            return false;
        }
        let form = [("subject_token", other.as_str()), ("audience", DOCS), ("scope", "document.read")];
        assert_ne!(searcher.send("/token", &form).expect(200).text("access_token"), reply.text("access_token"));
        true
    });
    // h24: a token that is not for this agent opens nothing here, whoever brings it.
    let stray = planner.ask(&format!("/token?audience={DOCS}")).expect(200).text("access_token");
    searcher.send("/token", &[("subject_token", &stray), ("audience", DOCS)]).refused(400, "invalid_request");
    planner.send("/token", &[("subject_token", &called), ("audience", DOCS)]).refused(400, "invalid_request");
    for (form, error) in [
        (&[("audience", DOCS)][..], "invalid_request"),
        (&[("subject_token", "x"), ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")], "invalid_request"),
        (&[("subject_token", "x"), ("actor_token", "y")], "invalid_request"),
        (&[("subject_token", "x"), ("client_assertion", "y")], "invalid_request"),
        (&[("subject_token", "x"), ("grant_type", "client_credentials")], "invalid_request"),
    ] {
        searcher.send("/token", form).refused(400, error);
    }
}

#[test]
fn a_person_approves_what_an_agent_asks_through_its_sidecar() {
    let world = World::shared();
    let (bot, capability) = world.payments_tenant("sidecar-jit");
    world.approver("alice", &bot.namespace, &capability);
    // It holds nothing without approval: there is no usual token, and it may start all the same.
    let sidecar = Sidecar::beside(&bot, &[]);
    let operation = details(&capability, "invoice:2026/7", &json!({"amount": 5})).to_string();
    let form = [("authorization_details", operation.as_str()), ("binding_message", "the second reminder")];
    let filed = sidecar.send("/jit", &form).expect(200);
    assert!(filed.body["interval"].is_u64() && filed.body["expires_in"].is_u64(), "{:?}", filed.body);
    let asked = Asked::of(&bot, filed.text("auth_req_id"));
    let path = format!("/jit/{}", asked.id);
    sidecar.ask(&path).refused(400, "authorization_pending");
    // However often the agent asks, the token service is asked as often as it wants to be.
    for _ in 0..20 {
        sidecar.ask(&path).refused(400, "authorization_pending");
    }
    assert!(!asked.records().iter().any(|record| record["reason"] == "slow_down"), "{:?}", asked.records());
    asked.reaches("Pending");
    // Somebody waits, and a person decides meanwhile.
    let token = std::thread::scope(|threads| {
        let waiting = threads.spawn(|| sidecar.ask(&format!("{path}?wait=30")).expect(200));
        asked.approve("alice");
        waiting.join().expect("the token")
    });
    let said = claims(&token.text("access_token"));
    assert_eq!(said["authorization_details"][0]["parameters"], json!({"amount": 5}));
    assert_eq!(token.body["authorization_details"], said["authorization_details"]);
    let access = token.text("access_token");
    assert_eq!(sidecar.send("/jit/complete", &[("token", &access)]).expect(200).body["completed"], true);
    sidecar.send("/jit/complete", &[("token", &access)]).refused(409, "already_completed");
    sidecar.ask(&format!("{path}?wait=1")).refused(400, "invalid_grant");
    // Denied, withdrawn, malformed.
    let denied = Asked::of(&bot, sidecar.send("/jit", &form).expect(200).text("auth_req_id"));
    denied.reaches("Pending");
    denied.decide("alice", "Denied").expect("denied");
    sidecar.ask(&format!("/jit/{}?wait=30", denied.id)).refused(400, "access_denied");
    let withdrawn = Asked::of(&bot, sidecar.send("/jit", &form).expect(200).text("auth_req_id"));
    withdrawn.reaches("Pending");
    sidecar.send("/revoke", &[("token", &withdrawn.id)]).expect(200);
    withdrawn.reaches("Cancelled");
    sidecar.ask("/jit/no%2Fsuch").refused(400, "invalid_request");
    sidecar.ask(&format!("{path}?wait=601")).refused(400, "invalid_request");
    sidecar.send("/jit", &[("authorization_details", &operation), ("login_hint", "agent:a/b")]).refused(400, "invalid_request");
    sidecar.send("/jit", &[]).refused(400, "invalid_request");
    // The same key is the same request.
    let keyed = || {
        let reply: crate::world::Reply =
            sidecar.post("/jit").header("idempotency-key", "k").form(&form).send().expect("an answer").into();
        reply.expect(200).text("auth_req_id")
    };
    assert_eq!(keyed(), keyed());
}

#[test]
fn an_agent_asks_beforehand_and_need_not_know_its_name() {
    let world = World::shared();
    let bot = world.tenant("sidecar-check");
    let sidecar = Sidecar::beside(&bot, &[]);
    let evaluate = |name: &str| json!({"action": {"name": name}, "resource": {"type": "document", "id": "reports/q3"}});
    assert_eq!(sidecar.question("/access/v1/evaluation", &evaluate("document.read")).expect(200).body["decision"], true);
    assert_eq!(sidecar.question("/access/v1/evaluation", &evaluate("document.delete")).expect(200).body["decision"], false);
    let both = json!({"resource": {"type": "document", "id": "reports/q3"}, "evaluations": [{"action": {"name": "document.read"}}, {"action": {"name": "x.y"}}]});
    let answers = sidecar.question("/access/v1/evaluations", &both).expect(200).body;
    assert_eq!((&answers["evaluations"][0]["decision"], &answers["evaluations"][1]["decision"]), (&json!(true), &json!(false)));
    let found = sidecar.question("/access/v1/search/action", &json!({"resource": {"type": "document", "id": "reports/q3"}}));
    assert_eq!(found.expect(200).body["results"], json!([{"name": "document.read"}, {"name": "web.search"}]));
    assert_eq!(sidecar.question("/ask", &json!({"question": "Can I search the web?"})).expect(200).body["decision"], true);
    // What it says itself stays: it may not ask about another one.
    let mut other = evaluate("document.read");
    other["subject"] = json!({"type": "agent", "id": "agent:somewhere/else"});
    let reply = sidecar.question("/access/v1/evaluation", &other).expect(200).body;
    assert_eq!(reply["decision"], false, "{reply}");
    sidecar.send("/ask", &[("question", "x")]).refused(400, "invalid_request");
    let twice: crate::world::Reply = sidecar
        .post("/ask")
        .header("content-type", "application/json")
        .body("{\"question\":\"a\",\"question\":\"b\"}")
        .send()
        .expect("an answer")
        .into();
    twice.refused(400, "invalid_request");
}

#[test]
fn what_is_held_is_handed_out_while_the_operator_is_gone_and_killed_operators_are_found_again() {
    let mut world = World::start_shareable_on(&ClusterOptions::default(), &[]);
    let (token, sidecar, server);
    {
        let bot = world.tenant("sidecar-outage");
        sidecar = Sidecar::beside(&bot, &["--max-age=1s"]);
        token = sidecar.token();
        server = world.resource_server(DOCS);
    }
    for signal in ["KILL", "TERM"] {
        world.operator.process().signal(signal).expect("sent");
        world.operator.process().wait(PATIENCE).expect("it has ended");
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            assert!(sidecar.ask("/token").expect(200).body["expires_in"].as_u64().is_some_and(|left| left > 0));
        }
        sidecar.ask("/token?scope=web.search+document.read").refused(503, "temporarily_unavailable");
        assert_eq!(sidecar.ask("/readyz").status, 200, "what was known stays known");
        // On the same address, as behind a Service.
        let issuer = world.operator.issuer().to_owned();
        let options = OperatorOptions {
            issuer: Some(issuer.clone()),
            database: Some(world.database().to_owned()),
            args: vec![format!("--listen-address={}", issuer.trim_start_matches("https://"))],
            ..OperatorOptions::default()
        };
        world.operator = Operator::start(&world.cluster, binary(), &options).expect("the operator starts again");
        wait_until("there is a new token", PATIENCE, || {
            let reply = sidecar.ask("/token?scope=web.search");
            reply.status == 200 && reply.text("access_token") != token
        });
    }
    let (url, fresh) =
        (format!("{}/oauth2/introspect", world.operator.issuer()), sidecar.ask("/token?scope=web.search").text("access_token"));
    let seen: Value =
        world.http.post(url).bearer_auth(&server).form(&[("token", &fresh)]).send().expect("an answer").json().expect("JSON");
    assert_eq!(seen["active"], true);
}

#[test]
fn it_ends_in_order_and_needs_little_memory() {
    let world = World::shared();
    let bot = world.tenant("sidecar-small");
    let sidecar = Sidecar::beside(&bot, &[]);
    for i in 0..200 {
        sidecar.ask(&format!("/token?scope=no.such-{i}")).refused(400, "invalid_scope");
    }
    let resident = sidecar.resident_kib();
    eprintln!("the sidecar has {resident} KiB resident");
    assert!(resident < 64 * 1024, "{resident} KiB: the limit of its container");
    sidecar.process().signal("TERM").expect("sent");
    let status = sidecar.process().wait(PATIENCE).expect("it has ended");
    assert!(status.success() && sidecar.log().contains("the sidecar has ended"), "{status} {}", sidecar.log());
    assert!(sidecar.directory().exists());
}

#[test]
fn an_agent_in_javascript_needs_nothing_but_fetch() {
    let world = World::shared();
    let bot = world.tenant("sidecar-node");
    let sidecar = Sidecar::beside(&bot, &[]);
    let output = Command::new("node")
        .arg(repository().join("tests/clients/sidecar.mjs"))
        .env("SIDECAR_URL", sidecar.url(""))
        .env("COUNTERSIGN_URL", world.operator.url())
        .env("NODE_EXTRA_CA_CERTS", world.operator.ca_file())
        .env("AUDIENCE", DOCS)
        .env("AGENT", bot.subject())
        .output()
        .expect("node");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\n(run `make clients` if a package is missing)");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["subject"], bot.subject());
}

#[test]
fn the_sidecar_runs_with_what_the_api_server_writes_into_a_pod() {
    let world = World::shared();
    let bot = world.tenant("sidecar-injected");
    let container = injection::sidecar_of(world, &bot.namespace, &json!({"countersign.dev/sidecar-audience": DOCS}));
    let (scratch, variable) = (tempfile::tempdir().expect("a directory"), &container["env"][0]);
    let token = scratch.path().join("token");
    write_private(&token, &bot.token).expect("written");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut args: Vec<String> = container["args"].as_array().expect("arguments").iter().map(text).collect();
    // The last value of a flag counts: here the token service and the credential are elsewhere, and the port is any.
    let [port] = free_ports().expect("a port");
    let address = format!("--listen-address=127.0.0.1:{port}");
    args.extend([format!("--url={}", world.operator.url()), format!("--token-file={}", token.display()), address.clone()]);
    let mut env = clean_env(scratch.path());
    env.push((text(&variable["name"]), text(&variable["value"])));
    let process = Guarded::spawn(scratch.path(), "sidecar", binary(), &args, &env).expect("a process");
    let probe = text(&container["startupProbe"]["exec"]["command"][1]);
    wait_until("its probe succeeds", PATIENCE, || {
        assert!(process.exited().is_none(), "{}", process.log_tail());
        Command::new(binary()).args([&probe, &address]).output().is_ok_and(|output| output.status.success())
    });
}
