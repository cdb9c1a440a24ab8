//! `kubectl countersign`: requests for approval, agents and the ledger, for people. It holds no power: whatever it does, it does with the
//! kubeconfig and the rights of whoever runs it, and every command has its equal in plain kubectl.
//!
//! `request` and `screen` say how things look and touch nothing; `session` knows the cluster; there is one file for each command.

mod agents;
mod can;
mod catalogue;
mod check;
mod completion;
mod decide;
mod failure;
mod operator;
mod output;
mod records;
mod request;
mod requests;
mod revoke;
mod screen;
mod session;
mod show;
mod stored;
mod ui;
mod version;
mod wait;

pub use failure::{DONE, Failure, NO, PENDING, UNKNOWN};
pub use session::ClusterArgs;

use crate::crd::Verdict;
use crate::time::Clock;
use clap::{Parser, Subcommand};
use session::Session;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// What the exit codes mean, as the help and the manual say.
const EXIT_CODES: &str = "Exit codes:
  0  done, or the answer is yes
  1  refused, or the answer is no: not allowed, a decision that does not count, can says no
  2  an error, or nobody can tell
  3  waited in vain: still pending";

/// Decide on what AI agents ask, see who acts for whom, and stop them.
///
/// It works with your kubeconfig and your rights alone: approving needs the RBAC verb approve on the capability.
#[derive(Debug, Parser)]
#[command(name = "kubectl countersign", bin_name = "kubectl countersign", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What the plugin can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the requests that are open, the most urgent first.
    Requests(requests::RequestsArgs),
    /// Show all of one request: what is asked, for whom, under which rule, and what became of it.
    Show(show::ShowArgs),
    /// Approve requests, after showing them.
    ///
    /// SECURITY: what is approved, the agent does. Decide by what is asked, not by the agent's words for it. The approval is for the digest of
    /// what was shown: if another request has taken its name meanwhile, it is refused.
    Approve(decide::DecideArgs),
    /// Deny requests, after showing them. That is final.
    Deny(decide::DecideArgs),
    /// List agents.
    Agents(agents::AgentsArgs),
    /// Stop agents at once: no new token, and those that there are dead for good.
    Suspend(agents::SuspendArgs),
    /// Let suspended agents go on. It takes the right to grant all that they may do.
    Resume(agents::SuspendArgs),
    /// End tokens now: of an agent all, one or one chain, or those that act for a user.
    Revoke(revoke::RevokeCommand),
    /// Say whether an agent may do something, and what each rule says to it.
    Can(Box<can::CanCommand>),
    /// Who really did this? For a token, an agent, a user, a request for approval or a chain.
    Trace(Box<records::TraceCommand>),
    /// Show the chain of agents through which a token came about, or all that an agent obtained: a line for each token.
    Tree(Box<records::TraceCommand>),
    /// Read the record of what was decided.
    Audit(Box<records::AuditArgs>),
    /// Check the installation, and what you may do.
    Check(check::CheckArgs),
    /// Open the portal, by way of kubectl port-forward.
    Ui(ui::UiArgs),
    /// Print what completes commands and names in a shell.
    Completion(completion::CompletionArgs),
    /// Print the versions of this program and of the operator.
    Version(version::VersionArgs),
}

/// Runs the plugin with this command line.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let out = &mut io::stdout();
    let ran = match args.get(1).and_then(|first| first.to_str()) {
        // What kubectl and the shells ask while somebody types.
        Some(completion::QUESTION) => block_on(completion::answer(args.get(2..).unwrap_or_default(), out)),
        _ => {
            let cli = match Cli::try_parse_from(args) {
                Ok(cli) => cli,
                Err(error) => {
                    // Help is no error. If it cannot be printed, nobody reads it.
                    _ = error.print();
                    return ExitCode::from(if error.use_stderr() { UNKNOWN } else { DONE });
                }
            };
            block_on(run(cli, out))
        }
    };
    match ran {
        Ok(status) => ExitCode::from(status),
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            _ = writeln!(io::stderr(), "kubectl countersign: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

/// Runs to its end, or until it is told to stop: what it has started ends with it.
fn block_on(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| Failure::Failed("a crypto provider was installed before".to_owned()))?;
    let unusable = |error: io::Error| Failure::failed(format!("nothing can be run here: {error}"));
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unusable)?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(unusable)?;
        tokio::select! {
            done = work => done,
            _ = terminate.recv() => Ok(128 + 15),
            _ = tokio::signal::ctrl_c() => Ok(128 + 2),
        }
    })
}

