//! The registered agents, by name and by the credentials that they list.

use super::requests::is_older;
use crate::agent::{Holding, RegisteredAgent};
use crate::grammar::AgentId;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The agents.
#[derive(Debug, Default)]
pub struct AgentIndex {
    by_id: HashMap<AgentId, Arc<RegisteredAgent>>,
    /// Who lists a credential: nearly always one.
    claims: HashMap<Holding, Vec<AgentId>>,
    /// The names in a fresh list while it is being read.
    listed: Option<HashSet<AgentId>>,
    /// The versions that this process wrote itself and that its watch has not shown yet.
    ahead: HashMap<AgentId, String>,
}

impl AgentIndex {
    /// The agent of that name.
    #[must_use]
    pub fn get(&self, id: &AgentId) -> Option<Arc<RegisteredAgent>> {
        self.by_id.get(id).cloned()
    }

    /// The agent of that name, to be looked at.
    #[must_use]
    pub fn look_up(&self, id: &AgentId) -> Option<&Arc<RegisteredAgent>> {
        self.by_id.get(id)
    }

    /// All agents.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RegisteredAgent>> {
        self.by_id.values()
    }

    /// The agent to which a ServiceAccount or key belongs: the oldest of those that list it (equal ages by UID), so that
    /// nobody takes an identity over by registering a second Agent.
    #[must_use]
    pub fn owner_of(&self, holding: &Holding) -> Option<Arc<RegisteredAgent>> {
        self.oldest(holding, |_| true)
    }

    /// The agent that a token of this issuer, subject and claims proves: the oldest of those of which it proves an identity.
    #[must_use]
    pub fn proven_by(&self, issuer: &str, subject: &str, claims: &Map<String, Value>) -> Option<Arc<RegisteredAgent>> {
        let holding = Holding::Federated { issuer: issuer.to_owned(), subject: subject.to_owned() };
        let proves = |agent: &RegisteredAgent| {
            agent.credentials.federated.iter().any(|identity| identity.issuer == issuer && identity.matches(subject, claims))
        };
        self.oldest(&holding, proves)
    }

    fn oldest(&self, holding: &Holding, counts: impl Fn(&RegisteredAgent) -> bool) -> Option<Arc<RegisteredAgent>> {
        let claimants = self.claims.get(holding)?.iter().filter_map(|id| self.by_id.get(id)).filter(|agent| counts(agent));
        claimants.min_by(|a, b| a.seniority().cmp(&b.seniority())).cloned()
    }

    /// The agents that list this credential.
    pub fn claimants(&self, holding: &Holding) -> impl Iterator<Item = &Arc<RegisteredAgent>> {
        self.claims.get(holding).into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }

    /// The other agents that list one of this agent's credentials.
    #[must_use]
    pub fn rivals(&self, agent: &RegisteredAgent) -> HashSet<AgentId> {
        let claims = agent.credentials.holdings(&agent.id).filter_map(|holding| self.claims.get(&holding));
        claims.flatten().filter(|id| **id != agent.id).cloned().collect()
    }

    /// Registers or replaces an agent, as a watch shows it. Returns the version before. What this process wrote itself is not undone by
    /// a watch that is behind.
    pub fn insert(&mut self, agent: RegisteredAgent) -> Option<Arc<RegisteredAgent>> {
        let known = self.by_id.get(&agent.id).filter(|known| known.uid == agent.uid);
        if known.is_some() && self.ahead.get(&agent.id).is_some_and(|ahead| is_older(&agent.version, ahead)) {
            if let Some(listed) = &mut self.listed {
                listed.insert(agent.id);
            }
            return None;
        }
        self.put(agent)
    }

    /// Takes in a version that this process wrote itself, unless the agent is gone by now or a later version is there.
    pub fn refresh(&mut self, agent: RegisteredAgent) {
        let known = self.by_id.get(&agent.id).filter(|known| known.uid == agent.uid);
        // One that the watch has shown to be deleted must not come back.
        if known.is_some_and(|known| !is_older(&agent.version, &known.version)) {
            let (id, version) = (agent.id.clone(), agent.version.clone());
            self.put(agent);
            self.ahead.insert(id, version);
        }
    }

    fn put(&mut self, agent: RegisteredAgent) -> Option<Arc<RegisteredAgent>> {
        let before = self.forget(&agent.id);
        for holding in agent.credentials.holdings(&agent.id) {
            let claimants = self.claims.entry(holding).or_insert_with(|| Vec::with_capacity(1));
            if !claimants.contains(&agent.id) {
                claimants.push(agent.id.clone());
            }
        }
        if let Some(listed) = &mut self.listed {
            listed.insert(agent.id.clone());
        }
        self.by_id.insert(agent.id.clone(), Arc::new(agent));
        before
    }

    /// Removes an agent.
    pub fn forget(&mut self, id: &AgentId) -> Option<Arc<RegisteredAgent>> {
        self.ahead.remove(id);
        let agent = self.by_id.remove(id)?;
        for holding in agent.credentials.holdings(id) {
            if let Some(claimants) = self.claims.get_mut(&holding) {
                claimants.retain(|claimant| claimant != id);
                if claimants.is_empty() {
                    self.claims.remove(&holding);
                }
            }
        }
        Some(agent)
    }

    /// A new list begins.
    pub fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The new list is complete: what it does not name is gone. Returns the removed agents.
    pub fn complete(&mut self) -> Vec<Arc<RegisteredAgent>> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<AgentId> = self.by_id.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        gone.iter().filter_map(|id| self.forget(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Credentials;
    use crate::decision::world;

    fn agent(name: &str, created: i64, service_account: &str) -> RegisteredAgent {
        let credentials = Credentials { service_accounts: vec![service_account.to_owned()], ..Credentials::default() };
        let id = AgentId::new("ns", name).expect("valid");
        RegisteredAgent { id, created, credentials, ..world::agent(name, &[], &[]) }
    }

    #[test]
    fn c6_a_service_account_belongs_to_the_oldest_agent_that_claims_it() {
        let mut index = AgentIndex::default();
        index.insert(agent("young", 200, "sa"));
        index.insert(agent("old", 100, "sa"));
        let owner = |index: &AgentIndex| index.owner_of(&Holding::service_account("ns", "sa")).map(|a| a.id.name().to_owned());
        assert_eq!(owner(&index).as_deref(), Some("old"));
        index.insert(agent("young", 200, "sa"));
        assert_eq!(owner(&index).as_deref(), Some("old"), "the order of events must not matter");
        index.forget(&AgentId::new("ns", "old").expect("valid"));
        assert_eq!(owner(&index).as_deref(), Some("young"));
        assert_eq!(
            index.owner_of(&Holding::service_account("other", "sa")).map(|a| a.uid.clone()),
            None,
            "F8: a namespace is part of the name"
        );
        index.insert(agent("young", 200, "another"));
        assert_eq!(owner(&index), None, "a claim given up is no claim");
    }

    #[test]
    fn what_this_process_wrote_is_not_undone_by_its_watch() {
        let version = |version: &str, epoch| RegisteredAgent { version: version.to_owned(), epoch, ..agent("a", 1, "a") };
        let mut index = AgentIndex::default();
        let epoch = |index: &AgentIndex| index.get(&AgentId::new("ns", "a").expect("valid")).map(|agent| agent.epoch);
        index.refresh(version("9", 1));
        assert_eq!(epoch(&index), None, "what the watch does not show is not registered");
        index.insert(version("9", 1));
        index.refresh(version("11", 2));
        index.insert(version("10", 1));
        assert_eq!(epoch(&index), Some(2));
        index.begin();
        index.insert(version("10", 1));
        assert!(index.complete().is_empty());
        assert_eq!(epoch(&index), Some(2), "a list is a watch too");
        index.insert(version("11", 2));
        index.insert(version("5", 3));
        assert_eq!(epoch(&index), Some(3), "once the watch has shown it, the watch alone counts");
        index.refresh(version("4", 1));
        assert_eq!(epoch(&index), Some(3), "an answer that was overtaken");
        index.forget(&AgentId::new("ns", "a").expect("valid"));
        index.refresh(version("12", 4));
        assert_eq!(epoch(&index), None, "what was deleted does not come back");
        index.insert(version("13", 0));
        assert_eq!(epoch(&index), Some(0), "a namesake is another agent");
    }

    #[test]
    fn an_agent_missing_from_a_complete_list_is_gone() {
        let mut index = AgentIndex::default();
        index.insert(agent("a", 1, "a"));
        index.insert(agent("b", 2, "b"));
        index.begin();
        index.insert(agent("b", 2, "b"));
        assert_eq!(index.complete().len(), 1);
        let owner = |name| index.owner_of(&Holding::service_account("ns", name));
        assert!(owner("a").is_none() && owner("b").is_some());
    }
}
