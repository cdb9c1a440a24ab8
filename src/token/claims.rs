//! The claims of an access token.

use super::{ACCESS_TOKEN_TYPE, KeyRing};
use crate::agent::Granted;
use crate::decision::Permit;
use crate::grammar::{AgentId, CapabilityName, ResourcePattern};
use crate::identity::jws::Unverified;
use serde::{Deserialize, Serialize};

/// The type of `authorization_details` (RFC 9396 section 2) that limits a capability to resources.
pub const CAPABILITY_DETAILS: &str = "countersign_capability";

/// The claims, with the names of RFC 9068 section 2.2. What is ours beyond it: `agent_uid` and `links`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Issuer: our URL.
    pub iss: String,
    /// Subject: `agent:<namespace>/<name>`.
    pub sub: String,
    /// The one audience.
    pub aud: String,
    /// The client: the agent itself.
    pub client_id: String,
    /// Issued at, in seconds since the epoch.
    pub iat: u64,
    /// Ends at, in seconds since the epoch.
    pub exp: u64,
    /// Unique identifier.
    pub jti: String,
    /// Capability names, separated by spaces.
    pub scope: String,
    /// Resource limits of the capabilities in `scope` that have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorization_details: Vec<CapabilityDetails>,
    /// UID of the Agent's registration.
    pub agent_uid: String,
    /// For each agent on whose standing the token depends, its registration and revocation epoch.
    pub links: Vec<Link>,
}

/// One agent on which a token depends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its subject.
    pub sub: String,
    /// UID of its registration.
    pub agent_uid: String,
    /// Its `revocationEpoch` when the token was issued. The token lives only while they are equal.
    pub epoch: i64,
}

/// The resources to which a capability is limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityDetails {
    /// Always `countersign_capability`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The capability, one of those in `scope`.
    pub capability: String,
    /// The resources, as patterns.
    pub resources: Vec<String>,
}

impl AccessClaims {
    pub(super) fn of(permit: &Permit, issuer: &str, jti: String) -> Self {
        let subject = permit.subject().to_string();
        let details = permit.capabilities().iter().filter_map(|capability| {
            let resources = capability.resources.as_ref()?;
            Some(CapabilityDetails {
                kind: CAPABILITY_DETAILS.to_owned(),
                capability: capability.name.as_str().to_owned(),
                resources: resources.iter().map(|r| r.as_str().to_owned()).collect(),
            })
        });
        Self {
            iss: issuer.to_owned(),
            sub: subject.clone(),
            aud: permit.audience().as_str().to_owned(),
            client_id: subject.clone(),
            iat: permit.issued_at(),
            exp: permit.expires_at(),
            jti,
            scope: permit.scope(),
            authorization_details: details.collect(),
            agent_uid: permit.agent_uid().to_owned(),
            links: vec![Link { sub: subject, agent_uid: permit.agent_uid().to_owned(), epoch: permit.epoch() }],
        }
    }

    /// The agent that the token names.
    #[must_use]
    pub fn agent(&self) -> Option<AgentId> {
        AgentId::parse(&self.sub).ok()
    }

    /// The capabilities in `scope` with their limits; `None` if one of them is not what we would have written.
    #[must_use]
    pub fn capabilities(&self) -> Option<Vec<Granted>> {
        let granted = |name: &str| {
            let limit = self.authorization_details.iter().find(|d| d.capability == name);
            let resources = limit.map(|d| d.resources.iter().map(|r| ResourcePattern::parse(r).ok()).collect::<Option<Vec<_>>>());
            Some(Granted {
                name: CapabilityName::parse(name).ok()?,
                resources: match resources {
                    None => None,
                    Some(list) => Some(list?),
                },
            })
        };
        self.scope.split(' ').map(granted).collect()
    }
}

/// Reads back a token of ours: `None` unless it is an access token that we signed and that has not expired at `now`.
#[must_use]
pub fn verify(token: &str, issuer: &str, keys: &KeyRing, now: u64) -> Option<AccessClaims> {
    let unverified = Unverified::parse(token).ok()?;
    if unverified.typ.as_deref() != Some(ACCESS_TOKEN_TYPE) {
        return None;
    }
    let (key, algorithm) = keys.verification_key(unverified.kid.as_deref()?)?;
    let verified = unverified.verify(key, algorithm).ok()?;
    let claims = AccessClaims::deserialize(serde::de::value::MapDeserializer::new(
        verified.members().iter().map(|(name, value)| (name.as_str(), value.clone())),
    ));
    claims.ok().filter(|c: &AccessClaims| c.iss == issuer && c.exp > now && c.iat <= now.saturating_add(5))
}
