//! An older copy of etcd is put in its place: what was used, revoked and decided since it was made never happened, says the cluster.

use super::actors::{CIBA, Stage};
use super::drill::{Drill, REPLICAS, arrived, exchange};
use super::history::now;
use super::scenarios::{answers, control_plane};
use crate::payments::details;
use crate::support::control_plane::{ControlPlane, Part};
use crate::world::{CLIENT_ASSERTION, PATIENCE, Tenant, claims, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// How the copy is put back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// As it was: numbers of versions are given out a second time.
    Plain,
    /// As `etcdutl snapshot restore --bump-revision --mark-compacted` does: every number from then on is larger than any before, and watches
    /// that want to go on where they were are told to begin anew.
    Bumped,
}

/// What the replicas do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    Live,
    /// They are down, and remember nothing.
    Down,
}

/// A request of the payer.
struct Asked<'a> {
    stage: Stage<'a>,
    id: String,
    name: String,
}

impl<'a> Asked<'a> {
    /// Asks, and waits until the request waits for a decision.
    fn pending(stage: Stage<'a>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (drill, payer) = (stage.drill, &stage.cast.payer);
        let resource = format!("invoice:2026/restored-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let operation = details(&stage.cast.capability, &resource, &json!({"amount": 5})).to_string();
        let form = [("login_hint", payer.subject()), ("authorization_details", operation)];
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut id = String::new();
        wait_until("the request is taken", PATIENCE, || match with_credential(drill, 0, payer, "/oauth2/bc-authorize", &form) {
            Some((200, asked)) => {
                id = asked["auth_req_id"].as_str().expect("an id").to_owned();
                true
            }
            _ => false,
        });
        let object = payer.requests().into_iter().find(|request| request["metadata"]["uid"] == id.as_str());
        let name = object.expect("the request exists")["metadata"]["name"].as_str().expect("a name").to_owned();
        let asked = Self { stage, id, name };
        asked.reaches(&["Pending"]);
        asked
    }

    fn phase(&self) -> Value {
        let arguments = ["get", "jitrequest", &self.name, "--namespace", &self.stage.cast.payer.namespace];
        let object = self.stage.drill.world.kubectl().get_json(&arguments);
        object.map_or(Value::Null, |object| object["status"]["phase"].clone())
    }

    #[track_caller]
    fn reaches(&self, phases: &[&str]) {
        wait_until(&format!("{} is {phases:?}", self.name), PATIENCE, || phases.iter().any(|phase| self.phase() == *phase));
    }

    fn approve(&self) {
        self.stage.history.note("approving", json!({"request": self.id, "sent": now()}));
        let done = self.stage.drill.world.decide("bob", &self.stage.cast.payer.namespace, &self.name, "Approved");
        done.expect("approved");
        self.reaches(&["Approved"]);
    }

    /// Polls for the token. None if there is none.
    fn poll(&self, replica: usize) -> Option<String> {
        let (drill, payer) = (self.stage.drill, &self.stage.cast.payer);
        let form = [("grant_type", CIBA), ("auth_req_id", self.id.as_str())];
        let sent = now();
        match with_credential(drill, replica, payer, "/oauth2/token", &form) {
            Some((200, body)) => {
                arrived(self.stage.history, &body, sent, json!({"agent": "payer", "request": self.id}));
                Some(body["access_token"].as_str().expect("a token").to_owned())
            }
            _ => None,
        }
    }

    fn token(&self) -> String {
        let mut token = None;
        wait_until("the token is there", PATIENCE, || {
            token = self.poll(0);
            token.is_some()
        });
        token.expect("a token")
    }

    /// Reports the operation as done. The status of the answer.
    fn complete(&self, replica: usize, token: &str) -> Option<u16> {
        let sent = now();
        let answer = with_credential(self.stage.drill, replica, &self.stage.cast.payer, "/jit/complete", &[("token", token)]);
        let status = answer?.0;
        self.stage.history.note("complete", json!({"request": self.id, "status": status, "sent": sent, "at": now()}));
        Some(status)
    }
}

/// POSTs a form with an agent's credential.
fn with_credential(drill: &Drill, i: usize, tenant: &Tenant<'_>, path: &str, form: &[(&str, &str)]) -> Option<(u16, Value)> {
    let credential = [("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", tenant.token.as_str())];
    drill.post(i, path, None, &[form, &credential].concat())
}

/// What a resource server hears of a token.
fn is_active(stage: Stage<'_>, i: usize, token: &str) -> Option<bool> {
    match stage.drill.post(i, "/oauth2/introspect", Some(&stage.cast.server), &[("token", token)]) {
        Some((200, said)) => said["active"].as_bool(),
        _ => None,
    }
}

fn obtained(stage: Stage<'_>, tenant: &Tenant<'_>) -> String {
    let mut token = String::new();
    wait_until("an agent gets a token", PATIENCE, || match exchange(stage.drill, 0, &tenant.token) {
        Some((200, body)) => {
            arrived(stage.history, &body, now(), json!({"agent": tenant.subject()}));
            token = body["access_token"].as_str().expect("a token").to_owned();
            true
        }
        _ => false,
    });
    token
}

/// Copies etcd, goes on, and puts the copy back.
pub fn restored(stage: Stage<'_>, time: Duration, how: Restore, replicas: Replicas) {
    let (drill, history) = (stage.drill, stage.history);
    let (control_plane, kubectl) = (control_plane(drill), drill.world.kubectl());
    let leaver = drill.world.tenant("leaver");
    // As the copy will have them: one approved, one issued, one that waits, and an agent that may.
    let [approved, issued, waits] = std::array::from_fn(|_| Asked::pending(stage));
    approved.approve();
    issued.approve();
    let of_issued = issued.token();
    let of_leaver = obtained(stage, &leaver);
    let copied_at = now();
    let copy = control_plane.etcd_data().with_extension("copy");
    control_plane.kill(Part::Etcd).expect("killed");
    copy_directory(&control_plane.etcd_data(), &copy);
    control_plane.resume(Part::Etcd).expect("started");
    answers(drill);

    // And what becomes of them after it was made.
    let of_approved = approved.token();
    wait_until("the operation is done", PATIENCE, || issued.complete(0, &of_issued) == Some(200));
    waits.approve();
    let of_waits = waits.token();
    let suspend = json!({"spec": {"suspended": true}}).to_string();
    kubectl.run(&["patch", "agent", "bot", "--namespace", &leaver.namespace, "--type=merge", "-p", &suspend]).expect("suspended");
    for i in 0..REPLICAS.len() {
        wait_until("its token is dead", PATIENCE, || is_active(stage, i, &of_leaver) == Some(false));
    }
    sleep(time / 2);

    let revision = revision(control_plane);
    if replicas == Replicas::Down {
        (0..REPLICAS.len()).for_each(|i| drill.kill(i));
    }
    for part in [Part::ControllerManager, Part::ApiServer, Part::Etcd] {
        control_plane.kill(part).expect("killed");
    }
    let at = now();
    std::fs::remove_dir_all(control_plane.etcd_data()).expect("removed");
    std::fs::rename(&copy, control_plane.etcd_data()).expect("put back");
    control_plane.resume(Part::Etcd).expect("started");
    if how == Restore::Bumped {
        bump(control_plane, revision);
    }
    control_plane.resume(Part::ApiServer).expect("started");
    answers(drill);
    control_plane.resume(Part::ControllerManager).expect("started");
    history.note("restored", json!({"from": copied_at, "at": at}));
    // Whatever a replica knew is worth nothing any more. It notices, and begins anew.
    (0..REPLICAS.len()).for_each(|i| drill.begins_anew(i));

    // What the cluster says now counts.
    wait_until("the agent may again", PATIENCE, || matches!(exchange(drill, 1, &leaver.token), Some((200, _))));
    [&approved, &issued, &waits].iter().for_each(|asked| asked.reaches(&["Revoked"]));
    // But nothing from before.
    for i in 0..REPLICAS.len() {
        let old = [
            ("a token that was revoked", &of_leaver),
            ("a token of an approval", &of_approved),
            ("a token that was used", &of_issued),
        ];
        for (what, token) in old.into_iter().chain([("a token of a later approval", &of_waits)]) {
            let sent = now();
            let mut active = None;
            wait_until("an introspection", PATIENCE, || {
                active = is_active(stage, i, token);
                active.is_some()
            });
            history.note("old", json!({"what": what, "jti": claims(token)["jti"], "active": active, "sent": sent}));
        }
        for (asked, token) in [(&approved, &of_approved), (&issued, &of_issued), (&waits, &of_waits)] {
            _ = asked.poll(i);
            if token != &of_issued {
                continue;
            }
            _ = asked.complete(i, token);
        }
    }
}

fn copy_directory(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status().expect("cp");
    assert!(copied.success(), "cp: {copied}");
}

/// Asks etcd, by its gateway for HTTP.
fn etcd(control_plane: &ControlPlane, path: &str, body: &Value) -> Option<Value> {
    let client = reqwest::blocking::Client::new();
    let answer = client.post(format!("{}/v3/kv/{path}", control_plane.etcd_url())).json(body).send().ok()?;
    if answer.status().is_success() { answer.json().ok() } else { None }
}

/// How far etcd has counted.
fn revision(control_plane: &ControlPlane) -> u64 {
    let body = json!({"key": STANDARD.encode("bump"), "limit": "1"});
    let mut found = None;
    wait_until("etcd answers", PATIENCE, || {
        let answer = etcd(control_plane, "range", &body);
        found = answer.and_then(|answer| answer["header"]["revision"].as_str()?.parse().ok());
        found.is_some()
    });
    found.expect("a revision")
}

/// Has etcd count on until it is beyond everything that was ever said, and forget what was in between.
fn bump(control_plane: &ControlPlane, beyond: u64) {
    let missing = (beyond + 1000).saturating_sub(revision(control_plane));
    let put = json!({"key": STANDARD.encode("bump"), "value": ""});
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let client = reqwest::blocking::Client::new();
                for _ in 0..missing.div_ceil(8) {
                    let sent = client.post(format!("{}/v3/kv/put", control_plane.etcd_url())).json(&put).send();
                    assert!(sent.expect("an answer").status().is_success());
                }
            });
        }
    });
    let reached = revision(control_plane);
    assert!(reached > beyond, "{reached} is not beyond {beyond}");
    etcd(control_plane, "compaction", &json!({"revision": reached.to_string()})).expect("compacted");
}
