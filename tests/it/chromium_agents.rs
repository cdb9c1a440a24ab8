//! Agents registered and changed in the portal, in Chromium: `tests/portal/agents.mjs`.

use crate::organisation::Organisation;
use crate::support::workload;
use serde_json::{Value, json};

/// Whether `whole` has all that is in `part`. The API server adds what is left out.
fn holds(whole: &Value, part: &Value) -> bool {
    match part {
        Value::Object(members) => members.iter().all(|(name, value)| holds(&whole[name], value)),
        Value::Array(values) => values.iter().enumerate().all(|(at, value)| holds(&whole[at], value)),
        other => whole == other,
    }
}

fn registers(purpose: &str, scripts: bool) {
    let organisation = Organisation::shared();
    let world = &organisation.world;
    let namespace = world.namespace(purpose);
    workload::create_service_account(&world.kubectl(), &namespace, "helper").expect("a ServiceAccount");
    organisation.alice_runs(&namespace, &["document.read"], "document.read");
    let mut scenario = organisation.scenario(
        "agents.mjs",
        "an agent is registered and changed",
        json!({
            "namespace": namespace,
            "javaScriptEnabled": scripts,
            "tokens": organisation.tokens(&["alice"]),
            "capability": "document.read",
            "forbidden": "document.shred",
        }),
    );
    let kubectl = world.kubectl();
    let stored = || kubectl.get_json(&["get", "agent", "helper", "-n", &namespace]);

    scenario.reaches("reviewed").expect("reviewed");
    assert!(stored().is_err(), "nothing is written yet");
    scenario.answer(&json!({}));
    let shown = scenario.reaches("registered").expect("registered");
    let shown: Value = serde_saphyr::from_str(shown.as_str().expect("a manifest")).expect("YAML");
    let agent = stored().expect("the Agent");
    assert_eq!(agent["spec"]["displayName"], "Helper \"of\" <all>");
    assert_eq!(agent["spec"]["capabilities"], json!([{"name": "document.read"}]));
    assert!(holds(&agent["spec"], &shown["spec"]), "what was shown is what was written: {agent}");
    assert_eq!(agent["metadata"]["annotations"][crate::world::CHANGED_BY], "oidc:alice@acme.example");
    world.kubectl().wait_for(&namespace, "agent/helper", "condition=Ready", crate::world::PATIENCE).expect("it is Ready");
    scenario.answer(&json!({}));

    scenario.reaches("edited").expect("edited");
    let patch = json!({"spec": {"displayName": "Somebody else's"}}).to_string();
    world.kubectl().run(&["patch", "agent", "helper", "-n", &namespace, "--type=merge", "-p", &patch]).expect("patched");
    scenario.answer(&json!({}));
    scenario.reaches("refused").expect("refused");
    let agent = stored().expect("the Agent");
    assert_eq!((&agent["spec"]["displayName"], &agent["spec"]["owner"]), (&json!("Somebody else's"), &json!("team@example.com")));
    scenario.answer(&json!({}));
    scenario.ends().expect("it ends well");
    let agent = stored().expect("the Agent");
    assert_eq!(
        (&agent["spec"]["displayName"], &agent["spec"]["owner"]),
        (&json!("Somebody else's"), &json!("third@example.com"))
    );
}

#[test]
fn an_agent_is_registered_and_changed_as_it_was_shown_and_no_change_of_others_is_lost() {
    registers("register", true);
}

#[test]
fn without_scripts_an_agent_is_registered_and_changed_too() {
    registers("register-plain", false);
}
