//! A Kubernetes cluster for the tests: a real API server, and nothing that runs pods.

use std::path::{Path, PathBuf};

use super::control_plane::ControlPlane;
use super::directory::Directory;
use super::error::{Context, Error, Result};
use super::kubeconfig::Kubeconfig;
use super::kubectl::Kubectl;
use super::process::Guarded;
use super::users::{self, GROUP, Users};

/// Names the administrator's kubeconfig of an existing cluster to use. A variable of its own, so that the tests never
/// run against whatever cluster `KUBECONFIG` happens to point to.
const EXISTING: &str = "COUNTERSIGN_TEST_KUBECONFIG";

/// How to start a cluster. Without effect on an existing one.
#[derive(Debug)]
pub struct ClusterOptions {
    /// Where to put everything, and leave it; `None` for a temporary directory.
    pub directory: Option<PathBuf>,
    /// Whether etcd waits for the disk. Only tests that kill it need that.
    pub durable_etcd: bool,
    /// Whether to run kube-controller-manager: garbage collection, namespace deletion, default ServiceAccounts.
    pub controller_manager: bool,
    /// Added to the API server's flags, in place of those of the same name. `{port}` in them is the port that it serves on.
    pub api_server_flags: Vec<String>,
}

impl Default for ClusterOptions {
    /// In a temporary directory, fast, and with controllers.
    fn default() -> Self {
        Self { directory: None, durable_etcd: false, controller_manager: true, api_server_flags: Vec::new() }
    }
}

impl ClusterOptions {
    fn make_directory(&self) -> Result<Directory> {
        match &self.directory {
            Some(path) => Directory::kept(path),
            None => Directory::temporary(),
        }
    }
}

/// A cluster that ends with this value, or with the test process, however that ends.
///
/// In this order of preference it is the one `COUNTERSIGN_TEST_KUBECONFIG` names, one started from the binaries in
/// `KUBEBUILDER_ASSETS`, or one started from the binary that `tests/cluster/build.sh` builds.
#[derive(Debug)]
pub struct Cluster {
    // Before `directory`: fields are dropped in order, and a process must be gone before its files are.
    /// `None` for an existing cluster.
    control_plane: Option<ControlPlane>,
    /// `None` for an existing cluster, whose users are impersonated.
    users: Option<Users>,
    /// How to reach it.
    config: Kubeconfig,
    /// The administrator's kubeconfig file.
    admin: PathBuf,
    /// Logs, kubeconfigs, and whatever a test wants to put there.
    directory: Directory,
}

impl Cluster {
    /// Starts a cluster, or takes the existing one that the environment names.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let Some(file) = std::env::var_os(EXISTING) else { return Self::start_another(options) };
        let directory = options.make_directory()?;
        let config = Kubeconfig::read(Path::new(&file), directory.path()).context(EXISTING)?;
        let admin = config.write_admin(directory.path(), "admin")?;
        Ok(Self { control_plane: None, users: None, config, admin, directory })
    }

    /// Starts a cluster, even where the tests run on an existing one: another than that.
    pub fn start_another(options: &ClusterOptions) -> Result<Self> {
        let directory = options.make_directory()?;
        let users = Users::new()?;
        let (control_plane, config) = ControlPlane::start(&directory, &users, options)?;
        let admin = config.write_admin(directory.path(), "admin")?;
        Ok(Self { control_plane: Some(control_plane), users: Some(users), config, admin, directory })
    }

    /// The address of the API server: `https://host:port`.
    pub fn server(&self) -> &str {
        self.config.server()
    }

    /// The authority of the API server's certificate.
    pub fn ca_pem(&self) -> Result<String> {
        self.config.ca_pem()
    }

    /// Absolute; private to this user.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// The kubeconfig file of one of [`users::USERS`]: with a token of their own, or impersonated on an existing
    /// cluster.
    pub fn kubeconfig_for(&self, user: &str) -> Result<PathBuf> {
        users::check_known(user)?;
        match &self.users {
            Some(users) => self.config.write_token(self.directory.path(), user, users.token(user)?),
            None => self.config.write_impersonating(self.directory.path(), user, user, &[GROUP]),
        }
    }

    /// The token of one of [`users::USERS`], for a test that is about tokens. An existing cluster has none.
    pub fn token(&self, user: &str) -> Result<String> {
        let unknown = || Error::new("the users of an existing cluster have no tokens that tests know");
        self.users.as_ref().ok_or_else(unknown)?.token(user).map(str::to_owned)
    }

    /// The administrator's token, likewise.
    pub fn admin_token(&self) -> Result<String> {
        let unknown = || Error::new("the administrator of an existing cluster has no token that tests know");
        self.users.as_ref().map(|users| users.admin_token().to_owned()).ok_or_else(unknown)
    }

    /// Writes `<name>.kubeconfig` for whoever `token` belongs to, a ServiceAccount for example.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        self.config.write_token(self.directory.path(), name, token)
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.admin, self.directory.path())
    }

    /// kubectl as one of [`users::USERS`].
    pub fn kubectl_as(&self, user: &str) -> Result<Kubectl> {
        Ok(Kubectl::new(&self.kubeconfig_for(user)?, self.directory.path()))
    }

    /// etcd, to be stopped or frozen. `None` for an existing cluster.
    pub fn etcd(&self) -> Option<&Guarded> {
        self.control_plane.as_ref().map(ControlPlane::etcd)
    }

    /// The API server, to be stopped or frozen. `None` for an existing cluster.
    pub fn api_server(&self) -> Option<&Guarded> {
        self.control_plane.as_ref().map(ControlPlane::api_server)
    }

    /// The control plane, to have its parts killed and started again. `None` for an existing cluster.
    pub fn control_plane(&self) -> Option<&ControlPlane> {
        self.control_plane.as_ref()
    }

    /// Fails, with the end of its log, if a process of the control plane has ended.
    pub fn check(&self) -> Result<()> {
        self.control_plane.as_ref().map_or(Ok(()), ControlPlane::check)
    }
}
