//! Telling people: what is said of a request for approval, to whom, and in which form. Pure; `controller::notifications` queues and sends.
//!
//! A notification is a CloudEvent. A webhook gets it as it is, in an envelope of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks>); Slack gets a message made of it.

mod backoff;
pub mod config;
pub mod envelope;
mod event;
mod occasion;
pub mod slack;

pub use backoff::next_attempt;
pub use config::{Config, ConfigError};
pub use event::{CONTENT_TYPE, Event, Source};
pub use occasion::Occasion;