/// Does what the command line says. Returns the status of the process.
async fn run(cli: Cli, out: &mut dyn Write) -> Result<u8, Failure> {
    let clock = Clock::system();
    let open = || Session::open(&cli.cluster);
    match cli.command {
        Command::Requests(args) => requests::run(&open().await?, &args, clock, out).await.map(|()| DONE),
        Command::Show(args) => show::run(&open().await?, &args, clock, out).await.map(|()| DONE),
        Command::Approve(args) => decide::run(&open().await?, &args, Verdict::Approved, clock, out).await,
        Command::Deny(args) => decide::run(&open().await?, &args, Verdict::Denied, clock, out).await,
        Command::Agents(args) => agents::list(&open().await?, &args, clock, out).await.map(|()| DONE),
        Command::Suspend(args) => agents::suspend(&open().await?, &args, true, out).await,
        Command::Resume(args) => agents::suspend(&open().await?, &args, false, out).await,
        Command::Revoke(args) => revoke::run(&open().await?, args, out).await.map(|()| DONE),
        Command::Can(args) => can::run(&open().await?, &args, clock, out).await,
        Command::Trace(args) => records::run_trace(&open().await?, &args, clock, out).await,
        Command::Tree(args) => records::run_tree(&open().await?, &args, clock, out).await,
        Command::Audit(args) => records::run(&open().await?, &args, clock, out).await,
        Command::Check(args) => check::run(&open().await?, &args, out).await,
        Command::Ui(args) => ui::run(&open().await?, &args, out).await.map(|()| DONE),
        Command::Completion(args) => completion::run(args, out).map(|()| DONE),
        Command::Version(args) => version::run(&cli.cluster, &args, out).await.map(|()| DONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kubectls_flags_stand_before_and_behind_a_command() {
        for line in [
            "-n a requests -w",
            "requests -n a --all -o json",
            "requests -A --context c --kubeconfig f --as u --as-group g --as-group h",
            "approve x y --reason ok --yes --wait=false",
            "deny x --timeout 5s --wait",
            "audit tail -n a --lines 5 -f",
            "revoke --agent bot --all",
            "can bot document.read document:a/b -n a --parameters {}",
            "trace -1eQ_x --server https://a",
        ] {
            let args = ["kubectl-countersign"].into_iter().chain(line.split(' '));
            assert!(
                Cli::try_parse_from(args.clone()).is_ok(),
                "{line}: {:?}",
                Cli::try_parse_from(args).err().map(|e| e.to_string())
            );
        }
        for line in [
            "",
            "approve",
            "requests --as-group g",
            "deny x --timeout 5",
            "requests -o text",
            "revoke --agent a",
            "approve x --wait=maybe",
        ] {
            let args = ["kubectl-countersign"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(Cli::try_parse_from(args).is_err(), "{line}");
        }
    }

    #[test]
    fn help_says_what_people_type() {
        let help =
            Cli::command().try_get_matches_from(["kubectl-countersign", "approve", "--help"]).expect_err("help").to_string();
        assert!(help.contains("Usage: kubectl countersign approve") && help.contains("SECURITY"), "{help}");
        let help = Cli::command().try_get_matches_from(["kubectl-countersign", "-h"]).expect_err("help").to_string();
        assert!(help.contains("Exit codes:") && help.contains("Usage: kubectl countersign"), "{help}");
    }
}
