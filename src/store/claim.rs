//! Claims: who wants to be the first with what, and many of them in one statement.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use std::collections::HashSet;
use tokio::sync::oneshot;

/// What can be consumed once. It holds digests (SHA-256, base64url): whatever an issuer puts into a `jti`, a kilobyte or a NUL, is
/// then a text that every database takes and every index holds, and spoils nobody else's claim in the same statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Key {
    issuer: String,
    jti: String,
}

impl Key {
    pub(super) fn new(issuer: &str, jti: &str) -> Self {
        let text = |of: &str| URL_SAFE_NO_PAD.encode(digest(&SHA256, of.as_bytes()));
        Self { issuer: text(issuer), jti: text(jti) }
    }

    /// As it came back from the database.
    pub(super) fn stored((issuer, jti): (String, String)) -> Self {
        Self { issuer, jti }
    }
}

/// Somebody waits to hear whether they are the first. When it is dropped, the answer is that nobody knows.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) key: Key,
    /// Seconds since the epoch.
    pub(super) expires_at: i64,
    /// The time of whoever asks, in seconds since the epoch.
    pub(super) now: i64,
    pub(super) first: oneshot::Sender<bool>,
}

/// A row to be inserted.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    #[serde(flatten)]
    pub(super) key: &'a Key,
    pub(super) expires_at: i64,
}

/// One row for each key of `claims`, in the order of the keys: transactions that insert in one order wait for each other and never
/// in a circle.
pub(super) fn rows(claims: &[Claim]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = claims.iter().map(|claim| Row { key: &claim.key, expires_at: claim.expires_at }).collect();
    rows.sort_by(|a, b| a.key.cmp(b.key));
    rows.dedup_by(|a, b| a.key == b.key);
    rows
}

/// Tells each claim whether it is the first, now that the keys in `inserted` are durable: one of those with an inserted key is, and
/// all others are not.
pub(super) fn answer(claims: Vec<Claim>, inserted: impl IntoIterator<Item = Key>) {
    let mut inserted: HashSet<Key> = inserted.into_iter().collect();
    for Claim { key, first, .. } in claims {
        // Who asked may have given up; the key is consumed all the same.
        _ = first.send(inserted.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(issuer: &str, jti: &str) -> (Claim, oneshot::Receiver<bool>) {
        let (first, answer) = oneshot::channel();
        (Claim { key: Key::new(issuer, jti), expires_at: 60, now: 0, first }, answer)
    }

    #[test]
    fn of_equal_claims_one_is_the_first_and_none_if_the_key_was_there() {
        let (claims, mut answers): (Vec<_>, Vec<_>) = [("a", "1"), ("b", "1"), ("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")]
            .map(|(i, j)| claim(i, j))
            .into_iter()
            .unzip();
        let inserted = [Key::new("a", "1"), Key::new("a", "2")];
        assert_eq!(rows(&claims).len(), 3);
        answer(claims, inserted);
        let answers: Vec<bool> = answers.iter_mut().map(|answer| answer.try_recv().expect("an answer")).collect();
        assert_eq!(answers, [true, false, false, true, false, false]);
    }

    #[test]
    fn who_gave_up_takes_nobody_along() {
        let (mut claims, mut answers): (Vec<_>, Vec<_>) = ["1", "2", "3"].map(|jti| claim("a", jti)).into_iter().unzip();
        let inserted: Vec<Key> = claims.iter().map(|c| c.key.clone()).collect();
        let (equal, mut second) = claim("a", "2");
        claims.push(equal);
        drop(answers.remove(1));
        answer(claims, inserted);
        assert!(answers.iter_mut().all(|answer| answer.try_recv() == Ok(true)));
        assert_eq!(second.try_recv(), Ok(false), "it was consumed by whoever gave up");
    }

    #[test]
    fn a_claim_that_is_dropped_is_no_answer() {
        let (dropped, mut answer) = claim("a", "1");
        drop(dropped);
        assert!(answer.try_recv().is_err());
    }

    #[test]
    fn rows_are_in_one_order_whatever_the_claims_are_in() {
        let of = |jtis: [&str; 4]| {
            let claims: Vec<Claim> = jtis.map(|jti| claim("a", jti).0).into();
            serde_json::to_string(&rows(&claims)).expect("JSON")
        };
        assert_eq!(of(["1", "2", "3", "1"]), of(["3", "1", "2", "3"]));
    }

    #[test]
    fn a_key_is_short_plain_text_and_keeps_issuers_apart() {
        let odd = Key::new("https://issuer.example", &"\u{0}'\u{1f4a9}".repeat(100_000));
        assert!(odd.jti.len() == 43 && odd.jti.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_ne!(Key::new("a", "b1"), Key::new("ab", "1"));
        assert_ne!(Key::new("a", "1"), Key::new("b", "1"));
        assert_ne!(Key::new("a", "1"), Key::new("1", "a"));
    }
}
