//! The claims of tokens that trusted issuers sign: workloads' and users'.

use super::IdentityError;
use super::jws::Verified;
use super::validity::Validity;
use crate::chain::MayAct;
use crate::issuer::{RegisteredIssuer, Rules, UserName, is_trust_domain};
use serde_json::{Map, Value};

/// Longest subject, in bytes.
const SUBJECT_MAX: usize = 512;

/// A workload that another issuer vouches for.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// UID of the TrustedIssuer.
    pub issuer_uid: String,
    /// `sub`.
    pub subject: String,
    /// All claims.
    pub claims: Map<String, Value>,
    /// When the token ends, in seconds since the epoch.
    pub expires_at: u64,
}

/// A user whose ID token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// UID of the TrustedIssuer.
    pub issuer_uid: String,
    /// `sub`: how the issuer itself tells users apart.
    pub subject: String,
    /// Who it is.
    pub name: UserName,
    /// `aud`: the applications for which the token was issued.
    pub audiences: Vec<String>,
    /// `azp`: the application to which it was issued, if it says so.
    pub authorized_party: Option<String>,
    /// `may_act`: who alone may act for the user with this token, if it says so.
    pub may_act: Option<MayAct>,
    /// `jti`, if it has one.
    pub token_id: Option<String>,
    /// When the token was issued, in seconds since the epoch.
    pub issued_at: u64,
    /// When it ends, in seconds since the epoch.
    pub expires_at: u64,
}

/// Checks the claims of a workload's token whose signature was verified with a key of `issuer`.
///
/// # Errors
/// [`IdentityError::Claim`] or [`IdentityError::Rule`] with the first that is not as it must be.
pub fn workload(claims: &Verified, issuer: &RegisteredIssuer, rules: &Rules, now: u64) -> Result<Workload, IdentityError> {
    let expires_at = common(claims, rules, now)?.expires_at;
    let subject = subject(claims)?;
    match issuer.trust_domain() {
        // JWT-SVID section 3: what it is about is in `sub`, and `iss` is not part of it.
        Some(domain) => {
            if trust_domain_of(subject) != Some(domain) {
                return Err(IdentityError::Claim("sub is no SPIFFE ID of the issuer's trust domain"));
            }
        }
        None => named(claims, issuer)?,
    }
    no_actor(claims)?;
    rules.check(claims.members()).map_err(IdentityError::Rule)?;
    Ok(Workload {
        issuer: issuer.name.clone(),
        issuer_uid: issuer.uid.clone(),
        subject: subject.to_owned(),
        claims: claims.members().clone(),
        expires_at,
    })
}

/// Checks the claims of a user's ID token (OpenID Connect Core section 2) whose signature was verified with a key of `issuer`.
///
/// # Errors
/// As [`workload`].
pub fn user(claims: &Verified, issuer: &RegisteredIssuer, rules: &Rules, now: u64) -> Result<User, IdentityError> {
    let Validity { issued_at, expires_at, .. } = common(claims, rules, now)?;
    let issued_at = issued_at.ok_or(IdentityError::Claim("iat is missing, which an ID token has"))?;
    named(claims, issuer)?;
    let subject = subject(claims)?;
    // Whoever it was issued to must be one of those whose tokens count.
    let authorized_party = match claims.get("azp") {
        None => None,
        Some(Value::String(party)) if rules.audiences.contains(party) => Some(party.clone()),
        Some(_) => return Err(IdentityError::Claim("azp is none of the audiences that the issuer's entry names")),
    };
    no_actor(claims)?;
    rules.check(claims.members()).map_err(IdentityError::Rule)?;
    let name = rules.user(claims.members()).map_err(IdentityError::Rule)?;
    Ok(User {
        issuer: issuer.name.clone(),
        issuer_uid: issuer.uid.clone(),
        subject: subject.to_owned(),
        name,
        audiences: claims.audiences(),
        authorized_party,
        may_act: claims.get("may_act").map(MayAct::parse).transpose().map_err(IdentityError::Claim)?,
        token_id: claims.text("jti").map(str::to_owned),
        issued_at,
        expires_at,
    })
}

