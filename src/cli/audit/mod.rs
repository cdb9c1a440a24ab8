//! `countersign audit`: asks the ledger, of a running operator or of the database itself.

mod ask;
mod server;
mod source;
mod verify;

pub(crate) use ask::{prove, query, tail, trace, tree};
pub(crate) use server::Server;
pub(crate) use source::Source;
pub use source::SourceArgs;

use crate::audit::ask::AskError;
use crate::audit::ledger::LogId;
use crate::audit::ledger::published::PublishedError;
use crate::audit::trace::Subject;
use crate::audit::{Filter, FilterError};
use crate::store::StoreError;
use crate::time::Clock;
use clap::{Args, Subcommand, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use std::io::{self, Write};
use std::path::PathBuf;

/// Flags of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What is asked.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Who really did this? For a token, an agent, a user, a request for approval or a chain: who did what for whom, in words and as a tree.
    Trace(TraceArgs),
    /// Print the newest records, and with -f those that follow.
    Tail(TailArgs),
    /// Print the records to which all filters apply, from the oldest on.
    Query(QueryArgs),
    /// Is the ledger what was written? Status 0: it is, as far as checkpoints cover it. 1: somebody changed it. 2: nobody can tell.
    ///
    /// Give checkpoints that were kept outside of the database: without them nobody can tell whether the end of it was removed or an old
    /// copy was restored. The ConfigMap has the last of each log: kubectl get configmap countersign-audit -o yaml
    Verify(verify::VerifyArgs),
    /// Print the proof that a record is in the ledger (https://c2sp.org/tlog-proof), for somebody who has nothing but the verifier key.
    Prove(ProveArgs),
    /// Check such a proof, and print the record that it proves. Status 0: it holds. 1: it does not. 2: it cannot be read.
    VerifyProof(VerifyProofArgs),
}

/// Flags of `audit trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What is asked.
    #[command(flatten)]
    pub question: TraceQuestion,
    /// Where the records are.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Who really did this?
#[derive(Debug, Args)]
pub struct TraceQuestion {
    /// The jti of a token, agent:<namespace>/<name>, user:<name>, the UID or <namespace>/<name> of a JitRequest, or the txn of a chain.
    #[arg(value_parser = subject, allow_hyphen_values = true)] // One random identifier in 64 begins so.
    pub subject: Subject,
    /// Look at records from then on: a time with zone, or a time ago such as 90s, 15m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub since: Option<When>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Flags of `audit tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// How many records.
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub lines: u32,
    /// What is asked.
    #[command(flatten)]
    pub question: TailQuestion,
    /// Where the records are.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Which of the newest records, and those that follow?
#[derive(Debug, Args)]
pub struct TailQuestion {
    /// Print those that follow, until it is interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to print them.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Flags of `audit query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// What is asked.
    #[command(flatten)]
    pub question: QueryQuestion,
    /// Where the records are.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Which records, from the oldest on?
#[derive(Debug, Args)]
pub struct QueryQuestion {
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// From then on: a time with zone, or a time ago such as 90s, 15m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub since: Option<When>,
    /// Before then.
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub until: Option<When>,
    /// How many at most.
    #[arg(long, default_value_t = 1000)]
    pub limit: usize,
    /// How to print them.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Which records.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// An event such as token.issue, or several: token.*
    #[arg(long)]
    pub event: Option<String>,
    /// allow, deny or error.
    #[arg(long)]
    pub outcome: Option<String>,
    /// The short name of the reason.
    #[arg(long)]
    pub reason: Option<String>,
    /// An agent, agent:<namespace>/<name>, as the one that asks or in a chain.
    #[arg(long)]
    pub agent: Option<String>,
    /// A user for whom agents act.
    #[arg(long)]
    pub user: Option<String>,
    /// A token, and those that came of it.
    #[arg(long, allow_hyphen_values = true)]
    pub jti: Option<String>,
    /// A text that stands in a record, as a whole or as a word. May be repeated: any of them.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub mentions: Vec<String>,
}

/// Flags of `audit prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// The record: <log>/<number>, as query and trace print it.
    #[arg(value_parser = record)]
    pub record: (LogId, u64),
    /// Where the records are.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Flags of `audit verify-proof`.
#[derive(Debug, Args)]
pub struct VerifyProofArgs {
    /// The proof; - for standard input.
    pub file: PathBuf,
    /// Which keys are trusted.
    #[command(flatten)]
    pub trust: verify::TrustArgs,
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people. Everything from outside is escaped.
    Text,
    /// For programs: a record a line, as it stands in the log.
    Json,
}

/// A time, or one ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Then.
    At(Timestamp),
    /// So many seconds ago.
    Ago(i64),
}

impl When {
    /// As a filter takes it.
    fn resolve(self, clock: Clock) -> String {
        match self {
            Self::At(at) => at.to_string(),
            Self::Ago(seconds) => {
                let at = clock.now().as_second().saturating_sub(seconds);
                Timestamp::from_second(at).map(|at| at.to_string()).unwrap_or_default()
            }
        }
    }
}

/// Why there is no answer. None of it holds a token.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A flag is no filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The database.
    #[error("{0}")]
    Database(String),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was asked has no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The operator says that one may not.
    #[error("{0}")]
    Forbidden(String),
    /// The operator.
    #[error("{0}")]
    Server(String),
    /// A file.
    #[error("{0}: cannot be read: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// A file with checkpoints.
    #[error("{0}: {1}")]
    Published(PathBuf, #[source] PublishedError),
    /// A key is needed.
    #[error(
        "no verifier key is known: give --vkey, or the ConfigMap with --checkpoints, whose item vkeys has all of them. Take them from where \
         nobody who can write to the database can write"
    )]
    NoKey,
    /// A ledger is needed.
    #[error("nothing to verify is given: --database, --database-file or --archive")]
    NoLedger,
    /// No record knows of it.
    #[error("no record knows of {0}")]
    Unknown(String),
    /// The result cannot be printed.
    #[error("the result cannot be printed: {0}")]
    Print(#[from] io::Error),
}

