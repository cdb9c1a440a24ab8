//! `countersign reach`: can this agent ever bring this about, through whichever agents it may hand a task to?

use super::can::Output;
use super::objects::{Objects, Source, SourceError};
use crate::grammar::{AgentId, CapabilityName, GrammarError, Resource};
use crate::json::put;
use crate::reach::{Cut, Opening, Path, Query, Reach, reach};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Flags of `reach`.
#[derive(Debug, Args)]
pub struct ReachArgs {
    /// The Agent that begins: namespace/name.
    #[arg(long, value_parser = super::agent_id, value_name = "NAMESPACE/NAME")]
    pub agent: AgentId,
    /// The capability, for example payments.authorize.
    #[arg(long, value_name = "NAME")]
    pub capability: String,
    /// On this resource; absent: on any.
    #[arg(long, value_name = "TYPE:ID")]
    pub resource: Option<String>,
    /// Where the objects come from.
    #[command(flatten)]
    pub source: Source,
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// There are no objects to look through.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] GrammarError),
    /// The agent is none of them: a misspelt name must not pass for a no.
    #[error("no Agent {0} is registered")]
    Unknown(AgentId),
}

/// Answers. The status is 0 if it can and 1 if it cannot.
///
/// # Errors
/// A [`ReachError`]: nobody can tell.
pub async fn run(args: &ReachArgs) -> Result<(String, u8), ReachError> {
    let query = Query {
        agent: args.agent.clone(),
        capability: CapabilityName::parse(&args.capability)?,
        resource: args.resource.as_deref().map(Resource::parse).transpose()?,
    };
    let objects = Objects::load(&args.source).await?;
    let view = objects.view();
    if view.agents.look_up(&query.agent).is_none() {
        return Err(ReachError::Unknown(query.agent));
    }
    let found = reach(&query, &view);
    let status = u8::from(matches!(found, Reach::Cut(_)));
    let text = match (args.output, &found) {
        (Output::Json, found) => format!("{:#}\n", shown(&query, found)),
        (Output::Text, Reach::Path(path)) => path_text(&query, path),
        (Output::Text, Reach::Cut(cut)) => cut_text(&query, cut),
    };
    Ok((text, status))
}

fn names<'a>(ids: impl IntoIterator<Item = &'a AgentId>) -> String {
    let names: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

fn persons(count: usize) -> String {
    if count == 1 { "one person".to_owned() } else { format!("{count} persons") }
}

fn path_text(query: &Query, path: &Path) -> String {
    let capability = &query.capability;
    let chain = path.chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ");
    let mut text = format!("yes: {chain}\n");
    let last = path.chain.last().map(ToString::to_string).unwrap_or_default();
    _ = match &path.opens {
        Opening::Nothing => writeln!(text, "  nothing stands in between: a token for {capability} goes all the way"),
        Opening::Approval(count) => writeln!(
            text,
            "  opened by the approval of {} with the RBAC verb approve on {capability}, for each use",
            persons(*count)
        ),
        Opening::OwnRight { missing, approvals: 0 } => writeln!(
            text,
            "  {last} holds {capability} and can use it by its own right when it is handed a task\n  opened as a token all the way by a grant \
             of {capability} to {}",
            names(missing)
        ),
        Opening::OwnRight { missing, approvals } => writeln!(
            text,
            "  {last} holds {capability}, and each use needs the approval of {}\n  opened as a token all the way by a grant to {}",
            persons(*approvals),
            names(missing)
        ),
    };
    if let Some(resources) = &path.resources {
        _ = writeln!(text, "  on {}", resources.join(", "));
    }
    for (agent, condition) in &path.conditions {
        _ = writeln!(text, "  while, for {agent}: {condition}");
    }
    text
}

fn cut_text(query: &Query, cut: &Cut) -> String {
    let mut text = format!("no: {} can never bring about {}\n", query.agent, query.capability);
    if cut.holders.is_empty() {
        _ = writeln!(text, "  no Agent holds it");
        return text;
    }
    _ = writeln!(text, "  it can hand a task to: {}", names(cut.reached.iter().filter(|id| **id != query.agent)));
    _ = writeln!(text, "  holds it: {}", names(&cut.holders));
    _ = writeln!(
        text,
        "  can hand a task to one of those, be it through others: {}",
        names(cut.leads_there.difference(&cut.holders))
    );
    for (agent, why) in &cut.out_of_use {
        _ = writeln!(text, "  would connect them, but {why}: {agent}");
    }
    if cut.too_long {
        _ = writeln!(text, "  some chains end because spec.delegation.maxDepth of an Agent allows no longer one");
    }
    if cut.out_of_use.is_empty() && !cut.too_long {
        _ = writeln!(
            text,
            "  the cut: spec.delegation.callers of nobody in the last two lines names {} or anybody in the first",
            query.agent
        );
    }
    text
}

fn shown(query: &Query, found: &Reach) -> Value {
    let list = |ids: &mut dyn Iterator<Item = &AgentId>| ids.map(ToString::to_string).collect::<Vec<_>>();
    let mut shown = json!({"agent": query.agent.to_string(), "capability": query.capability.as_str()});
    match found {
        Reach::Path(path) => {
            put(&mut shown, "reachable", json!(true));
            put(&mut shown, "chain", json!(list(&mut path.chain.iter())));
            put(
                &mut shown,
                "opens",
                match &path.opens {
                    Opening::Nothing => json!({"by": "nothing"}),
                    Opening::Approval(count) => json!({"by": "approval", "approvals": count, "verb": "approve"}),
                    Opening::OwnRight { missing, approvals } => {
                        json!({"by": "own_right", "approvals": approvals, "grant_to": list(&mut missing.iter())})
                    }
                },
            );
            if let Some(resources) = &path.resources {
                put(&mut shown, "resources", json!(resources));
            }
            let condition = |(agent, when): &(AgentId, String)| json!({"agent": agent.to_string(), "when": when});
            put(&mut shown, "conditions", path.conditions.iter().map(condition).collect());
        }
        Reach::Cut(cut) => {
            let out_of_use = cut.out_of_use.iter().map(|(agent, why)| json!({"agent": agent.to_string(), "why": why}));
            put(&mut shown, "reachable", json!(false));
            put(
                &mut shown,
                "cut",
                json!({
                    "reached": list(&mut cut.reached.iter()),
                    "holders": list(&mut cut.holders.iter()),
                    "leads_there": list(&mut cut.leads_there.iter()),
                    "out_of_use": out_of_use.collect::<Vec<_>>(),
                    "too_long": cut.too_long,
                }),
            );
        }
    }
    shown
}
