//! The stamp of who wrote the current spec: an annotation, written by a mutating policy or by the user, and checked either way.

use super::{mutating_policy, squeeze, variable};
use crate::crd::CHANGED_BY;
use k8s_openapi::api::admissionregistration::v1::{Validation, Variable};
use serde_json::{Value, json};

/// Whether the spec is as it was. Comparing whole specs makes no difference between fields of today and of tomorrow.
const SPEC_UNCHANGED: &str = "oldObject != null && object.spec == oldObject.spec";

/// The variables that [`rule`] needs.
pub(super) fn variables() -> Vec<Variable> {
    vec![
        variable("stamp", &on("object")),
        variable("oldStamp", &format!("oldObject == null ? '' : {}", on("oldObject"))),
        variable("unchanged", SPEC_UNCHANGED),
    ]
}

/// The stamp is true. `unless` is a condition with `||` behind it under which it does not matter.
pub(super) fn rule(unless: &str) -> Validation {
    Validation {
        expression: squeeze(&format!(
            "{unless} (variables.unchanged ? variables.stamp == variables.oldStamp : variables.stamp == request.userInfo.username)"
        )),
        message_expression: Some(squeeze(&format!(
            "variables.unchanged
                ? 'annotation {CHANGED_BY} names who wrote the current spec: leave it as it is unless the spec changes'
                : 'annotation {CHANGED_BY} must be \"' + request.userInfo.username + '\", the user who makes this change'"
        ))),
        message: Some(format!("annotation {CHANGED_BY} must name the user who makes this change")),
        reason: Some("Forbidden".to_owned()),
    }
}

/// The mutating policy that writes the stamp.
pub(super) fn policy(name: &str, resource: &str) -> Vec<Value> {
    let patch = format!(
        "Object{{metadata: Object.metadata{{annotations: {{'{CHANGED_BY}':
            ({SPEC_UNCHANGED}) ? variables.oldStamp : request.userInfo.username}}}}}}"
    );
    let variables: [Variable; 1] = [variable("oldStamp", &format!("oldObject == null ? '' : {}", on("oldObject")))];
    // Where the spec is as it was, the stamp is put back only if the request changed it.
    let condition = format!("!({SPEC_UNCHANGED}) || ({}) != ({})", on("object"), on("oldObject"));
    let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": squeeze(&patch)}});
    mutating_policy(name, resource, &["CREATE", "UPDATE"], &condition, &variables, &mutation)
}

/// The stamp on `object`, empty if there is none.
fn on(object: &str) -> String {
    format!(
        "has({object}.metadata.annotations) && '{CHANGED_BY}' in {object}.metadata.annotations
            ? {object}.metadata.annotations['{CHANGED_BY}'] : ''"
    )
}
