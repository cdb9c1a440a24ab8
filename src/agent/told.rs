//! What the status of an Agent says, in short.

use crate::crd::AgentStatus;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A digest of what the operator has written into the status of an Agent: enough to see whether it is what it should be without keeping
/// ten thousand texts. Whoever finds that it is not reads the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told(u64);

impl Told {
    /// What `status` says: its conditions without their times, the generation that was looked at, and the keys. None while it holds an
    /// instruction, which somebody has to carry out.
    #[must_use]
    pub fn of(status: &AgentStatus) -> Option<Self> {
        if status.revoke.is_some() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (status.observed_generation, &status.key_thumbprints, status.conditions.len()).hash(&mut hasher);
        for condition in &status.conditions {
            let (kind, generation) = (&condition.type_, condition.observed_generation);
            (kind, &condition.status, &condition.reason, &condition.message, generation).hash(&mut hasher);
        }
        Some(Self(hasher.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(change: impl FnOnce(&mut Value)) -> Option<Told> {
        let mut status = json!({
            "observedGeneration": 2,
            "revocationEpoch": 1,
            "keyThumbprints": ["a"],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "m", "observedGeneration": 2,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        });
        change(&mut status);
        Told::of(&serde_json::from_value(status).expect("a status"))
    }

    #[test]
    fn what_a_status_says_is_everything_but_when_it_began_to() {
        let as_is = told(|_| {});
        assert!(as_is.is_some());
        assert_eq!(told(|status| status["conditions"][0]["lastTransitionTime"] = json!("2026-02-02T00:00:00Z")), as_is);
        for (member, value) in [("type", "Other"), ("status", "False"), ("reason", "Other"), ("message", "other")] {
            assert_ne!(told(|status| status["conditions"][0][member] = json!(value)), as_is, "{member}");
        }
        assert_ne!(told(|status| status["observedGeneration"] = json!(3)), as_is);
        assert_ne!(told(|status| status["conditions"][0]["observedGeneration"] = json!(3)), as_is);
        assert_ne!(told(|status| status["keyThumbprints"] = json!(["a", "b"])), as_is);
        assert_ne!(told(|status| status["conditions"] = json!([])), as_is);
    }

    #[test]
    fn a_status_with_an_instruction_is_never_as_it_should_be() {
        assert_eq!(told(|status| status["revoke"] = json!({"all": true})), None);
    }
}
