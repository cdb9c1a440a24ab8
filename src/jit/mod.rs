//! The life of a request for approval, as a pure state machine: no client, no clock, no HTTP.
//!
//! A stored object is parsed into a [`Request`]; [`step`] says what its status becomes by itself, by a person's decision, or because
//! the agent changed; [`redeem`], [`complete`] and [`cancel`] say what the agent's own calls make of it. Whoever calls them writes the
//! result by compare-and-swap on the version it was made from, so that of two that differ one is never seen.

mod decision;
mod evidence;
mod person;
mod redeem;
mod request;
mod status;
mod step;

pub use decision::decision_patch;
pub use evidence::EvidenceKey;
pub use redeem::{Claim, NewToken, REDELIVER_SECONDS, Redeemable, Refused, cancel, claim, complete, redeem, redelivery};
pub use request::{DECIDE_SECONDS, DECIDE_SECONDS_MAX, InvalidRequest, OPEN_MAX, Question, Request, RequestId};
pub use status::{Change, Why};
pub use step::{Facts, REDEEM_SECONDS, Step, approvers, step};

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
