//! Tokens that are not what they say. Some are signed with the API server's own key, so that nothing but the claim under
//! test is wrong with them.

use crate::support::trap::Trap;
use crate::support::workload;
use crate::world::{Tenant, World, claims, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Sends `token` by each grant, expects each refusal and the same reason in each record.
#[track_caller]
pub fn refused_everywhere(world: &World, token: &str, reason: &str) {
    let replies = [
        world.exchange(token).refused(400, "invalid_request"),
        world.request(&[("grant_type", crate::world::JWT_BEARER), ("assertion", token)]).refused(400, "invalid_grant"),
        world
            .request(&[
                ("grant_type", "client_credentials"),
                ("client_assertion_type", crate::world::CLIENT_ASSERTION),
                ("client_assertion", token),
            ])
            .refused(401, "invalid_client"),
    ];
    for reply in replies {
        assert_eq!(world.record_of(&reply)["reason"], reason);
        assert!(!reply.text("error_description").contains("signature"), "no hint about which check failed");
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// JSON in base64url, as a part of a token.
pub fn encode(value: &Value) -> String {
    B64.encode(value.to_string())
}

/// A token with this header and these claims, signed by the API server's own key.
pub fn signed_by_the_api_server(world: &World, header: &Value, claims: &Value) -> String {
    sign_text(world, &format!("{}.{}", encode(header), encode(claims)))
}

fn sign_text(world: &World, signed: &str) -> String {
    let pem =
        std::fs::read(world.cluster.directory().path().join("service-account.key")).expect("the key of the cluster we started");
    let key = EncodingKey::from_rsa_pem(&pem).expect("an RSA key");
    format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::RS256).expect("a signature"))
}

/// A good token of `tenant`, with the claims changed by `change`, still rightly signed.
fn altered(tenant: &Tenant<'_>, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(&tenant.token);
    change(&mut claims);
    signed_by_the_api_server(tenant.world, &header(&tenant.token), &claims)
}

#[test]
fn the_forge_itself_works() {
    let tenant = World::shared().tenant("forge");
    tenant.world.exchange(&altered(&tenant, |_| {})).expect(200);
}

#[test]
fn j1_an_unsigned_token_is_no_token() {
    let tenant = World::shared().tenant("j1");
    let payload = tenant.token.split('.').nth(1).expect("payload");
    for alg in ["none", "None", "nOnE", "NONE"] {
        let unsigned = format!("{}.{payload}", encode(&json!({"alg": alg, "typ": "JWT"})));
        refused_everywhere(tenant.world, &format!("{unsigned}."), "credential_malformed_or_forged");
        refused_everywhere(tenant.world, &format!("{unsigned}.AA"), "credential_malformed_or_forged");
    }
    let signature_cut = tenant.token.rsplit_once('.').expect("a signature").0;
    refused_everywhere(tenant.world, &format!("{signature_cut}."), "credential_malformed_or_forged");
}

#[test]
fn j2_a_public_key_is_no_shared_secret() {
    let tenant = World::shared().tenant("j2");
    let world = tenant.world;
    let jwks = world.kubectl().run(&["get", "--raw", "/openid/v1/jwks"]).expect("the JWKS");
    let key: Value = serde_json::from_str::<Value>(&jwks).expect("JSON")["keys"][0].clone();
    let ours: Value =
        world.http.get(format!("{}/oauth2/jwks", world.operator.url())).send().expect("an answer").json().expect("JSON");
    let modulus = B64.decode(key["n"].as_str().expect("n")).expect("base64url");
    let x = B64.decode(ours["keys"][0]["x"].as_str().expect("x")).expect("base64url");
    for secret in [key.to_string().into_bytes(), modulus, jwks.into_bytes(), x, ours.to_string().into_bytes()] {
        for alg in ["HS256", "HS384", "HS512"] {
            let signed = format!(
                "{}.{}",
                encode(&json!({"alg": alg, "kid": header(&tenant.token)["kid"]})),
                encode(&claims(&tenant.token))
            );
            let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(&secret), Algorithm::HS256);
            refused_everywhere(world, &format!("{signed}.{}", signature.expect("a MAC")), "credential_malformed_or_forged");
        }
    }
}

