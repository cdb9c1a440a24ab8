//! How long a suspended agent goes on: from an administrator's patch until each of three replicas refuses it a token, and until each says
//! that the token it has is dead.
//!
//! One suspension after the other, each of an agent that was just served, with every replica asked again and again meanwhile over
//! connections that stay open. The replicas share a PostgreSQL database; the patch goes through admission, and reaches each by its own watch.

use crate::fixture::{AGENTS_NAMESPACE, PATIENCE, agents, capabilities, wait_until};
use crate::milliseconds;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::install_chart;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::postgres::Postgres;
use crate::support::workload;
use countersign::crd::{Agent, CONDITION_READY, CONDITION_SUSPENDED};
use kube::Config;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use reqwest::Client;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many replicas there are.
const REPLICAS: usize = 3;
/// How many suspensions are measured: with each replica asked in two ways, 1,002 samples.
const SUSPENSIONS: usize = 167;
/// How many come before that and do not count: they open connections.
const WARM_UP: usize = 8;
/// Pause of each of those who ask, between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(2);
/// Within how many milliseconds 99 of 100 should be stopped.
const BAR: f64 = 250.0;

/// What one replica took to obey, in one way.
struct Measured {
    /// From when the patch was sent, in seconds.
    sent: f64,
    /// From when the API server had accepted it, in seconds.
    accepted: f64,
}

/// A control plane with three replicas of the operator.
pub struct Replicas {
    // Dropped in this order.
    operators: Vec<Operator>,
    cluster: Cluster,
    _postgres: Postgres,
    /// The tokens of the agents' pods.
    credentials: Vec<String>,
    /// Of a resource server.
    server: String,
}

impl Replicas {
    /// Starts it all.
    pub fn start() -> Self {
        let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
        install_chart(&cluster, 4, &[]).expect("the chart installs");
        let postgres = Postgres::start().expect("PostgreSQL");
        let database = Some(postgres.database().expect("a database"));
        let mut operators: Vec<Operator> = Vec::new();
        for number in 0..REPLICAS {
            let issuer = operators.first().map(|first| first.issuer().to_owned());
            let name = format!("replica-{number}");
            let options = OperatorOptions { name, issuer, database: database.clone(), ..OperatorOptions::default() };
            let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
            operators.push(Operator::start(&cluster, binary, &options).expect("an operator starts"));
        }
        wait_until("the admission policies are in force", || {
            let in_force = |metrics: &str| metrics.contains("countersign_admission_policies_in_force 1");
            operators.iter().all(|operator| operator.get("/metrics").is_ok_and(|m| in_force(&m.body)))
        });
        let kubectl = cluster.kubectl();
        workload::create_namespace(&kubectl, AGENTS_NAMESPACE).expect("a namespace");
        let issuer = operators[0].issuer();
        let credentials = agents(&kubectl, issuer, "agent", 1, &capabilities()).into_iter().flatten().collect();
        workload::create_service_account(&kubectl, AGENTS_NAMESPACE, "server").expect("a ServiceAccount");
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["audiences"], "verbs": ["introspect"]}]);
        let metadata = json!({"namespace": AGENTS_NAMESPACE, "name": "introspect"});
        let rbac = "rbac.authorization.k8s.io";
        for object in [
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": metadata, "rules": rules}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "introspect"},
                "subjects": [{"kind": "ServiceAccount", "namespace": AGENTS_NAMESPACE, "name": "server"}]}),
        ] {
            kubectl.apply(&object.to_string()).expect("applied");
        }
        let pod = workload::create_pod(&kubectl, AGENTS_NAMESPACE, "server", "server").expect("a Pod");
        let server = workload::pod_token(&kubectl, AGENTS_NAMESPACE, "server", "server", &pod, issuer, 3600).expect("a token");
        Self { operators, cluster, _postgres: postgres, credentials, server }
    }
}

/// Measures and returns the line to be printed. An agent that is not stopped ends the benchmark.
pub async fn run(replicas: &Replicas) -> Value {
    let asked = Asked {
        cluster: &replicas.cluster,
        operators: &replicas.operators,
        credentials: &replicas.credentials,
        server: &replicas.server,
    };
    measure("revocation", &asked, SUSPENSIONS).await
}

/// Who is asked, and with what.
pub struct Asked<'a> {
    /// Where the agents are.
    pub cluster: &'a Cluster,
    /// The replicas.
    pub operators: &'a [Operator],
    /// The token of a pod of `agent-0`, that of one of `agent-1`, and so on, in [`AGENTS_NAMESPACE`].
    pub credentials: &'a [String],
    /// The token of a resource server.
    pub server: &'a str,
}

