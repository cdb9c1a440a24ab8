//! Who is signed in to the portal. Sessions are in the database so that a sign-out holds on every replica, and so that they survive a
//! restart. What is in a row opens nothing without the browser's cookie.

use super::connection::{Connection, either};
use super::{Order, Store, StoreError, seconds};
use tokio::sync::oneshot;

/// After how many seconds without a request a session ends.
pub const IDLE_SECONDS: u64 = 30 * 60;
/// How exactly it is known when a session was last used, in seconds: not every request is written down.
const EXACTLY: u64 = 60;
/// How many sessions that have ended are removed when one begins.
const PURGE_LIMIT: i64 = 256;

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The digest of the cookie, base64url.
    pub id: String,
    /// What only the cookie opens.
    pub sealed: Vec<u8>,
    /// When it ends at the latest, in seconds since the epoch.
    pub expires_at: u64,
}

/// Something to be done with a session, at a time in seconds since the epoch.
#[derive(Debug)]
pub(super) enum SessionOrder {
    /// Store a new one.
    Begin { session: StoredSession, now: u64, reply: oneshot::Sender<()> },
    /// Find one that has not ended, and note that it is used if `is_use`.
    Find { id: String, now: u64, is_use: bool, reply: oneshot::Sender<Option<StoredSession>> },
    /// Remove one.
    End { id: String, reply: oneshot::Sender<()> },
}

impl SessionOrder {
    pub(super) async fn carry_out(self, connection: &mut Connection) -> sqlx::Result<()> {
        match self {
            Self::Begin { session, now, reply } => {
                connection.begin_session(&session, now).await?;
                // Who asked may have given up, here and below.
                _ = reply.send(());
            }
            Self::Find { id, now, is_use, reply } => _ = reply.send(connection.find_session(id, now, is_use).await?),
            Self::End { id, reply } => {
                connection.end_session(&id).await?;
                _ = reply.send(());
            }
        }
        Ok(())
    }
}

impl Connection {
    async fn begin_session(&mut self, session: &StoredSession, now: u64) -> sqlx::Result<()> {
        let purge = "DELETE FROM sessions WHERE id IN \
             (SELECT id FROM sessions WHERE expires_at < $1 OR used_at < $2 ORDER BY expires_at LIMIT $3)";
        let insert = "INSERT INTO sessions (id, sealed, used_at, expires_at) VALUES ($1, $2, $3, $4)";
        either!(self, live => {
            sqlx::query(purge)
                .bind(seconds(now))
                .bind(seconds(now.saturating_sub(IDLE_SECONDS)))
                .bind(PURGE_LIMIT)
                .execute(&mut *live)
                .await?;
            sqlx::query(insert)
                .bind(session.id.as_str())
                .bind(session.sealed.as_slice())
                .bind(seconds(now))
                .bind(seconds(session.expires_at))
                .execute(live)
                .await
                .map(drop)
        })
    }

    async fn find_session(&mut self, id: String, now: u64, is_use: bool) -> sqlx::Result<Option<StoredSession>> {
        let find = "SELECT sealed, used_at, expires_at FROM sessions WHERE id = $1 AND expires_at > $2 AND used_at > $3";
        let used = "UPDATE sessions SET used_at = $2 WHERE id = $1 AND used_at < $2";
        let found: Option<(Vec<u8>, i64, i64)> = either!(self, live => {
            sqlx::query_as(find)
                .bind(id.as_str())
                .bind(seconds(now))
                .bind(seconds(now.saturating_sub(IDLE_SECONDS)))
                .fetch_optional(live)
                .await
        })?;
        let Some((sealed, used_at, expires_at)) = found else { return Ok(None) };
        if is_use && used_at <= seconds(now.saturating_sub(EXACTLY)) {
            either!(self, live => sqlx::query(used).bind(id.as_str()).bind(seconds(now)).execute(live).await.map(drop))?;
        }
        Ok(Some(StoredSession { id, sealed, expires_at: u64::try_from(expires_at).unwrap_or(0) }))
    }

    async fn end_session(&mut self, id: &str) -> sqlx::Result<()> {
        either!(self, live => sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(live).await.map(drop))
    }
}

impl Store {
    /// Stores a session that begins `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether it is there.
    pub async fn begin_session(&self, session: StoredSession, now: u64) -> Result<(), StoreError> {
        self.ordered(|reply| Order::Session(SessionOrder::Begin { session, now, reply })).await
    }

    /// The session with that digest, unless it has ended: removed, idle for [`IDLE_SECONDS`] or expired. If `is_use`, it is in use now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if nobody knows.
    pub async fn session(&self, id: &str, now: u64, is_use: bool) -> Result<Option<StoredSession>, StoreError> {
        self.ordered(|reply| Order::Session(SessionOrder::Find { id: id.to_owned(), now, is_use, reply })).await
    }

    /// Ends a session, on every replica.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after at most 1.5 s if it is not known whether it has ended.
    pub async fn end_session(&self, id: &str) -> Result<(), StoreError> {
        self.ordered(|reply| Order::Session(SessionOrder::End { id: id.to_owned(), reply })).await
    }
}
