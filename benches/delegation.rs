//! An agent that another one called for a user: the exchange of the token with which it was called, and the introspection of the one
//! that it gets.

use crate::fixture::{
    AGENTS, AGENTS_NAMESPACE, Fixture, PATIENCE, capabilities, pods_of, post, register_with, request, resource_server,
};
use crate::load::{Answer, Requests, Target};
use crate::support::issuer::{Document, Issuer, RSA};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const DOCS: &str = "https://docs.example.com";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The exchanges of the agents that were called, and the introspection of what they got.
pub fn targets(fixture: &Fixture) -> (Target, Target) {
    let (kubectl, us) = (fixture.cluster.kubectl(), fixture.operator.issuer());
    let people = Issuer::start("/people").expect("an issuer");
    let trusted = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "TrustedIssuer",
        "metadata": {"name": "people"},
        "spec": {
            "provides": "Users",
            "issuer": {"url": people.url(), "audiences": ["app"], "jwks": people.document(Document::Keys).to_string()},
            "claimMappings": {"username": {"claim": "email", "prefix": "people:"}},
        },
    });
    kubectl.apply(&trusted.to_string()).expect("the TrustedIssuer is accepted");
    kubectl.wait_for("default", "trustedissuer/people", "condition=Ready", PATIENCE).expect("the TrustedIssuer is Ready");

    let identity = |name: &str| json!({"serviceAccounts": [{"name": name}]});
    let act_for = json!({"actFor": [{"issuer": "people", "audiences": ["app"], "subjects": ["*"]}]});
    register_with(&kubectl, "planner", &identity("planner"), &capabilities(), &act_for);
    let planner = pods_of(&kubectl, us, "planner", 1).remove(0);
    let callers = json!({"callers": [{"namespace": AGENTS_NAMESPACE, "name": "planner"}]});
    let http = http(fixture);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims =
        json!({"iss": people.url(), "sub": "1", "email": "alice@acme.example", "aud": "app", "iat": now, "exp": now + 900});
    let id_token = people.sign(&json!({"alg": "RS256", "kid": RSA, "typ": "JWT"}), &claims).expect("an ID token");

    let (mut exchanges, mut introspections) = (Vec::new(), Vec::new());
    let server = resource_server(&kubectl, us, "server", DOCS);
    for number in 0..AGENTS {
        let name = format!("tool-{number}");
        register_with(&kubectl, &name, &identity(&name), &capabilities(), &callers);
        let own = pods_of(&kubectl, us, &name, 1).remove(0);
        let callee = format!("agent:{AGENTS_NAMESPACE}/{name}");
        let called = exchange(fixture, &http, &id_token, ID_TOKEN, &planner, &callee);
        let held = exchange(fixture, &http, &called, ACCESS_TOKEN, &own, DOCS);
        exchanges.push(request(&form(&called, ACCESS_TOKEN, &own, DOCS)));
        introspections.push(post("/oauth2/introspect", &format!("authorization: Bearer {server}\r\n"), &format!("token={held}")));
    }
    let target =
        |requests, answer| Target { requests: Requests::Repeated(Arc::new(requests)), answer, ..fixture.ours.tls.clone() };
    (target(exchanges, Answer::NewToken), target(introspections, Answer::Active))
}

/// A token exchange by an agent with its own token as client assertion.
fn form(token: &str, kind: &str, own: &str, audience: &str) -> String {
    let parameters = [
        ("grant_type", EXCHANGE),
        ("subject_token", token),
        ("subject_token_type", kind),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", own),
        ("audience", audience),
    ];
    // The query of a URL is encoded as a form is.
    let url = reqwest::Url::parse_with_params("https://unused.example", parameters).expect("a URL");
    url.query().expect("parameters").to_owned()
}

fn exchange(fixture: &Fixture, http: &reqwest::blocking::Client, token: &str, kind: &str, own: &str, audience: &str) -> String {
    let request = http.post(format!("{}/oauth2/token", fixture.operator.url()));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form(token, kind, own, audience));
    let reply: Value = serde_json::from_str(&request.send().expect("an answer").text().expect("a text")).expect("JSON");
    reply["access_token"].as_str().unwrap_or_else(|| panic!("no token: {reply}")).to_owned()
}

fn http(fixture: &Fixture) -> reqwest::blocking::Client {
    let pem = std::fs::read(fixture.operator.ca_file()).expect("the CA");
    let certificate = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    reqwest::blocking::Client::builder().tls_certs_only([certificate]).build().expect("a client")
}
