//! `kubectl countersign agents`, `suspend` and `resume`.

use super::failure::{DONE, Failure, worse};
use super::output::OutputArgs;
use super::screen::{Table, duration, terminal_width};
use super::session::Session;
use super::stored::all;
use super::wait::{Patience, WaitArgs};
use crate::cli::whoami;
use crate::crd::{Agent, CHANGED_BY, CONDITION_READY, CONDITION_SUSPENDED};
use crate::readable::Readable;
use crate::time::Clock;
use clap::Args;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::io::Write;

/// Flags of `agents`.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// How they are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `suspend` and `resume`.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    /// The Agents: their names, or namespace/name.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Whether to wait until it is in force.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Lists Agents.
pub(super) async fn list(session: &Session, args: &AgentsArgs, clock: Clock, out: &mut dyn Write) -> Result<(), Failure> {
    let mut objects = all(&session.listed::<Agent>()).await?;
    objects.sort_by_key(|object| (object.namespace(), object.name_any()));
    if args.output.list(&objects, out)? {
        return Ok(());
    }
    if objects.is_empty() {
        let place = if session.args.all_namespaces { "the cluster" } else { session.namespace()? };
        writeln!(out, "no agents in {}", Readable(place))?;
        return Ok(());
    }
    let (namespaces, wide) = (session.args.all_namespaces, args.output.is_wide());
    let mut head = Vec::new();
    head.extend(namespaces.then_some("NAMESPACE"));
    head.extend(["NAME", "READY", "SUSPENDED", "OWNER"]);
    head.extend(wide.then_some(["DISPLAY NAME", "EPOCH", "AGE"]).into_iter().flatten());
    head.push("CAPABILITIES");
    let mut table = Table::new(&head, if wide { None } else { terminal_width() });
    let (text, now) = (|text: &str| Readable(text).to_string(), clock.now().as_second());
    for object in &objects {
        let mut row = Vec::new();
        row.extend(namespaces.then(|| text(&object.namespace().unwrap_or_default())));
        row.push(text(&object.name_any()));
        let Some(agent) = object.typed::<Agent>() else {
            row.extend((row.len()..head.len()).map(|_| "?".to_owned()).collect::<Vec<_>>());
            table.push(row);
            continue;
        };
        row.extend([ready(&agent), if agent.spec.suspended { "yes" } else { "no" }.to_owned(), text(&agent.spec.owner)]);
        if wide {
            let age = object.creation_timestamp().map(|at| duration(now.saturating_sub(at.0.as_second())));
            let epoch = agent.status.as_ref().map_or(0, |status| status.revocation_epoch);
            row.push(text(agent.spec.display_name.as_deref().unwrap_or("-")));
            row.extend([epoch.to_string(), age.unwrap_or_else(|| "-".to_owned())]);
        }
        let capabilities: Vec<&str> = agent.spec.capabilities.iter().map(|entry| entry.name.as_str()).collect();
        row.push(text(&capabilities.join(", ")));
        table.push(row);
    }
    write!(out, "{table}")?;
    Ok(())
}

/// Whether it is ready, and why not.
fn ready(agent: &Agent) -> String {
    let conditions = agent.status.as_ref().map_or(&[] as &[_], |status| &status.conditions);
    match conditions.iter().find(|condition| condition.type_ == CONDITION_READY) {
        Some(condition) if condition.status == "True" => "yes".to_owned(),
        Some(condition) => format!("no ({})", Readable(&condition.reason)),
        None => "unknown".to_owned(),
    }
}

/// Stops Agents, or lets them go on. The status is that of the worst.
pub(super) async fn suspend(session: &Session, args: &SuspendArgs, suspended: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    // Where no mutating policy writes who changed an object, whoever changes it does.
    let by = whoami(&session.client).await?.username;
    let mut status = DONE;
    for name in &args.names {
        match one(session, name, args, suspended, &by).await {
            Ok(text) => writeln!(out, "{text}")?,
            Err(failure) if args.names.len() == 1 || failure.is_closed_pipe() => return Err(failure),
            Err(failure) => {
                writeln!(out, "{}: {failure}", Readable(name))?;
                status = worse(status, failure.status());
            }
        }
    }
    Ok(status)
}

async fn one(session: &Session, name: &str, args: &SuspendArgs, suspended: bool, by: &str) -> Result<String, Failure> {
    let (id, patience) = (session.agent(name)?, args.wait.begin());
    let api: Api<Agent> = Api::namespaced(session.client.clone(), id.namespace());
    let missing = || Failure::Failed(format!("there is no Agent {id}"));
    let agent = api.get_opt(id.name()).await?.ok_or_else(missing)?;
    if agent.spec.suspended == suspended {
        // The spec does not change, and so the stamp must not.
        return Ok(format!("{id} {}", if suspended { "is suspended already" } else { "is not suspended" }));
    }
    let patch = json!({"metadata": {"annotations": {CHANGED_BY: by}}, "spec": {"suspended": suspended}});
    let changed = loop {
        match api.patch(id.name(), &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(changed) => break changed,
            // Tokens of before must be dead before it goes on.
            Err(kube::Error::Api(status)) if status.message.contains("the suspension has not taken effect yet") => {
                patience.pause(|| format!("{id}: its suspension has not taken effect")).await?;
            }
            Err(error) => return Err(error.into()),
        }
    };
    if !args.wait.wait {
        return Ok(format!("{id} {}", if suspended { "is told to stop" } else { "is told to go on" }));
    }
    in_force(&api, &changed, suspended, patience).await?;
    Ok(match suspended {
        true => format!("{id} is suspended: it gets no token, and those that it had are dead for good"),
        false => format!("{id} goes on: it gets new tokens"),
    })
}

/// Waits until the operator has acted on this generation.
async fn in_force(api: &Api<Agent>, changed: &Agent, suspended: bool, patience: Patience) -> Result<(), Failure> {
    let (name, wanted) = (changed.name_any(), if suspended { "True" } else { "False" });
    loop {
        let found = api.get_opt(&name).await?.filter(|found| found.uid() == changed.uid());
        let Some(found) = found else {
            return Err(Failure::Failed(format!("Agent {} was deleted meanwhile", Readable(&name))));
        };
        let conditions = found.status.as_ref().map_or(&[] as &[_], |status| &status.conditions);
        let is_done = conditions.iter().any(|condition| {
            condition.type_ == CONDITION_SUSPENDED
                && condition.status == wanted
                && condition.observed_generation >= changed.metadata.generation
        });
        if is_done {
            return Ok(());
        }
        patience.pause(|| format!("{}: it is stored, but the operator has not acted on it", Readable(&name))).await?;
    }
}
