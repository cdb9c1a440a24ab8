//! Hostile and malformed requests for approval: refused with the right code, in bounded time, with one record, and nothing is filed.

use crate::payments::{Asked, CIBA, ask, ask_at, asked, details, docs_server, kubectl_of, object, send};
use crate::world::{DOCS, PATIENCE, Reply, Tenant, World, wait_until};
use serde_json::{Value, json};
use std::time::Instant;

/// Asks with this text as `authorization_details`.
fn ask_raw(tenant: &Tenant<'_>, text: &str) -> Reply {
    ask_at(&tenant.world.operator.url(), tenant, &[("authorization_details", text)], &[])
}

/// An agent whose payments are held to a schema.
fn held_to_a_schema<'a>(world: &'a World, purpose: &str) -> (Tenant<'a>, String) {
    let schema = json!({"type": "object", "required": ["amount"], "additionalProperties": false,
        "properties": {"amount": {"type": "number", "maximum": 1000}, "to": {"type": "object"}}});
    let name = world.capability(&json!({"parameterSchema": schema}));
    (world.tenant_with(purpose, &json!({"capabilities": [{"name": name}]})), name)
}

#[test]
fn parameters_that_could_be_read_in_two_ways_are_refused() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("parameters");
    let with = |parameters: &str| {
        format!(
            r#"[{{"type":"countersign_operation","capability":"{capability}","resource":"invoice:2026/7","parameters":{parameters}}}]"#
        )
    };
    let deep = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(60_000));
    for (bad, why) in [
        (r#"{"amount":5,"amount":500}"#, "twice"),
        (r#"{"amount":5,"\u0061mount":500}"#, "twice"),
        (r#"{"to":{"iban":"a","iban":"b"}}"#, "twice"),
        (r#"{"amount":9007199254740993}"#, "exactly"),
        (r#"{"amount":0.1000000000000000055}"#, "exactly"),
        (r#"{"amount":1e400}"#, ""),
        (r#"{"amount":-0}"#, "exactly"),
        (r#"{"amount":1e300}"#, "exactly"),
        ("{\"\u{430}mount\":5}", "ASCII"),
        ("{\"amount\u{200b}\":5}", "ASCII"),
        ("{\"to\":\"evil\u{202e}live\"}", "text-direction"),
        (r#"{"to":"a\u0000b"}"#, "control"),
        (r#"{"":1}"#, "name"),
        (&deep(9), "deeper than 8"),
        (&deep(64), "nested too deep"),
        (&deep(4000), ""),
        (&long, "longer than 4096"),
        ("[]", "object"),
        ("null", "object"),
        ("5", "object"),
        (r#"{"amount":05}"#, ""),
        (r#"{"amount":NaN}"#, ""),
        (r#"{"amount":5}}"#, ""),
    ] {
        let begun = Instant::now();
        let refused = ask_raw(&tenant, &with(bad)).refused(400, "invalid_authorization_details");
        assert!(begun.elapsed() < PATIENCE / 10, "bounded");
        let said = refused.text("error_description");
        assert!(said.contains(why), "{}: {said}", bad.chars().take(60).collect::<String>());
        world.record_of(&refused);
    }
    let sixty_four = format!(r#"{{"a":"{}"}}"#, "x".repeat(66_000));
    assert_eq!(ask_raw(&tenant, &with(&sixty_four)).status, 413, "the body is bounded before anything is parsed");
    assert!(tenant.requests().is_empty(), "nothing was filed");
    ask_raw(&tenant, &with("{\n\t\"amount\": 5.00,\r\n \"to\": \"Jürgen 🦀\"}")).expect(200);
}

#[test]
fn details_are_exactly_one_operation_with_known_members() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("details");
    let good = details(&capability, "invoice:2026/7", &json!({}));
    let change = |member: &str, value: Value| {
        let mut details = good.clone();
        details[0][member] = value;
        details.to_string()
    };
    let two = json!([good[0], good[0]]).to_string();
    for bad in [
        "".to_owned(),
        "x".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        "[1]".to_owned(),
        good[0].to_string(),
        two,
        format!("{good}{good}"),
        change("type", json!("payment_initiation")),
        change("type", json!(null)),
        change("capability", json!(null)),
        change("capability", json!(["a"])),
        change("capability", json!("d\u{43e}c.read")),
        change("capability", json!("a b")),
        change("resource", json!("invoice:*")),
        change("resource", json!("invoice:2026/../7")),
        change("resource", json!("invoice")),
        change("resource", json!("invoice:2026/7\n")),
        change("resource", json!(7)),
        change("expiration_seconds", json!(0)),
        change("expiration_seconds", json!(-1)),
        change("expiration_seconds", json!(901)),
        change("expiration_seconds", json!("300")),
        change("expiration_seconds", json!(1.5)),
        change("surprise", json!(true)),
        change("onBehalfOf", json!({"user": "alice"})),
        change("actions", json!(["pay"])),
    ] {
        let refused = ask_raw(&tenant, &bad);
        assert!(refused.status == 400, "{bad}: {:?}", refused.body);
        let code = refused.text("error");
        assert!(code == "invalid_authorization_details" || (bad.is_empty() && code == "invalid_request"), "{bad}: {code}");
    }
    let refused = ask_raw(&tenant, &change("resource", json!("invoice:2025/7"))).refused(400, "invalid_authorization_details");
    assert_eq!(world.record_of(&refused)["reason"], "resource_not_granted");
    let mut without = good.clone();
    without[0].as_object_mut().expect("an object").remove("resource");
    let refused = ask(&tenant, &without).refused(400, "invalid_authorization_details");
    assert_eq!(
        world.record_of(&refused)["reason"],
        "resource_not_granted",
        "where it is limited, nothing named is nothing allowed"
    );
    ask_raw(&tenant, &change("capability", json!("not.held"))).refused(400, "invalid_scope");
    ask_raw(&tenant, &change("audience", json!("https://other.example.com"))).refused(400, "invalid_target");
    ask_raw(&tenant, &change("audience", json!("agent:a/b"))).refused(400, "invalid_target");
    assert!(tenant.requests().is_empty(), "nothing was filed");
    ask_raw(&tenant, &change("audience", json!(DOCS))).expect(200);
}

#[test]
fn parameters_are_held_to_the_schema_of_the_capability() {
    let world = World::shared();
    let (tenant, capability) = held_to_a_schema(world, "schema-of");
    for (bad, where_) in [
        (json!({}), "required"),
        (json!({"amount": 1001}), "/amount"),
        (json!({"amount": "5"}), "/amount"),
        (json!({"amount": 5, "to": "bob"}), "/to"),
        (json!({"amount": 5, "fee": 1}), ""),
    ] {
        let refused = ask(&tenant, &details(&capability, "invoice:1", &bad)).refused(400, "invalid_authorization_details");
        let said = refused.text("error_description");
        assert!(said.contains(where_) && said.contains("do not match the schema"), "{bad}: {said}");
        assert!(!said.contains("1001"), "a value is not repeated: {said}");
        assert_eq!(world.record_of(&refused)["reason"], "parameters_refused");
    }
    ask(&tenant, &details(&capability, "invoice:1", &json!({"amount": 1000}))).expect(200);
}

#[test]
fn a_request_has_exactly_one_hint_and_every_parameter_its_form() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("form");
    let (url, other) = (world.operator.url(), world.tenant("form-other"));
    let good = details(&capability, "invoice:2026/7", &json!({})).to_string();
    let raw = |form: &[(&str, &str)]| {
        send(&url, "/oauth2/bc-authorize", &tenant, &[&[("authorization_details", good.as_str())], form].concat(), &[])
    };
    let hint = tenant.subject();
    raw(&[]).refused(400, "invalid_request");
    raw(&[("login_hint", &other.subject())]).refused(400, "unknown_user_id");
    raw(&[("login_hint", "alice@acme.com")]).refused(400, "unknown_user_id");
    raw(&[("login_hint", &hint), ("login_hint_token", "x")]).refused(400, "invalid_request");
    raw(&[("login_hint_token", "x")]).refused(400, "expired_login_hint_token");
    raw(&[("id_token_hint", "x")]).refused(400, "invalid_request");
    raw(&[("login_hint", &hint), ("client_id", &other.subject())]).refused(401, "invalid_client");
    for expiry in ["0", "-1", "P1Y", "1.5", "604801", "99999999999999999999", "+5", "05", " 5", "5 "] {
        raw(&[("login_hint", &hint), ("requested_expiry", expiry)]).refused(400, "invalid_request");
    }
    for scope in ["document.read", "openid document.read", &format!("{capability} "), "OPENID"] {
        raw(&[("login_hint", &hint), ("scope", scope)]).refused(400, "invalid_scope");
    }
    let huge = "x".repeat(1001);
    for message in [huge.as_str(), "a\u{202e}b", "a\u{200b}b", "a\u{e0041}b"] {
        raw(&[("login_hint", &hint), ("binding_message", message)]).refused(400, "invalid_binding_message");
    }
    raw(&[("login_hint", &hint), ("binding_message", "a\nb")]).refused(400, "invalid_request");
    raw(&[("login_hint", &hint), ("audience", "https://a.example"), ("audience", "https://b.example")])
        .refused(400, "invalid_target");
    // No credential, and one that is none.
    let anonymous = world.post("/oauth2/bc-authorize", &[("login_hint", &hint), ("authorization_details", &good)]);
    anonymous.refused(401, "invalid_client");
    let mut form = vec![("login_hint", hint.as_str()), ("authorization_details", good.as_str())];
    form.extend([("client_assertion_type", crate::world::CLIENT_ASSERTION), ("client_assertion", "x.y.z")]);
    world.post("/oauth2/bc-authorize", &form).refused(401, "invalid_client");
    assert!(tenant.requests().is_empty(), "nothing was filed");
    raw(&[("login_hint", &hint), ("scope", &format!("openid {capability}")), ("binding_message", "Größe 🦀")]).expect(200);
}

#[test]
fn the_same_key_is_the_same_request() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("key");
    let url = world.operator.url();
    let file = |key: &str, resource: &str| {
        let details = details(&capability, resource, &json!({"amount": 5})).to_string();
        ask_at(&url, &tenant, &[("authorization_details", &details)], &[("idempotency-key", key)])
    };
    let first = file("pay-7", "invoice:2026/7").expect(200).text("auth_req_id");
    for key in ["pay-7", "\"pay-7\""] {
        assert_eq!(file(key, "invoice:2026/7").expect(200).text("auth_req_id"), first);
    }
    file("pay-7", "invoice:2026/8").refused(400, "invalid_request");
    let parallel: Vec<String> = std::thread::scope(|scope| {
        let files: Vec<_> =
            (0..8).map(|_| scope.spawn(|| file("pay-9", "invoice:2026/9").expect(200).text("auth_req_id"))).collect();
        files.into_iter().map(|f| f.join().expect("answered")).collect()
    });
    assert!(parallel.iter().all(|id| *id == parallel[0]) && parallel[0] != first, "{parallel:?}");
    assert_eq!(tenant.requests().len(), 2);
    for key in ["", "a b", "\u{e9}", &"k".repeat(256)] {
        assert_eq!(file(key, "invoice:2026/7").status, 400, "{key}");
    }
    let (other, capability) = world.payments_tenant("key-other");
    let details = details(&capability, "invoice:2026/7", &json!({"amount": 5})).to_string();
    let theirs = ask_at(&url, &other, &[("authorization_details", &details)], &[("idempotency-key", "pay-7")]);
    assert_ne!(theirs.expect(200).text("auth_req_id"), first, "another agent's key is another key");
}

#[test]
fn a21_an_agent_that_asks_too_much_is_stopped_and_nobody_else() {
    const OPEN_MAX: usize = 32;
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("flood");
    let (other, theirs) = world.payments_tenant("calm");
    world.approver("bob", &other.namespace, &theirs);
    let good = details(&capability, "invoice:2026/7", &json!({}));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..64).map(|_| scope.spawn(|| ask(&tenant, &good).status)).collect();
        asks.into_iter().map(|a| a.join().expect("answered")).collect()
    });
    assert!(statuses.iter().all(|s| *s == 200 || *s == 429), "{statuses:?}");
    // One that is just being filed may count twice for a moment: then an agent hears 429 early, and never too late.
    let filed = statuses.iter().filter(|s| **s == 200).count();
    assert!(filed <= OPEN_MAX && filed > OPEN_MAX / 2, "{statuses:?}");
    let more = (0..=OPEN_MAX).take_while(|_| ask(&tenant, &good).status == 200).count();
    assert_eq!(filed + more, OPEN_MAX);
    assert_eq!(tenant.requests().len(), OPEN_MAX, "and that is all there are");
    let refused = ask(&tenant, &good).refused(429, "temporarily_unavailable");
    assert_eq!(
        (&refused.headers["retry-after"], world.record_of(&refused)["reason"].as_str()),
        (&"1".parse().expect("a value"), Some("too_many_requests"))
    );
    let asked = asked(&other, &theirs);
    asked.approve("bob");
    asked.token();

    // With kubectl there is no counter before the API server: the operator denies what is too much.
    let object = object(&tenant, "one-more", &capability, &json!({}));
    kubectl_of(&tenant).run_with_input(&["create", "-f", "-"], &object.to_string()).expect("stored");
    let one_more =
        || tenant.requests().into_iter().find(|r| r["metadata"]["name"] == "one-more").expect("there")["status"].clone();
    wait_until("it is denied", PATIENCE, || one_more()["phase"] == "Denied");
    assert_eq!(one_more()["conditions"][0]["reason"], "TooManyRequests");
}

#[test]
fn j11_a_token_with_another_text_for_its_signature_completes_nothing() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("malleable");
    let server = docs_server(world);
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    asked.approve("bob");
    let token = asked.token();
    let (signed, signature) = token.rsplit_once('.').expect("a JWS");
    let bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    // S + l, little-endian: the same point, another text.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut added = bytes.clone();
    let mut carry = 0u16;
    for (byte, l) in added[32..].iter_mut().zip(order) {
        carry += u16::from(*byte) + u16::from(l);
        *byte = (carry & 0xff) as u8;
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    let mut identity = bytes.clone();
    identity[..32].copy_from_slice(&[0xff; 32]);
    let padded = format!("{token}=");
    for forged in [&added, &identity].map(|bytes| format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes))).iter().chain([&padded]) {
        assert!(!world.introspect(&server, forged).is_active());
        asked.complete(forged).refused(400, "invalid_token");
        asked.revoke(forged).expect(200);
    }
    assert!(world.introspect(&server, &token).is_active(), "none of them has ended it");
    asked.complete(&token).expect(200);
}

#[test]
fn what_is_no_token_for_one_operation_completes_nothing() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("complete");
    let standing = world.tenant("complete-standing");
    let url = world.operator.url();
    let complete = |who: &Tenant<'_>, form: &[(&str, &str)]| send(&url, "/jit/complete", who, form, &[]);
    complete(&tenant, &[]).refused(400, "invalid_request");
    for token in ["x", "a.b.c", tenant.token.as_str(), &"x".repeat(20_000)] {
        complete(&tenant, &[("token", token)]).refused(400, "invalid_token");
    }
    complete(&standing, &[("token", &standing.access_token())]).refused(400, "invalid_token");
    world.post("/jit/complete", &[("token", "x")]).refused(401, "invalid_client");
    world.post("/oauth2/revoke", &[("token", "x")]).refused(401, "invalid_client");
    let bearer = world.http.post(format!("{url}/oauth2/revoke")).bearer_auth(&tenant.token).form(&[("token", "x")]).send();
    Reply::from(bearer.expect("an answer")).refused(401, "invalid_client");
    for path in ["/jit/complete", "/oauth2/revoke", "/oauth2/bc-authorize"] {
        let reply: Reply = world.http.get(format!("{url}{path}")).send().expect("an answer").into();
        reply.refused(405, "invalid_request");
        let json = world.http.post(format!("{url}{path}")).json(&json!({"token": "x"})).send().expect("an answer");
        Reply::from(json).refused(400, "invalid_request");
    }
    let poll = |form: &[(&str, &str)]| send(&url, "/oauth2/token", &tenant, &[&[("grant_type", CIBA)], form].concat(), &[]);
    poll(&[]).refused(400, "invalid_request");
    for id in ["x", "' OR 1=1--", "../../x", &"x".repeat(10_000), tenant.pod_uid.as_str()] {
        poll(&[("auth_req_id", id)]).refused(400, "invalid_grant");
    }
    let asked = asked(&tenant, &capability);
    let anonymous = world.request(&[("grant_type", CIBA), ("auth_req_id", &asked.id)]);
    anonymous.refused(401, "invalid_client");
    let with_secret = poll(&[("auth_req_id", &asked.id), ("client_secret", "x")]);
    with_secret.refused(401, "invalid_client");
}

#[test]
fn what_is_wrong_in_a_stored_object_is_denied_with_the_reason() {
    // A18, and parameters that never passed through the token service.
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("stored");
    let agent = kubectl_of(&tenant);
    let bad = [
        json!({"\u{430}mount": 5}),
        json!({"amount": 9_007_199_254_740_993_u64}),
        json!({"amount": 1e300}),
        json!({"to": "a\u{202e}b"}),
        json!({"a": "x".repeat(64 * 1024)}),
        json!({"amount": {"$serde_json::private::RawValue": "1000000"}}),
    ];
    for (n, parameters) in bad.iter().enumerate() {
        let object = object(&tenant, &format!("bad-{n}"), &capability, parameters);
        agent.run_with_input(&["create", "-f", "-"], &object.to_string()).expect("stored");
    }
    let stored = tenant.requests();
    let filed: Vec<Asked<'_>> =
        stored.iter().map(|r| Asked::of(&tenant, r["metadata"]["uid"].as_str().expect("a uid").to_owned())).collect();
    assert_eq!(filed.len(), bad.len());
    for asked in filed {
        asked.reaches("Denied");
        let status = asked.status();
        let why = status["conditions"][0]["message"].as_str().expect("a message");
        assert!(why.starts_with("spec.operation: parameters"), "{}: {why}", asked.name);
        assert!(status["digest"].is_null(), "nothing to approve");
    }

    // What nests deeper than our own reader goes is not even stored: one such object would stop the watch of all.
    let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let create = |parameters: &str| {
        let text = object(&tenant, "deep", &capability, &json!("HERE")).to_string().replace("\"HERE\"", parameters);
        agent.run_with_input(&["create", "-f", "-"], &text).map_err(|f| f.stderr)
    };
    create(&nested(r#"{"a":"#, "}", 7)).expect("seven objects and what is in the last are eight levels");
    for n in [8, 40, 200, 2000] {
        let refused = create(&nested(r#"{"a":"#, "}", n)).expect_err("deeper is not");
        assert!(
            refused.contains("deeper than 8") || refused.contains("max depth") || refused.contains("recursion"),
            "{n}: {refused}"
        );
        let lists = format!(r#"{{"a":{}}}"#, nested("[", "]", n));
        create(&lists).expect_err("nor in lists");
    }
    let after = asked(&tenant, &capability);
    assert_eq!(after.status()["phase"], "Pending", "and the operator goes on");
}
