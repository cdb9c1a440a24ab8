//! What the tests share: a cluster with the chart and an operator, and agents that have a namespace of their own.

use crate::rights::RBAC;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::{install_chart, is_passing};
use crate::support::kubectl::Kubectl;
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::postgres::Postgres;
use crate::support::workload;
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Generous: how long anything may take on a busy machine before a test calls it stuck.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The audience of the agents in the tests.
pub const DOCS: &str = "https://docs.example.com";

/// The stamp: who wrote the current spec.
pub const CHANGED_BY: &str = "countersign.dev/changed-by";

pub const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The operator's binary.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_countersign"))
}

/// A cluster with the chart installed and an operator.
pub struct World {
    // The operator ends first.
    pub operator: Operator,
    pub cluster: Cluster,
    pub http: Client,
    /// Of the operator, if it can be shared.
    database: Option<String>,
}

/// How the people of a cluster write objects: with MutatingAdmissionPolicy they leave the stamp to it, without they write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    ByPolicy,
    ByHand,
}

impl World {
    /// The one that most tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<World> = OnceLock::new();
        SHARED.get_or_init(Self::start_shareable)
    }

    /// Another, where people write the stamps themselves, installed by Helm 3.
    pub fn without_mutating_policies() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(|| Self::start(3, &[("admission.mutating", "false")], &[]))
    }

    /// Both: each rule of admission is tried where the API server stamps and where people do.
    pub fn both() -> [(&'static Self, Stamp); 2] {
        [(Self::shared(), Stamp::ByPolicy), (Self::without_mutating_policies(), Stamp::ByHand)]
    }

    /// One of its own.
    pub fn start(helm: u8, values: &[(&str, &str)], args: &[&str]) -> Self {
        Self::start_on(&ClusterOptions::default(), helm, values, args)
    }

    /// One of its own, on a cluster with these options.
    pub fn start_on(options: &ClusterOptions, helm: u8, values: &[(&str, &str)], args: &[&str]) -> Self {
        Self::start_with(options, helm, values, args, None)
    }

    /// One of its own on PostgreSQL, where there may be [another](Self::another) operator.
    pub fn start_shareable() -> Self {
        Self::start_shareable_on(&ClusterOptions::default(), &[])
    }

    /// The same on a cluster with these options, and with these arguments for the operator.
    pub fn start_shareable_on(options: &ClusterOptions, args: &[&str]) -> Self {
        let database = Postgres::shared().database().expect("a database");
        Self::start_with(options, 4, &[], args, Some(database))
    }

    /// One of its own on the database of that URL, where there may be [another](Self::another) operator.
    pub fn start_on_database(url: String) -> Self {
        Self::start_on_both(&ClusterOptions::default(), url)
    }

    /// The same on a cluster with these options.
    pub fn start_on_both(options: &ClusterOptions, url: String) -> Self {
        Self::start_with(options, 4, &[], &[], Some(url))
    }

    fn start_with(options: &ClusterOptions, helm: u8, values: &[(&str, &str)], args: &[&str], database: Option<String>) -> Self {
        let cluster = Cluster::start(options).expect("a cluster");
        install_chart(&cluster, helm, values).expect("the chart installs");
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let options = OperatorOptions { args, database: database.clone(), ..OperatorOptions::default() };
        let operator = Operator::start(&cluster, binary(), &options).expect("the operator starts");
        let http = client(&operator);
        let world = Self { operator, cluster, http, database };
        wait_until("the admission policies are in force", PATIENCE, || {
            world.operator.get("/metrics").is_ok_and(|m| m.body.contains("countersign_admission_policies_in_force 1"))
        });
        world
    }

    /// The URL of the database of one that is shareable.
    pub fn database(&self) -> &str {
        self.database.as_deref().expect("a PostgreSQL database")
    }

    /// Another operator on this cluster, with the database of the first.
    pub fn another(&self, options: OperatorOptions) -> Operator {
        assert!(self.database.is_some(), "operators on one cluster share a database: World::start_shareable");
        let options = OperatorOptions { database: self.database.clone(), ..options };
        Operator::start(&self.cluster, binary(), &options).expect("another operator starts")
    }

    /// Starts the operator anew, under the same issuer and with the same database. It must have ended, or be told to.
    pub fn restart(&mut self) -> crate::support::error::Result<()> {
        let issuer = Some(self.operator.issuer().to_owned());
        let options = OperatorOptions { issuer, database: self.database.clone(), ..OperatorOptions::default() };
        self.operator.process().begin_stop();
        self.operator.process().wait(PATIENCE)?;
        self.operator = Operator::start(&self.cluster, binary(), &options)?;
        Ok(())
    }

    pub fn kubectl(&self) -> Kubectl {
        self.cluster.kubectl()
    }

    /// A namespace that nobody else uses.
    pub fn namespace(&self, purpose: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{purpose}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        workload::create_namespace(&self.kubectl(), &name).expect("a namespace");
        name
    }

    /// An Agent `bot` that is Ready, with its ServiceAccount, a Pod, and the Pod's token.
    pub fn tenant(&self, purpose: &str) -> Tenant<'_> {
        self.tenant_with(purpose, &json!({}))
    }

    /// The same, with members of the spec replaced.
    pub fn tenant_with(&self, purpose: &str, spec: &Value) -> Tenant<'_> {
        self.tenant_in(self.namespace(purpose), spec)
    }

    /// The same, in this namespace.
    pub fn tenant_in(&self, namespace: String, spec: &Value) -> Tenant<'_> {
        let kubectl = self.kubectl();
        let service_account_uid = workload::create_service_account(&kubectl, &namespace, "bot").expect("a ServiceAccount");
        let pod_uid = workload::create_pod(&kubectl, &namespace, "pod", "bot").expect("a Pod");
        let object = stamped(agent(&namespace, "bot", spec), "admin");
        let mut applied = Ok(String::new());
        // After a start of the API server its policies do not know the kind for a moment.
        wait_until("the API server knows its mind", PATIENCE, || {
            applied = self.apply(&object);
            !applied.as_ref().is_err_and(|error| is_passing(error))
        });
        applied.expect("the Agent is accepted");
        kubectl.wait_for(&namespace, "agent/bot", "condition=Ready", PATIENCE).expect("the Agent is Ready");
        let tenant = Tenant { world: self, namespace, service_account_uid, pod_uid, token: String::new() };
        let token = tenant.pod_token("bot", "pod", &tenant.pod_uid);
        Tenant { token, ..tenant }
    }

    /// What kubectl says of a field. The API server describes a kind a moment after it knows it.
    pub fn explained(&self, field: &str) -> String {
        let mut said = None;
        wait_until(&format!("{field} is explained"), PATIENCE, || {
            said = self.kubectl().run(&["explain", field, "--recursive=false"]).ok();
            said.is_some()
        });
        said.expect("explained")
    }

    /// Applies an object as the administrator.
    pub fn apply(&self, object: &Value) -> Result<String, String> {
        self.kubectl().apply(&object.to_string()).map_err(|failure| failure.stderr)
    }

    /// POSTs a form.
    pub fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        self.http.post(format!("{}{path}", self.operator.url())).form(form).send().expect("an answer").into()
    }

    /// A token request.
    pub fn request(&self, form: &[(&str, &str)]) -> Reply {
        self.post("/oauth2/token", form)
    }

    /// Exchanges a ServiceAccount token (RFC 8693).
    pub fn exchange(&self, token: &str) -> Reply {
        self.request(&[("grant_type", TOKEN_EXCHANGE), ("subject_token", token), ("subject_token_type", TYPE_JWT)])
    }

    /// Introspects `token` as the resource server whose ServiceAccount token is `bearer`.
    pub fn introspect(&self, bearer: &str, token: &str) -> Reply {
        let url = format!("{}/oauth2/introspect", self.operator.url());
        insist(self.http.post(url).bearer_auth(bearer).form(&[("token", token)])).into()
    }

    /// A ServiceAccount and a Pod of that name. Returns the Pod's token for our issuer.
    pub fn workload(&self, namespace: &str, name: &str) -> String {
        let kubectl = self.kubectl();
        workload::create_service_account(&kubectl, namespace, name).expect("a ServiceAccount");
        let uid = workload::create_pod(&kubectl, namespace, name, name).expect("a Pod");
        workload::pod_token(&kubectl, namespace, name, name, &uid, self.operator.issuer(), 3600).expect("a token")
    }

    /// A resource server: a ServiceAccount in a namespace of its own that may introspect `audience`. Returns its token.
    pub fn resource_server(&self, audience: &str) -> String {
        let namespace = self.namespace("resource-server");
        let token = self.workload(&namespace, "server");
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["audiences"], "resourceNames": [audience], "verbs": ["introspect"]}]);
        self.bind(
            &namespace,
            "introspect",
            &rules,
            &[json!({"kind": "ServiceAccount", "name": "server", "namespace": namespace})],
        );
        token
    }

    /// The record of the request that got `reply`; there is exactly one.
    pub fn record_of(&self, reply: &Reply) -> Value {
        self.record_of_request(reply.request_id.as_deref().expect("the reply names its request"))
    }

    /// The record of the request with this id; there is exactly one.
    pub fn record_of_request(&self, id: &str) -> Value {
        // Only the lines that can be it are read as JSON: the log of a world that many share is long.
        let log = self.operator.audit_text().expect("the audit log");
        let lines = log.lines().filter(|line| line.contains(id)).map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut of_request = lines.filter(|line| line["request_id"] == id);
        let record = of_request.next().unwrap_or_else(|| panic!("no record of request {id}"));
        assert!(of_request.next().is_none(), "more than one record of request {id}");
        record
    }
}

