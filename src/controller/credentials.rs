//! Our own secrets: the signing key, the key of the evidence, the CA, and the serving certificate, in one Secret that the chart creates empty.
//!
//! What is missing is made and written by compare-and-swap, so that several replicas agree on one.

use crate::jit::EvidenceKey;
use crate::tls::{ServingCertificate, TlsError};
use crate::token::{KeyError, KeyRing, generate_pem};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

/// Keys of the Secret.
const SIGNING_KEY: &str = "signing-key.pem";
const EVIDENCE_KEY: &str = "evidence-key";
const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TLS_CERT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";

/// Life of the CA in days.
const CA_DAYS: i64 = 3650;
/// Life of a serving certificate in days. It is renewed when a third is left.
const SERVING_DAYS: i64 = 90;
/// How often the Secret is read, so that what another replica or an admin wrote is served.
const POLL: Duration = Duration::from_secs(10);

/// Why our credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The Secret or ConfigMap cannot be read or written.
    #[error("the Secret or ConfigMap of the operator (the chart creates both) cannot be read or written: {}", crate::error_chain(.0))]
    Kubernetes(#[from] kube::Error),
    /// The signing key cannot be made or read.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The key of the evidence cannot be read.
    #[error("the Secret's evidence-key has fewer than 32 bytes")]
    Evidence,
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate cannot be served.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// Another writer is always faster.
    #[error("the Secret keeps changing")]
    Contended,
}

/// Where our credentials are kept, and which names the certificate must have.
#[derive(Clone)]
pub struct Credentials {
    secrets: Api<Secret>,
    secret: String,
    config_maps: Api<ConfigMap>,
    config_map: String,
    names: Vec<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("secret", &self.secret).field("names", &self.names).finish_non_exhaustive()
    }
}

/// What the Secret holds.
pub struct Loaded {
    /// The signing key.
    pub keys: KeyRing,
    /// The key with which approvals are attested.
    pub evidence: EvidenceKey,
    serving: (String, String),
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Chain and private key of the serving certificate, PEM.
    #[must_use]
    pub fn serving_pem(&self) -> (String, String) {
        self.serving.clone()
    }

    /// The serving certificate.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn serving(&self) -> Result<Arc<ServingCertificate>, TlsError> {
        ServingCertificate::new(&self.serving.0, &self.serving.1)
    }
}

type Data = BTreeMap<String, ByteString>;

impl Credentials {
    /// Our credentials in `namespace`. `names` are the DNS names and IP addresses of the serving certificate.
    #[must_use]
    pub fn new(client: &kube::Client, namespace: &str, secret: String, config_map: String, names: Vec<String>) -> Self {
        let (secrets, config_maps) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
        Self { secrets, secret, config_maps, config_map, names }
    }

    /// Reads what is there and makes what is missing or due.
    ///
    /// # Errors
    /// A [`CredentialsError`]. What is there but unreadable is an error too: it is never overwritten.
    pub async fn load(&self) -> Result<Loaded, CredentialsError> {
        for _ in 0..8 {
            let mut secret = self.secrets.get(&self.secret).await?;
            let mut data = secret.data.take().unwrap_or_default();
            if self.complete(&mut data, OffsetDateTime::now_utc())? {
                secret.data = Some(data.clone());
                match self.secrets.replace(&self.secret, &super::writing(), &secret).await {
                    Err(kube::Error::Api(status)) if status.is_conflict() => continue,
                    written => drop(written?),
                }
            }
            super::policies::set(&self.config_maps, &self.config_map, CA_CERT, &text(&data, CA_CERT)).await?;
            let keys = KeyRing::from_pem(&text(&data, SIGNING_KEY))?;
            let evidence = data.get(EVIDENCE_KEY).and_then(|key| EvidenceKey::new(&key.0)).ok_or(CredentialsError::Evidence)?;
            return Ok(Loaded { keys, evidence, serving: (text(&data, TLS_CERT), text(&data, TLS_KEY)) });
        }
        Err(CredentialsError::Contended)
    }

