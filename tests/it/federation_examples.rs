//! `examples/federation`, each file as it stands in the repository: with a token of exactly the shape that the platform issues
//! (`tests/tokens`), signed by the test issuer over TLS. The one for another cluster is in [`crate::another_cluster`].

use crate::federation::{Federated, LOOPBACK, accepted, accepted_reply, client_credentials, now, ready};
use crate::forged_tokens::refused_everywhere;
use crate::support::issuer::behaviour::Behaviour;
use crate::support::issuer::{Document, ED25519, Issuer, P256, P384, RSA};
use crate::support::repository;
use crate::world::{PATIENCE, World};
use countersign::issuer::RegisteredIssuer;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// What stands for our issuer URL in the examples.
const OURS: &str = "https://countersign.example.com";
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// One file of the examples, and the issuer that takes the platform's place.
struct Example<'a> {
    world: &'a World,
    issuer: Issuer,
    /// The objects of the file, to which the issuer's address was written.
    objects: Vec<Value>,
    /// Of `tests/tokens`.
    fixture: Value,
}

impl<'a> Example<'a> {
    /// The file is applied and everything in it is Ready.
    fn apply(world: &'a World, name: &str) -> Self {
        let fixture = read_json(&format!("tests/tokens/{name}.json"));
        let objects = objects(name);
        let url = of_kind(&objects, "TrustedIssuer")["spec"]["issuer"]["url"].as_str().expect("a URL");
        let path = url.strip_prefix("https://").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or_default();
        let issuer = Issuer::start(path).expect("an issuer");
        let mut example = Self { world, issuer, objects, fixture };
        example.publish();
        example.redirect();
        for object in &example.objects {
            world.apply(object).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        ready(world, &example.trusted());
        let agent = example.agent()["metadata"]["name"].as_str().expect("a name").to_owned();
        let kubectl = world.kubectl();
        kubectl.wait_for("research", &format!("agent/{agent}"), "condition=Ready", PATIENCE).expect("the Agent is Ready");
        example
    }

    /// Publishes keys in the shape of the platform.
    fn publish(&self) {
        let (key, key_set) = (self.fixture["key"]["jwk"].clone(), self.fixture["key_set"].clone());
        let shape = move |mut set: Value| {
            for jwk in set["keys"].as_array_mut().expect("keys") {
                let kid = jwk["kid"].clone();
                for (name, value) in key.as_object().into_iter().flatten() {
                    match value {
                        Value::Null => drop(jwk.as_object_mut().expect("an object").remove(name)),
                        Value::String(text) if text == "{kid}" => jwk[name] = kid.clone(),
                        _ => jwk[name] = value.clone(),
                    }
                }
            }
            for (name, value) in key_set.as_object().into_iter().flatten() {
                match set["keys"].as_array_mut() {
                    Some(keys) if name == "keys" => keys.extend(value.as_array().expect("keys").iter().cloned()),
                    _ => set[name] = value.clone(),
                }
            }
            set
        };
        self.issuer.behave(Document::Keys, Behaviour::altered(shape));
    }

    /// Writes the test issuer's address into the TrustedIssuer, and our own where the example stands for it. Nothing else changes.
    fn redirect(&mut self) {
        let ours = self.world.operator.issuer().to_owned();
        let trusted = self.objects.iter_mut().find(|object| object["kind"] == "TrustedIssuer").expect("a TrustedIssuer");
        let issuer = &mut trusted["spec"]["issuer"];
        for audience in issuer["audiences"].as_array_mut().expect("audiences") {
            if audience == OURS {
                *audience = json!(ours);
            }
        }
        if issuer["url"].as_str().expect("a URL").starts_with("https://") {
            issuer["url"] = json!(self.issuer.url());
        }
        if issuer.get("jwksURL").is_some() {
            issuer["jwksURL"] = json!(self.issuer.url_of(Document::Keys));
        }
        issuer["certificateAuthority"] = json!(self.issuer.ca_pem());
        issuer["allowedNetworks"] = json!([LOOPBACK]);
    }

    fn agent(&self) -> &Value {
        of_kind(&self.objects, "Agent")
    }

    /// The one entry of the Agent.
    fn entry(&self) -> &Value {
        &self.agent()["spec"]["identity"]["federated"][0]
    }

    fn trusted(&self) -> String {
        of_kind(&self.objects, "TrustedIssuer")["metadata"]["name"].as_str().expect("a name").to_owned()
    }

    fn subject(&self) -> String {
        let metadata = &self.agent()["metadata"];
        format!("agent:{}/{}", metadata["namespace"].as_str().expect("a text"), metadata["name"].as_str().expect("a text"))
    }

    /// The key with which the platform signs.
    fn key(&self) -> &'static str {
        let names = [("RS256", RSA), ("ES256", P256), ("ES384", P384), ("EdDSA", ED25519)];
        names.into_iter().find(|(algorithm, _)| self.fixture["key"]["algorithm"] == *algorithm).expect("an algorithm").1
    }

