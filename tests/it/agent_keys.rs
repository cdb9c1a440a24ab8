//! Agents with keys of their own: how a key may be pasted and named, when it begins and ends, and every endpoint that takes an assertion.

use crate::key_agents::{Key, KeyAgent, keys, now, record, rfc3339};
use crate::payments::{CIBA, details};
use crate::support::repository;
use crate::world::{DOCS, PATIENCE, Reply, World, claims, wait_until};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Milliseconds in practice; the limit is for a busy machine.
const PROMPTLY: Duration = Duration::from_secs(10);

#[test]
fn a_key_may_be_pasted_as_pem_or_jwk_and_named_or_not() {
    let world = World::shared();
    let [pem, jwk] = [Key::new(), Key::new()].map(Arc::new);
    let entries = [
        json!({"kid": "laptop-2026.11", "publicKey": pem.pem()}),
        json!({"publicKey": serde_json::to_string_pretty(&jwk.jwk()).expect("JSON")}),
    ];
    let agent = world.registered("paste", Arc::clone(&pem), &keys(&entries));
    agent.is_served();
    assert_eq!(agent.thumbprints(), [pem.thumbprint(), jwk.thumbprint()]);
    let names = [(&pem, Some("laptop-2026.11".to_owned())), (&pem, Some(pem.thumbprint())), (&jwk, Some(jwk.thumbprint()))];
    for (key, kid) in names.into_iter().chain([(&pem, None), (&jwk, None)]) {
        let agent = agent.with(key);
        for alg in ["EdDSA", "Ed25519"] {
            for typ in [None, Some("JWT"), Some("client-authentication+jwt"), Some("application/client-authentication+JWT")] {
                let mut header = json!({"alg": alg, "typ": typ, "kid": kid});
                header.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
                let (claims, about) = (agent.claims(), header.to_string());
                let reply = agent.ask(&key.sign(&header, &claims));
                assert_eq!(reply.status, 200, "{about}: {:?}", reply.body);
                let record = agent.record(&reply);
                assert_eq!((&record["outcome"], &record["reason"]), (&json!("allow"), &json!("granted")), "{about}");
                assert_eq!(record["key_thumbprint"], key.thumbprint(), "{about}");
                assert_eq!(record["credential_id"], claims["jti"], "{about}");
                assert_eq!(record["subject"], agent.subject(), "{about}");
            }
        }
    }
    // The name of the one key does not open the other.
    let other = json!({"alg": "EdDSA", "kid": "laptop-2026.11"});
    agent.with(&jwk).refuses("credential_malformed_or_forged", || agent.with(&jwk).assertion_under(&other));
}

#[test]
fn a_token_obtained_with_a_key_is_that_of_any_agent() {
    let world = World::shared();
    let (agent, server) = (world.key_agent("token"), world.resource_server(DOCS));
    for form in [
        &[("grant_type", "client_credentials")][..],
        &[("grant_type", "client_credentials"), ("client_id", &agent.subject())],
        &[("grant_type", "client_credentials"), ("scope", "web.search"), ("audience", DOCS)],
    ] {
        let reply = agent.call("/oauth2/token", form).expect(200);
        let token = reply.text("access_token");
        let says = claims(&token);
        let uid = agent.stored()["metadata"]["uid"].clone();
        assert_eq!((&says["sub"], &says["client_id"]), (&json!(agent.subject()), &json!(agent.subject())));
        assert_eq!((&says["agent_uid"], &says["links"][0]["agent_uid"]), (&uid, &uid));
        assert_eq!(says["exp"].as_u64().expect("exp") - says["iat"].as_u64().expect("iat"), 300, "as the Agent says");
        assert!(world.introspect(&server, &token).is_active());
        agent.patch(&json!({"displayName": reply.request_id}));
    }
    // Small assertions, each as short as it may be: an audience in a list of its own, no iat, one second of life, a jti of one letter.
    let now = now();
    for changes in [
        json!({"aud": [agent.operator.issuer()]}),
        json!({"iat": null}),
        json!({"iat": null, "nbf": now, "exp": now + 59}),
        json!({"iat": now, "nbf": now, "exp": now + 60}),
        json!({"jti": "~"}),
        json!({"jti": format!("{:<128}", crate::key_agents::unique())}),
        json!({"unheard": {"of": [1, 2, {"a": null}]}, "client_id": "agent:a/b", "scope": "admin"}),
    ] {
        let reply = agent.ask(&agent.assertion_with(&changes));
        assert_eq!(reply.status, 200, "{changes}: {:?}", reply.body);
        let says = claims(&reply.text("access_token"));
        assert_eq!(says["client_id"], agent.subject(), "what the client says of itself");
        assert_eq!(says["scope"], "document.read web.search");
    }
    let reply = agent.ask(&agent.assertion_with(&json!({"act": {"sub": "user:root"}}))).refused(401, "invalid_client");
    assert_eq!(world.record_of(&reply)["reason"], "credential_claim_refused", "X6: who acts for whom is not the client's to say");
}

