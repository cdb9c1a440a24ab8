//! What an ID token must say before it is shown to anybody (OpenID Connect Core 1.0 section 3.1.3.7).
//!
//! It came from the token endpoint over TLS, and kube-apiserver, whose credential it is to be, verifies its signature. What only we can
//! check is that it is the answer to our question: for this client, and with the nonce of this browser.

use super::super::claims::seconds;
use crate::time::LEEWAY;
use serde_json::{Map, Value};

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
}

/// Checks that `claims` answer what was asked.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check(claims: &Map<String, Value>, asked: Asked<'_>, now: u64) -> Result<(), &'static str> {
    let text = |name| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(asked.issuer) {
        return Err("the ID token is from another issuer");
    }
    let (is_for_us, are_others) = match claims.get("aud") {
        Some(Value::String(audience)) => (audience == asked.client_id, false),
        Some(Value::Array(all)) => {
            (all.iter().any(|audience| audience == asked.client_id), all.iter().any(|audience| audience != asked.client_id))
        }
        _ => (false, false),
    };
    if !is_for_us {
        return Err("the ID token is for another client");
    }
    match (text("azp"), claims.contains_key("azp")) {
        (Some(party), _) if party == asked.client_id => {}
        (None, false) if !are_others => {}
        _ => return Err("the ID token was issued to another client"),
    }
    if text("nonce") != Some(asked.nonce) {
        return Err("the ID token answers another sign-in");
    }
    if seconds(claims, "exp").is_none_or(|exp| exp <= now.saturating_sub(LEEWAY)) {
        return Err("the ID token has expired");
    }
    if seconds(claims, "iat").is_none_or(|iat| iat > now.saturating_add(LEEWAY)) {
        return Err("the ID token does not say when it was issued, or says the future");
    }
    if text("sub").is_none_or(str::is_empty) {
        return Err("the ID token says nobody's name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ASKED: Asked<'static> = Asked { issuer: "https://idp", client_id: "portal", nonce: "n" };

    fn checked(change: &Value) -> Result<(), &'static str> {
        let mut claims = json!({"iss": "https://idp", "aud": "portal", "nonce": "n", "exp": 2000, "iat": 1000, "sub": "alice"});
        for (name, value) in change.as_object().expect("members") {
            match value {
                Value::Null => _ = claims.as_object_mut().expect("an object").remove(name),
                value => claims[name] = value.clone(),
            }
        }
        check(claims.as_object().expect("an object"), ASKED, 1000)
    }

    #[test]
    fn an_id_token_must_answer_what_was_asked() {
        for good in [
            json!({}),
            json!({"aud": ["portal"]}),
            json!({"azp": "portal"}),
            json!({"aud": ["portal", "other"], "azp": "portal"}),
            json!({"exp": 1000.5}),
        ] {
            assert_eq!(checked(&good), Ok(()), "{good}");
        }
        for bad in [
            json!({"iss": "https://idp/"}),
            json!({"iss": null}),
            json!({"aud": "other"}),
            json!({"aud": []}),
            json!({"aud": null}),
            json!({"aud": {"portal": true}}),
            json!({"aud": ["portal", "other"]}),
            json!({"aud": ["portal", 7]}),
            json!({"azp": "other"}),
            json!({"azp": 7}),
            json!({"nonce": "m"}),
            json!({"nonce": null}),
            json!({"nonce": ["n"]}),
            json!({"exp": 990}),
            json!({"exp": null}),
            json!({"exp": "2000"}),
            json!({"iat": 1006}),
            json!({"iat": null}),
            json!({"sub": null}),
            json!({"sub": ""}),
        ] {
            assert!(checked(&bad).is_err(), "{bad}");
        }
    }
}
