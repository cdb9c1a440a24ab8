//! Completion of commands, flags and live names, for kubectl and for shells.
//!
//! kubectl asks an executable `kubectl_complete-countersign`, in the form of cobra's `__complete`: a line for each answer, with a tab before
//! what it means, and at the end a directive. The scripts for shells ask the same question.

use super::failure::{DONE, Failure};
use super::request::{Asked, Entry};
use super::session::{ClusterArgs, Session};
use super::stored::{Stored, all};
use super::{Cli, screen};
use crate::crd::{Agent, Capability, JitRequest, TrustedIssuer};
use clap::{Arg, Args, Command, CommandFactory as _, ValueEnum};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;
use kube::core::ApiResource;
use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

/// The word before the words that are to be completed.
pub(super) const QUESTION: &str = "__complete";
/// How long the cluster may take: somebody is typing.
const WITHIN: Duration = Duration::from_secs(3);
/// How wide what a name means is shown.
const MEANING: usize = 80;

/// Directives of cobra: complete names of files where there is no answer, or do not.
const FILES: u8 = 0;
const NO_FILES: u8 = 4;

/// Flags of `completion`.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionArgs {
    /// For what. kubectl: the executable kubectl_complete-countersign, which kubectl's own completion asks.
    pub shell: Shell,
}

/// What completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// For `kubectl-countersign` typed in bash.
    Bash,
    /// The same in zsh.
    Zsh,
    /// The same in fish.
    Fish,
    /// For `kubectl countersign`, in every shell where kubectl completes.
    Kubectl,
}

/// Prints the script.
pub(super) fn run(args: CompletionArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let script = match args.shell {
        Shell::Bash => include_str!("completion/bash.sh"),
        Shell::Zsh => include_str!("completion/zsh.sh"),
        Shell::Fish => include_str!("completion/fish.fish"),
        Shell::Kubectl => include_str!("completion/kubectl.sh"),
    };
    Ok(write!(out, "{script}")?)
}

/// Answers what the last of these words could become.
pub(super) async fn answer(words: &[OsString], out: &mut dyn Write) -> Result<u8, Failure> {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let mut root = Cli::command();
    root.build();
    let (last, before) = words.split_last().map_or(("", &[] as &[_]), |(last, before)| (*last, before));
    let place = Place::find(&root, before);
    let (candidates, directive) = place.candidates(last).await;
    for (name, meaning) in candidates.iter().filter(|(name, _)| name.starts_with(last)) {
        writeln!(out, "{name}\t{}", screen::cut(meaning, MEANING))?;
    }
    writeln!(out, ":{directive}")?;
    Ok(DONE)
}

/// Where in a command line the cursor stands.
struct Place<'a> {
    path: Vec<&'a str>,
    command: &'a Command,
    /// The flag whose value comes next.
    flag: Option<&'a Arg>,
    /// How many values without a flag there are before.
    values: Vec<&'a str>,
    cluster: ClusterArgs,
}

/// What could be typed, and what it means.
type Candidates = Vec<(String, String)>;

