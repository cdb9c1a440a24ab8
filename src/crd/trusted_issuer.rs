//! `TrustedIssuer`: an issuer of others whose tokens count here.

use super::UserRevocation;
use crate::grammar::AUDIENCE_PATTERN;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Condition: the issuer's keys were fetched and are recent enough.
pub const CONDITION_KEYS_FETCHED: &str = "KeysFetched";

/// Whose tokens count, and how they are checked.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "TrustedIssuer",
    plural = "trustedissuers",
    singular = "trustedissuer",
    shortname = "ti",
    category = "countersign",
    status = "TrustedIssuerStatus",
    derive = "PartialEq",
    doc = "A TrustedIssuer is an issuer of tokens outside this cluster's own: another cluster, a cloud, a CI system, SPIRE, whose workloads \
           Agents may claim in spec.identity.federated; or the organisation's identity provider, whose users agents may act for. It is \
           shaped like an entry of kube-apiserver's AuthenticationConfiguration. This cluster's own ServiceAccounts need none. Writing one \
           needs the RBAC verb 'grant' on all capabilities in the whole cluster, because whoever says whose word counts can become \
           anybody; suspending and deleting one does not. Either takes effect at once.",
    validation = Rule::new("self.spec.provides == 'Users' || !has(self.spec.claimMappings)")
        .message("claimMappings map users and are only for provides: Users; an Agent pins the claims of a workload in spec.identity.federated"),
    validation = Rule::new("self.spec.provides != 'Users' || has(self.spec.claimMappings)")
        .message("provides: Users needs claimMappings.username"),
    validation = Rule::new("self.spec.provides == 'Workloads' || self.spec.issuer.url.startsWith('https://')")
        .message("users come from an https issuer"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.usersEpoch) || (has(self.status) && has(self.status.usersEpoch) && \
         (self.status.usersEpoch == oldSelf.status.usersEpoch || (self.status.usersEpoch > oldSelf.status.usersEpoch && \
         (!has(oldSelf.status.revokedUsers) || oldSelf.status.revokedUsers.all(u, self.status.usersEpoch > u.epoch)))))"
    )
    .message("status.usersEpoch only grows, and beyond the epochs in status.revokedUsers: anything else would bring revoked tokens back to life"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.usersRevokedAt) || \
         (has(self.status) && has(self.status.usersRevokedAt) && self.status.usersRevokedAt >= oldSelf.status.usersRevokedAt)"
    )
    .message("status.usersRevokedAt only grows: ID tokens of before would be accepted again"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.revokedUsers) || (has(self.status) && oldSelf.status.revokedUsers.all(o, \
         (has(self.status.usersEpoch) && self.status.usersEpoch > o.epoch) || (has(self.status.revokedUsers) && \
         self.status.revokedUsers.exists(n, n.name == o.name && n.epoch >= o.epoch && n.at >= o.at))))"
    )
    .message("an entry of status.revokedUsers only grows, and goes only when usersEpoch is beyond it"),
    validation = Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.revoke) || (has(self.status) && ( \
         (has(self.status.revoke) && self.status.revoke == oldSelf.status.revoke) || \
         (has(self.status.usersEpoch) && (has(oldSelf.status.usersEpoch) ? oldSelf.status.usersEpoch : 0) < self.status.usersEpoch) || \
         (has(oldSelf.status.revoke.user) && has(self.status.revokedUsers) && self.status.revokedUsers.exists(n, \
         n.name == oldSelf.status.revoke.user && (!has(oldSelf.status.revokedUsers) || \
         !oldSelf.status.revokedUsers.exists(o, o.name == n.name && o.epoch >= n.epoch))))))"
    )
    .message("there is an instruction in status.revoke, which cannot be changed or taken back: retry once the operator has carried it out"),
    printcolumn(name = "Provides", type_ = "string", json_path = ".spec.provides"),
    printcolumn(name = "Issuer", type_ = "string", json_path = ".spec.issuer.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Keys", type_ = "date", json_path = ".status.keysFetchedAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TrustedIssuerSpec {
    /// Workloads: its tokens prove which agent calls, where an Agent lists them in spec.identity.federated. Users: its ID tokens name the
    /// people on whose behalf agents act.
    pub provides: Provides,

    /// true: no token of this issuer is accepted any more, at once. Setting it needs no right to grant; taking it back does.
    #[serde(default)]
    pub suspended: bool,

    /// Who it is and where its keys are.
    pub issuer: IssuerSpec,

    /// Longest life of an accepted token (exp - iat, or exp - nbf) in seconds, 60 to 90000, by default 3600. Managed
    /// identities of Azure need 86700. One that says neither iat nor nbf must end within this time from now.
    #[serde(default = "default_lifetime")]
    #[schemars(range(min = 60, max = 90000))]
    pub max_token_lifetime_seconds: u32,

    /// What else must hold for every token, at most 16 rules. One that is false, or cannot be evaluated, refuses the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub claim_validation_rules: Vec<ClaimValidationRule>,

    /// How a user is named. Only with provides: Users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_mappings: Option<ClaimMappings>,
}

