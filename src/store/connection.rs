//! One connection to the database, SQLite or PostgreSQL. Whoever uses it drops it at the first error: whatever was under way then
//! has no known outcome, and a new connection begins anew.

use super::StoreError;
use super::claim::{Key, Row};
use super::url::{DatabaseUrl, Target};
use super::volume::unsuitable;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, SqlSafeStr as _, SqliteConnection};
use std::fs::{OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// The schema, oldest first: version, name, and the text for each database. An entry never changes once it is released.
const MIGRATIONS: [(i64, &str, &str, &str); 5] = [
    (
        1,
        "assertions",
        include_str!("../../migrations/sqlite/0001_assertions.sql"),
        include_str!("../../migrations/postgres/0001_assertions.sql"),
    ),
    (
        2,
        "ledger",
        include_str!("../../migrations/sqlite/0002_ledger.sql"),
        include_str!("../../migrations/postgres/0002_ledger.sql"),
    ),
    (
        3,
        "notices",
        include_str!("../../migrations/sqlite/0003_notices.sql"),
        include_str!("../../migrations/postgres/0003_notices.sql"),
    ),
    (
        4,
        "sessions",
        include_str!("../../migrations/sqlite/0004_sessions.sql"),
        include_str!("../../migrations/postgres/0004_sessions.sql"),
    ),
    (
        5,
        "lease writes",
        include_str!("../../migrations/sqlite/0005_lease_writes.sql"),
        include_str!("../../migrations/postgres/0005_lease_writes.sql"),
    ),
];

/// Rows come as one JSON text, so that the statement is the same for any number of them. Each statement is a transaction of its own,
/// and neither driver reports its end before the commit.
const INSERT_SQLITE: &str = "INSERT INTO assertions (issuer, jti, expires_at) \
     SELECT value->>'issuer', value->>'jti', value->>'expires_at' FROM json_each($1) WHERE true \
     ON CONFLICT DO NOTHING RETURNING issuer, jti";
const INSERT_POSTGRES: &str = "INSERT INTO assertions (issuer, jti, expires_at) \
     SELECT issuer, jti, expires_at FROM json_to_recordset($1::json) AS new(issuer text, jti text, expires_at bigint) \
     ON CONFLICT DO NOTHING RETURNING issuer, jti";

/// The oldest first, a bounded number. Two replicas that purge at once leave each other's rows alone instead of waiting.
const PURGE_SQLITE: &str = "DELETE FROM assertions WHERE (issuer, jti) IN \
     (SELECT issuer, jti FROM assertions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)";
const PURGE_POSTGRES: &str = "DELETE FROM assertions WHERE (issuer, jti) IN \
     (SELECT issuer, jti FROM assertions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);

/// How long SQLite waits for whoever holds the file, which may be a connection of ours that is being closed.
const BUSY_WITHIN: Duration = Duration::from_secs(2);

/// After which time PostgreSQL itself gives up a statement or a transaction that we have long left, and lets its locks go. It must be
/// longer than we wait: the server reports a commit that it interrupts while it waits for a standby as done.
const SERVER_LIMIT: &str = "5s";

/// A live connection.
#[derive(Debug)]
pub(super) enum Connection {
    /// Its file is locked as long as this lives.
    Sqlite(SqliteConnection),
    /// Commits are durable, and the server takes writes.
    Postgres(PgConnection),
}

/// The same code for either database.
macro_rules! either {
    ($connection:expr, $live:ident => $work:expr) => {
        match $connection {
            crate::store::connection::Connection::Sqlite($live) => $work,
            crate::store::connection::Connection::Postgres($live) => $work,
        }
    };
}
pub(super) use either;

impl Connection {
    /// Connects.
    pub(super) async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let opened = async {
            match &url.0 {
                Target::Sqlite(path) => sqlite(path).await.map(Self::Sqlite),
                Target::Postgres { options, .. } => postgres(options).await.map(Self::Postgres),
            }
        };
        timeout(CONNECT_WITHIN, opened).await.map_err(|_| StoreError::Unreachable("no answer in time".to_owned()))?
    }

    /// Connects to read and nothing else.
    pub(super) async fn open_to_read(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let opened = async {
            match &url.0 {
                Target::Sqlite(path) => {
                    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_WITHIN);
                    let opened = options.disable_statement_logging().connect().await;
                    opened.map(Self::Sqlite).map_err(|error| {
                        let why = if is_busy(&error) {
                            "a running operator uses it: ask that one (--server), or make a copy".to_owned()
                        } else {
                            crate::error_chain(&error)
                        };
                        StoreError::Unusable(format!("{}: {why}", path.display()))
                    })
                }
                Target::Postgres { options, .. } => {
                    let options = options.as_ref().clone().options([("default_transaction_read_only", "on")]);
                    options.disable_statement_logging().connect().await.map(Self::Postgres).map_err(|e| unreachable(&e))
                }
            }
        };
        timeout(CONNECT_WITHIN, opened).await.map_err(|_| StoreError::Unreachable("no answer in time".to_owned()))?
    }

    /// Brings the schema up to date.
    pub(super) async fn migrate(&mut self) -> Result<(), StoreError> {
        let migration = |(version, name, sqlite, postgres): (i64, &'static str, &'static str, &'static str)| {
            let text = if matches!(self, Self::Sqlite(_)) { sqlite } else { postgres };
            Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
        };
        let mut migrator = Migrator::with_migrations(MIGRATIONS.map(migration).into());
        let mut migrated = either!(self, live => migrator.run(&mut *live).await);
        if matches!(migrated, Err(MigrateError::VersionMissing(_))) && self.is_for_older().await? {
            migrator.set_ignore_missing(true);
            migrated = either!(self, live => migrator.run(live).await);
        }
        migrated.map_err(|error| match error {
            MigrateError::VersionMissing(version) => StoreError::Unusable(format!(
                "the database was written by a newer version (schema {version}): run that version, or restore a backup"
            )),
            MigrateError::VersionMismatch(version) => {
                StoreError::Unusable(format!("the database has another schema {version} than this version made"))
            }
            MigrateError::Execute(error @ sqlx::Error::Io(_)) => unreachable(&error),
            error => StoreError::Unusable(format!("the schema cannot be brought up to date: {}", crate::error_chain(&error))),
        })
    }

    /// Whether the newer version that has changed the schema says that this one can live with it.
    async fn is_for_older(&mut self) -> Result<bool, StoreError> {
        let needs: sqlx::Result<i64> = either!(self, live => sqlx::query_scalar("SELECT needs FROM store").fetch_one(live).await);
        match needs {
            Ok(needs) => Ok(MIGRATIONS.iter().any(|(version, ..)| *version >= needs)),
            Err(error @ sqlx::Error::Io(_)) => Err(unreachable(&error)),
            Err(error) => Err(StoreError::Unusable(format!("its schema cannot be read: {}", crate::error_chain(&error)))),
        }
    }

    /// Which database this is, and since when, in seconds since the epoch.
    pub(super) async fn identity(&mut self) -> sqlx::Result<(String, i64)> {
        either!(self, live => sqlx::query_as("SELECT id, created_at FROM store").fetch_one(live).await)
    }

    /// How often the Lease had been written when this database last heard of it.
    pub(super) async fn lease_writes(&mut self) -> sqlx::Result<i64> {
        either!(self, live => sqlx::query_scalar("SELECT lease_writes FROM store").fetch_one(live).await)
    }

    /// Notes how often the Lease was written. Replicas report in any order.
    pub(super) async fn note_lease_writes(&mut self, writes: i64) -> sqlx::Result<()> {
        let text = "UPDATE store SET lease_writes = $1 WHERE lease_writes < $1";
        either!(self, live => sqlx::query(text).bind(writes).execute(live).await.map(drop))
    }

    /// Inserts rows, and returns the keys that were not there. They are durable then.
    pub(super) async fn insert(&mut self, rows: &[Row<'_>]) -> sqlx::Result<Vec<Key>> {
        let text = if matches!(self, Self::Sqlite(_)) { INSERT_SQLITE } else { INSERT_POSTGRES };
        let rows = serde_json::to_string(rows).map_err(|e| sqlx::Error::Encode(e.into()))?;
        let keys: Vec<(String, String)> = either!(self, live => sqlx::query_as(text).bind(rows).fetch_all(live).await)?;
        Ok(keys.into_iter().map(Key::stored).collect())
    }

    /// Removes at most `limit` rows that expired before `before`, in seconds since the epoch; says how many.
    pub(super) async fn purge(&mut self, before: i64, limit: i64) -> sqlx::Result<u64> {
        let text = if matches!(self, Self::Sqlite(_)) { PURGE_SQLITE } else { PURGE_POSTGRES };
        either!(self, live => {
            sqlx::query(text).bind(before).bind(limit).execute(live).await.map(|done| done.rows_affected())
        })
    }

    /// Closes it in order; SQLite then folds its log into the file.
    pub(super) async fn close(self) -> sqlx::Result<()> {
        either!(self, live => live.close().await)
    }
}

