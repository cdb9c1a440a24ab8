//! The ledger of a running operator when something fails: nothing is issued that is not in it, and nothing that was answered is lost.

use crate::audited::{Ledger, metric, published};
use crate::databases::block_on;
use crate::staleness::clock_of;
use crate::support::operator::OperatorOptions;
use crate::support::ports::free_ports;
use crate::support::postgres::Postgres;
use crate::world::{PATIENCE, Reply, TOKEN_EXCHANGE, TYPE_JWT, World, claims, wait_until};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The promise is 1.5 s; the rest is for a busy machine.
const BOUND: Duration = Duration::from_millis(2500);

/// The URL of a file that is a database of an operator.
fn sqlite(world: &World) -> String {
    format!("sqlite://{}", world.operator.audit_log().with_file_name("countersign.db").display())
}

/// Fails unless the operator refuses to issue, in bounded time, until it is well again.
fn l1(world: &World, token: &str, fault: &str, begin: impl FnOnce(), end: impl FnOnce()) -> Vec<Reply> {
    let mut issued = vec![world.exchange(token).expect(200)];
    begin();
    let failures = metric(world, "countersign_record_failures");
    // What was under way may still have been written.
    wait_until(&format!("{fault}: nothing is issued"), PATIENCE, || {
        let reply = world.exchange(token);
        let refused = reply.status == 503;
        if !refused {
            issued.push(reply.expect(200));
        }
        refused
    });
    for _ in 0..5 {
        let begun = Instant::now();
        world.exchange(token).refused(503, "temporarily_unavailable");
        assert!(begun.elapsed() < BOUND, "{fault}: {:?}", begun.elapsed());
    }
    assert!(metric(world, "countersign_record_failures") > failures, "{fault}");
    end();
    wait_until(&format!("{fault}: it is over"), PATIENCE, || world.exchange(token).status == 200);
    issued.push(world.exchange(token).expect(200));
    issued
}

fn check_issued(ledger: &Ledger, issued: &[Reply]) {
    for reply in issued {
        let claims = claims(&reply.text("access_token"));
        assert_eq!(ledger.count("jti", claims["jti"].as_str().expect("a jti")), 1);
    }
}

#[test]
fn l1_a_database_that_is_gone_hangs_or_takes_no_writes_stops_issuing_until_it_is_back() {
    let server = Postgres::start().expect("a server");
    let url = server.database().expect("a database");
    let world = World::start_on_database(url.clone());
    let tenant = world.tenant("outage");
    let mut issued = Vec::new();
    let fault = |what, begin: &dyn Fn(), end: &dyn Fn()| l1(&world, &tenant.token, what, begin, end);
    issued.extend(fault("stopped", &|| server.stop().expect("stopped"), &|| server.resume().expect("started")));
    issued.extend(fault("killed", &|| server.kill().expect("killed"), &|| server.resume().expect("started")));
    let frozen = Mutex::new(None);
    issued.extend(fault("frozen", &|| *frozen.lock().expect("lock") = Some(server.freeze().expect("frozen")), &|| {
        drop(frozen.lock().expect("lock").take())
    }));
    let read_only = |on: &str| {
        let database = url.rsplit('/').next().expect("a name");
        let text = format!(
            "ALTER DATABASE {database} SET default_transaction_read_only = {on}; SELECT pg_terminate_backend(pid) \
             FROM pg_stat_activity WHERE datname = '{database}'"
        );
        server.sql("postgres", &text).expect("it runs");
    };
    issued.extend(fault("read-only", &|| read_only("on"), &|| read_only("off")));
    world.operator.process().begin_stop();
    world.operator.process().wait(PATIENCE).expect("it ends");
    let ledger = block_on(Ledger::read(&url));
    check_issued(&ledger, &issued);
    let (keys, heads) = published(&world);
    ledger.check(&keys, &heads);
    assert_eq!(ledger.count("event", "ledger.discontinuity"), 0);
}

