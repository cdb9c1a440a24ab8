//! `kubectl countersign check`: is the installation whole, and what is to be done where it is not?

mod objects;
mod policies;
mod resources;
mod rights;
pub(super) mod workload;

use super::failure::{DONE, Failure, NO, UNKNOWN};
use super::operator::Installed;
use super::screen::{self, wrap};
use super::session::Session;
use crate::readable::Readable;
use clap::Args;
use std::io::Write;

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The namespace of the operator. By default it is looked for.
    #[arg(long, value_name = "NAME")]
    pub operator_namespace: Option<String>,
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    mark: Mark,
    text: String,
    /// What to do about it.
    fix: Option<String>,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// As it should.
    Good,
    /// Somebody should look at it; the installation is whole.
    Notice,
    /// Nobody can tell.
    Unknown,
    /// Not as it should.
    Bad,
}

impl Finding {
    fn good(text: impl Into<String>) -> Self {
        Self { mark: Mark::Good, text: text.into(), fix: None }
    }

    fn notice(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Notice, text: text.into(), fix: Some(fix.into()) }
    }

    fn bad(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, text: text.into(), fix: Some(fix.into()) }
    }

    /// What could not be looked at.
    fn unknown(what: &str, failure: &Failure) -> Self {
        let fix = match failure {
            Failure::Refused(_) => "ask somebody with more rights to check, or for the right to look at it",
            _ => "see whether kubectl reaches the cluster",
        };
        Self { mark: Mark::Unknown, text: format!("{what}: cannot be looked at: {failure}"), fix: Some(fix.to_owned()) }
    }

    fn print(&self, width: usize, out: &mut dyn Write) -> Result<(), Failure> {
        let mark = match self.mark {
            Mark::Good => "✓",
            Mark::Notice | Mark::Unknown => "!",
            Mark::Bad => "✗",
        };
        for (at, line) in wrap(&self.text, width.saturating_sub(2)).iter().enumerate() {
            writeln!(out, "{} {line}", if at == 0 { mark } else { " " })?;
        }
        for (at, line) in self.fix.iter().flat_map(|fix| wrap(fix, width.saturating_sub(6))).enumerate() {
            writeln!(out, "  {} {line}", if at == 0 { "->" } else { "  " })?;
        }
        Ok(())
    }
}

/// Looks at everything. The status is 0 if the installation is whole, 1 if not, 2 if nobody can tell.
pub(super) async fn run(session: &Session, args: &CheckArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let mut report = Report { width: screen::width(), worst: Mark::Good, out };
    report.section("Kubernetes", vec![resources::server(session).await])?;
    report.section("Definitions", resources::look(session).await)?;
    report.section("Admission policies", policies::look(session).await)?;
    match Installed::find(session, args.operator_namespace.as_deref()).await {
        Ok(installed) => report.section("Operator", workload::look(session, &installed).await)?,
        Err(failure @ Failure::Refused(_)) => report.section("Operator", vec![Finding::unknown("the operator", &failure)])?,
        Err(failure) => report.section("Operator", vec![Finding::bad(failure.to_string(), "helm install countersign")])?,
    }
    report.section("Objects", objects::look(session).await)?;
    report.section("You", rights::look(session).await)?;
    Ok(match report.worst {
        Mark::Good | Mark::Notice => DONE,
        Mark::Bad => NO,
        Mark::Unknown => UNKNOWN,
    })
}

struct Report<'a> {
    width: usize,
    worst: Mark,
    out: &'a mut dyn Write,
}

impl Report<'_> {
    fn section(&mut self, name: &str, findings: Vec<Finding>) -> Result<(), Failure> {
        writeln!(self.out, "{name}")?;
        for finding in findings {
            finding.print(self.width, self.out)?;
            // What is broken is broken, whatever else nobody can tell.
            let rank = |mark| match mark {
                Mark::Good => 0,
                Mark::Notice => 1,
                Mark::Unknown => 2,
                Mark::Bad => 3,
            };
            if rank(finding.mark) > rank(self.worst) {
                self.worst = finding.mark;
            }
        }
        writeln!(self.out)?;
        Ok(self.out.flush()?)
    }
}

/// A text of somebody else.
fn said(text: &str) -> String {
    Readable(text).to_string()
}
