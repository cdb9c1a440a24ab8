//! The operator and its database: one database is in use at a time, and the operator says when it has none.

use crate::databases::Database;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::{NAMESPACE, RELEASE, install_chart};
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::postgres::Postgres;
use crate::world::{PATIENCE, Reply, TOKEN_EXCHANGE, TYPE_JWT, World, binary, client, wait_until};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a process waits for one with another database, at least, and at most on a busy machine.
const TAKEOVER: std::ops::Range<Duration> = Duration::from_secs(10)..Duration::from_secs(30);

/// The database that the Lease is written with, and since when.
fn lease(cluster: &Cluster) -> (String, String) {
    let lease = cluster.kubectl().get_json(&["get", "lease", RELEASE, "-n", NAMESPACE]).expect("the Lease");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&lease["metadata"]["annotations"]["countersign.dev/store"]), text(&lease["spec"]["acquireTime"]))
}

fn named(name: &str) -> OperatorOptions {
    OperatorOptions { name: name.to_owned(), ..OperatorOptions::default() }
}

/// What is missing; empty if nothing is.
fn complaint(operator: &Operator) -> String {
    let answer = operator.get("/readyz").expect("an answer");
    if answer.body == "ok\n" { String::new() } else { answer.body }
}

#[test]
fn an_operator_with_another_database_waits_until_the_first_is_gone() {
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant("two-databases");
    world.exchange(&tenant.token).expect(200);
    let (first, _) = lease(&world.cluster);

    // As a StatefulSet scaled to two: each has a volume of its own.
    let second = Operator::start_waiting(&world.cluster, binary(), &named("second")).expect("it starts");
    let end = Instant::now() + TAKEOVER.start + Duration::from_secs(5);
    while Instant::now() < end {
        let complaint = complaint(&second);
        assert!(!complaint.is_empty(), "it serves beside the first");
        assert_eq!(complaint.contains(&first), complaint.contains("another database is in use"), "{complaint}");
        world.exchange(&tenant.token).expect(200);
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(complaint(&second).contains("another database is in use"));
    assert_eq!(lease(&world.cluster).0, first);

    // The first freezes. It goes on as if nothing had happened, but somebody else is at work.
    world.operator.process().signal("STOP").expect("frozen");
    let took = wait_until("the second takes over", TAKEOVER.end, || complaint(&second).is_empty());
    assert!(took >= TAKEOVER.start, "{took:?}: the first might still serve");
    let (now, since) = lease(&world.cluster);
    assert_ne!(now, first);
    world.operator.process().signal("CONT").expect("thawed");
    // Even before it looks at the Lease again. Over a new connection: it may close those that were open as timed out.
    let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", &tenant.token), ("subject_token_type", TYPE_JWT)];
    let endpoint = format!("{}/oauth2/token", world.operator.url());
    let sent = client(&world.operator).post(&endpoint).form(&form).send();
    Reply::from(sent.expect("an answer")).refused(503, "temporarily_unavailable");
    wait_until("the first says why", PATIENCE, || complaint(&world.operator).contains("another database is in use"));
    Reply::from(client(&world.operator).post(&endpoint).form(&form).send().expect("an answer"))
        .refused(503, "temporarily_unavailable");
    assert!(world.operator.process().log().contains(&now), "and logs it");
    assert_eq!((complaint(&second), lease(&world.cluster)), (String::new(), (now.clone(), since.clone())));

    // With its own database it needs no wait.
    second.process().signal("KILL").expect("killed");
    drop(second);
    let restarted = Instant::now();
    let second = Operator::start(&world.cluster, binary(), &named("second")).expect("it starts");
    assert!(restarted.elapsed() < TAKEOVER.start, "{:?}", restarted.elapsed());
    assert_eq!(lease(&world.cluster), (now, since), "nobody took over");

    second.stop();
    let took = wait_until("the first takes over again", TAKEOVER.end, || complaint(&world.operator).is_empty());
    assert!(took >= TAKEOVER.start - Duration::from_secs(1), "{took:?}");
    assert_eq!(lease(&world.cluster).0, first);
    Reply::from(client(&world.operator).post(&endpoint).form(&form).send().expect("an answer")).expect(200);
}

#[test]
fn replicas_with_one_database_do_not_wait() {
    let world = World::start_shareable();
    let begun = Instant::now();
    let second = world.another(named("second"));
    assert!(begun.elapsed() < TAKEOVER.start, "{:?}", begun.elapsed());
    let (store, since) = lease(&world.cluster);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(lease(&world.cluster), (store, since), "nobody takes anything over");
    assert_eq!((complaint(&world.operator), complaint(&second)), (String::new(), String::new()));
}

#[test]
fn an_operator_says_that_its_database_is_away_and_when_it_is_back() {
    let server = Postgres::start().expect("a server");
    let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
    install_chart(&cluster, 4, &[]).expect("the chart installs");
    let options = OperatorOptions { database: Some(server.database().expect("a database")), ..OperatorOptions::default() };
    let reachable = |operator: &Operator| {
        let metrics = operator.get("/metrics").expect("metrics").body;
        metrics.contains("countersign_store_reachable 1")
    };

    // It waits for a database that is not there yet.
    server.stop().expect("stopped");
    let operator = std::thread::scope(|scope| {
        let started = scope.spawn(|| Operator::start(&cluster, binary(), &options));
        let log = cluster.directory().path().join("operator/operator.log");
        wait_until("it waits", PATIENCE, || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting for the database"))
        });
        server.resume().expect("it starts");
        started.join().expect("a thread").expect("it starts")
    });
    assert!(reachable(&operator));

    for round in 0..2 {
        let away = server.freeze().expect("frozen");
        wait_until("it notices", PATIENCE, || complaint(&operator).contains("the database of the store cannot be reached"));
        assert!(!reachable(&operator), "round {round}");
        assert_eq!(operator.get("/readyz").expect("an answer").status, 200, "no replica has a better one");
        drop(away);
        wait_until("it is back", PATIENCE, || complaint(&operator).is_empty());
        assert!(reachable(&operator), "round {round}");
    }
    server.kill().expect("killed");
    wait_until("it notices", PATIENCE, || !complaint(&operator).is_empty());
    assert!(operator.process().exited().is_none(), "it waits");
    server.resume().expect("it starts again");
    wait_until("it is back", PATIENCE, || complaint(&operator).is_empty());
    let log = operator.process().log();
    let password = options.database.as_deref().and_then(|url| url.split(['/', ':', '@']).nth(4)).expect("a password");
    assert!(log.contains("postgres://countersign@127.0.0.1") && !log.contains(password), "{log}");
}

