//! What the tests of the sidecar share: one that runs beside an agent of the tests, as a process, with a real token in a file.

use crate::support::directory::write_private;
use crate::support::ports::{free_ports, is_taken};
use crate::support::process::{Guarded, clean_env};
use crate::world::{PATIENCE, Reply, Tenant, World, binary, wait_until};
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A sidecar. It ends with this value.
pub struct Sidecar {
    process: Guarded,
    pub address: SocketAddr,
    /// Where the agent's credential is.
    pub token_file: PathBuf,
    pub ca_file: PathBuf,
    http: Client,
    directory: tempfile::TempDir,
}

impl Sidecar {
    /// Beside an agent, once it is ready.
    pub fn beside(tenant: &Tenant<'_>, args: &[&str]) -> Self {
        let sidecar = Self::start(tenant.world, &tenant.token, args);
        sidecar.wait_until_ready();
        sidecar
    }

    /// With this credential, ready or not.
    pub fn start(world: &World, credential: &str, args: &[&str]) -> Self {
        Self::start_at(&world.operator.url(), &std::fs::read_to_string(world.operator.ca_file()).expect("a CA"), credential, args)
    }

    /// One of a token service at `url`, whose authority is this.
    pub fn start_at(url: &str, ca: &str, credential: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (token_file, ca_file) = (directory.path().join("token"), directory.path().join("ca.crt"));
        write_private(&token_file, credential).expect("written");
        std::fs::write(&ca_file, ca).expect("written");
        // Free a moment ago: if somebody has taken it meanwhile, the process ends and another is tried.
        let [port] = free_ports().expect("a port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut all = vec![
            "sidecar".to_owned(),
            format!("--url={url}"),
            format!("--ca-file={}", ca_file.display()),
            format!("--token-file={}", token_file.display()),
            format!("--listen-address={address}"),
        ];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let process = Guarded::spawn(directory.path(), "sidecar", binary(), &all, &clean_env(directory.path()));
        let process = process.expect("a process");
        let http = Client::builder().no_proxy().timeout(PATIENCE * 2).build().expect("a client");
        let sidecar = Self { process, address, token_file, ca_file, http, directory };
        wait_until("the sidecar listens or has ended", PATIENCE, || {
            sidecar.process.exited().is_some() || sidecar.get("/healthz").send().is_ok()
        });
        if sidecar.process.exited().is_some() {
            assert!(is_taken(&sidecar.log()), "{}", sidecar.process.log_tail());
            return Self::start_at(url, ca, credential, args);
        }
        sidecar
    }

    pub fn wait_until_ready(&self) {
        wait_until(&format!("the sidecar is ready: {}", self.log()), PATIENCE, || {
            self.get("/readyz").send().is_ok_and(|r| r.status() == 200)
        });
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// GET with the header that every request needs.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.url(path)).header("countersign-sidecar", "true")
    }

    /// POST, likewise.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.url(path)).header("countersign-sidecar", "true")
    }

    /// The answer to a GET.
    pub fn ask(&self, path: &str) -> Reply {
        self.get(path).send().expect("an answer").into()
    }

    /// The answer to a form.
    pub fn send(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        self.post(path).form(form).send().expect("an answer").into()
    }

    /// The answer to JSON.
    pub fn question(&self, path: &str, body: &Value) -> Reply {
        self.post(path).json(body).send().expect("an answer").into()
    }

    /// The usual token.
    #[track_caller]
    pub fn token(&self) -> String {
        self.ask("/token").expect(200).text("access_token")
    }

    pub fn process(&self) -> &Guarded {
        &self.process
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its directory, for more files.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Replaces the credential as the kubelet does: another file, at once.
    pub fn replace_credential(&self, credential: &str) {
        let new = self.token_file.with_extension("new");
        write_private(&new, credential).expect("written");
        std::fs::rename(new, &self.token_file).expect("renamed");
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// What it answers to these bytes, as they are.
    pub fn raw(&self, request: &str) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}
