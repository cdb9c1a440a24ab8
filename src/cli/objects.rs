//! The objects about which `can` and `reach` answer: those of the cluster, or those in files, for whoever reviews a change before it is made.

use crate::agent::{Admission, RegisteredAgent};
use crate::capability::{Catalogue, Rule, Unusable, entry_of};
use crate::crd::{Agent, Capability, GROUP, TrustedIssuer};
use crate::decision::View;
use crate::grammar::CapabilityName;
use crate::issuer::RegisteredIssuer;
use crate::snapshot::{AgentIndex, IssuerIndex, LiveSet};
use clap::Args;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How deep folders are searched.
const FOLDERS_DEEP: usize = 16;
/// How many objects the API server is asked for at once.
const PAGE: u32 = 500;

/// Where the objects come from.
#[derive(Debug, Args)]
pub struct Source {
    /// Take the Agents, Capabilities and TrustedIssuers in these YAML or JSON files, and in the folders below, instead of the cluster's.
    /// Each counts as if it had been applied and admitted. May be given several times.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Take those of the cluster that the kubeconfig names: the default without -f.
    #[arg(long, conflicts_with = "files")]
    pub cluster: bool,
}

/// Why there is nothing to answer about.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder cannot be read.
    #[error("{0}: cannot be read: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// A file is no YAML.
    #[error("{0}: {1}")]
    Syntax(PathBuf, String),
    /// An object is not one that the API server would take.
    #[error("{path}: {object}: {problem}")]
    Object {
        /// The file.
        path: PathBuf,
        /// Kind and name.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// The cluster cannot be asked.
    #[error("the cluster cannot be asked: {0}")]
    Cluster(String),
}

/// The objects.
#[derive(Debug, Default)]
pub struct Objects {
    agents: AgentIndex,
    issuers: IssuerIndex,
    catalogue: Catalogue,
    /// Nobody's: what is asked of files has no pod.
    pods: LiveSet<Uuid>,
}

impl Objects {
    /// Reads them from where `source` says.
    ///
    /// # Errors
    /// A [`SourceError`]: half of them would answer another question.
    pub async fn load(source: &Source) -> Result<Self, SourceError> {
        if source.files.is_empty() {
            let client = kube::Client::try_default().await.map_err(|error| SourceError::Cluster(crate::error_chain(&error)))?;
            return Self::of_cluster(&client).await;
        }
        Self::of_files(&source.files)
    }

    /// Reads those in these files, and in the folders below.
    ///
    /// # Errors
    /// A [`SourceError`], as for [`Self::load`].
    pub fn of_files(files: &[PathBuf]) -> Result<Self, SourceError> {
        let mut objects = Self::default();
        for path in files {
            objects.read(path, FOLDERS_DEEP, true)?;
        }
        Ok(objects)
    }

