//! Three replicas on a cluster and a database of their own, with agents that never rest.

use super::history::{History, now};
use crate::audited::published_items;
use crate::chains::Team;
use crate::databases::block_on;
use crate::key_agents::KeyAgent;
use crate::staleness::clock_of;
use crate::support::cluster::ClusterOptions;
use crate::support::error;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::postgres::Postgres;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Tenant, World, claims, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::store::LedgerReader;
use reqwest::blocking::Client;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::RwLock;
use std::time::{Duration, Instant};

/// The names of the replicas.
pub const REPLICAS: [&str; 3] = ["one", "two", "three"];

/// How long a client waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The cluster, its database, and the replicas as they are now.
pub struct Drill {
    pub world: World,
    pub postgres: Postgres,
    pub url: String,
    /// The file that says by how much the clock of the third replica is off, and what makes it so.
    pub clock: PathBuf,
    environment: Vec<(String, String)>,
    /// Starts the operator so that a file that may not grow is an error to it, as a full disk is, and not its end.
    program: PathBuf,
    replicas: RwLock<Vec<Operator>>,
    /// Gives up after a while.
    pub http: Client,
}

impl Drill {
    pub fn start() -> Self {
        let postgres = Postgres::start().expect("a server");
        let url = postgres.database().expect("a database");
        // What is acknowledged must survive when etcd is killed.
        let options = ClusterOptions { durable_etcd: true, ..ClusterOptions::default() };
        let world = World::start_on_both(&options, url.clone());
        let (clock, environment) = clock_of(world.cluster.directory().path());
        let http = Client::builder()
            .tls_certs_only([
                reqwest::Certificate::from_pem(&std::fs::read(world.operator.ca_file()).expect("the CA")).expect("a CA")
            ])
            .timeout(ANSWER_WITHIN)
            .build()
            .expect("a client");
        let program = world.cluster.directory().path().join("countersign");
        crate::ledger_faults::write_unlimited(&program);
        let drill = Self { world, postgres, url, clock, environment, program, replicas: RwLock::default(), http };
        for name in REPLICAS {
            let started = drill.begin(name);
            drill.replicas.write().expect("a lock").push(started);
        }
        drill
    }

    /// Ends the operator that the world began with: there are three.
    pub fn leave_alone(&self) {
        self.world.operator.process().begin_stop();
        self.world.operator.process().wait(PATIENCE).expect("it ends");
    }

    fn begin(&self, name: &str) -> Operator {
        self.try_to_begin(name).expect("a replica starts")
    }

    fn try_to_begin(&self, name: &str) -> error::Result<Operator> {
        let env = if name == "three" { self.environment.clone() } else { Vec::new() };
        let options = OperatorOptions {
            name: name.to_owned(),
            issuer: Some(self.world.operator.issuer().to_owned()),
            database: Some(self.url.clone()),
            env,
            ..OperatorOptions::default()
        };
        Operator::start(&self.world.cluster, &self.program, &options)
    }

    /// Where replica `i` serves.
    pub fn at(&self, i: usize) -> (&'static str, String) {
        let i = i % REPLICAS.len();
        (REPLICAS[i], self.replicas.read().expect("a lock")[i].url())
    }

    /// Does something to a replica.
    pub fn with<T>(&self, i: usize, work: impl FnOnce(&Operator) -> T) -> T {
        work(&self.replicas.read().expect("a lock")[i])
    }

    /// Kills a replica, as a node that dies would.
    pub fn kill(&self, i: usize) {
        self.with(i, |operator| {
            operator.process().signal("KILL").expect("killed");
            operator.process().wait(PATIENCE).expect("it ends");
        });
    }

    /// Ends a replica in order.
    pub fn end(&self, i: usize) {
        self.with(i, |operator| {
            operator.process().begin_stop();
            operator.process().wait(PATIENCE).expect("it ends");
        });
    }

    /// Starts one that has ended.
    pub fn revive(&self, i: usize) {
        // Its logs are kept where those of the next do not overwrite them.
        let log = self.with(i, |operator| operator.process().log());
        let kept = self.world.cluster.directory().path().join(format!("{}-{}.ended.log", REPLICAS[i], now()));
        std::fs::write(kept, log).expect("kept");
        let started = self.begin(REPLICAS[i]);
        self.replicas.write().expect("a lock")[i] = started;
    }

