//! A Kubernetes control plane of our own: etcd, kube-apiserver and kube-controller-manager as child processes.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cluster::ClusterOptions;
use super::directory::Directory;
use super::error::{Context, Error, Result};
use super::kubeconfig::Kubeconfig;
use super::kubectl::Kubectl;
use super::ports::{free_ports, is_taken};
use super::process::{Guarded, clean_env};
use super::users::Users;

/// The issuer of ServiceAccount tokens, and the audience of the API server itself: what kubeadm sets.
pub const SERVICE_ACCOUNT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How long the control plane may take to come up. It takes three seconds on an idle machine; a build beside it, or
/// another cluster, makes that many more.
const START_LIMIT: Duration = Duration::from_secs(180);

/// The running processes.
#[derive(Debug)]
pub struct ControlPlane {
    /// Runs if a binary for it was found.
    controller_manager: Option<Guarded>,
    /// Talks to etcd alone.
    api_server: Guarded,
    /// Listens on 127.0.0.1 without TLS; it holds nothing but test objects.
    etcd: Guarded,
    /// What it takes to start them again.
    again: Vec<Again>,
}

/// One of the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// kube-controller-manager, which may be missing.
    ControllerManager,
    /// kube-apiserver.
    ApiServer,
    /// etcd.
    Etcd,
}

/// How a component was started, and the process that took its place.
#[derive(Debug)]
struct Again {
    part: Part,
    component: Component,
    root: PathBuf,
    flags: Vec<String>,
    later: Mutex<Option<Guarded>>,
}

