//! `GET /revocations`: who and what is alive, signed, for verifiers that work offline; as a whole, or as Server-Sent Events that follow
//! every change.
//!
//! Public, like the keys. A view of the cluster that is too old is not signed: no answer, and the end of every stream.

use super::App;
use super::error::Refusal;
use crate::controller::credentials::SigningKeys;
use crate::revocation::State as Alive;
use crate::snapshot::Snapshot;
use crate::time::Clock;
use crate::token::{About, Statement};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

/// How often a stream says that nothing has changed.
const BEAT: Duration = Duration::from_millis(500);
/// How soon after one change the next is looked at: what comes in between goes together.
const GATHER: Duration = Duration::from_millis(20);
/// How many follow the stream at once.
const SUBSCRIBERS_MAX: usize = 256;
/// How many events a subscriber may be behind. Who is slower is cut off, and begins anew.
const BEHIND_MAX: usize = 64;
/// The statement that a state still holds, beside a 304.
const HEARTBEAT: HeaderName = HeaderName::from_static("countersign-revocations-heartbeat");

/// The state as it is told, and whom it is told to.
pub struct Feed {
    issuer: String,
    snapshot: Arc<Snapshot>,
    keys: Arc<SigningKeys>,
    /// How old the view may be, in seconds.
    bound: u64,
    clock: Clock,
    told: Mutex<Told>,
    news: broadcast::Sender<News>,
    places: Arc<Semaphore>,
}

/// What was told last.
struct Told {
    changes: watch::Receiver<()>,
    alive: Alive,
    id: String,
    as_of: u64,
    whole: Option<Signed>,
    heartbeat: Option<Signed>,
}

