//! Where records are asked for.

use super::AuditError;
use super::server::Server;
use crate::audit::Filter;
use crate::audit::ask;
use crate::audit::ledger::LogId;
use crate::audit::scan::{self, Budget, Cursor, PAGE_MAX, Page};
use crate::config::{DatabaseArgs, DatabaseParser};
use crate::store::{DatabaseUrl, LedgerReader};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Where records are asked for.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Of whom.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The CA of the operator's certificate (PEM). By default the system's.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub ca: Option<PathBuf>,
    /// A file with a Kubernetes token of your own, such as kubectl create token makes.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub token_file: Option<PathBuf>,
}

/// Of whom records are asked for: one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PlaceArgs {
    /// A running operator: the URL of its token service.
    #[arg(long, value_name = "URL", value_parser = crate::config::issuer, requires = "token_file")]
    pub server: Option<String>,
    /// The URL of the database, without a password: PostgreSQL, or a file of SQLite that no operator has open (a copy).
    #[arg(long, value_name = "URL", value_parser = DatabaseParser)]
    pub database: Option<DatabaseUrl>,
    /// A file that holds the URL of the database, and of PostgreSQL the password.
    #[arg(long, value_name = "FILE")]
    pub database_file: Option<PathBuf>,
}

impl SourceArgs {
    pub(super) async fn open(&self) -> Result<Source, AuditError> {
        if let (Some(url), Some(token_file)) = (&self.place.server, &self.token_file) {
            return Server::open(url.clone(), self.ca.as_deref(), token_file).map(Source::Server);
        }
        let database = DatabaseArgs { database: self.place.database.clone(), database_file: self.place.database_file.clone() };
        let url = database.url().map_err(AuditError::Database)?;
        Ok(Source::Database(LedgerReader::open(&url).await?))
    }
}

/// Where records are asked for.
pub(crate) enum Source {
    Server(Server),
    Database(LedgerReader),
}

/// Where a page begins.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// Where another one ended.
    After(Cursor),
    /// So many records before the end, or a few more.
    Last(u32),
}

/// How long a database may be searched for one page: as long as it takes, and still so that something is printed now and then.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

impl Source {
    /// Records from `start` on to which `filter` applies.
    pub(super) async fn page(&self, filter: &Filter, start: &Start, records: usize) -> Result<Page, AuditError> {
        let records = records.clamp(1, PAGE_MAX);
        let reader = match self {
            Self::Server(server) => return server.page(filter, start, records).await,
            Self::Database(reader) => reader,
        };
        let cursor = match start {
            Start::After(cursor) => cursor.clone(),
            Start::Last(count) => scan::last(reader, *count).await?,
        };
        Ok(scan::page(reader, filter, &cursor, Budget { time: PAGE_WITHIN, records }).await?)
    }

    /// The proof that a record is in the ledger.
    pub(super) async fn prove(&self, log: &LogId, seq: u64) -> Result<String, AuditError> {
        match self {
            Self::Server(server) => server.prove(log, seq).await,
            Self::Database(reader) => Ok(ask::prove(reader, log, seq).await?.to_string()),
        }
    }
}