impl<'a> Place<'a> {
    /// Walks through the words that are complete.
    fn find(root: &'a Command, words: &[&'a str]) -> Self {
        let mut place = Self { path: Vec::new(), command: root, flag: None, values: Vec::new(), cluster: ClusterArgs::default() };
        for &word in words {
            if let Some(flag) = place.flag.take() {
                place.note(flag, word);
            } else if let Some(name) = word.strip_prefix("--").filter(|name| !name.is_empty()) {
                let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
                let flag = place.command.get_arguments().find(|flag| flag.get_long() == Some(name));
                place.take(flag, value);
            } else if let Some(short) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) {
                let value = word.char_indices().nth(2).and_then(|(at, _)| word.get(at..));
                let flag = place.command.get_arguments().find(|flag| flag.get_short() == Some(short));
                place.take(flag, value);
            } else if let Some(command) = place.command.find_subcommand(word).filter(|_| place.values.is_empty()) {
                place.path.push(word);
                place.command = command;
            } else {
                place.values.push(word);
            }
        }
        place
    }

    fn take(&mut self, flag: Option<&'a Arg>, value: Option<&str>) {
        match (flag.filter(|flag| flag.get_action().takes_values()), value) {
            (Some(flag), Some(value)) => self.note(flag, value),
            (Some(flag), None) if !flag.is_require_equals_set() => self.flag = Some(flag),
            _ => self.cluster.all_namespaces |= flag.is_some_and(|flag| flag.get_id() == "all_namespaces"),
        }
    }

    /// Which cluster is meant decides which names there are.
    fn note(&mut self, flag: &Arg, value: &str) {
        match flag.get_id().as_str() {
            "namespace" => self.cluster.namespace = Some(value.to_owned()),
            "context" => self.cluster.context = Some(value.to_owned()),
            "kubeconfig" => self.cluster.kubeconfig = Some(value.into()),
            "as_user" => self.cluster.as_user = Some(value.to_owned()),
            "as_group" => self.cluster.as_group.push(value.to_owned()),
            _ => {}
        }
    }

    async fn candidates(&self, last: &str) -> (Candidates, u8) {
        if let Some(flag) = self.flag {
            return self.values_of(flag).await;
        }
        if let Some((name, _)) = last.strip_prefix("--").and_then(|rest| rest.split_once('=')) {
            let Some(flag) = self.command.get_arguments().find(|flag| flag.get_long() == Some(name)) else {
                return (Vec::new(), NO_FILES);
            };
            let (values, directive) = self.values_of(flag).await;
            return (values.into_iter().map(|(value, meaning)| (format!("--{name}={value}"), meaning)).collect(), directive);
        }
        if last.starts_with('-') {
            return (self.flags(), NO_FILES);
        }
        let commands: Candidates = self
            .command
            .get_subcommands()
            .filter(|command| self.values.is_empty() && !command.is_hide_set())
            .map(|command| (command.get_name().to_owned(), command.get_about().map(ToString::to_string).unwrap_or_default()))
            .collect();
        if !commands.is_empty() {
            return (commands, NO_FILES);
        }
        let positionals: Vec<&Arg> = self.command.get_positionals().collect();
        let many = |arg: &&&Arg| arg.get_num_args().is_some_and(|count| count.max_values() > 1);
        let arg = positionals.get(self.values.len()).or_else(|| positionals.last().filter(many));
        match arg {
            Some(arg) => {
                let (mut values, directive) = self.values_of(arg).await;
                values.retain(|(value, _)| !self.values.contains(&value.as_str()));
                (values, directive)
            }
            None => (Vec::new(), NO_FILES),
        }
    }

    fn flags(&self) -> Candidates {
        let flags = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
        flags
            .filter_map(|arg| {
                Some((format!("--{}", arg.get_long()?), arg.get_help().map(ToString::to_string).unwrap_or_default()))
            })
            .collect()
    }

    /// What an argument could be.
    async fn values_of(&self, arg: &Arg) -> (Candidates, u8) {
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            let meaning = |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
            return (possible.iter().map(|value| (value.get_name().to_owned(), meaning(value))).collect(), NO_FILES);
        }
        let id = arg.get_id().as_str();
        if matches!(id, "kubeconfig" | "files" | "ca" | "token_file") {
            return (Vec::new(), FILES);
        }
        if id == "context" {
            return (contexts(&self.cluster), NO_FILES);
        }
        let names = tokio::time::timeout(WITHIN, self.names(id)).await.unwrap_or_default().unwrap_or_default();
        // Nothing that a shell could take for something else.
        let is_plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/' | '_'));
        (names.into_iter().filter(|(name, _)| is_plain(name)).collect(), NO_FILES)
    }

    /// Names that are there now.
    async fn names(&self, id: &str) -> Option<Candidates> {
        let command = self.path.first().copied().unwrap_or_default();
        let session = Session::open(&self.cluster).await.ok()?;
        let everywhere = |resource: &ApiResource| Api::<Stored>::all_with(session.client.clone(), resource);
        let plain = |objects: Vec<Stored>| objects.iter().map(|object| (object.name_any(), String::new())).collect();
        Some(match (command, id) {
            (_, "namespace" | "operator_namespace") => {
                let listed = Api::<Namespace>::all(session.client.clone()).list(&ListParams::default()).await.ok()?;
                listed.items.iter().map(|namespace| (namespace.name_any(), String::new())).collect()
            }
            ("show" | "approve" | "deny", "name" | "names") => {
                all(&session.listed::<JitRequest>()).await.ok()?.iter().filter_map(|object| request(command, object)).collect()
            }
            ("suspend" | "resume", "names") | ("can", "agent" | "via") | ("revoke", "agent") => {
                all(&session.listed::<Agent>()).await.ok()?.iter().filter_map(|object| agent(command, object)).collect()
            }
            ("can", "capability") => plain(all(&everywhere(&ApiResource::erase::<Capability>(&()))).await.ok()?),
            ("revoke", "issuer") => plain(all(&everywhere(&ApiResource::erase::<TrustedIssuer>(&()))).await.ok()?),
            _ => Vec::new(),
        })
    }
}

/// A request that can be named in a command.
fn request(command: &str, object: &Stored) -> Option<(String, String)> {
    let asked = Asked { object: object.typed()?, entry: Entry::Hidden };
    let phase = asked.phase();
    let fits = match command {
        "approve" => phase == "Pending",
        "deny" => matches!(phase.as_str(), "Pending" | "Approved"),
        _ => true,
    };
    fits.then(|| (object.name_any(), format!("{phase}: {}", asked.headline())))
}

fn agent(command: &str, object: &Stored) -> Option<(String, String)> {
    let agent: Agent = object.typed()?;
    let fits = match command {
        "suspend" => !agent.spec.suspended,
        "resume" => agent.spec.suspended,
        _ => true,
    };
    let meaning = crate::readable::Readable(agent.spec.display_name.as_deref().unwrap_or_default()).to_string();
    fits.then(|| (object.name_any(), meaning))
}

/// The contexts of the kubeconfig.
fn contexts(cluster: &ClusterArgs) -> Candidates {
    let kubeconfig = cluster.kubeconfig.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let contexts = kubeconfig.map(|kubeconfig| kubeconfig.contexts).unwrap_or_default();
    contexts.into_iter().map(|context| (context.name, String::new())).collect()
}
