//! Notifications that wait to be sent. Queued by any replica, each at most once; taken by the one that sends.

use super::connection::{Connection, either};
use super::orders::Order;
use super::{Store, StoreError};
use serde::Serialize;
use tokio::sync::oneshot;

/// How long after it was queued a row is removed, in seconds: longer than a request can be there, so that none is queued twice.
const KEPT_SECONDS: i64 = 16 * 86_400;

/// Something to be done.
#[derive(Debug)]
pub(super) enum NoticeOrder {
    /// Queue these, but for those that are there.
    Queue { notices: Vec<Notice>, now: i64, reply: oneshot::Sender<()> },
    /// Take what is due.
    Take { receiver: String, now: i64, until: i64, limit: i64, reply: oneshot::Sender<Vec<Taken>> },
    /// Note what became of an attempt. Answers how the request stands with each receiver.
    Settle { attempt: Attempt, outcome: Outcome, reply: oneshot::Sender<Vec<Delivery>> },
    /// Remove what is old, and count what waits.
    Tidy { now: i64, reply: oneshot::Sender<u64> },
}

/// A notification for one receiver.
#[derive(Debug, Clone, Serialize)]
pub struct Notice {
    /// The receiver.
    pub receiver: String,
    /// Identifies the event.
    pub id: String,
    /// The UID of the request that it is about.
    pub subject: String,
    /// The order among those about the same request.
    pub ordinal: i64,
    /// What is sent.
    pub body: String,
}

/// One that was taken to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Identifies the event.
    pub id: String,
    /// The UID of the request.
    pub subject: String,
    /// The order among those about the same request.
    pub ordinal: i64,
    /// What is to be sent.
    pub body: String,
    /// When it was queued, in seconds since the epoch.
    pub created_at: i64,
    /// How often it was taken, this time counted.
    pub attempts: i64,
    /// What the receiver calls an earlier message about the same request.
    pub reference: Option<String>,
}

/// Which attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The receiver.
    pub receiver: String,
    /// The event.
    pub id: String,
    /// How often it had been taken then.
    pub attempts: i64,
    /// The UID of the request.
    pub subject: String,
    /// The order among those about the same request.
    pub ordinal: i64,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived; and what the receiver calls it.
    Delivered(Option<String>),
    /// It did not, for that reason; to be sent again at that time, in seconds since the epoch.
    Again(String, i64),
    /// It did not, and is not sent any more.
    GivenUp(String),
}

/// How a request stands with a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The receiver.
    pub receiver: String,
    /// waiting, delivered or given_up.
    pub state: String,
    /// What was wrong with the last attempt.
    pub detail: Option<String>,
}

impl Store {
    /// Queues notifications, but for those that were queued before, at `now` in seconds since the epoch.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether they are queued: to queue them again does no harm.
    pub async fn queue_notices(&self, notices: Vec<Notice>, now: i64) -> Result<(), StoreError> {
        self.ordered(|reply| Order::Notices(NoticeOrder::Queue { notices, now, reply })).await
    }

    /// Takes at most `limit` notifications for `receiver` that are due at `now`. Until `until` nobody else is given them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s. What was taken all the same is given out again after `until`.
    pub async fn take_notices(&self, receiver: &str, now: i64, until: i64, limit: i64) -> Result<Vec<Taken>, StoreError> {
        let receiver = receiver.to_owned();
        self.ordered(|reply| Order::Notices(NoticeOrder::Take { receiver, now, until, limit, reply })).await
    }

    /// Notes what became of an attempt. Returns how the request now stands with each receiver, for the same event or others of the same
    /// rank.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether it is noted.
    pub async fn settle_notice(&self, attempt: Attempt, outcome: Outcome) -> Result<Vec<Delivery>, StoreError> {
        self.ordered(|reply| Order::Notices(NoticeOrder::Settle { attempt, outcome, reply })).await
    }

    /// Removes rows of notifications whose time is over; returns how many wait to be sent.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s.
    pub async fn tidy_notices(&self, now: i64) -> Result<u64, StoreError> {
        self.ordered(|reply| Order::Notices(NoticeOrder::Tidy { now, reply })).await
    }
}

impl NoticeOrder {
    pub(super) async fn carry_out(self, connection: &mut Connection) -> sqlx::Result<()> {
        match self {
            Self::Queue { notices, now, reply } => {
                connection.queue(&notices, now).await?;
                _ = reply.send(());
            }
            Self::Take { receiver, now, until, limit, reply } => {
                _ = reply.send(connection.take(&receiver, now, until, limit).await?);
            }
            Self::Settle { attempt, outcome, reply } => _ = reply.send(connection.settle(&attempt, outcome).await?),
            Self::Tidy { now, reply } => _ = reply.send(connection.tidy(now).await?),
        }
        Ok(())
    }
}

/// A row that was taken.
type TakenRow = (String, String, i64, String, i64, i64, Option<String>);

