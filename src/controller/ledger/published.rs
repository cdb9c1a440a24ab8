//! The ConfigMap in which checkpoints are published: an item for each log, `vkeys` with every verifier key so far, and `noted` with the
//! discontinuities that were recorded.

use crate::audit::Recorder;
use crate::audit::ledger::LogId;
use crate::audit::ledger::log::Head;
use crate::audit::ledger::note::Vkey;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The item with every verifier key so far, one a line, the newest last.
pub(super) const VKEYS: &str = "vkeys";
/// The item with the discontinuities that were recorded: log, size and time (seconds since the epoch), one a line.
pub(super) const NOTED: &str = "noted";

/// How often the ConfigMap is written at most.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Publishes checkpoints.
#[derive(Debug)]
pub struct Witness {
    config_maps: Api<ConfigMap>,
    name: String,
    /// The newest checkpoint of each log that is not published yet, by size.
    shown: Mutex<BTreeMap<LogId, (u64, String)>>,
    /// Keys that have signed, and those of them that are known to be published.
    keys: Mutex<(BTreeSet<String>, BTreeSet<String>)>,
    due: Notify,
}

impl Witness {
    /// Publishes in that ConfigMap.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, name: String) -> Self {
        let (shown, keys) = (Mutex::default(), Mutex::default());
        Self { config_maps: Api::namespaced(client, namespace), name, shown, keys, due: Notify::new() }
    }

    /// What is published now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) async fn read(&self) -> kube::Result<ConfigMap> {
        self.config_maps.get(&self.name).await
    }

    /// This is to be published.
    pub(super) fn show(&self, head: &Head, note: String, vkey: &Vkey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).0.insert(vkey.to_string());
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(head.log.clone(), (head.size, note));
        self.due.notify_one();
    }

    /// Publishes what is shown, for ever. A failure stops nothing, and what could not be published is published later.
    pub(super) async fn publish(&self, recorder: &Recorder) {
        let mut complaint = String::new();
        loop {
            self.due.notified().await;
            while let Err(error) = self.publish_once(recorder).await {
                let error = crate::error_chain(&error);
                if error != complaint {
                    tracing::error!(config_map = %self.name, %error, "the ledger's checkpoints cannot be published; they will be later");
                    complaint = error;
                }
                tokio::time::sleep(PUBLISH_EVERY).await;
            }
            if !complaint.is_empty() {
                tracing::info!(config_map = %self.name, "the ledger's checkpoints are published again");
                complaint.clear();
            }
            tokio::time::sleep(PUBLISH_EVERY).await;
        }
    }

    /// Publishes what is shown.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) async fn publish_once(&self, recorder: &Recorder) -> kube::Result<()> {
        self.publish_keys().await?;
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if shown.is_empty() {
            return Ok(());
        }
        let notes: BTreeMap<&str, &str> = shown.iter().map(|(log, (_, note))| (log.as_str(), note.as_str())).collect();
        self.patch(&json!({"data": notes})).await?;
        let mut waiting = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (log, (size, _)) in &shown {
            recorder.heads().covered(log, *size);
            if waiting.get(log).is_some_and(|(newer, _)| newer == size) {
                waiting.remove(log);
            }
        }
        Ok(())
    }

    /// Publishes the keys that have signed, before anything that they signed. Another process may add one at the same time.
    async fn publish_keys(&self) -> kube::Result<()> {
        let (used, published) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if used.is_subset(&published) {
            return Ok(());
        }
        let config_map = self.read().await?;
        let there = item(&config_map, VKEYS);
        let missing: Vec<&str> = used.iter().map(String::as_str).filter(|key| !there.lines().any(|line| line == *key)).collect();
        if !missing.is_empty() {
            let all: Vec<&str> = there.lines().chain(missing).collect();
            let version = config_map.metadata.resource_version.as_deref().unwrap_or_default();
            self.patch(&json!({"metadata": {"resourceVersion": version}, "data": {VKEYS: all.join("\n")}})).await?;
        }
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).1.extend(used);
        Ok(())
    }

    pub(super) async fn patch(&self, patch: &Value) -> kube::Result<()> {
        let parameters = PatchParams { field_manager: Some("countersign".to_owned()), ..PatchParams::default() };
        self.config_maps.patch_metadata(&self.name, &parameters, &Patch::Merge(patch)).await.map(drop)
    }
}

/// An item, or nothing.
pub(super) fn item<'a>(config_map: &'a ConfigMap, name: &str) -> &'a str {
    config_map.data.as_ref().and_then(|data| data.get(name)).map_or("", String::as_str)
}
