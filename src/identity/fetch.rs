//! Fetching the keys of an issuer from where an administrator said they are, and from nowhere else.
//!
//! Nothing that a token or an answer names is ever connected to: an address comes from a TrustedIssuer, a `jwks_uri` must be on the host that
//! named it, redirects are not followed, and a name that resolves to an address that is not public is not connected to unless the
//! administrator allows its network. The addresses that were checked are those that are connected to, so that no second look-up can
//! say something else.

use super::jwks::{JWKS_MAX, KeySet};
use crate::issuer::{KeySource, Reach};
use crate::json;
use crate::outbound;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use reqwest::{Client, Url, header};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long fetching an issuer's keys may take, discovery included.
pub const FETCH_WITHIN: Duration = Duration::from_secs(2);
/// Where the administrator says which networks that are not public may be connected to.
const ALLOWED_IN: &str = "spec.issuer.allowedNetworks";
/// What a server may send. kube-apiserver gives its keys only to those who name their type (RFC 7517 section 8.5.2), with 406 to others.
const ACCEPT: &str = "application/json, application/jwk-set+json";

/// Fetches the keys of one issuer.
#[derive(Debug)]
pub struct Fetcher {
    source: KeySource,
    issuer: String,
    algorithms: Vec<Algorithm>,
    client: Result<Client, String>,
    networks: Arc<[IpNet]>,
}

impl Fetcher {
    /// For the issuer with this URL.
    #[must_use]
    pub fn new(issuer: &str, source: &KeySource, algorithms: &[Algorithm]) -> Self {
        let reach = match source {
            KeySource::Discovery(_, reach) | KeySource::Jwks(_, reach) => reach.clone(),
            KeySource::Inline(_) => Reach { certificate_authority: None, allowed_networks: Vec::new() },
        };
        let networks: Arc<[IpNet]> = reach.allowed_networks.clone().into();
        let client = match source {
            KeySource::Inline(_) => Err("the keys are in the object".to_owned()),
            KeySource::Discovery(..) | KeySource::Jwks(..) => client(&reach, Arc::clone(&networks)),
        };
        let (source, issuer, algorithms) = (source.clone(), issuer.to_owned(), algorithms.to_vec());
        Self { source, issuer, algorithms, client, networks }
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// Why not, in a sentence for the administrator that repeats nothing of what the server said.
    pub async fn fetch(&self) -> Result<KeySet, String> {
        match tokio::time::timeout(FETCH_WITHIN, self.keys()).await {
            Ok(keys) => keys,
            Err(_) => Err(format!("no complete answer within {} s", FETCH_WITHIN.as_secs())),
        }
    }

    async fn keys(&self) -> Result<KeySet, String> {
        let read = |bytes: &[u8]| KeySet::parse(bytes, &self.algorithms);
        match &self.source {
            KeySource::Inline(jwks) => read(jwks.as_bytes()).map_err(|e| format!("spec.issuer.jwks is not used: {e}")),
            KeySource::Jwks(url, _) => read(&self.get(url).await?).map_err(|e| format!("the JWK Set at {url} is not used: {e}")),
            KeySource::Discovery(url, _) => {
                let jwks = self.discovered(url, &self.get(url).await?)?;
                read(&self.get(&jwks).await?).map_err(|e| format!("the JWK Set at {jwks} is not used: {e}"))
            }
        }
    }

    /// The address of the keys according to a discovery document (OpenID Connect Discovery section 4.2).
    fn discovered(&self, url: &Url, document: &[u8]) -> Result<Url, String> {
        let document = json::parse_object(document)
            .map_err(|_| format!("the discovery document at {url} is no JSON object without duplicate members"))?;
        if document.get("issuer").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(format!(
                "the discovery document at {url} does not name {} as its issuer, character by character",
                self.issuer
            ));
        }
        let jwks = document.get("jwks_uri").and_then(Value::as_str).and_then(|text| Url::parse(text).ok());
        let jwks = jwks.ok_or_else(|| format!("the discovery document at {url} has no jwks_uri that is a URL"))?;
        if jwks.origin() != url.origin() || !jwks.username().is_empty() || jwks.password().is_some() {
            return Err(format!(
                "the jwks_uri in the discovery document at {url} is on another host, which is not connected to: if it is right, write it \
                 into spec.issuer.jwksURL"
            ));
        }
        Ok(jwks)
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        // A name goes through the resolver below; an address written as such does not.
        outbound::check(url, &self.networks, ALLOWED_IN)?;
        let failed = |error: reqwest::Error| format!("{url} cannot be fetched: {}", crate::error_chain(&error.without_url()));
        let mut response = client.get(url.clone()).header(header::ACCEPT, ACCEPT).send().await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!(
                "{url} answers with status {}; only 200 counts, and redirects are not followed",
                response.status().as_u16()
            ));
        }
        if response.headers().get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity") {
            return Err(format!("{url} answers with a compressed body, which was not asked for"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > JWKS_MAX {
                return Err(format!("the answer of {url} is longer than {JWKS_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn client(reach: &Reach, networks: Arc<[IpNet]>) -> Result<Client, String> {
    let authority = reach.certificate_authority.as_deref().map(|pem| (pem, "spec.issuer.certificateAuthority"));
    outbound::client(authority, networks, ALLOWED_IN, FETCH_WITHIN)
}
