//! People who decide in the portal, in Chromium: `tests/portal/decisions.mjs`.

use crate::organisation::{Organisation, group};
use crate::payments::{Asked, ask_at, asked, asked_for, details};
use crate::world::{PATIENCE, Tenant, World, claims};
use serde_json::{Value, json};

const PURPOSE: &str = "the invoice is due";

/// An agent that may pay with approvals of the treasury, so many of them. Returns it and the capability.
fn payments<'a>(world: &'a World, purpose: &str, approvals: u8) -> (Tenant<'a>, String) {
    let approval = json!({"required": true, "approvals": approvals});
    let capability = world.capability(&json!({"headline": "pay {amount} {currency} on {id}", "approval": approval}));
    let entry = json!({"name": capability, "approval": "Required", "resources": ["invoice:2026/*"]});
    let tenant = world.tenant_with(purpose, &json!({"capabilities": [entry]}));
    world.approvers("treasury", &[group("treasury")], &tenant.namespace, &capability);
    (tenant, capability)
}

/// The agent asks, and says why.
fn ask<'a>(tenant: &'a Tenant<'a>, capability: &str) -> Asked<'a> {
    let operation = details(capability, "invoice:2026/7", &json!({"amount": 500, "currency": "EUR"})).to_string();
    let form = [("authorization_details", operation.as_str()), ("binding_message", PURPOSE)];
    let reply = ask_at(&tenant.world.operator.url(), tenant, &form, &[]);
    let asked = Asked::of(tenant, reply.expect(200).text("auth_req_id"));
    asked.reaches("Pending");
    asked
}

fn settings(tenant: &Tenant<'_>, scripts: bool, people: &[&str]) -> Value {
    json!({
        "namespace": tenant.namespace,
        "javaScriptEnabled": scripts,
        "tokens": Organisation::shared().tokens(people),
    })
}

/// One request, from when it appears in an open inbox until its agent, which waits, has its answer.
fn decided(purpose: &str, scripts: bool, verdict: &str) {
    let organisation = Organisation::shared();
    let (tenant, capability) = payments(&organisation.world, purpose, 1);
    let name = format!("a request appears and is {}", verdict.to_lowercase());
    let mut scenario = organisation.scenario("decisions.mjs", &name, settings(&tenant, scripts, &["dana"]));
    scenario.reaches("the inbox is empty").expect("the inbox");
    let asked = ask(&tenant, &capability);
    let reply = std::thread::scope(|scope| {
        let poll = scope.spawn(|| asked.poll_at(&organisation.world.operator.url(), "30"));
        scenario.answer(&json!({
            "uid": asked.id,
            "headline": "bot wants to pay 500 EUR on 2026/7",
            "digest": asked.status()["digest"],
            "justification": PURPOSE,
        }));
        scenario.reaches("decided").expect("decided");
        poll.join().expect("an answer")
    });
    let approval = asked.status()["approvals"][0].clone();
    assert_eq!(approval["by"]["username"], "oidc:dana@acme.example", "{approval}");
    assert_eq!((&approval["verdict"], &approval["comment"]), (&json!(verdict), &json!("seen on a page")), "{approval}");
    if verdict == "Approved" {
        let granted = claims(&reply.expect(200).text("access_token"))["authorization_details"][0].clone();
        assert_eq!(granted["digest"], asked.status()["digest"]);
    } else {
        reply.refused(400, "access_denied");
    }
    scenario.answer(&json!({}));
    scenario.ends().expect("it ends well");
}

#[test]
fn a_request_appears_by_itself_and_its_approval_brings_the_waiting_agent_its_token() {
    decided("shown", true, "Approved");
}

#[test]
fn a_request_is_denied_and_the_waiting_agent_is_told() {
    decided("denied", true, "Denied");
}

#[test]
fn without_scripts_a_request_is_approved_too() {
    decided("shown-plain", false, "Approved");
}

#[test]
fn without_scripts_a_request_is_denied_too() {
    decided("denied-plain", false, "Denied");
}

fn two(purpose: &str, scripts: bool) {
    let organisation = Organisation::shared();
    let (tenant, capability) = payments(&organisation.world, purpose, 2);
    let asked = ask(&tenant, &capability);
    let mut settings = settings(&tenant, scripts, &["dana", "erik"]);
    settings["uid"] = json!(asked.id);
    organisation.scenario("decisions.mjs", "two people approve", settings).ends().expect("it ends well");
    let status = asked.status();
    let by: Vec<&Value> = status["approvals"].as_array().expect("approvals").iter().map(|a| &a["by"]["username"]).collect();
    assert_eq!(by, ["oidc:dana@acme.example", "oidc:dana@acme.example", "oidc:erik@acme.example"]);
    asked.token();
}

