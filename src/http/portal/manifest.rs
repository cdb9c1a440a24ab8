//! An Agent as a manifest: the YAML that people see before it is written, and that kubectl would take.

use super::super::error::Refusal;
use super::super::form::Form;
use super::super::registration::Wanted;
use crate::crd::{CHANGED_BY, GROUP};
use crate::grammar::AgentId;
use crate::json;
use crate::yaml;
use serde_json::{Map, Value, json};

/// What somebody wants to write.
pub(super) struct Manifest {
    pub(super) wanted: Wanted,
    /// The version that it takes the place of; none for a new Agent.
    pub(super) version: Option<String>,
}

/// The manifest of an object: what its author may write, and the version.
pub(super) fn of_object(object: &Value) -> String {
    let at = |pointer: &str| object.pointer(pointer).cloned();
    let mut metadata = json!({"namespace": at("/metadata/namespace"), "name": at("/metadata/name")});
    if let Some(labels) = at("/metadata/labels") {
        json::put(&mut metadata, "labels", labels);
    }
    if let Some(Value::Object(mut annotations)) = at("/metadata/annotations") {
        // Whoever writes is written there anew.
        annotations.remove(CHANGED_BY);
        if !annotations.is_empty() {
            json::put(&mut metadata, "annotations", Value::Object(annotations));
        }
    }
    if let Some(version) = at("/metadata/resourceVersion") {
        json::put(&mut metadata, "resourceVersion", version);
    }
    text(&metadata, &at("/spec").unwrap_or_default())
}

fn text(metadata: &Value, spec: &Value) -> String {
    let document = json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Agent", "metadata": metadata, "spec": spec});
    let text = yaml::documents(&[document]);
    text.strip_prefix("---\n").map(str::to_owned).unwrap_or(text)
}

/// The manifest that the form for a new Agent describes.
///
/// # Errors
/// What is missing.
pub(super) fn of_form(form: &Form) -> Result<String, Refusal> {
    let field = |name: &str| form.raw(name).map(str::trim).filter(|value| !value.is_empty());
    let need = |name: &str, what: &str| field(name).ok_or_else(|| Refusal::malformed(format!("{what} is missing")));
    let words = |name: &str| field(name).unwrap_or_default().split([',', ' ', '\n', '\r', '\t']).filter(|word| !word.is_empty());
    let mut spec = json!({"owner": need("owner", "the owner")?});
    if let Some(name) = field("displayName") {
        json::put(&mut spec, "displayName", json!(name));
    }
    let accounts: Vec<Value> = words("serviceAccounts").map(|name| json!({"name": name})).collect();
    let mut identity = json!({});
    if !accounts.is_empty() {
        json::put(&mut identity, "serviceAccounts", json!(accounts));
    }
    if let Some(key) = field("publicKey") {
        json::put(&mut identity, "keys", json!([{"publicKey": key.replace("\r\n", "\n")}]));
    }
    json::put(&mut spec, "identity", identity);
    let mut capabilities = Vec::new();
    for line in field("capabilities").unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut parts = line.split_whitespace();
        let mut entry = json!({"name": parts.next()});
        let resources: Vec<&str> = parts.collect();
        if !resources.is_empty() {
            json::put(&mut entry, "resources", json!(resources));
        }
        capabilities.push(entry);
    }
    json::put(&mut spec, "capabilities", json!(capabilities));
    let audiences: Vec<Value> = words("audiences").map(|name| json!({"name": name})).collect();
    if !audiences.is_empty() {
        json::put(&mut spec, "tokens", json!({"audiences": audiences}));
    }
    let metadata = json!({"namespace": need("namespace", "the namespace")?, "name": need("name", "the name")?});
    Ok(text(&metadata, &spec))
}

