//! One record: who asked for what, what was decided, and why. Never a token.

use opentelemetry::trace::SpanContext;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Longest text of one field, in bytes. What was cut is marked.
const FIELD_MAX: usize = 512;

/// About as many fields as most records have.
const FIELDS: usize = 24;

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
    begun: Instant,
    caller_span: Option<Box<SpanContext>>,
}

/// The value of a field.
#[derive(Debug, Clone)]
pub enum Field {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

impl Record {
    /// Begins a record of `event`, such as `token.issue`.
    #[must_use]
    pub fn new(event: &'static str, request_id: String) -> Self {
        Self {
            event,
            request_id,
            outcome: Outcome::Error,
            reason: "unfinished",
            fields: Vec::with_capacity(FIELDS),
            begun: Instant::now(),
            caller_span: None,
        }
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
        self.set(name, Field::Text(value))
    }

    /// Adds a text of our own making, such as a hash in base64, as it is.
    pub(crate) fn own(&mut self, name: &'static str, value: String) -> &mut Self {
        self.fields.push((name, Field::Text(value)));
        self
    }

    /// Adds a number.
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.set(name, Field::Number(value))
    }

    /// What is learnt later takes the place of what was said before.
    fn set(&mut self, name: &'static str, value: Field) -> &mut Self {
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.fields.push((name, value)),
        }
        self
    }

    /// Says what came of it, with the short, stable name of the reason.
    pub fn conclude(&mut self, outcome: Outcome, reason: &'static str) -> &mut Self {
        self.outcome = outcome;
        self.reason = reason;
        self
    }

    /// Notes the span in which the caller was.
    pub fn within(&mut self, span: SpanContext) -> &mut Self {
        self.text("trace_id", span.trace_id().to_string());
        self.caller_span = Some(Box::new(span));
        self
    }

    /// The span in which the caller was, if it said so.
    #[must_use]
    pub fn caller_span(&self) -> Option<&SpanContext> {
        self.caller_span.as_deref()
    }

    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &Field)> {
        self.fields.iter().map(|(name, value)| (*name, value))
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &'static str {
        self.event
    }

    /// How long ago it was begun.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The outcome and its reason.
    #[must_use]
    pub const fn conclusion(&self) -> (Outcome, &'static str) {
        (self.outcome, self.reason)
    }

    /// Whether it says nothing of who asked that was proved: no agent, ServiceAccount, key, workload, user or person.
    #[must_use]
    pub fn is_of_stranger(&self) -> bool {
        const PROVED: [&str; 6] = ["subject", "service_account", "key_thumbprint", "federated_subject", "user", "by"];
        !self.fields.iter().any(|(name, _)| PROVED.contains(name))
    }

    /// From where the request came.
    #[must_use]
    pub fn client_address(&self) -> Option<IpAddr> {
        self.field("client_address")?.parse().ok()
    }

    /// The text of a field, if there is one.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|(field, value)| match value {
            Field::Text(text) if *field == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// The identifier of the request.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The members of the record's JSON object, in ASCII, with the brace that closes it: what precedes them, who writes it knows.
    #[must_use]
    pub(super) fn members(&self) -> Vec<u8> {
        let mut members = Vec::with_capacity(768);
        ascii_json(&mut members, self);
        members.remove(0);
        members
    }
}

/// Writes `value` as ASCII JSON.
pub(super) fn ascii_json(target: &mut Vec<u8>, value: &impl Serialize) {
    let start = target.len();
    // Writing texts and numbers into memory cannot fail.
    if value.serialize(&mut serde_json::Serializer::with_formatter(&mut *target, Ascii)).is_err() {
        target.truncate(start);
        target.extend_from_slice(b"{}");
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", self.event)?;
        map.serialize_entry("outcome", self.outcome.as_str())?;
        map.serialize_entry("reason", self.reason)?;
        map.serialize_entry("request_id", &self.request_id)?;
        for (name, field) in &self.fields {
            match field {
                Field::Text(text) => map.serialize_entry(name, text)?,
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

/// What stands between the quotes when `text` is written as JSON in printable ASCII, as in every record.
pub(super) fn ascii(text: &str) -> String {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    ascii_json(&mut quoted, &text);
    let quoted = String::from_utf8(quoted).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &str) -> String {
        let mut record = Record::new("token.issue", "id".to_owned());
        record.text("subject", value).number("n", 7).conclude(Outcome::Deny, "why");
        format!("{{{}", String::from_utf8(record.members()).expect("ASCII"))
    }

    #[test]
    fn l10_whatever_a_field_holds_a_record_is_one_ascii_line_that_reads_back() {
        for hostile in
            ["a\r\nb", "\0\u{7f}\u{1b}[31m", "\u{202e}evil\u{2028}\u{feff}", "\"},{\"outcome\":\"allow", "\u{1f600}é\\"]
        {
            let line = line(hostile);
            assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
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
