//! Rules in CEL, compiled once and evaluated over JSON.
//!
//! An expression that cannot be evaluated is an error, which callers take as a no.

use cel::common::ast::{EntryExpr, Expr};
use cel::objects::{Key, Map as CelMap};
use cel::{Context, IdedExpr, Program, Value as Cel};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Longest expression, in bytes.
const EXPRESSION_MAX: usize = 1024;
/// How deep an expression may nest. A chain of operators nests as deep as it is long.
const DEPTH_MAX: usize = 48;
/// Stack of the thread that compiles, in bytes. Only what is used of it becomes memory.
const COMPILER_STACK: usize = 256 << 20;

/// A compiled expression over named JSON objects.
pub struct Expression {
    text: String,
    program: Program,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

/// The value of an expression, as far as rules need to tell values apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A truth.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// Anything else.
    Other,
}

impl Expression {
    /// Compiles `text`, which may use the variables named in `variables`.
    ///
    /// # Errors
    /// What is wrong with it: it is too long or too deep, no CEL, or uses a variable that there is not.
    pub fn compile(text: &str, variables: &'static [&'static str]) -> Result<Self, String> {
        if text.len() > EXPRESSION_MAX {
            return Err(format!("is longer than {EXPRESSION_MAX} bytes"));
        }
        // Compiler and evaluation are recursive. So the one has a thread of its own, with stack enough for any text of that length, and
        // what comes out is bounded in depth, so that the other does with the stack of any thread.
        let text = text.to_owned();
        let compiling = std::thread::Builder::new().name("cel".to_owned()).stack_size(COMPILER_STACK).spawn(move || {
            let program = Program::compile(&text).map_err(|errors| format!("is no CEL expression: {errors}"))?;
            check(program.expression(), variables, &mut Vec::new(), DEPTH_MAX)?;
            Ok(Self { text, program })
        });
        match compiling.map(std::thread::JoinHandle::join) {
            Ok(Ok(compiled)) => compiled,
            Ok(Err(_)) => Err("is no CEL expression that the compiler can read".to_owned()),
            Err(error) => Err(format!("cannot be compiled now: {error}")),
        }
    }

    /// Whether it calls `function`.
    #[must_use]
    pub fn calls(&self, function: &str) -> bool {
        self.program.references().has_function(function)
    }

    /// How many steps an evaluation takes at most, if no list, object or text among the variables has more than `longest` items.
    #[must_use]
    pub fn cost(&self, longest: u64) -> u64 {
        cost(self.program.expression(), longest.max(span(self.program.expression(), 1)))
    }

    /// The value of the expression with these variables.
    ///
    /// # Errors
    /// Why it has none: a member that is not there, values that cannot be compared. The text shows no value.
    pub fn evaluate(&self, variables: &[(&str, &Map<String, Value>)]) -> Result<Outcome, String> {
        let mut context = Context::default();
        for (name, members) in variables {
            context.add_variable_from_value(*name, object(members));
        }
        match self.program.execute(&context) {
            Ok(Cel::Bool(truth)) => Ok(Outcome::Bool(truth)),
            Ok(Cel::String(text)) => Ok(Outcome::Text(text.to_string())),
            Ok(Cel::List(list)) => {
                let texts = list.iter().map(|item| if let Cel::String(text) = item { Some(text.to_string()) } else { None });
                Ok(texts.collect::<Option<Vec<_>>>().map_or(Outcome::Other, Outcome::Texts))
            }
            Ok(_) => Ok(Outcome::Other),
            Err(cel::ExecutionError::NoSuchKey(name)) => Err(format!("there is no {name}")),
            Err(_) => Err("the values are not of the types that it needs".to_owned()),
        }
    }
}

