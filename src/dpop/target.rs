//! Whether two URLs are the same endpoint (RFC 9449 section 4.3, item 9).

/// Whether `htu` is `url`, a URL of ours, both after the normalisation of RFC 3986 sections 6.2.2 and 6.2.3. Query and fragment do not
/// count. Dots in the path, a user name and what has another scheme are refused: no client of ours has them.
pub(super) fn is_same(htu: &str, url: &str) -> bool {
    normal(htu).is_some_and(|htu| normal(url) == Some(htu))
}

/// Host, port and path of an https URL.
fn normal(text: &str) -> Option<(String, u16, String)> {
    if text.len() > 2048 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let text = text.split(['?', '#']).next()?;
    let uri: axum::http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    if !uri.scheme_str()?.eq_ignore_ascii_case("https") || authority.as_str().contains('@') || authority.host().is_empty() {
        return None;
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        // A colon without a port is the same as none.
        None => 443,
    };
    Some((authority.host().to_ascii_lowercase(), port, path(uri.path())?))
}

/// The path, with what need not be encoded decoded, and the rest encoded in capitals.
fn path(text: &str) -> Option<String> {
    let mut path = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, encoded)) = rest.split_once('%') {
        path.push_str(plain);
        let byte = encoded.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok())?;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
        rest = encoded.get(2..)?;
    }
    path.push_str(rest);
    (!path.split('/').any(|segment| matches!(segment, "." | ".."))).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_endpoint_however_its_url_is_written() {
        const OURS: &str = "https://id.example/tenant/oauth2/token";
        for same in [
            OURS,
            "HTTPS://ID.example/tenant/oauth2/token",
            "https://id.example:443/tenant/oauth2/token",
            "https://id.example/tenant/oauth2/token?a=b#c",
            "https://id.example/tenant/oauth2/token#c?d",
            "https://id.example/%74enant/oauth2/toke%6E",
        ] {
            assert!(is_same(same, OURS), "{same}");
        }
        for other in [
            "",
            "/tenant/oauth2/token",
            "http://id.example/tenant/oauth2/token",
            "https://id.example:8443/tenant/oauth2/token",
            "https://id.example/tenant/oauth2/token/",
            "https://id.example/tenant/oauth2/Token",
            "https://id.example//tenant/oauth2/token",
            "https://id.example/oauth2/token",
            "https://id.example/tenant/oauth2%2Ftoken",
            "https://id.example/tenant/x/../oauth2/token",
            "https://id.example/tenant/x/%2e%2E/oauth2/token",
            "https://id.example.evil.example/tenant/oauth2/token",
            "https://id.example@evil.example/tenant/oauth2/token",
            "https://user@id.example/tenant/oauth2/token",
            "https://id.example./tenant/oauth2/token",
            "https://id.example/tenant/oauth2/introspect",
            "https://id.example/tenant/oauth2/token%",
            "https://id.example/tenant/oauth2/token%0",
            "https://id.example/tenant/oauth2/token ",
            "https://id.example\\tenant/oauth2/token",
            "https://evil.example/?https://id.example/tenant/oauth2/token",
        ] {
            assert!(!is_same(other, OURS), "{other}");
        }
        let escaped = "https://id.example/a%c3%a9/oauth2/token";
        assert!(is_same(escaped, "https://id.example/a%C3%A9/oauth2/token"));
        assert!(is_same("https://[::1]:443/oauth2/token", "https://[::1]/oauth2/token"));
    }
}
