//! The task that alone talks to the database: it takes the claims and records that have gathered, writes each kind at once, and tells
//! who waits. In between it answers one question.

use super::appender::{Appender, Entry};
use super::claim::{Claim, Key, Row, answer, rows};
use super::connection::Connection;
use super::orders::Order;
use super::reader::Question;
use super::url::DatabaseUrl;
use super::{ANSWER_WITHIN, KEPT_SECONDS};
use crate::audit::ledger::opening::Opening;
use aws_lc_rs::rand;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// How many claims one statement takes.
const TOGETHER: usize = 512;
/// How often the database is asked whether it is there, when nobody else asks.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How soon it is tried again when it was not there. What is asked until then is answered at once.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// How often rows are removed that no longer matter.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How many at once. More than come in between when there are that many: then it is done after each statement.
const PURGE_LIMIT: u16 = 2048;

/// What a store is asked for, by kind.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) claims: mpsc::Receiver<Claim>,
    pub(super) records: mpsc::Receiver<Entry>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) questions: mpsc::Receiver<Question>,
}

/// What is done in one turn.
#[derive(Debug, Default)]
struct Work {
    claims: Vec<Claim>,
    records: Vec<Entry>,
    order: Option<Order>,
    question: Option<Question>,
}

pub(super) struct Keeper {
    url: DatabaseUrl,
    /// The database that this process opened. Another one in its place knows nothing of what was consumed.
    id: Arc<str>,
    inbox: Inbox,
    reachable: Arc<AtomicBool>,
    connection: Option<Connection>,
    /// Appends records. None before the ledger is begun.
    ledger: Option<Appender>,
    /// When to ask whether the database is there, or to connect again.
    due: Instant,
    /// When to look after the log.
    look_due: Instant,
    purge_due: Instant,
    /// What was logged last of an outage.
    complaint: String,
}

