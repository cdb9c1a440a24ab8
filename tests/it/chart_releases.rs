//! One installation in a cluster, from the first to the last: a second is refused, an upgrade and a rollback change no state, and what
//! an uninstalled one has kept is taken over.

use crate::chart::rendered_with;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::error::Result;
use crate::support::install::{NAMESPACE, RELEASE, chart, helm_on, install_chart};
use crate::world::{PATIENCE, agent, stamped, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Runs helm with what every command here has in common.
fn helm(cluster: &Cluster, major: u8, arguments: &[&str]) -> Result<String> {
    let chart = chart().display().to_string();
    let arguments: Vec<&str> = arguments.iter().map(|argument| if *argument == "CHART" { &chart } else { *argument }).collect();
    helm_on(cluster, major, &arguments)
}

fn get(cluster: &Cluster, arguments: &[&str]) -> Value {
    cluster.kubectl().get_json(&[&["get"], arguments].concat()).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// What is there of the release, as `kind/name`.
fn left(cluster: &Cluster, release: &str) -> BTreeSet<String> {
    let kinds: BTreeSet<String> = rendered_with(4, &[("admission.mutating", "true")])
        .iter()
        .map(|object| {
            let group = object["apiVersion"].as_str().expect("a version").rsplit_once('/').map(|(group, _)| format!(".{group}"));
            format!("{}{}", object["kind"].as_str().expect("a kind"), group.unwrap_or_default()).to_lowercase()
        })
        .chain(["persistentvolumeclaim".to_owned(), "pod".to_owned()])
        .collect();
    let mut found = BTreeSet::new();
    for kind in kinds {
        let label = format!("app.kubernetes.io/instance={release}");
        let list = get(cluster, &[&kind, "--all-namespaces", "--selector", &label]);
        for object in list["items"].as_array().expect("items") {
            found.insert(format!(
                "{}/{}",
                object["kind"].as_str().expect("a kind"),
                object["metadata"]["name"].as_str().expect("a name")
            ));
        }
    }
    found
}

/// The release that an object belongs to.
fn owner(object: &Value) -> (&str, &str) {
    let annotation =
        |name: &str| object["metadata"]["annotations"][format!("meta.helm.sh/release-{name}")].as_str().unwrap_or_default();
    (annotation("namespace"), annotation("name"))
}

/// What decides, and what the operator wrote of it.
fn state(cluster: &Cluster) -> Vec<Value> {
    let secret = get(cluster, &["secret", RELEASE, "-n", NAMESPACE])["data"].clone();
    let config = get(cluster, &["configmap", RELEASE, "-n", NAMESPACE])["data"].clone();
    let ledger = get(cluster, &["configmap", &format!("{RELEASE}-audit"), "-n", NAMESPACE])["data"].clone();
    let lease = get(cluster, &["lease", RELEASE, "-n", NAMESPACE])["spec"].clone();
    let bot = get(cluster, &["agent", "bot", "-n", "default"]);
    vec![secret, config, ledger, lease, bot["spec"].clone(), bot["status"].clone(), bot["metadata"]["uid"].clone()]
}

#[test]
fn k11_k12_a_cluster_holds_one_installation_and_the_next_takes_over_what_it_kept() {
    let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
    let kubectl = cluster.kubectl();
    install_chart(&cluster, 3, &[("replicas", "1")]).expect("it installs");
    let apply = |object: &Value| kubectl.apply(&object.to_string()).expect("accepted");
    apply(&stamped(agent("default", "bot", &json!({"suspended": true})), "admin"));
    let patch = |kind: &str, name: &str, patch: &Value| {
        kubectl.run(&["patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", &patch.to_string()]).expect("patched");
    };
    // As the operator would.
    patch("secret", RELEASE, &json!({"stringData": {"signing-keys": "keys"}}));
    patch("configmap", RELEASE, &json!({"data": {"ca.crt": "certificate"}}));
    patch("configmap", &format!("{RELEASE}-audit"), &json!({"data": {"checkpoint": "note"}}));
    patch("lease", RELEASE, &json!({"spec": {"holderIdentity": "a-database"}}));
    let status = json!([{"op": "add", "path": "/status", "value": {"revocationEpoch": 7}}]).to_string();
    kubectl
        .run(&["patch", "agent", "bot", "-n", "default", "--subresource=status", "--type=json", "-p", &status])
        .expect("revoked");
    let before = state(&cluster);
    assert_eq!(before[5]["revocationEpoch"], 7);

    // A second one is refused, whoever it would be and whatever it is told to take.
    let says = format!("release \"{RELEASE}\" in namespace \"{NAMESPACE}\" has installed Countersign in this cluster already");
    for major in [3, 4] {
        for (name, more) in [("second", ""), ("second", "--take-ownership"), (RELEASE, "")] {
            let mut arguments = vec!["install", name, "CHART", "--namespace", "elsewhere", "--create-namespace"];
            arguments.extend((!more.is_empty()).then_some(more));
            let refused = helm(&cluster, major, &arguments).expect_err("it is refused").to_string();
            assert!(refused.contains(&says), "Helm {major}: {refused}");
        }
    }
    assert_eq!(owner(&get(&cluster, &["clusterrole", "countersign"])), (NAMESPACE, RELEASE));

    // K11: an upgrade and back again, with both, changes what is configured and no state.
    for major in [3, 4] {
        install_chart(&cluster, major, &[("logLevel", "debug")]).expect("it upgrades");
        assert_eq!(state(&cluster), before, "upgrade with Helm {major}");
        helm(&cluster, major, &["rollback", RELEASE, "1", "--namespace", NAMESPACE]).expect("it rolls back");
        assert_eq!(state(&cluster), before, "rollback with Helm {major}");
        let arguments =
            get(&cluster, &["statefulset", RELEASE, "-n", NAMESPACE])["spec"]["template"]["spec"]["containers"][0]["args"]
                .clone();
        assert!(arguments.to_string().contains("--log-level=info"), "{arguments}");
    }

    // Uninstalled it leaves the definitions, what guards them, its keys and the evidence of its ledger.
    helm(&cluster, 4, &["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]).expect("it is uninstalled");
    // Pods go after what they belong to, whatever Helm waits for.
    let mut kept = BTreeSet::new();
    wait_until("the pods are gone", PATIENCE, || {
        kept = left(&cluster, RELEASE);
        !kept.iter().any(|object| object.starts_with("Pod/"))
    });
    let kinds: BTreeSet<&str> = kept.iter().filter_map(|object| object.split('/').next()).collect();
    let expected = [
        "ConfigMap",
        "CustomResourceDefinition",
        "PersistentVolumeClaim",
        "Secret",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds, BTreeSet::from(expected), "{kept:?}");
    let named = |kind: &str| kept.iter().filter_map(|object| object.strip_prefix(kind)).collect::<Vec<_>>();
    assert_eq!(named("Secret/"), [RELEASE]);
    assert_eq!(named("ConfigMap/"), [format!("{RELEASE}-audit")]);
    assert_eq!(named("CustomResourceDefinition/").len(), 4);
    assert_eq!(get(&cluster, &["agent", "bot", "-n", "default"])["status"]["revocationEpoch"], 7);

    // The next of the same name goes on with it, without a word.
    helm(&cluster, 3, &["install", RELEASE, "CHART", "--namespace", NAMESPACE]).expect("it installs");
    assert_eq!(state(&cluster)[0], before[0], "the keys are those of before");
    helm(&cluster, 3, &["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]).expect("it is uninstalled");

    // One of another name has to say that it means to.
    for (major, before, name) in [(3, RELEASE, "next"), (4, "next", "last")] {
        let install = ["install", name, "CHART", "--namespace", "elsewhere", "--create-namespace"];
        let refused = helm(&cluster, major, &install).expect_err("not by accident").to_string();
        let says = format!("must equal \"{name}\": current value is \"{before}\"");
        assert!(refused.contains("exists and cannot be imported") && refused.contains(&says), "Helm {major}: {refused}");
        helm(&cluster, major, &[&install[..], &["--take-ownership"]].concat()).expect("it takes over what was kept");
        for kept in ["customresourcedefinition/agents.countersign.dev", "validatingadmissionpolicy/countersign-agents"] {
            assert_eq!(owner(&get(&cluster, &[kept])), ("elsewhere", name), "Helm {major}: {kept}");
        }
        let bot = get(&cluster, &["agent", "bot", "-n", "default"]);
        assert_eq!((&bot["spec"]["suspended"], &bot["status"]["revocationEpoch"]), (&json!(true), &json!(7)), "Helm {major}");
        helm(&cluster, major, &["upgrade", name, "CHART", "--namespace", "elsewhere"]).expect("from then on it is its own");
        helm(&cluster, major, &["uninstall", name, "--namespace", "elsewhere", "--wait"]).expect("it is uninstalled");
    }
}
