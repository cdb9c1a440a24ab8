//! Revoking the tokens that act for users of an issuer: for one of them, or for all.

use crate::crd::{RevokedUser, TrustedIssuerStatus, UserRevocation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// How many users a TrustedIssuer lists. One more, and the tokens of all of its users end.
pub const USERS_MAX: usize = 256;

/// Whose tokens an instruction revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users<'a> {
    /// Those of everybody.
    All,
    /// Those of the user of that name.
    Named(&'a str),
}

/// Whose tokens an instruction revokes. One that does not say exactly one thing, which the schema rules out, revokes those of everybody.
#[must_use]
pub fn users(instruction: &UserRevocation) -> Users<'_> {
    match (&instruction.user, instruction.all_users) {
        (Some(user), None) => Users::Named(user),
        _ => Users::All,
    }
}

/// Carries out the instruction in `status`, if there is one, and returns it.
pub fn carry_out_users(status: &mut TrustedIssuerStatus, now: Timestamp) -> Option<UserRevocation> {
    let instruction = status.revoke.take()?;
    match users(&instruction) {
        Users::All => revoke_all(status, now),
        Users::Named(name) => {
            let is_full = status.revoked_users.len() >= USERS_MAX;
            match status.revoked_users.iter_mut().find(|user| user.name == name) {
                Some(user) => {
                    // Of the two levels the higher counts.
                    user.epoch = user.epoch.max(status.users_epoch).saturating_add(1);
                    user.at = Time(user.at.0.max(now));
                }
                None if is_full => revoke_all(status, now),
                None => {
                    let epoch = status.users_epoch.saturating_add(1);
                    status.revoked_users.push(RevokedUser { name: name.to_owned(), epoch, at: Time(now) });
                }
            }
        }
    }
    Some(instruction)
}

/// The count of all grows beyond that of each, so that the list is not needed any more.
fn revoke_all(status: &mut TrustedIssuerStatus, now: Timestamp) {
    let highest = status.revoked_users.iter().map(|user| user.epoch).fold(status.users_epoch, i64::max);
    status.users_epoch = highest.saturating_add(1);
    let before = status.users_revoked_at.as_ref().map_or(now, |at| at.0);
    status.users_revoked_at = Some(Time(before.max(now)));
    status.revoked_users.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn user(name: &str) -> Option<UserRevocation> {
        Some(UserRevocation { user: Some(name.to_owned()), ..UserRevocation::default() })
    }

    fn epochs(status: &TrustedIssuerStatus) -> (i64, Vec<(&str, i64)>) {
        (status.users_epoch, status.revoked_users.iter().map(|user| (user.name.as_str(), user.epoch)).collect())
    }

    #[test]
    fn r4_each_revocation_leaves_both_levels_behind() {
        let mut status = TrustedIssuerStatus::default();
        assert_eq!(carry_out_users(&mut status, at(1)), None);
        for (instruction, expected) in [
            (user("alice"), (0, vec![("alice", 1)])),
            (user("alice"), (0, vec![("alice", 2)])),
            (user("bob"), (0, vec![("alice", 2), ("bob", 1)])),
            (Some(UserRevocation { all_users: Some(true), ..UserRevocation::default() }), (3, vec![])),
            (user("alice"), (3, vec![("alice", 4)])),
            (Some(UserRevocation::default()), (5, vec![])),
        ] {
            status.revoke = instruction;
            assert!(carry_out_users(&mut status, at(7)).is_some() && status.revoke.is_none());
            assert_eq!(epochs(&status), expected);
        }
        assert_eq!(status.users_revoked_at, Some(Time(at(7))));
    }

    #[test]
    fn r4_the_higher_of_two_levels_counts_and_no_time_goes_back() {
        let listed = RevokedUser { name: "alice".to_owned(), epoch: 2, at: Time(at(50)) };
        let mut status = TrustedIssuerStatus { users_epoch: 9, revoked_users: vec![listed], ..TrustedIssuerStatus::default() };
        status.revoke = user("alice");
        carry_out_users(&mut status, at(40));
        assert_eq!(epochs(&status), (9, vec![("alice", 10)]));
        assert_eq!(status.revoked_users[0].at, Time(at(50)));
    }

    #[test]
    fn one_user_more_than_the_list_holds_ends_the_tokens_of_all() {
        let mut status = TrustedIssuerStatus::default();
        for i in 0..USERS_MAX {
            status.revoke = user(&format!("u{i}"));
            carry_out_users(&mut status, at(1));
        }
        assert_eq!((status.revoked_users.len(), status.users_epoch), (USERS_MAX, 0));
        status.revoke = user("one-more");
        carry_out_users(&mut status, at(1));
        assert_eq!(epochs(&status), (2, vec![]));
    }
}
