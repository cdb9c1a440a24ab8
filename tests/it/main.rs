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

mod audited;
mod auditor;
mod chains;
mod crowd;
mod databases;
mod federation;
mod key_agents;
mod office;
mod organisation;
mod payments;
mod portal_browser;
mod rights;
mod sidecars;
mod tampering;
mod world;

mod access;
mod access_attacks;
mod admission;
mod agent_keys;
mod agreement;
mod another_cluster;
mod approvals;
mod assertion_attacks;
mod assertion_claims;
mod assertion_signatures;
mod audit_api;
mod audit_proofs;
mod audit_scan;
mod audit_verify;
mod bad_approvals;
mod bad_requests;
mod catalogue_admission;
mod certificates;
mod chart;
mod chart_monitoring;
mod chart_releases;
mod chart_schemas;
mod chart_self_test;
mod chart_values;
mod chromium;
mod chromium_agents;
mod chromium_audit;
mod chromium_decisions;
mod chromium_hostile;
mod chromium_pages;
mod chromium_sign_in;
mod clients;
mod connections;
mod delegation;
mod dependencies;
mod dpop;
mod dpop_flows;
mod enforcement;
mod faults;
mod federation_examples;
mod forged_tokens;
mod grants;
mod hostile_issuers;
mod hostile_objects;
mod identity_admission;
mod identity_conditions;
mod identity_schema;
mod injection;
mod introspection;
mod issuer_admission;
mod issuer_keys;
mod issuer_life;
mod jit_admission;
mod jit_chains;
mod jit_decisions;
mod jit_enforcement;
mod jit_filing;
mod jit_schema;
mod key_rotation;
mod keygen;
mod kubectl_as_agent;
mod kubernetes_attacks;
mod ledger;
mod ledger_faults;
mod ledger_store;
mod limits;
mod mixed_issuers;
mod notifications;
mod observability;
mod older_copies;
mod people;
mod plugin;
mod plugin_cluster;
mod plugin_decisions;
mod policy_files;
mod portal;
mod portal_agents;
mod portal_attacks;
mod portal_audit;
mod portal_sign_in;
mod processes;
mod questions;
mod records;
mod registration;
mod replay;
mod replicas;
mod review_mode;
mod revocation;
mod revocation_feed;
mod revoke_admin;
mod revoke_tokens;
mod rolling;
mod schema;
mod sidecar;
mod sidecar_attacks;
mod signing_keys;
mod staleness;
mod state;
mod store;
mod store_opening;
mod store_outages;
mod supply_chain;
mod test_issuer;
mod unknown_keys;
mod users;
