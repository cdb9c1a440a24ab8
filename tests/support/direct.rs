//! What kubectl does, done without it. Tests file, change and delete objects some ten thousand times in a run of the suite, and a kubectl
//! costs a tenth of a second of processor time each time; what the API server is sent is the same.
//!
//! Only the forms of commands that tests use all the time are known here. Everything else is left to kubectl, and so is everything where
//! kubectl itself is what a test is about ([`super::kubectl::Kubectl::itself`]).
#![allow(clippy::indexing_slicing, reason = "a member of JSON that is not there is null")]

use std::time::{Duration, Instant};

use reqwest::Method;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::api::{Answer, Api};
use super::kubectl::Failure;

/// Where `kubectl apply` keeps what it has applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How long a deletion may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kinds that are known here.
struct Kind {
    /// Singular, plural, short name.
    names: [&'static str; 3],
    /// Its group, empty for the core.
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    namespaced: bool,
}

const KINDS: [Kind; 12] = [
    ours(["agent", "agents", "ag"], "Agent", true),
    ours(["jitrequest", "jitrequests", "jit"], "JitRequest", true),
    ours(["capability", "capabilities", "cap"], "Capability", false),
    ours(["trustedissuer", "trustedissuers", "ti"], "TrustedIssuer", false),
    core(["namespace", "namespaces", "ns"], "Namespace", false),
    core(["serviceaccount", "serviceaccounts", "sa"], "ServiceAccount", true),
    core(["secret", "secrets", ""], "Secret", true),
    core(["configmap", "configmaps", "cm"], "ConfigMap", true),
    rights(["role", "roles", ""], "Role", true),
    rights(["rolebinding", "rolebindings", ""], "RoleBinding", true),
    rights(["clusterrole", "clusterroles", ""], "ClusterRole", false),
    rights(["clusterrolebinding", "clusterrolebindings", ""], "ClusterRoleBinding", false),
];

const fn ours(names: [&'static str; 3], kind: &'static str, namespaced: bool) -> Kind {
    Kind { names, group: "countersign.dev", version: "v1alpha1", kind, namespaced }
}

const fn core(names: [&'static str; 3], kind: &'static str, namespaced: bool) -> Kind {
    Kind { names, group: "", version: "v1", kind, namespaced }
}

const fn rights(names: [&'static str; 3], kind: &'static str, namespaced: bool) -> Kind {
    Kind { names, group: "rbac.authorization.k8s.io", version: "v1", kind, namespaced }
}

impl Kind {
    fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| !name.is_empty() && kind.names.contains(&name))
    }

    fn of(object: &Value) -> Option<&'static Self> {
        KINDS.iter().find(|kind| object["kind"] == kind.kind && object["apiVersion"] == kind.api_version())
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// As kubectl calls one of them.
    fn shown(&self, name: &str) -> String {
        let [singular, ..] = self.names;
        if self.group.is_empty() { format!("{singular}/{name}") } else { format!("{singular}.{}/{name}", self.group) }
    }

    fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let within = if self.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
        format!("{root}/{}{within}/{}", self.api_version(), self.names[1])
    }

    /// Whether kubectl patches it by comparing JSON. What it knows the types of, it patches in a way of its own.
    fn is_ours(&self) -> bool {
        self.group == "countersign.dev"
    }
}

/// The path of an object, if its kind is known here.
pub fn path(kind: &str, namespace: &str, name: &str) -> Option<String> {
    Kind::named(kind).map(|kind| format!("{}/{name}", kind.path(namespace)))
}

/// A command line, as far as it is understood.
struct Command<'a> {
    verb: &'a str,
    positional: Vec<&'a str>,
    namespace: &'a str,
    /// The parameter that asks what would be, if that is asked.
    dry_run: &'static str,
    flags: Vec<(&'a str, &'a str)>,
}

