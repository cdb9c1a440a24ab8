//! A real control plane with agents, pods and their tokens, the operator, and the bare stack.

use crate::bare;
use crate::load::{Answer, Requests, Target};
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::{NAMESPACE, RELEASE, install_chart};
use crate::support::kubectl::Kubectl;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::process::{Guarded, clean_env};
use crate::support::workload;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many agents there are of each kind.
pub const AGENTS: usize = 8;
/// How many pods each agent has whose tokens are exchanged; every pod has a token of its own.
const PODS_PER_AGENT: usize = 4;
/// The namespace of the agents.
pub const AGENTS_NAMESPACE: &str = "bench";
/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One server over TLS and in the clear.
pub struct Server {
    /// Over TLS.
    pub tls: Target,
    /// In the clear.
    pub plain: Target,
}

/// Everything that runs, and the servers to load.
pub struct Fixture {
    // Dropped in this order.
    /// The operator.
    pub operator: Operator,
    _bare: Guarded,
    /// The control plane.
    pub cluster: Cluster,
    /// The operator, to be loaded.
    pub ours: Server,
    /// The bare stack.
    pub bare: Server,
    /// The API server's keys for ServiceAccount tokens.
    pub jwks: String,
    /// The ServiceAccount tokens.
    pub tokens: Vec<String>,
}

impl Fixture {
    /// Starts it all.
    pub fn start() -> Self {
        let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
        install_chart(&cluster, 4, &[]).expect("the chart installs");
        let [plain, bare_tls, bare_plain] = free_addresses();
        let options = OperatorOptions { args: vec![format!("--insecure-http-address={plain}")], ..OperatorOptions::default() };
        let operator =
            Operator::start(&cluster, Path::new(env!("CARGO_BIN_EXE_countersign")), &options).expect("the operator starts");
        wait_until("the admission policies are in force", || {
            operator.get("/metrics").is_ok_and(|m| m.body.contains("countersign_admission_policies_in_force 1"))
        });

        let kubectl = cluster.kubectl();
        workload::create_namespace(&kubectl, AGENTS_NAMESPACE).expect("a namespace");
        let tokens = interleaved(agents(&kubectl, operator.issuer(), "agent", PODS_PER_AGENT, &capabilities()));
        let jwks = kubectl.run(&["get", "--raw", "/openid/v1/jwks"]).expect("the JWKS");
        let bare = start_bare(&cluster, &jwks, operator.issuer(), bare_tls, bare_plain);

        let tls: SocketAddr = operator.url().trim_start_matches("https://").parse().expect("an address");
        let client = tls_client(operator.ca_file());
        let requests = exchanges(&tokens);
        let server = |name, tls, plain| {
            let target = |address, tls| Target { name, address, tls, requests: requests.clone(), answer: Answer::NewToken };
            Server { tls: target(tls, Some(Arc::clone(&client))), plain: target(plain, None) }
        };
        Self {
            ours: server("the operator", tls, plain),
            bare: server("the bare stack", bare_tls, bare_plain),
            jwks,
            tokens,
            operator,
            _bare: bare,
            cluster,
        }
    }
}

/// What the agents may do whose tokens are counted.
pub fn capabilities() -> Value {
    json!([{"name": "document.read", "resources": ["document:reports/*"]}, {"name": "web.search"}])
}

/// Registers agents with these capabilities, which are Ready on return, and returns the tokens of the pods of each.
pub fn agents(kubectl: &Kubectl, issuer: &str, kind: &str, pods: usize, capabilities: &Value) -> Vec<Vec<String>> {
    std::thread::scope(|scope| {
        let register = |i| scope.spawn(move || agent(kubectl, issuer, &format!("{kind}-{i}"), pods, capabilities));
        let threads: Vec<_> = (0..AGENTS).map(register).collect();
        threads.into_iter().map(|thread| thread.join().expect("an agent")).collect()
    })
}

/// The first of each, then the second of each, and so on.
fn interleaved(of_agents: Vec<Vec<String>>) -> Vec<String> {
    let mut of_agents: Vec<_> = of_agents.into_iter().map(Vec::into_iter).collect();
    (0..PODS_PER_AGENT).flat_map(|_| of_agents.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()).collect()
}

/// Registers an agent with its pods and returns their tokens.
fn agent(kubectl: &Kubectl, issuer: &str, name: &str, pods: usize, capabilities: &Value) -> Vec<String> {
    register(kubectl, name, &json!({"serviceAccounts": [{"name": name}]}), capabilities);
    pods_of(kubectl, issuer, name, pods)
}

/// Makes a ServiceAccount with its pods and returns their tokens.
pub fn pods_of(kubectl: &Kubectl, issuer: &str, name: &str, pods: usize) -> Vec<String> {
    workload::create_service_account(kubectl, AGENTS_NAMESPACE, name).expect("a ServiceAccount");
    let pod_token = |number: usize| {
        let pod = format!("{name}-{number}");
        let uid = workload::create_pod(kubectl, AGENTS_NAMESPACE, &pod, name).expect("a Pod");
        workload::pod_token(kubectl, AGENTS_NAMESPACE, name, &pod, &uid, issuer, 3600).expect("a token")
    };
    (0..pods).map(pod_token).collect()
}

