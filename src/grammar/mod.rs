//! The names that appear in resources, requests and tokens, each parsed once.
//!
//! A value of one of these types is always well formed: the field is private and
//! the only way in is `parse`. The CRD schema carries the same patterns, so that
//! the API server refuses what this module would refuse; this module is what
//! decides, because a stored object may be older than the schema.

mod resource;

pub use resource::{Resource, ResourcePattern};

use std::fmt;
use std::sync::Arc;

/// Longest capability name, in bytes.
pub const CAPABILITY_MAX: usize = 100;
/// Longest audience, in bytes.
pub const AUDIENCE_MAX: usize = 256;
/// Longest resource pattern, in bytes.
pub const RESOURCE_MAX: usize = 256;

/// The pattern of a capability name: that of a Kubernetes object name, because the
/// name is also a `resourceName` in RBAC and the name of a catalogue entry.
pub const CAPABILITY_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The pattern of an audience: printable ASCII without space, quote and backslash.
pub const AUDIENCE_PATTERN: &str = r"^[!#-\[\]-~]+$";
/// The pattern of a resource: a type, a colon, and a path of one or more segments.
/// `*` stands for characters of one segment, `**` as last segment for the rest of the path.
pub const RESOURCE_PATTERN: &str = r"^[a-z][-a-z0-9]*(\.[-a-z0-9]+)*:([-A-Za-z0-9._~@%+=,:*]+/)*[-A-Za-z0-9._~@%+=,:*]+$";
/// The pattern of one resource: as [`RESOURCE_PATTERN`], without `*`.
pub const OPERATION_RESOURCE_PATTERN: &str = r"^[a-z][-a-z0-9]*(\.[-a-z0-9]+)*:([-A-Za-z0-9._~@%+=,:]+/)*[-A-Za-z0-9._~@%+=,:]+$";
/// The pattern of an `owner`: printable ASCII that neither begins nor ends with a space.
pub const OWNER_PATTERN: &str = r"^[!-~]([ -~]*[!-~])?$";
/// The pattern of a ServiceAccount's name (RFC 1123 subdomain).
pub const SUBDOMAIN_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Why a name was refused: what it was to be, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct GrammarError {
    what: &'static str,
    rule: &'static str,
}

const fn refuse<T>(what: &'static str, rule: &'static str) -> Result<T, GrammarError> {
    Err(GrammarError { what, rule })
}

/// Whether `name` is an RFC 1123 label of at most 63 characters.
#[must_use]
pub fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && is_dns_subdomain(name) && !name.contains('.')
}

/// Whether `name` is an RFC 1123 subdomain of at most 253 characters.
#[must_use]
pub fn is_dns_subdomain(name: &str) -> bool {
    let letter_or_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            label.bytes().all(|b| letter_or_digit(b) || b == b'-')
                && label.bytes().next().is_some_and(letter_or_digit)
                && label.bytes().next_back().is_some_and(letter_or_digit)
        })
}

/// The name of a capability, for example `document.read`. Also a scope value (RFC 6749 section 3.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapabilityName(String);

