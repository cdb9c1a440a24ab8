//! The token service, as the sidecar asks it: with the agent's credential, which is read from its file for each request because the
//! kubelet replaces it, and over connections on which only the given certificate authority is trusted.

use super::answer::Answer;
use super::possession::Possession;
use super::whoami::issuer;
use crate::dpop;
use crate::json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Client;
use serde_json::Map;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `client_assertion_type` (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Where tokens come from.
const TOKEN: &str = "/oauth2/token";
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long one answer may take. The token service itself gives up after 10 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 1024 * 1024;
/// Longest credential, in bytes: the limit of the token service.
const CREDENTIAL_MAX: usize = 8 * 1024;
/// How long a connection that is not used stays open.
const IDLE: Duration = Duration::from_secs(60);
/// The pause before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest it grows.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Whose certificates the token service may have.
#[derive(Debug, Clone)]
pub enum Authority {
    /// Those in this file, PEM. It may be replaced.
    File(PathBuf),
    /// These, PEM.
    Pem(String),
}

/// The token service.
#[derive(Debug)]
pub struct Upstream {
    url: String,
    token_file: PathBuf,
    authority: Authority,
    /// The key that tokens are bound to, if they are.
    pub(super) possession: Possession,
    /// The client, and the authorities that it trusts.
    client: Mutex<Option<(String, Client)>>,
}

/// There is no answer that means anything.
#[derive(Debug, Clone)]
pub(super) struct Unanswered {
    /// Why, with nothing of the credential.
    pub(super) why: String,
    /// Whether the request has certainly not arrived, so that it can be sent again whatever it does.
    pub(super) is_unsent: bool,
}

impl Unanswered {
    fn unsent(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_unsent: true }
    }

    fn senseless(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_unsent: false }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) path: &'static str,
    pub(super) body: Body,
    /// Headers beside those that every request has.
    pub(super) headers: HeaderMap,
    /// How long the token service may keep us waiting, beside the usual.
    pub(super) hold: Duration,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A form, to which the credential is added as client assertion.
    Form(Vec<(String, String)>),
    /// JSON, with the credential in the Authorization header.
    Json(String),
}

impl Asked {
    pub(super) fn form(path: &'static str, parameters: &[(&str, &str)]) -> Self {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { path, body: Body::Form(parameters), headers: HeaderMap::new(), hold: Duration::ZERO }
    }

    pub(super) fn json(path: &'static str, body: String) -> Self {
        Self { path, body: Body::Json(body), headers: HeaderMap::new(), hold: Duration::ZERO }
    }
}

impl Upstream {
    /// The token service at `url`, an https URL without a slash at its end.
    #[must_use]
    pub fn new(url: String, token_file: PathBuf, authority: Authority) -> Self {
        Self { url, token_file, authority, possession: Possession::default(), client: Mutex::new(None) }
    }

