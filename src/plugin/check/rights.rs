//! What may whoever asks do themselves?

use super::{Finding, said};
use crate::cli::whoami;
use crate::crd::{Capability, GROUP};
use crate::plugin::failure::Failure;
use crate::plugin::session::Session;
use crate::plugin::stored::{Stored, all};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::core::ApiResource;

/// For how many capabilities is asked whether one may decide.
const ASKED_MAX: usize = 50;

/// A right: what it is for, the verb, the resource, its part, whether it counts in the whole cluster, and the ClusterRole that has it.
type Right = (&'static str, &'static str, &'static str, &'static str, bool, &'static str);

const RIGHTS: [Right; 5] = [
    ("see requests", "list", "jitrequests", "", false, "countersign-approver, or view"),
    ("write decisions", "patch", "jitrequests", "status", false, "countersign-approver"),
    ("suspend agents", "patch", "agents", "", false, "edit"),
    ("revoke tokens", "revoke", "agents", "", false, "countersign-revoker"),
    ("read the ledger", "get", "auditrecords", "", true, "countersign-auditor, with a ClusterRoleBinding"),
];

/// Asks the API server.
pub(super) async fn look(session: &Session) -> Vec<Finding> {
    let name = match whoami(&session.client).await {
        Ok(user) => said(&user.username),
        Err(error) => return vec![Finding::unknown("who you are", &error.into())],
    };
    let namespace = session.namespace().map(str::to_owned).unwrap_or_default();
    let place = if namespace.is_empty() { "everywhere".to_owned() } else { format!("in namespace {}", said(&namespace)) };
    let mut findings = vec![Finding::good(format!("you are {name}"))];
    for (what, verb, resource, part, everywhere, role) in RIGHTS {
        let scope = if everywhere { "" } else { namespace.as_str() };
        findings.push(match may(session, scope, verb, resource, part, "").await {
            Ok(true) => Finding::good(format!("you may {what}{}", if everywhere { String::new() } else { format!(" {place}") })),
            Ok(false) => {
                Finding::notice(format!("you may not {what}"), format!("it needs verb {verb} on {resource}: ClusterRole {role}"))
            }
            Err(failure) => Finding::unknown(what, &failure),
        });
    }
    findings.push(approvals(session, &namespace, &place).await);
    findings
}

/// On which capabilities one may decide.
async fn approvals(session: &Session, namespace: &str, place: &str) -> Finding {
    match may(session, namespace, "approve", "capabilities", "", "").await {
        Ok(true) => return Finding::good(format!("you may decide on every capability {place}")),
        Ok(false) => {}
        Err(failure) => return Finding::unknown("what you may decide on", &failure),
    }
    let api: Api<Stored> = Api::all_with(session.client.clone(), &ApiResource::erase::<Capability>(&()));
    let names: Vec<String> = match all(&api).await {
        Ok(objects) => objects.iter().map(ResourceExt::name_any).collect(),
        Err(error) => return Finding::unknown("the catalogue", &error.into()),
    };
    let asked = names.iter().take(ASKED_MAX).map(|name| async move {
        let allowed = may(session, namespace, "approve", "capabilities", "", name).await;
        allowed.unwrap_or(false).then(|| said(name))
    });
    let allowed: Vec<String> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    let left = names.len().saturating_sub(ASKED_MAX);
    let rest = if left > 0 { format!(" ({left} more were not asked about)") } else { String::new() };
    match allowed.is_empty() {
        true => Finding::notice(
            format!("you may decide on nothing {place}{rest}"),
            "it needs verb approve on capabilities.countersign.dev/<name>, in a Role of that namespace",
        ),
        false => Finding::good(format!("you may decide {place} on {}{rest}", allowed.join(", "))),
    }
}

async fn may(session: &Session, namespace: &str, verb: &str, resource: &str, part: &str, name: &str) -> Result<bool, Failure> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        namespace: some(namespace),
        verb: some(verb),
        resource: some(resource),
        subresource: some(part),
        name: some(name),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(session.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
}
