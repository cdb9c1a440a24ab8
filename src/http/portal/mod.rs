//! `/portal`: pages on which people see what agents ask, decide, register agents, and read what was recorded.
//!
//! The portal holds no power. Everything that it shows of Kubernetes was asked of the API server with the own token of whoever looks, and
//! everything that it changes is a request that the same person could have sent with kubectl, which the pages also show. What the API
//! server refuses is refused, with its reason.
//!
//! All pages work without scripts; htmx only brings them up to date.

mod agents;
mod assets;
mod audit;
mod chain;
mod claims;
mod decide;
mod events;
mod guard;
mod inbox;
mod manifest;
mod oidc;
mod page;
mod request;
mod session;
mod sign_in;

use super::error::Refusal;
use super::form::Form;
use super::{App, ClientAddress, REQUEST_WITHIN, begin, kubernetes, settle};
use crate::audit::Record;
use crate::config::PortalArgs;
use crate::grammar::{AgentId, is_dns_label, is_dns_subdomain};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use page::{Text, encoded};
use session::Session;
use std::sync::Arc;

/// Sent by htmx with what it asks for by itself.
const HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");
/// Where htmx is to go with the whole page.
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// The portal.
#[derive(Debug)]
pub struct Portal {
    /// Scheme, host and port at which people reach it.
    origin: String,
    /// Whether browsers may be told to come over TLS only: for a host whose name is its own.
    is_strict: bool,
    /// Where people sign in.
    provider: Option<oidc::Provider>,
    /// Places for pages that follow what happens.
    places: Arc<events::Places>,
}

impl Portal {
    /// As the flags say, if they switch it on.
    ///
    /// # Errors
    /// What cannot be used of them.
    pub fn new(args: &PortalArgs, issuer: &str) -> Result<Option<Self>, String> {
        if !args.portal {
            return Ok(None);
        }
        let url = args.url(issuer);
        let uri: axum::http::Uri = url.parse().map_err(|_| "--portal-url is no URL".to_owned())?;
        let authority = uri.authority().ok_or_else(|| "--portal-url names no host".to_owned())?.as_str();
        Ok(Some(Self {
            origin: format!("https://{authority}"),
            provider: oidc::Provider::new(args, &url)?,
            is_strict: args.portal_url.is_some() && uri.port().is_none(),
            places: Arc::default(),
        }))
    }
}

/// The pages.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/portal", any(endpoint)).route("/portal/", any(endpoint)).route("/portal/{*page}", any(endpoint))
}

/// A request of somebody who is signed in.
struct Visit {
    app: Arc<App>,
    address: Option<ClientAddress>,
    asked: Vec<(String, String)>,
    session: Session,
    /// The API server, with their token.
    client: kube::Client,
    now: u64,
}

impl Visit {
    /// A parameter of the query. Of two there is none.
    fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.asked.iter().filter(|(known, _)| known == name);
        values.next().filter(|_| values.next().is_none()).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The namespace that was chosen.
    fn namespace(&self) -> Result<Option<&str>, Refusal> {
        match self.get("namespace") {
            Some(namespace) if !is_dns_label(namespace) => Err(Refusal::malformed("namespace is no name of a namespace")),
            namespace => Ok(namespace),
        }
    }
}

async fn endpoint(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let Some(portal) = &app.portal else { return super::not_found(State(app), request).await };
    let mut response = match app.in_flight.try_acquire() {
        Ok(_permit) => match tokio::time::timeout(REQUEST_WITHIN, answer(&app, portal, request)).await {
            Ok(response) => response,
            Err(_) => {
                let refusal = Refusal::new("invalid_request", "request_timeout", "this took longer than 10 s");
                page::problem(None, refusal.status(StatusCode::REQUEST_TIMEOUT).closing())
            }
        },
        Err(_) => page::problem(None, Refusal::overloaded()),
    };
    page::secure(&mut response, portal);
    response
}

async fn answer(app: &Arc<App>, portal: &Portal, request: Request<Body>) -> Response {
    let path = request.uri().path().strip_prefix("/portal").unwrap_or_default().to_owned();
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    // hyper leaves the body of an answer to HEAD away.
    let is_get = request.method() == Method::GET || request.method() == Method::HEAD;
    let is_post = request.method() == Method::POST;
    match steps.as_slice() {
        ["assets", version, name] if is_get => return assets::serve(version, name),
        ["sign-in"] if is_get => return sign_in::form(app, &request.into_parts().0, None),
        ["sign-in", "provider"] if is_get => {
            let (head, _) = request.into_parts();
            return oidc::start(portal, &head).await.unwrap_or_else(|refusal| sign_in::form(app, &head, Some(&refusal)));
        }
        ["callback"] if is_get => return oidc::callback(app, portal, request).await,
        ["sign-in"] if is_post => return sign_in::with_token(app, portal, request).await,
        ["sign-out"] if is_post => return sign_in::out(app, portal, request).await,
        _ => {}
    }
    let (head, body) = request.into_parts();
    let visit = match visit(app, &head).await {
        Ok(Some(visit)) => visit,
        Ok(None) => return without_session(&head),
        Err(refusal) => return page::problem(None, refusal),
    };
    match (is_get, is_post) {
        (true, _) => get(&visit, &steps).await.unwrap_or_else(|refusal| page::problem(Some(&visit), refusal)),
        (_, true) => post(&visit, portal, &steps, Request::from_parts(head, body)).await,
        _ => page::problem(Some(&visit), Refusal::method("GET, HEAD, POST").closing()),
    }
}

