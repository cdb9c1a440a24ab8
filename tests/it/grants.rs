//! The three grants with which a pod exchanges its ServiceAccount token.

use crate::world::{CLIENT_ASSERTION, DOCS, JWT_BEARER, TOKEN_EXCHANGE, TYPE_JWT, Tenant, World, claims, header};
use serde_json::{Value, json};

/// The parameters of each grant that present `token`.
fn each_grant(token: &str) -> [(&'static str, Vec<(&'static str, &str)>); 3] {
    [
        (
            "client_credentials",
            vec![("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", token)],
        ),
        ("jwt-bearer", vec![("grant_type", JWT_BEARER), ("assertion", token)]),
        ("token-exchange", vec![("grant_type", TOKEN_EXCHANGE), ("subject_token", token), ("subject_token_type", TYPE_JWT)]),
    ]
}

fn with<'a>(form: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    form.iter().chain(more).copied().collect()
}

#[test]
fn each_grant_turns_a_pods_token_into_a_scoped_access_token() {
    let tenant = World::shared().tenant("grants");
    let agent = tenant.agent();
    for (grant, form) in each_grant(&tenant.token) {
        let reply = tenant.world.request(&form).expect(200);
        assert_eq!(reply.headers["cache-control"], "no-store", "{grant}");
        assert_eq!(reply.headers["content-type"], "application/json", "{grant}");
        assert_eq!((reply.text("token_type").as_str(), reply.body["expires_in"].as_u64()), ("Bearer", Some(300)), "{grant}");
        assert_eq!(reply.text("scope"), "document.read web.search", "{grant}");
        let issued_type = (grant == "token-exchange").then_some("urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(reply.body["issued_token_type"].as_str(), issued_type, "{grant}");
        assert!(reply.body.get("refresh_token").is_none(), "{grant}");

        let token = reply.text("access_token");
        assert_eq!((&header(&token)["typ"], &header(&token)["alg"]), (&json!("at+jwt"), &json!("EdDSA")), "RFC 9068");
        let claims = claims(&token);
        let subject = tenant.subject();
        assert_eq!(claims["iss"], tenant.world.operator.issuer());
        assert_eq!((&claims["sub"], &claims["client_id"], &claims["aud"]), (&json!(subject), &json!(subject), &json!(DOCS)));
        assert_eq!(claims["exp"].as_u64(), claims["iat"].as_u64().map(|iat| iat + 300));
        assert_eq!(claims["agent_uid"], agent["metadata"]["uid"]);
        let link = json!({"sub": subject, "agent_uid": agent["metadata"]["uid"], "epoch": 0, "sa": "bot", "pod": tenant.pod_uid});
        assert_eq!(claims["links"], json!([link]));
        let limits =
            json!([{"type": "countersign_capability", "capability": "document.read", "resources": ["document:reports/*"]}]);
        assert_eq!((&claims["authorization_details"], &reply.body["authorization_details"]), (&limits, &limits));
    }
}

#[test]
fn every_token_has_an_identifier_of_its_own() {
    let tenant = World::shared().tenant("jti");
    let ids: std::collections::HashSet<String> =
        (0..20).map(|_| claims(&tenant.access_token())["jti"].as_str().expect("jti").to_owned()).collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn x3_scope_audience_and_client_id_bind_alike_whatever_the_grant() {
    let tenant = World::shared().tenant("one-chokepoint");
    let subject = tenant.subject();
    for (grant, form) in each_grant(&tenant.token) {
        let ask = |more: &[(&'static str, &str)]| {
            let more: Vec<(&str, &str)> = more.to_vec();
            tenant.world.request(&with(&form, &more))
        };
        let narrowed = ask(&[("scope", "web.search")]).expect(200);
        assert_eq!(narrowed.text("scope"), "web.search", "{grant}");
        assert!(
            claims(&narrowed.text("access_token")).get("authorization_details").is_none(),
            "{grant}: a limit of another capability"
        );
        let refused = ask(&[("scope", "web.search document.delete")]).refused(400, "invalid_scope");
        assert!(refused.text("error_description").contains("document.delete is not granted"), "{grant}: the reason");
        assert_eq!(tenant.world.record_of(&refused)["reason"], "capability_not_granted", "{grant}");
        assert_eq!(ask(&[("audience", DOCS)]).expect(200).body["expires_in"], 300, "{grant}");
        assert_eq!(ask(&[("resource", DOCS)]).expect(200).body["expires_in"], 300, "{grant}");
        ask(&[("audience", "https://other.example.com")]).refused(400, "invalid_target");
        ask(&[("resource", "https://docs.example.com/")]).refused(400, "invalid_target");
        ask(&[("client_id", &subject)]).expect(200);
        let (status, error) = match grant {
            "client_credentials" => (401, "invalid_client"),
            "jwt-bearer" => (400, "invalid_grant"),
            _ => (400, "invalid_request"),
        };
        ask(&[("client_id", "agent:other/bot")]).refused(status, error);
    }
}

#[test]
fn x1_c2_a_scope_is_exactly_what_is_asked_or_nothing() {
    let tenant = World::shared().tenant("scope");
    let ask = |scope: &str| {
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", &tenant.token),
            ("subject_token_type", TYPE_JWT),
            ("scope", scope),
        ];
        tenant.world.request(&form)
    };
    assert_eq!(ask("document.read document.read").expect(200).text("scope"), "document.read");
    for scope in [
        "",
        " ",
        "document.read ",
        " document.read",
        "document.read  web.search",
        "document.read,web.search",
        "Document.Read",
        "document.read/..",
        "*",
        "document.*",
        "d\u{43e}cument.read",
        "document.read\u{a0}web.search",
        "-document.read",
        "openid",
    ] {
        ask(scope).refused(400, "invalid_scope");
    }
}

#[test]
fn x2_a_target_is_one_audience_of_the_agent_character_by_character() {
    let tenant = World::shared()
        .tenant_with("target", &json!({"tokens": {"audiences": [{"name": DOCS}, {"name": "https://api.example.com"}]}}));
    let base = [("grant_type", TOKEN_EXCHANGE), ("subject_token", tenant.token.as_str()), ("subject_token_type", TYPE_JWT)];
    let ask = |more: &[(&'static str, &'static str)]| tenant.world.request(&with(&base, more));
    ask(&[]).refused(400, "invalid_target");
    ask(&[("audience", DOCS)]).expect(200);
    ask(&[("audience", DOCS), ("resource", DOCS)]).expect(200);
    for bad in [
        &[("audience", DOCS), ("audience", "https://api.example.com")][..],
        &[("audience", DOCS), ("resource", "https://evil.example")],
        &[("audience", "*")],
        &[("audience", "https://docs.example.com.evil")],
        &[("audience", "https://docs.example.co")],
        &[("audience", "HTTPS://DOCS.EXAMPLE.COM")],
        &[("audience", "")],
        &[("resource", "docs")],
        &[("resource", "https://docs.example.com#x")],
        &[("audience", "agent:research/bot")],
    ] {
        ask(bad).refused(400, "invalid_target");
    }
}

#[test]
fn a_token_never_outlives_the_credential_it_was_exchanged_for() {
    let world = World::shared();
    let tenant = world.tenant_with("lifetime", &json!({"tokens": {"expirationSeconds": 900, "audiences": [{"name": DOCS}]}}));
    let issuer = world.operator.issuer();
    let short =
        crate::support::workload::pod_token(&world.kubectl(), &tenant.namespace, "bot", "pod", &tenant.pod_uid, issuer, 600);
    let short = short.expect("a token of ten minutes");
    let token = world.exchange(&short).expect(200).text("access_token");
    assert_eq!(claims(&token)["exp"], claims(&short)["exp"]);
    let long = world.exchange(&tenant.token).expect(200);
    assert_eq!(long.body["expires_in"], 900);
}

#[test]
fn a_client_may_authenticate_beside_the_grant_but_only_as_the_same_agent() {
    let world = World::shared();
    let (tenant, other): (Tenant<'_>, Tenant<'_>) = (world.tenant("client"), world.tenant("other-client"));
    let form = |assertion: &'static str| [("client_assertion_type", assertion)];
    for (grant, grant_form) in each_grant(&tenant.token).into_iter().skip(1) {
        let same = with(&with(&grant_form, &form(CLIENT_ASSERTION)), &[("client_assertion", tenant.token.as_str())]);
        assert_eq!(world.request(&same).expect(200).body["token_type"], "Bearer", "{grant}");
        let different = with(&with(&grant_form, &form(CLIENT_ASSERTION)), &[("client_assertion", other.token.as_str())]);
        world.request(&different).refused(401, "invalid_client");
    }
}

#[test]
fn an_agent_without_capabilities_or_audience_gets_no_token() {
    let world = World::shared();
    let idle = world.tenant_with("idle", &json!({"capabilities": []}));
    world.exchange(&idle.token).refused(400, "invalid_scope");
    let namespace = world.namespace("nowhere");
    let kubectl = world.kubectl();
    crate::support::workload::create_service_account(&kubectl, &namespace, "bot").expect("a ServiceAccount");
    world.apply(&crate::world::agent(&namespace, "bot", &json!({"tokens": Value::Null}))).expect("accepted");
    kubectl
        .wait_for(
            &namespace,
            "agent/bot",
            "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=NoAudience",
            crate::world::PATIENCE,
        )
        .expect("the condition says what is missing");
}

#[test]
fn c8_labels_and_annotations_give_nothing() {
    let tenant = World::shared().tenant("labels");
    let labels = json!({"metadata": {"labels": {"admin": "true", "countersign.dev/capabilities": "all"}, "annotations": {"scope": "document.delete"}}});
    tenant.patch(&labels);
    assert_eq!(tenant.world.exchange(&tenant.token).expect(200).text("scope"), "document.read web.search");
}
