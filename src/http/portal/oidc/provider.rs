//! The OpenID Provider: where it is, what it can, and the exchange of a code for an ID token.
//!
//! The provider's own host is the administrator's word, and may be anywhere. What its discovery document names elsewhere must be public.

use crate::config::PortalArgs;
use crate::json;
use crate::outbound;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, RequestBuilder, Url, header};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the provider may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Longest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;
/// For how long a discovery document counts.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// For how long nobody asks again for one that could not be had.
const FAILED_FOR: Duration = Duration::from_secs(2);
/// In place of a list of networks, for the messages about one.
const ALLOWED_IN: &str = "nothing: only the issuer's own host may be inside";

/// A provider, and who we are to it.
#[derive(Debug)]
pub(in super::super) struct Provider {
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) scopes: String,
    pub(super) redirect_uri: String,
    secret_file: Option<PathBuf>,
    home: Client,
    elsewhere: Client,
    host: Option<String>,
    known: Mutex<Option<(Instant, Known)>>,
}

/// What was learnt last.
type Known = Result<Arc<Metadata>, String>;

/// What the discovery document says (OpenID Connect Discovery 1.0 section 3).
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) authorization_endpoint: Url,
    token_endpoint: Url,
    /// RFC 9207 section 3.
    pub(super) says_issuer: bool,
    /// Whether the secret is wanted in the body, because the provider does not take it in the header.
    secret_in_body: bool,
}

impl Provider {
    /// As the flags say, if they name one.
    ///
    /// # Errors
    /// What cannot be used of them.
    pub(in super::super) fn new(args: &PortalArgs, portal: &str) -> Result<Option<Self>, String> {
        let (Some(issuer), Some(client_id)) = (&args.portal_oidc_issuer, &args.portal_oidc_client_id) else { return Ok(None) };
        let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
        let authority = args.portal_oidc_ca_file.as_ref().map(read).transpose()?;
        let authority = authority.as_deref().map(|pem| (pem, "--portal-oidc-ca-file"));
        let everywhere: Vec<IpNet> = ["0.0.0.0/0", "::/0"].iter().filter_map(|network| network.parse().ok()).collect();
        let host = Url::parse(issuer).map_err(|e| format!("--portal-oidc-issuer: {e}"))?.host_str().map(str::to_owned);
        Ok(Some(Self {
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            scopes: args.portal_oidc_scopes.clone(),
            redirect_uri: format!("{portal}/callback"),
            secret_file: args.portal_oidc_client_secret_file.clone(),
            home: outbound::client(authority, everywhere.into(), ALLOWED_IN, ANSWER_WITHIN)?,
            elsewhere: outbound::client(authority, Arc::new([]), ALLOWED_IN, ANSWER_WITHIN)?,
            host,
            known: Mutex::default(),
        }))
    }

