//! On whose behalf.

use super::tokens::{Kind, Token};
use super::words::{is_word, length_of};

/// Longest name of a user that is read, in bytes.
const USER_MAX: usize = 128;

/// What comes before the one on whose behalf the asker acts.
static MARKS: [&str; 11] = [
    "for",
    "as",
    "on behalf of",
    "act|acting for|as",
    "act on behalf of",
    "act in the name of",
    "acting on behalf of",
    "in the name of",
    "für",
    "im namen von",
    "im auftrag von",
];

/// The user whom the tokens at `at` name as the subject, and how many they are. Without a word such as "for" in front, only at the
/// beginning of a clause: elsewhere, `user alice@acme.com` is what something is done to.
pub(super) fn subject(tokens: &[Token], at: usize, begins: bool) -> Option<(usize, String)> {
    let mark = MARKS.iter().map(|mark| length_of(mark, tokens, at)).max().unwrap_or_default();
    let mut length = mark;
    if mark > 0 && is_word("the", tokens.get(at + length)) {
        length += 1;
    }
    let titled = is_word("user", tokens.get(at + length));
    if titled {
        length += 1;
    } else if length > mark {
        return None;
    }
    let token = tokens.get(at + length)?;
    let user = match token.kind {
        Kind::Email if mark > 0 || (titled && begins) => token.raw.as_str(),
        Kind::Code if mark > 0 || begins => match name_of(&token.raw) {
            Some(user) if !titled => user,
            None if titled && mark > 0 => token.raw.as_str(),
            _ => return None,
        },
        Kind::Quoted if mark > 0 && titled => token.raw.as_str(),
        _ => return None,
    };
    is_user(user).then(|| (length + 1, user.to_owned()))
}

/// The name in `user:<name>`.
fn name_of(text: &str) -> Option<&str> {
    text.split_once(':').filter(|(kind, _)| kind.eq_ignore_ascii_case("user")).map(|(_, name)| name)
}

fn is_user(text: &str) -> bool {
    (1..=USER_MAX).contains(&text.len())
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@%+-".contains(&b))
}
