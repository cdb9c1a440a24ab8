//! A compact JWS (RFC 7515 section 3.1), read strictly before any key is looked at.

use crate::agent_key::AgentKey;
use crate::json;
use crate::public_key::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
pub const TOKEN_MAX: usize = 8 * 1024;
/// Longest `kid` that is looked up, in bytes.
const KID_MAX: usize = 128;
/// Longest `jti` of what counts once, in bytes.
const JTI_MAX: usize = 128;

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
    #[error("the token's header is malformed or has a member that is not accepted (only alg, kid, typ and x5t are)")]
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

/// A well-formed token whose signature has not been checked. Nothing in it is true yet: only `kid`, `alg`, `typ`, and who it says to be
/// from, may be looked at, to find the key.
#[derive(Debug)]
pub struct Unverified<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    claims: Verified,
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
    /// A [`JwsError`] if it is not a compact JWS with a header of nothing but `alg`, `kid`, `typ` and `x5t`, or its payload is no strict JSON
    /// object. So embedded keys (`jwk`, `x5c`), key addresses (`jku`, `x5u`), `crit`, `b64`, `zip` and every JWE are refused before
    /// anything is decoded, fetched or inflated (RFC 8725 sections 3.1, 3.3 and 3.10).
    pub fn parse(token: &'a str) -> Result<Self, JwsError> {
        Self::read(token, None)
    }

    /// Reads a token that brings its own key, and returns the members of that `jwk` too. Only what proves possession of a key does
    /// (RFC 9449 section 4.2): everywhere else an embedded key is somebody's attempt to be believed.
    ///
    /// # Errors
    /// As [`Self::parse`], and if there is no `jwk`.
    pub fn parse_with_key(token: &'a str) -> Result<(Self, Map<String, Value>), JwsError> {
        let mut jwk = None;
        let unverified = Self::read(token, Some(&mut jwk))?;
        Ok((unverified, jwk.ok_or(JwsError::Header)?))
    }

    fn read(token: &'a str, mut jwk: Option<&mut Option<Map<String, Value>>>) -> Result<Self, JwsError> {
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
        let signature = decode(signature)?;
        let members = json::parse_object(&decode(header)?).map_err(|_| JwsError::Header)?;
        let (mut algorithm, mut kid, mut typ) = (None, None, None);
        for (name, value) in members {
            let text = match (value, jwk.as_deref_mut()) {
                (Value::String(text), _) => text,
                (Value::Object(members), Some(jwk)) if name == "jwk" => {
                    *jwk = Some(members);
                    continue;
                }
                _ => return Err(JwsError::Header),
            };
            match name.as_str() {
                "alg" => algorithm = Some(verifiable(&text).ok_or(JwsError::Algorithm)?),
                "kid" if (1..=KID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => kid = Some(text),
                "typ" if text.len() <= KID_MAX => {
                    let lower = text.to_ascii_lowercase();
                    typ = Some(lower.strip_prefix("application/").unwrap_or(&lower).to_owned());
                }
                // Microsoft's issuers send it. It only repeats which certificate the key has, and nobody looks at it.
                "x5t" | "x5t#S256" if text.len() <= KID_MAX => {}
                _ => return Err(JwsError::Header),
            }
        }
        let algorithm = algorithm.ok_or(JwsError::Header)?;
        let signed = token.get(..header.len() + 1 + payload.len()).ok_or(JwsError::Shape)?;
        let claims = json::parse_object(&decode(payload)?).map(Verified).map_err(|_| JwsError::Payload)?;
        Ok(Self { signed, signature, claims, algorithm, kid, typ })
    }

    /// Who the token says to be from (`iss`). It is no more than a claim until a key of that issuer has verified the signature.
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.text("iss")
    }

    /// Of whom the token says to be (`sub`), as little true as its issuer.
    #[must_use]
    pub fn claimed_subject(&self) -> Option<&str> {
        self.claims.text("sub")
    }

    /// Whether the token says at all who it is from.
    #[must_use]
    pub fn names_issuer(&self) -> bool {
        self.claims.get("iss").is_some()
    }

    /// Checks the signature with `key`.
    ///
    /// # Errors
    /// A [`JwsError`] if the token names another algorithm than that of the key, or the signature does not verify.
    pub fn verify(self, key: &PublicKey) -> Result<Verified, JwsError> {
        self.verify_by(key.algorithm(), |message, signature| key.verifies(message, signature))
    }

    /// The same with a key that is not remembered, because it came with the token.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_once(self, key: &PublicKey) -> Result<Verified, JwsError> {
        self.verify_by(key.algorithm(), |message, signature| key.verifies_once(message, signature))
    }

    fn verify_by(self, algorithm: Algorithm, verifies: impl FnOnce(&[u8], &[u8]) -> bool) -> Result<Verified, JwsError> {
        if self.algorithm != algorithm {
            return Err(JwsError::Algorithm);
        }
        if verifies(self.signed.as_bytes(), &self.signature) { Ok(self.claims) } else { Err(JwsError::Signature) }
    }

    /// Checks the signature with the first of an agent's keys that verifies it, and says which; strictly, so that there is one signature
    /// for one message and key.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_with_one_of<'k>(self, keys: &[&'k AgentKey]) -> Result<(Verified, &'k AgentKey), JwsError> {
        if self.algorithm != Algorithm::EdDSA {
            return Err(JwsError::Algorithm);
        }
        let key = keys.iter().find(|key| key.verify(self.signed.as_bytes(), &self.signature)).ok_or(JwsError::Signature)?;
        Ok((self.claims, key))
    }

    /// The claims, for a token that somebody else has verified: the API server, by TokenReview; or of which nothing is believed.
    #[must_use]
    pub fn into_claims(self) -> Verified {
        self.claims
    }
}