#[test]
fn j3_a_key_serves_one_algorithm() {
    let tenant = World::shared().tenant("j3");
    for alg in ["RS384", "RS512", "PS256", "ES256", "EdDSA", "Ed25519"] {
        let mut header = header(&tenant.token);
        header["alg"] = json!(alg);
        let token = signed_by_the_api_server(tenant.world, &header, &claims(&tenant.token));
        refused_everywhere(tenant.world, &token, "credential_malformed_or_forged");
    }
}

#[test]
fn j4_a_key_that_comes_with_the_token_is_not_used() {
    let tenant = World::shared().tenant("j4");
    let pem = rsa_key_of_our_own();
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("an RSA key");
    let jwk =
        serde_json::to_value(jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a JWK")).expect("JSON");
    let sign = |header: &Value| {
        let signed = format!("{}.{}", encode(header), encode(&claims(&tenant.token)));
        format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::RS256).expect("a signature"))
    };
    refused_everywhere(tenant.world, &sign(&json!({"alg": "RS256", "jwk": jwk})), "credential_malformed_or_forged");
    refused_everywhere(tenant.world, &sign(&json!({"alg": "RS256", "kid": "mine"})), "credential_key_unknown");
    refused_everywhere(tenant.world, &sign(&json!({"alg": "RS256"})), "credential_key_unknown");
    let mut header = header(&tenant.token);
    refused_everywhere(tenant.world, &sign(&header), "credential_malformed_or_forged");
    header["x5c"] = json!(["MIIB"]);
    refused_everywhere(tenant.world, &sign(&header), "credential_malformed_or_forged");
}

fn rsa_key_of_our_own() -> String {
    let made = std::process::Command::new("openssl").args(["genrsa", "2048"]).output().expect("openssl");
    String::from_utf8(made.stdout).expect("PEM")
}

#[test]
fn j5_nothing_that_a_token_names_is_fetched() {
    let tenant = World::shared().tenant("j5");
    let trap = Trap::set().expect("a trap");
    let url = format!("http://{}/jwks", trap.address());
    for member in ["jku", "x5u"] {
        for target in [url.as_str(), "http://169.254.169.254/latest/meta-data/"] {
            let mut header = header(&tenant.token);
            header[member] = json!(target);
            let token = signed_by_the_api_server(tenant.world, &header, &claims(&tenant.token));
            refused_everywhere(tenant.world, &token, "credential_malformed_or_forged");
        }
    }
    // The issuer of a token is compared, never visited.
    let token = altered(&tenant, |claims| claims["iss"] = json!(url));
    refused_everywhere(tenant.world, &token, "credential_issuer_unknown");
    std::thread::sleep(Duration::from_millis(200));
    let caught = trap.caught().expect("it listens");
    assert!(caught.is_empty(), "the operator connected to an address from a token: {caught:?}");
}

#[test]
fn j6_a_kid_is_a_name_and_nothing_more() {
    let tenant = World::shared().tenant("j6");
    for (kid, reason) in [
        ("../../dev/null", "credential_key_unknown"),
        ("'OR/**/1=1--", "credential_key_unknown"),
        ("' OR 1=1--", "credential_malformed_or_forged"),
        ("a\0b", "credential_malformed_or_forged"),
        ("a\r\nSet-Cookie: x", "credential_malformed_or_forged"),
        (&"k".repeat(4096), "credential_malformed_or_forged"),
        ("http://127.0.0.1/key", "credential_key_unknown"),
    ] {
        let token = signed_by_the_api_server(tenant.world, &json!({"alg": "RS256", "kid": kid}), &claims(&tenant.token));
        refused_everywhere(tenant.world, &token, reason);
    }
}