/// Reads a manifest.
///
/// # Errors
/// What is wrong with it. Whatever could be read in two ways, or would be dropped, is refused.
pub(super) fn read(text: &str) -> Result<Manifest, Refusal> {
    let wrong = |why: &str| Refusal::malformed(format!("this is no manifest of an Agent: {why}"));
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, serde_saphyr::options! { strict_booleans: true })
        .map_err(|error| wrong(&error.to_string()))?;
    let [document] = documents.as_slice() else { return Err(wrong("there must be one document")) };
    // As strictly as any other JSON that comes in.
    let mut members = json::parse_object(document.to_string().as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    let mut take = |name: &str| members.remove(name);
    if take("apiVersion") != Some(json!(format!("{GROUP}/v1alpha1"))) || take("kind") != Some(json!("Agent")) {
        return Err(wrong("apiVersion must be countersign.dev/v1alpha1, and kind Agent"));
    }
    let (Some(Value::Object(mut metadata)), Some(Value::Object(spec))) = (take("metadata"), take("spec")) else {
        return Err(wrong("metadata and spec must be there"));
    };
    let text = |metadata: &mut Map<String, Value>, name: &str| match metadata.remove(name) {
        Some(Value::String(text)) => Ok(Some(text)),
        None => Ok(None),
        Some(_) => Err(wrong(&format!("metadata.{name} must be a text"))),
    };
    let texts = |metadata: &mut Map<String, Value>, name: &str| match metadata.remove(name) {
        Some(Value::Object(texts)) if texts.values().all(Value::is_string) => Ok(Some(texts)),
        None => Ok(None),
        Some(_) => Err(wrong(&format!("metadata.{name} must have texts as values"))),
    };
    let namespace = text(&mut metadata, "namespace")?.unwrap_or_default();
    let name = text(&mut metadata, "name")?.unwrap_or_default();
    let version = text(&mut metadata, "resourceVersion")?;
    let (labels, annotations) = (texts(&mut metadata, "labels")?, texts(&mut metadata, "annotations")?);
    if let Some(name) = metadata.keys().chain(members.keys()).next() {
        return Err(wrong(&format!("{name} is not yours to write here")));
    }
    let id = AgentId::new(&namespace, &name).map_err(|error| wrong(&format!("metadata.namespace or metadata.name: {error}")))?;
    // What is not there any more was taken out: a manifest is the whole of it.
    let whole = |texts: Option<Map<String, Value>>| Some(texts.unwrap_or_default());
    let wanted = Wanted { id, labels: whole(labels), annotations: whole(annotations), spec, uid: None };
    Ok(Manifest { wanted, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_as_it_was_shown() {
        let object = json!({"metadata": {"namespace": "a", "name": "b", "resourceVersion": "7", "uid": "u", "labels": {"x": "no"},
            "annotations": {CHANGED_BY: "alice", "note": "1e3"}}, "spec": {"owner": "- x: 'y'\n", "capabilities": []}, "status": {}});
        let manifest = read(&of_object(&object)).expect("a manifest");
        assert_eq!((manifest.wanted.id.to_string().as_str(), manifest.version.as_deref()), ("agent:a/b", Some("7")));
        assert_eq!(json!(manifest.wanted.spec), object["spec"]);
        assert_eq!(json!(manifest.wanted.labels), json!({"x": "no"}));
        assert_eq!(json!(manifest.wanted.annotations), json!({"note": "1e3"}));
    }

    #[test]
    fn what_is_no_manifest_of_one_agent_is_refused() {
        let good = "apiVersion: countersign.dev/v1alpha1\nkind: Agent\nmetadata: {namespace: a, name: b}\nspec: {}\n";
        assert!(read(good).is_ok());
        for bad in [
            String::new(),
            "[]".to_owned(),
            "a: &a [*a]".to_owned(),
            format!("{good}---\n{good}"),
            format!("{good}status: {{}}\n"),
            good.replace("Agent", "Secret"),
            good.replace("namespace: a", "namespace: ../a"),
            good.replace("name: b}", "name: b, name: c}"),
            good.replace("name: b}", "name: b, finalizers: [x]}"),
            good.replace("spec: {}", "spec: []"),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