    /// Waits until a replica has ended by itself, and starts it again as often as it does, as a kubelet would.
    pub fn begins_anew(&self, i: usize) {
        self.with(i, |operator| operator.process().wait(PATIENCE).expect("it ends"));
        let deadline = Instant::now() + PATIENCE;
        let started = loop {
            match self.try_to_begin(REPLICAS[i]) {
                Ok(started) => break started,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        self.replicas.write().expect("a lock")[i] = started;
    }

    /// POSTs a form to a replica. None if there is no answer.
    pub fn post(&self, i: usize, path: &str, bearer: Option<&str>, form: &[(&str, &str)]) -> Option<(u16, Value)> {
        let request = self.http.post(format!("{}{path}", self.at(i).1)).form(form);
        let request = match bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let reply = request.send().ok()?;
        let status = reply.status().as_u16();
        let body = reply.json().ok()?;
        Some((status, body))
    }

    /// Waits until everything works on every replica, and notes how long that took from now on.
    pub fn recovers(&self, cast: &Cast<'_>, history: &History) {
        let over = Instant::now();
        for (i, replica) in REPLICAS.iter().enumerate() {
            for (what, attempt) in cast.probes() {
                let mut why = Value::Null;
                let mut ok = false;
                while !ok && over.elapsed() < PATIENCE {
                    match attempt(self, i) {
                        Ok(()) => ok = true,
                        Err(answer) => {
                            why = answer;
                            std::thread::sleep(Duration::from_millis(50));
                        }
                    }
                }
                let after = u64::try_from(over.elapsed().as_millis()).expect("small");
                history.note("well", json!({"what": what, "replica": replica, "ok": ok, "after": after, "why": why.to_string()}));
            }
        }
    }

    /// Writes what the database holds, what is published, and what the processes are and wrote, for who checks it.
    pub fn expose(&self, directory: &Path) {
        // In this order: the replicas go on, and what is published is of what is stored.
        let published = published_items(&self.world);
        let ledger = json!({"logs": block_on(stored(&self.url)), "published": published});
        std::fs::write(directory.join("ledger.json"), ledger.to_string()).expect("written");
        let processes: Vec<Value> = REPLICAS.iter().enumerate().map(|(i, name)| self.with(i, |o| weighed(name, o))).collect();
        std::fs::write(directory.join("processes.json"), json!(processes).to_string()).expect("written");
        let logs = directory.join("logs");
        std::fs::create_dir_all(&logs).expect("a directory");
        for (i, name) in REPLICAS.iter().enumerate() {
            self.with(i, |operator| {
                std::fs::write(logs.join(format!("{name}.log")), operator.process().log()).expect("written");
                std::fs::copy(operator.audit_log(), logs.join(format!("{name}.audit"))).expect("copied");
            });
        }
        for ended in std::fs::read_dir(self.world.cluster.directory().path()).expect("a directory").flatten() {
            if ended.file_name().to_string_lossy().ends_with(".ended.log") {
                std::fs::copy(ended.path(), logs.join(ended.file_name())).expect("copied");
            }
        }
    }
}

/// Memory and files of a replica, as the kernel says.
fn weighed(name: &str, operator: &Operator) -> Value {
    let proc = PathBuf::from(format!("/proc/{}", operator.process().pid()));
    let status = std::fs::read_to_string(proc.join("status")).expect("it lives");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let files = std::fs::read_dir(proc.join("fd")).expect("it lives").count();
    json!({"name": name, "resident": kib.expect("a number") * 1024, "files": files})
}

/// The logs as they are in the database at one moment: lines and checkpoints as they were written.
async fn stored(url: &str) -> Vec<Value> {
    let reader = LedgerReader::open_at_one_moment(&url.parse().expect("a URL")).await.expect("it opens");
    let mut logs = Vec::new();
    for row in reader.logs().await.expect("an answer") {
        let (mut lines, mut next) = (Vec::new(), 0);
        loop {
            let segments = reader.segments(&row.id, next).await.expect("an answer");
            let Some(last) = segments.last() else { break };
            next = last.first + 1;
            for segment in segments {
                let body = String::from_utf8(segment.body).expect("text");
                lines.extend(body.split_terminator('\n').map(str::to_owned));
            }
        }
        let checkpoints: Vec<String> =
            reader.checkpoints(&row.id, 0).await.expect("an answer").into_iter().map(|stored| stored.note).collect();
        logs.push(json!({
            "id": row.id, "size": row.size, "root": STANDARD.encode(&row.root), "sealed_by": row.sealed_by,
            "lines": lines, "checkpoints": checkpoints,
        }));
    }
    logs
}

/// Runs the checker on a directory. Its lines, and whether all holds.
pub fn check(directory: &Path) -> (String, bool) {
    let script = crate::support::repository().join("tests/faults/check.mjs");
    let output = Command::new("node").arg(script).arg(directory).output().expect("node");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (text, output.status.success())
}

/// Whether something works on a replica, or what it answered.
type Probe<'a> = Box<dyn Fn(&Drill, usize) -> Result<(), Value> + 'a>;

/// The agents.
pub struct Cast<'a> {
    /// Asks for itself.
    pub steady: Tenant<'a>,
    /// Is suspended again and again.
    pub victim: Tenant<'a>,
    /// Asks for approval.
    pub payer: Tenant<'a>,
    pub capability: String,
    /// Call each other.
    pub team: Team<'a>,
    /// Signs for itself.
    pub keyed: KeyAgent<'a>,
    /// Introspects.
    pub server: String,
}

impl<'a> Cast<'a> {
    pub fn enter(drill: &'a Drill) -> Self {
        let world = &drill.world;
        let (payer, capability) = world.payments_tenant("payer");
        world.approver("bob", &payer.namespace, &capability);
        let cast = Self {
            steady: world.tenant("steady"),
            victim: world.tenant("victim"),
            payer,
            capability,
            team: Team::start_in(world, "team"),
            keyed: world.key_agent("keyed"),
            server: world.resource_server(DOCS),
        };
        for i in 0..REPLICAS.len() {
            for (what, attempt) in cast.probes() {
                wait_until(what, PATIENCE, || attempt(drill, i).is_ok());
            }
        }
        cast
    }

