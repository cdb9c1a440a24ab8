//! PEM (RFC 7468), read so that one key has as few forms as people's tools give it: one block, nothing around it.

use super::AgentKeyError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::ObjectIdentifier;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;

/// Characters in a line (RFC 7468 section 2).
const LINE: usize = 64;

/// One PEM block. Its content may be a private key, so it is wiped.
pub(super) struct Block<'a> {
    /// What stands behind BEGIN.
    pub(super) label: &'a str,
    /// The content.
    pub(super) der: Zeroizing<Vec<u8>>,
}

/// Reads `text`, whose last line has no line break any more.
pub(super) fn read(text: &str) -> Result<Block<'_>, AgentKeyError> {
    if text.matches("-----BEGIN ").count() > 1 {
        return Err(AgentKeyError::SeveralBlocks);
    }
    let rest = text.strip_prefix("-----BEGIN ").ok_or(AgentKeyError::TextAroundPem)?;
    let mut lines = rest.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let label = lines.next().and_then(|line| line.strip_suffix("-----")).ok_or(AgentKeyError::MalformedPem)?;
    let mut base64 = Zeroizing::new(String::with_capacity(text.len()));
    let mut short_line = false;
    loop {
        let line = lines.next().ok_or(AgentKeyError::MalformedPem)?;
        if let Some(end) = line.strip_prefix("-----END ") {
            if end.strip_suffix("-----") != Some(label) {
                return Err(AgentKeyError::MalformedPem);
            }
            break;
        }
        // Only the last line may be short.
        if short_line || line.is_empty() || line.len() > LINE {
            return Err(AgentKeyError::MalformedPem);
        }
        short_line = line.len() < LINE;
        base64.push_str(line);
    }
    if lines.next().is_some() {
        return Err(AgentKeyError::TextAroundPem);
    }
    let der = STANDARD.decode(base64.as_bytes()).map_err(|_| AgentKeyError::MalformedPem)?;
    Ok(Block { label, der: Zeroizing::new(der) })
}

/// Writes `der` as a block with a line break at its end.
pub(super) fn write(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    // Enough room at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(base64.len() * 2 + 2 * label.len() + 64));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for (at, character) in base64.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The name of a key's algorithm, for people.
pub(super) fn algorithm(oid: &ObjectIdentifier) -> &'static str {
    match oid.to_string().as_str() {
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "1.3.101.110" => "X25519",
        "1.3.101.111" => "X448",
        "1.2.840.10045.2.1" => "EC",
        "1.2.840.113549.1.1.1" => "RSA",
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        _ => "unknown",
    }
}
