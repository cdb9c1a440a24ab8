//! A JWK Set (RFC 7517) of somebody else, read strictly and within bounds.

use crate::agent_key::has_private_member;
use crate::json;
use crate::public_key::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Largest JWK Set that is read, in bytes.
pub const JWKS_MAX: usize = 64 * 1024;
/// Most keys in one.
pub const KEYS_MAX: usize = 32;
/// Longest `kid`, in bytes.
const KID_MAX: usize = 128;

/// The keys of one issuer by `kid`.
#[derive(Debug, Default)]
pub struct KeySet(HashMap<String, Arc<PublicKey>>);

/// Why a JWK Set is not used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Longer than [`JWKS_MAX`].
    #[error("it is longer than {JWKS_MAX} bytes")]
    TooLong,
    /// No JSON object with a list `keys` of objects.
    #[error("it is no JSON object with a list of keys, or says something twice")]
    Malformed,
    /// More than [`KEYS_MAX`] keys.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// A key with a private member: whoever fetches it can sign with it.
    #[error("it contains a private or symmetric key, which everybody can read there: the issuer is compromised")]
    Private,
    /// Two keys of one name.
    #[error("it has two keys of one kid")]
    Ambiguous,
    /// Nothing that can verify a signature.
    #[error(
        "it has no key that can be used: each needs a kid, a use for signatures, and one of the algorithms that are accepted"
    )]
    Empty,
}

impl KeySet {
    /// Reads a JWK Set. Keys that are not for signatures, have no `kid`, or are of an algorithm not in `accepted` are left out.
    ///
    /// # Errors
    /// A [`JwksError`]: a set that could be read in two ways, or that shows a secret, is not used in part.
    pub fn parse(bytes: &[u8], accepted: &[Algorithm]) -> Result<Self, JwksError> {
        if bytes.len() > JWKS_MAX {
            return Err(JwksError::TooLong);
        }
        let set = json::parse_object(bytes).map_err(|_| JwksError::Malformed)?;
        let Some(Value::Array(list)) = set.get("keys") else { return Err(JwksError::Malformed) };
        if list.len() > KEYS_MAX {
            return Err(JwksError::TooMany);
        }
        let mut keys = HashMap::new();
        for entry in list {
            let Value::Object(jwk) = entry else { return Err(JwksError::Malformed) };
            if has_private_member(jwk) {
                return Err(JwksError::Private);
            }
            if let Some((kid, key)) = usable(jwk, accepted)
                && keys.insert(kid, Arc::new(key)).is_some()
            {
                return Err(JwksError::Ambiguous);
            }
        }
        if keys.is_empty() { Err(JwksError::Empty) } else { Ok(Self(keys)) }
    }

    /// The key of that name.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<Arc<PublicKey>> {
        self.0.get(kid).cloned()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the keys, in order.
    #[must_use]
    pub fn kids(&self) -> Vec<String> {
        let mut kids: Vec<String> = self.0.keys().cloned().collect();
        kids.sort();
        kids
    }
}

/// The key as far as it can verify signatures.
fn usable(jwk: &Map<String, Value>, accepted: &[Algorithm]) -> Option<(String, PublicKey)> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kid = text("kid").filter(|kid| (1..=KID_MAX).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_graphic()))?;
    Some((kid.to_owned(), public_key(jwk, accepted)?))
}

/// The key in a JWK, if it is for signatures and of one of the algorithms in `accepted`.
pub(crate) fn public_key(jwk: &Map<String, Value>, accepted: &[Algorithm]) -> Option<PublicKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    // A SPIFFE bundle says what its keys are for in a word of its own (SPIFFE Trust Domain and Bundle section 4.2.2).
    if jwk.contains_key("use") && !matches!(text("use"), Some("sig" | "jwt-svid")) {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops")
        && !operations.as_array()?.iter().any(|operation| operation == "verify")
    {
        return None;
    }
    let of_type = |names: &[Algorithm]| accepted.iter().copied().find(|a| names.contains(a));
    let possible = match (text("kty")?, text("crv")) {
        ("RSA", _) => of_type(&[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]),
        ("EC", Some("P-256")) => of_type(&[Algorithm::ES256]),
        ("EC", Some("P-384")) => of_type(&[Algorithm::ES384]),
        ("OKP", Some("Ed25519")) => of_type(&[Algorithm::EdDSA]),
        _ => None,
    }?;
    let algorithm = match jwk.get("alg") {
        None => possible,
        Some(alg) => {
            let named = super::jws::verifiable(alg.as_str()?)?;
            let fits = named == possible || (is_rsa(named) && is_rsa(possible));
            Some(named).filter(|named| fits && accepted.contains(named))?
        }
    };
    // Nothing else in it can make it unreadable.
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    match algorithm {
        Algorithm::EdDSA => PublicKey::on_curve(algorithm, &bytes("x")?),
        Algorithm::ES256 | Algorithm::ES384 => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            // SEC 1 section 2.3.3; two halves of a wrong length (RFC 7518 section 6.2.1.2) would make another point.
            if x.len() == y.len() { PublicKey::on_curve(algorithm, &[&[4], x.as_slice(), y.as_slice()].concat()) } else { None }
        }
        _ => PublicKey::rsa(algorithm, &bytes("n")?, &bytes("e")?),
    }
}

