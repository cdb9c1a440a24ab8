//! A control plane that freezes: nothing is issued on a view that may be old, and all is well soon after.

use crate::payments::asked;
use crate::support::operator::OperatorOptions;
use crate::support::process::Guarded;
use crate::world::{DOCS, PATIENCE, World, claims, wait_until};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Freezes one process, sees issuing and introspection stop within the bound and return soon after the thaw.
/// `names` is what the process says that it lacks.
fn freeze(component: impl Fn(&World) -> &Guarded, names: &[&str]) {
    // A world of its own: nobody else can use it while it is frozen.
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant_with("frozen", &json!({}));
    let server = world.resource_server(DOCS);
    let token = tenant.access_token();
    assert!(world.introspect(&server, &token).is_active());

    component(&world).signal("STOP").expect("frozen");
    // Ten seconds is the bound; the rest is for a busy machine to notice.
    let stopped = wait_until("issuing stops", Duration::from_secs(12), || world.exchange(&tenant.token).status == 503);
    let reply = world.exchange(&tenant.token).refused(503, "temporarily_unavailable");
    assert_eq!(reply.headers["retry-after"], "1");
    let record = world.record_of(&reply);
    assert_eq!((&record["reason"], &record["outcome"]), (&json!("view_stale"), &json!("error")));
    world.introspect(&server, &token).refused(503, "temporarily_unavailable");
    wait_until("it names all that it lacks", PATIENCE, || {
        let answer = world.operator.get("/readyz").expect("an answer");
        assert_eq!(answer.status, 503);
        names.iter().all(|name| answer.body.lines().any(|line| line.contains(name)))
    });
    // P7: keys and metadata stay up.
    for path in ["/oauth2/jwks", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/healthz"] {
        let answer = world.http.get(format!("{}{path}", world.operator.url())).send().expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }

    component(&world).signal("CONT").expect("thawed");
    let back = wait_until("issuing is back", PATIENCE, || world.exchange(&tenant.token).status == 200);
    // The API server, which is asked for it, may need a moment more.
    wait_until("introspection is back", PATIENCE, || world.introspect(&server, &token).status == 200);
    assert!(world.introspect(&server, &token).is_active());
    eprintln!("issuing stopped {stopped:?} after the freeze and was back {back:?} after the thaw");
}

#[test]
fn a_frozen_api_server_stops_issuing_within_ten_seconds() {
    freeze(|world| world.cluster.api_server().expect("a cluster that we started"), &["agents", "pods", "secret", "lease"]);
}

#[test]
fn a_frozen_etcd_stops_issuing_within_ten_seconds() {
    freeze(|world| world.cluster.etcd().expect("a cluster that we started"), &["lease"]);
}

#[test]
fn a12_a_write_whose_answer_is_lost_makes_one_token_all_the_same() {
    let world = World::start(4, &[], &[]);
    let (tenant, capability) = world.payments_tenant("lost-answer");
    world.approver("bob", &tenant.namespace, &capability);
    let api_server = world.cluster.api_server().expect("a cluster that we started");
    for _ in 0..3 {
        let asked = asked(&tenant, &capability);
        asked.approve("bob");
        // The write is sent, and lies in the socket of an API server that answers nobody.
        api_server.signal("STOP").expect("frozen");
        asked.poll().refused(503, "temporarily_unavailable");
        api_server.signal("CONT").expect("thawed");
        let mut token = None;
        wait_until("the agent has its token", PATIENCE, || {
            let reply = asked.poll();
            token = reply.body["access_token"].as_str().map(str::to_owned);
            assert!(reply.status == 200 || reply.status == 503, "nothing was burnt: {:?}", reply.body);
            token.is_some()
        });
        let token = token.expect("a token");
        assert_eq!(claims(&token)["jti"], asked.status()["jti"]);
        let mut identifiers: Vec<_> =
            asked.records().into_iter().filter(|r| r["reason"] == "granted").map(|r| r["jti"].to_string()).collect();
        identifiers.dedup();
        assert_eq!(identifiers.len(), 1, "one jti ever");
        asked.complete(&token).expect(200);
    }
}

/// The library that shifts the clock of a process; `make tools` installs it.
fn libfaketime() -> PathBuf {
    let found =
        ["x86_64", "aarch64"].map(|machine| PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1")));
    found.into_iter().find(|path| path.exists()).expect("libfaketime: package faketime (`make tools` installs it)")
}

/// A file that says by how much the clock of a process is shifted, by nothing at first, and the environment that makes it so.
pub fn clock_of(directory: &Path) -> (PathBuf, Vec<(String, String)>) {
    let file = directory.join("clock");
    std::fs::write(&file, "+0s").expect("written");
    let env = [
        ("LD_PRELOAD", libfaketime().display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // Timers go on as they did: only what the clock on the wall says is shifted.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    (file, env.map(|(name, value)| (name.to_owned(), value)).into())
}

#[test]
fn a13_r10_a_process_whose_clock_is_off_redeems_nothing() {
    let world = World::start_shareable();
    let (tenant, capability) = world.payments_tenant("clock");
    world.approver("bob", &tenant.namespace, &capability);
    let shift = |path: &Path, by: &str| std::fs::write(path, by).expect("written");
    let (clock, env) = clock_of(world.cluster.directory().path());
    let options = OperatorOptions {
        name: "shifted".to_owned(),
        issuer: Some(world.operator.issuer().to_owned()),
        env,
        ..OperatorOptions::default()
    };
    let shifted = world.another(options);
    let ready = || shifted.get("/readyz").expect("an answer");
    for (by, says) in [("-3600s", "-3"), ("+3600s", "3"), ("-86400s", "-86")] {
        let asked = asked(&tenant, &capability);
        asked.approve("bob");
        shift(&clock, by);
        wait_until("it notices", PATIENCE, || ready().status == 503);
        let complaint = ready().body;
        assert!(complaint.contains("off that of the API server") && complaint.contains(says), "{by}: {complaint}");
        asked.poll_at(&shifted.url(), "0").refused(503, "temporarily_unavailable");
        assert_eq!(asked.status()["phase"], "Approved", "nothing was used up, and nothing expired before its time");
        shift(&clock, "+0s");
        wait_until("it is well again", PATIENCE, || ready().status == 200);
        let token = asked.poll_at(&shifted.url(), "0").expect(200).text("access_token");
        asked.complete(&token).expect(200);
    }
}
