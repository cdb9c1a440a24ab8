//! Clients and verifiers that other people wrote, unmodified, against the running service. See `tests/clients`.

use crate::chains::{ALICE, Team, id_token};
use crate::support::repository;
use crate::world::{DOCS, PATIENCE, Tenant, World, wait_until};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

/// A script of `tests/clients`, which knows the service and the audience.
fn node(name: &str, world: &World) -> Command {
    let operator = &world.operator;
    let mut command = Command::new("node");
    command
        .arg(repository().join("tests/clients").join(name))
        .env("COUNTERSIGN_URL", operator.url())
        .env("NODE_EXTRA_CA_CERTS", operator.ca_file())
        .env("AUDIENCE", DOCS);
    command
}

/// The same with an agent's credential. Returns it and the directory of its files, which must outlive it.
fn script(name: &str, tenant: &Tenant<'_>) -> (Command, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = node(name, tenant.world);
    command.env("TOKEN_FILE", file(&directory, "token", &tenant.token));
    (command, directory)
}

/// A file for a script: no token is on a command line or in an environment.
fn file(directory: &tempfile::TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("written");
    path
}

/// What a script that succeeded says it did.
fn outcome(output: &Output) -> Value {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\n(run `make clients` if a package is missing)");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("the script says what it did: {error}: {out}"))
}

/// Runs a script with an agent's credential and a resource server's.
fn run(name: &str) {
    let world = World::shared();
    let (tenant, server) = (world.tenant("client"), world.resource_server(DOCS));
    let (mut command, directory) = script(name, &tenant);
    command.env("RS_TOKEN_FILE", file(&directory, "server-token", &server));
    outcome(&command.output().expect("node"));
}

#[test]
fn openid_client_discovers_and_obtains_tokens_by_every_grant() {
    run("openid-client.mjs");
}

#[test]
fn oauth4webapi_accepts_the_token_as_rfc_9068_demands() {
    run("oauth4webapi.mjs");
}

#[test]
fn jose_verifies_the_token_with_the_published_keys() {
    run("jose.mjs");
}

#[test]
fn clients_pass_a_token_on_from_agent_to_agent_and_verifiers_read_the_chain() {
    let team = Team::start("clients-chain");
    let directory = tempfile::tempdir().expect("a directory");
    let (bot, search) = (team.subject("bot"), team.subject("search"));
    let server = team.world.resource_server(DOCS);
    let mut command = node("delegation.mjs", team.world);
    command.env("SUBJECT", ALICE).env("FIRST_AGENT", &bot).env("SECOND_AGENT", &search).env("TOO_MUCH", "document.index");
    for (name, text) in [
        ("ID_TOKEN_FILE", id_token().as_str()),
        ("FIRST_TOKEN_FILE", team.credential("bot")),
        ("SECOND_TOKEN_FILE", team.credential("search")),
        ("RS_TOKEN_FILE", &server),
    ] {
        command.env(name, file(&directory, name, text));
    }
    let outcome = outcome(&command.output().expect("node"));
    assert_eq!(outcome["actors"], serde_json::json!([search, bot]));
    assert_eq!(outcome["scope"], "document.read web.search");
    let records = team.world.operator.audit_lines().expect("the audit log");
    let issued: Vec<_> =
        records.iter().filter(|record| record["jti"] == outcome["jti"] && record["event"] == "token.issue").collect();
    assert!(
        matches!(issued.as_slice(), [record] if record["chain"] == format!("{bot} {search}") && record["user"] == ALICE),
        "{issued:?}"
    );
}

#[test]
fn openid_client_polls_for_an_approved_token_unmodified() {
    let (tenant, capability) = World::shared().payments_tenant("ciba");
    let world = tenant.world;
    world.approver("bob", &tenant.namespace, &capability);
    let (mut command, _directory) = script("openid-client-ciba.mjs", &tenant);
    command.env("AGENT", tenant.subject()).env("CAPABILITY", &capability);
    let (output, asked) = std::thread::scope(|scope| {
        let node = scope.spawn(|| command.output().expect("node"));
        // What the messages ask of the person; the third request is left alone.
        let verdicts = [("approve", "Approved"), ("deny", "Denied")];
        let waits =
            |word: &str| tenant.requests().into_iter().find(|request| message(request).starts_with(word) && is_pending(request));
        let found = || verdicts.map(|(word, _)| waits(word));
        wait_until("two requests wait for a person", PATIENCE, || node.is_finished() || found().iter().all(Option::is_some));
        // A person takes longer than the 2 s after which the library polls: by now that is held.
        std::thread::sleep(Duration::from_secs(3));
        let asked: Vec<Value> = found().into_iter().flatten().collect();
        for (request, (_, verdict)) in asked.iter().zip(verdicts) {
            world.decide("bob", &tenant.namespace, name(request), verdict).expect("decided");
        }
        (node.join().expect("node"), asked)
    });
    let outcome = outcome(&output);
    let [approved, denied] = asked.as_slice() else { panic!("two requests, not {asked:?}") };
    assert_eq!(outcome["digest"], approved["status"]["digest"], "the token is for what the person saw");
    assert_eq!(outcome["refused"], serde_json::json!(["access_denied", "expired_token"]));

    let status = |word: &str| {
        let request = tenant.requests().into_iter().find(|request| message(request).starts_with(word));
        request.expect("kept for an hour")["status"].clone()
    };
    assert_eq!((&status("approve")["phase"], &status("approve")["jti"]), (&"Issued".into(), &outcome["jti"]));
    assert_eq!(status("deny")["phase"], "Denied");
    wait_until("the third is marked as expired", PATIENCE, || status("leave")["phase"] == "Expired");
    // The poll was held: nobody was told to ask again.
    for request in [approved, denied] {
        let id = format!("{}/{}", tenant.namespace, name(request));
        let records = world.operator.audit_lines().expect("the audit log");
        let polls = records.iter().filter(|record| record["event"] == "token.issue" && record["jit_request"] == id.as_str());
        assert_eq!(polls.count(), 1, "one poll of {id}");
    }
}

fn name(request: &Value) -> &str {
    request["metadata"]["name"].as_str().expect("a name")
}

/// What the agent tells the person.
fn message(request: &Value) -> &str {
    request["spec"]["justification"].as_str().expect("a justification")
}

fn is_pending(request: &Value) -> bool {
    request["status"]["phase"] == "Pending"
}
