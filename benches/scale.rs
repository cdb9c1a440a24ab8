//! What size costs: 10,000 Agents in a hundred namespaces, then 100,000 Pods in the watch, then 1,000 questions that wait for a person.
//!
//! One control plane that grows by stages. In each, Agents are registered while the operator runs, which says how many it judges in a
//! second; then it is started anew, which says how long that takes, and what it takes in memory, at rest and under load. What an agent
//! costs is flat if the lines differ by no more than the numbers of agents.
//!
//! `COUNTERSIGN_BENCH_AGENTS`, `COUNTERSIGN_BENCH_PODS` and `COUNTERSIGN_BENCH_REQUESTS` say how many there are in the end.

mod population;

use crate::cost::{cpu_seconds, memory};
use crate::fixture::{AGENTS_NAMESPACE, agents, capabilities, exchanges, resource_server, tls_client, wait_until};
use crate::load::{self, Answer, Measured, Target};
use crate::report;
use crate::revocation::{self, Asked};
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::install_chart;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::workload;
use crate::{median, milliseconds};
use population::Population;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long after the start it is left alone until it is at rest.
const SETTLE: Duration = Duration::from_secs(10);
/// How long it is watched at rest.
const REST: Duration = Duration::from_secs(20);
/// How many starts are measured in each stage.
const STARTS: usize = 3;
/// Of how many agents tokens are exchanged.
const LOADED: usize = 32;
/// Length and number of the rounds of exchanges.
const ROUND: Duration = Duration::from_millis(2500);
const ROUNDS: usize = 3;
/// How many questions one agent asks.
const QUESTIONS_EACH: usize = 10;
/// How many suspensions are measured.
const SUSPENSIONS: usize = 100;
/// Who the tokens are for.
const DOCS: &str = "https://docs.example.com";

/// Measures, printing a line for each stage.
pub fn run(runtime: &tokio::runtime::Runtime) {
    let (agents, pods, requests) = (size("AGENTS", 10_000), size("PODS", 100_000), size("REQUESTS", 1000));
    // Never on a cluster that somebody uses. Controllers would have as much to do with all that as the operator.
    let options = ClusterOptions { controller_manager: false, ..ClusterOptions::default() };
    let cluster = Cluster::start_another(&options).expect("a cluster");
    install_chart(&cluster, 4, &[]).expect("the chart installs");
    let mut scale = Scale::on(cluster, runtime);
    for stage in [agents / 10, agents / 2, agents] {
        scale.register(stage);
        scale.line();
    }
    let rate = runtime.block_on(scale.population.deploy(pods));
    report::line(json!({"bench": "scale_pods", "pods": pods, "created_per_second": rate}));
    scale.line();
    scale.ask(requests);
    scale.line();
    scale.suspend();
}

