//! Admission of Agents: who may grant what, and who is said to have done it. Each rule is tried on a cluster with
//! MutatingAdmissionPolicy and on one without.

use crate::support::kubectl::Kubectl;
use crate::world::{CHANGED_BY, PATIENCE, Stamp, World, agent, forbidden, stamped, user, wait_until};
use serde_json::{Value, json};

/// A namespace in which alice may write Agents and grant `a.*`, bob may write Agents, and carol may do neither.
pub struct People {
    pub world: &'static World,
    pub stamp: Stamp,
    pub namespace: String,
}

/// Runs `test` on both kinds of clusters.
pub fn both_ways(purpose: &str, test: impl Fn(&People)) {
    for (world, stamp) in World::both() {
        let namespace = world.namespace(purpose);
        let bind = |name: &str, users: &[&str], rules: Value| {
            let subjects: Vec<Value> = users.iter().map(|u| user(u)).collect();
            world.bind(&namespace, name, &rules, &subjects);
        };
        bind(
            "write",
            &["alice", "bob"],
            json!([{"apiGroups": ["countersign.dev"], "resources": ["agents", "agents/status"],
            "verbs": ["get", "list", "create", "update", "patch", "delete"]}]),
        );
        bind(
            "grant",
            &["alice"],
            json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": ["a.read", "a.write", "a.x"], "verbs": ["grant"]}]),
        );
        test(&People { world, stamp, namespace });
    }
}

impl People {
    pub fn kubectl(&self, user: &str) -> Kubectl {
        self.world.cluster.kubectl_as(user).expect("a user")
    }

    /// The Agent `bot` with these members, and the stamp of `user` where people write it.
    pub fn object(&self, user: &str, spec: &Value) -> Value {
        let object = agent(&self.namespace, "bot", spec);
        if self.stamp == Stamp::ByHand { stamped(object, user) } else { object }
    }

    pub fn apply(&self, user: &str, spec: &Value) -> Result<String, String> {
        self.kubectl(user).apply(&self.object(user, spec).to_string()).map_err(|f| f.stderr)
    }

    /// Merges `spec` into the Agent, with the stamp of `user` where people write it.
    pub fn patch(&self, user: &str, spec: &Value) -> Result<String, String> {
        let mut patch = json!({"spec": spec});
        if self.stamp == Stamp::ByHand {
            patch["metadata"] = json!({"annotations": {CHANGED_BY: user}});
        }
        self.raw_patch(user, &patch)
    }

    fn raw_patch(&self, user: &str, patch: &Value) -> Result<String, String> {
        // From standard input: the largest patch is longer than a command line may be.
        let arguments = ["patch", "agent", "bot", "-n", &self.namespace, "--type=merge", "--patch-file=/dev/stdin"];
        self.kubectl(user).run_with_input(&arguments, &patch.to_string()).map_err(|f| f.stderr)
    }

    pub fn stamp(&self) -> Option<String> {
        let agent = self.world.kubectl().get_json(&["get", "agent", "bot", "-n", &self.namespace]).expect("the Agent");
        agent["metadata"]["annotations"][CHANGED_BY].as_str().map(str::to_owned)
    }

    pub fn settled(&self, condition: &str) {
        self.world.kubectl().wait_for(&self.namespace, "agent/bot", condition, PATIENCE).expect(condition);
    }
}

fn capabilities(names: &[&str]) -> Value {
    json!({"capabilities": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()})
}

#[test]
fn creating_an_agent_needs_grant_on_each_of_its_capabilities() {
    both_ways("create", |people| {
        forbidden(people.apply("bob", &capabilities(&["a.read"])), "user \"bob\" may not grant capability \"a.read\"");
        forbidden(
            people.apply("alice", &capabilities(&["a.read", "b.read"])),
            "user \"alice\" may not grant capability \"b.read\"",
        );
        forbidden(people.apply("carol", &capabilities(&[])), "cannot");
        people.apply("alice", &capabilities(&["a.read", "a.write"])).expect("alice may grant both");
        assert_eq!(people.stamp().as_deref(), Some("alice"));
    });
}