/// What the tokens of an issuer prove.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provides {
    /// Which workload calls.
    Workloads,
    /// On whose behalf.
    Users,
}

/// Who an issuer is and where its keys are.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.discoveryURL) ? 1 : 0) + (has(self.jwksURL) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1")
        .message("of discoveryURL, jwksURL and jwks at most one can be set"),
    validation = Rule::new("!self.url.startsWith('spiffe://') || has(self.jwksURL) || has(self.jwks)")
        .message("a SPIFFE trust domain has no discovery: set jwksURL (the bundle endpoint) or jwks (the bundle)")
)]
pub struct IssuerSpec {
    /// The issuer's URL: 'iss' of its tokens, compared character by character; https, without query and fragment. Or
    /// spiffe://<trust domain>, for JWT-SVIDs, which name no issuer: it is then the trust domain of their 'sub'. A second
    /// TrustedIssuer with the same URL and the same 'provides' is not Ready; the older counts.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("self.matches('^https://[^/?#@ ]+(/[^?# ]*)?$') || self.matches('^spiffe://[a-z0-9._-]+$')")
            .message("url is https://host[:port][/path] without user, query and fragment, or spiffe://trust-domain"),
        validation = Rule::new("!self.startsWith('https://') || isURL(self)").message("url is not a URL")
    )]
    pub url: String,

    /// The audiences, 1 to 16, of which a token must name one in 'aud'. For workloads use this service's issuer URL wherever the platform
    /// lets you choose; for users, the client ids of the applications that pass their ID tokens on.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256), regex(pattern = AUDIENCE_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,

    /// Where the discovery document is, if not at <url>/.well-known/openid-configuration. It must name the issuer exactly as 'url' does, and
    /// a jwks_uri on the host from which it came.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "discoveryURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('https://') && isURL(self)").message("discoveryURL is an https URL"))]
    pub discovery_url: Option<String>,

    /// Where the keys are, for an issuer whose keys are on another host than its discovery document (Google), or that has none (the bundle
    /// endpoint of a SPIFFE trust domain).
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "jwksURL")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('https://') && isURL(self)").message("jwksURL is an https URL"))]
    pub jwks_url: Option<String>,

    /// The keys themselves, as a JWK Set (RFC 7517) in JSON: nothing is fetched. They count until you change them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub jwks: Option<String>,

    /// The certificates (PEM) that the issuer's server must descend from. Absent: those that the operator's image trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE-----') && !self.contains('PRIVATE KEY')")
        .message("certificateAuthority is certificates in PEM"))]
    pub certificate_authority: Option<String>,

    /// Networks (CIDR), at most 16, in which the issuer's server may be although their addresses are not public: the network of another
    /// cluster, for example 10.20.0.0/16. Absent: only public addresses are connected to, so that nobody can use this
    /// object to look into your network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64), regex(pattern = "^[0-9a-fA-F.:]+/[0-9]{1,3}$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_networks: Vec<String>,

    /// The algorithms that a signature of this issuer may have. Each key is used with one of them: the one that it names itself, else that of
    /// its type, and for RSA the first RS algorithm listed here. By default RS256, ES256, ES384 and EdDSA.
    #[serde(default = "default_algorithms")]
    #[schemars(length(min = 1, max = 6))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub signing_algorithms: Vec<IssuerAlgorithm>,

    /// How long fetched keys count if they cannot be fetched again, in seconds, 20 to 86400, by default 3600. Then no token of the issuer
    /// is accepted until they can. They are fetched anew about four times within this time, at least every 5 minutes and at most every 10 seconds.
    #[serde(default = "default_keys_max_age")]
    #[schemars(range(min = 20, max = 86400))]
    pub keys_max_age_seconds: u32,
}

