//! What the test issuer does with a request: what is right, or one of many things that are not.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use super::super::error::{Context, Error, Result};

/// How large a body is that no client should read to its end.
pub const HUGE: usize = 100 << 20;

/// What happens on one path.
#[derive(Clone, Default)]
pub enum Behaviour {
    /// The right document.
    #[default]
    Honest,
    /// The right document, changed.
    Altered(Arc<dyn Fn(Value) -> Value + Send + Sync>),
    /// Status 200 and this text instead of the document.
    Text(String),
    /// This status, with this text as body.
    Status(u16, String),
    /// Status 302, with this `Location`.
    Redirect(String),
    /// The request is read, and that is all.
    Silent,
    /// The right document, one byte a second.
    Drip,
    /// The right document, and then spaces until the body has [`HUGE`] bytes, as its length says.
    Huge,
    /// The right document, and then spaces for ever, in chunks.
    Endless,
    /// A reply that is little until it is decompressed: see [`Behaviour::gzip_bomb`].
    GzipBomb(Arc<[u8]>),
    /// The connection ends without a reply.
    Close,
}

impl Behaviour {
    /// The right document, changed by `change`.
    pub fn altered(change: impl Fn(Value) -> Value + Send + Sync + 'static) -> Self {
        Self::Altered(Arc::new(change))
    }

    /// `document` and [`HUGE`] bytes of spaces, compressed to a few hundred kilobytes.
    pub fn gzip_bomb(document: &Value) -> Result<Self> {
        Ok(Self::GzipBomb(compressed(document.to_string())?.into()))
    }
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Honest => f.write_str("Honest"),
            Self::Altered(_) => f.write_str("Altered"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Status(status, text) => write!(f, "Status({status}, {} bytes)", text.len()),
            Self::Redirect(target) => write!(f, "Redirect({target})"),
            Self::Silent => f.write_str("Silent"),
            Self::Drip => f.write_str("Drip"),
            Self::Huge => f.write_str("Huge"),
            Self::Endless => f.write_str("Endless"),
            Self::GzipBomb(bomb) => write!(f, "GzipBomb({} bytes)", bomb.len()),
            Self::Close => f.write_str("Close"),
        }
    }
}

fn compressed(text: String) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip")
        .args(["-9", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
    let stdin = gzip.stdin.take();
    // In a thread: whoever fills one pipe while the other is full waits for ever.
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        let Some(mut stdin) = stdin else { return Ok(()) };
        stdin.write_all(text.as_bytes())?;
        let spaces = [b' '; 1 << 16];
        (0..HUGE / spaces.len()).try_for_each(|_| stdin.write_all(&spaces))
    });
    let output = gzip.wait_with_output().context("gzip")?;
    writer.join().map_err(|_| Error::new("writing to gzip failed"))?.context("gzip")?;
    Ok(output.stdout)
}