fn unreachable(error: &sqlx::Error) -> StoreError {
    StoreError::Unreachable(crate::error_chain(error))
}

/// Opens the file, and makes it if need be.
async fn sqlite(path: &Path) -> Result<SqliteConnection, StoreError> {
    let failed = |what: &str| StoreError::Unusable(format!("{}: {what}", path.display()));
    place(path).map_err(|why| failed(&why))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(BUSY_WITHIN)
        .disable_statement_logging();
    options.connect().await.map_err(|error| {
        if is_busy(&error) {
            failed("another process uses this database; SQLite is for one replica, several need PostgreSQL")
        } else {
            failed(&crate::error_chain(&error))
        }
    })
}

/// Whether SQLite says that somebody else has the file. The low byte is the primary result code (sqlite.org/rescode.html): SQLITE_BUSY,
/// SQLITE_LOCKED.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code()?.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Sees to it that the file is there, ours alone, and on a volume.
fn place(path: &Path) -> Result<(), String> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err("not a file".to_owned()) };
    let directory = directory.canonicalize().map_err(|e| format!("the directory cannot be used: {e}"))?;
    // A file that is there may be a link to elsewhere.
    let real = path.canonicalize().unwrap_or_else(|_| directory.join(name));
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if let Some(why) = unsuitable(&mountinfo, &real, in_cluster) {
        return Err(why);
    }
    // Never opened when it is there: closing it again would take away the locks that another connection of this process holds.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        // A volume with an fsGroup opens files to the group when it is mounted.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|e| format!("it cannot be made private: {e}"))
        }
        Err(e) => Err(format!("it cannot be made: {e}")),
    }
}

