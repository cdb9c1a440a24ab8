//! A compact JWS (RFC 7515 section 3.1), read strictly before any key is looked at.

use crate::json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
pub const TOKEN_MAX: usize = 8 * 1024;
/// Longest `kid` that is looked up, in bytes.
const KID_MAX: usize = 128;

/// Why a token is no acceptable JWS. The text is for the record, never for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than [`TOKEN_MAX`].
    #[error("the token is longer than 8192 bytes")]
    TooLong,
    /// Not three parts of canonical, unpadded base64url.
    #[error("the token is no compact JWS of three base64url parts")]
    Shape,
    /// The header is no strict JSON object, or has a member that we do not honour.
    #[error("the token's header is malformed or has a member that is not accepted (only alg, kid and typ are)")]
    Header,
    /// `alg` is not one that we verify.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// The payload is no strict JSON object.
    #[error("the token's payload is no JSON object without duplicate members")]
    Payload,
    /// The signature does not verify under the key.
    #[error("the token's signature does not verify")]
    Signature,
}

/// A well-formed token whose signature has not been checked. Nothing in it is true yet: only `kid`, `alg` and `typ`
/// may be looked at, to find the key.
#[derive(Debug)]
pub struct Unverified<'a> {
    signed: &'a str,
    signature: &'a str,
    payload: Vec<u8>,
    /// `alg`, one of those that we verify.
    pub algorithm: Algorithm,
    /// `kid`, if present, at most 128 characters of printable ASCII.
    pub kid: Option<String>,
    /// `typ` in lower case without `application/`, if present (RFC 7515 section 4.1.9).
    pub typ: Option<String>,
}

/// The claims of a token whose signature was verified.
#[derive(Debug)]
pub struct Verified(Map<String, Value>);

impl<'a> Unverified<'a> {
    /// Reads `token`.
    ///
    /// # Errors
    /// A [`JwsError`] if it is not a compact JWS with a header of nothing but `alg`, `kid` and `typ`. So embedded keys
    /// (`jwk`, `x5c`), key addresses (`jku`, `x5u`), `crit`, `b64`, `zip` and every JWE are refused before anything is
    /// decoded, fetched or inflated (RFC 8725 sections 3.1, 3.3 and 3.10).
    pub fn parse(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > TOKEN_MAX {
            return Err(JwsError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::Shape);
        };
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(JwsError::Shape);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Shape);
        // The signature must be canonical too: two texts for one signature would be two tokens for one jti.
        decode(signature)?;
        let members = json::parse_object(&decode(header)?).map_err(|_| JwsError::Header)?;
        let (mut algorithm, mut kid, mut typ) = (None, None, None);
        for (name, value) in members {
            let Value::String(text) = value else { return Err(JwsError::Header) };
            match name.as_str() {
                "alg" => algorithm = Some(verifiable(&text).ok_or(JwsError::Algorithm)?),
                "kid" if (1..=KID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => kid = Some(text),
                "typ" if text.len() <= KID_MAX => {
                    let lower = text.to_ascii_lowercase();
                    typ = Some(lower.strip_prefix("application/").unwrap_or(&lower).to_owned());
                }
                _ => return Err(JwsError::Header),
            }
        }
        let signed = token.get(..header.len() + 1 + payload.len()).ok_or(JwsError::Shape)?;
        let payload = decode(payload)?;
        Ok(Self { signed, signature, payload, algorithm: algorithm.ok_or(JwsError::Header)?, kid, typ })
    }

    /// Checks the signature with `key`, which was registered for `algorithm` and is used for no other.
    ///
    /// # Errors
    /// A [`JwsError`] if the token names another algorithm, the signature does not verify, or the payload is no strict JSON object.
    pub fn verify(self, key: &DecodingKey, algorithm: Algorithm) -> Result<Verified, JwsError> {
        if self.algorithm != algorithm {
            return Err(JwsError::Algorithm);
        }
        match jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm) {
            Ok(true) => self.into_claims(),
            _ => Err(JwsError::Signature),
        }
    }

    /// The claims, for a token that somebody else has verified: the API server, by TokenReview.
    ///
    /// # Errors
    /// [`JwsError::Payload`] if the payload is no strict JSON object.
    pub fn into_claims(self) -> Result<Verified, JwsError> {
        json::parse_object(&self.payload).map(Verified).map_err(|_| JwsError::Payload)
    }
}

