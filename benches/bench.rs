//! `make bench`: what the operator does per second, beside a bare stack that does only the cryptography.
//!
//! Three processes on one machine: the operator (on a real control plane, with its audit log), the bare stack
//! ([`bare`]), and this one, which makes the load ([`load`]). The two servers are measured in turn, round by round, and the
//! ratio is the median over the rounds, so that a machine whose speed drifts disturbs neither. One JSON line for each bench.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark speaks to a terminal and fails loudly"
)]

#[path = "../tests/support/mod.rs"]
mod support;

mod bare;
mod fixture;
mod load;

use fixture::Fixture;
use load::{Measured, Target};
use serde_json::json;
use std::time::Duration;

/// Length of one round.
const ROUND: Duration = Duration::from_secs(3);
/// Rounds of each server for each bench.
const ROUNDS: usize = 3;
/// Below this rate of the bare stack at 16 connections the machine is slower than the one on which the bars were set.
const BARE_EXPECTED: f64 = 8000.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // This binary is also the bare stack, as a process of its own.
    if let Some(position) = arguments.iter().position(|a| a == bare::ARGUMENT) {
        bare::run(&arguments[position + 1..]);
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    eprintln!("bench: starting Kubernetes, the chart, the operator and the bare stack");
    let fixture = Fixture::start();
    for (bench, [ours, bare]) in [("exchange", &fixture.tls), ("exchange_plain", &fixture.plain)] {
        for connections in [1, 16] {
            runtime.block_on(compare(bench, connections, ours, bare));
        }
    }
}

/// Measures both in turn and prints one line.
async fn compare(bench: &str, connections: usize, ours: &Target, bare: &Target) {
    for target in [ours, bare] {
        load::run(target, connections, Duration::from_secs(1)).await;
    }
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(load::run(bare, connections, ROUND).await);
        mine.push(load::run(ours, connections, ROUND).await);
    }
    let rate = |rounds: &[Measured]| median(rounds.iter().map(|m| m.per_second).collect());
    let ratio = median(mine.iter().zip(&theirs).map(|(m, t)| m.per_second / t.per_second).collect());
    let bare_per_second = rate(&theirs);
    let line = json!({
        "bench": bench,
        "connections": connections,
        "per_second": rate(&mine).round(),
        "p50_ms": milliseconds(median(mine.iter().map(|m| m.p50).collect())),
        "p99_ms": milliseconds(median(mine.iter().map(|m| m.p99).collect())),
        "bare_per_second": bare_per_second.round(),
        "bare_p50_ms": milliseconds(median(theirs.iter().map(|m| m.p50).collect())),
        "ratio": (ratio * 1000.0).round() / 1000.0,
    });
    println!("{line}");
    if connections == 16 && bare_per_second < BARE_EXPECTED {
        let (verify, sign) = bare::cost_of_cryptography();
        eprintln!(
            "bench: the bare stack makes only {bare_per_second:.0}/s on this machine ({} cores, shared with the load generator and the \
             control plane): verifying RS256 alone costs {verify:.0} us, signing Ed25519 alone {sign:.0} us",
            std::thread::available_parallelism().map_or(0, usize::from)
        );
    }
}

/// The middle one; of an even number the upper middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds as milliseconds with three digits.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}