/// Writes a program that is the operator, but does not end when a file of its may not grow.
pub fn write_unlimited(script: &Path) {
    // The shell ignores the signal for a file that becomes too large, and what it becomes inherits that.
    let text = format!("#!/bin/sh\ntrap '' XFSZ\nexec '{}' \"$@\"\n", crate::world::binary().display());
    std::fs::write(script, text).expect("written");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn l1_a_full_disk_stops_issuing_until_there_is_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("countersign");
    write_unlimited(&script);
    let mut world = World::start(4, &[], &[]);
    let issuer = Some(world.operator.issuer().to_owned());
    world.operator.process().begin_stop();
    world.operator.process().wait(PATIENCE).expect("it ends");
    let options = OperatorOptions { issuer, args: vec!["--audit-log=/dev/null".to_owned()], ..OperatorOptions::default() };
    world.operator = crate::support::operator::Operator::start(&world.cluster, &script, &options).expect("it starts");
    let tenant = world.tenant("full-disk");
    let limit = |bytes: &str| {
        let pid = world.operator.process().pid().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(done.expect("prlimit").success());
    };
    // No file may grow beyond a size that all of them have reached.
    let issued: Vec<Reply> =
        (0..2).flat_map(|_| l1(&world, &tenant.token, "full", || limit("4096"), || limit("unlimited"))).collect();
    world.operator.process().signal("KILL").expect("killed");
    world.operator.process().wait(PATIENCE).expect("it ends");
    let ledger = block_on(Ledger::read(&sqlite(&world)));
    check_issued(&ledger, &issued);
    let (keys, heads) = published(&world);
    ledger.check(&keys, &heads);
}

