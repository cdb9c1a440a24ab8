//! The condition under which an agent may use a capability: an expression in CEL over what is known of one attempt.

use crate::expression::{Expression, Outcome};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// What a condition may ask about.
const VARIABLES: &[&str] = &["agent", "subject", "chain", "action", "resource", "context"];
/// The most that an evaluation may cost, in steps. One of a plain comparison takes about five.
const COST_MAX: u64 = 50_000;
/// Each so many bytes of what is known make every step as dear as two: steps copy texts.
const BYTES_OF_STEP: u64 = 1024;

/// At how many texts those are looked for that nobody uses any more.
const KNOWN_MIN: usize = 1024;

/// The condition of one capability of one agent, compiled when the Agent is read.
#[derive(Debug, Clone)]
pub struct Condition {
    text: Arc<str>,
    compiled: Result<Arc<Expression>, String>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

/// What is known of an attempt. An object has only the members that somebody has said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The agent that acts: `id`, `namespace`, `name`, `owner`.
    pub agent: Map<String, Value>,
    /// On whose behalf: `type`, `id`, `name`; of a user `issuer`.
    pub subject: Map<String, Value>,
    /// Through whom: `agents`, `depth`.
    pub chain: Map<String, Value>,
    /// The capability and the parameters: `name`, `properties`.
    pub action: Map<String, Value>,
    /// What it is done to: `type`, `id`, `properties`.
    pub resource: Map<String, Value>,
    /// The parameters, and what else is said about the circumstances.
    pub context: Map<String, Value>,
}

/// Why a condition does not allow an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// It is false.
    False,
    /// It cannot be evaluated with what is known; why, in a sentence without any value.
    Undecided(String),
    /// It is no condition.
    Invalid(String),
}

impl Condition {
    /// Reads a condition. What is wrong with it is kept: it is never met then.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        // Agents are made from templates and read again and again: most conditions are in somebody's hands already. To compile one takes a
        // thread and a tenth of a millisecond, and what comes out a few kilobytes.
        if let Some((text, compiled)) = Known::lock().find(text) {
            return Self { text, compiled: Ok(compiled) };
        }
        let compiled = Expression::compile(text, VARIABLES).and_then(|expression| match expression.calls("matches") {
            // Their price could not be bounded, and whoever writes one forgets an anchor sooner or later.
            true => {
                Err("uses matches(), and there are no regular expressions: use ==, startsWith, endsWith or contains".to_owned())
            }
            false if expression.cost(1) > COST_MAX => Err("costs too much".to_owned()),
            false => Ok(Arc::new(expression)),
        });
        let text: Arc<str> = text.into();
        if let Ok(compiled) = &compiled {
            Known::lock().remember(&text, compiled);
        }
        Self { text, compiled }
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it, if it is no condition.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.compiled.as_ref().err().map(String::as_str)
    }

    /// Whether it allows what is known of an attempt.
    ///
    /// # Errors
    /// Why not. An error is a no, and so is everything that is not plainly true.
    pub fn check(&self, facts: &Facts) -> Result<(), Unmet> {
        let expression = self.compiled.as_ref().map_err(|problem| Unmet::Invalid(problem.clone()))?;
        let size = facts.objects().into_iter().map(|(_, members)| Size::of_object(members)).fold(Size::default(), Size::and);
        let price = expression.cost(size.longest).saturating_mul(1 + size.bytes / BYTES_OF_STEP);
        if price > COST_MAX {
            return Err(Unmet::Undecided("it would cost too much with all that was said".to_owned()));
        }
        match expression.evaluate(&facts.objects()) {
            Ok(Outcome::Bool(true)) => Ok(()),
            Ok(Outcome::Bool(false)) => Err(Unmet::False),
            Ok(_) => Err(Unmet::Undecided("its value is neither true nor false".to_owned())),
            Err(problem) => Err(Unmet::Undecided(problem)),
        }
    }
}

/// The conditions that somebody holds, by what they say. It changes no answer: the same text is always compiled into the same.
#[derive(Default)]
struct Known {
    compiled: HashMap<Arc<str>, Weak<Expression>>,
    /// How many there may be before the unused ones go.
    most: usize,
}

impl Known {
    fn lock() -> std::sync::MutexGuard<'static, Self> {
        static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, text: &str) -> Option<(Arc<str>, Arc<Expression>)> {
        let (text, compiled) = self.compiled.get_key_value(text)?;
        Some((Arc::clone(text), compiled.upgrade()?))
    }

    fn remember(&mut self, text: &Arc<str>, compiled: &Arc<Expression>) {
        if self.compiled.len() >= self.most {
            self.compiled.retain(|_, compiled| compiled.strong_count() > 0);
            self.most = self.compiled.len().saturating_mul(2).max(KNOWN_MIN);
        }
        self.compiled.insert(Arc::clone(text), Arc::downgrade(compiled));
    }
}

impl Facts {
    fn objects(&self) -> [(&'static str, &Map<String, Value>); 6] {
        [
            ("agent", &self.agent),
            ("subject", &self.subject),
            ("chain", &self.chain),
            ("action", &self.action),
            ("resource", &self.resource),
            ("context", &self.context),
        ]
    }
}

/// How much is known, as far as it makes an evaluation dear.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Items in the longest list or object.
    longest: u64,
    /// Bytes of all names and texts, and some for everything else.
    bytes: u64,
}

