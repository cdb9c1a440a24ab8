//! What an Agent looks like over the registration API, and what is accepted of a body.

use super::super::error::Refusal;
use super::agents::Wanted;
use crate::grammar::AgentId;
use crate::json;
use serde_json::{Map, Value, json};

/// An Agent as it is told.
pub(super) fn shown(object: &Value) -> Value {
    let at = |pointer: &str| object.pointer(pointer).cloned();
    let mut shown = Map::new();
    for (name, value) in [
        ("namespace", at("/metadata/namespace")),
        ("name", at("/metadata/name")),
        ("uid", at("/metadata/uid")),
        ("resourceVersion", at("/metadata/resourceVersion")),
        ("generation", at("/metadata/generation")),
        ("createdAt", at("/metadata/creationTimestamp")),
        ("deletingSince", at("/metadata/deletionTimestamp")),
        ("labels", at("/metadata/labels")),
        ("annotations", at("/metadata/annotations")),
        ("spec", at("/spec")),
        ("status", at("/status")),
    ] {
        if let Some(value) = value {
            shown.insert(name.to_owned(), value);
        }
    }
    Value::Object(shown)
}

/// A page of them.
pub(super) fn shown_list(list: &Value) -> Value {
    let items = list.get("items").and_then(Value::as_array).map(|items| items.iter().map(shown).collect::<Vec<_>>());
    let mut page = json!({"items": items.unwrap_or_default()});
    if let Some(rest) = list.pointer("/metadata/continue").filter(|rest| rest.as_str().is_some_and(|rest| !rest.is_empty())) {
        json::put(&mut page, "continue", rest.clone());
    }
    if let Some(version) = list.pointer("/metadata/resourceVersion") {
        json::put(&mut page, "resourceVersion", version.clone());
    }
    page
}

/// A body: what is wanted, and the version that it is to take the place of.
pub(super) struct Given {
    pub(super) wanted: Wanted,
    pub(super) version: Option<String>,
}

/// Reads a body. `at` is what the path says, if it says something.
///
/// # Errors
/// What is wrong with it: what could be meant in two ways, or means nothing.
pub(super) fn read(body: &[u8], at: Option<&AgentId>) -> Result<Given, Refusal> {
    let members = json::parse_object(body).map_err(|error| {
        Refusal::malformed(format!("the body must be one JSON object that can be read in one way only: {error}"))
    })?;
    let (mut namespace, mut name, mut uid, mut version) = (None, None, None, None);
    let (mut labels, mut annotations, mut spec) = (None, None, None);
    for (member, value) in members {
        match member.as_str() {
            "namespace" => namespace = Some(text(&member, value)?),
            "name" => name = Some(text(&member, value)?),
            "uid" if at.is_some() => uid = Some(text(&member, value)?),
            "resourceVersion" if at.is_some() => version = Some(text(&member, value)?),
            "labels" => labels = Some(texts(&member, value)?),
            "annotations" => annotations = Some(texts(&member, value)?),
            "spec" => spec = Some(object(&member, value)?),
            "status" | "generation" | "createdAt" | "deletingSince" | "uid" | "resourceVersion" => {
                return Err(Refusal::malformed(format!("{member} is not yours to write: leave it out")));
            }
            _ => return Err(Refusal::malformed("there are namespace, name, labels, annotations and spec, and nothing else")),
        }
    }
    let spec = spec.ok_or_else(|| Refusal::malformed("spec is missing: that of the Agent"))?;
    let said = |said: Option<String>, path: Option<&str>, what: &str| match (said, path) {
        (Some(said), Some(path)) if said != path => Err(Refusal::malformed(format!("{what} is not that of the path"))),
        (None, None) => Err(Refusal::malformed(format!("{what} is missing"))),
        (said, path) => Ok(said.or(path.map(str::to_owned)).unwrap_or_default()),
    };
    let namespace = said(namespace, at.map(AgentId::namespace), "namespace")?;
    let name = said(name, at.map(AgentId::name), "name")?;
    let id = AgentId::new(&namespace, &name).map_err(|error| Refusal::malformed(format!("namespace or name: {error}")))?;
    Ok(Given { wanted: Wanted { id, labels, annotations, spec, uid }, version })
}

fn text(name: &str, value: Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        _ => Err(Refusal::malformed(format!("{name} must be a text that is not empty"))),
    }
}

fn object(name: &str, value: Value) -> Result<Map<String, Value>, Refusal> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Refusal::malformed(format!("{name} must be an object"))),
    }
}

fn texts(name: &str, value: Value) -> Result<Map<String, Value>, Refusal> {
    let members = object(name, value)?;
    if members.values().all(Value::is_string) {
        Ok(members)
    } else {
        Err(Refusal::malformed(format!("the values of {name} must be texts")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_means_one_thing() {
        let id = AgentId::new("a", "b").expect("an id");
        let new = |body: &str| read(body.as_bytes(), None);
        let old = |body: &str| read(body.as_bytes(), Some(&id));
        assert!(new(r#"{"namespace":"a","name":"b","spec":{},"labels":{"x":"y"}}"#).is_ok());
        assert!(
            old(r#"{"spec":{}}"#).is_ok()
                && old(r#"{"namespace":"a","name":"b","spec":{},"resourceVersion":"7","uid":"u"}"#).is_ok()
        );
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"namespace":"a","name":"b"}"#,
            r#"{"namespace":"a","spec":{}}"#,
            r#"{"namespace":"a","name":"B","spec":{}}"#,
            r#"{"namespace":"../x","name":"b","spec":{}}"#,
            r#"{"namespace":"a","name":"b","spec":[]}"#,
            r#"{"namespace":"a","name":"b","spec":{},"spec":{}}"#,
            r#"{"namespace":"a","name":"b","spec":{},"metadata":{}}"#,
            r#"{"namespace":"a","name":"b","spec":{},"labels":{"x":1}}"#,
            r#"{"namespace":"a","name":"b","spec":{},"status":{}}"#,
            r#"{"namespace":"a","name":"b","spec":{},"uid":"u"}"#,
        ] {
            assert!(new(bad).is_err(), "{bad}");
        }
        for bad in [r#"{"name":"c","spec":{}}"#, r#"{"namespace":"c","spec":{}}"#, r#"{"spec":{},"resourceVersion":7}"#] {
            assert!(old(bad).is_err(), "{bad}");
        }
    }
}
