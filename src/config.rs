//! The command line, parsed into types. What is accepted here works; what does not is refused with the reason.

mod limits;
mod portal;
mod telemetry;
mod value;

pub use limits::RateArgs;
pub use portal::PortalArgs;
pub use telemetry::TraceArgs;
pub(crate) use value::{bounded, issuer, loopback, namespace, object_name};

use crate::cli::assertion::AssertArgs;
use crate::cli::audit::AuditArgs;
use crate::cli::can::CanArgs;
use crate::cli::keygen::KeygenArgs;
use crate::cli::reach::ReachArgs;
use crate::cli::revoke::RevokeArgs;
use crate::cli::self_test::SelfTestArgs;
use crate::cli::sidecar::{ReadyArgs, SidecarArgs, SnippetArgs};
use crate::identity::CredentialPolicy;
use crate::store::DatabaseUrl;
use crate::token::rotation::{InvalidPolicy, RotationPolicy};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use value::{key_time, retention, seconds};

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
    /// Replace the signing keys now, for example because one may be known to others. Every token signed before is dead.
    ///
    /// Needs get and update on the Secret: a kubeconfig of an administrator, or the operator's own pod (kubectl exec).
    RotateSigningKeys(RotateArgs),
    /// End tokens now: of an agent all, one or one chain, or those that act for a user.
    ///
    /// Needs a kubeconfig, and the RBAC verb revoke on the Agent or TrustedIssuer: the ClusterRole countersign-revoker. What is derived from
    /// a token ends with it. To keep an agent from getting new tokens, set spec.suspended.
    Revoke(RevokeArgs),
    /// Say whether an agent may do something, and what each rule says to it.
    ///
    /// The rules are those of the token service, asked of the objects in files (-f) or of the cluster, on which it needs the right to list
    /// Agents, Capabilities and TrustedIssuers. The status is 0 for yes, 1 for no, 2 if nobody can tell.
    Can(Box<CanArgs>),
    /// Say whether an agent can ever bring something about, through whichever agents it may hand a task to.
    ///
    /// Prints the shortest chain and what opens it, or the cut that keeps the two apart. The status is 0 if it can, 1 if it cannot, 2 if
    /// nobody can tell.
    Reach(ReachArgs),
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
    /// Print a page of the manual that is written from the program itself.
    #[command(hide = true)]
    Reference {
        /// Which of them.
        page: ReferencePage,
    },
    /// Make an Ed25519 key pair for an agent: write the private key, print what to put into the Agent.
    Keygen(KeygenArgs),
    /// Print a client assertion (RFC 7523) signed with an agent's key, for a token request with curl.
    Assert(AssertArgs),
    /// Run beside an agent, hold its credential, and hand it tokens on the loopback address. Of a flag given twice the last counts.
    #[command(args_override_self = true)]
    Sidecar(Box<SidecarArgs>),
    /// Say whether the sidecar is ready: the probe of its container. The status is 0 if it is, 1 if not.
    SidecarReady(ReadyArgs),
    /// Print what makes a sidecar of a Pod, to be written by hand where the API server does not write it.
    SidecarSnippet(Box<SnippetArgs>),
    /// Ask the record of what was decided: who really did this, and is that still what was written?
    Audit(Box<AuditArgs>),
    /// Say whether an installation works, as an agent: it obtains a token, is refused another, and reads the metrics. `helm test` runs this.
    ///
    /// Prints a line for each check. The status is 0 if all hold, 1 if one does not, 2 if nothing can be checked.
    #[command(args_override_self = true)]
    SelfTest(Box<SelfTestArgs>),
}

/// The two kinds of admission policies.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PolicyKind {
    /// Those that refuse; always installed.
    Validating,
    /// Those that write stamps; where the API server has MutatingAdmissionPolicy.
    Mutating,
    /// The one that puts the sidecar into pods, likewise.
    Inject,
    /// The one that refuses pods which would run without it.
    Injected,
}

