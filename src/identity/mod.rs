//! A credential in, a verified [`Caller`] out.

pub mod jws;
mod keys;
mod service_account;
mod token_review;

pub use keys::ApiServerKeys;
pub use service_account::{CredentialPolicy, PodRef, check_claims};

use crate::snapshot::Snapshot;
use jws::{JwsError, Unverified};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a token of a pod that the watch has not shown yet may wait for it. A pod can present its token
/// within milliseconds of its creation.
const NEWBORN_PATIENCE: Duration = Duration::from_millis(500);
/// How recently such a token must have been issued, in seconds. An older one belongs to a pod that is gone.
const NEWBORN_AGE: u64 = 5;

/// A ServiceAccount whose token was verified: who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub service_account: String,
    /// UID of the ServiceAccount.
    pub service_account_uid: Uuid,
    /// The pod to which the token is bound.
    pub pod: Option<PodRef>,
    /// When the token was issued, in seconds since the epoch.
    pub issued_at: u64,
    /// When it ends, in seconds since the epoch. What is exchanged for it ends no later.
    pub expires_at: u64,
    /// The token's `jti`, if it has one: it links our record to the API server's audit log.
    pub credential_id: Option<String>,
}

impl Caller {
    /// The name by which Kubernetes knows the caller.
    #[must_use]
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

/// Why a credential identifies nobody. The text is for the record, never for the caller: which check failed would tell
/// an attacker what to try next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The token is no acceptable JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The key that the token names is not one of the API server's.
    #[error("the token names a key that the API server does not publish")]
    UnknownKey,
    /// A claim is not as it must be.
    #[error("{0}")]
    Claim(&'static str),
    /// The pod or ServiceAccount is gone or being deleted.
    #[error("the token's {0} does not exist any more or is being deleted")]
    Gone(&'static str),
    /// The API server refused the token on review.
    #[error("the API server refused the token on review: {0}")]
    Review(&'static str),
    /// Nobody can tell now.
    #[error("the credential cannot be checked now: {0}")]
    Unavailable(String),
}

impl IdentityError {
    /// Short, stable name for records and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Jws(_) => "credential_malformed_or_forged",
            Self::UnknownKey => "credential_key_unknown",
            Self::Claim(_) => "credential_claim_refused",
            Self::Gone(_) => "credential_holder_gone",
            Self::Review(_) => "credential_review_refused",
            Self::Unavailable(_) => "credential_check_unavailable",
        }
    }
}

/// Verifies ServiceAccount tokens.
#[derive(Debug)]
pub struct Verifier {
    /// What a token must be like.
    pub policy: CredentialPolicy,
    /// The audience that it must carry: our issuer URL.
    pub audience: String,
    /// How signature and liveness are checked.
    pub validation: Validation,
}

/// The two ways to check a token's signature and that its holder is alive.
pub enum Validation {
    /// Here, with the API server's keys and a watch of Pods and ServiceAccounts. Faster, and a pod that is being deleted is
    /// refused at once.
    Watch(Arc<ApiServerKeys>),
    /// By the API server, with a TokenReview for each request. Up to about 70 s late for a pod that is being deleted.
    TokenReview(kube::Client),
}

impl std::fmt::Debug for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Watch(_) => "Watch",
            Self::TokenReview(_) => "TokenReview",
        })
    }
}

impl Verifier {
    /// Verifies `token` at `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// An [`IdentityError`] that says which check failed.
    pub async fn verify(&self, token: &str, snapshot: &Arc<Snapshot>, now: u64) -> Result<Caller, IdentityError> {
        let unverified = Unverified::parse(token)?;
        // An access token of ours, an ID token or an assertion is no ServiceAccount token (RFC 8725 section 3.11).
        // The API server sets no `typ`; plain `JWT` says nothing.
        if !matches!(unverified.typ.as_deref(), None | Some("jwt")) {
            return Err(IdentityError::Claim("the token's typ is not that of a ServiceAccount token"));
        }
        match &self.validation {
            Validation::Watch(keys) => {
                let key = keys.find(unverified.kid.as_deref()).await?;
                let claims = unverified.verify(&key.key, key.algorithm)?;
                let caller = check_claims(&claims, &self.policy, &self.audience, Some(&key.issuer), now)?;
                alive(&caller, snapshot, now).await?;
                Ok(caller)
            }
            Validation::TokenReview(client) => {
                let review = token_review::review(client, token, &self.audience).await?;
                let claims = unverified.into_claims()?;
                let caller = check_claims(&claims, &self.policy, &self.audience, None, now)?;
                review.confirms(&caller)?;
                Ok(caller)
            }
        }
    }
}

/// Checks that the caller's pod and ServiceAccount exist and are not being deleted.
async fn alive(caller: &Caller, snapshot: &Arc<Snapshot>, now: u64) -> Result<(), IdentityError> {
    let look = |snapshot: &Snapshot| {
        let workloads = snapshot.workloads();
        if !workloads.service_accounts.contains(&caller.service_account_uid) {
            return Err(IdentityError::Gone("ServiceAccount"));
        }
        match &caller.pod {
            Some(pod) if !workloads.pods.contains(&pod.uid) => Err(IdentityError::Gone("pod")),
            _ => Ok(()),
        }
    };
    match look(snapshot) {
        Err(gone) if caller.issued_at.saturating_add(NEWBORN_AGE) >= now => {
            snapshot.wait_for(NEWBORN_PATIENCE, |s| look(s).ok()).await.ok_or(gone)
        }
        result => result,
    }
}
