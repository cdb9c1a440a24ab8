//! How long it takes until people are told: from an agent's question until a webhook has it.
//!
//! One question after the other, over TLS to the operator; the operator makes the JitRequest, takes it in, queues the message in its database
//! and sends it over TLS, and the receiver verifies it. Its clock is that of this machine.

use crate::approval::{Agent, client, prepare};
use crate::fixture::PATIENCE;
use crate::milliseconds;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::install_chart;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::receiver::Receiver;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many questions are measured.
const REQUESTS: usize = 200;
/// How many come before that and do not count.
const WARM_UP: usize = 8;
/// How long after one question the next comes. People are not asked faster.
const APART: Duration = Duration::from_millis(100);
/// Within how many milliseconds 99 of 100 should be told.
const BAR: f64 = 1000.0;

/// Measures and returns the line to be printed. A message that does not come, comes twice or is not ours ends the benchmark.
pub async fn run() -> Value {
    let receiver = Receiver::start().expect("a receiver");
    let config = json!({"receivers": [receiver.webhook("people", "people")], "routes": [{"receiver": "people"}]});
    let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
    install_chart(&cluster, 4, &[]).expect("the chart installs");
    let options = OperatorOptions { args: receiver.configure(&config).expect("written"), ..OperatorOptions::default() };
    let operator =
        Operator::start(&cluster, Path::new(env!("CARGO_BIN_EXE_countersign")), &options).expect("the operator starts");
    let credentials = prepare(&cluster, &operator);
    let client = client(&operator);
    let mut asked = HashMap::new();
    for number in 0..WARM_UP + REQUESTS {
        let agent = Agent::in_turn(&client, &operator, &credentials, number);
        let at = milliseconds_now();
        let uid = agent.ask(number).await;
        if number >= WARM_UP {
            asked.insert(format!("{uid}.requested"), at);
        }
        // Nobody may have more than a few open: it is withdrawn once people have been told.
        tokio::time::sleep(APART).await;
        agent.withdraw(&uid).await;
    }
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let lines = receiver.received().expect("lines");
        let told: Vec<(String, f64)> = lines
            .iter()
            .filter_map(|line| {
                assert_eq!(line["wrong"], Value::Null, "{line}");
                let id = line["id"].as_str()?;
                Some((id.to_owned(), line["at"].as_f64()? - asked.get(id)?))
            })
            .collect();
        if told.len() >= REQUESTS || Instant::now() > deadline {
            break told;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(told.len(), REQUESTS, "each is told once");
    let mut took: Vec<f64> = told.into_iter().map(|(_, took)| took / 1000.0).collect();
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| milliseconds(took[took.len() * percent / 100]);
    if at(99) > BAR {
        eprintln!("bench: people are told later than after {BAR} ms");
    }
    json!({"bench": "notification", "requests": REQUESTS, "p50_ms": at(50), "p99_ms": at(99), "max_ms": milliseconds(took[took.len() - 1])})
}

fn milliseconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1000.0
}
