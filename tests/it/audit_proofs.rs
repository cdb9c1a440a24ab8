//! Proofs of single records: made by an operator or from its database, and checked by what we did not write.

use crate::audited::published_items;
use crate::auditor::{Auditor, audit};
use crate::support::repository;
use crate::tampering::{Kind, Value, Written};
use crate::world::{PATIENCE, World, claims, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Checks a proof with Node.js and nothing of ours.
fn node(proof: &Path, vkey: &str) -> std::process::Output {
    let mut command = Command::new("node");
    command.arg(repository().join("tests/clients/audit-proof.mjs")).env("PROOF_FILE", proof).env("VKEY", vkey);
    command.output().expect("node")
}

#[test]
fn a_record_is_proved_to_somebody_who_has_nothing_but_the_key() {
    let world = World::shared();
    let auditor = Auditor::of(world, "proof");
    let tenant = world.tenant("proved");
    let jti = claims(&tenant.access_token())["jti"].as_str().expect("a jti").to_owned();
    let record = auditor.audit(&["query", "--jti", &jti, "-o", "json"]).records().remove(0);
    let (log, seq) = (record["log"].as_str().expect("a log").to_owned(), record["seq"].as_u64().expect("a number"));
    let mut proof = String::new();
    wait_until("a checkpoint covers it", PATIENCE, || {
        let ran = auditor.audit(&["prove", &format!("{log}/{seq}")]);
        let is_covered = ran.status == Some(0);
        assert!(is_covered || ran.err.contains("does not cover the record yet"), "{ran:?}");
        proof = ran.out;
        is_covered
    });
    let file = auditor.file("record.tlog-proof", &proof);
    let vkeys = published_items(world)["vkeys"].as_str().expect("keys").to_owned();
    let vkey = vkeys.lines().last().expect("a key");
    let output = node(&file, vkey);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let proved: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&proved["record"], &proved["index"], &proved["origin"]),
        (&record, &json!(seq), &json!(format!("127.0.0.1/audit/{log}")))
    );
    let out = audit(&["verify-proof", &file.display().to_string(), "--vkey", vkey]).expect(0);
    assert!(
        out.contains(&jti)
            && out.contains(&format!(
                "PROVEN: this is record {seq} of log {log} of 127.0.0.1/audit, under its signed checkpoint of "
            )),
        "{out}"
    );
    // The same over the API.
    let reply = auditor.get(&format!("proof?log={log}&seq={seq}")).expect(200);
    assert!(reply.body.as_str().expect("text").starts_with("c2sp.org/tlog-proof@v1\nextra "), "{:?}", reply.body);
    let checkpoints = auditor.get("checkpoints").expect(200).body;
    let newest =
        checkpoints["checkpoints"].as_array().expect("a list").iter().find(|c| c["log"] == log.as_str()).expect("of this log");
    assert!(newest["note"].as_str().expect("a note").starts_with(&format!("127.0.0.1/audit/{log}\n{}\n", newest["size"])));

    // What is not so is not proved, to neither of them.
    let another = countersign::audit::ledger::note::CheckpointKey::generate_pem().expect("a key");
    let another =
        countersign::audit::ledger::note::CheckpointKey::from_pem("127.0.0.1", &another).expect("a key").vkey().to_string();
    assert!(!node(&file, &another).status.success());
    audit(&["verify-proof", &file.display().to_string(), "--vkey", &another]).expect(2);
    let index = format!("\nindex {seq}\n");
    assert!(proof.contains(&index));
    for (from, to) in [(index.as_str(), format!("\nindex {}\n", seq + 1)), ("extra eyJ", "extra eyK".to_owned())] {
        let bent = auditor.file("bent.tlog-proof", &proof.replacen(from, &to, 1));
        assert!(!node(&bent, vkey).status.success(), "{from}");
        let ran = audit(&["verify-proof", &bent.display().to_string(), "--vkey", vkey]);
        assert!(ran.status == Some(1) && ran.out.starts_with("NOT PROVEN: "), "{ran:?}");
    }
    for (name, text) in [("empty", ""), ("other", "c2sp.org/tlog-proof@v1\nindex 1\n\nx\n")] {
        let bad = auditor.file(name, text);
        let ran = audit(&["verify-proof", &bad.display().to_string(), "--vkey", vkey]);
        assert!(ran.status == Some(2) && ran.err.contains("not a proof"), "{ran:?}");
    }
}

