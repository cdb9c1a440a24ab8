//! Who may introspect, evaluate, and still approve: Kubernetes RBAC, asked by SubjectAccessReview.

use super::error::Refusal;
use crate::crd::User;
use crate::grammar::{AgentId, CapabilityName};
use crate::identity::{Caller, Holder, ServiceAccount};
use crate::jit::Request;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use moka::future::Cache;
use std::time::Duration;

/// How long an answer counts. A right taken away is gone after this time at the latest.
const REMEMBER: Duration = Duration::from_secs(5);
/// How long the answer counts whether an approver still has the right to. It is asked for each request anew, when its approval is
/// turned into a token; this only lets many polls of one request share one question.
const REMEMBER_APPROVER: Duration = Duration::from_secs(1);
/// How many answers are remembered.
const REMEMBERED_MAX: u64 = 10_000;

/// Asks the API server what somebody may do, and remembers the answer for a few seconds.
pub struct Authority {
    client: kube::Client,
    /// By namespace, name and UID of the ServiceAccount, and what it may do.
    answers: Cache<(String, String), bool>,
    /// By UID of the request and name of the approver.
    approvers: Cache<(String, String), bool>,
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
        let cache = |life| Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(life).build();
        Self { client, answers: cache(REMEMBER), approvers: cache(REMEMBER_APPROVER) }
    }

    /// Whether `caller` is a ServiceAccount that has the verb `introspect` on `audiences.countersign.dev/<audience>` in its own namespace.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn may_introspect(&self, caller: &Caller, audience: &str) -> Result<bool, Refusal> {
        // Whom Kubernetes does not know it cannot have given a right.
        let Holder::ServiceAccount(account) = &caller.holder else { return Ok(false) };
        self.may(account, "introspect", "audiences", audience, &account.namespace).await
    }

    /// Whether `caller` is a ServiceAccount that has the verb `evaluate` on `agents.countersign.dev/<name>` in the namespace of the agent.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn may_evaluate(&self, caller: &Caller, agent: &AgentId) -> Result<bool, Refusal> {
        let Holder::ServiceAccount(account) = &caller.holder else { return Ok(false) };
        self.may(account, "evaluate", "agents", agent.name(), agent.namespace()).await
    }

    /// Several requests for one answer make one question.
    async fn may(
        &self,
        account: &ServiceAccount,
        verb: &'static str,
        resource: &str,
        name: &str,
        namespace: &str,
    ) -> Result<bool, Refusal> {
        let user = User {
            username: account.username(),
            uid: Some(account.uid.to_string()),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", account.namespace),
                "system:authenticated".to_owned(),
            ],
        };
        let key = (format!("{}/{}", account.username(), account.uid), format!("{verb} {namespace} {name}"));
        let question = self.ask(user, verb, resource, name, namespace);
        let answer = self.answers.try_get_with(key, question).await;
        answer.map_err(|error| Refusal::unavailable("authorizer_unavailable", error.as_str()))
    }

    /// Whether `approver`, as stamped at admission, has the verb `approve` on `capability` in the namespace of `request` by now.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn may_still_approve(
        &self,
        approver: &User,
        capability: &CapabilityName,
        request: &Request,
    ) -> Result<bool, Refusal> {
        let key = (request.uid.clone(), approver.username.clone());
        let question = self.ask(approver.clone(), "approve", "capabilities", capability.as_str(), &request.id.namespace);
        let answer = self.approvers.try_get_with(key, question).await;
        answer.map_err(|error| Refusal::unavailable("authorizer_unavailable", error.as_str()))
    }

    async fn ask(&self, user: User, verb: &str, resource: &str, name: &str, namespace: &str) -> Result<bool, String> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.username),
                uid: user.uid,
                groups: Some(user.groups),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(crate::crd::GROUP.to_owned()),
                    resource: Some(resource.to_owned()),
                    name: Some(name.to_owned()),
                    namespace: Some(namespace.to_owned()),
                    verb: Some(verb.to_owned()),
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
