//! The key of the sidecar, to which the agent's tokens are bound if the Agent says so (DPoP, RFC 9449). It is made when it is first
//! needed, is in this process alone, and ends with it; and so do, for whoever has them, the tokens that are bound to it.

use super::answer::Answer;
use crate::dpop::{Claim, ProofKey};
use crate::time::Clock;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What is known of proofs.
#[derive(Debug, Default)]
pub(super) struct Possession {
    key: OnceLock<Option<ProofKey>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the token service has asked for a proof.
    is_wanted: bool,
    /// The nonce that it has asked for last.
    nonce: Option<String>,
}

impl Possession {
    /// Whether tokens are asked for with a proof.
    pub(super) fn is_wanted(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_wanted
    }

    /// A proof for a request to the token endpoint `url`. `None` without random bytes: the token service then says that it lacks one.
    pub(super) fn of_request(&self, url: &str) -> Option<String> {
        let nonce = self.state.lock().unwrap_or_else(PoisonError::into_inner).nonce.clone();
        self.prove(&Claim { method: "POST", url, nonce: nonce.as_deref(), access_token: None, now: Clock::system().seconds() })
    }

    /// A proof of this.
    pub(super) fn prove(&self, claim: &Claim<'_>) -> Option<String> {
        self.key.get_or_init(ProofKey::generate).as_ref()?.prove(claim)
    }

    /// Takes in what an answer says of proofs, to a request that had one or had not. Says whether it can be asked again at once.
    pub(super) fn learn(&self, answer: &Answer, was_shown: bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.nonce.is_some() {
            state.nonce.clone_from(&answer.nonce);
        }
        match answer.error() {
            // The Agent has come to demand it. From now on a proof is sent unasked.
            Some("invalid_dpop_proof") if !was_shown => {
                state.is_wanted = true;
                true
            }
            Some("use_dpop_nonce") => was_shown && answer.nonce.is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn answer(error: &str, nonce: Option<&str>) -> Answer {
        let members = serde_json::json!({"error": error}).as_object().cloned().unwrap_or_default();
        let nonce = nonce.map(str::to_owned);
        Answer { status: StatusCode::BAD_REQUEST, members, request_id: None, retry_after: None, nonce }
    }

    #[test]
    fn a_proof_is_sent_once_one_was_asked_for_and_asked_again_only_with_something_new() {
        let possession = Possession::default();
        assert!(!possession.learn(&answer("invalid_scope", None), false) && !possession.is_wanted());
        assert!(!possession.learn(&answer("use_dpop_nonce", Some("n0")), false), "it had no proof");
        assert!(!possession.is_wanted());
        assert!(possession.learn(&answer("invalid_dpop_proof", None), false));
        assert!(possession.is_wanted());
        assert!(!possession.learn(&answer("invalid_dpop_proof", None), true), "the proof itself is refused");
        assert!(!possession.learn(&answer("use_dpop_nonce", None), true));
        assert!(possession.learn(&answer("use_dpop_nonce", Some("n1")), true));
        assert_eq!(possession.state.lock().expect("whole").nonce.as_deref(), Some("n1"));
        assert!(possession.of_request("https://us/oauth2/token").is_some());
    }
}
