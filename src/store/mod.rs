//! What must survive a restart and cannot live in Kubernetes: which assertions were consumed, the ledger of what was decided, and who is
//! signed in to the portal. In SQLite for one replica, in PostgreSQL for several; the same code and the same promises for both.

mod appender;
mod claim;
mod connection;
mod keeper;
mod ledger;
mod notices;
mod orders;
mod packed;
mod reader;
mod sessions;
mod url;
mod volume;
mod writing;

pub use ledger::{StoredCheckpoint, StoredHashes, StoredLog, StoredSegment};
pub use notices::{Attempt, Delivery, Notice, Outcome, Taken};
pub use reader::LedgerReader;
pub use sessions::{IDLE_SECONDS, StoredSession};
pub use url::{DatabaseUrl, UrlError};

pub(crate) use appender::Entry;

use crate::audit::ledger::log::Head;
use crate::audit::ledger::opening::Opening;
use claim::{Claim, Key};
use connection::Connection;
use keeper::{Inbox, Keeper};
use orders::Order;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long a caller waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// How long each of the last things may take when the process ends: nobody waits for an answer then, and what is not done is left to the
/// successor.
const END_WITHIN: Duration = Duration::from_secs(4);
/// How long opening may take, the migration of an old database included.
const OPEN_WITHIN: Duration = Duration::from_secs(60);
/// How many callers may wait to be taken. Those beyond wait in line, each within its own time.
const QUEUE: usize = 4096;
/// How many may wait to have something done to the ledger.
const ORDERS: usize = 16;
/// How long after its expiry a row is kept, in seconds.
const KEPT_SECONDS: i64 = 600;
/// How long after its expiry an assertion can still be accepted, by a caller that wants to. Far less than a row is kept: whoever
/// purges, and by whatever clock, no other replica then takes the assertion for a new one.
const ACCEPTED_SECONDS: i64 = 300;

/// Why the store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There was no answer within 1.5 s, or its outcome is not known.
    #[error("the database of the store cannot be reached")]
    Unavailable,
    /// The database cannot be reached, or not be written to. It may pass.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The database cannot be used until somebody changes something.
    #[error("the database cannot be used: {0}")]
    Unusable(String),
}

/// The store. Clones are the same store; when the last is gone the database is closed.
#[derive(Debug, Clone)]
pub struct Store {
    id: Arc<str>,
    created_at: u64,
    lease_writes: u64,
    taken_over_at: Arc<AtomicU64>,
    claims: mpsc::Sender<Claim>,
    records: mpsc::Sender<Entry>,
    orders: mpsc::Sender<Order>,
    reachable: Arc<AtomicBool>,
    reader: LedgerReader,
}

