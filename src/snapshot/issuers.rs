//! The trusted issuers, by name and by URL.

use crate::crd::Provides;
use crate::issuer::RegisteredIssuer;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The issuers.
#[derive(Debug, Default)]
pub struct IssuerIndex {
    by_name: HashMap<String, Arc<RegisteredIssuer>>,
    /// The names in a fresh list while it is being read.
    listed: Option<HashSet<String>>,
}

impl IssuerIndex {
    /// The issuer of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<RegisteredIssuer>> {
        self.by_name.get(name).cloned()
    }

    /// The issuer of that name, to be looked at.
    #[must_use]
    pub fn look_up(&self, name: &str) -> Option<&Arc<RegisteredIssuer>> {
        self.by_name.get(name)
    }

    /// All issuers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RegisteredIssuer>> {
        self.by_name.values()
    }

    /// The issuer with exactly this URL: of several the oldest, be it suspended, so that nobody's word is replaced by a second object.
    #[must_use]
    pub fn with_url(&self, url: &str, provides: Provides) -> Option<Arc<RegisteredIssuer>> {
        let same = self.by_name.values().filter(|issuer| issuer.url == url && issuer.provides == provides);
        same.min_by(|a, b| a.seniority().cmp(&b.seniority())).cloned()
    }

    /// What the API server puts before the names of users and groups of these issuers, whether or not their tokens count now.
    #[must_use]
    pub fn kubernetes_prefixes(&self) -> Vec<String> {
        let rules = self.by_name.values().filter_map(|issuer| issuer.rules.as_ref().ok());
        rules.flat_map(crate::issuer::Rules::kubernetes_prefixes).map(str::to_owned).collect()
    }

    /// Takes in or replaces an issuer.
    pub fn insert(&mut self, issuer: RegisteredIssuer) {
        if let Some(listed) = &mut self.listed {
            listed.insert(issuer.name.clone());
        }
        self.by_name.insert(issuer.name.clone(), Arc::new(issuer));
    }

    /// Removes an issuer.
    pub fn forget(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// A new list begins.
    pub fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The new list is complete: what it does not name is gone. Returns the names of the removed.
    pub fn complete(&mut self) -> Vec<String> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<String> = self.by_name.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn issuer(name: &str, url: &str, created: &str, provides: &str) -> RegisteredIssuer {
        let mappings = (provides == "Users").then(|| json!({"username": {"claim": "sub"}}));
        let object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustedIssuer",
            "metadata": {"name": name, "uid": name, "creationTimestamp": created},
            "spec": {"provides": provides, "issuer": {"url": url, "audiences": ["us"]}, "claimMappings": mappings}});
        RegisteredIssuer::parse(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn f9_f10_an_issuer_is_found_by_its_exact_url_and_by_what_it_provides() {
        let mut index = IssuerIndex::default();
        index.insert(issuer("young", "https://a.example", "2026-02-01T00:00:00Z", "Workloads"));
        index.insert(issuer("old", "https://a.example", "2026-01-01T00:00:00Z", "Workloads"));
        index.insert(issuer("people", "https://a.example", "2025-01-01T00:00:00Z", "Users"));
        let find = |url, provides| index.with_url(url, provides).map(|issuer| issuer.name.clone());
        assert_eq!(find("https://a.example", Provides::Workloads).as_deref(), Some("old"));
        assert_eq!(find("https://a.example", Provides::Users).as_deref(), Some("people"));
        for other in ["https://a.example/", "HTTPS://a.example", "https://A.example", "https://a.example.evil", ""] {
            assert_eq!(find(other, Provides::Workloads), None, "{other}");
        }
    }

    #[test]
    fn f15_an_issuer_missing_from_a_complete_list_is_gone() {
        let mut index = IssuerIndex::default();
        index.insert(issuer("a", "https://a.example", "2026-01-01T00:00:00Z", "Workloads"));
        index.begin();
        assert_eq!(index.complete(), ["a"]);
        assert!(index.get("a").is_none() && index.with_url("https://a.example", Provides::Workloads).is_none());
    }
}
