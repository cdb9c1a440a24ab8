//! The one place where a refusal becomes an HTTP status.

use crate::audit::{Outcome, Record};
use crate::decision::{Denial, Reason};
use crate::dpop::NONCE_HEADER;
use crate::identity::{Accepts, IdentityError};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A request that is not granted: what the caller is told, and what the record keeps.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: Box<str>,
    outcome: Outcome,
    reason: &'static str,
    detail: Option<Box<str>>,
    /// Whether the caller used the Authorization header, which RFC 6749 section 5.2 answers with a challenge.
    challenge: bool,
    /// After how many seconds it may be tried again.
    retry_after: Option<u64>,
    /// Whether there may be very many of them, which then share a record.
    bulk: bool,
    allow: Option<&'static str>,
    close: bool,
    /// With which nonce it may be tried again.
    nonce: Option<Box<str>>,
}

impl Refusal {
    /// A refusal of status 400 with an error code of RFC 6749 section 5.2 or a successor.
    pub fn new(error: &'static str, reason: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into().into_boxed_str(),
            outcome: Outcome::Deny,
            reason,
            detail: None,
            challenge: false,
            retry_after: None,
            bulk: false,
            allow: None,
            close: false,
            nonce: None,
        }
    }

    /// `invalid_request`: the request is malformed.
    pub fn malformed(description: impl Into<String>) -> Self {
        Self::new("invalid_request", "request_malformed", description)
    }

    /// `invalid_client` (RFC 6749 section 5.2), status 401.
    pub fn unauthenticated(reason: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, ..Self::new("invalid_client", reason, description) }
    }

    /// Cannot be answered now: 503 and `Retry-After`. Nothing was issued.
    pub fn unavailable(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            outcome: Outcome::Error,
            detail: Some(detail.into().into_boxed_str()),
            retry_after: Some(1),
            ..Self::new("temporarily_unavailable", reason, "the service cannot decide now; try again shortly")
        }
    }

    /// More than can be worked on at once: 503 and `Retry-After`.
    pub fn overloaded() -> Self {
        Self { bulk: true, ..Self::unavailable("overloaded", "too many requests at once") }
    }

    /// More than the caller may ask (RFC 6585 section 4): 429, and `Retry-After` of so many seconds.
    pub fn limited(reason: &'static str, description: impl Into<String>, seconds: u64) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(seconds),
            bulk: true,
            ..Self::new("temporarily_unavailable", reason, description)
        }
    }

    /// The wrong method: 405 with the right one.
    pub fn method(allow: &'static str) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            allow: Some(allow),
            ..Self::new("invalid_request", "method_not_allowed", format!("this endpoint answers only to {allow}"))
        }
    }

    /// Another status than 400.
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// What only the record says.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into().into_boxed_str()), ..self }
    }

    /// The caller used the Authorization header.
    #[must_use]
    pub fn challenged(self) -> Self {
        Self { challenge: true, ..self }
    }

    /// The connection ends with the reply, because the rest of the request is not read.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// The proof of possession needs this nonce (RFC 9449 section 8).
    #[must_use]
    pub fn wanting(self, nonce: String) -> Self {
        Self { nonce: Some(nonce.into_boxed_str()), ..self }
    }

    /// The status of the reply.
    #[must_use]
    pub const fn code(&self) -> StatusCode {
        self.status
    }

    /// Whether there may be very many of them, which then share a record.
    #[must_use]
    pub const fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// What the caller is told, as it was written: not yet as any reply needs it.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Writes the conclusion into the record.
    pub fn conclude(&self, record: &mut Record) {
        record.conclude(self.outcome, self.reason);
        record.text("error", self.error);
        record.text("detail", self.detail.as_deref().unwrap_or(&self.description));
    }
}

/// How a grant says no: each presents its credential in another role, and each standard has its own code for that role.
#[derive(Debug, Clone, Copy)]
pub struct CredentialRole {
    /// The code for a credential that is not accepted.
    pub error: &'static str,
    /// The status that goes with it.
    pub status: StatusCode,
    /// What may be presented in this role.
    pub accepts: Accepts,
}