/// Pages of the manual that the program writes itself.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ReferencePage {
    /// The resources, in Markdown.
    Crds,
    /// The registration API, in OpenAPI.
    Openapi,
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
    /// The ConfigMap in which the ledger's checkpoints are published.
    #[arg(
        long,
        env = "COUNTERSIGN_AUDIT_CONFIG_MAP_NAME",
        default_value = "countersign-audit",
        value_parser = object_name
    )]
    pub audit_config_map_name: String,
    /// Where what was consumed is kept.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// A serving certificate chain (PEM) instead of one from our own CA. Replaced files are picked up.
    #[arg(long, env = "COUNTERSIGN_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "COUNTERSIGN_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Names in the certificate from our own CA, beside the issuer's. May be repeated.
    #[arg(long = "tls-dns-name", env = "COUNTERSIGN_TLS_DNS_NAMES", value_delimiter = ',')]
    pub tls_dns_names: Vec<String>,
    /// How long a signing key signs before the next takes over, such as 720h or 30m.
    #[arg(long, env = "COUNTERSIGN_SIGNING_KEY_ROTATION", default_value = "720h", value_parser = key_time)]
    pub signing_key_rotation: u64,
    /// How long a signing key is published before it signs, such as 24h: less than half of the rotation. Published keys may be kept by
    /// verifiers for half of this, 5 minutes at most. Less than 10m is for drills: it leaves no time for a slow API server or a clock that
    /// is a little off.
    #[arg(long, env = "COUNTERSIGN_SIGNING_KEY_PUBLISH_AHEAD", default_value = "24h", value_parser = key_time)]
    pub signing_key_publish_ahead: u64,
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
    /// Demand a nonce of ours in every proof of possession (DPoP), so that none can have been made in advance. A client is told the nonce
    /// when it lacks one, and asks again.
    #[arg(long, env = "COUNTERSIGN_REQUIRE_DPOP_NONCE")]
    pub require_dpop_nonce: bool,
    /// Where records are appended: a file, or - for standard output.
    #[arg(long, env = "COUNTERSIGN_AUDIT_LOG", default_value = "-")]
    pub audit_log: PathBuf,
    /// How many refusals of callers who proved no identity have a record of their own, of each kind of request and client address in a
    /// second. Those beyond share one that says how many there were.
    #[arg(long, env = "COUNTERSIGN_AUDIT_REFUSALS_PER_SECOND", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_refusals_per_second: u32,
    /// How much one caller may ask.
    #[command(flatten)]
    pub rates: RateArgs,
    /// The directory to which logs of the ledger are moved that are older than --audit-retention. Without it nothing is ever removed.
    #[arg(long, env = "COUNTERSIGN_AUDIT_ARCHIVE_DIR", requires = "audit_retention")]
    pub audit_archive_dir: Option<PathBuf>,
    /// How long a log of the ledger stays in the database after it has ended, such as 90d.
    #[arg(long, env = "COUNTERSIGN_AUDIT_RETENTION", requires = "audit_archive_dir", value_parser = retention)]
    pub audit_retention: Option<u64>,
    /// A file that says who is told of requests for approval (docs/notifications.md). A file that is replaced is read anew.
    #[arg(long, env = "COUNTERSIGN_NOTIFICATIONS_FILE", value_name = "FILE")]
    pub notifications_file: Option<PathBuf>,
    /// The directory with the secrets that the file names, one file each.
    #[arg(long, env = "COUNTERSIGN_NOTIFICATION_SECRETS_DIR", value_name = "DIR", requires = "notifications_file")]
    pub notification_secrets_dir: Option<PathBuf>,
    /// The Lease whose holder sends the notifications.
    #[arg(long, env = "COUNTERSIGN_NOTIFIER_LEASE_NAME", default_value = "countersign-notifier", value_parser = object_name)]
    pub notifier_lease_name: String,
    /// The pages for people.
    #[command(flatten)]
    pub portal: PortalArgs,
    /// For how many seconds requests are still accepted after the process was told to stop. /readyz says at once that it is going; others
    /// take a moment to hear of that, and until then send requests here. 5 in a cluster.
    #[arg(long, env = "COUNTERSIGN_SHUTDOWN_DELAY", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub shutdown_delay: u64,
    /// Where spans go.
    #[command(flatten)]
    pub traces: TraceArgs,
    /// What is logged to standard error, as in RUST_LOG.
    #[arg(long, env = "COUNTERSIGN_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Flags of `rotate-signing-keys`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The operator's namespace.
    #[arg(long, env = "COUNTERSIGN_NAMESPACE", value_parser = namespace)]
    pub namespace: String,
    /// The Secret that holds the operator's keys.
    #[arg(long, env = "COUNTERSIGN_SECRET_NAME", default_value = "countersign", value_parser = object_name)]
    pub secret_name: String,
    /// Begin a rotation as it happens by itself, but now: the next keys are published, and sign later. No token dies.
    #[arg(long)]
    pub keep_old: bool,
    /// With --keep-old: how long the next keys are published before they sign.
    #[arg(long, env = "COUNTERSIGN_SIGNING_KEY_PUBLISH_AHEAD", default_value = "24h", value_parser = key_time)]
    pub signing_key_publish_ahead: u64,
}

