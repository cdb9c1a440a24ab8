//! What capabilities may be called.

use super::name::{NameParts, known};
use super::phrase::{self, Known, Phrase, TOKENS_MAX, noun_key, verb_key};
use super::roles::{Noun, NounUse, Rank, Verb, VerbUse};
use super::synonyms;
use super::tokens::{Kind, Token};
use super::words::is_article;
use std::collections::HashMap;

/// One capability as the catalogue describes it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name: the last part is the verb, or a verb and its noun with a hyphen; the part before is the noun.
    pub name: &'a str,
    /// What else it may be called, in any language.
    pub phrases: &'a [String],
}

/// What the capabilities of a catalogue may be called. The order of the entries makes no difference.
#[derive(Debug, Default)]
pub struct Lexicon {
    names: Vec<String>,
    /// Each name as a verb.
    places: HashMap<String, VerbUse>,
    verbs: HashMap<String, Vec<VerbUse>>,
    nouns: HashMap<String, Vec<NounUse>>,
    /// The most tokens of a verb or noun that begins with a word.
    longest: HashMap<String, usize>,
}

impl Lexicon {
    /// Learns `entries`.
    #[must_use]
    pub fn new<'a>(entries: impl IntoIterator<Item = Entry<'a>>) -> Self {
        let mut entries: Vec<(&str, Vec<Vec<Token>>)> = entries
            .into_iter()
            .map(|entry| (entry.name, entry.phrases.iter().map(|phrase| phrase::phrase_tokens(phrase)).collect()))
            .collect();
        entries.sort_by_key(|(name, _)| *name);
        let known = known(&entries);
        let mut lexicon = Self::default();
        for (name, phrases) in &entries {
            let own = lexicon.learn_name(name, &known);
            for phrase in phrases {
                lexicon.learn_phrase(phrase, &known, &own);
            }
        }
        lexicon
    }

    /// The names of the capabilities, sorted.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The name at `place`.
    pub(super) fn name(&self, place: usize) -> &str {
        self.names.get(place).map_or("", String::as_str)
    }

    /// The capability that is named exactly so, as a verb.
    pub(super) fn named(&self, name: &str) -> Option<Verb<'_>> {
        let named = self.places.get(name)?;
        Some(Verb { length: 1, uses: vec![(named, None)] })
    }

    /// The longest verb at `at`.
    pub(super) fn verb(&self, tokens: &[Token], at: usize) -> Option<Verb<'_>> {
        self.longest_at(tokens, at, |words, length| {
            let key = verb_key(words);
            let mut uses: Vec<_> = self.verbs.get(&key).into_iter().flatten().map(|verb| (verb, None)).collect();
            for synonym in synonyms::verbs(&key) {
                uses.extend(self.verbs.get(synonym.verb).into_iter().flatten().map(|verb| (verb, Some(*synonym))));
            }
            (!uses.is_empty()).then_some(Verb { length, uses })
        })
    }

    /// The longest noun at `at`.
    pub(super) fn noun(&self, tokens: &[Token], at: usize) -> Option<Noun<'_>> {
        self.longest_at(tokens, at, |words, length| self.noun_of(&noun_key(words), length))
    }

    /// The noun that is the type of a resource.
    pub(super) fn noun_of_type(&self, kind: &str) -> Option<Noun<'_>> {
        let words: Vec<&str> = kind.split(['-', '.']).collect();
        self.noun_of(&noun_key(&words), 0)
    }

    fn noun_of(&self, key: &str, length: usize) -> Option<Noun<'_>> {
        let uses_of = |key: &str, synonym| {
            let uses = self.nouns.get(key).into_iter().flatten();
            uses.map(|noun| (noun, key.to_owned(), synonym)).collect::<Vec<_>>()
        };
        let mut uses = uses_of(key, false);
        uses.extend(synonyms::nouns(key).flat_map(|noun| uses_of(noun, true)));
        (!uses.is_empty()).then_some(Noun { length, uses })
    }

    /// The last that `find` finds for the words from `at` on, of ever more of them. Articles inside are passed over.
    fn longest_at<T>(&self, tokens: &[Token], at: usize, find: impl Fn(&[&str], usize) -> Option<T>) -> Option<T> {
        let first = tokens.get(at)?;
        let most = [first.text.clone(), phrase::noun_key(&[&first.text])]
            .iter()
            .filter_map(|word| self.longest.get(word))
            .copied()
            .max();
        let most = most.unwrap_or_default().max(synonyms::LONGEST);
        let (mut words, mut found) = (Vec::new(), None);
        for (n, token) in tokens.iter().enumerate().skip(at) {
            if n > at && is_article(Some(token)) {
                continue;
            }
            if words.len() == most || matches!(token.kind, Kind::Stop | Kind::Quoted | Kind::Email) {
                break;
            }
            words.push(token.text.as_str());
            found = find(&words, n + 1 - at).or(found);
        }
        found
    }

    /// Learns a name, and returns its nouns.
    fn learn_name(&mut self, name: &str, known: &Known) -> Vec<String> {
        if !self.places.contains_key(name) {
            let named = VerbUse { capability: self.names.len(), rank: Rank::Literal, nouns: None };
            self.places.insert(name.to_owned(), named);
            self.names.push(name.to_owned());
        }
        let parts = NameParts::of(name, known);
        self.add_verb(&parts.verb, Rank::Literal, None);
        for (noun, rank, kind) in &parts.nouns {
            self.add_noun(noun, *rank, kind, false);
        }
        for noun in parts.contexts {
            self.add_noun(&noun, Rank::Phrase, &noun.replace(' ', "-"), true);
        }
        parts.nouns.into_iter().map(|(noun, ..)| noun).collect()
    }

    fn learn_phrase(&mut self, tokens: &[Token], known: &Known, own: &[String]) {
        let kind = |noun: &str| noun.replace(' ', "-");
        match phrase::classify(tokens, known, own) {
            Some(Phrase::Action(verb, noun)) => {
                self.add_verb(&verb, Rank::Phrase, Some(vec![noun.clone()]));
                self.add_noun(&noun, Rank::Phrase, &kind(&noun), false);
            }
            Some(Phrase::Verb(verb)) => self.add_verb(&verb, Rank::Phrase, None),
            Some(Phrase::Noun(noun)) => self.add_noun(&noun, Rank::Phrase, &kind(&noun), false),
            Some(Phrase::Either(verb, noun)) => {
                self.add_verb(&verb, Rank::Phrase, None);
                self.add_noun(&noun, Rank::Phrase, &kind(&noun), false);
            }
            None => {}
        }
    }

    /// Adds a verb of the capability that was learnt last.
    fn add_verb(&mut self, verb: &str, rank: Rank, nouns: Option<Vec<String>>) {
        let verb_use = VerbUse { capability: self.names.len().saturating_sub(1), rank, nouns };
        for form in synonyms::verb_forms(verb) {
            self.begins(&form);
            let uses = self.verbs.entry(form).or_default();
            if !uses.contains(&verb_use) {
                uses.push(verb_use.clone());
            }
        }
    }

    /// Adds a noun of the capability that was learnt last.
    fn add_noun(&mut self, noun: &str, rank: Rank, kind: &str, context: bool) {
        self.begins(noun);
        let noun_use = NounUse { capability: self.names.len().saturating_sub(1), rank, kind: kind.to_owned(), context };
        let uses = self.nouns.entry(noun.to_owned()).or_default();
        if !uses.contains(&noun_use) {
            uses.push(noun_use);
        }
    }

    fn begins(&mut self, words: &str) {
        let first = words.split(' ').next().unwrap_or_default();
        let longest = self.longest.entry(first.to_owned()).or_default();
        *longest = words.split(' ').count().min(TOKENS_MAX).max(*longest);
    }
}