/// What `countersign serve` says with this database, of a start that fails before it reaches a cluster.
fn refused(database: &str, env: &[(&str, &str)]) -> String {
    let serve = ["serve", "--issuer=https://countersign.example", "--namespace=countersign-system", "--log-level=error"];
    let output = Command::new(binary())
        .args(serve)
        .arg(database)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(env.iter().copied())
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_database_that_would_not_outlive_the_pod_is_refused() {
    const MEMORY: &str = "/dev/shm";
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    assert!(mounts.contains(" /dev/shm ") && Path::new(MEMORY).is_dir(), "Linux has a tmpfs there");
    let directory = tempfile::tempdir_in(MEMORY).expect("a directory");
    let database = format!("--database=sqlite://{}/countersign.db", directory.path().display());
    let in_a_pod = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "1")];
    let said = refused(&database, &in_a_pod);
    assert!(said.contains("lies on tmpfs, which is lost with the pod"), "{said}");
    assert!(!directory.path().join("countersign.db").exists(), "nothing was made there");
    // By a link, too.
    let elsewhere = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(directory.path(), elsewhere.path().join("link")).expect("a link");
    let link = format!("--database=sqlite://{}/link/countersign.db", elsewhere.path().display());
    assert!(refused(&link, &in_a_pod).contains("lies on tmpfs"));
    let said = refused(&database, &[]);
    assert!(said.contains("Kubernetes client"), "outside of a cluster it is fine: {said}");
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let Database { url, .. } = Database::postgres();
    let password = url.split(['/', ':', '@']).nth(4).expect("a password");
    for said in [refused(&format!("--database={url}"), &[]), refused("--log-level=error", &[("COUNTERSIGN_DATABASE", &url)])] {
        assert!(said.contains("--database-file") && !said.contains(password), "{said}");
    }
    let help = Command::new(binary()).args(["serve", "--help"]).env("COUNTERSIGN_DATABASE", &url).output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("COUNTERSIGN_DATABASE") && !help.contains(password), "{help}");
}
