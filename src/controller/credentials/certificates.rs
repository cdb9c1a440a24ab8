//! Our CA, and the serving certificate that it signs.

use super::{CredentialsError, Data, put, text};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

/// Items of the Secret.
pub(super) const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
pub(super) const TLS_CERT: &str = "tls.crt";
pub(super) const TLS_KEY: &str = "tls.key";

/// Life of the CA in days.
const CA_DAYS: i64 = 3650;
/// Life of a serving certificate in days. It is renewed when a third is left.
const SERVING_DAYS: i64 = 90;

/// Makes what is missing or due. `names` are the DNS names and IP addresses of the serving certificate. Returns whether anything changed.
pub(super) fn complete(data: &mut Data, names: &[String], now: OffsetDateTime) -> Result<bool, CredentialsError> {
    let mut changed = false;
    if !data.contains_key(CA_CERT) || !data.contains_key(CA_KEY) {
        let (certificate, key) = certificate_authority(now)?;
        put(data, CA_CERT, certificate);
        put(data, CA_KEY, key);
        data.remove(TLS_CERT);
        changed = true;
    }
    if is_due(&text(data, TLS_CERT), names, now) || !data.contains_key(TLS_KEY) {
        let (certificate, key) = serving_certificate(&text(data, CA_CERT), &text(data, CA_KEY), names, now)?;
        put(data, TLS_CERT, certificate);
        put(data, TLS_KEY, key);
        changed = true;
    }
    Ok(changed)
}

/// Whether a new serving certificate is needed: none there, two thirds of its life gone, or one of our names missing.
fn is_due(pem: &str, names: &[String], now: OffsetDateTime) -> bool {
    let Ok((_, pem)) = parse_x509_pem(pem.as_bytes()) else { return true };
    let Ok(certificate) = pem.parse_x509() else { return true };
    let found = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|san| san.value.general_names.iter().map(name_of).collect::<Vec<_>>());
    let found = found.unwrap_or_default();
    let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    now.unix_timestamp() >= to - (to - from) / 3 || !names.iter().all(|name| found.contains(name))
}

fn serving_certificate(
    ca: &str,
    ca_key: &str,
    names: &[String],
    now: OffsetDateTime,
) -> Result<(String, String), CredentialsError> {
    let issuer = Issuer::from_ca_cert_pem(ca, KeyPair::from_pem(ca_key)?)?;
    let mut params = params("countersign", now, SERVING_DAYS, names.to_vec())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
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
