//! What was measured, beside what it should be: each line as it comes, and a table at the end.

use serde_json::Value;
use std::sync::Mutex;

/// Lines that were printed.
static LINES: Mutex<Vec<Value>> = Mutex::new(Vec::new());

/// ZeroID's rates beside that of the bare stack, when both were measured on one machine (2026-11-23): 513/s of delegation exchanges and
/// 1,238/s of introspections, beside 14,400/s. It is not run here; so the bar is a part of the bare stack, which is.
const ZEROID_EXCHANGE: f64 = 513.0 / 14_400.0;
const ZEROID_INTROSPECTION: f64 = 1238.0 / 14_400.0;

/// One number that should reach a bar.
struct Row {
    what: &'static str,
    measured: fn(&[Value]) -> Option<f64>,
    bar: Bar,
    unit: &'static str,
}

enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

const ROWS: [Row; 9] = [
    Row {
        what: "exchange, 16 connections, beside the bare stack",
        measured: |lines| number(lines, "exchange", Some(16), "ratio"),
        bar: Bar::AtLeast(0.6),
        unit: "x",
    },
    Row {
        what: "exchange, 16 connections, beside Dex",
        measured: |lines| number(lines, "exchange_dex", Some(16), "ratio"),
        bar: Bar::AtLeast(12.0),
        unit: "x",
    },
    Row {
        what: "exchange, 1 connection, p50 beside Dex",
        measured: |lines| number(lines, "exchange_dex", Some(1), "p50_ratio"),
        bar: Bar::AtMost(0.3),
        unit: "x",
    },
    Row {
        what: "delegation, 16 connections, beside ZeroID",
        measured: |lines| Some(beside_bare(lines, "delegation")? / ZEROID_EXCHANGE),
        bar: Bar::AtLeast(12.0),
        unit: "x",
    },
    Row {
        what: "introspection, 16 connections, beside ZeroID",
        measured: |lines| Some(beside_bare(lines, "introspection")? / ZEROID_INTROSPECTION),
        bar: Bar::AtLeast(15.0),
        unit: "x",
    },
    Row {
        what: "memory with 10,000 Agents, most that it had",
        measured: |lines| of_agents(lines, "mib_peak"),
        bar: Bar::AtMost(64.0),
        unit: "MiB",
    },
    Row {
        what: "ready after start with 10,000 Agents",
        measured: |lines| of_agents(lines, "ready_ms"),
        bar: Bar::AtMost(2000.0),
        unit: "ms",
    },
    Row {
        what: "suspended -> refused on every replica, p99",
        measured: |lines| number(lines, "revocation", None, "p99_ms"),
        bar: Bar::AtMost(250.0),
        unit: "ms",
    },
    Row {
        what: "approval patched -> waiting agent has its token, p99",
        measured: |lines| number(lines, "approval", None, "p99_ms"),
        bar: Bar::AtMost(250.0),
        unit: "ms",
    },
];

/// Prints a line of JSON.
pub fn line(line: Value) {
    println!("{line}");
    LINES.lock().expect("nobody panicked").push(line);
}

/// Prints what was measured beside what it should be. What was not measured is not in it.
pub fn table() {
    let lines = LINES.lock().expect("nobody panicked");
    let rows: Vec<(&Row, f64)> = ROWS.iter().filter_map(|row| Some((row, (row.measured)(&lines)?))).collect();
    if rows.is_empty() {
        return;
    }
    eprintln!("\n{:<54} {:>14} {:>14}", "", "measured", "bar");
    for (row, measured) in rows {
        let (sign, bar, is_met) = match row.bar {
            Bar::AtLeast(bar) => (">=", bar, measured >= bar),
            Bar::AtMost(bar) => ("<=", bar, measured <= bar),
        };
        let verdict = if is_met { "" } else { "  not met: docs/performance.md" };
        let shown = |value: f64| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let unit = row.unit;
        eprintln!(
            "{:<54} {:>14} {:>14}{verdict}",
            row.what,
            format!("{} {unit}", shown(measured)),
            format!("{sign} {bar} {unit}")
        );
    }
}

/// A number of the last line of a bench.
fn number(lines: &[Value], bench: &str, connections: Option<u64>, field: &str) -> Option<f64> {
    let is_it = |line: &&Value| line["bench"] == bench && line["connections"].as_u64() == connections;
    lines.iter().rev().find(is_it)?[field].as_f64()
}

/// What was compared with the exchange, which was compared with the bare stack.
fn beside_bare(lines: &[Value], bench: &str) -> Option<f64> {
    Some(number(lines, bench, Some(16), "ratio")? * number(lines, "exchange", Some(16), "ratio")?)
}

/// A number with ten thousand Agents and nothing else.
fn of_agents(lines: &[Value], field: &str) -> Option<f64> {
    let is_it = |line: &&Value| line["bench"] == "scale" && line["agents"] == 10_000 && line["requests"] == 0;
    lines.iter().find(is_it)?[field].as_f64()
}
