//! Texts from outside on a terminal: printable ASCII, and everything else escaped, so that nothing in them moves the cursor, hides or
//! reorders what stands around them, or looks like another letter.

use std::fmt;

/// A text as it may be shown. A backslash is doubled, so that what is shown has one meaning.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                ' '..='~' => fmt::Write::write_char(f, c)?,
                _ => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            }
        }
        Ok(())
    }
}

/// A line of JSON as it may be shown. What we wrote is printable ASCII anyway; what somebody else wrote into the database stays
/// what it is to a reader of JSON, but for bytes that no text has.
#[must_use]
pub fn json_line(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            ' '..='~' => shown.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l10_only_printable_ascii_reaches_a_terminal() {
        let hostile = "a\u{1b}[31m\r\n\u{202e}b\u{2028}\u{7f}\u{9b}\0\u{430}\u{1f600}\\u{1b}";
        let shown = Plain(hostile).to_string();
        assert_eq!(
            shown, r"a\u{1b}[31m\u{d}\u{a}\u{202e}b\u{2028}\u{7f}\u{9b}\u{0}\u{430}\u{1f600}\\u{1b}",
            "each in its place, and an escape that was there is another text"
        );
        let line = json_line("{\"a\":\"\u{202e}\u{1f600}\u{1b}\"}");
        assert!(line.bytes().all(|b| matches!(b, b' '..=b'~')), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["a"], "\u{202e}\u{1f600}\u{1b}");
    }
}
