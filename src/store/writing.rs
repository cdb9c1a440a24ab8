//! The statements that write the ledger: beginning a log, appending to it, sealing it.

use super::connection::{Connection, either};
use crate::audit::ledger::LogId;
use crate::audit::ledger::log::{Batch, Head};
use sqlx::{AssertSqlSafe, Connection as _};

/// After how many seconds without a sign of life a log of another process may be adopted. Its writer gives one every ten.
const ABANDONED: &str = "60";

/// One statement, which is one transaction. It inserts nothing if the log has been sealed or is not as we left it. In SQLite a trigger
/// moves the log on: several statements would wake this process at the end of each.
const APPEND_SQLITE: &str = "INSERT INTO segments (log, first, count, body, hashes, root) SELECT id, $2, $3, $4, $5, $6 FROM logs \
     WHERE id = $1 AND sealed_by IS NULL AND size = $2";
const APPEND_POSTGRES: &str = "WITH grown AS (UPDATE logs SET size = $2 + $3, root = $6, \
     touched_at = floor(extract(epoch FROM clock_timestamp()))::bigint \
     WHERE id = $1 AND sealed_by IS NULL AND size = $2 RETURNING id) \
     INSERT INTO segments (log, first, count, body, hashes) SELECT id, $2, $3, $4, $5 FROM grown";

/// A log as it was when it was adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Predecessor {
    pub(super) id: String,
    pub(super) size: i64,
    pub(super) root: Vec<u8>,
    pub(super) touched_at: i64,
}

/// Writing.
impl Connection {
    /// Appends the batch, whose records are stored as `packed`. False if the log has been sealed, or has another size than the batch goes on from.
    pub(super) async fn append(&mut self, batch: &Batch, packed: &[u8]) -> sqlx::Result<bool> {
        let text = if matches!(self, Self::Sqlite(_)) { APPEND_SQLITE } else { APPEND_POSTGRES };
        let (first, size) = (number(batch.first), number(batch.head.size));
        let done = either!(self, live => {
            sqlx::query(text)
                .bind(batch.head.log.as_str())
                .bind(first)
                .bind(size - first)
                .bind(packed)
                .bind(batch.hashes.as_slice())
                .bind(batch.head.root.as_slice())
                .execute(live)
                .await
                .map(|done| done.rows_affected())
        })?;
        Ok(done > 0)
    }

    /// Begins the log `id`: seals every log that nobody writes any more and that no other has adopted, and stores the first records, which
    /// `opened` makes of those. `own` are logs of this process, which it has left or will have.
    pub(super) async fn begin_log(
        &mut self,
        id: &LogId,
        writer: &str,
        own: &[String],
        opened: impl FnOnce(&[Predecessor]) -> Batch,
    ) -> sqlx::Result<Vec<Predecessor>> {
        let now = self.now();
        let left = match self {
            // The file has one process, and this is it.
            Self::Sqlite(_) => "$2 = $2".to_owned(),
            Self::Postgres(_) => {
                format!("(touched_at < {now} - {ABANDONED} OR id IN (SELECT json_array_elements_text($2::json)))")
            }
        };
        let adopt = format!(
            "UPDATE logs SET sealed_by = $1, sealed_at = coalesce(sealed_at, {now}) \
             WHERE (sealed_by IS NULL AND {left}) OR sealed_by = id RETURNING id, size, root, touched_at"
        );
        let insert =
            format!("INSERT INTO logs (id, created_at, touched_at, writer, size, root) VALUES ($1, {now}, {now}, $2, $3, $4)");
        let segment = "INSERT INTO segments (log, first, count, body, hashes) VALUES ($1, $2, $3, $4, $5)";
        let own = serde_json::to_string(own).map_err(|e| sqlx::Error::Encode(e.into()))?;
        either!(self, live => {
            let mut transaction = live.begin().await?;
            let adopted: Vec<(String, i64, Vec<u8>, i64)> =
                sqlx::query_as(AssertSqlSafe(adopt)).bind(id.as_str()).bind(own).fetch_all(&mut *transaction).await?;
            let mut predecessors: Vec<Predecessor> = adopted
                .into_iter()
                .map(|(id, size, root, touched_at)| Predecessor { id, size, root, touched_at })
                .collect();
            predecessors.sort_by(|a, b| a.id.cmp(&b.id));
            let batch = opened(&predecessors);
            let size = number(batch.head.size);
            sqlx::query(AssertSqlSafe(insert))
                .bind(id.as_str())
                .bind(writer)
                .bind(size)
                .bind(batch.head.root.as_slice())
                .execute(&mut *transaction)
                .await?;
            sqlx::query(segment)
                .bind(id.as_str())
                .bind(0i64)
                .bind(size)
                .bind(batch.body)
                .bind(batch.hashes)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(predecessors)
        })
    }

