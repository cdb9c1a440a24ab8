//! Who may read the ledger: whoever Kubernetes says, for the token that they show.

use super::super::caller::bearer;
use super::super::error::Refusal;
use crate::audit::Record;
use axum::http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use std::time::Duration;

/// How long the API server may take for each of its two answers.
const REVIEW_WITHIN: Duration = Duration::from_millis(1900);
/// Longest token, in bytes.
const TOKEN_MAX: usize = 16 << 10;
/// The virtual resource.
const RESOURCE: &str = "auditrecords";

/// Checks that the caller may read the ledger, and writes into the record who it is.
///
/// # Errors
/// A [`Refusal`] if not.
pub(super) async fn check(client: &kube::Client, headers: &HeaderMap, record: &mut Record) -> Result<(), Refusal> {
    let token = bearer(headers)?.ok_or_else(|| {
        let description =
            "show a Kubernetes token of your own: Authorization: Bearer <token>, such as kubectl create token makes";
        Refusal::unauthenticated("caller_unauthenticated", description).challenged()
    })?;
    let user = user(client, token).await?;
    record.text("reader", user.username.as_deref().unwrap_or_default());
    if let Some(uid) = &user.uid {
        record.text("reader_uid", uid.as_str());
    }
    if may_read(client, user).await? {
        return Ok(());
    }
    let description = "reading the ledger needs the verb get on auditrecords in countersign.dev, in the whole cluster: \
         bind the ClusterRole countersign-auditor with a ClusterRoleBinding";
    Err(Refusal::new("access_denied", "reader_not_allowed", description).status(StatusCode::FORBIDDEN))
}

/// Whose token it is, says the API server. It must be one for the API server itself: without audiences in the question that is what is
/// checked, so that nobody reads with a token that they were handed for another purpose.
async fn user(client: &kube::Client, token: String) -> Result<UserInfo, Refusal> {
    let unaccepted = || {
        let description = "the token was not accepted: it must be one for the Kubernetes API of this cluster, and not expired";
        Refusal::unauthenticated("credential_review_refused", description).challenged()
    };
    if token.is_empty() || token.len() > TOKEN_MAX {
        return Err(unaccepted());
    }
    let question = TokenReview { spec: TokenReviewSpec { token: Some(token), audiences: None }, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(client.clone());
    let answer = ask(api.create(&PostParams::default(), &question)).await?;
    let status = answer.status.unwrap_or_default();
    let is_accepted = status.authenticated == Some(true) && status.error.is_none_or(|error| error.is_empty());
    status.user.filter(|user| is_accepted && user.username.as_ref().is_some_and(|name| !name.is_empty())).ok_or_else(unaccepted)
}

async fn may_read(client: &kube::Client, user: UserInfo) -> Result<bool, Refusal> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            // Authorizers may look at it: a token with fewer rights than its user has says so there.
            extra: user.extra,
            resource_attributes: Some(ResourceAttributes {
                group: Some(crate::crd::GROUP.to_owned()),
                resource: Some(RESOURCE.to_owned()),
                verb: Some("get".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = ask(api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
}

async fn ask<T>(question: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    let unavailable = |why: String| Refusal::unavailable("authorizer_unavailable", why);
    let answer = tokio::time::timeout(REVIEW_WITHIN, question).await;
    answer.map_err(|_| unavailable("no answer in time".to_owned()))?.map_err(|error| unavailable(crate::error_chain(&error)))
}
