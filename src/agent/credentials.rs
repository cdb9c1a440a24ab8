//! How an agent proves who it is, parsed from `spec.identity`.

use crate::agent_key::AgentKey;
use crate::crd;
use crate::grammar::AgentId;
use serde_json::{Map, Value};

/// The credentials of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Names of ServiceAccounts in the Agent's namespace.
    pub service_accounts: Vec<String>,
    /// Keys, usable or not, in the order of the spec.
    pub keys: Vec<RegisteredKey>,
    /// Identities that other issuers vouch for.
    pub federated: Vec<FederatedIdentity>,
}

/// One entry of `spec.identity.keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredKey {
    /// Its name, if it has one beside its thumbprint.
    pub kid: Option<String>,
    /// From when on it counts no more, in seconds since the epoch.
    pub not_after: Option<u64>,
    /// The key, or why the entry cannot be used.
    pub key: Result<AgentKey, String>,
}

/// One entry of `spec.identity.federated`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedIdentity {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// `sub` of its tokens.
    pub subject: String,
    /// Name of, or pointer to, a claim and the text that it must have; in the order of the names.
    claims: Vec<(String, String)>,
}

/// What only one agent can have: a credential as the key of an index. Of several that list it the oldest has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holding {
    /// A ServiceAccount.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A key, by its thumbprint.
    Key(String),
    /// A subject of an issuer. Entries that pin different values of one claim do not contest each other.
    Federated {
        /// Name of the TrustedIssuer.
        issuer: String,
        /// The subject.
        subject: String,
    },
}

impl Credentials {
    pub(super) fn parse(identity: &crd::Identity) -> Self {
        let keys = identity.keys.iter().map(|entry| {
            let key = AgentKey::parse(&entry.public_key).map_err(|error| error.to_string());
            let (not_after, key) = match entry.not_after.as_deref().map(crate::time::parse) {
                None => (None, key),
                // A time before 1970 has passed.
                Some(Some(second)) => (Some(u64::try_from(second).unwrap_or(0)), key),
                // Nobody knows when it ends: it has.
                Some(None) => {
                    (Some(0), Err("notAfter is no time with zone (RFC 3339), for example 2027-01-31T00:00:00Z".to_owned()))
                }
            };
            RegisteredKey { kid: entry.kid.clone(), not_after, key }
        });
        let federated = identity.federated.iter().map(|entry| FederatedIdentity {
            issuer: entry.issuer.clone(),
            subject: entry.subject.clone(),
            claims: entry.claims.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        });
        Self {
            service_accounts: identity.service_accounts.iter().map(|s| s.name.clone()).collect(),
            keys: keys.collect(),
            federated: federated.collect(),
        }
    }

    /// Everything here that only one agent can have.
    pub fn holdings(&self, id: &AgentId) -> impl Iterator<Item = Holding> {
        let accounts = self.service_accounts.iter().map(|name| Holding::service_account(id.namespace(), name));
        let keys = self.keys.iter().filter_map(|key| Some(Holding::Key(key.key.as_ref().ok()?.thumbprint().to_owned())));
        let federated = self.federated.iter().map(FederatedIdentity::holding);
        accounts.chain(keys).chain(federated)
    }

    /// The keys that count at `now`, in seconds since the epoch.
    pub fn keys_at(&self, now: u64) -> impl Iterator<Item = (&RegisteredKey, &AgentKey)> {
        self.keys.iter().filter(move |key| !key.is_over(now)).filter_map(|key| Some((key, key.key.as_ref().ok()?)))
    }
}

impl RegisteredKey {
    /// Whether it counts no more at `now`, in seconds since the epoch.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }

    /// Whether an assertion that names `kid` in its header may mean this key. One that names none may mean any.
    #[must_use]
    pub fn is_called(&self, kid: Option<&str>) -> bool {
        let thumbprint = self.key.as_ref().map(AgentKey::thumbprint).ok();
        kid.is_none_or(|kid| self.kid.as_deref() == Some(kid) || thumbprint == Some(kid))
    }
}

impl FederatedIdentity {
    /// Whether a token of the issuer with these claims proves this identity.
    #[must_use]
    pub fn matches(&self, subject: &str, claims: &Map<String, Value>) -> bool {
        self.subject == subject
            && self.claims.iter().all(|(name, wanted)| find(claims, name).is_some_and(|found| is_written(found, wanted)))
    }