impl<'a> Command<'a> {
    /// `None` if it has a flag that is not known here.
    fn parse(arguments: &[&'a str], input: &'a str) -> Option<Self> {
        let (verb, rest) = arguments.split_first()?;
        let mut command = Self { verb, positional: Vec::new(), namespace: "default", dry_run: "", flags: Vec::new() };
        let mut rest = rest.iter();
        while let Some(argument) = rest.next() {
            if !argument.starts_with('-') || *argument == "-" {
                command.positional.push(argument);
                continue;
            }
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, value),
                None if *argument == "--ignore-not-found" => (*argument, "true"),
                None => (*argument, *rest.next()?),
            };
            match flag {
                "-n" | "--namespace" => command.namespace = value,
                "-f" | "--filename" => command.flags.push(("-f", value)),
                "-p" | "--patch" => command.flags.push(("-p", value)),
                "--patch-file" if value == "/dev/stdin" => command.flags.push(("-p", input)),
                "-o" | "--output" => command.flags.push(("-o", value)),
                "--dry-run" if value == "server" => command.dry_run = "&dryRun=All",
                // It always is here.
                "--validate" if value == "strict" => {}
                "--duration" | "--type" | "--subresource" | "--wait" | "--ignore-not-found" | "--raw" => {
                    command.flags.push((flag, value))
                }
                _ => return None,
            }
        }
        Some(command)
    }

    fn flag(&self, name: &str) -> Option<&'a str> {
        self.flags.iter().find(|(flag, _)| *flag == name).map(|(_, value)| *value)
    }

    /// Whether it has no other flags than these.
    fn has_only(&self, flags: &[&str]) -> bool {
        self.flags.iter().all(|(flag, _)| flags.contains(flag))
    }
}

/// Does what `kubectl` would do for `arguments`, in the name of whom `headers` say. `None` if that is left to kubectl.
pub fn run(api: &Api, headers: &[(&str, &str)], arguments: &[&str], input: &str) -> Option<Result<String, Failure>> {
    let command = Command::parse(arguments, input)?;
    let server = Server { api, headers };
    let done = match command.verb {
        "apply" => each(&command, input, &["-f"], |object, _| server.apply(&command, object)),
        "create" if command.positional.first() == Some(&"token") => server.token(&command),
        "create" => each(&command, input, &["-f", "-o"], |object, text| server.create(&command, object, text)),
        "patch" => server.patch(&command),
        "delete" => server.delete(&command),
        "get" if command.flag("--raw").is_some() => server.get_raw(&command),
        "auth" if command.positional == ["whoami"] => server.who_am_i(&command),
        "auth" => return server.may(&command, arguments),
        "get" => server.get(&command),
        _ => None,
    }?;
    Some(done.map_err(|stderr| Failure { arguments: arguments.join(" "), stdout: String::new(), stderr, code: Some(1) }))
}

/// What came of a command: what kubectl prints, or the refusal. `None` if it is left to kubectl.
type Done = Option<Result<String, String>>;

/// Does something with each object of a manifest that comes on stdin. As kubectl, it goes on after one that is refused.
fn each(command: &Command<'_>, input: &str, flags: &[&str], mut one: impl FnMut(&Value, &str) -> Done) -> Done {
    if command.flag("-f") != Some("-") || !command.positional.is_empty() || !command.has_only(flags) {
        return None;
    }
    let objects = documents(input)?;
    // Before anything is done: a manifest is done in one way or the other.
    if objects.is_empty() || objects.iter().any(|(object, _)| Kind::of(object).is_none()) {
        return None;
    }
    let (mut printed, mut refused) = (String::new(), String::new());
    for (object, text) in &objects {
        match one(object, text)? {
            Ok(line) => printed.push_str(&line),
            Err(refusal) => refused.push_str(&refusal),
        }
    }
    Some(if refused.is_empty() { Ok(printed) } else { Err(refused) })
}

/// The documents of a manifest in JSON or YAML, and each as the API server is sent it: what is JSON, as it stands there.
fn documents(input: &str) -> Option<Vec<(Value, String)>> {
    if input.trim_start().starts_with('{') {
        return serde_json::from_str(input).ok().map(|object| vec![(object, input.to_owned())]);
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    let objects: Vec<Value> = serde_saphyr::from_multiple_with_options(input, options).ok()?;
    Some(objects.into_iter().map(|object| (object.clone(), object.to_string())).collect())
}

/// An API server, and in whose name it is spoken to.
struct Server<'a> {
    api: &'a Api,
    headers: &'a [(&'a str, &'a str)],
}

