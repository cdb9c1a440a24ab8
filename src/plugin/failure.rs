//! Why a command did not do what it was asked for, and the status with which it ends.

use crate::readable::Readable;
use std::io;

/// What was asked was done, or the answer is yes.
pub const DONE: u8 = 0;
/// The answer is no: the API server refused it, the decision does not count, the agent may not.
pub const NO: u8 = 1;
/// Nobody can tell, or something went wrong.
pub const UNKNOWN: u8 = 2;
/// It was waited for in vain: what was asked is still pending.
pub const PENDING: u8 = 3;

/// A command that was not carried out. The texts are readable: nothing in them acts on a terminal.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Somebody who may say no said no.
    #[error("{0}")]
    Refused(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
    /// It is still pending.
    #[error("{0}")]
    Pending(String),
    /// The result cannot be printed.
    #[error("the result cannot be printed: {0}")]
    Print(#[from] io::Error),
}

impl Failure {
    /// The status of the process.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::Refused(_) => NO,
            Self::Failed(_) | Self::Print(_) => UNKNOWN,
            Self::Pending(_) => PENDING,
        }
    }

    /// Whether whoever read the result has had enough of it.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Something that did not work, in words that may hold texts of others.
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(Readable(&text.into()).to_string())
    }
}

/// What the API server says, in its words.
impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() || status.is_invalid() || status.is_conflict() => {
                Self::Refused(Readable(&status.message).to_string())
            }
            kube::Error::Api(status) => Self::failed(&status.message),
            error => Self::failed(format!("the cluster cannot be asked: {}", crate::error_chain(&error))),
        }
    }
}

/// The worse of two statuses, for a command about several objects.
#[must_use]
pub fn worse(one: u8, other: u8) -> u8 {
    one.max(other)
}
