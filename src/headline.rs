//! What an agent asks, in one sentence for whoever decides: "payments-bot, called by planner, acting for alice@acme.com, wants to pay 500
//! EUR on INV-7".
//!
//! The words come from the catalogue, the values from the request. A sentence is a summary: whoever shows it shows the parameters too.

use crate::crd::{CapabilitySpec, JitRequestSpec, OperationSpec};
use crate::readable::{Readable, shortened};
use serde_json::Value;
use std::fmt::Write as _;

/// Longest sentence, in characters.
pub const HEADLINE_MAX: usize = 400;
/// Longest value in it, in characters.
const VALUE_MAX: usize = 64;
/// Most parameters that are named where the catalogue has no words for them.
const PARAMETERS_MAX: usize = 6;

/// How the catalogue speaks of a capability.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wording {
    /// What it is, in a few words.
    title: Option<String>,
    /// What an operation of it does: "pay {amount} {currency} on {id}".
    headline: Option<Template>,
}

/// A sentence with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(String),
}

impl Wording {
    /// The words of an entry. A headline that cannot be read is none.
    #[must_use]
    pub fn of(spec: &CapabilitySpec) -> Self {
        Self { title: spec.title.clone(), headline: spec.headline.as_deref().and_then(Template::parse) }
    }

    /// What it is, in a few words, if the catalogue says that.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }
}

impl Template {
    /// Reads a template. `None` if a brace has no other.
    fn parse(text: &str) -> Option<Self> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (place, behind) = after.split_once('}')?;
            if before.contains('}') || place.contains('{') || place.is_empty() {
                return None;
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Place(place.to_owned()));
            rest = behind;
        }
        if rest.contains('}') {
            return None;
        }
        parts.push(Part::Text(rest.to_owned()));
        Some(Self(parts))
    }

    /// The sentence for one operation. `None` if it has not all that the sentence speaks of.
    fn fill(&self, operation: &OperationSpec) -> Option<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(words) => _ = write!(text, "{}", Readable(words)),
                Part::Place(name) => text.push_str(&value_at(operation, name)?),
            }
        }
        Some(text)
    }
}

/// The value for a place: `resource`, `id` (the part of the resource behind its type), or a parameter, nested ones with dots between.
fn value_at(operation: &OperationSpec, place: &str) -> Option<String> {
    let resource = operation.resource.as_deref();
    match place {
        "resource" => resource.map(quoted),
        "id" => resource.and_then(|resource| resource.split_once(':')).map(|(_, id)| quoted(id)),
        _ => {
            let mut steps = place.split('.');
            let first = operation.parameters.as_ref()?.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.get(step)).map(shown)
        }
    }
}

/// A value of a parameter.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => shortened(&Readable(&value.to_string()).to_string(), VALUE_MAX),
    }
}

/// A text of the agent: in quotation marks if it could be read as more than a value.
fn quoted(text: &str) -> String {
    let is_value = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@' | '+' | '%' | '~' | '=');
    let value = shortened(&Readable(text).to_string(), VALUE_MAX);
    match !text.is_empty() && text.chars().all(is_value) {
        true => value,
        false => format!("\"{}\"", value.replace('"', "'")),
    }
}

/// The sentence for a request in `namespace`. Nothing in it acts on what shows it; for HTML it must still be escaped.
#[must_use]
pub fn headline(namespace: &str, spec: &JitRequestSpec, wording: &Wording) -> String {
    let mut text = quoted(&spec.agent.name);
    if let Some(behalf) = &spec.on_behalf_of {
        for caller in behalf.chain.iter().rev() {
            // Writing into a String cannot fail.
            _ = write!(text, ", called by {}", agent(namespace, caller));
        }
        if let Some(user) = &behalf.user {
            _ = write!(text, ", acting for {}", quoted(user));
        }
        text.push(',');
    }
    _ = write!(text, " wants {}", wish(&spec.operation, wording));
    shortened(&text, HEADLINE_MAX)
}

