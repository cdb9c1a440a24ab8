//! Which records somebody wants to see.

use super::Entry;
use super::record::ascii;
use crate::grammar::AgentId;
use k8s_openapi::jiff::Timestamp;
use memchr::memmem::Finder;

/// Longest value of a filter, in bytes: a text in a record is not longer either.
const VALUE_MAX: usize = 512;
/// How many texts one filter may look for.
const MENTIONS_MAX: usize = 64;

/// Why a filter was refused. It may be shown to whoever wrote it; it repeats nothing of what they wrote but the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is no such filter.
    #[error(
        "there is no filter of that name; there are event, outcome, reason, agent, user, jti, mentions, since and until, beside limit and after"
    )]
    Unknown,
    /// It was given twice.
    #[error("filter {0} is given twice: give it once")]
    Twice(&'static str),
    /// Its value is none.
    #[error("filter {0} {1}")]
    Malformed(&'static str, &'static str),
}

/// Which records somebody wants to see: those to which every part applies.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    event: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    agent: Option<String>,
    user: Option<String>,
    jti: Option<String>,
    mentions: Vec<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// Found in each line to which this applies; cheap to look for before a line is read.
    all: Vec<Finder<'static>>,
    /// One of them is found in each line to which this applies, if there are any.
    any: Vec<Finder<'static>>,
}

impl Filter {
    /// Records in which one of `terms` stands, as a text or as a word of one.
    #[must_use]
    pub fn mentioning(terms: impl IntoIterator<Item = String>) -> Self {
        let mut filter = Self { mentions: terms.into_iter().collect(), ..Self::default() };
        filter.prepare();
        filter
    }

    /// Adds a part, by its name and value.
    ///
    /// # Errors
    /// A [`FilterError`].
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, FilterError> {
        match name {
            "event" => set("event", &mut self.event, value, is_event, "must be the name of an event, or of several: token.*")?,
            "outcome" => set("outcome", &mut self.outcome, value, is_outcome, "must be allow, deny or error")?,
            "reason" => set("reason", &mut self.reason, value, is_name, "must be the name of a reason")?,
            "agent" => {
                let subject = if value.starts_with("agent:") { value.to_owned() } else { format!("agent:{value}") };
                let is_agent = |text: &str| AgentId::parse(text).is_ok();
                set("agent", &mut self.agent, &subject, is_agent, "must be agent:<namespace>/<name>")?;
            }
            "user" => {
                let subject = if value.starts_with("user:") { value.to_owned() } else { format!("user:{value}") };
                set("user", &mut self.user, &subject, |text| text.len() > "user:".len(), "must be user:<name>")?;
            }
            "jti" => set("jti", &mut self.jti, value, |_| true, "must be the identifier of a token")?,
            "mentions" if self.mentions.len() >= MENTIONS_MAX => {
                return Err(FilterError::Malformed("mentions", "is given more than 64 times"));
            }
            "mentions" => {
                let mut term = None;
                set("mentions", &mut term, value, |_| true, "must be a text that stands in a record")?;
                self.mentions.extend(term);
            }
            "since" => time("since", &mut self.since, value)?,
            "until" => time("until", &mut self.until, value)?,
            _ => return Err(FilterError::Unknown),
        }
        self.prepare();
        Ok(self)
    }