/// Where the database is: one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct DatabaseArgs {
    /// The URL of the database, without a password: sqlite:///absolute/path.db for one replica, postgres://user@host/name for several.
    #[arg(long, env = "COUNTERSIGN_DATABASE", value_name = "URL", value_parser = DatabaseParser, hide_env_values = true)]
    pub database: Option<DatabaseUrl>,
    /// A file that holds the URL of the database, and of PostgreSQL the password: postgres://user:password@host/name?sslmode=verify-full.
    #[arg(long, env = "COUNTERSIGN_DATABASE_FILE", value_name = "FILE")]
    pub database_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The URL, wherever it is.
    ///
    /// # Errors
    /// If the file cannot be read, or holds anything but a URL. The text quotes nothing of it.
    pub fn url(&self) -> Result<DatabaseUrl, String> {
        let Some(file) = &self.database_file else {
            return self.database.clone().ok_or_else(|| "neither --database nor --database-file is given".to_owned());
        };
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        text.trim().parse().map_err(|e| format!("{}: {e}", file.display()))
    }
}

/// Reads a URL that everybody may see. Its errors, unlike those of other flags, do not repeat what was given.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseParser;

impl TypedValueParser for DatabaseParser {
    type Value = DatabaseUrl;

    fn parse_ref(&self, command: &clap::Command, _: Option<&clap::Arg>, value: &OsStr) -> Result<DatabaseUrl, clap::Error> {
        let parsed = value.to_str().unwrap_or_default().parse::<DatabaseUrl>().map_err(|e| e.to_string());
        let parsed = parsed.and_then(|url| {
            match url.has_password() {
                true => Err("it holds a password, which everybody who may list processes could read: give it in --database-file"),
                false => Ok(url),
            }
            .map_err(str::to_owned)
        });
        let wrong = |why| clap::Error::raw(ErrorKind::ValueValidation, format!("--database: {why}\n")).with_cmd(command);
        parsed.map_err(wrong)
    }
}

impl ServeArgs {
    /// How often the signing keys change.
    ///
    /// # Errors
    /// If the two flags do not fit each other.
    pub const fn rotation(&self) -> Result<RotationPolicy, InvalidPolicy> {
        RotationPolicy::new(self.signing_key_rotation, self.signing_key_publish_ahead)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(database: &[&str]) -> Result<DatabaseArgs, String> {
        let required = ["countersign", "serve", "--issuer=https://a", "--namespace=a"];
        match Cli::try_parse_from(required.iter().chain(database)).map_err(|e| format!("{e} {e:?}"))?.command {
            Command::Serve(args) => Ok(args.database),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn there_is_one_database() {
        assert!(serve(&["--database=sqlite:///a"]).is_ok());
        assert!(serve(&["--database=postgres://u@h/d"]).is_ok());
        assert!(serve(&["--database-file=/f"]).is_ok());
        for bad in [&[][..], &["--database=sqlite:///a", "--database-file=/f"], &["--database=a.db"], &["--database="]] {
            serve(bad).expect_err(&format!("{bad:?}"));
        }
    }

    #[test]
    fn a_password_is_read_from_a_file_and_repeated_nowhere() {
        const SECRET: &str = "opensesame";
        let refused = serve(&[&format!("--database=postgres://u:{SECRET}@h/d")]).expect_err("a password");
        assert!(refused.contains("--database-file"), "{refused}");
        for bad in [format!("postgres://u:{SECRET}@h/d?x=y"), format!("u:{SECRET}@h/d")] {
            assert!(!serve(&[&format!("--database={bad}")]).expect_err("no URL").contains(SECRET));
        }
        assert!(!refused.contains(SECRET), "{refused}");

        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, format!("postgres://u:{SECRET}@h/d\n")).expect("written");
        let args = serve(&[&format!("--database-file={}", file.path().display())]).expect("accepted");
        let url = args.url().expect("a URL");
        assert!(url.has_password() && !format!("{args:?} {url:?} {url}").contains(SECRET));
        std::fs::write(&file, format!("postgres://u:{SECRET}@h:x/d\n")).expect("written");
        assert!(!args.url().expect_err("no URL").contains(SECRET));
        drop(file);
        assert!(args.url().is_err());
    }

    #[test]
    fn the_times_of_the_signing_keys_fit_each_other() {
        let rotation = |flags: &[&str]| {
            let usual = ["countersign", "serve", "--issuer=https://a", "--namespace=a", "--database=sqlite:///a"];
            match Cli::try_parse_from(usual.iter().chain(flags)).expect("accepted").command {
                Command::Serve(args) => args.rotation(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(rotation(&[]), RotationPolicy::new(30 * 86_400, 86_400));
        assert!(rotation(&["--signing-key-rotation=48h"]).is_err(), "a day is half of it");
        assert!(rotation(&["--signing-key-rotation=5s", "--signing-key-publish-ahead=2s"]).is_ok(), "for drills");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
