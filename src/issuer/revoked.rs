//! The users whose tokens were revoked, by counting and, for ID tokens, which carry no count of ours, by time.

use crate::crd::TrustedIssuerStatus;
use crate::revocation::{Users, users};
use crate::time::LEEWAY;
use std::collections::HashMap;

/// The users of one issuer whose tokens were revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedUsers {
    /// By name: the count, and when it grew last, in seconds since the epoch.
    named: HashMap<String, (i64, i64)>,
    /// The same for all others.
    others: (i64, Option<i64>),
}

impl RevokedUsers {
    pub(super) fn parse(status: &TrustedIssuerStatus) -> Self {
        let named = status.revoked_users.iter().map(|user| (user.name.clone(), (user.epoch, user.at.0.as_second())));
        let at = status.users_revoked_at.as_ref().map(|time| time.0.as_second());
        let mut revoked = Self { named: named.collect(), others: (status.users_epoch, at) };
        // In force from the moment it is seen, with the counts that it will make. Until it is carried out nobody knows when it was given,
        // and no ID token is late enough.
        match status.revoke.as_ref().map(users) {
            None => {}
            Some(Users::Named(name)) => {
                _ = revoked.named.insert(name.to_owned(), (revoked.epoch(name).saturating_add(1), i64::MAX))
            }
            Some(Users::All) => {
                let highest = revoked.named.values().map(|(epoch, _)| *epoch).fold(revoked.others.0, i64::max);
                revoked = Self { named: HashMap::new(), others: (highest.saturating_add(1), Some(i64::MAX)) };
            }
        }
        revoked
    }

    /// The count of a user, the higher of the user's own and that of all: a token lives only while the one in it equals this.
    #[must_use]
    pub fn epoch(&self, name: &str) -> i64 {
        self.named.get(name).map_or(self.others.0, |(epoch, _)| self.others.0.max(*epoch))
    }

    /// The count of the users who have none of their own.
    #[must_use]
    pub const fn epoch_of_others(&self) -> i64 {
        self.others.0
    }

    /// The users who have a count of their own, with the count that holds for them.
    pub fn named(&self) -> impl Iterator<Item = (&str, i64)> {
        self.named.keys().map(|name| (name.as_str(), self.epoch(name)))
    }

    /// Whether an ID token that was issued at `issued_at`, in seconds since the epoch, may be from before the user was revoked.
    #[must_use]
    pub fn is_before(&self, name: &str, issued_at: u64) -> bool {
        let at = self.named.get(name).map(|(_, at)| *at).max(self.others.1);
        let leeway = i64::try_from(LEEWAY).unwrap_or(0);
        at.is_some_and(|at| i64::try_from(issued_at).unwrap_or(i64::MAX) <= at.saturating_add(leeway))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn r4_of_two_levels_the_higher_counts() {
        let epoch = |of_all: i64, of_alice: Option<i64>| {
            let users = of_alice.map(|epoch| json!({"name": "alice", "epoch": epoch, "at": "1970-01-01T00:00:00Z"}));
            let status = json!({"usersEpoch": of_all, "revokedUsers": Vec::from_iter(users)});
            RevokedUsers::parse(&serde_json::from_value(status).expect("a status")).epoch("alice")
        };
        assert_eq!((epoch(3, Some(2)), epoch(2, Some(3)), epoch(0, Some(1)), epoch(1, None), epoch(0, None)), (3, 3, 1, 1, 0));
    }

    #[test]
    fn an_instruction_counts_before_it_is_carried_out_as_it_will_then() {
        let status = |revoke: serde_json::Value| {
            let users = json!([{"name": "alice", "epoch": 5, "at": "1970-01-01T00:00:10Z"}]);
            let status = json!({"usersEpoch": 2, "revokedUsers": users, "revoke": revoke});
            serde_json::from_value::<TrustedIssuerStatus>(status).expect("a status")
        };
        for (revoke, dead, alive) in [
            (json!({"user": "alice"}), &["alice"] as &[_], &["bob"] as &[_]),
            (json!({"user": "bob"}), &["bob"], &["alice"]),
            (json!({"allUsers": true}), &["alice", "bob"], &[]),
            (json!({}), &["alice", "bob"], &[]),
        ] {
            let mut status = status(revoke);
            let before = RevokedUsers::parse(&TrustedIssuerStatus { revoke: None, ..status.clone() });
            let pending = RevokedUsers::parse(&status);
            crate::revocation::carry_out_users(&mut status, k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
            let done = RevokedUsers::parse(&status);
            for name in ["alice", "bob"] {
                assert_eq!(pending.epoch(name), done.epoch(name), "{name}");
                assert_eq!(pending.is_before(name, 4_000_000_000), dead.contains(&name), "{name}");
                assert_eq!(before.epoch(name) == pending.epoch(name), alive.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn a_user_has_a_count_and_an_id_token_a_time() {
        let status = json!({"usersEpoch": 2, "usersRevokedAt": "1970-01-01T00:01:40Z",
            "revokedUsers": [{"name": "alice", "epoch": 5, "at": "1970-01-01T00:16:40Z"}]});
        let revoked = RevokedUsers::parse(&serde_json::from_value(status).expect("a status"));
        assert_eq!((revoked.epoch("alice"), revoked.epoch("bob"), RevokedUsers::default().epoch("bob")), (5, 2, 0));
        assert!(revoked.is_before("alice", 1000) && revoked.is_before("alice", 1005) && !revoked.is_before("alice", 1006));
        assert!(revoked.is_before("bob", 100) && !revoked.is_before("bob", 106) && !RevokedUsers::default().is_before("bob", 0));
    }
}