/// A number from the environment.
fn size(what: &str, default: usize) -> usize {
    let name = format!("COUNTERSIGN_BENCH_{what}");
    std::env::var(&name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// A control plane, what is on it, and the operator.
struct Scale<'r> {
    // Dropped in this order.
    operator: Option<Operator>,
    population: Population,
    cluster: Cluster,
    runtime: &'r tokio::runtime::Runtime,
    /// What it says it is, whichever port it has after the next start.
    issuer: String,
}

impl<'r> Scale<'r> {
    fn on(cluster: Cluster, runtime: &'r tokio::runtime::Runtime) -> Self {
        let operator = start(&cluster, None);
        let issuer = operator.issuer().to_owned();
        let population = runtime.block_on(Population::on(&cluster));
        Self { operator: Some(operator), population, cluster, runtime, issuer }
    }

    fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("it runs")
    }

    /// Registers Agents until there are so many, while the operator runs, and prints how many of them it judges in a second.
    fn register(&mut self, agents: usize) {
        let before = self.population.agents;
        let pid = self.operator().process().pid();
        let (begun, spent) = (Instant::now(), cpu_seconds(pid));
        let (runtime, population) = (self.runtime, &mut self.population);
        let created = runtime.block_on(population.grow(agents));
        let judged = Instant::now();
        runtime.block_on(population.ready());
        let each = |seconds: f64| seconds / (agents - before) as f64;
        let line = json!({
            "bench": "scale_register",
            "agents": agents,
            "created_per_second": created,
            "ready_per_second": each(begun.elapsed().as_secs_f64()).recip().round(),
            "ready_after_last_s": (judged.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "cpu_ms_each": milliseconds(each(cpu_seconds(pid) - spent)),
            "peak_mib": memory(pid).peak,
        });
        report::line(line);
        runtime.block_on(population.deploy(LOADED.min(agents)));
    }

    /// Starts the operator anew and prints what that costs.
    fn line(&mut self) {
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            self.operator.take().expect("it runs").stop();
            let operator = start(&self.cluster, Some(&self.issuer));
            starts.push(operator.ready_after().as_secs_f64());
            self.operator = Some(operator);
        }
        let ready = median(starts);
        let pid = self.operator().process().pid();
        let (at_ready, spent) = (memory(pid), cpu_seconds(pid));
        std::thread::sleep(SETTLE);
        let begun = cpu_seconds(pid);
        std::thread::sleep(REST);
        let (settled, at_rest) = (memory(pid), (cpu_seconds(pid) - begun) / REST.as_secs_f64());
        // Of the same pods in each stage.
        let tokens: Vec<String> =
            (0..LOADED.min(self.population.agents)).map(|agent| self.population.token(agent, agent, &self.issuer)).collect();
        let (alone, many) = (self.load(&tokens, 1), self.load(&tokens, 16));
        let loaded = memory(pid);
        let Population { agents, pods, requests, .. } = self.population;
        let line = json!({
            "bench": "scale",
            "agents": agents,
            "pods": pods,
            "requests": requests,
            "ready_ms": milliseconds(ready).round(),
            "start_cpu_ms": milliseconds(spent).round(),
            "mib_at_ready": at_ready.now,
            "mib_at_rest": settled.now,
            "own_mib_at_rest": settled.own,
            "mib_under_load": loaded.now,
            "mib_peak": loaded.peak,
            "cpu_at_rest_percent": (at_rest * 1e4).round() / 100.0,
            "p50_ms": milliseconds(alone.p50),
            "per_second": many.per_second.round(),
            "p99_ms": milliseconds(many.p99),
        });
        report::line(line);
    }

    /// Exchanges over so many connections: the middle of some rounds.
    fn load(&self, tokens: &[String], connections: usize) -> Measured {
        let address = self.operator().url().trim_start_matches("https://").parse().expect("an address");
        let tls = Some(tls_client(self.operator().ca_file()));
        let target = Target { name: "the operator", address, tls, requests: exchanges(tokens), answer: Answer::NewToken };
        let round = |length| self.runtime.block_on(load::run(&target, connections, length));
        round(Duration::from_secs(1));
        let rounds: Vec<Measured> = (0..ROUNDS).map(|_| round(ROUND)).collect();
        let middle = |value: fn(&Measured) -> f64| median(rounds.iter().map(value).collect());
        Measured { per_second: middle(|m| m.per_second), p50: middle(|m| m.p50), p99: middle(|m| m.p99) }
    }

    /// Lets agents ask people until so many questions wait.
    fn ask(&mut self, requests: usize) {
        let agents = requests.div_ceil(QUESTIONS_EACH).min(self.population.agents).min(self.population.pods);
        let credentials: Vec<(usize, String)> =
            (0..agents).map(|agent| (agent, self.population.token(agent, agent, &self.issuer))).collect();
        let operator = self.operator.as_ref().expect("it runs");
        let rate = self.runtime.block_on(self.population.ask(operator, &credentials, requests));
        report::line(json!({"bench": "scale_requests", "requests": requests, "filed_per_second": rate}));
    }

    /// Suspends agents with all that in the view.
    fn suspend(self) {
        let kubectl = self.cluster.kubectl();
        workload::create_namespace(&kubectl, AGENTS_NAMESPACE).expect("a namespace");
        let credentials: Vec<String> =
            agents(&kubectl, &self.issuer, "agent", 1, &capabilities()).into_iter().flatten().collect();
        let server = resource_server(&kubectl, &self.issuer, "server", DOCS);
        let operators = [self.operator.expect("it runs")];
        let asked = Asked { cluster: &self.cluster, operators: &operators, credentials: &credentials, server: &server };
        let mut line: Value = self.runtime.block_on(revocation::measure("scale_revocation", &asked, SUSPENSIONS));
        line["agents"] = self.population.agents.into();
        report::line(line);
    }
}

/// Starts the operator, as the successor of the one before. Returns when it is ready and knows that the admission policies are in force.
fn start(cluster: &Cluster, issuer: Option<&str>) -> Operator {
    let options = OperatorOptions { issuer: issuer.map(str::to_owned), ..OperatorOptions::default() };
    let operator = Operator::start(cluster, Path::new(env!("CARGO_BIN_EXE_countersign")), &options).expect("the operator starts");
    wait_until("the admission policies are in force", || {
        operator.get("/metrics").is_ok_and(|m| m.body.contains("countersign_admission_policies_in_force 1"))
    });
    operator
}
