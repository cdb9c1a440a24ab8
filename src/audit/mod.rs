//! The record of what was decided: one line for each outcome, allow or deny, on its way before the reply is.

pub mod archive;
pub mod ask;
pub(crate) mod copy;
mod entry;
mod filter;
pub mod flood;
pub mod ledger;
pub mod plain;
mod record;
pub mod scan;
pub mod trace;
mod writer;

pub use entry::{Entry, UNREADABLE};
pub use filter::{Filter, FilterError};
pub use ledger::opening::Limits;
pub use record::{Field, Outcome, Record};
pub use writer::{Recorder, RecorderError, Recording, Unrecorded};
