//! Conditions as Kubernetes tools read them: the time of a condition is that of its last change of status, not of its last writing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What the condition `kind` says; empty if there is none.
pub fn message(conditions: &[Condition], kind: &str) -> String {
    conditions.iter().find(|c| c.type_ == kind).map(|c| c.message.clone()).unwrap_or_default()
}

/// The condition `kind` at `now`, of the generation `generation`, where `before` are those that there were.
pub fn condition(
    before: &[Condition],
    kind: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    generation: i64,
    now: Time,
) -> Condition {
    let same = before.iter().find(|c| c.type_ == kind && c.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation: Some(generation),
        last_transition_time: same.map_or(now, |c| c.last_transition_time.clone()),
    }
}
