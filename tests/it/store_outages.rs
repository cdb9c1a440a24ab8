//! Databases that fail: no answer is better than a wrong one, and it ends by itself.

use crate::databases::{Database, Holder, Wire, accept, accept_all, block_on, open};
use crate::support::postgres::Postgres;
use crate::world::PATIENCE;
use countersign::store::{Store, StoreError};
use futures::future::join_all;
use std::process::Command;
use std::time::{Duration, Instant};

/// The promise is 1.5 s; the rest is for a busy machine.
const BOUND: Duration = Duration::from_millis(2500);

/// Calls until there is an answer, with a new jti each time.
async fn recovered(store: &Store) {
    let begun = Instant::now();
    for attempt in 0.. {
        if accept(store, &format!("attempt {attempt}")).await == Ok(true) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
    }
    while store.check().is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not notice that it has recovered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the store says that the database is not there, asking nothing of it.
async fn noticed(store: &Store) {
    let begun = Instant::now();
    while store.check().is_ok() {
        assert!(begun.elapsed() < PATIENCE, "nobody notices");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_frozen_database_is_an_error_in_bounded_time_and_never_two_firsts() {
    let server = Postgres::start().expect("a server");
    let url = server.database().expect("a database");
    block_on(async {
        let store = open(&url).await.expect("it opens");
        assert_eq!(accept(&store, "before").await, Ok(true));
        for round in 0..2 {
            let frozen = server.freeze().expect("frozen");
            // More than fit into the queue, some of them equal.
            let calls = (0..6000).map(|i| {
                let (store, begun) = (store.clone(), Instant::now());
                tokio::spawn(async move { (accept(&store, &format!("{round} {}", i % 4000)).await, begun.elapsed()) })
            });
            let outcomes: Vec<_> = join_all(calls).await.into_iter().map(|outcome| outcome.expect("a task")).collect();
            for (outcome, elapsed) in &outcomes {
                assert_eq!(outcome, &Err(StoreError::Unavailable));
                assert!(*elapsed < BOUND, "{elapsed:?}");
            }
            noticed(&store).await;
            // While it is known to be away nobody waits for long, and when it is being tried, not longer than ever.
            let begun = Instant::now();
            assert_eq!(accept(&store, "before").await, Err(StoreError::Unavailable));
            assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
            drop(frozen);
            recovered(&store).await;
            assert_eq!(accept(&store, "before").await, Ok(false));
            // Of what had no answer some may be consumed. None is twice.
            for expected in [None, Some(false)] {
                for i in (0..4000).step_by(97) {
                    let outcome = accept(&store, &format!("{round} {i}")).await.expect("an answer");
                    assert!(expected.is_none_or(|expected| expected == outcome), "{i}");
                }
            }
        }
    });
}

#[test]
fn r6_a_database_that_crashes_keeps_what_was_answered_and_is_found_again() {
    let server = Postgres::start().expect("a server");
    let url = server.database().expect("a database");
    block_on(async {
        let store = open(&url).await.expect("it opens");
        for round in 0..3 {
            let prefix = format!("{round} ");
            assert_eq!(accept_all(&store, &prefix, 500).await, [500, 0, 0]);
            server.kill().expect("killed");
            noticed(&store).await;
            let begun = Instant::now();
            assert_eq!(accept(&store, &format!("{prefix}0")).await, Err(StoreError::Unavailable));
            assert!(begun.elapsed() < BOUND);
            server.resume().expect("it starts again");
            recovered(&store).await;
            assert_eq!(accept_all(&store, &prefix, 500).await, [0, 500, 0], "round {round}");
        }
    });
}

#[test]
fn r11_a_standby_is_not_written_to_and_is_found_when_it_is_promoted() {
    let server = Postgres::start().expect("a server");
    let url = server.database().expect("a database");
    block_on(async {
        let store = open(&url).await.expect("it opens");
        assert_eq!(accept(&store, "a").await, Ok(true));
        server.stop().expect("stopped");
        std::fs::write(server.data().join("standby.signal"), "").expect("written");
        server.resume().expect("it starts as a standby");
        noticed(&store).await;
        assert_eq!(accept(&store, "b").await, Err(StoreError::Unavailable));
        let refused = open(&url).await.expect_err("it is a standby");
        assert!(matches!(&refused, StoreError::Unreachable(why) if why.contains("standby")), "{refused}");
        server.sql("postgres", "SELECT pg_promote()").expect("promoted");
        recovered(&store).await;
        assert_eq!(accept(&store, "a").await, Ok(false));
    });
}

#[test]
fn a_database_in_place_of_another_ends_the_store() {
    let server = Postgres::shared();
    let database = Database::postgres();
    block_on(async {
        let store = database.store().await;
        assert_eq!(accept(&store, "a").await, Ok(true));
        // As a restore into a new database, or an URL that leads elsewhere now.
        let replaced = "DELETE FROM assertions; UPDATE store SET id = 'another'; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        server.sql(&database.url, replaced).expect("replaced");
        tokio::time::timeout(PATIENCE, store.ended()).await.expect("it ends");
        assert_eq!(store.check(), Err(StoreError::Unavailable));
        assert_eq!(accept(&store, "a").await, Err(StoreError::Unavailable), "whether it was consumed is not known");
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_no_success() {
    let database = Database::postgres();
    block_on(async {
        let wire = Wire::to(Postgres::shared(), &database.url).await;
        let store = open(&wire.url).await.expect("it opens");
        assert_eq!(accept(&store, "before").await, Ok(true));
        // Its answer comes after the purge that follows the first, so that nothing else is under way.
        assert_eq!(accept(&store, "before").await, Ok(false));
        wire.swallow(true);
        let begun = Instant::now();
        assert_eq!(accept(&store, "lost").await, Err(StoreError::Unavailable));
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        let rows = Postgres::shared().sql(&database.url, "SELECT count(*) FROM assertions").expect("a number");
        assert_eq!(rows, "2", "it was consumed");
        wire.swallow(false);
        recovered(&store).await;
        assert_eq!(accept(&store, "lost").await, Ok(false));
    });
}

#[test]
fn a_full_disk_under_sqlite_is_an_error_and_never_two_firsts() {
    let database = Database::sqlite();
    let mut holder = Holder::start(&database.url).expect("it opens");
    assert_eq!(holder.accept("before ", 1000), [1000, 0, 0]);
    let pid = holder.pid().to_string();
    let limit = |bytes: &str| {
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(done.expect("prlimit").success());
    };
    // No file may grow beyond a size that all of them have reached.
    limit("4096");
    let begun = Instant::now();
    assert_eq!(holder.accept("during ", 1), [0, 0, 1]);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    let [first, known, nobody_knows] = holder.accept("during ", 100);
    assert_eq!((first, known + nobody_knows), (0, 100));
    limit("unlimited");
    let begun = Instant::now();
    while holder.accept("probe ", 1)[2] == 1 {
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
    }
    assert_eq!(holder.accept("before ", 1000), [0, 1000, 0], "what was answered stays");
    let [first, known, nobody_knows] = holder.accept("during ", 100);
    assert_eq!((first + known, nobody_knows), (100, 0));
    assert_eq!(holder.accept("during ", 100), [0, 100, 0]);
    holder.kill();
    let mut again = Holder::start(&database.url).expect("the file is whole");
    assert_eq!(again.accept("during ", 100), [0, 100, 0]);
    again.kill();
}
