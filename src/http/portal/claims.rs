//! What a token says of itself, for what does not hang on whether it is true: the API server verifies every token that is used.

use crate::cluster::TOKEN_MAX;
use crate::json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The claims of a JWT, unverified. `None` if it is none.
pub(super) fn claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let payload = URL_SAFE_NO_PAD.decode(payload).ok().filter(|_| token.len() <= TOKEN_MAX)?;
    json::parse_object(&payload).ok()
}

/// When a token says that it expires, in seconds since the epoch.
pub(super) fn expiry(token: &str) -> Option<u64> {
    seconds(&claims(token)?, "exp")
}

/// A time among claims (RFC 7519 section 2).
pub(super) fn seconds(claims: &Map<String, Value>, name: &str) -> Option<u64> {
    let value = claims.get(name)?;
    // A fraction of a second makes nothing live longer.
    value.as_u64().or_else(|| value.as_f64().filter(|seconds| (0.0..1e15).contains(seconds)).map(|seconds| seconds as u64))
}
