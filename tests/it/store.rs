//! The store on both databases: what is consumed once is never new again.

use crate::databases::{Database, Holder, ISSUER, LATER, NOW, accept, accept_all, block_on};
use crate::support::postgres::Postgres;
use crate::world::{PATIENCE, wait_until};
use countersign::store::{IDLE_SECONDS, StoreError, StoredSession};
use futures::future::join_all;

/// How many were new, how many were there, and how many nobody knows.
fn counted(outcomes: impl IntoIterator<Item = Result<bool, StoreError>>) -> [usize; 3] {
    outcomes.into_iter().fold([0; 3], |[new, there, unknown], outcome| match outcome {
        Ok(true) => [new + 1, there, unknown],
        Ok(false) => [new, there + 1, unknown],
        Err(_) => [new, there, unknown + 1],
    })
}

/// All at once, each in a task of its own.
async fn spawned<F>(calls: impl Iterator<Item = F>) -> [usize; 3]
where
    F: Future<Output = Result<bool, StoreError>> + Send + 'static,
{
    counted(join_all(calls.map(tokio::spawn)).await.into_iter().map(|outcome| outcome.expect("a task")))
}

#[test]
fn j11_of_all_calls_for_a_jti_one_is_the_first() {
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            assert_eq!(accept(&store, "first").await, Ok(true));
            assert_eq!(accept(&store, "first").await, Ok(false));
            for jti in ["a", "b", "c"] {
                let calls = (0..300).map(|_| {
                    let store = store.clone();
                    async move { accept(&store, jti).await }
                });
                assert_eq!(spawned(calls).await, [1, 299, 0], "{}", database.url);
            }
            assert_eq!(store.check(), Ok(()));
        });
    }
}

#[test]
fn j11_a_thousand_parallel_calls_at_two_replicas_on_postgresql_have_one_first() {
    let database = Database::postgres();
    block_on(async {
        let replicas = [database.store().await, database.store().await];
        assert_eq!(replicas[0].id(), replicas[1].id(), "one database, one id");
        for round in 0..5 {
            let calls = (0..1000).map(|i| {
                let store = replicas[i % 2].clone();
                async move { accept(&store, &format!("round {round}")).await }
            });
            assert_eq!(spawned(calls).await, [1, 999, 0], "round {round}");
        }
    });
}

#[test]
fn j11_two_replicas_that_consume_the_same_in_opposite_order_do_not_block_each_other() {
    const JTIS: usize = 500;
    let database = Database::postgres();
    block_on(async {
        let replicas = [database.store().await, database.store().await];
        for round in 0..5 {
            let calls = (0..2 * JTIS).map(|i| {
                let (store, backwards) = (replicas[i % 2].clone(), i % 2 == 1);
                let number = if backwards { JTIS - 1 - i / 2 } else { i / 2 };
                async move { accept(&store, &format!("{round} {number}")).await }
            });
            assert_eq!(spawned(calls).await, [JTIS, JTIS, 0], "round {round}");
        }
    });
}

#[test]
fn j11_equal_jtis_of_two_issuers_are_two() {
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            for (issuer, jti, first) in
                [("a", "1", true), ("b", "1", true), ("a", "1", false), ("1", "a", true), ("", "a1", true)]
            {
                assert_eq!(store.accept_once(issuer, jti, LATER, NOW).await, Ok(first), "{issuer} {jti}");
            }
        });
    }
}

#[test]
fn h10_whatever_text_a_jti_is_it_counts_once_and_spoils_no_other() {
    let odd = [
        "",
        " ",
        "\0",
        "a\0b",
        "'); DROP TABLE assertions; --",
        "\u{202e}\u{1f4a9}",
        "{\"jti\": 1}",
        "A",
        "a",
        &"x".repeat(1 << 20),
    ];
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            // At once, so that they share a statement.
            let all = || join_all(odd.iter().map(|jti| accept(&store, jti)));
            assert_eq!(counted(all().await), [odd.len(), 0, 0], "{}", database.url);
            assert_eq!(counted(all().await), [0, odd.len(), 0], "{}", database.url);
        });
    }
}

