//! Evidence that the operator itself recorded a request's approvals, and fixed its token.
//!
//! Admission decides who may write a status, but somebody with the rights of `system:masters`, with access to etcd, or at a moment
//! when the admission policies were missing, can write anything. Without the key, which is in the operator's Secret, what they
//! write lacks this.

use super::status::seconds;
use crate::crd::{Approval, JitRequestStatus};
use crate::json;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

/// The key of the evidence: the same in all replicas.
#[derive(Clone)]
pub struct EvidenceKey(hmac::Key);

impl std::fmt::Debug for EvidenceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EvidenceKey")
    }
}

/// What is attested.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attested<'a> {
    uid: &'a str,
    digest: &'a str,
    agent_uid: &'a str,
    approvals: &'a [Approval],
    redeem_by: Option<i64>,
    jti: Option<&'a str>,
    issued_at: Option<i64>,
    token_expires_at: Option<i64>,
    key_id: Option<&'a str>,
    agent_epoch: Option<i64>,
    // Left out of what an earlier version attested, which knew of no such thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_to: Option<&'a str>,
}

impl EvidenceKey {
    /// A key from at least 32 secret bytes; `None` if there are fewer.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= 32).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// A secret of 32 bytes for another purpose, which tells nothing of this key. A purpose is no JSON object, which is what is attested.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Vec<u8> {
        hmac::sign(&self.0, purpose.as_bytes()).as_ref().to_vec()
    }

    /// The evidence for the approvals, and the token if there is one, in `status` of the request `uid`. `None` if it has not been accepted yet.
    #[must_use]
    pub fn attest(&self, uid: &str, status: &JitRequestStatus) -> Option<String> {
        Some(URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, attested(uid, status)?.as_bytes())))
    }

    /// Whether `status` carries the evidence for its approvals and its token.
    #[must_use]
    pub fn confirms(&self, uid: &str, status: &JitRequestStatus) -> bool {
        let evidence = status.evidence.as_deref().and_then(|e| URL_SAFE_NO_PAD.decode(e).ok());
        match (evidence, attested(uid, status)) {
            (Some(evidence), Some(text)) => hmac::verify(&self.0, text.as_bytes(), &evidence).is_ok(),
            _ => false,
        }
    }
}

fn attested(uid: &str, status: &JitRequestStatus) -> Option<String> {
    let attested = Attested {
        uid,
        digest: status.digest.as_deref()?,
        agent_uid: status.agent_uid.as_deref()?,
        approvals: &status.approvals,
        redeem_by: seconds(status.redeem_by.as_ref()),
        jti: status.jti.as_deref(),
        issued_at: seconds(status.issued_at.as_ref()),
        token_expires_at: seconds(status.token_expires_at.as_ref()),
        key_id: status.key_id.as_deref(),
        agent_epoch: status.agent_epoch,
        bound_to: status.bound_to.as_deref(),
    };
    json::canonical(&attested).ok()
}
