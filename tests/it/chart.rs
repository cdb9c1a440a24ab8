//! The chart: exactly the rights that its README lists, and nothing that a stolen token could use elsewhere.

use crate::office::{Office, whoami};
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::install::{NAMESPACE, RELEASE, install_chart, render_chart};
use crate::support::kubectl::Kubectl;
use crate::support::repository;
use crate::world::{Stamp, World, forbidden};
use serde_json::{Value, json};

/// All documents of the chart rendered with default values.
fn rendered(helm: u8) -> Vec<Value> {
    rendered_with(helm, &[])
}

/// All documents of the chart rendered with these values.
pub fn rendered_with(helm: u8, values: &[(&str, &str)]) -> Vec<Value> {
    let scratch = tempfile::tempdir().expect("a directory");
    documents(&render_chart(scratch.path(), helm, values).expect("the chart renders"))
}

/// All documents of a YAML text.
pub fn documents(yaml: &str) -> Vec<Value> {
    yaml.split("\n---")
        .filter(|d| d.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#') && l.trim() != "---"))
        .map(parse)
        .collect()
}

fn parse(document: &str) -> Value {
    serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{e}: {document}"))
}

/// Those of this kind.
pub fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|d| d["kind"] == kind).collect()
}

#[test]
fn k1_the_operators_rights_are_those_that_the_readme_explains() {
    let readme = std::fs::read_to_string(repository().join("charts/countersign/README.md")).expect("the chart's README");
    let after = readme.split("<!-- rbac-rules").nth(1).expect("a marked block");
    let block = after.split("```yaml").nth(1).and_then(|b| b.split("```").next()).expect("a yaml block");
    let listed = parse(block);
    for helm in [3, 4] {
        let documents = rendered(helm);
        let cluster_roles = of_kind(&documents, "ClusterRole");
        let operators =
            cluster_roles.iter().find(|r| r["metadata"]["name"] == "countersign").expect("the operator's ClusterRole");
        assert_eq!(operators["rules"], listed["clusterRole"], "Helm {helm}");
        let roles = of_kind(&documents, "Role");
        assert_eq!(roles.len(), 1);
        assert_eq!(roles[0]["rules"], listed["role"], "Helm {helm}");
        assert!(operators["rules"].as_array().expect("rules").len() <= 12);
    }
}

#[test]
fn k1_no_rule_of_the_chart_is_dangerous() {
    for role in of_kind(&rendered(4), "ClusterRole").into_iter().chain(of_kind(&rendered(4), "Role")) {
        for rule in role["rules"].as_array().expect("rules") {
            let text = rule.to_string();
            for word in [
                "\"*\"",
                "impersonate",
                "escalate",
                "\"bind\"",
                "serviceaccounts/token",
                "pods/exec",
                "pods/attach",
                "deletecollection",
            ] {
                assert!(!text.contains(word), "{}: {text}", role["metadata"]["name"]);
            }
            let resources = rule["resources"].as_array().cloned().unwrap_or_default();
            if role["kind"] == "ClusterRole" {
                assert!(!resources.iter().any(|r| r == "secrets" || r == "configmaps" || r == "leases"), "{text}");
            } else {
                assert!(rule["resourceNames"].as_array().is_some_and(|n| !n.is_empty()), "a Role names its objects: {text}");
            }
            if resources.iter().any(|r| r == "pods" || r == "serviceaccounts") {
                assert!(rule["verbs"].as_array().expect("verbs").iter().all(|v| v == "list" || v == "watch"), "{text}");
            }
        }
    }
}