#[test]
fn l15_a_clock_that_goes_back_is_noted_in_the_ledger_and_numbers_go_on() {
    let world = World::start_shareable();
    let tenant = world.tenant("clock");
    let (file, env) = clock_of(world.cluster.directory().path());
    let options = OperatorOptions {
        name: "shifted".to_owned(),
        issuer: Some(world.operator.issuer().to_owned()),
        env,
        ..OperatorOptions::default()
    };
    let shifted = world.another(options);
    let ask = || {
        let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", &tenant.token), ("subject_token_type", TYPE_JWT)];
        let sent = crate::world::client(&shifted).post(format!("{}/oauth2/token", shifted.url())).form(&form).send();
        let reply = Reply::from(sent.expect("an answer"));
        let lines = shifted.audit_lines().expect("the audit log");
        lines.into_iter().find(|line| line["request_id"] == json!(reply.request_id)).expect("a record")
    };
    let before = ask();
    assert_eq!(before["time_went_back"], Value::Null);
    std::fs::write(&file, "-3600s").expect("written");
    let lines = || shifted.audit_lines().expect("the audit log");
    wait_until("a record is written by the other time", PATIENCE, || {
        ask();
        lines().iter().any(|line| line["time_went_back"].as_u64().is_some_and(|by| (3_500_000..=3_600_000).contains(&by)))
    });
    shifted.stop();
    // The numbers are without gaps: the audit log is that of one log of the ledger.
    let path = world.cluster.directory().path().join("shifted/audit.jsonl");
    let text = std::fs::read_to_string(path).expect("the audit log");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let numbers: Vec<u64> = lines.filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn l12_nothing_that_is_sent_or_applied_changes_where_records_go() {
    // There is no field for it in any resource, and no parameter of any endpoint: only flags.
    for crd in countersign::crd::all() {
        let text = serde_json::to_string(&crd).expect("JSON");
        for word in ["auditLog", "audit-log", "auditArchive", "database"] {
            assert!(!text.contains(&format!("\"{word}\":")), "{word}");
        }
    }
    let world = World::shared();
    let tenant = world.tenant("redirect");
    let elsewhere = world.cluster.directory().path().join("elsewhere.jsonl");
    let path = elsewhere.display().to_string();
    for name in ["audit_log", "audit-log", "COUNTERSIGN_AUDIT_LOG", "database"] {
        let form =
            [("grant_type", TOKEN_EXCHANGE), ("subject_token", &tenant.token), ("subject_token_type", TYPE_JWT), (name, &path)];
        let reply = world.request(&form);
        world.record_of(&reply);
    }
    assert!(!elsewhere.exists());
}

/// Exchanges `token` over and over, from several connections, and remembers the identifiers of tokens that arrived.
async fn load(client: reqwest::Client, url: String, token: String, until: Arc<AtomicBool>) -> Vec<String> {
    let ask = || async {
        let mut arrived = Vec::new();
        while !until.load(Ordering::SeqCst) {
            let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", &token), ("subject_token_type", TYPE_JWT)];
            let Ok(reply) = client.post(format!("{url}/oauth2/token")).form(&form).send().await else { break };
            let Ok(body) = reply.json::<Value>().await else { break };
            if let Some(token) = body["access_token"].as_str() {
                arrived.push(claims(token)["jti"].as_str().expect("a jti").to_owned());
            }
        }
        arrived
    };
    futures::future::join_all((0..16).map(|_| ask())).await.into_iter().flatten().collect()
}

/// Kills the operator under load so many times; every token that arrived has its record.
fn kill_under_load(mut world: World, url: impl Fn(&World) -> String) {
    let rounds: u32 = std::env::var("COUNTERSIGN_KILL_ROUNDS").map_or(10, |rounds| rounds.parse().expect("a number"));
    let token = world.tenant("killed").token;
    let mut arrived = Vec::new();
    for round in 0..rounds {
        let client = crate::crowd::client(&world.operator).timeout(PATIENCE).build().expect("a client");
        let until = Arc::new(AtomicBool::new(false));
        let tokens = std::thread::scope(|scope| {
            let (address, token, stop) = (world.operator.url(), token.clone(), Arc::clone(&until));
            let loading = scope.spawn(move || block_on(load(client, address, token, stop)));
            // Another moment each time: in the middle of appends, checkpoints and folding the log into the file.
            std::thread::sleep(Duration::from_millis(200 + u64::from(round % 10) * 37));
            world.operator.process().signal("KILL").expect("killed");
            world.operator.process().wait(PATIENCE).expect("it ends");
            until.store(true, Ordering::SeqCst);
            loading.join().expect("a thread")
        });
        arrived.extend(tokens);
        world.restart().expect("it starts again");
    }
    world.operator.process().begin_stop();
    world.operator.process().wait(PATIENCE).expect("it ends");
    let ledger = block_on(Ledger::read(&url(&world)));
    let recorded: Vec<&str> = ledger.records().filter_map(|record| record["jti"].as_str()).collect();
    let distinct: HashSet<&str> = recorded.iter().copied().collect();
    assert_eq!(distinct.len(), recorded.len(), "none is recorded twice");
    let lost = arrived.iter().filter(|jti| !distinct.contains(jti.as_str())).count();
    eprintln!(
        "{rounds} rounds: {} tokens arrived, {} are recorded, in {} logs",
        arrived.len(),
        recorded.len(),
        ledger.logs.len()
    );
    assert_eq!(lost, 0, "of {} tokens", arrived.len());
    assert!(arrived.len() >= rounds as usize * 10, "{}", arrived.len());
    assert_eq!(ledger.count("event", "ledger.discontinuity"), 0);
    let (keys, heads) = published(&world);
    ledger.check(&keys, &heads);
}

#[test]
fn p4_kill_9_under_load_loses_no_record_of_a_token_that_arrived_on_sqlite() {
    kill_under_load(World::start(4, &[], &[]), sqlite);
}

#[test]
fn p4_kill_9_under_load_loses_no_record_of_a_token_that_arrived_on_postgresql() {
    let url = Postgres::shared().database().expect("a database");
    kill_under_load(World::start_on_database(url.clone()), |_| url.clone());
}

/// One system call of a trace, in the order in which they began. What was interrupted by another thread's is put together again.
fn calls(trace: &str) -> Vec<(usize, usize, String)> {
    let mut begun: std::collections::HashMap<&str, (usize, String)> = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(beginning) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, (at, beginning.to_owned()));
        } else if let Some((_, end)) = call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            let Some((start, beginning)) = begun.remove(thread) else { continue };
            calls.push((start, at, beginning + end));
        } else {
            calls.push((at, at, call.to_owned()));
        }
    }
    calls.sort();
    calls
}

