//! Whether the policies are in force, and since when: what an Agent's generation is worth depends on it.
//!
//! A policy takes effect about a second after it is stored, can be deleted and restored by an admin, and cannot guard
//! itself. So the operator compares what is stored with what it expects, remembers UID and generation of each object (which
//! change with every alteration, also one that was undone), and takes an Agent's generation as proven only if the same
//! objects were in force before and after it was written.

use super::Policy;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How long after it was stored a policy is taken to be enforced by every API server.
pub const SETTLE: Duration = Duration::from_secs(3);

/// One stored object in one unaltered state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Kind and name.
    pub object: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
}

/// All objects, as they should be, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    seals: Vec<Seal>,
    /// If none was altered since its creation: when the last of them was created, in seconds since the epoch.
    unaltered_since: Option<i64>,
}

/// What is wrong with the policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    object: String,
    problem: &'static str,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.problem)
    }
}

/// Compares stored objects with the expected ones. Each `expected` has what was found under its name.
///
/// # Errors
/// The first object that is missing, altered or being deleted.
pub fn inspect<'a>(
    found: impl IntoIterator<Item = (&'a Policy, Option<&'a ValidatingAdmissionPolicy>, Option<&'a ValidatingAdmissionPolicyBinding>)>,
) -> Result<Sighting, Breach> {
    let mut sighting = Sighting { seals: Vec::new(), unaltered_since: Some(i64::MIN) };
    for (expected, policy, binding) in found {
        let name = expected.policy.metadata.name.as_deref().unwrap_or_default();
        let object = format!("ValidatingAdmissionPolicy {name}");
        let policy = policy.ok_or_else(|| Breach { object: object.clone(), problem: "is missing" })?;
        sighting.add(object, &policy.metadata, policy.spec == expected.policy.spec)?;
        let object = format!("ValidatingAdmissionPolicyBinding {name}");
        let binding = binding.ok_or_else(|| Breach { object: object.clone(), problem: "is missing" })?;
        sighting.add(object, &binding.metadata, binding.spec == expected.binding.spec)?;
    }
    Ok(sighting)
}

impl Sighting {
    fn add(
        &mut self,
        object: String,
        metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        as_expected: bool,
    ) -> Result<(), Breach> {
        if metadata.deletion_timestamp.is_some() {
            return Err(Breach { object, problem: "is being deleted" });
        }
        if !as_expected {
            return Err(Breach { object, problem: "is not as this version of Countersign installs it" });
        }
        let generation = metadata.generation.unwrap_or_default();
        let created = metadata.creation_timestamp.as_ref().map(|t| t.0.as_second());
        self.unaltered_since = match (self.unaltered_since, created, generation) {
            (Some(since), Some(created), 1) => Some(since.max(created)),
            _ => None,
        };
        self.seals.push(Seal { object, uid: metadata.uid.clone().unwrap_or_default(), generation });
        Ok(())
    }

    /// The objects.
    #[must_use]
    pub fn seals(&self) -> &[Seal] {
        &self.seals
    }
}

/// Whether nothing can have been wrong between two sightings of good objects: the same objects, each altered at most
/// once, that is from one known good state to another (an upgrade).
fn continuous(before: &[Seal], after: &[Seal]) -> bool {
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(b, a)| b.object == a.object && b.uid == a.uid && (0..=1).contains(&a.generation.saturating_sub(b.generation)))
}

/// What is known about the policies over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enforcement {
    /// Not looked at yet; the objects that an earlier process has seen in force, if it left word.
    Unseen(Option<Vec<Seal>>),
    /// Something is wrong.
    Broken(Breach),
    /// All is well, but not for long enough. Times are from the monotonic clock, since the start of the process.
    Settling(Sighting, Duration),
    /// All is well and has been.
    InForce(Sighting),
}

/// What an Agent's generation is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was written under the policies.
    Proven,
    /// It was not, or nobody can tell; and why.
    Unproven(String),
}

impl Enforcement {
    /// The next state after a look at the stored objects at `now`, on the monotonic clock.
    #[must_use]
    pub fn after(self, look: Result<Sighting, Breach>, now: Duration) -> Self {
        let sighting = match look {
            Err(breach) => return Self::Broken(breach),
            Ok(sighting) => sighting,
        };
        match self {
            Self::Unseen(Some(seals)) if continuous(&seals, &sighting.seals) => Self::InForce(sighting),
            Self::InForce(before) if continuous(&before.seals, &sighting.seals) => Self::InForce(sighting),
            Self::Settling(before, since) if continuous(&before.seals, &sighting.seals) => {
                if now.saturating_sub(since) >= SETTLE { Self::InForce(sighting) } else { Self::Settling(sighting, since) }
            }
            _ => Self::Settling(sighting, now),
        }
    }

