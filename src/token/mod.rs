//! Access tokens: what is in them, how they are signed, how they are read back (RFC 9068); and signed statements about what is alive.

mod claims;
mod key_ring;
mod lineage;
mod reader;
pub mod rotation;
mod signing_key;
mod statement;

pub use claims::{AccessClaims, AuthorizationDetails, MalformedOperation, NotOurs, OPERATION_DETAILS, verify};
pub use key_ring::{KeyError, KeyRing, Signers, new_id};
pub use lineage::{Actor, Link, UserLink};
pub use reader::Reader;
pub use signing_key::SigningKey;
pub use statement::{About, Statement};

use crate::decision::{Permit, SignWith};

/// `typ` of an access token (RFC 9068 section 2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// A signed access token and what the record and the reply say of it.
#[derive(Debug)]
pub struct Minted {
    /// The token. It is given to the caller and to nobody else; it never appears in a record or log.
    pub token: String,
    /// Its claims.
    pub claims: AccessClaims,
    /// The name of the key that signed it.
    pub kid: String,
}

/// Signs what `permit` allows, under the identifier `jti`, which must never have been used.
///
/// # Errors
/// [`KeyError::Missing`] if there is no key to sign with.
pub fn mint(permit: &Permit, issuer: &str, keys: &KeyRing, jti: String) -> Result<Minted, KeyError> {
    let key = match permit.sign_with() {
        SignWith::Algorithm(algorithm) => keys.signer(*algorithm, permit.issued_at()),
        SignWith::Key(kid) => keys.find(kid),
    };
    let key = key.ok_or(KeyError::Missing)?;
    let claims = AccessClaims::of(permit, issuer, jti);
    let token = key.sign(ACCESS_TOKEN_TYPE, &claims)?;
    Ok(Minted { token, claims, kid: key.kid().to_owned() })
}
