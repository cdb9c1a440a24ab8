//! What goes wrong.

use super::actors::Stage;
use super::drill::{Drill, REPLICAS, exchange};
use super::restored::{Replicas, Restore, restored};
use crate::databases::block_on;
use crate::support::control_plane::ControlPlane;
use crate::support::control_plane::Part;
use crate::support::error::Result;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One thing that goes wrong for a while, and is right again when it returns.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(Stage<'_>, Duration),
}

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario { name: "nothing happens", run: |_, t| sleep(t) },
    Scenario { name: "the API server is killed", run: |s, t| killed(s.drill, t, &[Part::ApiServer]) },
    Scenario {
        name: "the API server freezes for less than the bound",
        run: |s, t| frozen(s.drill, t.min(Duration::from_secs(6)), Part::ApiServer),
    },
    Scenario { name: "the API server freezes for longer than the bound", run: |s, t| frozen(s.drill, t, Part::ApiServer) },
    Scenario { name: "the API server is slow", run: |s, t| slow(s.drill, t, Part::ApiServer) },
    Scenario { name: "etcd is killed", run: |s, t| killed(s.drill, t, &[Part::Etcd]) },
    Scenario { name: "etcd freezes", run: |s, t| frozen(s.drill, t, Part::Etcd) },
    Scenario { name: "etcd is slow", run: |s, t| slow(s.drill, t, Part::Etcd) },
    Scenario { name: "API server and etcd are killed at once", run: |s, t| killed(s.drill, t, &[Part::ApiServer, Part::Etcd]) },
    Scenario {
        name: "etcd is put back to older data, under its replicas",
        run: |s, t| restored(s, t, Restore::Plain, Replicas::Live),
    },
    Scenario {
        name: "etcd is restored as its manual says, under its replicas",
        run: |s, t| restored(s, t, Restore::Bumped, Replicas::Live),
    },
    Scenario {
        name: "etcd is put back to older data while nobody looks",
        run: |s, t| restored(s, t, Restore::Plain, Replicas::Down),
    },
    Scenario { name: "PostgreSQL is killed", run: |s, t| postgres_killed(s.drill, t) },
    Scenario { name: "PostgreSQL is stopped in order", run: |s, t| postgres_stopped(s.drill, t) },
    Scenario { name: "PostgreSQL freezes", run: |s, t| postgres_frozen(s.drill, t) },
    Scenario { name: "PostgreSQL is slow", run: |s, t| postgres_slow(s.drill, t) },
    Scenario { name: "PostgreSQL takes no writes", run: |s, t| postgres_read_only(s.drill, t) },
    Scenario { name: "connections to PostgreSQL are cut again and again", run: |s, t| postgres_cut(s.drill, t) },
    Scenario { name: "the ledger's table is locked", run: |s, t| postgres_locked(s.drill, t) },
    Scenario { name: "PostgreSQL fails over to a standby that has everything", run: failed_over },
    Scenario { name: "a replica is killed every few seconds", run: |s, t| replicas_killed(s.drill, t) },
    Scenario { name: "a replica freezes and comes back", run: |s, t| replica_frozen(s.drill, t) },
    Scenario { name: "all replicas are killed at once", run: |s, t| all_killed(s.drill, t) },
    Scenario { name: "replicas are replaced one after the other", run: |s, t| rolled(s.drill, t) },
    Scenario { name: "a replica's disk is full", run: |s, t| disk_full(s.drill, t) },
    Scenario { name: "a replica's clock is an hour ahead", run: |s, t| clock(s.drill, t, "+3600s") },
    Scenario { name: "a replica's clock is an hour behind", run: |s, t| clock(s.drill, t, "-3600s") },
    Scenario { name: "ten times the load", run: |s, t| overload(s.drill, t) },
    Scenario { name: "a flood of bad credentials", run: |s, t| flood(s.drill, t) },
    Scenario { name: "the signing keys are replaced", run: |s, t| keys_replaced(s.drill, t) },
];

