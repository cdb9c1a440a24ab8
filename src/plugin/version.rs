//! `kubectl countersign version`.

use super::check::workload;
use super::failure::Failure;
use super::operator::Installed;
use super::session::{ClusterArgs, Session};
use clap::Args;
use std::io::Write;

/// Ours, which is that of the operator with which it was made.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Flags of `version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// That of this program alone, without asking the cluster.
    #[arg(long)]
    pub client: bool,
}

/// Prints the versions.
pub(super) async fn run(cluster: &ClusterArgs, args: &VersionArgs, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "kubectl-countersign {VERSION}")?;
    if !args.client {
        match operator(cluster).await {
            Ok(text) => writeln!(out, "operator {text}")?,
            // Whoever may not look at it still knows what they have.
            Err(failure) => writeln!(out, "operator unknown: {failure}")?,
        }
    }
    Ok(())
}

async fn operator(cluster: &ClusterArgs) -> Result<String, Failure> {
    let session = Session::open(cluster).await?;
    let installed = Installed::find(&session, None).await?;
    let found = workload::find(&session, &installed).await?;
    found
        .map(|found| format!("{} ({})", found.version, installed.namespace))
        .ok_or_else(|| Failure::Failed("no workload".to_owned()))
}
