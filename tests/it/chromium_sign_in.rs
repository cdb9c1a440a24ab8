//! Signing in to the portal, and out, in Chromium: `tests/portal/sign-in.mjs`.

use crate::organisation::{Organisation, group};
use crate::payments::asked;
use serde_json::{Value, json};

/// A namespace in which the treasury decides, and what a scenario must know of it.
fn settings(organisation: &Organisation, namespace: &str) -> Value {
    json!({
        "namespace": namespace,
        "user": "oidc:dana@acme.example",
        "tokens": organisation.tokens(&["dana"]),
    })
}

/// Runs one that asks nothing, in a namespace of its own.
fn run(purpose: &str, name: &str) {
    let organisation = Organisation::shared();
    let (tenant, capability) = organisation.world.payments_tenant(purpose);
    organisation.world.approvers("treasury", &[group("treasury")], &tenant.namespace, &capability);
    organisation.scenario("sign-in.mjs", name, settings(organisation, &tenant.namespace)).ends().expect("it ends well");
}

#[test]
fn a_person_signs_in_with_a_token_that_no_script_can_read_afterwards() {
    run("token", "with a token");
}

#[test]
fn a_person_signs_in_at_the_identity_provider_with_scripts_and_without() {
    run("provider", "at the identity provider");
}

#[test]
fn signing_out_ends_the_session_for_whoever_has_copied_its_cookie() {
    run("out", "and out");
}

#[test]
fn signing_out_works_without_scripts() {
    run("out-plain", "and out without scripts");
}

#[test]
fn a_page_that_is_open_when_its_session_ends_shows_nothing_more() {
    let organisation = Organisation::shared();
    let world = &organisation.world;
    let (tenant, capability) = world.payments_tenant("left-open");
    world.approvers("treasury", &[group("treasury")], &tenant.namespace, &capability);
    let settings = settings(organisation, &tenant.namespace);
    let mut scenario = organisation.scenario("sign-in.mjs", "a page that is open is told nothing more", settings);
    scenario.reaches("signed out").expect("signed out");
    scenario.answer(&json!({"uid": asked(&tenant, &capability).id}));
    scenario.ends().expect("it ends well");
}
