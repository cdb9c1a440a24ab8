//! Dex beside the operator: the exchange of the same ServiceAccount tokens (RFC 8693) over TLS with the same certificate, in the same run.
//!
//! `BENCH_DEX` names a Dex binary; without it there is nothing to compare with. Dex keeps its state in memory and logs errors alone,
//! which is the least that it can do for a request. It records nothing, and signs RS256 as it does by default.

use crate::cost::{Memory, memory};
use crate::fixture::{Fixture, certificate_into, free_addresses, post, tls_client, wait_until};
use crate::load::{Answer, Requests, Target};
use crate::support::control_plane::SERVICE_ACCOUNT_ISSUER;
use crate::support::process::{Guarded, clean_env};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// Names the binary.
pub const VARIABLE: &str = "BENCH_DEX";
/// The connector that knows the API server's keys.
const CONNECTOR: &str = "kubernetes";
/// Dex's one client. It guards nothing.
const CLIENT: &str = "bench";
const CLIENT_SECRET: &str = "bench-secret";

/// A running Dex.
pub struct Dex {
    process: Guarded,
    /// What to load.
    pub target: Target,
}

impl Dex {
    /// Starts the Dex that the environment names, if it names one.
    pub fn start(fixture: &Fixture) -> Option<Self> {
        let binary = std::env::var_os(VARIABLE)?;
        let cluster = &fixture.cluster;
        // Dex reads the API server's keys without a credential.
        let discovery =
            ["create", "clusterrolebinding", "issuer-discovery", "--clusterrole=system:service-account-issuer-discovery"];
        cluster.kubectl().run(&[&discovery[..], &["--group=system:unauthenticated"]].concat()).expect("a ClusterRoleBinding");
        let directory = cluster.directory().subdirectory("dex").expect("a directory");
        certificate_into(cluster, &directory);
        let authority = directory.join("api-server.crt");
        std::fs::write(&authority, cluster.ca_pem().expect("the CA")).expect("written");
        let [address] = free_addresses();
        let config = configuration(address, cluster.server(), &authority, &directory);
        let file = directory.join("dex.json");
        std::fs::write(&file, config.to_string()).expect("written");
        let arguments = ["serve".to_owned(), file.display().to_string()];
        let process =
            Guarded::spawn(&directory, "dex", Path::new(&binary), &arguments, &clean_env(&directory)).expect("Dex starts");
        wait_until("Dex listens", || {
            assert!(process.exited().is_none(), "Dex ended: {}", process.log_tail());
            TcpStream::connect(address).is_ok()
        });
        let tls = Some(tls_client(fixture.operator.ca_file()));
        let target = Target { name: "Dex", address, tls, requests: exchanges(&fixture.tokens), answer: Answer::Token };
        Some(Self { process, target })
    }

    /// What both processes take in memory, as the line to be printed.
    pub fn memory(&self, fixture: &Fixture) -> Value {
        let (ours, dex): (Memory, Memory) = (memory(fixture.operator.process().pid()), memory(self.process.pid()));
        json!({"bench": "memory", "mib": ours.now, "peak_mib": ours.peak, "dex_mib": dex.now, "dex_peak_mib": dex.peak})
    }
}

/// Dex's configuration: every JSON is YAML.
fn configuration(address: SocketAddr, api_server: &str, authority: &Path, directory: &Path) -> Value {
    json!({
        "issuer": format!("https://{address}/dex"),
        "storage": {"type": "memory"},
        "web": {"https": address.to_string(), "tlsCert": directory.join("tls.crt"), "tlsKey": directory.join("tls.key")},
        "logger": {"level": "error"},
        "staticClients": [{"id": CLIENT, "secret": CLIENT_SECRET, "name": CLIENT, "redirectURIs": ["https://localhost/callback"]}],
        "connectors": [{
            "type": "oidc", "id": CONNECTOR, "name": CONNECTOR,
            "config": {
                // Tokens say another issuer than the address at which its keys are found.
                "issuer": api_server,
                "issuerAlias": SERVICE_ACCOUNT_ISSUER,
                "rootCAs": [authority],
                "clientID": CLIENT, "clientSecret": CLIENT_SECRET, "redirectURI": format!("https://{address}/dex/callback"),
                // A ServiceAccount has neither a name beside its subject nor an address.
                "userNameKey": "sub",
                "scopes": ["openid"],
                "getUserInfo": false,
            },
        }],
    })
}

/// The exchange of each token at Dex.
fn exchanges(tokens: &[String]) -> Requests {
    let authorization = format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{CLIENT}:{CLIENT_SECRET}")));
    let exchange = |token: &String| {
        let body = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&connector_id={CONNECTOR}&scope=openid\
             &subject_token={token}&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token\
             &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token"
        );
        post("/dex/token", &authorization, &body)
    };
    Requests::Repeated(Arc::new(tokens.iter().map(exchange).collect()))
}
