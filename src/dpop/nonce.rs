//! Nonces of ours in proofs (RFC 9449 section 8): they show that a proof was made a moment ago, and not in advance.
//!
//! None is remembered. A nonce is a keyed digest of the time, so that every replica knows those of all others.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// How long a nonce is given out, in seconds. It is accepted for as long again.
const PERIOD: u64 = 120;

/// Makes nonces and knows them again.
pub struct Nonces {
    key: hmac::Key,
    required: bool,
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nonces").field("required", &self.required).finish_non_exhaustive()
    }
}

/// A proof has no nonce that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

impl Nonces {
    /// Nonces under a secret that all replicas have. If they are `required`, a proof without one is refused.
    #[must_use]
    pub fn new(secret: &[u8], required: bool) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), required }
    }

    /// The nonce that is given out at `now`, in seconds since the epoch.
    #[must_use]
    pub fn current(&self, now: u64) -> String {
        self.of(now / PERIOD)
    }

    /// Judges what a proof has. If the nonce is about to end, the next is returned.
    ///
    /// # Errors
    /// [`Unknown`] if it is none of ours or has ended, or if there is none and must be one.
    pub fn judge(&self, nonce: Option<&str>, now: u64) -> Result<Option<String>, Unknown> {
        let Some(nonce) = nonce else { return if self.required { Err(Unknown) } else { Ok(None) } };
        let period = now / PERIOD;
        // Of the replica whose clock is a little ahead too.
        if [period, period.saturating_add(1)].iter().any(|period| self.of(*period) == nonce) {
            return Ok(None);
        }
        match self.of(period.saturating_sub(1)) == nonce {
            true => Ok(Some(self.of(period))),
            false => Err(Unknown),
        }
    }

    fn of(&self, period: u64) -> String {
        let tag = hmac::sign(&self.key, &period.to_be_bytes());
        // Half of it: nobody has the time to try more than a few.
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_known_to_all_who_share_the_secret_and_for_two_periods() {
        let (one, other) = (Nonces::new(&[1; 32], true), Nonces::new(&[1; 32], false));
        let now = 1_000_000 / PERIOD * PERIOD;
        let nonce = one.current(now);
        assert_eq!(nonce.len(), 22);
        assert_eq!(one.current(now + PERIOD - 1), nonce);
        for nonces in [&one, &other] {
            assert_eq!(nonces.judge(Some(&nonce), now + PERIOD - 1), Ok(None));
            assert_eq!(nonces.judge(Some(&nonce), now + PERIOD), Ok(Some(one.current(now + PERIOD))), "the next is handed out");
            assert_eq!(nonces.judge(Some(&nonce), now + 2 * PERIOD), Err(Unknown), "it has ended");
            assert_eq!(nonces.judge(Some(&nonce), now - 1), Ok(None), "a clock that is a little behind");
            assert_eq!(nonces.judge(Some(&nonce), now - PERIOD - 1), Err(Unknown));
            let (shorter, _) = nonce.split_at(21);
            for wrong in ["", "x", shorter, &format!("{nonce}A"), &nonce.to_lowercase()] {
                assert_eq!(nonces.judge(Some(wrong), now), Err(Unknown), "{wrong}");
            }
        }
        assert_eq!((one.judge(None, now), other.judge(None, now)), (Err(Unknown), Ok(None)));
        assert_eq!(Nonces::new(&[2; 32], false).judge(Some(&nonce), now), Err(Unknown), "another installation's");
    }
}
