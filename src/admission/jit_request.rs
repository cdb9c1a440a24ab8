//! Admission of requests for approval: who asks, who decides, and that what is decided stays decided.
//!
//! That phases only move forward, that the spec never changes and that nothing in the status can be taken back is in the schema's own
//! rules, which hold even where these policies are missing.

use super::person::{GROUPS, UID, is_user, json_patch, only_writes, write_user};
use super::{Policy, authorizer, forbid_unless, mutating_policy, nests_at_most, policy, squeeze, variable};
use crate::crd::JitRequest;
use crate::operation::DEPTH_MAX as PARAMETERS_DEPTH;
use k8s_openapi::api::admissionregistration::v1::Validation;
use kube::CustomResourceExt as _;
use serde_json::Value;

/// Name of the policy (and binding) on JitRequests.
const NAME: &str = "countersign-jitrequests";
/// Name of the policy (and binding) on the status of JitRequests.
const STATUS: &str = "countersign-jitrequests-status";

/// The policy on creating and changing requests.
pub(super) fn spec_policy() -> Policy {
    let variables = vec![
        variable("uid", UID),
        variable("groups", GROUPS),
        variable(
            "operates",
            &format!("{}.check('operate').allowed()", authorizer("jitrequests", "object", "object.metadata.name")),
        ),
    ];
    let validations = vec![
        forbid_unless(
            &format!("request.operation != 'CREATE' || (has(object.spec.requestedBy) && {})", is_user("object.spec.requestedBy")),
            "spec.requestedBy must be the user name, uid and groups of the user who makes the request (kubectl auth whoami)",
        ),
        forbid_unless(
            "request.operation != 'CREATE' || !has(object.spec.onBehalfOf) || variables.operates",
            "only the operator may set spec.onBehalfOf: it says for whom an agent was called, which only the token service knows",
        ),
        forbid_unless(
            "request.operation != 'CREATE' || !has(object.spec.decideBy) ||
                (timestamp(object.spec.decideBy) > timestamp(object.metadata.creationTimestamp)
                    && timestamp(object.spec.decideBy) - timestamp(object.metadata.creationTimestamp) <= duration('168h'))",
            "spec.decideBy must be a time in the future, at most 7 days from now",
        ),
        forbid_unless(
            &format!(
                "request.operation != 'CREATE' || !has(object.spec.operation.parameters) || {}",
                nests_at_most("object.spec.operation.parameters", PARAMETERS_DEPTH)
            ),
            "spec.operation.parameters must not nest deeper than 8 levels",
        ),
        // The schema says the same; saying it twice costs nothing and holds also where the definition was replaced.
        forbid_unless("oldObject == null || object.spec == oldObject.spec", "spec cannot be changed: file another request"),
    ];
    policy(NAME, "jitrequests", &["CREATE", "UPDATE"], variables, validations)
}

