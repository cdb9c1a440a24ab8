//! Signing keys rotate under load: no request fails, and whoever keeps the published keys as long as told never meets an unknown one.

use crate::replicas::replica;
use crate::signing_keys::{KUBERNETES, is_active, issued, published, tenant};
use crate::support::cluster::ClusterOptions;
use crate::support::operator::Operator;
use crate::support::repository;
use crate::world::{DOCS, World, claims, header};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// How many keys of each algorithm must have signed.
const SIGNERS: usize = 4;
/// When a test that gets nowhere gives up.
const LIMIT: Duration = Duration::from_secs(180);

/// The published keys at some time.
struct Publication {
    /// Just before they were fetched.
    at: Instant,
    keys: BTreeMap<String, Jwk>,
}

/// For how long the published keys may be kept.
fn max_age(world: &World) -> Duration {
    let answer = world.http.get(format!("{}/oauth2/jwks", world.operator.url())).send().expect("an answer");
    let header = answer.headers()["cache-control"].to_str().expect("text").to_owned();
    Duration::from_secs(header.strip_prefix("public, max-age=").expect("an age").parse().expect("seconds"))
}

fn publication(world: &World, operator: &Operator) -> Publication {
    let at = Instant::now();
    let read = |key: Value| {
        let jwk: Jwk = serde_json::from_value(key).expect("a JWK");
        (jwk.common.key_id.clone().expect("a kid"), jwk)
    };
    Publication { at, keys: published(world, operator).into_iter().map(read).collect() }
}

/// Verifies a token with these keys, as any service would.
fn verify(keys: &BTreeMap<String, Jwk>, token: &str, issuer: &str, audience: &str) {
    let header = header(token);
    let kid = header["kid"].as_str().expect("a kid");
    let jwk = keys.get(kid).unwrap_or_else(|| panic!("{kid} signs and is not among {:?}", keys.keys()));
    let algorithm = header["alg"].as_str().expect("an alg").parse().expect("an algorithm");
    let mut rules = Validation::new(algorithm);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[issuer]);
    let verified = jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(jwk).expect("a key"), &rules);
    assert_eq!(verified.expect("verified").claims, claims(token));
}

#[test]
fn keys_rotate_under_load_and_nobody_notices() {
    // A thousandth of what is usual: a key is published for 5 s, and the published keys may be kept for 2.
    let flags = ["--signing-key-rotation=12s", "--signing-key-publish-ahead=5s"];
    let world = World::start_shareable_on(&ClusterOptions::default(), &flags);
    let tenant = tenant(&world, "load");
    // Started after it, so that it knows it.
    let second = replica(&world, "second", &flags.map(str::to_owned));
    let operators = [&world.operator, &second];
    let targets = [DOCS, KUBERNETES].map(|audience| (audience, world.resource_server(audience)));
    let kept = max_age(&world);
    assert_eq!(kept, Duration::from_secs(2));

    let publications = Mutex::new(vec![publication(&world, &world.operator)]);
    let signers = Mutex::new(BTreeMap::<String, BTreeSet<String>>::new());
    let tokens = Mutex::new(Vec::<(usize, String)>::new());
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut node = Command::new("node")
        .arg(repository().join("tests/clients/jose-rotation.mjs"))
        .env("COUNTERSIGN_URL", world.operator.url())
        .env("NODE_EXTRA_CA_CERTS", world.operator.ca_file())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node");
    let mut stdin = node.stdin.take().expect("a pipe");
    let (to_node, for_node) = mpsc::channel::<String>();

    let issue = |replica: usize, target: usize, to_node: mpsc::Sender<String>| {
        let (audience, server) = &targets[target];
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let token = issued(&tenant, operators[replica], audience).expect(200).text("access_token");
            // The other replica knows it at once.
            assert!(is_active(&world, operators[1 - replica], server, &token));
            // So does whoever has not looked at the published keys for as long as that is allowed.
            let publications = publications.lock().expect("no panic");
            let oldest = publications.iter().find(|p| p.at + kept >= asked).or(publications.last()).expect("a publication");
            verify(&oldest.keys, &token, world.operator.issuer(), audience);
            drop(publications);
            let (algorithm, kid) = (&header(&token)["alg"], &header(&token)["kid"]);
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let is_new = signers.lock().expect("no panic").entry(text(algorithm)).or_default().insert(text(kid));
            if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(50) || is_new {
                tokens.lock().expect("no panic").push((target, token.clone()));
            }
            to_node.send(token).expect("node listens");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::scope(|scope| {
        let publish = scope.spawn(|| {
            for replica in (0..2).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let publication = publication(&world, operators[replica]);
                publications.lock().expect("no panic").push(publication);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let feed = scope.spawn(move || for_node.iter().for_each(|token| writeln!(stdin, "{token}").expect("node reads")));
        let issuers = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(replica, target)| {
            let (issue, to_node) = (&issue, to_node.clone());
            scope.spawn(move || issue(replica, target, to_node))
        });
        drop(to_node);
        let start = Instant::now();
        let threads: Vec<&ScopedJoinHandle<'_, ()>> = issuers.iter().chain([&publish, &feed]).collect();
        let enough = || {
            let signers = signers.lock().expect("no panic");
            signers.len() == 2 && signers.values().all(|kids| kids.len() >= SIGNERS)
        };
        while !enough() && start.elapsed() < LIMIT && threads.iter().all(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let signers = signers.into_inner().expect("no panic");
    assert!(signers.values().all(|kids| kids.len() >= SIGNERS), "{signers:?}");
    // Nobody's token died on the way, whichever key has signed it.
    for (target, token) in tokens.into_inner().expect("no panic") {
        for operator in operators {
            assert!(is_active(&world, operator, &targets[target].1, &token));
        }
    }
    let output = node.wait_with_output().expect("node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("the script says what it did");
    let count = count.into_inner();
    assert_eq!(said["verified"], count);
    assert!(said["kids"].as_array().expect("kids").len() >= 2 * SIGNERS, "{said}");
    assert!(said["fetches"].as_u64().expect("a number") < 90, "it kept the keys: {said}");
    eprintln!("{count} tokens by {} keys of each algorithm; jose read the published keys {} times", SIGNERS, said["fetches"]);
    // What happened is recorded, by both.
    for operator in operators {
        let rotated = operator.audit_lines().expect("the audit log").into_iter().filter(|r| r["event"] == "signing_keys.rotated");
        let reasons: Vec<String> = rotated.map(|r| r["reason"].as_str().expect("a reason").to_owned()).collect();
        assert!(reasons.iter().filter(|reason| *reason == "rotated").count() >= SIGNERS - 1, "{reasons:?}");
        assert!(!reasons.contains(&"replaced".to_owned()), "{reasons:?}");
    }
}