#[test]
fn k2_a_stolen_operator_token_opens_nothing_else() {
    let world = World::shared();
    let user = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}");
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{NAMESPACE}"), "system:authenticated"];
    let operator = world.kubectl().impersonating(&user, &groups);
    // `resource` is a resource, or `resource/subresource`: kubectl itself would take what is behind the slash for a name.
    let can = |verb: &str, resource: &str, namespace: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let subresource = format!("--subresource={subresource}");
        let mut arguments = vec!["auth", "can-i", verb, resource, &subresource];
        if !namespace.is_empty() {
            arguments.extend(["-n", namespace]);
        }
        operator.run(&arguments).is_ok()
    };
    for (verb, resource) in [
        ("create", "jitrequests.countersign.dev"),
        ("delete", "jitrequests.countersign.dev"),
        ("operate", "jitrequests.countersign.dev"),
        ("operate", "agents.countersign.dev"),
        ("operate", "capabilities.countersign.dev"),
        ("operate", "trustedissuers.countersign.dev"),
        ("update", "trustedissuers.countersign.dev/status"),
        ("update", "jitrequests.countersign.dev/status"),
        ("update", "agents.countersign.dev/status"),
        ("update", "capabilities.countersign.dev/status"),
        ("create", "tokenreviews"),
    ] {
        assert!(can(verb, resource, "default"), "the question itself works: {verb} {resource}");
    }
    // Of its own Secret it sees every change, and of no other.
    for verb in ["get", "list", "watch", "update"] {
        let its = format!("secrets/{RELEASE}");
        assert!(operator.run(&["auth", "can-i", verb, &its, "-n", NAMESPACE]).is_ok(), "{verb} its Secret");
        assert!(!can(verb, "secrets", NAMESPACE), "{verb} any Secret of its namespace");
    }
    forbidden(operator.run(&["get", "secrets", "-n", NAMESPACE]).map_err(|f| f.stderr), "cannot list");
    for (verb, resource) in [
        ("get", "secrets"),
        ("list", "secrets"),
        ("watch", "secrets"),
        ("create", "secrets"),
        ("update", "secrets"),
        ("delete", "secrets"),
        ("create", "serviceaccounts/token"),
        ("impersonate", "users"),
        ("impersonate", "groups"),
        ("impersonate", "serviceaccounts"),
        ("escalate", "clusterroles"),
        ("bind", "clusterroles"),
        ("create", "clusterrolebindings"),
        ("update", "clusterroles"),
        ("create", "rolebindings"),
        ("create", "pods"),
        ("delete", "pods"),
        ("patch", "pods"),
        ("create", "pods/exec"),
        ("get", "pods/exec"),
        ("create", "pods/attach"),
        ("create", "pods/portforward"),
        ("update", "pods/ephemeralcontainers"),
        ("get", "pods/log"),
        ("create", "deployments"),
        ("patch", "daemonsets"),
        ("create", "jobs"),
        ("get", "nodes"),
        ("get", "nodes/proxy"),
        ("update", "nodes"),
        ("create", "namespaces"),
        ("delete", "namespaces"),
        ("create", "agents.countersign.dev"),
        ("update", "agents.countersign.dev"),
        ("patch", "agents.countersign.dev"),
        ("delete", "agents.countersign.dev"),
        ("update", "jitrequests.countersign.dev"),
        ("patch", "jitrequests.countersign.dev"),
        ("deletecollection", "jitrequests.countersign.dev"),
        ("create", "trustedissuers.countersign.dev"),
        ("update", "trustedissuers.countersign.dev"),
        ("patch", "trustedissuers.countersign.dev"),
        ("delete", "trustedissuers.countersign.dev"),
        ("create", "capabilities.countersign.dev"),
        ("update", "capabilities.countersign.dev"),
        ("patch", "capabilities.countersign.dev"),
        ("delete", "capabilities.countersign.dev"),
        ("grant", "capabilities.countersign.dev"),
        ("approve", "capabilities.countersign.dev"),
        ("introspect", "audiences.countersign.dev"),
        ("update", "customresourcedefinitions"),
        ("delete", "validatingadmissionpolicies"),
        ("update", "validatingadmissionpolicies"),
        ("delete", "validatingadmissionpolicybindings"),
        ("create", "mutatingwebhookconfigurations"),
        ("update", "serviceaccounts"),
        ("approve", "certificatesigningrequests"),
        ("approve", "signers.certificates.k8s.io"),
        ("list", "configmaps"),
        ("get", "configmaps"),
        ("delete", "leases"),
        ("get", "auditrecords.countersign.dev"),
    ] {
        for namespace in ["", "default", "kube-system"] {
            assert!(!can(verb, resource, namespace), "{verb} {resource} in {namespace:?}");
        }
    }
}

