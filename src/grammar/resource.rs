//! Resources and patterns of them: the one documented glob grammar.

use super::{GrammarError, RESOURCE_MAX, refuse};

/// A resource or a set of them: `type:segment/segment`, where `*` stands for characters of
/// one segment and `**`, as the last segment, for the rest of the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourcePattern(String);

impl ResourcePattern {
    /// Parses `pattern`.
    ///
    /// # Errors
    /// If it is not `type:id`, has an empty, `.` or `..` segment, `**` anywhere but alone in the
    /// last segment, a character outside [`RESOURCE_PATTERN`], or more than [`RESOURCE_MAX`] characters.
    pub fn parse(pattern: &str) -> Result<Self, GrammarError> {
        const WHAT: &str = "a resource";
        let Some((kind, path)) = pattern.split_once(':') else {
            return refuse(WHAT, "is 'type:id', for example 'document:reports/*'");
        };
        let kind_ok = kind.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
            && kind.split('.').all(|part| !part.is_empty());
        if !kind_ok || pattern.len() > RESOURCE_MAX {
            return refuse(WHAT, "has a lower-case type and at most 256 characters");
        }
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() || segment == "." || segment == ".." {
                return refuse(WHAT, "has no empty, '.' or '..' segment");
            }
            if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~@%+=,:*".contains(&b)) {
                return refuse(WHAT, "has only ASCII letters, digits and -._~@%+=,:* in its segments");
            }
            if segment.contains("**") && (segment != "**" || segments.peek().is_some()) {
                return refuse(WHAT, "has '**' only as its whole last segment");
            }
        }
        Ok(Self(pattern.to_owned()))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `resource` is one of those that the pattern stands for: compared from end to end, segment by segment. `*` is any
    /// number of characters of one segment, also none; `**` is one or more segments.
    #[must_use]
    pub fn matches(&self, resource: &Resource) -> bool {
        let (Some((kind, pattern)), Some((other, path))) = (self.0.split_once(':'), resource.0.split_once(':')) else {
            return false;
        };
        let (mut patterns, mut segments) = (pattern.split('/'), path.split('/'));
        if kind != other {
            return false;
        }
        loop {
            match (patterns.next(), segments.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) => return true,
                (Some(pattern), Some(segment)) if segment_matches(pattern.as_bytes(), segment.as_bytes()) => {}
                _ => return false,
            }
        }
    }
}

impl ResourcePattern {
    /// Whether every resource for which `narrower` stands is one for which this stands. It never says yes wrongly.
    #[must_use]
    pub fn covers(&self, narrower: &Self) -> bool {
        let (Some((kind, wide)), Some((other, narrow))) = (self.0.split_once(':'), narrower.0.split_once(':')) else {
            return false;
        };
        let (mut wide, mut narrow) = (wide.split('/'), narrow.split('/'));
        if kind != other {
            return false;
        }
        loop {
            match (wide.next(), narrow.next()) {
                (None, None) | (Some("**"), Some(_)) => return true,
                (Some(_), Some("**")) => return false,
                // A `*` of the narrower one is a character like any other here, which only a `*` of the wider one matches.
                (Some(wide), Some(narrow)) if segment_matches(wide.as_bytes(), narrow.as_bytes()) => {}
                _ => return false,
            }
        }
    }
}

/// Whether `segment` matches `pattern`, where `*` stands for any number of bytes. Linear in both but for their product: it goes back
/// only to the last `*`.
fn segment_matches(pattern: &[u8], segment: &[u8]) -> bool {
    let (mut p, mut s, mut back) = (0, 0, None);
    loop {
        match (pattern.get(p), segment.get(s)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                back = Some((p, s));
                p += 1;
            }
            (Some(a), Some(b)) if a == b => (p, s) = (p + 1, s + 1),
            _ => match back {
                Some((star, taken)) if taken < segment.len() => {
                    back = Some((star, taken + 1));
                    (p, s) = (star + 1, taken + 1);
                }
                _ => return false,
            },
        }
    }
}

/// One resource: `type:segment/segment`, with no wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource(String);

impl Resource {
    /// Parses `resource`.
    ///
    /// # Errors
    /// If it is no [`ResourcePattern`], or has a `*`.
    pub fn parse(resource: &str) -> Result<Self, GrammarError> {
        if resource.contains('*') {
            return refuse("the resource of an operation", "has no wildcards: it names one thing");
        }
        ResourcePattern::parse(resource).map(|pattern| Self(pattern.0))
    }

