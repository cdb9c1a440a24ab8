//! Texts that want to be more than texts, in the portal, in Chromium: `tests/portal/hostile.mjs`.

use crate::organisation::Organisation;
use crate::payments::{Asked, ask_at, details, kubectl_of};
use crate::world::{DOCS, PATIENCE};
use serde_json::json;

const TITLE: &str = "<img src=https://evil.example/title onerror=alert(1)>";
const DESCRIPTION: &str = "</p><script>alert(2)</script><style>*{display:none}</style>";
const DISPLAY_NAME: &str = "\"><svg onload=alert(3)><b>שלום";
const JUSTIFICATION: &str = "</blockquote><iframe src=\"javascript:alert(4)\"></iframe> مرحبا {{7*7}} ${7*7}";
const COMMENT: &str = "'\"><img src=x onerror=alert(5)> שלום";
const PARAMETER: &str = "<div hx-get='https://evil.example/' hx-trigger='load' hx-on:load='alert(6)'>";
const QUOTES: &str = "\" autofocus onfocus=alert(7) x=\"";

#[test]
fn h15_texts_of_agents_owners_and_administrators_do_nothing_on_any_page() {
    let organisation = Organisation::shared();
    let world = &organisation.world;
    organisation.alice_audits();
    let capability = world.capability(&json!({
        "title": TITLE,
        "description": DESCRIPTION,
        "headline": "<b>pay</b> \"{amount}\" {note}",
    }));
    let entry = json!({"name": capability, "approval": "Required", "when": "'<script>alert(8)</script>' != ''"});
    let tenant = world.tenant_with("hostile", &json!({"displayName": DISPLAY_NAME, "capabilities": [entry]}));
    let namespace = &tenant.namespace;
    organisation.alice_runs(namespace, &[&capability], &capability);

    let parameters =
        json!({"amount": PARAMETER, "note": "javascript:alert(9)", "quotes": QUOTES, "deep": {"er": ["<u>", {"a": "</code>"}]}});
    let details = details(&capability, "invoice:2026/7", &parameters).to_string();
    let form = [("authorization_details", details.as_str()), ("binding_message", JUSTIFICATION)];
    let asked = Asked::of(&tenant, ask_at(&world.operator.url(), &tenant, &form, &[]).expect(200).text("auth_req_id"));
    asked.reaches("Pending");
    // Past the token service: with what the operator denies, and what it does not say is refused.
    let turned = json!({"<script>alert(10)</script>": "invoice\u{202e}fdp.exe", "zero\u{200b}width": "\u{2066}\u{1b}[31m"});
    let request = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "JitRequest",
        "metadata": {"name": "turned", "namespace": namespace},
        "spec": {"agent": {"name": "bot"}, "operation": {"capability": capability, "audience": DOCS, "parameters": turned}},
    });
    kubectl_of(&tenant).apply(&request.to_string()).expect("the API server has no rule against it");
    world.kubectl().wait_for(namespace, "jit/turned", "jsonpath={.status.phase}=Denied", PATIENCE).expect("the operator has");

    let path = |path: &str, texts: &[&str]| json!({"path": path, "texts": texts});
    let (one, agent) = (format!("/portal/requests/{namespace}/{}", asked.name), format!("/portal/agents/{namespace}/bot"));
    let settings = json!({
        "namespace": namespace,
        "tokens": organisation.tokens(&["alice"]),
        "request": one,
        "shown": {"comment": COMMENT},
        "paths": [
            path(&format!("/portal?namespace={namespace}"), &["<b>pay</b>", "hx-get"]),
            path(&format!("/portal?show=all&namespace={namespace}"), &["bot wants"]),
            path(&one, &[TITLE, DESCRIPTION, JUSTIFICATION, PARAMETER, QUOTES, "javascript:alert(9)"]),
            path(&format!("/portal/requests/{namespace}/turned"), &["<script>alert(10)</script>", r"invoice\u{202e}fdp.exe", r"zero\u{200b}width"]),
            path(&format!("/portal/agents?namespace={namespace}"), &[DISPLAY_NAME]),
            path(&agent, &[DISPLAY_NAME, "<script>alert(8)</script>"]),
            path(&format!("{agent}/edit"), &["<script>alert(8)</script>"]),
            path(&format!("/portal/audit?mentions={}", asked.id), &[&asked.id]),
            path(&format!("/portal/audit/trace?subject={}", asked.id), &[&asked.id]),
        ],
    });
    let mut scenario = organisation.scenario("hostile.mjs", "nothing does anything", settings);
    scenario.reaches("denied").expect("denied");
    assert_eq!(asked.status()["approvals"][0]["comment"], COMMENT);
    scenario.answer(&json!({}));
    scenario.ends().expect("it ends well");
}

#[test]
fn h15_the_name_of_a_person_and_the_address_of_a_page_do_nothing_either() {
    let organisation = Organisation::shared();
    let settings = json!({
        "tokens": organisation.tokens(&["xavier"]),
        "user": r#"oidc:"><script>alert(1)</script>\u{202e}@acme.example"#,
    });
    organisation.scenario("hostile.mjs", "who is called something dangerous", settings).ends().expect("it ends well");
}
