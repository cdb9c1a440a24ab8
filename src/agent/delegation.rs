//! For whom an agent may act, and who may call it.

use crate::crd::{self, default_depth};
use crate::grammar::AgentId;
use crate::identity::User;
use crate::time::LEEWAY;

/// How many agents may stand in a chain, whatever an object says.
pub const DEPTH_MAX: usize = 8;
/// How old an ID token may be that is exchanged, in seconds.
const ID_TOKEN_AGE_MAX: u64 = 600;

/// The delegation of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The users for whom it may act.
    pub act_for: Vec<ActFor>,
    /// The agents that may call it.
    pub callers: Vec<AgentId>,
    /// How many agents may stand in a chain of which it is part, itself included.
    pub max_depth: usize,
}

/// Some users of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActFor {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    audiences: Vec<String>,
    subjects: Option<Vec<String>>,
    groups: Option<Vec<String>>,
}

impl Delegation {
    pub(super) fn parse(spec: Option<&crd::Delegation>) -> Result<Self, String> {
        let Some(spec) = spec else {
            return Ok(Self { act_for: Vec::new(), callers: Vec::new(), max_depth: default_depth() as usize });
        };
        let max_depth = usize::try_from(spec.max_depth).unwrap_or(usize::MAX);
        if !(1..=DEPTH_MAX).contains(&max_depth) {
            return Err(format!("maxDepth must be 1 to {DEPTH_MAX}"));
        }
        let callers = spec.callers.iter().map(|caller| AgentId::new(&caller.namespace, &caller.name));
        Ok(Self {
            act_for: spec.act_for.iter().map(ActFor::parse).collect::<Result<_, _>>()?,
            callers: callers.collect::<Result<_, _>>().map_err(|e| format!("callers: {e}"))?,
            max_depth,
        })
    }

    /// Whether the agent may act for `user` at `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// What stands against it.
    pub fn may_act_for(&self, user: &User, now: u64) -> Result<(), &'static str> {
        let of_issuer = || self.act_for.iter().filter(|entry| entry.issuer == user.issuer);
        if of_issuer().next().is_none() {
            return Err("spec.delegation.actFor has no entry for the issuer of the ID token");
        }
        if !of_issuer().any(|entry| entry.is_for_application(user)) {
            return Err("the ID token is not for an application that spec.delegation.actFor names (aud, and azp if it is there)");
        }
        if !of_issuer().any(|entry| entry.is_for_application(user) && entry.names(user)) {
            return Err("spec.delegation.actFor does not name the user or a group of the user");
        }
        if user.issued_at.saturating_add(ID_TOKEN_AGE_MAX + LEEWAY) < now {
            return Err("the ID token was issued more than 10 minutes ago: sign the user in again");
        }
        Ok(())
    }

    /// Whether the agent may still act for somebody of this name, whose groups are not known any more.
    #[must_use]
    pub fn may_still_act_for(&self, issuer: &str, name: &str) -> bool {
        self.act_for.iter().any(|entry| entry.issuer == issuer && entry.may_name(name))
    }
}

impl ActFor {
    fn parse(entry: &crd::ActForEntry) -> Result<Self, String> {
        let empty = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
        if entry.audiences.is_empty() || entry.audiences.iter().any(String::is_empty) {
            return Err("actFor: audiences must name at least one application".to_owned());
        }
        if (entry.subjects.is_none() && entry.groups.is_none()) || empty(&entry.subjects) || empty(&entry.groups) {
            return Err("actFor: subjects or groups must say for which users".to_owned());
        }
        Ok(Self {
            issuer: entry.issuer.clone(),
            audiences: entry.audiences.clone(),
            subjects: entry.subjects.clone(),
            groups: entry.groups.clone(),
        })
    }

    fn is_for_application(&self, user: &User) -> bool {
        let named = |party: &String| self.audiences.contains(party);
        user.audiences.iter().any(named) && user.authorized_party.as_ref().is_none_or(named)
    }

    fn names(&self, user: &User) -> bool {
        self.may_name(&user.name.name)
            && self.groups.as_ref().is_none_or(|groups| groups.iter().any(|group| user.name.groups.contains(group)))
    }

    fn may_name(&self, name: &str) -> bool {
        self.subjects.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, name)))
    }
}

