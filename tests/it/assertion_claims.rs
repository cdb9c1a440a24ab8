//! Assertions that are well signed and say what they must not, what an answer tells of agents, and that nothing of what was sent is kept.

use crate::assertion_attacks::{of_texts, twice};
use crate::key_agents::{Key, KeyAgent, PLACES, header, is_kept_nowhere, now, unique};
use crate::support::workload;
use crate::world::{DOCS, JWT_BEARER, Reply, TOKEN_EXCHANGE, TYPE_JWT, World};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FORGED: &str = "credential_malformed_or_forged";
const UNKNOWN: &str = "credential_key_unknown";
const CLAIM: &str = "credential_claim_refused";
const REPLAYED: &str = "credential_replayed";

/// Makes the text to send, anew each time.
type Maker<'a> = Box<dyn Fn() -> String + 'a>;

#[test]
fn j14_an_assertion_is_no_other_token_and_no_other_token_an_assertion() {
    let world = World::shared();
    let (agent, tenant, server) = (world.key_agent("j14"), world.tenant("j14-account"), world.resource_server(DOCS));
    let access = agent.obtain().expect(200).text("access_token");
    agent.refuses_everywhere(CLAIM, || access.clone());
    // As our access token, an ID token, a logout token and others, by the agent's own key.
    for typ in
        ["at+jwt", "application/at+jwt", "secevent+jwt", "logout+jwt", "dpop+jwt", "id_token+jwt", "wit+jwt", "jose", "JWS", ""]
    {
        agent.refuses(CLAIM, || agent.assertion_under(&json!({"alg": "EdDSA", "typ": typ})));
    }
    agent.refuses(CLAIM, || agent.assertion_with(&json!({"iss": agent.operator.issuer()})));
    let id_token = json!({"aud": agent.subject(), "nonce": "n", "azp": agent.subject(), "auth_time": now()});
    agent.refuses(CLAIM, || agent.assertion_with(&id_token));
    // Signed by the agent, as if the cluster had.
    let cluster = crate::world::claims(&tenant.token);
    agent.refuses(UNKNOWN, || agent.key.sign(&header(), &cluster));
    agent.refuses(UNKNOWN, || agent.key.sign(&json!({"alg": "EdDSA", "kid": agent.key.thumbprint()}), &cluster));
    // Where an assertion is expected a ServiceAccount token is fine, as often as one likes.
    for _ in 0..2 {
        agent.ask(&tenant.token).expect(200);
    }

    // An assertion in every place for the tokens of others. It is not used up by that.
    let assertion = agent.assertion();
    let exchange = [("grant_type", TOKEN_EXCHANGE), ("subject_token", assertion.as_str()), ("subject_token_type", TYPE_JWT)];
    let refused = |reply: Reply, status: u16, error: &str, reason: &str| {
        assert_eq!((reply.status, reply.body["error"].as_str()), (status, Some(error)), "{:?}", reply.body);
        agent.refused_alike(&reply, &assertion, reason);
        reply
    };
    refused(agent.post("/oauth2/token", &exchange), 400, "invalid_request", CLAIM);
    refused(agent.call("/oauth2/token", &exchange), 400, "invalid_request", CLAIM);
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    let as_user = [("grant_type", TOKEN_EXCHANGE), ("subject_token", assertion.as_str()), ("subject_token_type", id_token)];
    refused(agent.call("/oauth2/token", &as_user), 400, "invalid_request", "credential_issuer_unknown");
    let grant = [("grant_type", JWT_BEARER), ("assertion", assertion.as_str())];
    refused(agent.post("/oauth2/token", &grant), 400, "invalid_grant", CLAIM);
    refused(agent.call("/oauth2/token", &grant), 400, "invalid_grant", CLAIM);
    for path in ["/oauth2/introspect", "/jit/complete"] {
        let url = format!("{}{path}", agent.operator.url());
        let reply = agent.http.post(url).bearer_auth(&assertion).form(&[("token", &access)]).send().expect("an answer");
        let reply = refused(reply.into(), 401, "invalid_client", CLAIM);
        assert!(reply.headers.contains_key("www-authenticate"));
    }
    for token_type in ["urn:ietf:params:oauth:token-type:access_token", "urn:ietf:params:oauth:token-type:saml2"] {
        let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", &assertion), ("subject_token_type", token_type)];
        agent.post("/oauth2/token", &form).refused(400, "invalid_request");
    }
    let actor = [("actor_token", assertion.as_str()), ("actor_token_type", TYPE_JWT)];
    let subject = [("grant_type", TOKEN_EXCHANGE), ("subject_token", tenant.token.as_str()), ("subject_token_type", TYPE_JWT)];
    agent.post("/oauth2/token", &[&subject[..], &actor].concat()).refused(400, "invalid_request");
    let reply = world.introspect(&server, &assertion);
    assert!(!reply.is_active());
    is_kept_nowhere(agent.operator, &assertion);
    agent.ask(&assertion).expect(200);

    // Beside the token of an agent the assertion must be that agent's.
    let reply = agent.call("/oauth2/token", &subject).refused(401, "invalid_client");
    assert_eq!(agent.record(&reply)["reason"], "client_mismatch");
    tenant.patch(&json!({"spec": {"identity": {"keys": [Key::new().entry()]}}}));
}

