//! What the cluster says now, and how old that is.
//!
//! Watches write into it, requests read it. It is plain data behind locks that are held for the time of a look-up:
//! no client, no I/O. A view that is older than [`Freshness`] allows answers nothing.

mod agents;
mod freshness;
mod issuers;
mod requests;
pub mod watches;
pub mod wire;
mod workloads;

pub use agents::AgentIndex;
pub use freshness::{Freshness, Source, Stale};
pub use issuers::IssuerIndex;
pub use requests::RequestIndex;
pub(crate) use requests::is_older;
pub use workloads::{LiveSet, Workloads};

use crate::agent::RegisteredAgent;
use crate::capability::Catalogue;
use crate::decision::View;
use crate::grammar::AgentId;
use crate::jit::Request;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use uuid::Uuid;

/// How long a token of a pod that the watch has not shown yet may wait for it. A pod can present its token within milliseconds of its
/// creation.
pub(crate) const NEWBORN_PATIENCE: Duration = Duration::from_millis(500);
/// How recently such a token must have been issued, in seconds. An older one belongs to a pod that is gone.
pub(crate) const NEWBORN_AGE: u64 = 5;

/// The shared view of the cluster.
#[derive(Debug)]
pub struct Snapshot {
    agents: RwLock<AgentIndex>,
    issuers: RwLock<IssuerIndex>,
    workloads: RwLock<Workloads>,
    requests: RwLock<RequestIndex>,
    catalogue: RwLock<Catalogue>,
    /// How old the view is.
    pub freshness: Freshness,
    changed: tokio::sync::watch::Sender<()>,
    /// Agents and issuers alone.
    trust_changed: tokio::sync::watch::Sender<()>,
    /// Of its own, so that the many who wait for a decision are not woken by every pod.
    requests_changed: tokio::sync::watch::Sender<()>,
}

/// A view that nobody changes while it is held.
#[derive(Debug)]
pub struct ViewGuard<'a> {
    agents: RwLockReadGuard<'a, AgentIndex>,
    issuers: RwLockReadGuard<'a, IssuerIndex>,
    catalogue: RwLockReadGuard<'a, Catalogue>,
    workloads: RwLockReadGuard<'a, Workloads>,
}

impl ViewGuard<'_> {
    /// The view.
    #[must_use]
    pub fn as_view(&self) -> View<'_> {
        View { agents: &self.agents, issuers: &self.issuers, catalogue: &self.catalogue, pods: &self.workloads.pods }
    }
}

impl Snapshot {
    /// An empty view that depends on `sources` and is stale until each of them has been heard.
    #[must_use]
    pub fn new(sources: &[Source], bound: Duration) -> Arc<Self> {
        Arc::new(Self {
            agents: RwLock::default(),
            issuers: RwLock::default(),
            workloads: RwLock::default(),
            requests: RwLock::default(),
            catalogue: RwLock::default(),
            freshness: Freshness::new(sources, bound),
            changed: tokio::sync::watch::Sender::new(()),
            trust_changed: tokio::sync::watch::Sender::new(()),
            requests_changed: tokio::sync::watch::Sender::new(()),
        })
    }

    /// The agents, for reading.
    pub fn agents(&self) -> RwLockReadGuard<'_, AgentIndex> {
        // A poisoned lock means that a writer panicked between two plain insertions: the data is still whole.
        self.agents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trusted issuers, for reading.
    pub fn issuers(&self) -> RwLockReadGuard<'_, IssuerIndex> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods and ServiceAccounts, for reading.
    pub fn workloads(&self) -> RwLockReadGuard<'_, Workloads> {
        self.workloads.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests for approval, for reading.
    pub fn requests(&self) -> RwLockReadGuard<'_, RequestIndex> {
        self.requests.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalogue, for reading.
    pub fn catalogue(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What decisions depend on, for reading. Held only while one is made.
    pub fn view(&self) -> ViewGuard<'_> {
        ViewGuard { agents: self.agents(), issuers: self.issuers(), catalogue: self.catalogue(), workloads: self.workloads() }
    }

    /// The request of that UID, if there is one.
    #[must_use]
    pub fn request(&self, uid: &str) -> Option<Arc<Request>> {
        self.requests().get(uid)
    }

    /// The agent of that name, if it is registered.
    #[must_use]
    pub fn agent(&self, id: &AgentId) -> Option<Arc<RegisteredAgent>> {
        self.agents().get(id)
    }

    /// Changes the agents and wakes who waits.
    pub fn update_agents<T>(&self, change: impl FnOnce(&mut AgentIndex) -> T) -> T {
        let mut guard: RwLockWriteGuard<'_, _> = self.agents.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut guard);
        drop(guard);
        self.changed.send_replace(());
        self.trust_changed.send_replace(());
        result
    }

    /// Changes the trusted issuers and wakes who waits.
    pub fn update_issuers<T>(&self, change: impl FnOnce(&mut IssuerIndex) -> T) -> T {
        let result = change(&mut self.issuers.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        self.trust_changed.send_replace(());
        result
    }

    /// Changes the workloads and wakes who waits.
    pub fn update_workloads<T>(&self, change: impl FnOnce(&mut Workloads) -> T) -> T {
        let result = change(&mut self.workloads.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }

    /// Changes the requests and wakes who waits for a decision.
    pub fn update_requests<T>(&self, change: impl FnOnce(&mut RequestIndex) -> T) -> T {
        let result = change(&mut self.requests.write().unwrap_or_else(PoisonError::into_inner));
        self.requests_changed.send_replace(());
        result
    }

    /// Changes the catalogue.
    pub fn update_catalogue(&self, change: impl FnOnce(&mut Catalogue)) {
        change(&mut self.catalogue.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says whenever Agents or trusted issuers have changed.
    #[must_use]
    pub fn trust_changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.trust_changed.subscribe()
    }

    /// Waits, at most for `patience`, until `look` finds something among the requests.
    pub async fn wait_for_request<T>(&self, patience: Duration, look: impl FnMut(&Self) -> Option<T>) -> Option<T> {
        self.wait(self.requests_changed.subscribe(), patience, look).await
    }

    /// Waits, at most for `patience`, until `look` finds something.
    ///
    /// For what was written a moment ago and is on its way through a watch: a pod that presents its token within
    /// milliseconds of its creation, an Agent whose new generation the controller is about to judge.
    pub async fn wait_for<T>(&self, patience: Duration, look: impl FnMut(&Self) -> Option<T>) -> Option<T> {
        self.wait(self.changed.subscribe(), patience, look).await
    }

    /// Waits a moment, if the pod of that UID was born so recently that the watch may not have shown it: `issued_at`, in seconds
    /// since the epoch like `now`, is when it proved to be there, perhaps to another replica.
    pub async fn await_newborn(&self, pod: Uuid, issued_at: u64, now: u64) {
        if issued_at.saturating_add(NEWBORN_AGE) >= now {
            let seen = |snapshot: &Self| (snapshot.workloads().pods.has(&pod) != Some(false)).then_some(());
            // Whether it came is seen when the token is judged.
            self.wait_for(NEWBORN_PATIENCE, seen).await;
        }
    }

    async fn wait<T>(
        &self,
        mut changes: tokio::sync::watch::Receiver<()>,
        patience: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = look(self) {
            return Some(found);
        }
        let search = async {
            loop {
                if changes.changed().await.is_err() {
                    return None;
                }
                if let Some(found) = look(self) {
                    return Some(found);
                }
            }
        };
        tokio::time::timeout(patience, search).await.ok().flatten()
    }
}
