//! Reading the ledger: of a store that is open, or of a database that nobody has open or a copy of it.

use super::connection::Connection;
use super::ledger::{StoredCheckpoint, StoredHashes, StoredLog, StoredSegment};
use super::url::DatabaseUrl;
use super::{OPEN_WITHIN, StoreError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long one question may take. Through a store it has its turn between what is written.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How many may wait to be asked.
const QUEUE: usize = 64;
/// How large an answer may be, in bytes, so that it holds nobody up for long.
const BYTES: i64 = 1 << 20;
/// How many rows an answer may have that are small.
const ROWS: i64 = 4096;

/// Where an answer goes: what the database said, or why it could not.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What can be asked of the ledger.
#[derive(Debug)]
pub(super) enum Question {
    Logs(Reply<Vec<StoredLog>>),
    Segments { log: String, first: i64, reply: Reply<Vec<StoredSegment>> },
    SegmentOf { log: String, number: i64, reply: Reply<Option<i64>> },
    Hashes { log: String, first: i64, reply: Reply<Vec<StoredHashes>> },
    Checkpoints { log: String, size: i64, reply: Reply<Vec<StoredCheckpoint>> },
    CheckpointOver { log: String, number: i64, reply: Reply<Option<StoredCheckpoint>> },
    Strays(Reply<Vec<String>>),
}

impl Question {
    /// Asks the database and passes on what it says. An error is told to both.
    pub(super) async fn ask(self, connection: &mut Connection) -> sqlx::Result<()> {
        match self {
            Self::Logs(reply) => pass_on(reply, connection.logs().await),
            Self::Segments { log, first, reply } => pass_on(reply, connection.segments(&log, first, BYTES).await),
            Self::SegmentOf { log, number, reply } => pass_on(reply, connection.segment_of(&log, number).await),
            Self::Hashes { log, first, reply } => pass_on(reply, connection.hashes(&log, first, ROWS).await),
            Self::Checkpoints { log, size, reply } => pass_on(reply, connection.checkpoints(&log, size, ROWS).await),
            Self::CheckpointOver { log, number, reply } => pass_on(reply, connection.checkpoint_over(&log, number).await),
            Self::Strays(reply) => pass_on(reply, connection.strays().await),
        }
    }
}

fn pass_on<T>(reply: Reply<T>, answer: sqlx::Result<T>) -> sqlx::Result<()> {
    let (answer, outcome) = match answer {
        Ok(answer) => (Ok(answer), Ok(())),
        Err(error) => (Err(StoreError::Unreachable(crate::error_chain(&error))), Err(error)),
    };
    // Who asked may have given up.
    _ = reply.send(answer);
    outcome
}

/// Reads the ledger. Clones read the same one.
#[derive(Debug, Clone)]
pub struct LedgerReader {
    questions: mpsc::Sender<Question>,
}

impl LedgerReader {
    pub(super) fn new() -> (Self, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(QUEUE);
        (Self { questions }, asked)
    }

    /// Opens a database to read it and nothing else: nothing is migrated or locked, and a PostgreSQL standby will do. A file of
    /// SQLite that an operator has open cannot be opened; a copy of it can.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] for a server that is not there, [`StoreError::Unusable`] for anything else.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Self::open_with(url, false).await
    }

    /// The same, and sees the database as it is at this moment, whatever is written to it meanwhile.
    ///
    /// # Errors
    /// As above.
    pub async fn open_at_one_moment(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Self::open_with(url, true).await
    }

    async fn open_with(url: &DatabaseUrl, at_one_moment: bool) -> Result<Self, StoreError> {
        let opened = async {
            let mut connection = Connection::open_to_read(url).await?;
            let known = connection.identity().await;
            known.map_err(|e| StoreError::Unusable(format!("it is no database of Countersign: {}", crate::error_chain(&e))))?;
            if at_one_moment {
                connection.hold_still().await.map_err(|e| StoreError::Unreachable(crate::error_chain(&e)))?;
            }
            Ok(connection)
        };
        let opened = timeout(OPEN_WITHIN, opened).await;
        let mut connection = opened.map_err(|_| StoreError::Unreachable("no answer in time".to_owned()))??;
        let (reader, mut asked) = Self::new();
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                // After an error the connection may be unusable, or the database damaged in one place: the next question tells.
                _ = question.ask(&mut connection).await;
            }
        });
        Ok(reader)
    }

    async fn asked<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let answered = async {
            self.questions.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_WITHIN, answered).await.ok().flatten().unwrap_or(Err(StoreError::Unavailable))
    }

    /// All logs, the oldest first.
    ///
    /// # Errors
    /// If the database does not answer, as for all that follow.
    pub async fn logs(&self) -> Result<Vec<StoredLog>, StoreError> {
        self.asked(Question::Logs).await
    }

    /// The next segments of a log, of those that begin with the record `first` or a later one, in order: about 1 MiB, and at least one
    /// if there is one. The next call asks for those from `last.first + 1` on.
    ///
    /// # Errors
    /// As above.
    pub async fn segments(&self, log: &str, first: i64) -> Result<Vec<StoredSegment>, StoreError> {
        self.asked(|reply| Question::Segments { log: log.to_owned(), first, reply }).await
    }

    /// Where the segment begins in which the record `number` is to be found, if it is there.
    ///
    /// # Errors
    /// As above.
    pub async fn segment_of(&self, log: &str, number: i64) -> Result<Option<i64>, StoreError> {
        self.asked(|reply| Question::SegmentOf { log: log.to_owned(), number, reply }).await
    }

    /// As [`Self::segments`], but their leaf hashes alone: of about four thousand segments.
    ///
    /// # Errors
    /// As above.
    pub async fn hashes(&self, log: &str, first: i64) -> Result<Vec<StoredHashes>, StoreError> {
        self.asked(|reply| Question::Hashes { log: log.to_owned(), first, reply }).await
    }

    /// The checkpoints of a log, of those with `size` records or more, in order: about four thousand. The next call asks for those
    /// from `last.size + 1` on.
    ///
    /// # Errors
    /// As above.
    pub async fn checkpoints(&self, log: &str, size: i64) -> Result<Vec<StoredCheckpoint>, StoreError> {
        self.asked(|reply| Question::Checkpoints { log: log.to_owned(), size, reply }).await
    }

    /// The newest checkpoint of a log that covers the record `number`.
    ///
    /// # Errors
    /// As above.
    pub async fn checkpoint_over(&self, log: &str, number: i64) -> Result<Option<StoredCheckpoint>, StoreError> {
        self.asked(|reply| Question::CheckpointOver { log: log.to_owned(), number, reply }).await
    }

    /// The names of logs that have segments or checkpoints, but no row of their own: somebody removed it.
    ///
    /// # Errors
    /// As above.
    pub async fn strays(&self) -> Result<Vec<String>, StoreError> {
        self.asked(Question::Strays).await
    }
}