impl ControlPlane {
    /// Starts everything in `directory`; returns when the API server is ready and the first controllers have acted.
    pub fn start(directory: &Directory, users: &Users, options: &ClusterOptions) -> Result<(Self, Kubeconfig)> {
        let binaries = Binaries::find(options)?;
        let files = Files::make(directory, users)?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&binaries, &files, users, options) {
                Err(error) if attempt < 3 && is_taken(&error.to_string()) => {
                    eprintln!("a port was taken meanwhile, trying others");
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// etcd, for tests that stop or freeze it.
    pub fn etcd(&self) -> &Guarded {
        &self.etcd
    }

    /// The API server, for tests that stop or freeze it.
    pub fn api_server(&self) -> &Guarded {
        &self.api_server
    }

    /// Sends a signal to a component as it runs now, even if it was [started again](Self::resume).
    pub fn signal(&self, part: Part, signal: &str) -> Result<()> {
        self.current(part, |process| process.signal(signal))
    }

    /// Kills a component. Returns when it is gone.
    pub fn kill(&self, part: Part) -> Result<()> {
        if self.again(part).is_none() {
            return Ok(());
        }
        self.current(part, |process| {
            process.signal("KILL")?;
            process.wait(Duration::from_secs(30)).map(drop)
        })
    }

    /// Starts a component that was killed, on the same port and data.
    pub fn resume(&self, part: Part) -> Result<()> {
        let Some(again) = self.again(part) else { return Ok(()) };
        let started = again.component.spawn(&again.root, again.flags.clone())?;
        *again.later.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        Ok(())
    }

    /// Where etcd keeps its data, which may be copied and exchanged while it does not run.
    pub fn etcd_data(&self) -> PathBuf {
        self.again(Part::Etcd).map(|again| again.root.join("etcd")).unwrap_or_default()
    }

    /// Where etcd answers.
    pub fn etcd_url(&self) -> String {
        let flags = self.again(Part::Etcd).into_iter().flat_map(|again| &again.flags);
        flags.filter_map(|flag| flag.strip_prefix("--listen-client-urls=")).collect()
    }

    fn again(&self, part: Part) -> Option<&Again> {
        self.again.iter().find(|again| again.part == part)
    }

    fn current(&self, part: Part, work: impl FnOnce(&Guarded) -> Result<()>) -> Result<()> {
        let Some(again) = self.again(part) else { return Err(Error::new(format!("there is no {part:?}"))) };
        let later = again.later.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*later, part, &self.controller_manager) {
            (Some(process), _, _) | (None, Part::ControllerManager, Some(process)) => work(process),
            (None, Part::ApiServer, _) => work(&self.api_server),
            (None, Part::Etcd, _) => work(&self.etcd),
            (None, Part::ControllerManager, None) => Ok(()),
        }
    }

    /// Fails if one of the processes has ended.
    pub fn check(&self) -> Result<()> {
        let controller_manager = self.controller_manager.iter();
        for process in [&self.etcd, &self.api_server].into_iter().chain(controller_manager) {
            check(process)?;
        }
        Ok(())
    }

    /// One attempt, with ports that were free a moment ago.
    fn start_once(binaries: &Binaries, files: &Files, users: &Users, options: &ClusterOptions) -> Result<(Self, Kubeconfig)> {
        let [client_port, peer_port, secure_port] = free_ports()?;
        let deadline = Instant::now() + START_LIMIT;

        let again = |part, component: &Component, flags: &[String]| Again {
            part,
            component: component.clone(),
            root: files.root.clone(),
            flags: flags.to_vec(),
            later: Mutex::default(),
        };
        let flags = etcd_flags(files, client_port, peer_port, options);
        let etcd_again = again(Part::Etcd, &binaries.etcd, &flags);
        let etcd = binaries.etcd.spawn(&files.root, flags)?;
        wait_for_listener(&[&etcd], client_port, deadline)?;

        let flags = api_server_flags(files, client_port, secure_port, options);
        let api_server_again = again(Part::ApiServer, &binaries.api_server, &flags);
        let api_server = binaries.api_server.spawn(&files.root, flags)?;
        wait_for_listener(&[&api_server, &etcd], secure_port, deadline)?;
        let kubeconfig = Kubeconfig::local(secure_port, &files.certificate, users.admin_token());
        let admin_file = kubeconfig.write_admin(&files.root, "admin")?;
        let kubectl = Kubectl::new(&admin_file, &files.root);
        // etcd is watched as well: one that lost its port to another etcd lets the API server come up on the other one's data.
        wait_until_answered(&[&api_server, &etcd], &kubectl, &["get", "--raw", "/readyz"], deadline)?;

        let mut parts = vec![api_server_again, etcd_again];
        let controller_manager = match &binaries.controller_manager {
            None => None,
            Some(program) => {
                let flags = controller_manager_flags(files, &admin_file);
                parts.push(again(Part::ControllerManager, program, &flags));
                let process = program.spawn(&files.root, flags)?;
                let first_work = ["get", "--namespace=default", "serviceaccount", "default"];
                wait_until_answered(&[&process, &api_server, &etcd], &kubectl, &first_work, deadline)?;
                Some(process)
            }
        };
        Ok((Self { controller_manager, api_server, etcd, again: parts }, kubeconfig))
    }
}

impl Drop for ControlPlane {
    /// Nothing in it is worth the five seconds an API server takes to end in order when etcd ends beside it.
    fn drop(&mut self) {
        let later = self.again.iter_mut().filter_map(|again| again.later.get_mut().ok()?.as_ref());
        for process in self.controller_manager.iter().chain([&self.api_server, &self.etcd]).chain(later) {
            if process.exited().is_none()
                && let Err(error) = process.signal("KILL")
            {
                eprintln!("{error}"); // it then ends by its watchdog, only later
            }
        }
    }
}

/// A component: the program and, where one program is all components, which one.
#[derive(Debug, Clone)]
struct Component {
    /// Also the name of its log and pid file.
    name: &'static str,
    /// The executable.
    program: PathBuf,
    /// Whether `program` wants `name` as its first argument.
    dispatches: bool,
}

impl Component {
    /// Runs it in the cluster's directory.
    fn spawn(&self, root: &Path, flags: Vec<String>) -> Result<Guarded> {
        let mut args = if self.dispatches { vec![self.name.to_owned()] } else { Vec::new() };
        args.extend(flags);
        Guarded::spawn(root, self.name, &self.program, &args, &clean_env(root))
    }
}

/// Where the components come from.
#[derive(Debug)]
struct Binaries {
    etcd: Component,
    api_server: Component,
    controller_manager: Option<Component>,
}

impl Binaries {
    /// `KUBEBUILDER_ASSETS` if it is set, as with envtest, else our own build.
    fn find(options: &ClusterOptions) -> Result<Self> {
        let mut binaries = match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(folder) => Self::in_folder(Path::new(&folder))?,
            None => Self::built(&build()?),
        };
        if !options.controller_manager {
            binaries.controller_manager = None;
        }
        Ok(binaries)
    }

    /// One executable per component. setup-envtest brings no controller manager.
    fn in_folder(folder: &Path) -> Result<Self> {
        let component = |name| Component { name, program: folder.join(name), dispatches: false };
        let binaries = Self {
            etcd: component("etcd"),
            api_server: component("kube-apiserver"),
            controller_manager: Some(component("kube-controller-manager")).filter(|it| it.program.is_file()),
        };
        for required in [&binaries.etcd, &binaries.api_server] {
            if !required.program.is_file() {
                return Err(Error::new(format!("KUBEBUILDER_ASSETS: there is no {}", required.program.display())));
            }
        }
        if binaries.controller_manager.is_none() {
            eprintln!("KUBEBUILDER_ASSETS has no kube-controller-manager: no garbage collection, no namespace deletion");
        }
        Ok(binaries)
    }

    /// One executable for all of them.
    fn built(program: &Path) -> Self {
        let component = |name| Component { name, program: program.to_owned(), dispatches: true };
        Self {
            etcd: component("etcd"),
            api_server: component("kube-apiserver"),
            controller_manager: Some(component("kube-controller-manager")),
        }
    }
}