#[test]
fn an_agent_without_capabilities_needs_no_grant() {
    both_ways("empty", |people| {
        people.apply("bob", &capabilities(&[])).expect("nothing is granted");
        forbidden(people.patch("bob", &capabilities(&["a.read"])), "may not grant capability \"a.read\"");
    });
}

#[test]
fn c1_widening_needs_grant_on_what_is_added_and_on_nothing_else() {
    both_ways("widen", |people| {
        people
            .apply("alice", &json!({"capabilities": [{"name": "a.read", "resources": ["document:x", "document:y"]}]}))
            .expect("created");
        let change = |user: &str, resources: Value| {
            people.patch(user, &json!({"capabilities": [{"name": "a.read", "resources": resources}]}))
        };
        forbidden(change("bob", json!(["document:x", "document:y", "document:z"])), "a.read");
        forbidden(change("bob", json!(["document:**"])), "a.read");
        forbidden(change("bob", json!(null)), "a.read");
        change("bob", json!(["document:x"])).expect("narrowing needs no grant");
        forbidden(change("bob", json!(["document:x", "document:y"])), "a.read");
        change("alice", json!(["document:x", "document:y"])).expect("alice may");
        people.patch("alice", &capabilities(&["a.read", "a.write"])).expect("alice may grant what is added");
        forbidden(people.patch("alice", &capabilities(&["a.read", "a.write", "b.read"])), "b.read");
        forbidden(people.patch("bob", &capabilities(&["a.read", "a.x"])), "a.x");
        people.patch("bob", &capabilities(&["a.write"])).expect("taking one away needs no grant");
        people.patch("bob", &capabilities(&[])).expect("taking all away needs no grant");
    });
}

#[test]
fn demanding_approval_needs_no_grant_but_dropping_it_does() {
    both_ways("approval", |people| {
        people
            .apply("alice", &json!({"capabilities": [{"name": "a.read", "approval": "Required"}, {"name": "a.write"}]}))
            .expect("created");
        let change = |user: &str, read: Value, write: Value| people.patch(user, &json!({"capabilities": [read, write]}));
        let (read, write) = (json!({"name": "a.read"}), json!({"name": "a.write"}));
        let demanding = |entry: &Value| json!({"name": entry["name"], "approval": "Required"});
        forbidden(change("bob", read.clone(), write.clone()), "may not grant capability \"a.read\"");
        forbidden(
            change("bob", json!({"name": "a.read", "approval": null}), write.clone()),
            "may not grant capability \"a.read\"",
        );
        change("bob", demanding(&read), demanding(&write)).expect("to demand approval is to narrow");
        forbidden(change("bob", demanding(&read), write.clone()), "may not grant capability \"a.write\"");
        let narrower = json!({"name": "a.write", "resources": ["document:x"]});
        forbidden(change("bob", demanding(&read), narrower.clone()), "may not grant capability \"a.write\"");
        change("alice", demanding(&read), narrower).expect("alice may");
        forbidden(
            people.apply("bob", &json!({"capabilities": [demanding(&read), demanding(&write)]})),
            "may not grant capability \"a.write\"",
        );
    });
}

