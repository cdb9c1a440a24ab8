//! Clients and verifiers that other people wrote, unmodified, against the running service. See `tests/clients`.

use crate::support::repository;
use crate::world::{DOCS, World};
use std::process::Command;

/// Runs a script of `tests/clients` with an agent's credential and a resource server's.
fn run(script: &str) {
    let world = World::shared();
    let (tenant, server) = (world.tenant("client"), world.resource_server(DOCS));
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let output = Command::new("node")
        .arg(repository().join("tests/clients").join(script))
        .env("COUNTERSIGN_URL", world.operator.url())
        .env("NODE_EXTRA_CA_CERTS", world.operator.ca_file())
        .env("AUDIENCE", DOCS)
        .env("TOKEN_FILE", file("token", &tenant.token))
        .env("RS_TOKEN_FILE", file("server-token", &server))
        .output()
        .expect("node");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {out}{err}\n(run `make clients` if a package is missing)");
    assert!(out.trim_start().starts_with('{'), "{script} says what it did: {out}");
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
