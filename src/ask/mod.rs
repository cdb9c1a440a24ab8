//! Reads a question such as "Can I read documents for user alice@acme.com?" as the operations that it asks about.
//!
//! Nothing here decides. A [`Reading`] says which capabilities are asked about, on what and for whom; another module judges each.
//! The rule that makes a reading safe: **every word has exactly one meaning, or it is reported.** A word is consumed by an action
//! that the catalogue names, by a detail of it (resource, user, amount), or by a list of words that change nothing. Whatever is left
//! over is in [`Reading::unresolved`], and the answer to a question with such a rest is no. So nothing depends on a list of bad
//! words: the list of negations and conditions only makes the refusal say why.
//!
//! Steps: `text` refuses what cannot be read as it is shown, `tokens` splits, `parse` and `detail` consume, `resolve` looks up.

mod detail;
mod inflect;
mod lexicon;
mod money;
mod name;
mod nearest;
mod parse;
mod phrase;
mod resolve;
mod roles;
mod subject;
mod synonyms;
mod text;
mod tokens;
mod words;

pub use lexicon::{Entry, Lexicon};

use serde_json::{Map, Value};

/// Longest question, in characters.
pub const QUESTION_MAX: usize = 2000;
/// Most operations that one question may ask about.
pub const ASKED_MAX: usize = 16;
/// Most parts that are reported as not understood.
pub const UNRESOLVED_MAX: usize = 16;
/// Longest part of a question that is repeated in the answer, in characters.
pub const WORDS_MAX: usize = 80;
/// Most capabilities that are proposed for a part that was not understood, or named as the meanings of an ambiguous one.
pub const NEAREST_MAX: usize = 3;

/// What a question asks, as far as it was understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// The operations that it asks about, in the order of the question.
    pub asked: Vec<Asked>,
    /// The parts that carry a meaning which was not understood.
    pub unresolved: Vec<Unresolved>,
    /// Why it cannot be answered with yes, whatever is allowed.
    pub objection: Option<Objection>,
    /// On whose behalf, as in `user:<name>`.
    pub user: Option<String>,
}

impl Reading {
    /// Whether it was understood as a whole, so that yes may be the answer if all that it asks about is allowed.
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        !self.asked.is_empty() && self.unresolved.is_empty() && self.objection.is_none()
    }

    /// Raises `objection`, unless there is one: the first is the one that the asker meets first when reading.
    fn object(&mut self, objection: Objection) {
        self.objection.get_or_insert(objection);
    }
}

/// One operation that a question asks about.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The capability.
    pub capability: String,
    /// On what, `type:id` without wildcards.
    pub resource: Option<String>,
    /// On whose behalf, as in `user:<name>`.
    pub user: Option<String>,
    /// With what: `amount` and `currency`, `to`, `name`.
    pub parameters: Map<String, Value>,
    /// The part of the question that says so.
    pub words: String,
}

/// A part of a question that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// The part, at most [`WORDS_MAX`] characters of it.
    pub text: String,
    /// Capabilities that may have been meant, the nearest first.
    pub nearest: Vec<String>,
}

/// Why a question cannot be answered with yes, whatever is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// It asks about not doing something, or says that something is forbidden.
    #[error("the question says '{0}': ask what you want to do, not what you do not want to do or must not do")]
    Negated(String),
    /// It depends on something that only the asker knows.
    #[error("the question says '{0}': an answer under a condition or an assumption is not given")]
    Conditional(String),
    /// It asks who, which, why, how, when or where.
    #[error("the question says '{0}': only a question that yes or no answers can be answered, and only for the one who asks")]
    Open(String),
    /// A part of it has more than one meaning.
    #[error("'{text}' has more than one meaning{}: ask for one of them", list(.between))]
    Ambiguous {
        /// The part.
        text: String,
        /// The meanings, where they are known: at most [`NEAREST_MAX`].
        between: Vec<String>,
    },
    /// It is longer than [`QUESTION_MAX`].
    #[error("the question is longer than {QUESTION_MAX} characters")]
    TooLong,
    /// It asks about more than [`ASKED_MAX`] operations.
    #[error("the question asks about more than {ASKED_MAX} operations")]
    TooMany,
    /// It has characters that hide or change what it says.
    #[error("the question has {0}, so that it may say something else than it shows")]
    Unreadable(&'static str),
}

impl Objection {
    /// A short stable name for records and programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Negated(_) => "negated",
            Self::Conditional(_) => "conditional",
            Self::Open(_) => "open_question",
            Self::Ambiguous { .. } => "ambiguous",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

fn list(between: &[String]) -> String {
    if between.is_empty() { String::new() } else { format!(" ({})", between.join(", ")) }
}

/// Reads `question` with the names and phrases of `lexicon`.
///
/// Never fails: what is not understood is part of the reading.
#[must_use]
pub fn read(question: &str, lexicon: &Lexicon) -> Reading {
    let objection = |objection| Reading { objection: Some(objection), ..Reading::default() };
    let text = match text::readable(question) {
        Ok(text) => text,
        Err(unreadable) => return objection(unreadable),
    };
    let tokens = tokens::tokenize(&text);
    if tokens.iter().any(|token| text::mixes_scripts(&token.raw)) {
        return objection(Objection::Unreadable("a word with letters of several alphabets"));
    }
    parse::parse(&text, &tokens, lexicon)
}

/// At most [`WORDS_MAX`] characters of `text`, without the spaces around it.
fn cut(text: &str) -> String {
    let text = text.trim();
    if text.chars().count() <= WORDS_MAX {
        return text.to_owned();
    }
    text.chars().take(WORDS_MAX - 1).chain(['…']).collect()
}
