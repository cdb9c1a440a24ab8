//! YAML for people: the documents that `countersign crds` and `countersign admission` print.

use serde_json::Value;

/// Prints `documents` one after the other, each opened by `---`.
///
/// Empty lists and nulls that carry no meaning are left as they are: what is printed is what is meant.
#[must_use]
pub fn documents(documents: &[Value]) -> String {
    documents.iter().fold(String::new(), |mut text, document| {
        text.push_str("---\n");
        // A JSON value has string keys and no cycles, so this cannot fail; JSON itself is YAML if it ever did.
        text.push_str(&serde_saphyr::to_string(document).unwrap_or_else(|_| document.to_string()));
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    })
}
