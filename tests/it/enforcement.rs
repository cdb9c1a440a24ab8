//! Admission policies that are missing or altered: what was written meanwhile proves nothing.

use crate::world::{PATIENCE, World, agent, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

pub const BINDING: &str = "validatingadmissionpolicybinding";

/// Waits until the operator says that the policies are in force, or that they are not.
pub fn in_force(world: &World, expected: bool) {
    let line = format!("countersign_admission_policies_in_force {}", u8::from(expected));
    wait_until(&line, PATIENCE, || world.operator.get("/metrics").is_ok_and(|m| m.body.contains(&line)));
}

/// Deletes a policy or binding, and waits until the operator knows. Returns what restores it.
pub fn take_away(world: &World, kind: &str, name: &str) -> Value {
    let mut saved = world.kubectl().get_json(&["get", kind, name]).expect("it is installed");
    world.kubectl().run(&["delete", kind, name]).expect("an administrator may delete it");
    in_force(world, false);
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
        saved["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    saved.as_object_mut().expect("an object").remove("status");
    saved
}

#[test]
fn an_agent_written_while_the_policies_were_missing_gets_no_token_until_it_is_written_again() {
    // A world of its own: it is broken on purpose.
    let world = World::start(4, &[], &[]);
    let old = world.tenant_with("old", &json!({}));
    world.exchange(&old.token).expect(200);
    let kubectl = world.kubectl();
    for (kind, name) in [(BINDING, "countersign-agents"), ("validatingadmissionpolicy", "countersign-agents-status")] {
        let saved = take_away(&world, kind, name);
        let namespace = written_meanwhile(&world);
        assert_eq!(world.operator.get("/readyz").expect("an answer").status, 200, "readiness is not affected");
        world.exchange(&old.token).expect(200);

        world.apply(&saved).expect("restored");
        in_force(&world, true);
        still_refused(&world, &namespace);
    }

    // Altered is as good as missing, and so is altered and put back.
    let patch = |actions: &str| {
        let patch = format!(r#"{{"spec":{{"validationActions":["{actions}"]}}}}"#);
        kubectl
            .run(&["patch", "validatingadmissionpolicybinding", "countersign-agents", "--type=merge", "-p", &patch])
            .expect("patched");
    };
    patch("Audit");
    in_force(&world, false);
    let namespace = written_meanwhile(&world);
    patch("Deny");
    in_force(&world, true);
    still_refused(&world, &namespace);

    // Written again, in its spec, by somebody who may grant what it holds.
    let again = ["patch", "agent", "bot", "-n", &namespace, "--type=merge", "-p", r#"{"spec":{"displayName":"again"}}"#];
    let bob = world.kubectl().impersonating("bob", &["system:authenticated"]);
    let write = json!([{"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "patch"]}]);
    world.bind(&namespace, "write", &write, &[json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"})]);
    wait_until("bob's right is seen", PATIENCE, || {
        bob.run(&["auth", "can-i", "patch", "agents.countersign.dev", "-n", &namespace]).is_ok()
    });
    let refused = bob.run(&again).expect_err("bob may not grant what the Agent holds");
    assert!(refused.stderr.contains("may not grant capability"), "{}", refused.stderr);
    world.kubectl().run(&again).expect("an administrator may");
    world.kubectl().wait_for(&namespace, "agent/bot", "condition=Ready", PATIENCE).expect("now it is Ready");
}

/// Creates an Agent, which must be refused with a condition that says why. Returns its namespace.
fn written_meanwhile(world: &World) -> String {
    let namespace = world.namespace("meanwhile");
    let object = agent(&namespace, "bot", &json!({}));
    crate::support::workload::create_service_account(&world.kubectl(), &namespace, "bot").expect("a ServiceAccount");
    wait_until("the Agent is accepted", PATIENCE, || world.apply(&object).is_ok());
    world.kubectl().wait_for(&namespace, "agent/bot", "condition=Admitted=False", PATIENCE).expect("the condition says so");
    still_refused(world, &namespace);
    namespace
}

fn still_refused(world: &World, namespace: &str) {
    let kubectl = world.kubectl();
    let pod = format!("pod-{}", rand_suffix());
    let uid = crate::support::workload::create_pod(&kubectl, namespace, &pod, "bot").expect("a Pod");
    let token = crate::support::workload::pod_token(&kubectl, namespace, "bot", &pod, &uid, world.operator.issuer(), 3600)
        .expect("a token");
    let reply = world.exchange(&token).refused(400, "invalid_request");
    assert_eq!(world.record_of(&reply)["reason"], "agent_not_admitted");
    let agent = kubectl.get_json(&["get", "agent", "bot", "-n", namespace]).expect("the Agent");
    let conditions = agent["status"]["conditions"].as_array().expect("conditions");
    let message = conditions.iter().find(|c| c["type"] == "Admitted").expect("Admitted")["message"].as_str().expect("a message");
    assert!(message.contains("write the Agent again"), "{message}");
}

fn rand_suffix() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos()
}

#[test]
fn a_new_process_takes_over_what_the_last_one_saw() {
    let world = World::start(4, &[], &[]);
    let namespace = world.tenant_with("restart", &json!({})).namespace;
    let record =
        world.kubectl().get_json(&["get", "configmap", "countersign", "-n", "countersign-system"]).expect("the ConfigMap");
    assert!(record["data"]["admission-policies-in-force"].as_str().expect("a record").contains("countersign-agents"));
    let World { operator, cluster, .. } = world;
    operator.stop();
    // Written while no operator ran, but under the policies.
    cluster
        .kubectl()
        .run(&["patch", "agent", "bot", "-n", &namespace, "--type=merge", "-p", r#"{"spec":{"displayName":"x"}}"#])
        .expect("patched");
    let again = crate::support::operator::Operator::start(&cluster, crate::world::binary(), &Default::default())
        .expect("it starts again");
    cluster.kubectl().wait_for(&namespace, "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE).expect("judged");
    cluster
        .kubectl()
        .wait_for(&namespace, "agent/bot", "condition=Admitted", Duration::from_secs(5))
        .expect("it was written under the policies");
    drop(again);
}
