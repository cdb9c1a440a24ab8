//! The catalogue as the rest of the program sees it: for each capability the rule, or why it cannot be read.

use crate::agent::Admission;
use crate::crd;
use crate::grammar::CapabilityName;
use crate::headline::Wording;
use crate::operation::Parameters;
use kube::ResourceExt as _;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Longest parameter schema, in bytes.
const SCHEMA_MAX: usize = 32 * 1024;
/// Most memory that one regular expression of a schema may take when it is compiled, in bytes.
const PATTERN_MAX: usize = 256 * 1024;

/// The rule of one catalogue entry.
#[derive(Debug)]
pub struct Rule {
    /// Whether each use needs approval, whatever the Agent says.
    pub approval_required: bool,
    /// How many different persons must approve.
    pub approvals: usize,
    /// Whether the user on whose behalf an agent acts may approve.
    pub subject_may_approve: bool,
    /// Longest life of an approved token, in seconds.
    pub max_expiration_seconds: Option<u32>,
    /// What people call it.
    pub phrases: Vec<String>,
    /// How it is spoken of to whoever approves.
    pub wording: Wording,
    /// How bad its misuse would be.
    pub risk: Option<crd::Risk>,
    schema: Option<ParameterSchema>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            approval_required: false,
            approvals: 1,
            subject_may_approve: false,
            max_expiration_seconds: None,
            phrases: Vec::new(),
            wording: Wording::default(),
            risk: None,
            schema: None,
        }
    }
}

/// A compiled JSON Schema.
struct ParameterSchema(jsonschema::Validator);

impl fmt::Debug for ParameterSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParameterSchema")
    }
}

/// Why a catalogue entry cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct InvalidCapability {
    field: &'static str,
    problem: String,
}

impl Rule {
    /// Reads the rule of a stored entry.
    ///
    /// # Errors
    /// An [`InvalidCapability`] if it cannot be enforced.
    pub fn parse(spec: &crd::CapabilitySpec) -> Result<Self, InvalidCapability> {
        let invalid = |field, problem: &str| InvalidCapability { field, problem: problem.to_owned() };
        let schema = spec.parameter_schema.as_ref().map(ParameterSchema::compile).transpose()?;
        let (phrases, wording, risk) = (spec.phrases.clone(), Wording::of(spec), spec.risk);
        let Some(approval) = &spec.approval else {
            return Ok(Self { schema, phrases, wording, risk, ..Self::default() });
        };
        if !(1..=2).contains(&approval.approvals) {
            return Err(invalid("approval.approvals", "must be 1 or 2"));
        }
        if approval.max_expiration_seconds.is_some_and(|s| !(1..=crate::agent::EXPIRATION_MAX).contains(&s)) {
            return Err(invalid("approval.maxExpirationSeconds", "must be 1 to 900"));
        }
        Ok(Self {
            approval_required: approval.required,
            approvals: approval.approvals.into(),
            subject_may_approve: approval.subject_may_approve,
            max_expiration_seconds: approval.max_expiration_seconds,
            phrases,
            wording,
            risk,
            schema,
        })
    }

    /// Checks parameters against the schema, if there is one. What is not sent is an empty object.
    ///
    /// # Errors
    /// What does not match and where, in a sentence without the value.
    pub fn check(&self, parameters: Option<&Parameters>) -> Result<(), String> {
        let Some(ParameterSchema(schema)) = &self.schema else { return Ok(()) };
        let value = Value::Object(parameters.map(|p| p.members().clone()).unwrap_or_default());
        match schema.iter_errors(&value).next() {
            None => Ok(()),
            Some(error) => Err(format!("at '{}': {}", error.instance_path(), error.masked())),
        }
    }
}

impl ParameterSchema {
    fn compile(schema: &Map<String, Value>) -> Result<Self, InvalidCapability> {
        let invalid = |problem: String| InvalidCapability { field: "parameterSchema", problem };
        let schema = Value::Object(schema.clone());
        if schema.to_string().len() > SCHEMA_MAX {
            return Err(invalid(format!("is longer than {SCHEMA_MAX} bytes")));
        }
        let patterns = jsonschema::PatternOptions::regex().size_limit(PATTERN_MAX).dfa_size_limit(PATTERN_MAX);
        let options = jsonschema::options().with_pattern_options(patterns).should_validate_formats(true);
        let compiled = options.should_ignore_unknown_formats(false).build(&schema);
        compiled.map(Self).map_err(|error| invalid(format!("is no JSON Schema that can be used: {error}")))
    }
}

/// Why the rule of an entry cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// The operator has not looked yet whether the entry was written under the admission policies.
    Pending,
    /// It was not, or cannot be enforced; and why.
    Invalid(String),
}

/// What the catalogue says about one capability.
pub type Entry = Result<Rule, Unusable>;

/// All entries by name.
#[derive(Debug, Default, Clone)]
pub struct Catalogue {
    entries: HashMap<CapabilityName, Arc<Entry>>,
    /// The names in a fresh list while it is being read.
    listed: Option<HashSet<CapabilityName>>,
    /// Grows with every change.
    version: u64,
}

impl Catalogue {
    /// What the catalogue says about a capability: `None` is no entry.
    #[must_use]
    pub fn get(&self, name: &CapabilityName) -> Option<&Entry> {
        self.entries.get(name).map(AsRef::as_ref)
    }

