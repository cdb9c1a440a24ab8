//! The watches that keep a [`Snapshot`] current.

use super::wire::{Guarded, Meta};
use super::workloads::{LiveSet, Workloads};
use super::{Snapshot, Source};
use crate::agent::{Holding, RegisteredAgent};
use crate::capability::{Unusable, entry_of};
use crate::crd::{Agent, Capability, JitRequest, TrustedIssuer};
use crate::grammar::{AgentId, CapabilityName};
use crate::issuer::RegisteredIssuer;
use crate::jit::{Request, RequestId};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

/// How long the API server keeps a watch open. Each opening proves that the view is current.
const WATCH_SECONDS: u32 = 4;
/// How many objects a list brings at once. A page is in memory three times while it is read: as bytes, as text, and as objects.
const PAGE: u32 = 100;
/// The same for Pods and ServiceAccounts, which come without their contents, by the hundred thousand.
const PAGE_OF_NAMES: u32 = 500;
/// Pause after a failed watch or list. Short, because nothing is issued meanwhile.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Something that happened to an Agent, for the controller.
#[derive(Debug)]
pub enum AgentEvent {
    /// It was created, changed, or listed.
    Applied(AgentId),
    /// It is gone.
    Deleted(Arc<RegisteredAgent>),
    /// Something on which its credentials depend has changed.
    Affected(AgentId),
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
            AgentEvent::Applied(id) => Some(id.clone()),
            AgentEvent::Deleted(agent) => Some(agent.id.clone()),
            AgentEvent::Affected(_) => None,
        };
        id.into_iter().for_each(|id| _ = requests.send(RequestEvent::AgentChanged(id)));
        _ = events.send(event);
    };
    keep(api, &snapshot, Source::Agents, |event| match event {
        Event::Init => {
            snapshot.update_agents(super::AgentIndex::begin);
        }
        Event::InitApply(guarded) | Event::Apply(guarded) => {
            if let Some((id, before)) = read(&snapshot, guarded) {
                // Who contested what it has given up may have it now.
                let freed = before.map(|before| snapshot.agents().rivals(&before)).unwrap_or_default();
                tell(AgentEvent::Applied(id));
                freed.into_iter().for_each(|id| tell(AgentEvent::Affected(id)));
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
        }
    })
    .await;
}