const COLUMNS: &str =
    "INSERT INTO notices (receiver, id, subject, ordinal, body, created_at, due_at, attempts, state, expires_at) SELECT ";

/// An event follows those before it about the same request: it is not taken while one of them waits. Two that take at once leave each
/// other's rows alone.
fn take_text(locking: &str) -> String {
    format!(
        "UPDATE notices SET attempts = attempts + 1, due_at = $3 WHERE receiver = $1 AND id IN (\
         SELECT id FROM notices AS next WHERE receiver = $1 AND state = 'waiting' AND due_at <= $2 AND NOT EXISTS (\
         SELECT 1 FROM notices AS earlier WHERE earlier.subject = next.subject AND earlier.receiver = next.receiver \
         AND earlier.ordinal < next.ordinal AND earlier.state = 'waiting') ORDER BY due_at LIMIT $4{locking}) \
         RETURNING id, subject, ordinal, body, created_at, attempts, (SELECT posted.reference FROM notices AS posted \
         WHERE posted.subject = notices.subject AND posted.receiver = notices.receiver AND posted.reference IS NOT NULL \
         ORDER BY posted.ordinal LIMIT 1) AS reference"
    )
}

impl Connection {
    async fn queue(&mut self, notices: &[Notice], now: i64) -> sqlx::Result<()> {
        let rows = serde_json::to_string(notices).map_err(|e| sqlx::Error::Encode(e.into()))?;
        let text = match self {
            Self::Sqlite(_) => format!(
                "{COLUMNS}value->>'receiver', value->>'id', value->>'subject', value->>'ordinal', value->>'body', $2, $2, 0, 'waiting', $3 \
                 FROM json_each($1) WHERE true ON CONFLICT DO NOTHING"
            ),
            Self::Postgres(_) => format!(
                "{COLUMNS}receiver, id, subject, ordinal, body, $2, $2, 0, 'waiting', $3 FROM json_to_recordset($1::json) \
                 AS new(receiver text, id text, subject text, ordinal bigint, body text) ORDER BY receiver, id ON CONFLICT DO NOTHING"
            ),
        };
        let text = sqlx::AssertSqlSafe(text);
        either!(self, live => sqlx::query(text).bind(rows).bind(now).bind(now.saturating_add(KEPT_SECONDS)).execute(live).await.map(drop))
    }

    async fn take(&mut self, receiver: &str, now: i64, until: i64, limit: i64) -> sqlx::Result<Vec<Taken>> {
        let text = match self {
            Self::Sqlite(_) => take_text(""),
            Self::Postgres(_) => take_text(" FOR UPDATE SKIP LOCKED"),
        };
        let text = sqlx::AssertSqlSafe(text);
        let rows: Vec<TakenRow> =
            either!(self, live => sqlx::query_as(text).bind(receiver).bind(now).bind(until).bind(limit).fetch_all(live).await)?;
        let taken = |(id, subject, ordinal, body, created_at, attempts, reference): TakenRow| Taken {
            id,
            subject,
            ordinal,
            body,
            created_at,
            attempts,
            reference,
        };
        Ok(rows.into_iter().map(taken).collect())
    }

    async fn settle(&mut self, attempt: &Attempt, outcome: Outcome) -> sqlx::Result<Vec<Delivery>> {
        let (state, due_at, detail, reference) = match outcome {
            Outcome::Delivered(reference) => ("delivered", None, None, reference),
            Outcome::Again(detail, at) => ("waiting", Some(at), Some(detail), None),
            Outcome::GivenUp(detail) => ("given_up", None, Some(detail), None),
        };
        // Only the attempt that was the last: a slow one says nothing about one that came after it.
        let text = "UPDATE notices SET state = $4, due_at = COALESCE($5, due_at), detail = $6, reference = COALESCE($7, reference) \
                    WHERE receiver = $1 AND id = $2 AND attempts = $3 AND state = 'waiting'";
        either!(self, live => sqlx::query(text).bind(&attempt.receiver).bind(&attempt.id).bind(attempt.attempts).bind(state)
            .bind(due_at).bind(detail).bind(reference).execute(live).await.map(drop))?;
        let text = "SELECT receiver, state, detail FROM notices WHERE subject = $1 AND ordinal = $2 ORDER BY receiver";
        let rows: Vec<(String, String, Option<String>)> =
            either!(self, live => sqlx::query_as(text).bind(&attempt.subject).bind(attempt.ordinal).fetch_all(live).await)?;
        Ok(rows.into_iter().map(|(receiver, state, detail)| Delivery { receiver, state, detail }).collect())
    }

    async fn tidy(&mut self, now: i64) -> sqlx::Result<u64> {
        either!(self, live => sqlx::query("DELETE FROM notices WHERE expires_at < $1").bind(now).execute(live).await.map(drop))?;
        let text = "SELECT count(*) FROM notices WHERE state = 'waiting'";
        let waiting: i64 = either!(self, live => sqlx::query_scalar(text).fetch_one(live).await)?;
        Ok(waiting.try_into().unwrap_or(0))
    }
}
