//! Issuers whose servers are slow, huge, lying, redirecting or gone. Whatever they do, no token is accepted that should not be, little
//! is fetched, and nothing is fetched from where nobody sent us.

use crate::federation::{COOLDOWN, Federated, SUBJECT, accepted, fails, no_token, present, trusted_issuer};
use crate::forged_tokens::refused_everywhere;
use crate::support::certificates::Certificate;
use crate::support::issuer::behaviour::Behaviour;
use crate::support::issuer::{Document, Issuer, P256, Seen, hostile};
use crate::support::trap::Trap;
use crate::world::{PATIENCE, World, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How much of a reply may have left the server although the client reads no more than 64 KiB: what fits into the buffers of two
/// sockets.
const BUFFERED: usize = 12 << 20;

/// The issuer is trusted while it behaves like this: its tokens are not accepted, the condition says why, and that took no more
/// than one fetch.
fn is_harmless(federated: &Federated<'_>, what: &str, spec: &Value) {
    let requests = |document| federated.issuer.requests(document).len();
    let before = [Document::Discovery, Document::Keys].map(requests);
    federated.trust(spec);
    let start = Instant::now();
    let reply = federated.world.exchange(&federated.token());
    no_token(&reply);
    assert!(start.elapsed() < Duration::from_secs(8), "{what}: the answer took {:?}", start.elapsed());
    let why = fails(federated.world, &federated.name, "KeysFetched");
    let message = why["message"].as_str().expect("a message");
    assert!((20..1024).contains(&message.len()) && !message.contains(char::is_control), "{what}: {message:?}");
    for reply in present(federated.world, &federated.token()) {
        no_token(&reply);
    }
    assert_eq!(federated.condition("Ready")["status"], "False", "{what}");
    if start.elapsed() < COOLDOWN {
        for (document, before) in [(Document::Discovery, before[0]), (Document::Keys, before[1])] {
            assert!(requests(document) <= before + 1, "{what}: {document:?} was fetched more than once");
        }
    }
    // A new object begins anew, without the cooldown of this one.
    federated.remove();
}

/// An agent of an issuer that is not trusted yet.
fn untrusted<'a>(purpose: &str) -> Federated<'a> {
    let federated = Federated::apart(World::shared(), purpose);
    let identity = json!({
        "serviceAccounts": [{"name": "bot"}],
        "federated": [{"issuer": federated.name, "subject": SUBJECT}],
    });
    let object = crate::world::agent(&federated.namespace, "bot", &json!({"identity": identity}));
    federated.world.apply(&crate::world::stamped(object, "admin")).expect("the Agent is accepted");
    federated
}

#[test]
fn f11_a_discovery_document_sends_nobody_elsewhere() {
    let (federated, trap) = (untrusted("f11"), Trap::set().expect("a trap"));
    for (flaw, behaviour) in hostile::discoveries(&trap.url()) {
        federated.issuer.behave(Document::Discovery, behaviour);
        is_harmless(&federated, flaw, &json!({}));
        assert!(federated.issuer.requests(Document::Keys).is_empty(), "{flaw}: the keys were fetched all the same");
        assert_eq!(trap.caught().expect("a trap"), Vec::<String>::new(), "{flaw}");
    }
    federated.issuer.mend();
    for target in
        [format!("{}/keys", trap.url()), trap.url().replace("https", "http"), federated.issuer.url_of(Document::Discovery)]
    {
        federated.issuer.behave(Document::Keys, Behaviour::Redirect(target.clone()));
        is_harmless(&federated, &target, &json!({}));
    }
    assert_eq!(trap.caught().expect("a trap"), Vec::<String>::new());
    // And when all is right, so is the token.
    federated.issuer.mend();
    federated.trust(&json!({}));
    federated.is_ready();
    wait_until("the token is accepted", PATIENCE, || federated.world.exchange(&federated.token()).status == 200);
}

#[test]
fn f11_no_private_address_is_connected_to_unless_the_administrator_allows_it() {
    let (federated, trap) = (untrusted("private"), Trap::set().expect("a trap"));
    let (world, port) = (federated.world, trap.address().port());
    let token = federated.token();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::1]",
        "127.1",
        "0",
        "0.0.0.0",
        "[::]",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "127.0.0.1.",
        "LOCALHOST",
        "%31%32%37.0.0.1",
        "\u{ff11}27.0.0.1",
    ] {
        for (field, path) in [("jwksURL", "keys"), ("discoveryURL", ".well-known/openid-configuration")] {
            let url = format!("https://{host}:{port}/{path}");
            // Another private network that is allowed changes nothing.
            let object = trusted_issuer(
                world,
                &federated.name,
                &federated.issuer,
                &json!({"issuer": {field: url, "allowedNetworks": ["10.0.0.0/8"]}}),
            );
            match world.apply(&object) {
                Err(refusal) => assert!(refusal.contains("URL"), "{url}: {refusal}"),
                Ok(_) => {
                    for reply in present(world, &token) {
                        no_token(&reply);
                    }
                    wait_until(&format!("{url} is refused"), PATIENCE, || {
                        ["KeysFetched", "Ready"].iter().any(|kind| federated.condition(kind)["status"] == "False")
                    });
                    federated.remove();
                }
            }
            assert_eq!(trap.caught().expect("a trap"), Vec::<String>::new(), "{url}");
        }
    }
    // The issuer's own address is no exception.
    is_harmless(&federated, "no network is allowed", &json!({"issuer": {"allowedNetworks": ["10.0.0.0/8"]}}));
    assert_eq!(federated.issuer.connections(), 0);
    federated.trust(&json!({"issuer": {"allowedNetworks": ["127.0.0.1/32"]}}));
    federated.is_ready();
    assert!(federated.issuer.connections() > 0);
}

