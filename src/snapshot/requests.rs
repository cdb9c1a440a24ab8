//! The requests for approval, by UID and by agent.

use crate::crd::Phase;
use crate::jit::{Request, RequestId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Namespace and name of an agent.
type AgentKey = (String, String);

/// The requests.
#[derive(Debug, Default)]
pub struct RequestIndex {
    by_uid: HashMap<String, Arc<Request>>,
    uid_of: HashMap<RequestId, String>,
    of_agent: HashMap<AgentKey, HashSet<String>>,
    /// The UIDs in a fresh list while it is being read.
    listed: Option<HashSet<String>>,
    /// The UIDs of the last that were deleted: an answer that was on its way meanwhile must not bring one back.
    deleted: VecDeque<String>,
}

/// How many deleted requests are remembered.
const DELETED_MAX: usize = 1024;

impl RequestIndex {
    /// The request of that UID.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<Arc<Request>> {
        self.by_uid.get(uid).cloned()
    }

    /// The request of that name.
    #[must_use]
    pub fn named(&self, id: &RequestId) -> Option<Arc<Request>> {
        self.get(self.uid_of.get(id)?)
    }

    /// All requests.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.by_uid.values()
    }

    /// The requests of the agent of that namespace and name.
    pub fn of_agent(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<Request>> {
        let uids = self.of_agent.get(&(namespace.to_owned(), name.to_owned()));
        uids.into_iter().flatten().filter_map(|uid| self.by_uid.get(uid))
    }

    /// How many requests of the agent are open, that is neither ended nor turned into a token. Of those that nobody has looked at, which
    /// anybody may have made, only those count for which `new_counts`.
    pub fn open_of_agent(&self, namespace: &str, name: &str, new_counts: impl Fn(&Request) -> bool) -> usize {
        let open = |r: &&Arc<Request>| match r.status.phase {
            Some(phase) => matches!(phase, Phase::Pending | Phase::Approved),
            None => new_counts(r),
        };
        self.of_agent(namespace, name).filter(|r| !r.deleting).filter(open).count()
    }

    /// Takes in a version of a request, unless a later one is there: what this process wrote itself may be ahead of its watch.
    /// Returns whether it was taken in.
    pub fn insert(&mut self, request: Arc<Request>) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.insert(request.uid.clone());
        }
        let known = self.by_uid.get(&request.uid);
        if known.is_some_and(|known| is_older(&request.version, &known.version)) || self.deleted.contains(&request.uid) {
            return false;
        }
        if let Some(before) = self.uid_of.insert(request.id.clone(), request.uid.clone())
            && before != request.uid
        {
            self.forget(&before);
            self.uid_of.insert(request.id.clone(), request.uid.clone());
        }
        self.of_agent.entry(key(&request)).or_default().insert(request.uid.clone());
        self.by_uid.insert(request.uid.clone(), request);
        true
    }

    /// Removes a request that was deleted, for good.
    pub fn delete(&mut self, uid: &str) -> Option<Arc<Request>> {
        if self.deleted.len() >= DELETED_MAX {
            self.deleted.pop_front();
        }
        self.deleted.push_back(uid.to_owned());
        self.forget(uid)
    }

    /// Removes a request.
    pub fn forget(&mut self, uid: &str) -> Option<Arc<Request>> {
        let request = self.by_uid.remove(uid)?;
        if self.uid_of.get(&request.id).is_some_and(|current| current == uid) {
            self.uid_of.remove(&request.id);
        }
        if let Some(uids) = self.of_agent.get_mut(&key(&request)) {
            uids.remove(uid);
            if uids.is_empty() {
                self.of_agent.remove(&key(&request));
            }
        }
        Some(request)
    }

    /// A new list begins.
    pub fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The new list is complete: what it does not name is gone. Returns the removed requests.
    pub fn complete(&mut self) -> Vec<Arc<Request>> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<String> = self.by_uid.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        gone.iter().filter_map(|uid| self.forget(uid)).collect()
    }
}

fn key(request: &Request) -> AgentKey {
    (request.id.namespace.clone(), request.spec.agent.name.clone())
}

/// Whether one `resourceVersion` is older than another. They are whole numbers that grow; where they are not, nothing is older.
pub(crate) fn is_older(version: &str, than: &str) -> bool {
    matches!((version.parse::<u128>(), than.parse::<u128>()), (Ok(a), Ok(b)) if a < b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(uid: &str, name: &str, version: &str, phase: Option<&str>) -> Arc<Request> {
        let object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "JitRequest",
            "metadata": {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": version, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"agent": {"name": "bot"}, "operation": {"capability": "a.b", "audience": "https://a"}},
            "status": {"phase": phase},
        });
        Arc::new(Request::parse(serde_json::from_value(object).expect("an object")).expect("a request"))
    }

    #[test]
    fn what_this_process_wrote_is_not_undone_by_its_watch() {
        let mut index = RequestIndex::default();
        assert!(index.insert(request("u", "a", "10", Some("Issued"))));
        assert!(!index.insert(request("u", "a", "9", Some("Approved"))), "an older version is dropped");
        assert!(index.insert(request("u", "a", "11", Some("Completed"))));
        assert_eq!(index.get("u").expect("there").status.phase, Some(Phase::Completed));
    }

    #[test]
    fn a_namesake_is_another_request() {
        let mut index = RequestIndex::default();
        index.insert(request("u1", "a", "10", Some("Approved")));
        index.insert(request("u2", "a", "12", None));
        assert!(index.get("u1").is_none());
        assert_eq!(index.named(&RequestId { namespace: "ns".to_owned(), name: "a".to_owned() }).expect("there").uid, "u2");
        assert!(index.forget("u1").is_none());
        index.delete("u2");
        assert!(!index.insert(request("u2", "a", "13", Some("Issued"))), "what was deleted does not come back");
        index.insert(request("u3", "a", "14", None));
        assert_eq!(index.open_of_agent("ns", "bot", |_| true), 1);
    }

    #[test]
    fn only_open_requests_count_and_a_list_removes_what_it_does_not_name() {
        let mut index = RequestIndex::default();
        for (uid, phase) in
            [("a", None), ("b", Some("Pending")), ("c", Some("Approved")), ("d", Some("Issued")), ("e", Some("Denied"))]
        {
            index.insert(request(uid, uid, "1", phase));
        }
        assert_eq!(index.open_of_agent("ns", "bot", |r| r.uid == "a"), 3);
        assert_eq!(index.open_of_agent("ns", "bot", |_| false), 2);
        assert_eq!(index.open_of_agent("other", "bot", |_| true), 0);
        index.begin();
        index.insert(request("b", "b", "2", Some("Pending")));
        assert_eq!(index.complete().len(), 4);
        assert_eq!(index.of_agent("ns", "bot").count(), 1);
    }
}
