//! Other words for the verbs and nouns of capability names.
//!
//! A synonym never widens: each asks for no more than the word that it stands for. So `list`, `search`, `get`, `access`, `download` and
//! `approve` stand for nothing here, because somewhere they mean something else; a catalogue that wants them has `phrases`.

use super::inflect::gerunds;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The most words of a synonym.
pub(super) const LONGEST: usize = 3;

/// Words that stand for a verb.
#[derive(Debug)]
pub(super) struct Synonym {
    /// The verb of a capability name.
    pub verb: &'static str,
    /// What is said for it.
    words: &'static [&'static str],
    /// The nouns with which they mean it; none is any. To open a file is to read it, to open a ticket is to create it.
    pub nouns: &'static [&'static str],
}

const fn row(verb: &'static str, words: &'static [&'static str]) -> Synonym {
    Synonym { verb, words, nouns: &[] }
}

static VERBS: [Synonym; 14] = [
    row("read", &["view", "see", "look at", "fetch", "retrieve", "inspect", "read from", "read through", "read access to"]),
    Synonym { verb: "read", words: &["open"], nouns: &["document", "file", "page", "report", "spreadsheet", "folder"] },
    row("view", &["read", "see", "look at"]),
    row("write", &["edit", "update", "modify", "change", "write to", "write access to"]),
    row("update", &["edit", "modify", "change", "amend"]),
    row("edit", &["update", "modify", "change", "amend"]),
    row("modify", &["edit", "update", "change", "amend"]),
    row("delete", &["remove", "erase", "destroy", "get rid of"]),
    row("remove", &["delete", "erase", "get rid of"]),
    row("create", &["make", "add"]),
    row("add", &["create"]),
    row("query", &["run query on", "run query against"]),
    row("refund", &["issue refund for", "issue refund of", "issue refund"]),
    row("summarize", &["sum up", "write summary of"]),
];

/// Words that stand for a noun.
static NOUNS: [(&str, &[&str]); 6] = [
    ("document", &["doc"]),
    ("email", &["mail", "e mail"]),
    ("repo", &["repository"]),
    ("repository", &["repo"]),
    ("database", &["db"]),
    ("pull request", &["pr"]),
];

/// Verbs with which a phrase of several words may begin: "pay invoices" is a verb and a noun, "purchase order" a noun. Beside these,
/// the verbs of the capability names and of the synonyms count.
static COMMON: [&str; 51] = [
    "approve",
    "archive",
    "assign",
    "authorize",
    "book",
    "buy",
    "cancel",
    "charge",
    "close",
    "copy",
    "create",
    "deploy",
    "execute",
    "forward",
    "get",
    "grant",
    "invite",
    "issue",
    "launch",
    "list",
    "make",
    "merge",
    "move",
    "onboard",
    "pay",
    "post",
    "provision",
    "publish",
    "reject",
    "rename",
    "reply",
    "reset",
    "restart",
    "restore",
    "revoke",
    "rotate",
    "run",
    "scale",
    "schedule",
    "search",
    "send",
    "settle",
    "share",
    "sign",
    "start",
    "stop",
    "submit",
    "transfer",
    "trigger",
    "upload",
    "wire",
];

/// Those of them that are as often nouns.
const ALSO_NOUNS: [&str; 12] =
    ["book", "charge", "copy", "grant", "issue", "launch", "list", "post", "scale", "search", "share", "transfer"];

/// The words for verbs, each form, with the rows in which they are.
static VERB_FORMS: LazyLock<HashMap<String, Vec<&'static Synonym>>> = LazyLock::new(|| {
    let mut forms: HashMap<String, Vec<&'static Synonym>> = HashMap::new();
    for row in &VERBS {
        for words in row.words {
            for form in verb_forms(words) {
                forms.entry(form).or_default().push(row);
            }
        }
    }
    forms
});

/// `verb` and its forms in `-ing`; of several words the first is inflected.
pub(super) fn verb_forms(verb: &str) -> Vec<String> {
    let (first, rest) =
        verb.split_once(' ').map_or((verb, ""), |(first, _)| (first, verb.get(first.len()..).unwrap_or_default()));
    let mut forms = vec![verb.to_owned()];
    forms.extend(gerunds(first).into_iter().map(|form| format!("{form}{rest}")));
    forms
}

/// The rows in which `words` stand for a verb.
pub(super) fn verbs(words: &str) -> &'static [&'static Synonym] {
    VERB_FORMS.get(words).map_or(&[], Vec::as_slice)
}

/// The nouns for which `words`, in the singular, stand.
pub(super) fn nouns(words: &str) -> impl Iterator<Item = &'static str> {
    NOUNS.iter().filter(move |(_, others)| others.contains(&words)).map(|(noun, _)| *noun)
}

/// Whether `word`, a common verb, is as often a noun.
pub(super) fn is_also_noun(word: &str) -> bool {
    ALSO_NOUNS.contains(&word)
}

/// Whether `word` is a verb to begin a phrase with, whatever the catalogue says.
pub(super) fn is_common_verb(word: &str) -> bool {
    COMMON.contains(&word) || VERBS.iter().any(|row| row.verb == word || row.words.contains(&word))
}
