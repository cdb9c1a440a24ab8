//! What the command line does beside serving: it makes the key pairs of agents and signs with them, asks the ledger, ends tokens, says what
//! agents may and could do, runs beside one, and tells whether an installation works.

pub mod assertion;
pub mod audit;
pub mod can;
pub mod keygen;
pub mod objects;
mod private_file;
pub mod reach;
pub mod reference;
pub mod revoke;
pub mod self_test;
pub mod sidecar;

use crate::agent_key::SecretKeyError;
use crate::crd::User;
use crate::grammar::AgentId;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, PostParams};
use std::io;
use std::path::PathBuf;

/// Why a command did not do what it was asked for. No variant holds any of a private key.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The file to be written is there.
    #[error("{0}: exists already, and is never overwritten, because what it holds could be in use. Name another file")]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{0}: cannot be written: {1}")]
    Write(PathBuf, #[source] io::Error),
    /// The file cannot be read.
    #[error("{0}: cannot be read: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// A private key that others may read.
    #[error(
        "{path}: its mode is {mode:04o}, so that others may read this private key or write it. If nobody else can have read it: run \
         chmod 600 on it; otherwise make a new pair and take the old key out of the Agent"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no private key of an agent.
    #[error("{0}: {1}")]
    NoKey(PathBuf, #[source] SecretKeyError),
    /// There are no random bytes for a key or an identifier.
    #[error(transparent)]
    Random(#[from] SecretKeyError),
    /// The end of the key's life has passed.
    #[error("--not-after: {0} has passed; such a key would never work")]
    Ended(String),
    /// The result cannot be printed.
    #[error("the result cannot be printed: {0}")]
    Print(#[source] io::Error),
}

/// An agent on the command line: `namespace/name`, or its subject.
pub(crate) fn agent_id(text: &str) -> Result<AgentId, String> {
    AgentId::parse_short(text).map_err(|_| "must be namespace/name".to_owned())
}

/// Who we are to the API server. A mutating policy writes it; where there is none, whoever decides or revokes does.
pub(crate) async fn whoami(client: &kube::Client) -> kube::Result<User> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    Ok(User { username: user.username.unwrap_or_default(), uid: user.uid, groups: user.groups.unwrap_or_default() })
}
