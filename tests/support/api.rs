//! The API server without kubectl, for what tests do all the time and kubectl adds nothing to: looking at an object, waiting for it, making
//! the workloads around it. A kubectl costs a tenth of a second of processor time, whatever it is asked.
#![allow(clippy::indexing_slicing, reason = "a member of JSON that is not there is null")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::Client;
use serde_json::Value;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the API server says.
#[derive(Debug)]
pub enum Answer {
    /// Yes, with the object.
    Is(Value),
    /// No: a Status.
    No {
        /// Its short name, such as `NotFound`.
        reason: String,
        /// Its sentence, as kubectl prints it.
        message: String,
    },
}

impl Answer {
    fn is(self) -> Option<Value> {
        match self {
            Self::Is(object) => Some(object),
            Self::No { .. } => None,
        }
    }

    /// What `words` say of the object, or the refusal as kubectl prints it.
    pub fn told(self, words: impl FnOnce(&Value) -> String) -> std::result::Result<String, String> {
        match self {
            Self::Is(object) => Ok(words(&object)),
            Self::No { message, .. } => Err(format!("{message}\n")),
        }
    }
}

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
        static KNOWN: OnceLock<Mutex<HashMap<String, Option<Arc<Api>>>>> = OnceLock::new();
        // By what it says: the next one may have the same name.
        let text = std::fs::read_to_string(kubeconfig).ok()?;
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(text).or_insert_with_key(|text| apart(|| Self::read(text)).map(Arc::new)).clone()
    }

    fn read(kubeconfig: &str) -> Option<Self> {
        let config: Value = serde_json::from_str(kubeconfig).ok()?;
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
        self.ask(Method::GET, path, &[], None).and_then(Answer::is)
    }

    /// Makes an object.
    pub fn post(&self, path: &str, object: &Value) -> Option<Value> {
        self.ask(Method::POST, path, &[], Some(("application/json", &object.to_string()))).and_then(Answer::is)
    }

    /// Sends a request, with a body of a media type if there is one. `None` if there is no answer, or one that is no JSON.
    pub fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<(&str, &str)>) -> Option<Answer> {
        apart(|| {
            let mut request = self.http.request(method, format!("{}{path}", self.server)).bearer_auth(&self.token);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some((media_type, body)) = body {
                request = request.header("content-type", media_type).body(body.to_owned());
            }
            let answer = request.send().ok()?;
            let is_yes = answer.status().is_success();
            let object: Value = answer.json().ok()?;
            Some(if is_yes { Answer::Is(object) } else { refusal(&object) })
        })
    }
}

/// What a Status says, in kubectl's words.
fn refusal(status: &Value) -> Answer {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (reason, message) = (text(&status["reason"]), text(&status["message"]));
    let details = &status["details"];
    let causes: Vec<String> = details["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| format!("{}: {}", text(&c["field"]), text(&c["message"])))
        .collect();
    let subject = match details["kind"].as_str() {
        Some(kind) => format!("The {kind} {:?} is invalid", text(&details["name"])),
        None => "The request is invalid".to_owned(),
    };
    let message = match reason.as_str() {
        "Invalid" if !causes.is_empty() => format!("{subject}: {}", causes.join("; ")),
        "Invalid" if details["kind"].is_string() => subject,
        "Invalid" => format!("{subject}: {message}"),
        _ => format!("Error from server ({reason}): {message}"),
    };
    Answer::No { reason, message }
}

/// In a thread of its own: a client that blocks must not be used, nor made, where a runtime is.
fn apart<T: Send>(work: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    std::thread::scope(|scope| scope.spawn(work).join().ok().flatten())
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
    // As kubectl, which compares what it would print.
    let printed = |found: &Value| found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    (!path.contains(['[', '\\'])).then(|| object.pointer(&pointer).is_some_and(|found| printed(found) == value))
}