const fn is_rsa(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ALL: [Algorithm; 4] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

    /// RFC 8037 appendix A.2.
    fn ed25519(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": kid})
    }

    /// RFC 7517 appendix A.1.
    fn p256(kid: &str) -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "kid": kid})
    }

    fn parse(keys: impl serde::Serialize) -> Result<KeySet, JwksError> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), &ALL)
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    #[test]
    fn a_key_is_used_with_one_algorithm() {
        let set =
            parse(json!([ed25519("a"), with(p256("b"), "use", json!("jwt-svid")), with(ed25519("c"), "alg", json!("Ed25519"))]))
                .expect("a set");
        assert_eq!(set.kids(), ["a", "b", "c"]);
        assert_eq!(set.get("a").expect("a key").algorithm(), Algorithm::EdDSA);
        assert_eq!(set.get("b").expect("a key").algorithm(), Algorithm::ES256);
        let rsa = |alg: Option<&str>, accepted: &[Algorithm]| {
            let mut key = json!({"kty": "RSA", "kid": "r", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"});
            if let Some(alg) = alg {
                key["alg"] = json!(alg);
            }
            KeySet::parse(json!({"keys": [key]}).to_string().as_bytes(), accepted).map(|set| set.get("r").expect("r").algorithm())
        };
        assert_eq!(rsa(None, &ALL), Ok(Algorithm::RS256));
        assert_eq!(rsa(None, &[Algorithm::ES256, Algorithm::RS512, Algorithm::RS256]), Ok(Algorithm::RS512));
        assert_eq!(rsa(Some("RS384"), &[Algorithm::RS256, Algorithm::RS384]), Ok(Algorithm::RS384));
        for refused in ["RS384", "PS256", "ES256", "HS256", "none", "RSA-OAEP"] {
            assert_eq!(rsa(Some(refused), &ALL), Err(JwksError::Empty), "{refused}");
        }
        assert_eq!(rsa(None, &[Algorithm::ES256]), Err(JwksError::Empty));
    }

    #[test]
    fn f12_what_shows_a_secret_or_says_two_things_is_not_used_in_part() {
        for member in ["d", "k", "p", "q"] {
            assert_eq!(
                parse(json!([ed25519("a"), with(ed25519("b"), member, json!("AA"))])).err(),
                Some(JwksError::Private),
                "{member}"
            );
        }
        assert_eq!(parse(json!([{"kty": "oct", "k": "AA", "kid": "b"}, ed25519("a")])).err(), Some(JwksError::Private));
        assert_eq!(parse(json!([ed25519("a"), p256("a")])).err(), Some(JwksError::Ambiguous));
        let many: Vec<Value> = (0..=KEYS_MAX).map(|n| ed25519(&n.to_string())).collect();
        assert_eq!(parse(json!(many)).err(), Some(JwksError::TooMany));
        assert_eq!(KeySet::parse(&vec![b' '; JWKS_MAX + 1], &ALL).err(), Some(JwksError::TooLong));
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[7]}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
            assert_eq!(KeySet::parse(bad.as_bytes(), &ALL).err(), Some(JwksError::Malformed), "{bad}");
        }
    }

    #[test]
    fn f12_a_key_that_is_not_for_signatures_is_left_out() {
        for other in [
            with(ed25519("b"), "use", json!("enc")),
            with(ed25519("b"), "use", json!(7)),
            with(ed25519("b"), "use", json!("x509-svid")),
            with(ed25519("b"), "key_ops", json!(["sign"])),
            with(ed25519("b"), "key_ops", json!("verify")),
            with(ed25519("b"), "crv", json!("Ed448")),
            with(ed25519("b"), "alg", json!("ES256")),
            with(ed25519("b"), "alg", json!(null)),
            with(ed25519("b"), "kid", json!("")),
            with(ed25519("b"), "kid", json!("a b")),
            with(ed25519("b"), "kid", json!("k".repeat(129))),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "b"}),
        ] {
            let alone = parse(json!([other]));
            let beside = parse(json!([ed25519("a"), other])).expect("a set").kids();
            // A key of the wrong length may be kept: no signature verifies under it.
            assert!(alone.is_err() || other["x"] == "AA", "{other}");
            assert!(beside == ["a"] || other["x"] == "AA", "{other}");
        }
        assert_eq!(parse(json!([])).err(), Some(JwksError::Empty));
    }
}
