//! The intersection: what the agent holds, what the token with which it was called allows, and what every agent in the chain holds.

use super::attempt::{Usage, usable_at_once};
use super::standing::rights;
use super::{Case, Denial, Reason, Subject, View, holding};
use crate::agent::{Granted, RegisteredAgent};
use crate::chain::Chain;
use crate::grammar::CapabilityName;
use std::sync::Arc;

/// How many cuts a refusal names.
const CUTS_SHOWN: usize = 5;

/// One term of the intersection.
enum Term<'a> {
    /// What the subject token allows.
    Token(&'a [Granted]),
    /// What an agent that stands earlier in the chain holds.
    Agent(&'a Arc<RegisteredAgent>),
}

/// What is granted: all that is asked, or, if nothing is said, whatever all terms allow. What one of them cuts is never left out of
/// what was asked without a word.
pub(super) fn capabilities(case: &Case<'_>, chain: &Chain, view: &View<'_>) -> Result<Vec<Granted>, Denial> {
    let agent = case.agent;
    let rights = rights(agent)?;
    let terms = terms(case, chain, view);
    let usage = Usage { acting: agent, chain, attempt: case.ask.operation.as_ref() };
    let named = case.ask.operation.as_ref().map(|attempt| std::slice::from_ref(&attempt.capability));
    let Some(asked) = named.or(case.ask.capabilities.as_deref()) else {
        let all = rights.capabilities.iter().map(|held| cut(held, &terms, usage, view));
        let (granted, cuts): (Vec<_>, Vec<_>) = all.partition(Result::is_ok);
        if granted.is_empty() {
            return Err(nothing(agent, cuts));
        }
        return Ok(granted.into_iter().flatten().collect());
    };
    let mut granted: Vec<Granted> = Vec::with_capacity(asked.len());
    for name in asked {
        let capability = cut(holding(agent, &rights.capabilities, name)?, &terms, usage, view)?;
        if !granted.iter().any(|c| c.name == *name) {
            granted.push(capability);
        }
    }
    Ok(granted)
}

fn terms<'a>(case: &'a Case<'_>, chain: &Chain, view: &View<'a>) -> Vec<Term<'a>> {
    let Subject::Token(parent) = case.subject else { return Vec::new() };
    let earlier = chain.links().iter().take(chain.depth().saturating_sub(1));
    let agents = earlier.filter_map(|link| view.agents.look_up(&link.agent)).map(Term::Agent);
    std::iter::once(Term::Token(&parent.capabilities)).chain(agents).collect()
}

/// What is left of a capability that the agent holds, or which term cut it.
fn cut(held: &Granted, terms: &[Term<'_>], usage: Usage<'_>, view: &View<'_>) -> Result<Granted, Denial> {
    let (name, agent) = (&held.name, usage.acting);
    usable_at_once(agent, held, usage, view.catalogue)?;
    let mut left = Granted { when: None, ..held.clone() };
    for term in terms {
        let (theirs, who) = match term {
            Term::Token(scope) => (in_scope(scope, "the subject token", usage, name)?, "the subject token".to_owned()),
            Term::Agent(other) => (held_earlier(other, usage, name, view)?, other.id.to_string()),
        };
        // For one operation it is enough that each of them allows that.
        left = match (left.narrowed(theirs), usage.attempt) {
            (Some(both), _) => both,
            (None, Some(_)) => left,
            (None, None) => {
                let message = format!("no resource is left of {name}: {who} has it for none that {} has it for", agent.id);
                return Err(Denial::new(Reason::CapabilityNotGranted, message));
            }
        };
    }
    Ok(left)
}

/// The capability of that name in the scope of a token, which must extend to what is attempted.
pub(super) fn in_scope<'a>(
    scope: &'a [Granted],
    of: &str,
    usage: Usage<'_>,
    name: &CapabilityName,
) -> Result<&'a Granted, Denial> {
    let granted = scope
        .iter()
        .find(|c| c.name == *name)
        .ok_or_else(|| Denial::new(Reason::CapabilityNotGranted, format!("capability {name} is not in the scope of {of}")))?;
    match usage.attempt {
        Some(attempt) if !granted.allows(attempt.resource.as_ref()) => {
            let message = format!("{of} has {name} for certain resources only, and this is none of them");
            Err(Denial::new(Reason::ResourceNotGranted, message))
        }
        _ => Ok(granted),
    }
}

/// The capability of that name, as an agent that stands earlier in the chain holds it and may use it.
pub(super) fn held_earlier<'a>(
    other: &'a RegisteredAgent,
    usage: Usage<'_>,
    name: &CapabilityName,
    view: &View<'_>,
) -> Result<&'a Granted, Denial> {
    let held = other.rights.as_ref().ok().and_then(|r| r.capabilities.iter().find(|c| c.name == *name));
    let held = held.ok_or_else(|| {
        let message = format!("capability {name} is not granted to {}, which stands in the chain", other.id);
        Denial::new(Reason::CapabilityNotGranted, message)
    })?;
    usable_at_once(other, held, usage, view.catalogue).map_err(|denial| {
        Denial::new(denial.reason, format!("{}, as {} holds it, which stands in the chain", denial.message, other.id))
    })?;
    Ok(held)
}

/// The refusal of a request that names nothing, if nothing is left.
fn nothing(agent: &RegisteredAgent, cuts: Vec<Result<Granted, Denial>>) -> Denial {
    let why: Vec<String> = cuts.into_iter().filter_map(Result::err).take(CUTS_SHOWN).map(|cut| cut.message).collect();
    let why = if why.is_empty() { "it holds none".to_owned() } else { why.join("; ") };
    Denial::new(Reason::NoCapability, format!("{} holds no capability that it may use here without approval: {why}", agent.id))
}
