//! What is done once at the start: the published checkpoints are held against the database. A log that is missing, shorter or another
//! than was published was restored from an old copy, or somebody has changed it.

use super::published::{NOTED, VKEYS, Witness, item};
use super::{record_key, report};
use crate::audit::Recorder;
use crate::audit::ledger::log::Head;
use crate::audit::ledger::note::{Checkpoint, CheckpointKey, Vkey};
use crate::audit::ledger::opening::{Break, Discontinuity};
use crate::audit::ledger::tree::{Hash, Tree};
use crate::metrics::Metrics;
use crate::store::{LedgerReader, Store, StoreError, StoredLog};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// For how long a discontinuity is remembered at a start, in seconds: nothing that could have been consumed before lives longer.
const REMEMBERED: u64 = 3600;
/// How many logs are kept in the ConfigMap, which may hold 1 MiB.
const LOGS_MAX: usize = 1000;

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Start {
    found: Vec<Discontinuity>,
    /// The key that signed last, if it is another than ours.
    other_key: Option<Vkey>,
    /// What the ConfigMap says of discontinuities so far.
    noted: String,
    /// Logs whose checkpoints need not be published any longer.
    outdated: Vec<String>,
}

/// Why the past cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The ConfigMap cannot be read.
    #[error("the ConfigMap of the checkpoints cannot be read: {}", crate::error_chain(.0))]
    Kubernetes(#[from] kube::Error),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Holds what is published against the database. To be done before a log is begun. Nothing that was noted long ago is found again.
///
/// # Errors
/// A [`LookError`], which may pass.
pub async fn look_back(witness: &Witness, store: &Store, key: &CheckpointKey, now: u64) -> Result<Start, LookError> {
    let config_map = match witness.read().await {
        Ok(config_map) => config_map,
        // An installation of an older chart has none, or lets nobody read it.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            tracing::error!(error = %status.message, "there are no published checkpoints to hold against the ledger: upgrade the chart");
            return Ok(Start::default());
        }
        Err(error) => return Err(error.into()),
    };
    let vkeys: Vec<Vkey> = item(&config_map, VKEYS).lines().filter_map(|line| line.parse().ok()).collect();
    let other_key = vkeys.last().filter(|last| **last != key.vkey()).cloned();
    let published = published(&config_map, &[vkeys.as_slice(), &[key.vkey()]].concat());
    let noted = item(&config_map, NOTED).to_owned();
    let reader = store.reader();
    let logs: BTreeMap<String, StoredLog> = reader.logs().await?.into_iter().map(|log| (log.id.clone(), log)).collect();
    let mut found = Vec::new();
    for was in &published {
        match time_noted(&noted, was) {
            Some(at) if now.saturating_sub(at) < REMEMBERED => store.taken_over(at),
            Some(_) => {}
            None => found.extend(compare(&reader, logs.get(was.log.as_str()), was).await?),
        }
    }
    let outdated = outdated(&published, &logs);
    Ok(Start { found, other_key, noted, outdated })
}

impl Start {
    /// Records what was found, now that a log is begun, and notes in the ConfigMap that it was.
    pub async fn record(
        self,
        recorder: &Recorder,
        store: &Store,
        witness: &Witness,
        metrics: &Metrics,
        key: &CheckpointKey,
        now: u64,
    ) {
        if let Some(old) = &self.other_key
            && !record_key(recorder, old, &key.vkey()).await
        {
            tracing::error!("the change of the key of the checkpoints could not be recorded");
        }
        report(recorder, store, metrics, now, &self.found).await;
        let mut data: Map<String, Value> = self.outdated.into_iter().map(|log| (log, Value::Null)).collect();
        if !self.found.is_empty() {
            let new = self.found.iter().map(|found| format!("{} {} {now}", found.was.log, found.was.size));
            let lines: Vec<String> = self.noted.lines().map(str::to_owned).chain(new).collect();
            data.insert(NOTED.to_owned(), lines.join("\n").into());
        }
        if !data.is_empty()
            && let Err(error) = witness.patch(&json!({"data": data})).await
        {
            tracing::error!(error = %crate::error_chain(&error), "the ConfigMap of the checkpoints could not be written");
        }
    }
}

/// The checkpoints in the ConfigMap that one of `keys` has signed.
fn published(config_map: &ConfigMap, keys: &[Vkey]) -> Vec<Head> {
    let items = config_map.data.iter().flatten().filter(|(name, _)| name.parse::<crate::audit::ledger::LogId>().is_ok());
    let open = |(name, note): (&String, &String)| match Checkpoint::open(note, keys) {
        Ok(Checkpoint { log, size, root, .. }) if log.as_str() == name => Some(Head { log, size, root }),
        Ok(_) => {
            tracing::error!(log = %name, "its published checkpoint is that of another log");
            None
        }
        Err(error) => {
            tracing::error!(log = %name, %error, "its published checkpoint cannot be read");
            None
        }
    };
    items.filter_map(open).collect()
}

