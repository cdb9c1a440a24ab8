//! What keeps other sites' pages from acting here in somebody's name.
//!
//! A request that changes something must come from a page of ours: the browser says so (Fetch Metadata and `Origin`, which no page can
//! forge), and the form has the session's own token, which no other page knows. Nothing changes on a GET.

use super::super::error::Refusal;
use super::session::Session;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The form field with the session's token.
pub(super) const FIELD: &str = "form_token";

/// Checks that a request comes from a page of ours. `origin` is where people reach the portal.
///
/// # Errors
/// If it does not, or nobody can tell. A sandboxed or redirected page, whose origin is `null`, is none of ours.
pub(super) fn same_origin(headers: &HeaderMap, origin: &str) -> Result<(), Refusal> {
    let foreign = |reason| {
        let description = "this did not come from a page of the portal, so nothing was done: open the portal and try again";
        Err(Refusal::new("access_denied", reason, description).status(StatusCode::FORBIDDEN))
    };
    // Of two values there is none.
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    if headers.contains_key(SEC_FETCH_SITE) && one(&SEC_FETCH_SITE) != Some("same-origin") {
        return foreign("cross_site");
    }
    let said = match one(&header::ORIGIN) {
        Some(said) if said != "null" => said,
        _ => return foreign("origin_unknown"),
    };
    let here = one(&header::HOST).map(|host| format!("https://{host}"));
    if said == origin || here.is_some_and(|here| said == here) { Ok(()) } else { foreign("cross_site") }
}

/// Checks that a form is of this session.
///
/// # Errors
/// If it is not.
pub(super) fn same_session(token: Option<&str>, session: &Session) -> Result<(), Refusal> {
    let given = token.unwrap_or_default().as_bytes();
    verify_slices_are_equal(given, session.form_token.as_bytes()).map_err(|_| {
        let description =
            "the form is of an earlier session, or of no page of the portal, so nothing was done: load the page again";
        Refusal::new("access_denied", "form_token_wrong", description).status(StatusCode::FORBIDDEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), axum::http::HeaderValue::from_static(value)))
            .fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            });
        same_origin(&headers, "https://portal.example.com").is_ok()
    }

    #[test]
    fn a22_only_a_page_of_the_portal_acts() {
        let (site, origin, host) = (SEC_FETCH_SITE, header::ORIGIN, header::HOST);
        for good in [
            &[(site.clone(), "same-origin"), (origin.clone(), "https://portal.example.com"), (host.clone(), "10.0.0.1")][..],
            &[(origin.clone(), "https://localhost:8443"), (host.clone(), "localhost:8443")],
        ] {
            assert!(check(good), "{good:?}");
        }
        for bad in [
            &[][..],
            &[(host.clone(), "portal.example.com")],
            &[(origin.clone(), "null"), (host.clone(), "portal.example.com")],
            &[(site.clone(), "same-origin"), (origin.clone(), "null")],
            &[(site.clone(), "cross-site"), (origin.clone(), "https://portal.example.com")],
            &[(site.clone(), "same-site"), (origin.clone(), "https://portal.example.com")],
            &[(site.clone(), "none"), (origin.clone(), "https://portal.example.com")],
            &[(site.clone(), "same-origin"), (site, "cross-site"), (origin.clone(), "https://portal.example.com")],
            &[(origin.clone(), "https://portal.example.com"), (origin.clone(), "https://evil.example.com")],
            &[(origin.clone(), "https://evil.example.com"), (host.clone(), "portal.example.com")],
            &[(origin.clone(), "http://portal.example.com"), (host.clone(), "portal.example.com")],
            &[(origin, "https://portal.example.com.evil"), (host, "portal.example.com")],
        ] {
            assert!(!check(bad), "{bad:?}");
        }
    }
}