/// A statement that was signed, with the time that it says and the name of the state.
#[derive(Clone)]
struct Signed {
    at: Times,
    id: String,
    jwt: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Times {
    now: u64,
    as_of: u64,
}

/// What every subscriber hears.
#[derive(Clone)]
enum News {
    Event(Bytes),
    /// Nothing can be told any more.
    Stale,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Feed {
    /// Tells nothing yet. `bound` is how old the view may be, in seconds.
    #[must_use]
    pub fn new(issuer: String, snapshot: Arc<Snapshot>, keys: Arc<SigningKeys>, bound: u64, clock: Clock) -> Arc<Self> {
        let alive = Alive::default();
        let mut changes = snapshot.trust_changes();
        changes.mark_changed();
        let told = Told { changes, id: alive.id(), alive, as_of: 0, whole: None, heartbeat: None };
        let (news, _) = broadcast::channel(BEHIND_MAX);
        let places = Arc::new(Semaphore::new(SUBSCRIBERS_MAX));
        Arc::new(Self { issuer, snapshot, keys, bound, clock, told: Mutex::new(told), news, places })
    }

    /// Tells the subscribers of each change at once, and every half second that there is none, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.snapshot.trust_changes();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What fails here has been told to the subscribers.
                    _ = self.up_to_date();
                    tokio::time::sleep(GATHER).await;
                }
                _ = beat.tick() => self.beat(),
            }
        }
    }

    fn beat(&self) {
        let Ok((mut told, times)) = self.up_to_date() else { return };
        if self.news.receiver_count() > 0
            && let Ok(heartbeat) = self.heartbeat(&mut told, times)
        {
            self.tell(News::Event(event("heartbeat", &heartbeat)));
        }
    }

    /// The time, and that of the view.
    fn times(&self) -> Result<Times, Refusal> {
        let (instant, now) = (Instant::now(), self.clock.now());
        let freshness = &self.snapshot.freshness;
        freshness.check(instant).map_err(|stale| Refusal::unavailable("view_stale", stale.to_string()))?;
        let age = freshness.oldest(instant).and_then(|(_, age)| age).unwrap_or_default();
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let as_of = now.as_millisecond().saturating_sub(age).div_euclid(1000);
        Ok(Times { now: u64::try_from(now.as_second()).unwrap_or(0), as_of: u64::try_from(as_of).unwrap_or(0) })
    }

    /// The state as it is now, after the subscribers have been told what has changed; or that nothing can be told.
    fn up_to_date(&self) -> Result<(MutexGuard<'_, Told>, Times), Refusal> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // First the time, then the view: it is at least as new as is said of it.
        let times = self.times().inspect_err(|_| self.tell(News::Stale));
        // What was said once remains true: rounding takes nothing back.
        let times = times.map(|times| Times { as_of: times.as_of.max(told.as_of).min(times.now), ..times });
        match &times {
            Ok(times) => told.as_of = times.as_of,
            // While the first lists are read, every Agent is a change that nobody can be told of.
            Err(_) if self.news.receiver_count() == 0 => return times.map(|times| (told, times)),
            Err(_) => {}
        }
        if told.changes.has_changed().unwrap_or(false) {
            told.changes.mark_unchanged();
            let alive = Alive::of(&self.snapshot.view().as_view());
            if alive != told.alive {
                let (id, changes) = (alive.id(), alive.since(&told.alive));
                if let Ok(times) = &times
                    && self.news.receiver_count() > 0
                {
                    let change = Statement::Change { prev: &told.id, changes: &changes };
                    self.tell(self.sign(change, &id, *times).map_or(News::Stale, |signed| News::Event(event("change", &signed))));
                }
                told.alive = alive;
                told.id = id;
            }
        }
        Ok((told, times?))
    }

    fn sign(&self, statement: Statement<'_>, id: &str, at: Times) -> Result<Signed, Refusal> {
        let exp = at.now.saturating_add(self.bound);
        let about = About { iss: &self.issuer, iat: at.now, exp, as_of: at.as_of, id };
        let jwt = statement.sign(about, &self.keys.current());
        let jwt = jwt.map_err(|error| Refusal::unavailable("signing_failed", error.to_string()))?;
        Ok(Signed { at, id: id.to_owned(), jwt: jwt.into() })
    }

    /// All of it, signed at most once for each state and second.
    fn whole(&self, told: &mut Told, at: Times) -> Result<Signed, Refusal> {
        if let Some(known) = told.whole.as_ref().filter(|known| known.at == at && known.id == told.id) {
            return Ok(known.clone());
        }
        let signed = self.sign(Statement::Whole(&told.alive), &told.id, at)?;
        told.whole = Some(signed.clone());
        Ok(signed)
    }

    /// That it still holds, signed at most once for each state and second.
    fn heartbeat(&self, told: &mut Told, at: Times) -> Result<Signed, Refusal> {
        if let Some(known) = told.heartbeat.as_ref().filter(|known| known.at == at && known.id == told.id) {
            return Ok(known.clone());
        }
        let signed = self.sign(Statement::Heartbeat, &told.id, at)?;
        told.heartbeat = Some(signed.clone());
        Ok(signed)
    }

    fn tell(&self, news: News) {
        // An error says that there is nobody.
        _ = self.news.send(news);
    }

    /// The state to begin with, and everything that is told after it.
    fn subscribe(&self) -> Result<(Signed, Subscription), Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Refusal::unavailable("too_many_subscribers", "too many follow the stream already"))?;
        let (mut told, times) = self.up_to_date()?;
        let whole = self.whole(&mut told, times)?;
        // While the state is held, so that nothing is told in between.
        Ok((whole, Subscription { news: self.news.subscribe(), _place: place }))
    }
}

/// One who follows the stream.
struct Subscription {
    news: broadcast::Receiver<News>,
    _place: OwnedSemaphorePermit,
}

impl Subscription {
    /// The events, until there is nothing more to tell, the subscriber is too slow, or the process ends.
    fn events(self, shutdown: watch::Receiver<bool>) -> impl Stream<Item = Bytes> {
        futures::stream::unfold(Some((self, shutdown)), |following| async {
            let (mut subscription, mut shutdown) = following?;
            let heard = tokio::select! {
                heard = subscription.news.recv() => heard,
                _ = shutdown.wait_for(|stop| *stop) => return None,
            };
            match heard {
                Ok(News::Event(event)) => Some((event, Some((subscription, shutdown)))),
                Ok(News::Stale) => {
                    Some((Bytes::from_static(b"event: stale\ndata: the view of the cluster is too old\n\n"), None))
                }
                Err(RecvError::Lagged(_) | RecvError::Closed) => None,
            }
        })
    }
}