#[test]
fn f11_a_name_that_resolves_to_a_private_address_is_not_connected_to() {
    let world = World::shared();
    let issuer = Issuer::start_at("localhost", "/named").expect("an issuer");
    world
        .apply(&trusted_issuer(world, "named", &issuer, &json!({"issuer": {"allowedNetworks": ["10.0.0.0/8"]}})))
        .expect("accepted");
    let why = fails(world, "named", "KeysFetched");
    assert!(why["message"].as_str().is_some_and(|message| message.contains("allowedNetworks")), "it says what to do: {why}");
    assert_eq!(issuer.connections(), 0);
    world.kubectl().run(&["delete", "trustedissuer", "named"]).expect("deleted");
    world
        .apply(&trusted_issuer(world, "named", &issuer, &json!({"issuer": {"allowedNetworks": ["127.0.0.1/32", "::1/128"]}})))
        .expect("accepted");
    crate::federation::ready(world, "named");
    world.kubectl().run(&["delete", "trustedissuer", "named"]).expect("deleted");
}

#[test]
fn f12_keys_that_say_two_things_or_show_a_secret_are_not_used() {
    let federated = untrusted("f12");
    for (flaw, behaviour) in hostile::key_sets() {
        federated.issuer.behave(Document::Keys, behaviour);
        is_harmless(&federated, flaw, &json!({}));
    }
}

#[test]
fn f12_a_fetch_is_bounded_in_size_and_time() {
    let federated = untrusted("bounded");
    let keys = federated.issuer.document(Document::Keys);
    let behaviours = [
        Behaviour::Silent,
        Behaviour::Drip,
        Behaviour::Huge,
        Behaviour::Endless,
        Behaviour::gzip_bomb(&keys).expect("a bomb"),
        Behaviour::Close,
        Behaviour::Status(204, String::new()),
        Behaviour::Status(500, keys.to_string()),
        Behaviour::Status(206, keys.to_string()),
    ];
    for document in [Document::Discovery, Document::Keys] {
        for behaviour in &behaviours {
            federated.issuer.mend();
            federated.issuer.behave(document, behaviour.clone());
            let before = federated.issuer.requests(document).len();
            is_harmless(&federated, &format!("{document:?} {behaviour:?}"), &json!({}));
            for request in &federated.issuer.requests(document)[before..] {
                is_bounded(&federated.issuer, document, request, &format!("{document:?} {behaviour:?}"));
            }
        }
    }
}

/// The client hung up in time, and read no more than it may.
fn is_bounded(issuer: &Issuer, document: Document, request: &Seen, what: &str) {
    let now = || issuer.requests(document).into_iter().find(|seen| seen.at == request.at).expect("seen");
    wait_until(&format!("{what}: the connection ends"), PATIENCE, || now().ended.is_some());
    let seen = now();
    let lasted = seen.ended.expect("ended").duration_since(seen.at);
    eprintln!("{what}: {} bytes left the server, in {lasted:?}", seen.sent);
    // A server that drips notices up to a second later.
    assert!(lasted < Duration::from_secs(6), "{what}: {lasted:?}");
    assert!(seen.sent < BUFFERED, "{what}: {} bytes", seen.sent);
}

