//! Are the admission policies in the cluster those of this version, and do mutating ones write who decides?

use super::{Finding, said};
use crate::admission::{self, enforcement};
use crate::plugin::failure::Failure;
use crate::plugin::session::Session;
use crate::plugin::stored::Stored;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

const FIX: &str = "helm upgrade countersign, with the chart of the operator's version: until then no approval counts, and new or changed Agents \
                   get no token";

/// Looks at each.
pub(super) async fn look(session: &Session) -> Vec<Finding> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(session.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(session.client.clone());
    let mut findings = Vec::new();
    for expected in admission::validating() {
        let name = expected.policy.name_any();
        let found = async { Ok::<_, kube::Error>((policies.get_opt(&name).await?, bindings.get_opt(&name).await?)) };
        match found.await {
            Ok((policy, binding)) => match enforcement::inspect([(expected, policy.as_ref(), binding.as_ref())]) {
                Ok(_) => findings.push(Finding::good(format!("{name} is in force"))),
                Err(breach) => findings.push(Finding::bad(said(&breach.to_string()), FIX)),
            },
            Err(error) => {
                let failure = Failure::from(error);
                let refused = matches!(failure, Failure::Refused(_));
                findings.push(Finding::unknown("the admission policies", &failure));
                // The others would say the same.
                if refused {
                    return findings;
                }
            }
        }
    }
    findings.push(stamps(session).await);
    findings
}

/// Whether the API server writes who decides, or people do.
async fn stamps(session: &Session) -> Finding {
    let mut missing = Vec::new();
    for expected in admission::mutating() {
        let text = |pointer: &str| expected.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (name, kind) = (text("/metadata/name"), text("/kind"));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
        match Api::<Stored>::all_with(session.client.clone(), &resource).get_opt(name).await {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(format!("{kind} {name}")),
            Err(error) => return Finding::unknown("the mutating policies", &error.into()),
        }
    }
    match missing.len() {
        0 => Finding::good("the API server writes who decides and who changes what"),
        // All are missing where the cluster is older, or nobody wants them.
        all if all == admission::mutating().len() => {
            Finding::good("people write themselves who they are, as kubectl countersign does for them")
        }
        _ => Finding::bad(format!("missing: {}", missing.join(", ")), "helm upgrade countersign"),
    }
}