impl Server<'_> {
    fn ask(&self, method: Method, path: &str, body: Option<(&str, &str)>) -> Option<Answer> {
        self.api.ask(method, path, self.headers, body)
    }

    fn apply(&self, command: &Command<'_>, object: &Value) -> Done {
        let (kind, name) = (Kind::of(object)?, object["metadata"]["name"].as_str()?);
        let collection = kind.path(object["metadata"]["namespace"].as_str().unwrap_or(command.namespace));
        let parameters = format!("fieldManager=kubectl-client-side-apply&fieldValidation=Strict{}", command.dry_run);
        let mut wanted = object.clone();
        let annotations = wanted["metadata"].as_object_mut()?.entry("annotations").or_insert_with(|| json!({}));
        annotations.as_object_mut()?.insert(LAST_APPLIED.to_owned(), json!(format!("{object}\n")));
        let live = match self.ask(Method::GET, &format!("{collection}/{name}"), None)? {
            Answer::Is(live) => live,
            Answer::No { reason, .. } if reason == "NotFound" => {
                let answer = self.ask(
                    Method::POST,
                    &format!("{collection}?{parameters}"),
                    Some(("application/json", &wanted.to_string())),
                )?;
                return Some(answer.told(|_| format!("{} created\n", kind.shown(name))));
            }
            refused @ Answer::No { .. } => return Some(refused.told(|_| String::new())),
        };
        if !kind.is_ours() {
            return None;
        }
        let last = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or("{}");
        let patch = difference(&serde_json::from_str(last).ok()?, &wanted, &live);
        if patch.is_empty() {
            return Some(Ok(format!("{} unchanged\n", kind.shown(name))));
        }
        let (path, patch) = (format!("{collection}/{name}?{parameters}"), Value::Object(patch).to_string());
        Some(
            self.ask(Method::PATCH, &path, Some(("application/merge-patch+json", &patch)))?
                .told(|_| format!("{} configured\n", kind.shown(name))),
        )
    }

    fn create(&self, command: &Command<'_>, object: &Value, text: &str) -> Done {
        let kind = Kind::of(object)?;
        let printed = Printed::parse(command.flag("-o"))?;
        let collection = kind.path(object["metadata"]["namespace"].as_str().unwrap_or(command.namespace));
        let path = format!("{collection}?fieldManager=kubectl-create&fieldValidation=Strict{}", command.dry_run);
        let answer = self.ask(Method::POST, &path, Some(("application/json", text)))?;
        Some(answer.told(|made| printed.of(made, kind, "created")))
    }

    fn patch(&self, command: &Command<'_>) -> Done {
        let [kind, name] = *command.positional.as_slice() else { return None };
        let kind = Kind::named(kind).filter(|_| command.has_only(&["-p", "--type", "--subresource"]))?;
        let media_type = match command.flag("--type")? {
            "merge" => "application/merge-patch+json",
            "json" => "application/json-patch+json",
            _ => return None,
        };
        let patch = command.flag("-p").filter(|patch| serde_json::from_str::<IgnoredAny>(patch).is_ok())?;
        let part = command.flag("--subresource").map(|part| format!("/{part}")).unwrap_or_default();
        let path = format!("{}/{name}{part}?fieldManager=kubectl-patch{}", kind.path(command.namespace), command.dry_run);
        let answer = self.ask(Method::PATCH, &path, Some((media_type, patch)))?;
        Some(answer.told(|_| format!("{} patched\n", kind.shown(name))))
    }

    fn delete(&self, command: &Command<'_>) -> Done {
        let [kind, name] = *command.positional.as_slice() else { return None };
        let kind =
            Kind::named(kind).filter(|_| command.has_only(&["--wait", "--ignore-not-found"]) && command.dry_run.is_empty())?;
        let path = format!("{}/{name}", kind.path(command.namespace));
        let options = json!({"propagationPolicy": "Background"});
        let gone = || Some(Ok(format!("{} deleted\n", kind.shown(name))));
        match self.ask(Method::DELETE, &path, Some(("application/json", &options.to_string())))? {
            Answer::Is(_) => {}
            Answer::No { reason, .. } if reason == "NotFound" && command.flag("--ignore-not-found") == Some("true") => {
                return Some(Ok(String::new()));
            }
            refused @ Answer::No { .. } => return Some(refused.told(|_| String::new())),
        }
        if command.flag("--wait") == Some("false") {
            return gone();
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.ask(Method::GET, &path, None)? {
                Answer::Is(live) if live["metadata"]["deletionTimestamp"].is_string() => {}
                _ => return gone(),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Err(format!("{} is still there\n", kind.shown(name))))
    }

    fn get_raw(&self, command: &Command<'_>) -> Done {
        let path = command.flag("--raw").filter(|_| command.positional.is_empty() && command.has_only(&["--raw"]))?;
        Some(self.ask(Method::GET, path, None)?.told(ToString::to_string))
    }

    fn who_am_i(&self, command: &Command<'_>) -> Done {
        command.flag("-o").filter(|output| *output == "json" && command.has_only(&["-o"]))?;
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        Some(self.ask(Method::POST, path, Some(("application/json", &review)))?.told(ToString::to_string))
    }

    fn token(&self, command: &Command<'_>) -> Done {
        let ["token", account] = *command.positional.as_slice() else { return None };
        let hours = command.flag("--duration").filter(|_| command.has_only(&["--duration"]))?.strip_suffix('h')?;
        let spec = json!({"expirationSeconds": hours.parse::<u64>().ok()? * 3600});
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}).to_string();
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", command.namespace);
        let answer = self.ask(Method::POST, &path, Some(("application/json", &request)))?;
        Some(answer.told(|made| format!("{}\n", made["status"]["token"].as_str().unwrap_or_default())))
    }

    /// `kubectl auth can-i`, which answers on stdout and by its exit code.
    fn may(&self, command: &Command<'_>, arguments: &[&str]) -> Option<Result<String, Failure>> {
        let ["can-i", verb, what] = *command.positional.as_slice() else { return None };
        let (kind, name) = what.split_once('/').map_or((what, None), |(kind, name)| (kind, Some(name)));
        let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
        // Only what kubectl needs not look up.
        let is_known = KINDS.iter().any(|kind| kind.names[1] == resource && kind.group == group);
        if !is_known || !command.has_only(&["--subresource"]) {
            return None;
        }
        let attributes = json!({
            // As kubectl: even of what is in no namespace, since roles of a namespace may speak of it.
            "namespace": command.namespace,
            "verb": verb, "group": group, "resource": resource, "name": name.unwrap_or_default(),
            "subresource": command.flag("--subresource").unwrap_or_default(),
        });
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        match self.ask(Method::POST, path, Some(("application/json", &review.to_string())))? {
            Answer::Is(review) if review["status"]["allowed"] == true => Some(Ok("yes\n".to_owned())),
            Answer::Is(_) => Some(Err(Failure {
                arguments: arguments.join(" "),
                stdout: "no\n".to_owned(),
                stderr: String::new(),
                code: Some(1),
            })),
            Answer::No { .. } => None,
        }
    }

    fn get(&self, command: &Command<'_>) -> Done {
        let (kind, name) = match *command.positional.as_slice() {
            [kind] => (kind, String::new()),
            [kind, name] => (kind, format!("/{name}")),
            _ => return None,
        };
        let kind = Kind::named(kind).filter(|_| command.has_only(&["-o"]))?;
        let printed = Printed::parse(Some(command.flag("-o")?))?;
        let answer = self.ask(Method::GET, &format!("{}{name}", kind.path(command.namespace)), None)?;
        Some(answer.told(|live| printed.of(live, kind, "")))
    }
}

