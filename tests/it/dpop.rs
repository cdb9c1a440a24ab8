//! Tokens that are bound to a key (DPoP, RFC 9449): who must prove what, what is no proof, and that each counts once.

use crate::crowd::connected;
use crate::key_agents::{Key, KeyAgent, is_kept_nowhere, now, unique};
use crate::replicas::replica;
use crate::support::operator::Operator;
use crate::world::{
    CLIENT_ASSERTION, DOCS, JWT_BEARER, PATIENCE, Reply, TOKEN_EXCHANGE, TYPE_JWT, World, claims, header, wait_until,
    with_members,
};
use serde_json::{Value, json};

/// `spec.tokens` of an agent whose tokens must be bound.
pub fn bound() -> Value {
    json!({"tokens": {"proofOfPossession": "DPoP", "audiences": [{"name": DOCS}]}})
}

/// The claims of a proof for the token endpoint of `operator`, with these in place of its own; null takes one away.
pub fn claims_of_proof(operator: &Operator, changes: &Value) -> Value {
    let url = format!("{}/oauth2/token", operator.issuer());
    let mut all = with_members(json!({"jti": unique(), "htm": "POST", "htu": url, "iat": now()}), changes);
    all.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    all
}

/// The header of a proof with `key`.
pub fn header_of_proof(key: &Key) -> Value {
    json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": key.jwk()})
}

/// A proof with `key` for the token endpoint of `operator`, with these claims in place of its own.
pub fn proof_with(operator: &Operator, key: &Key, changes: &Value) -> String {
    key.sign(&header_of_proof(key), &claims_of_proof(operator, changes))
}

pub fn proof(operator: &Operator, key: &Key) -> String {
    proof_with(operator, key, &json!({}))
}

/// POSTs a form to the token endpoint with these proofs.
pub fn post(operator: &Operator, http: &reqwest::blocking::Client, proofs: &[&str], form: &[(&str, &str)]) -> Reply {
    let request = http.post(format!("{}/oauth2/token", operator.url())).form(form);
    proofs.iter().fold(request, |request, proof| request.header("DPoP", *proof)).send().expect("an answer").into()
}

/// Asks for a token with this assertion and these proofs.
fn ask(agent: &KeyAgent<'_>, assertion: &str, proofs: &[&str]) -> Reply {
    let form =
        [("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", assertion)];
    post(agent.operator, &agent.http, proofs, &form)
}

/// Asks for a token with these proofs.
fn obtain(agent: &KeyAgent<'_>, proofs: &[&str]) -> Reply {
    ask(agent, &agent.assertion(), proofs)
}

/// Changes the Agent, and waits until a token without a proof is refused or not.
fn demands(agent: &KeyAgent<'_>, possession: &str) {
    agent.patch(&json!({"tokens": {"proofOfPossession": possession}}));
    let status = if possession == "DPoP" { 400 } else { 200 };
    wait_until("the change has been seen", PATIENCE, || obtain(agent, &[]).status == status);
}

#[test]
fn an_agent_that_must_prove_a_key_gets_bound_tokens_alone_by_every_grant() {
    let world = World::shared();
    let (tenant, server, key) = (world.tenant_with("dpop-grants", &bound()), world.resource_server(DOCS), Key::new());
    let token = tenant.token.as_str();
    let assertion = [("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", token)];
    let operation = json!([{"type": "countersign_operation", "capability": "web.search"}]).to_string();
    for form in [
        [&[("grant_type", "client_credentials")][..], &assertion].concat(),
        [&[("grant_type", "client_credentials"), ("authorization_details", operation.as_str())][..], &assertion].concat(),
        vec![("grant_type", JWT_BEARER), ("assertion", token)],
        vec![("grant_type", TOKEN_EXCHANGE), ("subject_token", token), ("subject_token_type", TYPE_JWT)],
    ] {
        let refused = world.request(&form).refused(400, "invalid_dpop_proof");
        assert!(refused.text("error_description").contains("DPoP"));
        let record = world.record_of(&refused);
        assert_eq!((&record["reason"], &record["outcome"]), (&json!("possession_unproved"), &json!("deny")), "{record}");

        let granted = post(&world.operator, &world.http, &[&proof(&world.operator, &key)], &form).expect(200);
        assert_eq!(granted.text("token_type"), "DPoP");
        let access = granted.text("access_token");
        assert_eq!(claims(&access)["cnf"], json!({"jkt": key.thumbprint()}));
        assert_eq!(world.record_of(&granted)["bound_to"], key.thumbprint());
        let told = world.introspect(&server, &access);
        assert!(told.is_active());
        assert_eq!((&told.body["token_type"], &told.body["cnf"]), (&json!("DPoP"), &json!({"jkt": key.thumbprint()})));
    }
}