impl Store {
    /// Opens the database, makes it if it is a file that does not exist, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] for a server that is not there or takes no writes, which may pass; [`StoreError::Unusable`] for
    /// anything that somebody has to change: a file that another process uses or that would not outlive the pod, a database of a
    /// newer version, missing rights.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let opened = async {
            let mut connection = Connection::open(url).await?;
            connection.migrate().await?;
            let identity = connection.identity().await;
            let (id, created_at) = identity.map_err(|e| StoreError::Unusable(crate::error_chain(&e)))?;
            let writes = connection.lease_writes().await.map_err(|e| StoreError::Unusable(crate::error_chain(&e)))?;
            Ok((connection, id, created_at, writes))
        };
        let opened = timeout(OPEN_WITHIN, opened).await;
        let (connection, id, created_at, lease_writes) =
            opened.map_err(|_| StoreError::Unreachable("no answer in time".to_owned()))??;
        let id: Arc<str> = id.into();
        let (claims, taken_claims) = mpsc::channel(QUEUE);
        let (records, taken_records) = mpsc::channel(QUEUE);
        let (orders, taken_orders) = mpsc::channel(ORDERS);
        let reachable = Arc::new(AtomicBool::new(true));
        let (reader, questions) = LedgerReader::new();
        let inbox = Inbox { claims: taken_claims, records: taken_records, orders: taken_orders, questions };
        let keeper = Keeper::new(url.clone(), Arc::clone(&id), inbox, Arc::clone(&reachable), connection);
        tokio::spawn(keeper.run());
        let created_at = created_at.try_into().unwrap_or(0);
        let lease_writes = lease_writes.try_into().unwrap_or(0);
        Ok(Self { id, created_at, lease_writes, taken_over_at: Arc::default(), claims, records, orders, reachable, reader })
    }

    /// Which database this is: random, made with it, and the same for every replica that uses it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the database was made, in seconds since the epoch.
    #[must_use]
    pub const fn created_at(&self) -> u64 {
        self.created_at
    }

    /// Since when everything that was consumed is in this database, in seconds since the epoch: since it was made, or since it took
    /// the place of another. An assertion that may be older must be refused: it may have been consumed without this store knowing.
    #[must_use]
    pub fn complete_since(&self) -> u64 {
        self.created_at.max(self.taken_over_at.load(Ordering::Relaxed))
    }

    /// Notes that this database took the place of another at `at`, in seconds since the epoch.
    pub fn taken_over(&self, at: u64) {
        self.taken_over_at.fetch_max(at, Ordering::Relaxed);
    }

    /// How often the Lease had been written, as far as this database had heard when it was opened.
    #[must_use]
    pub const fn lease_writes(&self) -> u64 {
        self.lease_writes
    }

    /// Notes how often the Lease was written, for who opens this database later.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether it is noted.
    pub async fn note_lease_writes(&self, writes: u64) -> Result<(), StoreError> {
        self.ordered(|reply| Order::LeaseWrites { writes: writes.try_into().unwrap_or(i64::MAX), reply }).await
    }

    /// Consumes the assertion `jti` of `issuer`. True for exactly one of all calls for that pair, on every replica and over every
    /// restart, and then it is durable. Any texts will do. `expires_at`, from the assertion, and `now` are in seconds since the
    /// epoch; the pair is remembered at least ten minutes beyond `expires_at`, and one that expired long ago is not accepted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether this call was the one. Whoever gets it must refuse
    /// the assertion, which may be used up.
    pub async fn accept_once(&self, issuer: &str, jti: &str, expires_at: u64, now: u64) -> Result<bool, StoreError> {
        let (expires_at, now) = (seconds(expires_at), seconds(now));
        if now.saturating_sub(expires_at) > ACCEPTED_SECONDS {
            return Ok(false);
        }
        let (first, is_first) = oneshot::channel();
        let claim = Claim { key: Key::new(issuer, jti), expires_at, now, first };
        let answered = async {
            self.claims.send(claim).await.ok()?;
            is_first.await.ok()
        };
        timeout(ANSWER_WITHIN, answered).await.ok().flatten().ok_or(StoreError::Unavailable)
    }

    /// Whether the database could be reached, and written to if it had failed, when it was last asked, a few seconds ago at most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if not.
    pub fn check(&self) -> Result<(), StoreError> {
        let there = self.reachable.load(Ordering::Relaxed) && !self.claims.is_closed();
        if there { Ok(()) } else { Err(StoreError::Unavailable) }
    }

    /// How many records and claims wait for the database.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let queued = |free: usize| QUEUE.saturating_sub(free);
        queued(self.records.capacity()) + queued(self.claims.capacity())
    }

    /// Begins the ledger of this process: [`Self::record`] works from now on. The log itself is begun as soon as the database is there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store has ended.
    pub(crate) async fn begin_ledger(&self, opening: Opening) -> Result<(), StoreError> {
        self.ordered(|reply| Order::Begin { opening: Box::new(opening), reply }).await
    }

    /// Appends a record to the ledger. Who asks learns from the entry what became of it; they wait as long as they like.
    pub(crate) async fn record(&self, entry: Entry) -> Result<(), StoreError> {
        self.records.send(entry).await.map_err(|_| StoreError::Unavailable)
    }

    /// Seals the log of this process, and takes no more records. Returns how far it was.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 4 s if it is not known whether it is sealed: its successor sees to it.
    pub(crate) async fn close_ledger(&self) -> Result<Option<Head>, StoreError> {
        self.ordered_within(END_WITHIN, Order::Close).await
    }

    /// Keeps a checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether it is there.
    pub(crate) async fn keep_checkpoint(&self, head: Head, note: String) -> Result<(), StoreError> {
        self.ordered(|reply| Order::Checkpoint { head, note, reply }).await
    }

    /// Notes that a log, which was sealed, is archived.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether it is noted.
    pub(crate) async fn mark_archived(&self, log: &str) -> Result<(), StoreError> {
        self.ordered(|reply| Order::Archived { log: log.to_owned(), reply }).await
    }

    /// Removes a part of a log that is noted to be archived. Says whether there may be more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether it is removed.
    pub(crate) async fn remove_archived(&self, log: &str) -> Result<bool, StoreError> {
        self.ordered(|reply| Order::Remove { log: log.to_owned(), reply }).await
    }

    /// Closes the database; whatever is asked afterwards, of any clone, is not answered. A file is whole then: SQLite has folded its
    /// write-ahead log into it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not closed within 4 s, or was before. Nothing is lost by that.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ordered_within(END_WITHIN, Order::End).await
    }

    async fn ordered<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, StoreError> {
        self.ordered_within(ANSWER_WITHIN, order).await
    }

    async fn ordered_within<T>(&self, limit: Duration, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let answered = async {
            self.orders.send(order(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(limit, answered).await.ok().flatten().ok_or(StoreError::Unavailable)
    }

    /// Reads the ledger. It can be read as long as a [`Store`] is there.
    #[must_use]
    pub fn reader(&self) -> LedgerReader {
        self.reader.clone()
    }

    /// Returns when the store can never be used again, because the database behind it has been replaced by another.
    pub async fn ended(&self) {
        self.claims.closed().await;
    }
}

/// As databases count, which have no unsigned numbers.
fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