/// Builds the control plane, or finds it built, and says where it is. The first time on a machine takes minutes; the
/// script says so on stderr.
fn build() -> Result<PathBuf> {
    let script = super::repository().join("tests/cluster/build.sh");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        return Err(Error::new(format!("{} failed, see above", script.display())));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The files the components are given.
#[derive(Debug)]
struct Files {
    /// Logs, pid files and kubeconfigs.
    root: PathBuf,
    /// etcd's data.
    etcd_data: PathBuf,
    /// The API server puts its self-signed certificate here.
    certificates: PathBuf,
    /// That certificate, which is its own authority.
    certificate: PathBuf,
    /// Signs ServiceAccount tokens.
    service_account_key: PathBuf,
    /// Who may log in with which static token.
    tokens: PathBuf,
}

impl Files {
    /// Makes those that must exist before the start.
    fn make(directory: &Directory, users: &Users) -> Result<Self> {
        let certificates = directory.subdirectory("certificates")?;
        let files = Self {
            root: directory.path().to_owned(),
            etcd_data: directory.path().join("etcd"),
            certificate: certificates.join("apiserver.crt"),
            certificates,
            service_account_key: directory.path().join("service-account.key"),
            tokens: users.write_token_file(directory.path())?,
        };
        let output = Command::new("openssl")
            .arg("genrsa")
            .arg("-out")
            .arg(&files.service_account_key)
            .arg("2048")
            .output()
            .context("cannot run openssl")?;
        if !output.status.success() {
            return Err(Error::new(format!("openssl genrsa: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(files)
    }
}

fn etcd_flags(files: &Files, client_port: u16, peer_port: u16, options: &ClusterOptions) -> Vec<String> {
    let peer = format!("http://127.0.0.1:{peer_port}");
    let client = format!("http://127.0.0.1:{client_port}");
    vec![
        format!("--data-dir={}", files.etcd_data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        format!("--unsafe-no-fsync={}", !options.durable_etcd),
        "--log-level=warn".to_owned(),
    ]
}

fn api_server_flags(files: &Files, etcd_port: u16, secure_port: u16, options: &ClusterOptions) -> Vec<String> {
    let key = files.service_account_key.display();
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={secure_port}"),
        format!("--cert-dir={}", files.certificates.display()),
        format!("--service-account-key-file={key}"), // the public half is read from the private key
        format!("--service-account-signing-key-file={key}"),
        format!("--service-account-issuer={SERVICE_ACCOUNT_ISSUER}"),
        format!("--api-audiences={SERVICE_ACCOUNT_ISSUER}"),
        format!("--token-auth-file={}", files.tokens.display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--allow-privileged=true".to_owned(),
    ];
    let port = secure_port.to_string();
    let given: Vec<String> = options.api_server_flags.iter().map(|flag| flag.replace("{port}", &port)).collect();
    // Out of the way: some flags, --service-account-issuer for one, make a list when they come twice.
    flags.retain(|flag| !given.iter().any(|other| flag_name(other) == flag_name(flag)));
    flags.extend(given);
    flags
}

/// `--flag` of `--flag=value`.
fn flag_name(flag: &str) -> &str {
    flag.split_once('=').map_or(flag, |(name, _)| name)
}

fn controller_manager_flags(files: &Files, kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--service-account-private-key-file={}", files.service_account_key.display()),
        format!("--root-ca-file={}", files.certificate.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(), // serves nothing, so that clusters can stand side by side
    ]
}

/// Fails, with the end of its log, if the process has ended.
fn check(process: &Guarded) -> Result<()> {
    match process.exited() {
        None => Ok(()),
        Some(status) => Err(Error::new(format!("{} ended: {status}\n{}", process.name(), process.log_tail()))),
    }
}

/// Waits until something listens on the port, as long as the processes live.
fn wait_for_listener(processes: &[&Guarded], port: u16, deadline: Instant) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    poll(processes, deadline, || match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        Ok(_) => None,
        Err(error) => Some(format!("{address}: {error}")),
    })
}

/// Waits until the API server answers a request, as long as the processes that have to bring that about live.
fn wait_until_answered(processes: &[&Guarded], kubectl: &Kubectl, arguments: &[&str], deadline: Instant) -> Result<()> {
    poll(processes, deadline, || kubectl.run(arguments).err().map(|failure| failure.to_string()))
}

/// Repeats `attempt` until it has nothing to complain about. `processes` are what it depends on, first the one that is starting.
fn poll(processes: &[&Guarded], deadline: Instant, attempt: impl Fn() -> Option<String>) -> Result<()> {
    let check_all = || processes.iter().try_for_each(|process| check(process));
    while let Some(complaint) = attempt() {
        check_all()?;
        if Instant::now() >= deadline {
            let logs: Vec<String> = processes.iter().map(|process| process.log_tail()).collect();
            return Err(Error::new(format!("not ready after {START_LIMIT:?}: {complaint}\n{}", logs.join("\n"))));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    check_all()
}
