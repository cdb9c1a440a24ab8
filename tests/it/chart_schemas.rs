//! The chart, as others check charts: helm-unittest on its suites, and kubeconform with the schemas of this very API server.

use crate::chart::{documents, of_kind, rendered_with};
use crate::support::install::{chart, render_chart_from};
use crate::support::kubectl::Kubectl;
use crate::support::{repository, workload};
use crate::world::{PATIENCE, World, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The path of one of the tools that `tests/tools/go.sh` builds.
fn tool(name: &str) -> PathBuf {
    let output = Command::new(repository().join("tests/tools/go.sh")).arg(name).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// Whether it succeeded, and what it printed.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("it runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

#[test]
fn the_suites_of_the_chart_pass() {
    let (passed, text) = run(Command::new(tool("helm-unittest")).arg("--strict").arg(chart()));
    assert!(passed, "{text}");
    let files = std::fs::read_dir(chart().join("tests")).expect("suites").map(|entry| entry.expect("an entry").file_name());
    let suites = files.filter(|name| name.to_string_lossy().ends_with("_test.yaml")).count();
    assert!(text.contains(&format!("{suites} passed, {suites} total")), "{text}");
}

/// Values with which nothing is left out that the chart can make.
fn everything() -> Value {
    json!({
        "admission": {"mutating": true},
        "audit": {"archive": {"retention": "90d", "existingClaim": "archive"}},
        "injection": {"enabled": true, "certificateAuthority": "-----BEGIN CERTIFICATE-----", "excludedNamespaces": ["vault"]},
        "dpop": {"requireNonce": true},
        "tracing": {"endpoint": "http://otel-collector.monitoring.svc:4318"},
        "networkPolicy": {
            "enabled": true,
            "ingress": {"metrics": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
            "egress": {
                "apiServer": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]},
                "database": {"to": [{"ipBlock": {"cidr": "10.9.0.0/16", "except": ["10.9.9.0/24"]}}]},
                "others": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [443]}],
            },
        },
        "monitoring": {
            "serviceMonitor": {"enabled": true},
            "podMonitor": {"enabled": true},
            "prometheusRule": {"enabled": true, "alertLabels": {"team": "sre"}},
            "dashboard": {"enabled": true},
        },
        "notifications": {
            "config": {
                "receivers": [{"name": "ops", "slack": {"channel": "C1", "token": "slack"}}],
                "routes": [{"receiver": "ops"}],
            },
            "existingSecret": "receivers",
        },
        "portal": {"oidc": {"issuer": "https://id.acme.com", "clientId": "portal", "clientSecret": {"existingSecret": "portal"}}},
        "tls": {"certManager": {"enabled": true, "issuerRef": {"name": "acme"}}},
        "serviceAccount": {"annotations": {"a/b": "c"}},
        "service": {"annotations": {"a/b": "c"}},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"a/b": "c"},
        "podLabels": {"a/b": "c"},
        "extraArgs": ["--log-level=debug"],
    })
}

/// What the chart makes by default, with the preset for high availability, and with everything switched on.
fn renderings() -> Vec<String> {
    let scratch = tempfile::tempdir().expect("a directory");
    let preset = chart().join("values-ha.yaml");
    let sets: [(&[&Path], Value); 3] =
        [(&[], json!({"admission": {"mutating": true}})), (&[&preset], json!({})), (&[&preset], everything())];
    let render = |(files, values): &(&[&Path], Value)| render_chart_from(scratch.path(), 4, files, values).expect("it renders");
    sets.iter().map(render).collect()
}

