//! Issuers that say more than they may: each vouches for its own workloads, by its own name, with its own keys.

use crate::federation::{Federated, SUBJECT, accepted, fails, present, trusted_issuer};
use crate::forged_tokens::refused_everywhere;
use crate::support::control_plane::SERVICE_ACCOUNT_ISSUER;
use crate::support::issuer::{Document, ED25519, Issuer, P256, P384, RSA};
use crate::world::{World, claims, next_second, with_members};
use serde_json::{Value, json};

/// A TrustedIssuer of that URL whose keys are those of `issuer`, pasted into it.
fn pasted(world: &World, name: &str, url: &str, issuer: &Issuer) -> Value {
    let keys = json!({"issuer": {"url": url, "jwks": issuer.document(Document::Keys).to_string()}});
    let mut object = trusted_issuer(world, name, issuer, &keys);
    for needless in ["certificateAuthority", "allowedNetworks"] {
        object["spec"]["issuer"].as_object_mut().expect("an object").remove(needless);
    }
    object
}

fn delete(world: &World, name: &str) {
    world.kubectl().run(&["delete", "trustedissuer", name]).expect("deleted");
}

#[test]
fn an_agent_proves_itself_with_each_algorithm() {
    let federated = Federated::start(World::shared(), "algorithms", &json!({}));
    for key in [RSA, P256, P384, ED25519] {
        accepted(federated.world, &federated.token_of(key, &federated.claims()), &federated.subject());
    }
    // RFC 9864 has another name for what RFC 8037 calls EdDSA.
    let header = json!({"alg": "Ed25519", "kid": ED25519});
    accepted(federated.world, &federated.issuer.sign(&header, &federated.claims()).expect("a token"), &federated.subject());
}

#[test]
fn pasted_keys_are_never_fetched() {
    let world = World::shared();
    let federated = Federated::apart(world, "pasted");
    world.apply(&pasted(world, &federated.name, federated.issuer.url(), &federated.issuer)).expect("accepted");
    federated.is_ready();
    federated.register(&json!([{"issuer": federated.name, "subject": SUBJECT}]));
    accepted(world, &federated.token(), &federated.subject());
    federated.issuer.add_key("next", "ES256".parse().expect("an algorithm")).expect("added");
    refused_everywhere(world, &federated.token_of("next", &federated.claims()), "credential_key_unknown");
    assert_eq!(federated.issuer.connections(), 0);
}

#[test]
fn f9_an_issuer_vouches_for_nobody_elses_workloads() {
    let world = World::shared();
    let (good, evil) = (Federated::start(world, "good", &json!({})), Federated::start(world, "evil", &json!({})));
    accepted(world, &good.token(), &good.subject());
    accepted(world, &evil.token(), &evil.subject());
    // The other's agent lists another subject; this one says to be that.
    good.register(&json!([{"issuer": good.name, "subject": "only-good-may-say-this"}]));
    refused_everywhere(world, &evil.token_with(&json!({"sub": "only-good-may-say-this"})), "agent_unknown");
    // The keys of both have the same names. One that signs in the other's name is not believed, by whatever key.
    let claims = with_members(good.claims(), &json!({"sub": "only-good-may-say-this"}));
    for key in [RSA, P256, P384, ED25519] {
        accepted(world, &good.token_of(key, &claims), &good.subject());
        refused_everywhere(world, &evil.token_of(key, &claims), "credential_malformed_or_forged");
    }
    let mine = with_members(evil.claims(), &json!({"sub": "only-good-may-say-this"}));
    refused_everywhere(world, &good.token_of(P256, &mine), "credential_malformed_or_forged");
    // Nor does a key of its own that the other does not have help.
    evil.issuer.add_key("evil-only", "ES256".parse().expect("an algorithm")).expect("added");
    refused_everywhere(world, &evil.token_of("evil-only", &claims), "credential_key_unknown");
}

#[test]
fn f9_a_workload_is_no_service_account_and_a_service_account_no_workload() {
    let world = World::shared();
    let federated = Federated::start(world, "accounts", &json!({}));
    let tenant = world.tenant("accounts");
    let account = format!("system:serviceaccount:{}:bot", tenant.namespace);
    // All that a token of the ServiceAccount has, but for who signed it.
    let copy = with_members(claims(&tenant.token), &json!({"iss": federated.issuer.url()}));
    refused_everywhere(world, &federated.token_of(P256, &copy), "agent_unknown");
    // An Agent that lists such a subject of the issuer means that issuer's, not this cluster's.
    federated.register(&json!([{"issuer": federated.name, "subject": account}]));
    accepted(world, &federated.token_of(P256, &copy), &federated.subject());
    let own = world.exchange(&tenant.token).expect(200);
    assert_eq!(claims(&own.text("access_token"))["sub"], tenant.subject());
    // What we issue ourselves proves nobody, even where somebody trusts us.
    let ours = tenant.access_token();
    let keys: Value =
        world.http.get(format!("{}/oauth2/jwks", world.operator.url())).send().expect("an answer").json().expect("JSON");
    let mut object = pasted(world, "ourselves", world.operator.issuer(), &federated.issuer);
    object["spec"]["issuer"]["jwks"] = json!(keys.to_string());
    object["spec"]["issuer"]["audiences"] = json!([crate::world::DOCS]);
    if world.apply(&object).is_ok() {
        for reply in present(world, &ours) {
            assert!(reply.status == 400 || reply.status == 401, "{reply:?}");
        }
        delete(world, "ourselves");
    }
}

