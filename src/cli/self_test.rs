//! `countersign self-test`: what `helm test` runs. An agent obtains a token, is refused another, and the metrics can be read.

use crate::config::issuer;
use crate::grammar::CapabilityName;
use crate::readable::Readable;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A capability that no Agent holds.
const NEVER_GRANTED: &str = "countersign.never-granted";
/// No credential of anybody.
const NO_CREDENTIAL: &str = "e30.e30.e30";
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 4 << 20;
/// How often is tried again what does not hold yet: the Agent was made a moment ago.
const EVERY: Duration = Duration::from_millis(500);
/// Metrics that say whether the operator is in order.
const METRICS: [&str; 2] = ["countersign_admission_policies_in_force 1", "countersign_store_reachable 1"];

/// Flags of `self-test`.
#[derive(Debug, Args)]
pub struct SelfTestArgs {
    /// The issuer's URL of the token service, exactly as it calls itself.
    #[arg(long, value_name = "URL", value_parser = issuer)]
    pub issuer: String,
    /// Where to connect to in place of the issuer's host, which may lead out of the cluster and in again.
    #[arg(long, value_name = "HOST:PORT")]
    pub service: Option<String>,
    /// The authorities of its certificate, PEM. Where there is no such file, the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The ServiceAccount token of an agent, for the issuer. It never goes on the command line.
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// A capability that this agent holds.
    #[arg(long, value_parser = capability)]
    pub capability: CapabilityName,
    /// The URL of the metrics. Without it they are not read.
    #[arg(long, value_name = "URL")]
    pub metrics: Option<String>,
    /// How long each check is tried, such as 60s.
    #[arg(long, default_value = "60s", value_parser = timeout)]
    pub timeout: Duration,
}

fn capability(text: &str) -> Result<CapabilityName, String> {
    CapabilityName::parse(text).map_err(|error| error.to_string())
}

fn timeout(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('s').and_then(|seconds| seconds.parse().ok()) {
        Some(seconds @ 1..=600) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be 1s to 600s".to_owned()),
    }
}

/// Makes the checks one after another, and says of each in a line what came of it. The status is 0 if all hold, else 1.
///
/// # Errors
/// If nothing can be checked.
pub async fn run(args: &SelfTestArgs) -> Result<(String, u8), String> {
    let service = Service { client: client(args).await?, args };
    let (mut text, mut status) = (String::new(), 0);
    let mut note = |check: &str, outcome: Result<String, String>| {
        let (word, said) = match outcome {
            Ok(said) => ("ok    ", said),
            Err(why) => {
                status = 1;
                ("FAILED", why)
            }
        };
        // Writing into a text cannot fail.
        _ = writeln!(text, "{word} {check}: {said}");
    };
    note("the service answers", service.until_it_holds(|| service.answers()).await);
    note("a token is issued", service.until_it_holds(|| service.issues()).await);
    note("what is not granted is refused", service.until_it_holds(|| service.refuses_scope()).await);
    note("who proves nothing is refused", service.until_it_holds(|| service.refuses_nobody()).await);
    if let Some(url) = &args.metrics {
        note("the metrics are in order", service.until_it_holds(|| service.measures(url)).await);
    }
    Ok((text, status))
}

/// A client that trusts the authorities and connects to the service.
async fn client(args: &SelfTestArgs) -> Result<Client, String> {
    let mut builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER_WITHIN);
    if let Some(pem) = args.ca_file.as_deref().map(read_if_there).transpose()?.flatten() {
        let file = args.ca_file.as_deref().unwrap_or(Path::new("")).display();
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).ok().filter(|certificates| !certificates.is_empty());
        let certificates = certificates.ok_or_else(|| format!("{file} has no certificate in PEM"))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let Some(service) = &args.service {
        let resolved = tokio::net::lookup_host(service.as_str()).await;
        let addresses: Vec<SocketAddr> = resolved.map_err(|error| format!("--service {service}: {error}"))?.collect();
        let url = args.issuer.parse::<reqwest::Url>().map_err(|error| format!("--issuer: {error}"))?;
        builder = builder.resolve_to_addrs(url.host_str().unwrap_or_default(), &addresses);
    }
    builder.build().map_err(|error| crate::error_chain(&error))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// What is tested.
