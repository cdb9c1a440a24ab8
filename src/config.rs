//! The command line, parsed into types. What is accepted here works; what does not is refused with the reason.

use crate::grammar::{is_dns_label, is_dns_subdomain};
use crate::identity::CredentialPolicy;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// An identity for every AI agent, exactly the capabilities it was granted, and a record of what was decided.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator and its token service. Of a flag given twice the last counts.
    #[command(args_override_self = true)]
    Serve(Box<ServeArgs>),
    /// Print the CustomResourceDefinitions as YAML.
    Crds {
        /// Only that of this resource, for example agents.
        resource: Option<String>,
    },
    /// Print the admission policies as YAML.
    Admission {
        /// Which of them.
        kind: PolicyKind,
    },
}

/// The two kinds of admission policies.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PolicyKind {
    /// Those that refuse; always installed.
    Validating,
    /// Those that write stamps; where the API server has MutatingAdmissionPolicy.
    Mutating,
}

/// How ServiceAccount tokens are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServiceAccountValidation {
    /// Here, with the API server's keys and a watch of Pods and ServiceAccounts.
    Watch,
    /// By the API server, with a TokenReview for each request.
    TokenReview,
}

/// Flags of `serve`. Each can also be set by an environment variable.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Our issuer URL, exactly as it appears in tokens: https, no query, no fragment, no slash at the end.
    #[arg(long, env = "COUNTERSIGN_ISSUER", value_parser = issuer)]
    pub issuer: String,
    /// The operator's own namespace.
    #[arg(long, env = "COUNTERSIGN_NAMESPACE", value_parser = namespace)]
    pub namespace: String,
    /// Where the token service listens (HTTPS).
    #[arg(long, env = "COUNTERSIGN_LISTEN_ADDRESS", default_value = "0.0.0.0:8443")]
    pub listen_address: SocketAddr,
    /// Where metrics and probes are served (plain HTTP).
    #[arg(long, env = "COUNTERSIGN_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,
    /// Serve the token service also in the clear, for measurements. Only a loopback address is accepted.
    #[arg(long, env = "COUNTERSIGN_INSECURE_HTTP_ADDRESS", value_parser = loopback)]
    pub insecure_http_address: Option<SocketAddr>,
    /// The Secret that holds our keys. The chart creates it empty; the operator fills it.
    #[arg(long, env = "COUNTERSIGN_SECRET_NAME", default_value = "countersign", value_parser = object_name)]
    pub secret_name: String,
    /// The Lease that is written every second.
    #[arg(long, env = "COUNTERSIGN_LEASE_NAME", default_value = "countersign", value_parser = object_name)]
    pub lease_name: String,
    /// The ConfigMap that holds our CA certificate and what the next process must know.
    #[arg(long, env = "COUNTERSIGN_CONFIG_MAP_NAME", default_value = "countersign", value_parser = object_name)]
    pub config_map_name: String,
    /// A serving certificate chain (PEM) instead of one from our own CA. Replaced files are picked up.
    #[arg(long, env = "COUNTERSIGN_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "COUNTERSIGN_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Names in the certificate from our own CA, beside the issuer's. May be repeated.
    #[arg(long = "tls-dns-name", env = "COUNTERSIGN_TLS_DNS_NAMES", value_delimiter = ',')]
    pub tls_dns_names: Vec<String>,
    /// How ServiceAccount tokens are checked.
    #[arg(long, env = "COUNTERSIGN_SERVICE_ACCOUNT_VALIDATION", value_enum, default_value = "watch")]
    pub service_account_validation: ServiceAccountValidation,
    /// Accept ServiceAccount tokens that are bound to no pod.
    #[arg(long, env = "COUNTERSIGN_ALLOW_TOKENS_WITHOUT_POD")]
    pub allow_tokens_without_pod: bool,
    /// Accept ServiceAccount tokens that the API server has extended beyond what was requested (`warnafter`).
    #[arg(long, env = "COUNTERSIGN_ALLOW_EXTENDED_TOKENS")]
    pub allow_extended_tokens: bool,
    /// Longest life of an accepted ServiceAccount token, such as 3600s, 60m or 1h.
    #[arg(long, env = "COUNTERSIGN_MAX_CREDENTIAL_LIFETIME", default_value = "3600s", value_parser = seconds)]
    pub max_credential_lifetime: u64,
    /// Age of the view of the cluster, in seconds, beyond which nothing is issued.
    #[arg(long, env = "COUNTERSIGN_STALENESS_BOUND", default_value_t = 10, value_parser = clap::value_parser!(u64).range(5..=60))]
    pub staleness_bound: u64,
    /// Where records are appended: a file, or - for standard output.
    #[arg(long, env = "COUNTERSIGN_AUDIT_LOG", default_value = "-")]
    pub audit_log: PathBuf,
    /// What is logged to standard error, as in RUST_LOG.
    #[arg(long, env = "COUNTERSIGN_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