/// The algorithms that we verify. `none` and every HMAC are not among them, whatever the case (RFC 8725 section 3.1).
pub(super) fn verifiable(alg: &str) -> Option<Algorithm> {
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

    /// Its identifier (`jti`), if it is one that can be remembered: 1 to 128 printable ASCII characters.
    #[must_use]
    pub fn identifier(&self) -> Option<&str> {
        self.text("jti").filter(|jti| (1..=JTI_MAX).contains(&jti.len()) && jti.bytes().all(|b| (b' '..=b'~').contains(&b)))
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

    /// The claims of a token in a test.
    #[cfg(test)]
    pub(crate) fn for_test(claims: Value) -> Self {
        match claims {
            Value::Object(members) => Self(members),
            _ => Self(Map::new()),
        }
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

    /// Everything that `aud` names.
    #[must_use]
    pub fn audiences(&self) -> Vec<String> {
        match self.0.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
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
        assert!(!unverified.names_issuer() && unverified.claimed_subject().is_none());
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
    fn j4_j5_j6_j13_a_header_has_nothing_but_alg_kid_typ_and_x5t() {
        let entra =
            token(r#"{"typ":"JWT","alg":"RS256","x5t":"L1KfKFI_jnXbwWc22xZxw1sUHH0","kid":"L1KfKFI_jnXbwWc22xZxw1sUHH0"}"#, "{}");
        assert!(Unverified::parse(&entra).is_ok());
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
            r#""x5t":["a"]"#,
            r#""cty":"JWT""#,
            r#""kid":7"#,
            r#""kid":"""#,
            &long,
            r#""alg":"RS256""#,
            r#""\u0061lg":"none""#,
        ] {
            let token = token(&format!(r#"{{"alg":"RS256",{member}}}"#), "{}");
            assert_eq!(Unverified::parse(&token).err(), Some(JwsError::Header), "{member}");
            let brings_key = Unverified::parse_with_key(&token);
            assert_eq!(brings_key.is_ok(), member.starts_with(r#""jwk":{"#), "{member}");
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
