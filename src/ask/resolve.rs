//! From verbs and objects to the operations that they ask about.

use super::detail::Object;
use super::parse::Parser;
use super::roles::Verb;
use super::{ASKED_MAX, Asked, NEAREST_MAX, Objection, cut};
use crate::grammar::Resource;
use serde_json::{Map, Value};
use std::ops::Range;

/// The verbs of which someone is the receiver. With any other, an address behind "to" has a meaning that nobody knows.
const RECEIVED: [&str; 10] =
    ["send", "pay", "refund", "transfer", "authorize", "authorise", "forward", "settle", "email", "mail"];
/// The verbs that give a name to something new. With any other, a name says which one.
const NAMING: [&str; 4] = ["create", "make", "add", "schedule"];

impl<'l> Parser<'l> {
    /// Looks up each of `verbs` with each of `objects`.
    pub fn resolve(&mut self, verbs: &[(Verb<'l>, Range<usize>)], objects: &[Object<'l>]) {
        for object in objects {
            for (verb, words) in verbs {
                let said = self.said(words, object);
                if self.reading.asked.len() >= ASKED_MAX {
                    return self.reading.object(Objection::TooMany);
                }
                match self.capabilities(verb, object).as_slice() {
                    [] => {
                        let mut related = object.noun.as_ref().map_or_else(Vec::new, super::roles::Noun::capabilities);
                        related.extend(verb.capabilities());
                        self.unresolved(said, &related);
                    }
                    [one] => self.ask(*one, object, words, said),
                    several => {
                        let names = several.iter().take(NEAREST_MAX).map(|place| self.lexicon.name(*place).to_owned()).collect();
                        self.reading.object(Objection::Ambiguous { text: said, between: names });
                    }
                }
            }
        }
    }

    fn capabilities(&self, verb: &Verb<'l>, object: &Object<'l>) -> Vec<usize> {
        match (&object.noun, &object.resource) {
            (Some(noun), _) => verb.with(noun, false),
            (None, Some(resource)) => self.noun_of(resource).map_or_else(Vec::new, |noun| verb.with(&noun, true)),
            (None, None) => match verb.alone() {
                none if none.is_empty() && object.amount.is_some() => {
                    // "Transfer 500 EUR" is what "transfer funds" says.
                    let money = ["money", "fund"].iter().filter_map(|noun| self.lexicon.noun_of_type(noun));
                    money.flat_map(|noun| verb.with(&noun, false)).collect()
                }
                alone => alone,
            },
        }
    }

    /// The words of an action, without those of the other actions that share a verb or an object with it.
    fn said(&self, verb: &Range<usize>, object: &Object<'l>) -> String {
        if object.range.is_empty() || object.range.start == verb.end {
            return self.words(verb.start..object.range.end.max(verb.end));
        }
        cut(&format!("{} {}", self.words(verb.clone()), self.words(object.range.clone())))
    }

    fn noun_of(&self, resource: &Resource) -> Option<super::roles::Noun<'l>> {
        self.lexicon.noun_of_type(resource.as_str().split(':').next()?)
    }

    /// Adds the operation, once for each resource.
    fn ask(&mut self, capability: usize, object: &Object<'l>, verb: &Range<usize>, words: String) {
        let Some(resources) = self.resources(capability, object, verb) else { return self.unresolved(words, &[capability]) };
        if resources.len() > 1 && object.amount.is_some() {
            // Each of them so much, or all together?
            return self.reading.object(Objection::Ambiguous { text: words, between: Vec::new() });
        }
        let mut parameters = Map::new();
        if let Some((amount, currency)) = &object.amount {
            parameters.insert("amount".to_owned(), Value::Number(amount.clone()));
            parameters.insert("currency".to_owned(), Value::from(*currency));
        }
        if let Some((to, range)) = &object.to {
            if !self.is_one_of(&RECEIVED, capability, verb) {
                return self.unresolved(self.words(range.clone()), &[]);
            }
            parameters.insert("to".to_owned(), Value::from(to.as_str()));
        }
        if let Some((name, _)) = object.name.as_ref().filter(|_| self.is_one_of(&NAMING, capability, verb)) {
            parameters.insert("name".to_owned(), Value::from(cut(name)));
        }
        for resource in resources {
            let asked = Asked {
                capability: self.lexicon.name(capability).to_owned(),
                resource,
                user: None,
                parameters: parameters.clone(),
                words: words.clone(),
            };
            if self.reading.asked.len() >= ASKED_MAX {
                return self.reading.object(Objection::TooMany);
            }
            if !self.reading.asked.iter().any(|other| Asked { words: asked.words.clone(), ..other.clone() } == asked) {
                self.reading.asked.push(asked);
            }
        }
    }

    /// The resources of `object` for `capability`: one or more, or that there is none. `None` if what is said is no resource, or if
    /// two things are said of one.
    fn resources(&self, capability: usize, object: &Object<'l>, verb: &Range<usize>) -> Option<Vec<Option<String>>> {
        let named =
            |kind: &str, id: &str| Resource::parse(&format!("{kind}:{id}")).ok().map(|resource| resource.as_str().to_owned());
        let kind = object.noun.as_ref().and_then(|noun| noun.kind(capability));
        let mut found = object.ids.iter().map(|id| named(kind?, id)).collect::<Option<Vec<_>>>()?;
        let of_one = found.len() <= 1;
        if let Some(resource) = &object.resource {
            self.noun_of(resource)?.kind(capability)?;
            found.push(resource.as_str().to_owned());
        }
        if let Some((name, _)) = object.name.as_ref().filter(|_| !self.is_one_of(&NAMING, capability, verb)) {
            found.push(named(kind?, name)?);
        }
        for link in &object.links {
            let kind = link.noun.kind(capability)?;
            found.extend(link.id.as_ref().map(|id| named(kind, id).ok_or(())).transpose().ok()?);
            found.extend(link.resource.as_ref().map(|resource| resource.as_str().to_owned()));
        }
        match found.len() {
            0 => Some(vec![None]),
            n if n == 1 || (!of_one && n == object.ids.len()) => Some(found.into_iter().map(Some).collect()),
            _ => None,
        }
    }

    /// Whether the name of the capability, or the verb of the question, is one of `verbs`.
    fn is_one_of(&self, verbs: &[&str], capability: usize, verb: &Range<usize>) -> bool {
        let said = self.tokens.get(verb.start).is_some_and(|token| verbs.contains(&token.text.as_str()));
        said || self.lexicon.name(capability).split(['.', '-']).any(|part| verbs.contains(&part))
    }
}
