//! JSON as an expression that makes it (CEL, as in the patches of a MutatingAdmissionPolicy).

use serde_json::Value;

/// Begins a text that is not what it says but an expression.
const EXPRESSION: char = '\u{0}';

/// A text in the JSON that [`patch_value`] writes as this expression.
pub(super) fn expression(expression: &str) -> Value {
    Value::String(format!("{EXPRESSION}{expression}"))
}

/// A text as a literal.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

/// The expression that makes `value`, which is at `path` of the object. The types of what is made are named by where it is.
pub(super) fn patch_value(value: &Value, path: &str) -> String {
    match value {
        Value::String(value) => match value.strip_prefix(EXPRESSION) {
            Some(expression) => expression.to_owned(),
            None => text(value),
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| patch_value(item, path)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            // Quantities have names of their own choosing: they are a map, and everything else is a structure.
            let is_map = path.ends_with("requests") || path.ends_with("limits");
            let members = members.iter().map(|(name, member)| {
                let value = patch_value(member, &format!("{path}.{name}"));
                if is_map { format!("'{name}': {value}") } else { format!("{name}: {value}") }
            });
            let members = members.collect::<Vec<_>>().join(", ");
            if is_map { format!("{{{members}}}") } else { format!("{path}{{{members}}}") }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_written_as_the_expression_that_makes_it() {
        let value = json!({
            "name": "it's", "args": ["a", expression("'b' + variables.b")], "on": true, "seconds": 3,
            "resources": {"limits": {"memory": "1Mi"}}, "volumeMounts": [{"name": "v"}],
        });
        assert_eq!(
            patch_value(&value, "Object.c"),
            "Object.c{args: ['a', 'b' + variables.b], name: 'it\\'s', on: true, resources: Object.c.resources{limits: {'memory': '1Mi'}}, \
             seconds: 3, volumeMounts: [Object.c.volumeMounts{name: 'v'}]}"
        );
        assert_eq!(text("a\\b\n'"), "'a\\\\b\\n\\''");
    }
}
