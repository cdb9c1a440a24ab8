//! A credential in, a verified [`Caller`] out.
//!
//! Who a token says to be from decides how it is checked, and nothing else of it is looked at before its signature was verified with a key
//! of that issuer: this cluster, an agent itself, or a TrustedIssuer.

mod api_server_keys;
mod assertion;
mod federation;
mod fetch;
mod foreign;
pub(crate) mod jwks;
pub mod jws;
mod key_cache;
mod recognised;
mod service_account;
mod token_review;
mod validity;
mod verifier;

pub use api_server_keys::ApiServerKeys;
pub use federation::{Federation, IssuerKeys};
pub use foreign::{User, Workload};
pub use key_cache::{COOLDOWN, Fetched};
pub use recognised::Recognised;
pub(crate) use recognised::digest_of;
use service_account::check_claims;
pub use service_account::{CredentialPolicy, PodRef, ServiceAccount};
pub use verifier::{Accepts, Validation, Verifier};

use crate::agent::{Holding, RegisteredAgent};
use crate::chain::{IssuerRef, Proof, subject_digest};
use crate::grammar::AgentId;
use crate::snapshot::Snapshot;
use jws::JwsError;
use std::sync::Arc;

/// Who is asking.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// Whose credential it is.
    pub holder: Holder,
    /// The credential's `jti`, if it has one: it links our record to that of whoever issued it.
    pub credential_id: Option<String>,
}

/// Whose credential was verified.
#[derive(Debug, Clone, PartialEq)]
pub enum Holder {
    /// A ServiceAccount of this cluster.
    ServiceAccount(ServiceAccount),
    /// An agent with a key of its own.
    Key(KeyHolder),
    /// A workload for which another issuer vouches.
    Workload(Box<Workload>),
}

/// An agent that signed an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// Which agent.
    pub agent: AgentId,
    /// UID of its registration.
    pub agent_uid: String,
    /// Thumbprint of the key (RFC 7638).
    pub thumbprint: String,
    /// From when on the key counts no more, in seconds since the epoch.
    pub not_after: Option<u64>,
}

impl Caller {
    /// When the credential ends, in seconds since the epoch. What is exchanged for it ends no later. Of a key that is when the key itself
    /// ends: an assertion only shows that the agent has it.
    #[must_use]
    pub fn expires_at(&self) -> u64 {
        match &self.holder {
            Holder::ServiceAccount(account) => account.expires_at,
            Holder::Key(key) => key.not_after.unwrap_or(u64::MAX),
            Holder::Workload(workload) => workload.expires_at,
        }
    }

    /// The agent to which the credential belongs, as it is registered now.
    #[must_use]
    pub fn agent(&self, snapshot: &Snapshot) -> Option<Arc<RegisteredAgent>> {
        let agents = snapshot.agents();
        match &self.holder {
            Holder::ServiceAccount(account) => agents.owner_of(&Holding::service_account(&account.namespace, &account.name)),
            // The agent that was asked for, if the key is (still) its own and nobody else's.
            Holder::Key(key) => {
                let owner = agents.owner_of(&Holding::Key(key.thumbprint.clone()));
                owner.filter(|agent| agent.id == key.agent && agent.uid == key.agent_uid)
            }
            Holder::Workload(workload) => agents.proven_by(&workload.issuer, &workload.subject, &workload.claims),
        }
    }

    /// What a token that is issued for the credential depends on.
    #[must_use]
    pub fn proof(&self) -> Proof {
        match &self.holder {
            Holder::ServiceAccount(account) => {
                Proof::ServiceAccount { name: account.name.clone(), pod: account.pod.as_ref().map(|pod| pod.uid) }
            }
            Holder::Key(key) => Proof::Key(key.thumbprint.clone()),
            Holder::Workload(workload) => {
                let issuer = IssuerRef { name: workload.issuer.clone(), uid: workload.issuer_uid.clone() };
                Proof::Issuer(issuer, subject_digest(&workload.subject))
            }
        }
    }

    /// Whose credential it is, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.holder {
            Holder::ServiceAccount(account) => account.username(),
            Holder::Key(key) => format!("key {}", key.thumbprint),
            Holder::Workload(workload) => format!("{} of TrustedIssuer {}", workload.subject, workload.issuer),
        }
    }
}

/// Why a credential identifies nobody. The text is for the record, never for the caller: which check failed would tell
/// an attacker what to try next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The token is no acceptable JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The key that the token names is not one of its issuer's.
    #[error("the token names a key that its issuer does not publish, or that the Agent does not list")]
    UnknownKey,
    /// Nobody trusts the token's issuer.
    #[error("the token is not from this cluster, not from an agent, and no TrustedIssuer that is Ready has its iss")]
    UnknownIssuer,
    /// A claim is not as it must be.
    #[error("{0}")]
    Claim(&'static str),
    /// A rule of the TrustedIssuer does not hold.
    #[error("{0}")]
    Rule(String),
    /// The assertion was used before.
    #[error("assertion {jti} of {agent}, signed with its key {thumbprint}, was used before: each needs a jti of its own")]
    Replayed {
        /// Whose it is.
        agent: AgentId,
        /// Thumbprint of the key that signed it.
        thumbprint: String,
        /// Its identifier.
        jti: String,
    },
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
            Self::UnknownIssuer => "credential_issuer_unknown",
            Self::Claim(_) | Self::Rule(_) => "credential_claim_refused",
            Self::Replayed { .. } => "credential_replayed",
            Self::Gone(_) => "credential_holder_gone",
            Self::Review(_) => "credential_review_refused",
            Self::Unavailable(_) => "credential_check_unavailable",
        }
    }
}