/// When it was noted that this log is not as it was, if it was.
fn time_noted(noted: &str, was: &Head) -> Option<u64> {
    noted.lines().find_map(|line| {
        let mut words = line.split(' ');
        let is_it = words.next() == Some(was.log.as_str()) && words.next()?.parse() == Ok(was.size);
        if is_it { words.next()?.parse().ok() } else { None }
    })
}

/// Whether a log is still as it was. The records of one that another has adopted are left to `countersign audit verify`: there may be
/// millions.
async fn compare(reader: &LedgerReader, log: Option<&StoredLog>, was: &Head) -> Result<Option<Discontinuity>, StoreError> {
    let broken = |kind, size| Ok(Some(Discontinuity { was: was.clone(), kind, size }));
    let Some(log) = log else { return broken(Break::Missing, None) };
    let size = u64::try_from(log.size).unwrap_or_default();
    let is_adopted = log.sealed_by.as_ref().is_some_and(|by| *by != log.id);
    if size < was.size {
        return broken(Break::Shorter, Some(size));
    }
    let root = if size == was.size {
        Some(log.root.clone())
    } else if is_adopted || log.archived_at.is_some() {
        None
    } else {
        Some(root_at(reader, &log.id, was.size).await?.to_vec())
    };
    match root {
        Some(root) if root != was.root => broken(Break::OtherRoot, Some(size)),
        _ => Ok(None),
    }
}

/// The root over the first `size` records, from the stored hashes.
async fn root_at(reader: &LedgerReader, log: &str, size: u64) -> Result<Hash, StoreError> {
    let mut tree = Tree::new();
    let mut next = 0;
    while tree.size() < size {
        let segments = reader.hashes(log, next).await?;
        let Some(last) = segments.last() else { break };
        next = last.first.saturating_add(1);
        for hash in segments.iter().flat_map(|segment| segment.hashes.chunks_exact(32)) {
            if tree.size() < size
                && let Ok(hash) = hash.try_into()
            {
                tree.append(hash);
            }
        }
    }
    Ok(tree.root())
}

/// Of more logs than are kept, the oldest whose successor is published too.
fn outdated(published: &[Head], logs: &BTreeMap<String, StoredLog>) -> Vec<String> {
    let excess = published.len().saturating_sub(LOGS_MAX);
    let is_published = |id: &str| published.iter().any(|head| head.log.as_str() == id);
    let mut followed: Vec<&StoredLog> = published.iter().filter_map(|head| logs.get(head.log.as_str())).collect();
    followed.retain(|log| log.sealed_by.as_ref().is_some_and(|by| *by != log.id && is_published(by)));
    followed.sort_by_key(|log| log.created_at);
    followed.into_iter().take(excess).map(|log| log.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: usize) -> Head {
        Head { log: format!("{number:032x}").parse().expect("a name"), size: 7, root: [0; 32] }
    }

    #[test]
    fn of_many_logs_the_oldest_that_are_followed_make_room() {
        let published: Vec<Head> = (0..LOGS_MAX + 10).map(head).collect();
        let log = |number: usize| {
            // The fifth was followed by one that is not published, and the last by none.
            let next = if number == 5 { 999_999 } else { number + 1 };
            let id = format!("{number:032x}");
            let sealed_by = (number + 1 < LOGS_MAX + 10).then(|| format!("{next:032x}"));
            let created_at = i64::try_from(number).expect("small");
            (
                id.clone(),
                StoredLog {
                    id,
                    created_at,
                    touched_at: 0,
                    writer: String::new(),
                    size: 7,
                    root: vec![0; 32],
                    sealed_by,
                    sealed_at: None,
                    archived_at: None,
                },
            )
        };
        let logs: BTreeMap<String, StoredLog> = (0..LOGS_MAX + 10).map(log).collect();
        let gone: Vec<String> = (0..11).filter(|number| *number != 5).map(|number| format!("{number:032x}")).collect();
        assert_eq!(outdated(&published, &logs), gone);
        assert!(outdated(&published[..LOGS_MAX], &logs).is_empty());
    }

    #[test]
    fn what_was_noted_of_one_checkpoint_is_not_taken_for_another() {
        let noted = format!("{} 7 100\n{} 8 200\nnonsense\n{}", head(1).log, head(2).log, head(3).log);
        assert_eq!(time_noted(&noted, &head(1)), Some(100));
        assert_eq!([2, 3, 4].map(|number| time_noted(&noted, &head(number))), [None; 3]);
    }
}
