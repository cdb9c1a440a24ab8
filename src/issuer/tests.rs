use super::*;
use serde_json::json;

fn spec(change: impl FnOnce(&mut Value)) -> crd::TrustedIssuerSpec {
    let mut spec = json!({"provides": "Workloads", "issuer": {"url": "https://id.example.com", "audiences": ["us"]}});
    change(&mut spec);
    serde_json::from_value(spec).expect("a spec")
}

fn users(mappings: Value) -> Result<Rules, InvalidIssuer> {
    Rules::parse(&spec(|s| {
        s["provides"] = json!("Users");
        s["claimMappings"] = mappings;
    }))
}

fn claims(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

#[test]
fn f10_an_issuer_is_one_url_in_its_canonical_form() {
    for good in [
        "https://id.example.com",
        "https://id.example.com/",
        "https://id.example.com/a/b",
        "https://id.example.com:8443/a/",
        "https://127.0.0.1:6443",
        "https://[::1]:6443",
        "https://xn--bcher-kva.example",
        "https://login.microsoftonline.com/5a1e/v2.0",
    ] {
        assert!(Rules::parse(&spec(|s| s["issuer"]["url"] = json!(good))).is_ok(), "{good} was refused");
    }
    for bad in [
        "",
        "http://id.example.com",
        "HTTPS://id.example.com",
        "https://ID.example.com",
        "https://id.example.com:443",
        "https://good@evil.example",
        "https://a:b@evil.example",
        "https://id.example.com?x",
        "https://id.example.com#x",
        "https://id.example.com/a/../b",
        "https://id.example.com/./",
        "https://2130706433",
        "https://0x7f.1",
        "https://0",
        "https://bücher.example",
        "https:/id.example.com",
        "https:\\\\id.example.com",
        " https://id.example.com",
        "https://",
        "spiffe://UPPER",
        "spiffe://a/b",
        "spiffe://",
        "file:///etc/passwd",
    ] {
        let error = Rules::parse(&spec(|s| s["issuer"]["url"] = json!(bad))).expect_err(bad).to_string();
        assert!(error.starts_with("spec.issuer.url: "), "{error}");
    }
}

#[test]
fn keys_come_from_one_place() {
    let source = |change: Value| {
        Rules::parse(&spec(|s| s["issuer"].as_object_mut().expect("an object").extend(claims(change)))).map(|r| r.source)
    };
    let at = |url: &str| Url::parse(url).expect("a URL");
    assert!(
        matches!(source(json!({})), Ok(KeySource::Discovery(url, _)) if url == at("https://id.example.com/.well-known/openid-configuration"))
    );
    let slash = source(json!({"url": "https://id.example.com/a/"}));
    assert!(
        matches!(slash, Ok(KeySource::Discovery(url, _)) if url == at("https://id.example.com/a/.well-known/openid-configuration"))
    );
    assert!(matches!(source(json!({"jwksURL": "https://keys.example.com/k"})), Ok(KeySource::Jwks(..))));
    assert!(matches!(source(json!({"jwks": "{}"})), Ok(KeySource::Inline(_))));
    assert!(matches!(source(json!({"url": "spiffe://prod.example", "jwksURL": "https://b.example/"})), Ok(KeySource::Jwks(..))));
    for bad in [
        json!({"jwks": "{}", "jwksURL": "https://a.example"}),
        json!({"jwksURL": "http://a.example"}),
        json!({"url": "spiffe://prod.example"}),
        json!({"url": "spiffe://prod.example", "discoveryURL": "https://a.example"}),
        json!({"allowedNetworks": ["10.0.0.0"]}),
        json!({"allowedNetworks": ["10.0.0.0/33"]}),
        json!({"audiences": []}),
        json!({"signingAlgorithms": []}),
    ] {
        assert!(source(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn rules_for_claims_hold_or_the_token_is_refused() {
    let rules = Rules::parse(&spec(|s| {
        s["claimValidationRules"] = json!([
            {"claim": "org", "requiredValue": "o-1"},
            {"expression": "claims.exp - claims.iat <= 600", "message": "lives too long"},
        ]);
    }))
    .expect("rules");
    assert_eq!(rules.check(&claims(json!({"org": "o-1", "iat": 0, "exp": 600}))), Ok(()));
    assert_eq!(rules.check(&claims(json!({"org": "o-1", "iat": 0, "exp": 601}))), Err("lives too long".to_owned()));
    for bad in [
        json!({"org": "o-2", "iat": 0, "exp": 1}),
        json!({"org": ["o-1"], "iat": 0, "exp": 1}),
        json!({"org": "o-1", "exp": 1}),
        json!({}),
    ] {
        assert!(rules.check(&claims(bad.clone())).is_err(), "{bad}");
    }
    for bad in [
        json!([{"claim": "a"}]),
        json!([{"claim": "a", "requiredValue": "b", "expression": "true"}]),
        json!([{"expression": "user.x"}]),
        json!([{"expression": "claims."}]),
    ] {
        let parsed = Rules::parse(&spec(|s| s["claimValidationRules"] = bad.clone()));
        assert!(parsed.expect_err("refused").to_string().starts_with("spec.claimValidationRules: "), "{bad}");
    }
}

#[test]
fn a_user_is_named_as_kubernetes_names_him() {
    let rules =
        users(json!({"username": {"claim": "email", "prefix": "oidc:"}, "groups": {"claim": "groups", "prefix": "oidc:"}}))
            .expect("rules");
    let alice =
        rules.user(&claims(json!({"email": "alice@acme.com", "email_verified": true, "groups": ["dev"]}))).expect("a user");
    assert_eq!((alice.name.as_str(), alice.kubernetes_name.as_str()), ("alice@acme.com", "oidc:alice@acme.com"));
    assert_eq!(alice.groups, ["oidc:dev"]);
    assert_eq!(rules.user(&claims(json!({"email": "alice@acme.com"}))).expect("a user").groups, [""; 0]);
    for bad in [
        json!({"email": "alice@acme.com", "email_verified": false}),
        json!({"email": "alice@acme.com", "email_verified": "true"}),
        json!({"email": ["a@acme.com", "b@acme.com"]}),
        json!({"email": ["a@acme.com"]}),
        json!({"email": 7}),
        json!({"email": ""}),
        json!({"email": " alice@acme.com"}),
        json!({"email": "a\nb"}),
        json!({"email": "x".repeat(254)}),
        json!({"sub": "alice"}),
        json!({"email": "a@acme.com", "groups": "x\u{0}"}),
        json!({"email": "a@acme.com", "groups": [1]}),
    ] {
        assert!(rules.user(&claims(bad.clone())).is_err(), "{bad}");
    }
    let rules = users(json!({"username": {"expression": "'oidc:' + claims.sub"}})).expect("rules");
    assert_eq!(rules.user(&claims(json!({"sub": "7"}))).expect("a user").kubernetes_name, "oidc:7");
}

#[test]
fn f8_no_identity_provider_names_a_service_account() {
    let rules = users(json!({"username": {"claim": "sub"}, "groups": {"claim": "groups"}})).expect("rules");
    for bad in [
        json!({"sub": "system:serviceaccount:a:b"}),
        json!({"sub": "system:admin"}),
        json!({"sub": "alice", "groups": ["system:masters"]}),
    ] {
        assert!(rules.user(&claims(bad.clone())).is_err(), "{bad}");
    }
    let prefixed = users(json!({"username": {"claim": "sub", "prefix": "sys"}})).expect("rules");
    assert!(prefixed.user(&claims(json!({"sub": "tem:admin"}))).is_err(), "nor by way of a prefix");
}

#[test]
fn a_mapping_says_one_thing() {
    for bad in [
        json!({"username": {}}),
        json!({"username": {"claim": "sub", "expression": "claims.sub"}}),
        json!({"username": {"expression": "claims.sub", "prefix": "x"}}),
        json!({"username": {"expression": "claims.email"}}),
        json!({"username": {"claim": "sub"}, "groups": {}}),
    ] {
        assert!(users(bad.clone()).is_err(), "{bad}");
    }
    assert!(users(json!({"username": {"expression": "claims.email_verified ? claims.email : ''"}})).is_ok());
    assert!(Rules::parse(&spec(|s| s["provides"] = json!("Users"))).is_err());
    assert!(Rules::parse(&spec(|s| s["claimMappings"] = json!({"username": {"claim": "sub"}}))).is_err());
}