    /// Serves the certificate that the Secret holds, and renews it in time, for ever.
    pub async fn follow(self, serving: Arc<ServingCertificate>, loaded: (String, String)) {
        let mut current = loaded;
        loop {
            tokio::time::sleep(POLL).await;
            let replaced = match self.load().await {
                Ok(loaded) if loaded.serving == current => continue,
                Ok(loaded) => {
                    serving.replace(&loaded.serving.0, &loaded.serving.1).map(|()| current = loaded.serving).map_err(Into::into)
                }
                Err(error) => Err(error),
            };
            match replaced {
                Ok(()) => tracing::info!("the serving certificate was replaced"),
                Err(error) => tracing::warn!(%error, "our Secret could not be used; what was loaded before stays"),
            }
        }
    }

    /// Fills in what is missing or due. Returns whether anything changed.
    fn complete(&self, data: &mut Data, now: OffsetDateTime) -> Result<bool, CredentialsError> {
        let mut changed = false;
        if !data.contains_key(SIGNING_KEY) {
            put(data, SIGNING_KEY, generate_pem()?);
            changed = true;
        }
        if !data.contains_key(EVIDENCE_KEY) {
            let mut key = [0u8; 32];
            aws_lc_rs::rand::fill(&mut key).map_err(|_| KeyError::Random)?;
            data.insert(EVIDENCE_KEY.to_owned(), ByteString(key.to_vec()));
            changed = true;
        }
        if !data.contains_key(CA_CERT) || !data.contains_key(CA_KEY) {
            let (certificate, key) = certificate_authority(now)?;
            put(data, CA_CERT, certificate);
            put(data, CA_KEY, key);
            data.remove(TLS_CERT);
            changed = true;
        }
        if self.is_due(&text(data, TLS_CERT), now) || !data.contains_key(TLS_KEY) {
            let (certificate, key) = self.serving_certificate(&text(data, CA_CERT), &text(data, CA_KEY), now)?;
            put(data, TLS_CERT, certificate);
            put(data, TLS_KEY, key);
            changed = true;
        }
        Ok(changed)
    }

    /// Whether a new serving certificate is needed: none there, two thirds of its life gone, or one of our names missing.
    fn is_due(&self, pem: &str, now: OffsetDateTime) -> bool {
        let Ok((_, pem)) = parse_x509_pem(pem.as_bytes()) else { return true };
        let Ok(certificate) = pem.parse_x509() else { return true };
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|san| san.value.general_names.iter().map(name_of).collect::<Vec<_>>());
        let names = names.unwrap_or_default();
        let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
        now.unix_timestamp() >= to - (to - from) / 3 || !self.names.iter().all(|name| names.contains(name))
    }

    fn serving_certificate(&self, ca: &str, ca_key: &str, now: OffsetDateTime) -> Result<(String, String), CredentialsError> {
        let issuer = Issuer::from_ca_cert_pem(ca, KeyPair::from_pem(ca_key)?)?;
        let mut params = params("countersign", now, SERVING_DAYS, self.names.clone())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    }
}

fn certificate_authority(now: OffsetDateTime) -> Result<(String, String), CredentialsError> {
    let mut params = params("countersign CA", now, CA_DAYS, Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn params(name: &str, now: OffsetDateTime, days: i64, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Clients whose clocks are a little behind accept it too.
    params.not_before = now - time::Duration::minutes(5);
    params.not_after = now + time::Duration::days(days);
    Ok(params)
}

/// A name in a certificate as we write it in `names`.
fn name_of(name: &x509_parser::extensions::GeneralName<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|b| std::net::IpAddr::from(b).to_string());
            let v6 = <[u8; 16]>::try_from(*bytes).map(|b| std::net::IpAddr::from(b).to_string());
            v4.or(v6).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn text(data: &Data, key: &str) -> String {
    data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

fn put(data: &mut Data, key: &str, value: String) {
    data.insert(key.to_owned(), ByteString(value.into_bytes()));
}
