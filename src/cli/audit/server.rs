//! The ledger of a running operator, over `/audit/v1`.

use super::AuditError;
use super::source::Start;
use crate::audit::ledger::LogId;
use crate::audit::plain::Plain;
use crate::audit::scan::Page;
use crate::audit::{Entry, Filter};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Longest answer, in bytes: a page of the longest records.
const ANSWER_MAX: usize = 64 << 20;
/// How often an answer is asked for again that the operator cannot give now, and after what pause.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// A running operator.
pub(crate) struct Server {
    url: String,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Records {
    records: Vec<Box<RawValue>>,
    next: String,
    more: bool,
}

#[derive(Deserialize)]
struct Refused {
    error_description: String,
}

impl Server {
    /// The operator at `url`. A token, and the authorities of its certificate, are in files.
    pub(super) fn open(url: String, ca: Option<&Path>, token_file: &Path) -> Result<Self, AuditError> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| AuditError::Read(path.to_owned(), error));
        let token = read(token_file)?;
        let ca = ca.map(read).transpose()?;
        Self::new(url, ca.as_deref(), &token, None)
    }

    /// The operator at `url`, or rather `at` that address, if there is one. `ca` are the authorities of its certificate in PEM, by
    /// default the system's.
    pub(crate) fn new(url: String, ca: Option<&[u8]>, token: &[u8], at: Option<SocketAddr>) -> Result<Self, AuditError> {
        let unusable = |what: &str| AuditError::Server(what.to_owned());
        let mut header = HeaderValue::from_bytes(&[b"Bearer ", token.trim_ascii()].concat())
            .map_err(|_| unusable("what was given as a token is none"))?;
        header.set_sensitive(true);
        let mut client = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, header)]))
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true)
            .timeout(ANSWER_WITHIN);
        if let Some(pem) = ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem);
            client = client
                .tls_certs_only(certificates.map_err(|_| unusable("what was given as an authority is no certificate in PEM"))?);
        }
        if let Some(at) = at {
            let host = url.parse::<reqwest::Url>().ok().and_then(|url| url.host_str().map(str::to_owned));
            client = client.no_proxy().resolve(&host.unwrap_or_default(), at);
        }
        let client = client.build().map_err(|error| AuditError::Server(crate::error_chain(&error)))?;
        Ok(Self { url, client })
    }

    /// GETs what is below `/audit/v1`.
    async fn get(&self, what: &str, parameters: &[(&str, String)]) -> Result<String, AuditError> {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let url = format!("{}/audit/v1/{what}?{}", self.url, query.join("&"));
        let failed =
            |error: reqwest::Error| AuditError::Server(format!("{}: {}", self.url, crate::error_chain(&error.without_url())));
        let mut attempt = 1;
        loop {
            let mut answer = self.client.get(&url).send().await.map_err(failed)?;
            let status = answer.status();
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(failed)? {
                body.extend_from_slice(&piece);
                if body.len() > ANSWER_MAX {
                    return Err(AuditError::Server(format!("{}: the answer is too long", self.url)));
                }
            }
            let text = String::from_utf8_lossy(&body).into_owned();
            if status.is_success() {
                return Ok(text);
            }
            if status != reqwest::StatusCode::SERVICE_UNAVAILABLE || attempt == ATTEMPTS {
                let why = serde_json::from_str::<Refused>(&text).map(|refused| refused.error_description).unwrap_or_default();
                let said = format!("{}: {status}: {}", self.url, Plain(&why));
                return Err(if status == reqwest::StatusCode::FORBIDDEN {
                    AuditError::Forbidden(said)
                } else {
                    AuditError::Server(said)
                });
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A page of records to which `filter` applies.
    pub(super) async fn page(&self, filter: &Filter, start: &Start, records: usize) -> Result<Page, AuditError> {
        let start = match start {
            Start::After(cursor) => ("after", cursor.to_string()),
            Start::Last(count) => ("last", count.to_string()),
        };
        let text = self.get("records", &[filter.parameters(), vec![start, ("limit", records.to_string())]].concat()).await?;
        let unreadable = || AuditError::Server(format!("{}: the answer is none of Countersign", self.url));
        let Records { records, next, more } = serde_json::from_str(&text).map_err(|_| unreadable())?;
        let entry = |record: Box<RawValue>| {
            let line = record.get().as_bytes();
            let read = Entry::read("", 0, line);
            Entry::read(read.text("log"), read.number("seq").unwrap_or_default(), line)
        };
        Ok(Page {
            entries: records.into_iter().map(entry).collect(),
            next: next.parse().map_err(|_| unreadable())?,
            is_more: more,
        })
    }

    pub(super) async fn prove(&self, log: &LogId, seq: u64) -> Result<String, AuditError> {
        self.get("proof", &[("log", log.to_string()), ("seq", seq.to_string())]).await
    }
}
