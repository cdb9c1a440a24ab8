//! The claims of a Kubernetes ServiceAccount token, checked one by one.

use super::IdentityError;
use super::jws::Verified;
use super::validity::Validity;
use crate::grammar::{is_dns_label, is_dns_subdomain};
use serde_json::{Map, Value};
use uuid::Uuid;

/// What a ServiceAccount token must be like to count as a credential.
#[derive(Debug, Clone)]
pub struct CredentialPolicy {
    /// Accept a token that is bound to no pod, for example from `kubectl create token`. It lives on when the workload is gone.
    pub allow_without_pod: bool,
    /// Accept a token with `warnafter`, which the API server gives to the default mount of a pod and extends to a year.
    pub allow_extended: bool,
    /// Longest life (`exp` − `iat`) in seconds.
    pub max_lifetime: u64,
}

impl Default for CredentialPolicy {
    fn default() -> Self {
        Self { allow_without_pod: false, allow_extended: false, max_lifetime: 3600 }
    }
}

/// A ServiceAccount whose token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uuid,
    /// The pod to which the token is bound.
    pub pod: Option<PodRef>,
    /// When the token was issued, in seconds since the epoch.
    pub issued_at: u64,
    /// When it ends, in seconds since the epoch.
    pub expires_at: u64,
}

impl ServiceAccount {
    /// The name by which Kubernetes knows it.
    #[must_use]
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// The pod to which a token is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uuid,
}

/// Checks the claims of a token whose signature was verified. `issuer` is that of the key, where we know it.
///
/// # Errors
/// [`IdentityError::Claim`] with the first claim that is not as it must be.
pub(super) fn check_claims(
    claims: &Verified,
    policy: &CredentialPolicy,
    audience: &str,
    issuer: Option<&str>,
    now: u64,
) -> Result<(ServiceAccount, Validity), IdentityError> {
    let refuse = |why| Err(IdentityError::Claim(why));
    if issuer.is_some_and(|issuer| claims.text("iss") != Some(issuer)) {
        return refuse("iss is not the issuer of this cluster's ServiceAccount tokens");
    }
    if !claims.is_for(audience) {
        return refuse("aud does not contain this service's issuer URL");
    }
    let validity = Validity::of(claims, now)?;
    let issued_at = validity.issued_at.ok_or(IdentityError::Claim("iat is missing"))?;
    if !validity.lives_at_most(policy.max_lifetime, issued_at) {
        return refuse("the token lives longer than is accepted: request it with a shorter expirationSeconds");
    }
    let Some(Value::Object(kubernetes)) = claims.get("kubernetes.io") else {
        return refuse("kubernetes.io is missing: this is no bound ServiceAccount token");
    };
    if kubernetes.contains_key("warnafter") && !policy.allow_extended {
        return refuse("warnafter is present: this is the token of the default mount, not a projected one of its own");
    }
    let (namespace, service_account) = subject(claims)?;
    let account = reference(kubernetes, "serviceaccount")?;
    if kubernetes.get("namespace").and_then(Value::as_str) != Some(namespace)
        || account.as_ref().map(|a| a.0) != Some(service_account)
    {
        return refuse("sub and kubernetes.io do not name the same ServiceAccount");
    }
    let Some((_, service_account_uid)) = account else { return refuse("kubernetes.io names no ServiceAccount") };
    let pod = reference(kubernetes, "pod")?.map(|(name, uid)| PodRef { name: name.to_owned(), uid });
    if pod.is_none() {
        if !policy.allow_without_pod {
            return refuse("the token is not bound to a pod");
        }
        // Bound to something whose end nobody here would notice.
        if kubernetes.contains_key("node") || kubernetes.contains_key("secret") {
            return refuse("the token is bound to a node or a Secret, not to a pod");
        }
    }
    let account = ServiceAccount {
        namespace: namespace.to_owned(),
        name: service_account.to_owned(),
        uid: service_account_uid,
        pod,
        issued_at,
        expires_at: validity.expires_at,
    };
    Ok((account, validity))
}

/// Namespace and name from `sub`, `system:serviceaccount:<namespace>:<name>` and nothing else.
fn subject(claims: &Verified) -> Result<(&str, &str), IdentityError> {
    claims
        .text("sub")
        .and_then(|sub| sub.strip_prefix("system:serviceaccount:"))
        .and_then(|rest| rest.split_once(':'))
        .filter(|(namespace, name)| is_dns_label(namespace) && is_dns_subdomain(name))
        .ok_or(IdentityError::Claim("sub is not that of a ServiceAccount"))
}

/// The member `kind` of `kubernetes.io`: an object with a name and a UID.
fn reference<'a>(kubernetes: &'a Map<String, Value>, kind: &str) -> Result<Option<(&'a str, Uuid)>, IdentityError> {
    let Some(object) = kubernetes.get(kind) else { return Ok(None) };
    let name = object.get("name").and_then(Value::as_str);
    let uid = object.get("uid").and_then(Value::as_str).and_then(|uid| Uuid::parse_str(uid).ok());
    match (name, uid) {
        (Some(name), Some(uid)) => Ok(Some((name, uid))),
        _ => Err(IdentityError::Claim("kubernetes.io names an object without name or UID")),
    }
}
