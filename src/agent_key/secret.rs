//! The private half of an agent's key. The operator never sees one; the command line makes them and signs with them.

use super::{AgentKey, AgentKeyError, KEY_TEXT_MAX, pem};
use ed25519_dalek::pkcs8::PrivateKeyInfoRef;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use ed25519_dalek::{Signer as _, SigningKey};
use std::fmt;

/// What stands before the 32 bytes of the key in PKCS#8, version 1 (RFC 8410 section 7). Version 2 also holds the public key, and
/// many tools do not read it.
pub(super) const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why a private key cannot be had. No variant holds any of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretKeyError {
    /// The operating system gives no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// Encrypted with a password.
    #[error("the private key is encrypted; decrypt it first (openssl pkey -in FILE -out OTHER)")]
    Encrypted,
    /// The public key, where the private one is wanted.
    #[error("this is the public key; signing needs the private key")]
    PublicKey,
    /// A key of another kind.
    #[error("this is a private key of the kind {0}; only Ed25519 keys are accepted (countersign keygen makes one)")]
    NotEd25519(&'static str),
    /// Something else.
    #[error("no Ed25519 private key in PKCS#8 PEM, which is one block that begins with '-----BEGIN PRIVATE KEY-----'")]
    Malformed,
    /// It holds a public key that is not its own.
    #[error("the public key in the file is not that of its private key")]
    Mismatch,
}

/// A private Ed25519 key of an agent. It is wiped from memory when it is dropped, and never shown.
pub struct AgentSecretKey(SigningKey);

impl fmt::Debug for AgentSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentSecretKey")
    }
}

impl AgentSecretKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`SecretKeyError::Random`].
    pub fn generate() -> Result<Self, SecretKeyError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| SecretKeyError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a key in PKCS#8 PEM (RFC 8410 section 7), as `countersign keygen` and `openssl genpkey` write it.
    ///
    /// # Errors
    /// A [`SecretKeyError`] that says what the text is instead.
    pub fn from_pem(text: &str) -> Result<Self, SecretKeyError> {
        if text.len() > KEY_TEXT_MAX {
            return Err(SecretKeyError::Malformed);
        }
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        let block = pem::read(text).map_err(|_: AgentKeyError| SecretKeyError::Malformed)?;
        match block.label {
            "PRIVATE KEY" => {}
            "ENCRYPTED PRIVATE KEY" => return Err(SecretKeyError::Encrypted),
            "PUBLIC KEY" => return Err(SecretKeyError::PublicKey),
            _ => return Err(SecretKeyError::Malformed),
        }
        let info = PrivateKeyInfoRef::try_from(block.der.as_slice()).map_err(|_| SecretKeyError::Malformed)?;
        match pem::algorithm(&info.algorithm.oid) {
            "Ed25519" => {}
            other => return Err(SecretKeyError::NotEd25519(other)),
        }
        // An octet string within an octet string (RFC 8410 section 7).
        let seed = match info.private_key.as_bytes() {
            [0x04, 0x20, seed @ ..] if info.algorithm.parameters.is_none() => <&[u8; 32]>::try_from(seed).ok(),
            _ => None,
        };
        let key = SigningKey::from_bytes(seed.ok_or(SecretKeyError::Malformed)?);
        match info.public_key {
            Some(public) if public.as_bytes() != Some(key.verifying_key().as_bytes().as_slice()) => Err(SecretKeyError::Mismatch),
            _ => Ok(Self(key)),
        }
    }

    /// The key in PKCS#8 PEM, version 1, with a line break at the end.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0u8; PKCS8_PREFIX.len() + 32]);
        let (prefix, seed) = der.split_at_mut(PKCS8_PREFIX.len());
        prefix.copy_from_slice(&PKCS8_PREFIX);
        seed.copy_from_slice(self.0.as_bytes());
        pem::write("PRIVATE KEY", der.as_slice())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> AgentKey {
        AgentKey::of(self.0.verifying_key())
    }

    /// Signs `message` (RFC 8032 section 5.1.6).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PEM, SMALL_ORDER, hex};
    use super::*;

    #[test]
    fn a_private_key_reads_back_as_it_was_written_and_is_never_shown() {
        let key = AgentSecretKey::generate().expect("a key");
        let pem = key.to_pem();
        let again = AgentSecretKey::from_pem(&pem).expect("a key");
        assert_eq!(again.public(), key.public());
        assert_eq!(*again.to_pem(), *pem);
        assert!(AgentSecretKey::from_pem(&pem.replace('\n', "\r\n")).is_ok());
        assert_eq!(format!("{key:?}"), "AgentSecretKey");
        assert_ne!(AgentSecretKey::generate().expect("a key").public(), key.public());
    }

    #[test]
    fn what_is_no_private_key_is_refused_by_what_it_is() {
        let seed = [7; 32];
        let private = |der: &[&[u8]]| pem::write("PRIVATE KEY", &der.concat()).to_string();
        let read = |text: &str| AgentSecretKey::from_pem(text).map(|key| key.public());
        let own = read(&private(&[&PKCS8_PREFIX, &seed])).expect("a key");
        // Version 2 holds the public key (RFC 5958 section 2).
        let v2 = hex("3051020101300506032b657004220420");
        let own_bytes = own.verifier.to_bytes();
        assert_eq!(read(&private(&[&v2, &seed, &hex("812100"), &own_bytes])), Ok(own));
        assert_eq!(read(&private(&[&v2, &seed, &hex("812100"), &SMALL_ORDER[4]])), Err(SecretKeyError::Mismatch));

        assert_eq!(read(PEM), Err(SecretKeyError::PublicKey));
        assert_eq!(read(&pem::write("ENCRYPTED PRIVATE KEY", &seed)), Err(SecretKeyError::Encrypted));
        for (oid, kind) in [("6e", "X25519"), ("71", "Ed448")] {
            let prefix = hex(&format!("302e020100300506032b65{oid}04220420"));
            assert_eq!(read(&private(&[&prefix, &seed])), Err(SecretKeyError::NotEd25519(kind)));
        }
        for bad in [
            String::new(),
            r#"{"kty":"OKP","crv":"Ed25519","d":"AA"}"#.to_owned(),
            private(&[]),
            private(&[&PKCS8_PREFIX, &seed, &[0]]),
            private(&[&hex("302d020100300506032b65700421041f"), &seed[..31]]),
            private(&[&hex("3030020100300706032b6570050004220420"), &seed]),
            pem::write("OPENSSH PRIVATE KEY", &seed).to_string(),
            private(&[&PKCS8_PREFIX, &seed]).repeat(2),
        ] {
            assert_eq!(read(&bad), Err(SecretKeyError::Malformed), "{bad}");
        }
    }
}