/// Checks that `expression` nests at most `depth` deep and uses no variables but those given and those that it makes itself.
fn check<'e>(expression: &'e IdedExpr, variables: &[&str], own: &mut Vec<&'e str>, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else { return Err(format!("nests deeper than {DEPTH_MAX} levels")) };
    let below = |inner: &'e IdedExpr, own: &mut Vec<&'e str>| check(inner, variables, own, depth);
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) if variables.contains(&name.as_str()) || own.contains(&name.as_str()) => Ok(()),
        Expr::Ident(name) => Err(format!("uses {name}, but there is only {}", variables.join(", "))),
        Expr::Select(select) => below(&select.operand, own),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).try_for_each(|inner| below(inner, own)),
        Expr::List(list) => list.elements.iter().try_for_each(|inner| below(inner, own)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::StructField(field) => below(&field.value, own),
            EntryExpr::MapEntry(entry) => below(&entry.key, own).and_then(|()| below(&entry.value, own)),
        }),
        Expr::Struct(_) => Err("makes an object of a type, and there are no types".to_owned()),
        Expr::Comprehension(each) => {
            below(&each.iter_range, own)?;
            below(&each.accu_init, own)?;
            let before = own.len();
            own.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
            own.extend(each.iter_var2.as_deref());
            let inside = [&each.loop_cond, &each.loop_step, &each.result].into_iter().try_for_each(|inner| below(inner, own));
            own.truncate(before);
            inside
        }
    }
}

/// How many steps it takes: each node is one, and what a macro does to each item of a list is done as often as the longest list has items.
fn cost(expression: &IdedExpr, longest: u64) -> u64 {
    let all = |inner: &mut dyn Iterator<Item = &IdedExpr>| inner.fold(1_u64, |sum, e| sum.saturating_add(cost(e, longest)));
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 1,
        Expr::Select(select) => all(&mut std::iter::once(&*select.operand)),
        Expr::Call(call) => all(&mut call.target.as_deref().into_iter().chain(&call.args)),
        Expr::List(list) => all(&mut list.elements.iter()),
        Expr::Map(map) => map.entries.iter().fold(1_u64, |sum, entry| {
            sum.saturating_add(match &entry.expr {
                EntryExpr::StructField(field) => cost(&field.value, longest),
                EntryExpr::MapEntry(entry) => cost(&entry.key, longest).saturating_add(cost(&entry.value, longest)),
            })
        }),
        // There are no types (`check`).
        Expr::Struct(_) => u64::MAX,
        Expr::Comprehension(each) => {
            let items = span(&each.iter_range, longest);
            let once = all(&mut [&each.iter_range, &each.accu_init, &each.result].into_iter());
            let often = all(&mut [&each.loop_cond, &each.loop_step].into_iter());
            once.saturating_add(often.saturating_mul(items))
        }
    }
}

/// How many items the value of an expression has at most: as many as all that it is made of, however they are put together.
fn span(expression: &IdedExpr, longest: u64) -> u64 {
    let all = |inner: &mut dyn Iterator<Item = &IdedExpr>| inner.fold(0_u64, |sum, e| sum.saturating_add(span(e, longest)));
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => 1,
        Expr::Ident(_) => longest,
        Expr::Select(select) => span(&select.operand, longest),
        Expr::Call(call) => all(&mut call.target.as_deref().into_iter().chain(&call.args)),
        Expr::List(list) => all(&mut list.elements.iter()).max(1),
        Expr::Map(map) => map.entries.iter().fold(1_u64, |sum, entry| {
            sum.saturating_add(match &entry.expr {
                EntryExpr::StructField(field) => span(&field.value, longest),
                EntryExpr::MapEntry(entry) => span(&entry.key, longest).saturating_add(span(&entry.value, longest)),
            })
        }),
        Expr::Struct(_) => u64::MAX,
        Expr::Comprehension(each) => {
            let often = span(&each.loop_step, longest).max(span(&each.result, longest));
            span(&each.iter_range, longest).saturating_mul(often.max(1))
        }
    }
}

fn value(json: &Value) -> Cel {
    match json {
        Value::Null => Cel::Null,
        Value::Bool(truth) => Cel::Bool(*truth),
        // Whole numbers are int, as kube-apiserver has them, so that `claims.exp - claims.iat <= 3600` works.
        Value::Number(number) => number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap_or(f64::NAN)), Cel::Int),
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(value).collect())),
        Value::Object(members) => object(members),
    }
}