#[test]
fn k3_an_agents_service_account_reads_nothing_of_ours() {
    let office = Office::open(World::shared(), Stamp::ByPolicy, "k3-reads");
    office.ask("request");
    let namespace = office.namespace();
    crate::support::workload::create_service_account(&office.admin(), namespace, "plain").expect("a ServiceAccount");
    let token = office.admin().run(&["create", "token", "plain", "-n", namespace]).expect("a token");
    let kubeconfig =
        office.world().cluster.kubeconfig_with_token(&format!("{namespace}-plain"), token.trim()).expect("a kubeconfig");
    let plain = Kubectl::new(&kubeconfig, office.world().cluster.directory().path());
    let name = whoami(&plain)["username"].clone();
    assert_eq!(name, format!("system:serviceaccount:{namespace}:plain"));
    let path = office.path("request");
    let of = |kind: &str| format!("/apis/countersign.dev/v1alpha1/namespaces/{namespace}/{kind}");
    for path in [
        path.clone(),
        format!("{path}/status"),
        of("jitrequests"),
        format!("{}?watch=true&timeoutSeconds=1", of("jitrequests")),
        of("agents"),
        of("agents/bot"),
        "/apis/countersign.dev/v1alpha1/jitrequests".to_owned(),
    ] {
        let refused = plain.run(&["get", "--raw", &path]).map_err(|f| f.stderr);
        forbidden(refused, "cannot");
        office.admin().run(&["get", "--raw", &path]).unwrap_or_else(|e| panic!("it is there: {path}: {e}"));
    }
    // The catalogue is no secret.
    plain.run(&["get", "capability", &office.capability]).expect("everybody who is signed in may read it");
    forbidden(office.file(&plain, "mine", &json!({})), "cannot create");
    forbidden(plain.run(&["delete", "jit", "request", "-n", namespace]).map_err(|f| f.stderr), "cannot delete");
}

#[test]
fn both_helms_render_the_same_policies_as_the_binary_prints() {
    let expected = countersign::admission::validating_yaml().expect("YAML");
    let expected: Vec<Value> = expected.split("---\n").filter(|d| !d.trim().is_empty()).map(parse).collect();
    for helm in [3, 4] {
        let documents = rendered(helm);
        for policy in &expected {
            let found =
                documents.iter().find(|d| d["kind"] == policy["kind"] && d["metadata"]["name"] == policy["metadata"]["name"]);
            assert_eq!(found.expect("the policy is in the chart")["spec"], policy["spec"], "Helm {helm}");
        }
    }
}

/// Values for PostgreSQL.
const POSTGRES: [(&str, &str); 2] = [("database.existingSecret", "countersign-database"), ("replicas", "3")];

#[test]
fn k8_the_pod_is_restricted() {
    for (values, kind) in [(&[][..], "StatefulSet"), (&POSTGRES, "Deployment")] {
        let documents = rendered_with(4, values);
        let pod = &of_kind(&documents, kind)[0]["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(
            (&container["readOnlyRootFilesystem"], &container["allowPrivilegeEscalation"]),
            (&Value::Bool(true), &Value::Bool(false))
        );
        assert_eq!(container["capabilities"]["drop"][0], "ALL");
    }
}