#[test]
fn r6_what_was_consumed_stays_consumed_when_the_store_is_opened_again() {
    for database in Database::both() {
        let (id, created_at) = block_on(async {
            let store = database.store().await;
            assert_eq!(accept(&store, "old").await, Ok(true));
            (store.id().to_owned(), store.created_at())
        });
        assert!(id.len() == 32 && created_at > 1_700_000_000, "{id} {created_at}");
        for round in 0..3 {
            block_on(async {
                let store = database.store().await;
                assert_eq!((store.id(), store.created_at()), (id.as_str(), created_at), "the same database");
                assert_eq!(accept(&store, "old").await, Ok(false), "{}", database.url);
                let jti = format!("new {round}");
                assert_eq!(accept(&store, &jti).await, Ok(true));
                drop(store);
                // Without waiting for its end.
                assert_eq!(accept(&database.store().await, &jti).await, Ok(false), "{}", database.url);
            });
        }
    }
    let [a, b] = [Database::sqlite(), Database::sqlite()];
    block_on(async { assert_ne!(a.store().await.id(), b.store().await.id(), "two databases have two ids") });
}

#[test]
fn r6_kill_9_loses_nothing_that_was_answered() {
    for database in Database::both() {
        for round in 0..5 {
            let mut holder = Holder::start(&database.url).expect("it opens");
            let (before, during) = (format!("before {round} "), format!("during {round} "));
            assert_eq!(holder.accept(&before, 100), [100, 0, 0]);
            // Once the first of them are there, it is in the middle of the others.
            let written = || match database.file() {
                Some(file) => std::fs::metadata(file.with_extension("db-wal")).expect("a log").len().to_string(),
                None => Postgres::shared().sql(&database.url, "SELECT count(*) FROM assertions").expect("a number"),
            };
            let begun = written();
            holder.ask(&during, 100_000);
            wait_until("it writes", PATIENCE, || written() != begun);
            holder.kill();
            block_on(async {
                let store = database.store().await;
                assert_eq!(accept_all(&store, &before, 100).await, [0, 100, 0], "{} round {round}", database.url);
            });
        }
    }
}

#[test]
fn a_caller_that_gives_up_takes_no_other_along() {
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            // A disk that pauses for longer than an answer may take leaves a round unanswered, whoever gave up; not most of them.
            let mut answered = 0;
            for round in 0..20 {
                let calls: Vec<_> = (0..100)
                    .map(|i| {
                        let store = store.clone();
                        tokio::spawn(async move { accept(&store, &format!("{round} {i}")).await })
                    })
                    .collect();
                for call in calls.iter().step_by(2) {
                    call.abort();
                }
                let outcomes = join_all(calls).await;
                let others = outcomes.into_iter().skip(1).step_by(2).map(|outcome| outcome.expect("it was not given up"));
                let [new, there, unknown] = counted(others);
                assert_eq!((new + unknown, there), (50, 0), "{}", database.url);
                answered += usize::from(unknown == 0);
            }
            assert!(answered >= 15, "{answered} of 20 rounds on {}", database.url);
        });
    }
}

#[test]
fn h10_a_flood_of_jtis_costs_no_memory_and_pushes_none_out() {
    const FLOOD: usize = 40_000;
    for database in Database::both() {
        let mut holder = Holder::start(&database.url).expect("it opens");
        assert_eq!(holder.accept("live ", 100), [100, 0, 0]);
        assert_eq!(holder.accept("warm ", 10_000), [10_000, 0, 0], "memory is what it is under load");
        let before = holder.memory();
        let [new, there, unknown] = holder.accept("flood ", FLOOD);
        // A busy disk may make some of them wait too long.
        assert!(there == 0 && unknown < FLOOD / 4, "{new} new, {there} there, {unknown} unknown on {}", database.url);
        let after = holder.memory();
        // The keys alone would be 5 MB.
        assert!(after < before + 4096, "{}: {before} KiB before, {after} KiB after", database.url);
        assert_eq!(holder.accept("live ", 100), [0, 100, 0], "{}", database.url);
        let [again, ..] = holder.accept("flood ", FLOOD);
        assert!(again <= unknown, "{again} were new again on {}", database.url);
        holder.kill();
    }
}

