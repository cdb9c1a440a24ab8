//! Proof of possession (DPoP, RFC 9449): a token that is bound to a key is of use only to whoever can sign with that key, and so to
//! nobody who has read it in a log.
//!
//! Pure: a proof is read and held against what it must say; the time is an argument. That each counts once is the store's to remember.

mod client;
mod jwk;
mod nonce;
mod proof;
mod target;

pub use client::{Claim, ProofKey};
pub use nonce::{Nonces, Unknown};
pub use proof::{ALGORITHMS, Expected, Proof, ProofError};

use serde::{Deserialize, Serialize};

/// The name of the header with a proof (RFC 9449 section 4.1).
pub const HEADER: &str = "dpop";
/// The name of the header with a nonce of ours (RFC 9449 section 8.1).
pub const NONCE_HEADER: &str = "dpop-nonce";
/// The type of a bound token (RFC 9449 section 5).
pub const TOKEN_TYPE: &str = "DPoP";

/// To which key a token is bound: its claim `cnf` (RFC 9449 section 6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Thumbprint of the key (RFC 7638).
    pub jkt: String,
}