#[test]
fn a_server_that_cannot_prove_its_name_is_asked_nothing() {
    let federated = untrusted("certificates");
    for certificate in [Certificate::OfAnotherAuthority, Certificate::ForAnotherHost, Certificate::Expired] {
        federated.issuer.present(certificate);
        is_harmless(&federated, &format!("{certificate:?}"), &json!({}));
    }
    federated.issuer.present(Certificate::Good);
    // Nor does the system's trust help where the entry names an authority of its own, or the other way round.
    let other = Issuer::start("").expect("an issuer");
    is_harmless(&federated, "another authority", &json!({"issuer": {"certificateAuthority": other.ca_pem()}}));
    is_harmless(&federated, "the system's authorities", &json!({"issuer": {"certificateAuthority": null}}));
    assert!(federated.issuer.requests(Document::Discovery).is_empty() && federated.issuer.requests(Document::Keys).is_empty());
    let both = format!("{}{}", other.ca_pem(), federated.issuer.ca_pem());
    federated.trust(&json!({"issuer": {"certificateAuthority": both}}));
    federated.is_ready();
}

#[test]
fn f16_what_a_foreign_server_says_is_repeated_nowhere() {
    const CANARY: &str = "canary-8f14e45fceea167a";
    let federated = untrusted("f16");
    let world = federated.world;
    for document in [Document::Discovery, Document::Keys] {
        for behaviour in [
            hostile::error(CANARY),
            Behaviour::Text(format!("{CANARY}\r\n\u{1b}[2J{}", CANARY.repeat(100))),
            Behaviour::altered(
                |_| json!({"issuer": CANARY, "jwks_uri": CANARY, "keys": [{"kid": CANARY, "kty": CANARY, "d": CANARY}]}),
            ),
            Behaviour::Redirect(format!("https://{CANARY}.example/{CANARY}")),
        ] {
            federated.issuer.mend();
            federated.issuer.behave(document, behaviour);
            federated.trust(&json!({}));
            for reply in present(world, &federated.token()) {
                no_token(&reply);
                assert!(!reply.body.to_string().contains(CANARY), "{reply:?}");
                assert!(!world.record_of(&reply).to_string().contains(CANARY));
            }
            fails(world, &federated.name, "KeysFetched");
            let object = world.kubectl().get_json(&["get", "trustedissuer", &federated.name]).expect("the TrustedIssuer");
            assert!(!object["status"].to_string().contains(CANARY), "{object}");
            federated.remove();
        }
    }
    let log = world.operator.process().log();
    assert!(!log.contains(CANARY) && !log.contains('\u{1b}'), "in the log of the operator");
    assert!(log.lines().all(|line| line.len() < 8192), "no line of the log is endless");
    let events = world.kubectl().run(&["get", "events", "-A", "-o", "json"]).expect("events");
    assert!(!events.contains(CANARY), "in the events");
}

#[test]
fn j5_nothing_that_a_token_names_is_fetched_for_it() {
    let federated = Federated::start(World::shared(), "j5", &json!({}));
    let trap = Trap::set().expect("a trap");
    let (world, url) = (federated.world, format!("{}/jwks", trap.url()));
    let connections = federated.issuer.connections();
    for (member, value) in [
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("jwk", federated.issuer.document(Document::Keys)["keys"][0].clone()),
        ("x5c", json!(["MIIB"])),
        ("kid", json!(format!("{url} {P256}"))),
        ("crit", json!(["exp"])),
        ("iss", json!(url)),
    ] {
        let mut head = json!({"alg": "ES256", "kid": P256});
        head[member] = value;
        let token = federated.issuer.sign_with(P256, &head, &federated.claims()).expect("a token");
        refused_everywhere(world, &token, "credential_malformed_or_forged");
    }
    for issuer in [url.as_str(), "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd"] {
        let token = federated.token_with(&json!({"iss": issuer, "jwks_uri": url, "jku": url}));
        refused_everywhere(world, &token, "credential_issuer_unknown");
    }
    let token = federated.token_with(&json!({"iss": null, "sub": format!("spiffe://{}/a", trap.address())}));
    refused_everywhere(world, &token, "credential_issuer_unknown");
    // A kid is looked up, never visited.
    let head = json!({"alg": "ES256", "kid": url});
    let token = federated.issuer.sign_with(P256, &head, &federated.claims()).expect("a token");
    refused_everywhere(world, &token, "credential_key_unknown");
    assert_eq!(trap.caught().expect("a trap"), Vec::<String>::new());
    assert!(federated.issuer.connections() <= connections + 2, "an unknown kid is at most one fetch: discovery and keys");
    accepted(world, &federated.token(), &federated.subject());
}