#[test]
fn whoever_sends_a_proof_gets_a_bound_token_and_whoever_sends_none_a_bearer_token() {
    let agent = World::shared().key_agent("dpop-optional");
    let key = Key::new();
    let granted = obtain(&agent, &[&proof(agent.operator, &key)]).expect(200);
    assert_eq!(
        (granted.text("token_type"), claims(&granted.text("access_token"))["cnf"]["jkt"].clone()),
        ("DPoP".to_owned(), json!(key.thumbprint()))
    );
    assert!(!granted.headers.contains_key("dpop-nonce"), "none is asked for");
    let plain = obtain(&agent, &[]).expect(200);
    assert_eq!(plain.text("token_type"), "Bearer");
    assert!(claims(&plain.text("access_token")).get("cnf").is_none());
    let document: Value = agent
        .http
        .get(format!("{}/.well-known/oauth-authorization-server", agent.operator.url()))
        .send()
        .expect("an answer")
        .json()
        .expect("JSON");
    assert_eq!(
        document["dpop_signing_alg_values_supported"],
        json!(["EdDSA", "Ed25519", "ES256", "ES384", "RS256", "RS384", "RS512"])
    );
}

#[test]
fn what_is_no_proof_gets_no_token_and_does_not_use_the_assertion_up() {
    let agent = World::shared().key_agent("dpop-forged");
    let (key, other, operator) = (Key::new(), Key::new(), agent.operator);
    let assertion = agent.assertion();
    let with = |changes: Value| proof_with(operator, &key, &changes);
    let under = |changes: Value| {
        let mut header = with_members(header_of_proof(&key), &changes);
        header.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        key.sign(&header, &claims_of_proof(operator, &json!({})))
    };
    let good = proof(operator, &key);
    let private = with_members(key.jwk(), &json!({"d": "AA"}));
    let hidden = with_members(key.jwk(), &json!({"x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}));
    let port = operator.issuer().rsplit(':').next().expect("a port");
    let (malformed, claim) = ("dpop_proof_malformed", "dpop_proof_claim_refused");
    let mut all = Vec::new();
    for (sent, reason) in [
        (under(json!({"typ": "jwt"})), malformed),
        (under(json!({"typ": null})), malformed),
        (under(json!({"alg": "none"})), malformed),
        (under(json!({"alg": "HS256"})), malformed),
        (under(json!({"alg": "ES256"})), malformed),
        (under(json!({"jwk": other.jwk()})), malformed),
        (under(json!({"jwk": private})), malformed),
        (under(json!({"jwk": hidden})), malformed),
        (under(json!({"jwk": null})), malformed),
        (under(json!({"jwk": null, "kid": key.thumbprint()})), malformed),
        (under(json!({"crit": ["exp"]})), malformed),
        (under(json!({"jku": "https://evil.example/jwks"})), malformed),
        (good.rsplit_once('.').expect("three parts").0.to_owned() + ".", malformed),
        (format!("{good}A"), malformed),
        ("x".to_owned(), malformed),
        (agent.assertion(), malformed),
        (with(json!({"htm": "GET"})), claim),
        (with(json!({"htm": null})), claim),
        (with(json!({"htu": format!("{}/oauth2/introspect", operator.issuer())})), claim),
        (with(json!({"htu": "https://evil.example/oauth2/token"})), claim),
        (with(json!({"htu": format!("https://localhost:{port}/oauth2/token")})), claim),
        (with(json!({"htu": null})), claim),
        (with(json!({"iat": now() - 120})), claim),
        (with(json!({"iat": now() + 120})), claim),
        (with(json!({"iat": null})), claim),
        (with(json!({"jti": null})), claim),
        (with(json!({"jti": "j".repeat(200)})), claim),
        (with(json!({"exp": now() - 60})), claim),
    ] {
        let refused = ask(&agent, &assertion, &[&sent]).refused(400, "invalid_dpop_proof");
        all.push((sent, reason, refused));
    }
    ask(&agent, &assertion, &[&good, &proof(operator, &key)]).refused(400, "invalid_dpop_proof");
    ask(&agent, &assertion, &[&good, &good]).refused(400, "invalid_dpop_proof");
    ask(&agent, &assertion, &[&with(json!({"nonce": "made up"}))]).refused(400, "use_dpop_nonce");
    ask(&agent, &assertion, &[&good]).expect(200);
    // Only now, for that takes long where the log is, and the assertion lives for a minute.
    for (sent, reason, refused) in all {
        assert_eq!(agent.record(&refused)["reason"], reason, "{sent}");
        is_kept_nowhere(operator, &sent);
    }
    // Whatever a request says of where it was sent, the endpoint is the one that the metadata names.
    let request = agent.http.post(format!("{}/oauth2/token", operator.url())).header("host", "evil.example");
    let elsewhere = with(json!({"htu": "https://evil.example/oauth2/token"}));
    let assertion = agent.assertion();
    let form =
        [("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", &assertion)];
    let refused: Reply = request.header("DPoP", elsewhere).form(&form).send().expect("an answer").into();
    refused.refused(400, "invalid_dpop_proof");
}

#[test]
fn p5_a_proof_is_one_request_whichever_replica_is_asked_and_a_nonce_is_known_to_all() {
    const REQUESTS: usize = 60;
    let world = World::start_shareable();
    let nonces = ["--require-dpop-nonce".to_owned()];
    let replicas = [replica(&world, "first", &nonces), replica(&world, "second", &nonces)];
    let agent = world.key_agent("dpop-replicas");
    demands(&agent, "DPoP");
    let (key, [one, other]) = (Key::new(), replicas.each_ref().map(|replica| agent.at(replica)));

    // Without a nonce: the code and the nonce of RFC 9449 section 8, whoever is asked.
    let assertion = one.assertion();
    wait_until("the replica decides", PATIENCE, || ask(&one, &assertion, &[&proof(one.operator, &key)]).status == 400);
    let wanting = ask(&one, &assertion, &[&proof(one.operator, &key)]).refused(400, "use_dpop_nonce");
    let nonce = wanting.headers["dpop-nonce"].to_str().expect("text").to_owned();
    assert_eq!(one.record(&wanting)["reason"], "dpop_nonce_wanted");
    let with_nonce = || proof_with(one.operator, &key, &json!({"nonce": nonce}));
    // The assertion that was sent without one is good yet, and the nonce of one replica is the other's.
    let used = with_nonce();
    wait_until("the other decides", PATIENCE, || obtain(&other, &[]).status == 400);
    ask(&other, &assertion, &[&used]).expect(200);
    for agent in [&one, &other] {
        let refused = obtain(agent, &[&used]).refused(400, "invalid_dpop_proof");
        assert_eq!(agent.record(&refused)["reason"], "dpop_proof_replayed");
    }
    // The replica that does not demand nonces knows the proof too.
    let refused = obtain(&agent, &[&used]).refused(400, "invalid_dpop_proof");
    assert_eq!(agent.record(&refused)["reason"], "dpop_proof_replayed");

    // Many at once, each with an assertion of its own: one token.
    let shared = with_nonce();
    let urls: Vec<String> = (0..REQUESTS).map(|i| replicas[i % 2].url()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let http = runtime.block_on(connected(&replicas[0], &urls));
    let requests: Vec<_> = urls
        .iter()
        .map(|url| {
            let assertion = one.assertion();
            let form = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", CLIENT_ASSERTION),
                ("client_assertion", &assertion),
            ];
            let request = http.post(format!("{url}/oauth2/token")).header("DPoP", &shared).form(&form);
            runtime.spawn(async move { request.send().await.expect("an answer").status().as_u16() })
        })
        .collect();
    let statuses: Vec<u16> =
        runtime.block_on(futures::future::join_all(requests)).into_iter().map(|done| done.expect("a task")).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 400 | 503)), "{statuses:?}");
    let tokens = statuses.iter().filter(|status| **status == 200).count();
    assert!(tokens <= 1, "{tokens} tokens for one proof");
    // Another key may use the same identifier: it is somebody else's.
    let jti = claims(&shared)["jti"].clone();
    let foreign = proof_with(one.operator, &Key::new(), &json!({"nonce": nonce, "jti": jti}));
    obtain(&one, &[&foreign]).expect(200);
    // And an assertion of that identifier is none that was used.
    let assertion = one.assertion_with(&json!({"jti": jti}));
    ask(&one, &assertion, &[&with_nonce()]).expect(200);
}

