//! How long a request is on its way to the people who decide: from when an agent asked until its row is painted on a page of the portal
//! that is open, in Chromium.

use crate::approval::{Agent, PERSON, client, prepare};
use crate::fixture::AGENTS_NAMESPACE;
use crate::milliseconds;
use crate::support::browser::Scenario;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::install_chart;
use crate::support::operator::{Operator, OperatorOptions};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many requests are measured.
const REQUESTS: usize = 200;
/// How many come before that and do not count.
const WARM_UP: usize = 8;
/// Within how many milliseconds 99 of 100 rows should be there.
const BAR: f64 = 1000.0;

/// Measures one request after the other, each withdrawn when it was shown, and returns the line to be printed.
pub fn run(runtime: &tokio::runtime::Runtime) -> Value {
    let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
    install_chart(&cluster, 4, &[]).expect("the chart installs");
    let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
    let operator = Operator::start(&cluster, binary, &OperatorOptions::default()).expect("the operator starts");
    let (credentials, client) = (prepare(&cluster, &operator), client(&operator));
    let settings = json!({
        "portal": operator.url(),
        "namespace": AGENTS_NAMESPACE,
        "tokens": {"person": cluster.token(PERSON).expect("a user")},
    });
    let mut scenario = Scenario::start("latency.mjs", "rows", &[operator.ca_file()], &settings).expect("started");
    scenario.reaches("open").expect("the inbox is open");
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + REQUESTS {
        let agent = Agent::in_turn(&client, &operator, &credentials, number);
        let sent = now();
        let uid = runtime.block_on(agent.ask(number));
        let accepted = now();
        scenario.answer(&json!({"uid": uid}));
        let shown = scenario.reaches("shown").expect("it is shown").as_f64().expect("a time") / 1000.0;
        assert!(shown > sent, "shown before it was asked for");
        if number >= WARM_UP {
            asked.push(shown - sent);
            answered.push((shown - accepted).max(0.0));
        }
        runtime.block_on(agent.withdraw(&uid));
    }
    scenario.answer(&json!({}));
    scenario.ends().expect("it ends well");
    let at = |percent: usize, took: &[f64]| {
        let mut sorted = took.to_vec();
        sorted.sort_by(f64::total_cmp);
        milliseconds(sorted[sorted.len() * percent / 100])
    };
    if at(99, &asked) > BAR {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        eprintln!("bench: requests are shown later than after {BAR} ms; the load of this machine is {}", load.trim_end());
    }
    json!({
        "bench": "portal_row",
        "requests": REQUESTS,
        "from": "asked",
        "p50_ms": at(50, &asked),
        "p99_ms": at(99, &asked),
        "answered_p50_ms": at(50, &answered),
        "answered_p99_ms": at(99, &answered),
    })
}

/// The clock that the browser has too, in seconds.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs_f64()
}