#[test]
fn keys_overlap_and_one_that_is_removed_ends_at_once() {
    let world = World::shared();
    let first = world.key_agent("rotate");
    let second = first.with(&Arc::new(Key::new()));
    second.refuses("credential_malformed_or_forged", || second.assertion());
    first.patch(&keys(&[first.key.entry(), second.key.entry()]));
    let added = wait_until("the second key counts", PROMPTLY, || second.obtain().status == 200);
    first.obtain().expect(200);
    wait_until("the status lists both", PROMPTLY, || first.thumbprints() == [first.key.thumbprint(), second.key.thumbprint()]);

    // R14: over a connection that was open before.
    first.patch(&keys(&[second.key.entry()]));
    let removed = wait_until("the first key counts no more", PROMPTLY, || first.obtain().status != 200);
    eprintln!("after kubectl patch returned: a key counts after {added:?}, and no more after {removed:?}");
    first.refuses_everywhere("credential_malformed_or_forged", || first.assertion());
    let named = json!({"alg": "EdDSA", "kid": first.key.thumbprint()});
    first.refuses_everywhere("credential_key_unknown", || first.assertion_under(&named));
    second.obtain().expect(200);
    wait_until("the status lists the second", PROMPTLY, || first.thumbprints() == [second.key.thumbprint()]);
    assert_eq!(first.says("IdentityResolved", "True", "Resolved"), "every credential that the Agent lists can be used");
}

