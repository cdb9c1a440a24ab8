//! The sidecar that the API server puts into a labelled pod, on a real API server: nothing runs it here.

use crate::support::install::{NAMESPACE, RELEASE, render_chart};
use crate::support::kubectl::Kubectl;
use crate::support::workload;
use crate::world::{PATIENCE, World, binary, forbidden, wait_until};
use serde_json::{Value, json};
use std::process::Command;

const SIDECAR: &str = "countersign-sidecar";
/// The image and the issuer with the values that a chart has by default.
const IMAGE: &str = concat!("countersign:", env!("CARGO_PKG_VERSION"));
const ISSUER: &str = "https://countersign.countersign-system.svc";

/// A pod as somebody would write it who wants a sidecar.
fn pod(annotations: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent", "labels": {"countersign.dev/inject": "true"}, "annotations": annotations},
        "spec": {"serviceAccountName": "bot", "containers": [{"name": "agent", "image": "registry.k8s.io/pause:3.10"}]},
    });
    for (name, value) in spec.as_object().expect("members") {
        pod["spec"][name] = value.clone();
    }
    pod
}

/// What the API server would store of it, or why it would not.
fn admitted(kubectl: &Kubectl, namespace: &str, pod: &Value) -> Result<Value, String> {
    let arguments = ["create", "--dry-run=server", "-n", namespace, "-o", "json", "-f", "-"];
    let stored = kubectl.run_with_input(&arguments, &pod.to_string()).map_err(|failure| failure.stderr)?;
    Ok(serde_json::from_str(&stored).expect("JSON"))
}

/// The container that a pod of that namespace gets, which has a ServiceAccount `bot`.
pub fn sidecar_of(world: &World, namespace: &str, annotations: &Value) -> Value {
    let stored = admitted(&world.kubectl(), namespace, &pod(annotations, &json!({}))).expect("admitted");
    named(&stored["spec"]["initContainers"], SIDECAR).clone()
}

/// A namespace with a ServiceAccount `bot`.
fn home(world: &World, purpose: &str) -> String {
    let namespace = world.namespace(purpose);
    workload::create_service_account(&world.kubectl(), &namespace, "bot").expect("a ServiceAccount");
    namespace
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().and_then(|items| items.iter().find(|item| item["name"] == name));
    found.unwrap_or_else(|| panic!("there is no {name} in {list}"))
}

/// What is in the ConfigMap that the policies read.
fn parameters(world: &World) -> Value {
    world.kubectl().get_json(&["get", "configmap", RELEASE, "-n", NAMESPACE]).expect("the ConfigMap")["data"].clone()
}

#[test]
fn one_label_puts_the_sidecar_before_everything_else_in_the_pod() {
    let world = World::shared();
    let namespace = home(world, "inject");
    let spec = json!({"initContainers": [{"name": "first", "image": "registry.k8s.io/pause:3.10"}]});
    let stored = admitted(&world.kubectl(), &namespace, &pod(&json!({}), &spec)).expect("admitted");
    let (containers, known) = (&stored["spec"]["initContainers"], parameters(world));
    assert_eq!((&containers[0]["name"], &containers[1]["name"]), (&json!(SIDECAR), &json!("first")));
    let sidecar = &containers[0];
    assert_eq!(sidecar["restartPolicy"], "Always", "a native sidecar");
    assert_eq!(sidecar["image"], IMAGE);
    let url = format!("--url={ISSUER}");
    assert_eq!(sidecar["args"], json!(["sidecar", url, "--listen-address=127.0.0.1:7710"]));
    assert_eq!(sidecar["env"], json!([{"name": "COUNTERSIGN_CA_PEM", "value": known["ca.crt"]}]));
    assert_eq!(
        sidecar["startupProbe"]["exec"]["command"],
        json!(["/usr/bin/countersign", "sidecar-ready", "--listen-address=127.0.0.1:7710"]),
        "a kubelet cannot reach the loopback address"
    );
    let volume = &named(&stored["spec"]["volumes"], "countersign-sidecar-token")["projected"]["sources"];
    let token = json!({"audience": ISSUER, "expirationSeconds": 3600, "path": "token"});
    assert_eq!(volume, &json!([{"serviceAccountToken": token}]));
    assert_eq!(
        stored["spec"]["containers"][0]["env"],
        json!([{"name": "COUNTERSIGN_SIDECAR_URL", "value": "http://127.0.0.1:7710"}])
    );
}

