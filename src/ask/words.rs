//! The words that are the same whatever the catalogue says.
//!
//! An idiom is written as its words; `|` separates the alternatives of one place.

use super::Objection;
use super::tokens::{Kind, Token};

/// What makes a question or a wish of an action, and nothing else: all are about the one who asks, and none says no.
static LEADS: [&str; 37] = [
    "can|may|could|might i",
    "am i allowed|permitted|authorized|authorised|able|entitled|free|cleared to",
    "would i be allowed|permitted|authorized|authorised|able to",
    "do i have",
    "do i have permission|authority|authorization|authorisation|clearance|rights to",
    "do i have the permission|authority|right|rights to",
    "have i got permission to",
    "do i have permission for",
    "is it ok|okay|fine|alright|possible|allowed|permitted|acceptable to",
    "is it ok|okay|fine|alright|possible|allowed|permitted|acceptable for me to",
    "is it ok|okay|fine|alright|possible|acceptable if i",
    "is it all right to",
    "is it all right if i",
    "would it be ok|okay|fine|alright|possible|allowed|permitted|acceptable to",
    "would it be ok|okay|fine|alright|possible|allowed|permitted|acceptable for me to",
    "would it be ok|okay|fine|alright|possible|acceptable if i",
    "would it be all right to",
    "would it be all right if i",
    "let me",
    "allow me to",
    "i want|need|wish to",
    "i would like to",
    "i'd like to",
    "tell me if|whether i can|may|could",
    "tell me if|whether i am allowed|permitted to",
    "can|could you tell me if|whether i can|may|could",
    "can|could you tell me if|whether i am allowed|permitted to",
    "can|could you check if|whether i can|may|could",
    "do you know if|whether i can|may|could",
    "let me know if|whether i can|may|could",
    "check if|whether i can|may|could",
    "i was wondering if|whether i can|may|could",
    "i wonder if|whether i can|may|could",
    "i would like to know if|whether i can|may",
    "i'd like to know if|whether i can|may",
    "permission to",
    "darf|kann|dürfte|könnte ich",
];

/// What makes a question of the action before it.
static ENDINGS: [&str; 3] = ["こ と は で き ま す か", "こ と が で き ま す か", "こ と は 可 能 で す か"];

/// What changes nothing wherever it stands.
static FILLERS: [&str; 15] = [
    "please",
    "kindly",
    "also",
    "too",
    "as well",
    "now",
    "right now",
    "still|actually|really",
    "hi|hello|hey",
    "thanks",
    "thank you",
    "excuse me",
    "good morning|afternoon|evening",
    "bitte",
    "danke",
];

/// What joins two things of which both are asked about.
static AND: [&str; 10] =
    ["and", "&", "und", "and also|then", "as well as", ",", ", and|und", ", as well as", ", and also|then", ", then"];

/// What leaves open which of two things is asked about.
static OR: [&str; 6] = ["or", "oder", "and/or", ", or", "or else", ", oder"];

/// Before the name of a capability.
static USES: [&str; 6] = [
    "access to",
    "permission for",
    "use|perform|invoke|call|execute",
    "use|perform|invoke|call|execute capability",
    "use|perform|invoke|call|execute the capability",
    "use|perform|invoke|call|execute the",
];

/// Between a thing and its id.
static NUMBERS: [&str; 4] = ["number|id|#", "with id|number", "with the id|number", "with id|number #"];

/// Between a thing and its name.
static NAMES: [&str; 3] = ["named|called|titled", "with the name|title", "with name|title"];

/// Between an action and where or on what it is done.
static LINKS: [&str; 1] = ["in|from|of|on|within|to|into|for"];

/// Between a thing and how much it is.
static WORTH: [&str; 5] = ["of|for|worth", "an|the amount of", "in the amount of", "for the amount of", "with amount"];

/// Fillers that may stand inside an idiom.
const ADVERBS: [&str; 7] = ["please", "kindly", "also", "now", "still", "actually", "really"];

const ARTICLES: [&str; 12] = ["a", "an", "the", "ein", "eine", "einen", "einer", "der", "die", "das", "den", "dem"];
/// These name a part of what the noun alone names, so they never widen.
const DETERMINERS: [&str; 7] = ["my", "our", "this", "that", "these", "those", "some"];
const PRONOUNS: [&str; 4] = ["it", "them", "that", "those"];

/// These, joined to a word by a hyphen, say something of a thing, and are no part of its id: "read-only", "all-documents".
const QUANTIFIERS: [&str; 12] = ["all", "any", "every", "each", "everything", "non", "un", "anti", "by", "read", "free", "wide"];

/// How a question that begins with "is" ends: "Is reading documents allowed?"
const ALLOWED: [&str; 10] =
    ["allowed", "permitted", "ok", "okay", "fine", "possible", "acceptable", "alright", "authorized", "authorised"];

