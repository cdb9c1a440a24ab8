//! One error for the whole fixture: a message for whoever reads the test log.

use std::fmt;

/// What went wrong, in words, with the log of the component concerned where there is one.
///
/// Nothing in a test branches on the cause, so there are no variants.
pub struct Error(String);

/// Short for the result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The same as `Display`: `expect` and a `main` that returns an error print `Debug`, and an escaped log is unreadable.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// Says what was attempted when an operation fails.
pub trait Context<T> {
    /// Turns any failure into an [`Error`] that begins with `attempt`.
    fn context(self, attempt: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, attempt: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error(format!("{attempt}: {cause}")))
    }
}
