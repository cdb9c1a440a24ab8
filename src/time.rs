//! The wall clock, read in one place. Everything that decides takes the time as an argument.

use k8s_openapi::jiff::Timestamp;

/// How far the clock of whoever issued a credential and that of this process may differ, in seconds.
pub const LEEWAY: u64 = 5;

/// A time with zone (RFC 3339), in whole seconds since the epoch. Leap seconds are none.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let second = text.get(17..19)?;
    let zoned = text.ends_with('Z') || text.get(19..).is_some_and(|rest| rest.contains(['+', '-']));
    (second != "60" && zoned && text.get(10..11) == Some("T"))
        .then(|| text.parse::<Timestamp>().ok().map(Timestamp::as_second))?
}

/// Where the time comes from.
#[derive(Debug, Clone, Copy)]
pub struct Clock(());

impl Clock {
    /// The clock of the operating system.
    #[must_use]
    pub const fn system() -> Self {
        Self(())
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Timestamp::now()
    }

    /// Now, in whole seconds since the epoch, as in tokens (RFC 7519 section 2, `NumericDate`).
    #[must_use]
    pub fn seconds(self) -> u64 {
        // Before 1970 nothing was issued yet and everything has expired: 0 lets no token through.
        u64::try_from(self.now().as_second()).unwrap_or(0)
    }

    /// Now, as in records (RFC 3339, with milliseconds).
    #[must_use]
    pub fn rfc3339(self) -> String {
        format!("{:.3}", self.now())
    }
}