    /// What decisions see.
    #[must_use]
    pub const fn view(&self) -> View<'_> {
        View { agents: &self.agents, issuers: &self.issuers, catalogue: &self.catalogue, pods: &self.pods }
    }

    /// Reads those of a cluster.
    ///
    /// # Errors
    /// A [`SourceError`], as for [`Self::load`].
    pub async fn of_cluster(client: &kube::Client) -> Result<Self, SourceError> {
        let mut objects = Self::default();
        for agent in all(Api::<Agent>::all(client.clone())).await? {
            if let Ok(agent) = RegisteredAgent::parse(&agent) {
                objects.agents.insert(agent);
            }
        }
        for capability in all(Api::<Capability>::all(client.clone())).await? {
            if let Some((name, entry)) = entry_of(&capability) {
                objects.catalogue.insert(name, entry);
            }
        }
        for issuer in all(Api::<TrustedIssuer>::all(client.clone())).await? {
            objects.issuers.insert(RegisteredIssuer::parse(&issuer));
        }
        Ok(objects)
    }

    fn read(&mut self, path: &Path, deep: usize, named: bool) -> Result<(), SourceError> {
        let unreadable = |error| SourceError::Read(path.to_owned(), error);
        if path.is_dir() {
            if deep == 0 {
                return Err(unreadable(io::Error::other(format!("folders are more than {FOLDERS_DEEP} deep"))));
            }
            let mut inside: Vec<PathBuf> = std::fs::read_dir(path)
                .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
                .map_err(unreadable)?;
            inside.sort();
            return inside.iter().try_for_each(|path| self.read(path, deep - 1, false));
        }
        let is_ours = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json");
        if !named && !is_ours {
            return Ok(());
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple_with_options(&text, serde_saphyr::options! { strict_booleans: true })
                .map_err(|error| SourceError::Syntax(path.to_owned(), error.to_string()))?;
        documents.iter().try_for_each(|document| self.take(path, document))
    }

    /// Takes in one document, if it is about us.
    fn take(&mut self, path: &Path, document: &Value) -> Result<(), SourceError> {
        let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("kind").ends_with("List") {
            let items = document.get("items").and_then(Value::as_array);
            return items.into_iter().flatten().try_for_each(|item| self.take(path, item));
        }
        if text("apiVersion").split('/').next() != Some(GROUP) {
            return Ok(());
        }
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let object = format!("{} {name}", text("kind"));
        let wrong = |problem: String| SourceError::Object { path: path.to_owned(), object: object.clone(), problem };
        match text("kind") {
            "Agent" => self.agent(typed(document).map_err(wrong)?).map_err(wrong),
            "Capability" => {
                let capability: Capability = typed(document).map_err(wrong)?;
                let name = CapabilityName::parse(&capability.name_any()).map_err(|error| wrong(error.to_string()))?;
                let rule = Rule::parse(&capability.spec).map_err(|error| wrong(error.to_string()))?;
                if self.catalogue.get(&name).is_some() {
                    return Err(wrong("there are two of that name".to_owned()));
                }
                self.catalogue.insert(name, Ok::<Rule, Unusable>(rule));
                Ok(())
            }
            "TrustedIssuer" => {
                let mut issuer = RegisteredIssuer::parse(&typed(document).map_err(wrong)?);
                if let Err(invalid) = &issuer.rules {
                    return Err(wrong(invalid.to_string()));
                }
                issuer.admission = Admission::Proven;
                self.issuers.insert(issuer);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn agent(&mut self, mut agent: Agent) -> Result<(), String> {
        agent.metadata.namespace.get_or_insert_with(|| "default".to_owned());
        let mut agent = RegisteredAgent::parse(&agent).map_err(|error| error.to_string())?;
        let rights = agent.rights.as_ref().map_err(ToString::to_string)?;
        for held in &rights.capabilities {
            if let Some(problem) = held.when.as_ref().and_then(|when| when.problem()) {
                return Err(format!("spec.capabilities[{}].when {problem}", held.name));
            }
        }
        if self.agents.look_up(&agent.id).is_some() {
            return Err("there are two of that name".to_owned());
        }
        // As after they were applied.
        agent.admission = Admission::Proven;
        agent.uid = agent.id.to_string();
        self.agents.insert(agent);
        Ok(())
    }
}

/// Reads a document as an object. What the schema does not know is an error: a misspelt restriction would be none.
fn typed<T: DeserializeOwned>(document: &Value) -> Result<T, String> {
    let mut unknown = Vec::new();
    let object = serde_ignored::deserialize(document, |path| unknown.push(path.to_string()))
        .map_err(|error: serde_json::Error| error.to_string())?;
    // What belongs to every object, and what the API server adds to it, is not ours to judge.
    let of_ours = |path: &String| path.starts_with("spec") || (!path.contains('.') && path != "apiVersion" && path != "kind");
    match unknown.into_iter().find(of_ours) {
        Some(path) => Err(format!("unknown field {path}")),
        None => Ok(object),
    }
}

/// Every object of a kind.
async fn all<K>(api: Api<K>) -> Result<Vec<K>, SourceError>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await.map_err(|error| SourceError::Cluster(crate::error_chain(&error)))?;
        objects.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}
