//! The integration tests: the operator, as a process with the rights that its chart gives it, on a real API server.
//!
//! One control plane, one chart and one operator serve all tests ([`world`]); a test that freezes or breaks something
//! starts its own. No test replaces the Kubernetes API by anything.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a test and its helpers fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod office;
mod payments;
mod world;

mod admission;
mod approvals;
mod bad_approvals;
mod bad_requests;
mod catalogue_admission;
mod certificates;
mod chart;
mod clients;
mod connections;
mod enforcement;
mod forged_tokens;
mod grants;
mod hostile_objects;
mod introspection;
mod issuer_keys;
mod jit_admission;
mod jit_decisions;
mod jit_enforcement;
mod jit_filing;
mod jit_schema;
mod processes;
mod records;
mod replicas;
mod review_mode;
mod revocation;
mod schema;
mod staleness;
