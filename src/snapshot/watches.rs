//! The watches that keep a [`Snapshot`] current.

use super::wire::{Guarded, Meta};
use super::workloads::{UidSet, Workloads};
use super::{Snapshot, Source};
use crate::agent::RegisteredAgent;
use crate::capability::{Unusable, entry_of};
use crate::crd::{Agent, Capability, JitRequest};
use crate::grammar::{AgentId, CapabilityName};
use crate::jit::{Request, RequestId};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

/// How long the API server keeps a watch open. Each opening proves that the view is current.
const WATCH_SECONDS: u32 = 4;
/// Pause after a failed watch or list. Short, because nothing is issued meanwhile.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Something that happened to an Agent, for the controller.
#[derive(Debug)]
pub enum AgentEvent {
    /// It was created, changed, or listed.
    Applied(Box<Agent>),
    /// It is gone.
    Deleted(Arc<RegisteredAgent>),
}

/// Keeps the agents of `snapshot` current and tells `events`, and the controller of `requests`, what happened, for ever.
pub async fn agents(
    client: kube::Client,
    snapshot: Arc<Snapshot>,
    events: UnboundedSender<AgentEvent>,
    requests: UnboundedSender<RequestEvent>,
) {
    let api: Api<Guarded<Agent>> = Api::all(client);
    // A send fails only while the process ends.
    let tell = |event| {
        let id = match &event {
            AgentEvent::Applied(agent) => AgentId::new(&agent.namespace().unwrap_or_default(), &agent.name_any()).ok(),
            AgentEvent::Deleted(agent) => Some(agent.id.clone()),
        };
        id.into_iter().for_each(|id| _ = requests.send(RequestEvent::AgentChanged(id)));
        _ = events.send(event);
    };
    follow(api, "agents", |event| match event {
        Event::Init => snapshot.update_agents(super::AgentIndex::begin),
        Event::InitApply(guarded) | Event::Apply(guarded) => {
            if let Some(agent) = read(&snapshot, guarded) {
                tell(AgentEvent::Applied(Box::new(agent)));
            }
        }
        Event::Delete(guarded) => {
            let id = AgentId::new(&guarded.namespace().unwrap_or_default(), &guarded.name_any());
            if let Some(gone) = id.ok().and_then(|id| snapshot.update_agents(|agents| agents.forget(&id))) {
                tell(AgentEvent::Deleted(gone));
            }
        }
        Event::InitDone => {
            let gone = snapshot.update_agents(super::AgentIndex::complete);
            gone.into_iter().for_each(|agent| tell(AgentEvent::Deleted(agent)));
            snapshot.freshness.complete(Source::Agents);
        }
    })
    .await;
}

/// Registers a stored object. One that cannot be read is taken out of the view: unreadable is unregistered.
fn read(snapshot: &Snapshot, guarded: Guarded<Agent>) -> Option<Agent> {
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    let parsed = match guarded.object {
        Ok(agent) => RegisteredAgent::parse(&agent).map(|parsed| (agent, parsed)).map_err(|e| e.to_string()),
        Err(invalid) => Err(invalid),
    };
    match parsed {
        Ok((agent, parsed)) => {
            snapshot.update_agents(|agents| agents.insert(parsed));
            Some(agent)
        }
        Err(error) => {
            tracing::warn!(%namespace, %name, %error, "an Agent cannot be read and gets no token; write it again under the current schema");
            if let Ok(id) = AgentId::new(&namespace, &name) {
                snapshot.update_agents(|agents| agents.forget(&id));
            }
            None
        }
    }
}

/// Something that happened to a JitRequest, for the controller.
#[derive(Debug)]
pub enum RequestEvent {
    /// It was created, changed, or listed.
    Applied(RequestId),
    /// It is gone.
    Deleted(Arc<Request>),
    /// This agent was created, changed or deleted: its requests may have to end.
    AgentChanged(AgentId),
    /// The catalogue was changed.
    CatalogueChanged,
}

/// Keeps the requests of `snapshot` current and tells `events` what happened, for ever.
pub async fn requests(client: kube::Client, snapshot: Arc<Snapshot>, events: UnboundedSender<RequestEvent>) {
    let api: Api<Guarded<JitRequest>> = Api::all(client);
    // A send fails only while the process ends.
    let tell = |event| _ = events.send(event);
    follow(api, "jitrequests", |event| match event {
        Event::Init => snapshot.update_requests(super::RequestIndex::begin),
        Event::InitApply(guarded) | Event::Apply(guarded) => {
            let (namespace, name, uid) = (guarded.namespace().unwrap_or_default(), guarded.name_any(), guarded.uid());
            match guarded.object {
                Ok(object) => {
                    if let Some(request) = Request::parse(object) {
                        let id = request.id.clone();
                        snapshot.update_requests(|requests| requests.insert(Arc::new(request)));
                        tell(RequestEvent::Applied(id));
                    }
                }
                Err(invalid) => {
                    tracing::warn!(%namespace, %name, error = %invalid, "a JitRequest cannot be read and is not honoured");
                    snapshot.update_requests(|requests| requests.forget(&uid.unwrap_or_default()));
                }
            }
        }
        Event::Delete(guarded) => {
            let uid = guarded.uid().unwrap_or_default();
            if let Some(gone) = snapshot.update_requests(|requests| requests.delete(&uid)) {
                tell(RequestEvent::Deleted(gone));
            }
        }
        Event::InitDone => {
            let gone = snapshot.update_requests(super::RequestIndex::complete);
            gone.into_iter().for_each(|request| tell(RequestEvent::Deleted(request)));
            snapshot.freshness.complete(Source::Requests);
        }
    })
    .await;
}

