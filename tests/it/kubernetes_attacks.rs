//! What Kubernetes itself can do to the operator and to what it keeps: collect garbage, delete namespaces, hand fields over.

use crate::admission::both_ways;
use crate::payments::{asked, docs_server};
use crate::support::install::{NAMESPACE, RELEASE};
use crate::support::kubectl::Kubectl;
use crate::world::{PATIENCE, World, agent, forbidden, user, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the control plane may take to clear up: it looks for kinds that are new to it every 30 s.
const CLEARED: Duration = Duration::from_secs(120);

/// A ConfigMap, and what makes an object go with it.
fn owner(kubectl: &Kubectl, namespace: &str) -> String {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "namespace": namespace}});
    kubectl.apply(&object.to_string()).expect("applied");
    let uid = kubectl.get_json(&["get", "configmap", "owner", "-n", namespace]).expect("it")["metadata"]["uid"].clone();
    json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]}}).to_string()
}

#[test]
fn k4_what_goes_with_an_owner_of_its_own_is_recorded_ends_and_comes_back_with_no_more_rights() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("owned");
    let (kubectl, namespace, server) = (world.kubectl(), tenant.namespace.clone(), docs_server(world));
    world.approver("bob", &namespace, &capability);
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "create", "patch"]}]);
    world.bind(&namespace, "write", &rules, &[user("carol")]);
    let request = asked(&tenant, &capability);
    request.approve("bob");
    let token = request.token();
    assert!(world.introspect(&server, &token).is_active());
    let owned = owner(&kubectl, &namespace);
    for object in ["agent/bot".to_owned(), format!("jitrequest/{}", request.name)] {
        kubectl.run(&["patch", &object, "-n", &namespace, "--type=merge", "-p", &owned]).expect("patched");
    }
    kubectl.run(&["delete", "configmap", "owner", "-n", &namespace]).expect("deleted");
    for object in ["agent/bot".to_owned(), format!("jitrequest/{}", request.name)] {
        wait_until("it goes with its owner", CLEARED, || kubectl.run(&["get", &object, "-n", &namespace]).is_err());
    }
    wait_until("its token is dead", PATIENCE, || !world.introspect(&server, &token).is_active());
    let uid = request.id.as_str();
    let ended = |line: &Value, event: &str, member: &str, value: &str| line["event"] == event && line[member] == value;
    wait_until("both are recorded", PATIENCE, || {
        let lines = world.operator.audit_lines().expect("the audit log");
        lines.iter().any(|line| ended(line, "agent.deleted", "subject", &tenant.subject()))
            && lines.iter().any(|line| ended(line, "token.issue", "jit_request_uid", uid))
            // Whichever the operator sees first: that it is gone, or its agent.
            && ["jit.withdrawn", "jit.revoked"]
                .iter()
                .any(|event| lines.iter().any(|line| ended(line, event, "jit_request_uid", uid)))
    });
    // Whoever deletes it may not have it again with what it held.
    let again = agent(&namespace, "bot", &json!({"capabilities": [{"name": capability, "approval": "Required"}]}));
    let carol = world.cluster.kubectl_as("carol").expect("a user");
    forbidden(
        carol.apply(&again.to_string()).map_err(|failure| failure.stderr),
        &format!("may not grant capability \"{capability}\""),
    );
}

#[test]
fn k5_a_namespace_goes_though_nobody_runs_and_what_a_finalizer_holds_gets_nothing() {
    let world = World::start(4, &[], &[]);
    let (kubectl, server) = (world.kubectl(), docs_server(&world));
    let held = world.tenant("held");
    let token = held.access_token();
    let hold = json!({"metadata": {"finalizers": ["example.com/held"]}}).to_string();
    kubectl.run(&["patch", "agent", "bot", "-n", &held.namespace, "--type=merge", "-p", &hold]).expect("patched");
    kubectl.run(&["delete", "agent", "bot", "-n", &held.namespace, "--wait=false"]).expect("deleted");
    wait_until("it gets nothing", PATIENCE, || matches!(world.exchange(&held.token).status, 400..=403));
    assert!(!world.introspect(&server, &token).is_active());
    assert!(held.agent()["metadata"]["deletionTimestamp"].is_string(), "and is there");

    let (tenant, capability) = world.payments_tenant("gone");
    asked(&tenant, &capability);
    world.operator.process().begin_stop();
    world.operator.process().wait(PATIENCE).expect("it ends");
    kubectl.run(&["delete", "namespace", &tenant.namespace, "--wait=false"]).expect("deleted");
    wait_until("the namespace is gone", CLEARED, || kubectl.run(&["get", "namespace", &tenant.namespace]).is_err());
}