impl CredentialRole {
    /// A client assertion (RFC 7521 section 4.2.1).
    pub const CLIENT: Self = Self { error: "invalid_client", status: StatusCode::UNAUTHORIZED, accepts: Accepts::Assertions };
    /// An assertion grant (RFC 7523 section 3.1).
    pub const GRANT: Self = Self { error: "invalid_grant", status: StatusCode::BAD_REQUEST, accepts: Accepts::Tokens };
    /// A subject token (RFC 8693 section 2.2.2).
    pub const SUBJECT: Self = Self { error: "invalid_request", status: StatusCode::BAD_REQUEST, accepts: Accepts::Tokens };

    /// The refusal of a credential. One text for every cause: which check failed is in the record, not in the reply.
    fn refusal(self, reason: &'static str, detail: String) -> Refusal {
        Refusal::new(self.error, reason, CREDENTIAL_REFUSED).status(self.status).detail(detail)
    }

    /// The refusal of a credential that identifies nobody.
    #[must_use]
    pub fn unidentified(self, error: &IdentityError) -> Refusal {
        match error {
            IdentityError::Unavailable(why) => Refusal::unavailable(error.code(), why.as_str()),
            _ => self.refusal(error.code(), error.to_string()),
        }
    }

    /// The refusal of a decision.
    #[must_use]
    pub fn denied(self, denial: Denial) -> Refusal {
        let code = denial.reason.code();
        match denial.reason {
            Reason::CapabilityNotGranted
            | Reason::NoCapability
            | Reason::ApprovalRequired
            | Reason::ApprovalNotNeeded
            | Reason::RuleMissing
            | Reason::RuleUnreadable
            | Reason::ConditionUnmet
            | Reason::ConditionUndecided
            | Reason::ConditionInvalid => Refusal::new("invalid_scope", code, denial.message),
            Reason::ResourceNotGranted | Reason::ParametersRefused | Reason::OperationMismatch => {
                Refusal::new("invalid_authorization_details", code, denial.message)
            }
            Reason::AudienceNotAllowed | Reason::AudienceAmbiguous => Refusal::new("invalid_target", code, denial.message),
            // RFC 8693 section 2.2.2: whatever is wrong with the subject or the actor.
            Reason::DelegationNotGranted
            | Reason::UserRevoked
            | Reason::SubjectNotAddressed
            | Reason::ActorNotAllowed
            | Reason::CallerNotAllowed
            | Reason::ChainCycle
            | Reason::ChainTooDeep
            | Reason::ChainEnded => Refusal::new("invalid_request", code, denial.message),
            // RFC 9449 section 5.
            Reason::PossessionUnproved => Refusal::new("invalid_dpop_proof", code, denial.message),
            Reason::AgentPending | Reason::RulePending => Refusal::unavailable(code, denial.message),
            Reason::AgentUnknown
            | Reason::AgentDeleted
            | Reason::AgentSuspended
            | Reason::AgentNotAdmitted
            | Reason::AgentInvalid
            | Reason::Revoked
            | Reason::ProofEnded
            | Reason::CredentialSpent => self.refusal(code, denial.message),
        }
    }
}

/// What is said of every credential that is not accepted.
const CREDENTIAL_REFUSED: &str = "the credential was not accepted. It must be the projected ServiceAccount token of a running pod, \
    requested for this issuer's URL as audience; or, as client_assertion, an assertion signed with a key of the Agent, for this issuer's URL \
    as its only audience, of at most 60 s, used once; or a token of a TrustedIssuer that is Ready. It must belong to an Agent that is Ready \
    (kubectl get agents). The audit record with the X-Request-Id of this reply names the rule";

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // RFC 6749 section 5.2: printable ASCII without quote and backslash.
        let clean = |c: char| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' };
        let description: String = self.description.chars().map(clean).collect();
        let body = serde_json::json!({"error": self.error, "error_description": description});
        let mut response = (self.status, axum::body::Body::from(body.to_string())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"countersign\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(nonce) = self.nonce.and_then(|nonce| HeaderValue::from_str(&nonce).ok()) {
            headers.insert(NONCE_HEADER, nonce);
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
