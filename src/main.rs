//! The `countersign` binary: reads the command line and calls the library.

use clap::Parser as _;
use countersign::cli::audit::AuditArgs;
use countersign::cli::revoke::RevokeArgs;
use countersign::cli::sidecar::SidecarArgs;
use countersign::cli::{assertion, audit, can, keygen, reach, reference, self_test};
use countersign::config::{Cli, Command, PolicyKind, ReferencePage, RotateArgs, ServeArgs};
use countersign::controller::credentials::{self, Mode};
use countersign::snapshot::Snapshot;
use countersign::time::Clock;
use countersign::{admission, cluster, crd, error_chain, operator, sidecar, yaml};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::disable_transparent_huge_pages;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Every request makes and drops hundreds of small things, on several threads at once; the allocator of a C library is slow at that, and
/// that of a static build slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Audit(args) => return ask(&args),
        Command::Can(args) => {
            return answer(async { can::run(&args, Clock::system().seconds()).await.map_err(|e| e.to_string()) });
        }
        Command::Reach(args) => return answer(async { reach::run(&args).await.map_err(|e| e.to_string()) }),
        Command::SelfTest(args) => return answer(async { self_test::run(&args).await }),
        Command::Crds { resource } => crds(resource.as_deref()).and_then(|text| print(&text)),
        Command::Admission { kind: PolicyKind::Validating } => {
            admission::validating_yaml().map_err(|e| e.to_string()).and_then(|text| print(&text))
        }
        Command::Admission { kind: PolicyKind::Mutating } => print(&admission::mutating_yaml()),
        Command::Admission { kind: PolicyKind::Inject } => print(&admission::inject_yaml()),
        Command::Admission { kind: PolicyKind::Injected } => print(&admission::injected_yaml()),
        Command::Reference { page: ReferencePage::Crds } => {
            reference::resources().map_err(|e| e.to_string()).and_then(|text| print(&text))
        }
        Command::Reference { page: ReferencePage::Openapi } => {
            reference::registration().map_err(|e| e.to_string()).and_then(|text| print(&text))
        }
        Command::Keygen(args) => {
            let now = Clock::system().now().as_second();
            keygen::run(&args, now, &mut std::io::stdout(), &mut std::io::stderr()).map_err(|e| e.to_string())
        }
        Command::Assert(args) => assertion::run(&args, Clock::system().seconds())
            .map_err(|e| e.to_string())
            .and_then(|token| print(&format!("{token}\n"))),
        Command::Serve(args) => serve(*args),
        Command::Sidecar(args) => run_sidecar(*args),
        Command::SidecarReady(args) => sidecar::probe(args.listen_address),
        Command::SidecarSnippet(args) => args.print().map_err(|e| e.to_string()).and_then(|text| print(&text)),
        Command::Revoke(args) => revoke(&args).and_then(|text| print(&text)),
        Command::RotateSigningKeys(args) => rotate(&args).and_then(|text| print(&text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(std::io::stderr(), "countersign: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the ledger. The status says what came of it: 0, 1 for no, 2 if nobody can tell.
fn ask(args: &AuditArgs) -> ExitCode {
    let asked = runtime().map(|runtime| runtime.block_on(audit::run(args, Clock::system(), &mut std::io::stdout())));
    match asked {
        Ok(Ok(status)) => ExitCode::from(status),
        Ok(Err(error)) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error.to_string()),
        Err(error) => fail(&error),
    }
}

/// Prints an answer and ends with its status; 2 if there is none.
fn answer(asked: impl Future<Output = Result<(String, u8), String>>) -> ExitCode {
    let answered = runtime().and_then(|runtime| runtime.block_on(asked));
    match answered.and_then(|(text, status)| print(&text).map(|()| status)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    _ = writeln!(std::io::stderr(), "countersign: {error}");
    ExitCode::from(2)
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

/// The one provider for every TLS connection of the process.
fn install_provider() -> Result<(), String> {
    // A second call would be a bug.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a crypto provider was installed before".to_owned())
}

fn runtime() -> Result<Runtime, String> {
    install_provider()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())
}

fn rotate(args: &RotateArgs) -> Result<String, String> {
    let mode = if args.keep_old { Mode::Begin(args.signing_key_publish_ahead) } else { Mode::Replace };
    runtime()?.block_on(async {
        let config = kube::Config::infer().await.map_err(|e| error_chain(&e))?;
        let (snapshot, clock) = (Snapshot::new(&[], Duration::ZERO), Clock::system());
        let client = cluster::client(config, &snapshot, clock).map_err(|e| error_chain(&e))?;
        // By the clock of the API server: that of an administrator's machine may be anything.
        let now = || snapshot.freshness.corrected(clock.seconds());
        let rotated = credentials::rotate(&client, &args.namespace, &args.secret_name, mode, now).await;
        rotated.map(|rotated| rotated.to_string()).map_err(|e| e.to_string())
    })
}

fn revoke(args: &RevokeArgs) -> Result<String, String> {
    runtime()?.block_on(async {
        let config = kube::Config::infer().await.map_err(|e| error_chain(&e))?;
        let client = kube::Client::try_from(config).map_err(|e| error_chain(&e))?;
        countersign::cli::revoke::run(&client, args).await.map_err(|e| e.to_string())
    })
}

fn serve(args: ServeArgs) -> Result<(), String> {
    log_to_stderr(&args.log_level)?;
    leave_no_core()?;
    use_small_pages();
    runtime()?.block_on(async { operator::serve(args, told_to_stop()?).await.map_err(|e| e.to_string()) })
}

/// Keys and credentials are in memory, and a process that crashes must not leave them in a file.
fn leave_no_core() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| format!("core dumps cannot be switched off: {error}"))
}

/// The allocator asks for pages of 2 MiB, of which what is alive here fills a part.
fn use_small_pages() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages cannot be switched off: more memory is taken than is needed");
    }
}

/// One thread is enough for it, and the stacks of more would be most of its memory.
fn run_sidecar(args: SidecarArgs) -> Result<(), String> {
    log_to_stderr(&args.log_level)?;
    leave_no_core()?;
    use_small_pages();
    install_provider()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async { sidecar::serve(args, told_to_stop()?).await.map_err(|e| e.to_string()) })
}

fn log_to_stderr(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|e| format!("--log-level: {e}"))?;
    // What cannot be logged is not worth the process: to say so on the same standard error would be a panic.
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false).init();
    Ok(())
}

/// Says true once the process is told to stop.
fn told_to_stop() -> Result<watch::Receiver<bool>, String> {
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
    Ok(stopped)
}
