//! Who and what is alive, as verifiers are told that do not ask about each token: a list of what counts, so that nobody has to remember what
//! was deleted.

use crate::decision::View;
use crate::issuer::RegisteredIssuer;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything on which the life of tokens depends, but for what agents may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// The Agents whose tokens can be alive, by UID, with their revocation epochs.
    agents: BTreeMap<String, i64>,
    /// Of these the tokens and chains that are revoked singly, by `jti` and `txn`.
    revoked: BTreeMap<String, BTreeSet<String>>,
    /// The TrustedIssuers whose word counts, by UID.
    issuers: BTreeMap<String, Counts>,
}

/// The revocation counts of an issuer's users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Of those who have none of their own.
    epoch: i64,
    /// Of those who have, by [`user_key`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    users: BTreeMap<String, i64>,
}

/// What is different from an earlier state: what an entry is now, or `None` if it is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    agents: BTreeMap<String, Option<i64>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    revoked: BTreeMap<String, Option<BTreeSet<String>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    issuers: BTreeMap<String, Option<Counts>>,
}

impl State {
    /// The state of the view.
    #[must_use]
    pub fn of(view: &View<'_>) -> Self {
        let mut state = Self::default();
        for agent in view.agents.iter().filter(|agent| agent.still_counts()) {
            state.agents.insert(agent.uid.clone(), agent.epoch);
            if !agent.revoked.is_empty() {
                state.revoked.insert(agent.uid.clone(), agent.revoked.keys().cloned().collect());
            }
        }
        let issuers = view.issuers.iter().filter(|issuer| issuer.still_counts(&issuer.uid));
        state.issuers.extend(issuers.map(|issuer| (issuer.uid.clone(), Counts::of(issuer))));
        state
    }

    /// The name of the state: the same for the same content, in every process and at any time.
    #[must_use]
    pub fn id(&self) -> String {
        // Maps and numbers can always be written.
        let text = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &text))
    }

    /// What has changed since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Changes {
        Changes {
            agents: difference(&before.agents, &self.agents),
            revoked: difference(&before.revoked, &self.revoked),
            issuers: difference(&before.issuers, &self.issuers),
        }
    }
}

impl Counts {
    fn of(issuer: &RegisteredIssuer) -> Self {
        let named = issuer.revoked_users.named();
        Self {
            epoch: issuer.revoked_users.epoch_of_others(),
            users: named.map(|(name, epoch)| (user_key(&issuer.uid, name), epoch)).collect(),
        }
    }
}

/// How a user of an issuer is named in the state, which everybody may read: the SHA-256 of `<uid>:<name>` in base64url. Whoever has a token
/// of the user can compute it.
#[must_use]
pub fn user_key(issuer_uid: &str, name: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, format!("{issuer_uid}:{name}").as_bytes()))
}

fn difference<T: Clone + PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> BTreeMap<String, Option<T>> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(changed.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Admission, RegisteredAgent};
    use crate::decision::world::{World, agent};
    use serde_json::json;

    fn state(agents: &[RegisteredAgent]) -> State {
        State::of(&World::of(&agents.iter().collect::<Vec<_>>()).view())
    }

    #[test]
    fn only_what_counts_is_listed() {
        let good = agent("bot", &[], &[]);
        assert_eq!(serde_json::to_value(state(std::slice::from_ref(&good))).expect("JSON")["agents"], json!({"uid-bot": 3}));
        let pending = RegisteredAgent { admission: Admission::Pending, ..good.clone() };
        assert_eq!(state(&[pending]), state(std::slice::from_ref(&good)), "what has not been checked yet ends nothing");
        for dead in [
            RegisteredAgent { suspended: true, ..good.clone() },
            RegisteredAgent { deleting: true, ..good.clone() },
            RegisteredAgent { admission: Admission::Unproven, ..good.clone() },
        ] {
            assert_eq!(state(&[dead]), State::default());
        }
    }

    #[test]
    fn the_name_of_a_state_is_its_content_and_changes_lead_from_one_to_the_next() {
        let (a, b) = (agent("a", &[], &[]), agent("b", &[], &[]));
        let revoked = RegisteredAgent { revoked: [("j".to_owned(), 1)].into(), ..b.clone() };
        let (before, after) = (state(&[a.clone(), b.clone()]), state(std::slice::from_ref(&revoked)));
        assert_eq!(before.id(), state(&[b, a]).id(), "the order of events makes no difference");
        assert_ne!(before.id(), after.id());
        let changes = serde_json::to_value(after.since(&before)).expect("JSON");
        assert_eq!(changes, json!({"agents": {"uid-a": null}, "revoked": {"uid-b": ["j"]}}));
        assert_eq!(after.since(&after), Changes::default());
        let back = serde_json::to_value(before.since(&after)).expect("JSON");
        assert_eq!(back, json!({"agents": {"uid-a": 3}, "revoked": {"uid-b": null}}));
    }
}
