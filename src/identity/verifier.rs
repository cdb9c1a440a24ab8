//! How a credential is verified, by who it says to be from.

use super::federation::Federation;
use super::jws::{JwsError, Unverified, Verified};
use super::recognised::Genuine;
use super::{
    ApiServerKeys, Caller, CredentialPolicy, Holder, IdentityError, KeyHolder, Recognised, ServiceAccount, User, assertion,
    check_claims, foreign, token_review,
};
use crate::agent::{Admission, Holding, RegisteredAgent};
use crate::agent_key::{AgentKey, AgentSecretKey};
use crate::crd::Provides;
use crate::grammar::AgentId;
use crate::issuer::{RegisteredIssuer, Rules};
use crate::snapshot::{NEWBORN_AGE, NEWBORN_PATIENCE, Snapshot};
use crate::store::Store;
use crate::time::LEEWAY;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a request waits for the controller to judge a TrustedIssuer that was written a moment ago.
const JUDGEMENT_PATIENCE: Duration = Duration::from_secs(2);

/// Verifies credentials.
#[derive(Debug)]
pub struct Verifier {
    /// What a ServiceAccount token must be like.
    pub policy: CredentialPolicy,
    /// The audience that a credential must carry: our issuer URL.
    pub audience: String,
    /// Who the issuer of this cluster's tokens is, and its keys.
    pub cluster: Arc<ApiServerKeys>,
    /// How it is checked that a pod and its ServiceAccount are alive.
    pub validation: Validation,
    /// ServiceAccount tokens that were verified before.
    pub recognised: Recognised,
    /// The keys of the trusted issuers.
    pub federation: Arc<Federation>,
    /// Remembers assertions, each of which counts once.
    pub store: Store,
}

/// The two ways to check that the holder of a ServiceAccount token is alive.
pub enum Validation {
    /// Here, with a watch of Pods and ServiceAccounts. Faster, and a pod that is being deleted is refused at once.
    Watch,
    /// By the API server, with a TokenReview for each request. Up to about 70 s late for a pod that is being deleted.
    TokenReview(kube::Client),
}

impl std::fmt::Debug for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Watch => "Watch",
            Self::TokenReview(_) => "TokenReview",
        })
    }
}

/// Which credentials may be presented in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// Also an assertion that the agent signed itself: where a client authenticates.
    Assertions,
    /// Only tokens that somebody else issued.
    Tokens,
}

impl Verifier {
    /// Verifies `token` at `now`, in seconds since the epoch. An assertion is used up by this, whatever comes of it.
    ///
    /// # Errors
    /// An [`IdentityError`] that says which check failed.
    pub async fn verify(
        &self,
        token: &str,
        accepts: Accepts,
        snapshot: &Arc<Snapshot>,
        now: u64,
    ) -> Result<Caller, IdentityError> {
        if let Some(genuine) = self.recognise(token) {
            genuine.validity.check(now)?;
            alive(&genuine.account, snapshot, now).await?;
            return Ok(genuine.caller());
        }
        let unverified = Unverified::parse(token)?;
        let issuer = unverified.claimed_issuer();
        if let Some(agent) = issuer.and_then(|issuer| AgentId::parse(issuer).ok()) {
            return match accepts {
                Accepts::Assertions => self.assertion(unverified, agent, snapshot, now).await,
                Accepts::Tokens => Err(IdentityError::Claim("a client assertion is no token: it is sent as client_assertion")),
            };
        }
        if issuer == Some(&self.audience) {
            return Err(IdentityError::Claim("the token was issued by this service: it is no credential"));
        }
        // This cluster comes before all others: no TrustedIssuer can speak for it.
        if issuer.is_some() && (self.cluster.issuer().is_none() || issuer == self.cluster.issuer().as_deref().map(String::as_str))
        {
            return self.service_account(token, unverified, snapshot, now).await;
        }
        self.workload(unverified, snapshot, now).await
    }

