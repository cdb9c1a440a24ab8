//! A ledger that an operator wrote, and copies of it in which somebody changed something.

use crate::audited::published_items;
use crate::auditor::{Ran, audit};
use crate::databases::block_on;
use crate::support::install::{NAMESPACE, RELEASE};
use crate::support::postgres::Postgres;
use crate::world::{PATIENCE, World};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::audit::ledger::note::CheckpointKey;
use countersign::audit::ledger::tree::{Tree, leaf_hash};
use countersign::store::{LedgerReader, StoredLog, StoredSegment};
use sqlx::{ConnectOptions as _, Connection as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A ledger of two logs, the operator that wrote it gone, and what it had published.
pub struct Written {
    kind: Kind,
    /// When the first log had ended, and at the end.
    pub early: String,
    pub late: String,
    pub early_published: PathBuf,
    pub late_published: PathBuf,
    /// The first log and the second one.
    pub logs: [StoredLog; 2],
    /// The private key of the checkpoints, which somebody has stolen.
    pub stolen: CheckpointKey,
    directory: tempfile::TempDir,
}

impl Written {
    /// The one of this kind.
    pub fn of(kind: Kind) -> &'static Self {
        static BOTH: [OnceLock<Written>; 2] = [OnceLock::new(), OnceLock::new()];
        BOTH[usize::from(kind == Kind::Postgres)].get_or_init(|| Self::write(kind))
    }

    fn write(kind: Kind) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut world, url) = match kind {
            Kind::Sqlite => (World::start(4, &[], &[]), None),
            Kind::Postgres => {
                let url = Postgres::shared().database().expect("a database");
                (World::start_on_database(url.clone()), Some(url))
            }
        };
        let url =
            url.unwrap_or_else(|| format!("sqlite://{}", world.operator.audit_log().with_file_name("countersign.db").display()));
        let token = world.tenant("written").token;
        let mut published = Vec::new();
        let mut copies = Vec::new();
        for name in ["early", "late"] {
            for _ in 0..20 {
                world.exchange(&token).expect(200);
                world.exchange("a.b.c").refused(400, "invalid_request");
            }
            world.operator.process().begin_stop();
            world.operator.process().wait(PATIENCE).expect("it ends");
            let path = directory.path().join(format!("{name}.yaml"));
            let yaml = world.kubectl().run(&["get", "configmap", "countersign-audit", "-n", NAMESPACE, "-o", "yaml"]);
            std::fs::write(&path, yaml.expect("the ConfigMap")).expect("written");
            published.push(path);
            copies.push(copy(kind, &url, directory.path()));
            if name == "early" {
                world.restart().expect("it starts again");
            }
        }
        let secret = world.kubectl().get_json(&["get", "secret", RELEASE, "-n", NAMESPACE]).expect("the Secret");
        let pem = STANDARD.decode(secret["data"]["audit-key"].as_str().expect("the key")).expect("base64");
        let stolen = CheckpointKey::from_pem("127.0.0.1", &String::from_utf8(pem).expect("PEM")).expect("a key");
        assert!(published_items(&world)["vkeys"].as_str().expect("keys").contains(&stolen.vkey().to_string()));
        let [early, late] = copies.try_into().expect("two");
        let [early_published, late_published] = published.try_into().expect("two");
        let logs = block_on(async { reader(&late).await.logs().await }).expect("logs");
        let logs = logs.try_into().unwrap_or_else(|logs| panic!("two logs, not {logs:?}"));
        Self { kind, early, late, early_published, late_published, logs, stolen, directory }
    }

    /// A copy of it to change something in.
    pub fn copy(&self) -> Copy {
        Copy { url: copy(self.kind, &self.late, self.directory.path()), directory: self.directory.path().to_owned() }
    }
}

/// Copies a database that nobody has open.
fn copy(kind: Kind, url: &str, directory: &Path) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("copy{}", COUNT.fetch_add(1, Ordering::Relaxed));
    match kind {
        Kind::Sqlite => {
            let (from, path) = (url.strip_prefix("sqlite://").expect("a path"), directory.join(format!("{name}.db")));
            std::fs::copy(from, &path).expect("copied");
            // What was written last may not be in the file yet.
            let log = format!("{from}-wal");
            if Path::new(&log).exists() {
                std::fs::copy(log, directory.join(format!("{name}.db-wal"))).expect("copied");
            }
            format!("sqlite://{}", path.display())
        }
        Kind::Postgres => {
            let (server, template) = url.rsplit_once('/').expect("a database");
            Postgres::shared().sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template}")).expect("copied");
            format!("{server}/{name}")
        }
    }
}

async fn reader(url: &str) -> LedgerReader {
    LedgerReader::open(&url.parse().expect("a URL")).await.expect("it opens")
}