#[test]
fn a_hostile_key_server_costs_one_bounded_fetch_for_each_cooldown() {
    const SECONDS: u64 = 32;
    let issuers: Vec<Federated<'_>> = (0..4).map(|_| untrusted("flood")).collect();
    let keys = issuers[2].issuer.document(Document::Keys);
    issuers[0].issuer.behave(Document::Keys, Behaviour::Silent);
    issuers[1].issuer.behave(Document::Keys, Behaviour::Huge);
    issuers[2].issuer.behave(Document::Keys, Behaviour::gzip_bomb(&keys).expect("a bomb"));
    // The fourth is right, but does not have the keys that tokens name.
    for federated in &issuers {
        federated.trust(&json!({"issuer": {"jwksURL": federated.issuer.url_of(Document::Keys)}}));
    }
    issuers[3].is_ready();
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let floods: Vec<_> =
            issuers.iter().map(|federated| scope.spawn(|| flood(federated, Duration::from_secs(SECONDS)))).collect();
        floods.into_iter().map(|flood| flood.join().expect("a flood")).collect()
    });
    for (federated, tokens) in issuers.iter().zip(counts) {
        let requests = federated.issuer.requests(Document::Keys);
        let gaps: Vec<Duration> = requests.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at)).collect();
        eprintln!("{}: {tokens} tokens, {} fetches, {gaps:?} apart", federated.name, requests.len());
        assert!(tokens > 20, "a flood");
        assert!(requests.len() >= 2 && requests.len() as u64 <= SECONDS / COOLDOWN.as_secs() + 2, "{} fetches", requests.len());
        // The times are those when the server had read the request, some milliseconds after the fetch began.
        assert!(gaps.iter().all(|gap| *gap > COOLDOWN - Duration::from_secs(1)), "{gaps:?}");
        for request in &requests {
            is_bounded(&federated.issuer, Document::Keys, request, &federated.name);
        }
    }
}

/// Sends tokens with keys that the issuer does not have, each another. Returns how many.
fn flood(federated: &Federated<'_>, how_long: Duration) -> usize {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < how_long {
        let head = json!({"alg": "ES256", "kid": format!("unknown-{sent}")});
        let token = federated.issuer.sign_with(P256, &head, &federated.claims()).expect("a token");
        no_token(&federated.world.exchange(&token));
        sent += 1;
    }
    sent
}

#[test]
fn one_hostile_issuer_does_not_disturb_the_others() {
    let world = World::shared();
    let (hostile, good) = (untrusted("disturbing"), Federated::start(world, "disturbed", &json!({})));
    let tenant = world.tenant("disturbed");
    hostile.issuer.behave(Document::Keys, Behaviour::Silent);
    hostile.trust(&json!({}));
    let token = hostile.token();
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..30).map(|_| scope.spawn(|| no_token(&world.exchange(&token)))).collect();
        let mut worst = Duration::ZERO;
        while crowd.iter().any(|one| !one.is_finished()) {
            let start = Instant::now();
            world.exchange(&good.token()).expect(200);
            world.exchange(&tenant.token).expect(200);
            worst = worst.max(start.elapsed());
        }
        eprintln!("beside 30 requests that wait for a server that never answers, two others took at most {worst:?}");
        assert!(worst < Duration::from_secs(2), "{worst:?}");
    });
}

#[test]
fn l10_the_fields_of_a_token_reach_the_record_bounded_and_escaped() {
    let federated = Federated::start(World::shared(), "record", &json!({}));
    let long = format!("\u{202e}{}", "s".repeat(400));
    let token = federated.token_with(&json!({"sub": long}));
    let reply = federated.world.exchange(&token).refused(400, "invalid_request");
    let record = federated.world.record_of(&reply);
    assert_eq!(record["reason"], "agent_unknown");
    assert!(record.to_string().len() < 4096, "{record}");
    let lines = federated.world.operator.audit_text().expect("the audit log").into_bytes();
    assert!(lines.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "nothing but printable ASCII");
    for value in [json!("a\nb"), json!("a\0b"), json!("s".repeat(513)), json!(["a"]), json!(7), Value::Null] {
        refused_everywhere(federated.world, &federated.token_with(&json!({"sub": value})), "credential_claim_refused");
    }
}