#[test]
fn h10_what_has_long_expired_is_removed_and_nothing_else() {
    const KEPT: u64 = 600;
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            // More than are removed at once.
            let jtis: Vec<String> = (0..5000).map(|i| format!("old {i}")).collect();
            let old = join_all(jtis.iter().map(|jti| store.accept_once(ISSUER, jti, NOW, NOW)));
            assert_eq!(counted(old.await), [5000, 0, 0]);
            for (jti, expires_at) in [("just kept", NOW + 1), ("live", NOW + KEPT + 61), ("for ever", u64::MAX)] {
                assert_eq!(store.accept_once(ISSUER, jti, expires_at, NOW).await, Ok(true));
            }
        });
        let rows = "SELECT count(*) FROM assertions";
        assert_eq!(block_on(database.sql(rows)), Some(5003), "nothing had expired");
        block_on(async {
            // The first statement after the start is followed by a purge, and a purge that finds many by the next.
            let store = database.store().await;
            let now = NOW + KEPT + 1;
            for i in 0..4 {
                assert_eq!(store.accept_once(ISSUER, &format!("new {i}"), now + 60, now).await, Ok(true));
            }
            // Its answer comes after the purge before.
            assert_eq!(store.accept_once(ISSUER, "new 4", now + 60, now).await, Ok(true));
            for (jti, expires_at) in [("just kept", now), ("live", now + 60), ("for ever", u64::MAX)] {
                assert_eq!(store.accept_once(ISSUER, jti, expires_at, now).await, Ok(false), "{jti} {}", database.url);
            }
        });
        assert_eq!(block_on(database.sql(rows)), Some(8), "{}", database.url);
    }
}

#[test]
fn what_might_have_been_forgotten_is_not_accepted() {
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            assert_eq!(store.accept_once(ISSUER, "a", NOW - 301, NOW).await, Ok(false));
            assert_eq!(store.accept_once(ISSUER, "a", 0, u64::MAX).await, Ok(false));
            assert_eq!(store.accept_once(ISSUER, "a", NOW - 300, NOW).await, Ok(true));
            assert_eq!(store.accept_once(ISSUER, "b", u64::MAX, NOW).await, Ok(true));
        });
    }
}

#[test]
fn a_store_in_place_of_another_is_complete_since_it_took_over() {
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            let created_at = store.created_at();
            store.taken_over(created_at - 1);
            assert_eq!(store.complete_since(), created_at);
            let (clone, later) = (store.clone(), created_at + 100);
            store.taken_over(later);
            store.taken_over(later - 50);
            assert_eq!((store.complete_since(), clone.complete_since(), store.created_at()), (later, later, created_at));
        });
    }
}

#[test]
fn a_session_ends_with_its_owner_with_silence_and_with_its_time() {
    let session = |id: &str| StoredSession { id: id.to_owned(), sealed: vec![0, 1, 255], expires_at: NOW + 8 * 3600 };
    for database in Database::both() {
        block_on(async {
            let store = database.store().await;
            for id in ["out", "silent", "used", "old"] {
                store.begin_session(session(id), NOW).await.expect("begun");
                assert_eq!(store.session(id, NOW, true).await, Ok(Some(session(id))), "{}", database.url);
            }
            assert_eq!(store.session("nobody", NOW, true).await, Ok(None));
            store.end_session("out").await.expect("ended");
            store.end_session("out").await.expect("and once more");
            assert_eq!(store.session("out", NOW, true).await, Ok(None));

            // What a page asks for by itself keeps nobody signed in.
            assert!(store.session("silent", NOW + IDLE_SECONDS - 1, false).await.expect("known").is_some());
            assert!(store.session("used", NOW + IDLE_SECONDS - 1, true).await.expect("known").is_some());
            assert_eq!(store.session("silent", NOW + IDLE_SECONDS, true).await, Ok(None));
            assert!(store.session("used", NOW + IDLE_SECONDS, true).await.expect("known").is_some());
            let mut now = NOW;
            while now < NOW + 8 * 3600 {
                assert!(store.session("old", now, true).await.expect("known").is_some());
                now += IDLE_SECONDS / 2;
            }
            assert_eq!(store.session("old", NOW + 8 * 3600, true).await, Ok(None));
        });
    }
}
