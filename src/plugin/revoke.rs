//! `kubectl countersign revoke`: as `countersign revoke`, with the flags of kubectl.

use super::failure::Failure;
use super::session::Session;
use crate::cli::revoke::{self, RevokeArgs, RevokeError, What};
use crate::readable::Readable;
use clap::Args;
use std::io::Write;

/// Flags of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeCommand {
    /// The Agent whose tokens end: its name, or namespace/name.
    #[arg(long, required_unless_present = "issuer", conflicts_with = "issuer", value_name = "NAME")]
    pub agent: Option<String>,
    /// The TrustedIssuer that vouches for the users.
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
    /// What of it.
    #[command(flatten)]
    pub what: What,
    /// Why, for the audit record.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Gives the instruction, and waits until it has been carried out.
pub(super) async fn run(session: &Session, command: RevokeCommand, out: &mut dyn Write) -> Result<(), Failure> {
    let agent = command.agent.as_deref().map(|agent| session.agent(agent)).transpose()?;
    let args = RevokeArgs { agent, issuer: command.issuer, what: command.what, reason: command.reason };
    let done = revoke::run(&session.client, &args).await.map_err(|error| match error {
        RevokeError::Waiting => Failure::Pending(error.to_string()),
        RevokeError::Forbidden(_) => Failure::Refused(Readable(&error.to_string()).to_string()),
        RevokeError::Refused(_) | RevokeError::NotFound(_) => Failure::failed(error.to_string()),
    })?;
    for line in done.lines() {
        writeln!(out, "{}", Readable(line))?;
    }
    Ok(())
}
