//! The API server's answers to a caller's own credential, passed on: what it refuses is refused here, for its reasons.

use super::App;
use super::error::Refusal;
use crate::crd::{GROUP, User};
use axum::http::StatusCode;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};

/// A client with the caller's `token`.
///
/// # Errors
/// If it is nothing that could be sent as a token.
pub(super) fn client_of(app: &App, token: &str) -> Result<kube::Client, Refusal> {
    app.on_behalf.client(token).ok_or_else(unaccepted)
}

/// Whatever is no token of this cluster.
pub(super) fn unaccepted() -> Refusal {
    let description = "the token was not accepted: it must be one for the Kubernetes API of this cluster, and not expired";
    Refusal::new("invalid_token", "credential_review_refused", description).status(StatusCode::UNAUTHORIZED).challenged()
}

/// What the API server said no to.
pub(super) fn refused(error: kube::Error) -> Refusal {
    let said = match error {
        kube::Error::Api(said) => said,
        other => return Refusal::unavailable("api_server_unavailable", crate::error_chain(&other)),
    };
    let (error, reason) = match said.code {
        401 => return unaccepted(),
        400 => ("invalid_request", "api_server_invalid"),
        403 => ("access_denied", "api_server_forbidden"),
        404 => ("not_found", "api_server_not_found"),
        409 => ("conflict", "api_server_conflict"),
        410 => ("invalid_request", "api_server_expired"),
        413 => ("invalid_request", "api_server_too_large"),
        415 | 422 => ("invalid_object", "api_server_invalid"),
        429 => return Refusal::unavailable("api_server_busy", said.message),
        _ => return Refusal::unavailable("api_server_unavailable", said.message),
    };
    let status = StatusCode::from_u16(said.code).unwrap_or(StatusCode::BAD_REQUEST);
    Refusal::new(error, reason, said.message).status(status)
}

/// Whose token it is, says the API server.
///
/// # Errors
/// If it is nobody's.
pub(super) async fn whoami(client: &kube::Client) -> Result<User, Refusal> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.map_err(refused)?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    let username = user.username.filter(|name| !name.is_empty() && name != "system:anonymous").ok_or_else(unaccepted)?;
    Ok(User { username, uid: user.uid.filter(|uid| !uid.is_empty()), groups: user.groups.unwrap_or_default() })
}

/// Whether whoever the client is for has `verb` on one of our resources: on that of `name`, in `namespace` or in the whole cluster.
///
/// # Errors
/// If the API server does not say.
pub(super) async fn may(
    client: &kube::Client,
    verb: &str,
    resource: &str,
    name: Option<&str>,
    namespace: Option<&str>,
) -> Result<bool, Refusal> {
    let attributes = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        resource: Some(resource.to_owned()),
        name: name.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await.map_err(refused)?;
    Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
}
