//! Is the API server new enough, and does it have our resources as this version knows them?

use super::{Finding, said};
use crate::crd;
use crate::plugin::failure::Failure;
use crate::plugin::session::Session;
use crate::plugin::version::VERSION;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::{Value, json};

/// The oldest Kubernetes whose admission policies do what ours need.
const OLDEST: u32 = 30;
const UPGRADE: &str =
    "helm upgrade countersign, with the chart of the version that you want; then use kubectl-countersign of that version";

/// The API server.
pub(super) async fn server(session: &Session) -> Finding {
    let version = match session.client.apiserver_version().await {
        Ok(version) => version,
        Err(error) => return Finding::unknown("the API server", &error.into()),
    };
    let minor = version.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or(0);
    if version.major == "1" && minor < OLDEST {
        let text = format!("Kubernetes {}.{} is too old", said(&version.major), said(&version.minor));
        return Finding::bad(text, format!("upgrade to 1.{OLDEST} or later"));
    }
    Finding::good(format!("Kubernetes {}", said(&version.git_version)))
}

/// The definitions.
pub(super) async fn look(session: &Session) -> Vec<Finding> {
    let api: Api<CustomResourceDefinition> = Api::all(session.client.clone());
    let mut findings = Vec::new();
    for expected in crd::all() {
        let name = expected.name_any();
        findings.push(match api.get_opt(&name).await {
            Ok(found) => judge(&name, &expected, found.as_ref()),
            Err(error) => match Failure::from(error) {
                // Whether it is there, everybody may know.
                failure @ Failure::Refused(_) if is_served(session, &expected).await => {
                    Finding::notice(format!("{name} is served"), format!("which version it is of cannot be told: {failure}"))
                }
                failure => Finding::unknown(&name, &failure),
            },
        });
    }
    findings
}

fn judge(name: &str, expected: &CustomResourceDefinition, found: Option<&CustomResourceDefinition>) -> Finding {
    let Some(found) = found else {
        return Finding::bad(
            format!("{name} is missing"),
            "helm upgrade countersign with crds.enabled=true, or kubectl apply -f crds/",
        );
    };
    let conditions = found.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if !conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
        let why: Vec<String> =
            conditions.iter().filter(|c| c.status != "True").filter_map(|c| c.message.as_deref().map(said)).collect();
        return Finding::bad(format!("{name} is not served: {}", why.join("; ")), "kubectl describe crd");
    }
    match schemas(expected) == schemas(found) {
        true => Finding::good(format!("{name} is that of version {VERSION}")),
        false => Finding::notice(format!("{name} is of another version than {VERSION}"), UPGRADE),
    }
}

/// What the versions of a definition say. The API server adds nothing to that.
fn schemas(definition: &CustomResourceDefinition) -> Value {
    definition.spec.versions.iter().map(|version| json!([version.name, version.schema])).collect()
}

async fn is_served(session: &Session, definition: &CustomResourceDefinition) -> bool {
    let listed = session.client.list_api_group_resources(&format!("{}/v1alpha1", crd::GROUP)).await;
    listed.is_ok_and(|listed| listed.resources.iter().any(|resource| resource.name == definition.spec.names.plural))
}
