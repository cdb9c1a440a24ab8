//! Fetching the keys of an issuer from where an administrator said they are, and from nowhere else.
//!
//! Nothing that a token or an answer names is ever connected to: an address comes from a TrustedIssuer, a `jwks_uri` must be on the host that
//! named it, redirects are not followed, and a name that resolves to an address that is not public is not connected to unless the
//! administrator allows its network. The addresses that were checked are those that are connected to, so that no second look-up can
//! say something else.

use super::jwks::{JWKS_MAX, KeySet};
use crate::issuer::{KeySource, Reach};
use crate::json;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, header};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How long fetching an issuer's keys may take, discovery included.
pub const FETCH_WITHIN: Duration = Duration::from_secs(2);
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
        if let Some(address) = literal(url)
            && !may_connect(address, &self.networks)
        {
            return Err(refusal(url.as_str()));
        }
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
    let mut builder = Client::builder()
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(FETCH_WITHIN)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Guarded { networks }));
    if let Some(pem) = &reach.certificate_authority {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        let certificates = certificates.map_err(|_| "spec.issuer.certificateAuthority is no certificate in PEM".to_owned())?;
        if certificates.is_empty() {
            return Err("spec.issuer.certificateAuthority has no certificate".to_owned());
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| format!("no client for the issuer: {}", crate::error_chain(&error)))
}

/// The address in a URL that names one instead of a host.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

fn refusal(what: &str) -> String {
    format!("{what} is at an address that is not public: if it is right, allow its network in spec.issuer.allowedNetworks")
}

/// Resolves names, and gives out only addresses that may be connected to.
struct Guarded {
    networks: Arc<[IpNet]>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = Arc::clone(&self.networks);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> = found.into_iter().filter(|address| may_connect(address.ip(), &networks)).collect();
            if allowed.is_empty() {
                return Err(refusal(name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is public, or in a network that the administrator allows.
fn may_connect(address: IpAddr, allowed: &[IpNet]) -> bool {
    // An IPv4 address in IPv6 clothes is that IPv4 address.
    let address = address.to_canonical();
    if allowed.iter().any(|network| network.contains(&address)) {
        return true;
    }
    match address {
        IpAddr::V4(_) => !NOT_PUBLIC.iter().any(|network| network.contains(&address)),
        IpAddr::V6(_) => PUBLIC_V6.contains(&address) && !NOT_PUBLIC.iter().any(|network| network.contains(&address)),
    }
}

/// Of IPv6 only this block is assigned to the public (IANA IPv6 Global Unicast Address Assignments). So link-local, unique local,
/// multicast, NAT64 (64:ff9b::/96) and every mapped form are outside.
static PUBLIC_V6: LazyLock<IpNet> = LazyLock::new(|| network("2000::/3"));

/// What is not public within what is left (IANA IPv4 and IPv6 Special-Purpose Address Registries).
static NOT_PUBLIC: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    ]
    .map(network)
    .into()
});

#[expect(clippy::expect_used, reason = "only for the networks above, which a test reads")]
fn network(text: &str) -> IpNet {
    text.parse().expect("a network")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<IpNet> = allowed.iter().map(|text| network(text)).collect();
        may_connect(address.parse().expect("an address"), &allowed)
    }

    #[test]
    fn f11_only_public_addresses_are_connected_to() {
        for public in ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8"] {
            assert!(open(public, &[]), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!open(private, &[]), "{private}");
        }
        assert!(open("10.20.1.1", &["10.20.0.0/16"]) && open("::ffff:10.20.1.1", &["10.20.0.0/16"]));
        assert!(!open("10.21.1.1", &["10.20.0.0/16"]) && open("::1", &["::1/128"]));
    }

    #[test]
    fn f11_an_address_is_an_address_however_it_is_written() {
        for text in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://[::ffff:127.0.0.1]/",
            "https://0/",
        ] {
            let address = literal(&Url::parse(text).expect("a URL")).expect(text);
            assert!(!may_connect(address, &[]), "{text}");
        }
    }
}
