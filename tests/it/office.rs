//! An agent that asks before it acts, and the people who decide, on a cluster with MutatingAdmissionPolicy and on one without.

use crate::payments::answered;
use crate::support::kubectl::Kubectl;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, Stamp, Tenant, World, stamped, user, wait_until};
use serde_json::{Value, json};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The ClusterRole of the chart for those who decide.
const APPROVER: &str = "countersign-approver";

/// The operator to the API server.
pub const OPERATOR: &str = "system:serviceaccount:countersign-system:countersign";

/// A namespace with an Agent `bot` that needs approval for its one capability. Its ServiceAccount may file requests, alice and
/// bob may decide on them, and carol may write their status but decide nothing.
pub struct Office<'a> {
    pub tenant: Tenant<'a>,
    pub stamp: Stamp,
    /// The capability, which only this office uses.
    pub capability: String,
    /// The agent's ServiceAccount.
    pub bot: Kubectl,
}

/// Runs `test` on both kinds of clusters.
pub fn both_ways(purpose: &str, test: impl Fn(&Office<'static>)) {
    for (world, stamp) in World::both() {
        test(&Office::open(world, stamp, purpose));
    }
}

/// Runs `test` on both kinds of clusters, where it may [freeze](Office::freeze) the operator: no two such tests run at once.
pub fn both_ways_alone(purpose: &str, test: impl Fn(&Office<'static>)) {
    static TURN: Mutex<()> = Mutex::new(());
    static STAMPED: OnceLock<World> = OnceLock::new();
    static WRITTEN: OnceLock<World> = OnceLock::new();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    test(&Office::open(STAMPED.get_or_init(|| World::start(4, &[], &[])), Stamp::ByPolicy, purpose));
    let without = || World::start(3, &[("admission.mutating", "false")], &[]);
    test(&Office::open(WRITTEN.get_or_init(without), Stamp::ByHand, purpose));
}

impl<'a> Office<'a> {
    /// In a namespace of its own.
    pub fn open(world: &'a World, stamp: Stamp, purpose: &str) -> Self {
        let namespace = world.namespace(purpose);
        let capability = format!("{namespace}.pay");
        let rule = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "Capability", "metadata": {"name": capability}, "spec": {"approval": {}}});
        world.apply(&stamped(rule, "admin")).expect("the Capability is accepted");
        let entry = json!({"name": capability, "approval": "Required"});
        let tenant = world.tenant_in(namespace, &json!({"capabilities": [entry]}));
        world
            .kubectl()
            .wait_for("", &format!("capability/{capability}"), "condition=Ready", PATIENCE)
            .expect("the Capability is Ready");
        let namespace = &tenant.namespace;
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests"], "verbs": ["create", "get", "list", "delete"]}]);
        world.bind(namespace, "file", &rules, &[service_account(namespace, "bot")]);
        world.bind_cluster_role(namespace, APPROVER, APPROVER, &["alice", "bob", "carol"].map(user));
        let bot = world.kubectl().run(&["create", "token", "bot", "-n", namespace]).expect("a token for the API server");
        let kubeconfig = world.cluster.kubeconfig_with_token(namespace, bot.trim()).expect("a kubeconfig");
        let bot = Kubectl::new(&kubeconfig, world.cluster.directory().path());
        let office = Self { stamp, capability, bot, tenant };
        office.may_approve("decide", &["alice", "bob"].map(user));
        office
    }

    pub fn world(&self) -> &'a World {
        self.tenant.world
    }

    pub fn namespace(&self) -> &str {
        &self.tenant.namespace
    }

    /// kubectl as the administrator.
    pub fn admin(&self) -> Kubectl {
        self.world().kubectl()
    }

    /// kubectl as one of the people.
    pub fn person(&self, name: &str) -> Kubectl {
        self.world().cluster.kubectl_as(name).expect("a user")
    }

    /// Lets subjects approve the capability in this namespace, and waits until the API server knows.
    pub fn may_approve(&self, name: &str, subjects: &[Value]) {
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [self.capability], "verbs": ["approve"]}]);
        self.world().bind(self.namespace(), name, &rules, subjects);
        let what = format!("capabilities.countersign.dev/{}", self.capability);
        for subject in subjects {
            let name = subject["name"].as_str().expect("a name");
            let name = match subject["kind"].as_str() {
                Some("ServiceAccount") => {
                    format!("system:serviceaccount:{}:{name}", subject["namespace"].as_str().expect("a namespace"))
                }
                _ => name.to_owned(),
            };
            let somebody = self.admin().impersonating(&name, &[]);
            wait_until("the right is seen", PATIENCE, || {
                somebody.run(&["auth", "can-i", "approve", &what, "-n", self.namespace()]).is_ok()
            });
        }
    }

    /// A request as it is written by `who`, with members of its spec replaced.
    pub fn object(&self, who: &Kubectl, name: &str, spec: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "JitRequest",
            "metadata": {"namespace": self.namespace(), "name": name},
            "spec": {"agent": {"name": "bot"}, "operation": {"capability": self.capability, "audience": DOCS}},
        });
        if self.stamp == Stamp::ByHand {
            object["spec"]["requestedBy"] = whoami(who);
        }
        for (member, value) in spec.as_object().expect("members") {
            object["spec"][member] = value.clone();
        }
        object
    }

    /// Files a request as `who`.
    pub fn file(&self, who: &Kubectl, name: &str, spec: &Value) -> Result<String, String> {
        create(who, &self.object(who, name, spec))
    }

    /// Files a request as the agent's ServiceAccount, and waits until it is Pending.
    pub fn ask(&self, name: &str) {
        self.file(&self.bot, name, &json!({})).expect("the agent may ask");
        self.settled(name, "Pending");
    }

    /// A decision as `who` writes it.
    pub fn decision(&self, who: &Kubectl, verdict: &str) -> Value {
        match self.stamp {
            Stamp::ByPolicy => json!({"verdict": verdict}),
            Stamp::ByHand => json!({"verdict": verdict, "by": whoami(who)}),
        }
    }

    /// Decides as `who`.
    pub fn decide(&self, who: &Kubectl, name: &str, verdict: &str) -> Result<String, String> {
        self.patch_status(who, name, &json!({"decision": self.decision(who, verdict)}))
    }

    /// Merges `status` into the status.
    pub fn patch_status(&self, who: &Kubectl, name: &str, status: &Value) -> Result<String, String> {
        let patch = json!({"status": status}).to_string();
        let arguments = ["patch", "jit", name, "-n", self.namespace(), "--subresource=status", "--type=merge", "-p", &patch];
        who.run(&arguments).map_err(|f| f.stderr)
    }

    /// The request as it is stored.
    pub fn stored(&self, name: &str) -> Value {
        self.admin().get_json(&["get", "jit", name, "-n", self.namespace()]).expect("the request")
    }

    /// Waits until the request is in that phase.
    #[track_caller]
    pub fn settled(&self, name: &str, phase: &str) {
        let settled = self.admin().wait_for(
            self.namespace(),
            &format!("jit/{name}"),
            &format!("jsonpath={{.status.phase}}={phase}"),
            PATIENCE,
        );
        settled.unwrap_or_else(|e| panic!("{phase}: {e}: {}", self.stored(name)["status"]));
    }

    /// Waits until the request has ended in that phase. Returns the reason.
    #[track_caller]
    pub fn ended(&self, name: &str, phase: &str) -> String {
        self.settled(name, phase);
        let status = self.stored(name)["status"].clone();
        let conditions = status["conditions"].as_array().expect("conditions");
        let finished = conditions.iter().find(|c| c["type"] == "Finished").expect("Finished");
        assert_eq!(finished["status"], "True", "{status}");
        finished["reason"].as_str().expect("a reason").to_owned()
    }

    /// The agent comes for the token of a request, and does not wait.
    pub fn poll(&self, name: &str) -> Reply {
        let uid = self.stored(name)["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let form = [
            ("grant_type", "urn:openid:params:grant-type:ciba"),
            ("auth_req_id", &uid),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", &self.tenant.token),
        ];
        let request = self.world().http.post(format!("{}/oauth2/token", self.world().operator.url()));
        request.header("prefer", "wait=0").form(&form).send().expect("an answer").into()
    }

    /// The agent comes for the token of a request on which somebody has decided.
    pub fn answered(&self, name: &str) -> Reply {
        answered(|| self.poll(name))
    }

    /// Where the request is, for raw calls.
    pub fn path(&self, name: &str) -> String {
        format!("/apis/countersign.dev/v1alpha1/namespaces/{}/jitrequests/{name}", self.namespace())
    }

    /// Stops the operator until the value is dropped: what people write stays as they wrote it.
    pub fn freeze(&self) -> Ice<'a> {
        self.world().operator.process().signal("STOP").expect("frozen");
        Ice(self.world())
    }
}

/// A frozen operator.
pub struct Ice<'a>(&'a World);

impl Drop for Ice<'_> {
    fn drop(&mut self) {
        self.0.operator.process().signal("CONT").expect("thawed");
    }
}

/// A ServiceAccount as the subject of a role binding.
pub fn service_account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
}

/// User name, uid and groups as the API server knows them.
pub fn whoami(who: &Kubectl) -> Value {
    let review = who.get_json(&["auth", "whoami"]).expect("everybody may ask");
    let mut info = review["status"]["userInfo"].clone();
    info.as_object_mut().expect("an object").remove("extra");
    info
}

/// Creates an object.
pub fn create(who: &Kubectl, object: &Value) -> Result<String, String> {
    who.run_with_input(&["create", "-f", "-"], &object.to_string()).map_err(|f| f.stderr)
}

/// Fails unless the schema refused it, for this reason.
#[track_caller]
pub fn invalid(result: Result<String, String>, because: &str) {
    let message = result.expect_err("it was accepted");
    assert!(message.contains("is invalid") && message.contains(because), "{message}");
}
