//! The sidecar beside an agent, put there by the API server itself: one label on a pod, and no webhook.
//!
//! Two policies on labelled pods. The mutating one writes the sidecar into the pod; the validating one refuses a pod that would run without
//! it, or with something in its place. The certificate authority is in a ConfigMap that the operator writes, their parameter, so that the
//! operator needs no right in the namespaces of agents. What runs there, and where it goes, is no parameter: whoever has the operator's
//! credential would choose it. The chart writes it into the policies, in place of words between `@`.
//!
//! Whoever makes a pod chooses its ServiceAccount, and the sidecar gives the pod nothing beyond what that is worth.

mod cel;
mod pod;

pub use pod::{Snippet, snippet};

use super::squeeze;
use cel::{patch_value, text};
use pod::{CONTAINER, Slots, VOLUME};
use serde_json::{Value, json};

/// The label that asks for a sidecar.
pub const LABEL: &str = "countersign.dev/inject";
/// The annotation with the audience of a token that is asked for without saying for whom.
const AUDIENCE: &str = "countersign.dev/sidecar-audience";
/// The annotation with its scope.
const SCOPE: &str = "countersign.dev/sidecar-scope";
/// The annotation with the port of the sidecar.
const PORT: &str = "countersign.dev/sidecar-port";
/// The annotation with the agent, for one that is not called like its ServiceAccount.
const AGENT: &str = "countersign.dev/agent";

const MUTATING: &str = "countersign-inject";
const VALIDATING: &str = "countersign-injected";
const API_VERSION: &str = "admissionregistration.k8s.io/v1";
/// Where a pod's own credential for the API server is mounted, and the volume that it is in (the admission plugin ServiceAccount).
const API_TOKEN_VOLUME: &str = "kube-api-access-";

/// The policy that writes the sidecar into a pod. Its binding is the chart's, which knows the namespace of the parameter.
#[must_use]
pub fn mutating() -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "MutatingAdmissionPolicy", "metadata": {"name": MUTATING},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": constraints(&json!({"matchLabels": {LABEL: "true"}})),
            // The other policy says what is missing.
            "matchConditions": [
                {"name": "without-a-sidecar", "expression": squeeze(&format!("!({})", has_container("true")))},
                {"name": "with-a-port", "expression": squeeze(&matches(&annotation(PORT), PORT_PATTERN))},
                {"name": "with-parameters", "expression": squeeze(COMPLETE)},
            ],
            "variables": variables(),
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": squeeze(&patches())}}],
        },
    })
}

/// The policy that refuses a labelled pod without the sidecar.
#[must_use]
pub fn validating() -> Value {
    let rules: Vec<Value> = rules()
        .into_iter()
        .map(|(expression, message)| {
            let rule = format!("variables.off || ({expression})");
            json!({"expression": squeeze(&rule), "messageExpression": squeeze(&message), "reason": "Forbidden"})
        })
        .collect();
    let label = format!("object.metadata.labels['{LABEL}'] in ['true', 'false']");
    let mut variables = variables();
    variables.push(json!({"name": "off", "expression": format!("object.metadata.labels['{LABEL}'] != 'true'")}));
    let mut validations = vec![json!({
        "expression": label, "message": format!("label {LABEL} is true, or false, or not there"), "reason": "Forbidden",
    })];
    validations.extend(rules);
    json!({
        "apiVersion": API_VERSION, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": VALIDATING},
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": constraints(&json!({"matchExpressions": [{"key": LABEL, "operator": "Exists"}]})),
            "variables": variables,
            "validations": validations,
        },
    })
}

