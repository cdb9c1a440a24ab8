//! `kubectl` as one user: what users of the operator type.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::{self, Api};
use super::direct;
use super::error::{Context, Error, Result};
use super::process::clean_env;

/// `kubectl` with one kubeconfig and nothing of the configuration of the person who runs the tests.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// Says which cluster and which user.
    kubeconfig: PathBuf,
    /// `HOME` and the discovery cache go here.
    scratch: PathBuf,
    /// `--as` and `--as-group`, empty for the kubeconfig's own user.
    impersonation: Vec<String>,
    /// Run kubectl itself, whatever it is asked.
    itself: bool,
}

/// A `kubectl` that did not exit with 0.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The arguments, for the message. No credential is ever among them.
    pub arguments: String,
    /// What it printed before it failed.
    pub stdout: String,
    /// The refusal in the API server's words, without kubectl's warning about its own version.
    pub stderr: String,
    /// The exit code; `None` when it could not be run or was killed.
    pub code: Option<i32>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubectl {}: ", self.arguments)?;
        match self.code {
            Some(code) => write!(f, "exit code {code}: {}", self.stderr.trim_end()),
            None => f.write_str(self.stderr.trim_end()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.to_string())
    }
}

impl Kubectl {
    /// For the user of `kubeconfig`; `scratch` is a directory for kubectl's own files.
    pub fn new(kubeconfig: &Path, scratch: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), scratch: scratch.to_owned(), impersonation: Vec::new(), itself: false }
    }

    /// The same, impersonating `user` in exactly `groups`. The kubeconfig's user must be allowed to.
    ///
    /// The API server adds `system:authenticated` by itself.
    #[must_use]
    pub fn impersonating(&self, user: &str, groups: &[&str]) -> Self {
        let mut impersonation = vec![format!("--as={user}")];
        impersonation.extend(groups.iter().map(|group| format!("--as-group={group}")));
        Self { impersonation, ..self.clone() }
    }

    /// The same, impersonating with this uid.
    #[must_use]
    pub fn with_uid(&self, uid: &str) -> Self {
        let mut impersonation = self.impersonation.clone();
        impersonation.push(format!("--as-uid={uid}"));
        Self { impersonation, ..self.clone() }
    }

    /// The same, but never without running kubectl: for what a test says of kubectl itself.
    #[must_use]
    pub fn itself(&self) -> Self {
        Self { itself: true, ..self.clone() }
    }

    /// The file that says which cluster and which user.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs it and returns what it prints on stdout.
    pub fn run(&self, arguments: &[&str]) -> std::result::Result<String, Failure> {
        self.run_with_input(arguments, "")
    }

    /// Runs it with something on stdin. A credential goes this way, never on the command line. The commonest commands are carried out
    /// without it.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> std::result::Result<String, Failure> {
        if !self.itself
            && let Some(api) = Api::of(&self.kubeconfig)
            && let Some(done) = direct::run(&api, &self.headers(), arguments, input)
        {
            return done;
        }
        let failed = |stderr: String| Failure { arguments: arguments.join(" "), stdout: String::new(), stderr, code: None };
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.scratch.join("kubectl-cache"))
            .args(&self.impersonation)
            .args(arguments)
            .env_clear()
            .envs(clean_env(&self.scratch))
            .env("KUBECTL_KUBERC", "false")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot run kubectl: {error}")))?;
        // In a thread: a kubectl that prints more than a pipe holds before it has read everything would block us both.
        let stdin = child.stdin.take();
        let bytes = input.as_bytes().to_vec();
        let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&bytes)));
        let output = child.wait_with_output().map_err(|error| failed(format!("cannot wait for kubectl: {error}")))?;
        // That kubectl did not read everything is its own matter; its exit code tells whether it minded.
        drop(writer.join());
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        Err(Failure {
            arguments: arguments.join(" "),
            stdout,
            stderr: without_version_warning(&String::from_utf8_lossy(&output.stderr)),
            code: output.status.code(),
        })
    }

    /// Applies a manifest.
    pub fn apply(&self, yaml: &str) -> std::result::Result<String, Failure> {
        self.run_with_input(&["apply", "-f", "-"], yaml)
    }

    /// How the API server is told whom to impersonate.
    fn headers(&self) -> Vec<(&'static str, &str)> {
        const FLAGS: [(&str, &str); 3] =
            [("--as=", "impersonate-user"), ("--as-group=", "impersonate-group"), ("--as-uid=", "impersonate-uid")];
        let mut headers = Vec::new();
        for flag in &self.impersonation {
            headers.extend(FLAGS.iter().filter_map(|(name, header)| Some((*header, flag.strip_prefix(name)?))));
        }
        headers
    }

    /// The API server without kubectl, if there is a way.
    pub fn api(&self) -> Option<Arc<Api>> {
        if self.impersonation.is_empty() && !self.itself { Api::of(&self.kubeconfig) } else { None }
    }

    /// Runs it with `-o json` and parses the answer.
    pub fn get_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut with_format = arguments.to_vec();
        with_format.extend(["-o", "json"]);
        let text = self.run(&with_format)?;
        serde_json::from_str(&text).context(format!("kubectl {} printed no JSON", arguments.join(" ")))
    }

    /// Waits until `kubectl wait --for=<what>` holds for `object` (`agent/x`), which may not exist yet.
    pub fn wait_for(&self, namespace: &str, object: &str, what: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let path = object.split_once('/').and_then(|(kind, name)| direct::path(kind, namespace, name));
        if let (Some(path), Some(api), Some(_)) = (path, self.api(), api::holds(&Value::Null, what)) {
            while Instant::now() < deadline {
                if api.get(&path).is_some_and(|object| api::holds(&object, what) == Some(true)) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs().max(1);
            let arguments = [
                "wait".to_owned(),
                format!("--namespace={namespace}"),
                format!("--for={what}"),
                format!("--timeout={left}s"),
                object.to_owned(),
            ];
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let Err(failure) = self.run(&arguments) else {
                return Ok(());
            };
            // kubectl waits for a condition, but gives up at once on an object that does not exist.
            if !failure.stderr.contains("(NotFound)") || Instant::now() >= deadline {
                return Err(failure.into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// kubectl tolerates a newer API server and only complains; the complaint would stand before every refusal.
fn without_version_warning(stderr: &str) -> String {
    stderr
        .lines()
        .filter(|line| !line.starts_with("WARNING: version difference between client"))
        .map(|line| format!("{line}\n"))
        .collect()
}
