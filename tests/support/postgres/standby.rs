//! A second server that follows the first by streaming replication, and takes its place.

use super::{Postgres, START_LIMIT, USER, make_private};
use crate::support::error::{Error, Result};
use crate::support::ports::free_ports;
use crate::support::process::{Guarded, clean_env};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The second server, and its data.
#[derive(Debug)]
pub(super) struct Standby {
    /// `None` while it is stopped.
    server: Option<Guarded>,
    data: PathBuf,
}

impl Postgres {
    /// Copies the server, and has the copy follow it. If it is `synchronous`, the server acknowledges nothing any more that the copy does not
    /// have on its disk.
    pub fn follow(&self, synchronous: bool) -> Result<()> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let data = self.directory.path().join(format!("standby{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        make_private(&data)?;
        let (host, port) = ("--host=127.0.0.1", format!("--port={}", self.port));
        let (user, target) = (format!("--username={USER}"), format!("--pgdata={}", data.display()));
        let args = [host, &port, &user, &target, "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"];
        let (program, args) = self.programs.command("pg_basebackup", &args)?;
        let mut copy = Command::new(program);
        copy.args(args).env_clear().envs(clean_env(self.directory.path())).env("PGPASSWORD", &self.password);
        let output = copy.current_dir(self.directory.path()).stdin(Stdio::null()).output();
        let output = output.map_err(|e| Error::new(format!("cannot run pg_basebackup: {e}")))?;
        if !output.status.success() {
            return Err(Error::new(format!("pg_basebackup: {}", String::from_utf8_lossy(&output.stderr).trim_end())));
        }
        let [port] = free_ports()?;
        let server = self.programs.serve(self.directory.path(), "standby", &data, port, false)?;
        self.reaches("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", &server)?;
        if synchronous {
            self.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")?;
            self.sql("postgres", "SELECT pg_reload_conf()")?;
            self.reaches("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", &server)?;
        }
        *self.standby.lock().unwrap_or_else(PoisonError::into_inner) = Some(Standby { server: Some(server), data });
        Ok(())
    }

    /// The two do not reach each other any more.
    pub fn part(&self) -> Result<()> {
        let mut standby = self.standby.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(server) = standby.as_mut().and_then(|standby| standby.server.take()) else { return Ok(()) };
        server.signal("INT")?;
        server.wait(START_LIMIT).map(drop)
    }

    /// Kills the server for ever. Where it was, the standby answers: still as one, which takes no writes.
    pub fn succeed(&self) -> Result<()> {
        self.kill()?;
        self.part()?;
        let standby = self.standby.lock().unwrap_or_else(PoisonError::into_inner).take();
        let standby = standby.ok_or_else(|| Error::new("there is no standby"))?;
        let name = standby.data.file_name().map(|name| name.to_string_lossy().into_owned());
        *self.data.lock().unwrap_or_else(PoisonError::into_inner) = name.unwrap_or_default();
        self.resume()
    }

    /// Makes a standby a server that takes writes.
    pub fn promote(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_promote()").map(drop)
    }

    /// Waits until a query says 1, as long as the standby lives.
    fn reaches(&self, query: &str, standby: &Guarded) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let found = self.sql("postgres", query)?;
            if found == "1" {
                return Ok(());
            }
            if standby.exited().is_some() || Instant::now() >= deadline {
                return Err(Error::new(format!("the standby does not follow: {query} says {found}\n{}", standby.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
