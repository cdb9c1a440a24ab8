//! `application/x-www-form-urlencoded`, read strictly.

use super::error::Refusal;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// Longest body, in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// Most parameters.
const PARAMETERS_MAX: usize = 64;
/// The parameters that may occur more than once (RFC 8693 section 2.1, RFC 8707 section 2).
const REPEATABLE: [&str; 2] = ["audience", "resource"];

/// The parameters of a request.
#[derive(Debug)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// A [`Refusal`] if there is a query, the body is not a form, is too large, is not UTF-8, has a control character, an empty
    /// value or a parameter twice.
    pub async fn read(request: Request<Body>) -> Result<Self, Refusal> {
        // JSON, where white space means nothing.
        Self::read_with_lines(request, &["authorization_details"]).await
    }

    /// The same, where the values of `lines` may have line ends and tabs.
    ///
    /// # Errors
    /// As above.
    pub async fn read_with_lines(request: Request<Body>, lines: &[&str]) -> Result<Self, Refusal> {
        let body = read_body(request, "application/x-www-form-urlencoded").await?;
        Self::parse(&body, lines)
    }

    /// Reads the parameters of a GET.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn of_query(uri: &Uri) -> Result<Self, Refusal> {
        Self::parse(&Bytes::copy_from_slice(uri.query().unwrap_or_default().as_bytes()), &[])
    }

    fn parse(body: &Bytes, lines: &[&str]) -> Result<Self, Refusal> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
            if parameters.len() == PARAMETERS_MAX {
                return Err(Refusal::malformed("there are more than 64 parameters"));
            }
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            let name = decode(name, &[])?;
            let value = decode(value, if lines.contains(&name.as_str()) { &['\n', '\r', '\t'] } else { &[] })?;
            if !REPEATABLE.contains(&name.as_str()) && parameters.iter().any(|(n, _)| *n == name) {
                // RFC 6749 section 3.2.
                return Err(Refusal::malformed(format!("parameter {} occurs more than once", shown(&name))));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The value of `name`, if it was sent.
    ///
    /// # Errors
    /// If it was sent without a value: leaving a parameter out and sending it empty are two things, and only one of them is meant.
    pub fn get(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.raw(name) {
            Some("") => Err(Refusal::malformed(format!("parameter {name} is empty: leave it out if it is not meant"))),
            value => Ok(value),
        }
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// If it was not sent or is empty.
    pub fn require(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name)?.ok_or_else(|| Refusal::malformed(format!("parameter {name} is missing")))
    }

    /// The value of `name`, be it empty.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The names that were sent.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

fn check_headers(headers: &HeaderMap, media_type: &str) -> Result<(), Refusal> {
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::malformed("a compressed body is not accepted").status(StatusCode::UNSUPPORTED_MEDIA_TYPE).closing());
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let only = match (types.next(), types.next()) {
        (Some(only), None) => only.to_str().unwrap_or_default(),
        _ => "",
    };
    let mut parts = only.split(';').map(str::trim);
    let is_meant = parts.next().is_some_and(|t| t.eq_ignore_ascii_case(media_type));
    if !is_meant || !parts.all(says_utf8) {
        return Err(Refusal::malformed(format!("the body must be {media_type} in UTF-8")).closing());
    }
    Ok(())
}

/// Whether a parameter of a media type is the charset that is meant, or none at all (RFC 9110 sections 5.6.6 and 8.3.1).
fn says_utf8(parameter: &str) -> bool {
    parameter.is_empty() || ["charset=utf-8", r#"charset="utf-8""#].iter().any(|utf8| parameter.eq_ignore_ascii_case(utf8))
}

/// Reads the body of a POST, which must be of type `media_type`.
pub(crate) async fn read_body(request: Request<Body>, media_type: &str) -> Result<Bytes, Refusal> {
    if request.uri().query().is_some() {
        // RFC 6749 section 3.2: parameters go into the body. In a query they would end in access logs.
        return Err(Refusal::malformed("the request has a query: send the parameters in the body").closing());
    }
    check_headers(request.headers(), media_type)?;
    match Limited::new(request.into_body(), BODY_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::malformed("the body is longer than 65536 bytes").status(StatusCode::PAYLOAD_TOO_LARGE).closing())
        }
        Err(_) => Err(Refusal::malformed("the body could not be read to its end").closing()),
    }
}