/// An algorithm of RFC 7518 section 3.1 or RFC 8037.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerAlgorithm {
    /// RSA PKCS #1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    RS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// One rule for the claims of a token: either a claim with its value, or an expression.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.claim) != has(self.expression)").message("a rule has either claim and requiredValue, or expression"),
    validation = Rule::new("has(self.claim) == has(self.requiredValue)").message("claim and requiredValue go together"),
    validation = Rule::new("!has(self.message) || has(self.expression)").message("message goes with expression")
)]
pub struct ClaimValidationRule {
    /// The name of a claim that must be a string and have the required value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,

    /// The value that it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub required_value: Option<String>,

    /// A CEL expression over 'claims' that must be true, for example claims.exp - claims.nbf <= 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expression: Option<String>,

    /// What is wrong if it is not, for the audit record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub message: Option<String>,
}

/// How a user is named.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimMappings {
    /// The user's name. Where the API server knows the same people, write here what its AuthenticationConfiguration says, so that one who
    /// approves in Kubernetes is recognised as the user for whom an agent acts.
    pub username: UsernameMapping,

    /// The user's groups. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<ClaimMapping>,
}

/// A user's name: a claim and the prefix that Kubernetes puts before it, or an expression for the whole name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.claim) != has(self.expression) && (has(self.claim) || !has(self.prefix))")
    .message("a mapping has either claim and prefix, or expression"))]
pub struct UsernameMapping {
    /// The claim with the name, for example email or sub. With email, a claim email_verified that is there must be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,

    /// What the API server puts before it, for example 'oidc:'. In tokens of this service the user is user:<claim> without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub prefix: Option<String>,

    /// A CEL expression over 'claims' that gives the name, for example claims.sub + '@acme.com'. If it uses claims.email it must also use
    /// claims.email_verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.contains('claims.email') || self.contains('claims.email_verified')")
        .message("an expression that uses claims.email must also look at claims.email_verified"))]
    pub expression: Option<String>,
}

/// A claim, or an expression for its value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.claim) != has(self.expression) && (has(self.claim) || !has(self.prefix))")
    .message("a mapping has either claim and prefix, or expression"))]
pub struct ClaimMapping {
    /// The claim: a string or a list of strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,

    /// What the API server puts before each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub prefix: Option<String>,

    /// A CEL expression over 'claims' that gives a string or a list of strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expression: Option<String>,
}

const fn default_lifetime() -> u32 {
    3600
}

const fn default_keys_max_age() -> u32 {
    3600
}

fn default_algorithms() -> Vec<IssuerAlgorithm> {
    vec![IssuerAlgorithm::RS256, IssuerAlgorithm::ES256, IssuerAlgorithm::ES384, IssuerAlgorithm::EdDSA]
}

/// What the operator reports about an issuer. Only the operator writes it, but for 'revoke'.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrustedIssuerStatus {
    /// Ready: tokens of this issuer are accepted. KeysFetched: its keys are there and recent; else why they could not be fetched. Admitted:
    /// this generation was written while the admission policies were in force.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The generation that the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// When the keys were last fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub keys_fetched_at: Option<Time>,

    /// The names ('kid') of its keys, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub keys: Vec<String>,

    /// Users whose tokens were revoked, each with a count that only grows: a token lives only while the count in it equals that of its
    /// user. At most 256; one more, and usersEpoch grows instead, which ends the tokens of all users of the issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub revoked_users: Vec<RevokedUser>,

    /// The count of all users, unless revokedUsers has a higher one for a user. It only grows, beyond all of those.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub users_epoch: i64,

    /// When usersEpoch grew last: ID tokens of before are not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub users_revoked_at: Option<Time>,

    /// An instruction to revoke, by whoever has the RBAC verb 'revoke' on this TrustedIssuer: the one thing in the status that people
    /// write. It is in force at once; the operator carries it out, removes it and records who gave it. It cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<UserRevocation>,
}

/// A user whose tokens were revoked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevokedUser {
    /// The user's name, as claimMappings make it, without prefix.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The count.
    #[schemars(range(min = 1))]
    pub epoch: i64,

    /// When: ID tokens of before are not accepted.
    pub at: Time,
}