impl CapabilityName {
    /// Parses `name`.
    ///
    /// # Errors
    /// If it is not a lower-case RFC 1123 subdomain of at most [`CAPABILITY_MAX`] characters.
    pub fn parse(name: &str) -> Result<Self, GrammarError> {
        if name.len() > CAPABILITY_MAX || !is_dns_subdomain(name) {
            return refuse(
                "a capability name",
                "is lower-case letters, digits, '-' and '.', begins and ends with a letter or digit, and has at most 100 characters",
            );
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CapabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a token is for (`aud`, RFC 7519 section 4.1.3). Compared byte by byte, never normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Audience(String);

impl Audience {
    /// Parses `name`.
    ///
    /// # Errors
    /// If it is empty, longer than [`AUDIENCE_MAX`], has a character outside [`AUDIENCE_PATTERN`],
    /// or begins with `agent:`, which names an agent and is never listed by hand.
    pub fn parse(name: &str) -> Result<Self, GrammarError> {
        let printable = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if name.is_empty() || name.len() > AUDIENCE_MAX || !name.bytes().all(printable) {
            return refuse("an audience", "is 1 to 256 printable ASCII characters without space, quote and backslash");
        }
        if name.starts_with("agent:") || name.starts_with("user:") {
            return refuse("an audience", "never begins with 'agent:' or 'user:', which name agents and users");
        }
        Ok(Self(name.to_owned()))
    }

    /// An agent as the audience, which is never listed by hand: `agent:<namespace>/<name>`.
    #[must_use]
    pub fn of_agent(agent: &AgentId) -> Self {
        Self(agent.to_string())
    }

    /// The audience as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an Agent. As text it is the agent's subject and `client_id`: `agent:<namespace>/<name>`.
///
/// It stands in every index and in every chain, so a clone is another reference to one text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId {
    subject: Arc<str>,
    /// Length of the namespace, in bytes.
    namespace: u8,
}

impl AgentId {
    /// What every subject begins with.
    const PREFIX: &str = "agent:";

    /// Puts together an id.
    ///
    /// # Errors
    /// If either part is not an RFC 1123 label.
    pub fn new(namespace: &str, name: &str) -> Result<Self, GrammarError> {
        const RULE: &str = "has a namespace and a name that are each an RFC 1123 label of at most 63 characters";
        if !is_dns_label(namespace) || !is_dns_label(name) {
            return refuse("an agent", RULE);
        }
        let Ok(length) = u8::try_from(namespace.len()) else { return refuse("an agent", RULE) };
        Ok(Self { subject: format!("{}{namespace}/{name}", Self::PREFIX).into(), namespace: length })
    }

    /// Parses `agent:<namespace>/<name>`.
    ///
    /// # Errors
    /// If it has any other form.
    pub fn parse(subject: &str) -> Result<Self, GrammarError> {
        match subject.strip_prefix(Self::PREFIX).and_then(|rest| rest.split_once('/')) {
            Some((namespace, name)) => Self::new(namespace, name),
            None => refuse("an agent's subject", "has the form 'agent:<namespace>/<name>'"),
        }
    }

    /// Parses what people write: the subject, or `<namespace>/<name>`.
    ///
    /// # Errors
    /// If it has any other form.
    pub fn parse_short(text: &str) -> Result<Self, GrammarError> {
        if text.starts_with(Self::PREFIX) { Self::parse(text) } else { Self::parse(&format!("agent:{text}")) }
    }

    /// The namespace of the Agent.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name of the Agent in its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        let rest = self.subject.get(Self::PREFIX.len()..).unwrap_or_default();
        let (namespace, name) = rest.split_at_checked(usize::from(self.namespace)).unwrap_or_default();
        (namespace, name.get(1..).unwrap_or_default())
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_capability_name_is_an_exact_lower_case_token() {
        for good in ["document.read", "a", "payments.authorize", "web-search", "a.b.c-d.9"] {
            assert_eq!(CapabilityName::parse(good).expect(good).as_str(), good);
        }
        // C2: nothing that merely looks like a name, or holds two of them, is one.
        for bad in [
            "",
            "read write",
            "Document.Read",
            "doc\tread",
            "doc\u{a0}read",
            "d\u{43e}cument.read",
            "-read",
            "read-",
            ".read",
            "a..b",
            "read\n",
            "*",
            "a*",
            "scope[]",
            "a/b",
            "a:b",
            "\u{202e}daer",
        ] {
            assert!(CapabilityName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(CapabilityName::parse(&"a".repeat(CAPABILITY_MAX)).is_ok());
        assert!(CapabilityName::parse(&"a".repeat(CAPABILITY_MAX + 1)).is_err());
    }

    #[test]
    fn an_audience_cannot_pass_for_an_agent_or_a_user() {
        assert!(Audience::parse("https://docs.acme.com").is_ok());
        for bad in ["", "agent:a/b", "user:alice", "a b", "a\"b", "a\\b", "a\u{e9}", "a\r\nb"] {
            assert!(Audience::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_agent_id_reads_back_as_it_was_written() {
        let id = AgentId::new("research", "bot").expect("valid");
        assert_eq!((id.namespace(), id.name(), id.to_string().as_str()), ("research", "bot", "agent:research/bot"));
        assert_eq!(AgentId::parse(&id.to_string()), Ok(id));
        for bad in ["agent:a", "agent:a/b/c", "agent:/b", "agent:a/", "Agent:a/b", "user:a/b", "agent:A/b", "agent:a/b ", ""] {
            assert!(AgentId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        /// The schema's pattern and this parser must never disagree.
        #[test]
        fn the_parsers_agree_with_the_patterns_of_the_schema(text in "[-a-z0-9.A*:/ _]{0,12}") {
            let matches = |pattern: &str| regex_lite::Regex::new(pattern).expect("pattern").is_match(&text);
            prop_assert_eq!(CapabilityName::parse(&text).is_ok(), matches(CAPABILITY_PATTERN));
            if ResourcePattern::parse(&text).is_ok() {
                prop_assert!(matches(RESOURCE_PATTERN));
            }
        }
    }
}