/// Each rule, and what is said to whoever breaks it.
fn rules() -> Vec<(String, String)> {
    let quoted = |message: &str| text(message);
    let container = pod::container(&Slots::in_policy());
    let same = |member: &str| format!("c.{member} == {}", patch_value(container.get(member).unwrap_or(&Value::Null), ""));
    // What must be as it would be injected. The rest is nobody's harm, and other policies of the cluster may add to it.
    let as_injected = "has(c.args) && ".to_owned()
        + &["image", "args"].map(same).join(" && ")
        + " && has(c.restartPolicy) && c.restartPolicy == 'Always'";
    let pattern = |name: &str, pattern: &str, says: &str| {
        (matches(&annotation(name), pattern), quoted(&format!("annotation {name} must be {says}")))
    };
    vec![
        (
            COMPLETE.to_owned(),
            quoted(
                "the sidecar cannot be put into this pod yet: the operator has not published its certificate authority; try again shortly",
            ),
        ),
        pattern(PORT, PORT_PATTERN, "a port from 1024 to 65535, not that of a container of the pod"),
        pattern(AUDIENCE, r"^[!#%&(-\[\]-~]{0,256}$", "one audience: printable ASCII without spaces, quotes, $ and backslashes"),
        pattern(SCOPE, "^[-a-z0-9. ]{0,1000}$", "names of capabilities, separated by single spaces"),
        pattern(AGENT, "^(agent:[-a-z0-9.]+/[-a-z0-9.]+)?$", "agent:<namespace>/<name>"),
        (
            "!has(object.spec.hostNetwork) || !object.spec.hostNetwork".to_owned(),
            quoted(
                "a pod with hostNetwork shares its loopback address with the node, so that anybody there could ask its sidecar for tokens",
            ),
        ),
        (
            has_container(&as_injected),
            format!(
                "{} ? {} : {}",
                has_container("true"),
                quoted(&format!(
                    "the pod has a container of its own that is called {CONTAINER}: leave it out, and the sidecar is put into the pod"
                )),
                quoted(&format!(
                    "the pod has no container {CONTAINER}: this cluster does not put it there; write it by hand (countersign sidecar-snippet)"
                )),
            ),
        ),
        (
            "has(object.spec.automountServiceAccountToken)".to_owned(),
            quoted(
                "say automountServiceAccountToken: false, so that the agent's containers hold no credential, or true if they are to call the API server",
            ),
        ),
        (
            format!(
                "{} && {}",
                without_volume("containers", "true"),
                without_volume("initContainers", &format!("c.name != '{CONTAINER}'"))
            ),
            quoted(&format!("volume {VOLUME} is for the sidecar alone: the agent's containers hold no credential")),
        ),
    ]
}

/// Whether the parameter says whom to trust.
const COMPLETE: &str =
    "has(params.data) && ['sidecar-ca.crt', 'ca.crt'].exists(key, key in params.data && params.data[key] != '')";
const PORT_PATTERN: &str = "^(102[4-9]|10[3-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])?$";

/// What both policies look up.
fn variables() -> Vec<Value> {
    let variable = |name: &str, expression: &str| json!({"name": name, "expression": squeeze(expression)});
    let parameter = |key: &str| format!("has(params.data) && '{key}' in params.data ? params.data['{key}'] : ''");
    vec![
        variable("image", "'@image@'"),
        variable("pullPolicy", "'@pullPolicy@'"),
        variable("url", "'@url@'"),
        variable("issuer", "'@issuer@'"),
        variable("seconds", "int('@tokenSeconds@')"),
        variable("ca", &format!("({0}) != '' ? ({0}) : ({1})", parameter("sidecar-ca.crt"), parameter("ca.crt"))),
        variable("audience", &annotation(AUDIENCE)),
        variable("scope", &annotation(SCOPE)),
        variable("agent", &annotation(AGENT)),
        variable("port", &format!("({0}) == '' ? '{1}' : ({0})", annotation(PORT), pod::PORT)),
    ]
}

