//! The serving certificate: given as files or kept in our own Secret, replaced without a restart.

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// How often given files are read. Polling sees the swap of symbolic links by which a kubelet updates a mounted Secret.
const POLL: Duration = Duration::from_secs(5);

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is no PEM certificate chain and private key.
    #[error("the certificate or key is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The key cannot be used, or does not belong to the certificate.
    #[error("the certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate that is served, replaceable while connections come in.
#[derive(Debug)]
pub struct ServingCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    /// Serves this certificate and key, both PEM.
    ///
    /// # Errors
    /// A [`TlsError`] if they cannot be used.
    pub fn new(certificate: &str, key: &str) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(parse(certificate, key)?) }))
    }

    /// Serves another from now on. Connections that are open stay.
    ///
    /// # Errors
    /// A [`TlsError`] if they cannot be used; the one before goes on being served.
    pub fn replace(&self, certificate: &str, key: &str) -> Result<(), TlsError> {
        self.current.store(Arc::new(parse(certificate, key)?));
        Ok(())
    }

    /// An acceptor of TLS 1.2 and 1.3 connections that speak HTTP/1.1.
    ///
    /// # Errors
    /// If the crypto provider does not offer these versions.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn parse(certificate: &str, key: &str) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())?)
}

/// A certificate and its key in files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// [`TlsError::Read`].
    pub async fn read(&self) -> Result<(String, String), TlsError> {
        let read = |path: &PathBuf| {
            let path = path.clone();
            async move { tokio::fs::read_to_string(&path).await.map_err(|source| TlsError::Read { path, source }) }
        };
        Ok((read(&self.certificate).await?, read(&self.key).await?))
    }

    /// Serves what the files hold, for ever.
    pub async fn follow(self, serving: Arc<ServingCertificate>, mut current: (String, String)) {
        loop {
            tokio::time::sleep(POLL).await;
            let replaced = match self.read().await {
                Ok(read) if read == current => continue,
                Ok(read) => serving.replace(&read.0, &read.1).map(|()| current = read),
                Err(error) => Err(error),
            };
            match replaced {
                Ok(()) => tracing::info!("the serving certificate was replaced"),
                Err(error) => tracing::error!(%error, "the new serving certificate cannot be used; the old one stays"),
            }
        }
    }
}
