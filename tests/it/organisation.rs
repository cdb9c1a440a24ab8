//! A cluster of an organisation: its people log in at their identity provider, whose ID tokens kube-apiserver takes for the portal.

use crate::support::browser::Scenario;
use crate::support::cluster::ClusterOptions;
use crate::support::directory::Directory;
use crate::support::identity_provider::IdentityProvider;
use crate::support::kubectl::Kubectl;
use crate::world::{PATIENCE, World, wait_until};
use serde_json::{Value, json};
use std::sync::{Once, OnceLock};

/// What the portal is to the identity provider.
pub const CLIENT: &str = "countersign-portal";

/// What stands before the names of its people and groups in the cluster.
pub const PREFIX: &str = "oidc:";

/// The cluster, the operator, and the identity provider that both trust.
pub struct Organisation {
    // The operator ends first.
    pub world: World,
    pub provider: IdentityProvider,
    /// Whether alice may read what was recorded.
    audits: Once,
    /// With the configuration of the API server, which reads it again and again.
    _directory: Directory,
}

impl Organisation {
    /// The one that most tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Organisation> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// One of its own, with these arguments for the operator beside those of the portal.
    pub fn start(args: &[&str]) -> Self {
        let provider = IdentityProvider::start().expect("an identity provider");
        let directory = Directory::temporary().expect("a directory");
        let config = directory.path().join("authentication-config.yaml");
        std::fs::write(&config, authentication(&provider).to_string()).expect("written");
        let flags = vec![format!("--authentication-config={}", config.display())];
        let options = ClusterOptions { api_server_flags: flags, ..ClusterOptions::default() };
        let portal = [
            format!("--portal-oidc-issuer={}", provider.url()),
            format!("--portal-oidc-client-id={CLIENT}"),
            format!("--portal-oidc-ca-file={}", provider.ca_file().display()),
            "--portal-oidc-scopes=openid email profile groups".to_owned(),
        ];
        let args: Vec<&str> = portal.iter().map(String::as_str).chain(args.iter().copied()).collect();
        let world = World::start_on(&options, 4, &[], &args);
        let organisation = Self { world, provider, audits: Once::new(), _directory: directory };
        let portal = json!({
            "client_id": CLIENT,
            "redirect_uris": [organisation.redirect_uri()],
            "token_endpoint_auth_method": "none",
        });
        organisation.provider.register(&portal).expect("registered");
        let dana = organisation.person("dana");
        wait_until("the API server has the keys of the identity provider", PATIENCE, || dana.run(&["auth", "whoami"]).is_ok());
        organisation
    }

    /// Starts a scenario of `tests/portal` in a browser that trusts the operator and the identity provider.
    pub fn scenario(&self, script: &str, name: &str, mut settings: Value) -> Scenario {
        let (ours, theirs) = (self.world.operator.ca_file(), self.provider.ca_file());
        settings["portal"] = json!(self.world.operator.url());
        settings["provider"] = json!(self.provider.url());
        Scenario::start(script, name, &[ours, &theirs], &settings).expect("started")
    }

    /// Lets alice read what is in this namespace, write Agents there that have these capabilities, and decide on `approves`.
    pub fn alice_runs(&self, namespace: &str, grants: &[&str], approves: &str) {
        let rules = json!([
            {"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["create", "update", "patch", "delete"]},
            {"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": grants, "verbs": ["grant"]},
        ]);
        self.world.bind(namespace, "alice", &rules, &[person("alice")]);
        self.world.approvers("alice", &[person("alice")], namespace, approves);
    }

    /// Lets alice read what was recorded, for all tests that want that.
    pub fn alice_audits(&self) {
        self.audits.call_once(|| {
            let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["auditrecords"], "verbs": ["get"]}]);
            self.world.bind_everywhere("alice-audits", &rules, &[person("alice")]);
        });
    }

    /// The ID tokens of these people, by account.
    pub fn tokens(&self, accounts: &[&str]) -> Value {
        accounts.iter().map(|account| ((*account).to_owned(), json!(self.id_token(account)))).collect()
    }

    /// Where the identity provider sends people back to.
    pub fn redirect_uri(&self) -> String {
        format!("{}/portal/callback", self.world.operator.url())
    }

    /// The ID token of somebody who logged in to the portal.
    pub fn id_token(&self, account: &str) -> String {
        self.provider.log_in_at(CLIENT, Some(&self.redirect_uri()), account).expect("logged in").id_token
    }

    /// kubectl with somebody's ID token, and with nothing else.
    pub fn person(&self, account: &str) -> Kubectl {
        self.kubectl_with(account, &self.id_token(account))
    }

    /// kubectl with this token, and with nothing else.
    pub fn kubectl_with(&self, name: &str, token: &str) -> Kubectl {
        let cluster = &self.world.cluster;
        let kubeconfig = cluster.kubeconfig_with_token(name, token).expect("a kubeconfig");
        Kubectl::new(&kubeconfig, cluster.directory().path()).itself()
    }
}

/// What the API server takes for true of whom the identity provider says who they are.
fn authentication(provider: &IdentityProvider) -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": provider.url(), "certificateAuthority": provider.ca_pem(), "audiences": [CLIENT]},
            // An address that was not verified is none: `claim` looks at `email_verified` by itself.
            "claimMappings": {
                "username": {"claim": "email", "prefix": PREFIX},
                "groups": {"claim": "groups", "prefix": PREFIX},
            },
        }],
    })
}

/// Somebody of the organisation as the subject of a role binding.
pub fn person(account: &str) -> Value {
    crate::world::user(&format!("{PREFIX}{account}@acme.example"))
}

/// A group of the organisation as the subject of a role binding.
pub fn group(name: &str) -> Value {
    json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": format!("{PREFIX}{name}")})
}