struct Service<'a> {
    client: Client,
    args: &'a SelfTestArgs,
}

impl Service<'_> {
    /// Checks until it holds, or time is over.
    async fn until_it_holds<F: Future<Output = Result<String, String>>>(&self, check: impl Fn() -> F) -> Result<String, String> {
        let end = Instant::now() + self.args.timeout;
        loop {
            match check().await {
                Err(_) if Instant::now() < end => sleep(EVERY).await,
                outcome => return outcome,
            }
        }
    }

    async fn answers(&self) -> Result<String, String> {
        let url = format!("{}/.well-known/oauth-authorization-server", self.args.issuer);
        let (status, body) = read(self.client.get(url).send().await).await?;
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        match document.get("issuer").and_then(Value::as_str) {
            Some(issuer) if issuer == self.args.issuer => Ok(format!("it calls itself {issuer}")),
            Some(issuer) => Err(format!("it calls itself {}, not {}", Readable(issuer), self.args.issuer)),
            None => Err(format!("{status}, and no metadata")),
        }
    }

    /// The agent obtains what it may have.
    async fn issues(&self) -> Result<String, String> {
        let (status, answer) = self.exchange(&self.credential()?, self.args.capability.as_str()).await?;
        let granted = answer.get("scope").and_then(Value::as_str).unwrap_or_default();
        if answer.get("access_token").is_none() {
            return Err(format!("{status}: {}", Readable(description(&answer))));
        }
        if granted != self.args.capability.as_str() {
            return Err(format!("a token was issued, but its scope is {}", Readable(granted)));
        }
        Ok(format!("with the scope {granted}"))
    }

    /// And nothing else.
    async fn refuses_scope(&self) -> Result<String, String> {
        let (status, answer) = self.exchange(&self.credential()?, NEVER_GRANTED).await?;
        refusal(status, &answer, "invalid_scope")
    }

    /// The same request as that which was granted, but for the credential.
    async fn refuses_nobody(&self) -> Result<String, String> {
        let (status, answer) = self.exchange(NO_CREDENTIAL, self.args.capability.as_str()).await?;
        refusal(status, &answer, "invalid_request")
    }

    async fn measures(&self, url: &str) -> Result<String, String> {
        let (status, body) = read(self.client.get(url).send().await).await?;
        if status != StatusCode::OK {
            return Err(format!("{status}"));
        }
        match METRICS.into_iter().find(|wanted| !body.lines().any(|line| line == *wanted)) {
            Some(wanted) => Err(format!("there is no line {wanted:?}")),
            None => Ok(METRICS.join(", ")),
        }
    }

    fn credential(&self) -> Result<String, String> {
        let file = &self.args.token_file;
        let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(token.trim().to_owned())
    }

    /// Asks for a token of `scope` (RFC 8693).
    async fn exchange(&self, credential: &str, scope: &str) -> Result<(StatusCode, Value), String> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("subject_token", credential),
            ("scope", scope),
        ];
        let encoded = form.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        let request = self.client.post(format!("{}/oauth2/token", self.args.issuer));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(encoded.join("&"));
        let (status, body) = read(request.send().await).await?;
        serde_json::from_str(&body).map(|answer| (status, answer)).map_err(|_| format!("{status}, and no JSON"))
    }
}

/// An answer, whole.
async fn read(sent: reqwest::Result<Response>) -> Result<(StatusCode, String), String> {
    let failed = |error: reqwest::Error| crate::error_chain(&error);
    let mut answer = sent.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(failed)? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_MAX {
            return Err("the answer is too long".to_owned());
        }
    }
    Ok((answer.status(), String::from_utf8_lossy(&body).into_owned()))
}

/// Fails unless this is the refusal that it should be. What is refused for another reason would have been refused anyway.
fn refusal(status: StatusCode, answer: &Value, expected: &str) -> Result<String, String> {
    if answer.get("access_token").is_some() {
        return Err("a token was issued".to_owned());
    }
    match answer.get("error").and_then(Value::as_str) {
        Some(error) if error == expected => Ok(format!("{error}, {}", Readable(description(answer)))),
        _ => Err(format!("{status}, not {expected}: {}", Readable(description(answer)))),
    }
}

fn description(answer: &Value) -> &str {
    answer.get("error_description").and_then(Value::as_str).unwrap_or("no description")
}
