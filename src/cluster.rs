//! The client of the Kubernetes API: bounded in time, and it tells when a watch was last opened and what time it is there.

mod on_behalf;

pub use on_behalf::{OnBehalf, TOKEN_MAX};

use crate::snapshot::{Snapshot, Source};
use crate::time::Clock;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822::DateTimeParser;
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

/// How long connecting may take.
const CONNECT_WITHIN: Duration = ANSWER_WITHIN;

/// A client for `config` that reports to `snapshot` each watch that the API server opens, and the API server's time.
///
/// # Errors
/// If the configuration cannot be used, for example because a file that it names cannot be read.
pub fn client(mut config: kube::Config, snapshot: &Arc<Snapshot>, clock: Clock) -> Result<kube::Client, kube::Error> {
    config.connect_timeout = Some(CONNECT_WITHIN);
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&TimeoutLayer::new(ANSWER_WITHIN))
        .with_layer(&Answers { snapshot: Arc::clone(snapshot), clock })
        .build())
}

/// Which watch a request opens, if any. Only watches over all namespaces are part of the view, and that of our own Secret: there is no
/// other Secret that we watch.
fn watch_of<B>(request: &Request<B>) -> Option<Source> {
    let is_watch = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "watch=true" || p == "watch=1"));
    match request.uri().path() {
        "/apis/countersign.dev/v1alpha1/agents" if is_watch => Some(Source::Agents),
        "/apis/countersign.dev/v1alpha1/jitrequests" if is_watch => Some(Source::Requests),
        "/apis/countersign.dev/v1alpha1/capabilities" if is_watch => Some(Source::Capabilities),
        "/apis/countersign.dev/v1alpha1/trustedissuers" if is_watch => Some(Source::Issuers),
        "/api/v1/pods" if is_watch => Some(Source::Pods),
        "/api/v1/serviceaccounts" if is_watch => Some(Source::ServiceAccounts),
        path if is_watch && path.starts_with("/api/v1/namespaces/") && path.ends_with("/secrets") => Some(Source::Keys),
        _ => None,
    }
}

/// The time in an answer (RFC 9110 section 6.6.1), in seconds since the epoch.
fn date(headers: &HeaderMap) -> Option<i64> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    let date = headers.get(header::DATE)?.to_str().ok()?;
    PARSER.parse_timestamp(date).ok().map(Timestamp::as_second)
}

/// Notes when the API server opened a watch, and what time it is there. The watcher above hides bookmarks, so that an opening every
/// few seconds is the sign of life of a quiet watch.
#[derive(Debug, Clone)]
struct Answers {
    snapshot: Arc<Snapshot>,
    clock: Clock,
}

impl<S> Layer<S> for Answers {
    type Service = NotingAnswers<S>;

    fn layer(&self, inner: S) -> NotingAnswers<S> {
        NotingAnswers { inner, answers: self.clone() }
    }
}

#[derive(Debug, Clone)]
struct NotingAnswers<S> {
    inner: S,
    answers: Answers,
}

impl<S, B, R> Service<Request<B>> for NotingAnswers<S>
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
        let Answers { snapshot, clock } = self.answers.clone();
        let (asked, asked_at) = (Instant::now(), clock.now().as_second());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(date) = date(answer.headers()) {
                snapshot.freshness.clocks_compared(date, asked_at, clock.now().as_second());
            }
            if let (Some(source), StatusCode::OK) = (watch, answer.status()) {
                snapshot.freshness.heard(source, asked);
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let headers = HeaderMap::from_iter([(header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().expect("a value"))]);
        assert_eq!(date(&headers), Some(784_111_777));
        assert_eq!(date(&HeaderMap::new()), None);
    }
}
