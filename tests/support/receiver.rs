//! A receiver of notifications (`tests/clients/webhook-receiver.mjs`), over TLS on 127.0.0.1: it verifies with the official library, and by
//! its paths it answers, hangs, lies and redirects.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::certificates;
use super::directory::Directory;
use super::error::{Context, Error, Result};
use super::process::{Guarded, clean_env};

/// How long it may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running receiver that ends with this value, or with the test process, however that ends.
#[derive(Debug)]
pub struct Receiver {
    // Before `directory`: fields are dropped in order, and a process must be gone before its files are.
    process: Guarded,
    directory: Directory,
    url: String,
}

impl Receiver {
    /// Starts it; returns when it answers. `make clients` must have run.
    pub fn start() -> Result<Self> {
        let directory = Directory::temporary()?;
        certificates::write_files(directory.path())?;
        let script = super::repository().join("tests/clients/webhook-receiver.mjs");
        let args = [script.display().to_string(), directory.path().display().to_string()];
        let process = Guarded::spawn(directory.path(), "receiver", Path::new("node"), &args, &clean_env(directory.path()))?;
        let deadline = Instant::now() + START_LIMIT;
        while !directory.path().join("url").exists() {
            if process.exited().is_some() || Instant::now() >= deadline {
                let log = process.log_tail();
                return Err(Error::new(format!("the receiver did not start ('make clients' gets its packages):\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let url = std::fs::read_to_string(directory.path().join("url")).context("url")?;
        Ok(Self { process, directory, url })
    }

    /// The entry of a webhook in the configuration of notifications: whatever is posted to `path` is signed with both keys.
    pub fn webhook(&self, name: &str, path: &str) -> Value {
        serde_json::json!({
            "name": name,
            "webhook": {"url": format!("{}/{path}", self.url), "secrets": ["hmac", "ed25519"]},
            "certificateAuthority": self.ca(),
            "allowedNetworks": ["127.0.0.0/8"],
        })
    }

    /// The entry of what stands in for Slack.
    pub fn slack(&self, name: &str) -> Value {
        serde_json::json!({
            "name": name,
            "slack": {"api": format!("{}/slack", self.url), "channel": "C0123", "token": "slack"},
            "certificateAuthority": self.ca(),
            "allowedNetworks": ["127.0.0.0/8"],
        })
    }

    /// Writes a configuration, JSON being YAML, and returns the flags of an operator that reads it.
    pub fn configure(&self, config: &Value) -> Result<Vec<String>> {
        let file = self.directory.path().join("notifications.yaml");
        let new = self.directory.path().join("notifications.new");
        std::fs::write(&new, config.to_string()).context(new.display())?;
        // As a kubelet does it: at once.
        std::fs::rename(&new, &file).context(file.display())?;
        Ok(vec![
            format!("--notifications-file={}", file.display()),
            format!("--notification-secrets-dir={}", self.secrets().display()),
        ])
    }

    /// The directory of the secrets.
    pub fn secrets(&self) -> PathBuf {
        self.directory.path().join("secrets")
    }

    fn ca(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("ca.crt")).unwrap_or_default()
    }

    /// The process, to be stopped or frozen.
    pub fn process(&self) -> &Guarded {
        &self.process
    }

    /// What it has received so far: `at` in milliseconds since the epoch, `path`, `id`, `body`, and `wrong` if anything was.
    pub fn received(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.directory.path().join("received.jsonl")).unwrap_or_default();
        // The last line may be on its way.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).context(line)).collect()
    }
}
