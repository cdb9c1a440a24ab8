//! `dev run`: a control plane with the chart installed, the operator and an identity provider beside it, for `make up` and `make demo`.
//!
//! Runs in the foreground until it is killed; whatever kills it, everything it started ends with it. Once all is ready
//! it writes `<dir>/env`, shell lines that say how to reach it.
#![expect(clippy::print_stderr, reason = "a command line tool speaks on stderr")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[path = "../support/mod.rs"]
mod support;

use support::cluster::{Cluster, ClusterOptions};
use support::directory::Directory;
use support::error::{Context, Error, Result};
use support::identity_provider::IdentityProvider;
use support::install::install_chart;
use support::operator::{Operator, OperatorOptions};
use support::process::quoted;

/// What the command line asks for.
const USAGE: &str = "usage: dev run --dir DIRECTORY --binary COUNTERSIGN";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["run", "--dir", directory, "--binary", binary] => run(Path::new(directory), Path::new(binary)),
        _ => Err(Error::new(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts everything and stays until something ends that should not.
fn run(directory: &Path, binary: &Path) -> Result<()> {
    let binary = binary.canonicalize().context(binary.display())?;
    let state = directory.join("cluster");
    // Always from nothing: users' tokens and the signing key of the last run are gone anyway.
    if state.exists() {
        fs::remove_dir_all(&state).context(state.display())?;
    }
    eprintln!("dev: starting Kubernetes");
    let cluster = Cluster::start(&ClusterOptions { directory: Some(state), ..ClusterOptions::default() })?;
    eprintln!("dev: installing the chart");
    install_chart(&cluster, 3, &[])?;
    eprintln!("dev: starting the operator");
    let operator = Operator::start(&cluster, &binary, &OperatorOptions::default())?;
    eprintln!("dev: starting the identity provider");
    let provider = IdentityProvider::start_in(Directory::kept(&cluster.directory().subdirectory("identity-provider")?)?)?;
    write_env(&directory.join("env"), &cluster, &operator, &provider, &binary)?;
    eprintln!("dev: ready at {}", operator.url());
    loop {
        std::thread::sleep(Duration::from_millis(500));
        cluster.check()?;
        for (what, process) in [("operator", operator.process()), ("identity provider", provider.process())] {
            if let Some(status) = process.exited() {
                return Err(Error::new(format!("the {what} ended: {status}\n{}", process.log_tail())));
            }
        }
    }
}

/// Writes the file whole or not at all: its existence is the sign that everything is ready.
fn write_env(path: &Path, cluster: &Cluster, operator: &Operator, provider: &IdentityProvider, binary: &Path) -> Result<()> {
    let lines: [(&str, PathBuf); 10] = [
        ("KUBECONFIG", cluster.kubeconfig().to_owned()),
        ("ALICE_KUBECONFIG", cluster.kubeconfig_for("alice")?),
        ("BOB_KUBECONFIG", cluster.kubeconfig_for("bob")?),
        ("COUNTERSIGN_URL", operator.url().into()),
        ("COUNTERSIGN_CA", operator.ca_file().to_owned()),
        ("COUNTERSIGN_AUDIT", operator.audit_log()),
        ("COUNTERSIGN", binary.to_owned()),
        ("IDENTITY_PROVIDER_URL", provider.url().into()),
        ("IDENTITY_PROVIDER_CA", provider.ca_file()),
        ("IDENTITY_PROVIDER_LOGIN", provider.login_command()?),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
    // So that kubectl finds kubectl-countersign, which is built beside the operator.
    let folder = binary.parent().unwrap_or(binary);
    text.push_str(&format!("export PATH={}:\"$PATH\"\n", quoted(folder)));
    let part = path.with_extension("part");
    fs::write(&part, text).and_then(|()| fs::rename(&part, path)).context(path.display())
}
