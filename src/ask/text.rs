//! Text that says what it shows.

use super::{Objection, QUESTION_MAX};
use crate::readable::is_invisible;
use unicode_normalization::UnicodeNormalization as _;
use unicode_script::{Script, UnicodeScript as _};

/// `question` in normalization form KC (UAX #15), so that a full-width letter is the letter.
///
/// # Errors
/// If it is too long, or has characters that hide what it says. The work is bounded whatever the length.
pub(super) fn readable(question: &str) -> Result<String, Objection> {
    let too_long = |text: &str| text.chars().nth(QUESTION_MAX).is_some();
    if too_long(question) {
        return Err(Objection::TooLong);
    }
    if question.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(Objection::Unreadable("control characters"));
    }
    if question.chars().any(is_invisible) {
        return Err(Objection::Unreadable("invisible or text-direction characters"));
    }
    if question.chars().any(is_disguised) {
        return Err(Objection::Unreadable("letters or digits in disguise"));
    }
    let text: String = question.nfkc().collect();
    if too_long(&text) { Err(Objection::TooLong) } else { Ok(text) }
}

/// Whether normalization would make an ASCII letter or digit of `c`, which is something else: a mathematical letter, a superscript, a
/// ligature. `7²` is not `72`. Full-width forms are how East Asian keyboards write ASCII.
fn is_disguised(c: char) -> bool {
    !c.is_ascii() && !matches!(c, '\u{ff00}'..='\u{ffef}') && {
        let mut parts = std::iter::once(c).nfkc();
        parts.any(|part| part.is_ascii_alphanumeric())
    }
}

/// Whether `word` has letters of more than one script (UTS #39, section 5.1): a Latin word with a Cyrillic 'а' is not the word that it
/// looks like. Scripts that are written without spaces never get here with others: each of their characters is a word of its own.
pub(super) fn mixes_scripts(word: &str) -> bool {
    let mut scripts = word.chars().map(|c| c.script()).filter(|script| !matches!(script, Script::Common | Script::Inherited));
    scripts.next().is_some_and(|first| scripts.any(|script| script != first))
}

/// `text` as words are compared: in lower case, with the straight apostrophe. Character by character, so that the case of a
/// neighbour changes nothing.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'ß' | 'ẞ' => folded.push_str("ss"),
            'ς' => folded.push('σ'),
            '’' => folded.push('\''),
            c => folded.extend(c.to_lowercase()),
        }
    }
    folded
}
