//! Whether two names may be one person or group. Too careful is the safe side here.

use crate::crd::User;

/// What the API server puts before the names of the organisation's users and groups, as the TrustedIssuers for users say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefixes<'a>(pub &'a [String]);

impl Prefixes<'_> {
    pub(super) fn same_user(self, a: &User, b: &User) -> bool {
        let uid = |user: &User| user.uid.clone().filter(|uid| !uid.is_empty());
        self.same_name(&a.username, &b.username) || (uid(a).is_some() && uid(a) == uid(b))
    }

    pub(super) fn is_or_belongs_to(self, user: &User, owner: &str) -> bool {
        self.same_name(&user.username, owner) || user.groups.iter().any(|group| self.same_name(group, owner))
    }

    /// Whether two names may be one: prefixes, those known and those that authenticators usually put before names (`oidc:alice@acme.com`),
    /// make no difference, and mail addresses are the same in any case.
    pub(super) fn same_name(self, a: &str, b: &str) -> bool {
        a == b || (!self.bare(a).is_empty() && self.bare(a) == self.bare(b))
    }

    fn bare(self, name: &str) -> String {
        let known = self.0.iter().filter(|prefix| !prefix.is_empty()).filter_map(|prefix| name.strip_prefix(prefix.as_str()));
        // Of several that fit the longest is meant.
        let rest = known.min_by_key(|rest| rest.len()).unwrap_or(name);
        rest.rsplit([':', '#', '/']).next().unwrap_or_default().to_ascii_lowercase()
    }
}

/// Whether this is no person at all.
pub(super) fn is_workload(user: &User) -> bool {
    user.username.starts_with("system:serviceaccount:")
        || user.username.starts_with("system:node:")
        || user.groups.iter().any(|g| g == "system:serviceaccounts" || g == "system:nodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_makes_nobody_another_person() {
        let known = ["acme-".to_owned(), "acme-people-".to_owned(), String::new()];
        let prefixes = Prefixes(&known);
        for (a, b) in [
            ("alice@acme.com", "alice@acme.com"),
            ("acme-alice@acme.com", "alice@acme.com"),
            ("acme-people-alice@acme.com", "acme-alice@acme.com"),
            ("oidc:alice@acme.com", "acme-ALICE@acme.com"),
            ("https://id.acme.com#alice", "alice"),
        ] {
            assert!(prefixes.same_name(a, b) && prefixes.same_name(b, a), "{a} {b}");
        }
        for (a, b) in
            [("alice@acme.com", "bob@acme.com"), ("acme-alice", "acme-bob"), ("oidc:", ""), ("alice", "acme-people-alic")]
        {
            assert!(!prefixes.same_name(a, b) && !prefixes.same_name(b, a), "{a} {b}");
        }
        assert!(!Prefixes(&[]).same_name("acme-alice", "alice"), "what nobody said is no prefix");
    }
}