#[test]
fn a_key_ends_at_its_not_after_and_no_token_outlives_it() {
    let world = World::shared();
    let agent = world.key_agent("not-after");
    let other = agent.with(&Arc::new(Key::new()));
    let end = now() + 12;
    let ending = json!({"kid": "ending", "publicKey": agent.key.pem(), "notAfter": rfc3339(end)});
    agent.patch(&keys(&[ending.clone(), other.key.entry()]));
    wait_until("the other key counts", PROMPTLY, || other.obtain().status == 200);
    let mut tokens = 0;
    let refused_at = loop {
        let before = now();
        let reply = agent.obtain();
        if reply.status != 200 {
            break now();
        }
        assert!(before < end, "at {before} a key that ended at {end} was accepted");
        let says = claims(&reply.text("access_token"));
        assert_eq!(says["exp"], end, "the token ends with the key");
        assert_eq!(reply.body["expires_in"].as_u64(), Some(end - says["iat"].as_u64().expect("iat")));
        tokens += 1;
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(tokens > 0, "the key never counted");
    assert!(refused_at >= end - 1, "it ended at {refused_at}, not at {end}");
    agent.refuses("credential_malformed_or_forged", || agent.assertion());
    agent.refuses("credential_key_unknown", || agent.assertion_under(&json!({"alg": "EdDSA", "kid": "ending"})));
    // Nobody wrote anything: the operator notices by itself. The Agent has another key, so it stays Ready.
    let message = agent.says("IdentityResolved", "False", "KeyExpired");
    assert!(message.contains("key ending") && message.contains("notAfter"), "{message}");
    agent.says("Ready", "True", "Ready");
    assert_eq!(agent.thumbprints(), [other.key.thumbprint()]);
    let says = claims(&other.obtain().expect(200).text("access_token"));
    assert_eq!(says["exp"].as_u64().expect("exp") - says["iat"].as_u64().expect("iat"), 300, "the other key has no end");

    // As the only one it leaves the agent with nothing.
    agent.patch(&keys(&[ending]));
    agent.says("Ready", "False", "KeyExpired");
    assert_eq!(agent.thumbprints(), [""; 0]);
    agent.patch(&keys(&[agent.key.entry()]));
    agent.is_served();
}

#[test]
fn a_suspended_agent_has_no_use_of_its_key_and_its_namesake_starts_anew() {
    let world = World::shared();
    let agent = world.key_agent("life");
    agent.patch(&json!({"suspended": true}));
    wait_until("no new token", PROMPTLY, || agent.obtain().status != 200);
    let assertion = agent.assertion();
    agent.refused(&agent.ask(&assertion), &assertion, "agent_suspended");
    agent.reaches("condition=Suspended");
    agent.patch(&json!({"suspended": false}));
    agent.is_served();
    agent.refused(&agent.ask(&assertion), &assertion, "credential_replayed");

    let used = agent.assertion();
    agent.ask(&used).expect(200);
    world.kubectl().run(&["delete", "agent", "bot", "-n", &agent.namespace]).expect("deleted");
    wait_until("no new token", PROMPTLY, || agent.obtain().status != 200);
    agent.refuses_everywhere("credential_key_unknown", || agent.assertion());
    let object = crate::world::agent(&agent.namespace, "bot", &keys(&[agent.key.entry()]));
    world.apply(&object).expect("created anew");
    agent.is_served();
    agent.refused(&agent.ask(&used), &used, "credential_replayed");
}

#[test]
fn an_assertion_is_used_up_wherever_it_was_sent() {
    let world = World::shared();
    let (agent, server) = (world.key_agent("once"), world.resource_server(DOCS));
    for (first, form) in crate::key_agents::PLACES {
        let assertion = agent.assertion();
        let reply = agent.send(first, &assertion, form);
        assert_ne!(reply.body["error"], "invalid_client", "{first}: {:?}", reply.body);
        assert_eq!(agent.record(&reply)["key_thumbprint"], agent.key.thumbprint(), "{first}");
        for (second, form) in crate::key_agents::PLACES {
            agent.refused(&agent.send(second, &assertion, form), &assertion, "credential_replayed");
        }
    }
    // Also one that names another client in the form, and is refused for that.
    let assertion = agent.assertion();
    let form = [("grant_type", "client_credentials"), ("client_id", "agent:a/b")];
    let reply = agent.send("/oauth2/token", &assertion, &form).refused(401, "invalid_client");
    assert_eq!(agent.record(&reply)["reason"], "client_id_mismatch");
    agent.refused(&agent.ask(&assertion), &assertion, "credential_replayed");
    // An agent with a key is no resource server: Kubernetes knows no such user, so nobody can have given it the right.
    let token = agent.obtain().expect(200).text("access_token");
    let reply = agent.call("/oauth2/introspect", &[("token", &token)]);
    assert!(!reply.is_active());
    assert_eq!(agent.record(&reply)["reason"], "caller_may_not_introspect");
    assert!(world.introspect(&server, &token).is_active());
    agent.call("/oauth2/revoke", &[("token", &token)]).expect(200);
    assert!(!world.introspect(&server, &token).is_active(), "it gives up a token of its own");
}

/// An agent with a key that may obtain tokens, and pay with a person's approval; and the capability.
fn payer<'a>(world: &'a World, purpose: &str, approver: &str) -> (KeyAgent<'a>, String) {
    let capability = world.capability(&json!({}));
    let entry = json!({"name": capability, "approval": "Required", "resources": ["invoice:2026/*"]});
    let agent = world.key_agent_with(purpose, &json!({"capabilities": [{"name": "web.search"}, entry]}));
    world.approver(approver, &agent.namespace, &capability);
    (agent, capability)
}

/// Asks for a payment. Returns `auth_req_id` and the name of the JitRequest, which waits for a decision by then.
fn file(agent: &KeyAgent<'_>, capability: &str) -> (String, String) {
    let details = details(capability, "invoice:2026/7", &json!({"amount": 5})).to_string();
    let form = [("login_hint", agent.subject()), ("authorization_details", details)];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let id = agent.call("/oauth2/bc-authorize", &form).expect(200).text("auth_req_id");
    wait_until("it waits for a decision", PATIENCE, || requested(agent, &id)["status"]["phase"] == "Pending");
    (id.clone(), requested(agent, &id)["metadata"]["name"].as_str().expect("a name").to_owned())
}

/// The JitRequest.
fn requested(agent: &KeyAgent<'_>, id: &str) -> Value {
    let list = agent.world.kubectl().get_json(&["get", "jitrequests", "--namespace", &agent.namespace]).expect("a list");
    let found = list["items"].as_array().expect("items").iter().find(|request| request["metadata"]["uid"] == id).cloned();
    found.expect("the request exists")
}

fn approve(agent: &KeyAgent<'_>, approver: &str, (id, name): &(String, String)) {
    agent.world.decide(approver, &agent.namespace, name, "Approved").expect("approved");
    wait_until("it is approved", PATIENCE, || requested(agent, id)["status"]["phase"] == "Approved");
}