impl ServeArgs {
    /// What a ServiceAccount token must be like.
    #[must_use]
    pub const fn credential_policy(&self) -> CredentialPolicy {
        CredentialPolicy {
            allow_without_pod: self.allow_tokens_without_pod,
            allow_extended: self.allow_extended_tokens,
            max_lifetime: self.max_credential_lifetime,
        }
    }

    /// The host in the issuer, which is a name of the serving certificate.
    #[must_use]
    pub fn issuer_host(&self) -> String {
        let uri = self.issuer.parse::<axum::http::Uri>().ok();
        uri.and_then(|uri| uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())).unwrap_or_default()
    }
}

fn issuer(text: &str) -> Result<String, String> {
    let rule = "must be an https URL without user, query, fragment and without a slash at the end, for example https://countersign.agents.svc";
    let uri: axum::http::Uri = text.parse().map_err(|e| format!("{rule} ({e})"))?;
    let plain = uri.scheme_str() == Some("https")
        && uri.host().is_some_and(|host| !host.is_empty() && host == host.to_ascii_lowercase())
        && text.starts_with("https://")
        && !text.ends_with('/')
        && !text.contains(['?', '#', '@', '\\', ' ']);
    if plain { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

fn namespace(text: &str) -> Result<String, String> {
    if is_dns_label(text) { Ok(text.to_owned()) } else { Err("must be the name of a namespace (RFC 1123 label)".to_owned()) }
}

fn object_name(text: &str) -> Result<String, String> {
    if is_dns_subdomain(text) {
        Ok(text.to_owned())
    } else {
        Err("must be the name of an object (RFC 1123 subdomain)".to_owned())
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "must be <ip>:<port>".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("must be a loopback address: tokens never travel in the clear".to_owned())
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = units.iter().find_map(|(unit, factor)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*factor));
    match parsed {
        Some(seconds @ 60..=86_400) => Ok(seconds),
        _ => Err("must be a duration from 60s to 24h, such as 3600s, 60m or 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_an_issuer_is_one_exact_https_url() {
        for good in
            ["https://countersign.agents.svc", "https://127.0.0.1:8443", "https://id.example/tenant", "https://[::1]:8443"]
        {
            assert!(issuer(good).is_ok(), "{good} was refused");
        }
        for bad in
            ["", "http://a", "HTTPS://a", "https://a/", "https://A", "https://u@a", "https://a?b", "https://a#b", "a", "https://"]
        {
            assert!(issuer(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert!(loopback("127.0.0.1:80").is_ok() && loopback("[::1]:80").is_ok());
        assert!(loopback("0.0.0.0:80").is_err() && loopback("10.0.0.1:80").is_err());
    }

    #[test]
    fn a_duration_has_a_unit_and_bounds() {
        assert_eq!(seconds("1h"), Ok(3600));
        for bad in ["3600", "-1s", "0s", "25h", "9999999999999999999h", "1d", ""] {
            assert!(seconds(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