    /// As parameters of a query, as [`Filter::with`] reads them.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("event", &self.event),
            ("outcome", &self.outcome),
            ("reason", &self.reason),
            ("agent", &self.agent),
            ("user", &self.user),
            ("jti", &self.jti),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let times = [("since", self.since), ("until", self.until)].into_iter().filter_map(|(n, t)| Some((n, t?.to_string())));
        texts.chain(self.mentions.iter().map(|term| ("mentions", term.clone()))).chain(times).collect()
    }

    /// From when on records are wanted, in seconds since the epoch.
    #[must_use]
    pub fn since_second(&self) -> Option<i64> {
        self.since.map(Timestamp::as_second)
    }

    /// Whether some line of `text`, one or many of them, may be wanted. If not, none is.
    #[must_use]
    pub fn may_match(&self, text: &[u8]) -> bool {
        self.all.iter().all(|finder| finder.find(text).is_some())
            && (self.any.is_empty() || self.any.iter().any(|finder| finder.find(text).is_some()))
    }

    /// Whether a record is wanted.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, name| wanted.as_ref().is_none_or(|wanted| entry.text(name) == wanted);
        let event = self.event.as_ref().is_none_or(|wanted| match wanted.strip_suffix('*') {
            Some(start) => entry.event().starts_with(start),
            None => entry.event() == wanted,
        });
        event
            && is(&self.outcome, "outcome")
            && is(&self.reason, "reason")
            && is(&self.user, "user")
            && self.agent.as_ref().is_none_or(|agent| concerns_agent(entry, agent))
            && self.jti.as_ref().is_none_or(|jti| concerns_token(entry, jti))
            && (self.mentions.is_empty() || self.mentions.iter().any(|term| mentions(entry, term)))
            && self.is_within(entry)
    }

    fn is_within(&self, entry: &Entry) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        // One without a time is not hidden either.
        let Ok(time) = entry.time().parse::<Timestamp>() else { return true };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    fn prepare(&mut self) {
        let finder = |text: &str| Finder::new(text.as_bytes()).into_owned();
        let value = |text: &String| finder(&ascii(text));
        let member = |name: &str, text: &String| finder(&format!("\"{name}\":\"{}", ascii(text.trim_end_matches('*'))));
        let members = [("event", &self.event), ("outcome", &self.outcome), ("reason", &self.reason), ("user", &self.user)];
        let members = members.into_iter().filter_map(|(name, text)| Some(member(name, text.as_ref()?)));
        self.all = [&self.jti, &self.agent].into_iter().flatten().map(value).chain(members).collect();
        self.any = self.mentions.iter().map(value).collect();
    }
}

/// Whether a record is about this agent, or names it in a chain.
fn concerns_agent(entry: &Entry, agent: &str) -> bool {
    ["subject", "agent"].iter().any(|name| entry.text(name) == agent) || entry.words("chain").any(|link| link == agent)
}

/// Whether a record is about this token, or one that came of it.
fn concerns_token(entry: &Entry, jti: &str) -> bool {
    ["jti", "parent_jti"].iter().any(|name| entry.text(name) == jti) || entry.words("ancestors").any(|one| one == jti)
}

/// Whether `term` stands in a record, as a text or as a word of one.
fn mentions(entry: &Entry, term: &str) -> bool {
    entry.texts().any(|(_, text)| text == term || text.contains(' ') && text.split(' ').any(|word| word == term))
}

fn set(
    name: &'static str,
    part: &mut Option<String>,
    value: &str,
    is_valid: impl Fn(&str) -> bool,
    rule: &'static str,
) -> Result<(), FilterError> {
    if part.is_some() {
        return Err(FilterError::Twice(name));
    }
    if value.is_empty() || value.len() > VALUE_MAX || value.chars().any(char::is_control) || !is_valid(value) {
        return Err(FilterError::Malformed(name, rule));
    }
    *part = Some(value.to_owned());
    Ok(())
}

