//! What may have been meant.

use super::NEAREST_MAX;
use super::inflect::{singular, spelling};
use super::lexicon::Lexicon;
use super::text::fold;

/// Most words of a text that are compared with the names.
const WORDS_MAX: usize = 8;
/// How similar a word must be to one of a name, of 1, to be taken for a slip of it.
const SIMILAR: f64 = 0.88;

impl Lexicon {
    /// At most [`NEAREST_MAX`] capabilities that `text` may have meant, the nearest first. Those in `related`, if there are any, have something to do with
    /// it already. For people to read: nothing is decided by it.
    pub(super) fn nearest(&self, text: &str, related: &[usize]) -> Vec<String> {
        let words: Vec<String> = fold(text)
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| word.len() >= 3)
            .take(WORDS_MAX)
            .map(|word| singular(&spelling(word)))
            .collect();
        let likeness = |name: &str| {
            let parts: Vec<String> = name.split(['.', '-']).map(|part| singular(&spelling(part))).collect();
            let near = |word: &String| parts.iter().map(|part| strsim::jaro_winkler(word, part)).fold(0.0, f64::max);
            words.iter().map(near).filter(|near| *near >= SIMILAR).sum::<f64>()
        };
        let all: Vec<usize> = if related.is_empty() { (0..self.names().len()).collect() } else { related.to_vec() };
        let mut scored: Vec<(f64, &str)> =
            all.into_iter().map(|place| self.name(place)).map(|name| (likeness(name), name)).collect();
        scored.retain(|(score, _)| *score > 0.0 || !related.is_empty());
        // Of equals the one that comes first in `related`.
        scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut names = Vec::new();
        for (_, name) in scored {
            if names.len() < NEAREST_MAX && !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}
