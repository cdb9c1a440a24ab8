//! A certificate authority for servers that the tests run, and certificates that a client must not take.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::directory::write_private;
use super::error::{Context, Result};

/// What the server shows when a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// For 127.0.0.1 and localhost, from the authority that [`Authority::pem`] is.
    Good,
    /// The same, from an authority of the same name that nobody trusts.
    OfAnotherAuthority,
    /// For another host.
    ForAnotherHost,
    /// Good until the end of 2001.
    Expired,
}

/// The authority, with every certificate made in advance.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    good: Arc<ServerConfig>,
    of_another_authority: Arc<ServerConfig>,
    for_another_host: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
}

/// The names of a good certificate.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let (pem, issuer) = authority()?;
        let (_, other) = authority()?;
        Ok(Self {
            pem,
            good: serve(&issuer, &leaf(&NAMES)?)?,
            of_another_authority: serve(&other, &leaf(&NAMES)?)?,
            for_another_host: serve(&issuer, &leaf(&["issuer.example"])?)?,
            expired: serve(&issuer, &expired(leaf(&NAMES)?))?,
        })
    }

    /// Its certificate, for whoever is to trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// How to serve with that certificate.
    pub fn config(&self, certificate: Certificate) -> Arc<ServerConfig> {
        Arc::clone(match certificate {
            Certificate::Good => &self.good,
            Certificate::OfAnotherAuthority => &self.of_another_authority,
            Certificate::ForAnotherHost => &self.for_another_host,
            Certificate::Expired => &self.expired,
        })
    }
}

/// Writes a good certificate and its key into `directory`, as `tls.crt` and `tls.key`, and its authority as `ca.crt`.
pub fn write_files(directory: &Path) -> Result<()> {
    let (pem, issuer) = authority()?;
    let key = KeyPair::generate().context("a certificate")?;
    let certificate = leaf(&NAMES)?.signed_by(&key, &issuer).context("a certificate")?;
    write_private(&directory.join("ca.crt"), &pem)?;
    write_private(&directory.join("tls.crt"), &certificate.pem())?;
    write_private(&directory.join("tls.key"), &key.serialize_pem())
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>)> {
    let mut params = CertificateParams::new(Vec::new()).context("an authority")?;
    params.distinguished_name.push(DnType::CommonName, "CA of the tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().context("an authority")?;
    let certificate = params.self_signed(&key).context("an authority")?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

fn leaf(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).context("a certificate")?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2001, 12, 31);
    params
}

fn serve(issuer: &Issuer<'static, KeyPair>, params: &CertificateParams) -> Result<Arc<ServerConfig>> {
    let key = KeyPair::generate().context("a certificate")?;
    let certificate = params.signed_by(&key, issuer).context("a certificate")?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Named, because a process that has loaded a second provider has no default one.
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .context("TLS")?;
    Ok(Arc::new(config))
}
