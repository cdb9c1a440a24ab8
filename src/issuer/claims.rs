//! What the claims of a token must say, and what they say about a user.

use crate::crd::{self, ClaimMapping, UsernameMapping};
use crate::expression::{Expression, Outcome};
use serde_json::{Map, Value};

/// The one variable of expressions.
const VARIABLES: &[&str] = &["claims"];
/// Longest name of a user or group, in bytes.
const NAME_MAX: usize = 253;
/// Most groups of a user.
const GROUPS_MAX: usize = 256;

/// One rule for the claims of a token.
#[derive(Debug)]
pub(super) enum ClaimRule {
    Equals { claim: String, value: String },
    Expression { rule: Expression, message: Option<String> },
}

/// How the users of an issuer are named.
#[derive(Debug)]
pub(super) struct UserNames {
    name: NameRule,
    groups: Option<NameRule>,
}

#[derive(Debug)]
enum NameRule {
    Claim { claim: String, prefix: String },
    Expression(Expression),
}

/// What a name rule gives.
enum Found {
    Text(String),
    Texts(Vec<String>),
}

/// What the claims of a user's token say about who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName {
    /// The name without Kubernetes' prefix: `user:<name>` in our tokens.
    pub name: String,
    /// The name by which the API server knows the same person.
    pub kubernetes_name: String,
    /// The groups, as the API server knows them.
    pub groups: Vec<String>,
}

impl ClaimRule {
    pub(super) fn parse(rule: &crd::ClaimValidationRule) -> Result<Self, String> {
        match (&rule.claim, &rule.required_value, &rule.expression) {
            (Some(claim), Some(value), None) => Ok(Self::Equals { claim: claim.clone(), value: value.clone() }),
            (None, None, Some(text)) => {
                let rule_ = Expression::compile(text, VARIABLES).map_err(|problem| format!("expression {problem}"))?;
                Ok(Self::Expression { rule: rule_, message: rule.message.clone() })
            }
            _ => Err("a rule has either claim and requiredValue, or expression".to_owned()),
        }
    }

    pub(super) fn check(&self, claims: &Map<String, Value>) -> Result<(), String> {
        match self {
            Self::Equals { claim, value } => match claims.get(claim) {
                Some(Value::String(found)) if found == value => Ok(()),
                _ => Err(format!("claim {claim} does not have the value that claimValidationRules requires")),
            },
            Self::Expression { rule, message } => match rule.evaluate(&[("claims", claims)]) {
                Ok(Outcome::Bool(true)) => Ok(()),
                Ok(_) => Err(message.clone().unwrap_or_else(|| "an expression of claimValidationRules is not true".to_owned())),
                Err(problem) => Err(format!("an expression of claimValidationRules cannot be evaluated: {problem}")),
            },
        }
    }
}

impl UserNames {
    pub(super) fn parse(mappings: &crd::ClaimMappings) -> Result<Self, (&'static str, String)> {
        let name = NameRule::username(&mappings.username).map_err(|problem| ("claimMappings.username", problem))?;
        let groups = mappings.groups.as_ref().map(NameRule::groups).transpose();
        Ok(Self { name, groups: groups.map_err(|problem| ("claimMappings.groups", problem))? })
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let rules = std::iter::once(&self.name).chain(&self.groups);
        rules.filter_map(|rule| if let NameRule::Claim { prefix, .. } = rule { Some(prefix.as_str()) } else { None })
    }

    /// What the API server puts before the names.
    pub(super) fn name_prefix(&self) -> &str {
        if let NameRule::Claim { prefix, .. } = &self.name { prefix } else { "" }
    }