#[test]
fn whoever_could_make_an_agents_rights_his_own_needs_grant_on_all_of_them() {
    both_ways("everything", |people| {
        people.apply("alice", &json!({"capabilities": [{"name": "a.read"}], "tokens": {"expirationSeconds": 300, "audiences": [{"name": "https://a.example"}]}})).expect("created");
        for change in [
            json!({"identity": {"serviceAccounts": [{"name": "mine"}]}}),
            json!({"identity": {"serviceAccounts": [{"name": "bot"}, {"name": "mine"}]}}),
            json!({"owner": "bob"}),
            json!({"tokens": {"audiences": [{"name": "https://a.example"}, {"name": "https://evil.example"}]}}),
            json!({"tokens": {"expirationSeconds": 900}}),
        ] {
            forbidden(people.patch("bob", &change), "may not grant capability \"a.read\"");
            people.patch("alice", &change).expect("alice may");
        }
        people.patch("bob", &json!({"tokens": {"expirationSeconds": 60}})).expect("a shorter life needs no grant");
        people
            .patch("bob", &json!({"tokens": {"audiences": [{"name": "https://a.example"}]}}))
            .expect("fewer audiences need no grant");
        let proof = |of: Value| json!({"tokens": {"proofOfPossession": of}});
        people.patch("bob", &proof(json!("DPoP"))).expect("to demand a proof is to narrow");
        for weaker in [proof(json!("None")), proof(Value::Null), json!({"tokens": null})] {
            forbidden(people.patch("bob", &weaker), "may not grant capability \"a.read\"");
        }
        people.patch("alice", &proof(json!("None"))).expect("alice may");
        people.patch("bob", &proof(json!("DPoP"))).expect("and bob may demand it again");
        let signed =
            |algorithm: &str| json!({"tokens": {"audiences": [{"name": "https://a.example", "signingAlgorithm": algorithm}]}});
        people.patch("bob", &signed("EdDSA")).expect("writing out the default changes nothing");
        for algorithm in ["ES256", "EdDSA"] {
            forbidden(people.patch("bob", &signed(algorithm)), "may not grant capability \"a.read\"");
            people.patch("alice", &signed(algorithm)).expect("alice may");
        }
        people.patch("bob", &json!({"displayName": "Bot"})).expect("a name is no right");
    });
}

#[test]
fn suspending_needs_no_grant_but_resuming_does() {
    both_ways("suspend", |people| {
        people.apply("alice", &capabilities(&["a.read"])).expect("created");
        people.settled("condition=Ready");
        people.patch("bob", &json!({"suspended": true})).expect("anyone who may write it may stop it");
        people.settled("condition=Suspended");
        wait_until("the suspended generation is counted", PATIENCE, || {
            let agent = people.world.kubectl().get_json(&["get", "agent", "bot", "-n", &people.namespace]).expect("the Agent");
            agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
        });
        forbidden(people.patch("bob", &json!({"suspended": false})), "may not grant capability \"a.read\"");
        people.patch("alice", &json!({"suspended": false})).expect("alice may");
    });
}

#[test]
fn the_stamp_names_who_wrote_the_spec_and_cannot_be_forged() {
    both_ways("stamp", |people| {
        people.apply("alice", &capabilities(&["a.read"])).expect("created");
        assert_eq!(people.stamp().as_deref(), Some("alice"));
        let forge = json!({"metadata": {"annotations": {CHANGED_BY: "alice"}}, "spec": {"displayName": "forged"}});
        match (people.stamp, people.raw_patch("bob", &forge)) {
            (Stamp::ByPolicy, Ok(_)) => assert_eq!(people.stamp().as_deref(), Some("bob"), "the forged stamp was overwritten"),
            (Stamp::ByHand, refused) => forbidden(refused, "must be \"bob\""),
            (Stamp::ByPolicy, Err(error)) => panic!("{error}"),
        }
        people.patch("bob", &json!({"displayName": "by bob"})).expect("bob may");
        assert_eq!(people.stamp().as_deref(), Some("bob"));
        for without_spec in [json!({"annotations": {CHANGED_BY: "alice"}}), json!({"annotations": {CHANGED_BY: null}})] {
            match (people.stamp, people.raw_patch("alice", &json!({"metadata": without_spec}))) {
                (Stamp::ByPolicy, Ok(_)) => {}
                (Stamp::ByHand, refused) => forbidden(refused, "leave it as it is"),
                (Stamp::ByPolicy, Err(error)) => panic!("{error}"),
            }
            assert_eq!(people.stamp().as_deref(), Some("bob"), "who wrote the spec stays known");
        }
        people.raw_patch("bob", &json!({"metadata": {"labels": {"team": "x"}}})).expect("labelling needs no grant and no stamp");
        assert_eq!(people.stamp().as_deref(), Some("bob"));
    });
}

