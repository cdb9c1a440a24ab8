//! Admission of the catalogue: who may change the rule of a capability, and who is said to have done it. Each rule is tried on a
//! cluster with MutatingAdmissionPolicy and on one without.

use crate::support::kubectl::Kubectl;
use crate::world::{CHANGED_BY, PATIENCE, Stamp, World, forbidden, stamped, user, wait_until};
use serde_json::{Value, json};

/// People who may write the catalogue; alice may `grant` the names here in the whole cluster, bob nothing, carol only in a namespace.
struct Library {
    world: &'static World,
    stamp: Stamp,
    /// Begins every name in it.
    prefix: String,
}

/// Runs `test` on both kinds of clusters.
fn both_ways(purpose: &str, test: impl Fn(&Library)) {
    for (world, stamp) in World::both() {
        let prefix = world.namespace(purpose);
        let people = ["alice", "bob", "carol"].map(user);
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities", "capabilities/status"],
            "verbs": ["get", "list", "create", "update", "patch", "delete", "deletecollection"]}]);
        world.bind_everywhere(&format!("{prefix}-write"), &rules, &people);
        let names = ["read", "write"].map(|name| format!("{prefix}.{name}"));
        let grant = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": names, "verbs": ["grant"]}]);
        world.bind_everywhere(&format!("{prefix}-grant"), &grant, &[user("alice")]);
        // A namespace is not the cluster, not even the operator's.
        for namespace in [prefix.as_str(), "countersign-system", "default"] {
            world.bind(namespace, &format!("{prefix}-grant"), &grant, &[user("carol")]);
        }
        let library = Library { world, stamp, prefix };
        let what = format!("capabilities.countersign.dev/{}", library.name("write"));
        wait_until("the right is seen", PATIENCE, || library.person("alice").run(&["auth", "can-i", "grant", &what]).is_ok());
        test(&library);
    }
}

impl Library {
    fn person(&self, name: &str) -> Kubectl {
        self.world.cluster.kubectl_as(name).expect("a user")
    }

    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn object(&self, who: &str, name: &str, spec: &Value) -> Value {
        let object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "Capability",
            "metadata": {"name": self.name(name), "labels": {"library": self.prefix}}, "spec": spec});
        if self.stamp == Stamp::ByHand { stamped(object, who) } else { object }
    }

    fn create(&self, who: &str, name: &str, spec: &Value) -> Result<String, String> {
        crate::office::create(&self.person(who), &self.object(who, name, spec))
    }

    /// Merges `spec`, with the stamp of `who` where people write it.
    fn change(&self, who: &str, name: &str, spec: &Value) -> Result<String, String> {
        let mut patch = json!({"spec": spec});
        if self.stamp == Stamp::ByHand {
            patch = stamped(patch, who);
        }
        self.patch(who, name, &patch)
    }

    fn patch(&self, who: &str, name: &str, patch: &Value) -> Result<String, String> {
        let arguments = ["patch", "capability", &self.name(name), "--type=merge", "-p", &patch.to_string()];
        self.person(who).run(&arguments).map_err(|f| f.stderr)
    }

    fn stored(&self, name: &str) -> Value {
        self.world.kubectl().get_json(&["get", "capability", &self.name(name)]).expect("the Capability")
    }

    fn stamp(&self, name: &str) -> Value {
        self.stored(name)["metadata"]["annotations"][CHANGED_BY].clone()
    }

    fn rule(&self, who: &str, name: &str) -> String {
        let name = self.name(name);
        format!(
            "user \"{who}\" may not change the rule of capability \"{name}\": it needs verb grant on capabilities.countersign.dev/{name} in the whole cluster"
        )
    }
}

#[test]
fn writing_the_catalogue_needs_grant_on_the_name_in_the_whole_cluster() {
    both_ways("catalogue", |library| {
        let spec = json!({"risk": "High", "approval": {"approvals": 2}});
        for who in ["bob", "carol"] {
            forbidden(library.create(who, "read", &spec), &library.rule(who, "read"));
        }
        forbidden(library.create("alice", "other", &spec), &library.rule("alice", "other"));
        library.create("alice", "read", &spec).expect("alice may");
        assert_eq!(library.stamp("read"), "alice");
        // To loosen, to tighten, or only to retitle: whoever changes the entry answers for the rule.
        for change in [
            json!({"approval": {"required": false}}),
            json!({"approval": {"approvals": 1}}),
            json!({"approval": {"subjectMayApprove": true}}),
            json!({"approval": {"maxExpirationSeconds": 60}}),
            json!({"approval": null}),
            json!({"parameterSchema": {"type": "object"}}),
            json!({"risk": "Low"}),
            json!({"title": "Harmless"}),
            json!({"description": "Nothing to see here"}),
        ] {
            for who in ["bob", "carol"] {
                forbidden(library.change(who, "read", &change), &library.rule(who, "read"));
            }
        }
        assert_eq!(library.stored("read")["metadata"]["generation"], 1);
        library.change("alice", "read", &json!({"title": "Read"})).expect("alice may");
        let apply = |who: &str| {
            let object = library.object(who, "read", &json!({"approval": {"required": false}})).to_string();
            let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
            library.person(who).run_with_input(&arguments, &object).map_err(|f| f.stderr)
        };
        forbidden(apply("bob"), &library.rule("bob", "read"));
        apply("alice").expect("alice may");
    });
}

