//! Values: each is documented, and none can be anything else than a value.

use crate::chart::documents;
use crate::support::install::{chart, render_chart_from};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn read(file: &str) -> String {
    std::fs::read_to_string(chart().join(file)).expect(file)
}

fn values() -> Value {
    serde_saphyr::from_str(&read("values.yaml")).expect("YAML")
}

/// The paths of all values that are no groups of others, with what they are by default.
fn leaves(node: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match node {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, found);
            }
        }
        leaf => {
            found.insert(path.to_owned(), leaf.clone());
        }
    }
}

fn all_leaves() -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    leaves(&values(), "", &mut found);
    found
}

/// The values of the chart with one of them changed.
fn with(path: &str, value: &Value) -> Value {
    let mut changed = values();
    let pointer = format!("/{}", path.replace('.', "/"));
    *changed.pointer_mut(&pointer).unwrap_or_else(|| panic!("no {path}")) = value.clone();
    changed
}

/// What somebody could try to make of a value: a template, another line, another object, another argument.
const HOSTILE: [&str; 10] = [
    "{{ .Release.Name }}",
    "a\"\nkind: ClusterRole",
    "a\n---\nkind: ClusterRoleBinding",
    "a: b",
    "&anchor a",
    "*anchor",
    "!!binary a",
    "${{ secrets }}",
    "a' # comment",
    "\u{0}",
];

#[test]
fn every_value_is_in_the_readme_and_nothing_else() {
    let readme = read("README.md");
    let table = readme.split("\n## Values").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the values");
    let listed: BTreeSet<String> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect();
    // A group that people give as a whole is one value.
    let whole = ["resources", "networkPolicy.egress.dns", "networkPolicy.egress.apiServer", "networkPolicy.egress.database"];
    let expected: BTreeSet<String> = all_leaves()
        .into_keys()
        .map(|path| whole.iter().find(|group| path.starts_with(&format!("{group}."))).map_or(path, |group| (*group).to_owned()))
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn k10_a_text_that_could_be_anything_else_is_refused_or_stays_one_text() {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    assert!(schema.is_valid(&values()), "the defaults are accepted");
    let scratch = tempfile::tempdir().expect("a directory");
    let render = |values: &Value| documents(&render_chart_from(scratch.path(), 4, &[], values).expect("it renders"));
    let plain = render(&json!({})).len();
    let mut free = BTreeSet::new();
    for (path, value) in all_leaves() {
        // As the value itself, and as what is in it where it holds several.
        let shapes = |text: &str| match value {
            Value::Array(_) => vec![json!([text]), json!([{"name": text}])],
            Value::Object(_) => vec![json!({"a": text}), json!({text: "a"})],
            _ => vec![json!(text)],
        };
        let is_accepted = |changed: &Value| schema.is_valid(&with(&path, changed));
        let accepted: Vec<&str> = HOSTILE.into_iter().filter(|text| shapes(text).iter().any(is_accepted)).collect();
        if accepted.is_empty() {
            continue;
        }
        // Whatever is accepted is a text where it comes out: there is no object more, and it is whole.
        let variants: Vec<Value> = if value.is_object() {
            let all = accepted.iter().enumerate().map(|(index, text)| (format!("a{index}"), json!(text)));
            vec![Value::Object(all.collect())]
        } else {
            accepted.iter().map(|text| json!(text)).collect()
        };
        for changed in variants {
            let objects = render(&with(&path, &changed));
            assert_eq!(objects.len(), plain, "{path}: {changed}");
            for text in accepted.iter().filter(|text| changed.is_object() || changed == json!(text)) {
                let found = objects.iter().any(|object| holds(object, text));
                assert!(found || is_switched_off(&path), "{path}: {text:?}");
            }
        }
        free.insert(path);
    }
    // Only where Kubernetes takes any text as well.
    let expected = [
        "monitoring.dashboard.annotations",
        "monitoring.prometheusRule.alertLabels",
        "podAnnotations",
        "service.annotations",
        "serviceAccount.annotations",
        "test.user",
    ];
    assert_eq!(free, expected.map(str::to_owned).into());
}

/// Whether this is one of the texts in it.
fn holds(node: &Value, text: &str) -> bool {
    match node {
        Value::String(found) => found == text,
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(members) => members.values().any(|member| holds(member, text)),
        _ => false,
    }
}

/// Whether a value has no effect by default, because what it is about is switched off.
fn is_switched_off(path: &str) -> bool {
    path.starts_with("monitoring.")
}
