//! How long an approval takes to become a token: from a person's decision until the agent, which waits in a poll, has its token.
//!
//! One request after the other, as people decide. All of it is real: the person is a user of the API server with the verb
//! `approve` and nothing else, sees the request in a watch and patches its status; the decision goes through admission, and the
//! agent's poll over TLS.

use crate::fixture::{AGENTS_NAMESPACE, Fixture, PATIENCE, agents, wait_until};
use crate::milliseconds;
use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::workload;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::crd::{JitRequest, Phase};
use futures::{Stream, TryStreamExt as _};
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Config, ResourceExt as _};
use reqwest::Client;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// How many approvals are measured.
const REQUESTS: usize = 300;
/// How many come before that and do not count: they open connections.
const WARM_UP: usize = 16;
/// How long a poll has been under way when the person decides. It only has to arrive.
const HELD: Duration = Duration::from_millis(50);
/// What is asked for.
const CAPABILITY: &str = "payment.create";
/// Who decides.
pub const PERSON: &str = "bob";
/// Within how many milliseconds 99 of 100 tokens should be there.
const BAR: f64 = 250.0;

/// What one approval took, in seconds.
struct Measured {
    /// From when the person's decision was sent.
    sent: f64,
    /// From when the API server had accepted it.
    accepted: f64,
}

/// The requests for approval as the person sees them.
type Seen = Pin<Box<dyn Stream<Item = watcher::Result<JitRequest>>>>;

/// Measures and returns the line to be printed. A token that does not come, is for another request or was there before ends the
/// benchmark.
pub async fn run(fixture: &Fixture) -> Value {
    let agents = prepare(&fixture.cluster, &fixture.operator);
    let requests = as_person(fixture).await;
    let mut seen: Seen = Box::pin(watcher(requests.clone(), watcher::Config::default()).applied_objects());
    let client = client(&fixture.operator);
    let (mut measured, mut identifiers) = (Vec::new(), HashSet::new());
    for number in 0..WARM_UP + REQUESTS {
        let agent = Agent::in_turn(&client, &fixture.operator, &agents, number);
        let (took, identifier) = approve(&agent, number, &requests, &mut seen).await;
        assert!(identifiers.insert(identifier), "two tokens have one jti");
        if number >= WARM_UP {
            measured.push(took);
        }
    }
    assert_eq!(measured.len(), REQUESTS, "a token is missing");
    let at = |percent: usize, value: fn(&Measured) -> f64| {
        let mut sorted: Vec<f64> = measured.iter().map(value).collect();
        sorted.sort_by(f64::total_cmp);
        milliseconds(sorted[sorted.len() * percent / 100])
    };
    let (sent, accepted) = (|m: &Measured| m.sent, |m: &Measured| m.accepted);
    if at(99, sent) > BAR {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        eprintln!("bench: approvals are slower than {BAR} ms; the load of this machine is {}", load.trim_end());
    }
    json!({
        "bench": "approval",
        "requests": REQUESTS,
        "from": "patch_accepted",
        "p50_ms": at(50, accepted),
        "p99_ms": at(99, accepted),
        "sent_p50_ms": at(50, sent),
        "sent_p99_ms": at(99, sent),
    })
}

/// Puts the capability into the catalogue, lets the person decide about it, and returns the tokens of the agents that have it.
pub fn prepare(cluster: &Cluster, operator: &Operator) -> Vec<String> {
    // What is written before that counts for nothing.
    wait_until("the admission policies are in force", || {
        operator.get("/metrics").is_ok_and(|m| m.body.contains("countersign_admission_policies_in_force 1"))
    });
    let kubectl = cluster.kubectl();
    if kubectl.run(&["get", "namespace", AGENTS_NAMESPACE]).is_err() {
        workload::create_namespace(&kubectl, AGENTS_NAMESPACE).expect("a namespace");
    }
    let rbac = "rbac.authorization.k8s.io";
    let binding = |kind: &str, role: &str| {
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "RoleBinding",
            "metadata": {"namespace": AGENTS_NAMESPACE, "name": role},
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": role},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": PERSON}],
        })
    };
    let rules = json!([
        {"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [CAPABILITY], "verbs": ["approve"]},
    ]);
    let objects = [
        json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Capability",
            "metadata": {"name": CAPABILITY},
            "spec": {"title": "Pay an invoice", "risk": "High", "approval": {"required": true}},
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "Role",
            "metadata": {"namespace": AGENTS_NAMESPACE, "name": "approve-payments"},
            "rules": rules,
        }),
        binding("Role", "approve-payments"),
        binding("ClusterRole", "countersign-approver"),
    ];
    for object in objects {
        kubectl.apply(&object.to_string()).expect("applied");
    }
    let capability = format!("capability/{CAPABILITY}");
    kubectl.wait_for(AGENTS_NAMESPACE, &capability, "condition=Ready", PATIENCE).expect("the Capability is Ready");
    let capabilities = json!([{"name": CAPABILITY, "approval": "Required"}]);
    agents(&kubectl, operator.issuer(), "payer", 1, &capabilities).into_iter().flatten().collect()
}