/// The database in the command line of the chart, which is one that the binary accepts.
fn database(workload: &Value) -> countersign::config::DatabaseArgs {
    use clap::Parser as _;
    use countersign::config::{Cli, Command};
    let args: Vec<String> = workload["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .expect("args")
        .iter()
        .map(|a| a.as_str().expect("text").replace("$(POD_NAMESPACE)", NAMESPACE))
        .collect();
    match Cli::try_parse_from(std::iter::once("countersign".to_owned()).chain(args)).expect("accepted").command {
        Command::Serve(args) => args.database,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sqlite_is_one_pod_with_a_volume_that_outlives_it() {
    for helm in [3, 4] {
        let documents = rendered_with(helm, &[("persistence.size", "3Gi"), ("persistence.storageClassName", "fast")]);
        assert!(of_kind(&documents, "Deployment").is_empty());
        let set = of_kind(&documents, "StatefulSet")[0];
        assert_eq!(set["spec"]["replicas"], 1);
        let claims = set["spec"]["volumeClaimTemplates"].as_array().expect("claims");
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0]["spec"]["resources"]["requests"]["storage"], "3Gi");
        assert_eq!(claims[0]["spec"]["storageClassName"], "fast");
        assert_eq!(
            of_kind(&rendered(helm), "StatefulSet")[0]["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"],
            Value::Null
        );
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"], Value::Null, "no emptyDir");
        let mount = &pod["containers"][0]["volumeMounts"][0];
        assert_eq!(mount["name"], claims[0]["metadata"]["name"]);
        let path = database(set).url().expect("a URL").to_string();
        assert!(path.starts_with(&format!("sqlite://{}/", mount["mountPath"].as_str().expect("a path"))), "{path}");
    }
}

#[test]
fn postgresql_is_a_deployment_that_reads_the_url_from_a_secret() {
    for helm in [3, 4] {
        let values = [&POSTGRES[..], &[("database.key", "uri"), ("tls.existingSecret", "tls")]].concat();
        let documents = rendered_with(helm, &values);
        assert!(of_kind(&documents, "StatefulSet").is_empty());
        let deployment = of_kind(&documents, "Deployment")[0];
        assert_eq!(deployment["spec"]["replicas"], 3);
        assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0, "an upgrade interrupts nothing");
        assert_eq!(deployment["spec"]["volumeClaimTemplates"], Value::Null);
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], "countersign-database");
        assert_eq!(pod["volumes"][1]["secret"]["secretName"], "tls");
        let mount = &pod["containers"][0]["volumeMounts"][0];
        assert_eq!((&mount["name"], &mount["readOnly"]), (&pod["volumes"][0]["name"], &json!(true)));
        let file = format!("{}/uri", mount["mountPath"].as_str().expect("a path"));
        assert_eq!(database(deployment).database_file.expect("a file").display().to_string(), file);
        // One is enough for PostgreSQL, too, and no right is added.
        let one = rendered_with(helm, &POSTGRES[..1]);
        assert_eq!(of_kind(&one, "Deployment")[0]["spec"]["replicas"], 1);
        for kind in ["ClusterRole", "Role"] {
            let rules =
                |documents: &[Value]| of_kind(documents, kind).iter().map(|role| role["rules"].clone()).collect::<Vec<_>>();
            assert_eq!(rules(&documents), rules(&rendered(helm)), "{kind}");
        }
    }
}

#[test]
fn values_that_would_lose_state_are_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    for helm in [3, 4] {
        for (values, says) in [
            (&[("replicas", "2")][..], "SQLite is for one replica"),
            (&[("replicas", "0")], "replicas"),
            (&[("persistence.size", "")], "size"),
            (&[("persistence.size", "0Gi")], "size"),
            (&[("persistence.accessMode", "ReadWriteMany")], "accessMode"),
            (&[("persistence.emptyDir", "true")], "emptyDir"),
            (&[("database.url", "postgres://u:p@h/d")], "url"),
            (&[("database.existingSecret", "A")], "existingSecret"),
            (&[("database.key", "../url")], "key"),
        ] {
            let refused = render_chart(scratch.path(), helm, values).expect_err(&format!("{values:?}")).to_string();
            assert!(refused.contains(says), "Helm {helm}, {values:?}: {refused}");
        }
    }
}

