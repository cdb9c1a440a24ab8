//! Objects as they come from a watch over the whole cluster, read so that no one of them can stop it.
//!
//! Whoever may create an object anywhere decides what is in its `metadata.managedFields`, and where a schema names no members also
//! what is in its spec. JSON that nests deeper than the reader follows would fail the whole list or watch, not the one object. So what is
//! not needed is skipped without being read, and what is needed is read one object at a time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// The metadata that anything here looks at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lean {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    creation_timestamp: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

impl From<Lean> for ObjectMeta {
    fn from(lean: Lean) -> Self {
        Self {
            name: lean.name,
            namespace: lean.namespace,
            uid: lean.uid,
            resource_version: lean.resource_version,
            generation: lean.generation,
            creation_timestamp: lean.creation_timestamp,
            deletion_timestamp: lean.deletion_timestamp,
            annotations: lean.annotations,
            ..Self::default()
        }
    }
}

/// The metadata of an object of kind `K`, and nothing else of it.
pub struct Meta<K> {
    metadata: ObjectMeta,
    kind: PhantomData<fn() -> K>,
}

/// An object of kind `K`, or why it cannot be read. Its metadata can be read in any case.
pub struct Guarded<K> {
    metadata: ObjectMeta,
    /// The object.
    pub object: Result<K, String>,
}

impl<'de, K> Deserialize<'de> for Meta<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Lean,
        }
        let Wire { metadata } = Wire::deserialize(deserializer)?;
        Ok(Self { metadata: metadata.into(), kind: PhantomData })
    }
}

impl<'de, K: Resource<DynamicType = ()> + DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Lean,
            #[serde(default)]
            spec: Option<Box<RawValue>>,
            #[serde(default)]
            status: Option<Box<RawValue>>,
        }
        /// The object again, without what was skipped.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Trimmed<'a> {
            api_version: &'a str,
            kind: &'a str,
            metadata: &'a Lean,
            #[serde(skip_serializing_if = "Option::is_none")]
            spec: Option<Box<RawValue>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<Box<RawValue>>,
        }
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let (api_version, kind) = (K::api_version(&()), K::kind(&()));
        let trimmed = Trimmed { api_version: &api_version, kind: &kind, metadata: &metadata, spec, status };
        let text = serde_json::to_string(&trimmed);
        let object = text.and_then(|text| serde_json::from_str(&text)).map_err(|error| error.to_string());
        Ok(Self { metadata: metadata.into(), object })
    }
}

// What kube needs to watch them, the same for both but for whether metadata is all that is asked for.
macro_rules! resource {
    ($of:ident, $metadata_only:literal) => {
        impl<K: Resource<DynamicType = ()>> Resource for $of<K> {
            type DynamicType = ();
            type Scope = K::Scope;

            fn metadata_api() -> bool {
                $metadata_only
            }

            fn kind((): &()) -> Cow<'_, str> {
                K::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                K::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                K::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                K::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl<K> std::fmt::Debug for $of<K> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($of)).field("metadata", &self.metadata).finish_non_exhaustive()
            }
        }
    };
}
resource!(Meta, true);
resource!(Guarded, false);

impl<K> Clone for Meta<K> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), kind: PhantomData }
    }
}

impl<K: Clone> Clone for Guarded<K> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), object: self.object.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::JitRequest;
    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt as _;
    use kube::api::WatchEvent;
    use kube::core::ObjectList;

    /// Deeper than any reader of JSON here follows.
    fn nested() -> String {
        format!("{}1{}", r#"{"a":"#.repeat(2000), "}".repeat(2000))
    }

    fn request(parameters: &str) -> String {
        format!(
            r#"{{"apiVersion":"countersign.dev/v1alpha1","kind":"JitRequest","metadata":{{"name":"a","namespace":"ns","uid":"u","resourceVersion":"1",
            "managedFields":[{{"manager":"m","fieldsV1":{0}}}]}},"spec":{{"agent":{{"name":"bot"}},"operation":{{"capability":"a.b","audience":"x",
            "parameters":{parameters}}}}},"status":{{"phase":"Pending"}}}}"#,
            nested()
        )
    }

    #[test]
    fn a21_what_nests_too_deep_fails_alone() {
        let list = format!(
            r#"{{"apiVersion":"v1","kind":"List","metadata":{{"resourceVersion":"7"}},"items":[{},{}]}}"#,
            request("{}"),
            request(&nested())
        );
        let list: ObjectList<Guarded<JitRequest>> = serde_json::from_str(&list).expect("the list is read");
        let good = list.items[0].object.as_ref().expect("managedFields are nobody's business");
        assert_eq!(
            (good.name_any().as_str(), good.uid().as_deref(), good.resource_version().as_deref()),
            ("a", Some("u"), Some("1"))
        );
        assert_eq!(good.status.as_ref().and_then(|s| s.phase), Some(crate::crd::Phase::Pending));
        assert!(list.items[1].object.is_err() && list.items[1].name_any() == "a", "the name of what cannot be read is known");
        let event = format!(r#"{{"type":"ADDED","object":{}}}"#, request(&nested()));
        let event: WatchEvent<Guarded<JitRequest>> = serde_json::from_str(&event).expect("the event is read");
        assert!(matches!(event, WatchEvent::Added(guarded) if guarded.object.is_err()));
    }

    #[test]
    fn a21_of_a_pod_nothing_but_its_metadata_is_read() {
        let pod = format!(
            r#"{{"metadata":{{"uid":"u","managedFields":[{{"fieldsV1":{0}}}],"labels":{{"a":"b"}}}},"spec":{0}}}"#,
            nested()
        );
        let meta: Meta<Pod> = serde_json::from_str(&pod).expect("it is read");
        assert_eq!(meta.uid().as_deref(), Some("u"));
        assert!(<Meta<Pod> as Resource>::metadata_api() && !<Guarded<JitRequest> as Resource>::metadata_api());
    }
}
