//! What the catalogue says about the capabilities of requests, as far as whoever asks may read it.

use super::request::{Asked, Entry};
use super::stored::{Stored, all};
use crate::crd::{Capability, JitRequest};
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::ApiResource;
use std::collections::HashMap;

/// The entries that are known so far.
#[derive(Debug)]
pub struct Catalogue {
    api: Api<Stored>,
    entries: HashMap<String, Entry>,
}

impl Catalogue {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(client: &kube::Client) -> Self {
        let api = Api::all_with(client.clone(), &ApiResource::erase::<Capability>(&()));
        Self { api, entries: HashMap::new() }
    }

    /// Reads all of it at once, for a list. What whoever asks may not read is found out one by one.
    pub async fn read(&mut self) {
        for object in all(&self.api).await.unwrap_or_default() {
            self.entries.insert(object.name_any(), entry(&object));
        }
    }

    /// A request with what is said about its capability. `None` if this version cannot read the object.
    pub async fn about(&mut self, object: &Stored) -> Option<Asked> {
        let object: JitRequest = object.typed()?;
        let name = &object.spec.operation.capability;
        let entry = match self.entries.get(name) {
            Some(entry) => entry.clone(),
            None => {
                let entry = match self.api.get_opt(name).await {
                    Ok(Some(object)) => entry(&object),
                    Ok(None) => Entry::Missing,
                    // What cannot be read must not pass for what is not there.
                    Err(_) => Entry::Hidden,
                };
                self.entries.insert(name.clone(), entry.clone());
                entry
            }
        };
        Some(Asked { object, entry })
    }
}

fn entry(object: &Stored) -> Entry {
    object.typed::<Capability>().map_or(Entry::Hidden, |capability| Entry::Found(Box::new(capability.spec)))
}
