//! The ledger and its database: appends whose outcome is unknown, logs that others adopt, logs that end.

use crate::audited::Ledger;
use crate::databases::{Database, Wire, block_on};
use crate::support::postgres::Postgres;
use crate::world::PATIENCE;
use countersign::audit::ledger::note::CheckpointKey;
use countersign::audit::{Limits, Outcome, Record, Recorder, Recording, Unrecorded};
use countersign::store::{DatabaseUrl, Store};
use countersign::time::Clock;
use futures::future::join_all;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The promise is 1.5 s; the rest is for a busy machine.
const BOUND: Duration = Duration::from_millis(2500);

/// A copy that is kept in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Memory {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().expect("lock").clone()).expect("text").lines().map(str::to_owned).collect()
    }
}

async fn recorder_with(url: &str, limits: Limits) -> (Recorder, Memory) {
    let store = Store::open(&url.parse::<DatabaseUrl>().expect("a URL")).await.expect("it opens");
    let key = CheckpointKey::from_pem("id.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key");
    let copy = Memory::default();
    let recording = Recording {
        writer: "test".to_owned(),
        vkey: key.vkey().to_string(),
        copy: Box::new(copy.clone()),
        limits,
        clock: Clock::system(),
    };
    (Recorder::start(store, recording).await.expect("a recorder"), copy)
}

async fn recorder(url: &str) -> (Recorder, Memory) {
    recorder_with(url, Limits::default()).await
}

/// Writes one record with this identifier.
async fn write(recorder: &Recorder, id: &str) -> Result<(), Unrecorded> {
    let mut record = Record::new("token.issue", id.to_owned());
    record.text("subject", "agent:research/bot").conclude(Outcome::Allow, "granted");
    recorder.write(&record).await
}

/// Writes `count` records at once and says which of them were acknowledged.
async fn write_all(recorder: &Recorder, prefix: &str, count: usize) -> Vec<String> {
    let writes = (0..count).map(|number| async move {
        let id = format!("{prefix}{number}");
        write(recorder, &id).await.is_ok().then_some(id)
    });
    join_all(writes).await.into_iter().flatten().collect()
}

/// Writes until it works.
async fn recovered(recorder: &Recorder) {
    let begun = Instant::now();
    while write(recorder, "probe").await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
    }
}

/// Ends a recorder as a crash would, and waits until its database is free.
async fn crash(database: &Database, recorder: Recorder) {
    drop(recorder);
    let begun = Instant::now();
    while database.open().await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "the database stays taken");
    }
}

#[test]
fn l14_numbers_have_no_gaps_and_the_copy_has_the_same_lines() {
    for database in Database::both() {
        let copy = block_on(async {
            let (recorder, copy) = recorder(&database.url).await;
            for round in 0..5 {
                assert_eq!(write_all(&recorder, &format!("{round} "), 1000).await.len(), 1000);
            }
            let head = recorder.close().await.expect("an answer").expect("a log");
            assert_eq!(head.size, 5001);
            assert_eq!(write(&recorder, "late").await, Err(Unrecorded), "nothing is written after the end");
            copy
        });
        let ledger = block_on(Ledger::read(&database.url));
        assert_eq!(ledger.logs.len(), 1);
        let lines: Vec<serde_json::Value> = copy.lines().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines, ledger.logs[0].records);
    }
}

