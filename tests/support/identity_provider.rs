//! The identity provider of an organisation: oidc-provider, which is certified by the OpenID Foundation, over TLS on 127.0.0.1,
//! and people who log in. `tests/clients/organisation.mjs` says who they are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::certificates;
use super::directory::{Directory, write_private};
use super::error::{Context, Error, Result};
use super::process::{Guarded, clean_env, quoted};

/// How long it may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running identity provider that ends with this value, or with the test process, however that ends.
#[derive(Debug)]
pub struct IdentityProvider {
    // Before `directory`: fields are dropped in order, and a process must be gone before its files are.
    process: Guarded,
    directory: Directory,
    url: String,
    ca_pem: String,
}

/// What an application has after somebody logged in.
#[derive(Clone)]
pub struct Tokens {
    /// Who that is (OpenID Connect Core section 2), for the application.
    pub id_token: String,
    /// For the application's server (RFC 9068): with the audience and the claims of the ID token.
    pub access_token: String,
}

impl IdentityProvider {
    /// Starts it; returns when it answers. `make clients` must have run.
    pub fn start() -> Result<Self> {
        Self::start_in(Directory::temporary()?)
    }

    /// The same, with its files in this directory.
    pub fn start_in(directory: Directory) -> Result<Self> {
        certificates::write_files(directory.path())?;
        let ca_pem = read(directory.path(), "ca.crt")?;
        let args = [script("identity-provider.mjs"), directory.path().to_owned()].map(|path| path.display().to_string());
        let env = clean_env(directory.path());
        let process = Guarded::spawn(directory.path(), "identity-provider", Path::new("node"), &args, &env)?;
        let deadline = Instant::now() + START_LIMIT;
        while !directory.path().join("url").exists() {
            if process.exited().is_some() || Instant::now() >= deadline {
                let log = process.log_tail();
                return Err(Error::new(format!(
                    "the identity provider did not start ('make clients' gets its packages):\n{log}"
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let url = read(directory.path(), "url")?;
        Ok(Self { process, directory, url, ca_pem })
    }

    /// Its issuer URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority of its certificate, as a file.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// The authority of its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The process, to be stopped or frozen.
    pub fn process(&self) -> &Guarded {
        &self.process
    }

    /// Writes a command for the shell, `log-in APPLICATION ACCOUNT`, which prints what the application has then as JSON: `id_token` and
    /// `access_token`. It works as long as this value lives.
    pub fn login_command(&self) -> Result<PathBuf> {
        let path = self.directory.path().join("log-in");
        let [ca, script] = [self.ca_file(), script("login.mjs")].map(|path| quoted(&path));
        let text = format!(
            "#!/bin/sh\nexec env NODE_EXTRA_CA_CERTS={ca} ISSUER='{}' CLIENT_ID=\"${{1:?}}\" ACCOUNT=\"${{2:?}}\" node {script}\n",
            self.url
        );
        std::fs::write(&path, text).context(path.display())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).context(path.display())?;
        Ok(path)
    }

    /// Makes an application known, by its metadata (RFC 7591 section 2). `organisation.mjs` has those that are always there.
    pub fn register(&self, application: &Value) -> Result<()> {
        let id = application.get("client_id").and_then(Value::as_str).ok_or_else(|| Error::new("a client_id"))?;
        let directory = self.directory.subdirectory("clients")?;
        write_private(&directory.join(format!("{id}.json")), &application.to_string())
    }

    /// `account` logs in to `application`.
    pub fn log_in(&self, application: &str, account: &str) -> Result<Tokens> {
        self.log_in_at(application, None, account)
    }

    /// The same for an application that was [registered](Self::register), at its redirect URI.
    pub fn log_in_at(&self, application: &str, redirect_uri: Option<&str>, account: &str) -> Result<Tokens> {
        let output = Command::new("node")
            .arg(script("login.mjs"))
            .env_clear()
            .envs(clean_env(self.directory.path()))
            .env("NODE_EXTRA_CA_CERTS", self.ca_file())
            .env("ISSUER", &self.url)
            .env("CLIENT_ID", application)
            .env("ACCOUNT", account)
            .envs(redirect_uri.map(|uri| ("REDIRECT_URI", uri)))
            .stdin(Stdio::null())
            .output()
            .context("cannot run node")?;
        let complaint = || {
            let (words, log) = (String::from_utf8_lossy(&output.stderr), self.process.log_tail());
            Error::new(format!("{account} cannot log in to {application}: {words}\n{log}"))
        };
        let tokens: Value = serde_json::from_slice(&output.stdout).map_err(|_| complaint())?;
        let token = |name| tokens.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(complaint);
        Ok(Tokens { id_token: token("id_token")?, access_token: token("access_token")? })
    }
}

fn script(name: &str) -> PathBuf {
    super::repository().join("tests/clients").join(name)
}

fn read(directory: &Path, name: &str) -> Result<String> {
    std::fs::read_to_string(directory.join(name)).context(name)
}
