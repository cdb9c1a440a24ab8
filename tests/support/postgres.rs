//! A real PostgreSQL server on a port of 127.0.0.1, with its data in a temporary directory.

mod standby;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::directory::{Directory, random_token};
use super::error::{Context, Error, Result};
use super::ports::{free_ports, is_taken};
use super::process::{Guarded, clean_env};

/// How long it may take to start, the recovery after a crash included.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The superuser, and the owner of all databases.
const USER: &str = "countersign";

/// The subdirectory with the data of a server at first.
const DATA: &str = "data";

/// Freezes all processes it is given, and lets them go on when it is told to end, whoever tells it.
const FREEZER: &str = r#"trap 'kill -s CONT "$@"; exit 0' TERM; kill -s STOP "$@" && echo frozen; while :; do sleep 0.05; done"#;

/// A server that ends with this value or with the test process, whichever is first.
#[derive(Debug)]
pub struct Postgres {
    // Dropped in this order: the server must be gone before its files are.
    /// `None` while it is stopped.
    server: Mutex<Option<Guarded>>,
    /// A second server that follows it.
    standby: Mutex<Option<standby::Standby>>,
    /// The subdirectory with its data.
    data: Mutex<String>,
    directory: Directory,
    programs: Programs,
    password: String,
    port: u16,
}

/// All processes of a server, stopped by signal. They go on when this value is dropped.
#[derive(Debug)]
pub struct Frozen(Guarded);

