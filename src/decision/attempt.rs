//! One use of one capability by one agent: what its own entry and the catalogue say about it.

use super::{Denial, Reason};
use crate::agent::{Facts, Granted, RegisteredAgent, Unmet};
use crate::capability::{Catalogue, Entry, Rule, Unusable};
use crate::chain::Chain;
use crate::grammar::{CapabilityName, Resource, ResourcePattern};
use crate::operation::{Operation, Parameters};
use serde_json::{Map, Value, json};

/// What exactly an agent is about to do, as far as somebody has said it.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// With which capability.
    pub capability: CapabilityName,
    /// On what.
    pub resource: Option<Resource>,
    /// With what.
    pub parameters: Option<Parameters>,
    /// What else is said about the resource.
    pub resource_properties: Map<String, Value>,
    /// What else is said about the circumstances, beside the parameters.
    pub context: Map<String, Value>,
}

impl Attempt {
    /// An attempt of which nothing is known but the operation.
    #[must_use]
    pub fn of(operation: &Operation) -> Self {
        Self {
            capability: operation.capability.clone(),
            resource: operation.resource.clone(),
            parameters: operation.parameters.clone(),
            resource_properties: Map::new(),
            context: Map::new(),
        }
    }
}

/// For what a capability is wanted, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage<'a> {
    /// The agent that acts.
    pub(super) acting: &'a RegisteredAgent,
    /// On whose behalf and through whom.
    pub(super) chain: &'a Chain,
    /// What exactly. Not said: whatever a token will be used for, of which nothing is known.
    pub(super) attempt: Option<&'a Attempt>,
}

/// Whether `holder`, an agent of the chain, may use `held`: the rule under which a person must approve it, if one must.
pub(super) fn usable<'a>(
    holder: &RegisteredAgent,
    held: &Granted,
    usage: Usage<'_>,
    catalogue: &'a Catalogue,
) -> Result<Option<&'a Rule>, Denial> {
    let rule = approval_rule(held, catalogue)?;
    let Some(attempt) = usage.attempt else {
        // Asking for approval is what must be done first, and then there is an operation.
        return if rule.is_some() { Ok(rule) } else { condition(holder, held, usage).map(|()| None) };
    };
    on_resource(holder, held, attempt)?;
    with_parameters(held, attempt, catalogue)?;
    condition(holder, held, usage)?;
    Ok(rule)
}

/// What each of the rules behind [`usable`] says.
pub(super) fn each(
    holder: &RegisteredAgent,
    held: &Granted,
    usage: Usage<'_>,
    catalogue: &Catalogue,
) -> Vec<(&'static str, Result<String, Denial>)> {
    let Some(attempt) = usage.attempt else { return Vec::new() };
    let patterns = held.resources.iter().flatten().map(ResourcePattern::as_str).collect::<Vec<_>>().join(", ");
    let among = if patterns.is_empty() { "any resource".to_owned() } else { format!("one of {patterns}") };
    let when = held.when.as_ref().map_or("no condition", |when| when.text()).to_owned();
    vec![
        ("resource", on_resource(holder, held, attempt).map(|()| among)),
        ("parameters", with_parameters(held, attempt, catalogue).map(|()| "as the catalogue has them".to_owned())),
        ("condition", condition(holder, held, usage).map(|()| when)),
        (
            "approval",
            approval_rule(held, catalogue).and_then(|rule| without_approval(held, rule)).map(|()| "needs none".to_owned()),
        ),
    ]
}

fn on_resource(holder: &RegisteredAgent, held: &Granted, attempt: &Attempt) -> Result<(), Denial> {
    if held.allows(attempt.resource.as_ref()) {
        return Ok(());
    }
    let name = &held.name;
    let message = match &attempt.resource {
        None => format!("{name} is granted to {} for certain resources only: name the one", holder.id),
        Some(resource) => format!("{name} is not granted to {} on {}", holder.id, resource.as_str()),
    };
    Err(Denial::new(Reason::ResourceNotGranted, message))
}

fn with_parameters(held: &Granted, attempt: &Attempt, catalogue: &Catalogue) -> Result<(), Denial> {
    let Some(Ok(rule)) = catalogue.get(&held.name) else { return Ok(()) };
    rule.check(attempt.parameters.as_ref()).map_err(|problem| {
        Denial::new(Reason::ParametersRefused, format!("the parameters do not match the schema of {}: {problem}", held.name))
    })
}

/// The same for what is used without asking anybody.
pub(super) fn usable_at_once(
    holder: &RegisteredAgent,
    held: &Granted,
    usage: Usage<'_>,
    catalogue: &Catalogue,
) -> Result<(), Denial> {
    without_approval(held, usable(holder, held, usage, catalogue)?)
}