/// Runs `audit verify` on the database of that URL with what was published.
pub fn verify(url: &str, published: &[&Path], directory: &Path) -> Ran {
    let file = directory.join(format!("{}.url", url.rsplit('/').next().expect("a name")));
    std::fs::write(&file, url).expect("written");
    let database = format!("--database-file={}", file.display());
    let published: Vec<String> = published.iter().map(|path| format!("--checkpoints={}", path.display())).collect();
    let args: Vec<&str> = ["verify", &database].into_iter().chain(published.iter().map(String::as_str)).collect();
    audit(&args)
}

/// A value in a statement.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Bytes(&'a [u8]),
}

/// A copy in which something was changed.
pub struct Copy {
    pub url: String,
    directory: PathBuf,
}

impl Copy {
    /// Runs a statement with these values.
    pub fn sql(&self, statement: &'static str, values: &[Value<'_>]) {
        macro_rules! run {
            ($options:ty) => {{
                let options: $options = self.url.parse().expect("a URL");
                let mut live = options.connect().await.expect("a connection");
                let mut query = sqlx::query(statement);
                for value in values {
                    query = match value {
                        Value::Text(text) => query.bind((*text).to_owned()),
                        Value::Number(number) => query.bind(*number),
                        Value::Bytes(bytes) => query.bind(bytes.to_vec()),
                    };
                }
                query.execute(&mut live).await.expect("it runs");
                live.close().await.expect("closed");
            }};
        }
        block_on(async {
            if self.url.starts_with("sqlite") {
                run!(sqlx::sqlite::SqliteConnectOptions);
            } else {
                run!(sqlx::postgres::PgConnectOptions);
            }
        });
    }

    /// All segments of a log.
    pub fn segments(&self, log: &str) -> Vec<StoredSegment> {
        block_on(async {
            let reader = reader(&self.url).await;
            let (mut all, mut from) = (Vec::new(), 0);
            loop {
                let segments = reader.segments(log, from).await.expect("segments");
                let Some(last) = segments.last() else { return all };
                from = last.first + 1;
                all.extend(segments);
            }
        })
    }

    /// The records of a log.
    pub fn lines(&self, log: &str) -> Vec<String> {
        let bodies: Vec<u8> = self.segments(log).into_iter().flat_map(|segment| segment.body).collect();
        String::from_utf8(bodies).expect("text").lines().map(str::to_owned).collect()
    }

    /// Puts these records into one segment of a log in place of all that it has; hashes, size and root fit.
    pub fn rewrite(&self, log: &str, lines: &[String]) {
        let hashes: Vec<[u8; 32]> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.sql("DELETE FROM segments WHERE log = $1", &[Value::Text(log)]);
        let count = i64::try_from(lines.len()).expect("a count");
        self.insert(log, &StoredSegment { first: 0, count, body: body.into_bytes(), hashes: hashes.concat() });
        let root = Tree::of(&hashes).root();
        self.sql(
            "UPDATE logs SET size = $1, root = $2 WHERE id = $3",
            &[Value::Number(count), Value::Bytes(&root), Value::Text(log)],
        );
    }

    /// Adds a segment.
    pub fn insert(&self, log: &str, segment: &StoredSegment) {
        self.sql(
            "INSERT INTO segments (log, first, count, body, hashes) VALUES ($1, $2, $3, $4, $5)",
            &[
                Value::Text(log),
                Value::Number(segment.first),
                Value::Number(segment.count),
                Value::Bytes(&segment.body),
                Value::Bytes(&segment.hashes),
            ],
        );
    }

    /// Puts a segment in the place of the one that begins with the same record.
    pub fn replace(&self, log: &str, segment: &StoredSegment) {
        self.sql("DELETE FROM segments WHERE log = $1 AND first = $2", &[Value::Text(log), Value::Number(segment.first)]);
        self.insert(log, segment);
    }

    /// Signs the end of a log, as only the operator should be able to, in place of all that was signed.
    pub fn sign(&self, key: &CheckpointKey, log: &str, lines: &[String]) {
        let hashes: Vec<[u8; 32]> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
        let note = key.sign(&log.parse().expect("a name"), hashes.len() as u64, &Tree::of(&hashes).root());
        self.sql("DELETE FROM checkpoints WHERE log = $1", &[Value::Text(log)]);
        let size = i64::try_from(hashes.len()).expect("a size");
        self.sql(
            "INSERT INTO checkpoints (log, size, note) VALUES ($1, $2, $3)",
            &[Value::Text(log), Value::Number(size), Value::Text(&note)],
        );
    }

    /// What `audit verify` says of it.
    pub fn verify(&self, published: &[&Path]) -> Ran {
        verify(&self.url, published, &self.directory)
    }
}