#[test]
fn two_people_approve_in_two_browsers_and_one_of_them_twice_is_one() {
    two("two", true);
}

#[test]
fn without_scripts_two_people_approve_too() {
    two("two-plain", false);
}

/// Requests that dana may not approve, each for another reason.
fn refused(purpose: &str, scripts: bool) {
    let organisation = Organisation::shared();
    let world = &organisation.world;
    let (tenant, capability) = payments(world, purpose, 1);
    let owned = ask(&tenant, &capability);
    // Of a capability on which erik may decide, and she may not.
    let other = world.capability(&json!({}));
    let entries = [capability.as_str(), &other].map(|name| json!({"name": name, "approval": "Required"}));
    tenant.patch(&json!({"spec": {"owner": "oidc:dana@acme.example", "capabilities": entries}}));
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE).expect("seen");
    let foreign = asked_for(&tenant, &details(&other, "invoice:2026/8", &json!({})));
    let mut settings = settings(&tenant, scripts, &["dana"]);
    settings["cases"] = json!([
        {"name": "dana", "uid": owned.id, "hint": "oidc:dana@acme.example owns agent:", "outcome": "owns an agent"},
        {"name": "dana", "uid": foreign.id, "hint": "You may not decide on this", "outcome": format!("capabilities.countersign.dev/{other}")},
    ]);
    organisation.scenario("decisions.mjs", "who may not approve is told why", settings).ends().expect("it ends well");
    assert!(owned.status()["approvals"][0]["void"].as_str().is_some_and(|why| why.contains("owns an agent")));
    assert!(foreign.status()["approvals"].as_array().is_none_or(Vec::is_empty), "nothing was written");
    for asked in [owned, foreign] {
        asked.poll().refused(400, "authorization_pending");
    }
}

#[test]
fn whoever_owns_the_agent_or_lacks_the_right_does_not_approve_and_is_told_why() {
    refused("refused", true);
}

#[test]
fn without_scripts_whoever_may_not_approve_is_told_why_too() {
    refused("refused-plain", false);
}

#[test]
fn without_scripts_a_page_follows_what_happens_if_it_is_told_to() {
    let organisation = Organisation::shared();
    let (tenant, capability) = payments(&organisation.world, "reload", 1);
    let settings = settings(&tenant, false, &["dana"]);
    let mut scenario = organisation.scenario("decisions.mjs", "a page without scripts loads itself again if told so", settings);
    scenario.reaches("it loads itself again").expect("the link");
    scenario.answer(&json!({"uid": asked(&tenant, &capability).id}));
    scenario.ends().expect("it ends well");
}

#[test]
fn a_person_approves_with_the_keyboard_alone_and_sees_where_the_focus_is() {
    let organisation = Organisation::shared();
    let (tenant, capability) = payments(&organisation.world, "keyboard", 1);
    let asked = ask(&tenant, &capability);
    let mut settings = settings(&tenant, true, &["dana"]);
    settings["uid"] = json!(asked.id);
    organisation.scenario("decisions.mjs", "with the keyboard alone", settings).ends().expect("it ends well");
    assert_eq!(asked.status()["approvals"][0]["comment"], "typed");
}

#[test]
fn what_a_person_is_typing_stays_while_the_page_follows_what_others_do() {
    let organisation = Organisation::shared();
    let (tenant, capability) = payments(&organisation.world, "typing", 2);
    let asked = ask(&tenant, &capability);
    let mut settings = settings(&tenant, true, &["dana"]);
    settings["uid"] = json!(asked.id);
    let mut scenario = organisation.scenario("decisions.mjs", "what is typed stays while the page follows", settings);
    scenario.reaches("typing").expect("typing");
    let patch = json!({"status": {"decision": {"verdict": "Approved"}}}).to_string();
    let arguments = ["patch", "jit", &asked.name, "-n", &tenant.namespace, "--subresource=status", "--type=merge", "-p", &patch];
    organisation.person("erik").run(&arguments).expect("he decides");
    scenario.answer(&json!({}));
    scenario.ends().expect("it ends well");
}