/// The policy on the status: people write decisions and nothing else, and only those who may.
pub(super) fn status_policy() -> Policy {
    let variables = vec![
        variable("uid", UID),
        variable("groups", GROUPS),
        variable("was", "has(oldObject.status) && has(oldObject.status.decision)"),
        variable("is", "has(object.status) && has(object.status.decision)"),
        variable("decides", "variables.is && (!variables.was || object.status.decision != oldObject.status.decision)"),
        variable("approves", "variables.decides && object.status.decision.verdict == 'Approved'"),
        variable(
            "byOther",
            "variables.was && has(oldObject.status.decision.by) && oldObject.status.decision.by.username != request.userInfo.username",
        ),
        variable("onlyDecides", &only_writes(&JitRequest::crd(), "decision")),
        variable("phase", "has(oldObject.status) && has(oldObject.status.phase) ? oldObject.status.phase : ''"),
    ];
    let operates = format!("{}.check('operate').allowed()", authorizer("jitrequests", "object", "object.metadata.name"));
    let may_approve = authorizer("capabilities", "object", "object.spec.operation.capability");
    let validations = vec![
        forbid_unless(
            &format!("variables.onlyDecides || {operates}"),
            "of the status of a JitRequest people write 'decision' only: the rest needs verb operate on jitrequests.countersign.dev,
             which is the operator's",
        ),
        forbid_unless(
            "!variables.decides || (has(oldObject.status) && has(oldObject.status.digest) &&
                (variables.phase == 'Pending' || (variables.phase == 'Approved' && !variables.approves)))",
            "a decision is accepted only while the request is Pending and has a digest; a Denied also while it is Approved.
             If it was made a moment ago, retry",
        ),
        forbid_unless(
            "!variables.decides || !variables.was || (oldObject.status.decision.verdict == 'Approved' && !variables.approves)",
            "there is a decision already. A Denied is final; if an Approved is there, retry once the operator has recorded it",
        ),
        // The same words, merged into another's, change nothing: whoever sent them must not believe that they decided.
        forbid_unless(
            &format!("!variables.is || variables.decides || !variables.byOther || {operates}"),
            "there is a decision already, by somebody else: retry once the operator has recorded it",
        ),
        forbid_unless(
            "!variables.decides || !variables.byOther || !has(object.status.decision.comment) || !has(oldObject.status.decision.comment)
                || object.status.decision.comment != oldObject.status.decision.comment",
            "status.decision.comment is that of somebody else's decision, which yours takes the place of: write your own",
        ),
        forbid_unless(
            &format!("!variables.decides || (has(object.status.decision.by) && {})", is_user("object.status.decision.by")),
            "status.decision.by must be your own user name, uid and groups (kubectl auth whoami)",
        ),
        Validation {
            expression: squeeze(&format!("!variables.decides || {may_approve}.check('approve').allowed()")),
            message_expression: Some(squeeze(
                "'user \"' + request.userInfo.username + '\" may not decide on capability \"' + object.spec.operation.capability
                    + '\" in namespace \"' + object.metadata.namespace + '\": it needs verb approve on capabilities.countersign.dev/'
                    + object.spec.operation.capability",
            )),
            message: Some("deciding needs verb approve on capabilities.countersign.dev/<name>".to_owned()),
            reason: Some("Forbidden".to_owned()),
        },
        forbid_unless(
            "!variables.approves || !(request.userInfo.username.startsWith('system:serviceaccount:')
                || request.userInfo.username.startsWith('system:node:')
                || 'system:serviceaccounts' in variables.groups || 'system:nodes' in variables.groups)",
            "a ServiceAccount never approves: a person must",
        ),
        forbid_unless(
            "!variables.approves || !has(object.spec.requestedBy) || (object.spec.requestedBy.username != request.userInfo.username
                && (variables.uid == '' || !has(object.spec.requestedBy.uid) || object.spec.requestedBy.uid != variables.uid))",
            "nobody approves a request of their own",
        ),
        forbid_unless(
            "!variables.decides || !has(object.status.decision.digest) ||
                (has(oldObject.status) && has(oldObject.status.digest) && object.status.decision.digest == oldObject.status.digest)",
            "status.decision.digest is not the digest of this request: look at it again before you decide",
        ),
    ];
    policy(STATUS, "jitrequests/status", &["UPDATE"], variables, validations)
}

/// The mutating policy that writes who made a request.
pub(super) fn requester_policy() -> Vec<Value> {
    mutating_policy(
        NAME,
        "jitrequests",
        &["CREATE"],
        "true",
        &[],
        &json_patch(&write_user("/spec/requestedBy", "Object.spec.requestedBy")),
    )
}

/// The mutating policy that writes who decided.
pub(super) fn approver_policy() -> Vec<Value> {
    let condition = "has(object.status) && has(object.status.decision) &&
        (!has(oldObject.status) || !has(oldObject.status.decision) || object.status.decision != oldObject.status.decision)";
    // A merge keeps the comment of the decision whose place it takes; nobody is to have said what somebody else wrote.
    let comment = "has(oldObject.status) && has(oldObject.status.decision) && has(oldObject.status.decision.by)
        && oldObject.status.decision.by.username != request.userInfo.username && has(object.status.decision.comment)
        && has(oldObject.status.decision.comment) && object.status.decision.comment == oldObject.status.decision.comment
            ? [JSONPatch{op: 'remove', path: '/status/decision/comment'}] : []";
    let by = write_user("/status/decision/by", "Object.status.decision.by");
    mutating_policy(STATUS, "jitrequests/status", &["UPDATE"], condition, &[], &json_patch(&format!("{by} + ({comment})")))
}
