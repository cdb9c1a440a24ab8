//! The authorization check, by a resource server with the tokens that it was shown, while ten thousand Agents are registered: one question in
//! a request, and twenty.

use crate::fixture::{AGENTS, AGENTS_NAMESPACE, Fixture, agents, exchange_of, post_json, resource_server, wait_within};
use crate::load::{self, Answer, Measured, Requests, Target};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const DOCS: &str = "https://docs.example.com";
/// How many Agents there are beside those that ask.
const REGISTERED: usize = 10_000;
/// How many of them are written at once.
const AT_ONCE: usize = 48;
/// How long it may take until all of them are.
const REGISTERED_WITHIN: Duration = Duration::from_secs(600);
/// How many questions are in one request.
const BATCH: usize = 20;
/// Length of the round that counts.
const ROUND: Duration = Duration::from_secs(5);

/// Registers the agents, asks, and returns one line.
pub fn run(fixture: &Fixture, runtime: &tokio::runtime::Runtime) -> Value {
    runtime.block_on(register(fixture));
    let (kubectl, us) = (fixture.cluster.kubectl(), fixture.operator.issuer());
    let last = format!("agent/many-{}", REGISTERED - 1);
    wait_within(REGISTERED_WITHIN, "all Agents are judged", || {
        kubectl.wait_for(AGENTS_NAMESPACE, &last, "condition=Admitted", Duration::from_secs(5)).is_ok()
    });
    let when = json!([{"name": "document.read", "resources": ["document:reports/*"], "when": "!has(context.pages) || context.pages < 100"}]);
    let owned: Vec<String> = agents(&kubectl, us, "asked", 1, &when).into_iter().flatten().collect();
    let server = resource_server(&kubectl, us, "asking-server", DOCS);
    let questions: Vec<Value> = (0..AGENTS)
        .map(|number| {
            let token = exchange_of(fixture, &owned[number]);
            json!({
                "subject": {"type": "agent", "id": format!("agent:{AGENTS_NAMESPACE}/asked-{number}")},
                "action": {"name": "document.read", "properties": {"pages": 7}},
                "resource": {"type": "document", "id": format!("reports/{number}")},
                "context": {"access_token": token},
            })
        })
        .collect();
    let authorization = format!("authorization: Bearer {server}\r\n");
    let target = |path: &str, bodies: Vec<String>| {
        let requests = bodies.iter().map(|body| post_json(path, &authorization, body)).collect();
        Target { requests: Requests::Repeated(Arc::new(requests)), answer: Answer::Allowed, ..fixture.ours.tls.clone() }
    };
    let single = target("/access/v1/evaluation", questions.iter().map(ToString::to_string).collect());
    let batch = |question: &Value| json!({"evaluations": vec![question; BATCH]}).to_string();
    let batches = target("/access/v1/evaluations", questions.iter().map(batch).collect());
    let mut line = json!({"bench": "evaluation", "agents": REGISTERED, "connections": 16});
    for (name, target, each) in [("single", single, 1), ("batch", batches, BATCH)] {
        runtime.block_on(load::run(&target, 16, Duration::from_secs(1)));
        let Measured { per_second, p50, p99 } = runtime.block_on(load::run(&target, 16, ROUND));
        line[format!("{name}_evaluations_per_second")] = json!((per_second * each as f64).round());
        line[format!("{name}_p50_ms")] = json!((p50 * 1e6).round() / 1e3);
        line[format!("{name}_p99_ms")] = json!((p99 * 1e6).round() / 1e3);
    }
    line
}

/// Writes the Agents, many at once.
async fn register(fixture: &Fixture) {
    use futures::StreamExt as _;
    let kubeconfig = Kubeconfig::read_from(fixture.cluster.kubeconfig()).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration");
    let api: Api<countersign::crd::Agent> = Api::namespaced(kube::Client::try_from(config).expect("a client"), AGENTS_NAMESPACE);
    let create = |number: usize| {
        let api = api.clone();
        async move {
            let agent = json!({
                "apiVersion": "countersign.dev/v1alpha1",
                "kind": "Agent",
                "metadata": {"namespace": AGENTS_NAMESPACE, "name": format!("many-{number}")},
                "spec": {
                    "owner": "team@example.com",
                    "identity": {"serviceAccounts": [{"name": format!("many-{number}")}]},
                    "capabilities": [{"name": "document.read", "resources": ["document:reports/*"], "when": "chain.depth == 1"}],
                    "tokens": {"audiences": [{"name": DOCS}]},
                },
            });
            let agent = serde_json::from_value(agent).expect("an Agent");
            api.create(&PostParams::default(), &agent).await.expect("the Agent is accepted");
        }
    };
    futures::stream::iter((0..REGISTERED).map(create)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}