    /// The claims of the platform's token.
    fn claims(&self) -> Value {
        self.fill(&self.fixture["claims"], self.key())
    }

    /// A token with these claims.
    fn token(&self, claims: &Value) -> String {
        self.token_of(self.key(), claims)
    }

    /// The same, with another key, and a header that says so.
    fn token_of(&self, key: &str, claims: &Value) -> String {
        let mut header = self.fill(&self.fixture["header"], key);
        header["alg"] = json!(self.issuer.algorithm(key).expect("a key"));
        self.issuer.sign(&header, claims).expect("a token")
    }

    fn fill(&self, template: &Value, key: &str) -> Value {
        match template {
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), self.fill(value, key))).collect(),
            Value::Array(items) => items.iter().map(|item| self.fill(item, key)).collect(),
            Value::String(text) => match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some("kid") => json!(key),
                Some("issuer") => json!(self.issuer.url()),
                Some("audience") => of_kind(&self.objects, "TrustedIssuer")["spec"]["issuer"]["audiences"][0].clone(),
                Some(time) => {
                    let shift: i64 = time.strip_prefix("now").expect("a time").parse().unwrap_or(0);
                    json!(now().saturating_add_signed(shift))
                }
                None => template.clone(),
            },
            _ => template.clone(),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_json(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The objects of an example.
pub fn objects(example: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(&format!("examples/federation/{example}.yaml"))).expect("YAML")
}

fn of_kind<'v>(objects: &'v [Value], kind: &str) -> &'v Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The claim that a name or JSON Pointer of an Agent's entry means.
fn claim_mut<'v>(claims: &'v mut Value, name: &str) -> &'v mut Value {
    match name.starts_with('/') {
        true => claims.pointer_mut(name).unwrap_or_else(|| panic!("no {name}")),
        false => &mut claims[name],
    }
}

#[test]
fn each_example_fits_the_token_of_its_platform() {
    for entry in std::fs::read_dir(repository().join("examples/federation")).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        // The tokens of the other cluster are real.
        if name == "README" || name == "cluster" {
            continue;
        }
        let (objects, fixture) = (objects(&name), read_json(&format!("tests/tokens/{name}.json")));
        let (trusted, agent) = (of_kind(&objects, "TrustedIssuer"), of_kind(&objects, "Agent"));
        let entry = &agent["spec"]["identity"]["federated"][0];
        assert_eq!(entry["issuer"], trusted["metadata"]["name"], "{name}");
        assert_eq!(entry["subject"], fixture["claims"]["sub"], "{name}");
        for (claim, value) in entry["claims"].as_object().into_iter().flatten() {
            assert_eq!(claim_mut(&mut fixture["claims"].clone(), claim), value, "{name}: {claim}");
        }
        let algorithms = trusted["spec"]["issuer"]["signingAlgorithms"].as_array().expect("algorithms");
        assert!(algorithms.contains(&fixture["key"]["algorithm"]), "{name}");
        // The operator reads the entry, and its rules hold for the token.
        let parsed = RegisteredIssuer::parse(&serde_json::from_value(trusted.clone()).expect("a TrustedIssuer"));
        let rules = parsed.rules.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(rules.check(fixture["claims"].as_object().expect("claims")), Ok(()), "{name}");
        let sources = fixture["source"].as_array().expect("sources");
        assert!(sources.iter().all(|source| source["url"].as_str().is_some_and(|url| url.starts_with("https://"))), "{name}");
    }
}