/// What is printed of an object (`-o`).
enum Printed {
    Line,
    Json,
    /// `jsonpath={.a.b}`, as a JSON pointer.
    Member(String),
}

impl Printed {
    fn parse(output: Option<&str>) -> Option<Self> {
        match output {
            None => Some(Self::Line),
            Some("json") => Some(Self::Json),
            Some(output) => {
                let path = output.strip_prefix("jsonpath={.")?.strip_suffix('}')?;
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
                path.chars().all(plain).then(|| Self::Member(format!("/{}", path.replace('.', "/"))))
            }
        }
    }

    fn of(&self, object: &Value, kind: &Kind, done: &str) -> String {
        match self {
            Self::Line => format!("{} {done}\n", kind.shown(object["metadata"]["name"].as_str().unwrap_or_default())),
            Self::Json => object.to_string(),
            Self::Member(pointer) => match object.pointer(pointer) {
                None => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            },
        }
    }
}

/// The JSON merge patch (RFC 7386) of `kubectl apply`: what was applied the last time and is not `wanted` any more is removed, what is
/// `live` in another way than wanted is set, and what somebody else has added stays.
fn difference(last: &Value, wanted: &Value, live: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    for name in last.as_object().into_iter().flat_map(Map::keys) {
        if wanted.get(name).is_none() && live.get(name).is_some() {
            patch.insert(name.clone(), Value::Null);
        }
    }
    for (name, value) in wanted.as_object().into_iter().flatten() {
        match live.get(name) {
            Some(current) if current == value => {}
            Some(current @ Value::Object(_)) if value.is_object() => {
                let inner = difference(last.get(name).unwrap_or(&Value::Null), value, current);
                if !inner.is_empty() {
                    patch.insert(name.clone(), inner.into());
                }
            }
            _ => _ = patch.insert(name.clone(), value.clone()),
        }
    }
    patch
}
