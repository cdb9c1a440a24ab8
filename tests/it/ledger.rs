//! The ledger of a running operator: what was answered is in it, its checkpoints are published, and it goes on whatever ends.

use crate::audited::{Ledger, metric, published, published_items};
use crate::databases::block_on;
use crate::support::install::{NAMESPACE, RELEASE};
use crate::support::operator::{Operator, OperatorOptions};
use crate::world::{DOCS, PATIENCE, World, binary, claims, wait_until};
use countersign::store::LedgerReader;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The file of the operator's database.
fn file(world: &World) -> PathBuf {
    world.operator.audit_log().with_file_name("countersign.db")
}

/// Its ledger. The operator must have ended.
fn read(world: &World) -> Ledger {
    block_on(Ledger::read(&format!("sqlite://{}", file(world).display())))
}

/// Ends the operator in order.
fn stop(world: &World) {
    world.operator.process().begin_stop();
    world.operator.process().wait(PATIENCE).expect("it ends");
}

/// Kills the operator.
fn kill(world: &World) {
    world.operator.process().signal("KILL").expect("killed");
    world.operator.process().wait(PATIENCE).expect("it ends");
}

/// Waits until everything that is recorded is covered by a published checkpoint.
fn covered(world: &World) {
    wait_until("a checkpoint covers everything", PATIENCE, || metric(world, "countersign_ledger_unwitnessed_records") == 0);
}

#[test]
fn what_was_answered_is_in_the_ledger_and_covered_by_a_published_checkpoint() {
    let mut world = World::start(4, &[], &[]);
    let (subject, mut answered) = {
        let tenant = world.tenant("ledger");
        let allowed = world.exchange(&tenant.token).expect(200);
        let refused = world.exchange("a.b.c").refused(400, "invalid_request");
        covered(&world);
        (tenant.subject(), vec![(allowed, "allow"), (refused, "deny")])
    };
    let (keys, before) = published(&world);
    assert_eq!((keys.len(), before.len()), (1, 1), "one key, one log");
    stop(&world);
    let ledger = read(&world);
    ledger.check(&keys, &before);
    for (reply, outcome) in &answered {
        let id = reply.request_id.as_deref().expect("an id");
        let records: Vec<&Value> = ledger.records().filter(|record| record["request_id"] == id).collect();
        let [record] = records[..] else { panic!("{} records of {id}", records.len()) };
        assert_eq!(record["outcome"], *outcome);
    }
    let token = claims(&answered[0].0.text("access_token"));
    assert_eq!(ledger.count("jti", token["jti"].as_str().expect("a jti")), 1);
    assert!(ledger.records().any(|record| record["subject"] == subject.as_str()));
    // The first record says who signs; the last checkpoint covers all, since it was sealed in order.
    let log = &ledger.logs[0];
    assert_eq!((&log.records[0]["event"], &log.records[0]["vkey"]), (&json!("ledger.opened"), &json!(keys[0].to_string())));
    let (_, after) = published(&world);
    assert_eq!((after[0].size, after[0].root.to_vec()), (u64::try_from(log.row.size).expect("small"), log.row.root.clone()));
    assert_eq!(log.row.sealed_by.as_ref(), Some(&log.row.id), "no other has named it");
    // The copy has the same lines, and the checkpoints besides.
    let copy = world.operator.audit_lines().expect("the audit log");
    let (said, copied): (Vec<Value>, Vec<Value>) = copy.into_iter().partition(|line| line["event"] == "ledger.checkpoint");
    assert_eq!(copied, log.records);
    assert_eq!(said.last().expect("a checkpoint")["note"], published_items(&world)[log.row.id.as_str()]);

    // Its successors name it, one that was killed, and one that took nobody's place.
    for ends in [kill, stop] {
        world.restart().expect("it starts again");
        answered.push((world.exchange("a.b.c").refused(400, "invalid_request"), "deny"));
        wait_until("its log is published", PATIENCE, || published(&world).1.len() > answered.len() - 2);
        ends(&world);
    }
    let ledger = read(&world);
    assert_eq!(ledger.logs.len(), 3);
    let reasons: Vec<&Value> = ledger.logs.iter().map(|log| &log.records[0]["reason"]).collect();
    assert_eq!(reasons, ["started", "started", "started"]);
    // By who names whom: of two that were begun within a second, the table does not say which was first.
    let mut named = vec![&log.row.id];
    while let Some(next) =
        ledger.logs.iter().find(|log| log.row.id == *named[named.len() - 1]).and_then(|log| log.row.sealed_by.as_ref())
        && !named.contains(&next)
    {
        named.push(next);
    }
    assert_eq!(named.len(), 3, "each is named by the next, and the last by itself: {named:?}");
    let (keys, heads) = published(&world);
    assert_eq!((keys.len(), heads.len()), (1, 3));
    ledger.check(&keys, &heads);
    for (reply, _) in &answered {
        assert_eq!(ledger.count("request_id", reply.request_id.as_deref().expect("an id")), 1);
    }
    assert_eq!(ledger.count("event", "ledger.discontinuity"), 0, "nobody raises a false alarm");
}

