//! Revocation: by counting, not by clocks. What is revoked is kept where every replica watches it, in the status of the Agent or of the
//! TrustedIssuer, and every token says the counts under which it was issued.
//!
//! Pure: statuses in, statuses out.

mod agents;
mod state;
mod users;

pub use agents::{TOKENS_MAX, Target, carry_out, keep, prune, revoke, target};
pub use state::{Changes, Counts, State, user_key};
pub use users::{USERS_MAX, Users, carry_out_users, users};