/// Polls with a new assertion, and waits for a decision as long as the service lets it.
fn poll(agent: &KeyAgent<'_>, id: &str) -> Reply {
    agent.call("/oauth2/token", &[("grant_type", CIBA), ("auth_req_id", id)])
}

#[test]
fn an_agent_with_a_key_asks_polls_completes_and_revokes() {
    let world = World::shared();
    let (agent, capability) = payer(world, "ciba", "bob");
    let server = world.resource_server(DOCS);
    let end = now() + 120;
    agent.patch(&keys(&[json!({"publicKey": agent.key.pem(), "notAfter": rfc3339(end)})]));
    wait_until("its key has an end", PROMPTLY, || {
        claims(&agent.obtain().expect(200).text("access_token"))["exp"].as_u64().is_some_and(|exp| exp <= end)
    });

    let asked = file(&agent, &capability);
    let (held, took) = std::thread::scope(|scope| {
        let poll = scope.spawn(|| {
            let begun = Instant::now();
            (poll(&agent, &asked.0), begun.elapsed())
        });
        // A person takes a moment; the poll is held meanwhile.
        std::thread::sleep(Duration::from_secs(2));
        world.decide("bob", &agent.namespace, &asked.1, "Approved").expect("approved");
        poll.join().expect("a thread")
    });
    let token = held.expect(200).text("access_token");
    assert!(took >= Duration::from_secs(1), "it was held for {took:?}");
    let says = claims(&token);
    assert_eq!((&says["sub"], &says["authorization_details"][0]["jit_request"]), (&json!(agent.subject()), &json!(asked.0)));
    assert!(says["exp"].as_u64().expect("exp") <= end, "it outlives the key");
    assert!(world.introspect(&server, &token).is_active());
    // Within ten seconds the same token again, to a new assertion only.
    let again = poll(&agent, &asked.0);
    if again.status == 200 {
        assert_eq!(claims(&again.text("access_token"))["jti"], says["jti"]);
    }
    agent.call("/jit/complete", &[("token", &token)]).expect(200);
    assert!(!world.introspect(&server, &token).is_active(), "done");

    let asked = file(&agent, &capability);
    approve(&agent, "bob", &asked);
    let token = poll(&agent, &asked.0).expect(200).text("access_token");
    assert!(world.introspect(&server, &token).is_active());
    agent.call("/oauth2/revoke", &[("token", &token)]).expect(200);
    assert!(!world.introspect(&server, &token).is_active(), "revoked");
    poll(&agent, &asked.0).refused(400, "invalid_grant");

    let asked = file(&agent, &capability);
    agent.call("/oauth2/revoke", &[("token", &asked.0)]).expect(200);
    poll(&agent, &asked.0).refused(400, "access_denied");
    // Somebody else's key finds no request of this agent.
    let asked = file(&agent, &capability);
    let stranger = world.key_agent("stranger");
    poll(&stranger, &asked.0).refused(400, "invalid_grant");
    stranger.call("/oauth2/revoke", &[("token", &asked.0)]).expect(200);
    approve(&agent, "bob", &asked);
    let token = poll(&agent, &asked.0).expect(200).text("access_token");
    stranger.call("/jit/complete", &[("token", &token)]).refused(403, "access_denied");
    stranger.call("/oauth2/revoke", &[("token", &token)]).refused(400, "unauthorized_client");
    assert!(world.introspect(&server, &token).is_active());
}

/// Polls for what is approved a second after `meanwhile` was done to the agent. Returns the reply.
fn polled_over(agent: &KeyAgent<'_>, capability: &str, approver: &str, meanwhile: impl FnOnce()) -> Reply {
    let asked = file(agent, capability);
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| poll(agent, &asked.0));
        std::thread::sleep(Duration::from_secs(1));
        meanwhile();
        agent.world.decide(approver, &agent.namespace, &asked.1, "Approved").expect("approved");
        poll.join().expect("a thread")
    })
}

