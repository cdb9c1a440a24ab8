//! What keeps the state in Kubernetes current. Nothing here signs a token, and no request waits for it longer than a moment.

pub mod agent;
pub mod capability;
pub mod credentials;
mod due;
mod fence;
pub mod jit_request;
pub mod lease;
pub mod ledger;
pub mod notifications;
pub mod policies;
mod timeline;
pub mod trusted_issuer;

use crate::admission::enforcement::Verdict;
use crate::audit::Record;
use crate::crd::User;
use kube::api::PostParams;

/// How we write: under a name of our own, so that `kubectl get --show-managed-fields` tells ours from others'.
#[must_use]
pub fn writing() -> PostParams {
    PostParams { field_manager: Some("countersign".to_owned()), ..PostParams::default() }
}

/// Writes into a record who gave an instruction to revoke, and why. It is carried out whoever that was: it only stops.
fn given_by(record: &mut Record, by: Option<&User>, reason: Option<&str>, verdict: &Verdict) {
    record.text("revoked_by", by.map_or("unknown", |by| by.username.as_str()));
    if let Some(reason) = reason {
        record.text("revocation_reason", reason);
    }
    if let Verdict::Unproven(why) = verdict {
        record.text("revoked_by_unproven", why.as_str());
    }
}