    /// Verifies the ID token of a user at `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// An [`IdentityError`] that says which check failed.
    pub async fn user(&self, token: &str, snapshot: &Snapshot, now: u64) -> Result<User, IdentityError> {
        let unverified = Unverified::parse(token)?;
        if !matches!(unverified.typ.as_deref(), None | Some("jwt")) {
            return Err(IdentityError::Claim("the token's typ is not that of an ID token"));
        }
        let url = unverified.claimed_issuer().ok_or(IdentityError::UnknownIssuer)?;
        let cluster = self.cluster.issuer().ok_or_else(|| {
            IdentityError::Unavailable("the issuer of this cluster's own tokens, who names no users, is not known yet".to_owned())
        })?;
        if url == self.audience || url == *cluster {
            return Err(IdentityError::UnknownIssuer);
        }
        let issuer = snapshot.issuers().with_url(url, Provides::Users);
        let (issuer, claims) = self.foreign(unverified, issuer, snapshot).await?;
        foreign::user(&claims, &issuer, rules(&issuer)?, now)
    }

    /// Whether a caller that was verified a while ago would still be, at `now` in seconds since the epoch.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub async fn verify_again(
        &self,
        token: &str,
        caller: &Caller,
        snapshot: &Arc<Snapshot>,
        now: u64,
    ) -> Result<Caller, IdentityError> {
        match &caller.holder {
            // The assertion is used up, and it has shown what it could: that the agent has the key. Whether the key still counts is
            // another question, of which the answer may have changed.
            Holder::Key(key) => {
                let agent = snapshot.agent(&key.agent).filter(|agent| agent.uid == key.agent_uid);
                let agent = agent.ok_or(IdentityError::UnknownKey)?;
                let candidates = candidates(&agent, Some(&key.thumbprint), snapshot, now);
                let still = candidates.into_iter().find(|candidate| candidate.thumbprint() == key.thumbprint);
                let holder = Holder::Key(key_holder(&agent, still.ok_or(IdentityError::UnknownKey)?, now));
                Ok(Caller { holder, credential_id: caller.credential_id.clone() })
            }
            Holder::ServiceAccount(_) | Holder::Workload(_) => self.verify(token, Accepts::Tokens, snapshot, now).await,
        }
    }

    async fn service_account(
        &self,
        token: &str,
        unverified: Unverified<'_>,
        snapshot: &Arc<Snapshot>,
        now: u64,
    ) -> Result<Caller, IdentityError> {
        // An access token of ours, an ID token or an assertion is no ServiceAccount token (RFC 8725 section 3.11).
        // The API server sets no `typ`; plain `JWT` says nothing.
        if !matches!(unverified.typ.as_deref(), None | Some("jwt")) {
            return Err(IdentityError::Claim("the token's typ is not that of a ServiceAccount token"));
        }
        let id = |claims: &Verified| claims.text("jti").map(str::to_owned);
        match &self.validation {
            Validation::Watch => {
                let kid = unverified.kid.clone().ok_or(IdentityError::UnknownKey)?;
                let key = self.cluster.find(Some(&kid)).await?;
                let claims = unverified.verify(&key)?;
                let issuer = self.cluster.issuer();
                let checked = check_claims(&claims, &self.policy, &self.audience, issuer.as_deref().map(String::as_str), now);
                let (account, validity) = checked?;
                alive(&account, snapshot, now).await?;
                let genuine = Genuine { kid, key, issuer, validity, account, id: id(&claims) };
                let caller = genuine.caller();
                self.recognised.insert(token, genuine);
                Ok(caller)
            }
            Validation::TokenReview(client) => {
                let review = Box::pin(token_review::review(client, token, &self.audience)).await?;
                let claims = unverified.into_claims();
                let (account, _) = check_claims(&claims, &self.policy, &self.audience, None, now)?;
                review.confirms(&account)?;
                Ok(Caller { holder: Holder::ServiceAccount(account), credential_id: id(&claims) })
            }
        }
    }

    /// What is remembered of a ServiceAccount token, if its issuer and the key that verified it are still those of this cluster.
    fn recognise(&self, token: &str) -> Option<Arc<Genuine>> {
        let genuine = self.recognised.get(token)?;
        let key = self.cluster.known(&genuine.kid)?;
        (Arc::ptr_eq(&key, &genuine.key) && self.cluster.issuer() == genuine.issuer).then_some(genuine)
    }

    async fn workload(&self, unverified: Unverified<'_>, snapshot: &Snapshot, now: u64) -> Result<Caller, IdentityError> {
        // A JWT-SVID may call itself JOSE (JWT-SVID section 2.3).
        if !matches!(unverified.typ.as_deref(), None | Some("jwt" | "jose")) {
            return Err(IdentityError::Claim("the token's typ is not that of a workload's token"));
        }
        let issuer = {
            let issuers = snapshot.issuers();
            match (unverified.claimed_issuer(), unverified.claimed_subject().and_then(foreign::trust_domain_of)) {
                (Some(url), _) => issuers.with_url(url, Provides::Workloads).filter(|issuer| issuer.trust_domain().is_none()),
                (None, Some(domain)) if !unverified.names_issuer() => {
                    issuers.with_url(&format!("spiffe://{domain}"), Provides::Workloads)
                }
                (None, _) => None,
            }
        };
        let (issuer, claims) = self.foreign(unverified, issuer, snapshot).await?;
        let workload = foreign::workload(&claims, &issuer, rules(&issuer)?, now)?;
        Ok(Caller { holder: Holder::Workload(Box::new(workload)), credential_id: claims.text("jti").map(str::to_owned) })
    }

    /// Verifies the signature of a token with a key of `issuer`, and that the issuer still counts then.
    async fn foreign(
        &self,
        unverified: Unverified<'_>,
        issuer: Option<Arc<RegisteredIssuer>>,
        snapshot: &Snapshot,
    ) -> Result<(Arc<RegisteredIssuer>, Verified), IdentityError> {
        let mut issuer = issuer.filter(|issuer| !issuer.stopped).ok_or(IdentityError::UnknownIssuer)?;
        if issuer.admission == Admission::Pending {
            // Written a moment ago: the controller is about to judge it.
            let judged = |s: &Snapshot| s.issuers().get(&issuer.name).filter(|i| i.admission != Admission::Pending);
            issuer = snapshot.wait_for(JUDGEMENT_PATIENCE, judged).await.ok_or_else(|| {
                IdentityError::Unavailable("the TrustedIssuer was changed a moment ago and has not been checked yet".to_owned())
            })?;
        }
        if !issuer.counts() {
            return Err(IdentityError::UnknownIssuer);
        }
        let keys = self.federation.keys_of(&issuer, rules(&issuer)?);
        let key = keys.find(unverified.kid.as_deref()).await?;
        let claims = unverified.verify(&key)?;
        // Fetching may have taken a while.
        let now = snapshot.issuers().get(&issuer.name).filter(|now| now.uid == issuer.uid && now.generation == issuer.generation);
        match now.is_some_and(|now| now.counts()) {
            true => Ok((issuer, claims)),
            false => Err(IdentityError::UnknownIssuer),
        }
    }

    /// Verifies an assertion that says to be of `id`, and uses it up.
    async fn assertion(
        &self,
        unverified: Unverified<'_>,
        id: AgentId,
        snapshot: &Arc<Snapshot>,
        now: u64,
    ) -> Result<Caller, IdentityError> {
        if !assertion::is_type(unverified.typ.as_deref()) {
            return Err(IdentityError::Claim("the token's typ is not that of a client assertion"));
        }
        let agent = snapshot.agent(&id);
        let candidates =
            agent.as_deref().map(|agent| candidates(agent, unverified.kid.as_deref(), snapshot, now)).unwrap_or_default();
        let (claims, key) = match (candidates.as_slice(), &agent) {
            (&[], _) | (_, None) => {
                // As much work as for an agent that there is, so that the time taken does not tell which there are.
                _ = unverified.verify_with_one_of(&[decoy()?]);
                return Err(IdentityError::UnknownKey);
            }
            (keys, Some(agent)) => {
                let (claims, key) = unverified.verify_with_one_of(keys)?;
                (claims, key_holder(agent, key, now))
            }
        };
        let assertion = assertion::check(&claims, &id, &self.audience, now)?;
        if assertion.issued_at < self.store.complete_since().saturating_add(LEEWAY) {
            // A database that is new, or took over from another, knows nothing of what that one has seen.
            return Err(IdentityError::Unavailable(
                "the assertion may be older than the database that remembers assertions".to_owned(),
            ));
        }
        let first = self.store.accept_once(&id.to_string(), &assertion.jti, assertion.expires_at, now).await;
        // Another database may have taken over meanwhile, which knows nothing of what this one was just told.
        snapshot.freshness.check(Instant::now()).map_err(|stale| IdentityError::Unavailable(stale.to_string()))?;
        match first.map_err(|error| IdentityError::Unavailable(error.to_string()))? {
            true => Ok(Caller { holder: Holder::Key(key), credential_id: Some(assertion.jti) }),
            false => Err(IdentityError::Replayed { agent: id, thumbprint: key.thumbprint, jti: assertion.jti }),
        }
    }
}

