//! A TrustedIssuer as the rest of the program sees it: parsed once from the stored object, never half valid.

mod claims;
mod revoked;

pub use claims::UserName;
pub use revoked::RevokedUsers;

use crate::agent::Admission;
use crate::crd::{self, Provides};
use claims::{ClaimRule, UserNames};
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use kube::ResourceExt as _;
use reqwest::Url;
use serde_json::{Map, Value};

/// One trusted issuer, as of one version of its object.
#[derive(Debug)]
pub struct RegisteredIssuer {
    /// Its name, by which Agents refer to it.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Creation time in seconds since the epoch. Of two with the same URL the older counts.
    pub created: i64,
    /// `spec.suspended`, or the object is being deleted.
    pub stopped: bool,
    /// Whether this generation was written under the admission policies.
    pub admission: Admission,
    /// What its tokens prove.
    pub provides: Provides,
    /// `iss` of its tokens, as written; compared byte by byte.
    pub url: String,
    /// How its tokens are checked, or why that cannot be said.
    pub rules: Result<Rules, InvalidIssuer>,
    /// The users whose tokens were revoked.
    pub revoked_users: RevokedUsers,
}

/// How the tokens of an issuer are checked.
#[derive(Debug)]
pub struct Rules {
    /// The audiences of which a token must name one.
    pub audiences: Vec<String>,
    /// Where the keys come from.
    pub source: KeySource,
    /// The algorithms that a signature may have.
    pub algorithms: Vec<Algorithm>,
    /// How long fetched keys count, in seconds.
    pub keys_max_age: u64,
    /// Longest life of a token, in seconds.
    pub max_lifetime: u64,
    claims: Vec<ClaimRule>,
    users: Option<UserNames>,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The discovery document at this address says where.
    Discovery(Url, Reach),
    /// From this address.
    Jwks(Url, Reach),
    /// From the object itself.
    Inline(String),
}

/// Which servers may be connected to, and what their certificates must descend from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Certificates in PEM; `None` for those of the system.
    pub certificate_authority: Option<String>,
    /// Networks that may be connected to although their addresses are not public.
    pub allowed_networks: Vec<IpNet>,
}

/// Why the spec of a TrustedIssuer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct InvalidIssuer {
    field: &'static str,
    problem: String,
}

impl RegisteredIssuer {
    /// Parses a stored object.
    #[must_use]
    pub fn parse(object: &crd::TrustedIssuer) -> Self {
        let conditions = object.status.as_ref().map_or(&[] as &[_], |status| &status.conditions);
        let generation = object.metadata.generation.unwrap_or_default();
        Self {
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            generation,
            created: object.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second()),
            stopped: object.spec.suspended || object.metadata.deletion_timestamp.is_some(),
            admission: Admission::of(conditions, generation),
            provides: object.spec.provides,
            url: object.spec.issuer.url.clone(),
            rules: Rules::parse(&object.spec),
            revoked_users: object.status.as_ref().map(RevokedUsers::parse).unwrap_or_default(),
        }
    }

    /// Who comes first when two have the same URL.
    #[must_use]
    pub fn seniority(&self) -> (i64, &str) {
        (self.created, &self.uid)
    }

    /// Whether its word counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.stopped && self.admission == Admission::Proven
    }

    /// Whether what it said before still counts: a generation that has not been checked yet ends nothing.
    #[must_use]
    pub fn still_counts(&self, uid: &str) -> bool {
        self.uid == uid && !self.stopped && self.admission != Admission::Unproven && self.rules.is_ok()
    }

    /// The trust domain, if this is a SPIFFE trust domain rather than an issuer of OpenID.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&str> {
        self.url.strip_prefix("spiffe://")
    }
}

impl Rules {
    fn parse(spec: &crd::TrustedIssuerSpec) -> Result<Self, InvalidIssuer> {
        let invalid = |field, problem: String| InvalidIssuer { field, problem };
        let issuer = &spec.issuer;
        let users = match (spec.provides, &spec.claim_mappings) {
            (Provides::Workloads, None) => None,
            (Provides::Workloads, Some(_)) => {
                return Err(invalid("claimMappings", "are only for provides: Users".to_owned()));
            }
            (Provides::Users, None) => return Err(invalid("claimMappings", "are missing".to_owned())),
            (Provides::Users, Some(mappings)) => {
                Some(UserNames::parse(mappings).map_err(|(field, problem)| invalid(field, problem))?)
            }
        };
        if issuer.audiences.is_empty() || issuer.audiences.iter().any(String::is_empty) {
            return Err(invalid("issuer.audiences", "must name at least one audience".to_owned()));
        }
        let algorithms: Vec<Algorithm> = issuer.signing_algorithms.iter().map(|a| algorithm(*a)).collect();
        if algorithms.is_empty() {
            return Err(invalid("issuer.signingAlgorithms", "must name at least one algorithm".to_owned()));
        }
        Ok(Self {
            audiences: issuer.audiences.clone(),
            source: KeySource::parse(issuer).map_err(|(field, problem)| invalid(field, problem))?,
            algorithms,
            keys_max_age: issuer.keys_max_age_seconds.into(),
            max_lifetime: spec.max_token_lifetime_seconds.into(),
            claims: spec
                .claim_validation_rules
                .iter()
                .map(ClaimRule::parse)
                .collect::<Result<_, _>>()
                .map_err(|e| invalid("claimValidationRules", e))?,
            users,
        })
    }

