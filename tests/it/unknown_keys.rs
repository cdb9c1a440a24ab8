//! A replica that lacks a key looks for it at once, and no oftener than it should; one that cannot see its Secret signs nothing.

use crate::crowd::connected;
use crate::forged_tokens::encode;
use crate::signing_keys::{is_active, issued, kids, published, rotate, tenant};
use crate::support::cluster::ClusterOptions;
use crate::support::install::NAMESPACE;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::workload;
use crate::world::{DOCS, PATIENCE, Reply, World, claims, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// A ServiceAccount of its own for other replicas, whose rights a test can change.
const ACCOUNT: &str = "replica";

/// Gives [`ACCOUNT`] the rights of the operator, but in the Secret only these.
fn may(world: &World, verbs: &[&str]) {
    let subject = json!({"kind": "ServiceAccount", "namespace": NAMESPACE, "name": ACCOUNT});
    let one = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "resourceNames": ["countersign"], "verbs": verbs});
    let write = ["get", "update"];
    let rules = json!([one("", "secrets", verbs), one("", "configmaps", &write), one("coordination.k8s.io", "leases", &write)]);
    world.bind(NAMESPACE, ACCOUNT, &rules, &[subject]);
}

/// Another replica, as [`ACCOUNT`], which issues nothing with a view older than so many seconds.
fn replica(world: &World, name: &str, bound: u32) -> Operator {
    let token = world.kubectl().run(&["create", "token", ACCOUNT, "-n", NAMESPACE, "--duration=1h"]).expect("a token");
    let kubeconfig = world.cluster.kubeconfig_with_token(&format!("as-{name}"), token.trim()).expect("a kubeconfig");
    let options = OperatorOptions {
        name: name.to_owned(),
        issuer: Some(world.operator.issuer().to_owned()),
        args: vec![format!("--staleness-bound={bound}")],
        env: vec![("KUBECONFIG".to_owned(), kubeconfig.display().to_string())],
        ..OperatorOptions::default()
    };
    world.another(options)
}

/// A token of ours, as it seems, signed with a key of that name.
fn unknown(like: &str, kid: &str) -> String {
    let header = json!({"alg": "EdDSA", "kid": kid, "typ": "at+jwt"});
    format!("{}.{}.{}", encode(&header), encode(&claims(like)), "A".repeat(86))
}

fn introspected(world: &World, operator: &Operator, server: &str, token: &str) -> Reply {
    let url = format!("{}/oauth2/introspect", operator.url());
    world.http.post(url).bearer_auth(server).form(&[("token", token)]).send().expect("an answer").into()
}

/// How often [`ACCOUNT`] has read the Secret, by the API server's own audit log.
fn reads(log: &Path) -> usize {
    std::fs::read_to_string(log).expect("the audit log").lines().count()
}

