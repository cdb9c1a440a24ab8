//! `kubectl countersign ui`: a way to the portal, as long as it runs.

use super::failure::Failure;
use super::operator::{Installed, Way};
use super::session::Session;
use clap::Args;
use std::io::Write;
use std::process::Stdio;
use tokio::process::Command;

/// Flags of `ui`.
#[derive(Debug, Args)]
pub struct UiArgs {
    /// Print the address, and open no browser.
    #[arg(long)]
    pub no_open: bool,
    /// The namespace of the operator. By default it is looked for.
    #[arg(long, value_name = "NAME")]
    pub operator_namespace: Option<String>,
}

/// Opens the way, says where it is, and stays until it ends.
pub(super) async fn run(session: &Session, args: &UiArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let installed = Installed::find(session, args.operator_namespace.as_deref()).await?;
    let mut way = Way::open(&installed, &session.args).await?;
    let url = format!("https://{}/portal", way.at);
    writeln!(out, "{url}\nas long as this runs; Ctrl-C ends it")?;
    out.flush()?;
    if !args.no_open && !open(&url) {
        writeln!(out, "no browser could be opened: open the address yourself")?;
        out.flush()?;
    }
    let ended = way.kubectl.wait().await.map_or_else(|error| error.to_string(), |ended| ended.to_string());
    Err(Failure::failed(format!("kubectl port-forward ended: {ended}")))
}

/// Has the desktop open an address.
fn open(url: &str) -> bool {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(opener);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok()
}