/// The algorithms that we verify. `none` and every HMAC are not among them, whatever the case (RFC 8725 section 3.1).
fn verifiable(alg: &str) -> Option<Algorithm> {
    match alg {
        "RS256" => Some(Algorithm::RS256),
        "RS384" => Some(Algorithm::RS384),
        "RS512" => Some(Algorithm::RS512),
        "ES256" => Some(Algorithm::ES256),
        "ES384" => Some(Algorithm::ES384),
        // RFC 9864 calls `Ed25519` what RFC 8037 called `EdDSA`; clients of both kinds exist.
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

impl Verified {
    /// The member `name` as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// The member `name` as a whole number of seconds since the epoch. Texts, fractions and negative numbers are not.
    #[must_use]
    pub fn seconds(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    /// The member `name`, whatever it is.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All members.
    #[must_use]
    pub const fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether `aud` names `audience`, be it a text or a list of texts (RFC 7519 section 4.1.3).
    #[must_use]
    pub fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => several.iter().all(Value::is_string) && several.iter().any(|a| a == audience),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_plain_token_is_read() {
        let token = token(r#"{"alg":"RS256","kid":"k1","typ":"application/AT+JWT"}"#, "{}");
        let unverified = Unverified::parse(&token).expect("well formed");
        assert_eq!(unverified.kid.as_deref(), Some("k1"));
        assert_eq!(unverified.typ.as_deref(), Some("at+jwt"));
    }

    #[test]
    fn j1_j2_no_unsigned_and_no_symmetric_algorithm_is_known() {
        for alg in ["none", "None", "nOnE", "", "HS256", "hs256", "rs256", "PS256", "ES512", "RSA-OAEP"] {
            let token = token(&format!(r#"{{"alg":"{alg}"}}"#), "{}");
            assert_eq!(Unverified::parse(&token).err(), Some(JwsError::Algorithm), "{alg}");
        }
        let unsigned = token(r#"{"alg":"RS256"}"#, "{}").replace("c2ln", "");
        assert_eq!(Unverified::parse(&unsigned).err(), Some(JwsError::Shape));
    }

    #[test]
    fn j4_j5_j6_j13_a_header_has_nothing_but_alg_kid_and_typ() {
        let long = format!(r#""kid":"{}""#, "k".repeat(4096));
        for member in [
            r#""jwk":{"kty":"OKP"}"#,
            r#""jku":"https://evil.example/jwks""#,
            r#""x5u":"http://169.254.169.254/""#,
            r#""x5c":["MII"]"#,
            r#""crit":["b64"]"#,
            r#""b64":false"#,
            r#""zip":"DEF""#,
            r#""enc":"A128GCM""#,
            r#""p2c":2147483648"#,
            r#""kid":"a\u0000b""#,
            r#""kid":"a\r\nb""#,
            r#""kid":"' OR 1=1--""#,
            r#""kid":7"#,
            r#""kid":"""#,
            &long,
            r#""alg":"RS256""#,
            r#""\u0061lg":"none""#,
        ] {
            let token = token(&format!(r#"{{"alg":"RS256",{member}}}"#), "{}");
            assert_eq!(Unverified::parse(&token).err(), Some(JwsError::Header), "{member}");
        }
    }

    #[test]
    fn j13_what_is_no_compact_jws_is_refused_by_its_shape() {
        let good = token(r#"{"alg":"RS256"}"#, "{}");
        let json_serialisation = r#"{"payload":"e30","signatures":[]}"#;
        for bad in [
            "",
            ".",
            "..",
            "a.b",
            "....",
            json_serialisation,
            &format!("{good}.x.y"),
            &format!("{good}="),
            &format!(" {good}"),
            &format!("{good}\n"),
            &good.replace('.', ".."),
        ] {
            assert!(Unverified::parse(bad).is_err(), "{bad} was accepted");
        }
        // 'c2ln' decodes to three bytes; 'c2lnYR' has stray bits behind its last byte.
        assert_eq!(Unverified::parse(&good.replace("c2ln", "c2lnYR")).err(), Some(JwsError::Shape));
        assert_eq!(Unverified::parse(&"a".repeat(TOKEN_MAX + 1)).err(), Some(JwsError::TooLong));
    }
}
