//! Server-Sent Events that say that something changed, and never what: the page asks for that as it did before. Behind them is a watch
//! with the person's own token, which sees what they may see.

use super::super::error::Refusal;
use super::super::kubernetes::refused;
use super::{Visit, session};
use crate::crd::JitRequest;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use kube::api::{Api, ListParams, WatchParams};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

/// How many pages follow what happens at once, and how many of one session.
const STREAMS_MAX: usize = 256;
const STREAMS_OF_ONE: usize = 12;
/// How long a page follows before it must ask anew.
const FOLLOW: Duration = Duration::from_secs(15 * 60);
/// How long one watch of the API server lasts, in seconds.
const WATCH_SECONDS: u32 = 240;
/// How soon after one change the next is told: what comes in between goes together.
const GATHER: Duration = Duration::from_millis(200);
/// How often a page hears that nothing happened, and whether its session is still there is looked at.
const BEAT: Duration = Duration::from_secs(15);

const CHANGED: Bytes = Bytes::from_static(b"event: changed\ndata: changed\n\n");
const QUIET: Bytes = Bytes::from_static(b": nothing happened\n\n");

/// Places for pages that follow what happens, so that nobody takes those of all others.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<String, usize>>);

/// The place of one page. It is free again when this is dropped.
struct Taken {
    places: Arc<Places>,
    session: String,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, session: &str) -> Option<Taken> {
        let mut taken = self.lock();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(session).copied().unwrap_or(0));
        if all >= STREAMS_MAX || own >= STREAMS_OF_ONE {
            return None;
        }
        taken.insert(session.to_owned(), own + 1);
        Some(Taken { places: Arc::clone(self), session: session.to_owned() })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.session) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = taken.remove(&self.session),
        }
    }
}

/// The stream for requests: all, those of a namespace, or one.
pub(super) async fn follow(visit: &Visit, namespace: Option<&str>, name: Option<&str>) -> Result<Response, Refusal> {
    let portal = visit.app.portal.as_ref().ok_or_else(super::not_there)?;
    let place = portal.places.take(&visit.session.id);
    let place = place.ok_or_else(|| Refusal::unavailable("too_many_streams", "too many pages follow already"))?;
    let api: Api<JitRequest> = match namespace {
        Some(namespace) => Api::namespaced(visit.client.clone(), namespace),
        None => Api::all(visit.client.clone()),
    };
    let only = name.map(|name| format!("metadata.name={name}"));
    let version = version(&api).await?;
    let (tell, told) = mpsc::channel::<Bytes>(1);
    let (app, id) = (Arc::clone(&visit.app), visit.session.id.clone());
    let mut shutdown = visit.app.shutdown.clone();
    // Something may have changed since the page was made.
    _ = tell.try_send(CHANGED);
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = watch(&api, only.as_deref(), version, &tell) => {}
            () = beat(&app, &id, &tell) => {}
            () = tell.closed() => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = sleep(FOLLOW) => {}
        }
    });
    let stream =
        futures::stream::unfold(told, |mut told| async { told.recv().await.map(|event| (Ok::<_, Infallible>(event), told)) });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// The version from which on changes are told.
async fn version(api: &Api<JitRequest>) -> Result<String, Refusal> {
    let list = api.list_metadata(&ListParams::default().limit(1)).await.map_err(refused)?;
    Ok(list.metadata.resource_version.unwrap_or_default())
}

/// Tells of each change until the API server says no.
async fn watch(api: &Api<JitRequest>, only: Option<&str>, mut from: String, tell: &mpsc::Sender<Bytes>) {
    let mut parameters = WatchParams::default().timeout(WATCH_SECONDS);
    if let Some(only) = only {
        parameters = parameters.fields(only);
    }
    loop {
        let Ok(changes) = api.watch_metadata(&parameters, &from).await else { return };
        let mut changes = std::pin::pin!(changes);
        let begun = Instant::now();
        while let Some(change) = changes.next().await {
            let is_change = match change {
                Ok(kube::api::WatchEvent::Bookmark(_)) => false,
                Ok(kube::api::WatchEvent::Error(_)) | Err(_) => break,
                Ok(_) => true,
            };
            if !is_change {
                continue;
            }
            // What follows at once goes together, but nothing is held back for longer, however much there is.
            let until = Instant::now() + GATHER;
            while timeout_at(until, changes.next()).await.is_ok_and(|more| more.is_some()) {}
            if tell.send(CHANGED).await.is_err() {
                return;
            }
        }
        if begun.elapsed() < Duration::from_secs(1) {
            sleep(Duration::from_secs(1)).await;
        }
        // Something may have been missed in between, if only that there is nothing.
        let Ok(version) = version(api).await else { return };
        if version != from && tell.send(CHANGED).await.is_err() {
            return;
        }
        from = version;
    }
}

/// Returns when the session has ended: whoever signed out, anywhere, is told nothing more.
async fn beat(app: &super::App, id: &str, tell: &mpsc::Sender<Bytes>) {
    loop {
        sleep(BEAT).await;
        if !session::lives(app, id).await || tell.send(QUIET).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2_nobody_takes_the_places_of_all() {
        let places = Arc::new(Places::default());
        let greedy: Vec<Taken> = (0..STREAMS_OF_ONE).filter_map(|_| places.take("greedy")).collect();
        assert!(greedy.len() == STREAMS_OF_ONE && places.take("greedy").is_none() && places.take("other").is_some());
        drop(greedy);
        assert!(places.lock().is_empty(), "a place that is left is free");
        let all: Vec<Taken> = (0..STREAMS_MAX).filter_map(|session| places.take(&session.to_string())).collect();
        assert!(all.len() == STREAMS_MAX && places.take("late").is_none());
    }
}