/// Registers a stored object, and returns its name with the version that it replaces. One that cannot be read is taken out of the view:
/// unreadable is unregistered.
fn read(snapshot: &Snapshot, guarded: Guarded<Agent>) -> Option<(AgentId, Option<Arc<RegisteredAgent>>)> {
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    let parsed = match guarded.object {
        Ok(agent) => RegisteredAgent::parse(&agent).map_err(|e| e.to_string()),
        Err(invalid) => Err(invalid),
    };
    match parsed {
        Ok(parsed) => {
            let id = parsed.id.clone();
            let before = snapshot.update_agents(|agents| agents.insert(parsed));
            Some((id, before))
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
    keep(api, &snapshot, Source::Requests, |event| match event {
        Event::Init => {
            snapshot.update_requests(super::RequestIndex::begin);
        }
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
    keep(api, &snapshot, Source::Capabilities, |event| match event {
        Event::Init => {
            snapshot.update_catalogue(crate::capability::Catalogue::begin);
        }
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
        }
    })
    .await;
}

/// Keeps the trusted issuers of `snapshot` current and tells `events` the names of those that changed, and `agents` which Agents refer to
/// them, for ever.
pub async fn issuers(
    client: kube::Client,
    snapshot: Arc<Snapshot>,
    events: UnboundedSender<String>,
    agents: UnboundedSender<AgentEvent>,
) {
    let api: Api<Guarded<TrustedIssuer>> = Api::all(client);
    // A send fails only while the process ends.
    let tell = |name: String| {
        let refers = |agent: &&Arc<RegisteredAgent>| agent.credentials.federated.iter().any(|identity| identity.issuer == name);
        let ids: Vec<AgentId> = snapshot.agents().iter().filter(refers).map(|agent| agent.id.clone()).collect();
        ids.into_iter().for_each(|id| _ = agents.send(AgentEvent::Affected(id)));
        _ = events.send(name);
    };
    keep(api, &snapshot, Source::Issuers, |event| match event {
        Event::Init => {
            snapshot.update_issuers(super::IssuerIndex::begin);
        }
        Event::InitApply(guarded) | Event::Apply(guarded) => {
            let name = guarded.name_any();
            match guarded.object {
                // What has to be compiled is, before the lock is taken.
                Ok(object) => {
                    let issuer = RegisteredIssuer::parse(&object);
                    snapshot.update_issuers(|issuers| issuers.insert(issuer));
                }
                Err(invalid) => {
                    tracing::warn!(%name, error = %invalid, "a TrustedIssuer cannot be read and is not trusted");
                    snapshot.update_issuers(|issuers| issuers.forget(&name));
                }
            }
            tell(name);
        }
        Event::Delete(guarded) => {
            snapshot.update_issuers(|issuers| issuers.forget(&guarded.name_any()));
            tell(guarded.name_any());
        }
        Event::InitDone => {
            snapshot.update_issuers(super::IssuerIndex::complete).into_iter().for_each(tell);
        }
    })
    .await;
}

/// Keeps the live Pods of `snapshot` current, for ever.
pub async fn pods(client: kube::Client, snapshot: Arc<Snapshot>) {
    live::<Pod>(client, snapshot, Source::Pods, None).await;
}

/// Keeps the live ServiceAccounts of `snapshot` current and tells `agents` which Agents list one that came or went, for ever.
pub async fn service_accounts(client: kube::Client, snapshot: Arc<Snapshot>, agents: UnboundedSender<AgentEvent>) {
    live::<ServiceAccount>(client, snapshot, Source::ServiceAccounts, Some(agents)).await;
}

/// Keeps the live objects of one kind current from a metadata-only watch; with `agents`, also their names.
async fn live<K>(client: kube::Client, snapshot: Arc<Snapshot>, source: Source, agents: Option<UnboundedSender<AgentEvent>>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<Meta<K>> = Api::all(client);
    let uids = |workloads: &mut Workloads, change: &mut dyn FnMut(&mut LiveSet<Uuid>)| match source {
        Source::Pods => change(&mut workloads.pods),
        _ => change(&mut workloads.service_accounts),
    };
    let by_name = agents.is_some();
    let uid_of = |object: &Meta<K>| object.meta().uid.as_deref().and_then(|uid| Uuid::parse_str(uid).ok());
    let name_of = |object: &Meta<K>| (object.namespace().unwrap_or_default(), object.name_any());
    let is_ending = |object: &Meta<K>| object.meta().deletion_timestamp.is_some();
    // A send fails only while the process ends.
    let affects = |(namespace, name): &(String, String)| {
        let Some(agents) = &agents else { return };
        let holding = Holding::service_account(namespace, name);
        let ids: Vec<AgentId> = snapshot.agents().claimants(&holding).map(|agent| agent.id.clone()).collect();
        ids.into_iter().for_each(|id| _ = agents.send(AgentEvent::Affected(id)));
    };
    keep(api, &snapshot, source, |event| match event {
        Event::Init => {
            snapshot.update_workloads(|w| {
                uids(w, &mut LiveSet::begin);
                if by_name {
                    w.service_account_names.begin();
                }
            });
        }
        Event::InitApply(object) => {
            if let Some(uid) = uid_of(&object) {
                snapshot.update_workloads(|w| {
                    uids(w, &mut |set| set.listed(uid, is_ending(&object)));
                    if by_name {
                        w.service_account_names.listed(name_of(&object), is_ending(&object));
                    }
                });
            }
        }
        Event::Apply(object) => {
            if let Some(uid) = uid_of(&object) {
                let changed = snapshot.update_workloads(|w| {
                    uids(w, &mut |set| _ = set.applied(uid, is_ending(&object)));
                    by_name && w.service_account_names.applied(name_of(&object), is_ending(&object))
                });
                if changed {
                    affects(&name_of(&object));
                }
            }
        }
        Event::Delete(object) => {
            if let Some(uid) = uid_of(&object) {
                let changed = snapshot.update_workloads(|w| {
                    uids(w, &mut |set| _ = set.deleted(&uid));
                    by_name && w.service_account_names.deleted(&name_of(&object))
                });
                if changed {
                    affects(&name_of(&object));
                }
            }
        }
        Event::InitDone => {
            let before = snapshot.update_workloads(|w| {
                uids(w, &mut |set| _ = set.complete());
                // Not when the pods are complete: the list of ServiceAccounts may have begun, and would be taken for all of them.
                if by_name { w.service_account_names.complete() } else { None }
            });
            if by_name {
                relisted(&snapshot, before.as_ref()).iter().for_each(affects);
            }
        }
    })
    .await;
}

/// The ServiceAccounts that an Agent lists and of which a new list says something else than the one before. Before the first, each
/// was taken to be there.
fn relisted(snapshot: &Snapshot, before: Option<&HashSet<(String, String)>>) -> Vec<(String, String)> {
    let (agents, workloads) = (snapshot.agents(), snapshot.workloads());
    let listed = agents
        .iter()
        .flat_map(|agent| agent.credentials.service_accounts.iter().map(|name| (agent.id.namespace().to_owned(), name.clone())));
    let changed = |name: &(String, String)| {
        before.is_none_or(|before| before.contains(name)) != workloads.service_account_names.contains(name)
    };
    listed.filter(changed).collect()
}

/// Runs the watch of `source` for ever, and takes note of how current it is.
async fn keep<K>(api: Api<K>, snapshot: &Snapshot, source: Source, mut handle: impl FnMut(Event<K>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let freshness = &snapshot.freshness;
    let page = if matches!(source, Source::Pods | Source::ServiceAccounts) { PAGE_OF_NAMES } else { PAGE };
    follow_with(api, watcher::Config::default().page_size(page), source.as_str(), |event| {
        let is_complete = matches!(event, Event::InitDone);
        match event {
            Event::Init => freshness.listing(source),
            // However many pages a list has, they are of the moment at which the first was read.
            Event::InitApply(_) | Event::InitDone => freshness.read_anew(source, Instant::now()),
            Event::Apply(_) | Event::Delete(_) => {}
        }
        handle(event);
        if is_complete {
            freshness.complete(source);
        }
    })
    .await;
}

/// Runs one watch for ever. Errors are retried: the age of the view says how long that may last.
pub(crate) async fn follow<K>(api: Api<K>, what: &str, handle: impl FnMut(Event<K>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    follow_with(api, watcher::Config::default(), what, handle).await;
}

/// Runs a watch of the one object of that name for ever.
pub(crate) async fn follow_one<K>(api: Api<K>, name: &str, what: &str, handle: impl FnMut(Event<K>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    // RBAC knows of it as of a watch of this name alone.
    follow_with(api, watcher::Config::default().fields(&format!("metadata.name={name}")), what, handle).await;
}

async fn follow_with<K>(api: Api<K>, config: watcher::Config, what: &str, mut handle: impl FnMut(Event<K>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, config.timeout(WATCH_SECONDS)));
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