/// The endpoint.
pub(super) async fn endpoint(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let answer = if wants_events(&headers) { events(&app) } else { whole(&app, &headers) };
    answer.unwrap_or_else(|refusal| {
        let mut response = refusal.into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    })
}

fn whole(app: &App, headers: &HeaderMap) -> Result<Response, Refusal> {
    let (mut told, times) = app.feed.up_to_date()?;
    let tag = format!("\"{}\"", told.id);
    let unreadable = |_| Refusal::unavailable("reply_unwritable", "a header cannot be written");
    let (status, body, heartbeat) = if knows(headers, &tag) {
        // A 304 alone would say nothing that is signed.
        let heartbeat = app.feed.heartbeat(&mut told, times)?;
        (StatusCode::NOT_MODIFIED, Body::empty(), Some(HeaderValue::from_str(&heartbeat.jwt).map_err(unreadable)?))
    } else {
        (StatusCode::OK, Body::from(app.feed.whole(&mut told, times)?.jwt.to_string()), None)
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).map_err(unreadable)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    match heartbeat {
        Some(heartbeat) => _ = headers.insert(HEARTBEAT, heartbeat),
        None => _ = headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwt")),
    }
    Ok(response)
}

fn events(app: &App) -> Result<Response, Refusal> {
    let (whole, subscription) = app.feed.subscribe()?;
    let first = futures::stream::iter([event("snapshot", &whole)]);
    let stream = first.chain(subscription.events(app.shutdown.clone())).map(Ok::<_, Infallible>);
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store"), (header::VARY, "accept")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// One event (HTML Living Standard, section 9.2.5).
fn event(kind: &str, signed: &Signed) -> Bytes {
    format!("event: {kind}\nid: {}\ndata: {}\n\n", signed.id, signed.jwt).into()
}

/// Whether the client asks for events.
fn wants_events(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let mut types = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
    types.any(|range| range.eq_ignore_ascii_case("text/event-stream"))
}

/// Whether the client has the state of this tag (RFC 9110 section 13.1.2).
fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    tags.map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn a_client_says_what_it_wants_and_what_it_has() {
        for (accept, events) in [
            (&[] as &[&str], false),
            (&["*/*"], false),
            (&["text/event-stream"], true),
            (&["application/jwt, Text/Event-Stream;q=0.5"], true),
            (&["text/event-streams"], false),
        ] {
            assert_eq!(wants_events(&headers(&header::ACCEPT, accept)), events, "{accept:?}");
        }
        for (tags, known) in
            [(&[] as &[&str], false), (&["\"a\""], true), (&["\"x\", W/\"a\""], true), (&["*"], true), (&["a"], false)]
        {
            assert_eq!(knows(&headers(&header::IF_NONE_MATCH, tags), "\"a\""), known, "{tags:?}");
        }
    }

    #[tokio::test]
    async fn h2_who_is_too_slow_is_cut_off_and_leaves_its_place() {
        let (news, _) = broadcast::channel(BEHIND_MAX);
        let places = Arc::new(Semaphore::new(1));
        let (stop, stopped) = watch::channel(false);
        let subscribe = || {
            let place = Arc::clone(&places).try_acquire_owned().expect("a place");
            Box::pin(Subscription { news: news.subscribe(), _place: place }.events(stopped.clone()))
        };
        let mut slow = subscribe();
        for _ in 0..=BEHIND_MAX {
            _ = news.send(News::Event(Bytes::from_static(b"x")));
        }
        assert_eq!(slow.next().await, None);
        drop(slow);
        let mut prompt = subscribe();
        _ = news.send(News::Event(Bytes::from_static(b"x")));
        assert_eq!(prompt.next().await.as_deref(), Some(&b"x"[..]));
        _ = news.send(News::Stale);
        assert!(prompt.next().await.is_some_and(|event| event.starts_with(b"event: stale\n")));
        assert_eq!(prompt.next().await, None);
        drop(prompt);
        let mut last = subscribe();
        stop.send_replace(true);
        assert_eq!(last.next().await, None);
    }
}
