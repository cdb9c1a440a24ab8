//! Pages of the manual that are written from what the program itself says, so that they cannot say anything else.

use crate::crd;
use serde_json::Value;
use std::fmt::Write as _;

/// Longest rule that is shown beside its message.
const RULE_SHOWN_MAX: usize = 160;

/// The page of the resources, in Markdown: every field of every definition with its type, its limits, its rules and what it means.
///
/// # Errors
/// If a definition cannot be written as JSON, which none can that the API server takes.
pub fn resources() -> Result<String, serde_json::Error> {
    let mut page = "<!-- Generated from the Rust types: run 'make gen'. -->\n\n# Resources\n\n\
        Every field of every resource of `countersign.dev/v1alpha1`.\n\
        `kubectl explain agent.spec` prints the same.\n\
        A text has no more characters than its field says, a list no more entries.\n\
        A field that is not here is refused where the client asks for strict validation, as kubectl does, and dropped otherwise.\n\n"
        .to_owned();
    let definitions = crd::all().into_iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    for definition in &definitions {
        let kind = text(definition, "/spec/names/kind");
        page.push_str(&format!("- [{kind}](#{})\n", kind.to_lowercase()));
    }
    for definition in &definitions {
        resource(&mut page, definition);
    }
    Ok(page)
}

/// The description of the registration API, as a service at the chart's default address serves it.
///
/// # Errors
/// If it cannot be written as JSON, which cannot happen.
pub fn registration() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&crate::http::registration_document("https://countersign.countersign-system.svc"))
        .map(|text| text + "\n")
}

fn resource(page: &mut String, definition: &Value) {
    let schema = at(definition, "/spec/versions/0/schema/openAPIV3Schema");
    let plural = text(definition, "/spec/names/plural");
    push(page, &format!("\n## {}\n\n{}\n", text(definition, "/spec/names/kind"), prose(text(schema, "/description"))));
    let scope = if text(definition, "/spec/scope") == "Cluster" { "of the whole cluster" } else { "in a namespace" };
    let short = words(at(definition, "/spec/names/shortNames"));
    let columns = list(at(definition, "/spec/versions/0/additionalPrinterColumns"));
    let columns: Vec<&str> = columns.iter().map(|column| text(column, "/name")).collect();
    push(
        page,
        &format!("| | |\n|---|---|\n| resource | `{plural}.countersign.dev`, {scope} |\n| for kubectl | `{plural}`, {short} |"),
    );
    push(page, &format!("| columns | {} |", columns.join(", ")));
    rules(page, schema);
    for part in ["spec", "status"] {
        let part_schema = at(schema, &format!("/properties/{part}"));
        push(
            page,
            &format!("\n### {} {part}\n\n{}", text(definition, "/spec/names/kind"), prose(text(part_schema, "/description"))),
        );
        rules(page, part_schema);
        fields(page, part, part_schema);
    }
}

/// All fields below a schema, each with those below it.
fn fields(page: &mut String, path: &str, schema: &Value) {
    let required = list(at(schema, "/required"));
    let Some(properties) = at(schema, "/properties").as_object() else { return };
    for (name, property) in properties {
        let path = format!("{path}.{name}");
        let is_required = required.iter().any(|known| known == name);
        push(page, &format!("\n#### `{path}`\n\n{}\n\n{}", facts(property, is_required), prose(text(property, "/description"))));
        rules(page, property);
        if is_condition(at(property, "/items")) {
            continue; // Those of Kubernetes, which its own manual explains.
        }
        let (below, below_path) = match property.get("items") {
            Some(items) => (items, format!("{path}[]")),
            None => (property, path),
        };
        fields(page, &below_path, below);
    }
}

fn is_condition(items: &Value) -> bool {
    items.pointer("/properties/lastTransitionTime").is_some()
}

/// What can be said of a value without words: its type and its limits.
fn facts(schema: &Value, is_required: bool) -> String {
    let mut facts = vec![if is_required { "Required".to_owned() } else { "Optional".to_owned() }, kind(schema)];
    let mut limit = |least: &str, most: &str, unit: &str| match (number(schema, least), number(schema, most)) {
        (Some(least), Some(most)) if least == most => facts.push(format!("exactly {least}{unit}")),
        (Some(least), Some(most)) => facts.push(format!("{least} to {most}{unit}")),
        (None, Some(most)) => facts.push(format!("at most {most}{unit}")),
        (Some(least), None) => facts.push(format!("at least {least}{unit}")),
        (None, None) => {}
    };
    limit("/minimum", "/maximum", "");
    limit("/minLength", "/maxLength", " characters");
    limit("/minItems", "/maxItems", " entries");
    if let Some(default) = schema.get("default") {
        facts.push(format!("by default `{default}`"));
    }
    for of in [schema, at(schema, "/items")] {
        if let Some(pattern) = of.get("pattern").and_then(Value::as_str) {
            facts.push(format!("pattern `{pattern}`"));
        }
    }
    format!("{}.", facts.join(", "))
}