/// The same for so many suspensions.
pub async fn measure(bench: &str, asked: &Asked<'_>, suspensions: usize) -> Value {
    let api = api(asked.cluster).await;
    let client = client(&asked.operators[0]);
    let mut measured = Vec::new();
    for number in 0..WARM_UP + suspensions {
        let took = suspend(asked, &api, &client, number % asked.credentials.len()).await;
        if number >= WARM_UP {
            measured.extend(took);
        }
    }
    let at = |percent: usize, value: fn(&Measured) -> f64| {
        let mut sorted: Vec<f64> = measured.iter().map(value).collect();
        sorted.sort_by(f64::total_cmp);
        milliseconds(sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)])
    };
    let (sent, accepted) = (|m: &Measured| m.sent, |m: &Measured| m.accepted);
    if at(99, sent) > BAR {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        eprintln!("bench: agents are stopped later than {BAR} ms; the load of this machine is {}", load.trim_end());
    }
    json!({
        "bench": bench,
        "replicas": asked.operators.len(),
        "samples": measured.len(),
        "from": "patch_sent",
        "p50_ms": at(50, sent),
        "p99_ms": at(99, sent),
        "max_ms": at(100, sent),
        "accepted_p99_ms": at(99, accepted),
    })
}

/// One suspension from beginning to end, after which the agent is as it was.
async fn suspend(asked: &Asked<'_>, api: &Api<Agent>, client: &Client, agent: usize) -> Vec<Measured> {
    let (name, credential) = (format!("agent-{agent}"), &asked.credentials[agent]);
    let urls: Vec<String> = asked.operators.iter().map(Operator::url).collect();
    let token = served(client, &urls, credential).await;
    for url in &urls {
        assert!(is_active(client, url, asked.server, &token).await, "the token is alive everywhere");
    }
    let mut asking: JoinSet<Instant> = JoinSet::new();
    for url in urls {
        let (client, url, credential) = (client.clone(), url, credential.clone());
        let (again, server, token) = (url.clone(), asked.server.to_owned(), token.clone());
        let other = client.clone();
        asking.spawn(async move {
            while exchange(&client, &url, &credential).await.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            Instant::now()
        });
        asking.spawn(async move {
            while is_active(&other, &again, &server, &token).await {
                tokio::time::sleep(PAUSE).await;
            }
            Instant::now()
        });
    }
    // All of them ask by now.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(asking.try_join_next().is_none(), "the agent was refused before anybody stopped it");
    let sent = Instant::now();
    patch(api, &name, true).await;
    let accepted = Instant::now();
    let stopped = tokio::time::timeout(PATIENCE, asking.join_all()).await.expect("every replica stops the agent");
    let since = |start: Instant, end: &Instant| end.saturating_duration_since(start).as_secs_f64();
    let measured = stopped.iter().map(|end| Measured { sent: since(sent, end), accepted: since(accepted, end) }).collect();
    is(api, &name, CONDITION_SUSPENDED).await;
    patch(api, &name, false).await;
    is(api, &name, CONDITION_READY).await;
    measured
}

/// Waits until every replica serves the agent. Returns a token.
async fn served(client: &Client, urls: &[String], credential: &str) -> String {
    let start = Instant::now();
    let mut token = None;
    for url in urls {
        loop {
            token = exchange(client, url, credential).await;
            if token.is_some() {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "the agent is not served");
            tokio::time::sleep(PAUSE).await;
        }
    }
    token.expect("a token")
}

/// The agent's token, unless it is refused.
async fn exchange(client: &Client, url: &str, credential: &str) -> Option<String> {
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", credential),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    let response = client.post(format!("{url}/oauth2/token")).form(&form).send().await.expect("an answer");
    let status = response.status().as_u16();
    let answer: Value = response.json().await.expect("JSON");
    assert!(matches!(status, 200 | 400 | 401), "{status}: {answer}");
    answer["access_token"].as_str().map(str::to_owned)
}

async fn is_active(client: &Client, url: &str, server: &str, token: &str) -> bool {
    let request = client.post(format!("{url}/oauth2/introspect")).bearer_auth(server).form(&[("token", token)]);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.expect("JSON");
    answer["active"].as_bool().expect("active")
}

async fn patch(api: &Api<Agent>, name: &str, suspended: bool) {
    let patch = Patch::Merge(json!({"spec": {"suspended": suspended}}));
    api.patch(name, &PatchParams::default(), &patch).await.expect("the patch is accepted");
}

/// Waits until the condition is True for the current generation.
async fn is(api: &Api<Agent>, name: &str, condition: &str) {
    let start = Instant::now();
    loop {
        let agent = api.get(name).await.expect("the Agent");
        let conditions = agent.status.map(|status| status.conditions).unwrap_or_default();
        if conditions
            .iter()
            .any(|c| c.type_ == condition && c.status == "True" && c.observed_generation == agent.metadata.generation)
        {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{name} is not {condition}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The Agents, by a client of the administrator's.
async fn api(cluster: &Cluster) -> Api<Agent> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration");
    Api::namespaced(kube::Client::try_from(config).expect("a client"), AGENTS_NAMESPACE)
}

/// A client that trusts the operators' authority.
fn client(operator: &Operator) -> Client {
    let pem = std::fs::read(operator.ca_file()).expect("the CA");
    let builder = Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")]);
    builder.timeout(PATIENCE).build().expect("a client")
}
