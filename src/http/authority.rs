//! Who may introspect: Kubernetes RBAC, asked by SubjectAccessReview.

use super::error::Refusal;
use crate::identity::Caller;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use moka::future::Cache;
use std::time::Duration;

/// How long an answer counts. A right taken away is gone after this time at the latest.
const REMEMBER: Duration = Duration::from_secs(5);
/// How many answers are remembered.
const REMEMBERED_MAX: u64 = 10_000;

/// Asks the API server what a ServiceAccount may do, and remembers the answer for a few seconds.
pub struct Authority {
    client: kube::Client,
    /// By namespace, name and UID of the ServiceAccount, and audience.
    answers: Cache<(String, String), bool>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("remembered", &self.answers.entry_count()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Asks through `client`.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client, answers: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBER).build() }
    }

    /// Whether `caller` has the verb `introspect` on `audiences.countersign.dev/<audience>` in its own namespace. Several
    /// requests for one answer make one question.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn may_introspect(&self, caller: &Caller, audience: &str) -> Result<bool, Refusal> {
        let key = (format!("{}/{}", caller.username(), caller.service_account_uid), audience.to_owned());
        let answer = self.answers.try_get_with(key, self.ask(caller, audience)).await;
        answer.map_err(|error| Refusal::unavailable("authorizer_unavailable", error.as_str()))
    }

    async fn ask(&self, caller: &Caller, audience: &str) -> Result<bool, String> {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", caller.namespace),
            "system:authenticated".to_owned(),
        ];
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(caller.username()),
                uid: Some(caller.service_account_uid.to_string()),
                groups: Some(groups.into()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(crate::crd::GROUP.to_owned()),
                    resource: Some("audiences".to_owned()),
                    name: Some(audience.to_owned()),
                    namespace: Some(caller.namespace.clone()),
                    verb: Some("introspect".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|e| crate::error_chain(&e))?;
        let status = answer.status.ok_or("a SubjectAccessReview without status")?;
        Ok(status.allowed && status.denied != Some(true))
    }
}
