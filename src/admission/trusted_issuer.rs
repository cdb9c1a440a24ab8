//! Admission of TrustedIssuers: whoever says whose word counts could become anybody.

use super::{Policy, forbid_unless, policy, stamp, variable};

/// Name of the policy (and binding) on TrustedIssuers.
pub(super) const NAME: &str = "countersign-trustedissuers";

/// The policy on creating and changing TrustedIssuers. Suspending one is narrowing and needs no right to grant; nor does deleting one.
pub(super) fn spec_policy() -> Policy {
    let mut variables = stamp::variables();
    // Nothing but `suspended` differs, and it is true now.
    let others = ["provides", "issuer", "maxTokenLifetimeSeconds", "claimValidationRules", "claimMappings"];
    let same = |field: &str| {
        format!(
            "(has(object.spec.{field}) ? has(oldObject.spec.{field}) && object.spec.{field} == oldObject.spec.{field} : !has(oldObject.spec.{field}))"
        )
    };
    let all_same = others.iter().map(|field| same(field)).collect::<Vec<_>>().join(" && ");
    variables.push(variable("suspends", &format!("oldObject != null && object.spec.suspended && {all_same}")));
    let grant = forbid_unless(
        "variables.unchanged || variables.suspends
            || authorizer.group('countersign.dev').resource('capabilities').check('grant').allowed()",
        "saying whose tokens count can make anybody anybody: it needs verb grant on all capabilities.countersign.dev in the whole cluster",
    );
    policy(NAME, "trustedissuers", &["CREATE", "UPDATE"], variables, vec![stamp::rule(""), grant])
}

#[cfg(test)]
mod tests {
    use crate::crd::TrustedIssuer;
    use kube::CustomResourceExt as _;

    #[test]
    fn suspending_leaves_every_other_field_of_the_schema_as_it_is() {
        let schema = serde_json::to_value(TrustedIssuer::crd()).expect("JSON");
        let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let policy = super::spec_policy();
        let variables = policy.policy.spec.expect("a spec").variables.expect("variables");
        let suspends = &variables.iter().find(|v| v.name == "suspends").expect("the variable").expression;
        for field in spec.as_object().expect("fields").keys().filter(|field| *field != "suspended") {
            assert!(suspends.contains(&format!("object.spec.{field} == oldObject.spec.{field}")), "{field} is not compared");
        }
    }
}