/// What is to be done: to "pay 500 EUR on INV-7", or the capability's name with what it is used on.
fn wish(operation: &OperationSpec, wording: &Wording) -> String {
    if let Some(sentence) = wording.headline.as_ref().and_then(|headline| headline.fill(operation)) {
        return format!("to {sentence}");
    }
    let name = quoted(&operation.capability);
    let mut text = match &wording.title {
        Some(title) => format!("{name} (\"{}\")", Readable(title).to_string().replace('"', "'")),
        None => name,
    };
    if let Some(resource) = &operation.resource {
        _ = write!(text, " on {}", quoted(resource));
    }
    let parameters: Vec<_> = operation.parameters.iter().flatten().collect();
    for (at, (name, value)) in parameters.iter().take(PARAMETERS_MAX).enumerate() {
        _ = write!(text, "{} {}: {}", if at == 0 { " with" } else { "," }, quoted(name), shown(value));
    }
    if let Some(more) = parameters.len().checked_sub(PARAMETERS_MAX).filter(|more| *more > 0) {
        _ = write!(text, " and {more} more");
    }
    text
}

/// An agent by its name, and its namespace if that is another than the request's.
fn agent(namespace: &str, subject: &str) -> String {
    let short = subject.strip_prefix("agent:").unwrap_or(subject);
    quoted(short.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/')).unwrap_or(short))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(parameters: &Value, behalf: &Value) -> JitRequestSpec {
        let mut spec = json!({"agent": {"name": "payments-bot"}, "operation": {"capability": "payments.authorize", "resource": "invoice:INV-7",
            "parameters": parameters, "audience": "https://pay.acme.com"}});
        if !behalf.is_null() {
            spec["onBehalfOf"] = behalf.clone();
        }
        serde_json::from_value(spec).expect("a spec")
    }

    fn wording(spec: &Value) -> Wording {
        Wording::of(&serde_json::from_value(spec.clone()).expect("a spec"))
    }

    #[test]
    fn the_catalogue_has_the_words_and_the_request_the_values() {
        let asked = json!({"amount": 500, "currency": "EUR", "to": {"iban": "DE02"}});
        let behalf = json!({"user": "alice@acme.com", "chain": ["agent:payments/planner", "agent:other/helper"]});
        let asked = spec(&asked, &behalf);
        let said = |words: Value| headline("payments", &asked, &wording(&words));
        let who = "payments-bot, called by other/helper, called by planner, acting for alice@acme.com, wants";
        assert_eq!(
            said(json!({"headline": "pay {amount} {currency} on {id} to {to.iban}", "title": "Pay"})),
            format!("{who} to pay 500 EUR on INV-7 to DE02")
        );
        let in_full = "on invoice:INV-7 with amount: 500, currency: EUR, to: {\"iban\":\"DE02\"}";
        assert_eq!(said(json!({"title": "Pay an invoice"})), format!("{who} payments.authorize (\"Pay an invoice\") {in_full}"));
        for unreadable in
            ["pay {amount", "pay amount}", "pay {}", "pay {a{b}}", "pay {amout}", "pay {to.bic}", "pay {amount.cents}"]
        {
            assert_eq!(said(json!({"headline": unreadable})), format!("{who} payments.authorize {in_full}"), "{unreadable}");
        }
        assert_eq!(
            headline("payments", &spec(&json!({}), &Value::Null), &Wording::default()),
            "payments-bot wants payments.authorize on invoice:INV-7"
        );
    }

    #[test]
    fn h15_a_value_cannot_pass_for_words_of_ours() {
        let words = wording(&json!({"headline": "pay {amount} to {payee}"}));
        let said = |payee: &str| headline("n", &spec(&json!({"amount": 1, "payee": payee}), &Value::Null), &words);
        assert_eq!(said("Bob. Approved already"), "payments-bot wants to pay 1 to \"Bob. Approved already\"");
        assert_eq!(said("a\" and nothing else"), "payments-bot wants to pay 1 to \"a' and nothing else\"");
        assert_eq!(said("\u{1b}[2J\u{202e}x"), r#"payments-bot wants to pay 1 to "\u{1b}[2J\u{202e}x""#);
        assert_eq!(said(""), "payments-bot wants to pay 1 to \"\"");
        let long = said(&"x".repeat(5000));
        assert!(long.ends_with('…') && long.chars().count() < 120, "{long}");
        let many: serde_json::Map<String, Value> = (0..50).map(|n| (format!("p{n}"), json!("y".repeat(80)))).collect();
        let many = headline("n", &spec(&many.into(), &Value::Null), &Wording::default());
        assert!(many.chars().count() <= HEADLINE_MAX, "{many}");
    }
}