    /// Its host, for people.
    pub(in super::super) fn name(&self) -> &str {
        self.host.as_deref().unwrap_or(&self.issuer)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// Why that cannot be had.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some((since, Ok(metadata))) if since.elapsed() < KNOWN_FOR => return Ok(metadata),
            Some((since, Err(why))) if since.elapsed() < FAILED_FOR => return Err(why),
            _ => {}
        }
        let learnt = self.discover().await;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), learnt.clone()));
        learnt
    }

    async fn discover(&self) -> Known {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|e| e.to_string())?;
        let request = self.client_for(&url)?.get(url.clone());
        let (status, body) = answer(request).await.map_err(|why| format!("{url}: {why}"))?;
        if status != 200 {
            return Err(format!("{url} answers with status {status}; only 200 counts, and redirects are not followed"));
        }
        self.read(&body).map(Arc::new).map_err(|why| format!("{url}: {why}"))
    }

    fn read(&self, document: &[u8]) -> Result<Metadata, String> {
        let document = json::parse_object(document).map_err(|_| "no JSON object without duplicate members".to_owned())?;
        if document.get("issuer").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(format!("it does not name {} as its issuer, character by character", self.issuer));
        }
        let endpoint = |name: &str| {
            let url = document.get(name).and_then(Value::as_str).and_then(|text| Url::parse(text).ok());
            let url = url.filter(|url| url.scheme() == "https" && url.username().is_empty() && url.password().is_none());
            url.filter(|url| url.fragment().is_none()).ok_or_else(|| format!("it has no {name} that is an https URL"))
        };
        let methods = document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        // Absent is client_secret_basic (section 3).
        let takes = |method: &str| methods.map_or(method == "client_secret_basic", |all| all.iter().any(|m| m == method));
        Ok(Metadata {
            authorization_endpoint: endpoint("authorization_endpoint")?,
            token_endpoint: endpoint("token_endpoint")?,
            says_issuer: document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
            secret_in_body: !takes("client_secret_basic") && takes("client_secret_post"),
        })
    }

    /// Exchanges a code for an ID token (OpenID Connect Core 1.0 section 3.1.3).
    ///
    /// # Errors
    /// Why there is none. Nothing that the provider said but its error code is in it.
    pub(super) async fn id_token(&self, metadata: &Metadata, code: &str, verifier: &str) -> Result<String, String> {
        let url = &metadata.token_endpoint;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", verifier),
        ];
        let secret = match &self.secret_file {
            Some(file) => {
                let secret = tokio::fs::read_to_string(file).await.map_err(|e| format!("{}: {e}", file.display()))?;
                Some(secret.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => None,
        };
        let mut request = self.client_for(url)?.post(url.clone());
        match &secret {
            Some(secret) if !metadata.secret_in_body => {
                request = request.header(header::AUTHORIZATION, basic(&self.client_id, secret)?)
            }
            Some(secret) => form.extend([("client_id", self.client_id.as_str()), ("client_secret", secret.as_str())]),
            None => form.push(("client_id", self.client_id.as_str())),
        }
        let request = request
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&"));
        let (status, body) = answer(request).await.map_err(|why| format!("{url}: {why}"))?;
        let reply = json::parse_object(&body).map_err(|_| format!("{url} answers with status {status} and no JSON object"))?;
        match (status, reply.get("id_token").and_then(Value::as_str)) {
            (200, Some(token)) => Ok(token.to_owned()),
            (200, None) => Err(format!("{url} gave no ID token: is openid among the scopes?")),
            _ => {
                let error = reply.get("error").and_then(Value::as_str).unwrap_or("no error code");
                let is_code = error.len() <= 64 && error.bytes().all(|b| matches!(b, b' '..=b'~'));
                Err(format!("{url} answers with status {status}: {}", if is_code { error } else { "no error code" }))
            }
        }
    }

    /// With which client to connect to `url`.
    fn client_for(&self, url: &Url) -> Result<&Client, String> {
        if url.host_str() == self.host.as_deref() {
            return Ok(&self.home);
        }
        outbound::check(url, &[], ALLOWED_IN)?;
        Ok(&self.elsewhere)
    }
}

/// RFC 6749 section 2.3.1: both parts are form-encoded first.
fn basic(client_id: &str, secret: &str) -> Result<header::HeaderValue, String> {
    let credentials = STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret)));
    let mut value = header::HeaderValue::from_str(&format!("Basic {credentials}")).map_err(|e| e.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Sends a request and reads the answer, both within bounds.
async fn answer(request: RequestBuilder) -> Result<(u16, Vec<u8>), String> {
    let failed = |error: reqwest::Error| crate::error_chain(&error.without_url());
    let read = async {
        let mut response = request.send().await.map_err(failed)?;
        if response.headers().get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity") {
            return Err("the body is compressed, which was not asked for".to_owned());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(format!("the answer is longer than {ANSWER_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status().as_u16(), body))
    };
    tokio::time::timeout(ANSWER_WITHIN, read).await.unwrap_or_else(|_| Err("no complete answer in time".to_owned()))
}
