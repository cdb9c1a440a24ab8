//! Which cluster, as whom, and in which namespace: the flags that every command has, as kubectl has them.

use super::failure::Failure;
use super::stored::Stored;
use crate::readable::Readable;
use clap::Args;
use kube::Config;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use std::path::PathBuf;

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// The namespace. By default that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long, global = true)]
    pub all_namespaces: bool,
    /// The context of the kubeconfig. By default the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig. By default as for kubectl: $KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Act as this user, which takes the right to impersonate.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Act as somebody in this group. May be given several times.
    #[arg(long, global = true, value_name = "GROUP", requires = "as_user")]
    pub as_group: Vec<String>,
}

/// A cluster, and who speaks to it.
pub struct Session {
    /// How it is reached.
    pub config: Config,
    /// The API server.
    pub client: kube::Client,
    /// The flags.
    pub args: ClusterArgs,
    namespace: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("args", &self.args).finish_non_exhaustive()
    }
}

impl Session {
    /// Reads the kubeconfig. Nothing is sent yet.
    ///
    /// # Errors
    /// If there is no cluster to speak to, or the flags contradict each other.
    pub async fn open(args: &ClusterArgs) -> Result<Self, Failure> {
        if args.all_namespaces && args.namespace.is_some() {
            return Err(Failure::Failed("give --namespace or --all-namespaces, not both".to_owned()));
        }
        let mut config = configuration(args).await?;
        if args.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&args.as_user);
            config.auth_info.impersonate_groups = (!args.as_group.is_empty()).then(|| args.as_group.clone());
        }
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = kube::Client::try_from(config.clone()).map_err(|error| Failure::failed(crate::error_chain(&error)))?;
        Ok(Self { config, client, args: args.clone(), namespace })
    }

    /// The one namespace in which objects are named.
    ///
    /// # Errors
    /// If all were asked for.
    pub fn namespace(&self) -> Result<&str, Failure> {
        match self.args.all_namespaces {
            false => Ok(&self.namespace),
            true => Err(Failure::Failed("an object is named in one namespace: give -n, not -A".to_owned())),
        }
    }

    /// The objects of a kind that are listed: those of the namespace, or all.
    #[must_use]
    pub fn listed<K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>>(&self) -> Api<Stored> {
        let resource = ApiResource::erase::<K>(&());
        match self.args.all_namespaces {
            true => Api::all_with(self.client.clone(), &resource),
            false => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        }
    }

    /// An agent on the command line: `namespace/name`, its subject, or its name in the namespace.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn agent(&self, text: &str) -> Result<crate::grammar::AgentId, Failure> {
        let full = if text.contains('/') { text.to_owned() } else { format!("{}/{text}", self.namespace()?) };
        crate::cli::agent_id(&full).map_err(|problem| Failure::Failed(format!("{}: {problem}", Readable(text))))
    }
}

async fn configuration(args: &ClusterArgs) -> Result<Config, Failure> {
    let unusable = |error: &(dyn std::error::Error + 'static)| Failure::failed(crate::error_chain(error));
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    if let Some(file) = &args.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
        return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error));
    }
    match Config::from_kubeconfig(&options).await {
        Ok(config) => Ok(config),
        // Within a pod there is none.
        Err(error) if args.context.is_none() => Config::incluster().map_err(|_| unusable(&error)),
        Err(error) => Err(unusable(&error)),
    }
}
