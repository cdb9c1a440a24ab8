//! The directory that a cluster, its logs and its credentials live in.

use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::error::{Context, Result};

/// Removes a temporary directory after everything that uses it is gone; it says itself how.
const JANITOR: &str = include_str!("janitor.sh");

/// A directory only this user can read.
#[derive(Debug)]
pub struct Directory {
    /// Absolute.
    path: PathBuf,
    /// Removes the directory when its standard input closes. `None` for a directory that is kept.
    janitor: Option<Child>,
}

impl Directory {
    /// A temporary directory that is removed at the end, even when this process is killed.
    ///
    /// With `COUNTERSIGN_TEST_KEEP` set it is kept, and its path printed.
    pub fn temporary() -> Result<Self> {
        let path = tempfile::Builder::new().prefix("countersign-").tempdir().context("cannot make a temporary directory")?.keep();
        if std::env::var_os("COUNTERSIGN_TEST_KEEP").is_some() {
            eprintln!("keeping {}", path.display());
            return Ok(Self { path, janitor: None });
        }
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&path)
            .process_group(0) // Ctrl-C in a terminal is for us alone
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run sh")?;
        Ok(Self { path, janitor: Some(janitor) })
    }

    /// A directory that stays: `path`, made if it does not exist.
    pub fn kept(path: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).context(format!("cannot make {}", path.display()))?;
        let path = path.canonicalize().context(path.display())?;
        Ok(Self { path, janitor: None })
    }

    /// Where it is; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory inside this one, made if it does not exist.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).context(format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(janitor) = &mut self.janitor {
            drop(janitor.stdin.take());
            if let Err(error) = janitor.wait() {
                eprintln!("cannot remove {}: {error}", self.path.display());
            }
        }
    }
}

/// Writes a file that nobody else may read, in place of any file of that name, at once and whole.
pub fn write_private(path: &Path, contents: &str) -> Result<()> {
    // A temporary file of its own, readable to us alone: tests that write the same file at once do not meet.
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(directory)
        .and_then(|mut file| file.write_all(contents.as_bytes()).map(|()| file))
        .and_then(|file| Ok(file.persist(path)?))
        .map(drop);
    written.context(format!("cannot write {}", path.display()))
}

/// 192 random bits in hexadecimal, for a bearer token that is not worth a random number generator of its own.
pub fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 24];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
