//! A text as tokens.

use super::text::fold;
use unicode_script::{Script, UnicodeScript as _};

/// What a token is, as far as its characters tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters, maybe with an apostrophe. In a script without spaces, one character.
    Word,
    /// Something with digits or signs: an id, an amount, a resource, the name of a capability.
    Code,
    /// An address of electronic mail.
    Email,
    /// A text in quotes; `raw` is without them.
    Quoted,
    /// A comma.
    Comma,
    /// Punctuation that ends or encloses something.
    Stop,
    /// Any other character.
    Symbol,
}

/// One token.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// What it is.
    pub kind: Kind,
    /// As words are compared.
    pub text: String,
    /// As it was written.
    pub raw: String,
    /// Where it begins and ends, in bytes.
    pub start: usize,
    /// See `start`.
    pub end: usize,
    /// Whether only a hyphen separates it from the one before.
    pub glued: bool,
}

/// The pairs of quotes.
const QUOTES: [(char, char); 8] =
    [('\'', '\''), ('"', '"'), ('‘', '’'), ('“', '”'), ('„', '“'), ('«', '»'), ('「', '」'), ('`', '`')];

/// Splits `text`, which is in normalization form KC.
pub(super) fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let char_at = |at: usize| chars.get(at).map(|(_, c)| *c);
    let offset = |at: usize| chars.get(at).map_or(text.len(), |(offset, _)| *offset);
    let (mut at, mut unclosed) = (0, 0_u32);
    while let Some(c) = char_at(at) {
        if c.is_whitespace() {
            at += 1;
            continue;
        }
        let fresh = at == 0 || char_at(at - 1).is_none_or(|before| before.is_whitespace() || before == '(');
        // A quote without an end makes each look at the rest in vain, so the number of looks is limited.
        if fresh && unclosed < 8 && QUOTES.iter().any(|(open, _)| *open == c) {
            if let Some(end) = closing(&chars, at) {
                push(&mut tokens, Kind::Quoted, text, offset(at + 1), offset(end));
                if let Some(token) = tokens.last_mut() {
                    (token.start, token.end) = (offset(at), offset(end + 1));
                }
                at = end + 1;
                continue;
            }
            unclosed += 1;
        }
        let length = run(&chars, at);
        if length > 0 {
            push_run(&mut tokens, text, offset(at), offset(at + length));
            at += length;
            continue;
        }
        // A sign directly before a word may deny it, as in "!read", and a dash directly before it may be a minus.
        let attached = fresh && !matches!(c, '(' | '¿' | '¡') && char_at(at + 1).is_some_and(char::is_alphanumeric);
        let kind = match c {
            _ if attached && !c.is_alphanumeric() => Kind::Symbol,
            ',' | '、' => Kind::Comma,
            '.' | '?' | '!' | ';' | ':' | '(' | ')' | '-' | '–' | '—' | '。' | '¿' | '¡' => Kind::Stop,
            c if c.is_alphanumeric() => Kind::Word,
            _ => Kind::Symbol,
        };
        push(&mut tokens, kind, text, offset(at), offset(at + 1));
        at += 1;
    }
    tokens
}

fn push(tokens: &mut Vec<Token>, kind: Kind, text: &str, start: usize, end: usize) {
    let raw = text.get(start..end).unwrap_or_default().to_owned();
    tokens.push(Token { kind, text: fold(&raw), raw, start, end, glued: false });
}

/// Where the quote that opens at `at` closes: before the end of a word nothing closes, so that `'it's'` is one text.
fn closing(chars: &[(usize, char)], at: usize) -> Option<usize> {
    let (_, open) = chars.get(at)?;
    let ends: Vec<char> = QUOTES.iter().filter(|(this, _)| this == open).map(|(_, end)| *end).collect();
    let rest = chars.get(at + 1..)?;
    let length = rest
        .iter()
        .enumerate()
        .position(|(n, (_, c))| ends.contains(c) && n > 0 && rest.get(n + 1).is_none_or(|(_, after)| !after.is_alphanumeric()))?;
    Some(at + 1 + length)
}

/// How many characters from `at` on are one run of letters, digits and the signs of ids and amounts; 0 if none begins here.
fn run(chars: &[(usize, char)], at: usize) -> usize {
    let char_at = |at: usize| chars.get(at).map(|(_, c)| *c);
    let alphanumeric = |at: usize| char_at(at).is_some_and(|c| c.is_alphanumeric() && !is_unspaced(c));
    let begins = alphanumeric(at)
        || match char_at(at) {
            Some('-') => char_at(at + 1).is_some_and(|c| c.is_ascii_digit()),
            Some('.' | '/') => alphanumeric(at + 1) || matches!(char_at(at + 1), Some('.' | '/')),
            Some(c) => "#€$£¥@_*~\\=%+".contains(c),
            None => false,
        };
    if !begins {
        return 0;
    }
    let digit = |at: usize| char_at(at).is_some_and(|c| c.is_ascii_digit());
    let mut end = at;
    while let Some(c) = char_at(end) {
        let inside =
            alphanumeric(end) || "'’-._~@%+=:/*#\\€$£¥".contains(c) || (c == ',' && end > at && digit(end - 1) && digit(end + 1));
        if !inside {
            break;
        }
        end += 1;
    }
    while end > at && char_at(end - 1).is_some_and(|c| ".:;'’-=+~".contains(c)) {
        end -= 1;
    }
    end - at
}

/// Adds the run from `start` to `end`: a word, words that hyphens join, an address, or something else with signs.
fn push_run(tokens: &mut Vec<Token>, text: &str, start: usize, end: usize) {
    let raw = text.get(start..end).unwrap_or_default();
    let is_word = |part: &str| {
        !part.is_empty() && !part.starts_with('\'') && part.chars().all(|c| c.is_alphabetic() || matches!(c, '\'' | '’'))
    };
    if raw.split('-').all(is_word) {
        let mut from = start;
        for (n, part) in raw.split('-').enumerate() {
            push(tokens, Kind::Word, text, from, from + part.len());
            if let Some(token) = tokens.last_mut() {
                token.glued = n > 0;
            }
            from += part.len() + 1;
        }
        return;
    }
    push(tokens, if is_email(raw) { Kind::Email } else { Kind::Code }, text, start, end);
}

/// Whether `text` is an address as people write it: ASCII, one '@', a domain with a dot.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let label = |label: &str| {
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && {
            label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }
    };
    local.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_%+-".contains(&b)))
        && domain.contains('.')
        && domain.split('.').all(label)
}

/// Whether `c` is of a script that is written without spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(
        c.script(),
        Script::Han | Script::Hiragana | Script::Katakana | Script::Thai | Script::Lao | Script::Khmer | Script::Myanmar
    ) || c == 'ー'
}
