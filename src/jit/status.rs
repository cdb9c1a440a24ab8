//! How a status changes: the new phase, with the conditions that go with it and a word on why.

use super::Request;
use crate::condition::condition;
use crate::crd::{CONDITION_APPROVED, CONDITION_FINISHED, JitRequestStatus, Phase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Why a request is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The agent asks.
    Requested,
    /// The object was made while the admission policies were not in force.
    NotAdmitted,
    /// The object was made by somebody who is not the agent.
    RequesterNotAgent,
    /// The object asks for something that cannot be asked.
    InvalidRequest,
    /// The agent may not ask this.
    NotAllowed,
    /// The agent has too many open requests.
    TooManyRequests,
    /// There were too many decisions that do not count.
    TooManyDecisions,
    /// A decision does not count.
    DecisionVoid,
    /// One of several persons has approved.
    ApprovedByOne,
    /// Enough persons have approved.
    Approved,
    /// A person said no.
    Denied,
    /// Its time ran out.
    Expired,
    /// Somebody other than the operator wrote what only the operator may write.
    EvidenceMissing,
    /// The agent was stopped, or lost what it asked for.
    NoLongerAllowed,
    /// The token was issued.
    Issued,
    /// The operation was reported as done.
    Completed,
    /// The agent withdrew it.
    Cancelled,
}

impl Why {
    /// Its name in conditions and Events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.names().0
    }

    /// Its name in records.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.names().1
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Requested => ("Requested", "requested"),
            Self::NotAdmitted => ("NotAdmitted", "not_admitted"),
            Self::RequesterNotAgent => ("RequesterNotAgent", "requester_not_agent"),
            Self::InvalidRequest => ("InvalidRequest", "invalid_request"),
            Self::NotAllowed => ("NotAllowed", "not_allowed"),
            Self::TooManyRequests => ("TooManyRequests", "too_many_requests"),
            Self::TooManyDecisions => ("TooManyDecisions", "too_many_decisions"),
            Self::DecisionVoid => ("DecisionVoid", "decision_void"),
            Self::ApprovedByOne => ("ApprovedByOne", "approved_by_one"),
            Self::Approved => ("Approved", "approved"),
            Self::Denied => ("Denied", "denied"),
            Self::Expired => ("Expired", "expired"),
            Self::EvidenceMissing => ("EvidenceMissing", "evidence_missing"),
            Self::NoLongerAllowed => ("NoLongerAllowed", "no_longer_allowed"),
            Self::Issued => ("Issued", "issued"),
            Self::Completed => ("Completed", "completed"),
            Self::Cancelled => ("Cancelled", "cancelled"),
        }
    }
}

/// A status to be written over the version it was made from, and what there is to say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The new status.
    pub status: JitRequestStatus,
    /// What happened.
    pub reason: Why,
    /// The same in a sentence.
    pub message: String,
    /// Whether a person should look at it: something was refused that somebody wanted.
    pub warning: bool,
}

/// Seconds since the epoch as a time in a status.
pub(super) fn time(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// The time in a status as seconds since the epoch.
pub(super) fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|t| t.0.as_second())
}

/// The change to `phase`. `status` has everything but the phase and what follows from it.
pub(super) fn change(
    request: &Request,
    status: JitRequestStatus,
    phase: Phase,
    reason: Why,
    message: impl Into<String>,
    now: i64,
) -> Change {
    let message = message.into();
    let mut status = JitRequestStatus { phase: Some(phase), observed_generation: Some(request.generation), ..status };
    let finished = !matches!(phase, Phase::Pending | Phase::Approved | Phase::Issued);
    if finished {
        status.finished_at = status.finished_at.or_else(|| Some(time(now)));
        status.expires_at = None;
    }
    let found = |kind, status| {
        let before = &request.status.conditions;
        condition(before, kind, status, reason.as_str(), message.as_str(), request.generation, time(now))
    };
    let mut approved = found(
        CONDITION_APPROVED,
        match phase {
            Phase::Pending => "Unknown",
            Phase::Approved | Phase::Issued | Phase::Completed => "True",
            Phase::Denied | Phase::Expired | Phase::Cancelled | Phase::Revoked => "False",
        },
    );
    // Once approved it was approved, whatever ended it later; only a person can take that back, and what was forged never was.
    if matches!(request.status.phase, Some(Phase::Approved | Phase::Issued))
        && phase != Phase::Denied
        && reason != Why::EvidenceMissing
        && let Some(before) = request.status.conditions.iter().find(|c| c.type_ == CONDITION_APPROVED && c.status == "True")
    {
        approved = before.clone();
    }
    let ours = [approved, found(CONDITION_FINISHED, if finished { "True" } else { "False" })];
    let others = request.status.conditions.iter().filter(|c| c.type_ != CONDITION_APPROVED && c.type_ != CONDITION_FINISHED);
    status.conditions = ours.into_iter().chain(others.cloned()).collect();
    Change { status, reason, message, warning: matches!(phase, Phase::Denied | Phase::Revoked) }
}

impl Phase {
    /// Its name, as resources have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Approved => "Approved",
            Self::Denied => "Denied",
            Self::Expired => "Expired",
            Self::Cancelled => "Cancelled",
            Self::Issued => "Issued",
            Self::Completed => "Completed",
            Self::Revoked => "Revoked",
        }
    }
}