#[test]
fn j15_an_assertion_is_for_our_issuer_alone() {
    let agent = World::shared().key_agent("j15");
    let issuer = agent.operator.issuer();
    let host = issuer.strip_prefix("https://").expect("https");
    let port = host.rsplit(':').next().expect("a port");
    for aud in [
        json!(format!("{issuer}/oauth2/token")),
        json!([format!("{issuer}/oauth2/token")]),
        json!([issuer, format!("{issuer}/oauth2/token")]),
        json!([issuer, "https://other.example.com"]),
        json!([issuer, issuer]),
        json!([issuer, null]),
        json!([[issuer]]),
        json!("https://other.example.com"),
        json!(DOCS),
        json!(format!("{issuer}/")),
        json!(format!("{issuer}//")),
        json!(format!("{issuer}?")),
        json!(format!("{issuer}#")),
        json!(format!("{issuer} ")),
        json!(format!(" {issuer}")),
        json!(format!("{issuer}\u{0}")),
        json!(format!("{issuer},https://other.example.com")),
        json!(format!("{issuer} https://other.example.com")),
        json!(format!("{issuer}.evil.example")),
        json!(format!("HTTPS://{host}")),
        json!(format!("http://{host}")),
        json!(format!("https://x@{host}")),
        json!(format!("https://localhost:{port}")),
        json!(format!("https://LOCALHOST:{port}")),
        json!(format!("https://[::ffff:127.0.0.1]:{port}")),
        json!(format!("https://2130706433:{port}")),
        json!(issuer.replace("127.0.0.1", "127.0.0.\u{ff11}")),
        json!(issuer.replace("127.0.0.1", "127.0.0.%31")),
        json!(host),
        json!(&issuer[..issuer.len() - 1]),
        json!(agent.subject()),
        json!(""),
        json!("*"),
        json!([]),
        json!({"0": issuer}),
        json!(true),
        Value::Null,
    ] {
        agent.refuses(CLAIM, || agent.assertion_with(&json!({"aud": aud})));
    }
    // The issuer of another of our services, with the same agents and keys.
    let options = crate::support::operator::OperatorOptions { name: "j15".to_owned(), ..Default::default() };
    let elsewhere = agent.world.another(options);
    let there = agent.at(&elsewhere);
    there.is_served();
    there.refuses(CLAIM, || agent.assertion());
    agent.refuses(CLAIM, || there.assertion());
    // Endpoints of ours are no audiences at themselves either.
    for (path, form) in PLACES {
        let assertion = agent.assertion_with(&json!({"aud": format!("{issuer}{path}")}));
        agent.refused(&agent.send(path, &assertion, form), &assertion, CLAIM);
    }
}

