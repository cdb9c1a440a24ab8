//! The checkpoints of the ledger: signed when they are due, kept in the database, and published in a ConfigMap, where whoever owns the
//! database cannot take them back.

mod published;
mod start;

pub use published::Witness;
pub use start::{LookError, Start, look_back};

use crate::audit::ledger::log::Head;
use crate::audit::ledger::note::{CheckpointKey, Vkey};
use crate::audit::ledger::opening::Discontinuity;
use crate::audit::{Outcome, Record, Recorder};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::time::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How often a log that grows is signed, however slowly it does.
const SIGN_EVERY: Duration = Duration::from_secs(10);
/// How long the last checkpoint may take to be published when the process ends, and how long the copy may.
const FINISH_WITHIN: Duration = Duration::from_secs(4);

/// Signs and publishes checkpoints.
#[derive(Debug)]
pub struct Checkpoints {
    /// Knows how far the logs are.
    pub recorder: Recorder,
    /// The key that signs.
    pub key: watch::Receiver<Option<Arc<CheckpointKey>>>,
    /// Where checkpoints are published.
    pub witness: Arc<Witness>,
    /// Hears when the ledger turns out to be an old one.
    pub store: Store,
    /// Counts that.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

impl Checkpoints {
    /// Signs and publishes for ever. `key` is what has signed so far.
    pub async fn keep(self, key: Arc<CheckpointKey>) {
        tokio::join!(self.sign(key), self.witness.publish(&self.recorder));
    }

    async fn sign(&self, mut key: Arc<CheckpointKey>) {
        let (mut keys, heads) = (self.key.clone(), self.recorder.heads());
        let mut ticks = tokio::time::interval(SIGN_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut ended, mut signed): (Vec<Head>, Option<Head>) = (Vec::new(), None);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = heads.due() => {}
                Ok(()) = keys.changed() => {}
            }
            let found = heads.take_broken();
            report(&self.recorder, &self.store, &self.metrics, self.clock.seconds(), &found).await;
            let current = keys.borrow_and_update().clone();
            if let Some(next) = current.filter(|next| next.vkey() != key.vkey())
                && record_key(&self.recorder, &key.vkey(), &next.vkey()).await
            {
                heads.set_vkey(next.vkey().to_string());
                key = next;
                signed = None;
            }
            ended.extend(heads.take_ended());
            let mut left = Vec::new();
            for head in ended.drain(..) {
                if !self.sign_one(&head, &key).await {
                    left.push(head);
                }
            }
            ended = left;
            if let Some(head) = heads.current().filter(|head| signed.as_ref() != Some(head))
                && self.sign_one(&head, &key).await
            {
                signed = Some(head);
            }
        }
    }

    async fn sign_one(&self, head: &Head, key: &CheckpointKey) -> bool {
        match self.recorder.checkpoint(head, key).await {
            Ok(note) => {
                self.witness.show(head, note, &key.vkey());
                true
            }
            Err(error) => {
                tracing::warn!(log = %head.log, %error, "a checkpoint could not be kept");
                false
            }
        }
    }
}

/// Seals the log of this process, signs it a last time, publishes that, and waits for the copy. What fails here, its successor sees to.
pub async fn finish(recorder: &Recorder, key: &CheckpointKey, witness: &Witness) {
    match recorder.close().await {
        Ok(Some(head)) => publish_last(&head, recorder, key, witness).await,
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the log of the ledger could not be sealed; the next process does that"),
    }
    if !timeout(FINISH_WITHIN, recorder.copied()).await.unwrap_or(false) {
        tracing::warn!("the audit log lacks the last records; the ledger has them");
    }
}

async fn publish_last(head: &Head, recorder: &Recorder, key: &CheckpointKey, witness: &Witness) {
    let published = async {
        let note = recorder.checkpoint(head, key).await.map_err(|e| e.to_string())?;
        witness.show(head, note, &key.vkey());
        witness.publish_once(recorder).await.map_err(|e| crate::error_chain(&e))
    };
    match timeout(FINISH_WITHIN, published).await.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
        Ok(()) => tracing::info!(log = %head.log, records = head.size, "the log of the ledger is sealed"),
        Err(error) => tracing::warn!(log = %head.log, %error, "the last checkpoint could not be published"),
    }
}

/// Records that checkpoints are signed with another key from now on. False if it could not be.
pub(crate) async fn record_key(recorder: &Recorder, old: &Vkey, new: &Vkey) -> bool {
    let mut record = Record::new("ledger.key_changed", crate::token::new_id().unwrap_or_default());
    record.own("old_vkey", old.to_string()).own("new_vkey", new.to_string()).conclude(Outcome::Allow, "replaced");
    tracing::warn!(%old, %new, "checkpoints are signed with another key");
    recorder.write(&record).await.is_ok()
}

/// Records that logs are not as they were. From then on nothing is accepted that may have been consumed before.
async fn report(recorder: &Recorder, store: &Store, metrics: &Metrics, now: u64, found: &[Discontinuity]) {
    let Some(first) = found.first() else { return };
    store.taken_over(now);
    metrics.discontinuities(found.len());
    let mut record = Record::new("ledger.discontinuity", crate::token::new_id().unwrap_or_default());
    record.text("of_log", first.was.log.as_str()).number("expected_size", first.was.size);
    if let Some(size) = first.size {
        record.number("found_size", size);
    }
    if found.len() > 1 {
        record.number("logs", u64::try_from(found.len()).unwrap_or(u64::MAX));
    }
    record.conclude(Outcome::Error, first.kind.as_str());
    for Discontinuity { was, kind, size } in found {
        tracing::error!(
            log = %was.log, expected = was.size, found = ?size, kind = kind.as_str(),
            "the ledger is not what it was: an old copy of the database was restored, or somebody has changed it"
        );
    }
    if recorder.write(&record).await.is_err() {
        tracing::error!("a discontinuity of the ledger could not be recorded");
    }
}