/// The requests, by a client of the person's.
async fn as_person(fixture: &Fixture) -> Api<JitRequest> {
    let file = fixture.cluster.kubeconfig_for(PERSON).expect("a user");
    let kubeconfig = Kubeconfig::read_from(file).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration");
    Api::namespaced(kube::Client::try_from(config).expect("a client"), AGENTS_NAMESPACE)
}

/// A client that trusts the operator's authority.
pub fn client(operator: &Operator) -> Client {
    let pem = std::fs::read(operator.ca_file()).expect("the CA");
    let builder = Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")]);
    builder.timeout(PATIENCE).build().expect("a client")
}

/// One approval from beginning to end. Returns what it took and the identifier of the token.
async fn approve(agent: &Agent, number: usize, requests: &Api<JitRequest>, seen: &mut Seen) -> (Measured, String) {
    let uid = agent.ask(number).await;
    let request = tokio::time::timeout(PATIENCE, pending(seen, &uid)).await.expect("the request waits for a decision");
    let poll = tokio::spawn(agent.clone().poll(uid.clone()));
    tokio::time::sleep(HELD).await;
    assert!(!poll.is_finished(), "the poll was answered before anybody decided: {:?}", poll.await);

    let digest = request.status.as_ref().and_then(|status| status.digest.as_deref());
    let decision = json!({"status": {"decision": {"verdict": "Approved", "comment": "looked at it", "digest": digest}}});
    let sent = Instant::now();
    let patched = requests.patch_status(&request.name_any(), &PatchParams::default(), &Patch::Merge(decision)).await;
    let accepted = Instant::now();
    patched.expect("the decision is accepted");
    let (token, in_hand) = poll.await.expect("a token");

    let claims = claims(&token);
    assert_eq!(claims["authorization_details"][0]["jit_request"], uid.as_str(), "the token is for another request");
    agent.complete(&token).await;
    // A token can be in hand before the answer to the decision is.
    let since = |start: Instant| in_hand.saturating_duration_since(start).as_secs_f64();
    (Measured { sent: since(sent), accepted: since(accepted) }, claims["jti"].as_str().expect("a jti").to_owned())
}

/// Waits until the person sees the request of this UID, ready to be decided.
async fn pending(seen: &mut Seen, uid: &str) -> JitRequest {
    loop {
        let request = seen.try_next().await.expect("the watch").expect("the watch goes on");
        let status = request.status.as_ref().filter(|status| status.digest.is_some());
        if request.uid().as_deref() == Some(uid) && status.is_some_and(|status| status.phase == Some(Phase::Pending)) {
            return request;
        }
    }
}

/// An agent and its credential.
#[derive(Clone)]
pub struct Agent {
    client: Client,
    url: String,
    name: String,
    credential: String,
}

impl Agent {
    /// The agent whose turn it is: one after the other of those that [`prepare`] made.
    pub fn in_turn(client: &Client, operator: &Operator, credentials: &[String], number: usize) -> Self {
        let turn = number % credentials.len();
        Self { client: client.clone(), url: operator.url(), name: format!("payer-{turn}"), credential: credentials[turn].clone() }
    }

    /// Asks for an approval and returns the UID of the request.
    pub async fn ask(&self, number: usize) -> String {
        let details = json!([{
            "type": "countersign_operation",
            "capability": CAPABILITY,
            "resource": format!("invoice:2026/{number}"),
            "parameters": {"amount": "120.00", "currency": "EUR"},
        }]);
        let (details, hint) = (details.to_string(), format!("agent:{AGENTS_NAMESPACE}/{}", self.name));
        let answer = self.post("/oauth2/bc-authorize", &[("login_hint", &hint), ("authorization_details", &details)]).await;
        answer["auth_req_id"].as_str().expect("an auth_req_id").to_owned()
    }

    /// Waits for the token. Returns it, and when it was there.
    async fn poll(self, uid: String) -> (String, Instant) {
        let form = [("grant_type", "urn:openid:params:grant-type:ciba"), ("auth_req_id", uid.as_str())];
        let answer = self.post("/oauth2/token", &form).await;
        let in_hand = Instant::now();
        (answer["access_token"].as_str().expect("an access token").to_owned(), in_hand)
    }

    /// Withdraws a request.
    pub async fn withdraw(&self, uid: &str) {
        // The answer has no body (RFC 7009 section 2.2).
        self.send("/oauth2/revoke", &[("token", uid)]).await;
    }

    /// Reports the operation as done, so that the next one is not one too many.
    async fn complete(&self, token: &str) {
        self.post("/jit/complete", &[("token", token)]).await;
    }

    /// POSTs a form with the credential and returns the JSON in the answer.
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        serde_json::from_slice(&self.send(path, form).await).expect("JSON")
    }

    /// POSTs a form with the credential. Any answer but 200 ends the benchmark.
    async fn send(&self, path: &str, form: &[(&str, &str)]) -> Vec<u8> {
        let assertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let mut form = form.to_vec();
        form.extend([("client_assertion_type", assertion), ("client_assertion", self.credential.as_str())]);
        let response = self.client.post(format!("{}{path}", self.url)).form(&form).send().await.expect("an answer");
        let (status, body) = (response.status(), response.bytes().await.expect("a body"));
        assert!(status == 200, "{path} answers {status}: {}", String::from_utf8_lossy(&body));
        body.to_vec()
    }
}

/// The claims of a token, unverified.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
}
