//! The record of what was decided: one line for each outcome, allow or deny, on its way before the reply is.

mod record;
mod writer;

pub use record::{Outcome, Record};
pub use writer::{Recorder, Unrecorded};