    pub(super) fn user(&self, claims: &Map<String, Value>) -> Result<UserName, String> {
        // One text: a list is no name, whatever is in it.
        let Found::Text(name) = self.name.evaluate(claims)? else { return Err("the user's name is not one text".to_owned()) };
        let prefix = match &self.name {
            NameRule::Claim { claim, prefix } => {
                if claim == "email" && claims.get("email_verified").is_some_and(|verified| verified != &Value::Bool(true)) {
                    return Err("the user's e-mail address is not verified".to_owned());
                }
                prefix.as_str()
            }
            NameRule::Expression(_) => "",
        };
        let kubernetes_name = format!("{prefix}{name}");
        let groups = match &self.groups {
            None => Vec::new(),
            Some(rule) => {
                let prefix = if let NameRule::Claim { prefix, .. } = rule { prefix.as_str() } else { "" };
                let absent = matches!(rule, NameRule::Claim { claim, .. } if !claims.contains_key(claim));
                let found = match absent {
                    true => Vec::new(),
                    false => match rule.evaluate(claims)? {
                        Found::Text(group) => vec![group],
                        Found::Texts(groups) => groups,
                    },
                };
                found.into_iter().map(|group| format!("{prefix}{group}")).collect()
            }
        };
        let well_formed = |name: &str| !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control);
        if !well_formed(&name) || !well_formed(&kubernetes_name) || name.trim() != name {
            return Err("the user's name is empty, too long, or has a control character or space around it".to_owned());
        }
        if groups.len() > GROUPS_MAX || !groups.iter().all(|group| well_formed(group)) {
            return Err("the user's groups are too many, or one is empty, too long or has a control character".to_owned());
        }
        // These names belong to Kubernetes; no identity provider may give them to anybody.
        let reserved = |name: &str| name.starts_with("system:");
        if reserved(&name) || reserved(&kubernetes_name) || groups.iter().any(|group| reserved(group)) {
            return Err("the name of the user or of a group begins with system:, which is Kubernetes' own".to_owned());
        }
        Ok(UserName { name, kubernetes_name, groups })
    }
}

impl NameRule {
    fn username(mapping: &UsernameMapping) -> Result<Self, String> {
        let uses = |name| mapping.expression.as_ref().is_some_and(|text| text.contains(name));
        if uses("claims.email") && !uses("claims.email_verified") {
            return Err("an expression that uses claims.email must also look at claims.email_verified".to_owned());
        }
        Self::parse(mapping.claim.as_ref(), mapping.prefix.as_ref(), mapping.expression.as_ref())
    }

    fn groups(mapping: &ClaimMapping) -> Result<Self, String> {
        Self::parse(mapping.claim.as_ref(), mapping.prefix.as_ref(), mapping.expression.as_ref())
    }

    fn parse(claim: Option<&String>, prefix: Option<&String>, expression: Option<&String>) -> Result<Self, String> {
        match (claim, expression) {
            (Some(claim), None) => Ok(Self::Claim { claim: claim.clone(), prefix: prefix.cloned().unwrap_or_default() }),
            (None, Some(text)) if prefix.is_none() => {
                let rule = Expression::compile(text, VARIABLES).map_err(|problem| format!("expression {problem}"))?;
                Ok(Self::Expression(rule))
            }
            _ => Err("a mapping has either claim and prefix, or expression".to_owned()),
        }
    }

    fn evaluate(&self, claims: &Map<String, Value>) -> Result<Found, String> {
        let texts = |value: &Value| match value {
            Value::String(text) => Some(Found::Text(text.clone())),
            Value::Array(list) => {
                list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>().map(Found::Texts)
            }
            _ => None,
        };
        match self {
            Self::Claim { claim, .. } => {
                claims.get(claim).and_then(texts).ok_or_else(|| format!("claim {claim} is missing or is no text"))
            }
            Self::Expression(rule) => match rule.evaluate(&[("claims", claims)])? {
                Outcome::Text(text) => Ok(Found::Text(text)),
                Outcome::Texts(texts) => Ok(Found::Texts(texts)),
                Outcome::Bool(_) | Outcome::Other => Err("the expression of claimMappings gives no text".to_owned()),
            },
        }
    }
}
