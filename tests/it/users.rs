//! The organisation's users: people whose ID tokens an agent presents to act for them. The agents here may act for nobody, so that each
//! request is refused, and the record says who the user was: whose ID token counts is one question, who may act for them another.

use crate::chains::{TYPE_ACCESS_TOKEN, TYPE_ID_TOKEN, provider, trusted_provider};
use crate::federation::{Federated, now, present, trusted_issuer};
use crate::support::issuer::{ED25519, Issuer, P256, RSA};
use crate::world::{
    CLIENT_ASSERTION, PATIENCE, Reply, TOKEN_EXCHANGE, TYPE_JWT, Tenant, World, agent, claims, header, stamped, wait_until,
    with_members,
};
use serde_json::{Value, json};

/// The agent asks for a token with which it would act for the user of `token`.
fn act_for(tenant: &Tenant<'_>, token: &str) -> Reply {
    tenant.world.request(&[
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", token),
        ("subject_token_type", TYPE_ID_TOKEN),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", &tenant.token),
    ])
}

/// Fails unless the user was recognised, and the agent may not act for them. Returns the record.
#[track_caller]
fn recognised(tenant: &Tenant<'_>, token: &str, name: &str) -> Value {
    let record = tenant.world.record_of(&act_for(tenant, token).refused(400, "invalid_request"));
    assert_eq!(
        (&record["reason"], &record["user"]),
        (&json!("delegation_not_granted"), &json!(format!("user:{name}"))),
        "{record}"
    );
    assert_eq!(record["subject"], tenant.subject());
    record
}

/// Fails unless nobody was recognised.
#[track_caller]
fn unrecognised(tenant: &Tenant<'_>, token: &str, reason: &str) {
    let record = tenant.world.record_of(&act_for(tenant, token).refused(400, "invalid_request"));
    assert_eq!(record["reason"], reason, "{record} for {}", claims(token));
    assert!(record.get("user").is_none(), "{record}");
}

#[test]
fn the_identity_provider_gives_real_id_tokens() {
    let provider = provider();
    let tokens = provider.log_in("research-app", "alice").expect("logged in");
    let id = claims(&tokens.id_token);
    assert_eq!(header(&tokens.id_token)["alg"], "RS256");
    assert_eq!((&id["iss"], &id["aud"], &id["sub"]), (&json!(provider.url()), &json!("research-app"), &json!("alice")));
    assert_eq!((&id["email"], &id["email_verified"]), (&json!("alice@acme.example"), &json!(true)));
    assert_eq!(id["groups"], json!(["research", "staff"]));
    assert!(id["nonce"].is_string());
    let access = claims(&tokens.access_token);
    assert_eq!(header(&tokens.access_token)["typ"], "at+jwt");
    assert_eq!((&access["iss"], &access["aud"], &access["email"]), (&id["iss"], &id["aud"], &id["email"]), "a twin");

    assert_eq!(header(&provider.log_in("modern-app", "alice").expect("logged in").id_token)["alg"], "ES256");
    let hasty = claims(&provider.log_in("hasty-app", "bob").expect("logged in").id_token);
    assert_eq!(hasty["exp"].as_u64(), hasty["iat"].as_u64().map(|iat| iat + 1));
    assert!(hasty.get("groups").is_none() && hasty.get("email").is_none());
    assert!(provider.log_in("research-app", "nobody").is_err());
}

#[test]
fn a_user_of_the_organisation_is_recognised_by_the_id_token() {
    let (provider, tenant) = (trusted_provider(), World::shared().tenant("users"));
    for application in ["research-app", "modern-app"] {
        let token = provider.log_in(application, "alice").expect("logged in").id_token;
        let record = recognised(&tenant, &token, "alice@acme.example");
        assert_eq!((&record["trusted_issuer"], &record["user_subject"]), (&json!("acme-idp"), &json!("alice")));
        // Again: an ID token is no assertion that counts once.
        recognised(&tenant, &token, "alice@acme.example");
    }
}

