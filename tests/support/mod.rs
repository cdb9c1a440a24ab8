//! What the integration tests, the benchmarks and `make up` have in common: a real Kubernetes control plane, the chart
//! installed on it, the operator beside it, issuers of tokens, and `kubectl` as different people. Blocking code: what needs an
//! async runtime has one of its own.
//!
//! ```ignore
//! let cluster = Cluster::start(&ClusterOptions::default())?;
//! install_chart(&cluster, 3, &[])?;
//! let operator = Operator::start(&cluster, binary, &OperatorOptions::default())?;
//! ```
//!
//! Everything started here ends when the value that stands for it is dropped, and when the process that started it
//! ends in any other way, SIGKILL included.
#![allow(dead_code, reason = "each binary that includes this module uses its own part of it")]
#![expect(clippy::print_stderr, reason = "stderr is how a fixture speaks to whoever runs the tests")]

pub mod api;
pub mod browser;
pub mod certificates;
pub mod cluster;
pub mod control_plane;
mod direct;
pub mod directory;
pub mod error;
mod http;
pub mod identity_provider;
pub mod install;
pub mod issuer;
mod kubeconfig;
pub mod kubectl;
pub mod operator;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod trap;
pub mod users;
pub mod workload;

use std::path::Path;

/// The root of this repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
