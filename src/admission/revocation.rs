//! Admission of instructions to revoke: the one thing that people write in the status of an Agent or a TrustedIssuer.
//!
//! That an instruction cannot be taken back is also in the schema's own rules, which hold even where these policies are missing.

use super::person::{GROUPS, UID, is_user, json_patch, only_writes, write_user};
use super::{Policy, authorizer, forbid_unless, mutating_policy, policy, squeeze, variable};
use k8s_openapi::api::admissionregistration::v1::Validation;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// The policy on the status of `crd`: whoever may revoke writes an instruction to, and everything else is the operator's.
pub(super) fn status_policy(crd: &CustomResourceDefinition) -> Policy {
    let resource = crd.spec.names.plural.as_str();
    let variables = vec![
        variable("uid", UID),
        variable("groups", GROUPS),
        variable("was", "has(oldObject.status) && has(oldObject.status.revoke)"),
        variable("is", "has(object.status) && has(object.status.revoke)"),
        variable("revokes", "variables.is && (!variables.was || object.status.revoke != oldObject.status.revoke)"),
        variable("onlyRevokes", &only_writes(crd, "revoke")),
    ];
    let asks = |verb: &str| format!("{}.check('{verb}').allowed()", authorizer(resource, "object", "object.metadata.name"));
    let validations = vec![
        forbid_unless(
            &format!("variables.onlyRevokes || {}", asks("operate")),
            &format!(
                "of the status of {resource} people write 'revoke' only, and cannot take it back: the rest needs verb operate on
                 {resource}.countersign.dev, which is the operator's"
            ),
        ),
        forbid_unless(
            "!variables.revokes || !variables.was",
            "there is an instruction to revoke already: retry once the operator has carried it out",
        ),
        forbid_unless(
            &format!("!variables.revokes || (has(object.status.revoke.by) && {})", is_user("object.status.revoke.by")),
            "status.revoke.by must be your own user name, uid and groups (kubectl auth whoami)",
        ),
        Validation {
            expression: squeeze(&format!("!variables.revokes || {}", asks("revoke"))),
            message_expression: Some(squeeze(&format!(
                "'user \"' + request.userInfo.username + '\" may not revoke: it needs verb revoke on {resource}.countersign.dev/'
                    + object.metadata.name + (has(object.metadata.namespace) ? ' in namespace ' + object.metadata.namespace
                    : ' in the whole cluster')"
            ))),
            message: Some(format!("revoking needs verb revoke on {resource}.countersign.dev/<name>")),
            reason: Some("Forbidden".to_owned()),
        },
    ];
    policy(&name(resource), &format!("{resource}/status"), &["UPDATE"], variables, validations)
}

/// The mutating policy that writes who revokes.
pub(super) fn revoker_policy(resource: &str) -> Vec<Value> {
    let condition = "has(object.status) && has(object.status.revoke) &&
        (!has(oldObject.status) || !has(oldObject.status.revoke) || object.status.revoke != oldObject.status.revoke)";
    let by = json_patch(&write_user("/status/revoke/by", "Object.status.revoke.by"));
    mutating_policy(&name(resource), &format!("{resource}/status"), &["UPDATE"], condition, &[], &by)
}

/// Name of the policies (and bindings) on the status of `resource`.
fn name(resource: &str) -> String {
    format!("countersign-{resource}-status")
}
