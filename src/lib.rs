//! Countersign: an identity for every AI agent in a Kubernetes cluster, exactly the capabilities it was granted, and a
//! record of what was decided.
//!
//! # Layout
//!
//! A token request takes this way, and the modules stand in its order:
//!
//! `http` reads a request → `identity` says who asks → `snapshot` knows what the cluster says → `decision` says whether it may →
//! `token` signs → `audit` records → the reply leaves.
//!
//! What people do in the portal, or anybody over the registration API, is asked of the API server with their own token (`cluster`), and
//! comes back as a watch like anything else.
//!
//! A request for approval takes another, and the two meet only in `snapshot`:
//!
//! `kubectl patch` → watch → `controller` → `jit` (one pure step) → status → `snapshot` → `decision` → `token`.
//!
//! And whoever is to decide is told: what a request says is worded by `headline` and `notify`, and `controller::notifications` queues and
//! sends it.
//!
//! Beside them, `controller` keeps the state of Agents, keys, certificates and the Lease in Kubernetes; `crd` and `admission`
//! are the sources of what the chart installs; `grammar`, `agent`, `agent_key`, `capability`, `chain`, `operation` and `public_key` hold
//! the types that everything is parsed into; `dpop` is what binds a token to a key; `revocation` is what ends tokens; `ask` reads questions in plain words, `reach` says
//! what an agent could ever bring about, `cli` is what the command line does beside serving, `plugin` is `kubectl countersign`, and `sidecar`
//! is what runs beside an agent and asks the token service for it.
//!
//! `ask`, `decision`, `dpop`, `headline`, `jit`, `notify`, `reach`, `revocation`, `token` and `admission::enforcement` are pure: no client, no clock, no HTTP.

pub mod cli;
pub mod config;
pub mod operator;
pub mod plugin;
pub mod sidecar;

pub mod ask;
pub mod audit;
pub mod decision;
pub mod http;
pub mod identity;
pub mod snapshot;
pub mod store;
pub mod token;

pub mod jit;
pub mod notify;

pub mod admission;
pub mod agent;
pub mod agent_key;
pub mod capability;
pub mod chain;
pub mod condition;
pub mod controller;
pub mod crd;
pub mod dpop;
pub mod expression;
pub mod grammar;
pub mod headline;
pub mod issuer;
pub mod operation;
pub mod public_key;
pub mod reach;
pub mod readable;
pub mod revocation;

mod json;

pub mod cluster;
pub mod metrics;
pub mod outbound;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod yaml;

/// An error with all its causes, for logs: many say only at the third level what was wrong.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
