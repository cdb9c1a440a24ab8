//! What `helm test` runs, with the objects and the arguments that the chart gives it. No node runs the pod here; nothing else is missing.

use crate::chart::rendered_with;
use crate::support::install::{NAMESPACE, RELEASE, helm_on};
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::workload;
use crate::world::{PATIENCE, World, binary, stamped};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The objects of the hook, on the shared cluster, and an operator that calls itself what the chart would have it call itself.
struct Hook {
    operator: Operator,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Hook {
    fn set_up(world: &World) -> Self {
        let rendered = rendered_with(4, &[]);
        let hooks: Vec<&Value> =
            rendered.iter().filter(|object| object["metadata"]["annotations"]["helm.sh/hook"] == "test").collect();
        let hook = |kind: &str| (*hooks.iter().find(|object| object["kind"] == kind).expect(kind)).clone();
        assert_eq!(hooks.len(), 3);
        for kind in ["ServiceAccount", "Agent", "Pod"] {
            world.apply(&stamped(hook(kind), "admin")).expect(kind);
        }
        let pod = hook("Pod");
        let name = pod["metadata"]["name"].as_str().expect("a name");
        world.kubectl().wait_for(NAMESPACE, &format!("agent/{name}"), "condition=Ready", PATIENCE).expect("it is Ready");

        // What the volumes of the pod would hold.
        let directory = tempfile::tempdir().expect("a directory");
        let volume = &pod["spec"]["volumes"][1]["projected"]["sources"][0]["serviceAccountToken"];
        let audience = volume["audience"].as_str().expect("an audience");
        let stored = world.kubectl().get_json(&["get", "pod", name, "-n", NAMESPACE]).expect("the Pod");
        let account = stored["spec"]["serviceAccountName"].as_str().expect("a ServiceAccount");
        let uid = stored["metadata"]["uid"].as_str().expect("a uid");
        let token = workload::pod_token(&world.kubectl(), NAMESPACE, account, name, uid, audience, 600).expect("a token");
        write(directory.path(), "token", &token);

        let host = audience.strip_prefix("https://").expect("an issuer");
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
        write(directory.path(), "ca.crt", &made.cert.pem());
        write(directory.path(), "tls.key", &made.signing_key.serialize_pem());
        let file = |name: &str| directory.path().join(name).display().to_string();
        let operator = world.another(OperatorOptions {
            name: "self-test".to_owned(),
            issuer: Some(audience.to_owned()),
            args: vec![format!("--tls-cert-file={}", file("ca.crt")), format!("--tls-key-file={}", file("tls.key"))],
            ..OperatorOptions::default()
        });

        let container = &pod["spec"]["containers"][0];
        let places: Vec<(String, String)> = ["ca", "token"]
            .iter()
            .map(|volume| {
                let mounts = container["volumeMounts"].as_array().expect("mounts");
                let mount = mounts.iter().find(|mount| mount["name"] == *volume).expect("a mount");
                (mount["mountPath"].as_str().expect("a path").to_owned(), directory.path().display().to_string())
            })
            .chain([
                (format!("http://{host}:8080/metrics"), operator.metrics_url()),
                (format!("{host}:443"), operator.url().replace("https://", "")),
            ])
            .collect();
        let arguments = container["args"].as_array().expect("arguments").iter().map(|argument| {
            let argument = argument.as_str().expect("text").to_owned();
            places.iter().fold(argument, |argument, (place, here)| argument.replace(place, here))
        });
        Self { operator, arguments: arguments.collect(), directory }
    }

    /// Runs the test, with more arguments. The status, and what was printed.
    fn run(&self, more: &[&str]) -> (i32, String) {
        let output = Command::new(binary())
            .args(&self.arguments)
            .args(more)
            .env_clear()
            .current_dir(self.directory.path())
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
        (output.status.code().expect("a status"), text)
    }
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).expect("written");
}