const NEGATIONS: [&str; 46] = [
    "not",
    "never",
    "no",
    "none",
    "nobody",
    "nothing",
    "neither",
    "nor",
    "without",
    "cannot",
    "cant",
    "dont",
    "wont",
    "couldnt",
    "shouldnt",
    "mustnt",
    "isnt",
    "arent",
    "aint",
    "forbidden",
    "forbid",
    "prohibited",
    "prohibit",
    "barred",
    "banned",
    "ban",
    "denied",
    "deny",
    "refuse",
    "refused",
    "disallowed",
    "disallow",
    "blocked",
    "block",
    "prevent",
    "prevented",
    "stop",
    "avoid",
    "refrain",
    "unable",
    "hardly",
    "nicht",
    "kein",
    "keine",
    "nie",
    "ohne",
];
const CONDITIONS: [&str; 34] = [
    "if",
    "unless",
    "whether",
    "whenever",
    "until",
    "till",
    "while",
    "once",
    "only",
    "provided",
    "providing",
    "assuming",
    "assume",
    "assumed",
    "suppose",
    "supposing",
    "supposed",
    "pretend",
    "imagine",
    "given",
    "depending",
    "otherwise",
    "except",
    "excluding",
    "after",
    "before",
    "because",
    "since",
    "although",
    "though",
    "wenn",
    "falls",
    "sofern",
    "nur",
];
const OPEN: [&str; 16] = [
    "who", "whom", "whose", "which", "what", "why", "how", "where", "when", "wer", "warum", "wie", "wo", "wann", "was", "welche",
];
const CONTRASTS: [&str; 9] = ["but", "either", "instead", "rather", "versus", "vs", "else", "aber", "entweder"];

/// A list of idioms, by what they do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Idiom {
    /// Makes a question or a wish of an action.
    Lead,
    /// Makes a question of the action before it.
    Ending,
    /// Changes nothing.
    Filler,
    /// Joins two things of which both are asked about.
    And,
    /// Leaves open which of two things is asked about.
    Or,
    /// Stands before the name of a capability.
    Uses,
    /// Stands between a thing and its id.
    Number,
    /// Stands between a thing and its name.
    Name,
    /// Stands between an action and where or on what it is done.
    Link,
    /// Stands between a thing and how much it is.
    Worth,
}

/// How many tokens the longest idiom of the list has that begins at `at`; 0 if none does.
pub(super) fn idiom(list: Idiom, tokens: &[Token], at: usize) -> usize {
    let list: &[&str] = match list {
        Idiom::Lead => &LEADS,
        Idiom::Ending => &ENDINGS,
        Idiom::Filler => &FILLERS,
        Idiom::And => &AND,
        Idiom::Or => &OR,
        Idiom::Uses => &USES,
        Idiom::Number => &NUMBERS,
        Idiom::Name => &NAMES,
        Idiom::Link => &LINKS,
        Idiom::Worth => &WORTH,
    };
    list.iter().map(|idiom| length_of(idiom, tokens, at)).max().unwrap_or_default()
}

/// How many tokens `idiom` has, if it begins at `at`. Words that change nothing may stand between: "am I still allowed to".
pub(super) fn length_of(idiom: &str, tokens: &[Token], at: usize) -> usize {
    let mut length = 0;
    for place in idiom.split(' ') {
        match tokens.get(at + length) {
            Some(token) if token.kind != Kind::Quoted && place.split('|').any(|word| word == token.text) => length += 1,
            _ => return 0,
        }
        while length > 0 && is_one_of(&ADVERBS, tokens.get(at + length)) {
            length += 1;
        }
    }
    length
}

fn is_one_of(list: &[&str], token: Option<&Token>) -> bool {
    token.is_some_and(|token| token.kind == Kind::Word && list.contains(&token.text.as_str()))
}

/// Whether `token` is an article.
pub(super) fn is_article(token: Option<&Token>) -> bool {
    is_one_of(&ARTICLES, token)
}

/// Whether `token` may stand before a noun.
pub(super) fn is_determiner(token: Option<&Token>) -> bool {
    is_article(token) || is_one_of(&DETERMINERS, token)
}

/// Whether `token` stands for the noun before.
pub(super) fn is_pronoun(token: Option<&Token>) -> bool {
    is_one_of(&PRONOUNS, token)
}

/// Whether `token` says how many or which.
pub(super) fn is_quantifier(token: Option<&Token>) -> bool {
    is_one_of(&QUANTIFIERS, token)
}

/// Whether `token` ends a question that begins with "is".
pub(super) fn is_allowed(token: Option<&Token>) -> bool {
    is_one_of(&ALLOWED, token)
}

/// Whether `token` is `word`.
pub(super) fn is_word(word: &str, token: Option<&Token>) -> bool {
    is_one_of(&[word], token)
}

/// What `token` says against an answer with yes, if it is one of the words that are known to.
pub(super) fn objection(token: &Token) -> Option<Objection> {
    if token.kind != Kind::Word {
        return None;
    }
    let (word, raw) = (token.text.as_str(), token.raw.clone());
    if NEGATIONS.contains(&word) || word.ends_with("n't") {
        Some(Objection::Negated(raw))
    } else if CONDITIONS.contains(&word) {
        Some(Objection::Conditional(raw))
    } else if OPEN.contains(&word) {
        Some(Objection::Open(raw))
    } else if CONTRASTS.contains(&word) {
        Some(Objection::Ambiguous { text: raw, between: Vec::new() })
    } else {
        None
    }
}
