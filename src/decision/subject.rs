//! On whose behalf an agent comes, and whether it may: the chain that its token will carry.

use super::standing::{depth_limit, rights, user_stands};
use super::{Case, Denial, Grants, Issued, Reason, View, stands};
use crate::agent::{Granted, RegisteredAgent};
use crate::chain::{Chain, IssuerRef, Link, MayAct, Principal};
use crate::identity::User;

/// On whose behalf an agent comes.
#[derive(Debug)]
pub enum Subject {
    /// Its own.
    Itself,
    /// A user's, whose ID token was verified.
    User(Box<User>),
    /// That of whoever called it, with a token of ours that was verified.
    Token(Box<Parent>),
}

/// A token of ours with which an agent was called.
#[derive(Debug, Clone, PartialEq)]
pub struct Parent {
    /// Its identifier.
    pub jti: String,
    /// On whose behalf and through whom.
    pub chain: Chain,
    /// Its scope, with the resources to which it is limited.
    pub capabilities: Vec<Granted>,
    /// Whom it is for.
    pub audience: String,
    /// Who alone may exchange it.
    pub may_act: Option<MayAct>,
    /// When it ends, in seconds since the epoch.
    pub expires_at: u64,
    /// Whether it is bound to a key: that of whoever called, who alone can prove to have it. Who was called proves a key of its own.
    pub is_bound: bool,
}

impl Subject {
    /// When what the agent presents of its subject ends, in seconds since the epoch. What is exchanged for it ends no later.
    #[must_use]
    pub fn expires_at(&self) -> u64 {
        match self {
            Self::Itself => u64::MAX,
            Self::User(user) => user.expires_at,
            Self::Token(parent) => parent.expires_at,
        }
    }
}

impl Parent {
    /// Whether `agent` may come with this token at `now`, in seconds since the epoch: it is for this agent and nobody else, and
    /// everything about it stands.
    ///
    /// # Errors
    /// The rule that says no.
    pub fn admits(&self, agent: &RegisteredAgent, issuer: &str, view: &View<'_>, now: u64) -> Result<(), Denial> {
        let chain = &self.chain;
        if self.audience != agent.id.to_string() {
            let message = format!("the token was not issued for {}: only the agent in its aud may exchange it", agent.id);
            return Err(Denial::new(Reason::SubjectNotAddressed, message));
        }
        may_act(self.may_act.as_ref(), agent, issuer)?;
        if chain.contains(&agent.id) {
            let message = format!("{} stands in the chain already: agents do not call one another in a circle", agent.id);
            return Err(Denial::new(Reason::ChainCycle, message));
        }
        let rights = rights(agent)?;
        if let Some(caller) = chain.acting().filter(|caller| !rights.delegation.callers.contains(&caller.agent)) {
            let message = format!("{} does not name {} in spec.delegation.callers", agent.id, caller.agent);
            return Err(Denial::new(Reason::CallerNotAllowed, message));
        }
        let grants = Grants::Capabilities(&self.capabilities);
        let issued = Issued { jti: &self.jti, chain, grants, audience: &self.audience, is_bound: self.is_bound };
        stands(&issued, view, now).map_err(|ended| match ended.reason.is_passing() {
            true => ended,
            false => Denial::new(Reason::ChainEnded, format!("the token is not alive any more: {}", ended.message)),
        })?;
        let limit = depth_limit(chain, view).min(rights.delegation.max_depth);
        if chain.depth() >= limit {
            let message = format!("there would be {} agents in the chain, and one of them allows {limit}", chain.depth() + 1);
            return Err(Denial::new(Reason::ChainTooDeep, message));
        }
        Ok(())
    }
}

/// The chain of the token that is asked for. Only here does a chain begin or grow.
pub(super) fn chain(case: &Case<'_>, view: &View<'_>, now: u64) -> Result<Chain, Denial> {
    let agent = case.agent;
    let link = Link { agent: agent.id.clone(), uid: agent.uid.clone(), epoch: agent.epoch, proof: case.proof.clone() };
    match case.subject {
        Subject::Itself => Ok(Chain::begin(None, link, case.txn.clone())),
        Subject::User(user) => {
            let principal = principal(user, agent, case.issuer, view, now)?;
            Ok(Chain::begin(Some(principal), link, case.txn.clone()))
        }
        Subject::Token(parent) => {
            parent.admits(agent, case.issuer, view, now)?;
            Ok(parent.chain.extended(&parent.jti, link))
        }
    }
}

/// The user for whom `agent` may act.
fn principal(user: &User, agent: &RegisteredAgent, issuer: &str, view: &View<'_>, now: u64) -> Result<Principal, Denial> {
    let rights = rights(agent)?;
    may_act(user.may_act.as_ref(), agent, issuer)?;
    rights
        .delegation
        .may_act_for(user, now)
        .map_err(|why| Denial::new(Reason::DelegationNotGranted, format!("{} may not act for the user: {why}", agent.id)))?;
    let issuer = IssuerRef { name: user.issuer.clone(), uid: user.issuer_uid.clone() };
    let revoked = view.issuers.look_up(&issuer.name).map(|known| &known.revoked_users);
    let name = user.name.name.clone();
    if revoked.is_some_and(|revoked| revoked.is_before(&name, user.issued_at)) {
        let message = "the tokens of the user were revoked, and the ID token is from before: sign the user in again";
        return Err(Denial::new(Reason::UserRevoked, message));
    }
    let principal = Principal { epoch: revoked.map_or(0, |revoked| revoked.epoch(&name)), name, issuer };
    user_stands(&principal, view)?;
    Ok(principal)
}

fn may_act(claim: Option<&MayAct>, agent: &RegisteredAgent, issuer: &str) -> Result<(), Denial> {
    match claim {
        Some(claim) if !claim.names(&agent.id, issuer) => {
            let message = format!("the token says in may_act who may act with it, and that is not {}", agent.id);
            Err(Denial::new(Reason::ActorNotAllowed, message))
        }
        _ => Ok(()),
    }
}