/// A ServiceAccount that may introspect `audience`; returns its token.
pub fn resource_server(kubectl: &Kubectl, issuer: &str, name: &str, audience: &str) -> String {
    let token = pods_of(kubectl, issuer, name, 1).remove(0);
    let rights = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"namespace": AGENTS_NAMESPACE, "name": name},
        "rules": [{"apiGroups": ["countersign.dev"], "resources": ["audiences"], "resourceNames": [audience], "verbs": ["introspect"]}]});
    kubectl.apply(&rights.to_string()).expect("a Role");
    let (role, account) = (format!("--role={name}"), format!("--serviceaccount={AGENTS_NAMESPACE}:{name}"));
    kubectl.run(&["create", "rolebinding", name, &role, &account, "-n", AGENTS_NAMESPACE]).expect("a RoleBinding");
    token
}

/// Registers an agent that proves itself so, which is Ready on return.
pub fn register(kubectl: &Kubectl, name: &str, identity: &Value, capabilities: &Value) {
    register_with(kubectl, name, identity, capabilities, &json!({}));
}

/// The same, with a delegation.
pub fn register_with(kubectl: &Kubectl, name: &str, identity: &Value, capabilities: &Value, delegation: &Value) {
    let agent = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"namespace": AGENTS_NAMESPACE, "name": name},
        "spec": {
            "owner": "team@example.com",
            "identity": identity,
            "capabilities": capabilities,
            "delegation": delegation,
            "tokens": {"expirationSeconds": 900, "audiences": [{"name": "https://docs.example.com"}]},
        },
    });
    kubectl.apply(&agent.to_string()).expect("the Agent is accepted");
    kubectl.wait_for(AGENTS_NAMESPACE, &format!("agent/{name}"), "condition=Ready", PATIENCE).expect("the Agent is Ready");
}

/// The exchange of each token (RFC 8693), again and again.
pub fn exchanges(tokens: &[String]) -> Requests {
    let exchange = |token: &String| {
        request(&format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token={token}&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt"
        ))
    };
    Requests::Repeated(Arc::new(tokens.iter().map(exchange).collect()))
}

/// A token request with this body, as bytes on the wire.
pub fn request(body: &str) -> Vec<u8> {
    post("/oauth2/token", "", body)
}

/// A form, as bytes on the wire. Each of `headers` ends with CR and LF.
pub fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n{headers}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// JSON, as bytes on the wire.
pub fn post_json(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n{headers}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Exchanges a ServiceAccount token once.
pub fn exchange_of(fixture: &Fixture, token: &str) -> String {
    let pem = std::fs::read(fixture.operator.ca_file()).expect("the CA");
    let certificate = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    let http = reqwest::blocking::Client::builder().tls_certs_only([certificate]).build().expect("a client");
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", token),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    let sent = http.post(format!("{}/oauth2/token", fixture.operator.url())).form(&form).send().expect("an answer");
    let reply: Value = serde_json::from_str(&sent.text().expect("a text")).expect("JSON");
    reply["access_token"].as_str().unwrap_or_else(|| panic!("no token: {reply}")).to_owned()
}

/// Starts this binary as the bare stack, with the operator's certificate and the API server's keys.
fn start_bare(cluster: &Cluster, jwks: &str, issuer: &str, tls: SocketAddr, plain: SocketAddr) -> Guarded {
    let directory = cluster.directory().subdirectory("bare").expect("a directory");
    std::fs::write(directory.join("jwks.json"), jwks).expect("written");
    certificate_into(cluster, &directory);
    let directory_text = directory.display().to_string();
    let arguments = [bare::ARGUMENT.to_owned(), directory_text, issuer.to_owned(), tls.to_string(), plain.to_string()];
    let binary = std::env::current_exe().expect("this binary");
    let process = Guarded::spawn(&directory, "bare", &binary, &arguments, &clean_env(&directory)).expect("the bare stack starts");
    wait_until("the bare stack listens", || {
        assert!(process.exited().is_none(), "the bare stack ended: {}", process.log_tail());
        TcpStream::connect(plain).is_ok()
    });
    process
}

/// Writes the operator's certificate and its key, `tls.crt` and `tls.key`, for a server beside it.
pub fn certificate_into(cluster: &Cluster, directory: &Path) {
    for file in ["tls.crt", "tls.key"] {
        let template = format!("go-template={{{{index .data {file:?} | base64decode}}}}");
        let secret = ["get", "secret", RELEASE, "--namespace", NAMESPACE, "-o", &template];
        std::fs::write(directory.join(file), cluster.kubectl().run(&secret).expect("the certificate")).expect("written");
    }
}

/// A TLS client that trusts the operator's authority.
pub fn tls_client(ca_file: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).expect("the CA")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Addresses on loopback that were free a moment ago.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

/// Waits until `check` holds.
pub fn wait_until(what: &str, check: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, check);
}

/// The same, at most for `limit`.
pub fn wait_within(limit: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !check() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
