//! The claims of an access token.

use super::lineage::{self, Actor, Link, UserLink};
use super::{ACCESS_TOKEN_TYPE, KeyRing};
use crate::agent::Granted;
use crate::chain::MayAct;
use crate::crd::OperationSpec;
use crate::decision::{Approval, OperationGrant, Permit};
use crate::dpop::{self, Confirmation};
use crate::grammar::{CapabilityName, ResourcePattern};
use crate::identity::jws::Unverified;
use crate::operation::Operation;
use crate::time::LEEWAY;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The type of `authorization_details` (RFC 9396 section 2) that names one operation.
pub const OPERATION_DETAILS: &str = "countersign_operation";

/// The claims, with the names of RFC 9068 section 2.2. What is ours beyond it: `agent_uid`, `links`, `user`, `txn` and
/// `ancestors`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Issuer: our URL.
    pub iss: String,
    /// Subject: the user on whose behalf all happens, `user:<name>`, else the agent that began, `agent:<namespace>/<name>`.
    pub sub: String,
    /// The one audience.
    pub aud: String,
    /// The client: the agent that acts and to which the token was issued, `agent:<namespace>/<name>`.
    pub client_id: String,
    /// Who acts for the subject, the newest outermost (RFC 8693 section 4.1). Absent if the subject acts itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    /// Who alone may exchange the token: the agent that is its audience (RFC 8693 section 4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_act: Option<MayAct>,
    /// Issued at, in seconds since the epoch.
    pub iat: u64,
    /// Ends at, in seconds since the epoch.
    pub exp: u64,
    /// Unique identifier.
    pub jti: String,
    /// Capability names, separated by spaces.
    pub scope: String,
    /// Resource limits of the capabilities in `scope` that have them, or the one operation for which the token is good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorization_details: Vec<AuthorizationDetails>,
    /// To which key the token is bound (RFC 7800 section 3.1, RFC 9449 section 6.1). Absent: it is a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// UID of the registration of the agent that acts.
    pub agent_uid: String,
    /// For each agent of the chain, first the one that began: its registration, its revocation epoch, and how it proved itself.
    pub links: Vec<Link>,
    /// On what the user's part depends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserLink>,
    /// Identifies the chain, the same in all its tokens (RFC 8417 section 2.2). Tokens of earlier versions have none.
    #[serde(default)]
    pub txn: String,
    /// The identifiers of the tokens from which this one descends, first the one that began: if one is revoked, so is this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
}

/// One entry of `authorization_details` (RFC 9396 section 2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum AuthorizationDetails {
    /// The resources to which a capability is limited.
    #[serde(rename = "countersign_capability")]
    Capability {
        /// The capability, one of those in `scope`.
        capability: String,
        /// The resources, as patterns.
        resources: Vec<String>,
    },
    /// The one operation for which the token is good.
    #[serde(rename = "countersign_operation")]
    Operation {
        /// The capability, the only one in `scope`.
        capability: String,
        /// On what.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
        /// With what.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parameters: Option<Map<String, Value>>,
        /// The digest that was approved, if it needed approval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// UID of the JitRequest that was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jit_request: Option<String>,
    },
}

impl AccessClaims {
    pub(super) fn of(permit: &Permit, issuer: &str, jti: String) -> Self {
        let chain = permit.chain();
        let acting = chain.acting();
        let authorization_details = match permit.operation() {
            Some(grant) => vec![AuthorizationDetails::Operation {
                capability: grant.operation.capability.as_str().to_owned(),
                resource: grant.operation.resource.as_ref().map(|r| r.as_str().to_owned()),
                parameters: grant.operation.parameters.as_ref().map(|p| p.members().clone()),
                digest: grant.approval.as_ref().map(|approval| approval.digest.clone()),
                jit_request: grant.approval.as_ref().map(|approval| approval.request_uid.clone()),
            }],
            None => permit.capabilities().iter().filter_map(limits).collect(),
        };
        Self {
            iss: issuer.to_owned(),
            sub: chain.subject(),
            aud: permit.audience().as_str().to_owned(),
            client_id: acting.map(|link| link.agent.to_string()).unwrap_or_default(),
            act: lineage::act(chain, issuer),
            may_act: permit.may_act().cloned(),
            iat: permit.issued_at(),
            exp: permit.expires_at(),
            jti,
            scope: permit.scope(),
            authorization_details,
            cnf: permit.confirmation().cloned(),
            agent_uid: acting.map(|link| link.uid.clone()).unwrap_or_default(),
            links: lineage::links(chain),
            user: lineage::user(chain),
            txn: chain.txn().to_owned(),
            ancestors: chain.ancestors().to_vec(),
        }
    }

