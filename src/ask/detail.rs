//! What an action is done to and with: a noun with its ids, where it is, an amount, a receiver, a name.

use super::inflect::singular;
use super::lexicon::Lexicon;
use super::money::{Money, money};
use super::parse::Parser;
use super::roles::{Noun, Verb};
use super::tokens::{Kind, Token};
use super::words::{Idiom, idiom, is_allowed, is_determiner, is_pronoun, is_quantifier, is_word, objection};
use crate::grammar::Resource;
use serde_json::Number;
use std::ops::Range;

/// What an address can be the id of. Of anything else, it is someone of whom is not said what they have to do with it.
const PERSONS: [&str; 9] = ["customer", "user", "account", "contact", "employee", "member", "mailbox", "inbox", "profile"];

/// The verbs that the receiver may follow at once.
const GIVING: [&str; 6] = ["send", "pay", "refund", "email", "mail", "wire"];

/// What an action is done to, and with what.
#[derive(Debug, Clone, Default)]
pub(super) struct Object<'l> {
    /// What it is.
    pub noun: Option<Noun<'l>>,
    /// Which ones.
    pub ids: Vec<String>,
    /// A resource as it was written in full.
    pub resource: Option<Resource>,
    /// Where it is, or what for.
    pub links: Vec<Link<'l>>,
    /// How much.
    pub amount: Option<(Number, &'static str)>,
    /// Who receives it, and where that is said.
    pub to: Option<(String, Range<usize>)>,
    /// How it is to be called, and where that is said.
    pub name: Option<(String, usize)>,
    /// Its tokens.
    pub range: Range<usize>,
}

impl Object<'_> {
    /// Whether nothing is said of it.
    pub fn is_nothing(&self) -> bool {
        let Self { noun, ids, resource, links, amount, to, name, range: _ } = self;
        let named = noun.is_some() || resource.is_some() || !ids.is_empty() || !links.is_empty();
        !named && amount.is_none() && to.is_none() && name.is_none()
    }
}

/// A second noun: "in repo acme/web", "for invoice INV-7".
#[derive(Debug, Clone)]
pub(super) struct Link<'l> {
    /// What it is.
    pub noun: Noun<'l>,
    /// Which one.
    pub id: Option<String>,
    /// A resource as it was written in full.
    pub resource: Option<Resource>,
    /// Its tokens.
    pub range: Range<usize>,
}

/// A resource that is written in full, `type:id`. The type `user` names a person, never a resource. A type is in lower case, also
/// where a sentence is in capitals.
pub(super) fn explicit(token: Option<&Token>) -> Option<Resource> {
    let (kind, path) = token.filter(|token| token.kind == Kind::Code)?.raw.split_once(':')?;
    let kind = kind.to_ascii_lowercase();
    if kind == "user" { None } else { Resource::parse(&format!("{kind}:{path}")).ok() }
}

/// Whether an object can begin at `at`.
pub(super) fn begins_object(lexicon: &Lexicon, tokens: &[Token], at: usize) -> bool {
    let at = after_determiners(tokens, at);
    explicit(tokens.get(at)).is_some() || money(tokens, at).is_some() || lexicon.noun(tokens, at).is_some()
}

fn after_determiners(tokens: &[Token], mut at: usize) -> usize {
    while is_determiner(tokens.get(at)) {
        at += 1;
    }
    at
}

/// How many tokens at `at` are an id, and the id. A word is none, unless hyphens join it to others and none of these means anything.
fn id(tokens: &[Token], at: usize) -> Option<(usize, String)> {
    let token = tokens.get(at)?;
    match token.kind {
        Kind::Quoted | Kind::Email => Some((1, token.raw.clone())),
        Kind::Code if money(tokens, at).is_some() => None,
        Kind::Code => {
            let id = token.raw.strip_prefix('#').unwrap_or(&token.raw);
            id.starts_with(|c: char| c.is_ascii_alphanumeric()).then(|| (1, id.to_owned()))
        }
        Kind::Word if !token.glued => {
            let parts = 1 + tokens.iter().skip(at + 1).take_while(|token| token.glued && token.kind == Kind::Word).count();
            let words = tokens.get(at..at + parts)?;
            let plain = |token: &Token| {
                let meaning = objection(token).is_some() || is_allowed(Some(token)) || is_quantifier(Some(token));
                token.raw.bytes().all(|b| b.is_ascii_alphabetic()) && !meaning
            };
            let text = words.iter().map(|token| token.raw.as_str()).collect::<Vec<_>>().join("-");
            (parts > 1 && words.iter().all(plain)).then_some((parts, text))
        }
        _ => None,
    }
}

