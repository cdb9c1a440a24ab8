//! The operator itself, as a process beside the cluster, with exactly the rights its chart gives it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::Cluster;
use super::directory::write_private;
use super::error::{Context, Error, Result};
use super::http;
use super::install::{NAMESPACE, RELEASE};
use super::ports::{free_ports, is_taken};
use super::process::{Guarded, clean_env};

/// How long it may take to become ready in an unoptimised build on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How to start an operator.
#[derive(Debug, Clone)]
pub struct OperatorOptions {
    /// Names its directory within the cluster's: replicas on one cluster need different names, and an operator
    /// started again under the same name finds the audit log of its predecessor.
    pub name: String,
    /// The issuer; `None` for the address this operator listens on. Replicas share one.
    pub issuer: Option<String>,
    /// The URL of its database; `None` for SQLite in its own directory. Operators that run at once on one cluster share one
    /// PostgreSQL database: one with another database waits until nobody is left who serves.
    pub database: Option<String>,
    /// Appended to the flags. `{url}` in them is where it serves.
    pub args: Vec<String>,
    /// Added to an otherwise clean environment.
    pub env: Vec<(String, String)>,
}

impl Default for OperatorOptions {
    /// A single replica that is its own issuer.
    fn default() -> Self {
        Self { name: "operator".to_owned(), issuer: None, database: None, args: Vec::new(), env: Vec::new() }
    }
}

/// A running operator that ends with this value, or with the test process, however that ends.
#[derive(Debug)]
pub struct Operator {
    /// The process.
    process: Guarded,
    /// Everything it writes.
    directory: PathBuf,
    /// What it puts into `iss`.
    issuer: String,
    /// Where it serves HTTPS.
    address: SocketAddr,
    /// Where it serves health and metrics over plain HTTP.
    metrics_address: SocketAddr,
    /// The authority of its serving certificate, in PEM.
    ca_file: PathBuf,
    /// How long it took to become ready.
    ready_after: Duration,
}

impl Operator {
    /// Starts `binary` on a cluster where [the chart is installed](super::install::install_chart); returns when it is
    /// ready.
    pub fn start(cluster: &Cluster, binary: &Path, options: &OperatorOptions) -> Result<Self> {
        Self::start_until(cluster, binary, options, |status| status == 200)
    }

    /// The same, for one that may wait for something: returns when it says whether it is ready.
    pub fn start_waiting(cluster: &Cluster, binary: &Path, options: &OperatorOptions) -> Result<Self> {
        Self::start_until(cluster, binary, options, |_| true)
    }

