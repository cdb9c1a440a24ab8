//! Keys that the test issuer signs with, one kind for each algorithm that real issuers use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use super::super::error::{Context, Error, Result};

/// A key pair and the name it is published under.
pub struct Key {
    /// `kid`.
    name: String,
    algorithm: Algorithm,
    private: EncodingKey,
    /// `kty` and the public members of the JWK (RFC 7517 section 4, RFC 8037 section 2), nothing else.
    public: Value,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// A new key for RS256, ES256, ES384 or EdDSA.
    pub fn generate(name: &str, algorithm: Algorithm) -> Result<Self> {
        let pair = match algorithm {
            Algorithm::RS256 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519),
            _ => return Err(Error::new(format!("the test issuer makes no keys for {algorithm:?}"))),
        };
        let pair = pair.context("cannot generate a key")?;
        let (der, raw) = (pair.serialize_der(), pair.public_key_raw());
        let (private, public) = match algorithm {
            Algorithm::RS256 => {
                let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).context("an RSA key")?;
                let public = rsa_members(&private)?;
                (private, public)
            }
            Algorithm::EdDSA => {
                (EncodingKey::from_ed_der(&der), json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(raw)}))
            }
            _ => (EncodingKey::from_ec_der(&der), ec_members(raw)?),
        };
        Ok(Self { name: name.to_owned(), algorithm, private, public })
    }

    /// `kid`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The one algorithm it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// As most issuers publish it: for signatures, with its algorithm.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = json!(self.name);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(format!("{:?}", self.algorithm));
        jwk
    }

    /// The signature of `text`, in base64url.
    pub fn sign(&self, text: &str) -> Result<String> {
        jsonwebtoken::crypto::sign(text.as_bytes(), &self.private, self.algorithm).context("cannot sign")
    }
}

fn rsa_members(private: &EncodingKey) -> Result<Value> {
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(private, Algorithm::RS256).context("an RSA key")?;
    let jwk = serde_json::to_value(jwk).context("a JWK")?;
    Ok(json!({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]}))
}

/// From the uncompressed point: 4, then x and y of equal length (SEC 1 section 2.3.3).
fn ec_members(point: &[u8]) -> Result<Value> {
    let coordinates = point.strip_prefix(&[4]).ok_or_else(|| Error::new("not an uncompressed point"))?;
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let curve = if x.len() == 32 { "P-256" } else { "P-384" };
    Ok(json!({"kty": "EC", "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}))
}
