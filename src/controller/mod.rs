//! What keeps the state in Kubernetes current. Nothing here signs a token, and no request waits for it longer than a moment.

pub mod agent;
pub mod capability;
pub mod credentials;
mod due;
pub mod jit_request;
pub mod lease;
pub mod policies;

use kube::api::PostParams;

/// How we write: under a name of our own, so that `kubectl get --show-managed-fields` tells ours from others'.
#[must_use]
pub fn writing() -> PostParams {
    PostParams { field_manager: Some("countersign".to_owned()), ..PostParams::default() }
}