#[test]
fn a_log_that_is_full_or_old_is_followed_by_another_of_the_same_process() {
    for database in Database::both() {
        for limits in
            [Limits { records: 50, ..Limits::default() }, Limits { age: Duration::from_millis(50), ..Limits::default() }]
        {
            block_on(async {
                let (recorder, _) = recorder_with(&database.url, limits).await;
                for round in 0..20 {
                    assert_eq!(write_all(&recorder, &format!("{round} "), 20).await.len(), 20);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                recorder.close().await.expect("an answer");
            });
        }
        let ledger = block_on(Ledger::read(&database.url));
        assert!(ledger.logs.len() >= 9, "{}", ledger.logs.len());
        assert!(ledger.logs.iter().filter(|log| log.records[0]["reason"] == "continued").count() >= 7);
        assert_eq!(ledger.count("event", "token.issue"), 800);
        let last = ledger.logs.iter().filter(|log| log.row.sealed_by.as_ref() == Some(&log.row.id)).count();
        assert_eq!(last, 1, "all but the last are adopted");
    }
}

#[test]
fn l3_an_append_whose_answer_is_lost_is_there_once() {
    let database = Database::postgres();
    let (acknowledged, lost) = block_on(async {
        let wire = Wire::to(Postgres::shared(), &database.url).await;
        let (recorder, _) = recorder(&wire.url).await;
        let mut acknowledged = write_all(&recorder, "before ", 10).await;
        let mut lost = Vec::new();
        for round in 0..3 {
            wire.swallow(true);
            let (begun, id) = (Instant::now(), format!("lost {round}"));
            assert_eq!(write(&recorder, &id).await, Err(Unrecorded));
            assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
            lost.push(id);
            wire.swallow(false);
            recovered(&recorder).await;
            acknowledged.extend(write_all(&recorder, &format!("after {round} "), 10).await);
        }
        assert_eq!(acknowledged.len(), 40);
        recorder.close().await.expect("an answer");
        (acknowledged, lost)
    });
    let ledger = block_on(Ledger::read(&database.url));
    assert_eq!(ledger.logs.len(), 1, "it is found again, not begun anew");
    for id in &acknowledged {
        assert_eq!(ledger.count("request_id", id), 1, "{id}");
    }
    assert_eq!(lost.iter().map(|id| ledger.count("request_id", id)).collect::<Vec<_>>(), [1, 1, 1], "it had arrived");
}

#[test]
fn l1_while_the_database_hangs_or_is_gone_nothing_is_acknowledged_and_nothing_is_lost_afterwards() {
    let server = Postgres::start().expect("a server");
    let url = server.database().expect("a database");
    let acknowledged = block_on(async {
        let (recorder, _) = recorder(&url).await;
        let mut acknowledged = write_all(&recorder, "before ", 100).await;
        for round in 0..4 {
            let frozen = (round % 2 == 0).then(|| server.freeze().expect("frozen"));
            if frozen.is_none() {
                server.kill().expect("killed");
            }
            let begun = Instant::now();
            // More than fit into the queue.
            assert_eq!(write_all(&recorder, &format!("during {round} "), 6000).await, Vec::<String>::new());
            assert!(begun.elapsed() < 2 * BOUND, "{:?}", begun.elapsed());
            match frozen {
                Some(frozen) => drop(frozen),
                None => server.resume().expect("it starts again"),
            }
            recovered(&recorder).await;
            acknowledged.extend(write_all(&recorder, &format!("after {round} "), 100).await);
        }
        assert_eq!(acknowledged.len(), 500);
        recorder.close().await.expect("an answer");
        acknowledged
    });
    let ledger = block_on(Ledger::read(&url));
    assert_eq!(ledger.logs.len(), 1);
    for id in &acknowledged {
        assert_eq!(ledger.count("request_id", id), 1, "{id}");
    }
}

#[test]
fn a_log_that_another_process_adopts_ends_there_and_its_writer_goes_on_with_a_new_one() {
    let database = Database::postgres();
    block_on(async {
        let (first, _) = recorder(&database.url).await;
        assert_eq!(write_all(&first, "a", 10).await.len(), 10);
        // It lives, and nobody takes its log.
        let (second, _) = recorder(&database.url).await;
        assert_eq!(write_all(&second, "b", 10).await.len(), 10);
        // It has not been heard of for a minute, by the server's clock.
        Postgres::shared().sql(&database.url, "UPDATE logs SET touched_at = touched_at - 61").expect("it runs");
        let (third, _) = recorder(&database.url).await;
        assert_eq!(write_all(&third, "c", 10).await.len(), 10);
        for (recorder, prefix) in [(&first, "d"), (&second, "e"), (&third, "f")] {
            assert_eq!(write_all(recorder, prefix, 10).await.len(), 10, "{prefix}");
            recorder.close().await.expect("an answer");
        }
    });
    let ledger = block_on(Ledger::read(&database.url));
    assert_eq!(ledger.logs.len(), 5, "three, and two in place of those that were adopted");
    assert_eq!(ledger.logs.iter().filter(|log| log.records[0]["reason"] == "adopted").count(), 2);
    for prefix in ["a", "b", "c", "d", "e", "f"] {
        for number in 0..10 {
            assert_eq!(ledger.count("request_id", &format!("{prefix}{number}")), 1, "{prefix}{number}");
        }
    }
}

#[test]
fn l14_two_processes_that_write_at_once_have_a_log_each_without_gaps() {
    let database = Database::postgres();
    block_on(async {
        let (first, second) = (recorder(&database.url).await.0, recorder(&database.url).await.0);
        for round in 0..5 {
            let [a, b] = [("a", &first), ("b", &second)]
                .map(|(name, recorder)| async move { write_all(recorder, &format!("{name}{round} "), 500).await.len() });
            assert_eq!(tokio::join!(a, b), (500, 500));
        }
    });
    let ledger = block_on(Ledger::read(&database.url));
    assert_eq!(ledger.logs.iter().map(|log| log.row.size).collect::<Vec<_>>(), [2501, 2501]);
}

#[test]
fn a_log_that_is_changed_under_its_writer_is_left_and_what_was_under_way_is_not_acknowledged() {
    for (change, kind) in [
        ("UPDATE logs SET size = size - 1", "shorter"),
        ("UPDATE logs SET size = size + 1", "other_root"),
        ("DELETE FROM logs", "missing"),
    ] {
        let database = Database::postgres();
        let sql = |text: &str| Postgres::shared().sql(&database.url, text).expect("it runs");
        block_on(async {
            let (recorder, _) = recorder(&database.url).await;
            assert_eq!(write_all(&recorder, "before ", 10).await.len(), 10);
            let log = recorder.head().expect("a log").log;
            let segments = || sql(&format!("SELECT count(*) FROM segments WHERE log = '{log}'"));
            let before = segments();
            sql(change);
            assert_eq!(write(&recorder, "during").await, Err(Unrecorded), "{kind}");
            write(&recorder, "after").await.expect("it goes on with another log");
            assert_ne!(recorder.head().expect("a log").log, log);
            assert_eq!(segments(), before, "{kind}: nothing more was written to it");
        });
    }
}

#[test]
fn a_successor_names_every_log_that_was_left() {
    let database = Database::sqlite();
    for round in 0..4 {
        block_on(async {
            let (recorder, _) = recorder(&database.url).await;
            write(&recorder, &round.to_string()).await.expect("written");
            crash(&database, recorder).await;
        });
    }
    let ledger = block_on(Ledger::read(&database.url));
    assert_eq!(ledger.logs.len(), 4);
    assert_eq!(ledger.logs.iter().filter(|log| log.row.sealed_by.is_none()).count(), 1);
}
