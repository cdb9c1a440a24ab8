//! The configuration of notifications: a file, and its secrets as files of a folder, both mounted, both replaced without a restart.

use crate::notify::{Config, ConfigError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often they are read. Polling sees the swap of symbolic links by which a kubelet updates what it mounts.
const POLL: Duration = Duration::from_secs(5);
/// Largest secret, in bytes.
const SECRET_MAX: usize = 4096;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, #[source] std::io::Error),
    /// What it says cannot be meant.
    #[error("{0}: {1}")]
    Config(PathBuf, #[source] ConfigError),
}

/// Where the configuration is.
#[derive(Debug, Clone)]
pub struct Files {
    /// The file.
    pub file: PathBuf,
    /// The folder of the secrets.
    pub secrets: Option<PathBuf>,
}

/// What was read: the file, and each secret that it names.
type Texts = (String, BTreeMap<String, String>);

impl Files {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A [`FilesError`] that says what to change.
    pub fn read(&self) -> Result<Config, FilesError> {
        self.read_texts().map(|(config, _)| config)
    }

    fn read_texts(&self) -> Result<(Config, Texts), FilesError> {
        let text = std::fs::read_to_string(&self.file).map_err(|error| FilesError::Read(self.file.clone(), error))?;
        let read = RefCell::new(BTreeMap::new());
        let secret = |name: &str| {
            let secret = self.secret(name)?;
            read.borrow_mut().insert(name.to_owned(), secret.clone());
            Ok(secret)
        };
        let config = Config::parse(&text, secret).map_err(|error| FilesError::Config(self.file.clone(), error))?;
        Ok((config, (text, read.into_inner())))
    }

    fn secret(&self, name: &str) -> Result<String, String> {
        // The keys of a Secret.
        let is_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_key) {
            return Err(format!("{name:?} is not the key of a Secret"));
        }
        let folder = self.secrets.as_ref().ok_or("there are no secrets: set --notification-secrets-dir")?;
        let text =
            std::fs::read_to_string(folder.join(name)).map_err(|error| format!("the secret {name} cannot be read: {error}"))?;
        if text.len() > SECRET_MAX { Err(format!("the secret {name} is longer than {SECRET_MAX} bytes")) } else { Ok(text) }
    }

    /// Passes on each other configuration that the files hold, for ever. One that cannot be used changes nothing.
    pub async fn follow(self, config: watch::Sender<Arc<Config>>) {
        let mut known: Option<Texts> = self.read_texts().ok().map(|(_, texts)| texts);
        let mut complaint = String::new();
        loop {
            tokio::time::sleep(POLL).await;
            match self.read_texts() {
                Ok((read, texts)) => {
                    complaint.clear();
                    if known.as_ref() != Some(&texts) {
                        known = Some(texts);
                        tracing::info!(receivers = read.receivers.len(), "the configuration of notifications was replaced");
                        config.send_replace(Arc::new(read));
                    }
                }
                Err(error) => {
                    let error = crate::error_chain(&error);
                    if error != complaint {
                        tracing::error!(%error, "the new configuration of notifications cannot be used; the old one stays");
                        complaint = error;
                    }
                }
            }
        }
    }
}