#[test]
fn j16_issuer_subject_and_client_are_one_agent_whose_key_it_is() {
    let world = World::shared();
    let [a, b] = ["j16", "j16-other"].map(|purpose| world.key_agent(purpose));
    let (of_a, of_b) = (a.subject(), b.subject());
    let by = |signer: &KeyAgent<'_>, iss: &Value, sub: &Value, kid: Option<&KeyAgent<'_>>| {
        let mut header = header();
        kid.into_iter().for_each(|kid| header["kid"] = json!(kid.key.thumbprint()));
        signer.key.sign(&header, &a.claims_with(&json!({"iss": iss, "sub": sub})))
    };
    // Whose key is looked at is said by iss, and by nothing else.
    for (iss, sub, signer, kid, reason) in [
        (&of_a, &of_b, &a, None, CLAIM),
        (&of_a, &of_b, &a, Some(&a), CLAIM),
        (&of_a, &of_b, &b, None, FORGED),
        (&of_a, &of_b, &b, Some(&b), UNKNOWN),
        (&of_b, &of_a, &a, None, FORGED),
        (&of_b, &of_a, &a, Some(&a), UNKNOWN),
        (&of_b, &of_a, &b, None, CLAIM),
        (&of_b, &of_b, &a, None, FORGED),
        (&of_b, &of_b, &a, Some(&a), UNKNOWN),
        (&of_b, &of_b, &a, Some(&b), FORGED),
    ] {
        a.refuses(reason, || by(signer, &json!(iss), &json!(sub), kid));
    }
    let mut upper = of_a.clone();
    upper.make_ascii_uppercase();
    for (iss, sub, reason) in [
        (json!(of_a), Value::Null, CLAIM),
        (json!(of_a), json!(""), CLAIM),
        (json!(of_a), json!([of_a]), CLAIM),
        (json!(of_a), json!(format!("{of_a} ")), CLAIM),
        (json!(of_a), json!(upper), CLAIM),
        (json!(of_a), a.stored()["metadata"]["uid"].clone(), CLAIM),
        (Value::Null, json!(of_a), "credential_issuer_unknown"),
        (json!([of_a]), json!(of_a), "credential_issuer_unknown"),
        (json!(""), json!(of_a), "credential_issuer_unknown"),
        (json!(upper), json!(upper), "credential_issuer_unknown"),
        (json!(format!("{of_a}/x")), json!(format!("{of_a}/x")), "credential_issuer_unknown"),
        (json!(format!("{of_a}\u{0}")), json!(of_a), "credential_issuer_unknown"),
        (json!("agent:a/../b"), json!("agent:a/../b"), "credential_issuer_unknown"),
        (json!("agent:nowhere/nobody"), json!("agent:nowhere/nobody"), UNKNOWN),
        (json!(format!("agent:{}/bot2", a.namespace)), json!(of_a), UNKNOWN),
        (json!("user:alice"), json!("user:alice"), "credential_issuer_unknown"),
    ] {
        a.refuses(reason, || a.assertion_with(&json!({"iss": iss, "sub": sub})));
    }
    // client_id, which nobody signs.
    let obtain = |client_id: &str| a.call("/oauth2/token", &[("grant_type", "client_credentials"), ("client_id", client_id)]);
    obtain(&of_a).expect(200);
    for client_id in [
        of_b.as_str(),
        "agent:nowhere/nobody",
        &upper,
        &format!("{of_a} "),
        a.stored()["metadata"]["uid"].as_str().expect("a uid"),
    ] {
        let reply = obtain(client_id).refused(401, "invalid_client");
        assert_eq!(a.record(&reply)["reason"], "client_id_mismatch", "{client_id}");
        let form = [("login_hint", of_a.as_str()), ("authorization_details", "[]"), ("client_id", client_id)];
        a.call("/oauth2/bc-authorize", &form).refused(401, "invalid_client");
        let poll = [("grant_type", crate::payments::CIBA), ("auth_req_id", "x"), ("client_id", client_id)];
        a.call("/oauth2/token", &poll).refused(401, "invalid_client");
        for path in ["/oauth2/revoke", "/oauth2/introspect", "/jit/complete"] {
            let reply = a.call(path, &[("token", "x"), ("client_id", client_id)]).refused(401, "invalid_client");
            assert_eq!(a.record(&reply)["reason"], "client_id_mismatch", "{path} {client_id}");
        }
    }
    for path in ["/oauth2/revoke", "/oauth2/introspect"] {
        a.call(path, &[("token", "x"), ("client_id", &of_a)]).expect(200);
    }
    obtain("").refused(400, "invalid_request");
    let both = [("grant_type", "client_credentials"), ("client_id", of_b.as_str())];
    let forged = by(&b, &json!(of_a), &json!(of_a), None);
    a.refused(&a.send("/oauth2/token", &forged, &both), &forged, FORGED);
    let twice = [("grant_type", "client_credentials"), ("client_id", of_a.as_str()), ("client_id", of_b.as_str())];
    a.call("/oauth2/token", &twice).refused(400, "invalid_request");
}

