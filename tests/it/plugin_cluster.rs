//! `kubectl countersign` about the whole installation: the check, the way to the portal, the ledger, and what it shares with `countersign`:
//! can and revoke.

use crate::auditor::{Auditor, Ran};
use crate::chains::{ALICE, Team, id_token};
use crate::payments::asked;
use crate::plugin::{Following, by_kubectl, command, person, plugin, plugin_binary, ran};
use crate::support::install::{NAMESPACE, RELEASE};
use crate::support::kubectl::Kubectl;
use crate::world::{DOCS, PATIENCE, World, claims, user, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Runs it against the operator of `world`, to which no node of a test cluster could forward.
fn asks(world: &World, who: &Kubectl, args: &[&str]) -> Ran {
    let server = format!("--server={}", world.operator.url());
    plugin(who, &[args, &[&server]].concat())
}

#[test]
fn who_really_did_this_is_answered_by_the_running_operator() {
    let world = World::shared();
    let auditor = Auditor::of(world, "plugin-audit");
    let (tenant, capability) = world.payments_tenant("traced");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    asked.approve("bob");
    let jti = claims(&asked.token())["jti"].as_str().expect("a jti").to_owned();
    // That comes after the status.
    wait_until("the approval is recorded", PATIENCE, || asked.records().iter().any(|record| record["reason"] == "approved"));
    // With the token of the kubeconfig, the authority from the cluster.
    let kubeconfig = world.cluster.kubeconfig_with_token("plugin-auditor", &auditor.token).expect("a kubeconfig");
    let reader = Kubectl::new(&kubeconfig, world.cluster.directory().path());
    let ca = format!("--ca={}", world.operator.ca_file().display());
    let told = asks(world, &reader, &["trace", &jti, &ca]).expect(0);
    assert!(told.contains(&format!("agent:{}/bot", tenant.namespace)) && told.contains("approved by bob"), "{told}");
    let id = format!("{}/{}", tenant.namespace, asked.name);
    let records =
        asks(world, &reader, &["audit", "query", "--mentions", &id, "--event=jit.*", "--since=1h", "-o", "json", &ca]).expect(0);
    let reasons: Vec<Value> =
        records.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["reason"].clone()).collect();
    assert!(reasons.contains(&json!("requested")) && reasons.contains(&json!("approved")), "{records}");
    // With a token of a ServiceAccount that was made for that; the administrator reads the authority from the ConfigMap.
    let account = auditor.name.trim_start_matches("system:serviceaccount:").replace(':', "/");
    let account = format!("--service-account={account}");
    let newest = asks(world, &world.kubectl(), &["audit", "tail", "--lines=3", &account]).expect(0);
    assert_eq!(newest.lines().count(), 3, "{newest}");
    let record = records.lines().next().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).expect("a record");
    let record = format!("{}/{}", record["log"].as_str().expect("a log"), record["seq"]);
    wait_until("it can be proved", PATIENCE, || {
        asks(world, &world.kubectl(), &["audit", "prove", &record, &account]).status == Some(0)
    });

    // Who may not read is told how they could.
    let bob = person(world, "bob");
    let refused = asks(world, &bob, &["trace", &jti, &ca]);
    assert_eq!(refused.status, Some(1), "{}", refused.err);
    assert!(refused.err.contains("403") && refused.err.contains("countersign-auditor"), "{}", refused.err);
    let posing = asks(world, &world.kubectl(), &["trace", &jti, "--as=alice"]);
    assert_eq!(posing.status, Some(2), "the token would be that of somebody else: {}", posing.err);
    assert!(asks(world, &reader, &["trace", "nobody-knows", &ca]).err.contains("no record knows of"));
}

#[test]
fn the_tree_of_a_token_has_a_line_for_each_agent_of_its_chain() {
    let team = Team::start("tree");
    let auditor = Auditor::of(team.world, "plugin-tree");
    let file = auditor.file("own", &auditor.token);
    let file = format!("--token-file={}", file.display());
    let called = team.called(&id_token());
    let passed_on = team.passes_on(&called);
    let read = team.reads("reader", &passed_on).expect(200).text("access_token");
    let jti = |token: &str| claims(token)["jti"].as_str().expect("a jti").to_owned();
    let admin = team.world.kubectl();
    let tree = asks(team.world, &admin, &["tree", &jti(&read), &file]).expect(0);
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("chain "), "{tree}");
    assert_eq!(lines[1], ALICE.trim_start_matches("user:"), "{tree}");
    let bot = lines.iter().position(|line| line.trim_start().starts_with("Research Bot (agent:")).expect("the first agent");
    let search = lines
        .iter()
        .position(|line| line.contains("+- Search Tool (agent:") && line.contains(&jti(&passed_on)))
        .expect("the second");
    let reader = lines.iter().position(|line| line.contains("+- agent:") && line.contains(&jti(&read))).expect("the third");
    assert!(bot < search && search < reader, "{tree}");
    let indent = |at: usize| lines[at].len() - lines[at].trim_start().len();
    assert!(indent(bot) <= indent(search) && indent(search) < indent(reader), "{tree}");
    let hops: Value =
        serde_json::from_str(&asks(team.world, &admin, &["tree", &jti(&read), &file, "-o", "json"]).expect(0)).expect("JSON");
    assert_eq!(hops[0]["jti"], jti(&called));
}

