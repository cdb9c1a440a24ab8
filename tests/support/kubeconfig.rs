//! Kubeconfig files: one cluster, one user. Written as JSON, which every reader of YAML takes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::directory::write_private;
use super::error::{Context, Error, Result};
use super::kubectl::Kubectl;

/// How to reach a cluster as its administrator, and from that as anybody else.
#[derive(Debug)]
pub struct Kubeconfig {
    /// Address and certificate authority: the `cluster` entry.
    cluster: Value,
    /// The administrator's credential: the `user` entry.
    admin: Value,
}

impl Kubeconfig {
    /// For an API server on this machine whose administrator has a static token.
    pub fn local(port: u16, certificate_authority: &Path, admin_token: &str) -> Self {
        Self {
            cluster: json!({
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": certificate_authority,
            }),
            admin: json!({ "token": admin_token }),
        }
    }

    /// From a file, of which only the current context counts. It must be self-contained: a credential plugin that
    /// needs files or variables of the user's does not find them.
    pub fn read(file: &Path, scratch: &Path) -> Result<Self> {
        let text = Kubectl::new(file, scratch)
            .run(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])
            .context(format!("cannot read {}", file.display()))?;
        let config: Value = serde_json::from_str(&text).context(file.display())?;
        let part = |pointer: &str| {
            let value = config.pointer(pointer).cloned();
            value.ok_or_else(|| Error::new(format!("{} has no {pointer} in its current context", file.display())))
        };
        Ok(Self { cluster: part("/clusters/0/cluster")?, admin: part("/users/0/user")? })
    }

    /// The address of the API server.
    pub fn server(&self) -> &str {
        self.cluster.get("server").and_then(Value::as_str).unwrap_or_default()
    }

    /// The authority of its certificate, of a cluster on this machine.
    pub fn ca_pem(&self) -> Result<String> {
        let file = self.cluster.get("certificate-authority").and_then(Value::as_str);
        let file = file.ok_or_else(|| Error::new("the kubeconfig names no file with the certificate authority"))?;
        std::fs::read_to_string(file).context(file)
    }

    /// Writes `<dir>/<name>.kubeconfig` for the administrator.
    pub fn write_admin(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        self.write(dir, name, &self.admin)
    }

    /// Writes `<dir>/<name>.kubeconfig` for the owner of a bearer token.
    pub fn write_token(&self, dir: &Path, name: &str, token: &str) -> Result<PathBuf> {
        self.write(dir, name, &json!({ "token": token }))
    }

    /// Writes `<dir>/<name>.kubeconfig` for the administrator acting as somebody else, on clusters where that person
    /// has no credential.
    pub fn write_impersonating(&self, dir: &Path, name: &str, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let mut admin = self.admin.clone();
        if let Some(fields) = admin.as_object_mut() {
            fields.insert("as".to_owned(), json!(user));
            fields.insert("as-groups".to_owned(), json!(groups));
        }
        self.write(dir, name, &admin)
    }

    /// The one place where the file takes shape.
    fn write(&self, dir: &Path, name: &str, user: &Value) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": self.cluster }],
            "users": [{ "name": name, "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
            "current-context": "test",
        });
        let path = dir.join(format!("{name}.kubeconfig"));
        write_private(&path, &config.to_string())?;
        Ok(path)
    }
}