#[test]
fn deleting_from_the_catalogue_needs_grant_too() {
    both_ways("catalogue-delete", |library| {
        let name = library.name("read");
        library.create("alice", "read", &json!({"approval": {}})).expect("created");
        let delete =
            |who: &str, arguments: &[&str]| library.person(who).run(&[&["delete"], arguments].concat()).map_err(|f| f.stderr);
        let all = format!("/apis/countersign.dev/v1alpha1/capabilities?labelSelector=library%3D{}", library.prefix);
        for who in ["bob", "carol"] {
            forbidden(delete(who, &["capability", &name]), &library.rule(who, "read"));
            forbidden(delete(who, &["--raw", &all]), &library.rule(who, "read"));
        }
        assert_eq!(library.stored("read")["spec"]["approval"]["required"], true);
        library.create("alice", "write", &json!({})).expect("created");
        delete("alice", &["capability", &name]).expect("alice may");
        delete("alice", &["--raw", &all]).expect("alice may");
        wait_until("all are gone", PATIENCE, || {
            let left =
                library.world.kubectl().run(&["get", "capabilities", "-l", &format!("library={}", library.prefix), "-o", "name"]);
            left.expect("a list").trim().is_empty()
        });
    });
}

#[test]
fn a_label_changes_no_rule() {
    both_ways("catalogue-label", |library| {
        library.create("alice", "read", &json!({"approval": {}})).expect("created");
        library
            .patch("bob", "read", &json!({"metadata": {"labels": {"team": "x"}, "annotations": {"note": "y"}}}))
            .expect("no rule");
        assert_eq!(library.stamp("read"), "alice", "who wrote the rule stays known");
        assert_eq!(library.stored("read")["metadata"]["labels"]["team"], "x");
    });
}

#[test]
fn the_stamp_names_who_wrote_the_rule_and_cannot_be_forged() {
    both_ways("catalogue-stamp", |library| {
        library.create("alice", "read", &json!({"approval": {}})).expect("created");
        let admin = |patch: &Value| {
            let arguments = ["patch", "capability", &library.name("read"), "--type=merge", "-p", &patch.to_string()];
            library.world.kubectl().run(&arguments).map_err(|f| f.stderr)
        };
        let forged = stamped(json!({"spec": {"title": "forged"}}), "alice");
        match (library.stamp, admin(&forged)) {
            (Stamp::ByPolicy, accepted) => {
                accepted.expect("the forged stamp is overwritten");
                assert_eq!(library.stamp("read"), "admin");
            }
            (Stamp::ByHand, refused) => forbidden(refused, "must be \"admin\""),
        }
        library.change("alice", "read", &json!({"title": "by alice"})).expect("alice may");
        for stamp in [json!("bob"), json!(null)] {
            let patch = json!({"metadata": {"annotations": {CHANGED_BY: stamp}}});
            match (library.stamp, library.patch("bob", "read", &patch)) {
                (Stamp::ByPolicy, accepted) => drop(accepted.expect("it is put back")),
                (Stamp::ByHand, refused) => forbidden(refused, "leave it as it is"),
            }
            assert_eq!(library.stamp("read"), "alice");
        }
        if library.stamp == Stamp::ByHand {
            let mut unstamped = library.object("alice", "write", &json!({}));
            unstamped["metadata"]["annotations"] = json!({});
            forbidden(crate::office::create(&library.person("alice"), &unstamped), "must be \"alice\"");
        }
    });
}

#[test]
fn status_is_written_by_the_operator_alone() {
    both_ways("catalogue-status", |library| {
        // A rule that cannot be enforced, which nobody may declare sound.
        library.create("alice", "read", &json!({"parameterSchema": {"type": "elephant"}})).expect("created");
        let name = library.name("read");
        let broken = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=InvalidRule";
        library
            .world
            .kubectl()
            .wait_for("default", &format!("capability/{name}"), broken, PATIENCE)
            .expect("the operator says so");
        let before = library.stored("read")["status"].clone();
        let ready = json!({"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        for status in [json!({"conditions": [ready]}), json!({"conditions": []}), json!({"observedGeneration": 7}), json!(null)] {
            let patch = json!({"status": status}).to_string();
            let arguments = ["patch", "capability", &name, "--subresource=status", "--type=merge", "-p", &patch];
            for who in ["alice", "bob"] {
                let refused = library.person(who).run(&arguments).map_err(|f| f.stderr);
                forbidden(refused, "the status of capabilities is written by the operator: it needs verb operate");
            }
        }
        library.patch("alice", "read", &json!({"status": {"conditions": [ready]}})).expect("the main resource ignores status");
        assert_eq!(library.stored("read")["status"], before);
    });
}

#[test]
fn c9_impersonation_counts_as_the_impersonated() {
    both_ways("catalogue-as", |library| {
        let create = |who: &str, name: &str| {
            let somebody = library.world.kubectl().impersonating(who, &["system:authenticated"]);
            crate::office::create(&somebody, &library.object(who, name, &json!({"approval": {}})))
        };
        forbidden(create("bob", "read"), &library.rule("bob", "read"));
        create("alice", "read").expect("alice may");
        assert_eq!(library.stamp("read"), "alice");
    });
}
