//! How a status changes: the new phase, with the conditions that go with it and a word on why.

use super::Request;
use crate::crd::{CONDITION_APPROVED, CONDITION_FINISHED, JitRequestStatus, Phase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A status to be written over the version it was made from, and what there is to say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The new status.
    pub status: JitRequestStatus,
    /// Short, stable name of what happened, for conditions and Events.
    pub reason: &'static str,
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
    reason: &'static str,
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
    let mut approved = condition(
        request,
        CONDITION_APPROVED,
        match phase {
            Phase::Pending => "Unknown",
            Phase::Approved | Phase::Issued | Phase::Completed => "True",
            Phase::Denied | Phase::Expired | Phase::Cancelled | Phase::Revoked => "False",
        },
        reason,
        &message,
        now,
    );
    // Once approved it was approved, whatever ended it later; only a person can take that back.
    if matches!(request.status.phase, Some(Phase::Approved | Phase::Issued))
        && phase != Phase::Denied
        && let Some(before) = request.status.conditions.iter().find(|c| c.type_ == CONDITION_APPROVED)
    {
        approved = before.clone();
    }
    let conditions =
        [approved, condition(request, CONDITION_FINISHED, if finished { "True" } else { "False" }, reason, &message, now)];
    status.conditions = conditions.into();
    Change { status, reason, message, warning: matches!(phase, Phase::Denied | Phase::Revoked) }
}

fn condition(request: &Request, kind: &str, status: &str, reason: &str, message: &str, now: i64) -> Condition {
    let before = request.status.conditions.iter().find(|c| c.type_ == kind && c.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(request.generation),
        last_transition_time: before.map_or_else(|| time(now), |c| c.last_transition_time.clone()),
    }
}
