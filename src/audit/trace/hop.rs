//! One step of a chain: a token that was issued, or refused, and what became of it.

use super::super::Entry;
use serde::Serialize;

/// A token, or the refusal of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// When it was decided (RFC 3339).
    pub time: String,
    /// Where the record stands: `<log>/<number>`, for `audit prove`.
    pub record: String,
    /// `allow`, `deny` or `error`.
    pub outcome: String,
    /// The short name of the reason.
    pub reason: String,
    /// What was said of it beyond the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The agent that asked, if it could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Its display name at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// The user for whom it acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The agents that called one another, the first first; the last is the one that asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// The identifier of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The token that was exchanged for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_jti: Option<String>,
    /// The identifier of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<String>,
    /// The capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// For whom the token is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The one resource for which it is, if it is for one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Thumbprint of the key to which it is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<String>,
    /// When it ends, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// From where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_address: Option<String>,
    /// Who approved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// The digest of what they approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The request for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jit_request: Option<String>,
    /// How often a resource server asked about it.
    pub introspections: u64,
    /// What happened to it otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// What was obtained with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Self>,
}

/// Something that happened to a token, a request, a chain or an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When (RFC 3339).
    pub time: String,
    /// Where the record stands: `<log>/<number>`.
    pub record: String,
    /// What.
    pub event: String,
    /// What it was about: a token, a request, an agent or a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// `allow`, `deny` or `error`.
    pub outcome: String,
    /// The short name of the reason.
    pub reason: String,
    /// Who did it, if a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What was said of it beyond the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_address: Option<String>,
}

impl Hop {
    /// What a record of a token request says.
    pub(super) fn of(entry: &Entry, agent_name: Option<String>) -> Self {
        let text = |name| entry.find(name).map(str::to_owned);
        // What was asked for, where nothing was given.
        let or_asked = |name, asked| text(name).or_else(|| text(asked));
        Self {
            time: entry.time().to_owned(),
            record: entry.id(),
            outcome: entry.text("outcome").to_owned(),
            reason: entry.text("reason").to_owned(),
            detail: text("detail"),
            agent: text("subject"),
            agent_name,
            user: text("user"),
            chain: entry.words("chain").map(str::to_owned).collect(),
            jti: if entry.is_allowed() { text("jti") } else { None },
            parent_jti: text("parent_jti"),
            txn: text("txn"),
            scope: or_asked("scope", "requested_scope"),
            audience: or_asked("audience", "requested_audience"),
            resource: text("resource"),
            key_id: text("key_id"),
            bound_to: text("bound_to"),
            expires_at: entry.number("expires_at"),
            client_address: text("client_address"),
            approved_by: text("approved_by"),
            digest: text("digest"),
            jit_request: text("jit_request"),
            introspections: 0,
            events: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Whether a token was issued.
    #[must_use]
    pub fn is_issued(&self) -> bool {
        self.outcome == "allow" && self.jti.is_some()
    }
}

impl Event {
    /// What a record says that is no token request.
    pub(super) fn of(entry: &Entry) -> Self {
        let text = |name: &str| entry.find(name).map(str::to_owned);
        let first = |names: &[&str]| names.iter().find_map(|name| text(name));
        Self {
            time: entry.time().to_owned(),
            record: entry.id(),
            event: entry.event().to_owned(),
            about: first(&["jit_request", "subject", "jti", "txn", "user", "agent"]),
            outcome: entry.text("outcome").to_owned(),
            reason: entry.text("reason").to_owned(),
            by: first(&["revoked_by", "by", "changed_by"]),
            detail: text("detail"),
            client_address: text("client_address"),
        }
    }
}