    /// The type of the token, as replies say it (RFC 6749 section 7.1, RFC 9449 section 5).
    #[must_use]
    pub const fn token_type(&self) -> &'static str {
        if self.cnf.is_some() { dpop::TOKEN_TYPE } else { "Bearer" }
    }

    /// The capabilities in `scope` with their limits; `None` if one of them is not what we would have written.
    #[must_use]
    pub fn capabilities(&self) -> Option<Vec<Granted>> {
        let granted = |name: &str| {
            let limit = self.authorization_details.iter().find_map(|details| match details {
                AuthorizationDetails::Capability { capability, resources } if capability == name => Some(resources),
                _ => None,
            });
            let resources = limit.map(|list| list.iter().map(|r| ResourcePattern::parse(r).ok()).collect::<Option<Vec<_>>>());
            Some(Granted {
                name: CapabilityName::parse(name).ok()?,
                resources: match resources {
                    None => None,
                    Some(list) => Some(list?),
                },
                approval_required: false,
                when: None,
            })
        };
        self.scope.split(' ').map(granted).collect()
    }

    /// Whether it counts at `now`, as far as that is a matter of time.
    #[must_use]
    pub const fn counts(&self, now: u64) -> bool {
        self.exp > now && self.iat <= now.saturating_add(LEEWAY)
    }

    /// The one operation for which the token is good, if it is for one; an error if it is not what we would have written.
    ///
    /// # Errors
    /// [`MalformedOperation`].
    pub fn operation(&self) -> Result<Option<OperationGrant>, MalformedOperation> {
        let is_operation = |d: &&AuthorizationDetails| matches!(d, AuthorizationDetails::Operation { .. });
        if !self.authorization_details.iter().any(|d| is_operation(&d)) {
            return Ok(None);
        }
        let [AuthorizationDetails::Operation { capability, resource, parameters, digest, jit_request }] =
            self.authorization_details.as_slice()
        else {
            return Err(MalformedOperation);
        };
        let spec = OperationSpec {
            capability: capability.clone(),
            resource: resource.clone(),
            parameters: parameters.clone(),
            audience: self.aud.clone(),
        };
        let operation = Operation::parse(&spec).map_err(|_| MalformedOperation)?;
        if self.scope != *capability {
            return Err(MalformedOperation);
        }
        let approval = match (digest, jit_request) {
            (None, None) => None,
            (Some(digest), Some(uid)) => Some(Approval { digest: digest.clone(), request_uid: uid.clone() }),
            _ => return Err(MalformedOperation),
        };
        Ok(Some(OperationGrant { operation, approval }))
    }
}

/// A token for an operation that says something we would not have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedOperation;

/// The resources to which a capability is limited, if it is.
fn limits(capability: &Granted) -> Option<AuthorizationDetails> {
    let resources = capability.resources.as_ref()?.iter().map(|r| r.as_str().to_owned()).collect();
    Some(AuthorizationDetails::Capability { capability: capability.name.as_str().to_owned(), resources })
}

/// Why a token is not one of ours that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOurs {
    /// It says that it is, and names a key that is not in the ring: this one.
    KeyUnknown(String),
    /// It is no access token that we signed, or it has expired.
    Worthless,
}

/// Reads back a token of ours, and says by its name which key signed it.
///
/// # Errors
/// [`NotOurs`] unless it is an access token that we signed and that has not expired at `now`.
pub fn verify(token: &str, issuer: &str, keys: &KeyRing, now: u64) -> Result<(AccessClaims, String), NotOurs> {
    let unverified = Unverified::parse(token).map_err(|_| NotOurs::Worthless)?;
    let (Some(ACCESS_TOKEN_TYPE), Some(kid)) = (unverified.typ.as_deref(), unverified.kid.as_deref()) else {
        return Err(NotOurs::Worthless);
    };
    let Some(key) = keys.find(kid) else {
        let kid = kid.to_owned();
        // Nothing in it is proven, but what does not even say that it is ours is not worth a look for its key.
        let says = unverified.into_claims().text("iss") == Some(issuer);
        return Err(if says { NotOurs::KeyUnknown(kid) } else { NotOurs::Worthless });
    };
    let verified = unverified.verify(key.verifier()).map_err(|_| NotOurs::Worthless)?;
    let claims = AccessClaims::deserialize(serde::de::value::MapDeserializer::new(
        verified.members().iter().map(|(name, value)| (name.as_str(), value.clone())),
    ));
    let claims = claims.ok().filter(|claims: &AccessClaims| claims.iss == issuer && claims.counts(now));
    claims.map(|claims| (claims, key.kid().to_owned())).ok_or(NotOurs::Worthless)
}