/// A type in words.
fn kind(schema: &Value) -> String {
    let one_of = words(at(schema, "/enum"));
    match text(schema, "/type") {
        _ if !one_of.is_empty() => format!("one of {one_of}"),
        "array" if is_condition(at(schema, "/items")) => "list of conditions of Kubernetes".to_owned(),
        "array" => match words(at(schema, "/x-kubernetes-list-map-keys")).as_str() {
            "" => format!("list of {}", kind(at(schema, "/items"))),
            keys => format!("list of {} with different {keys}", kind(at(schema, "/items"))),
        },
        "object" if schema.get("x-kubernetes-preserve-unknown-fields").is_some() => "any JSON object".to_owned(),
        "object" => match schema.get("additionalProperties") {
            Some(of) => format!("map to {}", kind(of)),
            None => "object".to_owned(),
        },
        "string" if text(schema, "/format") == "date-time" => "time (RFC 3339)".to_owned(),
        other => other.to_owned(),
    }
}

/// The rules over several fields, or over the old value and the new.
fn rules(page: &mut String, schema: &Value) {
    let rules = list(at(schema, "/x-kubernetes-validations"));
    if rules.is_empty() {
        return;
    }
    push(page, "\nRules:\n");
    for rule in rules {
        let (message, expression) = (text(rule, "/message"), text(rule, "/rule"));
        let expression = if expression.len() <= RULE_SHOWN_MAX { format!(": ``{expression}``") } else { String::new() };
        push(page, &format!("- {}{expression}", escaped(message)));
    }
}

/// A description, a sentence on each line, with nothing in it that Markdown would take for its own.
fn prose(description: &str) -> String {
    let joined = description.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
    escaped(joined.trim()).replace(". ", ".\n")
}

fn escaped(words: &str) -> String {
    let mut escaped = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '*' | '_' | '`' | '[' | ']' | '\\' | '|' => {
                escaped.push('\\');
                escaped.push(c);
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

fn push(page: &mut String, line: &str) {
    // Writing into memory cannot fail.
    _ = writeln!(page, "{line}");
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number(schema: &Value, pointer: &str) -> Option<f64> {
    at(schema, pointer).as_f64()
}

/// Words as code, with commas between.
fn words(value: &Value) -> String {
    list(value).iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_of_every_resource_is_on_the_page() {
        let page = resources().expect("a page");
        for field in [
            "#### `spec.capabilities[].when`",
            "#### `spec.delegation.actFor[].groups`",
            "#### `spec.operation.parameters`",
            "#### `spec.approval.subjectMayApprove`",
            "#### `spec.claimValidationRules[].expression`",
            "#### `status.revocationEpoch`",
        ] {
            assert!(page.contains(field), "{field}");
        }
        assert!(page.contains("1 to 900") && page.contains("one of `Low`, `Medium`, `High`, `Critical`"), "limits");
        assert!(page.contains("- status.phase only moves forward"), "rules");
    }

    #[test]
    fn a_description_is_text_and_no_markdown() {
        assert_eq!(prose("a <b>\n  'c*' d_e. F [g](h) | `i`"), "a &lt;b&gt; 'c\\*' d\\_e.\nF \\[g\\](h) \\| \\`i\\`");
    }

    #[test]
    fn a_type_is_told_in_words() {
        let of = |schema: Value| facts(&schema, true);
        assert_eq!(of(json!({"type": "string", "minLength": 1, "maxLength": 5})), "Required, string, 1 to 5 characters.");
        assert_eq!(
            of(json!({"type": "array", "items": {"type": "string"}, "maxItems": 3})),
            "Required, list of string, at most 3 entries."
        );
        assert_eq!(of(json!({"type": "object", "additionalProperties": {"type": "integer"}})), "Required, map to integer.");
        assert_eq!(of(json!({"type": "boolean", "default": false})), "Required, boolean, by default `false`.");
    }
}
