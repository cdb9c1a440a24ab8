//! The life of a trusted issuer: it is stopped, changed, its keys come and go, and its server fails.

use crate::federation::{COOLDOWN, Federated, accepted, fails, no_token, present, unavailable};
use crate::forged_tokens::refused_everywhere;
use crate::support::issuer::behaviour::Behaviour;
use crate::support::issuer::{Document, P256, RSA};
use crate::world::{PATIENCE, World, wait_until};
use serde_json::json;
use std::time::{Duration, Instant};

/// Exchanges the token until it is refused, and once more a moment later. Returns how long that took since `start`.
fn until_refused(federated: &Federated<'_>, start: Instant) -> Duration {
    let token = federated.token();
    wait_until("the token is refused", PATIENCE, || federated.world.exchange(&token).status != 200);
    let took = start.elapsed();
    for _ in 0..20 {
        for reply in present(federated.world, &token) {
            no_token(&reply);
        }
    }
    took
}

#[test]
fn f15_an_issuer_that_is_removed_or_suspended_counts_no_more_within_a_second() {
    const PROMISE: Duration = Duration::from_secs(1);
    const LIVENESS: Duration = Duration::from_secs(10);
    let federated = Federated::start(World::shared(), "f15", &json!({}));
    let again = || wait_until("it counts again", PATIENCE, || federated.world.exchange(&federated.token()).status == 200);
    let mut worst = Duration::ZERO;
    for round in 0..2 {
        let ways: [(&str, &dyn Fn()); 4] = [
            ("suspended", &|| federated.patch(&json!({"spec": {"suspended": true}}))),
            ("removed", &|| federated.remove()),
            ("another audience", &|| federated.patch(&json!({"spec": {"issuer": {"audiences": ["https://elsewhere.example"]}}}))),
            ("another rule", &|| {
                federated.patch(&json!({"spec": {"claimValidationRules": [{"claim": "tier", "requiredValue": "gold"}]}}));
            }),
        ];
        for (way, stop) in ways {
            accepted(federated.world, &federated.token(), &federated.subject());
            let start = Instant::now();
            stop();
            let written = start.elapsed();
            let took = until_refused(&federated, start);
            eprintln!(
                "round {round}: {way}: kubectl took {written:?}, no token accepted {:?} later",
                took.saturating_sub(written)
            );
            worst = worst.max(took.saturating_sub(written));
            assert!(took < LIVENESS, "{way}: {took:?}");
            federated.trust(&json!({"suspended": false, "claimValidationRules": []}));
            federated.is_ready();
            again();
        }
    }
    eprintln!("an issuer that is stopped: no token accepted {worst:?} after kubectl at the latest; promised is {PROMISE:?}");
}

#[test]
fn f15_tokens_in_flight_do_not_outlive_their_issuer() {
    let federated = Federated::start(World::shared(), "flight", &json!({}));
    let token = federated.token();
    // A request that waits for keys while the issuer goes: it must not be answered with a token afterwards.
    federated.issuer.add_key("slow", "ES256".parse().expect("an algorithm")).expect("added");
    let waiting = federated.token_of("slow", &federated.claims());
    let last = federated.issuer.requests(Document::Keys).last().expect("a fetch").at;
    wait_until("the cooldown is over", PATIENCE, || last.elapsed() > COOLDOWN + Duration::from_millis(200));
    federated.issuer.behave(Document::Discovery, Behaviour::Silent);
    let fetches = federated.issuer.requests(Document::Discovery).len();
    std::thread::scope(|scope| {
        let reply = scope.spawn(|| federated.world.exchange(&waiting));
        wait_until("it waits for the keys", PATIENCE, || federated.issuer.requests(Document::Discovery).len() > fetches);
        federated.remove();
        no_token(&reply.join().expect("a reply"));
    });
    no_token(&federated.world.exchange(&token));
}

