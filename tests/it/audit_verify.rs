//! `countersign audit verify`: whatever somebody changes in the database of a real operator is named, given what had been published.

use crate::audited::{metric, published_items};
use crate::auditor::{Auditor, Ran, audit};
use crate::support::install::{NAMESPACE, RELEASE};
use crate::tampering::{Copy, Kind, Value, Written, verify};
use crate::world::{PATIENCE, World, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::audit::ledger::tree::{Tree, leaf_hash};
use serde_json::json;

/// Fails unless it was found, with this in the first finding.
#[track_caller]
fn names(ran: Ran, what: &str) -> String {
    let out = ran.expect(1);
    let first = out.lines().next().unwrap_or_default();
    assert!(first.starts_with("TAMPERED ") && first.contains(what), "{what}: {out}");
    assert!(out.contains("\nTAMPERED\n"), "{out}");
    out
}

/// The leaf hashes of these records, one after another.
fn hashes(lines: &[String]) -> Vec<[u8; 32]> {
    lines.iter().map(|line| leaf_hash(line.as_bytes())).collect()
}

fn whatever_was_changed_is_named(kind: Kind) {
    let written = Written::of(kind);
    let published = [written.late_published.as_path()];
    let [a, b] = [&written.logs[0].id, &written.logs[1].id];
    let changed = |change: &dyn Fn(&Copy)| {
        let copy = written.copy();
        change(&copy);
        copy.verify(&published)
    };
    // Nothing.
    let out = changed(&|_| {}).expect(0);
    assert!(
        out.contains("\nCLEAN\n") && out.contains(" records in 2 logs were read, and compared with 2 published checkpoints."),
        "{out}"
    );
    assert!(!out.contains("not under a published checkpoint"), "both were sealed in order: {out}");

    // One bit of a record, and of a hash.
    let at = 17;
    let bit = |copy: &Copy, hash: bool| {
        let mut segment = copy.segments(a).into_iter().rfind(|segment| segment.first <= at).expect("it is there");
        let bytes = if hash { &mut segment.hashes } else { &mut segment.body };
        bytes[20] ^= 1;
        copy.replace(a, &segment);
        segment.first
    };
    for hash in [false, true] {
        let copy = written.copy();
        let first = bit(&copy, hash);
        let out = names(copy.verify(&published), &format!("{a}/{first}:"));
        assert!(
            out.contains(if hash {
                "the hash that is stored with the record was changed"
            } else {
                "the record was changed after"
            }),
            "{out}"
        );
    }

    // Two records exchanged, with hashes that fit, and with everything made to fit.
    let exchanged = |copy: &Copy| {
        let mut lines = copy.lines(a);
        lines.swap(20, 30);
        lines
    };
    let out =
        names(changed(&|copy| copy.rewrite(a, &exchanged(copy))), &format!("{a}/20: in the place of this record stands another"));
    assert!(out.contains(&format!("{a}/30: in the place")), "{out}");

    // Removed from the middle: a row, and a record with all numbers behind it made to fit.
    let row = |copy: &Copy| copy.segments(a).into_iter().nth(5).expect("it is there");
    let copy = written.copy();
    let gone = row(&copy);
    copy.sql("DELETE FROM segments WHERE log = $1 AND first = $2", &[Value::Text(a), Value::Number(gone.first)]);
    names(
        copy.verify(&published),
        &format!("{a}/{} to {a}/{}: these records were removed", gone.first, gone.first + gone.count - 1),
    );
    let renumbered = |lines: Vec<String>| -> Vec<String> {
        let number = |(seq, line): (usize, &String)| {
            let rest = line.split_once(r#","time":"#).expect("a time").1;
            format!(r#"{{"log":"{a}","seq":{seq},"time":{rest}"#)
        };
        lines.iter().enumerate().map(number).collect()
    };
    let out = names(
        changed(&|copy| {
            let mut lines = copy.lines(a);
            lines.remove(25);
            copy.rewrite(a, &renumbered(lines));
        }),
        a,
    );
    assert!(out.contains("removed from the end") || out.contains("among these"), "{out}");
    // A forged one in between, and a second one of the same number.
    let forged = |copy: &Copy| copy.lines(a)[22].replace(r#""outcome":"deny""#, r#""outcome":"allow""#);
    names(
        changed(&|copy| {
            let mut lines = copy.lines(a);
            lines.insert(22, forged(copy));
            copy.rewrite(a, &renumbered(lines));
        }),
        a,
    );
    let out = names(
        changed(&|copy| {
            // Whoever owns the database also drops what would prevent it.
            copy.sql("CREATE TABLE open AS SELECT * FROM segments", &[]);
            copy.sql("DROP TABLE segments", &[]);
            copy.sql("ALTER TABLE open RENAME TO segments", &[]);
            let line = forged(copy);
            let body = format!("{line}\n").into_bytes();
            let mut segment = copy.segments(a).into_iter().rfind(|segment| segment.first <= 22).expect("it is there");
            (segment.count, segment.body, segment.hashes) = (1, body, leaf_hash(line.as_bytes()).into());
            copy.insert(a, &segment);
        }),
        a,
    );
    assert!(out.contains("were inserted under numbers that others have"), "{out}");

    // The end of a log, and whole logs, with everything in the database made to fit.
    let size = written.logs[1].size;
    names(
        changed(&|copy| {
            let mut lines = copy.lines(b);
            lines.truncate(lines.len() - 3);
            copy.rewrite(b, &lines);
            copy.sql("DELETE FROM checkpoints WHERE log = $1 AND size > $2", &[Value::Text(b), Value::Number(size - 3)]);
        }),
        &format!("{b}/{} to {b}/{}: these records were removed from the end", size - 3, size - 1),
    );
    let without = |copy: &Copy, log: &str| {
        copy.sql("DELETE FROM segments WHERE log = $1", &[Value::Text(log)]);
        copy.sql("DELETE FROM checkpoints WHERE log = $1", &[Value::Text(log)]);
        copy.sql("DELETE FROM logs WHERE id = $1", &[Value::Text(log)]);
    };
    let out = names(changed(&|copy| without(copy, a)), &format!("{a}: the whole log was removed"));
    assert!(out.contains("a published checkpoint of"), "{out}");
    names(
        changed(&|copy| {
            without(copy, b);
            copy.sql("UPDATE logs SET sealed_by = id WHERE id = $1", &[Value::Text(a)]);
        }),
        &format!("{b}: the whole log was removed"),
    );
    // Its row alone: the records are no secret.
    names(changed(&|copy| copy.sql("DELETE FROM logs WHERE id = $1", &[Value::Text(b)])), &format!("log {b}: cannot be read"));
    // Said to be archived: nobody can tell, which is not well.
    let out = changed(&|copy| copy.sql("UPDATE logs SET archived_at = 1 WHERE id = $1", &[Value::Text(a)])).expect(2);
    assert!(out.contains(&format!("UNCHECKED {a}: its ")) && out.contains("UNKNOWN"), "{out}");

    // An old copy that was restored.
    let old =
        names(written_verify(written, &written.early), &format!("{b}: the whole log was removed, or an old copy was restored"));
    assert!(!old.contains(&format!("TAMPERED {a}")), "{old}");
    // Without what was published nobody can tell, and the command says so.
    let keys = format!("--vkey={}", written.stolen.vkey());
    if kind == Kind::Sqlite {
        let out = audit(&["verify", &format!("--database={}", written.early), &keys]).expect(0);
        assert!(out.contains("WARNING: no published checkpoint was given"), "{out}");
        let none = audit(&["verify", &format!("--database={}", written.early)]);
        assert!(none.status == Some(2) && none.err.contains("no verifier key is known"), "{none:?}");
    }
}

fn written_verify(written: &Written, url: &str) -> Ran {
    let scratch = tempfile::tempdir().expect("a directory");
    verify(url, &[written.late_published.as_path()], scratch.path())
}

#[test]
fn l5_whatever_was_changed_in_sqlite_is_named() {
    whatever_was_changed_is_named(Kind::Sqlite);
}

#[test]
fn l5_whatever_was_changed_in_postgresql_is_named() {
    whatever_was_changed_is_named(Kind::Postgres);
}

#[test]
fn l5_a_byte_of_the_file_itself_that_was_changed_is_found_or_changes_nothing() {
    let written = Written::of(Kind::Sqlite);
    let whole = {
        // With everything in the file, and nothing beside it.
        let copy = written.copy();
        copy.sql("UPDATE store SET created_at = created_at", &[]);
        std::fs::read(copy.url.strip_prefix("sqlite://").expect("a path")).expect("the file")
    };
    let lines = |copy: &Copy| written.logs.iter().flat_map(|log| copy.lines(&log.id)).collect::<Vec<_>>();
    let original = lines(&written.copy());
    // In the middle of the records of an append, which are a Zstandard frame. Some places are pieces of pages that are not in use.
    let frames = memchr::memmem::find_iter(&whole, &[0x28, 0xB5, 0x2F, 0xFD]).step_by(5);
    let places: Vec<usize> = frames.flat_map(|at| [at + 40, at + 150]).filter(|at| *at < whole.len()).collect();
    let mut found = 0;
    for at in &places {
        let copy = written.copy();
        let path = copy.url.strip_prefix("sqlite://").expect("a path");
        let mut bytes = whole.clone();
        bytes[*at] ^= 4;
        std::fs::write(path, bytes).expect("written");
        _ = std::fs::remove_file(format!("{path}-wal"));
        let ran = copy.verify(&[&written.late_published]);
        if ran.status == Some(0) {
            assert_eq!(lines(&copy), original, "{at}");
        } else {
            // What the byte became is another record, or none at all.
            let out = ran.expect(1);
            let said = ["the record was changed after it was written", "the row of table segments that begins here"];
            assert!(said.iter().any(|said| out.contains(said)), "{at}: {out}");
            found += 1;
        }
    }
    assert!(found * 2 > places.len() && found > 3, "{found} of {}", places.len());
    // Half a file is no ledger.
    let copy = written.copy();
    let path = copy.url.strip_prefix("sqlite://").expect("a path");
    std::fs::write(path, &whole[..whole.len() / 2]).expect("written");
    _ = std::fs::remove_file(format!("{path}-wal"));
    let ran = copy.verify(&[&written.late_published]);
    assert!(matches!(ran.status, Some(1 | 2)), "{ran:?}");
}

fn everything_rewritten_is_found(kind: Kind) {
    let written = Written::of(kind);
    let [a, b] = [&written.logs[0].id, &written.logs[1].id];
    let forge = |copy: &Copy| {
        let mut first = copy.lines(a);
        let victim = first.iter().position(|line| line.contains(r#""outcome":"deny""#)).expect("a refusal");
        first[victim] = first[victim].replace(r#""outcome":"deny""#, r#""outcome":"allow""#);
        copy.rewrite(a, &first);
        // The second log says how the first one ended.
        let root = STANDARD.encode(&written.logs[0].root);
        let forged = STANDARD.encode(Tree::of(&hashes(&first)).root());
        let second: Vec<String> = copy.lines(b).iter().map(|line| line.replace(&root, &forged)).collect();
        copy.rewrite(b, &second);
        (first, second)
    };
    // Without the key: the checkpoints in the database convict it, or their absence leaves the published ones.
    let copy = written.copy();
    forge(&copy);
    let out = names(copy.verify(&[&written.late_published]), &format!("{a}/0 to {a}/"));
    assert!(out.contains("the root of the published checkpoint of"), "{out}");
    copy.sql("DELETE FROM checkpoints", &[]);
    names(copy.verify(&[&written.late_published]), &format!("{a}/0 to {a}/"));
    // With the stolen key everything in the database is perfect.
    let copy = written.copy();
    let (first, second) = forge(&copy);
    copy.sign(&written.stolen, a, &first);
    copy.sign(&written.stolen, b, &second);
    if kind == Kind::Sqlite {
        let keys = format!("--vkey={}", written.stolen.vkey());
        audit(&["verify", &format!("--database={}", copy.url), &keys]).expect(0);
    }
    // What was published before convicts it, even what is older than the end.
    for published in [&written.late_published, &written.early_published] {
        let out = names(copy.verify(&[published]), &format!("{a}/0 to {a}/"));
        assert!(out.contains("the history was rewritten with the key"), "{out}");
    }
}

#[test]
fn l7_everything_rewritten_in_sqlite_is_found_by_a_published_checkpoint_even_with_the_stolen_key() {
    everything_rewritten_is_found(Kind::Sqlite);
}

#[test]
fn l7_everything_rewritten_in_postgresql_is_found_by_a_published_checkpoint_even_with_the_stolen_key() {
    everything_rewritten_is_found(Kind::Postgres);
}

#[test]
fn checkpoints_are_taken_from_wherever_they_were_kept() {
    let written = Written::of(Kind::Sqlite);
    let scratch = tempfile::tempdir().expect("a directory");
    let yaml = std::fs::read_to_string(&written.late_published).expect("the ConfigMap");
    let object: serde_json::Value = serde_saphyr::from_str(&yaml).expect("YAML");
    let notes: String = object["data"]
        .as_object()
        .expect("data")
        .iter()
        .filter(|(name, _)| *name != "vkeys")
        .map(|(_, note)| note.as_str().expect("text"))
        .collect();
    let lines = object["data"].as_object().expect("data").iter().filter(|(name, _)| *name != "vkeys");
    let lines: String = lines.map(|(_, note)| format!("{}\n", json!({"event": "ledger.checkpoint", "note": note}))).collect();
    let vkey = format!("--vkey={}", written.stolen.vkey());
    let database = format!("--database={}", written.late);
    for (name, text) in [("cm.json", object.to_string()), ("notes", notes), ("audit.log", lines)] {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).expect("written");
        let out = audit(&["verify", &database, &vkey, &format!("--checkpoints={}", path.display())]).expect(0);
        assert!(out.contains("compared with 2 published checkpoints"), "{name}: {out}");
    }
    for (name, text) in [("nothing", ""), ("else", "apiVersion: v1\nkind: Pod\n")] {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).expect("written");
        let ran = audit(&["verify", &database, &vkey, &format!("--checkpoints={}", path.display())]);
        assert!(ran.status == Some(2) && ran.err.contains("holds no checkpoints"), "{ran:?}");
    }
    // Another installation's key.
    let other = countersign::audit::ledger::note::CheckpointKey::generate_pem().expect("a key");
    let other = countersign::audit::ledger::note::CheckpointKey::from_pem("127.0.0.1", &other).expect("a key").vkey();
    let out = audit(&["verify", &database, &format!("--vkey={other}")]).expect(2);
    assert!(out.contains("signed with a key that was not given"), "{out}");
}

#[test]
fn an_archived_log_is_verified_where_it_went() {
    let written = Written::of(Kind::Sqlite);
    let archive = tempfile::tempdir().expect("a directory");
    let a = &written.logs[0].id;
    let copy = written.copy();
    let lines = copy.lines(a);
    let path = archive.path().join(format!("{a}.log"));
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    copy.sql("DELETE FROM segments WHERE log = $1", &[Value::Text(a)]);
    copy.sql("UPDATE logs SET archived_at = 1 WHERE id = $1", &[Value::Text(a)]);
    let published = format!("--checkpoints={}", written.late_published.display());
    let (database, directory) = (format!("--database={}", copy.url), format!("--archive={}", archive.path().display()));
    let args = ["verify", &database, &directory, &published];
    audit(&args).expect(0);
    copy.verify(&[&written.late_published]).expect(2);
    // Alone, it is less than what was published.
    names(audit(&["verify", &directory, &published]), &format!("{}: the whole log was removed", written.logs[1].id));
    std::fs::write(
        &path,
        lines
            .iter()
            .enumerate()
            .map(|(i, line)| if i == 7 { "{}\n".to_owned() } else { format!("{line}\n") })
            .collect::<String>(),
    )
    .expect("written");
    names(audit(&args), &format!("{a}/7: in the place of this record stands another"));
    std::fs::write(&path, lines[..30].iter().map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    names(audit(&args), &format!("{a}/30 to {a}/"));
    std::fs::write(&path, lines.join("\n")).expect("written");
    names(audit(&args), "ends within a record");
}

#[test]
fn l13_after_another_key_old_proofs_still_hold_and_the_change_is_in_the_ledger() {
    let world = World::start(4, &[], &[]);
    let auditor = Auditor::of(&world, "l13");
    let tenant = world.tenant("l13-agent");
    let jti = crate::world::claims(&tenant.access_token())["jti"].as_str().expect("a jti").to_owned();
    let covered = || {
        wait_until("a checkpoint covers everything", PATIENCE, || metric(&world, "countersign_ledger_unwitnessed_records") == 0)
    };
    let config_map = |name: &str| {
        let yaml = world
            .kubectl()
            .run(&["get", "configmap", "countersign-audit", "-n", NAMESPACE, "-o", "yaml"])
            .expect("the ConfigMap");
        auditor.file(name, &yaml)
    };
    covered();
    let before = config_map("before.yaml");
    let record = auditor.audit(&["query", "--jti", &jti, "-o", "json"]).records().remove(0);
    let id = format!("{}/{}", record["log"].as_str().expect("a log"), record["seq"]);
    let old = auditor.file("old.tlog-proof", &auditor.audit(&["prove", &id]).expect(0));
    let patch = json!({"data": {"audit-key": null}}).to_string();
    world.kubectl().run(&["patch", "secret", RELEASE, "-n", NAMESPACE, "--type=merge", "-p", &patch]).expect("patched");
    wait_until("the new key signs", PATIENCE, || {
        published_items(&world)["vkeys"].as_str().unwrap_or_default().lines().count() == 2
    });
    tenant.access_token();
    covered();
    let after = config_map("after.yaml");
    // Under the new key there is another proof; with both keys each holds.
    let proof_of = |proof: &std::path::Path, keys: &std::path::Path| {
        audit(&["verify-proof", &proof.display().to_string(), &format!("--checkpoints={}", keys.display())])
    };
    wait_until("the newest checkpoint is by the new key", PATIENCE, || {
        let new = auditor.file("new.tlog-proof", &auditor.audit(&["prove", &id]).expect(0));
        proof_of(&new, &before).status == Some(2) && proof_of(&new, &after).status == Some(0)
    });
    for keys in [&before, &after] {
        let out = proof_of(&old, keys).expect(0);
        assert!(out.contains("PROVEN: this is record ") && out.contains(&jti), "{out}");
    }
    let changes = auditor.audit(&["query", "--event=ledger.key_changed", "-o", "json"]).records();
    let vkeys = published_items(&world)["vkeys"].as_str().expect("keys").to_owned();
    let pair: Vec<&str> = vkeys.lines().collect();
    assert_eq!((changes.len(), &changes[0]["old_vkey"], &changes[0]["new_vkey"]), (1, &json!(pair[0]), &json!(pair[1])));
    world.operator.process().begin_stop();
    world.operator.process().wait(PATIENCE).expect("it ends");
    let database = format!("--database=sqlite://{}", world.operator.audit_log().with_file_name("countersign.db").display());
    let last = config_map("last.yaml");
    audit(&["verify", &database, &format!("--checkpoints={}", last.display())]).expect(0);
    // The old key alone cannot tell.
    audit(&["verify", &database, &format!("--vkey={}", pair[0])]).expect(2);
}