#[test]
fn what_an_agent_may_is_asked_by_its_short_name() {
    let world = World::shared();
    let tenant = world.tenant("short");
    let admin = world.kubectl();
    let yes = by_kubectl(&admin, &["can", "bot", "document.read", "document:reports/q3", "-n", &tenant.namespace]);
    assert!(yes.expect(0).starts_with("yes\n"));
    let no = plugin(&admin, &["can", &format!("{}/bot", tenant.namespace), "payments.authorize", "-o", "json"]);
    assert_eq!(no.status, Some(1));
    assert_eq!(serde_json::from_str::<Value>(&no.out).expect("JSON")["decision"], false);
    assert_eq!(plugin(&admin, &["can", "bot", "no capability"]).status, Some(2));
    assert_eq!(
        plugin(&person(world, "carol"), &["can", "bot", "web.search"]).status,
        Some(2),
        "whoever may not look cannot tell"
    );
}

#[test]
fn tokens_are_revoked_by_whoever_may() {
    for (world, _) in World::both() {
        let (tenant, server) = (world.tenant("plugin-revoke"), world.resource_server(DOCS));
        world.bind_cluster_role(&tenant.namespace, "revoke", "countersign-revoker", &[user("bob")]);
        let bob = person(world, "bob");
        wait_until("the right is seen", PATIENCE, || {
            bob.run(&["auth", "can-i", "revoke", "agents.countersign.dev", "-n", &tenant.namespace]).is_ok()
        });
        let token = tenant.access_token();
        let carol = plugin(&person(world, "carol"), &["revoke", "--agent=bot", "--all", "-n", &tenant.namespace]);
        assert_eq!(carol.status, Some(1), "{}", carol.err);
        let said = by_kubectl(&bob, &["revoke", "--agent", "bot", "--all", "--reason=drill", "-n", &tenant.namespace]).expect(0);
        assert!(said.contains("is dead, and everything derived from them"), "{said}");
        wait_until("it is dead", PATIENCE, || !world.introspect(&server, &token).is_active());
    }
}

