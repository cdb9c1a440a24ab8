//! Admission of the catalogue: whoever changes a rule changes what every Agent that holds the capability may do.

use super::{Policy, forbid_unless, nests_at_most, policy, squeeze, stamp, variable};
use k8s_openapi::api::admissionregistration::v1::Validation;

/// Name of the policy (and binding) on Capabilities.
pub(super) const NAME: &str = "countersign-capabilities";

/// How deep a parameter schema may nest. Our reader follows 16 levels.
const SCHEMA_DEPTH: usize = 16;

/// The policy on creating, changing and deleting catalogue entries.
pub(super) fn spec_policy() -> Policy {
    let mut variables = stamp::variables();
    variables.push(variable("name", "request.operation == 'DELETE' ? oldObject.metadata.name : object.metadata.name"));
    let grant = Validation {
        expression: squeeze(
            "(request.operation == 'UPDATE' && variables.unchanged)
                || authorizer.group('countersign.dev').resource('capabilities').name(variables.name).check('grant').allowed()",
        ),
        message_expression: Some(
            "'user \"' + request.userInfo.username + '\" may not change the rule of capability \"' + variables.name
                + '\": it needs verb grant on capabilities.countersign.dev/' + variables.name + ' in the whole cluster'"
                .to_owned(),
        )
        .map(|text| squeeze(&text)),
        message: Some(
            "changing the catalogue needs verb grant on capabilities.countersign.dev/<name> in the whole cluster".to_owned(),
        ),
        reason: Some("Forbidden".to_owned()),
    };
    let shallow = forbid_unless(
        &format!(
            "request.operation == 'DELETE' || !has(object.spec.parameterSchema) || {}",
            nests_at_most("object.spec.parameterSchema", SCHEMA_DEPTH)
        ),
        &format!("spec.parameterSchema must not nest deeper than {SCHEMA_DEPTH} levels"),
    );
    let validations = vec![stamp::rule("request.operation == 'DELETE' ||"), grant, shallow];
    policy(NAME, "capabilities", &["CREATE", "UPDATE", "DELETE"], variables, validations)
}
