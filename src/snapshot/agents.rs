//! The registered agents, by name and by the ServiceAccounts they claim.

use crate::agent::RegisteredAgent;
use crate::grammar::AgentId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Namespace and name of a ServiceAccount.
type ServiceAccount = (String, String);

/// The agents.
#[derive(Debug, Default)]
pub struct AgentIndex {
    by_id: HashMap<AgentId, Arc<RegisteredAgent>>,
    claims: HashMap<ServiceAccount, HashSet<AgentId>>,
    /// The names in a fresh list while it is being read.
    listed: Option<HashSet<AgentId>>,
}

impl AgentIndex {
    /// The agent of that name.
    #[must_use]
    pub fn get(&self, id: &AgentId) -> Option<Arc<RegisteredAgent>> {
        self.by_id.get(id).cloned()
    }

    /// All agents.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RegisteredAgent>> {
        self.by_id.values()
    }

    /// The agent to which a ServiceAccount belongs: the oldest of those that claim it (equal ages by UID), so that
    /// nobody takes an identity over by registering a second Agent.
    #[must_use]
    pub fn owner_of(&self, namespace: &str, service_account: &str) -> Option<Arc<RegisteredAgent>> {
        let claimants = self.claims.get(&(namespace.to_owned(), service_account.to_owned()))?;
        claimants.iter().filter_map(|id| self.by_id.get(id)).min_by(|a, b| a.seniority().cmp(&b.seniority())).cloned()
    }

    /// The other agents that claim one of this agent's ServiceAccounts.
    #[must_use]
    pub fn rivals(&self, agent: &RegisteredAgent) -> HashSet<AgentId> {
        let accounts = agent.service_accounts.iter().map(|name| (agent.id.namespace().to_owned(), name.clone()));
        accounts.filter_map(|account| self.claims.get(&account)).flatten().filter(|id| **id != agent.id).cloned().collect()
    }

    /// Registers or replaces an agent. Returns the version before.
    pub fn insert(&mut self, agent: RegisteredAgent) -> Option<Arc<RegisteredAgent>> {
        let before = self.forget(&agent.id);
        for name in &agent.service_accounts {
            self.claims.entry((agent.id.namespace().to_owned(), name.clone())).or_default().insert(agent.id.clone());
        }
        if let Some(listed) = &mut self.listed {
            listed.insert(agent.id.clone());
        }
        self.by_id.insert(agent.id.clone(), Arc::new(agent));
        before
    }

    /// Removes an agent.
    pub fn forget(&mut self, id: &AgentId) -> Option<Arc<RegisteredAgent>> {
        let agent = self.by_id.remove(id)?;
        for name in &agent.service_accounts {
            let account = (id.namespace().to_owned(), name.clone());
            if let Some(claimants) = self.claims.get_mut(&account) {
                claimants.remove(id);
                if claimants.is_empty() {
                    self.claims.remove(&account);
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
    use crate::agent::{Admission, Rights};

    fn agent(name: &str, created: i64, service_account: &str) -> RegisteredAgent {
        RegisteredAgent {
            id: AgentId::new("ns", name).expect("valid"),
            uid: format!("uid-of-{name}"),
            generation: 1,
            created,
            deleting: false,
            owner: "team@example.com".to_owned(),
            suspended: false,
            epoch: 0,
            admission: Admission::Proven,
            service_accounts: vec![service_account.to_owned()],
            rights: Ok(Rights { capabilities: vec![], audiences: vec![], expiration_seconds: 300 }),
        }
    }

    #[test]
    fn c6_a_service_account_belongs_to_the_oldest_agent_that_claims_it() {
        let mut index = AgentIndex::default();
        index.insert(agent("young", 200, "sa"));
        index.insert(agent("old", 100, "sa"));
        let owner = |index: &AgentIndex| index.owner_of("ns", "sa").map(|a| a.id.name().to_owned());
        assert_eq!(owner(&index).as_deref(), Some("old"));
        index.insert(agent("young", 200, "sa"));
        assert_eq!(owner(&index).as_deref(), Some("old"), "the order of events must not matter");
        index.forget(&AgentId::new("ns", "old").expect("valid"));
        assert_eq!(owner(&index).as_deref(), Some("young"));
        assert_eq!(index.owner_of("other", "sa").map(|a| a.uid.clone()), None, "F8: a namespace is part of the name");
        index.insert(agent("young", 200, "another"));
        assert_eq!(owner(&index), None, "a claim given up is no claim");
    }

    #[test]
    fn an_agent_missing_from_a_complete_list_is_gone() {
        let mut index = AgentIndex::default();
        index.insert(agent("a", 1, "a"));
        index.insert(agent("b", 2, "b"));
        index.begin();
        index.insert(agent("b", 2, "b"));
        assert_eq!(index.complete().len(), 1);
        assert!(index.owner_of("ns", "a").is_none() && index.owner_of("ns", "b").is_some());
    }
}