#[test]
fn server_side_apply_and_replace_are_held_to_the_same_rules() {
    both_ways("apply", |people| {
        let server_side = |user: &str, names: &[&str]| {
            let object = people.object(user, &capabilities(names)).to_string();
            people
                .kubectl(user)
                .run_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &object)
                .map_err(|f| f.stderr)
        };
        forbidden(server_side("bob", &["a.read"]), "a.read");
        server_side("alice", &["a.read"]).expect("alice may");
        forbidden(server_side("bob", &["a.read", "a.write"]), "a.write");
        let replace = |user: &str, names: &[&str]| {
            let object = people.object(user, &capabilities(names)).to_string();
            people.kubectl(user).run_with_input(&["replace", "-f", "-"], &object).map_err(|f| f.stderr)
        };
        forbidden(replace("bob", &["a.read", "a.write"]), "a.write");
        replace("alice", &["a.read", "a.write"]).expect("alice may");
    });
}

#[test]
fn c9_impersonation_counts_as_the_impersonated() {
    both_ways("impersonate", |people| {
        let as_bob = people.world.kubectl().impersonating("bob", &["system:authenticated"]);
        let refused = as_bob.apply(&people.object("bob", &capabilities(&["a.read"])).to_string()).map_err(|f| f.stderr);
        forbidden(refused, "user \"bob\" may not grant");
        let as_alice = people.world.kubectl().impersonating("alice", &["system:authenticated"]);
        as_alice.apply(&people.object("alice", &capabilities(&["a.read"])).to_string()).expect("alice may");
        assert_eq!(people.stamp().as_deref(), Some("alice"));
    });
}

#[test]
fn twenty_four_capabilities_can_be_added_at_once_and_more_by_who_may_grant_all() {
    both_ways("many", |people| {
        let names: Vec<String> = (0..64).map(|i| format!("m.n{i}")).collect();
        let some = |n: usize| capabilities(&names.iter().take(n).map(String::as_str).collect::<Vec<_>>());
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": names, "verbs": ["grant"]}]);
        people.world.bind(&people.namespace, "many", &rules, &[user("alice")]);
        wait_until("the Role is seen", PATIENCE, || people.apply("alice", &some(24)).is_ok());
        forbidden(people.patch("alice", &some(64)), "at most 24 capabilities");
        people.patch("alice", &some(48)).expect("twenty-four more");
        let all = people.object("admin", &some(64)).to_string();
        people.world.kubectl().apply(&all).expect("an administrator may grant all");
    });
}

#[test]
fn the_largest_agent_can_still_be_narrowed_and_suspended() {
    both_ways("largest", |people| {
        let resources = |n: usize| (0..n).map(|i| format!("document:{}/{i}", "x".repeat(200))).collect::<Vec<_>>();
        let entry = |i: usize| json!({"name": format!("l.n{i}"), "resources": resources(32), "approval": "Required"});
        let all: Vec<Value> = (0..64).map(entry).collect();
        let object = people.object("admin", &json!({"capabilities": all})).to_string();
        people.world.kubectl().run_with_input(&["create", "-f", "-"], &object).expect("the schema allows it");
        people.settled("condition=Ready");
        let mut narrowed = all;
        narrowed[7]["resources"] = json!(resources(31));
        people.patch("bob", &json!({"capabilities": narrowed})).expect("one resource less needs no grant");
        people.patch("bob", &json!({"suspended": true})).expect("anyone who may write it may stop it");
        narrowed[9]["resources"] = json!(["document:**"]);
        forbidden(people.patch("bob", &json!({"capabilities": narrowed})), "may not grant capability \"l.n9\"");
        narrowed[9]["resources"] = json!(resources(31));
        narrowed[63].as_object_mut().expect("an entry").remove("approval");
        forbidden(people.patch("bob", &json!({"capabilities": narrowed})), "may not grant capability \"l.n63\"");
    });
}

