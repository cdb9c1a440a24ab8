//! Child processes that cannot outlive the test.
//!
//! `Drop` does not run when a test process is killed, when `exit` is called, or for a `static`; so stopping is left to
//! a watchdog (`watchdog.sh`) on the other end of a pipe, which sees the pipe close in all of these cases.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::error::{Context, Error, Result};

/// The script between us and the child; it says itself what it does.
const WATCHDOG: &str = include_str!("watchdog.sh");

/// A running child process that ends with this value or with the process that holds it, whichever is first.
#[derive(Debug)]
pub struct Guarded {
    /// Names the log file and the pid file.
    name: String,
    /// The child itself, not the watchdog.
    pid: u32,
    /// Where the child's output goes.
    log_file: PathBuf,
    /// Open as long as the child is to live. `None` once stopping has begun.
    pipe: Mutex<Option<ChildStdin>>,
    /// Lives as long as the child and ends with its exit status.
    watchdog: Mutex<Child>,
}

impl Guarded {
    /// Runs `program` with `args` and exactly the environment `env`, its output appended to `<dir>/<name>.log`.
    ///
    /// `<dir>/<name>.pid` holds the pid as long as the process lives. A program that cannot be executed shows up as
    /// one that has [exited](Self::exited), with the reason in the log.
    pub fn spawn(dir: &Path, name: &str, program: &Path, args: &[String], env: &[(String, String)]) -> Result<Self> {
        let log_file = dir.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(&log_file).context(log_file.display())?;
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(dir.join(format!("{name}.pid")))
            .arg(program)
            .args(args)
            .env_clear()
            .envs(env.iter().map(|(key, value)| (key, value)))
            // Ctrl-C in a terminal reaches only us; our end of the pipe then closes, and everything stops in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context(format!("cannot run sh to start {name}"))?;
        let pipe = watchdog.stdin.take();
        let first_line = watchdog.stdout.take().map(read_first_line).transpose();
        let first_line = first_line.context(format!("cannot read the pid of {name}"))?;
        let Some(Ok(pid)) = first_line.as_deref().map(str::parse) else {
            return Err(Error::new(format!("cannot start {name}:\n{}", tail(&log_file))));
        };
        Ok(Self { name: name.to_owned(), pid, log_file, pipe: Mutex::new(pipe), watchdog: Mutex::new(watchdog) })
    }

    /// The process id of the child itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name it was started under, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole log so far.
    pub fn log(&self) -> String {
        read_lossy(&self.log_file)
    }

    /// The end of the log, for error messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log_file)
    }

    /// How the child ended, if it has. Death by signal `n` is exit code `128 + n`.
    pub fn exited(&self) -> Option<ExitStatus> {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        watchdog.try_wait().ok().flatten()
    }

    /// Waits until the child has ended by itself or by a signal sent to it, at most `limit`.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(format!("{} still runs after {limit:?}:\n{}", self.name, self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the child a signal by name: `STOP`, `CONT`, `KILL`, `TERM`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        // The shell's own `kill`: /bin/kill is not on every machine.
        let status = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "kill", signal, &self.pid.to_string()])
            .status()
            .context("cannot run sh")?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::new(format!("cannot send {signal} to {} (pid {})", self.name, self.pid)))
        }
    }

    /// Asks the child to end and does not wait for it, so that several can end side by side.
    pub fn begin_stop(&self) {
        drop(self.pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }

    /// Ends the child: SIGTERM, after five seconds SIGKILL. Returns when it is gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.begin_stop();
        let watchdog = self.watchdog.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = watchdog.wait() {
            eprintln!("cannot wait for the end of {}: {error}", self.name);
        }
    }
}

/// The environment for a child: `PATH` from ours, a `HOME` of its own, and nothing else, so that no kubeconfig, proxy
/// or credential of the person running the tests has a say in them.
pub fn clean_env(home: &Path) -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    vec![("PATH".to_owned(), path), ("HOME".to_owned(), home.display().to_string())]
}

/// A value as the shell takes it, whatever is in it.
pub fn quoted(value: &Path) -> String {
    format!("'{}'", value.display().to_string().replace('\'', r"'\''"))
}

/// The last lines of a log.
pub fn tail(log_file: &Path) -> String {
    const LINES: usize = 25;
    let log = read_lossy(log_file);
    let lines: Vec<&str> = log.lines().collect();
    let skipped = lines.len().saturating_sub(LINES);
    let shown: Vec<&str> = lines.into_iter().skip(skipped).collect();
    format!("--- {} ---\n{}", log_file.display(), shown.join("\n"))
}

/// The log as text; a log that cannot be read is an empty one, because the caller has a better error to report.
fn read_lossy(log_file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log_file).unwrap_or_default()).into_owned()
}

/// What the watchdog reports: one line, the pid.
fn read_first_line(stdout: impl std::io::Read) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