fn time(name: &'static str, part: &mut Option<Timestamp>, value: &str) -> Result<(), FilterError> {
    if part.is_some() {
        return Err(FilterError::Twice(name));
    }
    let rule = "must be a time with zone, such as 2026-11-24T12:00:00Z";
    *part = Some(value.parse().map_err(|_| FilterError::Malformed(name, rule))?);
    Ok(())
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_event(text: &str) -> bool {
    is_name(text.strip_suffix(".*").unwrap_or(text))
}

fn is_outcome(text: &str) -> bool {
    matches!(text, "allow" | "deny" | "error")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"{"log":"l","seq":0,"time":"2026-11-24T12:00:00.500Z","event":"token.issue","outcome":"allow","reason":"granted","subject":"agent:a/tool","chain":"agent:a/bot agent:a/tool","user":"user:zo\u00eb@acme.com","jti":"j2","parent_jti":"j1","ancestors":"j0 j1","scope":"web.search document.read"}"#;

    fn wants(parts: &[(&str, &str)]) -> bool {
        let filter =
            parts.iter().try_fold(Filter::default(), |filter, (name, value)| filter.with(name, value)).expect("a filter");
        let matches = filter.matches(&Entry::read("l", 0, LINE));
        assert!(!matches || filter.may_match(LINE), "what is wanted is not skipped: {parts:?}");
        matches
    }

    #[test]
    fn a_record_is_found_by_each_part_of_it() {
        for part in [
            ("event", "token.issue"),
            ("event", "token.*"),
            ("outcome", "allow"),
            ("reason", "granted"),
            ("agent", "agent:a/tool"),
            ("agent", "a/bot"),
            ("user", "zo\u{eb}@acme.com"),
            ("user", "user:zo\u{eb}@acme.com"),
            ("jti", "j2"),
            ("jti", "j1"),
            ("jti", "j0"),
            ("mentions", "document.read"),
            ("since", "2026-11-24T12:00:00Z"),
            ("since", "2026-11-24T13:00:00.5+01:00"),
            ("until", "2026-11-24T12:00:01Z"),
        ] {
            assert!(wants(&[part]), "{part:?}");
        }
        assert!(wants(&[]) && wants(&[("agent", "a/bot"), ("outcome", "allow"), ("mentions", "x"), ("mentions", "j2")]));
    }

    #[test]
    fn a_record_is_not_found_by_what_it_does_not_say() {
        for part in [
            ("event", "token.introspect"),
            ("event", "tok.*"),
            ("outcome", "deny"),
            ("reason", "grant"),
            ("agent", "a/to"),
            ("user", "acme.com"),
            ("jti", "j"),
            ("mentions", "document"),
            ("since", "2026-11-24T12:00:01Z"),
            ("until", "2026-11-24T12:00:00.5Z"),
        ] {
            assert!(!wants(&[part]), "{part:?}");
        }
        assert!(!wants(&[("agent", "a/bot"), ("outcome", "deny")]));
    }

    #[test]
    fn a_filter_that_could_mean_anything_is_refused() {
        for (name, value) in [
            ("", "x"),
            ("jtis", "x"),
            ("event", ""),
            ("event", "*"),
            ("event", "token.*.x"),
            ("outcome", "Allow"),
            ("agent", "bot"),
            ("agent", "agent:A/b"),
            ("user", ""),
            ("user", "user:"),
            ("jti", "a\u{1b}[0m"),
            ("jti", &"x".repeat(513)),
            ("since", "yesterday"),
            ("since", "2026-11-24"),
            ("until", "2026-11-24T12:00:00"),
        ] {
            assert!(Filter::default().with(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(
            Filter::default().with("jti", "a").and_then(|f| f.with("jti", "b")).expect_err("twice"),
            FilterError::Twice("jti")
        );
        let many = (0..65).try_fold(Filter::default(), |f, i| f.with("mentions", &i.to_string()));
        assert!(many.is_err());
    }

    #[test]
    fn parameters_read_back_are_the_same_filter() {
        let parts = [("event", "token.*"), ("agent", "agent:a/b"), ("mentions", "x y"), ("since", "2026-11-24T12:00:00Z")];
        let filter = parts.iter().try_fold(Filter::default(), |filter, (n, v)| filter.with(n, v)).expect("a filter");
        let again = filter.parameters().iter().try_fold(Filter::default(), |filter, (n, v)| filter.with(n, v)).expect("a filter");
        assert_eq!((filter.parameters().len(), again.parameters()), (4, filter.parameters()));
    }
}