/// A kubectl that forwards as the real one says it does, to where the operator is.
fn forwarding(world: &World, folder: &Path) {
    let port = world.operator.url().rsplit(':').next().expect("a port").to_owned();
    let file = folder.join("kubectl");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >\"$0.args\"\necho \"$$\" >\"$0.pid\"\necho 'Forwarding from 127.0.0.1:{port} -> 8443'\nexec sleep 600\n"
    );
    fs::write(&file, script).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn the_check_says_what_is_broken_and_how_to_mend_it() {
    // A world of its own: it is broken on purpose.
    let name = format!("--tls-dns-name={RELEASE}.{NAMESPACE}.svc");
    let world = World::start(4, &[], &[&name]);
    let (tenant, admin) = (world.tenant("check"), world.kubectl());
    let check = || by_kubectl(&admin, &["check", "-n", &tenant.namespace]);

    // Nothing runs the pod, and so nobody can forward to it.
    let pod = format!("{RELEASE}-0");
    wait_until("its pod is there", PATIENCE, || admin.run(&["get", "pod", &pod, "-n", NAMESPACE]).is_ok());
    let unready = check();
    assert_eq!(unready.status, Some(1), "{}", unready.out);
    assert!(
        unready
            .out
            .contains(&format!("✗ StatefulSet {NAMESPACE}/{RELEASE} is not ready, 0 of 1\n  -> kubectl -n {NAMESPACE} describe")),
        "{}",
        unready.out
    );
    let no_way = by_kubectl(&admin, &["ui", "--no-open"]);
    assert_eq!(no_way.status, Some(2), "{}", no_way.out);
    assert!(no_way.err.contains("kubectl port-forward: "), "{}", no_way.err);

    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
    admin
        .run(&["patch", "pod", &pod, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", &running])
        .expect("as a node would");
    wait_until("it counts as ready", PATIENCE, || {
        let set = admin.get_json(&["get", "statefulset", RELEASE, "-n", NAMESPACE]).expect("a StatefulSet");
        set["status"]["readyReplicas"] == 1
    });
    let healthy = check();
    assert_eq!(healthy.status, Some(0), "{}", healthy.out);
    for text in [
        "✓ Kubernetes v1.",
        "✓ agents.countersign.dev is that of version ",
        "✓ countersign-jitrequests-status is in force",
        "✓ the API server writes who decides",
        "is ready, 1 of 1",
        &format!("✓ Lease {NAMESPACE}/{RELEASE} is written"),
        "✓ kind Agent: 1 there, none of them out of use",
        "✓ you are admin",
        "✓ you may decide on every capability",
    ] {
        assert!(healthy.out.contains(text), "{text}\n\n{}", healthy.out);
    }
    assert!(!healthy.out.contains('✗'), "{}", healthy.out);

    // Whoever sees little is told so, and what they lack.
    let alice = plugin(&person(&world, "alice"), &["check", "-n", &tenant.namespace]);
    assert_eq!(alice.status, Some(2), "{}", alice.out);
    for text in ["! ", "you may not see requests", "ClusterRole countersign-approver", "you may decide on nothing"] {
        assert!(alice.out.contains(text), "{text}\n\n{}", alice.out);
    }

    through_the_way(&world, &admin);

    // What is out of use is named, and so is what is missing.
    let capability = world.capability(&json!({}));
    let patch = json!({"spec": {"parameterSchema": {"type": "elephant"}}}).to_string();
    admin.run(&["patch", "capability", &capability, "--type=merge", "-p", &patch]).expect("patched");
    admin.wait_for("default", &format!("capability/{capability}"), "condition=Ready=False", PATIENCE).expect("said so");
    let unusable = check();
    assert_eq!(unusable.status, Some(0), "the installation is whole: {}", unusable.out);
    assert!(unusable.out.contains(&format!("! Capability {capability} is not ready: ")), "{}", unusable.out);
    admin.run(&["delete", "validatingadmissionpolicybinding", "countersign-jitrequests-status"]).expect("deleted");
    admin.run(&["delete", "crd", "trustedissuers.countersign.dev"]).expect("deleted");
    let broken = check();
    assert_eq!(broken.status, Some(1), "{}", broken.out);
    for text in [
        "✗ ValidatingAdmissionPolicyBinding countersign-jitrequests-status is missing\n  -> helm upgrade",
        "✗ trustedissuers.countersign.dev is missing",
    ] {
        assert!(broken.out.contains(text), "{text}\n\n{}", broken.out);
    }
    world.operator.process().signal("STOP").expect("frozen");
    let dead = check();
    world.operator.process().signal("CONT").expect("thawed");
    assert!(dead.out.contains(&format!("✗ Lease {NAMESPACE}/{RELEASE} was not written for 5 s")), "{}", dead.out);
}

/// What goes through kubectl port-forward, with one that forwards to an operator on this machine: no node here could.
fn through_the_way(world: &World, admin: &Kubectl) {
    let folder = tempfile::tempdir().expect("a folder");
    forwarding(world, folder.path());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut ui = command(plugin_binary(), admin, "100");
    ui.env("PATH", &path).args(["ui", "--no-open", "--context=test"]);
    let ui = Following::start(ui);
    ui.prints(&[&format!("{}/portal", world.operator.url())]);
    let args = fs::read_to_string(folder.path().join("kubectl.args")).expect("arguments");
    assert_eq!(
        args.trim(),
        format!("port-forward --namespace={NAMESPACE} --address=127.0.0.1 --context=test service/{RELEASE} :https")
    );
    let pid = fs::read_to_string(folder.path().join("kubectl.pid")).expect("a pid");
    assert_eq!(ui.stop(), Some(143));
    wait_until("what it started has ended with it", PATIENCE, || !Path::new(&format!("/proc/{}", pid.trim())).exists());

    // The certificate is for the Service, by whatever way that is reached.
    let auditor = Auditor::of(world, "way");
    let token = auditor.file("own", &auditor.token);
    let mut tail = command(plugin_binary(), admin, "100");
    tail.env("PATH", &path).args(["audit", "tail", "--lines=1", &format!("--token-file={}", token.display())]);
    let tail = ran(&mut tail);
    assert_eq!(tail.expect(0).lines().count(), 1);
}

#[test]
fn the_versions_are_those_of_the_program_and_of_the_operator() {
    let world = World::shared();
    let version = env!("CARGO_PKG_VERSION");
    let said = by_kubectl(&world.kubectl(), &["version"]).expect(0);
    assert_eq!(said, format!("kubectl-countersign {version}\noperator {version} ({NAMESPACE})\n"));
    assert_eq!(plugin(&person(world, "carol"), &["version", "--client"]).expect(0).lines().count(), 1);
}

#[test]
fn kubeconfigs_contexts_and_impersonation_are_as_kubectls() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("flags");
    world.approver("bob", &tenant.namespace, &capability);
    let admin = world.kubectl();
    let nobody = Kubectl::new(Path::new("/nowhere/config"), world.cluster.directory().path());
    let kubeconfig = format!("--kubeconfig={}", admin.kubeconfig().display());
    let list = |args: &[&str]| {
        ran(command(plugin_binary(), &nobody, "100")
            .env("HOME", "/nowhere")
            .args(["requests", "-n", &tenant.namespace])
            .args(args))
    };
    assert_eq!(list(&[]).status, Some(2));
    assert_eq!(list(&[&kubeconfig]).status, Some(0));
    assert_eq!(list(&[&kubeconfig, "--context=test"]).status, Some(0));
    let missing = list(&[&kubeconfig, "--context=other"]);
    assert_eq!(missing.status, Some(2));
    assert!(missing.err.contains("other"), "{}", missing.err);
    assert_eq!(list(&[&kubeconfig, "--as=bob"]).status, Some(0));
    assert_eq!(list(&[&kubeconfig, "--as=mallory"]).status, Some(1));
    assert_eq!(list(&[&kubeconfig, "--as=mallory", "--as-group=system:masters"]).status, Some(0));
    assert_eq!(list(&[&kubeconfig, "-A"]).status, Some(2), "one namespace or all");
    // Who acts as somebody decides as them.
    let asked = asked(&tenant, &capability);
    let done =
        plugin(&admin, &["approve", &asked.name, "-n", &tenant.namespace, "--yes", "--as=bob", "--as-group=team"]).expect(0);
    assert!(done.contains("approved by bob"), "{done}");
    assert_eq!(asked.status()["approvals"][0]["by"]["username"], "bob");
}

#[test]
fn the_krew_manifest_and_the_archive_fit_each_other() {
    let root = crate::support::repository();
    let (folder, work) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let binary = work.path().join("kubectl-countersign");
    fs::write(&binary, "#!/bin/sh\necho it runs\n").expect("written");
    let package = |platform: &str| {
        let mut script = std::process::Command::new(root.join("plugin/package.sh"));
        script
            .args(["0.1.0", platform])
            .arg(&binary)
            .arg(folder.path())
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default());
        script.env("HOMEPAGE", "https://example.com/acme/countersign");
        ran(&mut script)
    };
    for platform in ["linux-amd64", "linux-arm64", "darwin-arm64"] {
        package(platform).expect(0);
    }
    assert_eq!(package("plan9-mips").status, Some(2), "krew knows no such platform");
    let manifest = fs::read_to_string(folder.path().join("countersign.yaml")).expect("a manifest");
    let manifest: Value = serde_saphyr::from_str(&manifest).expect("YAML");
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&json!("Plugin"), &json!("countersign")));
    let spec = &manifest["spec"];
    assert_eq!(spec["version"], "v0.1.0");
    assert!(spec["shortDescription"].as_str().is_some_and(|text| !text.is_empty() && text.len() <= 80), "{spec}");
    for text in ["description", "homepage", "caveats"] {
        assert!(spec[text].as_str().is_some_and(|text| !text.is_empty()), "{text}");
    }
    let platforms = spec["platforms"].as_array().expect("platforms");
    assert_eq!(platforms.len(), 3);
    for platform in platforms {
        let labels = &platform["selector"]["matchLabels"];
        let name = format!(
            "kubectl-countersign-v0.1.0-{}-{}.tar.gz",
            labels["os"].as_str().expect("os"),
            labels["arch"].as_str().expect("arch")
        );
        let uri = platform["uri"].as_str().expect("a uri");
        assert_eq!(uri, format!("https://example.com/acme/countersign/releases/download/v0.1.0/{name}"));
        let archive = folder.path().join(&name);
        let sum = ran(std::process::Command::new("sha256sum").arg(&archive)).expect(0);
        assert_eq!(platform["sha256"].as_str(), sum.split(' ').next());
        let inside = ran(std::process::Command::new("tar").arg("tzf").arg(&archive)).expect(0);
        assert_eq!(inside.lines().collect::<Vec<_>>(), ["LICENSE", "kubectl-countersign"]);
        assert_eq!(platform["bin"], "kubectl-countersign");
    }
    let out = work.path().join("out");
    fs::create_dir(&out).expect("made");
    ran(std::process::Command::new("tar")
        .arg("xzf")
        .arg(folder.path().join("kubectl-countersign-v0.1.0-linux-amd64.tar.gz"))
        .arg("-C")
        .arg(&out))
    .expect(0);
    assert_eq!(fs::metadata(out.join("kubectl-countersign")).expect("there").permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read(out.join("LICENSE")).expect("there"), fs::read(root.join("LICENSE")).expect("there"));
}