#[test]
fn k6_each_resource_has_one_version_and_nothing_is_converted_or_kept_unread() {
    for crd in countersign::crd::all() {
        let name = crd.spec.names.kind.clone();
        let [version] = &crd.spec.versions[..] else { panic!("{name} has several versions") };
        assert!(version.served && version.storage, "{name}");
        assert!(crd.spec.conversion.is_none() && crd.spec.preserve_unknown_fields.is_none(), "{name}");
        let text = serde_json::to_string(version).expect("JSON");
        let open = text.matches("x-kubernetes-preserve-unknown-fields").count();
        // What an operation's parameters are, and by which schema, is the user's to say.
        assert_eq!(open, usize::from(matches!(name.as_str(), "JitRequest" | "Capability")), "{name}");
    }
}

#[test]
fn k7_whoever_takes_a_suspension_over_needs_the_rights_for_it_and_is_named() {
    both_ways("takeover", |people| {
        let with = |user: &str, suspended: bool| {
            people.object(user, &json!({"suspended": suspended, "capabilities": [{"name": "a.read"}]})).to_string()
        };
        let arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=thief", "-f", "-"];
        let take =
            |user: &str| people.kubectl(user).run_with_input(&arguments, &with(user, false)).map_err(|failure| failure.stderr);
        people.kubectl("alice").apply(&with("alice", true)).expect("applied");
        people.settled("condition=Suspended");
        forbidden(take("carol"), "carol");
        forbidden(take("bob"), "may not grant capability \"a.read\"");
        take("alice").expect("alice may");
        let kubectl = people.world.kubectl();
        let stored = kubectl.get_json(&["get", "agent", "bot", "-n", &people.namespace, "--show-managed-fields"]).expect("it");
        assert_eq!((&stored["spec"]["suspended"], people.stamp().as_deref()), (&json!(false), Some("alice")));
        let fields = stored["metadata"]["managedFields"].as_array().expect("managers");
        let of_thief = fields.iter().find(|entry| entry["manager"] == "thief").expect("it is seen who has it");
        assert!(of_thief["fieldsV1"]["f:spec"]["f:suspended"].is_object(), "{of_thief}");
        let uid = stored["metadata"]["uid"].clone();
        wait_until("it is recorded by whom", PATIENCE, || {
            let lines = people.world.operator.audit_lines().expect("the audit log");
            let resumed =
                |line: &Value| line["event"] == "agent.changed" && line["agent_uid"] == uid && line["changed_by"] == "alice";
            lines.iter().any(resumed)
        });
    });
}

#[test]
fn k14_no_key_is_in_the_environment_the_command_line_or_a_core_dump_of_the_operator() {
    let world = World::shared();
    let secret = world.kubectl().get_json(&["get", "secret", RELEASE, "--namespace", NAMESPACE]).expect("the Secret");
    let items: BTreeMap<String, String> = serde_json::from_value(secret["data"].clone()).expect("items");
    assert!(items.len() >= 5, "{:?}", items.keys());
    let proc = std::path::PathBuf::from(format!("/proc/{}", world.operator.process().pid()));
    for file in ["environ", "cmdline"] {
        let bytes = std::fs::read(proc.join(file)).expect("it lives");
        let text = String::from_utf8_lossy(&bytes);
        for (item, encoded) in &items {
            let value = STANDARD.decode(encoded).expect("base64");
            let plain = String::from_utf8_lossy(&value).into_owned();
            // Of a list or a PEM each part that is long enough to be a key.
            let parts = plain.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=_-".contains(c)).filter(|part| part.len() >= 32);
            for secret in parts.chain([encoded.as_str()]) {
                assert!(!text.contains(secret), "{item} is in {file}");
            }
        }
    }
    let limits = std::fs::read_to_string(proc.join("limits")).expect("it lives");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let values: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(values, ["0", "0"], "{core}");
}
