//! Writes records in the order of their outcomes, many in one write, and answers when they are written.

use super::Record;
use crate::time::Clock;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long an outcome may wait for its record.
const WRITE_WITHIN: Duration = Duration::from_millis(1500);
/// How many outcomes may wait.
const QUEUE: usize = 4096;

/// The record could not be written: nothing of the outcome may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the outcome could not be recorded")]
pub struct Unrecorded;

struct Entry {
    line: Vec<u8>,
    written: oneshot::Sender<bool>,
}

/// Where records go.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Entry>,
    clock: Clock,
    failures: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder that appends to `target` from a thread of its own, so that a slow disk or a full pipe stops no other work.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(target: Box<dyn Write + Send>, clock: Clock) -> std::io::Result<Self> {
        let (queue, entries) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || write_all(target, entries))?;
        Ok(Self { queue, clock, failures: Arc::default() })
    }

    /// Writes `record`. Returns when it is written, and not otherwise.
    ///
    /// # Errors
    /// [`Unrecorded`] if it was not written within 1.5 s. It may still be written later: a record of something that did
    /// not happen is the safe side.
    pub async fn write(&self, record: &Record) -> Result<(), Unrecorded> {
        let (written, done) = oneshot::channel();
        let line = record.line(&self.clock.rfc3339());
        let attempt = async {
            self.queue.send(Entry { line, written }).await.map_err(|_| Unrecorded)?;
            done.await.map_err(|_| Unrecorded)
        };
        match tokio::time::timeout(WRITE_WITHIN, attempt).await {
            Ok(Ok(true)) => Ok(()),
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
}

/// Takes what has gathered, writes it at once, and tells each that waits.
fn write_all(mut target: Box<dyn Write + Send>, mut entries: mpsc::Receiver<Entry>) {
    let mut batch = Vec::new();
    let mut bytes = Vec::new();
    while gather(&mut entries, &mut batch) {
        bytes.clear();
        batch.iter().for_each(|entry: &Entry| bytes.extend_from_slice(&entry.line));
        let written = target.write_all(&bytes).and_then(|()| target.flush());
        if let Err(error) = &written {
            tracing::error!(%error, "the audit log cannot be written: nothing is issued until it can");
        }
        for entry in batch.drain(..) {
            // Who waited may have given up; the record stands.
            _ = entry.written.send(written.is_ok());
        }
    }
}

/// Waits for entries and takes all that have gathered. False at the end.
///
/// Under load the next entry is a moment away: giving the processor to who will send it is cheaper than to sleep and be woken.
fn gather(entries: &mut mpsc::Receiver<Entry>, batch: &mut Vec<Entry>) -> bool {
    for _ in 0..4 {
        while let Ok(entry) = entries.try_recv() {
            batch.push(entry);
        }
        if !batch.is_empty() {
            return true;
        }
        std::thread::yield_now();
    }
    entries.blocking_recv_many(batch, 256) > 0
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

    fn record() -> Record {
        let mut record = Record::new("token.issue", "r".to_owned());
        record.conclude(Outcome::Allow, "granted");
        record
    }

    #[tokio::test]
    async fn each_record_is_one_line_and_is_there_when_write_returns() {
        let memory = Memory::default();
        let recorder = Recorder::start(Box::new(memory.clone()), Clock::system()).expect("thread");
        let writes = (0..500).map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move { recorder.write(&record()).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.expect("task").expect("written");
        }
        let bytes = memory.0.lock().expect("lock").clone();
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 500);
    }

    #[tokio::test]
    async fn l1_what_cannot_be_written_is_an_error_in_bounded_time() {
        let full = Recorder::start(Box::new(Full), Clock::system()).expect("thread");
        assert_eq!(full.write(&record()).await, Err(Unrecorded));
        let stuck = Recorder::start(Box::new(Stuck), Clock::system()).expect("thread");
        assert_eq!(stuck.write(&record()).await, Err(Unrecorded));
        assert_eq!((full.failures(), stuck.failures()), (1, 1));
    }
}
