//! The client of the Kubernetes API: bounded in time, and it tells when a watch was last opened.

use crate::snapshot::{Snapshot, Source};
use axum::http::{Request, Response, StatusCode};
use kube::client::ClientBuilder;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::timeout::TimeoutLayer;
use tower::{Layer, Service};

/// How long the API server may take to begin an answer, a watch's included. A frozen server is noticed within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A client for `config` that reports to `snapshot` each watch that the API server opens.
///
/// # Errors
/// If the configuration cannot be used, for example because a file that it names cannot be read.
pub fn client(mut config: kube::Config, snapshot: &Arc<Snapshot>) -> Result<kube::Client, kube::Error> {
    config.connect_timeout = Some(ANSWER_WITHIN);
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&TimeoutLayer::new(ANSWER_WITHIN))
        .with_layer(&WatchOpenings { snapshot: Arc::clone(snapshot) })
        .build())
}

/// Which watch a request opens, if any. Only watches over all namespaces are part of the view.
fn watch_of<B>(request: &Request<B>) -> Option<Source> {
    let is_watch = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "watch=true" || p == "watch=1"));
    match request.uri().path() {
        "/apis/countersign.dev/v1alpha1/agents" if is_watch => Some(Source::Agents),
        "/api/v1/pods" if is_watch => Some(Source::Pods),
        "/api/v1/serviceaccounts" if is_watch => Some(Source::ServiceAccounts),
        _ => None,
    }
}

/// Notes when the API server opened a watch. The watcher above hides bookmarks, so that an opening every few seconds
/// is the sign of life of a quiet watch.
#[derive(Debug, Clone)]
struct WatchOpenings {
    snapshot: Arc<Snapshot>,
}

impl<S> Layer<S> for WatchOpenings {
    type Service = NotingOpenings<S>;

    fn layer(&self, inner: S) -> NotingOpenings<S> {
        NotingOpenings { inner, snapshot: Arc::clone(&self.snapshot) }
    }
}

#[derive(Debug, Clone)]
struct NotingOpenings<S> {
    inner: S,
    snapshot: Arc<Snapshot>,
}

impl<S, B, R> Service<Request<B>> for NotingOpenings<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watch = watch_of(&request);
        let asked = Instant::now();
        let snapshot = Arc::clone(&self.snapshot);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let (Some(source), StatusCode::OK) = (watch, answer.status()) {
                snapshot.freshness.heard(source, asked);
            }
            Ok(answer)
        })
    }
}