/// A schema in which a field that is not there is an error, as it is for the API server with `fieldValidation=Strict`.
fn strict(node: &mut Value) {
    match node {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get("$ref") {
                // Nothing beside it counts.
                *node = json!({"$ref": target});
                return;
            }
            let is_open = members.contains_key("additionalProperties")
                || members.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if members.get("properties").is_some_and(Value::is_object) && !is_open {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            if members.get("format") == Some(&json!("int-or-string")) {
                members.insert("type".to_owned(), json!(["string", "integer"]));
            }
            members.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

/// The names of the definitions that a schema refers to.
fn references(node: &Value, found: &mut BTreeSet<String>) {
    match node {
        Value::Object(members) => {
            if let Some(name) = members.get("$ref").and_then(Value::as_str) {
                found.insert(name.trim_start_matches("#/definitions/").to_owned());
            }
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Writes a schema for each kind that the API server or `tests/schemas` knows: `<group>_<version>_<kind>.json`.
fn write_schemas(kubectl: &Kubectl, directory: &Path) {
    let mut document = Value::Null;
    // Kinds of a chart that was installed a moment ago are described later.
    wait_until("the API server describes every kind", PATIENCE, || {
        let text = kubectl.run(&["get", "--raw", "/openapi/v2"]).expect("the API server describes itself");
        document = serde_json::from_str(&text).expect("JSON");
        let described = |kind: &str| document["definitions"].get(format!("dev.countersign.v1alpha1.{kind}")).is_some();
        ["Agent", "Capability", "JitRequest", "TrustedIssuer"].iter().all(|kind| described(kind))
    });
    let mut definitions = document["definitions"].clone();
    strict(&mut definitions);
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = json!({"type": ["string", "number"]});
    for (name, definition) in document["definitions"].as_object().expect("definitions") {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        // Options of requests belong to every group.
        let Some([kind]) = kinds.map(Vec::as_slice) else { continue };
        let (mut needed, mut all) = (BTreeSet::from([name.clone()]), BTreeSet::new());
        while let Some(next) = needed.pop_first() {
            if all.insert(next.clone()) {
                references(&definitions[&next], &mut needed);
            }
        }
        let within: serde_json::Map<String, Value> =
            all.into_iter().map(|name| (name.clone(), definitions[&name].clone())).collect();
        let schema = json!({"$ref": format!("#/definitions/{name}"), "definitions": within});
        let of = |member: &str| kind[member].as_str().expect("text").to_owned();
        write_schema(directory, &of("group"), &of("version"), &of("kind"), &schema);
    }
    for (file, group, kind) in [
        ("certificate", "cert-manager.io", "Certificate"),
        ("podmonitor", "monitoring.coreos.com", "PodMonitor"),
        ("prometheusrule", "monitoring.coreos.com", "PrometheusRule"),
        ("servicemonitor", "monitoring.coreos.com", "ServiceMonitor"),
    ] {
        let text = std::fs::read_to_string(repository().join(format!("tests/schemas/{file}.json"))).expect("a schema");
        let mut schema = serde_json::from_str(&text).expect("JSON");
        strict(&mut schema);
        write_schema(directory, group, "v1", kind, &schema);
    }
}

fn write_schema(directory: &Path, group: &str, version: &str, kind: &str, schema: &Value) {
    // kubeconform says "v1" for the group that has no name.
    let group = if group.is_empty() { version } else { group };
    let file = format!("{group}_{version}_{}.json", kind.to_lowercase());
    std::fs::write(directory.join(file), schema.to_string()).expect("written");
}

/// What kubeconform says of each document: its kind and whether it is valid.
fn conform(schemas: &Path, yaml: &str) -> (bool, Value) {
    let file = schemas.join("rendered.yaml");
    std::fs::write(&file, yaml).expect("written");
    let location = format!("{}/{{{{.Group}}}}_{{{{.ResourceAPIVersion}}}}_{{{{.ResourceKind}}}}.json", schemas.display());
    let mut command = Command::new(tool("kubeconform"));
    command.args(["-strict", "-summary", "-output", "json", "-schema-location", &location]).arg(&file);
    let (passed, text) = run(&mut command);
    (passed, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[test]
fn every_object_of_the_chart_is_what_its_schema_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let schemas = directory.path();
    write_schemas(&World::shared().kubectl(), schemas);
    for yaml in renderings() {
        let (passed, said) = conform(schemas, &yaml);
        assert!(passed, "{:#}", said["resources"]);
        let summary = json!({"valid": documents(&yaml).len(), "invalid": 0, "errors": 0, "skipped": 0});
        assert_eq!(said["summary"], summary, "nothing is passed over");
    }
    // Helm 3 makes the same of everything.
    let scratch = tempfile::tempdir().expect("a directory");
    let by_helm_3 = render_chart_from(scratch.path(), 3, &[&chart().join("values-ha.yaml")], &everything()).expect("it renders");
    let texts = |yaml: &str| documents(yaml).iter().map(Value::to_string).collect::<BTreeSet<_>>();
    assert!(texts(&by_helm_3) == texts(&renderings()[2]), "Helm 3 and 4 differ");
    // It would notice.
    let everything = &renderings()[2];
    for (right, wrong) in [
        ("    scrapeTimeout: ", "    scrapeTimeOut: "),
        ("unhealthyPodEvictionPolicy: ", "unhealthyPodEvictionPolice: "),
        ("  secretName: \"countersign-tls\"\n  issuerRef", "  secret: \"countersign-tls\"\n  issuerRef"),
        ("  policyTypes: [Ingress, Egress]", "  policyTypes: Ingress"),
        ("    - alert: CountersignSlow", "    - alarm: CountersignSlow"),
        ("  owner: helm-test", "  owners: helm-test"),
    ] {
        assert!(everything.contains(right), "{right}");
        let (passed, said) = conform(schemas, &everything.replace(right, wrong));
        assert!(!passed, "{wrong}");
        assert!(said["summary"]["invalid"].as_u64() >= Some(1), "{wrong}: {}", said["summary"]);
    }
    let (passed, said) = conform(schemas, "apiVersion: example.com/v1\nkind: Unknown\nmetadata: {name: a}\n");
    assert!(!passed && said["summary"]["errors"] == 1, "a kind without a schema is no kind: {said}");
}

#[test]
fn what_the_chart_says_of_itself_is_true() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).expect("Chart.yaml");
    let about: Value = serde_saphyr::from_str(&text).expect("YAML");
    let annotation = |name: &str| -> Vec<Value> {
        let text = about["annotations"][format!("artifacthub.io/{name}")].as_str().expect(name);
        serde_saphyr::from_str(text).expect("YAML")
    };
    let all: Vec<Value> = renderings().iter().flat_map(|yaml| documents(yaml)).collect();
    let definitions: BTreeSet<&str> =
        of_kind(&all, "CustomResourceDefinition").iter().filter_map(|crd| crd["metadata"]["name"].as_str()).collect();
    let (crds, examples) = (annotation("crds"), annotation("crdsExamples"));
    assert_eq!(crds.iter().filter_map(|crd| crd["name"].as_str()).collect::<BTreeSet<_>>(), definitions);
    let kinds = |objects: &[Value]| objects.iter().map(|object| object["kind"].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(kinds(&examples), kinds(&crds));
    let image = &of_kind(&all, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(&annotation("images")[0]["image"], image);

    let world = World::shared();
    let namespace = world.namespace("examples-of-the-chart");
    for mut example in examples {
        if example["metadata"]["namespace"].is_string() {
            example["metadata"]["namespace"] = json!(namespace);
        }
        let create = ["create", "--dry-run=server", "-f", "-"];
        let text = crate::world::stamped(example, "admin").to_string();
        world.kubectl().itself().run_with_input(&create, &text).unwrap_or_else(|refused| panic!("{refused}"));
    }
}

#[test]
fn k8_the_pods_of_the_chart_are_admitted_where_the_standard_restricted_is_enforced() {
    let world = World::shared();
    let kubectl = world.kubectl();
    let namespace = world.namespace("k8-restricted");
    let labels = ["enforce=restricted", "enforce-version=latest"].map(|label| format!("pod-security.kubernetes.io/{label}"));
    kubectl.run(&["label", "namespace", &namespace, &labels[0], &labels[1]]).expect("labelled");
    for account in ["countersign", "countersign-test"] {
        workload::create_service_account(&kubectl, &namespace, account).expect("a ServiceAccount");
    }
    let create = |pod: &Value| {
        let mut pod = pod.clone();
        pod["metadata"]["namespace"] = json!(namespace);
        let create = ["create", "--dry-run=server", "-f", "-"];
        kubectl.itself().run_with_input(&create, &pod.to_string()).map_err(|failure| failure.stderr)
    };
    let mut pods = Vec::new();
    let all: Vec<Value> = renderings().iter().flat_map(|yaml| documents(yaml)).chain(rendered_with(3, &[])).collect();
    for kind in ["StatefulSet", "Deployment"] {
        for workload in of_kind(&all, kind) {
            let template = &workload["spec"]["template"];
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": template["metadata"]["labels"]}, "spec": template["spec"],
            });
            // The controller of StatefulSets adds what the claims are.
            if kind == "StatefulSet" {
                pod["spec"]["volumes"] = json!([{"name": "state", "persistentVolumeClaim": {"claimName": "state-a-0"}}]);
            }
            pods.push(pod);
        }
    }
    pods.extend(of_kind(&all, "Pod").into_iter().cloned());
    assert_eq!(pods.len(), 8);
    // The API server looks at the label a moment after it has stored it.
    let mut loose = pods.first().expect("a pod").clone();
    loose["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
    wait_until("the standard is enforced", PATIENCE, || create(&loose).is_err());
    for pod in &pods {
        create(pod).unwrap_or_else(|refused| panic!("{refused}: {pod:#}"));
        for (pointer, value) in [
            ("/spec/securityContext/runAsNonRoot", json!(false)),
            ("/spec/securityContext/seccompProfile", Value::Null),
            ("/spec/containers/0/securityContext/capabilities", json!({})),
            ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ] {
            let mut loose = pod.clone();
            *loose.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
            let refused = create(&loose).expect_err(pointer);
            assert!(refused.contains("violates PodSecurity"), "{pointer}: {refused}");
        }
    }
}
