//! The proof in a request that its sender has a key (DPoP, RFC 9449), to which the token will be bound.

use super::App;
use super::error::Refusal;
use crate::dpop::{Confirmation, Expected, HEADER, NONCE_HEADER, Proof};
use crate::time::LEEWAY;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use std::time::Instant;

/// A proof that was found good, and has yet to be [spent](spend).
#[derive(Debug)]
pub(super) struct Shown {
    proof: Proof,
    /// The nonce for the next one, if that of this one is about to end.
    next_nonce: Option<String>,
}

impl Shown {
    /// To which key a token is bound that is issued upon it.
    pub(super) fn confirmation(&self) -> Confirmation {
        self.proof.confirmation()
    }

    /// Hands out the nonce for the next proof, if there is another by now.
    pub(super) fn renew(&self, response: &mut Response) {
        if let Some(nonce) = self.next_nonce.as_deref().and_then(|nonce| HeaderValue::from_str(nonce).ok()) {
            response.headers_mut().insert(NONCE_HEADER, nonce);
        }
    }
}

/// The proof in a POST request to `path`, if there is one. It is looked at before any credential: an assertion is used up by being
/// verified, and who only lacks a nonce should not need another.
pub(super) fn shown(app: &App, headers: &HeaderMap, path: &str, now: u64) -> Result<Option<Shown>, Refusal> {
    let mut values = headers.get_all(HEADER).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(refusal("dpop_proof_malformed", "the header DPoP occurs more than once")),
    };
    let url = format!("{}{path}", app.issuer);
    let text = value.to_str().map_err(|_| refusal("dpop_proof_malformed", "the header DPoP is no text"))?;
    let proof = Proof::parse(text, &Expected { method: "POST", url: &url, now });
    let proof = proof.map_err(|error| refusal(error.code(), error.to_string()))?;
    let next_nonce = app.nonces.judge(proof.nonce(), now).map_err(|_| {
        let description = "the proof needs the nonce of the header DPoP-Nonce of this reply (RFC 9449 section 8)";
        Refusal::new("use_dpop_nonce", "dpop_nonce_wanted", description).wanting(app.nonces.current(now))
    })?;
    Ok(Some(Shown { proof, next_nonce }))
}

/// Uses a proof up. It counts once, on whichever replica: it is remembered where assertions are, under what no issuer is called.
pub(super) async fn spend(app: &App, shown: Option<&Shown>, now: u64) -> Result<(), Refusal> {
    let Some(Shown { proof, .. }) = shown else { return Ok(()) };
    let unavailable = |detail: String| Refusal::unavailable("dpop_proof_check_unavailable", detail);
    if proof.issued_at() < app.store.complete_since().saturating_add(LEEWAY) {
        // A database that is new, or took over from another, knows nothing of what that one has seen.
        return Err(unavailable("the proof may be older than the database that remembers proofs".to_owned()));
    }
    let owner = format!("dpop {}", proof.thumbprint());
    let first = app.store.accept_once(&owner, proof.jti(), proof.expires_at(), now).await;
    // Another database may have taken over meanwhile, which knows nothing of what this one was just told.
    app.snapshot.freshness.check(Instant::now()).map_err(|stale| unavailable(stale.to_string()))?;
    match first.map_err(|error| unavailable(error.to_string()))? {
        true => Ok(()),
        false => Err(refusal("dpop_proof_replayed", "the proof was used before: each request needs one of its own")),
    }
}

/// `invalid_dpop_proof` (RFC 9449 section 5).
pub(super) fn refusal(reason: &'static str, description: impl Into<String>) -> Refusal {
    Refusal::new("invalid_dpop_proof", reason, description)
}