    /// Whether one token could prove both this identity and `other`.
    #[must_use]
    pub fn contests(&self, other: &Self) -> bool {
        let differ = |(name, value): &(String, String)| other.claims.iter().any(|(n, v)| n == name && v != value);
        self.issuer == other.issuer && self.subject == other.subject && !self.claims.iter().any(differ)
    }

    /// The key of the index under which it is found.
    #[must_use]
    pub fn holding(&self) -> Holding {
        Holding::Federated { issuer: self.issuer.clone(), subject: self.subject.clone() }
    }
}

impl Holding {
    /// Of a ServiceAccount.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// The claim of that name, or the one to which a JSON Pointer (RFC 6901) points.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let mut steps = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&steps.next()?)?;
    steps.try_fold(first, |at, step| at.as_object()?.get(&step))
}

/// Whether `value` is written as `text`: a string as it is, true, false and whole numbers as JSON writes them.
fn is_written(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Bool(found) => text == if *found { "true" } else { "false" },
        Value::Number(found) if found.is_i64() || found.is_u64() => found.to_string() == text,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(claims: &Value) -> FederatedIdentity {
        let entry = json!({"federated": [{"issuer": "i", "subject": "s", "claims": claims}]});
        let identity: crd::Identity = serde_json::from_value(entry).expect("an identity");
        Credentials::parse(&identity).federated.remove(0)
    }

    #[test]
    fn f9_a_token_proves_an_identity_only_with_every_claim_that_is_pinned() {
        let token = json!({"repository": "acme/app", "n": 7, "ok": true, "list": ["a"], "float": 1.5, "/odd": "x",
            "google": {"compute_engine": {"project_id": "p"}}, "https://sts.amazonaws.com/": {"org_id": "o", "a~b": 1}});
        let token = token.as_object().expect("an object");
        for good in [
            json!({}),
            json!({"repository": "acme/app", "n": "7", "ok": "true"}),
            json!({"/google/compute_engine/project_id": "p"}),
            json!({"/https:~1~1sts.amazonaws.com~1/org_id": "o", "/https:~1~1sts.amazonaws.com~1/a~0b": "1"}),
            json!({"/~1odd": "x"}),
        ] {
            assert!(identity(&good).matches("s", token), "{good}");
            assert!(!identity(&good).matches("S", token), "{good}");
        }
        for bad in [
            json!({"repository": "acme/ap"}),
            json!({"repository": "acme/app", "ref": "main"}),
            json!({"n": "7.0"}),
            json!({"n": "07"}),
            json!({"ok": "True"}),
            json!({"list": "a"}),
            json!({"/list/0": "a"}),
            json!({"float": "1.5"}),
            json!({"google": "p"}),
            json!({"/google": "p"}),
            json!({"/": "x"}),
            json!({"/odd": "x"}),
            json!({"google.compute_engine.project_id": "p"}),
        ] {
            assert!(!identity(&bad).matches("s", token), "{bad}");
        }
    }

    #[test]
    fn c6_identities_that_one_token_could_prove_contest_each_other() {
        let (any, main, other) = (identity(&json!({})), identity(&json!({"ref": "main"})), identity(&json!({"ref": "dev"})));
        let environment = identity(&json!({"environment": "prod"}));
        assert!(any.contests(&main) && main.contests(&any) && main.contests(&environment) && any.contests(&any));
        assert!(!main.contests(&other) && !other.contests(&main));
    }

    #[test]
    fn a_key_is_called_by_its_name_or_its_thumbprint_and_ends() {
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let entry = json!({"keys": [{"kid": "2026", "publicKey": jwk, "notAfter": "2026-11-24T00:00:00Z"}, {"publicKey": "x"}]});
        let credentials = Credentials::parse(&serde_json::from_value(entry).expect("an identity"));
        let key = &credentials.keys[0];
        assert!(
            key.is_called(None)
                && key.is_called(Some("2026"))
                && key.is_called(Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"))
        );
        assert!(!key.is_called(Some("2027")) && !key.is_called(Some("")));
        let end = 1_795_478_400;
        assert_eq!((credentials.keys_at(end - 1).count(), credentials.keys_at(end).count()), (1, 0));
        assert!(credentials.keys[1].key.is_err());
        assert_eq!(credentials.holdings(&AgentId::new("ns", "a").expect("an id")).count(), 1);
    }
}
