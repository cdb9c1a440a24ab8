//! Traces (OpenTelemetry): a span for each request, below whatever the caller was doing (W3C Trace Context), so that a call of an agent is
//! seen from its beginning to the record of what we decided.
//!
//! A span says what the record of the request says, and no more: a record holds no token (`audit::record`). Spans are made of records when
//! these are written, so nothing about them can slow or change what is decided; they are sent in the background, and dropped where nobody
//! takes them.

use crate::audit::{Field, Outcome, Record};
use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::time::{Duration, SystemTime};

/// How long a collector may take for a batch, and the end of the process waits for the last one.
const SEND_WITHIN: Duration = Duration::from_secs(3);

/// The span in which the caller was, as its `traceparent` and `tracestate` headers say. What is not as the standard demands is as good as
/// nothing: <https://www.w3.org/TR/trace-context/#traceparent-header>.
#[must_use]
pub fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    if !headers.contains_key("traceparent") {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    /// A header that occurs more than once says nothing.
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { value.to_str().ok() }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Sends spans to the collector at `endpoint`, by OTLP over HTTP: those of callers who trace, and `ratio` of all others. The standard
    /// variables `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_BSP_*` are honoured.
    ///
    /// # Errors
    /// If the endpoint cannot be meant.
    pub fn start(endpoint: &str, ratio: f64, instance: &str) -> Result<Self, ExporterBuildError> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(url).with_timeout(SEND_WITHIN).build()?;
        let named = [
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let resource = Resource::builder().with_service_name("countersign").with_attributes(named).build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer("countersign");
        Ok(Self { provider, tracer })
    }

    /// Makes the span of a request from its record, which began to be written at `written` and is durable now, or never will be.
    pub fn request(&self, record: &Record, written: SystemTime) {
        let end = SystemTime::now();
        let begun = end.checked_sub(record.age()).unwrap_or(end);
        let (outcome, reason) = record.conclusion();
        let status = if outcome == Outcome::Error { Status::error(reason) } else { Status::Unset };
        let parent = record.caller_span().map_or_else(Context::new, |span| Context::new().with_remote_span_context(span.clone()));
        let builder = SpanBuilder::from_name(record.event())
            .with_kind(SpanKind::Server)
            .with_start_time(begun)
            .with_attributes(attributes(record));
        let mut span = builder.start_with_context(&self.tracer, &parent);
        if !span.is_recording() {
            return;
        }
        span.set_status(status);
        let within = Context::new().with_remote_span_context(span.span_context().clone());
        let writing = SpanBuilder::from_name("audit.append").with_kind(SpanKind::Internal).with_start_time(written);
        writing.start_with_context(&self.tracer, &within).end_with_timestamp(end);
        span.end_with_timestamp(end);
    }

    /// Sends what is left.
    pub async fn end(&self) {
        let provider = self.provider.clone();
        // It blocks until the sender's own thread is done.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(SEND_WITHIN)).await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans may not have been sent"),
            Err(error) => tracing::warn!(%error, "the last spans may not have been sent"),
        }
    }
}

/// What a record says, with the chain as what it is: a list.
fn attributes(record: &Record) -> Vec<KeyValue> {
    let (outcome, reason) = record.conclusion();
    let own = [
        KeyValue::new("countersign.outcome", outcome.as_str()),
        KeyValue::new("countersign.reason", reason),
        KeyValue::new("countersign.request_id", record.request_id().to_owned()),
    ];
    let said = record.fields().map(|(name, value)| {
        let value = match (name, value) {
            ("chain", Field::Text(text)) => {
                Value::Array(Array::String(text.split(' ').map(|link| StringValue::from(link.to_owned())).collect()))
            }
            (_, Field::Text(text)) => Value::String(text.clone().into()),
            (_, Field::Number(number)) => Value::I64(i64::try_from(*number).unwrap_or(i64::MAX)),
        };
        KeyValue::new(key(name), value)
    });
    own.into_iter().chain(said).collect()
}

/// The name of an attribute: the standard one where there is one (OpenTelemetry semantic conventions).
fn key(field: &'static str) -> opentelemetry::Key {
    match field {
        "client_address" => "client.address".into(),
        field => format!("countersign.{field}").into(),
    }
}