#[test]
fn a_token_of_the_identity_provider_that_is_not_for_us_is_refused() {
    let (provider, tenant) = (trusted_provider(), World::shared().tenant("strangers"));
    let log_in = |application, account| provider.log_in(application, account).expect("logged in");
    let refused = |token: &str| unrecognised(&tenant, token, "credential_claim_refused");
    refused(&log_in("other-app", "alice").id_token);
    refused(&log_in("research-app", "alice").access_token);
    // She says that she is alice.
    refused(&log_in("research-app", "mallory").id_token);
    // Has no e-mail address, so no name.
    refused(&log_in("research-app", "bob").id_token);
    // Is called as the administrator of a cluster is.
    refused(&log_in("research-app", "eve").id_token);
    let hasty = log_in("hasty-app", "alice").id_token;
    wait_until("the ID token has expired", PATIENCE, || {
        let reply = act_for(&tenant, &hasty).refused(400, "invalid_request");
        tenant.world.record_of(&reply)["reason"] == "credential_claim_refused"
    });
    assert!(claims(&hasty)["exp"].as_u64().is_some_and(|end| end <= now()));
}

#[test]
fn an_id_token_proves_no_agent_and_a_workloads_token_no_user() {
    let (provider, tenant) = (trusted_provider(), World::shared().tenant("roles"));
    let world = tenant.world;
    let user = provider.log_in("research-app", "alice").expect("logged in").id_token;
    for reply in present(world, &user) {
        assert!(reply.status == 400 || reply.status == 401, "{reply:?}");
        assert_eq!(world.record_of(&reply)["reason"], "credential_issuer_unknown");
    }
    // Nor does an Agent that lists the user as if it were a workload; it is told so.
    let identity = json!({"identity": {"federated": [{"issuer": "acme-idp", "subject": "alice"}]}});
    world.apply(&stamped(agent(&tenant.namespace, "confused", &identity), "admin")).expect("it can be written");
    let namespace = format!("--namespace={}", tenant.namespace);
    wait_until("it is told", PATIENCE, || {
        let object = world.kubectl().get_json(&["get", "agent", "confused", &namespace]).expect("the Agent");
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told = |condition: &Value| condition["message"].as_str().is_some_and(|message| message.contains("acme-idp"));
        conditions.iter().any(|condition| condition["status"] == "False" && told(condition))
    });
    for reply in present(world, &user) {
        assert!(reply.status == 400 || reply.status == 401, "{reply:?}");
    }

    let federated = Federated::start(world, "roles", &json!({}));
    let as_user = json!({"aud": "research-app", "email": "alice@acme.example", "email_verified": true});
    unrecognised(&tenant, &federated.token_with(&as_user), "credential_issuer_unknown");
    unrecognised(&tenant, &federated.token(), "credential_issuer_unknown");
    unrecognised(&tenant, &tenant.token, "credential_issuer_unknown");
    let ours = tenant.access_token();
    let reply = act_for(&tenant, &ours).refused(400, "invalid_request");
    assert!(world.record_of(&reply).get("user").is_none());
    // The type must say what it is.
    for (token, kind) in [(&user, TYPE_JWT), (&user, TYPE_ACCESS_TOKEN), (&tenant.token, TYPE_ID_TOKEN)] {
        let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", token.as_str()), ("subject_token_type", kind)];
        assert!(matches!(world.request(&form).status, 400 | 401), "{kind}");
    }
}

#[test]
fn nobody_asks_for_a_user_without_proving_which_agent_asks() {
    let (provider, tenant) = (trusted_provider(), World::shared().tenant("anonymous"));
    let user = provider.log_in("research-app", "alice").expect("logged in").id_token;
    let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", user.as_str()), ("subject_token_type", TYPE_ID_TOKEN)];
    tenant.world.request(&form).refused(400, "invalid_request");
    let assertion = [("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", user.as_str())];
    tenant.world.request(&[&form[..], &assertion].concat()).refused(401, "invalid_client");
}

/// Users of the test issuer, whose tokens can have any shape.
fn users<'a>(world: &'a World, purpose: &str, mappings: &Value) -> Federated<'a> {
    let federated = Federated::apart(world, purpose);
    federated.trust(&json!({"provides": "Users", "issuer": {"audiences": ["app", "app-too"]}, "claimMappings": mappings}));
    federated.is_ready();
    federated
}

/// The claims of an ID token (OpenID Connect Core section 2).
fn id_claims(issuer: &Issuer) -> Value {
    let now = now();
    json!({"iss": issuer.url(), "sub": "248289761001", "aud": "app", "iat": now, "exp": now + 300, "email": "carol@acme.example",
        "email_verified": true, "groups": ["a", "b"], "name": "carol"})
}