#[test]
fn both_helms_move_an_installation_from_sqlite_to_postgresql() {
    let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster");
    let kinds = || {
        let names = cluster.kubectl().run(&["get", "statefulsets,deployments", "-n", NAMESPACE, "-o", "name"]);
        names.expect("a list").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for helm in [3, 4] {
        // Some value must be given, else Helm takes those of the last time.
        install_chart(&cluster, helm, &[("replicas", "1")]).expect("the API server takes it");
        assert_eq!(kinds(), ["statefulset.apps/countersign"]);
        install_chart(&cluster, helm, &POSTGRES).expect("the API server takes it");
        assert_eq!(kinds(), ["deployment.apps/countersign"]);
    }
}

#[test]
fn the_portal_is_set_up_as_the_values_say() {
    let workload = |values: &[(&str, &str)]| {
        let documents = rendered_with(4, values);
        let of = of_kind(&documents, "StatefulSet");
        of[0]["spec"]["template"]["spec"].clone()
    };
    let args = |pod: &Value| -> Vec<String> {
        let args = pod["containers"][0]["args"].as_array().expect("arguments");
        args.iter().map(|arg| arg.as_str().expect("text").to_owned()).filter(|arg| arg.contains("portal")).collect()
    };
    assert_eq!(args(&workload(&[])), ["--portal=true"]);
    assert_eq!(args(&workload(&[("portal.enabled", "false")])), ["--portal=false"]);
    let pod = workload(&[
        ("portal.url", "https://agents.acme.com/portal"),
        ("portal.oidc.issuer", "https://id.acme.com"),
        ("portal.oidc.clientId", "countersign-portal"),
        ("portal.oidc.clientSecret.existingSecret", "portal-client"),
        ("portal.oidc.scopes", "openid groups"),
        ("portal.oidc.certificateAuthority.existingConfigMap", "acme-ca"),
    ]);
    assert_eq!(
        args(&pod),
        [
            "--portal=true",
            "--portal-url=https://agents.acme.com/portal",
            "--portal-oidc-issuer=https://id.acme.com",
            "--portal-oidc-client-id=countersign-portal",
            "--portal-oidc-scopes=openid groups",
            "--portal-oidc-client-secret-file=/etc/countersign/portal/secret/client-secret",
            "--portal-oidc-ca-file=/etc/countersign/portal/ca/ca.crt",
        ]
    );
    assert_eq!(
        (&pod["volumes"][0]["secret"]["secretName"], &pod["volumes"][1]["configMap"]["name"]),
        (&json!("portal-client"), &json!("acme-ca"))
    );
    let mounts: Vec<&str> = pod["containers"][0]["volumeMounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter_map(|mount| mount["mountPath"].as_str())
        .filter(|path| path.contains("portal"))
        .collect();
    assert_eq!(mounts, ["/etc/countersign/portal/secret", "/etc/countersign/portal/ca"]);
    let refused = |values: &[(&str, &str)]| {
        let scratch = tempfile::tempdir().expect("a directory");
        assert!(render_chart(scratch.path(), 4, values).is_err(), "{values:?}");
    };
    refused(&[("portal.oidc.issuer", "https://id.acme.com")]);
    refused(&[("portal.oidc.clientId", "x")]);
    refused(&[("portal.url", "https://agents.acme.com")]);
    refused(&[("portal.oidc.issuer", "http://id.acme.com"), ("portal.oidc.clientId", "x")]);
    refused(&[("portal.oidc.issuer", "https://id.acme.com"), ("portal.oidc.clientId", "x"), ("portal.oidc.scopes", "email")]);
}
