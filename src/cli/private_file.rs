//! Files that hold a private key: nobody but their owner may read them, and none is ever overwritten.

use super::CliError;
use crate::agent_key::{AgentSecretKey, KEY_TEXT_MAX, SecretKeyError};
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes `text` to a new file with mode 0600. When this returns, the file survives a crash of the machine.
pub(super) fn create(path: &Path, text: &str) -> Result<(), CliError> {
    // With create_new a link in the file's place is not followed either.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => CliError::Exists(path.to_owned()),
        _ => CliError::Write(path.to_owned(), error),
    })?;
    fill(file, path, text).map_err(|error| {
        // Half a file helps nobody and would stand in the way of the next attempt.
        _ = fs::remove_file(path);
        CliError::Write(path.to_owned(), error)
    })
}

fn fill(mut file: File, path: &Path, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // The name is in the directory, and that is written for itself.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Reads the private key in a file that nobody but its owner may read or write.
pub(super) fn read_key(path: &Path) -> Result<AgentSecretKey, CliError> {
    let unreadable = |error| CliError::Read(path.to_owned(), error);
    let file = File::open(path).map_err(unreadable)?;
    // Of the open file: what stands at the path may change meanwhile.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CliError::Exposed { path: path.to_owned(), mode });
    }
    // Enough room at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * KEY_TEXT_MAX));
    let limit = u64::try_from(KEY_TEXT_MAX + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    std::str::from_utf8(&bytes)
        .map_err(|_| SecretKeyError::Malformed)
        .and_then(AgentSecretKey::from_pem)
        .map_err(|error| CliError::NoKey(path.to_owned(), error))
}