/// All that changes in the pod, in this order: what it has is taken away before anything is put in front of it.
fn patches() -> String {
    let slots = Slots::in_policy();
    let container = patch_value(&pod::container(&slots), "Object.spec.initContainers");
    let volume = patch_value(&pod::volume(&slots), "Object.spec.volumes");
    let list = |name: &str| format!("(has(object.spec.{name}) ? [] : [JSONPatch{{op: 'add', path: '/spec/{name}', value: []}}])");
    let own_token = "(has(object.spec.automountServiceAccountToken) && object.spec.automountServiceAccountToken)";
    [
        // The API server mounts its own credential into every container before a policy is asked, unless the pod says that it wants none.
        // Only a pod that says that it does want it keeps it.
        format!("({own_token} ? [] : {})", without_api_token("initContainers")),
        format!("({own_token} ? [] : {})", without_api_token("containers")),
        format!(
            "({own_token} || !has(object.spec.volumes) ? [] :
                object.spec.volumes.transformList(i, v, v.name.startsWith('{API_TOKEN_VOLUME}'),
                    JSONPatch{{op: 'remove', path: '/spec/volumes/' + string(i)}}))"
        ),
        "(has(object.spec.automountServiceAccountToken) ? [] :
            [JSONPatch{op: 'add', path: '/spec/automountServiceAccountToken', value: false}])"
            .to_owned(),
        told_where(),
        list("initContainers"),
        format!("[JSONPatch{{op: 'add', path: '/spec/initContainers/0', value: {container}}}]"),
        list("volumes"),
        format!("[JSONPatch{{op: 'add', path: '/spec/volumes/-', value: {volume}}}]"),
    ]
    .join(" + ")
}

/// Takes the API server's credential out of these containers. Each has one at most.
fn without_api_token(containers: &str) -> String {
    let is_it = format!("m.name.startsWith('{API_TOKEN_VOLUME}')");
    format!(
        "(!has(object.spec.{containers}) ? [] :
            object.spec.{containers}.transformList(i, c, has(c.volumeMounts) && c.volumeMounts.exists(m, {is_it}),
                JSONPatch{{op: 'remove', path: '/spec/{containers}/' + string(i) + '/volumeMounts/' +
                    string(c.volumeMounts.transformList(j, m, {is_it}, j)[0])}}))"
    )
}

/// Tells the agent's containers where their sidecar is, unless they say it themselves.
fn told_where() -> String {
    let name = pod::ADDRESS_VARIABLE;
    let path = "'/spec/containers/' + string(i)";
    // In two steps: a patch whose value is a list of objects is one of which the API server (1.36) dies.
    format!(
        "object.spec.containers.transformList(i, c, !has(c.env), JSONPatch{{op: 'add', path: {path} + '/env', value: []}}) +
            object.spec.containers.transformList(i, c, !has(c.env) || !c.env.exists(e, e.name == '{name}'),
                JSONPatch{{op: 'add', path: {path} + '/env/-',
                    value: Object.spec.containers.env{{name: '{name}', value: 'http://127.0.0.1:' + variables.port}}}})"
    )
}

/// Whether there is a container of the sidecar's name of which `condition` holds.
fn has_container(condition: &str) -> String {
    format!("(has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == '{CONTAINER}' && {condition}))")
}

/// Whether none of these containers of which `condition` holds mounts the sidecar's volume.
fn without_volume(containers: &str, condition: &str) -> String {
    format!(
        "(!has(object.spec.{containers}) || object.spec.{containers}.all(c, !({condition}) || !has(c.volumeMounts)
            || c.volumeMounts.all(m, m.name != '{VOLUME}')))"
    )
}

/// The value of an annotation, empty if there is none.
fn annotation(name: &str) -> String {
    format!(
        "has(object.metadata.annotations) && '{name}' in object.metadata.annotations ? object.metadata.annotations['{name}'] : ''"
    )
}

fn matches(value: &str, pattern: &str) -> String {
    format!("({value}).matches({})", text(pattern))
}

fn constraints(object_selector: &Value) -> Value {
    json!({
        "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": object_selector,
        "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*",
        }],
    })
}