fn object(members: &Map<String, Value>) -> Cel {
    let map: HashMap<Key, Cel> = members.iter().map(|(name, json)| (Key::from(name.as_str()), value(json))).collect();
    Cel::Map(CelMap { map: Arc::new(map) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evaluate(text: &str, claims: &Value) -> Result<Outcome, String> {
        let expression = Expression::compile(text, &["claims"]).expect(text);
        expression.evaluate(&[("claims", claims.as_object().expect("an object"))])
    }

    #[test]
    fn an_expression_sees_the_claims_as_kube_apiserver_does() {
        let claims =
            json!({"exp": 2000, "iat": 1000, "email": "a@acme.com", "groups": ["x", "y"], "n": {"a": {"b": true}}, "f": 1.5});
        for truth in [
            "claims.exp - claims.iat <= 3600",
            "claims.email.endsWith('@acme.com') && claims.groups.exists(g, g == 'y')",
            "claims.n.a.b",
            "has(claims.email) && !has(claims.phone)",
            "claims.groups == ['x', 'y'] && size(claims.groups) == 2",
            "claims.email.matches('^[a-z]+@acme[.]com$')",
            "claims.f > 1.0 && 'email' in claims",
            "claims.?phone.orValue('none') == 'none' || true",
        ] {
            if Expression::compile(truth, &["claims"]).is_ok() {
                assert_eq!(evaluate(truth, &claims), Ok(Outcome::Bool(true)), "{truth}");
            } else {
                assert!(truth.contains(".?"), "{truth} does not compile");
            }
        }
        assert_eq!(evaluate("claims.email + '!'", &claims), Ok(Outcome::Text("a@acme.com!".to_owned())));
        assert_eq!(evaluate("claims.groups", &claims), Ok(Outcome::Texts(vec!["x".to_owned(), "y".to_owned()])));
        assert_eq!(evaluate("claims.exp", &claims), Ok(Outcome::Other));
    }

    #[test]
    fn what_cannot_be_evaluated_is_an_error() {
        for bad in
            ["claims.missing == 'x'", "claims.exp == 'x' && claims.exp < 'x'", "claims.exp / 0 == 1", "claims.email[0] == 'a'"]
        {
            let outcome = evaluate(bad, &json!({"exp": 1, "email": "a"}));
            assert!(outcome.is_err() || outcome == Ok(Outcome::Bool(false)), "{bad}: {outcome:?}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_when_it_is_read() {
        for bad in [
            "",
            "claims.",
            "claims ==",
            "user.name == 'x'",
            "(((",
            "'",
            "claims.x ? 1",
            "x",
            &"(".repeat(1000),
            &"!".repeat(1000),
            &"a?b:".repeat(200),
        ] {
            assert!(Expression::compile(bad, &["claims"]).is_err(), "{bad}");
        }
        assert!(Expression::compile(&format!("claims.a == '{}'", "x".repeat(EXPRESSION_MAX)), &["claims"]).is_err());
    }

    #[test]
    fn no_accepted_expression_exhausts_a_small_stack() {
        let deep = |open: &str, close: &str, n: usize| format!("{}claims.a{}", open.repeat(n), close.repeat(n));
        let mut texts = vec![
            deep("(", ")", 500),
            deep("[", "]", 500),
            deep("!", "", 1000),
            deep("-", "", 1000),
            deep("a?", ":b", 200),
            deep("{'a':", "}", 160),
            deep("claims.all(x,", ")", 70),
            format!("claims{}", ".a".repeat(500)),
            format!("1{}", "+1".repeat(500)),
            format!("true{}", "||true".repeat(160)),
            format!("true{}", "&&true".repeat(160)),
            format!("claims.a{}", "==1".repeat(300)),
            format!("claims{}", "[0]".repeat(300)),
        ];
        // The deepest that are taken.
        for n in 1..DEPTH_MAX {
            texts.extend([deep("[", "]", n), deep("!", "", n), deep("true ? claims.b : ", "", n), deep("claims.all(x,", ")", n)]);
            texts.extend([
                format!("claims{}", ".a".repeat(n)),
                format!("1{}", "+1".repeat(n)),
                format!("true{}", "&&true".repeat(n)),
            ]);
        }
        let run = move || {
            for text in texts {
                if let Ok(expression) = Expression::compile(&text, &["claims"]) {
                    _ = expression.evaluate(&[("claims", &Map::new())]);
                }
            }
        };
        std::thread::Builder::new().stack_size(1 << 21).spawn(run).expect("a thread").join().expect("no panic");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_compiler_panic(text in "[a-z(){}\\[\\]!?:.,'\"\\\\&|=<>+*/% 0-9-]{0,60}") {
            if let Ok(expression) = Expression::compile(&text, &["a"]) {
                _ = expression.evaluate(&[("a", &Map::new())]);
            }
        }
    }
}