#[test]
fn a_bearer_token_is_dead_once_its_agent_demands_a_key_and_a_bound_one_lives_on() {
    let world = World::shared();
    let (agent, server, key) = (world.key_agent("dpop-flip"), world.resource_server(DOCS), Key::new());
    let bearer = obtain(&agent, &[]).expect(200).text("access_token");
    let holds = obtain(&agent, &[&proof(agent.operator, &key)]).expect(200).text("access_token");
    let active = |token: &str| world.introspect(&server, token).is_active();
    assert!(active(&bearer) && active(&holds));
    demands(&agent, "DPoP");
    assert!(!active(&bearer) && active(&holds));
    let reply = world.introspect(&server, &bearer);
    assert_eq!(world.record_of(&reply)["reason"], "possession_unproved");
    demands(&agent, "None");
    assert!(active(&bearer) && active(&holds));
}

#[test]
fn a_stolen_token_that_is_bound_opens_nothing_here_without_its_key_nor_with_it() {
    let world = World::shared();
    let (agent, key) = (world.key_agent("dpop-stolen"), Key::new());
    let token = obtain(&agent, &[&proof(agent.operator, &key)]).expect(200).text("access_token");
    assert_eq!(header(&token)["typ"], "at+jwt");
    for (path, body) in
        [("/oauth2/introspect", "token=x"), ("/jit/complete", "token=x"), ("/access/v1/evaluation", "{}"), ("/ask", "{}")]
    {
        let kind = if body == "{}" { "application/json" } else { "application/x-www-form-urlencoded" };
        let url = format!("{}{path}", world.operator.url());
        let proof = key.sign(&header_of_proof(&key), &claims_of_proof(agent.operator, &json!({"htu": url})));
        for (scheme, shown) in [("Bearer", None), ("DPoP", Some(proof.as_str()))] {
            let request = world.http.post(&url).header("authorization", format!("{scheme} {token}")).header("content-type", kind);
            let request = shown.into_iter().fold(request, |request, proof| request.header("DPoP", proof));
            let reply: Reply = request.body(body).send().expect("an answer").into();
            assert_eq!(reply.status, 401, "{path} {scheme}: {:?}", reply.body);
            assert!(
                reply.headers["www-authenticate"].to_str().expect("text").starts_with("Bearer"),
                "{path}: what is taken here"
            );
        }
    }
    // As a credential, and as what an agent was called with.
    let thief = world.key_agent("dpop-thief");
    let (forged, thiefs) = (proof(agent.operator, &Key::new()), thief.assertion());
    thief.ask(&token).refused(401, "invalid_client");
    let exchange = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", token.as_str()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", thiefs.as_str()),
    ];
    let refused = post(thief.operator, &thief.http, &[&forged], &exchange).refused(400, "invalid_request");
    assert_eq!(thief.record(&refused)["reason"], "subject_not_addressed");
}
