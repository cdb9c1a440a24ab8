//! Telling people of requests for approval: what happens is queued in the database by every replica, each event once for each receiver, and
//! sent by the one that holds a Lease.
//!
//! What is to be told follows from how a request stands, not from having seen it change: a replica that starts looks at all of them, and
//! queues what its predecessor did not come to.

mod deliver;
mod files;
mod lease;
mod queue;
mod report;

pub use files::{Files, FilesError};
pub use lease::Leadership;

use crate::jit::{Request, RequestId};
use crate::metrics::Metrics;
use crate::notify::Config;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::time::Clock;
use deliver::Worker;
use kube::runtime::events::Recorder as Events;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often what is old is removed and what waits is counted.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// What was seen of a request.
#[derive(Debug)]
pub enum Seen {
    /// It is there, and may have changed.
    Applied(RequestId),
    /// It is gone.
    Deleted(Arc<Request>),
}

/// What notifications need.
#[derive(Clone)]
pub struct Notifications {
    /// The API server.
    pub client: kube::Client,
    /// The view of the cluster.
    pub snapshot: Arc<Snapshot>,
    /// Where they are queued.
    pub store: Store,
    /// Where Events go.
    pub events: Events,
    /// Counts what became of them.
    pub metrics: Arc<Metrics>,
    /// Our issuer URL.
    pub issuer: String,
    /// The URL of the pages on which people decide, if they are served.
    pub portal: Option<String>,
    /// The time.
    pub clock: Clock,
}

impl std::fmt::Debug for Notifications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notifications")
    }
}

impl Notifications {
    /// Reads the configuration, and from then on queues and sends for ever, as tasks of `parts`, which end with their names. Returns where
    /// to say what was seen.
    ///
    /// # Errors
    /// A [`FilesError`] if the configuration cannot be used.
    pub fn start(
        self,
        files: Files,
        leadership: Leadership,
        parts: &mut JoinSet<&'static str>,
    ) -> Result<UnboundedSender<Seen>, FilesError> {
        let (config, current) = watch::channel(Arc::new(files.read()?));
        let (leads, held) = watch::channel(None);
        let (seen, told) = mpsc::unbounded_channel();
        parts.spawn(async move {
            files.follow(config).await;
            "the files of the notifications"
        });
        parts.spawn(async move {
            leadership.keep(leads).await;
            "the Lease of the notifications"
        });
        parts.spawn(async move {
            self.run(told, current, held).await;
            "the notifications"
        });
        Ok(seen)
    }

    /// Queues and sends for ever. `leads` says until when this process is the one that sends.
    async fn run(
        self,
        seen: UnboundedReceiver<Seen>,
        config: watch::Receiver<Arc<Config>>,
        leads: watch::Receiver<Option<Instant>>,
    ) {
        // Grows with everything that is queued.
        let (queued, wake) = watch::channel(0_u64);
        tokio::join!(queue::run(&self, seen, config.clone(), queued), self.send(config, &wake, &leads), self.tidy(&leads));
    }

    /// Sends for ever, to each receiver by a worker of its own: one that hangs delays no other.
    async fn send(
        &self,
        mut config: watch::Receiver<Arc<Config>>,
        wake: &watch::Receiver<u64>,
        leads: &watch::Receiver<Option<Instant>>,
    ) {
        loop {
            let current = Arc::clone(&config.borrow_and_update());
            let (stop, stopped) = watch::channel(false);
            let mut workers = JoinSet::new();
            for (name, receiver) in &current.receivers {
                let worker = Worker::new(self.clone(), name, receiver.clone());
                workers.spawn(worker.run(wake.clone(), leads.clone(), stopped.clone()));
            }
            if config.changed().await.is_err() {
                // The configuration never changes again.
                std::future::pending::<()>().await;
            }
            // What is under way is brought to its end, so that nothing is sent twice by a change of the configuration.
            stop.send_replace(true);
            while workers.join_next().await.is_some() {}
        }
    }

    async fn tidy(&self, leads: &watch::Receiver<Option<Instant>>) {
        loop {
            tokio::time::sleep(TIDY_EVERY).await;
            if !lease::is_held(leads) {
                self.metrics.observe_notifications(0);
                continue;
            }
            match self.store.tidy_notices(self.clock.now().as_second()).await {
                Ok(waiting) => self.metrics.observe_notifications(waiting),
                Err(error) => tracing::warn!(%error, "old notifications could not be removed"),
            }
        }
    }
}
