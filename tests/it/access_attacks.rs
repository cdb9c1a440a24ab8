//! Attempts to be allowed more than was granted, on the running service: by names that look like others, by what is written later, through
//! agents that hold more, and by taking a rule away.

use crate::access::{decided, evaluate, no, question, subject, with_token, yes};
use crate::payments::docs_server;
use crate::world::{CLIENT_ASSERTION, JWT_BEARER, PATIENCE, TOKEN_EXCHANGE, World, wait_until};
use serde_json::json;

#[test]
fn c2_only_the_exact_name_is_a_capability() {
    let world = World::shared();
    let bot = world.tenant("c2");
    for name in [
        "document.read ",
        " document.read",
        "document.read\t",
        "document.read\u{a0}",
        "Document.read",
        "DOCUMENT.READ",
        "d\u{43e}cument.read",
        "document\u{2024}read",
        "document.read document.delete",
        "document.read,web.search",
        "-document.read",
        "document.*",
        "*",
        "document.read\u{0}",
        "document.rea\u{200b}d",
    ] {
        let asked = question(&subject(&bot), name, "document:reports/q3", &json!({}));
        assert_eq!(decided(evaluate(world, &bot.token, &asked)), no("capability_not_granted"), "{name:?}");
        let form = [("grant_type", JWT_BEARER), ("assertion", bot.token.as_str()), ("scope", name)];
        let reply = world.request(&form);
        assert!(reply.status == 400 && reply.body.get("access_token").is_none(), "{name:?}: {:?}", reply.body);
        let details =
            json!([{"type": "countersign_operation", "capability": name, "resource": "document:reports/q3"}]).to_string();
        let form = [("grant_type", JWT_BEARER), ("assertion", bot.token.as_str()), ("authorization_details", &details)];
        assert_eq!(world.request(&form).status, 400, "{name:?}");
    }
}

#[test]
fn c3_no_resource_climbs_out_of_its_pattern() {
    let world = World::shared();
    let bot = world.tenant("c3");
    for id in [
        "reports/../drafts/q3",
        "reports/q3/../../drafts",
        "reports/*",
        "reports/**",
        "reports/q3\n",
        "reports/q3\u{0}",
        "reports//q3",
        "/reports/q3",
        "reports/",
        "reports",
        "REPORTS/q3",
        "reports/q3/secret",
        "reports\u{2215}q3",
        "(?s)reports/q3",
        "reports\\q3",
    ] {
        let asked =
            json!({"subject": subject(&bot), "action": {"name": "document.read"}, "resource": {"type": "document", "id": id}});
        assert_eq!(decided(evaluate(world, &bot.token, &asked)), no("resource_not_granted"), "{id:?}");
    }
}

#[test]
fn c4_what_is_written_over_is_judged_anew() {
    let world = World::shared();
    let bot = world.tenant_with(
        "c4",
        &json!({"capabilities": [{"name": "document.read", "resources": ["document:reports/*"], "when": "true"}]}),
    );
    let asked = question(&subject(&bot), "document.read", "document:reports/q3", &json!({}));
    assert_eq!(decided(evaluate(world, &bot.token, &asked)), yes());
    let patch = |entry: serde_json::Value| {
        let patch = json!({"spec": {"capabilities": [entry]}}).to_string();
        let arguments = ["patch", "agent", "bot", "--namespace", &bot.namespace, "--type=merge", "-p", &patch];
        world.kubectl().run(&arguments).map_err(|failure| failure.stderr)
    };
    for refused in [
        json!({"name": "document.read", "resources": ["document:../x"]}),
        json!({"name": "document.read", "resources": "document:reports/*"}),
        json!({"name": "document.read", "when": {"cel": "true"}}),
        json!({"name": "document.read", "when": ""}),
        json!({"name": "document.read", "when": "x".repeat(1025)}),
        json!({"name": "document.read", "unless": "true"}),
    ] {
        assert!(patch(refused.clone()).is_err() || bot.agent()["spec"]["capabilities"][0].get("unless").is_none(), "{refused}");
    }
    patch(json!({"name": "document.read", "when": "1 + 1"})).expect("CEL all the same");
    wait_until("what is no truth denies", PATIENCE, || decided(evaluate(world, &bot.token, &asked)) == no("condition_undecided"));
    patch(json!({"name": "document.read", "when": "document.ready"})).expect("a text");
    wait_until("what is no condition denies", PATIENCE, || {
        decided(evaluate(world, &bot.token, &asked)) == no("condition_invalid")
    });
}

#[test]
fn c5_an_agent_has_nothing_from_a_stronger_one_that_calls_it() {
    let world = World::shared();
    let strong = world.tenant_with("c5-strong", &json!({"capabilities": [{"name": "document.delete"}, {"name": "web.search"}]}));
    let callers = json!({"callers": [{"namespace": strong.namespace, "name": "bot"}]});
    let weak = world.tenant_with("c5-weak", &json!({"capabilities": [{"name": "web.search"}], "delegation": callers}));
    let called = world.request(&[("grant_type", JWT_BEARER), ("assertion", &strong.token), ("audience", &weak.subject())]);
    let called = called.expect(200).text("access_token");
    let exchange = |more: &[(&str, &str)]| {
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", called.as_str()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", weak.token.as_str()),
        ];
        world.request(&[&form[..], more].concat())
    };
    exchange(&[("scope", "document.delete")]).refused(400, "invalid_scope");
    let details = json!([{"type": "countersign_operation", "capability": "document.delete", "resource": "document:reports/q3"}])
        .to_string();
    exchange(&[("authorization_details", &details)]).refused(400, "invalid_scope");
    let token = exchange(&[]).expect(200).text("access_token");
    let server = docs_server(world);
    let asked = |capability: &str| {
        decided(evaluate(
            world,
            &server,
            &with_token(question(&subject(&weak), capability, "document:reports/q3", &json!({})), &token),
        ))
    };
    assert_eq!((asked("document.delete"), asked("web.search")), (no("capability_not_granted"), yes()));
    // Nor the other way round: what the strong one may do through the weak one is what both may.
    strong.patch(
        &json!({"spec": {"capabilities": [{"name": "document.delete"}, {"name": "web.search", "when": "chain.depth == 1"}]}}),
    );
    wait_until("the condition of an earlier agent counts", PATIENCE, || !asked("web.search").0);
}

#[test]
fn c10_a_rule_that_is_gone_or_cannot_be_read_denies() {
    let world = World::shared();
    let (bot, capability) = world.payments_tenant("c10");
    let asked = question(&subject(&bot), &capability, "invoice:2026/7", &json!({"amount": 5}));
    let code = || decided(evaluate(world, &bot.token, &asked));
    assert_eq!(code(), no("approval_required"));
    let patch = json!({"spec": {"parameterSchema": {"$ref": "https://elsewhere.example/schema"}}}).to_string();
    world.kubectl().run(&["patch", "capability", &capability, "--type=merge", "-p", &patch]).expect("patched");
    wait_until("a rule that cannot be read denies", PATIENCE, || code() == no("rule_unreadable"));
    world.kubectl().run(&["delete", "capability", &capability]).expect("deleted");
    wait_until("a rule that is gone denies", PATIENCE, || code() == no("rule_missing"));
}