#[test]
fn helm_test_passes_where_the_operator_works_and_says_what_does_not() {
    let world = World::shared();
    let hook = Hook::set_up(world);
    let (status, text) = hook.run(&[]);
    assert_eq!(status, 0, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    for (line, begins) in lines.iter().zip([
        "ok     the service answers: it calls itself https://countersign.countersign-system.svc",
        "ok     a token is issued: with the scope countersign.self-test",
        "ok     what is not granted is refused: invalid_scope, ",
        "ok     who proves nothing is refused: invalid_request, ",
        "ok     the metrics are in order: countersign_admission_policies_in_force 1, countersign_store_reachable 1",
    ]) {
        assert!(line.starts_with(begins), "{text}");
    }
    assert_eq!(lines.len(), 5);
    let token = std::fs::read_to_string(hook.directory.path().join("token")).expect("the token");
    assert!(!text.contains(&token), "no credential is printed");

    let failed = |(status, text): (i32, String)| {
        assert_eq!(status, 1, "{text}");
        text.lines().filter(|line| line.starts_with("FAILED ")).map(str::to_owned).collect::<Vec<_>>()
    };
    // The options of before are repeated: of one given twice the last counts.
    let lines = failed(hook.run(&["--timeout=5s", "--capability=document.read"]));
    assert!(lines.len() == 1 && lines[0].starts_with("FAILED a token is issued: 400"), "{lines:?}");
    let lines = failed(hook.run(&["--timeout=5s", "--metrics=http://127.0.0.1:1/metrics"]));
    assert!(lines.len() == 1 && lines[0].starts_with("FAILED the metrics are in order: "), "{lines:?}");
    let lines = failed(hook.run(&["--timeout=1s", "--issuer=https://elsewhere.example"]));
    assert_eq!(lines.len(), 4, "the certificate is for another name: {lines:?}");
    // Without a file the authorities of the system count, and this one is not among them.
    let lines = failed(hook.run(&["--timeout=1s", "--ca-file=absent"]));
    assert_eq!(lines.len(), 4, "{lines:?}");
    let (status, text) = hook.run(&["--ca-file=token"]);
    assert!(status == 2 && text.contains("token has no certificate in PEM"), "{text}");
    drop(hook.operator);
}

#[test]
fn where_no_policy_stamps_agents_the_test_says_who_runs_it() {
    let world = World::without_mutating_policies();
    let agent = |values: &[(&str, &str)]| {
        let rendered = rendered_with(3, values);
        let mut agent = rendered.into_iter().find(|object| object["kind"] == "Agent").expect("an Agent");
        agent["metadata"]["namespace"] = json!("default");
        world.kubectl().itself().run_with_input(&["create", "--dry-run=server", "-f", "-"], &agent.to_string())
    };
    let refused = agent(&[]).expect_err("it says nothing").stderr;
    assert!(refused.contains("countersign.dev/changed-by"), "{refused}");
    agent(&[("test.user", "admin")]).expect("it says who");
    let refused = agent(&[("test.user", "somebody")]).expect_err("it says somebody else").stderr;
    assert!(refused.contains("countersign.dev/changed-by"), "{refused}");
}

#[test]
fn the_notes_of_an_installation_lead_to_a_first_agent() {
    let world = World::shared();
    let notes = helm_on(&world.cluster, 4, &["get", "notes", RELEASE, "--namespace", NAMESPACE]).expect("notes");
    let steps: Vec<&str> = notes.split("\n2. ").nth(1).expect("a second step").split("\n3. ").collect();
    assert_eq!(steps.len(), 2, "{notes}");
    let namespace = world.namespace("notes");
    for step in steps {
        // What stands under the sentence, up to the next one, run in a namespace of its own.
        let commands = step.split("\n\n").nth(1).expect("commands");
        let commands = commands.replace("default", &namespace).replace("grant-document-read", &format!("grant-{namespace}"));
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &commands])
            .env("KUBECONFIG", world.cluster.kubeconfig())
            .output()
            .expect("bash");
        assert!(output.status.success(), "{}\n{commands}", String::from_utf8_lossy(&output.stderr));
    }
    let get = ["get", "agent", "research-bot", "-n", &namespace];
    let agent = world.kubectl().get_json(&get).expect("the Agent");
    assert_eq!(agent["spec"]["capabilities"][0]["name"], "document.read");
}