#[test]
fn an_id_token_is_exact() {
    let world = World::shared();
    let (tenant, issuer) = (world.tenant("id"), users(world, "id", &json!({"username": {"claim": "email", "prefix": "oidc:"}})));
    let good = id_claims(&issuer.issuer);
    let sign = |changed: Value| issuer.token_of(P256, &with_members(good.clone(), &changed));
    for harmless in
        [json!({}), json!({"azp": "app"}), json!({"aud": ["app-too", "x"]}), json!({"aud": ["app"], "azp": "app-too"})]
    {
        recognised(&tenant, &sign(harmless), "carol@acme.example");
    }
    for key in [RSA, ED25519] {
        recognised(&tenant, &issuer.token_of(key, &good), "carol@acme.example");
    }
    let now = now();
    for changed in [
        json!({"aud": "other"}),
        json!({"aud": []}),
        json!({"aud": ["app", 7]}),
        json!({"azp": "other"}),
        json!({"azp": ["app"]}),
        json!({"exp": now - 30}),
        json!({"exp": now + 7200}),
        json!({"iat": null}),
        json!({"iat": now + 60, "exp": now + 120}),
        json!({"nbf": now + 60}),
        json!({"sub": ""}),
        json!({"sub": null}),
        json!({"email": null}),
        json!({"email": ["carol@acme.example"]}),
        json!({"email": ""}),
        json!({"email": "carol\n@acme.example"}),
        json!({"email": " carol@acme.example"}),
        json!({"email": "c".repeat(300)}),
        json!({"email": "system:serviceaccount:kube-system:default"}),
        json!({"email_verified": false}),
        json!({"email_verified": "true"}),
        json!({"email_verified": null}),
    ] {
        unrecognised(&tenant, &sign(changed.clone()), "credential_claim_refused");
    }
    let slash = format!("{}/", issuer.issuer.url());
    unrecognised(&tenant, &sign(json!({"iss": slash})), "credential_issuer_unknown");
    // An ID token has no type, or the plainest (RFC 8725 section 3.11).
    for typ in ["at+jwt", "logout+jwt", "secevent+jwt", "client-authentication+jwt", "JOSE"] {
        let header = json!({"alg": "ES256", "kid": P256, "typ": typ});
        unrecognised(&tenant, &issuer.issuer.sign(&header, &good).expect("a token"), "credential_claim_refused");
    }
    issuer.issuer.add_key("late", "ES256".parse().expect("an algorithm")).expect("added");
    issuer.issuer.publish("late", false).expect("withdrawn");
    unrecognised(&tenant, &issuer.token_of("late", &good), "credential_key_unknown");
}

#[test]
fn a_mapping_makes_the_name_that_kubernetes_knows_and_never_one_of_its_own() {
    let world = World::shared();
    let tenant = world.tenant("mapping");
    let expression = json!({"username": {"expression": "claims.name + '@acme'"}, "groups": {"expression": "claims.groups"}});
    let (mapped, plain) = (
        users(world, "expression", &expression),
        users(world, "plain", &json!({"username": {"claim": "sub"}, "groups": {"claim": "groups"}})),
    );
    recognised(&tenant, &mapped.token_of(P256, &id_claims(&mapped.issuer)), "carol@acme");
    recognised(&tenant, &plain.token_of(P256, &id_claims(&plain.issuer)), "248289761001");
    for (issuer, changed) in [
        (&mapped, json!({"name": "system:node"})),
        (&mapped, json!({"name": 7})),
        (&mapped, json!({"groups": ["a", "system:masters"]})),
        (&mapped, json!({"groups": "system:masters"})),
        (&mapped, json!({"groups": {"a": true}})),
        (&plain, json!({"sub": "system:admin"})),
        (&plain, json!({"groups": ["system:masters"]})),
        (&plain, json!({"groups": [7]})),
    ] {
        let token = issuer.token_of(P256, &with_members(id_claims(&issuer.issuer), &changed));
        unrecognised(&tenant, &token, "credential_claim_refused");
    }
    // An address that nobody has verified is no name, whichever way it is written.
    let careless = json!({"provides": "Users", "issuer": {"audiences": ["app"]}, "claimMappings": {"username": {"expression": "claims.email"}}});
    let refusal = world.apply(&trusted_issuer(world, "careless", &plain.issuer, &careless)).expect_err("refused");
    assert!(refusal.contains("email_verified"), "{refusal}");
}
