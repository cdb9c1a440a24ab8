//! A record as it is read back: whatever the line holds, reading it never fails, so that nothing can be hidden by spoiling it.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// The event of a line that is no record: somebody has written to the database beside us.
pub const UNREADABLE: &str = "ledger.unreadable";

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    log: String,
    seq: u64,
    line: String,
    members: Vec<(String, Member)>,
}

/// The value of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    Text(String),
    Number(u64),
    /// Nothing that a record has.
    Other,
}

impl Entry {
    /// The record that stands at `seq` of `log`. Where it stands counts, not what the line says of it; `audit verify` compares the two.
    #[must_use]
    pub fn read(log: &str, seq: u64, line: &[u8]) -> Self {
        let text = String::from_utf8_lossy(line).into_owned();
        let members = match serde_json::from_slice::<Members>(line) {
            Ok(Members(members)) => members,
            Err(_) => [("event", UNREADABLE), ("outcome", "error"), ("reason", "unreadable")]
                .map(|(name, value)| (name.to_owned(), Member::Text(value.to_owned())))
                .into(),
        };
        Self { log: log.to_owned(), seq, line: text, members }
    }

    /// The log in which it stands.
    #[must_use]
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Where in its log it stands, from 0.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Its name for `audit prove`: log and number.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.log, self.seq)
    }

    /// The line as it stands in the log.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// A text, empty if there is none of that name. Of several the first.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// A text that is there and not empty.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        let found = self.members.iter().find_map(|(n, value)| match value {
            Member::Text(text) if n == name => Some(text.as_str()),
            _ => None,
        });
        found.filter(|text| !text.is_empty())
    }

    /// A number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.members.iter().find_map(|(n, value)| match value {
            Member::Number(number) if n == name => Some(*number),
            _ => None,
        })
    }

    /// The words of a text that lists several, with a space between.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.text(name).split(' ').filter(|word| !word.is_empty())
    }

    /// All texts with their names, in the order of the line.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().filter_map(|(name, value)| match value {
            Member::Text(text) => Some((name.as_str(), text.as_str())),
            _ => None,
        })
    }

    /// All members, numbers as texts.
    pub fn members(&self) -> impl Iterator<Item = (&str, String)> {
        self.members.iter().filter_map(|(name, value)| match value {
            Member::Text(text) => Some((name.as_str(), text.clone())),
            Member::Number(number) => Some((name.as_str(), number.to_string())),
            Member::Other => None,
        })
    }

    /// The event, such as `token.issue`.
    #[must_use]
    pub fn event(&self) -> &str {
        self.text("event")
    }

    /// When it was written (RFC 3339).
    #[must_use]
    pub fn time(&self) -> &str {
        self.text("time")
    }

    /// Whether something was done, and not refused.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.text("outcome") == "allow"
    }

    /// Whether the line is no record.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.event() == UNREADABLE
    }
}

/// The members of a line. A record may have one name several times, such as `requested_audience`; none is lost here.
struct Members(Vec<(String, Member)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::with_capacity(24);
        while let Some(name) = map.next_key::<String>()? {
            members.push((name, map.next_value()?));
        }
        Ok(Members(members))
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Member, E> {
        Ok(Member::Text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Member, E> {
        Ok(Member::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Member, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Member, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_with_everything_that_it_says() {
        let line =
            br#"{"log":"x","seq":9,"time":"t","event":"token.issue","n":7,"a":"1","a":"2","b":"","c":[1,{"d":[]}],"e":null}"#;
        let entry = Entry::read("l", 3, line);
        assert_eq!((entry.id().as_str(), entry.seq(), entry.event(), entry.time()), ("l/3", 3, "token.issue", "t"));
        assert_eq!((entry.number("n"), entry.text("a"), entry.find("b"), entry.find("absent")), (Some(7), "1", None, None));
        assert_eq!(entry.texts().filter(|(name, _)| *name == "a").count(), 2);
        assert!(!entry.is_unreadable() && !entry.is_allowed());
    }

    #[test]
    fn a_line_that_is_no_record_is_shown_as_one() {
        for bad in [&b""[..], b"x", b"[]", b"{\"a\":}", b"{} {}", b"\xff\xfe", b"{\"a\":\"\x1b\"}", &[b'['; 100_000]] {
            let entry = Entry::read("l", 0, bad);
            assert!(entry.is_unreadable() && !entry.is_allowed(), "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..256)) {
            _ = Entry::read("l", 0, &bytes);
        }
    }
}
