//! From tokens to actions with their objects: each token is consumed by one meaning, or left over.

use super::detail::{Object, begins_object};
use super::lexicon::Lexicon;
use super::roles::Verb;
use super::subject::subject;
use super::tokens::{Kind, Token};
use super::words::{self, Idiom, idiom, is_allowed, is_article, is_determiner, is_pronoun, is_word};
use super::{Objection, Reading, UNRESOLVED_MAX, Unresolved, cut};
use std::ops::Range;

/// For how many parts that were not understood something is proposed: it takes a look at all names.
const NEAREST_FOR: usize = 4;

/// Where the reading of a question has got to.
#[derive(Debug)]
pub(super) struct Parser<'l> {
    text: &'l str,
    pub(super) tokens: &'l [Token],
    pub(super) lexicon: &'l Lexicon,
    pub(super) at: usize,
    /// For each token whether something has consumed it.
    consumed: Vec<bool>,
    pub(super) reading: Reading,
    /// How many tokens at the end belong to the beginning: "is reading documents *allowed*".
    end: usize,
    /// What a pronoun stands for.
    last_object: Option<Object<'l>>,
}

/// Reads `tokens`, which are those of `text`.
pub(super) fn parse<'l>(text: &'l str, tokens: &'l [Token], lexicon: &'l Lexicon) -> Reading {
    let consumed = vec![false; tokens.len()];
    let mut parser =
        Parser { text, tokens, lexicon, at: 0, consumed, reading: Reading::default(), end: tokens.len(), last_object: None };
    parser.run();
    parser.finish()
}

impl<'l> Parser<'l> {
    /// An action begins only where a clause begins or "and" stands: of "customer query" after a verb, the second word is no verb.
    fn run(&mut self) {
        let (mut begins, mut led) = (true, false);
        while let Some(token) = self.tokens.get(self.at) {
            let (and, or) = self.conjunction(self.at);
            if and > 0 {
                if or {
                    self.ambiguous(self.at.saturating_sub(1)..self.at + and + 1, Vec::new());
                }
                let to = usize::from(is_word("to", self.tokens.get(self.at + and)) && self.verb(self.at + and + 1).is_some());
                self.consume(self.at..self.at + and + to);
                (begins, led) = (true, false);
                continue;
            }
            if matches!(token.kind, Kind::Stop | Kind::Comma) {
                self.consume(self.at..self.at + 1);
                (begins, led) = (true, false);
                continue;
            }
            let start = self.at;
            self.skip_fillers();
            let fresh = self
                .at
                .checked_sub(1)
                .and_then(|at| self.tokens.get(at))
                .is_none_or(|before| matches!(before.kind, Kind::Stop | Kind::Comma));
            if self.at > start || self.take_subject(begins && fresh) {
                continue;
            }
            let opening = if begins { self.lead() } else { 0 };
            if opening > 0 {
                self.consume(self.at..self.at + opening);
                led = true;
                continue;
            }
            if begins && self.frame(led) {
                begins = false;
                self.consume(self.at..self.at + idiom(Idiom::Ending, self.tokens, self.at));
                continue;
            }
            begins = false;
            if let Some(objection) = words::objection(token) {
                self.reading.object(objection);
                self.consume(self.at..self.at + 1);
            } else {
                self.at += 1;
            }
        }
    }

    /// How many tokens here say no more than that a question follows. "Is" does if its clause ends accordingly.
    fn lead(&mut self) -> usize {
        let lead = idiom(Idiom::Lead, self.tokens, self.at);
        let is = is_word("is", self.tokens.get(self.at)) && self.verb(self.at + 1).is_some();
        if lead > 0 || !is {
            return lead;
        }
        let clause = self.tokens.iter().skip(self.at).take_while(|token| token.kind != Kind::Stop).count();
        let last = self.at + clause - 1;
        if !is_allowed(self.tokens.get(last)) {
            return 0;
        }
        self.mark(last..last + 1);
        self.end = last;
        1
    }

    /// One or more verbs with their objects. `led` is whether a verb is expected: elsewhere, a single word that is also a noun may be
    /// one more thing ("documents and invoice").
    fn frame(&mut self, led: bool) -> bool {
        let Some(verb) = self.verb(self.at) else { return false };
        let start = self.at;
        let mut verbs = vec![verb];
        self.at = verbs.last().map_or(start, |(_, range)| range.end);
        loop {
            self.skip_fillers();
            let (and, or) = self.conjunction(self.at);
            let next = self.at + and + usize::from(is_word("to", self.tokens.get(self.at + and)));
            let Some(verb) = self.verb(next).filter(|_| and > 0) else { break };
            if or {
                self.ambiguous(self.at.saturating_sub(1)..verb.1.end, Vec::new());
            }
            self.at = verb.1.end;
            verbs.push(verb);
        }
        let before = self.last_object.take();
        let mut objects = vec![self.object(&verbs, before.as_ref())];
        loop {
            let (and, or) = self.conjunction(self.at);
            if and == 0 || !self.continues(self.at + and, &verbs) {
                break;
            }
            if or {
                self.ambiguous(self.at.saturating_sub(1)..self.at + and + 1, Vec::new());
            }
            self.at += and;
            let object = self.object(&verbs, objects.last());
            objects.push(object);
        }
        // A verb before a word that is no object of it has another meaning than the verb alone, and stays with that word.
        let alone = objects.iter().all(Object::is_nothing);
        if alone && !self.ends_here() {
            return true;
        }
        if alone
            && !led
            && verbs.iter().any(|(_, range)| range.len() == 1 && self.lexicon.noun(self.tokens, range.start).is_some())
        {
            self.ambiguous(start..self.at, Vec::new());
        }
        self.consume(start..self.at);
        self.resolve(&verbs, &objects);
        self.last_object = objects.pop();
        true
    }

