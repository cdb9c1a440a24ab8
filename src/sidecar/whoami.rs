//! Which agent this is. Only the token service knows; where it has to be told (`login_hint`), it checks what it is told.

use crate::grammar::AgentId;
use crate::json::parse_object;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::sync::{Mutex, PoisonError};

/// The agent's name, as well as it is known.
#[derive(Debug, Default)]
pub(super) struct OwnName {
    given: Option<AgentId>,
    learned: Mutex<Option<AgentId>>,
}

impl OwnName {
    /// The name that was given, if one was.
    pub(super) fn new(given: Option<AgentId>) -> Self {
        Self { given, learned: Mutex::default() }
    }

    /// Takes the name from a token that was issued to us.
    pub(super) fn learn(&self, access_token: &str) {
        let name = claims(access_token).and_then(|claims| AgentId::parse(claims.get("client_id")?.as_str()?).ok());
        if name.is_some() {
            *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = name;
        }
    }

    /// The agent, to which this credential belongs. An agent that never got a token has, unless it was said, the name of its ServiceAccount.
    pub(super) fn of(&self, credential: &str) -> Option<AgentId> {
        let learned = || self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.given.clone().or_else(learned).or_else(|| service_account(credential))
    }
}

/// The issuer of the token service, as it calls itself: for whom the credential is, and nobody else.
pub(super) fn issuer(credential: &str) -> Option<String> {
    match claims(credential)?.get("aud")? {
        Value::String(one) => Some(one.clone()),
        Value::Array(list) => match list.as_slice() {
            [Value::String(one)] => Some(one.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn service_account(credential: &str) -> Option<AgentId> {
    let claims = claims(credential)?;
    let (namespace, name) = claims.get("sub")?.as_str()?.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    AgentId::parse_short(&format!("{namespace}/{name}")).ok()
}

/// What a token says. Its signature is not checked: nothing is decided by it.
fn claims(token: &str) -> Option<Map<String, Value>> {
    parse_object(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn an_agent_is_who_was_said_else_who_it_was_told_else_its_service_account() {
        let credential = token(&serde_json::json!({"sub": "system:serviceaccount:research:bot", "aud": ["https://us"]}));
        assert_eq!(issuer(&credential).as_deref(), Some("https://us"));
        for unclear in
            [serde_json::json!({"aud": ["https://us", "https://b"]}), serde_json::json!({"aud": []}), serde_json::json!({})]
        {
            assert_eq!(issuer(&token(&unclear)), None);
        }
        let issued = token(&serde_json::json!({"client_id": "agent:research/other", "sub": "user:alice"}));
        let shown = |name: &OwnName| name.of(&credential).map(|id| id.to_string());
        let name = OwnName::default();
        assert_eq!(shown(&name).as_deref(), Some("agent:research/bot"));
        for no_name in ["", "a.b", "a.b.c", &token(&serde_json::json!({"client_id": "user:alice"}))] {
            name.learn(no_name);
            assert_eq!(name.of(no_name), None);
        }
        name.learn(&issued);
        assert_eq!(shown(&name).as_deref(), Some("agent:research/other"));
        let given = OwnName::new(AgentId::parse("agent:a/b").ok());
        given.learn(&issued);
        assert_eq!(shown(&given).as_deref(), Some("agent:a/b"));
    }
}