fn without_approval(held: &Granted, rule: Option<&Rule>) -> Result<(), Denial> {
    let needed =
        || format!("{} needs a person's approval for each use: ask for one operation at /oauth2/bc-authorize", held.name);
    rule.map_or(Ok(()), |_| Err(Denial::new(Reason::ApprovalRequired, needed())))
}

/// The rule under which a capability that an Agent holds may be used: `None` if it needs no approval. Of what Agent and catalogue
/// say the strictest counts, and a rule that is missing or cannot be read is a no.
pub(crate) fn approval_rule<'a>(held: &Granted, catalogue: &'a Catalogue) -> Result<Option<&'a Rule>, Denial> {
    let entry: Option<&'a Entry> = catalogue.get(&held.name);
    match (entry, held.approval_required) {
        (Some(Err(Unusable::Pending)), _) => {
            Err(Denial::new(Reason::RulePending, format!("the catalogue's rule for {} has not been looked at yet", held.name)))
        }
        (Some(Err(Unusable::Invalid(problem))), _) => Err(Denial::new(
            Reason::RuleUnreadable,
            format!("the catalogue's rule for {} cannot be enforced: {problem}", held.name),
        )),
        (Some(Ok(rule)), of_agent) => Ok((of_agent || rule.approval_required).then_some(rule)),
        (None, true) => Err(Denial::new(
            Reason::RuleMissing,
            format!("{} needs approval and the catalogue has no Capability of that name that says whose", held.name),
        )),
        (None, false) => Ok(None),
    }
}

/// Whether the condition of `holder` is met.
fn condition(holder: &RegisteredAgent, held: &Granted, usage: Usage<'_>) -> Result<(), Denial> {
    let Some(condition) = &held.when else { return Ok(()) };
    let (name, id, text) = (&held.name, &holder.id, condition.text());
    condition.check(&facts(&held.name, usage)).map_err(|unmet| match (unmet, usage.attempt) {
        (Unmet::False, _) => {
            Denial::new(Reason::ConditionUnmet, format!("the condition under which {id} holds {name} is not met: {text}"))
        }
        (Unmet::Undecided(why), Some(_)) => Denial::new(
            Reason::ConditionUndecided,
            format!("the condition under which {id} holds {name} cannot be evaluated, because {why}: {text}"),
        ),
        (Unmet::Undecided(why), None) => Denial::new(
            Reason::ConditionUndecided,
            format!(
                "whether {id} may use {name} depends on the operation, and {why}: name the operation in authorization_details, or let the \
                 resource server ask at /access/v1/evaluation: {text}"
            ),
        ),
        (Unmet::Invalid(problem), _) => {
            Denial::new(Reason::ConditionInvalid, format!("the condition under which {id} holds {name} {problem}"))
        }
    })
}

/// What a condition can know.
fn facts(name: &CapabilityName, usage: Usage<'_>) -> Facts {
    let (acting, chain) = (usage.acting, usage.chain);
    let id = acting.id.to_string();
    let agent = members(json!({"id": id, "namespace": acting.id.namespace(), "name": acting.id.name(), "owner": acting.owner}));
    let subject = match (chain.user(), chain.links().first()) {
        (Some(user), _) => json!({"type": "user", "id": user.to_string(), "name": user.name, "issuer": user.issuer.name}),
        (None, Some(first)) => json!({"type": "agent", "id": first.agent.to_string(), "name": first.agent.name(),
            "namespace": first.agent.namespace()}),
        (None, None) => json!({}),
    };
    let agents: Vec<String> = chain.links().iter().map(|link| link.agent.to_string()).collect();
    let mut facts = Facts {
        agent,
        subject: members(subject),
        chain: members(json!({"agents": agents, "depth": agents.len()})),
        action: members(json!({"name": name.as_str()})),
        ..Facts::default()
    };
    let Some(attempt) = usage.attempt else { return facts };
    if let Some(parameters) = &attempt.parameters {
        facts.action.insert("properties".to_owned(), Value::Object(parameters.members().clone()));
        facts.context.clone_from(parameters.members());
    }
    if let Some((kind, id)) = attempt.resource.as_ref().and_then(|resource| resource.as_str().split_once(':')) {
        facts.resource = members(json!({"type": kind, "id": id}));
        if !attempt.resource_properties.is_empty() {
            facts.resource.insert("properties".to_owned(), Value::Object(attempt.resource_properties.clone()));
        }
    }
    for (name, value) in &attempt.context {
        // Nothing that is said beside the parameters takes the place of one of them.
        facts.context.entry(name.as_str()).or_insert_with(|| value.clone());
    }
    facts
}

fn members(value: Value) -> Map<String, Value> {
    if let Value::Object(members) = value { members } else { Map::new() }
}