#[test]
fn p4_a_trace_of_system_calls_shows_the_durable_write_between_the_request_and_the_reply() {
    let [port] = free_ports().expect("a port");
    let port = format!("127.0.0.1:{port}");
    let world = World::start(4, &[], &[&format!("--insecure-http-address={port}")]);
    let tenant = world.tenant("traced");
    let directory = tempfile::tempdir().expect("a directory");
    let (trace, log) = (directory.path().join("trace"), directory.path().join("log"));
    let pid = world.operator.process().pid().to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-s", "40", "-e", "trace=read,recvfrom,readv,write,sendto,writev,fsync,fdatasync", "-p", &pid, "-o"])
        .arg(&trace)
        .stderr(std::fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("strace: package strace (`make tools` installs it)");
    wait_until("the trace begins", PATIENCE, || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("attached")));
    let client = reqwest::blocking::Client::new();
    let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", &tenant.token), ("subject_token_type", TYPE_JWT)];
    const REQUESTS: usize = 20;
    for _ in 0..REQUESTS {
        let reply = client.post(format!("http://{port}/oauth2/token")).form(&form).send().expect("an answer");
        assert_eq!(reply.status(), 200);
    }
    let done = Command::new("sh").args(["-c", "kill -s INT \"$1\"", "sh", &strace.id().to_string()]).status();
    assert!(done.expect("sh").success());
    strace.wait().expect("it ends");

    let text = String::from_utf8_lossy(&std::fs::read(&trace).expect("the trace")).into_owned();
    let calls = calls(&text);
    let find = |what: &str| calls.iter().filter(|(.., call)| call.contains(what)).map(|(start, end, _)| (*start, *end)).collect();
    let (requests, replies): (Vec<(usize, usize)>, Vec<_>) = (find("\"POST /oauth2/token"), find("\"HTTP/1.1 200"));
    assert_eq!((requests.len(), replies.len()), (REQUESTS, REQUESTS), "{text}");
    for ((_, read), (written, _)) in requests.into_iter().zip(replies) {
        let synced = calls.iter().any(|(start, end, call)| {
            let is_sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
            is_sync && call.trim_end().ends_with("= 0") && *start > read && *end < written
        });
        assert!(synced, "no durable write from line {read} to line {written}:\n{text}");
    }
}

#[test]
fn l11_a_flood_of_bad_requests_is_counted_and_fills_nothing() {
    const REQUESTS: usize = 20_000;
    let world = World::start(4, &[], &["--audit-refusals-per-second=100"]);
    let tenant = world.tenant("flooded");
    let size = || std::fs::metadata(world.operator.audit_log()).expect("the audit log").len();
    let (before, begun) = (size(), Instant::now());
    let client = crate::crowd::client(&world.operator).timeout(PATIENCE).build().expect("a client");
    let url = format!("{}/oauth2/token", world.operator.url());
    let refused: u64 = block_on(async {
        let ask = |_| async {
            let mut refused = 0;
            for _ in 0..REQUESTS / 200 {
                let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", "a.b.c"), ("subject_token_type", TYPE_JWT)];
                let status = crate::crowd::insist(client.post(&url).form(&form)).await.expect("an answer").status();
                assert!(status == 400 || status == 503, "{status}");
                refused += u64::from(status == 400);
            }
            refused
        };
        futures::future::join_all((0..200).map(ask)).await.into_iter().sum()
    });
    // Who proves who they are is recorded by name meanwhile and afterwards.
    world.record_of(&world.exchange(&tenant.token).expect(200));
    let seconds = begun.elapsed().as_secs() + 1;
    let grown = size() - before;
    assert!(grown < (seconds + 1) * 120 * 1024, "{grown} bytes in {seconds} s");
    let lines = world.operator.audit_lines().expect("the audit log");
    let of_strangers = lines.iter().filter(|line| line["event"] == "token.issue" && line["outcome"] == "deny");
    let counted: u64 = of_strangers.map(|line| line["count"].as_u64().unwrap_or(1)).sum();
    assert!(lines.iter().any(|line| line["reason"] == "many_refusals" && line["client_address"] == "127.0.0.1"));
    // A reply that was lost with its connection was counted too.
    assert!(
        (refused..=refused + 200).contains(&counted),
        "each of {refused} that was answered is counted, and no more: {counted}"
    );
}
