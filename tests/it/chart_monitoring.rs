//! What watches the operator: alerts and the dashboard speak of metrics that there are.

use crate::chart::{documents, of_kind};
use crate::support::install::render_chart_from;
use crate::world::World;
use regex_lite::Regex;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// The chart with all of it switched on.
fn monitored() -> Vec<Value> {
    let scratch = tempfile::tempdir().expect("a directory");
    let on = json!({"monitoring": {"prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}}});
    documents(&render_chart_from(scratch.path(), 4, &[], &on).expect("it renders"))
}

fn rules(documents: &[Value]) -> Vec<Value> {
    of_kind(documents, "PrometheusRule")[0]["spec"]["groups"][0]["rules"].as_array().expect("rules").clone()
}

/// What the panels and variables of the dashboard ask.
fn questions(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dashboard];
    while let Some(node) = left.pop() {
        match node {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(text) if name == "expr" || name == "definition" => found.push(text.clone()),
                        other => left.push(other),
                    }
                }
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    found
}

/// The names of series, and for each the labels that it can have, as Prometheus reads them from a process that has done everything.
fn exposed() -> BTreeSet<String> {
    // Of a running process, so that what it adds at the door is there as well.
    let mut text = World::shared().operator.get("/metrics").expect("metrics").body;
    // And of one that has counted whatever the shared one may not have come to.
    let metrics = countersign::metrics::Metrics::default();
    metrics.outcome("token.issue", countersign::audit::Outcome::Allow, "granted");
    metrics.took("token.issue", countersign::audit::Outcome::Allow, Duration::from_millis(1));
    metrics.limited("connections");
    metrics.decided(countersign::crd::Phase::Approved, 1);
    metrics.redeem_conflict();
    metrics.discontinuities(1);
    metrics.notification("ops", "delivered");
    let agents = HashMap::from([("standing", 1)]);
    metrics.observe(&countersign::metrics::Observation { agents, ..Default::default() });
    text.push_str(&metrics.encode().expect("text"));
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_and_the_dashboard_speak_of_metrics_that_there_are() {
    let documents = monitored();
    let maps = of_kind(&documents, "ConfigMap");
    let board = maps.iter().find(|map| map["data"]["countersign.json"].is_string()).expect("a dashboard");
    let board: Value = serde_json::from_str(board["data"]["countersign.json"].as_str().expect("text")).expect("JSON");
    let exprs = rules(&documents).iter().map(|rule| rule["expr"].as_str().expect("text").to_owned()).collect::<Vec<_>>();
    let asked = questions(&board);
    assert!(exprs.len() >= 12 && asked.len() >= 20, "{} {}", exprs.len(), asked.len());

    let exposed = exposed();
    let name = Regex::new(r"\b(countersign|process)_[a-z_]+\b").expect("a pattern");
    let mut used = BTreeSet::new();
    for text in exprs.iter().chain(&asked) {
        let names: Vec<&str> = name.find_iter(text).map(|found| found.as_str()).collect();
        assert!(!names.is_empty(), "{text}");
        for name in names {
            assert!(exposed.contains(name), "there is no {name}: {text}");
            used.insert(name.to_owned());
        }
    }
    // And nothing that is measured goes unseen.
    let unseen: Vec<&String> = exposed
        .iter()
        .filter(|name| name.starts_with("countersign_") && !used.contains(*name))
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count") && *name != "countersign_build_info")
        .collect();
    assert!(unseen.is_empty(), "neither an alert nor a panel has {unseen:?}");
}

#[test]
fn every_alert_says_what_is_wrong_what_it_means_and_where_to_look() {
    let mut names = BTreeSet::new();
    for rule in rules(&monitored()) {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        for annotation in ["summary", "description", "runbook"] {
            let text = rule["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{name} has no {annotation}");
            assert!(annotation == "summary" || text.ends_with('.'), "{name}: {annotation} is whole sentences: {text}");
        }
    }
}
