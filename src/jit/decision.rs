//! How a person's client writes a decision: the one patch that the portal and `kubectl countersign` send.

use crate::crd::{User, Verdict};
use serde_json::{Value, json};

/// The merge patch of the status that decides on the request of that `digest`. It has every member of a decision: a merge leaves what it
/// does not name, and nothing of somebody else's decision is to be ours. `by` counts where no admission policy writes who it was; where one
/// does, it is the same.
#[must_use]
pub fn decision_patch(verdict: Verdict, comment: Option<&str>, digest: &str, by: &User) -> Value {
    let by = json!({"username": by.username, "uid": by.uid, "groups": by.groups});
    json!({"status": {"decision": {"verdict": verdict, "comment": comment, "digest": digest, "by": by}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_names_all_its_members_so_that_nothing_of_anothers_stays() {
        let by = User { username: "bob".to_owned(), uid: None, groups: vec!["a".to_owned()] };
        let patch = decision_patch(Verdict::Denied, None, "sha256:0", &by);
        assert_eq!(
            patch,
            json!({"status": {"decision": {"verdict": "Denied", "comment": null, "digest": "sha256:0",
                "by": {"username": "bob", "uid": null, "groups": ["a"]}}}})
        );
    }
}
