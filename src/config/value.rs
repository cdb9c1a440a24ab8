//! What flags are given, parsed: what is accepted works.

use crate::grammar::{is_dns_label, is_dns_subdomain};
use std::net::SocketAddr;

/// Parses an issuer URL: ours, or that of the service to which an assertion goes.
pub(crate) fn issuer(text: &str) -> Result<String, String> {
    let rule = "must be an https URL without user, query, fragment and without a slash at the end, for example https://countersign.agents.svc";
    let uri: axum::http::Uri = text.parse().map_err(|e| format!("{rule} ({e})"))?;
    let plain = uri.scheme_str() == Some("https")
        && uri.host().is_some_and(|host| !host.is_empty() && host == host.to_ascii_lowercase())
        && text.starts_with("https://")
        && !text.ends_with('/')
        && !text.contains(['?', '#', '@', '\\', ' ']);
    if plain { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

/// Parses the issuer URL of somebody else, which may end with a slash: it is compared as it is.
pub(super) fn issuer_of_others(text: &str) -> Result<String, String> {
    issuer(text.strip_suffix('/').unwrap_or(text)).map(|_| text.to_owned())
}

/// Parses the name of a namespace.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    if is_dns_label(text) { Ok(text.to_owned()) } else { Err("must be the name of a namespace (RFC 1123 label)".to_owned()) }
}

/// Parses the name of an object.
pub(crate) fn object_name(text: &str) -> Result<String, String> {
    if is_dns_subdomain(text) {
        Ok(text.to_owned())
    } else {
        Err("must be the name of an object (RFC 1123 subdomain)".to_owned())
    }
}

/// Parses an address on which tokens may be served in the clear.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "must be <ip>:<port>".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("must be a loopback address: tokens never travel in the clear".to_owned())
    }
}

pub(super) fn seconds(text: &str) -> Result<u64, String> {
    match duration(text) {
        Some(seconds @ 60..=86_400) => Ok(seconds),
        _ => Err("must be a duration from 60s to 24h, such as 3600s, 60m or 1h".to_owned()),
    }
}

pub(super) fn key_time(text: &str) -> Result<u64, String> {
    match duration(text) {
        Some(seconds @ 1..=31_536_000) => Ok(seconds),
        _ => Err("must be a duration from 1s to 8760h, such as 90s, 60m or 720h".to_owned()),
    }
}

pub(super) fn retention(text: &str) -> Result<u64, String> {
    match duration(text) {
        Some(seconds @ 1..=315_360_000) => Ok(seconds),
        _ => Err("must be a duration from 1s to 3650d, such as 720h or 90d".to_owned()),
    }
}

/// A duration within these bounds, in seconds.
pub(crate) fn bounded(text: &str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
    duration(text).filter(|seconds| bounds.contains(seconds))
}

/// A whole number of seconds, minutes, hours or days, in seconds.
fn duration(text: &str) -> Option<u64> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    units.iter().find_map(|(unit, factor)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_an_issuer_is_one_exact_https_url() {
        for good in
            ["https://countersign.agents.svc", "https://127.0.0.1:8443", "https://id.example/tenant", "https://[::1]:8443"]
        {
            assert!(issuer(good).is_ok(), "{good} was refused");
        }
        for bad in
            ["", "http://a", "HTTPS://a", "https://a/", "https://A", "https://u@a", "https://a?b", "https://a#b", "a", "https://"]
        {
            assert!(issuer(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert!(loopback("127.0.0.1:80").is_ok() && loopback("[::1]:80").is_ok());
        assert!(loopback("0.0.0.0:80").is_err() && loopback("10.0.0.1:80").is_err());
    }

    #[test]
    fn a_duration_has_a_unit_and_bounds() {
        assert_eq!(seconds("1h"), Ok(3600));
        for bad in ["3600", "-1s", "0s", "25h", "9999999999999999999h", "2d", "1w", ""] {
            assert!(seconds(bad).is_err(), "{bad} was accepted");
        }
        assert_eq!((key_time("720h"), key_time("2s")), (Ok(2_592_000), Ok(2)));
        assert_eq!((retention("90d"), retention("1s")), (Ok(7_776_000), Ok(1)));
        for bad in ["0s", "0d", "3651d", "90"] {
            assert!(retention(bad).is_err(), "{bad} was accepted");
        }
        for bad in ["0s", "8761h", "366d", "720"] {
            assert!(key_time(bad).is_err(), "{bad} was accepted");
        }
    }
}
