//! The copy of the records that goes to a file or a pipe, from a thread of its own, so that a slow disk or a full pipe stops no other work.
//! It follows the ledger closely: when it cannot, nothing more is appended there either.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many appends may wait to be copied. While there are more, nothing more is appended either.
const QUEUE: usize = 64;
/// How long the thread rests after it has written: under load much comes meanwhile, and to be woken for each append costs more than to
/// write.
const REST: Duration = Duration::from_millis(2);
/// How soon it is tried again to write what could not be written.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Lines to be written.
#[derive(Debug)]
struct Lines {
    /// Each with its newline.
    text: Vec<u8>,
    /// Told when they and all before them are written.
    written: Option<oneshot::Sender<()>>,
}

/// How the thread is.
#[derive(Debug, Default)]
struct State {
    /// How many appends are not written yet.
    waiting: AtomicUsize,
    /// Whether it could not write when it last tried.
    fails: AtomicBool,
}

/// Where copies go.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    queue: mpsc::Sender<Lines>,
    state: Arc<State>,
}

impl Copy {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(target: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (queue, lines) = mpsc::channel(QUEUE);
        let state = Arc::new(State::default());
        let own = Arc::clone(&state);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || write_all(target, lines, &own))?;
        Ok(Self { queue, state })
    }

    /// Whether lines are taken away faster than they come.
    pub(crate) fn has_room(&self) -> bool {
        // Some for what is said beside the records.
        self.queue.capacity() > QUEUE / 4 && !self.state.fails.load(Ordering::Relaxed)
    }

    /// How many appends are not written yet.
    pub(crate) fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::Relaxed)
    }

    /// Passes on lines. False if they found no place.
    pub(crate) fn pass_on(&self, text: Vec<u8>) -> bool {
        self.queue.try_reserve().map(|place| self.put(place, Lines { text, written: None })).is_ok()
    }

    /// Waits for a place in the queue and takes it. For what is said about the ledger and is not in it.
    pub(crate) async fn say(&self, text: Vec<u8>) {
        // There is none only when the process ends.
        _ = self.queue.reserve().await.map(|place| self.put(place, Lines { text, written: None }));
    }

    /// Returns when everything that was passed on before is written. False if it never will be.
    pub(crate) async fn written(&self) -> bool {
        let (written, done) = oneshot::channel();
        let asked = self.queue.reserve().await.map(|place| self.put(place, Lines { text: Vec::new(), written: Some(written) }));
        asked.is_ok() && done.await.is_ok()
    }

    /// Counts lines before the thread can have them.
    fn put(&self, place: mpsc::Permit<'_, Lines>, lines: Lines) {
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        place.send(lines);
    }
}

fn write_all(mut target: Box<dyn Write + Send>, mut queue: mpsc::Receiver<Lines>, state: &State) {
    let mut taken = Vec::new();
    while queue.blocking_recv_many(&mut taken, QUEUE) > 0 {
        let count = taken.len();
        let (texts, waiting): (Vec<_>, Vec<_>) = taken.drain(..).map(|lines| (lines.text, lines.written)).unzip();
        let text = texts.concat();
        let mut rest = text.as_slice();
        while let Err(error) = write_rest(&mut target, &mut rest) {
            if !state.fails.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the audit log cannot be written: nothing is issued until it can");
            }
            std::thread::sleep(RETRY_AFTER);
        }
        if state.fails.swap(false, Ordering::Relaxed) {
            tracing::info!("the audit log can be written again");
        }
        state.waiting.fetch_sub(count, Ordering::Relaxed);
        for written in waiting.into_iter().flatten() {
            // Who asked may have given up.
            _ = written.send(());
        }
        std::thread::sleep(REST);
    }
}

/// Writes what is left. After an error `rest` is what has not been taken.
fn write_rest(target: &mut impl Write, rest: &mut &[u8]) -> std::io::Result<()> {
    while !rest.is_empty() {
        match target.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => *rest = rest.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    target.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Mutex;

    /// Takes three bytes at a time, and none while it is full.
    #[derive(Clone, Default)]
    struct Narrow(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.0.lock().expect("lock");
            if inner.1 || inner.0.len() == 6 {
                inner.1 = true;
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(3);
            inner.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn l1_a_full_disk_loses_no_byte_of_the_copy_and_nothing_more_is_taken_until_there_is_room() {
        let target = Narrow::default();
        let copy = Copy::start(Box::new(target.clone())).expect("a thread");
        assert!(copy.has_room() && copy.pass_on(b"first line\n".to_vec()) && copy.pass_on(b"second\n".to_vec()));
        while copy.has_room() {
            tokio::task::yield_now().await;
        }
        assert_eq!((copy.waiting(), target.0.lock().expect("lock").0.as_slice()), (2, b"first ".as_slice()));
        *target.0.lock().expect("lock") = (b"first +".to_vec(), false);
        assert!(copy.written().await);
        assert_eq!(target.0.lock().expect("lock").0, b"first +line\nsecond\n");
        assert!(copy.has_room());
        assert_eq!(copy.waiting(), 0);
    }
}