#[test]
fn j9_a_token_that_says_two_things_is_refused() {
    let tenant = World::shared().tenant("j9");
    let (head, body) = (header(&tenant.token).to_string(), claims(&tenant.token).to_string());
    let twice = |text: &str, member: &str| format!("{{{member},{}", &text[1..]);
    for (head, body) in [
        (twice(&head, r#""alg":"RS256""#), body.clone()),
        (twice(&head, r#""\u0061lg":"none""#), body.clone()),
        (head.clone(), twice(&body, r#""sub":"system:serviceaccount:kube-system:admin""#)),
        (head.clone(), twice(&body, r#""\u0073ub":"system:serviceaccount:kube-system:admin""#)),
        (head.clone(), twice(&body, r#""aud":["https://kubernetes.default.svc"]"#)),
    ] {
        let token = sign_text(tenant.world, &format!("{}.{}", B64.encode(head), B64.encode(body)));
        refused_everywhere(tenant.world, &token, "credential_malformed_or_forged");
    }
}

#[test]
fn j13_only_a_compact_signed_jwt_is_looked_at() {
    let tenant = World::shared().tenant("j13");
    let [head, body, signature] = tenant.token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let flattened = json!({"protected": head, "payload": body, "signature": signature}).to_string();
    let encrypted = format!(
        "{}.a.b.c.d",
        encode(&json!({"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2_147_483_648_u64, "zip": "DEF"}))
    );
    for token in [
        flattened,
        encrypted,
        format!("{head}.{body}.{signature}="),
        format!("{head}.{body}.{signature}\u{20}"),
        format!("{head}.{body}.{signature}.{signature}"),
        sign_text(
            tenant.world,
            &format!("{}.{body}", encode(&json!({"alg": "RS256", "kid": header(&tenant.token)["kid"], "zip": "DEF"}))),
        ),
        sign_text(
            tenant.world,
            &format!("{}.{body}", encode(&json!({"alg": "RS256", "kid": header(&tenant.token)["kid"], "crit": ["x"], "x": 1}))),
        ),
        sign_text(
            tenant.world,
            &format!("{}.{body}", encode(&json!({"alg": "RS256", "kid": header(&tenant.token)["kid"], "b64": false}))),
        ),
    ] {
        refused_everywhere(tenant.world, &token, "credential_malformed_or_forged");
    }
}

#[test]
fn j14_a_token_of_one_kind_is_no_token_of_another() {
    let tenant = World::shared().tenant("j14");
    let ours = tenant.access_token();
    refused_everywhere(tenant.world, &ours, "credential_claim_refused");
    for typ in ["at+jwt", "application/at+jwt", "secevent+jwt", "dpop+jwt", "client-authentication+jwt", "wit+jwt"] {
        let mut header = header(&tenant.token);
        header["typ"] = json!(typ);
        let token = signed_by_the_api_server(tenant.world, &header, &claims(&tenant.token));
        refused_everywhere(tenant.world, &token, "credential_claim_refused");
    }
    let server = tenant.world.resource_server(crate::world::DOCS);
    assert!(!tenant.world.introspect(&server, &tenant.token).is_active(), "a ServiceAccount token is no access token");
}

#[test]
fn f1_f4_real_tokens_for_somebody_else_or_bound_to_nothing_are_refused() {
    let tenant = World::shared().tenant("f1");
    let world = tenant.world;
    let issuer = world.operator.issuer();
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": "pod", "uid": tenant.pod_uid});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "holder", "namespace": tenant.namespace}});
    world.apply(&secret).expect("a Secret");
    let request = |spec: Value| {
        workload::request_token(&world.kubectl(), &tenant.namespace, "bot", &spec).expect("the API server issues it")
    };
    for spec in [
        json!({"audiences": [], "boundObjectRef": pod}),
        json!({"audiences": ["https://kubernetes.default.svc.cluster.local"], "boundObjectRef": pod}),
        json!({"audiences": [format!("{issuer}/")], "boundObjectRef": pod}),
        json!({"audiences": [issuer.to_uppercase()], "boundObjectRef": pod}),
        json!({"audiences": [format!("{issuer}/oauth2/token")], "boundObjectRef": pod}),
        json!({"audiences": [issuer]}),
        json!({"audiences": [issuer], "boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "holder"}}),
        json!({"audiences": [issuer], "boundObjectRef": pod, "expirationSeconds": 7200}),
    ] {
        refused_everywhere(world, &request(spec), "credential_claim_refused");
    }
    world.exchange(&request(json!({"audiences": [issuer], "boundObjectRef": pod, "expirationSeconds": 3600}))).expect(200);
}

#[test]
fn f4_a_legacy_token_without_end_is_refused() {
    let tenant = World::shared().tenant("f4");
    let legacy = json!({
        "iss": "kubernetes/serviceaccount",
        "sub": format!("system:serviceaccount:{}:bot", tenant.namespace),
        "kubernetes.io/serviceaccount/namespace": tenant.namespace,
        "kubernetes.io/serviceaccount/service-account.name": "bot",
        "kubernetes.io/serviceaccount/service-account.uid": tenant.service_account_uid,
    });
    let token = signed_by_the_api_server(tenant.world, &header(&tenant.token), &legacy);
    refused_everywhere(tenant.world, &token, "credential_issuer_unknown");
    // Nor if it named the issuer that others name today.
    let token = altered(&tenant, |claims| _ = claims.as_object_mut().expect("claims").remove("exp"));
    refused_everywhere(tenant.world, &token, "credential_claim_refused");
}

#[test]
fn f7_the_claims_of_a_credential_are_exact() {
    let tenant = World::shared().tenant("f7");
    let (now, good) = (now(), claims(&tenant.token));
    let changes: [(&str, Value); 22] = [
        ("exp", json!(now - 30)),
        ("exp", json!(now - 6)),
        ("exp", Value::Null),
        ("exp", json!((now + 600).to_string())),
        ("exp", json!(1e308)),
        ("exp", json!(-1)),
        ("exp", json!(u64::MAX)),
        ("iat", Value::Null),
        ("iat", json!(now + 60)),
        ("iat", json!("yesterday")),
        ("nbf", json!(now + 60)),
        ("nbf", json!("now")),
        ("iss", json!("https://kubernetes.default.svc.cluster.local/")),
        ("iss", json!("")),
        ("aud", Value::Null),
        ("aud", json!([])),
        ("aud", json!([7, tenant.world.operator.issuer()])),
        ("sub", json!("system:serviceaccount:a:b:c")),
        ("sub", json!("system:serviceaccount::bot")),
        ("sub", json!(format!("system:serviceaccount:{}:bot/../x", tenant.namespace))),
        ("sub", json!("oidc:system:serviceaccount:a:b")),
        ("kubernetes.io", Value::Null),
    ];
    for (claim, value) in changes {
        let token = altered(&tenant, |claims| claims[claim] = value.clone());
        // Of another issuer nothing else is looked at.
        let reason = if claim == "iss" { "credential_issuer_unknown" } else { "credential_claim_refused" };
        refused_everywhere(tenant.world, &token, reason);
    }
    for (path, value) in [
        ("/kubernetes.io/pod", Value::Null),
        ("/kubernetes.io/namespace", json!("kube-system")),
        ("/kubernetes.io/serviceaccount/name", json!("default")),
        ("/kubernetes.io/serviceaccount/uid", json!("not-a-uid")),
    ] {
        let token = altered(&tenant, |claims| *claims.pointer_mut(path).expect(path) = value.clone());
        refused_everywhere(tenant.world, &token, "credential_claim_refused");
    }
    let extended = altered(&tenant, |claims| claims["kubernetes.io"]["warnafter"] = json!(now + 3607));
    refused_everywhere(tenant.world, &extended, "credential_claim_refused");
    for path in ["/kubernetes.io/serviceaccount/uid", "/kubernetes.io/pod/uid"] {
        let token =
            altered(&tenant, |claims| *claims.pointer_mut(path).expect(path) = json!("00000000-0000-4000-8000-000000000000"));
        refused_everywhere(tenant.world, &token, "credential_holder_gone");
    }
    assert_eq!(good["iss"], claims(&tenant.token)["iss"]);
}

#[test]
fn f8_a_namesake_in_another_namespace_is_somebody_else() {
    let world = World::shared();
    let tenant = world.tenant("f8");
    let token = world.workload(&world.namespace("f8-namesake"), "bot");
    refused_everywhere(world, &token, "agent_unknown");
    world.exchange(&tenant.token).expect(200);
}

#[test]
fn h8_a_deep_or_crowded_token_is_refused_at_once() {
    let tenant = World::shared().tenant("h8");
    let crowded: String = (0..800).map(|i| format!("\"{i}\":1,")).collect();
    for body in [
        format!("{}1{}", "[".repeat(2500), "]".repeat(2500)),
        format!("{{\"a\":{}1{}}}", "[".repeat(2500), "]".repeat(2500)),
        format!("{{\"a\":{}1{}}}", "{\"a\":".repeat(700), "}".repeat(700)),
        format!("{{{crowded}\"0\":1}}"),
        format!("{{\"a\":{}}}", "9".repeat(5000)),
    ] {
        let token = sign_text(tenant.world, &format!("{}.{}", encode(&header(&tenant.token)), B64.encode(body)));
        let start = std::time::Instant::now();
        refused_everywhere(tenant.world, &token, "credential_malformed_or_forged");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
