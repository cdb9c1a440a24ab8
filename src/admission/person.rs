//! Who makes a request to the API server, and what people may write in a status that is the operator's otherwise.

use super::squeeze;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

/// The user's uid and groups, which the API server leaves out where there are none.
pub(super) const UID: &str = "has(request.userInfo.uid) ? request.userInfo.uid : ''";
pub(super) const GROUPS: &str = "has(request.userInfo.groups) ? request.userInfo.groups : []";

/// Whether the user at `path` is who makes this request to the API server. Needs the variables `uid` and `groups`.
pub(super) fn is_user(path: &str) -> String {
    format!(
        "{path}.username == request.userInfo.username && (has({path}.uid) ? {path}.uid : '') == variables.uid
            && has({path}.groups) && {path}.groups.all(g, g in variables.groups) && variables.groups.all(g, g in {path}.groups)"
    )
}

/// Writes the user at `path`, over whatever is there. No ApplyConfiguration: it would merge the lists of groups.
pub(super) fn write_user(path: &str, kind: &str) -> String {
    format!(
        "[JSONPatch{{op: 'add', path: '{path}', value: {kind}{{username: request.userInfo.username, uid: {UID}, groups: {GROUPS}}}}}]"
    )
}

pub(super) fn json_patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": squeeze(expression)}})
}

/// Whether nothing in the status differs but `member`, and that was not removed. The fields are those of the schema, so that none of
/// tomorrow can be forgotten. Needs the variables `was` and `is`: whether `member` is in the old status, and in the new.
pub(super) fn only_writes(crd: &CustomResourceDefinition, member: &str) -> String {
    let crd = serde_json::to_value(crd).unwrap_or_default();
    let fields = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties").and_then(Value::as_object);
    // Without a schema there would be nothing to compare, and everything would be the operator's.
    let all = |same: fn(&str, &Value) -> String| {
        let others = |fields: &Map<String, Value>| {
            let others = fields.iter().filter(|(field, _)| *field != member);
            others.map(|(field, schema)| same(field, schema)).collect::<Vec<_>>().join(" && ")
        };
        fields.map_or_else(|| "false".to_owned(), others)
    };
    let same = all(|f, _| {
        format!(
            "(has(object.status.{f}) ? has(oldObject.status.{f}) && object.status.{f} == oldObject.status.{f} : !has(oldObject.status.{f}))"
        )
    });
    // Before the operator has written anything; what has a default is there although nobody wrote it.
    let none = all(|f, schema| match schema.get("default") {
        None => format!("!has(object.status.{f})"),
        Some(Value::Array(list)) if list.is_empty() => format!("(!has(object.status.{f}) || size(object.status.{f}) == 0)"),
        Some(default) => format!("(!has(object.status.{f}) || object.status.{f} == {default})"),
    });
    format!("has(object.status) && (!variables.was || variables.is) && (has(oldObject.status) ? {same} : {none})")
}