#[test]
fn a_replica_that_lacks_a_key_looks_for_it_at_once_and_no_oftener_than_once_in_a_second() {
    let directory = tempfile::tempdir().expect("a directory");
    let (policy, log) = (directory.path().join("policy.yaml"), directory.path().join("audit.log"));
    let user = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    let rules = json!([
        {"level": "Metadata", "users": [user], "verbs": ["get"], "resources": [{"group": "", "resources": ["secrets"]}], "omitStages": ["RequestReceived"]},
        {"level": "None"},
    ]);
    std::fs::write(&policy, json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}).to_string())
        .expect("written");
    let flags = [("policy-file", &policy), ("log-path", &log)].map(|(flag, path)| format!("--audit-{flag}={}", path.display()));
    let options = ClusterOptions { api_server_flags: flags.into(), ..ClusterOptions::default() };
    let world = World::start_shareable_on(&options, &[]);
    workload::create_service_account(&world.kubectl(), NAMESPACE, ACCOUNT).expect("a ServiceAccount");
    let subject = json!({"kind": "ServiceAccount", "namespace": NAMESPACE, "name": ACCOUNT});
    world.bind_cluster_role_everywhere(ACCOUNT, "countersign", &[subject]);
    may(&world, &["get", "list", "watch", "update"]);
    let (tenant, server) = (tenant(&world, "lacking"), world.resource_server(DOCS));
    // Started after it, so that they know it.
    let (patient, usual) = (replica(&world, "patient", 60), replica(&world, "usual", 5));
    let old = issued(&tenant, &world.operator, DOCS).expect(200).text("access_token");
    for operator in [&patient, &usual] {
        assert!(is_active(&world, operator, &server, &old));
    }

    // Both lose sight of the Secret. Their watches end after 4 s, and no other is opened.
    may(&world, &["get", "update"]);
    let blind = |operator: &Operator| {
        let log = operator.process().log();
        log.lines().any(|line| line.contains("a watch failed") && line.contains("\"watch\":\"secret\""))
    };
    wait_until("both are blind", PATIENCE, || blind(&patient) && blind(&usual));
    // One must not sign any more: it could not tell if a key had been taken away.
    wait_until("one issues nothing", PATIENCE, || issued(&tenant, &usual, DOCS).status == 503);
    assert!(usual.get("/readyz").expect("an answer").body.contains("secret"), "and says why");
    assert_eq!(published(&world, &usual), published(&world, &world.operator), "its keys are published all the same");

    // The other may, by its flags, for a minute. It does not hear of new keys.
    let before = kids(&world, &patient);
    rotate(world.cluster.kubeconfig(), &[]).expect("rotated");
    wait_until("the first replica has new keys", PATIENCE, || kids(&world, &world.operator).is_disjoint(&before));
    assert_eq!(kids(&world, &patient), before, "and the blind one has not");
    let new = issued(&tenant, &world.operator, DOCS).expect(200).text("access_token");
    let asked = Instant::now();
    assert!(is_active(&world, &patient, &server, &new), "it looks for the key and finds it");
    eprintln!("an unknown key was found in {:?}", asked.elapsed());
    assert!(kids(&world, &patient).is_disjoint(&before));
    assert!(!is_active(&world, &patient, &server, &old), "and drops what was taken away");

    // However many names are made up, and however many ask at once.
    let (start, had) = (Instant::now(), reads(&log));
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let (world, patient, server, new) = (&world, &patient, &server, &new);
            scope.spawn(move || {
                for i in 0..4 {
                    let reply = introspected(world, patient, server, &unknown(new, &format!("made-up-{thread}-{i}")));
                    assert!(!reply.is_active());
                    assert!(is_active(world, patient, server, new), "nobody else is kept waiting");
                }
            });
        }
    });
    let (seconds, had_now) = (usize::try_from(start.elapsed().as_secs()).expect("few"), reads(&log));
    // One for each second, and one for the heartbeat of every minute of either replica.
    assert!((1..=seconds + 3).contains(&(had_now - had)), "{} reads in {seconds} s", had_now - had);
    // A name that is known to be none costs nothing, and neither does a token of somebody else.
    let start = Instant::now();
    for _ in 0..50 {
        assert!(!introspected(&world, &patient, &server, &unknown(&new, "made-up-0-0")).is_active());
        let mut claims = claims(&new);
        claims["iss"] = json!("https://somebody.else");
        let header = json!({"alg": "EdDSA", "kid": "theirs", "typ": "at+jwt"});
        let token = format!("{}.{}.{}", encode(&header), encode(&claims), "A".repeat(86));
        assert!(!introspected(&world, &patient, &server, &token).is_active());
    }
    assert!(reads(&log) - had_now <= 2, "{} reads in {:?}", reads(&log) - had_now, start.elapsed());

    // More than can wait are told that nobody can tell, and none is told that it is alive.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let statuses = runtime.block_on(crowd(&patient, &server, &new));
    assert!(statuses.iter().all(|(status, body)| *status == 503 || (*status == 200 && body["active"] == false)), "{statuses:?}");
    assert!(statuses.iter().any(|(status, _)| *status == 503) && statuses.iter().any(|(status, _)| *status == 200));
}

/// Introspects two hundred tokens with made-up keys at once.
async fn crowd(operator: &Operator, server: &str, like: &str) -> Vec<(u16, Value)> {
    let http = connected(operator, &vec![operator.url(); 200]).await;
    let url = format!("{}/oauth2/introspect", operator.url());
    let sent = (0..200).map(|i| {
        let form = [("token", unknown(like, &format!("crowd-{i}")))];
        let sent = http.post(&url).bearer_auth(server).form(&form).send();
        async move {
            let reply = sent.await.expect("an answer");
            (reply.status().as_u16(), reply.json().await.expect("JSON"))
        }
    });
    futures::future::join_all(sent).await
}