#[test]
fn j17_an_assertion_is_short_lived_named_and_of_now() {
    let agent = World::shared().key_agent("j17");
    // Of the moment when it is sent: all of them together take a while.
    let all = |now: u64| {
        [
            json!({"exp": now + 86_400}),
            json!({"exp": now + 86_400, "iat": now + 86_370}),
            json!({"exp": now + 300, "iat": null}),
            json!({"exp": now + 90, "iat": now}),
            json!({"exp": now + 55, "iat": now - 6}),
            json!({"exp": now + 55, "iat": null, "nbf": now - 6}),
            json!({"exp": now + 600, "iat": now + 600}),
            json!({"exp": now + 660, "iat": now + 600}),
            json!({"exp": now + 40, "iat": now + 30}),
            json!({"exp": now + 40, "nbf": now + 30}),
            json!({"exp": now - 10, "iat": now - 60}),
            json!({"exp": now, "iat": now}),
            json!({"exp": now - 1, "iat": now}),
            json!({"exp": null}),
            json!({"exp": 0}),
            json!({"exp": -1}),
            json!({"exp": (now + 60).to_string()}),
            json!({"exp": now as f64 + 30.5}),
            json!({"exp": 1e300}),
            json!({"exp": u64::MAX}),
            json!({"exp": [now + 60]}),
            json!({"iat": (now).to_string()}),
            json!({"iat": -5}),
            json!({"iat": 1.5}),
            json!({"iat": {}}),
            json!({"nbf": "now"}),
            json!({"jti": null}),
            json!({"jti": ""}),
            json!({"jti": 7}),
            json!({"jti": ["a"]}),
            json!({"jti": "j".repeat(129)}),
            json!({"jti": "a\u{0}b"}),
            json!({"jti": "a\nb"}),
            json!({"jti": "\u{e9}"}),
            json!({"jti": "\u{202e}"}),
        ]
    };
    for at in 0..all(now()).len() {
        // Each has a jti of its own unless that is what is wrong with it.
        agent.refuses(CLAIM, || agent.assertion_with(&all(now())[at]));
    }
    // A null is a claim that is there.
    agent.refuses(CLAIM, || {
        of_texts(&agent, &header().to_string(), &twice(&agent.claims_with(&json!({"iat": null})), r#""iat":null"#))
    });
    // What differs only in its jti, in its case or in a space, is another assertion.
    let jti = unique().to_lowercase() + "a";
    for jti in [jti.clone(), jti.to_uppercase(), format!("{jti} "), format!(" {jti}"), format!("{jti}'--")] {
        let assertion = agent.assertion_with(&json!({"jti": jti}));
        agent.ask(&assertion).expect(200);
        agent.refused(&agent.ask(&assertion), &assertion, REPLAYED);
    }
    // A jti is its agent's own: one of another agent uses up nothing.
    let other = agent.world.key_agent("j17-other");
    let jti = json!({"jti": unique()});
    agent.ask(&agent.assertion_with(&jti)).expect(200);
    other.ask(&other.assertion_with(&jti)).expect(200);
    other.refuses(REPLAYED, || other.assertion_with(&jti));
}

/// The answer but for what names the request.
fn anonymous(reply: &Reply) -> (u16, Value, Vec<(String, String)>) {
    let named = |name: &str| matches!(name, "x-request-id" | "date");
    let headers = reply.headers.iter().filter(|(name, _)| !named(name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()));
    (reply.status, reply.body.clone(), headers.collect())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn j20_neither_answer_nor_time_tells_which_agents_there_are() {
    const SAMPLES: usize = 500;
    let world = World::shared();
    let agent = world.key_agent("j20");
    let suspended = world.key_agent("j20-suspended");
    suspended.patch(&json!({"suspended": true}));
    suspended.reaches("condition=Suspended");
    let tenant = world.tenant("j20-account");
    // An operator of its own: nobody else keeps it busy. It knows all of them from its start.
    let options = crate::support::operator::OperatorOptions { name: "j20".to_owned(), ..Default::default() };
    let operator = world.another(options);
    let wrong = Key::new();
    let bad = |subject: String, kid: Option<String>| {
        let claims = agent.at(&operator).claims_with(&json!({"iss": subject, "sub": subject}));
        let mut header = header();
        kid.into_iter().for_each(|kid| header["kid"] = json!(kid));
        wrong.sign(&header, &claims)
    };
    let unknown = format!("agent:{}/nob", agent.namespace);
    let cases: [(&str, Maker<'_>); 6] = [
        ("unknown client", Box::new(|| bad(unknown.clone(), None))),
        ("bad signature", Box::new(|| bad(agent.subject(), None))),
        ("suspended, bad signature", Box::new(|| bad(suspended.subject(), None))),
        ("no keys", Box::new(|| bad(tenant.subject(), None))),
        ("unknown client with kid", Box::new(|| bad(unknown.clone(), Some(agent.key.thumbprint())))),
        ("unknown kid", Box::new(|| bad(agent.subject(), Some(wrong.thumbprint())))),
    ];
    let there = agent.at(&operator);
    let mut answers = Vec::new();
    let mut times = vec![Vec::with_capacity(SAMPLES); cases.len()];
    for sample in 0..SAMPLES + 100 {
        for (at, (_, make)) in cases.iter().enumerate() {
            let (reply, took) = loop {
                let assertion = make();
                let begun = Instant::now();
                let reply = there.ask(&assertion);
                // A machine that is too busy to know what the cluster says tells nobody anything.
                if reply.status != 503 {
                    break (reply, begun.elapsed());
                }
            };
            let answer = anonymous(&reply);
            if !answers.contains(&answer) {
                answers.push(answer);
            }
            // The first are for warming up.
            if sample >= 100 {
                times[at].push(took);
            }
        }
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let medians: Vec<Duration> = times.iter_mut().map(|times| median(times)).collect();
    for ((name, _), median) in cases.iter().zip(&medians) {
        eprintln!("{name}: median {median:?} of {SAMPLES}");
    }
    let (least, most) = (medians.iter().min().expect("some"), medians.iter().max().expect("some"));
    assert!(*most < *least + *least / 4 + Duration::from_micros(100), "{medians:?}");
    // Each has its one record, and they are told apart there.
    let records = operator.audit_lines().expect("the audit log");
    let reasons = |reason: &str| records.iter().filter(|r| r["event"] == "token.issue" && r["reason"] == reason).count();
    assert_eq!((reasons(FORGED), reasons(UNKNOWN)), (2 * (SAMPLES + 100), 4 * (SAMPLES + 100)));
}

#[test]
fn l9_no_assertion_and_no_token_is_kept_at_any_level_of_the_log() {
    let world = World::shared();
    let options = crate::support::operator::OperatorOptions {
        name: "trace".to_owned(),
        args: vec!["--log-level=trace".to_owned()],
        ..Default::default()
    };
    let operator = world.another(options);
    let (agent, tenant) = (world.key_agent("l9"), world.tenant("l9-account"));
    let agent = agent.at(&operator);
    agent.is_served();
    let issuer = operator.issuer();
    let account = workload::pod_token(&world.kubectl(), &tenant.namespace, "bot", "pod", &tenant.pod_uid, issuer, 3600);
    let account = account.expect("a token");
    let attacker = agent.with(&Arc::new(Key::new()));
    let mut sent = vec![account.clone()];
    let makes: [&dyn Fn() -> String; 5] = [
        &|| agent.assertion(),
        &|| attacker.assertion(),
        &|| agent.assertion_with(&json!({"aud": DOCS})),
        &|| agent.assertion_under(&json!({"alg": "HS256"})),
        &|| of_texts(&agent, "{", &agent.claims().to_string()),
    ];
    for make in makes {
        for (path, form) in PLACES {
            let assertion = make();
            for _ in 0..2 {
                let reply = agent.send(path, &assertion, form);
                sent.extend(reply.body["access_token"].as_str().map(str::to_owned));
            }
            let url = format!("{}{path}", operator.url());
            let header = agent.http.post(&url).bearer_auth(&assertion).form(form).send();
            header.expect("an answer");
            let query = agent.http.get(format!("{url}?client_assertion={assertion}")).send();
            query.expect("an answer");
            sent.push(assertion);
        }
    }
    for form in [
        [("grant_type", TOKEN_EXCHANGE), ("subject_token", account.as_str()), ("subject_token_type", TYPE_JWT)].as_slice(),
        &[("grant_type", JWT_BEARER), ("assertion", &account)],
    ] {
        sent.push(agent.post("/oauth2/token", form).expect(200).text("access_token"));
    }
    let access = sent.last().expect("a token").clone();
    let url = format!("{}/oauth2/introspect", operator.url());
    agent.http.post(url).bearer_auth(&account).form(&[("token", &access)]).send().expect("an answer");
    let log = operator.process().log();
    assert!(log.contains("TRACE"), "it does not log at that level");
    assert!(sent.len() > 30, "{}", sent.len());
    for token in &sent {
        is_kept_nowhere(&operator, token);
    }
    // Its own token for the API server, and what it signs with.
    let kubeconfig = std::fs::read_to_string(world.cluster.directory().path().join("trace.kubeconfig")).expect("its kubeconfig");
    let own = kubeconfig
        .split(|c: char| !c.is_ascii_graphic() || c == '"')
        .find(|word| word.matches('.').count() == 2 && word.len() > 200);
    is_kept_nowhere(&operator, own.expect("a token"));
    assert!(!log.contains("PRIVATE KEY"), "a private key is in the log");
}
