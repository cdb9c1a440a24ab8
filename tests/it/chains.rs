//! Agents that call one another: a research bot that acts for users, a search tool that it may call, and a reader that the search
//! tool may call.

use crate::federation::{LOOPBACK, ready};
use crate::support::identity_provider::IdentityProvider;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, TOKEN_EXCHANGE, World, agent, stamped};
use serde_json::{Value, json};
use std::sync::OnceLock;

pub const TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
pub const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Alice, as the identity provider and the TrustedIssuer name her.
pub const ALICE: &str = "user:alice@acme.example";

/// The identity provider that all tests share.
pub fn provider() -> &'static IdentityProvider {
    static SHARED: OnceLock<IdentityProvider> = OnceLock::new();
    SHARED.get_or_init(|| IdentityProvider::start().expect("an identity provider"))
}

/// A TrustedIssuer for its users.
pub fn trusting_users(name: &str) -> Value {
    trusting_users_of(provider(), name)
}

/// A TrustedIssuer for the users of an identity provider.
pub fn trusting_users_of(provider: &IdentityProvider, name: &str) -> Value {
    json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "TrustedIssuer",
        "metadata": {"name": name},
        "spec": {
            "provides": "Users",
            "issuer": {
                "url": provider.url(),
                "audiences": ["research-app", "modern-app", "hasty-app"],
                "certificateAuthority": provider.ca_pem(),
                "allowedNetworks": [LOOPBACK],
            },
            "claimMappings": {
                "username": {"claim": "email", "prefix": "oidc:"},
                "groups": {"claim": "groups", "prefix": "oidc:"},
            },
        },
    })
}

/// The provider, after its TrustedIssuer `acme-idp` is Ready in the shared world.
pub fn trusted_provider() -> &'static IdentityProvider {
    static TRUSTED: OnceLock<()> = OnceLock::new();
    TRUSTED.get_or_init(|| {
        let world = World::shared();
        world.apply(&trusting_users("acme-idp")).expect("the TrustedIssuer is accepted");
        ready(world, "acme-idp");
    });
    provider()
}

/// An ID token of alice for the research application, a moment old.
pub fn id_token() -> String {
    trusted_provider().log_in("research-app", "alice").expect("logged in").id_token
}

/// Three agents in a namespace of their own, each with a pod.
pub struct Team<'a> {
    pub world: &'a World,
    pub namespace: String,
    bot: String,
    search: String,
    reader: String,
}

/// How an exchange names its subject.
pub enum From<'a> {
    IdToken(&'a str),
    AccessToken(&'a str),
}

impl Team<'_> {
    /// In the shared world, whose users are trusted.
    pub fn start(purpose: &str) -> Team<'static> {
        trusted_provider();
        Team::start_in(World::shared(), purpose)
    }

    /// In this world, which has a TrustedIssuer `acme-idp` or needs none.
    pub fn start_in<'a>(world: &'a World, purpose: &str) -> Team<'a> {
        let namespace = world.namespace(purpose);
        let tokens = ["bot", "search", "reader"].map(|name| {
            let token = world.workload(&namespace, name);
            world.apply(&stamped(agent(&namespace, name, &spec(&namespace, name)), "admin")).expect("the Agent is accepted");
            token
        });
        for name in ["bot", "search", "reader"] {
            world.kubectl().wait_for(&namespace, &format!("agent/{name}"), "condition=Ready", PATIENCE).expect("it is Ready");
        }
        let [bot, search, reader] = tokens;
        Team { world, namespace, bot, search, reader }
    }

    /// The subject of one of them.
    pub fn subject(&self, name: &str) -> String {
        format!("agent:{}/{name}", self.namespace)
    }

    /// The token of the pod of one of them.
    pub fn credential(&self, name: &str) -> &str {
        match name {
            "bot" => &self.bot,
            "search" => &self.search,
            _ => &self.reader,
        }
    }

    /// Exchanges a token as one of them, with more parameters.
    pub fn exchange(&self, name: &str, from: &From<'_>, more: &[(&str, &str)]) -> Reply {
        let (token, kind) = match from {
            From::IdToken(token) => (*token, TYPE_ID_TOKEN),
            From::AccessToken(token) => (*token, TYPE_ACCESS_TOKEN),
        };
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", token),
            ("subject_token_type", kind),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", self.credential(name)),
        ];
        self.world.request(&[&form, more].concat())
    }

    /// The token with which the bot, acting for the user of `id_token`, calls search.
    pub fn called(&self, id_token: &str) -> String {
        let reply = self.exchange("bot", &From::IdToken(id_token), &[("audience", &self.subject("search"))]);
        reply.expect(200).text("access_token")
    }

    /// The token with which the bot, acting for itself, calls search.
    pub fn called_by_itself(&self) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", self.bot.as_str()),
            ("audience", &self.subject("search")),
        ];
        self.world.request(&form).expect(200).text("access_token")
    }

    /// The token for the documents that one of them gets for the token with which it was called.
    pub fn reads(&self, name: &str, called: &str) -> Reply {
        self.exchange(name, &From::AccessToken(called), &[("audience", DOCS)])
    }

    /// The token with which search calls reader.
    pub fn passes_on(&self, called: &str) -> String {
        let reply = self.exchange("search", &From::AccessToken(called), &[("audience", &self.subject("reader"))]);
        reply.expect(200).text("access_token")
    }

    /// Merges `patch` into the Agent as the administrator.
    pub fn patch(&self, name: &str, patch: &Value) {
        let arguments = ["patch", "agent", name, "--namespace", &self.namespace, "--type=merge", "-p", &patch.to_string()];
        self.world.kubectl().run(&arguments).expect("the patch is accepted");
    }

    /// Fails unless the reply is a refusal of the token exchange for this reason. Returns the record.
    #[track_caller]
    pub fn refused(&self, reply: Reply, error: &str, reason: &str) -> Value {
        let record = self.world.record_of(&reply.refused(400, error));
        assert_eq!((&record["outcome"], &record["reason"]), (&json!("deny"), &json!(reason)), "{record}");
        record
    }
}

fn spec(namespace: &str, name: &str) -> Value {
    let caller = |name: &str| json!([{"namespace": namespace, "name": name}]);
    let read = json!({"name": "document.read", "resources": ["document:reports/*"]});
    match name {
        "bot" => json!({
            "displayName": "Research Bot",
            "capabilities": [read, {"name": "document.write"}, {"name": "web.search"}],
            "delegation": {"actFor": [
                {"issuer": "acme-idp", "audiences": ["research-app"], "subjects": ["*@acme.example"]},
            ]},
        }),
        "search" => json!({
            "displayName": "Search Tool",
            "capabilities": [{"name": "document.read"}, {"name": "document.index"}, {"name": "web.search"}],
            "delegation": {"callers": caller("bot")},
        }),
        _ => json!({"capabilities": [read], "delegation": {"callers": caller("search")}}),
    }
}
