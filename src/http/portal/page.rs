//! What all pages have: the frame around them, and texts that nobody can misread.

use super::super::error::Refusal;
use super::{Portal, Visit, assets};
use crate::readable::Readable;
use askama::Template;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;

/// What stays as it is in a part of a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text from outside, as it may be shown: every character that acts on others is written out. The templates escape it for HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn of(text: &str) -> Self {
        Self(Readable(text).to_string())
    }

    /// One that is readable already.
    pub(super) const fn readable(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is around a page.
pub(super) struct Frame {
    pub(super) title: Text,
    pub(super) section: &'static str,
    pub(super) user: Option<Text>,
    pub(super) form_token: String,
    pub(super) until: String,
    pub(super) namespace: Option<Text>,
    /// Where scripts and style are.
    pub(super) assets: String,
    /// After how many seconds a browser without scripts is to load the page again.
    pub(super) refresh: Option<u32>,
    /// Where that is switched on, or off.
    pub(super) refresh_link: Option<String>,
}

impl Frame {
    /// For somebody who is not signed in.
    pub(super) fn stranger(title: &str) -> Self {
        Self {
            title: Text::of(title),
            section: "",
            user: None,
            form_token: String::new(),
            until: String::new(),
            namespace: None,
            assets: assets::base(),
            refresh: None,
            refresh_link: None,
        }
    }

    /// For whoever is signed in.
    pub(super) fn of(visit: &Visit, title: Text, section: &'static str) -> Self {
        let until = i64::try_from(visit.session.expires_at).ok().and_then(|at| Timestamp::from_second(at).ok());
        Self {
            title,
            section,
            user: Some(Text::of(&visit.session.user.username)),
            form_token: visit.session.form_token.clone(),
            until: until.map(clock).unwrap_or_default(),
            namespace: visit.namespace().ok().flatten().map(Text::of),
            ..Self::stranger("")
        }
    }

    /// The same, of a page that changes: without scripts it can be loaded again by itself.
    pub(super) fn living(visit: &Visit, title: Text, section: &'static str, here: &str) -> Self {
        let refresh = (visit.get("refresh") == Some("15")).then_some(15);
        let joint = if here.contains('?') { '&' } else { '?' };
        let link = if refresh.is_some() { here.to_owned() } else { format!("{here}{joint}refresh=15") };
        Self { refresh, refresh_link: Some(link), ..Self::of(visit, title, section) }
    }

    /// The namespace as the query of a link.
    pub(super) fn place(&self) -> String {
        self.namespace.as_ref().map(|namespace| format!("?namespace={}", encoded(&namespace.0))).unwrap_or_default()
    }

    /// The same behind other parameters.
    pub(super) fn and_place(&self) -> String {
        self.namespace.as_ref().map(|namespace| format!("&namespace={}", encoded(&namespace.0))).unwrap_or_default()
    }
}

/// A text as a part of a path or query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A time for people.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// When something ends, and how long that is from now.
pub(super) struct Left {
    /// RFC 3339.
    pub(super) at: String,
    pub(super) left: String,
}

impl Left {
    pub(super) fn until(at: &Time, now: u64) -> Self {
        let seconds = at.0.as_second().saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
        let left = match (seconds.div_euclid(3600), seconds.rem_euclid(3600) / 60, seconds.rem_euclid(60)) {
            _ if seconds <= 0 => "time is up".to_owned(),
            (0, 0, seconds) => format!("{seconds} s left"),
            (0, minutes, seconds) => format!("{minutes} min {seconds} s left"),
            (hours, minutes, _) if hours < 48 => format!("{hours} h {minutes} min left"),
            (hours, ..) => format!("{} days left", hours / 24),
        };
        Self { at: at.0.to_string(), left }
    }
}

/// A page.
pub(super) fn render(status: StatusCode, page: &impl Template) -> Result<Response, Refusal> {
    let text = page.render().map_err(|error| Refusal::unavailable("page_unwritable", error.to_string()))?;
    Ok((status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response())
}

/// To another page, with GET (RFC 9110 section 15.4.4).
pub(super) fn see_other(to: &str) -> Result<Response, Refusal> {
    let to = HeaderValue::from_str(to).map_err(|_| Refusal::malformed("the address cannot be written"))?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response())
}

#[derive(Template)]
#[template(path = "portal/error.html")]
struct Problem {
    frame: Frame,
    message: Text,
    is_sign_in: bool,
}

/// The page of a refusal.
pub(super) fn problem(visit: Option<&Visit>, refusal: Refusal) -> Response {
    let status = refusal.code();
    let title = match status {
        StatusCode::UNAUTHORIZED => "Sign in",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not there",
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => "Not understood",
        StatusCode::SERVICE_UNAVAILABLE => "Not now",
        _ => "This did not work",
    };
    let frame = visit.map_or_else(|| Frame::stranger(title), |visit| Frame::of(visit, Text::of(title), ""));
    let message = Text::of(refusal.description());
    let page = render(status, &Problem { frame, message, is_sign_in: status == StatusCode::UNAUTHORIZED });
    let mut response = page.unwrap_or_else(|_| Response::new(Body::empty()));
    // Beside what the refusal would have said to a program: Allow, Retry-After.
    for (name, value) in refusal.into_response().headers() {
        if [header::ALLOW, header::RETRY_AFTER, header::CONNECTION].contains(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// The headers of everything below `/portal`.
pub(super) fn secure(response: &mut Response, portal: &Portal) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not no-referrer: with that a browser sends the forms of our own pages with `Origin: null` (Fetch, section 3.2).
        (header::REFERRER_POLICY, "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if portal.is_strict {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h15_a_text_acts_on_nothing_around_it() {
        let page = Problem {
            frame: Frame::stranger("x"),
            message: Text::of("<script>alert(1)</script>\u{202e}\"'&\u{0}"),
            is_sign_in: false,
        };
        let text = page.render().expect("a page");
        assert!(!text.contains("<script>alert") && !text.contains('\u{202e}') && !text.contains('\0'), "{text}");
        assert!(text.contains("\\u{202e}") && text.contains("&#60;script&#62;"), "{text}");
    }

    #[test]
    fn what_is_left_is_said_in_words() {
        let until = |seconds: i64| Left::until(&Time(Timestamp::from_second(1000 + seconds).expect("a time")), 1000).left;
        assert_eq!(
            [0, 9, 252, 7260, 300_000].map(until),
            ["time is up", "9 s left", "4 min 12 s left", "2 h 1 min left", "3 days left"]
        );
    }
}
