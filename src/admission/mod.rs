//! The admission policies: who may write what, enforced by the API server itself, with no webhook.
//!
//! This module is their source. `countersign admission` prints them into the chart, and the running operator
//! compares what the cluster has with what it expects ([`enforcement`]), because an Agent written while they
//! were missing or altered proves nothing about who granted it what.

mod agent;
mod capability;
pub mod enforcement;
pub mod injection;
mod jit_request;
mod person;
mod revocation;
mod stamp;
mod trusted_issuer;

use crate::crd::{Agent, TrustedIssuer};
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation, Variable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A ValidatingAdmissionPolicy and the binding, of the same name, that puts it in force everywhere.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The policy.
    pub policy: ValidatingAdmissionPolicy,
    /// Its binding.
    pub binding: ValidatingAdmissionPolicyBinding,
}

/// The policies that must be in force, in this version.
#[must_use]
pub fn validating() -> &'static [Policy] {
    static POLICIES: LazyLock<Vec<Policy>> = LazyLock::new(|| {
        vec![
            agent::spec_policy(),
            revocation::status_policy(&Agent::crd()),
            capability::spec_policy(),
            status_policy("capabilities"),
            trusted_issuer::spec_policy(),
            revocation::status_policy(&TrustedIssuer::crd()),
            jit_request::spec_policy(),
            jit_request::status_policy(),
        ]
    });
    &POLICIES
}

/// The policies that write the stamps for the user where the API server has MutatingAdmissionPolicy (v1, Kubernetes 1.36).
/// Without them the user writes the stamps and [`validating`] demands that they are true.
#[must_use]
pub fn mutating() -> Vec<Value> {
    let policies = [
        stamp::policy(agent::NAME, "agents"),
        stamp::policy(capability::NAME, "capabilities"),
        stamp::policy(trusted_issuer::NAME, "trustedissuers"),
        jit_request::requester_policy(),
        jit_request::approver_policy(),
        revocation::revoker_policy("agents"),
        revocation::revoker_policy("trustedissuers"),
    ];
    policies.into_iter().flatten().collect()
}

/// The policy on the status of a resource that only the operator reports on: what is in it decides about tokens, so the right to
/// update the subresource is not enough.
fn status_policy(resource: &str) -> Policy {
    let rule = forbid_unless(
        &format!("{}.check('operate').allowed()", authorizer(resource, "object", "object.metadata.name")),
        &format!("the status of {resource} is written by the operator: it needs verb operate on {resource}.countersign.dev"),
    );
    policy(&format!("countersign-{resource}-status"), &format!("{resource}/status"), &["UPDATE"], Vec::new(), vec![rule])
}

/// Whether the value at `path` nests at most `levels` deep. Objects whose members no schema names could otherwise nest without end,
/// and one that no JSON reader of ours can follow would stop the watch of all of them.
fn nests_at_most(path: &str, levels: usize) -> String {
    // The members of a map or list; nothing else has any.
    let members = |x: &str| format!("(type({x}) == map ? {x}.map(k, {x}[k]) : type({x}) == list ? {x} : [])");
    let name = |level: usize| if level == 0 { path.to_owned() } else { format!("l{level}") };
    let innermost = format!("size({}) > 0", members(&name(levels - 1)));
    let deeper =
        (1..levels).rev().fold(innermost, |inner, level| format!("{}.exists(l{level}, {inner})", members(&name(level - 1))));
    format!("!({deeper})")
}

/// The question whether the user may do something to `name` of our `resource`, in the namespace of `object` if it has one.
fn authorizer(resource: &str, object: &str, name: &str) -> String {
    let namespace = format!("has({object}.metadata.namespace) ? {object}.metadata.namespace : ''");
    format!("authorizer.group('countersign.dev').resource('{resource}').namespace({namespace}).name({name})")
}

