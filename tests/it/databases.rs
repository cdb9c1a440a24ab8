//! What the tests of the store share: a database of either kind, and a process of its own that holds a store.

use crate::support::directory::Directory;
use crate::support::postgres::Postgres;
use countersign::store::{DatabaseUrl, Store, StoreError};
use futures::StreamExt as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// When the tests of the store take place, in seconds since the epoch.
pub const NOW: u64 = 1_800_000_000;
/// When what they consume expires.
pub const LATER: u64 = NOW + 60;
/// Whose it is.
pub const ISSUER: &str = "agent:research/bot";

/// An empty database.
pub struct Database {
    pub url: String,
    /// Where it is, if it is a file.
    directory: Option<Directory>,
}

impl Database {
    pub fn sqlite() -> Self {
        let directory = Directory::temporary().expect("a directory");
        Self { url: format!("sqlite://{}", directory.path().join("test.db").display()), directory: Some(directory) }
    }

    pub fn postgres() -> Self {
        Self { url: Postgres::shared().database().expect("a database"), directory: None }
    }

    /// One of each kind: whatever holds for one holds for the other.
    pub fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.path().join("test.db"))
    }

    pub async fn open(&self) -> Result<Store, StoreError> {
        open(&self.url).await
    }

    pub async fn store(&self) -> Store {
        self.open().await.unwrap_or_else(|e| panic!("{}: {e}", self.url))
    }

    /// Runs a statement, when no store is open, and returns the first number of what it returns.
    pub async fn sql(&self, statement: &'static str) -> Option<i64> {
        if self.directory.is_none() {
            return Postgres::shared().sql(&self.url, statement).expect("it runs").lines().next()?.parse().ok();
        }
        use sqlx::{ConnectOptions as _, Connection as _};
        let options: sqlx::sqlite::SqliteConnectOptions = self.url.parse().expect("a URL");
        let mut connection = options.connect().await.expect("a connection");
        let number = sqlx::query_scalar(statement).fetch_optional(&mut connection).await.expect("it runs");
        connection.close().await.expect("closed");
        number
    }
}

pub async fn open(url: &str) -> Result<Store, StoreError> {
    Store::open(&url.parse::<DatabaseUrl>().expect("a URL")).await
}

/// Consumes a jti of [`ISSUER`].
pub async fn accept(store: &Store, jti: &str) -> Result<bool, StoreError> {
    store.accept_once(ISSUER, jti, LATER, NOW).await
}

/// Consumes jtis `<prefix>0` to `<prefix><count - 1>` in no order: how many were new, how many were there, and how many nobody knows.
/// At most so many at once as the token service works on.
pub async fn accept_all(store: &Store, prefix: &str, count: usize) -> [usize; 3] {
    let calls = futures::stream::iter(0..count).map(|i| async move { accept(store, &format!("{prefix}{i}")).await });
    let mut calls = calls.buffer_unordered(1024);
    let mut outcomes = [0; 3];
    while let Some(outcome) = calls.next().await {
        match outcome {
            Ok(true) => outcomes[0] += 1,
            Ok(false) => outcomes[1] += 1,
            Err(_) => outcomes[2] += 1,
        }
    }
    outcomes
}

/// Runs a test on a runtime of its own, which ends with it: whatever a store still does is cut off, as at a crash.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test)
}

/// Between a store and its server: passes everything on, until the answers are swallowed.
pub struct Wire {
    pub url: String,
    swallows: Arc<AtomicBool>,
}

impl Wire {
    pub async fn to(server: &'static Postgres, url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let swallows = Arc::new(AtomicBool::new(false));
        let swallow = Arc::clone(&swallows);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("the server");
                let (client, upstream) = (client.into_split(), upstream.into_split());
                tokio::spawn(pass(client.0, upstream.1, Arc::default()));
                tokio::spawn(pass(upstream.0, client.1, Arc::clone(&swallow)));
            }
        });
        Self { url: url.replace(&format!(":{}/", server.port()), &format!(":{}/", address.port())), swallows }
    }

    pub fn swallow(&self, swallow: bool) {
        self.swallows.store(swallow, Ordering::SeqCst);
    }
}

async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, swallows: Arc<AtomicBool>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !swallows.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
}

/// Names the database for [`holder`], which does nothing without it.
const HELD: &str = "COUNTERSIGN_TEST_HELD_DATABASE";

/// A process of its own that holds a store.
pub struct Holder {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts it. The error is what the store said when it was opened.
    pub fn start(url: &str) -> Result<Self, String> {
        let (_, module) = module_path!().split_once("::").expect("a path within the crate");
        // The shell ignores the signal for a file that becomes too large, and what it becomes inherits that.
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "holder"])
            .arg(std::env::current_exe().expect("this binary"))
            .args(["--exact", &format!("{module}::holder"), "--nocapture"])
            .env(HELD, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary runs");
        let (questions, answers) = (child.stdin.take().expect("stdin"), BufReader::new(child.stdout.take().expect("stdout")));
        let mut holder = Self { child, questions, answers };
        match holder.answer().as_str() {
            "open" => Ok(holder),
            complaint => {
                let complaint = complaint.to_owned();
                let Self { mut child, mut answers, .. } = holder;
                _ = answers.read_to_end(&mut Vec::new());
                child.wait().expect("it ends");
                Err(complaint)
            }
        }
    }

    /// Asks it to consume jtis `<prefix>0` to `<prefix><count - 1>`; it begins at once.
    pub fn ask(&mut self, prefix: &str, count: usize) {
        writeln!(self.questions, "{prefix} {count}").expect("it listens");
    }

    /// What became of it, as [`accept_all`] says it.
    pub fn told(&mut self) -> [usize; 3] {
        let answer = self.answer();
        let numbers: Vec<usize> = answer.split(' ').map(|number| number.parse().expect(&answer)).collect();
        numbers.try_into().expect("three numbers")
    }

    /// Asks and waits.
    pub fn accept(&mut self, prefix: &str, count: usize) -> [usize; 3] {
        self.ask(prefix, count);
        self.told()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory it has touched and still holds, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Ends it with SIGKILL; returns when it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("it ends");
    }

    /// The next line that is ours and not the test harness's. Empty at the end.
    fn answer(&mut self) -> String {
        let lines = self.answers.by_ref().lines().map(|line| line.expect("text"));
        lines.filter_map(|line| line.strip_prefix("> ").map(str::to_owned)).next().unwrap_or_default()
    }
}

/// Not a test: the process that others start, and kill. It ends when its standard input does.
#[test]
fn holder() {
    let Ok(url) = std::env::var(HELD) else {
        return;
    };
    let say = |text: String| {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "> {text}").and_then(|()| stdout.flush()).expect("somebody listens");
    };
    block_on(async {
        let store = match open(&url).await {
            Ok(store) => store,
            Err(error) => return say(error.to_string()),
        };
        say("open".to_owned());
        for line in std::io::stdin().lines() {
            let line = line.expect("a line");
            let (prefix, count) = line.rsplit_once(' ').expect("a prefix and a number");
            let outcomes = accept_all(&store, prefix, count.parse().expect("a number")).await;
            say(outcomes.map(|n| n.to_string()).join(" "));
        }
    });
}