/// Connects to a server that takes writes and keeps them.
async fn postgres(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let options = options.clone().disable_statement_logging();
    let mut live = options.connect().await.map_err(|e| unreachable(&e))?;
    let state: (String, String, String, bool) = sqlx::query_as(
        "SELECT current_setting('synchronous_commit'), current_setting('fsync'), \
         current_setting('transaction_read_only'), pg_is_in_recovery()",
    )
    .fetch_one(&mut live)
    .await
    .map_err(|e| unreachable(&e))?;
    let (synchronous_commit, fsync, read_only, in_recovery) = state;
    if in_recovery || read_only != "off" {
        // It may be one a moment later, after a failover.
        return Err(StoreError::Unreachable("the server is a standby or read-only: the URL must lead to the primary".to_owned()));
    }
    if fsync != "on" {
        return Err(StoreError::Unusable(
            "the server runs with fsync = off, and forgets at a crash what it has confirmed".to_owned(),
        ));
    }
    // Stronger than `on`, or as the administrator weighed standbys; each waits for the server's own disk.
    let synchronous_commit = match synchronous_commit.as_str() {
        waits @ ("remote_apply" | "remote_write") => waits,
        _ => "on",
    };
    sqlx::query(
        "SELECT set_config('synchronous_commit', $1, false), set_config('statement_timeout', $2, false), \
         set_config('idle_in_transaction_session_timeout', $2, false)",
    )
    .bind(synchronous_commit)
    .bind(SERVER_LIMIT)
    .execute(&mut live)
    .await
    .map_err(|e| unreachable(&e))?;
    Ok(live)
}
