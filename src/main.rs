//! The `countersign` binary: reads the command line and calls the library.

use clap::Parser as _;
use countersign::config::{Cli, Command, PolicyKind, ServeArgs};
use countersign::{admission, crd, operator, yaml};
use std::io::Write as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Crds { resource } => crds(resource.as_deref()).and_then(|text| print(&text)),
        Command::Admission { kind: PolicyKind::Validating } => {
            admission::validating_yaml().map_err(|e| e.to_string()).and_then(|text| print(&text))
        }
        Command::Admission { kind: PolicyKind::Mutating } => print(&admission::mutating_yaml()),
        Command::Serve(args) => serve(*args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(std::io::stderr(), "countersign: {error}");
            ExitCode::FAILURE
        }
    }
}

fn crds(resource: Option<&str>) -> Result<String, String> {
    let wanted = crd::all().into_iter().filter(|crd| resource.is_none_or(|resource| crd.spec.names.plural == resource));
    let documents = wanted.map(serde_json::to_value).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    match resource {
        Some(resource) if documents.is_empty() => Err(format!("there is no resource {resource}")),
        _ => Ok(yaml::documents(&documents)),
    }
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())
}

fn serve(args: ServeArgs) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log_level).map_err(|e| format!("--log-level: {e}"))?;
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    // One provider for every TLS connection of the process; a second call would be a bug.
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "a crypto provider was installed before")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            tracing::info!("told to stop");
            stop.send_replace(true);
        });
        operator::serve(args, stopped).await.map_err(|e| e.to_string())
    })
}
