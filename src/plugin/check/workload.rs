//! Does the operator run, and has it written its Lease a moment ago?

use super::{Finding, said};
use crate::plugin::failure::Failure;
use crate::plugin::operator::Installed;
use crate::plugin::session::Session;
use crate::plugin::version::VERSION;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use std::collections::BTreeMap;
use std::time::Duration;

/// The operator writes its Lease every second. After this it is not there, or cannot.
const QUIET: Duration = Duration::from_secs(5);
/// How often is looked.
const EVERY: Duration = Duration::from_millis(500);

/// The operator's Deployment or StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which of them.
    pub kind: &'static str,
    /// The version of the chart's operator.
    pub version: String,
    wanted: i32,
    ready: i32,
}

/// Finds it.
///
/// # Errors
/// If it may not be looked at.
pub async fn find(session: &Session, installed: &Installed) -> Result<Option<Workload>, Failure> {
    let Installed { namespace, name } = installed;
    let version = |labels: Option<BTreeMap<String, String>>| {
        let version = labels.and_then(|mut labels| labels.remove("app.kubernetes.io/version"));
        version.map_or_else(|| "unknown".to_owned(), |version| said(&version))
    };
    let sets: Api<StatefulSet> = Api::namespaced(session.client.clone(), namespace);
    if let Some(found) = sets.get_opt(name).await? {
        let wanted = found.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        return Ok(Some(Workload { kind: "StatefulSet", version: version(found.metadata.labels), wanted, ready }));
    }
    let deployments: Api<Deployment> = Api::namespaced(session.client.clone(), namespace);
    Ok(deployments.get_opt(name).await?.map(|found| {
        let wanted = found.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        Workload { kind: "Deployment", version: version(found.metadata.labels), wanted, ready }
    }))
}

/// Looks at it and its Lease.
pub(super) async fn look(session: &Session, installed: &Installed) -> Vec<Finding> {
    let Installed { namespace, name } = installed;
    let mut findings = match find(session, installed).await {
        Ok(Some(found)) => judge(&found, installed),
        Ok(None) => {
            vec![Finding::bad(format!("{namespace} has no Deployment and no StatefulSet {name}"), "helm upgrade countersign")]
        }
        Err(failure) => vec![Finding::unknown("the operator's workload", &failure)],
    };
    findings.push(lease(session, installed).await);
    findings
}

fn judge(found: &Workload, Installed { namespace, name }: &Installed) -> Vec<Finding> {
    let what = format!("{} {namespace}/{name}", found.kind);
    let fix = format!(
        "kubectl -n {namespace} describe {}/{name}; kubectl -n {namespace} logs {}/{name}",
        found.kind.to_lowercase(),
        found.kind.to_lowercase()
    );
    let ready = match (found.ready, found.wanted) {
        (_, 0) => Finding::bad(format!("{what} is scaled to nothing"), "scale it up: kubectl scale --replicas=1"),
        (ready, wanted) if ready >= wanted => Finding::good(format!("{what} is ready, {ready} of {wanted}")),
        (0, wanted) => Finding::bad(format!("{what} is not ready, 0 of {wanted}"), fix),
        (ready, wanted) => Finding::notice(format!("{what} is partly ready, {ready} of {wanted}"), fix),
    };
    let version = match found.version == VERSION {
        true => Finding::good(format!("the operator is of version {VERSION}, as this program")),
        false => Finding::notice(
            format!("the operator is of version {}, and this program of {VERSION}", found.version),
            "use kubectl-countersign of the operator's version",
        ),
    };
    vec![ready, version]
}

/// Watches the Lease for a moment. No clock is compared: that of this machine may be anything.
async fn lease(session: &Session, Installed { namespace, name }: &Installed) -> Finding {
    let api: Api<Lease> = Api::namespaced(session.client.clone(), namespace);
    let what = format!("Lease {namespace}/{name}");
    let mut first = None;
    for _ in 0..=(QUIET.as_millis() / EVERY.as_millis()) {
        let lease = match api.get_opt(name).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Finding::bad(format!("{what} is missing"), "helm upgrade countersign"),
            Err(error) => return Finding::unknown(&what, &error.into()),
        };
        let version = lease.metadata.resource_version;
        match &first {
            None => first = Some(version),
            Some(first) if *first != version => return Finding::good(format!("{what} is written: the operator works")),
            Some(_) => {}
        }
        tokio::time::sleep(EVERY).await;
    }
    Finding::bad(
        format!(
            "{what} was not written for {} s: no operator works, so no decision is recorded and no token issued",
            QUIET.as_secs()
        ),
        format!("kubectl -n {namespace} logs -l {}", crate::plugin::operator::LABEL),
    )
}
