//! Objects as the API server has them: printed as they are, and read one at a time, so that none that somebody has made unreadable hides
//! the others.

use crate::snapshot::wire::Guarded;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// How many objects the API server is asked for at once.
const PAGE: u32 = 500;

/// An object.
#[derive(Debug, Clone)]
pub struct Stored {
    metadata: ObjectMeta,
    text: Box<RawValue>,
}

impl Stored {
    /// The object as this version knows it. Objects may be older or newer than it, or not what they should be.
    pub fn typed<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Option<K> {
        serde_json::from_str::<Guarded<K>>(self.text.get()).ok()?.object.ok()
    }

    /// The object as it is, without what says who manages which field, as kubectl prints it. What nests too deep for that is a text.
    #[must_use]
    pub fn value(&self) -> Value {
        let mut value: Value = serde_json::from_str(self.text.get()).unwrap_or_else(|_| self.text.get().into());
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        value
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let mut named: Named = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { metadata: std::mem::take(named.0.meta_mut()), text })
    }
}

impl Serialize for Stored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

/// The part of an object that can be read whatever is in the rest.
#[derive(Deserialize)]
struct Named(crate::snapshot::wire::Meta<k8s_openapi::api::core::v1::ConfigMap>);

impl Resource for Stored {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// All objects, however many there are.
pub(super) async fn all(api: &Api<Stored>) -> kube::Result<Vec<Stored>> {
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        objects.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::JitRequest;
    use kube::ResourceExt;
    use kube::core::ObjectList;

    #[test]
    fn a21_an_object_that_nests_too_deep_hides_no_other() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(2000), "}".repeat(2000));
        let request = |name: &str, managed: &str, parameters: &str| {
            format!(
                r#"{{"apiVersion":"countersign.dev/v1alpha1","kind":"JitRequest","metadata":{{"name":"{name}","namespace":"n","uid":"u",
                "managedFields":[{{"fieldsV1":{managed}}}]}},"spec":{{"agent":{{"name":"bot"}},"later":1,"operation":{{"capability":"a.b","audience":"x",
                "parameters":{parameters}}}}}}}"#
            )
        };
        let items = [request("good", "{}", "{}"), request("managed", &deep, "{}"), request("deep", "{}", &deep)];
        let list = format!(r#"{{"apiVersion":"v1","kind":"List","metadata":{{}},"items":[{}]}}"#, items.join(","));
        let list: ObjectList<Stored> = serde_json::from_str(&list).expect("the list is read");
        let names: Vec<String> = list.items.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["good", "managed", "deep"]);
        let readable: Vec<bool> = list.items.iter().map(|object| object.typed::<JitRequest>().is_some()).collect();
        assert_eq!(readable, [true, true, false]);
        let good = list.items[0].value();
        assert_eq!((&good["spec"]["later"], good["metadata"].get("managedFields")), (&1.into(), None), "printed as it is");
        assert!(list.items[2].value().is_string());
    }
}
