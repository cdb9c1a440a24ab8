//! The Helm chart, installed the way a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::cluster::Cluster;
use super::error::{Context, Error, Result};

/// Where the operator is installed.
pub const NAMESPACE: &str = "countersign-system";

/// The name of the release, and so of everything it makes: ServiceAccount, Secret, Lease, ConfigMap.
pub const RELEASE: &str = "countersign";

/// Installs the chart, or upgrades what is installed, with these values. Does not wait for pods: nothing runs them.
pub fn install_chart(cluster: &Cluster, helm_major: u8, set: &[(&str, &str)]) -> Result<()> {
    let mut helm = helm(helm_major, cluster.directory().path())?;
    helm.args(["upgrade", "--install", RELEASE])
        .arg(chart())
        .args(["--namespace", NAMESPACE, "--create-namespace", "--kubeconfig"])
        .arg(cluster.kubeconfig());
    run(set_values(&mut helm, set))?;
    wait_until_admitting(cluster)
}

/// Waits until the API server takes Agents, and stamps them if it is to: for a second or two after definitions and
/// policies on them were created, it answers that it does not know the kind yet, or some of its policies do.
fn wait_until_admitting(cluster: &Cluster) -> Result<()> {
    let policy = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/countersign-agents";
    let is_stamped_by_it = cluster.kubectl().run(&["get", "--raw", policy]).is_ok();
    // Where it is not, whoever creates one has to.
    let annotations = if is_stamped_by_it { json!({}) } else { json!({ STAMP: "admin" }) };
    let sample = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Agent",
        "metadata": { "name": "sample", "annotations": annotations },
        "spec": { "owner": "admin", "identity": { "serviceAccounts": [{ "name": "sample" }] }, "capabilities": [{ "name": "a" }] },
    });
    let create = ["create", "--dry-run=server", "--namespace=default", "--output=json", "--filename=-"];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match cluster.kubectl().run_with_input(&create, &sample.to_string()) {
            Ok(answer) if answer.contains(STAMP) => return Ok(()),
            Err(failure) if !is_passing(&failure.stderr) => return Err(failure.into()),
            answer if Instant::now() > deadline => {
                return Err(Error::new(format!("the API server does not take Agents as the chart says: {answer:?}")));
            }
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// The annotation that says who changed an object.
const STAMP: &str = "countersign.dev/changed-by";

/// Whether the API server that said so will know better in a moment.
pub fn is_passing(stderr: &str) -> bool {
    [
        "ServiceUnavailable",
        "no matches for kind",
        "could not find the requested resource",
        "not yet ready",
        "There can be a delay",
    ]
    .iter()
    .any(|sign| stderr.contains(sign))
}

/// Runs helm on a cluster. The namespace of the chart is created where that is asked for, not by itself.
pub fn helm_on(cluster: &Cluster, helm_major: u8, arguments: &[&str]) -> Result<String> {
    let mut helm = helm(helm_major, cluster.directory().path())?;
    run(helm.args(arguments).arg("--kubeconfig").arg(cluster.kubeconfig()))
}

/// What the chart would install with these values, all of them in one file, and with those of other files.
pub fn render_chart_from(scratch: &Path, helm_major: u8, files: &[&Path], values: &serde_json::Value) -> Result<String> {
    let file = scratch.join("values.json");
    std::fs::write(&file, values.to_string()).context(file.display())?;
    let mut helm = helm(helm_major, scratch)?;
    helm.args(["template", RELEASE]).arg(chart()).args(["--namespace", NAMESPACE]);
    for file in files.iter().copied().chain([file.as_path()]) {
        helm.arg("--values").arg(file);
    }
    run(&mut helm)
}

/// What the chart would install with these values, as YAML. `scratch` is a directory for Helm's own files.
pub fn render_chart(scratch: &Path, helm_major: u8, set: &[(&str, &str)]) -> Result<String> {
    let mut helm = helm(helm_major, scratch)?;
    helm.args(["template", RELEASE]).arg(chart()).args(["--namespace", NAMESPACE]);
    run(set_values(&mut helm, set))
}

/// The chart in this repository.
pub fn chart() -> PathBuf {
    super::repository().join("charts/countersign")
}

/// A `helm` of that major version, with a configuration of its own.
fn helm(major: u8, scratch: &Path) -> Result<Command> {
    let script = super::repository().join("tests/tools/helm.sh");
    let output = Command::new(&script)
        .arg(major.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit()) // the first time it builds Helm and says so
        .output()
        .context(format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        return Err(Error::new(format!("{} {major} failed, see above", script.display())));
    }
    let home = scratch.join(format!("helm-{major}"));
    let mut helm = Command::new(String::from_utf8_lossy(&output.stdout).trim());
    helm.env_clear()
        .envs(super::process::clean_env(&home))
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"));
    Ok(helm)
}

/// Adds `--set` for each value.
fn set_values<'a>(helm: &'a mut Command, set: &[(&str, &str)]) -> &'a mut Command {
    for (key, value) in set {
        helm.arg("--set").arg(format!("{key}={value}"));
    }
    helm
}

/// Runs it and returns what it prints.
fn run(helm: &mut Command) -> Result<String> {
    let output = helm.stdin(Stdio::null()).output().context("cannot run helm")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::new(format!("helm failed: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
}