    /// A number that another state of the catalogue never had.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&CapabilityName, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name, &**entry))
    }

    /// Takes in an entry, usable or not. While one is pending, the rule that it replaces holds.
    pub fn insert(&mut self, name: CapabilityName, entry: Entry) {
        if let Some(listed) = &mut self.listed {
            listed.insert(name.clone());
        }
        if entry.as_ref().err() != Some(&Unusable::Pending) || !self.entries.contains_key(&name) {
            self.entries.insert(name, Arc::new(entry));
            self.version += 1;
        }
    }

    /// Removes an entry.
    pub fn forget(&mut self, name: &CapabilityName) {
        self.entries.remove(name);
        self.version += 1;
    }

    /// A new list begins.
    pub fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The new list is complete: what it does not name is gone.
    pub fn complete(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.entries.retain(|name, _| listed.contains(name));
            self.version += 1;
        }
    }
}

/// What a stored entry says, as far as the operator has found out about its generation.
#[must_use]
pub fn entry_of(capability: &crd::Capability) -> Option<(CapabilityName, Entry)> {
    let name = CapabilityName::parse(&capability.name_any()).ok()?;
    let conditions = capability.status.as_ref().map_or(&[] as &[_], |status| &status.conditions);
    let entry = match Admission::of(conditions, capability.metadata.generation.unwrap_or_default()) {
        Admission::Pending => Err(Unusable::Pending),
        Admission::Unproven => Err(Unusable::Invalid("it was written while the admission policies were not in force".to_owned())),
        Admission::Proven => Rule::parse(&capability.spec).map_err(|e| Unusable::Invalid(e.to_string())),
    };
    Some((name, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(spec: Value) -> Result<Rule, InvalidCapability> {
        Rule::parse(&serde_json::from_value(spec).expect("a spec"))
    }

    fn parameters(value: &Value) -> Parameters {
        Parameters::parse(value.as_object().expect("an object").clone()).expect("parameters")
    }

    #[test]
    fn parameters_are_held_to_the_schema() {
        let schema = json!({"type": "object", "required": ["amount"], "additionalProperties": false,
            "properties": {"amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}, "currency": {"enum": ["EUR", "USD"]}, "to": {"pattern": "^[a-z]+$"}}});
        let rule = rule(json!({"parameterSchema": schema})).expect("a rule");
        assert_eq!(rule.check(Some(&parameters(&json!({"amount": 500, "currency": "EUR", "to": "bob"})))), Ok(()));
        for bad in [
            json!({}),
            json!({"amount": 1001}),
            json!({"amount": "500"}),
            json!({"amount": 5, "x": 1}),
            json!({"amount": 5, "currency": "GBP"}),
            json!({"amount": 5, "to": "a\nb"}),
        ] {
            let message = rule.check(Some(&parameters_lossy(&bad))).expect_err("refused");
            assert!(message.starts_with("at '"), "{message}");
        }
        assert!(rule.check(None).is_err(), "what is required is required also of nothing");
    }

    /// Without the checks of texts: this is about the schema alone.
    fn parameters_lossy(value: &Value) -> Parameters {
        let clean = value.to_string().replace("\\n", " ");
        parameters(&serde_json::from_str(&clean).expect("JSON"))
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_an_error() {
        for bad in [
            json!({"type": "elephant"}),
            json!({"$ref": "https://evil.example/schema.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"$schema": "https://evil.example/draft"}),
            json!({"properties": {"a": {"pattern": "(?=a)b"}}}),
            json!({"properties": {"a": {"pattern": "(a)\\1"}}}),
            json!({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}),
            json!({"properties": {"a": {"format": "no-such-format"}}}),
            json!({"description": "x".repeat(SCHEMA_MAX)}),
        ] {
            assert!(rule(json!({"parameterSchema": bad})).is_err(), "{bad} was accepted");
        }
        assert!(rule(json!({"approval": {"approvals": 3}})).is_err());
        assert!(rule(json!({"approval": {"maxExpirationSeconds": 901}})).is_err());
    }

    #[test]
    fn an_approval_that_is_mentioned_is_required() {
        let rule = rule(json!({"approval": {}})).expect("a rule");
        assert!(rule.approval_required && rule.approvals == 1 && !rule.subject_may_approve);
    }

    #[test]
    fn a_rule_holds_until_its_successor_has_been_looked_at() {
        let name = CapabilityName::parse("a").expect("a name");
        let mut catalogue = Catalogue::default();
        catalogue.insert(name.clone(), Err(Unusable::Pending));
        assert!(catalogue.get(&name).is_some_and(Result::is_err), "new, and nobody knows");
        catalogue.insert(name.clone(), Ok(Rule::default()));
        catalogue.insert(name.clone(), Err(Unusable::Pending));
        assert!(catalogue.get(&name).is_some_and(Result::is_ok));
        catalogue.insert(name.clone(), Err(Unusable::Invalid("no".to_owned())));
        assert!(catalogue.get(&name).is_some_and(Result::is_err));
    }

    #[test]
    fn what_a_complete_list_does_not_name_is_gone() {
        let name = |n: &str| CapabilityName::parse(n).expect("a name");
        let mut catalogue = Catalogue::default();
        catalogue.insert(name("a"), Ok(Rule::default()));
        catalogue.insert(name("b"), Err(Unusable::Pending));
        catalogue.begin();
        catalogue.insert(name("b"), Err(Unusable::Pending));
        catalogue.complete();
        assert!(catalogue.get(&name("a")).is_none() && catalogue.get(&name("b")).is_some_and(Result::is_err));
    }
}
