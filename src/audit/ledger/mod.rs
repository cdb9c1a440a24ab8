//! The ledger: each process writes a log of its own, an append-only list of records under a Merkle tree (RFC 6962) whose root is
//! signed again and again and shown where the database's owner cannot change it.
//!
//! A record is one line of ASCII JSON without its newline; those bytes are what is hashed. A log ends by being sealed, and its
//! successor says with its first record where it ended.

pub mod log;
pub mod note;
pub mod opening;
pub mod proof;
pub mod published;
pub mod tree;
pub mod verify;

use std::fmt;
use std::str::FromStr;

/// The name of a log: 128 random bits, in lower-case hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(String);

/// No name of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a log: 32 lower-case hexadecimal digits")]
pub struct NoLogId;

impl LogId {
    /// A new name, which no other log has. `None` if the operating system gives no random bytes.
    #[must_use]
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Some(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogId {
    type Err = NoLogId;

    fn from_str(text: &str) -> Result<Self, NoLogId> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 32 && text.bytes().all(is_hex) { Ok(Self(text.to_owned())) } else { Err(NoLogId) }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_log_is_32_hexadecimal_digits() {
        let id = LogId::random().expect("random bytes");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_ne!(LogId::random(), Some(id));
        for bad in ["", "0", &"A".repeat(32), &"0".repeat(33), &"g".repeat(32), &"é".repeat(16)] {
            assert_eq!(bad.parse::<LogId>(), Err(NoLogId), "{bad}");
        }
    }
}
