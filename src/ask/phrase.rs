//! What the name and the phrases of a capability say: verbs, nouns, or both at once.
//!
//! Nobody says of a phrase which it is, so there is one rule for each form:
//!
//! - Several words with an article inside ("settle an invoice"), or of which the first is a known verb ("pay invoices"), are a verb
//!   and its noun. That verb is the capability only with that noun.
//! - Several words of which the first is a known noun ("customer record") are a noun.
//! - Any other several words ("purchase order", "roll back", "Rechnung bezahlen") are a noun after a verb, and an action where a
//!   verb stands.
//! - One word is a verb if it is a known one ("pay"), and a noun if a name or another phrase has it as noun, or it is a plural.
//!   One about which nothing is known ("invoice", "bezahlen") is both, and so is one that repeats the noun of the name: as a phrase
//!   of `email.send`, "email" is more than the noun only if it is the verb.
//!
//! Verbs are known from the names of all capabilities, from [`super::synonyms`], and from the list there. Articles never count.

use super::inflect::{singular, spelling};
use super::synonyms::{is_also_noun, is_common_verb};
use super::tokens::{Kind, Token, tokenize};
use super::words::is_article;
use std::collections::HashSet;
use unicode_normalization::UnicodeNormalization as _;

/// Longest phrase, in tokens: a phrase has at most 64 characters.
pub(super) const TOKENS_MAX: usize = 64;

/// The verbs and nouns of a whole lexicon, as far as its names and unmistakable phrases tell.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// One word each.
    pub verbs: HashSet<String>,
    /// In the singular.
    pub nouns: HashSet<String>,
}

impl Known {
    /// Whether `word` is known as a verb.
    pub fn is_verb(&self, word: &str) -> bool {
        self.verbs.contains(word) || is_common_verb(word)
    }
}

/// What a phrase is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phrase {
    /// A verb and its noun.
    Action(String, String),
    /// A verb that is an action alone.
    Verb(String),
    /// A noun.
    Noun(String),
    /// A verb or a noun, as its place in the question says: as the one, and as the other.
    Either(String, String),
}

/// Splits a phrase into tokens.
pub(super) fn phrase_tokens(phrase: &str) -> Vec<Token> {
    tokenize(&phrase.nfkc().collect::<String>())
}

/// What the phrase of `tokens` is for a capability with the nouns `own` in its name; `None` if it has no words, or more than a phrase
/// can have.
pub(super) fn classify(tokens: &[Token], known: &Known, own: &[String]) -> Option<Phrase> {
    if let Some((verb, noun)) = action(tokens, known) {
        return Some(Phrase::Action(verb, noun));
    }
    let words: Vec<&str> = content(tokens)?;
    let (verb, noun) = (verb_key(&words), noun_key(&words));
    let [word] = words.as_slice() else {
        let noun_first = known.nouns.contains(&noun_key(words.get(..1)?));
        return Some(if noun_first { Phrase::Noun(noun) } else { Phrase::Either(verb, noun) });
    };
    let plural = noun != spelling(word);
    match (known.is_verb(&verb), known.nouns.contains(&noun) || plural) {
        (true, false) if !is_also_noun(&verb) => Some(Phrase::Verb(verb)),
        (false, true) if plural || !own.contains(&noun) => Some(Phrase::Noun(noun)),
        _ => Some(Phrase::Either(verb, noun)),
    }
}

/// The verb and the noun of a phrase that is an action by its form.
pub(super) fn action(tokens: &[Token], known: &Known) -> Option<(String, String)> {
    let words = content(tokens)?;
    let article = tokens.iter().skip(1).position(|token| is_article(Some(token))).map(|n| n + 1);
    let leading = usize::from(is_article(tokens.first()));
    let split = match article {
        Some(article) if article > leading && article + 1 < tokens.len() => article - leading,
        _ if known.is_verb(&spelling(words.first()?)) => 1,
        _ => return None,
    };
    let (verb, noun) = words.split_at_checked(split)?;
    (!noun.is_empty()).then(|| (verb_key(verb), noun_key(noun)))
}

/// The words of `tokens` that count.
fn content(tokens: &[Token]) -> Option<Vec<&str>> {
    let words: Vec<&str> = tokens
        .iter()
        .filter(|token| !is_article(Some(token)) && !matches!(token.kind, Kind::Stop | Kind::Quoted))
        .map(|token| token.text.as_str())
        .collect();
    (1..=TOKENS_MAX).contains(&words.len()).then_some(words)
}

/// Words as the lexicon knows them as a verb: the first as it is, those behind it in the singular.
pub(super) fn verb_key(words: &[&str]) -> String {
    let word = |(n, word): (usize, &&str)| if n == 0 { spelling(word) } else { singular(&spelling(word)) };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// Words as the lexicon knows them as a noun: each in the singular.
pub(super) fn noun_key(words: &[&str]) -> String {
    words.iter().map(|word| singular(&spelling(word))).collect::<Vec<_>>().join(" ")
}