#[test]
fn a_poll_that_was_held_is_worth_nothing_when_its_key_is_gone_by_then() {
    let world = World::shared();
    let (agent, capability) = payer(world, "held", "alice");
    let other = agent.with(&Arc::new(Key::new()));
    agent.patch(&keys(&[agent.key.entry(), other.key.entry()]));
    wait_until("both keys count", PROMPTLY, || other.obtain().status == 200);
    let reply = polled_over(&agent, &capability, "alice", || {
        agent.patch(&keys(&[other.key.entry()]));
        wait_until("the key counts no more", PROMPTLY, || agent.obtain().status != 200);
    });
    let answer = (reply.status, reply.body["error"].as_str());
    assert_eq!(answer, (401, Some("invalid_client")), "{:?}", reply.body);
    assert_eq!(record(agent.operator, &reply)["reason"], "credential_key_unknown");

    // The end of a key comes while its poll is held.
    let end = now() + 12;
    agent.patch(&keys(&[json!({"publicKey": other.key.pem(), "notAfter": rfc3339(end)})]));
    wait_until("its key has an end", PROMPTLY, || {
        claims(&other.obtain().expect(200).text("access_token"))["exp"].as_u64() == Some(end)
    });
    let reply = polled_over(&other, &capability, "alice", || {
        wait_until("the key has ended", PATIENCE, || now() > end);
    });
    let answer = (reply.status, reply.body["error"].as_str());
    assert_eq!(answer, (401, Some("invalid_client")), "{:?}", reply.body);
}

#[test]
fn a_poll_that_was_held_sees_an_end_of_its_key_that_was_set_meanwhile() {
    let world = World::shared();
    let (agent, capability) = payer(world, "shortened", "carol");
    let reply = polled_over(&agent, &capability, "carol", || {
        let ended = json!({"publicKey": agent.key.pem(), "notAfter": rfc3339(now() - 1)});
        agent.patch(&keys(&[ended]));
        wait_until("the key has ended", PROMPTLY, || agent.obtain().status != 200);
    });
    let answer = (reply.status, reply.body["error"].as_str());
    assert_eq!(answer, (401, Some("invalid_client")), "{:?}", reply.body);
}

#[test]
fn a_key_that_is_listed_twice_counts_as_long_as_one_of_its_entries() {
    let world = World::shared();
    let agent = world.key_agent("listed-twice");
    let ended = json!({"kid": "old", "publicKey": agent.key.pem(), "notAfter": rfc3339(now() - 60)});
    let current = json!({"kid": "new", "publicKey": agent.key.jwk().to_string()});
    for entries in [[current.clone(), ended.clone()], [ended, current]] {
        agent.patch(&keys(&entries));
        agent.says("IdentityResolved", "False", "KeyExpired");
        assert_eq!(agent.thumbprints(), [agent.key.thumbprint()], "the status says that it counts");
        let reply = agent.obtain();
        assert_eq!(reply.status, 200, "{}", agent.record(&reply));
        agent.ask(&agent.assertion_under(&json!({"alg": "EdDSA", "kid": "new"}))).expect(200);
    }
}

#[test]
fn openid_client_oauth4webapi_and_jose_authenticate_with_a_key_unmodified() {
    let world = World::shared();
    let (agent, capability) = payer(world, "clients", "bob");
    let directory = tempfile::tempdir().expect("a directory");
    let key_file = directory.path().join("key.pem");
    std::fs::write(&key_file, agent.key.private_pem()).expect("written");
    let mut command = Command::new("node");
    command
        .arg(repository().join("tests/clients/private-key-jwt.mjs"))
        .env("COUNTERSIGN_URL", agent.operator.url())
        .env("NODE_EXTRA_CA_CERTS", agent.operator.ca_file())
        .env("AUDIENCE", DOCS)
        .env("AGENT", agent.subject())
        .env("KID", agent.key.thumbprint())
        .env("KEY_FILE", key_file)
        .env("CAPABILITY", &capability);
    let output = std::thread::scope(|scope| {
        let node = scope.spawn(|| command.output().expect("node"));
        let pending = || {
            let list = world.kubectl().get_json(&["get", "jitrequests", "--namespace", &agent.namespace]).expect("a list");
            let items = list["items"].as_array().expect("items").clone();
            items.into_iter().find(|request| request["status"]["phase"] == "Pending")
        };
        let mut request = None;
        wait_until("a request waits for a person", PATIENCE, || {
            request = pending();
            request.is_some() || node.is_finished()
        });
        if let Some(request) = request {
            let name = request["metadata"]["name"].as_str().expect("a name");
            world.decide("bob", &agent.namespace, name, "Approved").expect("approved");
        }
        node.join().expect("node")
    });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\n(run `make clients` if a package is missing)");
    let outcome: Value = serde_json::from_str(&out).expect("the script says what it did");
    assert!(outcome["assertions"].as_u64().expect("a number") > 8, "{outcome}");
    crate::key_agents::is_kept_nowhere(agent.operator, &agent.key.private_pem());
}