/// Whether `name` matches `pattern` as a whole, where `*` stands for any characters, also none.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        // The earliest place leaves most for the rest.
        let Some(at) = name.find(part) else { return false };
        name = name.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::UserName;

    const NOW: u64 = 1_000_000;

    fn user(name: &str, groups: &[&str], audiences: &[&str], party: Option<&str>) -> User {
        User {
            issuer: "acme".to_owned(),
            issuer_uid: "uid".to_owned(),
            subject: "s".to_owned(),
            name: UserName {
                name: name.to_owned(),
                kubernetes_name: format!("acme:{name}"),
                groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            },
            audiences: audiences.iter().map(|a| (*a).to_owned()).collect(),
            authorized_party: party.map(str::to_owned),
            may_act: None,
            token_id: None,
            issued_at: NOW,
            expires_at: NOW + 600,
        }
    }

    fn delegation(subjects: Option<&[&str]>, groups: Option<&[&str]>) -> Delegation {
        let list = |names: Option<&[&str]>| names.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        let entry = crd::ActForEntry {
            issuer: "acme".to_owned(),
            audiences: vec!["app".to_owned(), "other-app".to_owned()],
            subjects: list(subjects),
            groups: list(groups),
        };
        let spec = crd::Delegation { act_for: vec![entry], callers: vec![], max_depth: 4 };
        Delegation::parse(Some(&spec)).expect("a delegation")
    }

    #[test]
    fn a_pattern_of_names_is_compared_as_a_whole() {
        for (pattern, name) in
            [("*@acme.com", "alice@acme.com"), ("alice", "alice"), ("*", ""), ("a*c*e", "abcde"), ("a**b", "ab"), ("*a*", "bab")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*@acme.com", "alice@acme.com.evil"),
            ("*@acme.com", "alice@ACME.com"),
            ("alice", "alice2"),
            ("alice*", "malice"),
            ("ab*ba", "aba"),
            ("a*b*c", "acb"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_user_must_match_an_entry_as_a_whole() {
        let by_name = delegation(Some(&["*@acme.com"]), None);
        let by_group = delegation(None, Some(&["acme:staff"]));
        let by_both = delegation(Some(&["*@acme.com"]), Some(&["acme:staff"]));
        let alice = user("alice@acme.com", &["acme:staff"], &["app"], None);
        for delegation in [&by_name, &by_group, &by_both] {
            assert_eq!(delegation.may_act_for(&alice, NOW), Ok(()));
        }
        let outsider = user("alice@acme.com", &[], &["app"], None);
        assert!(by_name.may_act_for(&outsider, NOW).is_ok());
        assert!(by_group.may_act_for(&outsider, NOW).is_err() && by_both.may_act_for(&outsider, NOW).is_err());
        let stranger = user("eve@evil.com", &["acme:staff"], &["app"], None);
        assert!(by_name.may_act_for(&stranger, NOW).is_err() && by_both.may_act_for(&stranger, NOW).is_err());
        let nobodys = delegation_of_none();
        assert!(nobodys.may_act_for(&alice, NOW).is_err());
        assert!(by_name.may_act_for(&User { issuer: "other".to_owned(), ..alice }, NOW).is_err());
    }

    fn delegation_of_none() -> Delegation {
        Delegation::parse(None).expect("none")
    }

    #[test]
    fn an_id_token_must_be_for_an_application_that_is_named_and_recent() {
        let delegation = delegation(Some(&["*"]), None);
        let check = |audiences: &[&str], party, now| delegation.may_act_for(&user("alice", &[], audiences, party), now).is_ok();
        assert!(check(&["app"], None, NOW) && check(&["x", "app"], Some("other-app"), NOW + 600));
        assert!(!check(&["x"], None, NOW) && !check(&["app"], Some("x"), NOW) && !check(&[], None, NOW));
        assert!(!check(&["app"], None, NOW + 606));
    }

    #[test]
    fn a_delegation_that_says_nothing_is_refused() {
        let entry = |audiences: &[&str], subjects: Option<Vec<String>>, groups| crd::ActForEntry {
            issuer: "acme".to_owned(),
            audiences: audiences.iter().map(|a| (*a).to_owned()).collect(),
            subjects,
            groups,
        };
        for bad in [entry(&[], Some(vec!["*".to_owned()]), None), entry(&["a"], None, None), entry(&["a"], Some(vec![]), None)] {
            let spec = crd::Delegation { act_for: vec![bad.clone()], callers: vec![], max_depth: 4 };
            assert!(Delegation::parse(Some(&spec)).is_err(), "{bad:?}");
        }
        for depth in [0, 9, u32::MAX] {
            assert!(Delegation::parse(Some(&crd::Delegation { act_for: vec![], callers: vec![], max_depth: depth })).is_err());
        }
    }
}
