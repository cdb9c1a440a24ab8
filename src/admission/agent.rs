//! Admission of Agents: `grant` on what is added, the stamp of who wrote it, and status only by the operator.

use super::{Policy, forbid_unless, policy, squeeze, stamp, variable};
use crate::crd::{CONDITION_ADMITTED, CONDITION_SUSPENDED};
use k8s_openapi::api::admissionregistration::v1::Validation;

/// Name of the policy (and binding) on Agents.
pub(super) const NAME: &str = "countersign-agents";

/// How many capabilities one update may add. A CEL expression affords two authorizer checks (350,000 of 1,000,000
/// cost units each) and a policy about 28 (10,000,000), so a loop over the list is impossible and one validation
/// for each index is not.
const ADDED_MAX: usize = 24;

/// The policy on creating and changing Agents.
pub(super) fn spec_policy() -> Policy {
    let mut variables = stamp::variables();
    variables.extend([
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
        variable(
            "unbinds",
            "oldObject != null && has(oldObject.spec.tokens) && has(oldObject.spec.tokens.proofOfPossession)
                && oldObject.spec.tokens.proofOfPossession != 'None' && (!has(object.spec.tokens)
                || !has(object.spec.tokens.proofOfPossession) || object.spec.tokens.proofOfPossession == 'None')",
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
                || (has(object.spec.delegation) && (!has(oldObject.spec.delegation) || object.spec.delegation != oldObject.spec.delegation))
                || variables.resumes || variables.audiencesAdded || variables.livesLonger || variables.unbinds || variables.unproven",
        ),
        // An entry that is as it was is found cheaply: only for one that changed are resources compared one by one, so that
        // the largest Agent that the schema allows stays within the cost limit of an expression. To demand approval is to narrow, and so is a condition where there was none.
        variable(
            "added",
            "variables.unchanged ? [] : object.spec.capabilities.filter(c, variables.everything || !(c in oldObject.spec.capabilities ||
                oldObject.spec.capabilities.exists(o, o.name == c.name && (!has(o.approval) || has(c.approval)) && (!has(o.when) || (has(c.when) && c.when == o.when)) && (!has(o.resources)
                    || (has(c.resources) && c.resources.all(r, r in o.resources)))))).map(c, c.name)",
        ),
        variable(
            "grantsAll",
            "authorizer.group('countersign.dev').resource('capabilities').namespace(object.metadata.namespace).check('grant').allowed()",
        ),
    ]);
    let mut validations = vec![
        stamp::rule(""),
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
    policy(NAME, "agents", &["CREATE", "UPDATE"], variables, validations)
}

/// What kubectl warns of when an Agent is written. It refuses nothing, so nothing depends on its being there.
pub(super) fn advice() -> Policy {
    let other = forbid_unless(
        "!has(object.spec.identity.serviceAccounts) || !object.spec.identity.serviceAccounts.exists(s, s.name == 'default')",
        "every pod of the namespace that names no other ServiceAccount runs under 'default' and will be this agent: give the agent a
         ServiceAccount of its own",
    );
    let mut policy = policy("countersign-agents-advice", "agents", &["CREATE", "UPDATE"], Vec::new(), vec![other]);
    if let Some(spec) = &mut policy.binding.spec {
        spec.validation_actions = Some(vec!["Warn".to_owned()]);
    }
    policy
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