/// Why there is no answer from the database.
#[derive(Debug, thiserror::Error)]
enum Outage {
    #[error("{0}")]
    Store(#[from] super::StoreError),
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("no answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("random bytes cannot be had")]
    Random,
    /// Nothing that passes.
    #[error("the database is another one than at the start")]
    Replaced,
}

impl Keeper {
    pub(super) fn new(url: DatabaseUrl, id: Arc<str>, inbox: Inbox, reachable: Arc<AtomicBool>, connection: Connection) -> Self {
        let now = Instant::now();
        Self {
            url,
            id,
            inbox,
            reachable,
            connection: Some(connection),
            ledger: None,
            due: now + PING_EVERY,
            look_due: now,
            purge_due: now,
            complaint: String::new(),
        }
    }

    /// Runs until it is told to end, the last [`Store`](super::Store) is gone, or the database has been replaced by another.
    pub(super) async fn run(mut self) {
        let ended = loop {
            let mut work = Work::default();
            // Whoever writes is not kept waiting by who only asks.
            tokio::select! {
                biased;
                taken = self.inbox.records.recv_many(&mut work.records, TOGETHER) => if taken == 0 { break None },
                taken = self.inbox.claims.recv_many(&mut work.claims, TOGETHER) => if taken == 0 { break None },
                order = self.inbox.orders.recv() => if order.is_none() { break None } else { work.order = order },
                question = self.inbox.questions.recv() => work.question = question,
                () = sleep_until(self.due) => {}
            }
            self.inbox.complete(&mut work);
            if let Some(Order::End(reply)) = work.order {
                break Some(reply);
            }
            if self.connection.is_none() && Instant::now() < self.due {
                // Dropped, hence answered: the database was not there a moment ago.
                if let Some(Order::Begin { opening, reply }) = work.order {
                    self.begin(*opening, reply);
                }
                continue;
            }
            let done = self.turn(work).await;
            if self.note(done) {
                return;
            }
        };
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database was not closed in order; nothing is lost");
        }
        if let Some(reply) = ended {
            // Who asked may have given up.
            _ = reply.send(());
        }
    }

    /// Does `work`, or asks whether the database is there if there is none. The connection is gone after an error.
    async fn turn(&mut self, work: Work) -> Result<(), Outage> {
        let Work { claims, records, order, question } = work;
        let order = match order {
            Some(Order::Begin { opening, reply }) => {
                self.begin(*opening, reply);
                None
            }
            order => order,
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let now = claims.iter().map(|claim| claim.now).min();
        let is_idle = claims.is_empty() && records.is_empty();
        timeout(ANSWER_WITHIN, decide(&mut connection, claims)).await??;
        timeout(ANSWER_WITHIN, self.record(&mut connection, records)).await??;
        if let Some(order) = order {
            timeout(ANSWER_WITHIN, order.carry_out(&mut connection, self.ledger.as_mut())).await??;
        }
        if let Some(question) = question
            && timeout(ANSWER_WITHIN, question.ask(&mut connection)).await?.is_err()
        {
            // What somebody has spoilt and cannot be read is no reason to stop writing, if the connection is well.
            timeout(ANSWER_WITHIN, connection.identity()).await??;
        }
        if is_idle {
            timeout(ANSWER_WITHIN, self.ping(&mut connection)).await??;
        }
        if let Some(now) = now.filter(|_| self.purge_due <= Instant::now()) {
            let removed = connection.purge(now.saturating_sub(KEPT_SECONDS), PURGE_LIMIT.into());
            let removed = timeout(ANSWER_WITHIN, removed).await??;
            let more = removed >= PURGE_LIMIT.into();
            self.purge_due = Instant::now() + if more { Duration::ZERO } else { PURGE_EVERY };
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// From now on records are appended.
    fn begin(&mut self, opening: Opening, reply: oneshot::Sender<()>) {
        self.ledger = Some(Appender::new(opening));
        self.look_due = Instant::now();
        // Who asked may have given up.
        _ = reply.send(());
    }

    /// Appends records, and looks after the log when it is time.
    async fn record(&mut self, connection: &mut Connection, records: Vec<Entry>) -> Result<(), Outage> {
        // Without a ledger they are dropped, hence answered.
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        if !records.is_empty() || ledger.is_unsettled() {
            ledger.append(connection, records).await?;
        }
        if self.look_due <= Instant::now() {
            ledger.look_after(connection).await?;
            self.look_due = Instant::now() + PING_EVERY;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, Outage> {
        let mut connection = Connection::open(&self.url).await?;
        let (id, _) = timeout(ANSWER_WITHIN, connection.identity()).await??;
        if *id == *self.id { Ok(connection) } else { Err(Outage::Replaced) }
    }

    /// Asks whether the database is there, and takes writes if it had failed.
    async fn ping(&self, connection: &mut Connection) -> Result<(), Outage> {
        if self.reachable.load(Ordering::Relaxed) {
            connection.identity().await?;
        } else {
            // After an error only a write shows that it is over: a full disk can be read. The row has expired and is soon purged.
            let mut random = [0; 16];
            rand::fill(&mut random).map_err(|_| Outage::Random)?;
            let key = Key::new("", &u128::from_ne_bytes(random).to_string());
            connection.insert(&[Row { key: &key, expires_at: 0 }]).await?;
        }
        Ok(())
    }

    /// Notes whether the database is there. True if it never will be again.
    fn note(&mut self, done: Result<(), Outage>) -> bool {
        let was = self.reachable.swap(done.is_ok(), Ordering::Relaxed);
        let Err(outage) = done else {
            if !was {
                tracing::info!(database = %self.url, "the store is there again");
                self.complaint.clear();
            }
            self.due = Instant::now() + PING_EVERY;
            return false;
        };
        let complaint = outage.to_string();
        if complaint != self.complaint {
            tracing::error!(database = %self.url, error = %complaint, "the store cannot be reached: what needs it is refused");
            self.complaint = complaint;
        }
        self.due = Instant::now() + RETRY_AFTER;
        matches!(outage, Outage::Replaced)
    }
}

impl Inbox {
    /// Takes what else has come, of each kind.
    fn complete(&mut self, work: &mut Work) {
        while work.claims.len() < TOGETHER
            && let Ok(claim) = self.claims.try_recv()
        {
            work.claims.push(claim);
        }
        while work.records.len() < TOGETHER
            && let Ok(record) = self.records.try_recv()
        {
            work.records.push(record);
        }
        if work.order.is_none() {
            work.order = self.orders.try_recv().ok();
        }
        if work.question.is_none() {
            work.question = self.questions.try_recv().ok();
        }
    }
}

/// Writes claims and answers them.
async fn decide(connection: &mut Connection, mut claims: Vec<Claim>) -> Result<(), Outage> {
    // Who gave up before anything was written has consumed nothing.
    claims.retain(|claim| !claim.first.is_closed());
    if !claims.is_empty() {
        let inserted = connection.insert(&rows(&claims)).await?;
        answer(claims, inserted);
    }
    Ok(())
}
