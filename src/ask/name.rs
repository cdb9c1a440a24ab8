//! The name of a capability as a verb and nouns.

use super::phrase::{Known, action, noun_key, verb_key};
use super::roles::Rank;
use super::tokens::Token;

/// What a name such as `repo.pull-request.merge` or `s3.delete-object` says.
#[derive(Debug, Default)]
pub(super) struct NameParts {
    /// The verb.
    pub verb: String,
    /// The nouns, each with how near it is to the whole name and the type of resource that it is.
    pub nouns: Vec<(String, Rank, String)>,
    /// The nouns that only say where.
    pub contexts: Vec<String>,
}

impl NameParts {
    /// Reads `name`. The last part is the verb, or a known verb and its noun; the part before is the noun, otherwise where it is. A
    /// name of one part without a known verb is an action as a whole.
    pub fn of(name: &str, known: &Known) -> Self {
        let parts: Vec<Vec<&str>> = name.split('.').map(|part| part.split('-').collect()).collect();
        let Some((last, before)) = parts.split_last() else { return Self::default() };
        let mut nouns: Vec<Vec<&str>> = before.to_vec();
        let verb = match last.split_first() {
            Some((verb, noun)) if !noun.is_empty() && known.is_verb(&verb_key(&[verb])) => {
                nouns.push(noun.to_vec());
                verb_key(&[verb])
            }
            _ => verb_key(last),
        };
        let head = nouns.last().map(|head| noun_key(head)).unwrap_or_default();
        let named = (0..nouns.len()).filter_map(|from| {
            let rank = if from == 0 { Rank::Literal } else { Rank::Phrase };
            Some((noun_key(&nouns.get(from..)?.concat()), rank, head.replace(' ', "-")))
        });
        let contexts = nouns.iter().take(nouns.len().saturating_sub(1)).map(|noun| noun_key(noun)).collect();
        Self { verb, nouns: named.collect(), contexts }
    }
}

/// The verbs and nouns of all names, and the nouns of the phrases that are actions by their form.
pub(super) fn known(entries: &[(&str, Vec<Vec<Token>>)]) -> Known {
    let mut known = Known::default();
    for (name, _) in entries {
        if let Some((_, verb)) = name.rsplit_once('.')
            && !verb.contains('-')
        {
            known.verbs.insert(verb_key(&[verb]));
        }
    }
    for (name, phrases) in entries {
        let parts = NameParts::of(name, &known);
        known.nouns.extend(parts.nouns.into_iter().map(|(noun, ..)| noun).chain(parts.contexts));
        for phrase in phrases {
            known.nouns.extend(action(phrase, &known).map(|(_, noun)| noun));
        }
    }
    known
}