    /// The size and root of a log, and whether it has been sealed.
    pub(super) async fn log_state(&mut self, id: &LogId) -> sqlx::Result<Option<(i64, Vec<u8>, bool)>> {
        let text = "SELECT size, root, sealed_by IS NOT NULL FROM logs WHERE id = $1";
        either!(self, live => sqlx::query_as(text).bind(id.as_str()).fetch_optional(live).await)
    }

    /// Seals a log whose writer stops in order; its successor will name it. False if it is not as `head` says.
    pub(super) async fn seal(&mut self, head: &Head) -> sqlx::Result<bool> {
        let now = self.now();
        let text = format!(
            "UPDATE logs SET sealed_by = id, sealed_at = {now} WHERE id = $1 AND sealed_by IS NULL AND size = $2 AND root = $3"
        );
        let done = either!(self, live => {
            sqlx::query(AssertSqlSafe(text))
                .bind(head.log.as_str())
                .bind(number(head.size))
                .bind(head.root.as_slice())
                .execute(live)
                .await
                .map(|done| done.rows_affected())
        })?;
        Ok(done > 0)
    }

    /// Gives a sign of life of a log's writer. Says whether the log is still ours, and whether there are logs that nobody writes any more.
    /// In a file there is nobody to whom it could be given.
    pub(super) async fn touch(&mut self, id: &LogId) -> sqlx::Result<(bool, bool)> {
        let Self::Postgres(live) = self else { return Ok((true, false)) };
        let text = "UPDATE logs SET touched_at = floor(extract(epoch FROM now()))::bigint WHERE id = $1 AND sealed_by IS NULL";
        let is_ours = sqlx::query(text).bind(id.as_str()).execute(&mut *live).await?.rows_affected() > 0;
        let text = format!(
            "SELECT EXISTS (SELECT FROM logs WHERE sealed_by = id OR \
             (sealed_by IS NULL AND touched_at < floor(extract(epoch FROM now()))::bigint - {ABANDONED}))"
        );
        let (are_left,): (bool,) = sqlx::query_as(AssertSqlSafe(text)).fetch_one(live).await?;
        Ok((is_ours, are_left))
    }

    /// Keeps a checkpoint, once.
    pub(super) async fn keep_checkpoint(&mut self, head: &Head, note: &str) -> sqlx::Result<()> {
        let text = "INSERT INTO checkpoints (log, size, note) SELECT $1, $2, $3 \
             WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE log = $1 AND size = $2 AND note = $3)";
        either!(self, live => {
            sqlx::query(text).bind(head.log.as_str()).bind(number(head.size)).bind(note).execute(live).await.map(drop)
        })
    }

    /// Notes that a log that was sealed is archived.
    pub(super) async fn mark_archived(&mut self, log: &str) -> sqlx::Result<()> {
        let now = self.now();
        let text = format!("UPDATE logs SET archived_at = {now} WHERE id = $1 AND sealed_by <> id AND archived_at IS NULL");
        either!(self, live => sqlx::query(AssertSqlSafe(text)).bind(log).execute(live).await.map(drop))
    }

    /// Removes some of the segments of a log that is archived, and at the end all of its checkpoints but the last. Says whether there may
    /// be more segments.
    pub(super) async fn remove_archived(&mut self, log: &str) -> sqlx::Result<bool> {
        let segments = "DELETE FROM segments WHERE log = (SELECT id FROM logs WHERE id = $1 AND archived_at IS NOT NULL) \
             AND first IN (SELECT first FROM segments WHERE log = $1 ORDER BY first LIMIT 64)";
        let checkpoints = "DELETE FROM checkpoints WHERE log = (SELECT id FROM logs WHERE id = $1 AND archived_at IS NOT NULL) \
             AND size < (SELECT max(size) FROM checkpoints WHERE log = $1)";
        either!(self, live => {
            let removed = sqlx::query(segments).bind(log).execute(&mut *live).await?.rows_affected();
            if removed == 0 {
                sqlx::query(checkpoints).bind(log).execute(live).await?;
            }
            Ok(removed > 0)
        })
    }

    /// Whether the database is a file.
    pub(super) const fn is_file(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// The time by the database's clock, in seconds since the epoch, as an expression.
    const fn now(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "unixepoch()",
            Self::Postgres(_) => "floor(extract(epoch FROM now()))::bigint",
        }
    }
}

/// As databases count.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
