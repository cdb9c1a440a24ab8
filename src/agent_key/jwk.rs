//! A public key as JWK (RFC 7517, RFC 8037 section 2).

use super::AgentKeyError;
use crate::json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The members that hold secrets, of every kind of key (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1, RFC 8037 section 2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The 32 bytes of the key in `text`. Members that are not about what the key is for, such as `kid`, are left alone (RFC 7517
/// section 4).
pub(super) fn public_key(text: &str) -> Result<[u8; 32], AgentKeyError> {
    let jwk = json::parse_object(text.as_bytes()).map_err(|error| {
        // Half a private key has leaked as much as a whole one. The parser's errors hold a position and never any of the text.
        if text.contains("\"d\"") { AgentKeyError::PrivateKey } else { AgentKeyError::MalformedJwk(error.to_string()) }
    })?;
    if !text.ends_with('}') {
        return Err(AgentKeyError::MalformedJwk("something stands behind it; only one line break may".to_owned()));
    }
    of_members(&jwk)
}

/// The same of a JWK that stands in something else.
pub(super) fn of_members(jwk: &Map<String, Value>) -> Result<[u8; 32], AgentKeyError> {
    if has_private_member(jwk) {
        return Err(AgentKeyError::PrivateKey);
    }
    if let Some(keys) = jwk.get("keys") {
        let private = keys.as_array().into_iter().flatten().filter_map(Value::as_object).any(has_private_member);
        return Err(if private { AgentKeyError::PrivateKey } else { AgentKeyError::KeySet });
    }
    let member = |name: &str| jwk.get(name).map(|value| value.as_str().unwrap_or_default());
    match (member("kty"), member("crv")) {
        (Some("OKP"), Some("Ed25519")) => {}
        (Some("OKP"), Some("Ed448")) => return Err(AgentKeyError::NotEd25519("Ed448")),
        (Some("OKP"), Some("X25519")) => return Err(AgentKeyError::NotEd25519("X25519")),
        (Some("OKP"), Some("X448")) => return Err(AgentKeyError::NotEd25519("X448")),
        (Some("EC"), _) => return Err(AgentKeyError::NotEd25519("EC")),
        (Some("RSA"), _) => return Err(AgentKeyError::NotEd25519("RSA")),
        _ => return Err(AgentKeyError::NotEd25519("unknown ('kty' must be 'OKP' and 'crv' 'Ed25519')")),
    }
    if !matches!(member("use"), None | Some("sig")) {
        return Err(AgentKeyError::Use);
    }
    if !matches!(member("alg"), None | Some("EdDSA" | "Ed25519")) {
        return Err(AgentKeyError::Algorithm);
    }
    if !jwk.get("key_ops").is_none_or(may_verify) {
        return Err(AgentKeyError::Operations);
    }
    let x = URL_SAFE_NO_PAD.decode(member("x").unwrap_or_default()).map_err(|_| AgentKeyError::Coordinate)?;
    x.try_into().map_err(|_| AgentKeyError::Coordinate)
}

/// Whether a JWK shows what only its owner may know.
pub(crate) fn has_private_member(jwk: &Map<String, Value>) -> bool {
    PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name))
}

/// Whether `key_ops` allows what we do with the key. It is a list of texts of which none occurs twice (RFC 7517 section 4.3).
fn may_verify(operations: &Value) -> bool {
    let names = operations.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(Some(names)) = names else { return false };
    names.contains(&"verify") && names.iter().collect::<HashSet<_>>().len() == names.len()
}
