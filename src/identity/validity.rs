//! From when to when a token counts (RFC 7519 section 4.1), the same for every kind of credential.

use super::IdentityError;
use super::jws::Verified;
use crate::time::LEEWAY;

/// The times in a token that counts now, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    /// `iat`.
    pub(super) issued_at: Option<u64>,
    /// `nbf`.
    pub(super) not_before: Option<u64>,
    /// `exp`.
    pub(super) expires_at: u64,
}

impl Validity {
    /// Reads the times of a token whose signature was verified, and checks that it counts at `now`.
    ///
    /// # Errors
    /// [`IdentityError::Claim`] if one is missing that must be there, is no whole number of seconds, or says that the token does not count yet
    /// or any more.
    pub(super) fn of(claims: &Verified, now: u64) -> Result<Self, IdentityError> {
        let exp = claims.seconds("exp");
        let expires_at = exp.ok_or(IdentityError::Claim("exp is missing or not a whole number of seconds"))?;
        let time = |name, why| match claims.get(name) {
            None => Ok(None),
            Some(_) => claims.seconds(name).map(Some).ok_or(IdentityError::Claim(why)),
        };
        let issued_at = time("iat", "iat is not a whole number of seconds")?;
        let not_before = time("nbf", "nbf is not a whole number of seconds")?;
        let validity = Self { issued_at, not_before, expires_at };
        validity.check(now)?;
        Ok(validity)
    }

    /// Checks that the token counts at `now`.
    ///
    /// # Errors
    /// [`IdentityError::Claim`] if it does not yet or any more.
    pub(super) fn check(self, now: u64) -> Result<(), IdentityError> {
        if self.expires_at.saturating_add(LEEWAY) <= now {
            return Err(IdentityError::Claim("exp has passed"));
        }
        if self.issued_at.max(self.not_before).is_some_and(|from| from > now.saturating_add(LEEWAY)) {
            return Err(IdentityError::Claim("iat or nbf lies in the future"));
        }
        Ok(())
    }

    /// When it was made, as far as it says: issued, or else good from.
    pub(super) fn begins(self) -> Option<u64> {
        self.issued_at.or(self.not_before)
    }

    /// Whether it lives for at most `seconds` from `begins`, and at all.
    pub(super) const fn lives_at_most(self, seconds: u64, begins: u64) -> bool {
        begins < self.expires_at && self.expires_at - begins <= seconds
    }
}
