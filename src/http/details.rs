//! `authorization_details` (RFC 9396): the one operation that is asked for.

use super::error::Refusal;
use crate::agent::EXPIRATION_MAX;
use crate::grammar::{CapabilityName, GrammarError, Resource};
use crate::json;
use crate::operation::Parameters;
use crate::token::OPERATION_DETAILS;
use serde_json::{Map, Value};

/// What a client names.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) capability: CapabilityName,
    pub(super) resource: Option<Resource>,
    pub(super) parameters: Option<Parameters>,
    /// For whom the token will be.
    pub(super) audience: Option<String>,
    /// For how long it should live.
    pub(super) expiration_seconds: Option<u32>,
}

impl Details {
    /// Reads the parameter.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut details = only_object(text)?;
        let mut text = |name: &str| match details.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("{name} must be a text"))),
        };
        if text("type")?.as_deref() != Some(OPERATION_DETAILS) {
            return Err(invalid(format!("type must be {OPERATION_DETAILS}")));
        }
        let capability = text("capability")?.ok_or_else(|| invalid("capability is missing"))?;
        let (resource, audience) = (text("resource")?, text("audience")?);
        let parameters = match details.remove("parameters") {
            None => None,
            Some(Value::Object(members)) => Some(Parameters::parse(members).map_err(|e| invalid(e.to_string()))?),
            Some(_) => return Err(invalid("parameters must be an object")),
        };
        let expiration_seconds = match details.remove("expiration_seconds") {
            None => None,
            Some(value) => {
                let seconds = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=EXPIRATION_MAX).contains(n));
                Some(seconds.ok_or_else(|| invalid("expiration_seconds must be a whole number from 1 to 900"))?)
            }
        };
        if let Some(name) = details.keys().next() {
            let known = "type, capability, resource, parameters, audience and expiration_seconds";
            let shown: String = name.chars().take(64).collect();
            return Err(invalid(format!("{shown} is not a member of {OPERATION_DETAILS}, which has {known}")));
        }
        let malformed = |e: GrammarError| invalid(e.to_string());
        Ok(Self {
            capability: CapabilityName::parse(&capability).map_err(malformed)?,
            resource: resource.as_deref().map(Resource::parse).transpose().map_err(malformed)?,
            parameters,
            audience,
            expiration_seconds,
        })
    }
}

/// The one object in it (RFC 9396 section 2).
fn only_object(text: &str) -> Result<Map<String, Value>, Refusal> {
    let value = json::parse(text.as_bytes())
        .map_err(|error| invalid(format!("authorization_details is no JSON that can be read in one way only: {error}")))?;
    if let Some(number) = json::inexact_number(text) {
        let shown: String = number.chars().take(40).collect();
        return Err(invalid(format!("the number {shown} is one that not every reader of JSON holds exactly: send it as a text")));
    }
    match value {
        Value::Array(mut items) => match (items.pop(), items.is_empty()) {
            (Some(Value::Object(members)), true) => Ok(members),
            _ => Err(invalid("authorization_details must have exactly one object: one request is for one operation")),
        },
        _ => Err(invalid("authorization_details must be an array (RFC 9396 section 2)")),
    }
}

fn invalid(description: impl Into<String>) -> Refusal {
    Refusal::new("invalid_authorization_details", "authorization_details_malformed", description)
}
