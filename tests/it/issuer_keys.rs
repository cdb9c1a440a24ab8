//! The API server's keys for ServiceAccount tokens: fetched when needed, and no oftener.

use crate::forged_tokens::{encode, signed_by_the_api_server};
use crate::support::cluster::ClusterOptions;
use crate::support::operator::OperatorOptions;
use crate::world::{CLIENT_ASSERTION, PATIENCE, Reply, World, claims, client};
use serde_json::json;

#[test]
fn an_unknown_key_is_asked_for_at_most_once_in_ten_seconds() {
    // The API server's own audit log says who asked for its keys, and when.
    let directory = tempfile::tempdir().expect("a directory");
    let (policy, log) = (directory.path().join("policy.yaml"), directory.path().join("audit.log"));
    let rules = json!([{"level": "Metadata", "nonResourceURLs": ["/openid/v1/jwks"], "omitStages": ["RequestReceived"]}, {"level": "None"}]);
    let text = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}).to_string();
    std::fs::write(&policy, text).expect("written");
    let options = ClusterOptions {
        api_server_flags: vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", log.display()),
        ],
        ..ClusterOptions::default()
    };
    let world = World::start_on(&options, 4, &[], &[]);
    let tenant = world.tenant_with("cooldown", &json!({}));
    let asked = || std::fs::read_to_string(&log).expect("the audit log").lines().filter(|l| l.contains(":countersign\"")).count();
    let before = asked();
    assert!(before >= 1, "the operator has fetched the keys");
    let start = std::time::Instant::now();
    // Until they are asked for once more, which may be ten seconds after the operator's own first time.
    for i in 0.. {
        if i >= 100 && (asked() > before || start.elapsed() > PATIENCE) {
            break;
        }
        let token =
            signed_by_the_api_server(&world, &json!({"alg": "RS256", "kid": format!("unknown-{i}")}), &claims(&tenant.token));
        let reply = world.exchange(&token).refused(400, "invalid_request");
        assert_eq!(world.record_of(&reply)["reason"], "credential_key_unknown");
    }
    let windows = usize::try_from(start.elapsed().as_secs() / 10 + 1).expect("a small number");
    // One for each ten seconds, and one for the refresh of every minute.
    let since = asked() - before;
    assert!((1..=windows + 1).contains(&since), "{since} fetches in {:?}", start.elapsed());
}

#[test]
fn h10_many_unknown_names_take_no_memory() {
    // An operator of its own, so that nothing else makes it grow.
    let options = OperatorOptions { name: "unknown-names".to_owned(), ..OperatorOptions::default() };
    let operator = World::shared().another(options);
    let http = client(&operator);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", operator.process().pid())).expect("a process");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS").to_owned();
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("kB")
    };
    let request = |i: u32| {
        let token = format!("{}.{}.c2ln", encode(&json!({"alg": "RS256", "kid": format!("unknown-{i}")})), "x".repeat(2000));
        let client_id = format!("agent:x/{i}");
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", &token),
            ("client_id", &client_id),
        ];
        let reply = http.post(format!("{}/oauth2/token", operator.url())).form(&form).send();
        Reply::from(reply.expect("an answer")).refused(401, "invalid_client");
    };
    (0..500).for_each(request);
    let before = resident();
    (500..2500).for_each(request);
    let grown = resident().saturating_sub(before);
    // Two thousand tokens of 2 KiB and their names are 5 MB.
    assert!(grown < 2048, "grown by {grown} kB");
}