#[test]
fn a_proof_comes_from_a_database_too_and_none_from_one_that_was_changed() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let written = Written::of(kind);
        let scratch = tempfile::tempdir().expect("a directory");
        let a = &written.logs[0].id;
        let copy = written.copy();
        let url = scratch.path().join("url");
        std::fs::write(&url, &copy.url).expect("written");
        let database = format!("--database-file={}", url.display());
        let prove = |seq: usize| audit(&["prove", &format!("{a}/{seq}"), &database]);
        let proof = scratch.path().join("proof");
        std::fs::write(&proof, prove(7).expect(0)).expect("written");
        let trusted = format!("--checkpoints={}", written.early_published.display());
        audit(&["verify-proof", &proof.display().to_string(), &trusted]).expect(0);
        assert!(node(&proof, &written.stolen.vkey().to_string()).status.success());
        let size = usize::try_from(written.logs[0].size).expect("a size");
        for seq in [size, size + 1000, usize::MAX] {
            let ran = prove(seq);
            assert!(ran.status == Some(2) && ran.err.contains("there is no record"), "{ran:?}");
        }
        let mut lines = copy.lines(a);
        lines[7] = lines[7].replace("deny", "allo");
        lines.swap(20, 21);
        copy.rewrite(a, &lines);
        for seq in [7, 12, 20] {
            let ran = prove(seq);
            assert!(ran.status == Some(2) && ran.err.contains("the ledger was changed"), "{ran:?}");
        }
        copy.sql("DELETE FROM checkpoints WHERE log = $1", &[Value::Text(a)]);
        assert!(prove(7).err.contains("does not cover the record yet"));
    }
}

#[test]
fn a_database_is_asked_like_an_operator() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let written = Written::of(kind);
        let scratch = tempfile::tempdir().expect("a directory");
        let url = scratch.path().join("url");
        std::fs::write(&url, &written.late).expect("written");
        let database = format!("--database-file={}", url.display());
        let records = |args: &[&str]| audit(&[args, &[&database, "-o", "json"]].concat()).records();
        let issued = records(&["query", "--event=token.issue", "--outcome=allow"]);
        assert_eq!(issued.len(), 40, "of both logs");
        let times: Vec<&str> = issued.iter().map(|record| record["time"].as_str().expect("a time")).collect();
        assert!(times.is_sorted());
        assert_eq!(records(&["query", "--event=token.issue", "--outcome=deny"]).len(), 40);
        let opened = records(&["query", "--event=ledger.opened"]);
        assert_eq!((opened.len(), &opened[1]["predecessor"]), (2, &json!(written.logs[0].id)));
        let last = records(&["tail", "-n", "3"]);
        let all = records(&["query"]);
        assert_eq!(last, all[all.len() - 3..]);
        assert_eq!(all.len(), usize::try_from(written.logs[0].size + written.logs[1].size).expect("small"));
        let jti = issued[30]["jti"].as_str().expect("a jti");
        let told = audit(&["trace", jti, &database]).expect(0);
        assert!(
            told.contains("acting for itself, got a token for document.read web.search at https://docs.example.com"),
            "{told}"
        );
        let agent = issued[0]["subject"].as_str().expect("an agent");
        assert!(audit(&["trace", agent, &database]).expect(0).contains(": 40 tokens issued, 0 requests refused."));
    }
    let ran = audit(&["tail", "--database=sqlite:///nonexistent/a.db"]);
    assert!(ran.status == Some(2) && ran.err.contains("/nonexistent/a.db"), "{ran:?}");
}
