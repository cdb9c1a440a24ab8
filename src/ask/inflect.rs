//! The forms of words: plurals of nouns, the `-ing` of verbs, the two spellings of `-ize`.
//!
//! No stemmer: one that makes one word of `deleted` and `delete` reads a report of the past as a question, and one that cuts
//! more makes one word of `organ` and `organization`. A form that is not known here is an unknown word, which is never allowed.

/// A word in the spelling with `-ize`.
pub(super) fn spelling(word: &str) -> String {
    for (other, this) in [("ise", "ize"), ("ising", "izing"), ("isation", "ization")] {
        match word.strip_suffix(other) {
            Some(stem) if stem.len() >= 3 => return format!("{stem}{this}"),
            _ => {}
        }
    }
    word.to_owned()
}

/// A noun in the singular, as far as the rules go. Applied to both sides of a comparison, so an odd result does no harm.
pub(super) fn singular(noun: &str) -> String {
    let Some(stem) = noun.strip_suffix('s') else { return noun.to_owned() };
    if noun.len() <= 3 || noun == "news" || stem.ends_with(['s', 'u', 'i', '\'']) || !noun.is_ascii() {
        return noun.to_owned();
    }
    if let Some(stem) = noun.strip_suffix("ies")
        && stem.len() >= 2
    {
        return format!("{stem}y");
    }
    match noun.strip_suffix("es") {
        Some(stem) if ["ss", "x", "ch", "sh", "zz"].iter().any(|end| stem.ends_with(end)) => stem.to_owned(),
        _ => stem.to_owned(),
    }
}

/// The forms in `-ing` of a verb. Where the spelling depends on the stress there are two, of which one is no word.
pub(super) fn gerunds(verb: &str) -> Vec<String> {
    if !verb.is_ascii() || verb.len() < 2 {
        return Vec::new();
    }
    if let Some(stem) = verb.strip_suffix("ie") {
        return vec![format!("{stem}ying")];
    }
    if let Some(stem) = verb.strip_suffix('e')
        && !stem.ends_with(['e', 'o', 'y'])
    {
        return vec![format!("{stem}ing")];
    }
    let plain = format!("{verb}ing");
    let vowel = |b: u8| b"aeiou".contains(&b);
    match verb.as_bytes() {
        [.., before, middle, last] if !vowel(*before) && vowel(*middle) && !vowel(*last) && !b"wxy".contains(last) => {
            let doubled = format!("{verb}{}ing", char::from(*last));
            if verb.len() <= 3 { vec![doubled] } else { vec![plain, doubled] }
        }
        _ => vec![plain],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_those_of_their_singulars() {
        for (plural, one) in [
            ("documents", "document"),
            ("invoices", "invoice"),
            ("entries", "entry"),
            ("addresses", "address"),
            ("boxes", "box"),
            ("branches", "branch"),
            ("databases", "database"),
        ] {
            assert_eq!(singular(plural), one);
            assert_eq!(singular(one), one);
        }
        for same in ["status", "access", "analysis", "dns", "news", "aws"] {
            assert_eq!(singular(same), same);
        }
    }

    #[test]
    fn a_verb_has_its_form_in_ing() {
        for (verb, form) in [
            ("read", "reading"),
            ("delete", "deleting"),
            ("get", "getting"),
            ("submit", "submitting"),
            ("see", "seeing"),
            ("pay", "paying"),
        ] {
            assert!(gerunds(verb).contains(&form.to_owned()), "{verb}: {:?}", gerunds(verb));
        }
    }

    #[test]
    fn both_spellings_are_one_word() {
        assert_eq!(spelling("authorise"), spelling("authorize"));
        assert_eq!(spelling("summarising"), "summarizing");
        assert_eq!(spelling("rise"), "rise");
    }
}