/// One way in which a token of the platform breaks a rule of the TrustedIssuer.
type Breach = fn(&mut Value);

/// What every example must show. `breaches` are tokens that a rule of the TrustedIssuer refuses.
fn holds(name: &str, breaches: &[Breach]) {
    let world = World::shared();
    let example = Example::apply(world, name);
    accepted(world, &example.token(&example.claims()), &example.subject());
    let altered = |change: &dyn Fn(&mut Value)| {
        let mut claims = example.claims();
        change(&mut claims);
        example.token(&claims)
    };
    let refused = |change: &dyn Fn(&mut Value), reason: &str| refused_everywhere(world, &altered(change), reason);

    // Who it is: exactly this subject, with exactly these claims.
    let subject = example.entry()["subject"].as_str().expect("a subject");
    assert_eq!(example.claims()["sub"], subject, "the example and the platform's token agree");
    refused(&|claims| claims["sub"] = json!(format!("{subject}x")), "agent_unknown");
    refused(&|claims| claims["sub"] = json!(subject[..subject.len() - 1]), "agent_unknown");
    let pinned = example.entry()["claims"].as_object().cloned().unwrap_or_default();
    for (claim, value) in &pinned {
        assert_eq!(claim_mut(&mut example.claims(), claim), value);
        for other in [json!(format!("{}x", value.as_str().expect("a text"))), Value::Null, json!([value])] {
            refused(&|claims| *claim_mut(claims, claim) = other.clone(), "agent_unknown");
        }
    }

    // For whom, and when.
    for audience in [json!("https://sts.amazonaws.com"), json!(["sts.amazonaws.com"]), json!(format!("{OURS}/")), json!([])] {
        refused(&|claims| claims["aud"] = audience.clone(), "credential_claim_refused");
    }
    let lifetime = of_kind(&example.objects, "TrustedIssuer")["spec"]["maxTokenLifetimeSeconds"].as_u64().expect("a number");
    refused(
        &|claims| {
            claims["iat"] = json!(now() - 300);
            claims["nbf"] = json!(now() - 300);
            claims["exp"] = json!(now() - 30);
        },
        "credential_claim_refused",
    );
    refused(
        &|claims| {
            claims["iat"] = json!(now());
            claims["exp"] = json!(now() + lifetime + 1);
        },
        "credential_claim_refused",
    );

    // From whom: this issuer, with a key and an algorithm of its own.
    if let Some(issuer) = example.claims().get("iss") {
        let slash = format!("{}/", issuer.as_str().expect("a text"));
        refused(&|claims| claims["iss"] = json!(slash), "credential_issuer_unknown");
    }
    let allowed =
        of_kind(&example.objects, "TrustedIssuer")["spec"]["issuer"]["signingAlgorithms"].as_array().expect("a list").clone();
    for other in [RSA, P256, P384, ED25519] {
        if !allowed.contains(&json!(example.issuer.algorithm(other).expect("a key"))) {
            refused_everywhere(world, &example.token_of(other, &example.claims()), "credential_key_unknown");
        }
    }

    let rules = of_kind(&example.objects, "TrustedIssuer")["spec"]["claimValidationRules"].as_array().map_or(0, Vec::len);
    assert!(breaches.len() >= rules, "each rule of the example is tried");
    for breach in breaches {
        refused(breach, "credential_claim_refused");
    }
    let remove = ["delete", "trustedissuer", &example.trusted()];
    world.kubectl().run(&remove).expect("deleted");
}

#[test]
fn aws_vouches_for_a_role() {
    holds(
        "aws",
        &[
            |claims| claims["https://sts.amazonaws.com/"]["org_id"] = json!("o-other"),
            |claims| {
                claims["https://sts.amazonaws.com/"].as_object_mut().expect("an object").remove("org_id");
            },
        ],
    );
}

/// A token that no pod holds.
fn without_pod(claims: &mut Value) {
    claims["kubernetes.io"].as_object_mut().expect("an object").remove("pod");
}