/// The keys with which the agent may have signed: those that count now, are called so, and belong to it and no older agent.
fn candidates<'a>(agent: &'a RegisteredAgent, kid: Option<&str>, snapshot: &Snapshot, now: u64) -> Vec<&'a AgentKey> {
    let agents = snapshot.agents();
    let is_own = |key: &AgentKey| {
        let owner = agents.owner_of(&Holding::Key(key.thumbprint().to_owned()));
        owner.is_some_and(|owner| owner.id == agent.id && owner.uid == agent.uid)
    };
    agent.credentials.keys_at(now).filter(|(entry, key)| entry.is_called(kid) && is_own(key)).map(|(_, key)| key).collect()
}

/// Who has `key`, which counts at `now`: until the last of the entries that list it ends.
fn key_holder(agent: &RegisteredAgent, key: &AgentKey, now: u64) -> KeyHolder {
    let entries = agent.credentials.keys_at(now).filter(|(_, listed)| *listed == key).map(|(entry, _)| entry);
    let entry = entries.max_by_key(|entry| entry.not_after.unwrap_or(u64::MAX));
    KeyHolder {
        agent: agent.id.clone(),
        agent_uid: agent.uid.clone(),
        thumbprint: key.thumbprint().to_owned(),
        not_after: entry.and_then(|entry| entry.not_after),
    }
}