/// Writes into an object that `user` wrote it. Needless, and harmless, where a policy does it.
pub fn stamped(mut object: Value, user: &str) -> Value {
    object["metadata"]["annotations"][CHANGED_BY] = json!(user);
    object
}

/// A user as the subject of a role binding.
pub fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": RBAC, "name": name})
}

/// Fails unless admission refused it, for this reason.
#[track_caller]
pub fn forbidden(result: Result<String, String>, because: &str) {
    let message = result.expect_err("it was accepted");
    assert!(message.contains("orbidden") && message.contains(because), "{message}");
}

/// Sends a request that changes nothing; again if its connection has ended, as one does that was open while the operator stood still.
pub fn insist(request: RequestBuilder) -> Response {
    for _ in 0..3 {
        let Some(again) = request.try_clone() else { break };
        match again.send() {
            Err(error) if error.is_request() => std::thread::sleep(Duration::from_millis(100)),
            sent => return sent.expect("an answer"),
        }
    }
    request.send().expect("an answer")
}

/// Waits until `check` holds, at most for `limit`. Returns how long it took.
pub fn wait_until(what: &str, limit: Duration, mut check: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// Waits until the clock shows another second: creation times are whole seconds, and of two objects with the same one nobody can tell
/// which is the older.
pub fn next_second() {
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let this = second();
    wait_until("the next second", Duration::from_secs(5), || second() > this);
}

/// A client that trusts the operator's CA and follows nothing.
pub fn client(operator: &Operator) -> Client {
    let pem = std::fs::read(operator.ca_file()).expect("the CA");
    Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        // Before the operator ends a connection on which nothing is asked, which it does after five seconds.
        .pool_idle_timeout(Duration::from_secs(2))
        .build()
        .expect("a client")
}

/// An Agent as a user would write it, with members of its spec replaced by those of `spec`.
pub fn agent(namespace: &str, name: &str, spec: &Value) -> Value {
    let usual = json!({
        "owner": "team@example.com",
        "identity": {"serviceAccounts": [{"name": name}]},
        "capabilities": [{"name": "document.read", "resources": ["document:reports/*"]}, {"name": "web.search"}],
        "tokens": {"expirationSeconds": 300, "audiences": [{"name": DOCS}]},
    });
    json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"namespace": namespace, "name": name},
        "spec": with_members(usual, spec),
    })
}

