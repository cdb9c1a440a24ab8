//! A world for tests: some agents and issuers, and what is asked of them.

use super::{Ask, Case, Decision, Denial, Parent, Permit, Subject, View, decide};
use crate::agent::{Admission, AllowedAudience, Credentials, Delegation, Granted, RegisteredAgent, Rights};
use crate::capability::Catalogue;
use crate::chain::Proof;
use crate::crd::SigningAlgorithm;
use crate::dpop::Confirmation;
use crate::grammar::{AgentId, Audience, CapabilityName};
use crate::issuer::RegisteredIssuer;
use crate::snapshot::{AgentIndex, IssuerIndex, LiveSet};
use std::collections::HashMap;
use uuid::Uuid;

/// Our issuer URL in these tests.
pub(crate) const US: &str = "https://us";

/// What the cluster says.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) agents: AgentIndex,
    pub(crate) issuers: IssuerIndex,
    pub(crate) catalogue: Catalogue,
    pub(crate) pods: LiveSet<Uuid>,
}

impl World {
    pub(crate) fn of(agents: &[&RegisteredAgent]) -> Self {
        let mut world = Self::default();
        for agent in agents {
            world.agents.insert((*agent).clone());
        }
        world
    }

    pub(crate) fn trusting(mut self, issuer: RegisteredIssuer) -> Self {
        self.issuers.insert(issuer);
        self
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { agents: &self.agents, issuers: &self.issuers, catalogue: &self.catalogue, pods: &self.pods }
    }

    /// Decides at 1000 what `agent` gets with a credential until `until`.
    pub(crate) fn decide(&self, agent: &RegisteredAgent, subject: &Subject, ask: &Ask, until: u64) -> Result<Permit, Denial> {
        self.decide_with(agent, subject, ask, until, None)
    }

    /// The same of an agent that has shown to have a key, or none.
    pub(crate) fn decide_with(
        &self,
        agent: &RegisteredAgent,
        subject: &Subject,
        ask: &Ask,
        until: u64,
        confirmation: Option<Confirmation>,
    ) -> Result<Permit, Denial> {
        let case = Case {
            agent,
            proof: Proof::Unsaid,
            credential_expires_at: until,
            confirmation,
            subject,
            ask,
            txn: "txn".to_owned(),
            issuer: US,
        };
        match decide(&case, &self.view(), 1000) {
            Decision::Allow(permit) => Ok(*permit),
            Decision::Deny(denial) => Err(denial),
        }
    }
}

/// The token that a permit becomes, as it is presented by whom it is for.
pub(crate) fn token(permit: &Permit, jti: &str) -> Parent {
    Parent {
        jti: jti.to_owned(),
        chain: permit.chain().clone(),
        capabilities: permit.capabilities().to_vec(),
        audience: permit.audience().as_str().to_owned(),
        may_act: permit.may_act().cloned(),
        expires_at: permit.expires_at(),
        is_bound: permit.confirmation().is_some(),
    }
}

pub(crate) fn capability(name: &str) -> CapabilityName {
    CapabilityName::parse(name).expect("a capability name")
}

pub(crate) fn granted(name: &str) -> Granted {
    Granted { name: capability(name), resources: None, approval_required: false, when: None }
}

/// An agent in namespace `research` with UID `uid-<name>` and epoch 3.
pub(crate) fn agent(name: &str, capabilities: &[&str], audiences: &[&str]) -> RegisteredAgent {
    let allowed = |name: &&str| AllowedAudience {
        name: Audience::parse(name).expect("an audience"),
        signing_algorithm: SigningAlgorithm::EdDSA,
    };
    RegisteredAgent {
        id: AgentId::new("research", name).expect("valid"),
        uid: format!("uid-{name}"),
        version: String::new(),
        generation: 1,
        created: 0,
        deleting: false,
        owner: "team@example.com".to_owned(),
        suspended: false,
        epoch: 3,
        revoked: HashMap::new(),
        admission: Admission::Proven,
        told: None,
        credentials: Credentials { service_accounts: vec![name.to_owned()], ..Credentials::default() },
        rights: Ok(Rights {
            capabilities: capabilities.iter().map(|name| granted(name)).collect(),
            audiences: audiences.iter().map(allowed).collect(),
            expiration_seconds: 300,
            possession_required: false,
            delegation: Delegation { act_for: vec![], callers: vec![], max_depth: 4 },
        }),
    }
}