    /// What must work on every replica.
    fn probes(&self) -> Vec<(&'static str, Probe<'_>)> {
        let ok = |answer: Option<(u16, Value)>| match answer {
            Some((200, _)) => Ok(()),
            other => Err(json!(other)),
        };
        vec![
            ("an exchange", Box::new(move |drill, i| ok(exchange(drill, i, &self.steady.token)))),
            ("an assertion", Box::new(move |drill, i| ok(exchange(drill, i, &self.keyed.assertion())))),
            (
                "a delegation",
                Box::new(move |drill, i| {
                    let called = called(drill, i, &self.team);
                    let Some((200, called)) = called else { return Err(json!(called)) };
                    ok(passed_on(drill, i, &self.team, called["access_token"].as_str().unwrap_or_default()))
                }),
            ),
            (
                "an introspection",
                Box::new(move |drill, i| ok(drill.post(i, "/oauth2/introspect", Some(&self.server), &[("token", "x")]))),
            ),
        ]
    }
}

/// A token for an agent that proves itself with this credential, its pod's or an assertion of its own.
pub fn exchange(drill: &Drill, i: usize, credential: &str) -> Option<(u16, Value)> {
    let form =
        [("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", credential)];
    drill.post(i, "/oauth2/token", None, &form)
}

/// The token with which one agent calls another.
pub fn called(drill: &Drill, i: usize, team: &Team<'_>) -> Option<(u16, Value)> {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", team.credential("bot")),
        ("audience", &team.subject("search")),
    ];
    drill.post(i, "/oauth2/token", None, &form)
}

/// The token that the one that was called gets for it.
pub fn passed_on(drill: &Drill, i: usize, team: &Team<'_>, token: &str) -> Option<(u16, Value)> {
    let form = [
        ("grant_type", crate::world::TOKEN_EXCHANGE),
        ("subject_token", token),
        ("subject_token_type", crate::chains::TYPE_ACCESS_TOKEN),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", team.credential("search")),
        ("audience", DOCS),
    ];
    drill.post(i, "/oauth2/token", None, &form)
}

/// Notes a token that arrived, with what else is known of it.
pub fn arrived(history: &History, body: &Value, sent: u64, mut more: Value) {
    more["claims"] = claims(body["access_token"].as_str().expect("a token"));
    more["sent"] = json!(sent);
    more["at"] = json!(now());
    history.note("token", more);
}