    /// The agent's credential, as it is now.
    pub(super) async fn credential(&self) -> Result<String, Unanswered> {
        let path = self.token_file.display();
        let read = tokio::fs::read_to_string(&self.token_file).await;
        let text = read.map_err(|error| Unanswered::unsent(format!("{path} cannot be read: {error}")))?;
        let token = text.trim();
        if token.is_empty() || token.len() > CREDENTIAL_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Unanswered::unsent(format!("{path} holds no token")));
        }
        Ok(token.to_owned())
    }

    /// Asks once, and again with what a request for a token turned out to lack: a proof, and then the nonce in it.
    pub(super) async fn ask(&self, asked: &Asked) -> Result<Answer, Unanswered> {
        for _ in 0..2 {
            let shows = asked.path == TOKEN && self.possession.is_wanted();
            let answer = self.send(asked, shows).await?;
            if asked.path != TOKEN || !self.possession.learn(&answer, shows) {
                return Ok(answer);
            }
        }
        self.send(asked, true).await
    }

    /// Sends a request, with a proof if it `shows` one.
    async fn send(&self, asked: &Asked, shows: bool) -> Result<Answer, Unanswered> {
        let (client, credential) = (self.client().await?, self.credential().await?);
        let mut request = client.post(format!("{}{}", self.url, asked.path)).headers(asked.headers.clone());
        if shows {
            // The token service goes by its own name, whatever the address under which it is reached.
            let issuer = issuer(&credential).unwrap_or_else(|| self.url.clone());
            let proof = self.possession.of_request(&format!("{issuer}{}", asked.path));
            request =
                request.header(dpop::HEADER, proof.ok_or_else(|| Unanswered::unsent("there are no random bytes for a proof"))?);
        }
        request = match &asked.body {
            Body::Form(parameters) => {
                let assertion = [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &credential)];
                let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(assertion);
                request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(encoded(parameters))
            }
            Body::Json(body) => {
                let unusable = |_| Unanswered::unsent("the credential cannot be sent");
                let mut bearer = HeaderValue::from_str(&format!("Bearer {credential}")).map_err(unusable)?;
                bearer.set_sensitive(true);
                request.header(header::AUTHORIZATION, bearer).header(header::CONTENT_TYPE, "application/json").body(body.clone())
            }
        };
        let exchange = async {
            let mut response = request.send().await.map_err(|error| failed(&error))?;
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(|error| failed(&error))? {
                body.extend_from_slice(&piece);
                if body.len() > ANSWER_MAX {
                    return Err(Unanswered::senseless(format!("the answer is longer than {ANSWER_MAX} bytes")));
                }
            }
            read(response.status(), response.headers(), &body)
        };
        let slow = |_| Unanswered::senseless("the answer takes too long");
        tokio::time::timeout(ANSWER_WITHIN + asked.hold, exchange).await.map_err(slow)?
    }

    /// Asks again, with growing pauses, until there is an answer that is not about to change, or `patience` is over. For requests that may
    /// arrive twice.
    pub(super) async fn insist(&self, asked: &Asked, patience: Duration) -> Result<Answer, Unanswered> {
        let (until, mut pause) = (Instant::now() + patience, PAUSE);
        loop {
            let answer = self.ask(asked).await;
            if answer.as_ref().is_ok_and(|answer| !answer.is_passing()) || Instant::now() + pause > until {
                return answer;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The same for a request that must not arrive twice: sent again only if it has certainly not arrived.
    pub(super) async fn insist_once(&self, asked: &Asked, patience: Duration) -> Result<Answer, Unanswered> {
        let (until, mut pause) = (Instant::now() + patience, PAUSE);
        loop {
            let answer = self.ask(asked).await;
            if !answer.as_ref().is_err_and(|failed| failed.is_unsent) || Instant::now() + pause > until {
                return answer;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The client that trusts what is to be trusted now.
    async fn client(&self) -> Result<Client, Unanswered> {
        let pem = match &self.authority {
            Authority::Pem(pem) => pem.clone(),
            Authority::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                read.map_err(|error| Unanswered::unsent(format!("{} cannot be read: {error}", path.display())))?
            }
        };
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((trusted, client)) = current.as_ref()
            && *trusted == pem
        {
            return Ok(client.clone());
        }
        let client = client(&pem).map_err(Unanswered::unsent)?;
        *current = Some((pem, client.clone()));
        Ok(client)
    }
}

/// A client that trusts these authorities and no other, and goes where it is told and nowhere else.
fn client(pem: &str) -> Result<Client, String> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
    let certificates = certificates.map_err(|_| "the certificate authority is no certificate in PEM".to_owned())?;
    if certificates.is_empty() {
        return Err("the certificate authority has no certificate in PEM".to_owned());
    }
    let builder = Client::builder()
        .tls_certs_only(certificates)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_WITHIN)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(8)
        .user_agent(concat!("countersign-sidecar/", env!("CARGO_PKG_VERSION")));
    builder.build().map_err(|error| format!("no client: {}", crate::error_chain(&error)))
}

fn encoded<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = parameters.map(|(name, value)| {
        format!("{}={}", utf8_percent_encode(name, NON_ALPHANUMERIC), utf8_percent_encode(value, NON_ALPHANUMERIC))
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn failed(error: &reqwest::Error) -> Unanswered {
    Unanswered { why: crate::error_chain(error), is_unsent: error.is_connect() }
}

fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Unanswered> {
    let header = |name: &str| headers.get(name).cloned();
    // RFC 7009 section 2.2: a revocation is answered with a status alone.
    let members = if body.is_empty() { Ok(Map::new()) } else { json::parse_object(body) };
    let members = members.map_err(|_| {
        Unanswered::senseless(format!(
            "the answer, of status {}, is no JSON object that can be read in one way only",
            status.as_u16()
        ))
    })?;
    // Redirects are not followed, and what says nothing is no refusal.
    if !status.is_success() && !members.contains_key("error") {
        return Err(Unanswered::senseless(format!("the answer, of status {}, says nothing", status.as_u16())));
    }
    let nonce = header(dpop::NONCE_HEADER).and_then(|nonce| nonce.to_str().map(str::to_owned).ok());
    Ok(Answer { status, members, request_id: header("x-request-id"), retry_after: header("retry-after"), nonce })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, Unanswered> {
        read(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn an_answer_that_means_nothing_is_no_refusal() {
        assert!(answer(200, "{\"a\":1}").is_ok() && answer(200, "").is_ok());
        assert!(
            answer(400, "{\"error\":\"invalid_scope\"}").is_ok_and(|a| a.error() == Some("invalid_scope") && !a.is_passing())
        );
        assert!(answer(503, "{\"error\":\"temporarily_unavailable\"}").is_ok_and(|a| a.is_passing()));
        for (status, body) in [
            (200, "<html>"),
            (200, "[]"),
            (200, "{\"a\":1,\"a\":2}"),
            (200, "{"),
            (401, ""),
            (302, ""),
            (404, "{}"),
            (502, "bad gateway"),
        ] {
            assert!(answer(status, body).is_err_and(|failed| !failed.is_unsent), "{status} {body}");
        }
    }

    #[test]
    fn nothing_is_trusted_but_what_is_given() {
        assert!(client("").is_err() && client("no certificate").is_err());
    }

    #[test]
    fn a_form_carries_every_character() {
        assert_eq!(encoded([("a", "x y+&=%é"), ("b", "")].into_iter()), "a=x%20y%2B%26%3D%25%C3%A9&b=");
    }
}
