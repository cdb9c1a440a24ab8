//! May it do this one thing? The question of a resource server, and of an agent that wants to know beforehand. The same rules as when a
//! token is issued for that very operation.

use super::attempt::{self, Attempt, Usage, usable, usable_at_once};
use super::standing::{Grants, Issued, rights, standing, stands, unknown, user_stands};
use super::terms::{held_earlier, in_scope};
use super::{Denial, Reason, View, audience, extends, holding, may_request};
use crate::agent::RegisteredAgent;
use crate::chain::{Chain, IssuerRef, Principal};
use crate::grammar::AgentId;
use crate::json;
use crate::operation::Operation;

/// By what an agent claims that it may.
#[derive(Debug, Clone, Copy)]
pub enum Claimed<'a> {
    /// By a token of ours, which was verified.
    Token(Issued<'a>),
    /// By who it is, the last of these, each of which was called by the one before: what a token that it could get would allow, for
    /// themselves or for a user of that name.
    Name(&'a [&'a RegisteredAgent], Option<&'a str>),
}

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// By what.
    pub claimed: Claimed<'a>,
    /// What.
    pub attempt: &'a Attempt,
}

/// Decides at `now`, in seconds since the epoch.
///
/// # Errors
/// The rule that says no.
pub fn evaluate(query: Query<'_>, view: &View<'_>, now: u64) -> Result<(), Denial> {
    let attempt = query.attempt;
    match query.claimed {
        Claimed::Name(agents, user) => everybody(&named(agents, user, view)?, attempt, view),
        Claimed::Token(issued) => {
            stands(&issued, view, now)?;
            match issued.grants {
                Grants::Capabilities(scope) => {
                    let acting = acting(issued.chain, view)?;
                    in_scope(
                        scope,
                        "the token",
                        Usage { acting, chain: issued.chain, attempt: Some(attempt) },
                        &attempt.capability,
                    )?;
                    everybody(issued.chain, attempt, view)
                }
                Grants::Operation(operation) => {
                    is_that(operation, attempt)?;
                    everybody(issued.chain, attempt, view)
                }
                Grants::Approved(operation) => {
                    is_that(operation, attempt)?;
                    let acting = acting(issued.chain, view)?;
                    let held = holding(acting, &rights(acting)?.capabilities, &attempt.capability)?;
                    usable(acting, held, Usage { acting, chain: issued.chain, attempt: Some(attempt) }, view.catalogue).map(drop)
                }
            }
        }
    }
}

/// What a person would have to approve so that the answer became yes, if one could: `audience` is for whom the token would be, if that is
/// known.
#[must_use]
pub fn requestable(query: Query<'_>, wanted: Option<&str>, view: &View<'_>) -> Option<Operation> {
    let chain = match query.claimed {
        Claimed::Name(agents, user) => named(agents, user, view).ok()?,
        Claimed::Token(issued) => issued.chain.clone(),
    };
    let agent = acting(&chain, view).ok()?;
    let found = audience(agent, &agent.rights.as_ref().ok()?.audiences, wanted).ok()?;
    let operation = Operation {
        capability: query.attempt.capability.clone(),
        resource: query.attempt.resource.clone(),
        parameters: query.attempt.parameters.clone(),
        audience: found.name.clone(),
    };
    may_request(agent, &chain, view.catalogue, &operation).is_ok().then_some(operation)
}

/// One agent of a chain and one rule, and what that says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Whose rule.
    pub agent: AgentId,
    /// Which.
    pub rule: &'static str,
    /// Yes, and by what; or why not.
    pub verdict: Result<String, Denial>,
}

/// What each rule says, for whoever wants to know more than yes or no: the same functions, asked one by one, also behind the first no.
#[must_use]
pub fn explain(agents: &[&RegisteredAgent], user: Option<&str>, attempt: &Attempt, view: &View<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(acting) = agents.last().copied() else { return steps };
    let mut note = |agent: &RegisteredAgent, rule, verdict| steps.push(Step { agent: agent.id.clone(), rule, verdict });
    for agent in agents {
        note(agent, "standing", standing(agent).map(|()| "registered and not suspended".to_owned()));
    }
    let chain = named(agents, user, view);
    note(acting, "chain", chain.as_ref().map(Chain::subjects).map_err(Clone::clone));
    let Ok(chain) = chain else { return steps };
    let usage = Usage { acting, chain: &chain, attempt: Some(attempt) };
    for agent in agents {
        let held = rights(agent).and_then(|rights| holding(agent, &rights.capabilities, &attempt.capability));
        note(agent, "capability", held.clone().map(|held| format!("holds {}", held.name)));
        for (rule, verdict) in held.iter().flat_map(|held| attempt::each(agent, held, usage, view.catalogue)) {
            note(agent, rule, verdict);
        }
    }
    steps
}