#[test]
fn status_is_written_by_the_operator_alone() {
    both_ways("status", |people| {
        people.apply("alice", &capabilities(&["a.read"])).expect("created");
        people.settled("condition=Ready");
        for status in [json!({"revocationEpoch": 7}), json!({"conditions": []})] {
            let arguments = [
                "patch",
                "agent",
                "bot",
                "-n",
                &people.namespace,
                "--subresource=status",
                "--type=merge",
                "-p",
                &json!({"status": status}).to_string(),
            ];
            forbidden(people.kubectl("alice").run(&arguments).map_err(|f| f.stderr), "needs verb operate");
        }
        let through_spec = people.raw_patch("alice", &json!({"status": {"revocationEpoch": 7}}));
        assert!(through_spec.is_ok(), "the main resource ignores status");
        let agent = people.world.kubectl().get_json(&["get", "agent", "bot", "-n", &people.namespace]).expect("the Agent");
        assert_eq!(agent["status"]["revocationEpoch"], 0);
    });
}

#[test]
fn the_policies_have_no_complaint_of_their_own() {
    for (world, _) in World::both() {
        wait_until("the API server has type-checked the policies", PATIENCE, || {
            let list = world.kubectl().get_json(&["get", "validatingadmissionpolicies"]).expect("policies");
            list["items"]
                .as_array()
                .expect("items")
                .iter()
                .all(|p| p["status"]["observedGeneration"] == p["metadata"]["generation"])
        });
        let list = world.kubectl().get_json(&["get", "validatingadmissionpolicies"]).expect("policies");
        for policy in list["items"].as_array().expect("items") {
            let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
            assert!(warnings.is_null(), "{}: {warnings}", policy["metadata"]["name"]);
        }
    }
}

#[test]
fn an_agent_of_before_an_upgrade_is_not_changed_by_the_default_of_a_new_field() {
    // A world of its own, whose definition lacks the field for a while.
    let world = World::start(4, &[], &[]);
    let namespace = world.namespace("older");
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "list", "create", "update", "patch"]}]);
    world.bind(&namespace, "write", &rules, &[user("bob")]);
    let pointer = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/tokens/properties/audiences/items/properties/signingAlgorithm";
    let definition = ["get", "customresourcedefinition", "agents.countersign.dev"];
    let field = world.kubectl().get_json(&definition).expect("the definition").pointer(pointer).expect("the field").clone();
    let change = |operation: &Value| {
        let patch = json!([operation]).to_string();
        let arguments = ["patch", "customresourcedefinition", "agents.countersign.dev", "--type=json", "-p", &patch];
        world.kubectl().run(&arguments).expect("the definition is changed");
    };
    let audience = |entry: Value| json!({"tokens": {"audiences": [entry]}});
    let new = agent(&namespace, "new", &audience(json!({"name": "https://a.example", "signingAlgorithm": "ES256"})));
    let knows_field = || {
        let arguments = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        world.kubectl().run_with_input(&arguments, &new.to_string()).is_ok()
    };
    change(&json!({"op": "remove", "path": pointer}));
    wait_until("the field is unknown", PATIENCE, || !knows_field());
    world.apply(&stamped(agent(&namespace, "bot", &audience(json!({"name": "https://a.example"}))), "admin")).expect("created");
    change(&json!({"op": "add", "path": pointer, "value": field}));
    wait_until("the field is known", PATIENCE, knows_field);
    let patch = |spec: &Value| {
        let patch = json!({"spec": spec}).to_string();
        let bob = world.cluster.kubectl_as("bob").expect("a user");
        bob.run(&["patch", "agent", "bot", "-n", &namespace, "--type=merge", "-p", &patch]).map_err(|f| f.stderr)
    };
    patch(&json!({"displayName": "Bot"})).expect("a name is no right, and nothing else was changed");
    patch(&audience(json!({"name": "https://a.example", "signingAlgorithm": "EdDSA"}))).expect("nor was this");
    forbidden(patch(&audience(json!({"name": "https://a.example", "signingAlgorithm": "ES256"}))), "may not grant");
}