#[test]
fn k15_the_agents_containers_hold_no_credential() {
    let world = World::shared();
    let namespace = home(world, "inject-credential");
    let spec = json!({
        "initContainers": [{"name": "first", "image": "registry.k8s.io/pause:3.10"}],
        "containers": [
            {"name": "agent", "image": "registry.k8s.io/pause:3.10", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            {"name": "helper", "image": "registry.k8s.io/pause:3.10"},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    });
    let stored = admitted(&world.kubectl(), &namespace, &pod(&json!({}), &spec)).expect("admitted");
    let spec_of = &stored["spec"];
    assert_eq!(spec_of["automountServiceAccountToken"], false);
    let volumes: Vec<&str> = spec_of["volumes"].as_array().expect("volumes").iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(volumes, ["data", "countersign-sidecar-token"]);
    for list in ["containers", "initContainers"] {
        for container in spec_of[list].as_array().expect("containers") {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            let names: Vec<&str> = mounts.iter().filter_map(|mount| mount["name"].as_str()).collect();
            let expected: &[&str] = match container["name"].as_str() {
                Some(SIDECAR) => &["countersign-sidecar-token"],
                Some("agent") => &["data"],
                _ => &[],
            };
            assert_eq!(names, expected, "{container}");
        }
    }
    // One that says that it is to call the API server keeps what it needs for that.
    let mut wants = spec.clone();
    wants["automountServiceAccountToken"] = json!(true);
    let stored = admitted(&world.kubectl(), &namespace, &pod(&json!({}), &wants)).expect("admitted");
    let mounts = &named(&stored["spec"]["containers"], "helper")["volumeMounts"];
    assert_eq!(mounts[0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    // And nobody mounts what is the sidecar's.
    let mut greedy = spec;
    greedy["containers"][1]["volumeMounts"] = json!([{"name": "countersign-sidecar-token", "mountPath": "/mine"}]);
    forbidden(
        admitted(&world.kubectl(), &namespace, &pod(&json!({}), &greedy)).map(|s| s.to_string()),
        "is for the sidecar alone",
    );
}

#[test]
fn annotations_say_what_is_usual_and_on_which_port() {
    let world = World::shared();
    let namespace = home(world, "inject-annotations");
    let annotations = json!({
        "countersign.dev/sidecar-audience": "https://docs.example.com",
        "countersign.dev/sidecar-scope": "document.read web.search",
        "countersign.dev/sidecar-port": "9000",
        "countersign.dev/agent": "agent:research/other",
    });
    let stored = admitted(&world.kubectl(), &namespace, &pod(&annotations, &json!({}))).expect("admitted");
    let sidecar = named(&stored["spec"]["initContainers"], SIDECAR);
    let args: Vec<&str> = sidecar["args"].as_array().expect("arguments").iter().filter_map(Value::as_str).skip(2).collect();
    assert_eq!(
        args,
        [
            "--listen-address=127.0.0.1:9000",
            "--audience=https://docs.example.com",
            "--scope=document.read web.search",
            "--agent=agent:research/other"
        ]
    );
    assert_eq!(stored["spec"]["containers"][0]["env"][0]["value"], "http://127.0.0.1:9000");
    for (name, value, says) in [
        ("sidecar-port", "80", "a port from 1024"),
        ("sidecar-port", "65536", "a port from 1024"),
        ("sidecar-port", "9000 --url=https://evil.example", "a port from 1024"),
        ("sidecar-audience", "$(COUNTERSIGN_CA_PEM)", "one audience"),
        ("sidecar-audience", "a b", "one audience"),
        ("sidecar-audience", "a\nb", "one audience"),
        ("sidecar-scope", "document.read,web", "names of capabilities"),
        ("agent", "research/other", "agent:<namespace>/<name>"),
    ] {
        let annotations = json!({format!("countersign.dev/{name}"): value});
        let refused = admitted(&world.kubectl(), &namespace, &pod(&annotations, &json!({})));
        forbidden(refused.map(|stored| stored.to_string()), says);
    }
}

#[test]
fn k16_nothing_stands_in_the_sidecars_place() {
    let world = World::shared();
    let namespace = home(world, "inject-impostor");
    let kubectl = world.kubectl();
    let stored = admitted(&kubectl, &namespace, &pod(&json!({}), &json!({}))).expect("admitted");
    let sidecar = named(&stored["spec"]["initContainers"], SIDECAR).clone();
    // A pod that has the sidecar already, such as a copy of another, is left as it is.
    let copy = pod(
        &json!({}),
        &json!({
            "initContainers": [sidecar.clone()], "volumes": [named(&stored["spec"]["volumes"], "countersign-sidecar-token")],
            "automountServiceAccountToken": false,
        }),
    );
    let again = admitted(&kubectl, &namespace, &copy).expect("admitted");
    assert_eq!(again["spec"]["initContainers"].as_array().map(Vec::len), Some(1));
    assert_eq!(again["spec"]["initContainers"][0]["args"], sidecar["args"]);
    for (member, value) in [
        ("image", json!("evil.example/countersign:latest")),
        ("args", json!(["sidecar", "--url=https://evil.example", "--listen-address=127.0.0.1:7710"])),
        ("args", json!([])),
        ("restartPolicy", Value::Null),
    ] {
        let mut impostor = copy.clone();
        if member == "restartPolicy" {
            // Only a sidecar may have one.
            impostor["spec"]["initContainers"][0]["startupProbe"] = Value::Null;
        }
        impostor["spec"]["initContainers"][0][member] = value;
        let refused = admitted(&kubectl, &namespace, &impostor).map(|stored| stored.to_string());
        forbidden(refused, "a container of its own that is called countersign-sidecar");
    }
    let mut outside = copy.clone();
    outside["spec"]["hostNetwork"] = json!(true);
    forbidden(admitted(&kubectl, &namespace, &outside).map(|stored| stored.to_string()), "hostNetwork");
    let mut unsaid = copy;
    unsaid["spec"].as_object_mut().expect("a spec").remove("automountServiceAccountToken");
    forbidden(admitted(&kubectl, &namespace, &unsaid).map(|stored| stored.to_string()), "automountServiceAccountToken: false");
}

#[test]
fn k17_a_stolen_operator_credential_does_not_choose_what_runs_beside_agents() {
    let world = World::shared();
    let namespace = home(world, "inject-stolen");
    let user = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}");
    let operator = world.kubectl().impersonating(&user, &["system:serviceaccounts", "system:authenticated"]);
    for resource in ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "validatingadmissionpolicybindings"] {
        for verb in ["create", "update", "patch", "delete"] {
            assert!(operator.run(&["auth", "can-i", verb, resource]).is_err(), "{verb} {resource}");
        }
    }
    // What it may write is the ConfigMap of the certificate authority: nothing else is believed there.
    let known = parameters(world);
    assert!(known.as_object().expect("data").keys().all(|key| !key.contains("image") && !key.contains("url")), "{known}");
    let spec = json!({"containers": [{"name": "agent", "image": "registry.k8s.io/pause:3.10"}]});
    let stored = admitted(&world.kubectl(), &namespace, &pod(&json!({}), &spec)).expect("admitted");
    assert_eq!(named(&stored["spec"]["initContainers"], SIDECAR)["image"], IMAGE);
    let policy = countersign::admission::injection::mutating().to_string();
    let read: Vec<&str> = policy.split("params.data['").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
    assert!(!read.is_empty() && read.iter().all(|key| key.ends_with("ca.crt")), "{read:?}");
}

#[test]
fn only_labelled_pods_outside_of_the_systems_namespaces_get_one() {
    let world = World::shared();
    let namespace = home(world, "inject-others");
    let kubectl = world.kubectl();
    let has_sidecar = |stored: &Value| stored["spec"]["initContainers"].as_array().is_some_and(|list| !list.is_empty());
    let mut plain = pod(&json!({}), &json!({}));
    plain["metadata"]["labels"] = json!({});
    assert!(!has_sidecar(&admitted(&kubectl, &namespace, &plain).expect("admitted")));
    plain["metadata"]["labels"] = json!({"countersign.dev/inject": "false"});
    assert!(!has_sidecar(&admitted(&kubectl, &namespace, &plain).expect("admitted")));
    plain["metadata"]["labels"] = json!({"countersign.dev/inject": "yes"});
    forbidden(admitted(&kubectl, &namespace, &plain).map(|stored| stored.to_string()), "is true, or false");
    let mut labelled = pod(&json!({}), &json!({}));
    labelled["spec"]["serviceAccountName"] = json!(RELEASE);
    assert!(!has_sidecar(&admitted(&kubectl, NAMESPACE, &labelled).expect("admitted")));
}

#[test]
fn the_injected_pod_is_restricted() {
    let world = World::shared();
    let namespace = home(world, "inject-restricted");
    let label = ["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"];
    world.kubectl().run(&label).expect("labelled");
    let restricted = json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "agent",
            "image": "registry.k8s.io/pause:3.10",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    });
    // The API server looks at the label a moment after it has stored it.
    let loose = || admitted(&world.kubectl(), &namespace, &pod(&json!({}), &json!({}))).map(|stored| stored.to_string());
    wait_until("the standard is enforced", PATIENCE, || loose().is_err());
    admitted(&world.kubectl(), &namespace, &pod(&json!({}), &restricted)).expect("the sidecar meets the standard");
    let refused = loose();
    let message = refused.expect_err("the standard is enforced");
    assert!(message.contains("\"agent\"") && !message.contains(SIDECAR), "{message}");
}

