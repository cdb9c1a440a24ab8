//! How the pages of the portal look, and whether everybody can use them, in Chromium: `tests/portal/pictures.mjs`. The pictures are left in
//! `.dev/portal-screenshots`.

use crate::chromium_audit::{chain, team};
use crate::organisation::{Organisation, group};
use crate::payments::{ask_at, asked_for, details};
use crate::world::{PATIENCE, wait_until};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// What there is to see, made once.
fn pages() -> &'static Value {
    static PAGES: OnceLock<Value> = OnceLock::new();
    PAGES.get_or_init(|| {
        let organisation = Organisation::shared();
        let world = &organisation.world;
        organisation.alice_audits();
        let team = team(organisation, "gallery");
        let jti = chain(organisation, &team);
        let approval = json!({"required": true, "approvals": 2});
        let capability = world.capability(&json!({
            "headline": "pay {amount} {currency} on {id}",
            "description": "Sends money from the company's account. It cannot be taken back.",
            "approval": approval,
        }));
        let low = world.capability(&json!({"title": "Send a letter", "risk": "Low"}));
        let entries = [&capability, &low].map(|name| json!({"name": name, "approval": "Required"}));
        let tenant = world.tenant_with("look", &json!({"displayName": "Payments Bot", "capabilities": entries}));
        let namespace = &tenant.namespace;
        organisation.alice_runs(namespace, &["document.read"], &capability);
        world.approvers("treasury", &[group("treasury")], namespace, &capability);
        let parameters = json!({"amount": "1250.00", "currency": "EUR", "payee": {"name": "ACME GmbH", "iban": "DE02120300000000202051"}});
        let operation = details(&capability, "invoice:2026/INV-7", &parameters).to_string();
        let words = "The supplier has sent a second reminder; the invoice was checked against the order and the delivery note.";
        let form = [("authorization_details", operation.as_str()), ("binding_message", words)];
        let id = ask_at(&world.operator.url(), &tenant, &form, &[]).expect(200).text("auth_req_id");
        let open = crate::payments::Asked::of(&tenant, id);
        open.reaches("Pending");
        let patch = |verdict: &str| json!({"status": {"decision": {"verdict": verdict, "comment": "Checked with the supplier."}}}).to_string();
        let decide = |name: &str, verdict: &str| {
            let arguments = ["patch", "jit", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &patch(verdict)];
            organisation.person("dana").run(&arguments).expect("she decides");
        };
        decide(&open.name, "Approved");
        wait_until("one has approved", PATIENCE, || open.status()["approvalProgress"] == "1/2");
        let denied = asked_for(&tenant, &details(&capability, "invoice:2026/INV-8", &json!({"amount": "9.99", "currency": "EUR"})));
        decide(&denied.name, "Denied");
        denied.reaches("Denied");
        for number in 0..3 {
            asked_for(&tenant, &details(&low, &format!("letter:2026/{number}"), &json!({"to": "everybody"})));
        }
        let page = |name: &str, path: &str| json!({"name": name, "path": path});
        let refused = |name: &str, path: &str, status: u16| json!({"name": name, "path": path, "status": status});
        let request = |name: &str| format!("/portal/requests/{namespace}/{name}");
        json!({"namespace": namespace, "pages": [
            refused("inbox forbidden", "/portal", 403),
            page("inbox", &format!("/portal?namespace={namespace}")),
            page("inbox all", &format!("/portal?show=all&namespace={namespace}")),
            page("inbox empty", &format!("/portal?namespace={}", world_of_nothing(organisation))),
            page("request", &request(&open.name)),
            json!({"name": "request with kubectl", "path": request(&open.name), "open": ["#kubectl-approve summary", "#kubectl-deny summary"]}),
            page("request denied", &request(&denied.name)),
            refused("request missing", &request("none"), 404),
            page("agents", &format!("/portal/agents?namespace={namespace}")),
            page("agent", &format!("/portal/agents/{namespace}/bot")),
            page("agent edit", &format!("/portal/agents/{namespace}/bot/edit")),
            page("agent new", "/portal/agents/new"),
            page("audit", &format!("/portal/audit?agent=agent:{namespace}/bot")),
            json!({"name": "audit record", "path": format!("/portal/audit?agent=agent:{namespace}/bot"), "open": ["#records summary"]}),
            page("trace", &format!("/portal/audit/trace?subject={jti}")),
            page("trace of a request", &format!("/portal/audit/trace?subject={}", denied.id)),
            page("trace empty", "/portal/audit/trace"),
            refused("not there", "/portal/nowhere", 404),
        ]})
    })
}

/// A namespace in which nothing happens.
fn world_of_nothing(organisation: &Organisation) -> String {
    let namespace = organisation.world.namespace("quiet");
    organisation.alice_runs(&namespace, &[], "document.read");
    namespace
}

fn look(scheme: &str, size: &str) {
    let mut settings = pages().clone();
    let organisation = Organisation::shared();
    settings["tokens"] = organisation.tokens(&["alice"]);
    settings["scheme"] = json!(scheme);
    settings["size"] = json!(size);
    organisation.scenario("pictures.mjs", "every page", settings).ends().expect("it ends well");
}

#[test]
fn every_page_can_be_used_by_everybody_in_light_on_a_desk() {
    look("light", "desk");
}

#[test]
fn every_page_can_be_used_by_everybody_in_dark_on_a_desk() {
    look("dark", "desk");
}

#[test]
fn every_page_can_be_used_by_everybody_in_light_on_a_phone() {
    look("light", "phone");
}

#[test]
fn every_page_can_be_used_by_everybody_in_dark_on_a_phone() {
    look("dark", "phone");
}