pub fn control_plane(drill: &Drill) -> &ControlPlane {
    drill.world.cluster.control_plane().expect("a cluster that we started")
}

/// Killed at the beginning, started again after half of the time.
fn killed(drill: &Drill, time: Duration, parts: &[Part]) {
    let control_plane = control_plane(drill);
    parts.iter().for_each(|part| control_plane.kill(*part).expect("killed"));
    sleep(time / 2);
    // etcd first: an API server ends when it finds none.
    parts.iter().rev().for_each(|part| control_plane.resume(*part).expect("started"));
    sleep(time / 2);
    answers(drill);
}

/// Waits until the API server answers: what comes after it counts from then.
pub fn answers(drill: &Drill) {
    let kubectl = drill.world.kubectl();
    let deadline = Instant::now() + Duration::from_secs(60);
    while kubectl.run(&["get", "--raw", "/readyz"]).is_err() {
        assert!(Instant::now() < deadline, "the API server does not come back");
        sleep(Duration::from_millis(100));
    }
}

fn frozen(drill: &Drill, time: Duration, part: Part) {
    let control_plane = control_plane(drill);
    control_plane.signal(part, "STOP").expect("frozen");
    sleep(time);
    control_plane.signal(part, "CONT").expect("thawed");
    answers(drill);
}

/// Runs for a fifth of the time only, in turns.
fn slow(drill: &Drill, time: Duration, part: Part) {
    let control_plane = control_plane(drill);
    let until = Instant::now() + time;
    while Instant::now() < until {
        control_plane.signal(part, "STOP").expect("frozen");
        sleep(Duration::from_millis(400));
        control_plane.signal(part, "CONT").expect("thawed");
        sleep(Duration::from_millis(100));
    }
    answers(drill);
}

fn postgres_killed(drill: &Drill, time: Duration) {
    drill.postgres.kill().expect("killed");
    sleep(time / 2);
    drill.postgres.resume().expect("started");
    sleep(time / 2);
}

fn postgres_stopped(drill: &Drill, time: Duration) {
    drill.postgres.stop().expect("stopped");
    sleep(time / 2);
    drill.postgres.resume().expect("started");
    sleep(time / 2);
}

fn postgres_frozen(drill: &Drill, time: Duration) {
    let frozen = drill.postgres.freeze().expect("frozen");
    sleep(time);
    drop(frozen);
}

fn postgres_slow(drill: &Drill, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        let frozen = drill.postgres.freeze().expect("frozen");
        sleep(Duration::from_millis(600));
        drop(frozen);
        sleep(Duration::from_millis(200));
    }
}

/// Statements in the database of the replicas' server, from outside.
fn sql(drill: &Drill, statements: &str) -> Result<String> {
    drill.postgres.sql("postgres", statements)
}

fn database(drill: &Drill) -> &str {
    drill.url.rsplit('/').next().expect("a name")
}

const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ";

/// As it is on a standby, and on a server whose disk an administrator protects.
fn postgres_read_only(drill: &Drill, time: Duration) {
    let database = database(drill);
    let set = |to: &str| {
        let text = format!("ALTER DATABASE {database} SET default_transaction_read_only = {to}; {CUT}'{database}'");
        sql(drill, &text).expect("it runs");
    };
    set("on");
    sleep(time);
    set("off");
}

fn postgres_cut(drill: &Drill, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        sql(drill, &format!("{CUT}'{}'", database(drill))).expect("it runs");
        sleep(Duration::from_millis(300));
    }
}

fn postgres_locked(drill: &Drill, time: Duration) {
    use sqlx::{Connection as _, PgConnection};
    block_on(async {
        let mut connection = PgConnection::connect(&drill.url).await.expect("a connection");
        sqlx::raw_sql("BEGIN; LOCK TABLE segments IN SHARE MODE").execute(&mut connection).await.expect("locked");
        tokio::time::sleep(time).await;
        // Who waited for it may have been given up on: what it wrote counts or does not, and says which.
        connection.close().await.expect("closed");
    });
}

