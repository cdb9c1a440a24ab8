//! Ten thousand Agents with their ServiceAccounts, a hundred thousand Pods, a thousand questions to people, made through the API server
//! and the operator. No kubelet runs the pods.

use crate::fixture::PATIENCE;
use crate::support::cluster::Cluster;
use crate::support::kubectl::Kubectl;
use crate::support::operator::Operator;
use crate::support::workload;
use axum::http::Request;
use futures::StreamExt as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many namespaces the agents live in.
const NAMESPACES: usize = 100;
/// How many objects are written at once.
const AT_ONCE: usize = 64;
/// How many questions are.
const ASKED_AT_ONCE: usize = 16;
/// How long it may take until all Agents are Ready.
const READY_WITHIN: Duration = Duration::from_secs(900);
/// Who the tokens are for.
const DOCS: &str = "https://docs.example.com";
/// What an agent may do on its own.
const READ: &str = "document.read";
/// What it may do when a person agrees.
const PAY: &str = "payment.create";
/// How long a question stands, in seconds. None is to end while anything is measured.
const STANDS: &str = "86400";

/// What there is on a cluster.
pub struct Population {
    client: Client,
    kubectl: Kubectl,
    /// How many Agents there are, numbered from 0.
    pub agents: usize,
    /// How many Pods, numbered from 0: pod `n` is one of agent `n % agents`.
    pub pods: usize,
    /// How many questions wait for a decision.
    pub requests: usize,
}

/// The namespace of an agent.
fn namespace(agent: usize) -> String {
    format!("scale-{}", agent % NAMESPACES)
}

/// The name of an agent and of its ServiceAccount.
fn name(agent: usize) -> String {
    format!("agent-{agent}")
}

