//! Revoking tokens of an agent: one, a chain, or all.

use crate::agent::EXPIRATION_MAX;
use crate::crd::{AgentRevocation, AgentStatus, RevokedToken};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// How many single tokens and chains an Agent lists. One more, and all of its tokens end.
pub const TOKENS_MAX: usize = 256;

/// How long an entry stays after the token has expired, in seconds: clocks differ by a little, and what else descends from the token, an
/// open request for approval, must have been ended.
const GRACE: i64 = 60;

/// What an instruction revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// Everything so far.
    All,
    /// One token, by its `jti`.
    Token(&'a str),
    /// One chain, by its `txn`.
    Chain(&'a str),
}

/// What an instruction revokes. One that does not say exactly one thing, which the schema rules out, revokes everything.
#[must_use]
pub fn target(instruction: &AgentRevocation) -> Target<'_> {
    match (instruction.all, &instruction.token, &instruction.chain) {
        (None, Some(token), None) => Target::Token(token),
        (None, None, Some(chain)) => Target::Chain(chain),
        _ => Target::All,
    }
}

/// Until when a token that ends at `expires_at`, in seconds since the epoch, is kept in the list.
#[must_use]
pub fn keep(expires_at: i64) -> Time {
    Time(Timestamp::from_second(expires_at.saturating_add(GRACE)).unwrap_or(Timestamp::MAX))
}

/// Revokes a token or chain of which everything ends at `expires_at` at the latest. If the list is full the epoch grows instead, and
/// takes everything with it. False if it is revoked already.
pub fn revoke(status: &mut AgentStatus, id: &str, expires_at: Time, now: Timestamp) -> bool {
    if status.revoked_tokens.iter().any(|token| token.id == id) {
        return false;
    }
    prune(status, now);
    if status.revoked_tokens.len() >= TOKENS_MAX {
        status.revocation_epoch = status.revocation_epoch.saturating_add(1);
        status.revoked_tokens.clear();
    } else {
        status.revoked_tokens.push(RevokedToken { id: id.to_owned(), expires_at });
    }
    true
}

/// Takes out what has expired.
pub fn prune(status: &mut AgentStatus, now: Timestamp) {
    status.revoked_tokens.retain(|token| token.expires_at.0 > now);
}

/// Carries out the instruction in `status`, if there is one, and returns it.
pub fn carry_out(status: &mut AgentStatus, now: Timestamp) -> Option<AgentRevocation> {
    let instruction = status.revoke.take()?;
    match target(&instruction) {
        Target::All => {
            status.revocation_epoch = status.revocation_epoch.saturating_add(1);
            status.revoked_tokens.clear();
        }
        Target::Token(id) | Target::Chain(id) => {
            // Whenever it was issued, and whoever was called with it: nothing of it outlives the longest token.
            let expires_at = keep(now.as_second().saturating_add(i64::from(EXPIRATION_MAX)));
            revoke(status, id, expires_at, now);
        }
    }
    Some(instruction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn instruction(all: Option<bool>, token: Option<&str>, chain: Option<&str>) -> AgentRevocation {
        AgentRevocation { all, token: token.map(str::to_owned), chain: chain.map(str::to_owned), ..AgentRevocation::default() }
    }

    #[test]
    fn a_token_is_listed_once_until_a_while_after_it_would_have_ended() {
        let mut status = AgentStatus::default();
        assert!(revoke(&mut status, "a", keep(1000), at(900)));
        assert!(!revoke(&mut status, "a", keep(2000), at(900)), "it is there");
        prune(&mut status, at(1059));
        assert_eq!(status.revoked_tokens.len(), 1);
        assert!(revoke(&mut status, "b", keep(2000), at(1060)));
        let ids: Vec<&str> = status.revoked_tokens.iter().map(|token| token.id.as_str()).collect();
        assert_eq!((ids, status.revocation_epoch), (vec!["b"], 0), "what has expired makes room");
    }

    #[test]
    fn one_more_than_the_list_holds_ends_everything() {
        let mut status = AgentStatus::default();
        for i in 0..TOKENS_MAX {
            assert!(revoke(&mut status, &format!("t{i}"), keep(1000), at(0)));
        }
        assert_eq!((status.revoked_tokens.len(), status.revocation_epoch), (TOKENS_MAX, 0));
        assert!(!revoke(&mut status, "t0", keep(1000), at(0)));
        assert!(revoke(&mut status, "more", keep(1000), at(0)));
        assert_eq!((status.revoked_tokens.len(), status.revocation_epoch), (0, 1));
    }

    #[test]
    fn an_instruction_is_carried_out_once() {
        let mut status = AgentStatus { revocation_epoch: 4, ..AgentStatus::default() };
        assert_eq!(carry_out(&mut status, at(0)), None);
        status.revoke = Some(instruction(None, None, Some("x")));
        assert!(carry_out(&mut status, at(100)).is_some());
        let [entry] = status.revoked_tokens.as_slice() else { panic!("{status:?}") };
        assert_eq!((entry.id.as_str(), entry.expires_at.0.as_second()), ("x", 100 + 900 + 60));
        assert_eq!((status.revocation_epoch, &status.revoke), (4, &None));
        status.revoke = Some(instruction(Some(true), None, None));
        carry_out(&mut status, at(100));
        assert_eq!((status.revocation_epoch, status.revoked_tokens.len()), (5, 0));
    }

    #[test]
    fn an_instruction_that_says_nothing_clear_ends_everything() {
        for unclear in [
            instruction(None, None, None),
            instruction(Some(false), None, None),
            instruction(Some(true), Some("a"), None),
            instruction(None, Some("a"), Some("b")),
        ] {
            assert_eq!(target(&unclear), Target::All, "{unclear:?}");
        }
    }
}
