//! What the tests of approvals share: an agent asks, a person decides, the agent polls.

use crate::support::kubectl::Kubectl;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, Tenant, World, stamped, wait_until, with_members};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const CIBA: &str = "urn:openid:params:grant-type:ciba";

impl World {
    /// A capability in the catalogue whose every use a person must approve, with members of its spec replaced. Returns its name,
    /// which nobody else uses: the catalogue is the whole cluster's.
    pub fn capability(&self, spec: &Value) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("payment-{}.create", COUNT.fetch_add(1, Ordering::Relaxed));
        let rule = json!({"title": "Pay an invoice", "risk": "High", "approval": {"required": true}});
        let capability = json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Capability",
            "metadata": {"name": name},
            "spec": with_members(rule, spec),
        });
        self.apply(&stamped(capability, "admin")).expect("the Capability is accepted");
        let object = format!("capability/{name}");
        self.kubectl().wait_for("default", &object, "condition=Ready", PATIENCE).expect("the Capability is Ready");
        name
    }

    /// An agent that may pay the invoices `invoice:2026/*`, each with a person's approval. Returns it and the capability.
    pub fn payments_tenant(&self, purpose: &str) -> (Tenant<'_>, String) {
        let name = self.capability(&json!({}));
        let entry = json!({"name": name, "approval": "Required", "resources": ["invoice:2026/*"]});
        (self.tenant_with(purpose, &json!({"capabilities": [entry]})), name)
    }

    /// Lets a user decide about `capability` in `namespace`.
    pub fn approver(&self, user: &str, namespace: &str, capability: &str) {
        self.approvers(user, &[crate::world::user(user)], namespace, capability);
    }

    /// Lets these subjects, called `name`, decide about `capability` in `namespace`.
    pub fn approvers(&self, name: &str, subjects: &[Value], namespace: &str, capability: &str) {
        self.bind_cluster_role(namespace, &format!("approver-{name}"), "countersign-approver", subjects);
        let rules = json!([{
            "apiGroups": ["countersign.dev"],
            "resources": ["capabilities"],
            "resourceNames": [capability],
            "verbs": ["approve"],
        }]);
        self.bind(namespace, &format!("{capability}-{name}"), &rules, subjects);
    }

    /// Decides about a JitRequest, `Approved` or `Denied`, as a user would with kubectl. The cluster writes who it was.
    pub fn decide(&self, user: &str, namespace: &str, request: &str, verdict: &str) -> Result<String, String> {
        let patch = json!({"status": {"decision": {"verdict": verdict, "comment": "looked at it"}}}).to_string();
        let arguments =
            ["patch", "jitrequest", request, "--namespace", namespace, "--subresource=status", "--type=merge", "-p", &patch];
        let kubectl = self.cluster.kubectl_as(user).expect("a user");
        kubectl.itself().run(&arguments).map_err(|failure| failure.stderr)
    }
}

impl Tenant<'_> {
    /// The requests for approval in this namespace.
    pub fn requests(&self) -> Vec<Value> {
        let list = self.world.kubectl().get_json(&["get", "jitrequests", "--namespace", &self.namespace]).expect("a list");
        list["items"].as_array().expect("items").clone()
    }
}

/// One request, as its agent sees it.
pub struct Asked<'a> {
    pub tenant: &'a Tenant<'a>,
    /// `auth_req_id`, which is the object's uid.
    pub id: String,
    /// The name of the object.
    pub name: String,
}

/// The details with which an agent asks for one operation.
pub fn details(capability: &str, resource: &str, parameters: &Value) -> Value {
    json!([{"type": "countersign_operation", "capability": capability, "resource": resource, "parameters": parameters}])
}

/// Asks the operator at `url` with these parameters beside the credential, and these headers.
pub fn ask_at(url: &str, tenant: &Tenant<'_>, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Reply {
    send(url, "/oauth2/bc-authorize", tenant, &[&[("login_hint", tenant.subject().as_str())], form].concat(), headers)
}

/// POSTs a form with the agent's credential as client assertion.
pub fn send(url: &str, path: &str, tenant: &Tenant<'_>, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Reply {
    let form = [&[("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", tenant.token.as_str())], form].concat();
    let mut request = tenant.world.http.post(format!("{url}{path}")).form(&form);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().expect("an answer").into()
}

/// Asks for a payment with these details.
pub fn ask(tenant: &Tenant<'_>, details: &Value) -> Reply {
    ask_at(&tenant.world.operator.url(), tenant, &[("authorization_details", &details.to_string())], &[])
}

/// Asks for a payment of 5 on `invoice:2026/7`, and waits until it waits for a decision.
pub fn asked<'a>(tenant: &'a Tenant<'a>, capability: &str) -> Asked<'a> {
    asked_for(tenant, &details(capability, "invoice:2026/7", &json!({"amount": 5})))
}

/// Asks for this, and waits until it waits for a decision.
pub fn asked_for<'a>(tenant: &'a Tenant<'a>, details: &Value) -> Asked<'a> {
    // A busy machine may need longer than a request waits for the API server; the answer then is to try again.
    let mut reply = ask(tenant, details);
    wait_until("the request is taken", PATIENCE, || {
        if reply.status == 503 {
            reply = ask(tenant, details);
        }
        reply.status != 503
    });
    let asked = Asked::of(tenant, reply.expect(200).text("auth_req_id"));
    asked.reaches("Pending");
    asked
}