    /// The resource as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_has_no_way_to_climb_out_of_its_path() {
        for good in ["document:reports/*", "repo:org/a", "document:**", "a.b:x/y/**", "arn:aws:s3", "doc:a*b"] {
            assert!(ResourcePattern::parse(good).is_ok(), "{good:?} was refused");
        }
        for bad in [
            "",
            "document",
            ":x",
            "document:",
            "document:/x",
            "document:x/",
            "document:a//b",
            "document:a/../b",
            "document:..",
            "document:./a",
            "Document:x",
            "document:a\nb",
            "document:a b",
            "document:\u{0}",
            "document:**/a",
            "document:a**",
            "document:***",
            "document:a/\u{2215}b",
            "9doc:x",
            "a..b:x",
            "document:a\\b",
            "document:(?s).*",
        ] {
            assert!(ResourcePattern::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn c3_a_pattern_matches_a_resource_from_end_to_end() {
        let matches = |pattern: &str, resource: &str| {
            ResourcePattern::parse(pattern).expect("a pattern").matches(&Resource::parse(resource).expect("a resource"))
        };
        for (pattern, resource) in [
            ("document:reports/*", "document:reports/q3"),
            ("document:reports/q3", "document:reports/q3"),
            ("document:**", "document:a/b/c"),
            ("document:a/**", "document:a/b/c"),
            ("invoice:INV-*", "invoice:INV-7"),
            ("invoice:INV-*", "invoice:INV-"),
            ("x:*a*b*", "x:ccacbbcb"),
            ("x:*/b", "x:a/b"),
        ] {
            assert!(matches(pattern, resource), "{pattern} {resource}");
        }
        for (pattern, resource) in [
            ("document:reports/*", "document:reports/q3/secret"),
            ("document:reports/*", "document:reports2/q3"),
            ("document:reports/*", "document:reports"),
            ("document:a/**", "document:a"),
            ("document:a", "document:ab"),
            ("document:a", "document:A"),
            ("document:a", "documents:a"),
            ("invoice:INV-*", "invoice:XINV-7"),
            ("x:*a*b", "x:ccacbbc"),
            ("x:a/b", "x:a"),
        ] {
            assert!(!matches(pattern, resource), "{pattern} {resource}");
        }
        assert!(Resource::parse("invoice:*").is_err() && Resource::parse("invoice:a/../b").is_err());
        let long = format!("x:{}", "*a".repeat(100));
        assert!(!matches(&long, &format!("x:{}", "a".repeat(99))));
    }
    #[test]
    fn a_pattern_covers_one_that_is_nowhere_wider() {
        let covers = |wide: &str, narrow: &str| {
            ResourcePattern::parse(wide).expect("a pattern").covers(&ResourcePattern::parse(narrow).expect("a pattern"))
        };
        for (wide, narrow) in [
            ("d:**", "d:a/**"),
            ("d:**", "d:**"),
            ("d:a/**", "d:a/*/c"),
            ("d:a/*", "d:a/b*"),
            ("d:a/*", "d:a/*"),
            ("d:*b*", "d:a*b"),
            ("d:a", "d:a"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("d:a/*", "d:a/**"),
            ("d:*", "d:**"),
            ("d:a*", "d:*"),
            ("d:a/**", "d:a"),
            ("d:a", "e:a"),
            ("d:a/b", "d:a/*"),
            ("d:*a", "d:a*"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    fn pattern() -> impl proptest::strategy::Strategy<Value = String> {
        proptest::string::string_regex("d:([ab*]{1,3}/){0,2}(\\*\\*|[ab*]{1,3})").expect("a pattern")
    }

    proptest::proptest! {
        /// Whatever a covered pattern matches, the covering one matches too.
        #[test]
        fn covering_is_never_wrong(wide in pattern(), narrow in pattern(), resource in "d:([ab]{1,3}/){0,3}[ab]{1,3}") {
            let (Ok(wide), Ok(narrow)) = (ResourcePattern::parse(&wide), ResourcePattern::parse(&narrow)) else { return Ok(()) };
            let resource = Resource::parse(&resource).expect("a resource");
            if wide.covers(&narrow) && narrow.matches(&resource) {
                proptest::prop_assert!(wide.matches(&resource), "{wide:?} {narrow:?} {resource:?}");
            }
        }
    }
}