#[test]
fn l16_what_cannot_be_published_stops_nothing_and_is_published_later() {
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant("unpublished");
    covered(&world);
    let kubectl = world.kubectl();
    let role = kubectl.get_json(&["get", "role", RELEASE, "-n", NAMESPACE]).expect("the Role");
    let rules = role["rules"].as_array().expect("rules");
    let without: Vec<&Value> = rules.iter().filter(|rule| rule["resourceNames"] != json!(["countersign-audit"])).collect();
    assert_eq!(without.len() + 1, rules.len());
    let set = |rules: &Value| {
        let patch = json!({"rules": rules}).to_string();
        kubectl.run(&["patch", "role", RELEASE, "-n", NAMESPACE, "--type=merge", "-p", &patch]).expect("patched");
    };
    set(&json!(without));
    let log = || world.operator.process().log();
    wait_until("it fails", PATIENCE, || {
        world.exchange(&tenant.token).expect(200);
        log().contains("cannot be published")
    });
    let (_, heads) = published(&world);
    for _ in 0..20 {
        world.exchange(&tenant.token).expect(200);
    }
    assert!(metric(&world, "countersign_ledger_unwitnessed_records") >= 20);
    assert_eq!(published(&world).1, heads);
    set(&json!(rules));
    covered(&world);
    wait_until("it says so", PATIENCE, || log().contains("are published again"));
    stop(&world);
    let (keys, heads) = published(&world);
    read(&world).check(&keys, &heads);
}

#[test]
fn l13_another_key_is_recorded_before_it_signs_and_what_the_old_one_signed_stays_true() {
    let mut world = World::start(4, &[], &[]);
    covered(&world);
    let (first, _) = published(&world);
    let kubectl = world.kubectl();
    let remove = || {
        let patch = json!({"data": {"audit-key": null}}).to_string();
        kubectl.run(&["patch", "secret", RELEASE, "-n", NAMESPACE, "--type=merge", "-p", &patch]).expect("patched");
    };
    // While it runs, and while it does not.
    remove();
    wait_until("the new key signs", PATIENCE, || published(&world).0.len() == 2);
    covered(&world);
    stop(&world);
    remove();
    world.restart().expect("it starts again");
    wait_until("the new key signs", PATIENCE, || published(&world).0.len() == 3);
    covered(&world);
    stop(&world);
    let (keys, heads) = published(&world);
    assert_eq!(keys[0], first[0]);
    let ledger = read(&world);
    ledger.check(&keys, &heads);
    let changes: Vec<&Value> = ledger.records().filter(|record| record["event"] == "ledger.key_changed").collect();
    assert_eq!(changes.len(), 2);
    for (change, pair) in changes.iter().zip(keys.windows(2)) {
        assert_eq!((&change["old_vkey"], &change["new_vkey"]), (&json!(pair[0].to_string()), &json!(pair[1].to_string())));
    }
    // In each log: nothing is signed with a key before its record says so.
    use countersign::audit::ledger::note::Checkpoint;
    for change in changes {
        let log = ledger.log(change["log"].as_str().expect("a log"));
        let new: countersign::audit::ledger::note::Vkey = change["new_vkey"].as_str().expect("a key").parse().expect("a key");
        for checkpoint in &log.checkpoints {
            let is_new = Checkpoint::open(&checkpoint.note, std::slice::from_ref(&new)).is_ok();
            let covers = checkpoint.size > change["seq"].as_i64().expect("a number");
            assert!(covers || !is_new || log.records[0]["vkey"] == change["new_vkey"], "{}", checkpoint.note);
        }
    }
}