    /// Judges a generation of an Agent that was created at `created` (seconds since the epoch) and is seen for the first time.
    #[must_use]
    pub fn judge(&self, created: i64) -> Verdict {
        match self {
            Self::InForce(_) => Verdict::Proven,
            // The Agent is younger than the policies and they were never altered: all of it was written under them.
            Self::Settling(Sighting { unaltered_since: Some(since), .. }, _)
                if created.saturating_sub(*since) >= SETTLE.as_secs() as i64 =>
            {
                Verdict::Proven
            }
            Self::Settling(..) => Verdict::Unproven("the admission policies had just been installed or restored".to_owned()),
            Self::Broken(breach) => Verdict::Unproven(format!("the admission policies were not in force: {breach}")),
            Self::Unseen(_) => Verdict::Unproven("the admission policies have not been seen yet".to_owned()),
        }
    }

    /// Whether Agents written now are held to the policies.
    #[must_use]
    pub const fn in_force(&self) -> bool {
        matches!(self, Self::InForce(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(uid: &str, generation: i64, unaltered_since: Option<i64>) -> Sighting {
        Sighting { seals: vec![Seal { object: "p".to_owned(), uid: uid.to_owned(), generation }], unaltered_since }
    }

    fn breach() -> Breach {
        Breach { object: "p".to_owned(), problem: "is missing" }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_state_proves_nothing() {
        assert!(matches!(Enforcement::Unseen(None).judge(i64::MAX), Verdict::Unproven(_)));
    }

    #[test]
    fn policies_are_in_force_only_after_they_have_settled() {
        let first = Enforcement::Unseen(None).after(Ok(sighting("a", 2, None)), at(0));
        assert!(matches!(first.judge(100), Verdict::Unproven(_)));
        let early = first.clone().after(Ok(sighting("a", 2, None)), at(2));
        assert!(!early.in_force());
        assert!(early.after(Ok(sighting("a", 2, None)), at(3)).in_force());
        assert!(!first.after(Ok(sighting("b", 2, None)), at(9)).in_force(), "another object starts anew");
    }

    #[test]
    fn an_agent_younger_than_policies_that_were_never_altered_is_proven() {
        let state = Enforcement::Unseen(None).after(Ok(sighting("a", 1, Some(100))), at(0));
        assert_eq!(state.judge(103), Verdict::Proven);
        assert!(matches!(state.judge(102), Verdict::Unproven(_)));
    }

    #[test]
    fn a_deletion_shows_even_if_it_was_undone_unseen() {
        let good = Enforcement::InForce(sighting("a", 1, None));
        assert!(good.clone().after(Ok(sighting("a", 1, None)), at(0)).in_force());
        assert!(good.clone().after(Ok(sighting("a", 2, None)), at(0)).in_force(), "an upgrade from good to good");
        assert!(!good.clone().after(Ok(sighting("a", 3, None)), at(0)).in_force(), "altered and put back");
        assert!(!good.clone().after(Ok(sighting("b", 1, None)), at(0)).in_force(), "deleted and created anew");
        let broken = good.after(Err(breach()), at(0));
        assert!(matches!(broken.judge(i64::MAX), Verdict::Unproven(_)));
        assert!(!broken.after(Ok(sighting("a", 1, None)), at(0)).in_force());
    }

    #[test]
    fn a_process_takes_over_what_its_predecessor_saw_in_force() {
        let word = Some(sighting("a", 1, None).seals);
        assert!(Enforcement::Unseen(word.clone()).after(Ok(sighting("a", 1, None)), at(0)).in_force());
        assert!(!Enforcement::Unseen(word.clone()).after(Ok(sighting("b", 1, None)), at(0)).in_force());
        assert!(!Enforcement::Unseen(word).after(Ok(sighting("a", 3, None)), at(0)).in_force());
    }

    #[test]
    fn what_we_expect_is_what_we_print() {
        for expected in crate::admission::validating() {
            let Policy { policy, binding } = expected;
            assert_eq!(policy.metadata.name, binding.metadata.name);
            assert!(inspect([(expected, Some(policy), Some(binding))]).is_ok());
            assert!(inspect([(expected, None, Some(binding))]).is_err());
            assert!(inspect([(expected, Some(policy), None)]).is_err());
            let mut altered = policy.clone();
            if let Some(spec) = &mut altered.spec {
                spec.failure_policy = Some("Ignore".to_owned());
            }
            assert!(inspect([(expected, Some(&altered), Some(binding))]).is_err());
            let mut weak = binding.clone();
            if let Some(spec) = &mut weak.spec {
                spec.validation_actions = Some(vec!["Audit".to_owned()]);
            }
            assert!(inspect([(expected, Some(policy), Some(&weak))]).is_err());
        }
    }
}