impl AuditError {
    /// Whether whoever read the result has had enough of it.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl FilterArgs {
    fn filter(&self) -> Result<Filter, FilterError> {
        let parts = [
            ("event", &self.event),
            ("outcome", &self.outcome),
            ("reason", &self.reason),
            ("agent", &self.agent),
            ("user", &self.user),
            ("jti", &self.jti),
        ];
        let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let mentions = self.mentions.iter().map(|term| ("mentions", term.as_str()));
        parts.chain(mentions).try_fold(Filter::default(), |filter, (name, value)| filter.with(name, value))
    }
}

/// Asks, and prints the answer to `out`. Returns the status of the process: 0, or 1 for an answer that is no.
///
/// # Errors
/// An [`AuditError`] if there is no answer.
pub async fn run(args: &AuditArgs, clock: Clock, out: &mut dyn Write) -> Result<u8, AuditError> {
    match &args.command {
        AuditCommand::Trace(args) => trace(&args.question, args.source.open(), clock, out).await,
        AuditCommand::Tail(args) => tail(&args.question, args.lines, args.source.open(), out).await,
        AuditCommand::Query(args) => query(&args.question, args.source.open(), clock, out).await,
        AuditCommand::Prove(args) => prove(&args.record, args.source.open(), out).await,
        AuditCommand::Verify(args) => verify::run(args, out).await,
        AuditCommand::VerifyProof(args) => verify::proof(args, out),
    }
}

fn subject(text: &str) -> Result<Subject, String> {
    Subject::parse(text).map_err(|error| error.to_string())
}

/// The name of a record on the command line.
pub(crate) fn record(text: &str) -> Result<(LogId, u64), String> {
    let parsed = text.split_once('/').and_then(|(log, seq)| Some((log.parse().ok()?, seq.parse().ok()?)));
    parsed.ok_or_else(|| "must be <log>/<number>, as audit query prints it".to_owned())
}

fn when(text: &str) -> Result<When, String> {
    if let Ok(at) = text.parse() {
        return Ok(When::At(at));
    }
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let seconds =
        units.iter().find_map(|(unit, factor)| text.strip_suffix(unit)?.parse::<u32>().ok().map(|n| i64::from(n) * factor));
    seconds
        .map(When::Ago)
        .ok_or_else(|| "must be a time with zone, such as 2026-11-24T12:00:00Z, or a time ago such as 15m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser as _;

    fn parse(args: &[&str]) -> Result<AuditCommand, String> {
        match Cli::try_parse_from(["countersign", "audit"].iter().chain(args)).map_err(|error| error.to_string())?.command {
            Command::Audit(args) => Ok(args.command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_come_from_one_place() {
        let log = "0".repeat(32);
        for good in [
            &["trace", "j", "--database=sqlite:///a"][..],
            &["trace", "agent:a/b", "--server=https://a", "--token-file=/t", "--ca=/c"],
            &["query", "--database-file=/f", "--since=2h", "--outcome=deny", "-o", "json"],
            &["tail", "-f", "--database=postgres://u@h/d"],
            &["prove", &format!("{log}/7"), "--database=sqlite:///a"],
            &["verify", "--database=sqlite:///a", "--vkey=x", "--checkpoints=a", "--checkpoints=b"],
            &["verify", "--archive=/a"],
            &["verify-proof", "-"],
            &["trace", "-1eQ_x", "--database=sqlite:///a"],
            &["query", "--jti", "-1eQ_x", "--mentions", "--x", "--database=sqlite:///a"],
        ] {
            // Whether a vkey is one is found out later than this.
            let parsed = parse(good);
            assert!(parsed.is_ok() || good.contains(&"--vkey=x"), "{good:?}: {parsed:?}");
        }
        for bad in [
            &["trace", "j"][..],
            &["trace", "--database=sqlite:///a"],
            &["trace", "agent:x", "--database=sqlite:///a"],
            &["trace", "j", "--server=https://a"],
            &["trace", "j", "--server=http://a", "--token-file=/t"],
            &["trace", "j", "--server=https://a", "--token-file=/t", "--database=sqlite:///a"],
            &["trace", "j", "--database=sqlite:///a", "--database-file=/f"],
            &["query", "--database=sqlite:///a", "--since=yesterday"],
            &["query", "--database=postgres://u:p@h/d"],
            &["tail", "-n", "0", "--database=sqlite:///a"],
            &["prove", "7", "--database=sqlite:///a"],
            &["prove", &format!("{log}/-1"), "--database=sqlite:///a"],
            &["verify", "--database=sqlite:///a", "--vkey=x"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_is_one_or_one_ago() {
        assert_eq!(when("15m"), Ok(When::Ago(900)));
        assert_eq!(when("2026-11-24T12:00:00Z"), Ok(When::At("2026-11-24T12:00:00Z".parse().expect("a time"))));
        for bad in ["", "m", "-1m", "1.5h", "2026-11-24", "2026-11-24T12:00:00", "99999999999d"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }
}