/// What somebody who is signed in looks at. Nothing changes by it.
async fn get(visit: &Visit, steps: &[&str]) -> Result<Response, Refusal> {
    match steps {
        [] => inbox::page(visit).await,
        ["requests", namespace, name] => request::page(visit, &Place::of(namespace, name)?, None).await,
        ["agents"] => agents::list(visit).await,
        ["agents", "new"] => agents::blank(visit),
        ["agents", namespace, name] => agents::one(visit, &agent(namespace, name)?).await,
        ["agents", namespace, name, "edit"] => agents::edit(visit, &agent(namespace, name)?).await,
        ["audit"] => audit::records(visit).await,
        ["audit", "trace"] => audit::trace(visit).await,
        ["events", "requests"] => events::follow(visit, visit.namespace()?, None).await,
        ["events", "requests", namespace, name] => {
            let place = Place::of(namespace, name)?;
            events::follow(visit, Some(&place.namespace), Some(&place.name)).await
        }
        ["sign-out"] => Err(Refusal::method("POST")),
        _ => Err(not_there()),
    }
}

/// What somebody who is signed in does. Each is one record.
async fn post(visit: &Visit, portal: &Portal, steps: &[&str], request: Request<Body>) -> Response {
    let (event, again): (_, Option<Place>) = match steps {
        ["requests", namespace, name] => ("portal.decide", Place::of(namespace, name).ok()),
        // Nothing is written yet: what would be is shown, and what the API server would say to it.
        ["agents", "review"] => ("portal.review", None),
        ["agents"] => ("portal.register", None),
        _ => return page::problem(Some(visit), not_there().closing()),
    };
    let mut record = begin(event, &request);
    record.text("by", visit.session.user.username.as_str());
    let result = act(visit, portal, steps, request, &mut record).await;
    let (record, result) = settle(&visit.app, record, result).await;
    let response = match (result, again) {
        (Ok(response), _) => response,
        // The page that it was about, with what was said to it.
        (Err(refusal), Some(place)) => {
            request::page(visit, &place, Some(&refusal)).await.unwrap_or_else(|_| page::problem(Some(visit), refusal))
        }
        (Err(refusal), None) => page::problem(Some(visit), refusal),
    };
    identified(response, &record)
}

async fn act(
    visit: &Visit,
    portal: &Portal,
    steps: &[&str],
    request: Request<Body>,
    record: &mut Record,
) -> Result<Response, Refusal> {
    guard::same_origin(request.headers(), &portal.origin).map_err(Refusal::closing)?;
    let form = Form::read_with_lines(request, &["yaml"]).await?;
    guard::same_session(form.raw(guard::FIELD), &visit.session)?;
    match steps {
        ["requests", namespace, name] => decide::decide(visit, &Place::of(namespace, name)?, &form, record).await,
        ["agents", "review"] => agents::review(visit, &form, record).await,
        ["agents"] => agents::apply(visit, &form, record).await,
        _ => Err(not_there()),
    }
}

/// Whoever the cookie says, if it opens a session.
async fn visit(app: &Arc<App>, head: &Parts) -> Result<Option<Visit>, Refusal> {
    let now = app.clock.seconds();
    // What a page asks for by itself keeps nobody signed in.
    let is_use = !head.headers.contains_key(HX_REQUEST) && !head.uri.path().starts_with("/portal/events/");
    let Some(session) = session::find(app, &head.headers, is_use, now).await? else { return Ok(None) };
    let asked = super::audit::parameters(head.uri.query().unwrap_or_default())?;
    let client = kubernetes::client_of(app, &session.token)?;
    Ok(Some(Visit { app: Arc::clone(app), address: head.extensions.get().copied(), asked, session, client, now }))
}

/// To the sign-in, and from there to where they wanted to go.
fn without_session(head: &Parts) -> Response {
    let wanted = head.uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
    let to = format!("/portal/sign-in?next={}", encoded(wanted));
    let is_get = head.method == Method::GET || head.method == Method::HEAD;
    if head.headers.contains_key(HX_REQUEST) {
        let mut response = StatusCode::UNAUTHORIZED.into_response();
        response.headers_mut().insert(HX_REDIRECT, HeaderValue::from_static("/portal/sign-in"));
        return response;
    }
    // An EventSource would follow a redirect, and try for ever.
    if is_get && !wanted.starts_with("/portal/events/") {
        return page::see_other(&to).unwrap_or_else(|refusal| page::problem(None, refusal));
    }
    page::problem(None, session::needed().closing())
}

/// An object in a namespace.
#[derive(Debug, Clone)]
struct Place {
    namespace: String,
    name: String,
}

impl Place {
    /// Only what names an object reaches the path of a request to the API server.
    fn of(namespace: &str, name: &str) -> Result<Self, Refusal> {
        if is_dns_label(namespace) && is_dns_subdomain(name) {
            Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
        } else {
            Err(not_there())
        }
    }
}

/// The agent that a path names.
fn agent(namespace: &str, name: &str) -> Result<AgentId, Refusal> {
    AgentId::new(namespace, name).map_err(|_| not_there())
}

fn not_there() -> Refusal {
    Refusal::new("not_found", "not_found", "there is no such page").status(StatusCode::NOT_FOUND)
}

/// The reply with the identifier of its record.
fn identified(mut response: Response, record: &Record) -> Response {
    if let Ok(id) = HeaderValue::from_str(record.request_id()) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// The title of a page about an object.
fn titled(kind: &str, place: &Place) -> Text {
    Text::of(&format!("{kind} {}/{}", place.namespace, place.name))
}
