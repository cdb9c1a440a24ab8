//! The wall clock, read in one place. Everything that decides takes the time as an argument.

use k8s_openapi::jiff::Timestamp;

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
