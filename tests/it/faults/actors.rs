//! What the agents and people of a drill do, without a pause, whatever happens. Each notes what it saw.

use super::drill::{Cast, Drill, REPLICAS, arrived, called, exchange, passed_on};
use super::history::{History, now};
use crate::payments::details;
use crate::world::{CLIENT_ASSERTION, claims};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, sleep};
use std::time::Duration;

pub const CIBA: &str = "urn:openid:params:grant-type:ciba";

/// Everything that a drill's actors share.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    pub drill: &'a Drill,
    pub cast: &'a Cast<'a>,
    pub history: &'a History,
    pub over: &'a AtomicBool,
}

impl<'a> Stage<'a> {
    /// Begins everything.
    pub fn begin<'scope>(self, scope: &'scope Scope<'scope, 'a>) {
        scope.spawn(move || self.always(Duration::from_millis(25), Self::exchanges));
        scope.spawn(move || self.always(Duration::from_millis(100), Self::delegates));
        scope.spawn(move || self.always(Duration::from_millis(100), Self::asserts));
        scope.spawn(move || self.always(Duration::from_millis(100), Self::pays));
        scope.spawn(move || self.always(Duration::from_millis(50), Self::is_suspended));
        scope.spawn(move || self.suspends());
    }

    fn always(self, pause: Duration, work: impl Fn(Self, usize)) {
        let mut turn = 0;
        while !self.over.load(Ordering::Relaxed) {
            work(self, turn);
            turn += 1;
            sleep(pause);
        }
    }

    fn exchanges(self, turn: usize) {
        let sent = now();
        if let Some((200, body)) = exchange(self.drill, turn, &self.cast.steady.token) {
            arrived(self.history, &body, sent, json!({"agent": "steady"}));
        }
    }

    fn delegates(self, turn: usize) {
        let sent = now();
        let Some((200, call)) = called(self.drill, turn, &self.cast.team) else { return };
        arrived(self.history, &call, sent, json!({"agent": "bot"}));
        let token = call["access_token"].as_str().expect("a token");
        // Another replica than the one that issued it.
        if let Some((200, derived)) = passed_on(self.drill, turn + 1, &self.cast.team, token) {
            let more = json!({"agent": "search", "parent": claims(token), "actor": self.cast.team.subject("search")});
            arrived(self.history, &derived, sent, more);
        }
    }

    /// One assertion to every replica at once.
    fn asserts(self, _: usize) {
        let assertion = self.cast.keyed.assertion();
        let jti = claims(&assertion)["jti"].clone();
        self.history.note("assertion", json!({"jti": jti}));
        std::thread::scope(|scope| {
            for i in 0..REPLICAS.len() {
                let (assertion, jti) = (&assertion, &jti);
                scope.spawn(move || {
                    let sent = now();
                    if let Some((200, body)) = exchange(self.drill, i, assertion) {
                        arrived(self.history, &body, sent, json!({"agent": "keyed", "assertion": jti}));
                    }
                });
            }
        });
    }

    /// Asks for a payment, has it approved, redeems it at two replicas at once, and completes it at both.
    fn pays(self, turn: usize) {
        let (payer, capability) = (&self.cast.payer, &self.cast.capability);
        let operation = details(capability, &format!("invoice:2026/{turn}"), &json!({"amount": 5})).to_string();
        let form = [
            ("login_hint", payer.subject()),
            ("authorization_details", operation),
            ("client_assertion_type", CLIENT_ASSERTION.to_owned()),
            ("client_assertion", payer.token.clone()),
        ];
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let Some((200, asked)) = self.drill.post(turn, "/oauth2/bc-authorize", None, &form) else { return };
        let id = asked["auth_req_id"].as_str().expect("an id").to_owned();
        self.history.note("asked", json!({"request": id}));
        if !self.approve(&id) {
            return;
        }
        let tokens: Vec<Option<Value>> = std::thread::scope(|scope| {
            let polls: Vec<_> = (0..2).map(|i| (i, &id)).map(|(i, id)| scope.spawn(move || self.redeem(turn + i, id))).collect();
            polls.into_iter().map(|poll| poll.join().expect("no panic")).collect()
        });
        let Some(token) = tokens.into_iter().flatten().next() else { return };
        let token = token["access_token"].as_str().expect("a token").to_owned();
        std::thread::scope(|scope| {
            for i in 0..2 {
                let (id, token) = (&id, &token);
                scope.spawn(move || {
                    let form = [
                        ("token", token.as_str()),
                        ("client_assertion_type", CLIENT_ASSERTION),
                        ("client_assertion", payer.token.as_str()),
                    ];
                    let sent = now();
                    if let Some((status, _)) = self.drill.post(turn + i, "/jit/complete", None, &form) {
                        self.history.note("complete", json!({"request": id, "status": status, "sent": sent, "at": now()}));
                    }
                });
            }
        });
    }

    /// A person looks for the request, and approves it once it waits for that. False if that could not be done soon.
    fn approve(self, id: &str) -> bool {
        let kubectl = self.drill.world.kubectl();
        let namespace = &self.cast.payer.namespace;
        for _ in 0..40 {
            sleep(Duration::from_millis(50));
            if self.over.load(Ordering::Relaxed) {
                return false;
            }
            let Ok(all) = kubectl.get_json(&["get", "jitrequests", "--namespace", namespace]) else { continue };
            let of_it = |object: &&Value| object["metadata"]["uid"] == id && object["status"]["phase"] == "Pending";
            let Some(found) = all["items"].as_array().into_iter().flatten().find(of_it) else { continue };
            let name = found["metadata"]["name"].as_str().expect("a name");
            self.history.note("approving", json!({"request": id, "sent": now()}));
            // An answer that is lost says nothing of what was done: go on as if it was.
            if self.drill.world.decide("bob", namespace, name, "Approved").is_ok() {
                return true;
            }
        }
        false
    }

    fn redeem(self, replica: usize, id: &str) -> Option<Value> {
        let form = [
            ("grant_type", CIBA),
            ("auth_req_id", id),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", self.cast.payer.token.as_str()),
        ];
        for _ in 0..4 {
            let sent = now();
            match self.drill.post(replica, "/oauth2/token", None, &form) {
                Some((200, body)) => {
                    arrived(self.history, &body, sent, json!({"agent": "payer", "request": id}));
                    return Some(body);
                }
                _ => sleep(Duration::from_millis(200)),
            }
        }
        None
    }

    /// What the agent that is suspended again and again gets, and whether it is alive elsewhere.
    fn is_suspended(self, turn: usize) {
        let sent = now();
        let Some((200, body)) = exchange(self.drill, turn, &self.cast.victim.token) else { return };
        arrived(self.history, &body, sent, json!({"agent": "victim"}));
        let token = body["access_token"].as_str().expect("a token");
        let form = [("token", token)];
        let sent = now();
        if let Some((200, said)) = self.drill.post(turn + 1, "/oauth2/introspect", Some(&self.cast.server), &form) {
            let jti = claims(token)["jti"].clone();
            let event = json!({"agent": "victim", "jti": jti, "active": said["active"], "sent": sent, "at": now()});
            self.history.note("introspected", event);
        }
    }

    /// Suspends that agent for longer than the promise takes, and lets it go again.
    fn suspends(self) {
        let kubectl = self.drill.world.kubectl();
        let set = |suspended: bool| {
            let patch = json!({"spec": {"suspended": suspended}}).to_string();
            let namespace = &self.cast.victim.namespace;
            kubectl.run(&["patch", "agent", "bot", "--namespace", namespace, "--type=merge", "-p", &patch]).is_ok()
        };
        let rest = |milliseconds: u64| {
            let until = now() + milliseconds;
            while now() < until && !self.over.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(50));
            }
        };
        while !self.over.load(Ordering::Relaxed) {
            if set(true) {
                let at = now();
                rest(13_000);
                self.history.note("suspended", json!({"agent": "victim", "at": at, "until": now()}));
            }
            // Until it is done: the next suspension counts from an agent that is not.
            while !set(false) {
                sleep(Duration::from_millis(200));
            }
            rest(2_000);
        }
    }
}