/// The trust domain of a SPIFFE ID (SPIFFE ID section 2): `None` if it is none.
#[must_use]
pub fn trust_domain_of(subject: &str) -> Option<&str> {
    let rest = subject.strip_prefix("spiffe://")?;
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let segment = |s: &str| {
        !matches!(s, "" | "." | "..") && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    let path_is_good = path.is_empty() || path.split('/').skip(1).all(segment);
    (is_trust_domain(domain) && path_is_good && subject.len() <= 2048).then_some(domain)
}

fn named(claims: &Verified, issuer: &RegisteredIssuer) -> Result<(), IdentityError> {
    match claims.text("iss") == Some(&issuer.url) {
        true => Ok(()),
        false => Err(IdentityError::Claim("iss is not the issuer whose key signed the token")),
    }
}

/// Who acts for whom is written by this service and by nobody else (RFC 8693 section 4.1).
pub(super) fn no_actor(claims: &Verified) -> Result<(), IdentityError> {
    match claims.get("act") {
        None => Ok(()),
        Some(_) => Err(IdentityError::Claim("the token has a claim act: who acts for whom is said by this service alone")),
    }
}

fn subject(claims: &Verified) -> Result<&str, IdentityError> {
    let subject = claims.text("sub").filter(|s| (1..=SUBJECT_MAX).contains(&s.len()) && !s.chars().any(char::is_control));
    subject.ok_or(IdentityError::Claim("sub is missing, empty, too long or has a control character"))
}

/// Audience and times.
fn common(claims: &Verified, rules: &Rules, now: u64) -> Result<Validity, IdentityError> {
    let refuse = |why| Err(IdentityError::Claim(why));
    if !rules.audiences.iter().any(|audience| claims.is_for(audience)) {
        return refuse("aud contains none of the audiences that the issuer's entry names");
    }
    let validity = Validity::of(claims, now)?;
    if !validity.lives_at_most(rules.max_lifetime, validity.begins().unwrap_or(now)) {
        return refuse("the token lives longer than maxTokenLifetimeSeconds of the issuer's entry");
    }
    Ok(validity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;
    use serde_json::json;

    const NOW: u64 = 1_000_000;

    fn issuer(url: &str, spec: &Value) -> RegisteredIssuer {
        let mut object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustedIssuer", "metadata": {"name": "i", "uid": "u"},
            "spec": {"provides": "Workloads", "issuer": {"url": url, "audiences": ["us", "us-too"], "jwks": "{}"}}});
        for (name, value) in spec.as_object().expect("members") {
            object["spec"][name] = value.clone();
        }
        RegisteredIssuer::parse(&serde_json::from_value::<crd::TrustedIssuer>(object).expect("an object"))
    }

    fn base() -> Value {
        json!({"iss": "https://i.example", "sub": "w", "aud": "us", "iat": NOW, "exp": NOW + 600})
    }

    fn check(issuer: &RegisteredIssuer, claims: Value) -> Result<Workload, IdentityError> {
        workload(&Verified::for_test(claims), issuer, issuer.rules.as_ref().expect("rules"), NOW)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = base();
        claims[name] = value;
        claims
    }

    #[test]
    fn a_plain_token_of_a_workload_is_good() {
        let issuer = issuer("https://i.example", &json!({}));
        assert_eq!(check(&issuer, base()).expect("good").subject, "w");
        for good in [with("aud", json!(["x", "us-too"])), with("nbf", json!(NOW)), with("extra", json!({"a": [1]}))] {
            assert!(check(&issuer, good.clone()).is_ok(), "{good}");
        }
        let without = |name: &str| {
            let mut claims = base();
            claims.as_object_mut().expect("an object").remove(name);
            claims
        };
        assert!(check(&issuer, without("iat")).is_ok());
        for missing in ["iss", "sub", "aud", "exp"] {
            assert!(check(&issuer, without(missing)).is_err(), "{missing}");
        }
    }

    #[test]
    fn f9_f10_a_token_that_is_not_what_it_says_is_refused() {
        let issuer = issuer("https://i.example", &json!({}));
        for (name, bad) in [
            ("iss", json!("https://i.example/")),
            ("iss", json!("https://I.example")),
            ("iss", json!("")),
            ("iss", json!(["https://i.example"])),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!("a\nb")),
            ("sub", json!("s".repeat(513))),
            ("aud", json!("u")),
            ("aud", json!("us ")),
            ("aud", json!([])),
            ("aud", json!(["us", 7])),
            ("exp", json!(NOW - 5)),
            ("exp", json!(NOW + 3601)),
            ("exp", json!("1000600")),
            ("exp", json!(1_000_600.5)),
            ("iat", json!(NOW + 6)),
            ("nbf", json!(NOW + 6)),
            ("iat", json!(NOW - 3600)),
        ] {
            assert!(check(&issuer, with(name, bad.clone())).is_err(), "{name} {bad}");
        }
    }

    #[test]
    fn a_jwt_svid_is_of_the_trust_domain_in_its_subject() {
        let issuer = issuer("spiffe://prod.example", &json!({}));
        let svid = |sub: &str| check(&issuer, json!({"sub": sub, "aud": ["us"], "exp": NOW + 300}));
        assert!(svid("spiffe://prod.example/ns/a/sa/b").is_ok() && svid("spiffe://prod.example").is_ok());
        for bad in [
            "spiffe://prod.example.evil/a",
            "spiffe://other/a",
            "spiffe://prod.example/",
            "spiffe://prod.example/a//b",
            "spiffe://prod.example/../a",
            "spiffe://prod.example/a%2fb",
            "spiffe://user@prod.example/a",
            "SPIFFE://prod.example/a",
            "https://prod.example/a",
        ] {
            assert!(svid(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_comes_with_an_id_token_of_an_application_that_counts() {
        let issuer = issuer("https://i.example", &json!({"provides": "Users", "claimMappings": {"username": {"claim": "sub"}}}));
        let check = |claims: Value| user(&Verified::for_test(claims), &issuer, issuer.rules.as_ref().expect("rules"), NOW);
        assert_eq!(check(base()).expect("a user").name.name, "w");
        assert!(check(with("azp", json!("us-too"))).is_ok());
        for bad in
            [with("azp", json!("other")), with("azp", json!(7)), with("aud", json!("other")), with("sub", json!("system:admin"))]
        {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
    }
}
