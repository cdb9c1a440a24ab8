//! The envelope of a webhook: what lets a receiver tell that a message is ours, new, and whole (Standard Webhooks, section "Webhook
//! headers").

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};

/// The identifier of a message: the same each time that it is sent, so that a receiver handles it once.
pub const ID: &str = "webhook-id";
/// When it was sent, in seconds since the epoch.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The signatures.
pub const SIGNATURE: &str = "webhook-signature";

/// A secret with which messages are signed.
#[derive(Clone)]
pub enum Secret {
    /// Shared with the receiver: HMAC-SHA256.
    Shared(Box<hmac::Key>),
    /// Known to us alone: Ed25519.
    Private(Box<SigningKey>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads `whsec_…` (24 to 64 bytes in base64) or `whsk_…` (the 32 bytes of an Ed25519 key, or those and its public key).
    ///
    /// # Errors
    /// What is wrong with it, without any of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| "is not base64 behind its prefix");
        if let Some(text) = text.strip_prefix("whsec_") {
            let bytes = decode(text)?;
            return match bytes.len() {
                24..=64 => Ok(Self::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))),
                _ => Err("must have 24 to 64 bytes behind whsec_"),
            };
        }
        let Some(text) = text.strip_prefix("whsk_") else { return Err("must begin with whsec_ (HMAC) or whsk_ (Ed25519)") };
        let bytes = decode(text)?;
        let key = match <[u8; 64]>::try_from(bytes.as_slice()) {
            Ok(pair) => {
                SigningKey::from_keypair_bytes(&pair).map_err(|_| "has a public key that is not that of its private key")?
            }
            Err(_) => {
                let seed = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| "must have 32 or 64 bytes behind whsk_")?;
                SigningKey::from_bytes(&seed)
            }
        };
        Ok(Self::Private(Box::new(key)))
    }

    fn sign(&self, text: &[u8]) -> String {
        match self {
            Self::Shared(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, text))),
            Self::Private(key) => format!("v1a,{}", STANDARD.encode(key.sign(text).to_bytes())),
        }
    }
}

/// The value of the header with the signatures of a message, one by each secret: while one is replaced, both.
#[must_use]
pub fn signatures(secrets: &[Secret], id: &str, timestamp: i64, body: &str) -> String {
    let text = format!("{id}.{timestamp}.{body}");
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(text.as_bytes())).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_standard_says() {
        // The example of the specification's libraries.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signed = signatures(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_private_key_signs_what_its_public_key_verifies() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let both = format!("whsk_{}", STANDARD.encode(key.to_keypair_bytes()));
        let seed = format!("whsk_{}", STANDARD.encode([7; 32]));
        for text in [both, seed] {
            let signed = signatures(&[Secret::parse(&text).expect("a key")], "id", 1, "{}");
            let bytes = STANDARD.decode(signed.strip_prefix("v1a,").expect("asymmetric")).expect("base64");
            let signature = ed25519_dalek::Signature::from_slice(&bytes).expect("a signature");
            assert!(key.verifying_key().verify_strict(b"id.1.{}", &signature).is_ok());
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_repeating_it() {
        let short = format!("whsec_{}", STANDARD.encode([1; 23]));
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        let mut pair = SigningKey::from_bytes(&[7; 32]).to_keypair_bytes();
        pair[40] ^= 1;
        let mixed = format!("whsk_{}", STANDARD.encode(pair));
        for bad in ["", "secret", "whsec_", "whsec_%%%", "whsk_AAAA", "whpk_AAAA", &short, &long, &mixed] {
            let why = Secret::parse(bad).expect_err(bad);
            assert!(bad.len() < 8 || !why.contains(bad), "{why}");
        }
    }
}