#[test]
fn eks_vouches_for_a_pod() {
    holds("eks", &[without_pod]);
}

#[test]
fn gke_vouches_for_a_pod() {
    holds("gke", &[without_pod]);
}

#[test]
fn google_vouches_for_a_vm() {
    holds(
        "gcp",
        &[
            |claims| drop(claims.as_object_mut().expect("an object").remove("google")),
            |claims| claims["google"]["compute_engine"]["project_id"] = json!("other-prod"),
        ],
    );
}

#[test]
fn azure_vouches_for_a_managed_identity() {
    holds("azure", &[|claims| claims["ver"] = json!("2.0"), |claims| claims["idtyp"] = json!("user")]);
}

#[test]
fn azure_vouches_for_a_managed_identity_in_version_2() {
    holds(
        "azure-v2",
        &[
            |claims| claims["ver"] = json!("1.0"),
            |claims| {
                claims.as_object_mut().expect("an object").remove("idtyp");
            },
        ],
    );
}

#[test]
fn github_vouches_for_a_job() {
    // A number is not the text that it is written as.
    holds(
        "github",
        &[
            |claims| claims["repository_owner_id"] = json!("7654321"),
            |claims| {
                claims["repository_owner_id"] = json!(1_234_567);
            },
        ],
    );
}

#[test]
fn a_trust_domain_vouches_for_a_workload() {
    let world = World::shared();
    holds("spiffe", &[]);
    let example = Example::apply(world, "spiffe");
    let token = example.token(&example.claims());
    accepted_reply(world, client_credentials(world, &token, JWT_SPIFFE), &token, &example.subject());
    // Another trust domain is another issuer, whoever signs, and a token that names an issuer is none of the trust domain's.
    for (claim, value) in [
        ("sub", "spiffe://other.example/ns/research/sa/research-bot"),
        ("sub", "spiffe://prod.acme.example.evil/ns/research/sa/research-bot"),
        ("sub", "research-bot"),
        ("iss", "spiffe://prod.acme.example"),
        ("iss", example.issuer.url()),
        ("iss", ""),
    ] {
        let mut claims = example.claims();
        claims[claim] = json!(value);
        refused_everywhere(world, &example.token(&claims), "credential_issuer_unknown");
    }
    // JWT-SVID section 2.3: typ is JWT or JOSE, or is not there.
    for (typ, status) in [(json!("JOSE"), 200), (Value::Null, 200), (json!("at+jwt"), 400), (json!("JWT-SVID"), 400)] {
        let mut header = json!({"alg": "ES256", "kid": P256, "typ": typ});
        if typ.is_null() {
            header.as_object_mut().expect("an object").remove("typ");
        }
        let token = example.issuer.sign(&header, &example.claims()).expect("a token");
        assert_eq!(world.exchange(&token).status, status, "{header}");
    }
    // The keys for X.509-SVIDs in the same bundle are for nothing here.
    let keys = world.kubectl().get_json(&["get", "trustedissuer", &example.trusted()]).expect("the TrustedIssuer");
    assert_eq!(keys["status"]["keys"], json!([P256, RSA]));
    world.kubectl().run(&["delete", "trustedissuer", &example.trusted()]).expect("deleted");
}

#[test]
fn the_command_in_the_readme_exchanges_a_token() {
    let world = World::shared();
    let federated = Federated::start(world, "readme", &json!({}));
    let readme = read("examples/federation/README.md");
    let function = readme.split("```sh\n").find(|block| block.starts_with("exchange() {")).expect("the function");
    let function = function.split("```").next().expect("its end");
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, federated.token()).expect("written");
    let run = || {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{function}\nexchange \"$1\"\n"), "bash"])
            .arg(&token)
            .env("COUNTERSIGN_URL", world.operator.url())
            .env("COUNTERSIGN_CA", world.operator.ca_file())
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        (output.status.success(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    let (done, answer) = run();
    assert!(done && answer["access_token"].is_string(), "{answer}");
    std::fs::write(&token, "a token of nobody").expect("written");
    let (done, answer) = run();
    assert!(!done && answer["error"] == "invalid_client", "{answer}");
}
