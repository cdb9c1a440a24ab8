//! The statements of the ledger: appending to a log, sealing it, and reading what is there.

use super::connection::{Connection, either};
use super::packed::unpack;

/// A log as its row says. Whoever can write to the database can write anything here: nothing is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLog {
    /// Its name.
    pub id: String,
    /// When it was begun, in seconds since the epoch, as all times here, by the database's clock.
    pub created_at: i64,
    /// When its writer last said that it is alive.
    pub touched_at: i64,
    /// The name of the process that writes it.
    pub writer: String,
    /// How many records it has.
    pub size: i64,
    /// The root of the tree over them.
    pub root: Vec<u8>,
    /// Its successor, or itself if its writer stopped in order and no successor has named it yet. None while it is written.
    pub sealed_by: Option<String>,
    /// When it was sealed.
    pub sealed_at: Option<i64>,
    /// When its segments were written to the archive and removed.
    pub archived_at: Option<i64>,
}

/// The records of one append, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSegment {
    /// The number of the first record.
    pub first: i64,
    /// How many there are.
    pub count: i64,
    /// Each record, one line of JSON, with its newline.
    pub body: Vec<u8>,
    /// Their leaf hashes, 32 bytes each.
    pub hashes: Vec<u8>,
}

/// The leaf hashes of one append, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHashes {
    /// The number of the first record.
    pub first: i64,
    /// How many there are.
    pub count: i64,
    /// Their leaf hashes, 32 bytes each.
    pub hashes: Vec<u8>,
}

/// A checkpoint, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The size that it is kept under.
    pub size: i64,
    /// The signed note.
    pub note: String,
}

/// The columns of a log in the order of [`StoredLog`].
type LogRow = (String, i64, i64, String, i64, Vec<u8>, Option<String>, Option<i64>, Option<i64>);

/// How many times longer the records of a segment usually are than what is stored of them.
const PACKED: i64 = 4;

/// Which segments come next and how large they are, without reading them.
const SIZES: &str = "SELECT first, CAST(length(body) + length(hashes) AS bigint) FROM segments \
     WHERE log = $1 AND first >= $2 ORDER BY first LIMIT 1024";

/// Reading.
impl Connection {
    /// Sees nothing from now on that others write.
    pub(super) async fn hold_still(&mut self) -> sqlx::Result<()> {
        let text = match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        either!(self, live => sqlx::query(text).execute(live).await.map(drop))
    }

    pub(super) async fn logs(&mut self) -> sqlx::Result<Vec<StoredLog>> {
        let text = "SELECT id, created_at, touched_at, writer, size, root, sealed_by, sealed_at, archived_at FROM logs \
             ORDER BY created_at, id";
        let rows: Vec<LogRow> = either!(self, live => sqlx::query_as(text).fetch_all(live).await)?;
        let log = |(id, created_at, touched_at, writer, size, root, sealed_by, sealed_at, archived_at): LogRow| StoredLog {
            id,
            created_at,
            touched_at,
            writer,
            size,
            root,
            sealed_by,
            sealed_at,
            archived_at,
        };
        Ok(rows.into_iter().map(log).collect())
    }

    /// The segments from the one that begins at `first` or after, in order: as many as have about `bytes`, but at least one if there is one.
    pub(super) async fn segments(&mut self, log: &str, first: i64, bytes: i64) -> sqlx::Result<Vec<StoredSegment>> {
        let sizes: Vec<(i64, i64)> = either!(self, live => sqlx::query_as(SIZES).bind(log).bind(first).fetch_all(live).await)?;
        let Some((mut last, mut taken)) = sizes.first().copied() else { return Ok(Vec::new()) };
        for (first, size) in sizes.iter().skip(1) {
            taken = taken.saturating_add(*size);
            if taken > bytes / PACKED {
                break;
            }
            last = *first;
        }
        let text = "SELECT first, count, body, hashes FROM segments WHERE log = $1 AND first BETWEEN $2 AND $3 ORDER BY first";
        let rows: Vec<(i64, i64, Vec<u8>, Vec<u8>)> =
            either!(self, live => sqlx::query_as(text).bind(log).bind(first).bind(last).fetch_all(live).await)?;
        let mut taken = 0;
        let segment = |(first, count, body, hashes)| {
            // However much somebody has packed into little. Who asks asks again for what is left out.
            let full = taken > bytes;
            let segment = (!full).then(|| StoredSegment { first, count, body: unpack(body), hashes })?;
            taken = taken.saturating_add(i64::try_from(segment.body.len()).unwrap_or(i64::MAX));
            Some(segment)
        };
        Ok(rows.into_iter().map_while(segment).collect())
    }

    /// Where the segment begins that holds the record `number`, if records are there up to it.
    pub(super) async fn segment_of(&mut self, log: &str, number: i64) -> sqlx::Result<Option<i64>> {
        let text = "SELECT max(first) FROM segments WHERE log = $1 AND first <= $2";
        either!(self, live => sqlx::query_scalar(text).bind(log).bind(number).fetch_one(live).await)
    }

    /// The leaf hashes of at most `limit` segments from the one that begins at `first` or after, in order.
    pub(super) async fn hashes(&mut self, log: &str, first: i64, limit: i64) -> sqlx::Result<Vec<StoredHashes>> {
        let text = "SELECT first, count, hashes FROM segments WHERE log = $1 AND first >= $2 ORDER BY first LIMIT $3";
        let rows: Vec<(i64, i64, Vec<u8>)> =
            either!(self, live => sqlx::query_as(text).bind(log).bind(first).bind(limit).fetch_all(live).await)?;
        Ok(rows.into_iter().map(|(first, count, hashes)| StoredHashes { first, count, hashes }).collect())
    }

    /// At most `limit` checkpoints of that size or larger, in order.
    pub(super) async fn checkpoints(&mut self, log: &str, size: i64, limit: i64) -> sqlx::Result<Vec<StoredCheckpoint>> {
        let text = "SELECT size, note FROM checkpoints WHERE log = $1 AND size >= $2 ORDER BY size LIMIT $3";
        let rows: Vec<(i64, String)> =
            either!(self, live => sqlx::query_as(text).bind(log).bind(size).bind(limit).fetch_all(live).await)?;
        Ok(rows.into_iter().map(|(size, note)| StoredCheckpoint { size, note }).collect())
    }

    /// The newest checkpoint that covers the record `number`, if one does.
    pub(super) async fn checkpoint_over(&mut self, log: &str, number: i64) -> sqlx::Result<Option<StoredCheckpoint>> {
        let text = "SELECT size, note FROM checkpoints WHERE log = $1 AND size > $2 ORDER BY size DESC LIMIT 1";
        let row: Option<(i64, String)> =
            either!(self, live => sqlx::query_as(text).bind(log).bind(number).fetch_optional(live).await)?;
        Ok(row.map(|(size, note)| StoredCheckpoint { size, note }))
    }

    /// The names of logs that have segments or checkpoints but no row.
    pub(super) async fn strays(&mut self) -> sqlx::Result<Vec<String>> {
        let text = "SELECT log FROM segments WHERE log NOT IN (SELECT id FROM logs) \
             UNION SELECT log FROM checkpoints WHERE log NOT IN (SELECT id FROM logs)";
        either!(self, live => sqlx::query_scalar(text).fetch_all(live).await)
    }
}