impl Size {
    fn and(self, other: Self) -> Self {
        Self { longest: self.longest.max(other.longest), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn of_object(members: &Map<String, Value>) -> Self {
        let own = Self { longest: members.len() as u64, bytes: members.keys().map(|name| name.len() as u64).sum() };
        members.values().map(Self::of).fold(own, Self::and)
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Self { longest: 1, bytes: 8 },
            Value::String(text) => Self { longest: 1, bytes: text.len() as u64 },
            Value::Array(items) => items.iter().map(Self::of).fold(Self { longest: items.len() as u64, bytes: 8 }, Self::and),
            Value::Object(members) => Self::of_object(members),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            other => panic!("{other} is no object"),
        }
    }

    fn facts(context: Value) -> Facts {
        Facts {
            agent: object(json!({"id": "agent:a/b", "namespace": "a", "name": "b", "owner": "o"})),
            chain: object(json!({"agents": ["agent:a/p", "agent:a/b"], "depth": 2})),
            context: object(context),
            ..Facts::default()
        }
    }

    #[test]
    fn a_condition_is_met_only_if_it_is_plainly_true() {
        let check = |text: &str, context: Value| Condition::parse(text).check(&facts(context));
        assert_eq!(check("context.amount < 1000", json!({"amount": 999})), Ok(()));
        assert_eq!(check("context.amount < 1000", json!({"amount": 1000})), Err(Unmet::False));
        assert_eq!(check("context.amount < 1000 && context.amount > 0.5", json!({"amount": 99.5})), Ok(()));
        assert_eq!(check("'agent:a/p' in chain.agents && chain.depth <= 2 && agent.owner == 'o'", json!({})), Ok(()));
        for undecided in [
            ("context.amount < 1000", json!({})),
            ("context.amount < 1000", json!({"amount": "5"})),
            ("context.amount < 1000", json!({"amount": null})),
            ("resource.id == 'x'", json!({})),
            ("subject.name == ''", json!({})),
            ("context.amount", json!({"amount": 5})),
            ("'true'", json!({})),
            ("1", json!({})),
        ] {
            assert!(matches!(check(undecided.0, undecided.1.clone()), Err(Unmet::Undecided(_))), "{undecided:?}");
        }
    }

    #[test]
    fn what_is_no_condition_is_never_met_and_says_why() {
        for bad in ["", "context.", "amount < 5", "context.a.matches('a')", "now() < 5 ||", &"(".repeat(1024), "user.name == 'a'"]
        {
            let condition = Condition::parse(bad);
            assert!(condition.problem().is_some(), "{bad:?} is taken");
            assert!(matches!(condition.check(&Facts::default()), Err(Unmet::Invalid(_))));
        }
    }

    #[test]
    fn one_text_is_compiled_once_as_long_as_somebody_holds_it() {
        let compiled = |condition: &Condition| condition.compiled.as_ref().map(Arc::as_ptr).expect("a condition");
        let text = |number: usize| format!("context.of_this_test == {number}");
        let held = Condition::parse(&text(0));
        assert_eq!(compiled(&held), compiled(&Condition::parse(&text(0))));
        assert_ne!(compiled(&held), compiled(&Condition::parse(&text(1))));
        let mut known = Known::default();
        let Ok(expression) = &held.compiled else { panic!("it is held") };
        known.remember(&held.text, expression);
        let dropped = Arc::new(Expression::compile("true", VARIABLES).expect("a condition"));
        for number in 1..KNOWN_MIN {
            known.remember(&text(number).into(), &dropped);
        }
        assert!(known.find(&text(1)).is_some());
        drop(dropped);
        known.remember(&held.text, expression);
        assert_eq!(known.compiled.len(), 1, "what nobody holds is forgotten");
        assert!(known.find(&text(0)).is_some());
    }

    #[test]
    fn what_would_cost_too_much_is_not_evaluated() {
        let nested = "context.a.all(x, context.a.all(y, context.a.all(z, x + y + z < 0 || true)))";
        let list = |n: usize| json!({"a": vec![1; n]});
        assert_eq!(Condition::parse(nested).check(&facts(list(5))), Ok(()));
        assert!(matches!(Condition::parse(nested).check(&facts(list(500))), Err(Unmet::Undecided(_))));
        let long = Condition::parse("context.a.map(x, context.s + context.s) != []");
        assert_eq!(long.check(&facts(json!({"a": [1, 2], "s": "x"}))), Ok(()));
        assert!(matches!(long.check(&facts(json!({"a": vec![1; 10_000], "s": "x".repeat(30_000)}))), Err(Unmet::Undecided(_))));
        // Lists that grow while they are gone through.
        let doubled = format!("{}.all(x, x > 0)", (0..9).fold("[1]".to_owned(), |list, _| format!("({list} + {list})")));
        assert!(Condition::parse(&doubled).check(&facts(json!({}))).is_err(), "longer than an expression may be, or too dear");
    }
}