/// Decodes a name or value. What is not UTF-8 is refused, not repaired, and so are control characters other than `allowed`.
pub(super) fn decode(text: &[u8], allowed: &[char]) -> Result<String, Refusal> {
    // Most of what is sent, every token among it, needs none.
    // Without a way out of the loop, so that several bytes are looked at at once.
    let is_plain = text.iter().fold(true, |plain, b| plain & b.is_ascii_graphic() & (*b != b'%') & (*b != b'+'));
    if is_plain && let Ok(plain) = std::str::from_utf8(text) {
        return Ok(plain.to_owned());
    }
    let valid_escape = |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    let broken = text.iter().enumerate().any(|(i, b)| *b == b'%' && !valid_escape(text.get(i + 1..).unwrap_or_default()));
    if broken {
        return Err(Refusal::malformed("a parameter has a % that is not followed by two hexadecimal digits"));
    }
    let spaced: Cow<'_, [u8]> = if text.contains(&b'+') {
        text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect()
    } else {
        Cow::Borrowed(text)
    };
    let decoded = percent_decode(&spaced).decode_utf8().map_err(|_| Refusal::malformed("a parameter is not UTF-8"))?;
    if decoded.chars().any(|c| c.is_control() && !allowed.contains(&c)) {
        return Err(Refusal::malformed("a parameter has a control character"));
    }
    Ok(decoded.into_owned())
}

/// A parameter's name as far as it can be shown.
fn shown(name: &str) -> &str {
    name.get(..name.len().min(64)).unwrap_or("with a long name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Form, Refusal> {
        Form::parse(&Bytes::copy_from_slice(body.as_bytes()), &["authorization_details"])
    }

    #[test]
    fn a_form_is_read_as_it_was_written() {
        let form = parse("grant_type=client_credentials&scope=a.b+c%2Ed&audience=x&audience=y&empty=").expect("a form");
        assert_eq!(form.get("grant_type").expect("once"), Some("client_credentials"));
        assert_eq!(form.get("scope").expect("once"), Some("a.b c.d"));
        assert_eq!(form.all("audience").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(form.get("absent").expect("absent"), None);
        assert!(form.get("empty").is_err());
        let form = parse("authorization_details=%5B%0A%09%5D%0D%0A").expect("a form");
        assert_eq!(form.get("authorization_details").expect("once"), Some("[\n\t]\r\n"));
        assert!(parse("authorization_details=%5B%00%5D").is_err() && parse("binding_message=a%0Ab").is_err());
    }

    #[test]
    fn h7_a_media_type_is_the_same_however_it_is_written() {
        const FORM: &str = "application/x-www-form-urlencoded";
        let check = |media_type: &str, encoding: &str| {
            let headers = [(header::CONTENT_TYPE, media_type), (header::CONTENT_ENCODING, encoding)];
            let headers = headers.map(|(name, value)| (name, value.parse().expect("a value")));
            check_headers(&headers.into_iter().collect(), FORM)
        };
        for parameters in ["", ";", ";charset=utf-8", "; Charset=UTF-8", " ; charset=\"utf-8\"", ";charset=\"UTF-8\";"] {
            assert!(check(&format!("{FORM}{parameters}"), "identity").is_ok(), "{parameters}");
        }
        assert!(check("Application/X-WWW-Form-URLEncoded", "Identity").is_ok());
        for parameters in
            [";charset=utf-7", ";charset=\"utf-7\"", ";charset='utf-8'", ";charset=", ";charset = utf-8", ";boundary=x"]
        {
            assert!(check(&format!("{FORM}{parameters}"), "identity").is_err(), "{parameters}");
        }
        assert!(check(FORM, "").is_err() && check(FORM, "identity, identity").is_err());
    }

    #[test]
    fn h6_what_could_be_read_in_two_ways_is_refused() {
        for bad in ["a=1&a=2", "a=1&%61=2", "a=%00", "a=%ff", "a=%", "a=%4", "a=%zz", "a=\u{1}", "a=b%0d%0aSet-Cookie:x"] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
        let many = (0..=PARAMETERS_MAX).map(|i| format!("p{i}=1")).collect::<Vec<_>>().join("&");
        assert!(parse(&many).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..256)) {
            _ = Form::parse(&Bytes::from(bytes), &["a"]);
        }
    }
}
