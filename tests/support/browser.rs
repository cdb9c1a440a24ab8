//! A scenario of `tests/portal`: a script that drives Chromium, and that the test answers at each step.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Map, Value, json};

use super::error::{Context, Error, Result};
use super::repository;

/// A running scenario. It ends with this value, and the browser with it.
#[derive(Debug)]
pub struct Scenario {
    process: Child,
    /// Open as long as it is to go on: it ends when this closes, even when this process is killed.
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What the browser writes, and what the script complains of.
    directory: tempfile::TempDir,
    name: String,
}

impl Scenario {
    /// Starts the scenario of this name in the script. The browser trusts these authorities for servers. The settings go to it on
    /// standard input, so that there may be tokens in them.
    pub fn start(script: &str, name: &str, authorities: &[&Path], settings: &Value) -> Result<Self> {
        let directory = tempfile::tempdir().context("a directory")?;
        let complaints = File::create(directory.path().join("complaints")).context("a file")?;
        let mut process = Command::new("node")
            .arg(repository().join("tests/portal").join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .context("cannot run node")?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(Error::new("node has no pipes")) };
        let mut all: Map<String, Value> = settings.as_object().cloned().unwrap_or_default();
        all.extend([
            ("scenario".to_owned(), json!(name)),
            ("directory".to_owned(), json!(directory.path())),
            ("authorities".to_owned(), json!(authorities)),
            ("pictures".to_owned(), json!(pictures())),
        ]);
        let mut scenario = Self { process, input, output: BufReader::new(output), directory, name: name.to_owned() };
        scenario.answer(&Value::Object(all));
        Ok(scenario)
    }

    /// Waits until it is at this step. Returns what it saw there.
    pub fn reaches(&mut self, step: &str) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("node")?;
        let mut said: Value = serde_json::from_str(&line).unwrap_or_default();
        if said.get("step").and_then(Value::as_str) != Some(step) {
            return Err(self.failure(step, &line));
        }
        Ok(said.get_mut("seen").map(Value::take).unwrap_or_default())
    }

    /// Lets it go on, with this.
    pub fn answer(&mut self, answer: &Value) {
        // It may have ended; then the next step does not come, and that says why.
        _ = writeln!(self.input, "{answer}");
    }

    /// Waits until it has ended well: nothing happened in the browser that must not.
    pub fn ends(mut self) -> Result<()> {
        self.reaches("done").map(drop)
    }

    /// Why it said something else than that it is at this step.
    fn failure(&mut self, step: &str, said: &str) -> Error {
        // Whoever closed the output has complained before.
        _ = self.process.kill();
        _ = self.process.wait();
        let complaints = std::fs::read_to_string(self.directory.path().join("complaints")).unwrap_or_default();
        let (name, hint) = (&self.name, "(`make browser` gets what is missing)");
        Error::new(format!("\"{name}\" does not reach \"{step}\": {said}\n{complaints}\n{hint}"))
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // Chromium ends when the pipe to the script closes.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Where pictures of pages are left.
pub fn pictures() -> PathBuf {
    repository().join(".dev/portal-screenshots")
}
