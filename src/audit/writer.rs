//! Writes records into the ledger, and answers when they are durable there. Their copy follows.

use super::copy::Copy;
use super::ledger::log::Head;
use super::ledger::note::CheckpointKey;
use super::ledger::opening::{Heads, Limits, Opening};
use super::record::{Record, ascii_json};
use crate::store::{Entry, Store, StoreError};
use crate::time::Clock;
use serde::Serialize;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long an outcome may wait for its record.
const WRITE_WITHIN: Duration = Duration::from_millis(1500);
/// The same when the database was not there a moment ago: a request that has waited for it already is not kept waiting as long again.
const WRITE_WITHIN_OUTAGE: Duration = Duration::from_millis(300);

/// The record could not be written: nothing of the outcome may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the outcome could not be recorded")]
pub struct Unrecorded;

/// How a process records.
pub struct Recording {
    /// The name of the process.
    pub writer: String,
    /// The verifier key of the checkpoints, in its text form.
    pub vkey: String,
    /// Where the copy of the records goes.
    pub copy: Box<dyn Write + Send>,
    /// When a log ends.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("writer", &self.writer).field("vkey", &self.vkey).finish_non_exhaustive()
    }
}

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The thread of the copy cannot be started.
    #[error("the thread that writes the audit log cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The store has ended.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where records go. Clones are the same recorder.
#[derive(Debug, Clone)]
pub struct Recorder {
    store: Store,
    copy: Copy,
    heads: Arc<Heads>,
    clock: Clock,
    failures: Arc<AtomicU64>,
}

impl Recorder {
    /// Begins a log in `store`, or as soon as its database is there.
    ///
    /// # Errors
    /// A [`RecorderError`].
    pub async fn start(store: Store, recording: Recording) -> Result<Self, RecorderError> {
        let Recording { writer, vkey, copy, limits, clock } = recording;
        let (copy, heads) = (Copy::start(copy)?, Arc::new(Heads::new(vkey)));
        let opening = Opening { writer, limits, clock, copy: copy.clone(), heads: Arc::clone(&heads) };
        store.begin_ledger(opening).await?;
        Ok(Self { store, copy, heads, clock, failures: Arc::default() })
    }

    /// Writes `record`. Returns when it is durable in the ledger, and not otherwise. While the copy cannot follow, nothing is written.
    ///
    /// # Errors
    /// [`Unrecorded`] if that was not so within 1.5 s. It may still be written later: a record of something that did not happen is the
    /// safe side.
    pub async fn write(&self, record: &Record) -> Result<(), Unrecorded> {
        let (written, done) = oneshot::channel();
        let entry = Entry { members: record.members(), written };
        let attempt = async {
            self.store.record(entry).await.map_err(|_| Unrecorded)?;
            done.await.map_err(|_| Unrecorded)
        };
        let within = if self.store.check().is_ok() { WRITE_WITHIN } else { WRITE_WITHIN_OUTAGE };
        match tokio::time::timeout(within, attempt).await {
            Ok(Ok(())) => Ok(()),
            _ => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(Unrecorded)
            }
        }
    }

    /// How many outcomes could not be recorded since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How far the log of this process is. None before it is begun.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.heads.current()
    }

    /// How many records of this process no published checkpoint covers.
    #[must_use]
    pub fn uncovered(&self) -> u64 {
        self.heads.uncovered()
    }

    /// How far the logs of this process are, for whoever signs checkpoints.
    pub(crate) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Signs how far a log is, keeps that, and says it in the copy. Returns the note.
    ///
    /// # Errors
    /// If it is not known whether it is kept.
    pub(crate) async fn checkpoint(&self, head: &Head, key: &CheckpointKey) -> Result<String, StoreError> {
        #[derive(Serialize)]
        struct Said<'a> {
            time: String,
            event: &'static str,
            log: &'a str,
            size: u64,
            note: &'a str,
        }
        let note = key.sign(&head.log, head.size, &head.root);
        self.store.keep_checkpoint(head.clone(), note.clone()).await?;
        let time = self.clock.rfc3339();
        let said = Said { time, event: "ledger.checkpoint", log: head.log.as_str(), size: head.size, note: &note };
        let mut line = Vec::new();
        ascii_json(&mut line, &said);
        line.push(b'\n');
        self.copy.say(line).await;
        Ok(note)
    }

    /// How many appends to the ledger are not in the copy yet.
    #[must_use]
    pub fn uncopied(&self) -> usize {
        self.copy.waiting()
    }

    /// Returns when the copy has everything that was written before, or false if it never will.
    pub(crate) async fn copied(&self) -> bool {
        self.copy.written().await
    }

    /// Seals the log and takes no more records.
    ///
    /// # Errors
    /// If it is not known whether it is sealed. Its successor sees to it.
    pub async fn close(&self) -> Result<Option<Head>, StoreError> {
        self.store.close_ledger().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Outcome;
    use std::io;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stuck;

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_secs(3600));
            Ok(0)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A recorder on a database of its own.
    async fn recorder(copy: impl Write + Send + 'static) -> (Recorder, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", directory.path().join("test.db").display());
        let store = Store::open(&url.parse().expect("a URL")).await.expect("a store");
        let key = CheckpointKey::from_pem("id.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key");
        let recording = Recording {
            writer: "test".to_owned(),
            vkey: key.vkey().to_string(),
            copy: Box::new(copy),
            limits: Limits::default(),
            clock: Clock::system(),
        };
        (Recorder::start(store, recording).await.expect("a recorder"), directory)
    }

    fn record() -> Record {
        let mut record = Record::new("token.issue", "r".to_owned());
        record.conclude(Outcome::Allow, "granted");
        record
    }

    #[tokio::test]
    async fn each_record_is_one_line_of_the_ledger_and_of_the_copy() {
        let memory = Memory::default();
        let (recorder, _directory) = recorder(memory.clone()).await;
        let writes = (0..500).map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move { recorder.write(&record()).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.expect("task").expect("written");
        }
        assert!(recorder.copied().await);
        let bytes = memory.0.lock().expect("lock").clone();
        // And the one with which the log begins.
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 501);
        assert_eq!(recorder.head().expect("a log").size, 501);
    }

    #[tokio::test]
    async fn l1_what_cannot_be_written_is_an_error_in_bounded_time() {
        for (recorder, _directory) in [recorder(Full).await, recorder(Stuck).await] {
            // The copy may lag behind a little.
            let mut written = 0;
            while recorder.write(&record()).await.is_ok() {
                written += 1;
                assert!(written < 100, "the copy is missed");
            }
            assert_eq!(recorder.failures(), 1);
        }
    }
}