/// Whether what was granted is exactly what is attempted: the same thing on the same resource, with no parameter more, and every parameter
/// that was granted named again, be it beside the others.
///
/// # Errors
/// If it is anything else.
pub fn is_that(granted: &Operation, attempt: &Attempt) -> Result<(), Denial> {
    let members = |operation: Option<&crate::operation::Parameters>| operation.map(|p| p.members().clone()).unwrap_or_default();
    let (given, tried) = (members(granted.parameters.as_ref()), members(attempt.parameters.as_ref()));
    let what = if granted.capability != attempt.capability {
        "another capability"
    } else if granted.resource != attempt.resource {
        "another resource"
    } else if !tried.iter().all(|(name, value)| given.get(name).is_some_and(|granted| json::same(granted, value)))
        || !given
            .iter()
            .all(|(name, value)| tried.get(name).or_else(|| attempt.context.get(name)).is_some_and(|v| json::same(v, value)))
    {
        "other parameters"
    } else {
        return Ok(());
    };
    Err(Denial::new(Reason::OperationMismatch, format!("what was granted is {} with {what}", granted.headline())))
}

/// Whether every agent of the chain may do it without asking anybody.
fn everybody(chain: &Chain, attempt: &Attempt, view: &View<'_>) -> Result<(), Denial> {
    let acting = acting(chain, view)?;
    let usage = Usage { acting, chain, attempt: Some(attempt) };
    let held = holding(acting, &rights(acting)?.capabilities, &attempt.capability)?;
    usable_at_once(acting, held, usage, view.catalogue)?;
    for link in chain.links().iter().take(chain.depth().saturating_sub(1)) {
        let other = view.agents.look_up(&link.agent).ok_or_else(|| unknown(&link.agent.to_string()))?;
        held_earlier(other, usage, &attempt.capability, view)?;
    }
    Ok(())
}

/// The agent that acts at the end of a chain, as it is registered now.
fn acting<'a>(chain: &Chain, view: &View<'a>) -> Result<&'a std::sync::Arc<RegisteredAgent>, Denial> {
    let found = chain.acting().and_then(|link| view.agents.look_up(&link.agent));
    found.ok_or_else(|| unknown(&chain.subject()))
}

/// The chain that these agents could make, each called by the one before: for themselves, or for a user whom one of the issuers for which
/// the first may act calls `user`. What only an ID token says, the application and the groups, is asked when one is presented.
fn named(agents: &[&RegisteredAgent], user: Option<&str>, view: &View<'_>) -> Result<Chain, Denial> {
    let Some((first, called)) = agents.split_first() else { return Err(unknown("nobody")) };
    standing(first)?;
    let user = user.map(|user| principal(first, user, view)).transpose()?;
    let (mut chain, mut caller) = (Chain::begin(user, first.link(), String::new()), *first);
    for agent in called {
        standing(agent)?;
        extends(&chain, &agent.id, caller, view)?;
        (chain, caller) = (chain.extended("", agent.link()), agent);
    }
    Ok(chain)
}

/// The user of that name for whom `agent` may act.
fn principal(agent: &RegisteredAgent, user: &str, view: &View<'_>) -> Result<Principal, Denial> {
    let delegation = &rights(agent)?.delegation;
    let mut refused = None;
    for entry in delegation.act_for.iter().filter(|entry| delegation.may_still_act_for(&entry.issuer, user)) {
        let Some(issuer) = view.issuers.look_up(&entry.issuer) else { continue };
        let principal = Principal {
            name: user.to_owned(),
            issuer: IssuerRef { name: entry.issuer.clone(), uid: issuer.uid.clone() },
            epoch: issuer.revoked_users.epoch(user),
        };
        match user_stands(&principal, view) {
            Ok(()) => return Ok(principal),
            Err(denial) => refused = Some(denial),
        }
    }
    Err(refused.unwrap_or_else(|| {
        let message = format!("{} may not act for that user: no entry of its spec.delegation.actFor names them", agent.id);
        Denial::new(Reason::DelegationNotGranted, message)
    }))
}