/// First the standby is cut off, and the server alone acknowledges nothing. Then it is killed, and the standby, which has all that was ever
/// acknowledged, is where it was: at first as a standby still. What is behind the name has changed, as with a Service.
fn failed_over(stage: Stage<'_>, time: Duration) {
    let (drill, token) = (stage.drill, &stage.cast.steady.token);
    let refused = |why: &str| {
        for i in 0..REPLICAS.len() {
            let answer = exchange(drill, i, token);
            assert!(!matches!(answer, Some((200, _))), "{why}: {answer:?}");
        }
    };
    drill.postgres.follow(true).expect("a standby");
    sleep(time / 4);
    drill.postgres.part().expect("cut off");
    refused("a server acknowledged what its standby does not have");
    sleep(time / 4);
    refused("a server acknowledged what its standby does not have");
    drill.postgres.succeed().expect("the standby is there");
    sleep(time / 8);
    refused("a standby was written to");
    drill.postgres.promote().expect("promoted");
    sleep(time / 4);
}

fn replicas_killed(drill: &Drill, time: Duration) {
    let until = Instant::now() + time;
    let mut turn = 0;
    while Instant::now() < until {
        drill.kill(turn % REPLICAS.len());
        sleep(Duration::from_secs(1));
        drill.revive(turn % REPLICAS.len());
        turn += 1;
        sleep(Duration::from_secs(2));
    }
}

fn replica_frozen(drill: &Drill, time: Duration) {
    drill.with(0, |operator| operator.process().signal("STOP").expect("frozen"));
    sleep(time);
    drill.with(0, |operator| operator.process().signal("CONT").expect("thawed"));
}

fn all_killed(drill: &Drill, time: Duration) {
    sleep(time / 2);
    (0..REPLICAS.len()).for_each(|i| drill.kill(i));
    drill.postgres.kill().expect("killed");
    drill.postgres.resume().expect("started");
    (0..REPLICAS.len()).for_each(|i| drill.revive(i));
    sleep(time / 2);
}

fn rolled(drill: &Drill, time: Duration) {
    let until = Instant::now() + time;
    let mut turn = 0;
    while Instant::now() < until {
        drill.end(turn % REPLICAS.len());
        drill.revive(turn % REPLICAS.len());
        turn += 1;
    }
}

/// No file of the second replica may grow: the copy of its records cannot be written.
fn disk_full(drill: &Drill, time: Duration) {
    let limit = |bytes: &str| {
        let pid = drill.with(1, |operator| operator.process().pid()).to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(done.expect("prlimit").success());
    };
    limit("4096");
    sleep(time);
    limit("unlimited");
}

/// The clock of the third replica, and of nothing else.
fn clock(drill: &Drill, time: Duration, by: &str) {
    std::fs::write(&drill.clock, by).expect("written");
    sleep(time);
    std::fs::write(&drill.clock, "+0s").expect("written");
}

/// As many at once as it takes.
fn overload(drill: &Drill, time: Duration) {
    let credential = drill.world.tenant("crowd").token;
    many(drill, time, 64, &credential);
}

/// So many clients ask with this credential, without a pause.
fn many(drill: &Drill, time: Duration, clients: usize, credential: &str) {
    let until = Instant::now() + time;
    std::thread::scope(|scope| {
        for turn in 0..clients {
            scope.spawn(move || {
                while Instant::now() < until {
                    _ = exchange(drill, turn, credential);
                }
            });
        }
    });
}

fn flood(drill: &Drill, time: Duration) {
    many(drill, time, 16, &format!("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.{}", "A".repeat(86)));
}

/// In an emergency: no token from before lives on.
fn keys_replaced(drill: &Drill, time: Duration) {
    sleep(time / 2);
    let kubeconfig = drill.world.cluster.kubeconfig().display().to_string();
    let output = Command::new(crate::world::binary())
        .args(["rotate-signing-keys", "--namespace", crate::support::install::NAMESPACE])
        .args(["--secret-name", crate::support::install::RELEASE])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sleep(time / 2);
}
