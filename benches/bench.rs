//! `make bench`: how many ServiceAccount tokens the operator exchanges per second, beside a bare stack that does nothing but
//! the cryptography, and how long after a person's approval the agent has its token ([`approval`]).
//!
//! Three processes on one machine: the operator (on a real control plane, with its audit log), the bare stack
//! ([`bare`]), and this one, which makes the load ([`load`]). The two servers are measured in turn, round by round, and the
//! ratio is the median of the ratios of neighbouring rounds, so that a machine whose speed drifts does not shift it.
//! Each bench prints one line of JSON.
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

mod approval;
mod bare;
mod fixture;
mod load;

use fixture::Fixture;
use load::{Measured, Target};
use serde_json::json;
use std::time::Duration;

/// Length of the first round of each server, which does not count.
const WARM_UP: Duration = Duration::from_secs(1);
/// Length of one round.
const ROUND: Duration = Duration::from_millis(2500);
/// Rounds of each server for each bench.
const ROUNDS: usize = 3;
/// Below this rate of the bare stack at 16 connections the machine is slower than the one for which the bars were set.
const BARE_EXPECTED: f64 = 8000.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // This binary is also the bare stack, as a process of its own.
    if let Some(position) = arguments.iter().position(|a| a == bare::ARGUMENT) {
        bare::run(&arguments[position + 1..]);
        return;
    }
    eprintln!("bench: starting Kubernetes, the operator and the bare stack");
    let fixture = Fixture::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (ours, bare) = (&fixture.ours, &fixture.bare);
    for (bench, ours, bare) in [("exchange", &ours.tls, &bare.tls), ("exchange_plain", &ours.plain, &bare.plain)] {
        for connections in [1, 16] {
            let bare_per_second = runtime.block_on(compare(bench, connections, ours, bare));
            if connections == 16 && bare_per_second < BARE_EXPECTED {
                explain(bare_per_second, &fixture);
            }
        }
    }
    println!("{}", runtime.block_on(approval::run(&fixture)));
}

/// Measures both in turn, prints one line, and returns the rate of the bare stack.
async fn compare(bench: &str, connections: usize, ours: &Target, bare: &Target) -> f64 {
    for target in [bare, ours] {
        load::run(target, connections, WARM_UP).await;
    }
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(load::run(bare, connections, ROUND).await);
        mine.push(load::run(ours, connections, ROUND).await);
    }
    let middle = |rounds: &[Measured], value: fn(&Measured) -> f64| median(rounds.iter().map(value).collect());
    let ratios = mine.iter().zip(&theirs).map(|(m, t)| m.per_second / t.per_second).collect();
    let bare_per_second = middle(&theirs, |m| m.per_second);
    let line = json!({
        "bench": bench,
        "connections": connections,
        "per_second": middle(&mine, |m| m.per_second).round(),
        "p50_ms": milliseconds(middle(&mine, |m| m.p50)),
        "p99_ms": milliseconds(middle(&mine, |m| m.p99)),
        "bare_per_second": bare_per_second.round(),
        "bare_p50_ms": milliseconds(middle(&theirs, |m| m.p50)),
        "ratio": (median(ratios) * 1000.0).round() / 1000.0,
    });
    println!("{line}");
    bare_per_second
}

/// Says why the rates are low.
fn explain(bare_per_second: f64, fixture: &Fixture) {
    let (verify, sign) = bare::cost_of_cryptography(&fixture.jwks, &fixture.token);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    eprintln!(
        "bench: the bare stack makes only {bare_per_second:.0}/s: {cores} cores, shared with the load generator and the control \
         plane, load {load}; verifying RS256 alone costs {verify:.0} us, signing Ed25519 alone {sign:.0} us"
    );
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
