//! `kubectl countersign can`: as `countersign can`, with the flags of kubectl.

use super::failure::Failure;
use super::session::Session;
use crate::cli::can::Question;
use crate::cli::objects::Objects;
use crate::time::Clock;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Flags of `can`.
#[derive(Debug, Args)]
pub struct CanCommand {
    /// The Agent that acts: its name, or namespace/name.
    pub agent: String,
    /// What it would do.
    #[command(flatten)]
    pub question: Question,
    /// The agents through which it was called, first the one that began. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub via: Vec<String>,
    /// Take the objects in these files, and in the folders below, instead of the cluster's. May be given several times.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub files: Vec<PathBuf>,
}

/// Answers. The status is 0 for yes and 1 for no.
pub(super) async fn run(session: &Session, command: &CanCommand, clock: Clock, out: &mut dyn Write) -> Result<u8, Failure> {
    let agent = session.agent(&command.agent)?;
    let via = command.via.iter().map(|agent| session.agent(agent)).collect::<Result<Vec<_>, _>>()?;
    let objects = async {
        if command.files.is_empty() { Objects::of_cluster(&session.client).await } else { Objects::of_files(&command.files) }
    };
    let answered = command.question.answer(&agent, &via, objects, clock.seconds()).await;
    let (text, status) = answered.map_err(|error| Failure::failed(error.to_string()))?;
    for line in text.lines() {
        // What is JSON stays JSON.
        let line = super::screen::harmless(line);
        writeln!(out, "{line}")?;
    }
    Ok(status)
}