#[test]
fn the_snippet_for_hand_use_is_what_the_policy_injects() {
    let world = World::shared();
    let namespace = home(world, "inject-snippet");
    let (known, scratch) = (parameters(world), tempfile::tempdir().expect("a directory"));
    let text = |key: &str| known[key].as_str().expect(key).to_owned();
    let ca = scratch.path().join("ca.crt");
    std::fs::write(&ca, text("ca.crt")).expect("written");
    let flags = [
        format!("--image={IMAGE}"),
        format!("--issuer={ISSUER}"),
        format!("--ca-file={}", ca.display()),
        "--audience=https://docs.example.com".to_owned(),
        "--port=9000".to_owned(),
    ];
    let output = Command::new(binary()).arg("sidecar-snippet").args(&flags).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let snippet: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&output.stdout)).expect("YAML");
    let annotations = &snippet["metadata"]["annotations"];
    let injected = admitted(&world.kubectl(), &namespace, &pod(annotations, &json!({}))).expect("admitted");
    let by_hand = pod(
        annotations,
        &json!({
            "initContainers": snippet["spec"]["initContainers"],
            "volumes": snippet["spec"]["volumes"],
            "automountServiceAccountToken": snippet["spec"]["automountServiceAccountToken"],
            "containers": [{"name": "agent", "image": "registry.k8s.io/pause:3.10", "env": snippet["spec"]["containers"][0]["env"]}],
        }),
    );
    let by_hand = admitted(&world.kubectl(), &namespace, &by_hand).expect("admitted");
    assert_eq!(injected["spec"], by_hand["spec"]);
}

