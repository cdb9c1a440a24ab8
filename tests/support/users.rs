//! The people of the tests.

use std::path::{Path, PathBuf};

use super::directory::{random_token, write_private};
use super::error::{Error, Result};

/// Ordinary users, who may do nothing until a test binds them to a role.
pub const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// The group all of [`USERS`] are in, so that a role can be bound to all of them.
pub const GROUP: &str = "countersign:testers";

/// A static bearer token for the administrator and for each of [`USERS`]: real users to the API server.
#[derive(Debug)]
pub struct Users {
    /// In `system:masters`.
    admin: String,
    /// In the order of [`USERS`].
    tokens: Vec<String>,
}

impl Users {
    /// With random tokens.
    pub fn new() -> Result<Self> {
        let tokens = USERS.iter().map(|_| random_token()).collect::<Result<_>>()?;
        Ok(Self { admin: random_token()?, tokens })
    }

    /// The administrator's token.
    pub fn admin_token(&self) -> &str {
        &self.admin
    }

    /// The token of one of [`USERS`].
    pub fn token(&self, user: &str) -> Result<&str> {
        let mut pairs = USERS.iter().zip(&self.tokens);
        let found = pairs.find(|(name, _)| **name == user);
        found.map(|(_, token)| token.as_str()).ok_or_else(|| unknown(user))
    }

    /// Writes what `--token-auth-file` takes: token, name, uid, groups.
    pub fn write_token_file(&self, dir: &Path) -> Result<PathBuf> {
        let mut csv = format!("{},admin,admin,system:masters\n", self.admin);
        for (user, token) in USERS.iter().zip(&self.tokens) {
            csv.push_str(&format!("{token},{user},{user},{GROUP}\n"));
        }
        let path = dir.join("tokens.csv");
        write_private(&path, &csv)?;
        Ok(path)
    }
}

/// Fails for a name that is not among [`USERS`].
pub fn check_known(user: &str) -> Result<()> {
    if USERS.contains(&user) { Ok(()) } else { Err(unknown(user)) }
}

/// A mistake in a test.
fn unknown(user: &str) -> Error {
    Error::new(format!("there is no user {user:?} in the tests, only {}", USERS.join(", ")))
}
