//! `countersign revoke`: ends tokens, as whoever the kubeconfig says. It writes the instruction that `kubectl patch` would, and waits until
//! the operator has carried it out.

use crate::crd::{Agent, AgentRevocation, TrustedIssuer, UserRevocation};
use crate::grammar::AgentId;
use clap::Args;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

/// How long the operator may take to carry an instruction out. It is in force before: this only notices that nobody is there.
const WITHIN: Duration = Duration::from_secs(30);
/// How often is looked.
const EVERY: Duration = Duration::from_millis(100);

/// Flags of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The Agent whose tokens end: namespace/name.
    #[arg(long, value_parser = super::agent_id, required_unless_present = "issuer", conflicts_with = "issuer", value_name = "NAMESPACE/NAME")]
    pub agent: Option<AgentId>,
    /// The TrustedIssuer that vouches for the users.
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
    /// What of it.
    #[command(flatten)]
    pub what: What,
    /// Why, for the audit record.
    #[arg(long)]
    pub reason: Option<String>,
}

/// What ends: exactly one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct What {
    /// Of the Agent: every token so far.
    #[arg(long, conflicts_with = "issuer")]
    pub all: bool,
    /// Of the Agent: the token of this identifier (`jti`).
    #[arg(long, conflicts_with = "issuer", value_name = "JTI", allow_hyphen_values = true)]
    pub token: Option<String>,
    /// Of the Agent: the chain of this identifier (`txn`), through whichever agents.
    #[arg(long, conflicts_with = "issuer", value_name = "TXN", allow_hyphen_values = true)]
    pub chain: Option<String>,
    /// Of the issuer: the tokens that act for this user.
    #[arg(long, conflicts_with = "agent", value_name = "NAME")]
    pub user: Option<String>,
    /// Of the issuer: the tokens that act for any of its users.
    #[arg(long, conflicts_with = "agent")]
    pub all_users: bool,
}

/// Why nothing, or nobody knows whether anything, was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The API server says no.
    #[error("{0}")]
    Forbidden(String),
    /// The API server says something else, or nothing.
    #[error("{0}")]
    Refused(String),
    /// There is no such object.
    #[error("there is no {0}")]
    NotFound(String),
    /// The operator does not carry it out.
    #[error(
        "the instruction is stored, and every replica that sees it obeys it; but the operator has not carried it out within {} s: is it \
         running?",
        WITHIN.as_secs()
    )]
    Waiting,
}

/// Gives the instruction, waits until it has been carried out, and says what ended.
///
/// # Errors
/// A [`RevokeError`].
pub async fn run(client: &kube::Client, args: &RevokeArgs) -> Result<String, RevokeError> {
    let by = Some(super::whoami(client).await.map_err(refused)?);
    let What { all, token, chain, user, all_users } = &args.what;
    let reason = args.reason.clone();
    match (&args.agent, &args.issuer) {
        (Some(id), _) => {
            let revoke = AgentRevocation { all: all.then_some(true), token: token.clone(), chain: chain.clone(), reason, by };
            let api: Api<Agent> = Api::namespaced(client.clone(), id.namespace());
            let pending = |agent: &Agent| agent.status.as_ref().is_some_and(|status| status.revoke.is_some());
            let done = instruct(&api, id.name(), "Agent", &revoke, pending).await?;
            let epoch = done.and_then(|agent| agent.status).map_or(0, |status| status.revocation_epoch);
            Ok(match (token, chain) {
                (Some(token), _) => format!("{id}: token {token} is dead, and everything derived from it\n"),
                (_, Some(chain)) => format!("{id}: every token of chain {chain} is dead\n"),
                _ => format!(
                    "{id}: every token issued before revocation epoch {epoch} is dead, and everything derived from them\n"
                ),
            })
        }
        (None, Some(name)) => {
            let revoke = UserRevocation { user: user.clone(), all_users: all_users.then_some(true), reason, by };
            let api: Api<TrustedIssuer> = Api::all(client.clone());
            let pending = |issuer: &TrustedIssuer| issuer.status.as_ref().is_some_and(|status| status.revoke.is_some());
            instruct(&api, name, "TrustedIssuer", &revoke, pending).await?;
            Ok(match user {
                Some(user) => format!("{name}: every token for user:{user} is dead; who signs in again is served again\n"),
                None => format!("{name}: every token for a user of it is dead; who signs in again is served again\n"),
            })
        }
        // Clap demands one of them.
        (None, None) => Err(RevokeError::NotFound("object to revoke anything of".to_owned())),
    }
}

/// Writes the instruction, and waits until the operator has removed it. Returns the object as it is then, if it is still there.
async fn instruct<K>(
    api: &Api<K>,
    name: &str,
    kind: &str,
    revoke: &impl Serialize,
    pending: impl Fn(&K) -> bool,
) -> Result<Option<K>, RevokeError>
where
    K: kube::Resource + Clone + Debug + serde::de::DeserializeOwned,
{
    let start = Instant::now();
    let patch = Patch::Merge(json!({"status": {"revoke": revoke}}));
    let written = loop {
        // Somebody else's is carried out first: a merge would mix the two.
        let found = api.get_opt(name).await.map_err(refused)?;
        let Some(found) = found else { return Err(RevokeError::NotFound(format!("{kind} {name}"))) };
        if !pending(&found) {
            match api.patch_status(name, &PatchParams::default(), &patch).await {
                Ok(written) => break written,
                // Another was faster.
                Err(kube::Error::Api(status)) if status.message.contains("retry once") => {}
                Err(error) => return Err(refused(error)),
            }
        }
        wait(start).await?;
    };
    loop {
        let found = api.get_opt(name).await.map_err(refused)?;
        match found.filter(|found| found.uid() == written.uid()) {
            Some(found) if pending(&found) => wait(start).await?,
            found => return Ok(found),
        }
    }
}

async fn wait(since: Instant) -> Result<(), RevokeError> {
    if since.elapsed() > WITHIN {
        return Err(RevokeError::Waiting);
    }
    tokio::time::sleep(EVERY).await;
    Ok(())
}

fn refused(error: kube::Error) -> RevokeError {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => RevokeError::Forbidden(status.message.clone()),
        kube::Error::Api(status) => RevokeError::Refused(status.message.clone()),
        error => RevokeError::Refused(crate::error_chain(&error)),
    }
}
