//! Who may ask at all: only a program in the pod that means it.
//!
//! Everything that runs in a pod can reach its loopback address, and so can a web page in a browser there, a server that can be made to
//! fetch an address, and a proxy. None of them can set a header of its own choosing on a request to another origin without being asked
//! whether it may (the Fetch standard, CORS protocol), and that question is never answered with yes.

use super::answer::refuse;
use crate::http::error::Refusal;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

/// The header that every request must have, with the value `true`.
pub const HEADER: HeaderName = HeaderName::from_static("countersign-sidecar");

/// What no program sets that asks for itself: a browser says on which page it does, a proxy for whom.
const NOT_ITSELF: [HeaderName; 4] = [header::ORIGIN, header::FORWARDED, header::VIA, HeaderName::from_static("x-forwarded-for")];

/// Lets a request through, or says why not.
pub(super) async fn check(request: Request<Body>, next: Next) -> Response {
    if let Err(description) = judge(request.uri(), request.headers()) {
        let refusal = Refusal::new("access_denied", "gate", description).status(StatusCode::FORBIDDEN).closing();
        return refuse(refusal);
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn judge(uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    // A name that resolves to the loopback address is not its owner's leave to ask (DNS rebinding).
    let only = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    };
    if uri.authority().is_some() || !only(&header::HOST).is_some_and(is_loopback) {
        return Err("the Host of a request must be 127.0.0.1, [::1] or localhost");
    }
    if only(&HEADER) != Some("true") {
        return Err("every request needs the header 'Countersign-Sidecar: true', once");
    }
    if NOT_ITSELF.iter().any(|name| headers.contains_key(name)) {
        return Err("requests of web pages and through proxies are not answered");
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, headers: &[(&str, &str)]) -> bool {
        let map = headers.iter().map(|(n, v)| (n.parse::<HeaderName>().expect("a name"), v.parse().expect("a value"))).collect();
        judge(&uri.parse().expect("a URI"), &map).is_ok()
    }

    #[test]
    fn only_a_program_that_means_it_is_answered() {
        const MEANT: (&str, &str) = ("countersign-sidecar", "true");
        for host in ["127.0.0.1:7710", "localhost", "LOCALHOST:1", "[::1]:7710", "127.0.0.1"] {
            assert!(of("/token", &[("host", host), MEANT]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7710",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "127.0.0.1:x",
            "",
            "::1",
            "10.0.0.1",
            "0.0.0.0",
            "a@127.0.0.1",
        ] {
            assert!(!of("/token", &[("host", host), MEANT]), "{host}");
        }
        assert!(!of("/token", &[MEANT]), "HTTP/1.0 without a Host");
        assert!(!of("http://evil.example/token", &[("host", "127.0.0.1"), MEANT]), "as one asks a proxy");
        let local = ("host", "127.0.0.1:7710");
        assert!(!of("/token", &[local]));
        for value in ["false", "True", "1", ""] {
            assert!(!of("/token", &[local, ("countersign-sidecar", value)]), "{value:?}");
        }
        assert!(!of("/token", &[local, MEANT, MEANT]) && !of("/token", &[local, local, MEANT]), "twice");
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("x-forwarded-for", "1.2.3.4"),
            ("via", "1.1 p"),
            ("forwarded", "for=a"),
        ] {
            assert!(!of("/token", &[local, MEANT, (name, value)]), "{name}");
        }
    }
}
