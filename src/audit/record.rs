//! One record: who asked for what, what was decided, and why. Never a token.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use std::borrow::Cow;
use std::io;

/// Longest text of one field, in bytes. What was cut is marked.
const FIELD_MAX: usize = 512;

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Allow,
    /// It was refused by a rule.
    Deny,
    /// It could not be decided or recorded, hence was refused.
    Error,
}

impl Outcome {
    /// Its name in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
        }
    }
}

/// One record. It is begun when a request arrives, gathers what is learnt on the way, and is written once at the end.
#[derive(Debug, Clone)]
pub struct Record {
    event: &'static str,
    request_id: String,
    outcome: Outcome,
    reason: &'static str,
    fields: Vec<(&'static str, Field)>,
}

#[derive(Debug, Clone)]
enum Field {
    Text(String),
    Number(u64),
}

impl Record {
    /// Begins a record of `event`, such as `token.issue`.
    #[must_use]
    pub const fn new(event: &'static str, request_id: String) -> Self {
        Self { event, request_id, outcome: Outcome::Error, reason: "unfinished", fields: Vec::new() }
    }

    /// Adds a text. It may come from outside: it is cut to 512 bytes, and written with everything but printable ASCII escaped.
    pub fn text(&mut self, name: &'static str, value: impl Into<String>) -> &mut Self {
        let mut value: String = value.into();
        if holds_token(&value) {
            // A client that mixes up its parameters must not put its credential into our log.
            value = "[looks like a token, not recorded]".to_owned();
        }
        if value.len() > FIELD_MAX {
            let end = (0..=FIELD_MAX).rev().find(|&i| value.is_char_boundary(i)).unwrap_or(0);
            let cut = value.len() - end;
            value.truncate(end);
            value.push_str(&format!("…[{cut} bytes cut]"));
        }
        self.fields.push((name, Field::Text(value)));
        self
    }

    /// Adds a number.
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.fields.push((name, Field::Number(value)));
        self
    }

    /// Says what came of it, with the short, stable name of the reason.
    pub fn conclude(&mut self, outcome: Outcome, reason: &'static str) -> &mut Self {
        self.outcome = outcome;
        self.reason = reason;
        self
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &'static str {
        self.event
    }

    /// The outcome and its reason.
    #[must_use]
    pub const fn conclusion(&self) -> (Outcome, &'static str) {
        (self.outcome, self.reason)
    }

    /// The identifier of the request.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The record as one line of ASCII JSON, written at `time` (RFC 3339).
    #[must_use]
    pub(super) fn line(&self, time: &str) -> Vec<u8> {
        let mut line = Vec::with_capacity(768);
        let mut serializer = serde_json::Serializer::with_formatter(&mut line, Ascii);
        // Writing texts and numbers into memory cannot fail.
        if (Timed { time, record: self }).serialize(&mut serializer).is_err() {
            line.clear();
        }
        line.push(b'\n');
        line
    }
}

struct Timed<'a> {
    time: &'a str,
    record: &'a Record,
}

impl Serialize for Timed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", self.time)?;
        map.serialize_entry("event", self.record.event)?;
        map.serialize_entry("outcome", self.record.outcome.as_str())?;
        map.serialize_entry("reason", self.record.reason)?;
        map.serialize_entry("request_id", &self.record.request_id)?;
        for (name, field) in &self.record.fields {
            match field {
                Field::Text(text) => map.serialize_entry(name, &Cow::Borrowed(text.as_str()))?,
                Field::Number(number) => map.serialize_entry(name, number)?,
            }
        }
        map.end()
    }
}

/// Whether `text` has something in it that begins like a JWT (`{"` in base64url) and is long enough to be a part of one.
fn holds_token(text: &str) -> bool {
    if !text.contains("eyJ") {
        return false;
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'));
    words.filter_map(|word| word.find("eyJ").and_then(|start| word.get(start..))).any(|word| word.len() > 24)
}

/// JSON in printable ASCII only: line separators, text-direction marks and look-alikes are inert in every terminal,
/// log shipper and grep.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return writer.write_all(fragment.as_bytes());
        }
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte @ b' '..=b'~') => writer.write_all(&[byte])?,
                _ => write!(writer, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &str) -> String {
        let mut record = Record::new("token.issue", "id".to_owned());
        record.text("subject", value).number("n", 7).conclude(Outcome::Deny, "why");
        String::from_utf8(record.line("2026-01-01T00:00:00Z")).expect("ASCII")
    }

    #[test]
    fn l10_whatever_a_field_holds_a_record_is_one_ascii_line_that_reads_back() {
        for hostile in
            ["a\r\nb", "\0\u{7f}\u{1b}[31m", "\u{202e}evil\u{2028}\u{feff}", "\"},{\"outcome\":\"allow", "\u{1f600}é\\"]
        {
            let line = line(hostile);
            assert!(line.trim_end_matches('\n').bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(value["subject"], hostile);
            assert_eq!((&value["outcome"], &value["reason"], &value["n"]), (&"deny".into(), &"why".into(), &7.into()));
        }
    }

    #[test]
    fn l10_a_long_field_is_cut_and_says_so() {
        let line = line(&"é".repeat(1 << 20));
        assert!(line.len() < 4096 && line.contains("bytes cut"), "{}", line.len());
    }

    #[test]
    fn l9_what_looks_like_a_token_is_not_recorded() {
        let jwt = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJhIn0.c2ln";
        for hidden in
            [jwt, &format!("Bearer {jwt}"), &format!("x{jwt}"), &format!("/a/{jwt}/b"), "a b eyJhbGciOiJSUzI1NiIsImtpZCI6"]
        {
            assert!(line(hidden).contains("not recorded") && !line(hidden).contains("eyJ"), "{hidden}");
        }
        assert!(line("https://keyJoint.example.com/a").contains("keyJoint"));
    }

    #[test]
    fn a_record_that_nobody_concluded_is_no_success() {
        assert_eq!(Record::new("x", String::new()).conclusion(), (Outcome::Error, "unfinished"));
    }
}