    /// Returns when `/readyz` answers with such a status.
    fn start_until(cluster: &Cluster, binary: &Path, options: &OperatorOptions, enough: fn(u16) -> bool) -> Result<Self> {
        let directory = cluster.directory().subdirectory(&options.name)?;
        let token = cluster
            .kubectl()
            .run(&["create", "token", RELEASE, "--namespace", NAMESPACE, "--duration=24h"])
            .context("cannot get a token for the operator; is the chart installed?")?;
        let kubeconfig = cluster.kubeconfig_with_token(&options.name, token.trim())?;
        let mut attempt = 1;
        loop {
            match Self::start_once(cluster, binary, options, &directory, &kubeconfig, enough) {
                Err(error) if attempt < 3 && is_taken(&error.to_string()) => {
                    eprintln!("a port was taken meanwhile, trying others");
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// One attempt, with ports that were free a moment ago.
    fn start_once(
        cluster: &Cluster,
        binary: &Path,
        options: &OperatorOptions,
        directory: &Path,
        kubeconfig: &Path,
        enough: fn(u16) -> bool,
    ) -> Result<Self> {
        let [address, metrics_address] = free_ports()?.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let issuer = options.issuer.clone().unwrap_or_else(|| format!("https://{address}"));
        let mut args: Vec<String> = [
            "serve",
            &format!("--issuer={issuer}"),
            &format!("--namespace={NAMESPACE}"),
            &format!("--listen-address={address}"),
            &format!("--metrics-address={metrics_address}"),
            &format!("--secret-name={RELEASE}"),
            &format!("--lease-name={RELEASE}"),
            &format!("--config-map-name={RELEASE}"),
            &format!("--audit-log={}", audit_log(directory).display()),
            // Tests look for the record of each refusal, and many run at once from one address.
            "--audit-refusals-per-second=1000000",
            // The same of limits: those are tested where they are given.
            "--source-refusals-per-second=0",
            "--agent-requests-per-second=0",
            "--resource-server-requests-per-second=0",
            &database(directory, options.database.as_deref())?,
        ]
        .map(str::to_owned)
        .into();
        let url = format!("https://{address}");
        args.extend(options.args.iter().map(|arg| arg.replace("{url}", &url)));
        let mut env = clean_env(directory);
        env.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
        env.push(("RUST_BACKTRACE".to_owned(), "1".to_owned()));
        env.extend(options.env.iter().cloned());

        let begun = Instant::now();
        let process = Guarded::spawn(directory, "operator", binary, &args, &env)?;
        wait_until_answering(&process, metrics_address, enough)?;
        let ready_after = begun.elapsed();
        let ca_file = write_ca(cluster, directory)?;
        let directory = directory.to_owned();
        Ok(Self { process, directory, issuer, address, metrics_address, ca_file, ready_after })
    }

    /// Where it serves: `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What it puts into `iss` and wants as audience of a ServiceAccount token: its URL unless set otherwise.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A file with the authority of its serving certificate, in PEM.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The URL of its metrics.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.metrics_address)
    }

    /// How long after its start it said that it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// GET over plain HTTP from the address of health and metrics: `/readyz`, `/healthz`, `/metrics`.
    pub fn get(&self, path: &str) -> Result<http::Answer> {
        http::get(self.metrics_address, path)
    }

    /// A metric of it that counts: no label, and no fraction.
    pub fn metric(&self, name: &str) -> Result<u64> {
        metric(&self.get("/metrics")?.body, name)
    }

    /// Where its audit records are.
    pub fn audit_log(&self) -> PathBuf {
        audit_log(&self.directory)
    }

    /// Its audit log so far, that of predecessors of the same name included.
    pub fn audit_text(&self) -> Result<String> {
        // A reply may be ahead of the copy of its record. An operator that has ended says nothing, and has written all.
        while let Ok(metrics) = self.get("/metrics") {
            if metric(&metrics.body, "countersign_ledger_uncopied_appends")? == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let path = self.audit_log();
        fs::read_to_string(&path).context(path.display())
    }

    /// The records in it.
    pub fn audit_lines(&self) -> Result<Vec<Value>> {
        let (path, text) = (self.audit_log(), self.audit_text()?);
        let parse = |(number, line)| serde_json::from_str(line).context(format!("{}:{}: {line}", path.display(), number + 1));
        text.lines().enumerate().map(parse).collect()
    }

    /// The process, for its pid, log and end, and to freeze or kill it.
    pub fn process(&self) -> &Guarded {
        &self.process
    }

    /// Ends it in order: SIGTERM, after five seconds SIGKILL. Returns when it is gone.
    pub fn stop(self) {
        self.process.stop();
    }
}

/// The value of the metric `name` in the text of all of them.
fn metric(metrics: &str, name: &str) -> Result<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.ok_or_else(|| Error::new(format!("there is no metric {name}")))?.parse().context(name)
}

/// Where the operator in this directory writes its audit records.
fn audit_log(directory: &Path) -> PathBuf {
    directory.join("audit.jsonl")
}

/// The flag for this database.
fn database(directory: &Path, url: Option<&str>) -> Result<String> {
    let Some(url) = url else {
        return Ok(format!("--database=sqlite://{}", directory.join("countersign.db").display()));
    };
    let file = directory.join("database-url");
    write_private(&file, url)?;
    Ok(format!("--database-file={}", file.display()))
}

/// Waits until `/readyz` answers with such a status.
fn wait_until_answering(process: &Guarded, metrics_address: SocketAddr, enough: fn(u16) -> bool) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let complaint = match http::get(metrics_address, "/readyz") {
            Ok(answer) if enough(answer.status) => return Ok(()),
            Ok(answer) => format!("/readyz answers {}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        if let Some(status) = process.exited() {
            return Err(Error::new(format!("the operator ended: {status}\n{}", process.log_tail())));
        }
        if Instant::now() >= deadline {
            let log = process.log_tail();
            return Err(Error::new(format!("the operator is not ready after {START_LIMIT:?}: {complaint}\n{log}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads the authority of the serving certificate from where the operator publishes it, and writes it to a file.
fn write_ca(cluster: &Cluster, directory: &Path) -> Result<PathBuf> {
    let config_map = cluster.kubectl().get_json(&["get", "configmap", RELEASE, "--namespace", NAMESPACE])?;
    let pem = config_map.pointer("/data/ca.crt").and_then(Value::as_str);
    let pem = pem.ok_or_else(|| Error::new(format!("ConfigMap {NAMESPACE}/{RELEASE} has no key ca.crt")))?;
    let path = directory.join("ca.crt");
    fs::write(&path, pem).context(path.display())?;
    Ok(path)
}
