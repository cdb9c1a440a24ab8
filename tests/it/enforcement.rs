//! Admission policies that are missing or altered: what was written meanwhile proves nothing.

use crate::key_agents::{Key, keys, now};
use crate::world::{PATIENCE, World, agent, wait_until};
use serde_json::{Value, json};
use std::sync::Arc;
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

/// A TrustedIssuer for workloads that signs with `key`.
fn issuer(world: &World, name: &str, key: &Key) -> Value {
    let mut jwk = key.jwk();
    (jwk["kid"], jwk["alg"]) = (json!("k"), json!("EdDSA"));
    let audiences = [world.operator.issuer()];
    let spec = json!({"provides": "Workloads", "issuer": {"url": format!("https://{name}.example"), "audiences": audiences,
        "jwks": json!({"keys": [jwk]}).to_string()}});
    json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustedIssuer", "metadata": {"name": name}, "spec": spec})
}

/// A new token of the workload `w` of that issuer.
fn workload_token(world: &World, name: &str, key: &Key) -> String {
    let now = now();
    let claims = json!({"iss": format!("https://{name}.example"), "sub": "w", "aud": world.operator.issuer(), "iat": now, "exp": now + 300});
    key.sign(&json!({"alg": "EdDSA", "kid": "k"}), &claims)
}

#[test]
fn an_issuer_or_a_key_written_while_the_policies_were_missing_is_nobodys_word() {
    let world = World::start(4, &[], &[]);
    let kubectl = world.kubectl();
    let (good, evil) = (Key::new(), Key::new());
    let patched = |kubectl: &crate::support::kubectl::Kubectl, name: &str, spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        kubectl.run(&["patch", "trustedissuer", name, "--type=merge", "-p", &patch])
    };
    let federated = |name: &str| json!({"identity": {"federated": [{"issuer": name, "subject": "w"}]}});
    let registered = |name: &str| {
        let namespace = world.namespace(name);
        wait_until("the Agent is accepted", PATIENCE, || world.apply(&agent(&namespace, "bot", &federated(name))).is_ok());
        namespace
    };
    let exchanged = |name: &str, key: &Key| world.exchange(&workload_token(&world, name, key));
    let counts = |name: &str, key: &Key| {
        kubectl.wait_for("default", &format!("trustedissuer/{name}"), "condition=Ready", PATIENCE).expect("Ready");
        wait_until("its tokens count", PATIENCE, || exchanged(name, key).status == 200);
    };
    let counts_no_more = |name: &str, key: &Key| {
        let object = format!("trustedissuer/{name}");
        kubectl.wait_for("default", &object, "condition=Admitted=False", PATIENCE).expect("the condition says so");
        let stored = kubectl.get_json(&["get", "trustedissuer", name]).expect("the issuer");
        let conditions = stored["status"]["conditions"].as_array().expect("conditions").clone();
        let condition = |kind: &str| conditions.iter().find(|c| c["type"] == kind).expect("a condition").clone();
        assert_eq!((&condition("Ready")["status"], &condition("Ready")["reason"]), (&json!("False"), &json!("NotAdmitted")));
        let message = condition("Admitted")["message"].as_str().expect("a message").to_owned();
        assert!(message.contains("nobody can tell who said that this issuer is to be trusted"), "{message}");
        let reply = exchanged(name, key).refused(400, "invalid_request");
        assert_eq!(world.record_of(&reply)["reason"], "credential_issuer_unknown");
    };
    // Those who may write them and grant nothing.
    let writer = kubectl.impersonating("writer", &["system:authenticated"]);
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["trustedissuers", "agents"], "verbs": ["get", "create", "update", "patch"]}]);
    world.bind_everywhere("writer", &rules, &[crate::world::user("writer")]);
    wait_until("the right is seen", PATIENCE, || {
        writer.run(&["auth", "can-i", "patch", "trustedissuers.countersign.dev"]).is_ok()
    });

    world.apply(&issuer(&world, "good", &good)).expect("accepted");
    registered("good");
    counts("good", &good);
    let saved = take_away(&world, BINDING, "countersign-trustedissuers");

    // Anybody who may write one could now be anybody.
    let object = issuer(&world, "evil", &evil).to_string();
    wait_until("nobody forbids it any more", PATIENCE, || writer.run_with_input(&["apply", "-f", "-"], &object).is_ok());
    counts_no_more("evil", &evil);
    let victim = registered("evil");
    // What was written before counts on, until it is changed.
    exchanged("good", &good).expect(200);
    patched(&writer, "good", json!({"maxTokenLifetimeSeconds": 86_400})).expect("nobody forbids it");
    counts_no_more("good", &good);
    // An agent with a key is in no better position: that it has the key is not disputed, only who said so.
    let key = Arc::new(Key::new());
    let smuggled = world.registered("smuggled", Arc::clone(&key), &keys(&[key.entry()]));
    smuggled.reaches("condition=Admitted=False");
    wait_until("it is judged", PATIENCE, || smuggled.obtain().status == 401);
    let assertion = smuggled.assertion();
    smuggled.refused(&smuggled.ask(&assertion), &assertion, "agent_not_admitted");

    world.apply(&saved).expect("restored");
    in_force(&world, true);
    counts_no_more("evil", &evil);
    counts_no_more("good", &good);
    // Whoever may grant nothing cannot repair it by writing it again, nor by stopping it and letting it go.
    patched(&writer, "evil", json!({"maxTokenLifetimeSeconds": 120})).expect_err("it needs grant on all");
    patched(&writer, "evil", json!({"suspended": true})).expect("anyone who may write it may stop it");
    kubectl.wait_for("default", "trustedissuer/evil", "condition=Ready=False", PATIENCE).expect("stopped");
    let refused = patched(&writer, "evil", json!({"suspended": false})).expect_err("to let it go is to trust it");
    assert!(refused.stderr.contains("verb grant on all"), "{}", refused.stderr);
    assert_ne!(exchanged("evil", &evil).status, 200);
    let conditions =
        kubectl.get_json(&["get", "agent", "bot", "-n", &victim]).expect("the Agent")["status"]["conditions"].clone();
    assert!(
        conditions.to_string().contains("NotAdmitted") || conditions.to_string().contains("TrustedIssuerNotReady"),
        "{conditions}"
    );

    patched(&kubectl, "good", json!({"maxTokenLifetimeSeconds": 3600})).expect("an administrator may");
    counts("good", &good);
}
