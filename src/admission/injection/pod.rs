//! The sidecar as it stands in a pod, written once: for the policy that injects it, and for people who write it by hand.

use super::cel::expression;
use super::{AGENT, AUDIENCE, LABEL, SCOPE};
use crate::json::put;
use serde_json::{Value, json};

/// The name of the container.
pub(super) const CONTAINER: &str = "countersign-sidecar";
/// The name of the volume with the agent's credential.
pub(super) const VOLUME: &str = "countersign-sidecar-token";
/// The port, unless an annotation says another.
pub(super) const PORT: u16 = 7710;
/// The variable that tells the agent's containers where the sidecar is.
pub(super) const ADDRESS_VARIABLE: &str = "COUNTERSIGN_SIDECAR_URL";
/// Where the binary is in the image.
const BINARY: &str = "/usr/bin/countersign";
/// Where the credential is mounted.
const MOUNT: &str = "/var/run/secrets/countersign.dev";

/// What differs from pod to pod and from cluster to cluster.
#[derive(Debug)]
pub(super) struct Slots {
    image: Value,
    pull_policy: Value,
    ca: Value,
    issuer: Value,
    token_seconds: Value,
    /// `127.0.0.1` and the port, as an argument.
    listen: Value,
    args: Value,
}

impl Slots {
    /// As the policies say it: expressions.
    pub(super) fn in_policy() -> Self {
        let optional = |name: &str| format!("(variables.{name} == '' ? [] : ['--{name}=' + variables.{name}])");
        let listen = "'--listen-address=127.0.0.1:' + variables.port";
        let args = ["audience", "scope", "agent"].map(optional).join(" + ");
        Self {
            image: expression("variables.image"),
            pull_policy: expression("variables.pullPolicy"),
            ca: expression("variables.ca"),
            issuer: expression("variables.issuer"),
            token_seconds: expression("variables.seconds"),
            listen: expression(listen),
            args: expression(&format!("['sidecar', '--url=' + variables.url, {listen}] + {args}")),
        }
    }
}

/// The init container with `restartPolicy: Always` that is a sidecar: the agent's containers start once its probe succeeds, and it ends
/// after them.
pub(super) fn container(slots: &Slots) -> Value {
    json!({
        "name": CONTAINER,
        "image": slots.image,
        "imagePullPolicy": slots.pull_policy,
        "restartPolicy": "Always",
        "args": slots.args,
        "env": [{"name": "COUNTERSIGN_CA_PEM", "value": slots.ca}],
        "startupProbe": {
            // A kubelet cannot reach the loopback address of a pod, and the image has no shell.
            "exec": {"command": [BINARY, "sidecar-ready", slots.listen]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 600,
        },
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 65532,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": VOLUME, "mountPath": MOUNT, "readOnly": true}],
    })
}

/// The volume with the agent's credential, for the token service alone.
pub(super) fn volume(slots: &Slots) -> Value {
    json!({
        "name": VOLUME,
        "projected": {"sources": [{"serviceAccountToken": {
            "audience": slots.issuer, "expirationSeconds": slots.token_seconds, "path": "token",
        }}]},
    })
}

/// What is written by hand where the API server does not write it.
#[derive(Debug, Clone)]
pub struct Snippet {
    /// The image of the sidecar.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// Where the token service is.
    pub url: String,
    /// Its issuer URL, for which the agent's credential is.
    pub issuer: String,
    /// Its certificate authority, PEM.
    pub ca: String,
    /// How long a credential lives.
    pub token_seconds: u32,
    /// The port of the sidecar.
    pub port: u16,
    /// The usual audience, scope, and the agent's name; empty if there is none.
    pub audience: String,
    /// See `audience`.
    pub scope: String,
    /// See `audience`.
    pub agent: String,
}

/// The members of a Pod, or of the template of one, that belong to the sidecar, exactly as the policy writes them.
#[must_use]
pub fn snippet(snippet: &Snippet) -> Value {
    let listen = format!("--listen-address=127.0.0.1:{}", snippet.port);
    let mut args = vec!["sidecar".to_owned(), format!("--url={}", snippet.url), listen.clone()];
    let said = [("audience", &snippet.audience), ("scope", &snippet.scope), ("agent", &snippet.agent)];
    args.extend(said.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("--{name}={value}")));
    let slots = Slots {
        image: json!(snippet.image),
        pull_policy: json!(snippet.pull_policy),
        ca: json!(snippet.ca),
        issuer: json!(snippet.issuer),
        token_seconds: json!(snippet.token_seconds),
        listen: json!(listen),
        args: json!(args),
    };
    let mut annotations = json!({});
    for (name, value) in [(AUDIENCE, &snippet.audience), (SCOPE, &snippet.scope), (AGENT, &snippet.agent)] {
        if !value.is_empty() {
            put(&mut annotations, name, json!(value));
        }
    }
    if snippet.port != PORT {
        put(&mut annotations, super::PORT, json!(snippet.port.to_string()));
    }
    json!({
        "metadata": {"labels": {LABEL: "true"}, "annotations": annotations},
        "spec": {
            "automountServiceAccountToken": false,
            "initContainers": [container(&slots)],
            "containers": [{"name": "your container", "env": [
                {"name": ADDRESS_VARIABLE, "value": format!("http://127.0.0.1:{}", snippet.port)},
            ]}],
            "volumes": [volume(&slots)],
        },
    })
}
