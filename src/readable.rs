//! Texts of others as they may be shown to people: on a terminal, on a page, in a message.

use std::fmt;

/// A text whose letters stay what they are, in any script, and of which nothing acts on whatever shows it or hides or reorders its
/// neighbours: control, invisible and text-direction characters are written as `\u{…}`, and a backslash is doubled, so that what is shown
/// has one meaning. For HTML it must still be escaped. (Where only ASCII is safe: [`Plain`](crate::audit::plain::Plain).)
#[derive(Debug, Clone, Copy)]
pub struct Readable<'a>(pub &'a str);

impl fmt::Display for Readable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                _ if c.is_control() || is_invisible(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                _ => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

/// Whether `c` takes no room but changes how its neighbours are read: zero-width and directional characters, soft hyphens, variation
/// selectors, line separators and tags.
#[must_use]
pub const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// At most `characters` characters of a text; what is left out shows as an ellipsis.
#[must_use]
pub fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h15_letters_stay_and_what_acts_is_named() {
        let hostile = "Jürgen 李 \u{1b}[31m\r\n\u{202e}b\u{2028}\u{9b}\0\u{200b}\u{feff}\u{e0041}\\u{1b}";
        let shown = Readable(hostile).to_string();
        assert_eq!(shown, r"Jürgen 李 \u{1b}[31m\u{d}\u{a}\u{202e}b\u{2028}\u{9b}\u{0}\u{200b}\u{feff}\u{e0041}\\u{1b}");
    }

    #[test]
    fn what_is_shortened_says_so() {
        assert_eq!((shortened("abc", 3), shortened("abcd", 3), shortened("äöüß", 3)), ("abc".into(), "ab…".into(), "äö…".into()));
        assert_eq!((shortened("", 0), shortened("a", 0)), (String::new(), "…".to_owned()));
    }
}
