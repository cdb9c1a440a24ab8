//! The key that a proof brings along, and its thumbprint.

use crate::agent_key::{AgentKey, has_private_member};
use crate::identity::jwks;
use crate::public_key::PublicKey;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

/// Longest member of a key that is read, in characters: the modulus of an RSA key of 4,096 bits. Strangers choose these keys, and each
/// bit of one costs time.
const MEMBER_MAX: usize = 683;

/// A key that came with a proof.
pub(super) enum Key {
    /// Read as strictly as a key of an agent.
    Ed25519(AgentKey),
    /// Another, and its thumbprint.
    Other(PublicKey, String),
}

impl Key {
    /// Reads a JWK that is used with `algorithm`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(jwk: &Map<String, Value>, algorithm: Algorithm) -> Result<Self, &'static str> {
        if has_private_member(jwk) {
            return Err(
                "jwk shows a private or symmetric key: whoever has read the proof can sign with it, so it is worthless now",
            );
        }
        let unusable = "jwk is no public key for signatures of the algorithm in alg";
        if algorithm == Algorithm::EdDSA {
            return AgentKey::of_jwk(jwk).map(Self::Ed25519).map_err(|_| unusable);
        }
        let thumbprint = thumbprint(jwk).ok_or(unusable)?;
        let key = jwks::public_key(jwk, &[algorithm]).ok_or(unusable)?;
        Ok(Self::Other(key, thumbprint))
    }

    pub(super) fn thumbprint(&self) -> &str {
        match self {
            Self::Ed25519(key) => key.thumbprint(),
            Self::Other(_, thumbprint) => thumbprint,
        }
    }
}

/// The thumbprint of an EC or RSA key (RFC 7638 section 3.2). One key has one: whatever is not the only text for a number is refused.
fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let member = |name: &str| {
        let encoded = text(name).filter(|encoded| encoded.len() <= MEMBER_MAX)?;
        Some((encoded, URL_SAFE_NO_PAD.decode(encoded).ok()?))
    };
    let members = match text("kty")? {
        "EC" => {
            let curve = text("crv").filter(|curve| matches!(*curve, "P-256" | "P-384"))?;
            let ((x, _), (y, _)) = (member("x")?, member("y")?);
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
        }
        "RSA" => {
            let ((e, exponent), (n, modulus)) = (member("e")?, member("n")?);
            // RFC 7518 section 6.3.1.1: no octet more than it takes.
            if [exponent, modulus].iter().any(|number| number.first().is_none_or(|first| *first == 0)) {
                return None;
            }
            format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
        }
        _ => return None,
    };
    Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(jwk: &Value, algorithm: Algorithm) -> Result<Key, &'static str> {
        Key::parse(jwk.as_object().expect("an object"), algorithm)
    }

    /// RFC 7638 section 3.1.
    fn rsa() -> Value {
        json!({"kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29", "n":
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"})
    }

    /// RFC 9449 section 4.1.
    fn p256() -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"})
    }

    #[test]
    fn a_thumbprint_is_that_of_the_standards() {
        for (jwk, algorithm, thumbprint) in [
            (rsa(), Algorithm::RS256, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
            // RFC 9449 section 6.1.
            (p256(), Algorithm::ES256, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"),
            // RFC 8037 appendix A.3.
            (
                json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                Algorithm::EdDSA,
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ] {
            assert_eq!(parse(&jwk, algorithm).map(|key| key.thumbprint().to_owned()), Ok(thumbprint.to_owned()));
        }
    }

    #[test]
    fn j3_a_key_that_is_private_weak_of_another_kind_or_written_in_a_second_way_is_none() {
        let with = |mut jwk: Value, name: &str, value: &str| {
            jwk[name] = json!(value);
            jwk
        };
        let point = || with(p256(), "x", "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFt");
        let small = "AM7qjYuOyHhjSgvcHHb0yCBTlwhgBw_j5fX9E5vyMmVY-8hGfWcQbXvV4Bvz6n7l0EiZFmXr5nzxEQ";
        for (jwk, algorithm) in [
            (with(p256(), "d", "AA"), Algorithm::ES256),
            (with(rsa(), "p", "AA"), Algorithm::RS256),
            (json!({"kty": "oct", "k": "AA"}), Algorithm::ES256),
            (json!({"kty": "oct"}), Algorithm::ES256),
            (json!({}), Algorithm::ES256),
            (p256(), Algorithm::ES384),
            (p256(), Algorithm::EdDSA),
            (p256(), Algorithm::RS256),
            (rsa(), Algorithm::ES256),
            (rsa(), Algorithm::RS512),
            (point(), Algorithm::ES256),
            (with(p256(), "x", ""), Algorithm::ES256),
            (with(p256(), "crv", "P-384"), Algorithm::ES256),
            (with(p256(), "use", "enc"), Algorithm::ES256),
            (with(p256(), "alg", "HS256"), Algorithm::ES256),
            (with(rsa(), "n", &format!("AA{}", rsa()["n"].as_str().expect("a text"))), Algorithm::RS256),
            (with(rsa(), "e", "AAEAAQ"), Algorithm::RS256),
            (with(rsa(), "n", &"_".repeat(684)), Algorithm::RS256),
            (with(rsa(), "n", small), Algorithm::RS256),
            // The neutral element: under it everybody has signed everything.
            (json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}), Algorithm::EdDSA),
        ] {
            let verifies = match parse(&jwk, algorithm) {
                Ok(Key::Other(key, _)) => key.verifies_once(b"m", &[0; 64]),
                Ok(Key::Ed25519(_)) => true,
                Err(_) => false,
            };
            assert!(!verifies, "{jwk}");
            assert!(parse(&jwk, algorithm).is_err() || jwk["n"] == small, "{jwk}");
        }
    }
}