#[test]
fn the_chart_injects_where_it_can_and_says_what_it_needs() {
    let scratch = tempfile::tempdir().expect("a directory");
    for helm in [3, 4] {
        let injects = |values: &[(&str, &str)]| {
            let yaml = render_chart(scratch.path(), helm, values).expect("the chart renders");
            let left = ["@image@", "@pullPolicy@", "@url@", "@issuer@", "@tokenSeconds@"].iter().any(|word| yaml.contains(word));
            assert!(!left, "every word is replaced");
            (yaml.contains("name: countersign-injected"), yaml.contains("sidecar-ca.crt:"))
        };
        // `helm template` does not know that the policy is served.
        assert_eq!(injects(&[]), (false, false));
        assert_eq!(injects(&[("injection.enabled", "true")]), (true, false));
        let own = [("injection.enabled", "true"), ("tls.existingSecret", "tls")];
        let refused = render_chart(scratch.path(), helm, &own).expect_err("nobody knows the authority").to_string();
        assert!(refused.contains("injection.certificateAuthority"), "{refused}");
        let pem = ("injection.certificateAuthority", "-----BEGIN CERTIFICATE-----");
        assert_eq!(injects(&[own[0], own[1], pem]), (true, true));
        for (name, value) in
            [("injection.enabled", "maybe"), ("injection.url", "http://a"), ("injection.certificateAuthority", "x")]
        {
            assert!(render_chart(scratch.path(), helm, &[(name, value)]).is_err(), "{name}={value}");
        }
    }
}
