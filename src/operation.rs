//! One operation that a person may approve, parsed once: from a request to the token service and from a stored object alike.

use crate::crd::OperationSpec;
use crate::grammar::{Audience, CapabilityName, GrammarError, Resource};
use crate::json;
use crate::readable::is_invisible;
use serde_json::{Map, Value};

/// Longest canonical text of the parameters, in bytes: the token that carries them stays below 8 KiB.
pub const PARAMETERS_MAX: usize = 4096;
/// How deep parameters may nest, themselves counted.
pub const DEPTH_MAX: usize = 8;
/// Longest name of a parameter, in bytes.
const NAME_MAX: usize = 64;

/// What exactly is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The capability.
    pub capability: CapabilityName,
    /// On what.
    pub resource: Option<Resource>,
    /// With what.
    pub parameters: Option<Parameters>,
    /// For whom the token will be.
    pub audience: Audience,
}

/// The parameters of an operation: what a person reads is what a program will read.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters(Map<String, Value>);

/// Why an operation is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOperation {
    /// A name is not as it must be.
    #[error(transparent)]
    Name(#[from] GrammarError),
    /// The parameters are not.
    #[error("parameters {0}")]
    Parameters(String),
}

impl Operation {
    /// Parses what a stored object says.
    ///
    /// # Errors
    /// An [`InvalidOperation`] that says what to change.
    pub fn parse(spec: &OperationSpec) -> Result<Self, InvalidOperation> {
        Ok(Self {
            capability: CapabilityName::parse(&spec.capability)?,
            resource: spec.resource.as_deref().map(Resource::parse).transpose()?,
            parameters: spec.parameters.clone().map(Parameters::parse).transpose()?,
            audience: Audience::parse(&spec.audience)?,
        })
    }

    /// As it is stored.
    #[must_use]
    pub fn to_spec(&self) -> OperationSpec {
        OperationSpec {
            capability: self.capability.as_str().to_owned(),
            resource: self.resource.as_ref().map(|r| r.as_str().to_owned()),
            parameters: self.parameters.as_ref().map(|p| p.0.clone()),
            audience: self.audience.as_str().to_owned(),
        }
    }

    /// What it is about, for one line of text.
    #[must_use]
    pub fn headline(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{} on {}", self.capability, resource.as_str()),
            None => self.capability.to_string(),
        }
    }
}

impl Parameters {
    /// Checks what can be checked without the capability's own schema.
    ///
    /// # Errors
    /// If a name is not ASCII (two names that look alike would be two parameters), a number is one that not every reader of JSON
    /// holds exactly, a text has characters that change how it is shown, or it all is too deep or too long.
    pub fn parse(members: Map<String, Value>) -> Result<Self, InvalidOperation> {
        let value = Value::Object(members);
        check(&value, DEPTH_MAX).map_err(InvalidOperation::Parameters)?;
        let length = json::canonical(&value).map_or(usize::MAX, |text| text.len());
        match value {
            Value::Object(members) if length <= PARAMETERS_MAX => Ok(Self(members)),
            _ => Err(InvalidOperation::Parameters(format!("are longer than {PARAMETERS_MAX} bytes"))),
        }
    }

    /// The members.
    #[must_use]
    pub const fn members(&self) -> &Map<String, Value> {
        &self.0
    }
}

fn check(value: &Value, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else { return Err(format!("nest deeper than {DEPTH_MAX} levels")) };
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) if json::is_safe(number) => Ok(()),
        Value::Number(number) => {
            Err(format!("have the number {number}, which not every reader of JSON holds exactly: send it as a text"))
        }
        Value::String(text) => check_text(text),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth)),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
                return Err(format!("have a name that is not 1 to {NAME_MAX} ASCII letters, digits, '_', '-' and '.'"));
            }
            check(member, depth)
        }),
    }
}

/// Texts are shown to whoever approves: nothing in them may hide or reorder the rest.
fn check_text(text: &str) -> Result<(), String> {
    if text.chars().any(|c| c.is_control() || is_invisible(c)) {
        return Err("have a text with control, invisible or text-direction characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Parameters, InvalidOperation> {
        match value {
            Value::Object(members) => Parameters::parse(members),
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn parameters_are_what_a_person_can_read() {
        for good in [
            json!({}),
            json!({"amount": 500, "currency": "EUR", "to": {"iban": "DE02", "name": "Jürgen Große 🦀"}, "tags": [1.5, true, null]}),
            json!({"n": 9_007_199_254_740_991_u64, "m": -9_007_199_254_740_991_i64}),
        ] {
            assert!(parse(good.clone()).is_ok(), "{good}");
        }
        let deep = |n: usize| (1..n).fold(json!(1), |inner, _| json!({"a": inner}));
        assert!(parse(deep(8)).is_ok());
        for bad in [
            json!({"\u{430}mount": 5}),
            json!({"amount ": 5}),
            json!({"": 5}),
            json!({"a".repeat(65): 5}),
            json!({"a": {"\u{200b}": 1}}),
            json!({"n": 9_007_199_254_740_992_u64}),
            json!({"n": -9_007_199_254_740_992_i64}),
            json!({"n": 1e300}),
            json!({"n": -0.0}),
            json!({"to": "a\u{202e}b"}),
            json!({"to": "a\u{0}b"}),
            json!({"to": "a\u{200b}b"}),
            json!({"to": ["a\u{e0041}b"]}),
            json!({"a": "x".repeat(PARAMETERS_MAX)}),
            deep(9),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad} was accepted");
        }
    }
}
