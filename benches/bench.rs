//! `make bench`: how many ServiceAccount tokens the operator exchanges per second, beside a bare stack that does nothing but
//! the cryptography; how many tokens agents obtain by other credentials, and for whoever called them, and how many tokens are
//! introspected, beside that ([`credentials`], [`delegation`]); how long after a person's approval the agent has its token
//! ([`approval`]); how soon people are told ([`notification`]) and see it on a page ([`portal`]); how many authorization checks are
//! answered with ten thousand Agents ([`access`]); what size costs ([`scale`]); and how long a suspended agent goes on, on three
//! replicas ([`revocation`]).
//!
//! As pods do, they exchange one credential again and again. The operator recognises one that it has verified before; the bare stack
//! verifies it each time.
//!
//! Three processes on one machine: the operator (on a real control plane, with its audit log and its database, which is
//! SQLite), the bare stack ([`bare`]), and this one, which makes the load ([`load`]). What is compared is measured in turn, round by
//! round, and the ratio is the median of the ratios of neighbouring rounds, so that a machine whose speed drifts does not shift it.
//! Each bench prints a line of JSON; at the end is a table of what should be reached ([`report`]). `cargo bench --bench bench -- revocation`
//! runs that one alone ([`BENCHES`]). `BENCH_DEX=path/to/dex` sets the exchange beside Dex ([`dex`]).
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

mod access;
mod approval;
mod bare;
mod cost;
mod credentials;
mod delegation;
mod dex;
mod fixture;
mod ledger;
mod load;
mod notification;
mod portal;
mod report;
mod revocation;
mod scale;

use dex::Dex;
use fixture::Fixture;
use load::{Answer, Measured, Target};
use serde_json::json;
use std::time::Duration;

/// Length of the first round of each server, which does not count.
const WARM_UP: Duration = Duration::from_secs(1);
/// Length of one round.
const ROUND: Duration = Duration::from_millis(2500);
/// Rounds of each server for each bench.
const ROUNDS: usize = 7;
/// Below this rate of the bare stack at 16 connections the machine is slower than the one for which the bars were set.
const BARE_EXPECTED: f64 = 8000.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // This binary is also the bare stack, as a process of its own.
    if let Some(position) = arguments.iter().position(|a| a == bare::ARGUMENT) {
        bare::run(&arguments[position + 1..]);
        return;
    }
    let named = arguments.iter().skip(1).find(|argument| !argument.starts_with('-')).map(String::as_str);
    if !measure(named) {
        panic!("there is no bench of that name: it is one of {}", BENCHES.map(|(name, _)| name).join(", "));
    }
    report::table();
}

/// What can be measured alone, in the order in which all of it is.
const BENCHES: [(&str, fn()); 9] = [
    ("verify", || report::line(ledger::run())),
    ("exchange", beside_the_bare_stack),
    ("credentials", beside_the_exchange),
    ("approval", || report::line(runtime().block_on(approval::run(&started())))),
    ("evaluation", || report::line(access::run(&started(), &runtime()))),
    ("notification", || {
        eprintln!("bench: starting Kubernetes and an operator that tells people");
        report::line(runtime().block_on(notification::run()));
    }),
    ("portal", || report::line(portal::run(&runtime()))),
    ("scale", || {
        eprintln!("bench: starting Kubernetes, to be filled");
        scale::run(&runtime());
    }),
    ("revocation", || {
        eprintln!("bench: starting Kubernetes and three replicas of the operator");
        let replicas = revocation::Replicas::start();
        report::line(runtime().block_on(revocation::run(&replicas)));
    }),
];

/// Measures what is named, or everything. False if there is nothing of that name.
fn measure(named: Option<&str>) -> bool {
    let wanted = BENCHES.iter().filter(|(name, _)| named.is_none_or(|wanted| wanted == *name));
    wanted.map(|(_, run)| run()).count() > 0
}

/// An operator, and the bare stack.
fn started() -> Fixture {
    eprintln!("bench: starting Kubernetes, the operator and the bare stack");
    Fixture::start()
}

/// The exchange, beside the bare stack and Dex.
fn beside_the_bare_stack() {
    let (fixture, runtime) = (started(), runtime());
    let (ours, bare) = (&fixture.ours, &fixture.bare);
    for (bench, ours, bare) in [("exchange", &ours.tls, &bare.tls), ("exchange_plain", &ours.plain, &bare.plain)] {
        for connections in [1, 16] {
            let bare_per_second = runtime.block_on(compare(bench, connections, ours, ("bare", bare)));
            if connections == 16 && bare_per_second < BARE_EXPECTED {
                explain(bare_per_second, &fixture);
            }
        }
    }
    runtime.block_on(beside_dex(&fixture));
}

/// Everything else with which tokens are obtained and looked at, beside the exchange.
fn beside_the_exchange() {
    let (fixture, runtime) = (started(), runtime());
    let (delegation, introspection) = delegation::targets(&fixture);
    let constant = Target { requests: introspection.requests.clone(), answer: Answer::Active, ..fixture.bare.tls.clone() };
    for connections in [1, 16] {
        runtime.block_on(compare("introspection_constant", connections, &introspection, ("constant", &constant)));
    }
    for (bench, others) in [
        ("delegation", delegation),
        ("introspection", introspection),
        ("assertion", credentials::assertions(&fixture)),
        ("federated", credentials::federated(&fixture)),
    ] {
        for connections in [1, 16] {
            runtime.block_on(compare(bench, connections, &others, ("exchange", &fixture.ours.tls)));
        }
    }
}

/// The same exchange at Dex, if there is one.
async fn beside_dex(fixture: &Fixture) {
    let Some(dex) = Dex::start(fixture) else {
        eprintln!("bench: no Dex beside it; {}=path/to/dex names one", dex::VARIABLE);
        return;
    };
    for connections in [1, 16] {
        compare("exchange_dex", connections, &fixture.ours.tls, ("dex", &dex.target)).await;
    }
    report::line(dex.memory(fixture));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Measures a target beside another one, which has a name, in turn, prints one line, and returns the rate of the other.
async fn compare(bench: &str, connections: usize, target: &Target, (name, other): (&str, &Target)) -> f64 {
    for target in [other, target] {
        load::run(target, connections, WARM_UP).await;
    }
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(load::run(other, connections, ROUND).await);
        mine.push(load::run(target, connections, ROUND).await);
    }
    let middle = |rounds: &[Measured], value: fn(&Measured) -> f64| median(rounds.iter().map(value).collect());
    let ratio = |value: fn(&Measured) -> f64| {
        let ratios = mine.iter().zip(&theirs).map(|(m, t)| value(m) / value(t)).collect();
        (median(ratios) * 1000.0).round() / 1000.0
    };
    let other_per_second = middle(&theirs, |m| m.per_second);
    let line = json!({
        "bench": bench,
        "connections": connections,
        "per_second": middle(&mine, |m| m.per_second).round(),
        "p50_ms": milliseconds(middle(&mine, |m| m.p50)),
        "p99_ms": milliseconds(middle(&mine, |m| m.p99)),
        (format!("{name}_per_second")): other_per_second.round(),
        (format!("{name}_p50_ms")): milliseconds(middle(&theirs, |m| m.p50)),
        "ratio": ratio(|m| m.per_second),
        "p50_ratio": ratio(|m| m.p50),
    });
    report::line(line);
    other_per_second
}

/// Says why the rates are low.
fn explain(bare_per_second: f64, fixture: &Fixture) {
    let (verify, sign) = bare::cost_of_cryptography(&fixture.jwks, &fixture.tokens[0]);
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
