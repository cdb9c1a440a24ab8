//! Reading page by page: of several logs that were written at once no record is lost and none comes twice, in the order of their time.

use crate::databases::{Database, block_on};
use countersign::audit::Filter;
use countersign::audit::ledger::tree::{Tree, leaf_hash};
use countersign::audit::scan::{self, Budget, Cursor};
use countersign::store::{LedgerReader, StoredSegment};
use k8s_openapi::jiff::Timestamp;
use sqlx::{ConnectOptions as _, Connection as _};
use std::time::Duration;

/// When the first log begins, in seconds since the epoch.
const BEGIN: i64 = 1_800_000_000;

/// A log: when each of its records was written, in milliseconds after [`BEGIN`].
struct Log {
    id: String,
    times: Vec<i64>,
    is_sealed: bool,
}

impl Log {
    fn new(n: u8, times: Vec<i64>, is_sealed: bool) -> Self {
        Self { id: format!("{n:032x}"), times, is_sealed }
    }

    fn line(&self, seq: usize) -> String {
        let time = Timestamp::from_millisecond(BEGIN * 1000 + self.times[seq]).expect("a time");
        let parity = seq % 2;
        format!(r#"{{"log":"{}","seq":{seq},"time":"{time:.3}","event":"e.{parity}","outcome":"allow","reason":"r"}}"#, self.id)
    }

    /// Everything of it, so many records in a segment.
    fn segments(&self, together: usize) -> Vec<StoredSegment> {
        let lines: Vec<String> = (0..self.times.len()).map(|seq| self.line(seq)).collect();
        let segment = |(at, lines): (usize, &[String])| StoredSegment {
            first: i64::try_from(at * together).expect("small"),
            count: i64::try_from(lines.len()).expect("small"),
            body: lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes(),
            hashes: lines.iter().flat_map(|line| leaf_hash(line.as_bytes())).collect(),
        };
        lines.chunks(together).enumerate().map(segment).collect()
    }
}

/// Writes these logs into a database in place of all that are there.
async fn write(database: &Database, logs: &[Log], together: usize) {
    macro_rules! write {
        ($options:ty) => {{
            let options: $options = database.url.parse().expect("a URL");
            let mut live = options.connect().await.expect("a connection");
            let mut all = live.begin().await.expect("a transaction");
            for statement in ["DELETE FROM logs", "DELETE FROM segments"] {
                sqlx::query(statement).execute(&mut *all).await.expect("it runs");
            }
            for log in logs {
                let touched = BEGIN + log.times.last().copied().unwrap_or_default() / 1000 + 1;
                let insert = "INSERT INTO logs (id, created_at, touched_at, writer, size, root, sealed_by) VALUES ($1, $2, $3, 'w', $4, $5, $6)";
                sqlx::query(insert)
                    .bind(log.id.clone())
                    .bind(BEGIN + log.times.first().copied().unwrap_or_default() / 1000)
                    .bind(touched)
                    .bind(i64::try_from(log.times.len()).expect("small"))
                    .bind(Tree::new().root().to_vec())
                    .bind(log.is_sealed.then(|| log.id.clone()))
                    .execute(&mut *all)
                    .await
                    .expect("it runs");
                for segment in log.segments(together) {
                    let insert = "INSERT INTO segments (log, first, count, body, hashes) VALUES ($1, $2, $3, $4, $5)";
                    let query = sqlx::query(insert).bind(log.id.clone()).bind(segment.first).bind(segment.count);
                    query.bind(segment.body).bind(segment.hashes).execute(&mut *all).await.expect("it runs");
                }
            }
            all.commit().await.expect("committed");
            live.close().await.expect("closed");
        }};
    }
    if database.file().is_some() {
        write!(sqlx::sqlite::SqliteConnectOptions);
    } else {
        write!(sqlx::postgres::PgConnectOptions);
    }
}

/// An empty ledger.
async fn empty(database: &Database) {
    let store = database.store().await;
    let reader = store.reader();
    drop(store);
    // It answers as long as the store is there: once that has let go of the file, others may open it.
    while reader.logs().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All records from `cursor` on, a page at a time, as `<log>/<seq>`, and where to go on.
async fn all(
    reader: &LedgerReader,
    filter: &Filter,
    mut cursor: Cursor,
    records: usize,
    time: Duration,
) -> (Vec<String>, Cursor) {
    let mut found = Vec::new();
    loop {
        let page = scan::page(reader, filter, &cursor, Budget { time, records }).await.expect("a page");
        assert!(page.entries.len() <= records);
        found.extend(page.entries.iter().map(countersign::audit::Entry::id));
        // As it comes back from whoever asks.
        cursor = page.next.to_string().parse().expect("a cursor");
        if !page.is_more {
            return (found, cursor);
        }
    }
}

/// What should be found, in the order of time.
fn expected(logs: &[Log], is_wanted: impl Fn(usize) -> bool) -> Vec<String> {
    let records = logs.iter().flat_map(|log| log.times.iter().enumerate().map(|(seq, time)| (*time, &log.id, seq)));
    let mut records: Vec<_> = records.filter(|(.., seq)| is_wanted(*seq)).collect();
    records.sort();
    records.into_iter().map(|(_, log, seq)| format!("{log}/{seq}")).collect()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn of_logs_that_were_written_at_once_no_record_is_lost_and_none_comes_twice() {
    for database in Database::both() {
        block_on(async {
            empty(&database).await;
            // One after another, at once, within one second, one that never ended, and one without records.
            let mut logs = vec![
                Log::new(9, (0..50).map(|i| i * 100).collect(), true),
                Log::new(1, (0..70).map(|i| 2_001 + i * 90).collect(), true),
                Log::new(2, (0..60).map(|i| 2_003 + i * 110).collect(), false),
                Log::new(8, vec![], true),
                Log::new(3, (0..40).map(|i| 6_007 + i * 130).collect(), false),
            ];
            for together in [1, 7, 1000] {
                write(&database, &logs, together).await;
                let reader = LedgerReader::open(&database.url.parse().expect("a URL")).await.expect("it opens");
                let odd = Filter::default().with("event", "e.1").expect("a filter");
                for records in [1, 7, 1000] {
                    for time in [LONG, Duration::ZERO] {
                        let (found, _) = all(&reader, &Filter::default(), Cursor::default(), records, time).await;
                        assert_eq!(found, expected(&logs, |_| true), "{together} {records} {time:?}");
                        let (found, _) = all(&reader, &odd, Cursor::default(), records, time).await;
                        assert_eq!(found, expected(&logs, |seq| seq % 2 == 1), "{together} {records} {time:?}");
                    }
                }
            }
            // What is written later follows, in logs that were there and in new ones, also one of the same second.
            write(&database, &logs, 10).await;
            let reader = LedgerReader::open(&database.url.parse().expect("a URL")).await.expect("it opens");
            let (before, cursor) = all(&reader, &Filter::default(), Cursor::default(), 10, LONG).await;
            logs[2].times.extend((0..15).map(|i| 60_000 + i * 10));
            logs[4].times.extend((0..15).map(|i| 60_005 + i * 10));
            logs.push(Log::new(0, vec![6_900, 60_001, 60_002], false));
            logs.push(Log::new(7, vec![60_500], false));
            write(&database, &logs, 10).await;
            let (mut after, _) = all(&reader, &Filter::default(), cursor, 10, LONG).await;
            let mut missing: Vec<String> = expected(&logs, |_| true).into_iter().filter(|id| !before.contains(id)).collect();
            after.sort();
            missing.sort();
            assert_eq!(after, missing);
        });
    }
}

#[test]
fn a_search_that_begins_late_does_not_begin_too_late() {
    for database in Database::both() {
        block_on(async {
            empty(&database).await;
            // A second apart, so that it is worth looking for a beginning.
            let logs = [
                Log::new(1, (0..30_000).map(|i| i * 1000).collect(), true),
                Log::new(2, (0..20_000).map(|i| (25_000 + i) * 1000).collect(), false),
            ];
            write(&database, &logs, 100).await;
            let reader = LedgerReader::open(&database.url.parse().expect("a URL")).await.expect("it opens");
            for since in [0, 3, 17_123, 29_999, 44_990, 50_000] {
                let time = Timestamp::from_second(BEGIN + since).expect("a time").to_string();
                let filter = Filter::default().with("since", &time).expect("a filter");
                let (found, _) = all(&reader, &filter, Cursor::default(), 1000, LONG).await;
                let wanted: Vec<String> = {
                    let records =
                        logs.iter().flat_map(|log| log.times.iter().enumerate().map(move |(seq, time)| (*time, &log.id, seq)));
                    let mut records: Vec<_> = records.filter(|(time, ..)| *time >= since * 1000).collect();
                    records.sort();
                    records.into_iter().map(|(_, log, seq)| format!("{log}/{seq}")).collect()
                };
                // Two records of one moment may come in either order.
                let (mut found, mut wanted) = (found, wanted);
                found.sort();
                wanted.sort();
                assert!(found == wanted, "{since}: {} of {}", found.len(), wanted.len());
            }
            // The newest, wherever they are.
            let cursor = scan::last(&reader, 10).await.expect("a cursor");
            let (found, _) = all(&reader, &Filter::default(), cursor, 1000, LONG).await;
            assert_eq!(found.last(), Some(&format!("{}/19999", logs[1].id)));
            assert!(found.len() >= 10 && found.len() <= 20, "{}", found.len());
        });
    }
}