impl Postgres {
    /// One for all tests of this process that break nothing.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Postgres>> = OnceLock::new();
        match SHARED.get_or_init(Self::start) {
            Ok(postgres) => postgres,
            #[expect(clippy::panic, reason = "there is nothing to go on with")]
            Err(error) => panic!("{error}"),
        }
    }

    /// One of its own.
    pub fn start() -> Result<Self> {
        let programs = Programs::find()?;
        let directory = Directory::temporary()?;
        let password = random_token()?;
        programs.make_cluster(directory.path(), &password)?;
        let mut postgres = Self {
            server: Mutex::default(),
            standby: Mutex::default(),
            data: Mutex::new(DATA.to_owned()),
            directory,
            programs,
            password,
            port: 0,
        };
        let mut attempt = 1;
        loop {
            [postgres.port] = free_ports()?;
            match postgres.resume() {
                Err(error) if attempt < 3 && is_taken(&error.to_string()) => attempt += 1,
                outcome => return outcome.map(|()| postgres),
            }
        }
    }

    /// The URL of a new, empty database.
    pub fn database(&self) -> Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://{USER}:{}@127.0.0.1:{}/{name}", self.password, self.port))
    }

    /// Runs statements in the database that `url` leads to, or of that name, and returns what they print: a line for each row,
    /// columns with `|` between.
    pub fn sql(&self, url: &str, statements: &str) -> Result<String> {
        let database = url.rsplit('/').next().unwrap_or(url);
        let output = Command::new(self.programs.0.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER])
            .args(["-p", &self.port.to_string(), "-d", database, "-c", statements])
            .env_clear()
            .envs(clean_env(self.directory.path()))
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "10")
            .stdin(Stdio::null())
            .output()
            .context("cannot run psql")?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(Error::new(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its data is, for what PostgreSQL wants to be told in files. They must be readable to all.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join(&*self.data.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts it again on the same port and data; returns when it answers.
    pub fn resume(&self) -> Result<()> {
        let mut held = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = self.programs.serve(self.directory.path(), "postgres", &self.data(), self.port, true)?;
        let deadline = Instant::now() + START_LIMIT;
        while let Err(complaint) = self.sql("postgres", "SELECT 1") {
            if server.exited().is_some() || Instant::now() >= deadline {
                return Err(Error::new(format!("PostgreSQL does not start: {complaint}\n{}", server.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *held = Some(server);
        Ok(())
    }

    /// Stops it in order: connections are closed, and all is on disk.
    pub fn stop(&self) -> Result<()> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(server) = server else { return Ok(()) };
        server.signal("INT")?; // SIGTERM would wait for all clients to leave
        server.wait(START_LIMIT).map(drop)
    }

    /// Kills all of its processes at once, as a crash of the machine would.
    pub fn kill(&self) -> Result<()> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(server) = server else { return Ok(()) };
        let processes = processes(server.pid());
        server.signal("KILL")?;
        for process in processes {
            // It may have ended by itself when the first did.
            _ = Command::new("sh").args(["-c", "kill -s KILL \"$1\" 2>/dev/null", "kill", &process.to_string()]).status();
        }
        server.wait(START_LIMIT).map(drop)
    }

    /// Freezes all of its processes.
    pub fn freeze(&self) -> Result<Frozen> {
        let held = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = held.as_ref().ok_or_else(|| Error::new("PostgreSQL does not run"))?;
        server.signal("STOP")?; // first, so that none is born after they are counted
        let mut args = vec!["-c".to_owned(), FREEZER.to_owned(), "freezer".to_owned(), server.pid().to_string()];
        args.extend(processes(server.pid()).iter().map(u32::to_string));
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (name, directory) = (format!("freezer{}", COUNT.fetch_add(1, Ordering::Relaxed)), self.directory.path());
        let freezer = Guarded::spawn(directory, &name, Path::new("/bin/sh"), &args, &clean_env(directory))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !freezer.log().contains("frozen") {
            if Instant::now() >= deadline {
                return Err(Error::new(format!("PostgreSQL was not frozen: {}", freezer.log())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Frozen(freezer))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("PostgreSQL did not stop in order: {error}");
        }
    }
}

/// The children of a process.
fn processes(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which is in parentheses and may hold anything: the state, then the parent.
        let of = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        of == Some(parent)
    };
    pids.filter(is_child).collect()
}

/// Where `initdb`, `postgres` and `psql` are.
#[derive(Debug)]
struct Programs(PathBuf);

impl Programs {
    /// In `PATH`, or where Debian puts them; there the newest.
    fn find() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Behind a link in `PATH` is a directory with all of them.
        let in_path =
            std::env::split_paths(&path).filter_map(|dir| Some(dir.join("initdb").canonicalize().ok()?.parent()?.to_owned()));
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut of_debian: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        of_debian.sort_by_key(|dir| dir.parent().and_then(|dir| dir.file_name()?.to_str()?.parse::<u32>().ok()));
        let has_all = |dir: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|program| dir.join(program).is_file());
        let found = in_path.chain(of_debian.into_iter().rev()).find(has_all);
        found
            .map(Self)
            .ok_or_else(|| Error::new("there is no PostgreSQL (initdb, postgres, psql): install the package postgresql"))
    }

    /// Makes the files of a server.
    fn make_cluster(&self, directory: &Path, password: &str) -> Result<()> {
        let password_file = directory.join("password");
        fs::write(&password_file, password).context(password_file.display())?;
        if let Some(account) = Account::unprivileged()? {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).context(directory.display())?;
            chown(&password_file, Some(account.user), Some(account.group)).context(password_file.display())?;
        }
        let data = directory.join(DATA);
        make_private(&data)?;
        let (program, args) = self.command(
            "initdb",
            &[
                &format!("--pgdata={}", data.display()),
                &format!("--username={USER}"),
                &format!("--pwfile={}", password_file.display()),
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
        )?;
        let mut initdb = Command::new(program);
        initdb.args(args).env_clear().envs(clean_env(directory)).current_dir(directory).stdin(Stdio::null());
        let output = initdb.output().context("cannot run initdb")?;
        if output.status.success() {
            Ok(())
        } else {
            Err(Error::new(format!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
        }
    }

    /// Starts a server; it answers a moment later. If it is `alone`, it follows no other, also if its data says so.
    fn serve(&self, directory: &Path, name: &str, data: &Path, port: u16, alone: bool) -> Result<Guarded> {
        let (program, args) = self.command(
            "postgres",
            &[
                "-D",
                &data.display().to_string(),
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=200",
                "-c",
                "shared_buffers=16MB",
            ],
        )?;
        let alone = ["-c".to_owned(), "primary_conninfo=".to_owned()].into_iter().filter(|_| alone);
        let args: Vec<String> = args.into_iter().chain(alone).collect();
        Guarded::spawn(directory, name, &program, &args, &clean_env(directory))
    }

    /// How to run one of the programs, which refuse to be run by root.
    fn command(&self, program: &str, args: &[&str]) -> Result<(PathBuf, Vec<String>)> {
        let program = self.0.join(program);
        let args = args.iter().map(|arg| (*arg).to_owned());
        let Some(Account { user, group }) = Account::unprivileged()? else { return Ok((program, args.collect())) };
        let as_account = [format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()];
        let all = as_account.into_iter().chain([program.display().to_string()]).chain(args).collect();
        Ok((PathBuf::from("setpriv"), all))
    }
}

/// Makes an empty directory that only the server reads.
fn make_private(data: &Path) -> Result<()> {
    fs::create_dir(data).context(data.display())?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).context(data.display())?;
    match Account::unprivileged()? {
        Some(account) => chown(data, Some(account.user), Some(account.group)).context(data.display()),
        None => Ok(()),
    }
}

/// Whom the server runs as when the tests run as root.
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// `None` if the tests do not run as root.
    fn unprivileged() -> Result<Option<Self>> {
        let own = fs::metadata("/proc/self").context("/proc/self")?.uid();
        if own != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let find = |name: &str| {
            let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some(Self { user: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
        };
        let account = find("postgres").or_else(|| find("nobody"));
        account.map(Some).ok_or_else(|| Error::new("root cannot run PostgreSQL, and there is neither a user postgres nor nobody"))
    }
}