    /// Whether nothing follows that could belong to what is before.
    fn ends_here(&self) -> bool {
        let stop = self.tokens.get(self.at).is_none_or(|token| matches!(token.kind, Kind::Stop | Kind::Comma));
        stop || self.conjunction(self.at).0 > 0 || idiom(Idiom::Ending, self.tokens, self.at) > 0
    }

    /// Whether what follows "and" at `at` is one more object of `verbs`, not one more action. A word that can be both is a verb if an
    /// object follows, and otherwise an object if the verbs have such a one.
    fn continues(&self, at: usize, verbs: &[(Verb<'l>, Range<usize>)]) -> bool {
        if is_determiner(self.tokens.get(at)) || is_pronoun(self.tokens.get(at)) {
            return begins_object(self.lexicon, self.tokens, at);
        }
        let Some((_, range)) = self.verb(at) else { return begins_object(self.lexicon, self.tokens, at) };
        let Some(noun) = self.lexicon.noun(self.tokens, at).filter(|noun| noun.length >= range.len()) else { return false };
        let followed = is_determiner(self.tokens.get(range.end)) || begins_object(self.lexicon, self.tokens, range.end);
        !followed && verbs.iter().any(|(verb, _)| !verb.with(&noun, false).is_empty())
    }

    /// The verb at `at`: the name of a capability, or a verb of the lexicon.
    fn verb(&self, at: usize) -> Option<(Verb<'l>, Range<usize>)> {
        let uses = idiom(Idiom::Uses, self.tokens, at);
        if let Some(verb) = self.tokens.get(at + uses).and_then(|token| self.lexicon.named(&token.text)) {
            return Some((verb, at..at + uses + 1));
        }
        // An article before a verb belongs to a phrase that begins with the noun: "eine Rechnung bezahlen".
        let article = usize::from(is_article(self.tokens.get(at)));
        let verb = self.lexicon.verb(self.tokens, at + article).filter(|verb| article == 0 || verb.length > 1)?;
        let range = at..at + article + verb.length;
        Some((verb, range))
    }

    /// How many tokens at `at` join two things, and whether they leave open which.
    pub fn conjunction(&self, at: usize) -> (usize, bool) {
        let (and, or) = (idiom(Idiom::And, self.tokens, at), idiom(Idiom::Or, self.tokens, at));
        (and.max(or), or > 0 && or >= and)
    }

    /// Passes over words that change nothing.
    pub fn skip_fillers(&mut self) {
        loop {
            let filler = if self.at == self.end { 1 } else { idiom(Idiom::Filler, self.tokens, self.at) };
            let joins = self.conjunction(self.at).0 > filler;
            if filler == 0 || joins || self.at >= self.tokens.len() {
                return;
            }
            self.consume(self.at..self.at + filler);
        }
    }

    /// Consumes the words that say on whose behalf.
    pub fn take_subject(&mut self, begins: bool) -> bool {
        let Some((length, user)) = subject(self.tokens, self.at, begins) else { return false };
        match &self.reading.user {
            Some(other) if *other != user => {
                let between = vec![other.clone(), user];
                self.ambiguous(self.at..self.at + length, between);
            }
            _ => self.reading.user = Some(user),
        }
        self.consume(self.at..self.at + length);
        true
    }

    /// Objects that the tokens of `range` have several meanings.
    pub fn ambiguous(&mut self, range: Range<usize>, between: Vec<String>) {
        let text = self.words(range);
        self.reading.object(Objection::Ambiguous { text, between });
    }

    /// Reports that `text` was not understood. What is beyond the limit is not listed, but then much is.
    pub fn unresolved(&mut self, text: String, related: &[usize]) {
        if self.reading.unresolved.len() < UNRESOLVED_MAX && self.reading.unresolved.iter().all(|other| other.text != text) {
            let nearest =
                if self.reading.unresolved.len() < NEAREST_FOR { self.lexicon.nearest(&text, related) } else { Vec::new() };
            self.reading.unresolved.push(Unresolved { text, nearest });
        }
    }

    /// The part of the question that the tokens of `range` are.
    pub fn words(&self, range: Range<usize>) -> String {
        let start = self.tokens.get(range.start).map_or(self.text.len(), |token| token.start);
        let end = self.tokens.get(range.end.saturating_sub(1)).map_or(self.text.len(), |token| token.end);
        cut(self.text.get(start..end).unwrap_or_default())
    }

    fn mark(&mut self, range: Range<usize>) {
        if let Some(tokens) = self.consumed.get_mut(range) {
            tokens.fill(true);
        }
    }

    fn consume(&mut self, range: Range<usize>) {
        self.at = range.end;
        self.mark(range);
    }

    /// Reports what is left over.
    fn finish(mut self) -> Reading {
        let mut at = 0;
        while at < self.tokens.len() {
            let length = self.consumed.iter().skip(at).take_while(|consumed| !**consumed).count();
            if length > 0 {
                self.unresolved(self.words(at..at + length), &[]);
            }
            at += length + 1;
        }
        if self.reading.asked.is_empty() && self.reading.unresolved.is_empty() {
            self.unresolved(self.words(0..self.tokens.len()), &[]);
        }
        let user = self.reading.user.clone();
        self.reading.asked.iter_mut().for_each(|asked| asked.user.clone_from(&user));
        self.reading
    }
}
