//! `countersign sidecar`, and what belongs to it.

use super::CliError;
use crate::admission::injection::{Snippet, snippet};
use crate::config::{bounded, issuer, loopback};
use crate::grammar::AgentId;
use crate::sidecar::Authority;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the sidecar listens unless told otherwise.
pub const LISTEN_ADDRESS: &str = "127.0.0.1:7710";
/// The file with the agent's credential unless told otherwise.
pub const TOKEN_FILE: &str = "/var/run/secrets/countersign.dev/token";

/// Flags of `sidecar`. Each can also be set by an environment variable.
#[derive(Debug, Clone, Args)]
pub struct SidecarArgs {
    /// Where the token service is: its issuer URL, or another https URL at which its certificate is valid.
    #[arg(long, env = "COUNTERSIGN_URL", value_name = "URL", value_parser = issuer)]
    pub url: String,
    /// Whose certificate the token service has. No other authority is trusted.
    #[command(flatten)]
    pub authority: AuthorityArgs,
    /// The projected ServiceAccount token of the pod, with the issuer's URL as its audience. It is read for each request.
    #[arg(long, env = "COUNTERSIGN_TOKEN_FILE", value_name = "FILE", default_value = TOKEN_FILE)]
    pub token_file: PathBuf,
    /// Where to serve, in the clear. Only a loopback address is accepted.
    #[arg(long, env = "COUNTERSIGN_SIDECAR_ADDRESS", default_value = LISTEN_ADDRESS, value_parser = loopback)]
    pub listen_address: SocketAddr,
    /// The audience of a token that is asked for without saying for whom. With it, the agent starts only once there is such a token.
    #[arg(long, env = "COUNTERSIGN_AUDIENCE")]
    pub audience: Option<String>,
    /// The scope of a token that is asked for without saying for whom or for what.
    #[arg(long, env = "COUNTERSIGN_SCOPE")]
    pub scope: Option<String>,
    /// The agent: agent:<namespace>/<name>. Needed only if it is not called like its ServiceAccount and holds nothing without approval.
    #[arg(long, env = "COUNTERSIGN_AGENT", value_parser = super::agent_id)]
    pub agent: Option<AgentId>,
    /// How long a token is handed out before the token service is asked whether the agent still gets one, from 1s to 15m.
    #[arg(long, env = "COUNTERSIGN_MAX_AGE", default_value = "60s", value_parser = max_age)]
    pub max_age: u64,
    /// error, warn, info, debug or trace, or a filter of tracing-subscriber.
    #[arg(long, env = "COUNTERSIGN_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Whose certificates are trusted: one of them.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct AuthorityArgs {
    /// A file with certificates, PEM. It is read again when it is replaced.
    #[arg(long, env = "COUNTERSIGN_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The certificates themselves, PEM.
    #[arg(long, env = "COUNTERSIGN_CA_PEM", value_name = "PEM", hide_env_values = true)]
    pub ca_pem: Option<String>,
}

impl From<AuthorityArgs> for Authority {
    fn from(args: AuthorityArgs) -> Self {
        match args.ca_file {
            Some(file) => Self::File(file),
            // One of them is there, by the group; nothing is trusted by an empty one.
            None => Self::Pem(args.ca_pem.unwrap_or_default()),
        }
    }
}

/// Flags of `sidecar-ready`.
#[derive(Debug, Clone, Args)]
pub struct ReadyArgs {
    /// Where the sidecar listens.
    #[arg(long, env = "COUNTERSIGN_SIDECAR_ADDRESS", default_value = LISTEN_ADDRESS, value_parser = loopback)]
    pub listen_address: SocketAddr,
}

/// Flags of `sidecar-snippet`.
#[derive(Debug, Clone, Args)]
pub struct SnippetArgs {
    /// The image of Countersign.
    #[arg(long)]
    pub image: String,
    /// The issuer's URL of the token service: the audience of the agent's credential.
    #[arg(long, value_name = "URL", value_parser = issuer)]
    pub issuer: String,
    /// Where the token service is, if not at its issuer's URL.
    #[arg(long, value_name = "URL", value_parser = issuer)]
    pub url: Option<String>,
    /// A file with the certificate authority of the token service, PEM.
    #[arg(long, value_name = "FILE")]
    pub ca_file: PathBuf,
    /// The port on which the sidecar listens.
    #[arg(long, default_value_t = 7710, value_parser = clap::value_parser!(u16).range(1024..))]
    pub port: u16,
    /// The audience of a token that is asked for without saying for whom.
    #[arg(long, default_value = "")]
    pub audience: String,
    /// The scope of such a token.
    #[arg(long, default_value = "")]
    pub scope: String,
    /// The agent: agent:<namespace>/<name>. Needed only if it is not called like its ServiceAccount and holds nothing without approval.
    #[arg(long, value_parser = super::agent_id)]
    pub agent: Option<AgentId>,
    /// How long the agent's credential lives, from 10m to 24h: at most what the token service accepts. The kubelet replaces it.
    #[arg(long, default_value = "1h", value_parser = token_life)]
    pub token_lifetime: u32,
    /// When the image is pulled: Always, IfNotPresent or Never.
    #[arg(long, default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub pull_policy: String,
}

impl SnippetArgs {
    /// The snippet as YAML.
    ///
    /// # Errors
    /// If the certificate authority cannot be read.
    pub fn print(&self) -> Result<String, CliError> {
        let ca = std::fs::read_to_string(&self.ca_file).map_err(|error| CliError::Read(self.ca_file.clone(), error))?;
        let pod = snippet(&Snippet {
            image: self.image.clone(),
            pull_policy: self.pull_policy.clone(),
            url: self.url.clone().unwrap_or_else(|| self.issuer.clone()),
            issuer: self.issuer.clone(),
            ca,
            token_seconds: self.token_lifetime,
            port: self.port,
            audience: self.audience.clone(),
            scope: self.scope.clone(),
            agent: self.agent.as_ref().map(AgentId::to_string).unwrap_or_default(),
        });
        Ok(crate::yaml::documents(&[pod]))
    }
}

fn token_life(text: &str) -> Result<u32, String> {
    let seconds = bounded(text, 600..=86_400).and_then(|seconds| u32::try_from(seconds).ok());
    seconds.ok_or_else(|| "must be a duration from 10m to 24h, such as 600s or 1h".to_owned())
}

fn max_age(text: &str) -> Result<u64, String> {
    bounded(text, 1..=900).ok_or_else(|| "must be a duration from 1s to 15m, such as 60s or 5m".to_owned())
}