/// A key with which nobody signs.
fn decoy() -> Result<&'static AgentKey, IdentityError> {
    static DECOY: OnceLock<Option<AgentKey>> = OnceLock::new();
    let key = DECOY.get_or_init(|| AgentSecretKey::generate().ok().map(|secret| secret.public()));
    key.as_ref().ok_or(IdentityError::Jws(JwsError::Signature))
}

fn rules(issuer: &RegisteredIssuer) -> Result<&Rules, IdentityError> {
    issuer.rules.as_ref().map_err(|_| IdentityError::UnknownIssuer)
}

/// Checks that the caller's pod and ServiceAccount exist and are not being deleted.
async fn alive(account: &ServiceAccount, snapshot: &Arc<Snapshot>, now: u64) -> Result<(), IdentityError> {
    let look = |snapshot: &Snapshot| {
        let workloads = snapshot.workloads();
        if !workloads.service_accounts.contains(&account.uid) {
            return Err(IdentityError::Gone("ServiceAccount"));
        }
        match &account.pod {
            Some(pod) if !workloads.pods.contains(&pod.uid) => Err(IdentityError::Gone("pod")),
            _ => Ok(()),
        }
    };
    match look(snapshot) {
        Err(gone) if account.issued_at.saturating_add(NEWBORN_AGE) >= now => {
            snapshot.wait_for(NEWBORN_PATIENCE, |s| look(s).ok()).await.ok_or(gone)
        }
        result => result,
    }
}