impl<'a> Asked<'a> {
    /// The request of that `auth_req_id`.
    pub fn of(tenant: &'a Tenant<'a>, id: String) -> Self {
        let found = tenant.requests().into_iter().find(|request| request["metadata"]["uid"] == id.as_str());
        let name = found.expect("the request exists")["metadata"]["name"].as_str().expect("a name").to_owned();
        Self { tenant, id, name }
    }

    fn world(&self) -> &'a World {
        self.tenant.world
    }

    /// The object.
    pub fn object(&self) -> Value {
        let arguments = ["get", "jitrequest", &self.name, "--namespace", &self.tenant.namespace];
        self.world().kubectl().get_json(&arguments).expect("the request")
    }

    pub fn status(&self) -> Value {
        self.object()["status"].clone()
    }

    /// Waits until it is in this phase.
    #[track_caller]
    pub fn reaches(&self, phase: &str) {
        wait_until(&format!("{} is {phase}", self.name), PATIENCE, || self.status()["phase"] == phase);
    }

    /// A person decides, with kubectl.
    pub fn decide(&self, user: &str, verdict: &str) -> Result<String, String> {
        self.world().decide(user, &self.tenant.namespace, &self.name, verdict)
    }

    /// A person approves, and the operator has recorded it.
    pub fn approve(&self, user: &str) {
        self.decide(user, "Approved").expect("approved");
        self.reaches("Approved");
    }

    /// The agent polls, and does not wait.
    pub fn poll(&self) -> Reply {
        self.poll_at(&self.world().operator.url(), "0")
    }

    /// The agent polls an operator, and waits for so many seconds.
    pub fn poll_at(&self, url: &str, seconds: &str) -> Reply {
        let form = [("grant_type", CIBA), ("auth_req_id", self.id.as_str())];
        send(url, "/oauth2/token", self.tenant, &form, &[("prefer", &format!("wait={seconds}"))])
    }

    /// The one token, of a request that was approved. Whoever polled a moment ago may have to wait: the operator can hear of an approval
    /// after we do.
    #[track_caller]
    pub fn token(&self) -> String {
        self.redeemed().text("access_token")
    }

    /// The reply with that token.
    #[track_caller]
    pub fn redeemed(&self) -> Reply {
        answered(|| self.poll()).expect(200)
    }

    /// The agent reports that it is done.
    pub fn complete(&self, token: &str) -> Reply {
        self.agent_posts("/jit/complete", token)
    }

    /// The agent revokes a token, or withdraws the request.
    pub fn revoke(&self, token: &str) -> Reply {
        self.agent_posts("/oauth2/revoke", token)
    }

    fn agent_posts(&self, path: &str, token: &str) -> Reply {
        send(&self.world().operator.url(), path, self.tenant, &[("token", token)], &[])
    }

    /// The resource server whose token is `bearer` reports that it is done.
    pub fn complete_as(&self, bearer: &str, token: &str) -> Reply {
        let world = self.world();
        let request = world.http.post(format!("{}/jit/complete", world.operator.url())).bearer_auth(bearer);
        request.form(&[("token", token)]).send().expect("an answer").into()
    }

    /// The records about it, in order.
    pub fn records(&self) -> Vec<Value> {
        let lines = self.world().operator.audit_lines().expect("the audit log");
        lines.into_iter().filter(|record| record["jit_request_uid"] == self.id.as_str()).collect()
    }
}

/// Polls until the operator has seen what was decided, never faster than it may be asked.
pub fn answered(poll: impl Fn() -> Reply) -> Reply {
    let mut reply = poll();
    for pause in [6, 12] {
        if !matches!(reply.body["error"].as_str(), Some("slow_down" | "authorization_pending")) {
            break;
        }
        std::thread::sleep(Duration::from_secs(pause));
        reply = poll();
    }
    reply
}

/// kubectl as the agent's ServiceAccount, which may make requests.
pub fn kubectl_of(tenant: &Tenant<'_>) -> Kubectl {
    let (world, namespace) = (tenant.world, &tenant.namespace);
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests"], "verbs": ["create", "get", "patch"]}]);
    world.bind(namespace, "file", &rules, &[json!({"kind": "ServiceAccount", "name": "bot", "namespace": namespace})]);
    let account = format!("system:serviceaccount:{namespace}:bot");
    let kubectl = world.kubectl().impersonating(&account, &["system:serviceaccounts", "system:authenticated"]);
    let can = ["auth", "can-i", "create", "jitrequests.countersign.dev", "-n", namespace];
    wait_until("the right is seen", PATIENCE, || kubectl.run(&can).is_ok());
    kubectl
}

/// A request as an agent's ServiceAccount would write it.
pub fn object(tenant: &Tenant<'_>, name: &str, capability: &str, parameters: &Value) -> Value {
    let operation = json!({"capability": capability, "resource": "invoice:2026/8", "parameters": parameters, "audience": DOCS});
    json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "JitRequest",
        "metadata": {"name": name, "namespace": tenant.namespace},
        "spec": {"agent": {"name": "bot"}, "operation": operation},
    })
}

/// A resource server for the audience of the agents in the tests.
pub fn docs_server(world: &World) -> String {
    world.resource_server(DOCS)
}