#[test]
fn a_database_that_was_restored_from_an_old_copy_is_noticed_once() {
    let mut world = World::start(4, &[], &[]);
    let (server, token) = {
        let tenant = world.tenant("restored");
        (world.resource_server(DOCS), tenant.token)
    };
    stop(&world);
    // What ended in order is whole without SQLite's write-ahead log.
    assert!(!file(&world).with_extension("db-wal").exists());
    let copy = file(&world).with_extension("copy");
    std::fs::copy(file(&world), &copy).expect("copied");
    world.restart().expect("it starts again");
    let lost = world.exchange(&token).expect(200);
    stop(&world);
    std::fs::copy(&copy, file(&world)).expect("restored");
    world.restart().expect("it starts again");
    assert_eq!(metric(&world, "countersign_ledger_discontinuities_total"), 1);
    // It goes on: to restore a copy may be right.
    let after = world.exchange(&token).expect(200);
    assert!(world.introspect(&server, &after.text("access_token")).is_active());
    assert!(world.operator.process().log().contains("the ledger is not what it was"));
    stop(&world);
    world.restart().expect("it starts again");
    assert_eq!(metric(&world, "countersign_ledger_discontinuities_total"), 0, "it is known by now");
    stop(&world);
    let ledger = read(&world);
    assert_eq!(ledger.count("request_id", lost.request_id.as_deref().expect("an id")), 0);
    let found: Vec<&Value> = ledger.records().filter(|record| record["event"] == "ledger.discontinuity").collect();
    let [found] = found[..] else { panic!("{found:?}") };
    assert_eq!((&found["outcome"], &found["reason"]), (&json!("error"), &json!("missing")));
    let (keys, heads) = published(&world);
    let gone = heads.iter().find(|head| found["of_log"] == head.log.as_str()).expect("it is published");
    assert_eq!(found["expected_size"], gone.size);
    let others: Vec<_> = heads.iter().filter(|head| *head != gone).cloned().collect();
    assert_eq!(others.len(), 3);
    ledger.check(&keys, &others);
}

#[test]
fn old_logs_are_moved_to_the_archive_whole_and_only_then_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("archive");
    let args = ["--audit-retention=2s".to_owned(), format!("--audit-archive-dir={}", missing.display())];
    let mut world = World::start(4, &[], &[]);
    let reply = world.exchange("a.b.c").refused(400, "invalid_request");
    covered(&world);
    stop(&world);
    let first = read(&world);
    let id = first.logs[0].row.id.clone();
    // Where nothing can be written nothing is removed.
    let issuer = Some(world.operator.issuer().to_owned());
    let options = OperatorOptions { issuer, args: args.into(), ..OperatorOptions::default() };
    world.operator = Operator::start(&world.cluster, binary(), &options).expect("it starts");
    wait_until("it fails", PATIENCE, || world.operator.process().log().contains("could not be archived"));
    std::fs::create_dir(&missing).expect("a directory");
    wait_until("it is archived", PATIENCE, || world.operator.process().log().contains("is archived"));
    wait_until("the record is there", PATIENCE, || {
        let lines = world.operator.audit_lines().expect("the audit log");
        lines.iter().any(|line| line["event"] == "ledger.archived" && line["of_log"] == id.as_str())
    });
    stop(&world);

    let records = std::fs::read_to_string(missing.join(format!("{id}.log"))).expect("the records");
    let lines: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines, first.logs[0].records);
    assert!(records.contains(reply.request_id.as_deref().expect("an id")));
    let notes = std::fs::read_to_string(missing.join(format!("{id}.notes"))).expect("the checkpoints");
    assert_eq!(notes, first.logs[0].checkpoints.iter().map(|checkpoint| checkpoint.note.as_str()).collect::<String>());
    assert_eq!(std::fs::read_dir(&missing).expect("a directory").count(), 2, "nothing unfinished is left");
    block_on(async {
        let reader =
            LedgerReader::open(&format!("sqlite://{}", file(&world).display()).parse().expect("a URL")).await.expect("it opens");
        let logs = reader.logs().await.expect("an answer");
        let row = logs.iter().find(|row| row.id == id).expect("its row stays");
        assert!(row.archived_at.is_some() && row.size == i64::try_from(lines.len()).expect("small"));
        assert!(reader.segments(&id, 0).await.expect("an answer").is_empty());
        assert_eq!(reader.checkpoints(&id, 0).await.expect("an answer").len(), 1, "the last one stays");
    });
    // Both together are what was written; without the archive nobody can tell.
    let yaml = world.kubectl().run(&["get", "configmap", "countersign-audit", "-n", NAMESPACE, "-o", "yaml"]);
    let published = directory.path().join("published.yaml");
    std::fs::write(&published, yaml.expect("the ConfigMap")).expect("written");
    let database = format!("--database=sqlite://{}", file(&world).display());
    let (archive, published) = (format!("--archive={}", missing.display()), format!("--checkpoints={}", published.display()));
    crate::auditor::audit(&["verify", &database, &archive, &published]).expect(0);
    crate::auditor::audit(&["verify", &database, &published]).expect(2);
}
