//! What words are for a catalogue: verbs and nouns of its capabilities.

use super::synonyms::Synonym;
use std::collections::HashMap;

/// How near words are to what the catalogue says. The nearest wins; between equals nobody can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The whole name of the capability.
    Literal,
    /// A part of the name, or a phrase.
    Phrase,
    /// A word of [`super::synonyms`].
    Synonym,
}

/// A verb of one capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VerbUse {
    /// Its place in the lexicon.
    pub capability: usize,
    /// How near it is.
    pub rank: Rank,
    /// The nouns with which it is that capability; `None` is any noun of it, or no noun at all.
    pub nouns: Option<Vec<String>>,
}

/// A noun of one capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NounUse {
    /// Its place in the lexicon.
    pub capability: usize,
    /// How near it is.
    pub rank: Rank,
    /// The type of a resource that is named with it.
    pub kind: String,
    /// Whether it only says where: the repository of a pull request.
    pub context: bool,
}

/// A verb as it was found in a question.
#[derive(Debug, Clone)]
pub(super) struct Verb<'l> {
    /// How many tokens it has.
    pub length: usize,
    /// Its meanings, and the synonym by which each was found.
    pub uses: Vec<(&'l VerbUse, Option<&'static Synonym>)>,
}

/// A noun as it was found in a question.
#[derive(Debug, Clone)]
pub(super) struct Noun<'l> {
    /// How many tokens it has.
    pub length: usize,
    /// Its meanings, each with the words by which the lexicon knows it and whether these are others than those of the question.
    pub uses: Vec<(&'l NounUse, String, bool)>,
}

impl Verb<'_> {
    /// The capabilities that this and `noun` name together, the nearest only.
    pub fn with(&self, noun: &Noun<'_>, context: bool) -> Vec<usize> {
        let mut nouns: HashMap<usize, Vec<(Rank, &str)>> = HashMap::new();
        for (noun, words, synonym) in &noun.uses {
            if context || !noun.context {
                let rank = if *synonym { Rank::Synonym } else { noun.rank };
                nouns.entry(noun.capability).or_default().push((rank, words));
            }
        }
        let mut found = Vec::new();
        for (verb, synonym) in &self.uses {
            let rank = if synonym.is_some() { Rank::Synonym } else { verb.rank };
            let only = synonym.map(|synonym| synonym.nouns).filter(|nouns| !nouns.is_empty());
            for (near, words) in nouns.get(&verb.capability).into_iter().flatten() {
                let here = verb.nouns.as_ref().is_none_or(|nouns| nouns.iter().any(|noun| noun == words));
                if here && only.is_none_or(|nouns| nouns.contains(words)) {
                    found.push((rank.max(*near), verb.capability));
                }
            }
        }
        nearest(found)
    }

    /// The capabilities that this names alone, the nearest only.
    pub fn alone(&self) -> Vec<usize> {
        let meaning = |(verb, synonym): &(&VerbUse, Option<&Synonym>)| {
            let rank = if synonym.is_some() { Rank::Synonym } else { Rank::Phrase };
            let needs_noun = verb.nouns.is_some() || synonym.is_some_and(|synonym| !synonym.nouns.is_empty());
            (!needs_noun).then_some((rank, verb.capability))
        };
        nearest(self.uses.iter().filter_map(meaning).collect())
    }

    /// All capabilities with this verb.
    pub fn capabilities(&self) -> Vec<usize> {
        self.uses.iter().map(|(verb, _)| verb.capability).collect()
    }
}

impl Noun<'_> {
    /// The type of a resource of `capability` that is named with this, if it is a noun of it at all.
    pub fn kind(&self, capability: usize) -> Option<&str> {
        let of = |context| {
            let mut uses = self.uses.iter().filter(move |(noun, ..)| noun.capability == capability && noun.context == context);
            uses.next().map(|(noun, ..)| noun.kind.as_str())
        };
        of(false).or_else(|| of(true))
    }

    /// All capabilities with this noun.
    pub fn capabilities(&self) -> Vec<usize> {
        self.uses.iter().map(|(noun, ..)| noun.capability).collect()
    }
}

fn nearest(found: Vec<(Rank, usize)>) -> Vec<usize> {
    let Some(best) = found.iter().map(|(rank, _)| *rank).min() else { return Vec::new() };
    let mut capabilities: Vec<usize> =
        found.into_iter().filter(|(rank, _)| *rank == best).map(|(_, capability)| capability).collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    capabilities
}
