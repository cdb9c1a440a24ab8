//! Admission of an Agent's identity: who says how it proves itself could be it, so whoever says it answers for all that it may do. Each
//! rule is tried on a cluster with MutatingAdmissionPolicy and on one without.

use crate::admission::{People, both_ways};
use crate::key_agents::{Key, rfc3339};
use crate::world::{CHANGED_BY, Stamp, forbidden};
use serde_json::{Value, json};

const REFUSED: &str = "may not grant capability \"a.read\"";

/// What an Agent of this test may do: alice may grant all of it, bob none.
fn agent_with(identity: &Value) -> Value {
    json!({"capabilities": [{"name": "a.read"}, {"name": "a.write"}], "identity": identity})
}

/// Replaces the whole identity, as `user`.
fn replace(people: &People, user: &str, identity: &Value) -> Result<String, String> {
    let mut patch = json!([{"op": "replace", "path": "/spec/identity", "value": identity}]);
    if people.stamp == Stamp::ByHand {
        let path = format!("/metadata/annotations/{}", CHANGED_BY.replace('/', "~1"));
        patch.as_array_mut().expect("a list").push(json!({"op": "add", "path": path, "value": user}));
    }
    let arguments = ["patch", "agent", "bot", "-n", &people.namespace, "--type=json", "--patch-file=/dev/stdin"];
    people.kubectl(user).run_with_input(&arguments, &patch.to_string()).map_err(|f| f.stderr)
}

/// The identity as it is stored.
fn stored(people: &People) -> Value {
    let agent = people.world.kubectl().get_json(&["get", "agent", "bot", "-n", &people.namespace]).expect("the Agent");
    agent["spec"]["identity"].clone()
}

/// `identity` with one change.
fn changed(identity: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut identity = identity.clone();
    change(&mut identity);
    identity
}

#[test]
fn adding_changing_or_removing_a_credential_needs_grant_on_everything_the_agent_holds() {
    both_ways("credentials", |people| {
        let key = |kid: &str| json!({"kid": kid, "publicKey": Key::new().pem(), "notAfter": rfc3339(4_000_000_000)});
        let identity = json!({
            "serviceAccounts": [{"name": "bot"}, {"name": "other"}],
            "keys": [key("one"), key("two")],
            "federated": [{"issuer": "aws", "subject": "arn:a", "claims": {"ref": "main"}}, {"issuer": "aws", "subject": "arn:b"}],
        });
        people.apply("alice", &agent_with(&identity)).expect("alice may");
        let push = |list: &str, entry: Value| changed(&identity, |i| i[list].as_array_mut().expect("a list").push(entry));
        let remove = |list: &str| changed(&identity, |i| _ = i[list].as_array_mut().expect("a list").remove(0));
        let set = |path: &str, value: Value| changed(&identity, |i| *i.pointer_mut(path).expect(path) = value);
        let changes = [
            push("keys", key("three")),
            push("keys", identity["keys"][0].clone()),
            remove("keys"),
            set("/keys", json!([])),
            set("/keys/0/publicKey", json!(Key::new().pem())),
            set("/keys/0/kid", json!("uno")),
            set("/keys/0/notAfter", json!(rfc3339(4_000_000_001))),
            set("/keys/0/notAfter", json!(rfc3339(1_000_000_000))),
            changed(&identity, |i| _ = i["keys"][0].as_object_mut().expect("a key").remove("notAfter")),
            changed(&identity, |i| i["keys"].as_array_mut().expect("keys").reverse()),
            push("federated", json!({"issuer": "gcp", "subject": "bob"})),
            remove("federated"),
            set("/federated", json!([])),
            set("/federated/0/issuer", json!("gcp")),
            set("/federated/0/subject", json!("arn:bob")),
            set("/federated/0/claims/ref", json!("dev")),
            set("/federated/0/claims", json!({})),
            changed(&identity, |i| i["federated"][0]["claims"]["environment"] = json!("prod")),
            push("serviceAccounts", json!({"name": "bobs"})),
            remove("serviceAccounts"),
            set("/serviceAccounts/0/name", json!("bobs")),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            forbidden(replace(people, "bob", &change), REFUSED);
            assert_eq!(stored(people), identity, "{change}");
            replace(people, "alice", &change).expect("alice may");
            assert_ne!(stored(people), identity, "{change}");
            replace(people, "alice", &identity).expect("and back");
            // Some of them by every way of writing it, also hidden behind what he may do.
            if at % 5 != 0 {
                continue;
            }
            forbidden(people.patch("bob", &json!({"identity": change, "suspended": true})), REFUSED);
            forbidden(people.patch("bob", &json!({"identity": change, "capabilities": [{"name": "a.read"}]})), REFUSED);
            let object = people.object("bob", &agent_with(&change)).to_string();
            let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
            for arguments in [&apply[..], &["replace", "-f", "-"]] {
                forbidden(people.kubectl("bob").run_with_input(arguments, &object).map_err(|f| f.stderr), REFUSED);
            }
            assert_eq!(people.stamp().as_deref(), Some("alice"), "{change}");
            assert_eq!(stored(people), identity, "{change}");
        }
        // What changes nothing about who it is needs nothing.
        people.patch("bob", &json!({"displayName": "Bot", "identity": {"keys": identity["keys"]}})).expect("it is the same");
        // Who takes all capabilities away as well has nothing left to make his own.
        people.patch("bob", &json!({"capabilities": [], "identity": {"keys": [key("bobs")]}})).expect("nothing is granted");
        let again = people.patch("bob", &json!({"capabilities": [{"name": "a.read"}]}));
        forbidden(again, REFUSED);
    });
}

#[test]
fn whoever_may_grant_only_a_part_of_what_an_agent_holds_says_nothing_about_who_it_is() {
    both_ways("part", |people| {
        let key = || json!({"keys": [{"publicKey": Key::new().pem()}]});
        let spec = json!({"capabilities": [{"name": "a.read"}, {"name": "b.read"}], "identity": key()});
        let object = people.object("admin", &spec).to_string();
        people.world.kubectl().apply(&object).expect("an administrator may grant all");
        let refused = "may not grant capability \"b.read\"";
        forbidden(people.patch("alice", &json!({"identity": key()})), refused);
        forbidden(people.patch("alice", &json!({"identity": {"federated": [{"issuer": "aws", "subject": "alice"}]}})), refused);
        forbidden(people.patch("alice", &json!({"identity": {"serviceAccounts": [{"name": "alices"}]}})), refused);
        // Nor may she make an Agent of her own that is somebody with what she cannot grant.
        let own = json!({"capabilities": [{"name": "b.read"}], "identity": key()});
        let mut object = people.object("alice", &own);
        object["metadata"]["name"] = json!("own");
        forbidden(people.kubectl("alice").apply(&object.to_string()).map_err(|f| f.stderr), refused);
    });
}