/// Keeps the catalogue of `snapshot` current and tells `events`, and the controller of `requests`, what changed, for ever.
pub async fn capabilities(
    client: kube::Client,
    snapshot: Arc<Snapshot>,
    events: UnboundedSender<String>,
    requests: UnboundedSender<RequestEvent>,
) {
    let api: Api<Guarded<Capability>> = Api::all(client);
    // A send fails only while the process ends.
    let tell = |name| {
        _ = events.send(name);
        _ = requests.send(RequestEvent::CatalogueChanged);
    };
    follow(api, "capabilities", |event| match event {
        Event::Init => snapshot.update_catalogue(crate::capability::Catalogue::begin),
        Event::InitApply(guarded) | Event::Apply(guarded) => {
            let name = guarded.name_any();
            match guarded.object {
                Ok(capability) => {
                    if let Some((name, entry)) = entry_of(&capability) {
                        snapshot.update_catalogue(|catalogue| catalogue.insert(name, entry));
                    }
                }
                // Unreadable is not absent: what it was to guard is denied.
                Err(invalid) => {
                    tracing::warn!(%name, error = %invalid, "a Capability cannot be read and is denied to everybody");
                    if let Ok(name) = CapabilityName::parse(&name) {
                        snapshot.update_catalogue(|catalogue| {
                            catalogue.insert(name, Err(Unusable::Invalid("it cannot be read".to_owned())))
                        });
                    }
                }
            }
            tell(name);
        }
        Event::Delete(guarded) => {
            if let Ok(name) = CapabilityName::parse(&guarded.name_any()) {
                snapshot.update_catalogue(|catalogue| catalogue.forget(&name));
            }
            tell(guarded.name_any());
        }
        Event::InitDone => {
            snapshot.update_catalogue(crate::capability::Catalogue::complete);
            snapshot.freshness.complete(Source::Capabilities);
        }
    })
    .await;
}

/// Keeps the live Pods of `snapshot` current, for ever.
pub async fn pods(client: kube::Client, snapshot: Arc<Snapshot>) {
    uids::<Pod>(client, snapshot, Source::Pods, |workloads| &mut workloads.pods).await;
}

/// Keeps the live ServiceAccounts of `snapshot` current, for ever.
pub async fn service_accounts(client: kube::Client, snapshot: Arc<Snapshot>) {
    uids::<ServiceAccount>(client, snapshot, Source::ServiceAccounts, |workloads| &mut workloads.service_accounts).await;
}

/// Keeps one set of UIDs current from a metadata-only watch.
async fn uids<K>(client: kube::Client, snapshot: Arc<Snapshot>, source: Source, set: fn(&mut Workloads) -> &mut UidSet)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<Meta<K>> = Api::all(client);
    let read = |object: &Meta<K>| {
        let uid = object.meta().uid.as_deref().and_then(|uid| Uuid::parse_str(uid).ok());
        uid.map(|uid| (uid, object.meta().deletion_timestamp.is_some()))
    };
    follow(api, source.as_str(), |event| match event {
        Event::Init => snapshot.update_workloads(|w| set(w).begin()),
        Event::InitApply(object) => {
            if let Some((uid, deleting)) = read(&object) {
                snapshot.update_workloads(|w| set(w).listed(uid, deleting));
            }
        }
        Event::Apply(object) => {
            if let Some((uid, deleting)) = read(&object) {
                snapshot.update_workloads(|w| set(w).applied(uid, deleting));
            }
        }
        Event::Delete(object) => {
            if let Some((uid, _)) = read(&object) {
                snapshot.update_workloads(|w| set(w).deleted(&uid));
            }
        }
        Event::InitDone => {
            snapshot.update_workloads(|w| set(w).complete());
            snapshot.freshness.complete(source);
        }
    })
    .await;
}

/// Runs one watch for ever. Errors are retried: the age of the view says how long that may last.
pub(crate) async fn follow<K>(api: Api<K>, what: &str, mut handle: impl FnMut(Event<K>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)));
    loop {
        match events.try_next().await {
            Ok(Some(event)) => handle(event),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(watch = what, error = %crate::error_chain(&error), "a watch failed and is opened anew");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}