impl Population {
    /// Namespaces and the catalogue.
    pub async fn on(cluster: &Cluster) -> Self {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a configuration")).expect("a client");
        let population = Self { client, kubectl: cluster.kubectl(), agents: 0, pods: 0, requests: 0 };
        let namespaces = (0..NAMESPACES).map(|n| {
            (
                "/api/v1/namespaces".to_owned(),
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(n)}}),
            )
        });
        population.create(namespaces).await;
        let capability = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Capability", "metadata": {"name": PAY},
            "spec": {"title": "Pay an invoice", "risk": "High", "approval": {"required": true}},
        });
        population.create([("/apis/countersign.dev/v1alpha1/capabilities".to_owned(), capability)].into_iter()).await;
        population
    }

    /// Makes objects, many at once. Returns how many a second.
    async fn create(&self, objects: impl Iterator<Item = (String, Value)>) -> f64 {
        let begun = Instant::now();
        let create = |(path, object): (String, Value)| async move {
            let request = Request::post(&path).header("content-type", "application/json");
            let request = request.body(object.to_string().into_bytes()).expect("a request");
            let created: kube::Result<IgnoredAny> = self.client.request(request).await;
            created.unwrap_or_else(|error| panic!("{path}: {error}"));
        };
        let created = futures::stream::iter(objects.map(create)).buffer_unordered(AT_ONCE).count().await;
        (created as f64 / begun.elapsed().as_secs_f64()).round()
    }

    /// Adds Agents until there are so many, each with a ServiceAccount. Returns how many Agents were made a second.
    pub async fn grow(&mut self, agents: usize) -> f64 {
        let accounts = (self.agents..agents).map(|n| {
            let metadata = json!({"namespace": namespace(n), "name": name(n)});
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
            (format!("/api/v1/namespaces/{}/serviceaccounts", namespace(n)), account)
        });
        self.create(accounts).await;
        let rate = self.create((self.agents..agents).map(agent)).await;
        self.agents = agents;
        rate
    }

    /// Waits until every Agent is Ready.
    pub async fn ready(&self) {
        let deadline = Instant::now() + READY_WITHIN;
        // As a rule the last one made is the last one judged. To ask for all of them all the time would be most of the work.
        let last = self.agents - 1;
        let path = format!("/apis/countersign.dev/v1alpha1/namespaces/{}/agents/{}", namespace(last), name(last));
        while !self.get::<Object>(&path).await.is_ready() {
            assert!(Instant::now() < deadline, "the last Agent is not Ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loop {
            let list: List = self.get("/apis/countersign.dev/v1alpha1/agents").await;
            let waiting = list.items.iter().filter(|agent| !agent.is_ready()).count();
            if waiting == 0 && list.items.len() >= self.agents {
                return;
            }
            assert!(Instant::now() < deadline, "{waiting} Agents are not Ready");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> T {
        let request = Request::get(path).body(Vec::new()).expect("a request");
        self.client.request(request).await.expect("an answer")
    }

    /// Adds Pods until there are so many, which nothing runs. Returns how many were made a second.
    pub async fn deploy(&mut self, pods: usize) -> f64 {
        let (agents, before) = (self.agents, self.pods);
        let pods_of = (before..pods).map(|n| pod(n % agents, n));
        let rate = self.create(pods_of).await;
        self.pods = self.pods.max(pods);
        rate
    }

    /// The token of pod `pod` of agent `agent`, for the operator.
    pub fn token(&self, agent: usize, pod: usize, issuer: &str) -> String {
        let (namespace, account, pod) = (namespace(agent), name(agent), format!("agent-{agent}-{pod}"));
        let uid = self.kubectl.run(&["get", "pod", &pod, "-n", &namespace, "-o", "jsonpath={.metadata.uid}"]).expect("a Pod");
        workload::pod_token(&self.kubectl, &namespace, &account, &pod, &uid, issuer, 3600).expect("a token")
    }

    /// Lets agents ask people, as many questions each, until so many wait. Returns how many were filed a second.
    pub async fn ask(&mut self, operator: &Operator, credentials: &[(usize, String)], requests: usize) -> f64 {
        let pem = std::fs::read(operator.ca_file()).expect("the CA");
        let authority = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let client = reqwest::Client::builder().tls_certs_only([authority]).timeout(PATIENCE).build().expect("a client");
        let url = format!("{}/oauth2/bc-authorize", operator.url());
        let ask = |number: usize| {
            let (agent, credential) = &credentials[number % credentials.len()];
            let details = json!([{
                "type": "countersign_operation", "capability": PAY, "resource": format!("invoice:2026/{number}"),
                "parameters": {"amount": "120.00", "currency": "EUR"},
            }]);
            let form = [
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
                ("client_assertion", credential.clone()),
                ("login_hint", format!("agent:{}/{}", namespace(*agent), name(*agent))),
                ("authorization_details", details.to_string()),
                ("requested_expiry", STANDS.to_owned()),
            ];
            let (client, url) = (&client, &url);
            async move {
                let begun = Instant::now();
                loop {
                    let answer = client.post(url).form(&form).send().await.expect("an answer");
                    let (status, body) = (answer.status(), answer.text().await.expect("a body"));
                    match status.as_u16() {
                        200 => return,
                        // The API server has more to do than it can: agents try again.
                        503 if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(200)).await,
                        _ => panic!("{status}: {body}"),
                    }
                }
            }
        };
        let begun = Instant::now();
        let filed = futures::stream::iter((self.requests..requests).map(ask)).buffer_unordered(ASKED_AT_ONCE).count().await;
        let rate = (filed as f64 / begun.elapsed().as_secs_f64()).round();
        self.requests = self.requests.max(requests);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list: List = self.get("/apis/countersign.dev/v1alpha1/jitrequests").await;
            let pending = list.items.iter().filter(|request| request.status.phase.as_deref() == Some("Pending")).count();
            if pending >= self.requests {
                return rate;
            }
            assert!(Instant::now() < deadline, "{pending} of {} requests are Pending", self.requests);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// An Agent like many: three capabilities, one of them under a condition that its team has written, one with a person's approval.
fn agent(number: usize) -> (String, Value) {
    let namespace = namespace(number);
    let object = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"namespace": namespace, "name": name(number), "labels": {"app.kubernetes.io/part-of": "scale"}},
        "spec": {
            "displayName": format!("Agent {number}"),
            "owner": format!("team-{}@example.com", number % NAMESPACES),
            "identity": {"serviceAccounts": [{"name": name(number)}]},
            "capabilities": [
                {"name": READ, "resources": ["document:reports/*", "document:public/*"],
                    "when": format!("!has(context.pages) || context.pages < {}", 100 + number % NAMESPACES)},
                {"name": "web.search"},
                {"name": PAY, "approval": "Required"},
            ],
            "tokens": {"expirationSeconds": 900, "audiences": [{"name": DOCS}]},
        },
    });
    (format!("/apis/countersign.dev/v1alpha1/namespaces/{namespace}/agents"), object)
}

/// A Pod as a Deployment makes them, of that ServiceAccount.
fn pod(agent: usize, number: usize) -> (String, Value) {
    let (namespace, account) = (namespace(agent), name(agent));
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{account}-6c9f8d7b5"),
        "uid": format!("00000000-0000-4000-8000-{agent:012}"), "controller": true, "blockOwnerDeletion": true});
    let labels: BTreeMap<&str, &str> = [
        ("app.kubernetes.io/name", account.as_str()),
        ("app.kubernetes.io/part-of", "scale"),
        ("app.kubernetes.io/managed-by", "Helm"),
        ("pod-template-hash", "6c9f8d7b5"),
    ]
    .into();
    let environment: Vec<Value> =
        ["MODEL", "REGION", "LOG_LEVEL", "TEAM"].map(|name| json!({"name": name, "value": "value"})).into();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": format!("{account}-{number}"), "labels": labels, "ownerReferences": [owner],
            "annotations": {"kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "agent", "image": "registry.example.com/agents/agent:1.0.0", "env": environment,
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            }],
        },
    });
    (format!("/api/v1/namespaces/{namespace}/pods"), object)
}

/// As much of a list as is looked at.
#[derive(Deserialize)]
struct List {
    items: Vec<Object>,
}

/// As much of an object as is looked at.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    phase: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Object {
    fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}