    /// Checks the rules for claims.
    ///
    /// # Errors
    /// The first that does not hold, in a sentence without the values.
    pub fn check(&self, claims: &Map<String, Value>) -> Result<(), String> {
        self.claims.iter().try_for_each(|rule| rule.check(claims))
    }

    /// What the API server puts before the names of users and of groups.
    pub fn kubernetes_prefixes(&self) -> impl Iterator<Item = &str> {
        self.users.iter().flat_map(UserNames::prefixes)
    }

    /// The name by which the API server knows a user of this name: with the prefix, if there is one.
    #[must_use]
    pub fn kubernetes_name(&self, name: &str) -> String {
        format!("{}{name}", self.users.as_ref().map_or("", UserNames::name_prefix))
    }

    /// Who the user is.
    ///
    /// # Errors
    /// If the claims do not say, or say what cannot be the name of a user of an identity provider.
    pub fn user(&self, claims: &Map<String, Value>) -> Result<UserName, String> {
        self.users.as_ref().ok_or("the issuer provides no users")?.user(claims)
    }
}

impl KeySource {
    fn parse(issuer: &crd::IssuerSpec) -> Result<Self, (&'static str, String)> {
        let is_spiffe = match check_url(&issuer.url) {
            Ok(()) => false,
            Err(problem) => match issuer.url.strip_prefix("spiffe://") {
                Some(domain) if is_trust_domain(domain) => true,
                Some(_) => return Err(("issuer.url", "is not spiffe://<trust domain>".to_owned())),
                None => return Err(("issuer.url", problem)),
            },
        };
        let allowed_networks = issuer
            .allowed_networks
            .iter()
            .map(|text| text.parse::<IpNet>().map_err(|_| ("issuer.allowedNetworks", format!("{text} is no CIDR"))))
            .collect::<Result<_, _>>()?;
        let reach = Reach { certificate_authority: issuer.certificate_authority.clone(), allowed_networks };
        let at = |field, text: &str| {
            check_url(text).map_err(|problem| (field, problem))?;
            Url::parse(text).map_err(|e| (field, e.to_string()))
        };
        match (&issuer.discovery_url, &issuer.jwks_url, &issuer.jwks) {
            (None, None, None) if is_spiffe => {
                Err(("issuer.url", "a SPIFFE trust domain has no discovery: set jwksURL or jwks".to_owned()))
            }
            (None, None, None) => {
                let url = format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'));
                Ok(Self::Discovery(at("issuer.url", &url)?, reach))
            }
            (Some(url), None, None) if !is_spiffe => Ok(Self::Discovery(at("issuer.discoveryURL", url)?, reach)),
            (None, Some(url), None) => Ok(Self::Jwks(at("issuer.jwksURL", url)?, reach)),
            (None, None, Some(jwks)) => Ok(Self::Inline(jwks.clone())),
            _ => Err(("issuer", "of discoveryURL, jwksURL and jwks at most one can be set".to_owned())),
        }
    }
}

/// An https URL that means what it says: what a lenient parser would read in another way is refused.
fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|e| format!("is no URL: {e}"))?;
    let canonical = url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
    let plain = url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.host_str().is_some_and(|host| !host.is_empty());
    match plain && canonical {
        true => Ok(()),
        false => Err(
            "must be an https URL in its canonical form: lower-case host, no user, query, fragment, default port or dot segments"
                .to_owned(),
        ),
    }
}

/// SPIFFE ID section 2.1.
pub fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

const fn algorithm(algorithm: crd::IssuerAlgorithm) -> Algorithm {
    match algorithm {
        crd::IssuerAlgorithm::RS256 => Algorithm::RS256,
        crd::IssuerAlgorithm::RS384 => Algorithm::RS384,
        crd::IssuerAlgorithm::RS512 => Algorithm::RS512,
        crd::IssuerAlgorithm::ES256 => Algorithm::ES256,
        crd::IssuerAlgorithm::ES384 => Algorithm::ES384,
        crd::IssuerAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

#[cfg(test)]
mod tests;