#[test]
fn f9_nobody_speaks_for_this_cluster() {
    let world = World::shared();
    let (tenant, impostor) = (world.tenant("impersonated"), Issuer::start("").expect("an issuer"));
    // A cluster with the issuer URL of this one, as clusters have that nobody has told otherwise.
    world.apply(&pasted(world, "impostor", SERVICE_ACCOUNT_ISSUER, &impostor)).expect("it can be written");
    let why = fails(world, "impostor", "Ready");
    assert!(why["message"].as_str().is_some_and(|message| message.contains("cluster")), "{why}");
    let forged = impostor.sign(&json!({"alg": "RS256", "kid": RSA}), &claims(&tenant.token)).expect("a token");
    refused_everywhere(world, &forged, "credential_key_unknown");
    world.exchange(&tenant.token).expect(200);
    delete(world, "impostor");
}

#[test]
fn f9_of_two_entries_for_one_url_the_older_counts() {
    let world = World::shared();
    let (first, thief) = (Federated::start(world, "first", &json!({})), Issuer::start("").expect("an issuer"));
    next_second();
    world.apply(&pasted(world, "second", first.issuer.url(), &thief)).expect("it can be written");
    let why = fails(world, "second", "Ready");
    assert!(why["message"].as_str().is_some_and(|message| message.contains(&first.name)), "it names the other: {why}");
    accepted(world, &first.token(), &first.subject());
    let stolen = thief.sign(&json!({"alg": "ES256", "kid": P256}), &first.claims()).expect("a token");
    refused_everywhere(world, &stolen, "credential_malformed_or_forged");
    delete(world, "second");
}

#[test]
fn f10_an_issuer_is_named_exactly() {
    let world = World::shared();
    let federated = Federated::start(world, "exact", &json!({}));
    let url = federated.issuer.url();
    let (host, path) = url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).expect("a host and a path");
    let others = [
        format!("{url}/"),
        url.replace("https://", "HTTPS://"),
        url.replace("https://", "http://"),
        url.to_uppercase(),
        format!("https://{host}"),
        format!("https://{host}/{path}/.."),
        format!("https://{host}/./{path}"),
        format!("https://{host}//{path}"),
        format!("https://user@{host}/{path}"),
        format!("https://{host}@evil.example/{path}"),
        format!("https://{host}.evil.example/{path}"),
        format!("{url}?a=b"),
        format!("{url}#fragment"),
        format!("{url}%20"),
        format!(" {url}"),
        format!("{url}\n"),
        url.replace('/', "\\"),
        url.replace("127.0.0.1", "localhost"),
        url.replace("127.0.0.1", "127.1"),
        url.replace('1', "\u{ff11}"),
        String::new(),
    ];
    for other in others {
        refused_everywhere(world, &federated.token_with(&json!({"iss": other})), "credential_issuer_unknown");
    }
    for other in [Value::Null, json!([url]), json!({"url": url}), json!(7), json!(true)] {
        refused_everywhere(world, &federated.token_with(&json!({"iss": other})), "credential_issuer_unknown");
    }
    let mut without = federated.claims();
    without.as_object_mut().expect("an object").remove("iss");
    refused_everywhere(world, &federated.token_of(P256, &without), "credential_issuer_unknown");
    let twice = format!("{{\"iss\":{},{}", json!("https://evil.example"), &federated.claims().to_string()[1..]);
    let header = json!({"alg": "ES256", "kid": P256}).to_string();
    let twice = federated.issuer.sign_text(P256, &header, &twice).expect("a token");
    refused_everywhere(world, &twice, "credential_malformed_or_forged");
    accepted(world, &federated.token(), &federated.subject());
}

#[test]
fn f10_an_issuer_whose_url_could_be_read_in_two_ways_is_not_trusted() {
    let world = World::shared();
    let issuer = Issuer::start("").expect("an issuer");
    for (number, url) in [
        "http://issuer.example",
        "HTTPS://issuer.example",
        "https://ISSUER.example",
        "https://user@issuer.example",
        "https://good.example@evil.example",
        "https://issuer.example:443",
        "https://issuer.example?a=b",
        "https://issuer.example/#a",
        "https://issuer.example/a/../b",
        "https://issuer.example/a b",
        "https://issuer.example\\evil.example",
        "https://b\u{fc}cher.example",
        "https://",
        "https:issuer.example",
        "issuer.example",
        "spiffe://",
        "spiffe://Prod.example",
        "spiffe://prod.example/ns/a",
        "file:///etc/passwd",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("unclear-{number}");
        match world.apply(&pasted(world, &name, url, &issuer)) {
            Err(refusal) => assert!(refusal.contains("url"), "{url}: {refusal}"),
            Ok(_) => {
                let why = fails(world, &name, "Ready");
                assert!(why["message"].as_str().is_some_and(|message| message.contains("url")), "{url}: {why}");
                delete(world, &name);
            }
        }
    }
    assert_eq!(issuer.connections(), 0);
}
