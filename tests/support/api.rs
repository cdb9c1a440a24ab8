//! The API server without kubectl, for what tests do all the time and kubectl adds nothing to: looking at an object, waiting for it, making
//! the workloads around it. A kubectl costs a tenth of a second of processor time, whatever it is asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One API server, as one user with a token.
#[derive(Debug)]
pub struct Api {
    http: Client,
    server: String,
    token: String,
}

impl Api {
    /// The one that a kubeconfig names, if it is one that these tests wrote: with a token and the file of an authority.
    pub fn of(kubeconfig: &Path) -> Option<Arc<Self>> {
        static KNOWN: OnceLock<Mutex<HashMap<PathBuf, Option<Arc<Api>>>>> = OnceLock::new();
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(kubeconfig.to_owned()).or_insert_with(|| apart(|| Self::read(kubeconfig)).map(Arc::new)).clone()
    }

    fn read(kubeconfig: &Path) -> Option<Self> {
        let config: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig).ok()?).ok()?;
        let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
        if config.pointer("/users/0/user")?.as_object()?.keys().any(|key| key != "token") {
            return None;
        }
        let pem = std::fs::read(text("/clusters/0/cluster/certificate-authority")?).ok()?;
        let authority = reqwest::Certificate::from_pem(&pem).ok()?;
        let http = Client::builder().tls_certs_only([authority]).timeout(PATIENCE).build().ok()?;
        Some(Self {
            http,
            server: text("/clusters/0/cluster/server")?.to_owned(),
            token: text("/users/0/user/token")?.to_owned(),
        })
    }

    /// The object or list at this path. `None` if the answer is no or there is none: kubectl says it in its words.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.send(|http, server| http.get(format!("{server}{path}")))
    }

    /// Makes an object.
    pub fn post(&self, path: &str, object: &Value) -> Option<Value> {
        self.send(|http, server| http.post(format!("{server}{path}")).json(object))
    }

    fn send(&self, request: impl FnOnce(&Client, &str) -> RequestBuilder + Send) -> Option<Value> {
        apart(|| {
            let sent = request(&self.http, &self.server).bearer_auth(&self.token).send().ok()?;
            if sent.status().is_success() { sent.json().ok() } else { None }
        })
    }
}

/// In a thread of its own: a client that blocks must not be used, nor made, where a runtime is.
fn apart<T: Send>(work: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    std::thread::scope(|scope| scope.spawn(work).join().ok().flatten())
}

/// The path of an object of a kind that the tests look at again and again.
pub fn path(kind: &str, namespace: &str, name: &str) -> Option<String> {
    const OURS: &str = "/apis/countersign.dev/v1alpha1";
    Some(match kind {
        "agent" => format!("{OURS}/namespaces/{namespace}/agents/{name}"),
        "jitrequest" | "jit" => format!("{OURS}/namespaces/{namespace}/jitrequests/{name}"),
        "jitrequests" => format!("{OURS}/namespaces/{namespace}/jitrequests"),
        "capability" => format!("{OURS}/capabilities/{name}"),
        "trustedissuer" => format!("{OURS}/trustedissuers/{name}"),
        "configmap" => format!("/api/v1/namespaces/{namespace}/configmaps/{name}"),
        "secret" => format!("/api/v1/namespaces/{namespace}/secrets/{name}"),
        _ => return None,
    })
}

/// Whether what `kubectl wait --for` waits for holds; `None` if it is of a form that is not known here.
pub fn holds(object: &Value, what: &str) -> Option<bool> {
    if let Some(condition) = what.strip_prefix("condition=") {
        let (name, status) = condition.split_once('=').unwrap_or((condition, "True"));
        let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|condition| condition["type"].as_str() == Some(name));
        // As kubectl: a condition that says that it is about an earlier generation does not count.
        let current = |condition: &Value| {
            let observed = condition["observedGeneration"].as_i64();
            observed.is_none() || generation.is_none() || observed >= generation
        };
        return Some(found.is_some_and(|c| c["status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case(status)) && current(c)));
    }
    let (path, value) = what.strip_prefix("jsonpath={.")?.split_once("}=")?;
    let pointer = format!("/{}", path.replace('.', "/"));
    (!path.contains(['[', '\\'])).then(|| object.pointer(&pointer) == Some(&json!(value)))
}