/// `object` with these members in place of its own.
pub fn with_members(mut object: Value, members: &Value) -> Value {
    for (name, value) in members.as_object().expect("members") {
        object[name] = value.clone();
    }
    object
}

/// An agent in a namespace of its own.
pub struct Tenant<'a> {
    pub world: &'a World,
    pub namespace: String,
    pub service_account_uid: String,
    pub pod_uid: String,
    /// The Pod's token, for our issuer.
    pub token: String,
}

impl Tenant<'_> {
    /// The subject of the agent.
    pub fn subject(&self) -> String {
        format!("agent:{}/bot", self.namespace)
    }

    /// A token of a Pod in this namespace, as a projected volume would hold it.
    pub fn pod_token(&self, service_account: &str, pod: &str, pod_uid: &str) -> String {
        let issuer = self.world.operator.issuer();
        workload::pod_token(&self.world.kubectl(), &self.namespace, service_account, pod, pod_uid, issuer, 3600).expect("a token")
    }

    /// An access token of this agent.
    pub fn access_token(&self) -> String {
        self.world.exchange(&self.token).expect(200).text("access_token")
    }

    /// Merges `patch` into the Agent as the administrator.
    pub fn patch(&self, patch: &Value) {
        let arguments = ["patch", "agent", "bot", "--namespace", &self.namespace, "--type=merge", "-p", &patch.to_string()];
        self.world.kubectl().run(&arguments).expect("the patch is accepted");
    }

    /// The Agent as it is stored.
    pub fn agent(&self) -> Value {
        self.world.kubectl().get_json(&["get", "agent", "bot", "--namespace", &self.namespace]).expect("the Agent")
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
    pub request_id: Option<String>,
    pub headers: reqwest::header::HeaderMap,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let request_id = headers.get("x-request-id").map(|id| id.to_str().expect("ASCII").to_owned());
        let text = response.text().expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, body, request_id, headers }
    }
}

impl Reply {
    /// Fails unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}", self.body);
        self
    }

    /// Fails unless this is a refusal with that status and code, in the form of RFC 6749 section 5.2, not to be kept by caches,
    /// with a description that can be read.
    #[track_caller]
    pub fn refused(self, status: u16, error: &str) -> Self {
        assert_eq!((self.status, self.body["error"].as_str()), (status, Some(error)), "{:?}", self.body);
        let description = self.body["error_description"].as_str().expect("a description");
        assert!(description.len() > 20, "{description:?}");
        assert!(description.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'), "{description:?}");
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(self.headers["cache-control"], "no-store");
        assert!(self.body.get("access_token").is_none());
        self
    }

    #[track_caller]
    pub fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("no text {member} in {:?}", self.body)).to_owned()
    }

    /// Whether an introspection says that the token is alive. Fails if it says more than that of a dead one.
    #[track_caller]
    pub fn is_active(&self) -> bool {
        assert_eq!(self.status, 200, "{:?}", self.body);
        match self.body["active"].as_bool().expect("active") {
            true => true,
            false => {
                assert_eq!(self.body, json!({"active": false}), "an inactive token says nothing else");
                false
            }
        }
    }
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The header of a token.
pub fn header(token: &str) -> Value {
    part(token, 0)
}

fn part(token: &str, index: usize) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(index).expect("a JWT");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}