/// [`validating`], and what only warns, as YAML documents.
///
/// # Errors
/// Never in practice: the values are made of types that YAML can hold.
pub fn validating_yaml() -> Result<String, serde_json::Error> {
    let mut documents = Vec::new();
    for Policy { policy, binding } in validating().iter().chain([&agent::advice()]) {
        documents.push(serde_json::to_value(policy)?);
        documents.push(serde_json::to_value(binding)?);
    }
    Ok(crate::yaml::documents(&documents))
}

/// [`mutating`] as YAML documents.
#[must_use]
pub fn mutating_yaml() -> String {
    crate::yaml::documents(&mutating())
}

/// [`injection::mutating`] as a YAML document. The chart replaces the words between `@`.
#[must_use]
pub fn inject_yaml() -> String {
    crate::yaml::documents(&[injection::mutating()])
}

/// [`injection::validating`] as a YAML document, likewise.
#[must_use]
pub fn injected_yaml() -> String {
    crate::yaml::documents(&[injection::validating()])
}

/// One policy on one resource of our group. Every field that the API server would fill with a default is written
/// out, so that the stored object equals this one.
fn policy(name: &str, resource: &str, operations: &[&str], variables: Vec<Variable>, validations: Vec<Validation>) -> Policy {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Policy {
        policy: ValidatingAdmissionPolicy {
            metadata: metadata.clone(),
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: Some("Fail".to_owned()),
                match_constraints: Some(MatchResources {
                    match_policy: Some("Equivalent".to_owned()),
                    namespace_selector: Some(LabelSelector::default()),
                    object_selector: Some(LabelSelector::default()),
                    resource_rules: Some(vec![NamedRuleWithOperations {
                        api_groups: Some(vec![crate::crd::GROUP.to_owned()]),
                        api_versions: Some(vec!["*".to_owned()]),
                        operations: Some(operations.iter().map(|&o| o.to_owned()).collect()),
                        resources: Some(vec![resource.to_owned()]),
                        scope: Some("*".to_owned()),
                        ..NamedRuleWithOperations::default()
                    }]),
                    ..MatchResources::default()
                }),
                variables: (!variables.is_empty()).then_some(variables),
                validations: Some(validations),
                ..ValidatingAdmissionPolicySpec::default()
            }),
            status: None,
        },
        binding: ValidatingAdmissionPolicyBinding {
            metadata,
            spec: Some(ValidatingAdmissionPolicyBindingSpec {
                policy_name: Some(name.to_owned()),
                validation_actions: Some(vec!["Deny".to_owned()]),
                ..ValidatingAdmissionPolicyBindingSpec::default()
            }),
        },
    }
}

fn variable(name: &str, expression: &str) -> Variable {
    Variable { name: name.to_owned(), expression: squeeze(expression) }
}

/// A rule whose violation is answered with 403 and `message`.
fn forbid_unless(expression: &str, message: &str) -> Validation {
    Validation {
        expression: squeeze(expression),
        message: Some(squeeze(message)),
        message_expression: None,
        reason: Some("Forbidden".to_owned()),
    }
}

/// One mutating policy and its binding, as JSON because the client types of the oldest supported Kubernetes lack it.
fn mutating_policy(
    name: &str,
    resource: &str,
    operations: &[&str],
    condition: &str,
    variables: &[Variable],
    mutation: &Value,
) -> Vec<Value> {
    let api_version = "admissionregistration.k8s.io/v1";
    vec![
        json!({
            "apiVersion": api_version, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [{
                    "apiGroups": [crate::crd::GROUP], "apiVersions": ["*"], "operations": operations, "resources": [resource], "scope": "*",
                }]},
                "matchConditions": [{"name": "changes-the-stamp", "expression": squeeze(condition)}],
                "variables": variables,
                "mutations": [mutation],
            },
        }),
        json!({
            "apiVersion": api_version, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name},
        }),
    ]
}

/// Joins the lines of an expression written over several lines.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
