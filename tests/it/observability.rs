//! What an operator can be seen to do: metrics and spans.

use crate::chains::{TYPE_ACCESS_TOKEN, Team};
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, TOKEN_EXCHANGE, World, wait_until};
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

/// Takes spans as a collector does, by OTLP over HTTP, and keeps them as they came. It stands in for a collector, of which only this
/// matters here; what it reads with is the project's own definition of the protocol.
pub struct Collector {
    url: String,
    taken: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    fn start() -> Self {
        let taken: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let take = |State(taken): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| async move {
            taken.lock().expect("a lock").push(body);
        };
        let service = axum::Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&taken));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, service).await.expect("served");
            });
        });
        Self { url, taken }
    }

    /// The spans of a trace.
    fn spans(&self, trace: &str) -> Vec<Span> {
        let taken = self.taken.lock().expect("a lock");
        let requests = taken.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).expect("OTLP"));
        let spans = requests.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
        let of_trace = |span: &Span| span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == trace;
        spans.flat_map(|scope| scope.spans).filter(of_trace).collect()
    }

    fn holds(&self, text: &str) -> bool {
        let taken = self.taken.lock().expect("a lock");
        taken.iter().any(|body| body.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

/// A world in which spans are taken, and its collector.
pub fn watched() -> &'static (World, Collector) {
    static WATCHED: OnceLock<(World, Collector)> = OnceLock::new();
    WATCHED.get_or_init(|| {
        let collector = Collector::start();
        let endpoint = format!("--otlp-endpoint={}", collector.url);
        let args = [endpoint.as_str(), "--trace-sample-ratio=0"];
        (World::start_shareable_on(&crate::support::cluster::ClusterOptions::default(), &args), collector)
    })
}

fn text(span: &Span, key: &str) -> Option<Any> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

#[test]
fn a_request_is_a_span_of_its_callers_trace_with_the_chain_and_without_a_token() {
    let (world, collector) = watched();
    let team = Team::start_in(world, "traced");
    let subject_token = team.called_by_itself();
    let trace = format!("{:032x}", rand_u128());
    let sent = world
        .http
        .post(format!("{}/oauth2/token", world.operator.url()))
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .form(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", subject_token.as_str()),
            ("subject_token_type", TYPE_ACCESS_TOKEN),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", team.credential("search")),
            ("audience", DOCS),
        ]);
    let reply = Reply::from(sent.send().expect("an answer")).expect(200);
    let record = world.record_of(&reply);
    assert_eq!(record["trace_id"], trace.as_str(), "the record names the trace");
    wait_until("its spans arrive", PATIENCE, || collector.spans(&trace).len() == 2);
    let spans = collector.spans(&trace);
    let request = spans.iter().find(|span| span.name == "token.issue").expect("the request");
    let append = spans.iter().find(|span| span.name == "audit.append").expect("the record");
    assert_eq!(request.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    assert_eq!(append.parent_span_id, request.span_id);
    assert!(request.start_time_unix_nano <= append.start_time_unix_nano);
    assert!(append.end_time_unix_nano <= request.end_time_unix_nano && append.start_time_unix_nano < append.end_time_unix_nano);
    let Some(Any::ArrayValue(chain)) = text(request, "countersign.chain") else { panic!("no chain in {request:?}") };
    let links: Vec<Any> = chain.values.into_iter().filter_map(|link| link.value).collect();
    let expected = ["bot", "search"].map(|name| Any::StringValue(team.subject(name)));
    assert_eq!(links, expected);
    let request_id = reply.request_id.clone().expect("an id");
    assert_eq!(text(request, "countersign.request_id"), Some(Any::StringValue(request_id)));
    assert_eq!(text(request, "countersign.outcome"), Some(Any::StringValue("allow".to_owned())));
    for secret in [subject_token.as_str(), team.credential("search"), &reply.text("access_token")] {
        assert!(!collector.holds(secret) && !collector.holds(&secret[secret.len() - 40..]));
    }
}

#[test]
fn who_does_not_trace_has_no_span_where_the_ratio_is_zero_and_a_bad_header_is_none() {
    let (world, collector) = watched();
    let trace = format!("{:032x}", rand_u128());
    let bad = [
        format!("00-{trace}-0000000000000000-01"),
        format!("00-{trace}-00f067aa0ba902b7"),
        format!("ff-{trace}-00f067aa0ba902b7-01"),
        format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
        format!("00-{trace}-00f067aa0ba902b7-00"),
        "x".repeat(9000),
    ];
    let url = format!("{}/oauth2/token", world.operator.url());
    let refused = |header: &str| {
        let sent = world.http.post(&url).header("traceparent", header).form(&[("grant_type", "x")]).send();
        Reply::from(sent.expect("an answer")).refused(400, "unsupported_grant_type")
    };
    bad.iter().for_each(|header| _ = refused(header));
    let twice = world.http.post(&url).header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let twice = twice.header("traceparent", format!("00-{trace}-00f067aa0ba902b8-01")).form(&[("grant_type", "x")]);
    Reply::from(twice.send().expect("an answer")).refused(400, "unsupported_grant_type");
    // One that counts, after all of them: what is sent is sent in order.
    let last = format!("{:032x}", rand_u128());
    refused(&format!("00-{last}-00f067aa0ba902b7-01"));
    wait_until("the last one arrives", PATIENCE, || !collector.spans(&last).is_empty());
    assert_eq!(collector.spans(&trace).len(), 0);
}

fn rand_u128() -> u128 {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    u128::from_ne_bytes(bytes) | 1
}

/// The lines of the metrics that are values.
fn series(world: &World) -> Vec<String> {
    let metrics = world.operator.get("/metrics").expect("metrics").body;
    metrics.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// The names of the series with their labels.
fn names(world: &World) -> BTreeSet<String> {
    series(world).iter().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[test]
fn metrics_say_how_much_how_long_and_how_old() {
    let (world, _) = watched();
    let tenant = world.tenant("measured");
    world.exchange(&tenant.token).expect(200);
    world.exchange("a.b.c").refused(400, "invalid_request");
    let at_least = |name: &str, least: f64| {
        let line = series(world).into_iter().find(|line| line.rsplit_once(' ').is_some_and(|(series, _)| series == name));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        let value: f64 = line.rsplit_once(' ').expect("a value").1.parse().expect("a number");
        assert!(value >= least, "{line}");
    };
    at_least("countersign_outcomes_total{event=\"token.issue\",outcome=\"allow\",reason=\"granted\"}", 1.0);
    at_least("countersign_request_duration_seconds_count{event=\"token.issue\",outcome=\"allow\"}", 1.0);
    at_least("countersign_request_duration_seconds_bucket{le=\"10.0\",event=\"token.issue\",outcome=\"allow\"}", 1.0);
    for source in ["agents", "jitrequests", "capabilities", "trustedissuers", "pods", "serviceaccounts", "secret", "lease"] {
        at_least(&format!("countersign_watch_age_seconds{{source=\"{source}\"}}"), 0.0);
    }
    at_least("countersign_agents{state=\"standing\"}", 1.0);
    for phase in ["Pending", "Approved", "Denied", "Expired", "Cancelled", "Issued", "Completed", "Revoked"] {
        at_least(&format!("countersign_jit_requests{{phase=\"{phase}\"}}"), 0.0);
    }
    at_least("countersign_requests_in_flight", 0.0);
    at_least("countersign_store_queue", 0.0);
    at_least("countersign_build_info{version=\"0.1.0\"}", 1.0);
    at_least("process_resident_memory_bytes", 1_000_000.0);
    at_least("process_open_fds", 5.0);
    at_least("process_max_fds", 64.0);
    at_least("process_cpu_seconds_total", 0.01);

    tenant.patch(&json!({"spec": {"suspended": true}}));
    wait_until("it is counted as suspended", PATIENCE, || names(world).contains("countersign_agents{state=\"agent_suspended\"}"));
    wait_until("all that it held is revoked", PATIENCE, || tenant.agent()["status"]["revocationEpoch"].as_u64() > Some(0));
    wait_until("epochs are summed", PATIENCE, || {
        let line = series(world).into_iter().find(|line| line.starts_with("countersign_revocation_epochs "));
        line.is_some_and(|line| !line.ends_with(" 0"))
    });
}

#[test]
fn h17_nothing_that_callers_send_becomes_a_label() {
    let (world, _) = watched();
    let post = |path: &str, form: &[(&str, &str)]| _ = world.post(path, form);
    post("/oauth2/token", &[("grant_type", "label-a")]);
    let before = names(world);
    for i in 0..200 {
        let name = format!("label-{i}");
        post("/oauth2/token", &[("grant_type", &name), ("client_id", &name)]);
        post(&format!("/{name}"), &[]);
        post("/oauth2/introspect", &[("token", &name)]);
        post("/oauth2/revoke", &[("token", &name)]);
    }
    let after = names(world);
    assert!(after.iter().all(|series| !series.contains("label-")), "{after:?}");
    // A few more events and reasons, each with its buckets; not one for each request.
    assert!(after.len() < before.len() + 150, "{} series became {}", before.len(), after.len());
    // The metrics are on the port for them alone.
    let reply = world.http.get(format!("{}/metrics", world.operator.url())).send().expect("an answer");
    assert_eq!(reply.status().as_u16(), 404);
}
