//! Access tokens: what is in them, how they are signed, how they are read back (RFC 9068).

mod claims;
mod key_ring;

pub use claims::{AccessClaims, ApprovedOperation, AuthorizationDetails, Link, MalformedOperation, OPERATION_DETAILS, verify};
pub use key_ring::{KeyError, KeyRing, generate_pem, new_id};

use crate::decision::Permit;

/// `typ` of an access token (RFC 9068 section 2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// A signed access token and what the record and the reply say of it.
#[derive(Debug)]
pub struct Minted {
    /// The token. It is given to the caller and to nobody else; it never appears in a record or log.
    pub token: String,
    /// Its claims.
    pub claims: AccessClaims,
}

/// Signs what `permit` allows, under the identifier `jti`, which must never have been used.
///
/// # Errors
/// If the claims cannot be written as JSON, which their types rule out.
pub fn mint(permit: &Permit, issuer: &str, keys: &KeyRing, jti: String) -> Result<Minted, KeyError> {
    let claims = AccessClaims::of(permit, issuer, jti);
    let token = keys.sign(ACCESS_TOKEN_TYPE, &claims)?;
    Ok(Minted { token, claims })
}