impl<'l> Parser<'l> {
    /// Reads the object at the current place, which may be nothing at all. `before` is what a pronoun stands for.
    pub fn object(&mut self, verbs: &[(Verb<'l>, Range<usize>)], before: Option<&Object<'l>>) -> Object<'l> {
        let start = self.at;
        let mut object = Object::default();
        self.skip_fillers();
        // "pay bob@x.org 500 EUR", "send bob@x.org an email"
        let gives =
            verbs.iter().any(|(_, range)| self.tokens.get(range.start).is_some_and(|verb| GIVING.contains(&verb.text.as_str())));
        if gives && let Some(token) = self.tokens.get(self.at).filter(|token| token.kind == Kind::Email) {
            object.to = Some((token.raw.clone(), self.at..self.at + 1));
            self.at += 1;
        }
        let at = after_determiners(self.tokens, self.at);
        if is_pronoun(self.tokens.get(self.at)) && self.lexicon.noun(self.tokens, at).is_none() {
            if let Some(before) = before.filter(|before| before.noun.is_some() || before.resource.is_some()) {
                object = Object { amount: None, to: object.to, name: None, ..before.clone() };
                self.at += 1;
            }
        } else {
            self.noun_phrase(&mut object, at, verbs);
        }
        let named = verbs
            .iter()
            .any(|(_, range)| self.tokens.get(range.end - 1).is_some_and(|token| self.lexicon.named(&token.text).is_some()));
        self.modifiers(&mut object, named);
        object.range = start..self.at;
        object
    }

    fn noun_phrase(&mut self, object: &mut Object<'l>, mut at: usize, verbs: &[(Verb<'l>, Range<usize>)]) {
        let creates = verbs.iter().any(|(_, range)| is_word("create", self.tokens.get(range.start)));
        if creates && is_word("new", self.tokens.get(at)) {
            at += 1;
        }
        if let Some(resource) = explicit(self.tokens.get(at)) {
            object.resource = Some(resource);
            self.at = at + 1;
            return;
        }
        // "a 500 EUR payment"
        let worth = money(self.tokens, at);
        let after = worth.as_ref().map_or(at, |(length, _)| at + length);
        if let Some(noun) = self.lexicon.noun(self.tokens, after) {
            if let Some((length, money)) = worth {
                self.take_money(object, at, length, money);
            }
            self.at = after + noun.length;
            object.noun = Some(noun);
            self.ids(object);
        }
    }

    /// The ids directly behind a noun: "document a1, b2 and c3".
    fn ids(&mut self, object: &mut Object<'l>) {
        let number = idiom(Idiom::Number, self.tokens, self.at);
        if let Some(resource) = explicit(self.tokens.get(self.at + number)) {
            object.resource = Some(resource);
            self.at += number + 1;
            return;
        }
        let Some((length, first)) = id(self.tokens, self.at + number) else { return };
        let (before, address) = (self.at, self.tokens.get(self.at + number).is_some_and(|token| token.kind == Kind::Email));
        let person = |noun: &Noun<'_>| noun.uses.iter().any(|(noun, ..)| PERSONS.contains(&noun.kind.as_str()));
        if address && !object.noun.as_ref().is_some_and(person) {
            return;
        }
        object.ids.push(first);
        self.at += number + length;
        loop {
            let (and, or) = self.conjunction(self.at);
            let next = self.at + and;
            let is_code = self.tokens.get(next).is_some_and(|token| matches!(token.kind, Kind::Code | Kind::Quoted));
            let Some((length, another)) =
                id(self.tokens, next).filter(|_| and > 0 && is_code && explicit(self.tokens.get(next)).is_none())
            else {
                break;
            };
            if or {
                self.ambiguous(self.at.saturating_sub(1)..next + length, Vec::new());
            }
            object.ids.push(another);
            self.at = next + length;
        }
        // "documents 24/7" names no document: several things have several ids.
        let plural =
            before.checked_sub(1).and_then(|noun| self.tokens.get(noun)).is_some_and(|noun| noun.text != singular(&noun.text));
        if plural && object.ids.len() == 1 {
            object.ids.clear();
            self.at = before;
        }
    }

    /// What stands behind an object and belongs to it, in any order. `named` is whether the verb says already what it is about.
    fn modifiers(&mut self, object: &mut Object<'l>, named: bool) {
        loop {
            let before = self.at;
            self.skip_fillers();
            if self.take_subject(false) {
                continue;
            }
            let worth = idiom(Idiom::Worth, self.tokens, self.at);
            let at = if worth > 0 { after_determiners(self.tokens, self.at + worth) } else { self.at };
            if object.amount.is_none()
                && let Some((length, money)) = money(self.tokens, at)
            {
                self.take_money(object, at, length, money);
                continue;
            }
            if object.to.is_none()
                && is_word("to", self.tokens.get(self.at))
                && let Some(token) = self.tokens.get(self.at + 1).filter(|token| token.kind == Kind::Email)
            {
                object.to = Some((token.raw.clone(), self.at..self.at + 2));
                self.at += 2;
                continue;
            }
            let called = idiom(Idiom::Name, self.tokens, self.at);
            let name = self.tokens.get(self.at + called).filter(|token| matches!(token.kind, Kind::Quoted | Kind::Code));
            if called > 0
                && object.name.is_none()
                && let Some(token) = name
            {
                object.name = Some((token.raw.clone(), self.at));
                self.at += called + 1;
                continue;
            }
            let told = named || object.noun.is_some() || object.resource.is_some() || object.amount.is_some();
            if let Some(link) = self.link().filter(|link| told || link.id.is_some()) {
                self.at = link.range.end;
                object.links.push(link);
                continue;
            }
            if self.at == before {
                return;
            }
        }
    }

    /// A second noun with a word such as "in" before it. One with "for" has an id, or it would be a purpose that nobody checks.
    fn link(&self) -> Option<Link<'l>> {
        let link = idiom(Idiom::Link, self.tokens, self.at);
        if link == 0 {
            return None;
        }
        let start = after_determiners(self.tokens, self.at + link);
        if let Some(resource) = explicit(self.tokens.get(start)) {
            let noun = self.lexicon.noun_of_type(resource.as_str().split(':').next()?)?;
            return Some(Link { noun, id: None, resource: Some(resource), range: self.at..start + 1 });
        }
        let noun = self.lexicon.noun(self.tokens, start)?;
        let end = start + noun.length;
        let number = idiom(Idiom::Number, self.tokens, end);
        let found = id(self.tokens, end + number);
        if is_word("for", self.tokens.get(self.at)) && found.is_none() {
            return None;
        }
        let (end, id) = found.map_or((end, None), |(length, id)| (end + number + length, Some(id)));
        Some(Link { noun, id, resource: None, range: self.at..end })
    }

    fn take_money(&mut self, object: &mut Object<'l>, at: usize, length: usize, money: Money) {
        // "invoice 1 500 EUR": a number before a number may be a part of it.
        let digits = |token: &Token| token.raw.bytes().all(|b| b.is_ascii_digit());
        let divided = at.checked_sub(1).and_then(|before| self.tokens.get(before)).is_some_and(digits);
        match if divided { Money::Unclear } else { money } {
            Money::Amount(amount, currency) => object.amount = Some((amount, currency)),
            Money::Unclear => self.ambiguous(at..at + length, Vec::new()),
        }
        self.at = at + length;
    }
}
