//! Connections to servers outside the cluster that an administrator has named: issuers of tokens, receivers of notifications.
//!
//! Only HTTPS; redirects are not followed, no proxy is used, and a name that resolves to an address that is not public is not connected to
//! unless the administrator allows its network. The addresses that were checked are those that are connected to, so that no second look-up
//! can say something else.

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// A client that connects to public addresses and those in `networks`, each time anew. With `authority`, a PEM bundle and the name of the
/// field in which it is, no other certificate authority is trusted.
///
/// # Errors
/// If the bundle has no certificate.
pub fn client(
    authority: Option<(&str, &'static str)>,
    networks: Arc<[IpNet]>,
    allowed_in: &'static str,
    connect_within: Duration,
) -> Result<Client, String> {
    let mut builder = Client::builder()
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(connect_within)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Guarded { networks, allowed_in }));
    if let Some((pem, field)) = authority {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        let certificates = certificates.map_err(|_| format!("{field} is no certificate in PEM"))?;
        if certificates.is_empty() {
            return Err(format!("{field} has no certificate"));
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| format!("no client: {}", crate::error_chain(&error)))
}

/// Checks a URL that names an address instead of a host: that goes through no resolver.
///
/// # Errors
/// If it is not public, nor in one of the `networks`; the text names the field `allowed_in`, where they are listed.
pub fn check(url: &Url, networks: &[IpNet], allowed_in: &str) -> Result<(), String> {
    match literal(url) {
        Some(address) if !may_connect(address, networks) => Err(refusal(url.as_str(), allowed_in)),
        _ => Ok(()),
    }
}

/// The address in a URL that names one instead of a host.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

fn refusal(what: &str, allowed_in: &str) -> String {
    format!("{what} is at an address that is not public: if it is right, allow its network in {allowed_in}")
}

/// Resolves names, and gives out only addresses that may be connected to.
struct Guarded {
    networks: Arc<[IpNet]>,
    allowed_in: &'static str,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (networks, allowed_in) = (Arc::clone(&self.networks), self.allowed_in);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> = found.into_iter().filter(|address| may_connect(address.ip(), &networks)).collect();
            if allowed.is_empty() {
                return Err(refusal(name.as_str(), allowed_in).into());
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
