//! A client assertion that an agent signs with a key of its own: `private_key_jwt` (OpenID Connect Core section 9, RFC 7523 section 3,
//! and the audience of its successor, draft-ietf-oauth-rfc7523bis).

use super::IdentityError;
use super::jws::Verified;
use super::validity::Validity;
use crate::grammar::AgentId;
use crate::time::LEEWAY;
use serde_json::Value;

/// Longest life of an assertion, in seconds.
pub const LIFETIME_MAX: u64 = 60;

/// What an assertion says that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Its identifier, which counts once.
    pub jti: String,
    /// When it was issued at the earliest, in seconds since the epoch.
    pub issued_at: u64,
    /// When it ends, in seconds since the epoch.
    pub expires_at: u64,
}

/// Whether `typ` of a header may be that of a client assertion. Most clients say nothing.
#[must_use]
pub fn is_type(typ: Option<&str>) -> bool {
    matches!(typ, None | Some("jwt" | "client-authentication+jwt"))
}

/// Checks the claims of an assertion of `agent` whose signature was verified. `audience` is our issuer URL.
///
/// # Errors
/// [`IdentityError::Claim`] with the first claim that is not as it must be.
pub fn check(claims: &Verified, agent: &AgentId, audience: &str, now: u64) -> Result<Assertion, IdentityError> {
    let refuse = |why| Err(IdentityError::Claim(why));
    let agent = agent.to_string();
    if claims.text("iss") != Some(&agent) || claims.text("sub") != Some(&agent) {
        return refuse("iss and sub are not both the client_id of one agent");
    }
    // One audience, the issuer and nothing that is nearly the issuer: an assertion for two servers could be replayed by one of them.
    let for_us = match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(list)) => list.as_slice() == [Value::from(audience)],
        _ => false,
    };
    if !for_us {
        return refuse("aud is not exactly this service's issuer URL, alone");
    }
    super::foreign::no_actor(claims)?;
    let validity = Validity::of(claims, now)?;
    if validity.expires_at > now.saturating_add(LIFETIME_MAX + LEEWAY) {
        return refuse("exp is more than 60 s ahead");
    }
    // One that does not say when it was issued may have been as long ago as it may live.
    let issued_at = validity.begins().unwrap_or(validity.expires_at.saturating_sub(LIFETIME_MAX));
    if !validity.lives_at_most(LIFETIME_MAX, issued_at) {
        return refuse("the assertion lives longer than 60 s");
    }
    let Some(jti) = claims.identifier() else { return refuse("jti is missing, or not 1 to 128 printable ASCII characters") };
    Ok(Assertion { jti: jti.to_owned(), issued_at, expires_at: validity.expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_000_000;

    fn outcome(change: impl FnOnce(&mut Value)) -> Result<Assertion, IdentityError> {
        let mut claims =
            json!({"iss": "agent:ns/bot", "sub": "agent:ns/bot", "aud": "https://us", "iat": NOW, "exp": NOW + 60, "jti": "j1"});
        change(&mut claims);
        let verified = Verified::for_test(claims);
        check(&verified, &AgentId::new("ns", "bot").expect("an id"), "https://us", NOW)
    }

    #[test]
    fn a_plain_assertion_is_good() {
        assert_eq!(outcome(|_| {}), Ok(Assertion { jti: "j1".to_owned(), issued_at: NOW, expires_at: NOW + 60 }));
        assert!(outcome(|c| c["aud"] = json!(["https://us"])).is_ok());
        assert!(outcome(|c| c["nbf"] = json!(NOW)).is_ok());
        assert!(outcome(|c| _ = c.as_object_mut().expect("an object").remove("iat")).is_ok());
        assert!(outcome(|c| c["exp"] = json!(NOW - 4)).is_err(), "it ends before it begins");
    }

    #[test]
    fn j15_the_audience_is_the_issuer_alone() {
        for bad in [
            json!("https://us/oauth2/token"),
            json!("https://us/"),
            json!("https://US"),
            json!("HTTPS://us"),
            json!(["https://us", "https://other"]),
            json!(["https://us", "https://us"]),
            json!([]),
            json!("https://other"),
            json!(""),
            json!(7),
            json!({"0": "https://us"}),
            json!(null),
        ] {
            assert!(outcome(|c| c["aud"] = bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn j16_issuer_and_subject_are_the_client() {
        for (name, bad) in
            [("iss", "agent:ns/other"), ("sub", "agent:ns/other"), ("iss", ""), ("sub", "agent:NS/bot"), ("iss", "agent:ns/bot ")]
        {
            assert!(outcome(|c| c[name] = json!(bad)).is_err(), "{name} {bad}");
        }
    }

    #[test]
    fn j17_an_assertion_is_short_lived_named_and_of_now() {
        for (name, bad) in [
            ("exp", json!(NOW + 86400)),
            ("exp", json!(NOW + 66)),
            ("exp", json!(NOW - 5)),
            ("exp", json!((NOW + 60).to_string())),
            ("exp", json!(1_000_060.5)),
            ("exp", json!(null)),
            ("iat", json!(NOW + 600)),
            ("iat", json!(NOW - 1)),
            ("iat", json!("x")),
            ("nbf", json!(NOW + 600)),
            ("nbf", json!(-1)),
            ("jti", json!(null)),
            ("jti", json!("")),
            ("jti", json!(7)),
            ("jti", json!("a\u{0}")),
            ("jti", json!("j".repeat(129))),
        ] {
            assert!(outcome(|c| c[name] = bad.clone()).is_err(), "{name} {bad}");
        }
        for missing in ["exp", "jti", "iss", "sub", "aud"] {
            assert!(outcome(|c| _ = c.as_object_mut().expect("an object").remove(missing)).is_err(), "{missing}");
        }
    }
}
