//! `countersign assert`: a client assertion (RFC 7523 section 2.2), by which an agent that has no library for it proves who it is.

use super::keygen::kid;
use super::{CliError, private_file};
use crate::agent_key::{AgentSecretKey, SecretKeyError};
use crate::config::issuer;
use crate::grammar::AgentId;
use crate::token;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// The `typ` of a client assertion.
pub const ASSERTION_TYPE: &str = "client-authentication+jwt";
/// Longest life of an assertion, in seconds. The token service accepts none that lives longer.
pub const ASSERTION_LIFETIME_MAX: u64 = 60;

/// Flags of `assert`.
#[derive(Debug, Args)]
pub struct AssertArgs {
    /// The file with the private key, PKCS#8 PEM. Nobody but its owner may have the right to read or write it.
    #[arg(long, value_name = "FILE")]
    pub private_key: PathBuf,
    /// The agent: agent:<namespace>/<name>.
    #[arg(long, value_name = "AGENT", value_parser = client_id)]
    pub client_id: AgentId,
    /// The issuer's URL of the token service, exactly as it calls itself.
    #[arg(long, value_name = "URL", value_parser = issuer)]
    pub issuer: String,
    /// The key's name within the Agent. Without it the token service tries all of them.
    #[arg(long, value_parser = kid, allow_hyphen_values = true)]
    pub kid: Option<String>,
    /// How long the assertion lives, 1s to 60s. It is good for one request.
    #[arg(long, default_value = "60s", value_parser = lifetime)]
    pub lifetime: u64,
}

/// Signs an assertion at `now`, in seconds since the epoch.
///
/// # Errors
/// A [`CliError`] if the key cannot be had, or others may have it.
pub fn run(args: &AssertArgs, now: u64) -> Result<String, CliError> {
    let key = private_file::read_key(&args.private_key)?;
    let jti = token::new_id().map_err(|_| SecretKeyError::Random)?;
    Ok(sign(&key, args, &jti, now))
}

fn sign(key: &AgentSecretKey, args: &AssertArgs, jti: &str, now: u64) -> String {
    let header = match &args.kid {
        Some(kid) => json!({"alg": "EdDSA", "typ": ASSERTION_TYPE, "kid": kid}),
        None => json!({"alg": "EdDSA", "typ": ASSERTION_TYPE}),
    };
    let agent = args.client_id.to_string();
    let claims =
        json!({"iss": agent, "sub": agent, "aud": args.issuer, "iat": now, "exp": now.saturating_add(args.lifetime), "jti": jti});
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn client_id(text: &str) -> Result<AgentId, String> {
    AgentId::parse(text).map_err(|error| error.to_string())
}

fn lifetime(text: &str) -> Result<u64, String> {
    match text.strip_suffix('s').and_then(|seconds| seconds.parse().ok()) {
        Some(seconds @ 1..=ASSERTION_LIFETIME_MAX) => Ok(seconds),
        _ => Err("must be 1s to 60s: the token service accepts no assertion that lives longer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_lives_for_a_minute_at_most() {
        assert_eq!((lifetime("1s"), lifetime("60s")), (Ok(1), Ok(60)));
        for bad in ["", "s", "0s", "61s", "-1s", "60", "1m", "1.5s", "99999999999999999999s"] {
            assert!(lifetime(bad).is_err(), "{bad} was accepted");
        }
    }
}
