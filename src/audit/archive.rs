//! Old logs leave the database for a directory: whole, verified, and on disk before anything is removed.

use super::ledger::LogId;
use super::ledger::tree::{Tree, leaf_hash};
use super::{Outcome, Record, Recorder};
use crate::store::{LedgerReader, Store, StoreError, StoredLog};
use crate::time::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt as _;

/// How often it is looked whether a log is old enough, at most.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Archives what is older than the retention.
#[derive(Debug)]
pub struct Archive {
    /// Where to: `<log>.log` has the records as they were stored, `<log>.notes` its checkpoints one after another.
    pub directory: PathBuf,
    /// How long a log stays in the database after it was sealed, in seconds.
    pub retention: u64,
    /// Where from.
    pub store: Store,
    /// Records what was done.
    pub recorder: Recorder,
    /// The time.
    pub clock: Clock,
}

/// Why a log was not archived. Nothing of it was removed then.
#[derive(Debug, thiserror::Error)]
enum ArchiveError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its name is none: somebody has changed the database")]
    Name,
    #[error("it is not what its root says: somebody has changed the database")]
    Broken,
    #[error("it could not be recorded")]
    Unrecorded,
}

impl Archive {
    /// Archives for ever.
    pub async fn keep(self) {
        let pause = Duration::from_secs(self.retention).clamp(Duration::from_secs(1), LOOK_EVERY);
        loop {
            match self.store.reader().logs().await {
                Ok(logs) => {
                    for log in logs {
                        if let Err(error) = self.consider(&log).await {
                            tracing::error!(log = %log.id, %error, "a log of the ledger could not be archived, and stays");
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the logs of the ledger cannot be looked at"),
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Archives a log if it has been sealed and followed for long enough.
    async fn consider(&self, log: &StoredLog) -> Result<(), ArchiveError> {
        let is_followed = log.sealed_by.as_ref().is_some_and(|by| *by != log.id);
        let sealed_at = log.sealed_at.and_then(|at| u64::try_from(at).ok());
        let is_old = sealed_at.is_some_and(|at| at.saturating_add(self.retention) < self.clock.seconds());
        if log.archived_at.is_none() {
            if !is_followed || !is_old {
                return Ok(());
            }
            self.write(log).await?;
            let mut record = Record::new("ledger.archived", crate::token::new_id().unwrap_or_default());
            record.text("of_log", log.id.as_str()).number("size", u64::try_from(log.size).unwrap_or_default());
            record.own("root", STANDARD.encode(&log.root)).conclude(Outcome::Allow, "retention");
            self.recorder.write(&record).await.map_err(|_| ArchiveError::Unrecorded)?;
            self.store.mark_archived(&log.id).await?;
        }
        // Also of one that was archived by a process that ended before it had removed everything.
        while self.store.remove_archived(&log.id).await? {}
        if log.archived_at.is_none() {
            tracing::info!(log = %log.id, records = log.size, directory = %self.directory.display(), "a log of the ledger is archived");
        }
        Ok(())
    }

    /// Writes both files of a log. They are whole and on disk then.
    async fn write(&self, log: &StoredLog) -> Result<(), ArchiveError> {
        let id: LogId = log.id.parse().map_err(|_| ArchiveError::Name)?;
        let reader = self.store.reader();
        for (ending, what) in [("log", Part::Records), ("notes", Part::Checkpoints)] {
            let path = self.directory.join(format!("{id}.{ending}"));
            // Of two replicas that do it at once each has its own.
            let unfinished = self.directory.join(format!(".{id}.{ending}.{}", std::process::id()));
            let written = async {
                let failed = |error| ArchiveError::File { path: unfinished.clone(), error };
                let mut file = create(&unfinished).await.map_err(failed)?;
                match what {
                    Part::Records => records(&reader, log, &mut file, &unfinished).await?,
                    Part::Checkpoints => checkpoints(&reader, log, &mut file, &unfinished).await?,
                }
                file.sync_all().await.map_err(failed)?;
                fs::rename(&unfinished, &path).await.map_err(failed)
            };
            if let Err(error) = written.await {
                // What is left of it is worth nothing.
                _ = fs::remove_file(&unfinished).await;
                return Err(error);
            }
        }
        let failed = |error| ArchiveError::File { path: self.directory.clone(), error };
        File::open(&self.directory).await.map_err(failed)?.sync_all().await.map_err(failed)
    }
}

enum Part {
    Records,
    Checkpoints,
}

async fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).await
}

/// Writes the records of a log, and makes sure that they are what its root says.
async fn records(reader: &LedgerReader, log: &StoredLog, file: &mut File, path: &Path) -> Result<(), ArchiveError> {
    let (mut tree, mut next) = (Tree::new(), 0);
    loop {
        let segments = reader.segments(&log.id, next).await?;
        let Some(last) = segments.last() else { break };
        next = last.first.saturating_add(1);
        for segment in segments {
            for line in segment.body.split_inclusive(|b| *b == b'\n') {
                tree.append(leaf_hash(line.strip_suffix(b"\n").unwrap_or(line)));
            }
            file.write_all(&segment.body).await.map_err(|error| ArchiveError::File { path: path.to_owned(), error })?;
        }
    }
    let is_whole = u64::try_from(log.size) == Ok(tree.size()) && *log.root == tree.root();
    if is_whole { Ok(()) } else { Err(ArchiveError::Broken) }
}

/// Writes the checkpoints of a log.
async fn checkpoints(reader: &LedgerReader, log: &StoredLog, file: &mut File, path: &Path) -> Result<(), ArchiveError> {
    let mut next = 0;
    loop {
        let checkpoints = reader.checkpoints(&log.id, next).await?;
        let Some(last) = checkpoints.last() else { return Ok(()) };
        next = last.size.saturating_add(1);
        for checkpoint in checkpoints {
            file.write_all(checkpoint.note.as_bytes())
                .await
                .map_err(|error| ArchiveError::File { path: path.to_owned(), error })?;
        }
    }
}