#[test]
fn a_new_key_is_found_by_one_fetch() {
    let federated = Federated::start(World::shared(), "rotation", &json!({}));
    let fetches = || federated.issuer.requests(Document::Keys).len();
    federated.issuer.add_key("next", "ES256".parse().expect("an algorithm")).expect("added");
    let token = federated.token_of("next", &federated.claims());
    let (before, last) = (fetches(), federated.issuer.requests(Document::Keys).last().expect("a fetch").at);
    if last.elapsed() < Duration::from_secs(8) {
        refused_everywhere(federated.world, &token, "credential_key_unknown");
        assert_eq!(fetches(), before, "not within the cooldown");
    }
    wait_until("the cooldown is over", PATIENCE, || last.elapsed() > COOLDOWN + Duration::from_millis(200));
    let start = Instant::now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..50).map(|_| scope.spawn(|| federated.world.exchange(&token).status)).collect();
        crowd.into_iter().map(|one| one.join().expect("a reply")).collect()
    });
    eprintln!("50 tokens with a new key: {} fetch, {:?}", fetches() - before, start.elapsed());
    assert_eq!(statuses, [200; 50]);
    assert_eq!(fetches(), before + 1);
    accepted(federated.world, &federated.token(), &federated.subject());
    assert_eq!(fetches(), before + 1);
}

#[test]
fn a_key_that_is_withdrawn_dies_at_the_next_refresh() {
    const MAX_AGE: u64 = 40;
    let federated = Federated::start(World::shared(), "withdrawn", &json!({"issuer": {"keysMaxAgeSeconds": MAX_AGE}}));
    let stolen = federated.token_of(RSA, &federated.claims());
    accepted(federated.world, &stolen, &federated.subject());
    federated.issuer.publish(RSA, false).expect("withdrawn");
    let start = Instant::now();
    wait_until("the key is dead", Duration::from_secs(MAX_AGE), || federated.world.exchange(&stolen).status != 200);
    eprintln!("a key that was withdrawn was accepted for {:?}; keysMaxAgeSeconds is {MAX_AGE}", start.elapsed());
    refused_everywhere(federated.world, &stolen, "credential_key_unknown");
    accepted(federated.world, &federated.token(), &federated.subject());
    // Another key of the same name is not the old one.
    federated.issuer.replace_key(P256, "ES256".parse().expect("an algorithm")).expect("replaced");
    let replaced = federated.token();
    wait_until("the new key counts", Duration::from_secs(MAX_AGE), || federated.world.exchange(&replaced).status == 200);
    accepted(federated.world, &replaced, &federated.subject());
}

#[test]
fn keys_that_cannot_be_fetched_again_are_not_used_for_ever() {
    const MAX_AGE: Duration = Duration::from_secs(20);
    let federated = Federated::start(World::shared(), "stale", &json!({"issuer": {"keysMaxAgeSeconds": MAX_AGE.as_secs()}}));
    accepted(federated.world, &federated.token(), &federated.subject());
    federated.issuer.behave(Document::Keys, Behaviour::Silent);
    // The last fetch that was answered, which may have been under way.
    let last = federated.issuer.requests(Document::Keys).last().expect("a fetch").at;
    federated.world.exchange(&federated.token()).expect(200);
    wait_until("the keys are too old", MAX_AGE * 4, || federated.world.exchange(&federated.token()).status != 200);
    let age = last.elapsed();
    eprintln!("keys were used for {age:?}; keysMaxAgeSeconds is {MAX_AGE:?}");
    assert!(age + Duration::from_millis(500) > MAX_AGE, "not before they are too old: {age:?}");
    unavailable(federated.world, &federated.token());
    let why = fails(federated.world, &federated.name, "KeysFetched");
    assert!(why["message"].as_str().is_some_and(|message| message.len() > 20), "{why}");
    // The status follows when the keys are tried again.
    fails(federated.world, &federated.name, "Ready");
    federated.issuer.mend();
    let start = Instant::now();
    wait_until("the keys are back", COOLDOWN * 4, || federated.world.exchange(&federated.token()).status == 200);
    eprintln!("keys that could be fetched again counted after {:?}", start.elapsed());
    federated.is_ready();
}
