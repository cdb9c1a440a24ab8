//! The alternative for clusters where watching pods is not allowed: asking the API server about each token.

use super::{IdentityError, ServiceAccount};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use std::time::Duration;

/// How long the API server may take.
const REVIEW_WITHIN: Duration = Duration::from_millis(1900);

/// What the API server says about a token that it accepts.
#[derive(Debug)]
pub(super) struct Review {
    username: String,
    pod_uid: Option<String>,
}

/// Asks the API server whether it accepts `token` for `audience`.
pub(super) async fn review(client: &kube::Client, token: &str, audience: &str) -> Result<Review, IdentityError> {
    let question = TokenReview {
        spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) },
        ..TokenReview::default()
    };
    let api: Api<TokenReview> = Api::all(client.clone());
    let answer = tokio::time::timeout(REVIEW_WITHIN, api.create(&PostParams::default(), &question)).await;
    let unavailable = |why: &str| IdentityError::Unavailable(format!("TokenReview: {why}"));
    match answer {
        Err(_) => Err(unavailable("no answer in time")),
        Ok(Err(error)) => Err(unavailable(&crate::error_chain(&error))),
        Ok(Ok(TokenReview { status: None, .. })) => Err(unavailable("an answer without status")),
        Ok(Ok(TokenReview { status: Some(status), .. })) => accepted(status, audience),
    }
}

/// `authenticated` alone is not enough: with an error it means nothing, and without our audience the token is good
/// for the API server, not for us.
fn accepted(status: TokenReviewStatus, audience: &str) -> Result<Review, IdentityError> {
    if status.authenticated != Some(true) || status.error.is_some_and(|e| !e.is_empty()) {
        return Err(IdentityError::Review("not authenticated"));
    }
    if !status.audiences.unwrap_or_default().iter().any(|a| a == audience) {
        return Err(IdentityError::Review("not for this service's issuer URL"));
    }
    let user = status.user.ok_or(IdentityError::Review("no user in the answer"))?;
    let pod_uid = user.extra.unwrap_or_default().remove("authentication.kubernetes.io/pod-uid").and_then(|mut uids| uids.pop());
    Ok(Review { username: user.username.unwrap_or_default(), pod_uid })
}

impl Review {
    /// Checks that the API server speaks of the same caller as the token's claims.
    pub(super) fn confirms(&self, caller: &ServiceAccount) -> Result<(), IdentityError> {
        let pod_uid = caller.pod.as_ref().map(|pod| pod.uid.to_string());
        if self.username != caller.username() || self.pod_uid != pod_uid {
            return Err(IdentityError::Review("the answer speaks of another caller"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;

    fn status() -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["https://us".to_owned()]),
            error: None,
            user: Some(UserInfo { username: Some("system:serviceaccount:a:b".to_owned()), ..UserInfo::default() }),
        }
    }

    #[test]
    fn f3_an_answer_counts_only_if_it_is_for_us_and_without_error() {
        assert!(accepted(status(), "https://us").is_ok());
        assert!(accepted(TokenReviewStatus { error: Some("x".to_owned()), ..status() }, "https://us").is_err());
        assert!(accepted(TokenReviewStatus { authenticated: None, ..status() }, "https://us").is_err());
        assert!(accepted(TokenReviewStatus { audiences: None, ..status() }, "https://us").is_err());
        assert!(accepted(status(), "https://us/").is_err());
        assert!(accepted(TokenReviewStatus { user: None, ..status() }, "https://us").is_err());
    }
}
