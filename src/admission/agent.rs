//! Admission of Agents: `grant` on what is added, the stamp of who wrote it, and status only by the operator.

use super::{Policy, forbid_unless, mutating_policy, policy, squeeze, variable};
use crate::crd::{CHANGED_BY, CONDITION_ADMITTED, CONDITION_SUSPENDED};
use k8s_openapi::api::admissionregistration::v1::{Validation, Variable};
use serde_json::Value;

/// Name of the policy (and binding) on Agents.
const AGENTS: &str = "countersign-agents";
/// Name of the policy (and binding) on the status of Agents.
const AGENTS_STATUS: &str = "countersign-agents-status";

/// How many capabilities one update may add. A CEL expression affords two authorizer checks (350,000 of 1,000,000
/// cost units each) and a policy about 28 (10,000,000), so a loop over the list is impossible and one validation
/// for each index is not.
const ADDED_MAX: usize = 24;

/// Whether the spec is as it was. Comparing whole specs makes no difference between fields of today and of tomorrow.
const SPEC_UNCHANGED: &str = "oldObject != null && object.spec == oldObject.spec";

/// The policy on creating and changing Agents.
pub(super) fn spec_policy() -> Policy {
    let variables = vec![
        variable("stamp", &stamp("object")),
        variable("oldStamp", &format!("oldObject == null ? '' : {}", stamp("oldObject"))),
        variable("unchanged", SPEC_UNCHANGED),
        variable("resumes", "oldObject != null && oldObject.spec.suspended && !object.spec.suspended"),
        variable(
            "audiencesAdded",
            "oldObject != null && has(object.spec.tokens) && object.spec.tokens.audiences.exists(a,
                !has(oldObject.spec.tokens) || !oldObject.spec.tokens.audiences.exists(o, o == a))",
        ),
        variable(
            "livesLonger",
            "oldObject != null && has(object.spec.tokens) && has(oldObject.spec.tokens)
                && object.spec.tokens.expirationSeconds > oldObject.spec.tokens.expirationSeconds",
        ),
        // Written while these policies were not in force: the operator has said so, and whoever writes it again answers
        // for all of it. Suspending it needs no right, and resuming it counts as adding everything.
        variable(
            "unproven",
            &format!(
                "oldObject != null && !object.spec.suspended && has(oldObject.status) && has(oldObject.status.conditions)
                    && oldObject.status.conditions.exists(c, c.type == '{CONDITION_ADMITTED}' && c.status == 'False')"
            ),
        ),
        // Whoever could change one of these without the rights could make the agent's rights his own.
        variable(
            "everything",
            "oldObject == null || object.spec.identity != oldObject.spec.identity || object.spec.owner != oldObject.spec.owner
                || variables.resumes || variables.audiencesAdded || variables.livesLonger || variables.unproven",
        ),
        // An entry that is as it was is found cheaply: only for one that changed are resources compared one by one, so that
        // the largest Agent that the schema allows stays within the cost limit of an expression.
        variable(
            "added",
            "variables.unchanged ? [] : object.spec.capabilities.filter(c, variables.everything || !(c in oldObject.spec.capabilities ||
                oldObject.spec.capabilities.exists(o, o.name == c.name && (!has(o.resources)
                    || (has(c.resources) && c.resources.all(r, r in o.resources)))))).map(c, c.name)",
        ),
        variable(
            "grantsAll",
            "authorizer.group('countersign.dev').resource('capabilities').namespace(object.metadata.namespace).check('grant').allowed()",
        ),
    ];
    let mut validations = vec![
        Validation {
            expression: squeeze("variables.unchanged ? variables.stamp == variables.oldStamp : variables.stamp == request.userInfo.username"),
            message_expression: Some(squeeze(&format!(
                "variables.unchanged
                    ? 'annotation {CHANGED_BY} names who wrote the current spec: leave it as it is unless the spec changes'
                    : 'annotation {CHANGED_BY} must be \"' + request.userInfo.username + '\", the user who makes this change'"
            ))),
            message: Some(format!("annotation {CHANGED_BY} must name the user who makes this change")),
            reason: Some("Forbidden".to_owned()),
        },
        forbid_unless(
            &format!(
                "!variables.resumes || (has(oldObject.status) && has(oldObject.status.conditions) && oldObject.status.conditions.exists(c,
                    c.type == '{CONDITION_SUSPENDED}' && c.status == 'True' && has(c.observedGeneration)
                    && c.observedGeneration == oldObject.metadata.generation))"
            ),
            "the suspension has not taken effect yet: wait until condition Suspended is True for the current generation
             (kubectl wait --for=condition=Suspended), then resume, so that the tokens of before stay dead",
        ),
        forbid_unless(
            &format!("size(variables.added) <= {ADDED_MAX} || variables.grantsAll"),
            &format!("at most {ADDED_MAX} capabilities can be added in one change unless you may grant all of them: add them in several steps"),
        ),
    ];
    validations.extend((0..ADDED_MAX).map(grant_of));
    policy(AGENTS, "agents", &["CREATE", "UPDATE"], variables, validations)
}

/// The rule for the capability at `index` of those added.
fn grant_of(index: usize) -> Validation {
    Validation {
        expression: squeeze(&format!(
            "size(variables.added) <= {index} || variables.grantsAll || authorizer.group('countersign.dev').resource('capabilities')
                .namespace(object.metadata.namespace).name(variables.added[{index}]).check('grant').allowed()"
        )),
        message_expression: Some(squeeze(&format!(
            "'user \"' + request.userInfo.username + '\" may not grant capability \"' + variables.added[{index}] + '\" in namespace \"'
                + object.metadata.namespace + '\": it needs verb grant on capabilities.countersign.dev/' + variables.added[{index}]"
        ))),
        message: Some("a capability that is added needs verb grant on capabilities.countersign.dev/<name>".to_owned()),
        reason: Some("Forbidden".to_owned()),
    }
}

/// The policy on the status of Agents: the revocation epoch and the conditions in it decide about tokens, so the right
/// to update the subresource is not enough.
pub(super) fn status_policy() -> Policy {
    let rule = forbid_unless(
        "authorizer.group('countersign.dev').resource('agents').namespace(object.metadata.namespace).name(object.metadata.name)
            .check('operate').allowed()",
        "the status of an Agent is written by the operator: it needs verb operate on agents.countersign.dev",
    );
    policy(AGENTS_STATUS, "agents/status", &["UPDATE"], Vec::new(), vec![rule])
}

/// The mutating policy that writes the stamp.
pub(super) fn stamp_policy() -> Vec<Value> {
    let patch = format!(
        "Object{{metadata: Object.metadata{{annotations: {{'{CHANGED_BY}':
            ({SPEC_UNCHANGED}) ? variables.oldStamp : request.userInfo.username}}}}}}"
    );
    let variables: [Variable; 1] = [variable("oldStamp", &format!("oldObject == null ? '' : {}", stamp("oldObject")))];
    // Where the spec is as it was, the stamp is put back only if the request changed it.
    let condition = format!("!({SPEC_UNCHANGED}) || ({}) != ({})", stamp("object"), stamp("oldObject"));
    mutating_policy(AGENTS, "agents", &["CREATE", "UPDATE"], &condition, &variables, &patch)
}

/// The stamp on `object`, empty if there is none.
fn stamp(object: &str) -> String {
    format!(
        "has({object}.metadata.annotations) && '{CHANGED_BY}' in {object}.metadata.annotations
            ? {object}.metadata.annotations['{CHANGED_BY}'] : ''"
    )
}
