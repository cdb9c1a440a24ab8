//! Workloads as the operator sees them: ServiceAccounts, Pod objects and their tokens. No Pod ever runs.

use serde_json::{Value, json};

use super::error::{Context, Error, Result};
use super::kubectl::Kubectl;

/// Makes the namespace unless it exists.
pub fn create_namespace(kubectl: &Kubectl, name: &str) -> Result<()> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    if kubectl.api().and_then(|api| api.post("/api/v1/namespaces", &namespace)).is_none() {
        kubectl.apply(&namespace.to_string())?;
    }
    Ok(())
}

/// Makes a ServiceAccount and returns its uid. Its namespace must exist.
pub fn create_service_account(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<String> {
    create(
        kubectl,
        &json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "namespace": namespace, "name": name },
        }),
    )
}

/// Makes a Pod of that ServiceAccount, bound to no node, and returns its uid.
pub fn create_pod(kubectl: &Kubectl, namespace: &str, name: &str, service_account: &str) -> Result<String> {
    create(
        kubectl,
        &json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": namespace, "name": name },
            "spec": {
                "serviceAccountName": service_account,
                "automountServiceAccountToken": false,
                // Does nothing, should an existing cluster have a node and run it.
                "containers": [{ "name": "agent", "image": "registry.k8s.io/pause:3.10" }],
            },
        }),
    )
}

/// The token that a projected volume of the Pod would hold: for one audience, dead when the Pod is.
///
/// The API server gives no token a shorter life than 600 seconds.
pub fn pod_token(
    kubectl: &Kubectl,
    namespace: &str,
    service_account: &str,
    pod: &str,
    pod_uid: &str,
    audience: &str,
    duration_seconds: u32,
) -> Result<String> {
    let spec = json!({
        "audiences": [audience],
        "expirationSeconds": duration_seconds,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod_uid},
    });
    if kubectl.api().is_some() {
        return request_token(kubectl, namespace, service_account, &spec);
    }
    let token = kubectl.run(&[
        "create",
        "token",
        service_account,
        &format!("--namespace={namespace}"),
        "--bound-object-kind=Pod",
        &format!("--bound-object-name={pod}"),
        &format!("--bound-object-uid={pod_uid}"),
        &format!("--audience={audience}"),
        &format!("--duration={duration_seconds}s"),
    ])?;
    Ok(token.trim().to_owned())
}

/// A token by a TokenRequest with exactly this `spec`: other audiences, several or none, no binding, another binding.
pub fn request_token(kubectl: &Kubectl, namespace: &str, service_account: &str, spec: &Value) -> Result<String> {
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token");
    let answer = match kubectl.api().and_then(|api| api.post(&path, &request)) {
        Some(answer) => answer,
        None => {
            let answer = kubectl.run_with_input(&["create", "--raw", &path, "-f", "-"], &request.to_string())?;
            serde_json::from_str(&answer).context("TokenRequest was not answered with JSON")?
        }
    };
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    token.map(str::to_owned).ok_or_else(|| Error::new("TokenRequest was answered without a token"))
}

/// Creates an object and returns its uid.
fn create(kubectl: &Kubectl, object: &Value) -> Result<String> {
    let metadata = |name: &str| object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or_default();
    let plural = if object["kind"] == "Pod" { "pods" } else { "serviceaccounts" };
    let path = format!("/api/v1/namespaces/{}/{plural}", metadata("namespace"));
    if let Some(made) = kubectl.api().and_then(|api| api.post(&path, object)) {
        let uid = made.pointer("/metadata/uid").and_then(Value::as_str);
        return uid.map(str::to_owned).ok_or_else(|| Error::new("an object without uid was made"));
    }
    let uid = ["create", "-f", "-", "-o", "jsonpath={.metadata.uid}"];
    Ok(kubectl.run_with_input(&uid, &object.to_string())?)
}
