//! The schema of Agents: what the API server refuses, and what it tells.

use crate::world::{DOCS, PATIENCE, World, agent, wait_until};
use serde_json::{Value, json};

/// Creates nothing, but goes all the way through validation and admission.
pub fn dry_run(world: &World, object: &Value) -> Result<String, String> {
    let arguments = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    world.kubectl().run_with_input(&arguments, &object.to_string()).map_err(|failure| failure.stderr)
}

#[test]
fn every_field_has_bounds_and_a_type() {
    let world = World::shared();
    let namespace = world.namespace("schema");
    let many = |n: usize| (0..n).map(|i| json!({"name": format!("n{i}")})).collect::<Vec<_>>();
    let resources = |r: Value| json!({"capabilities": [{"name": "a.b", "resources": r}]});
    let audience = |a: &str| json!({"tokens": {"audiences": [{"name": a}]}});
    let accounts = |a: Value| json!({"identity": {"serviceAccounts": a}});
    let good = [
        json!({}),
        json!({"displayName": "Research Bot – Größe 3 🦀"}),
        json!({"suspended": true}),
        json!({"capabilities": []}),
        json!({"capabilities": many(64)}),
        json!({"tokens": {"expirationSeconds": 900}}),
        json!({"tokens": {"expirationSeconds": 1}}),
        json!({"tokens": null}),
        json!({"tokens": {"proofOfPossession": "DPoP"}}),
        json!({"tokens": {"proofOfPossession": "None"}}),
        resources(json!(["document:**", "document:a/b/c/**", "repo:org/*", "x:*"])),
        audience("urn:example:docs"),
        accounts(json!(many(16))),
        json!({"capabilities": [{"name": "a.b", "approval": "Required"}, {"name": "c"}]}),
        json!({"owner": "system:serviceaccounts:research team"}),
    ];
    for spec in good {
        dry_run(world, &agent(&namespace, "bot", &spec.clone())).unwrap_or_else(|e| panic!("{spec}: {e}"));
    }
    let bad = [
        // spec.owner
        json!({"owner": null}),
        json!({"owner": ""}),
        json!({"owner": " team"}),
        json!({"owner": "a\nb"}),
        json!({"owner": "te\u{0430}m"}),
        json!({"owner": "x".repeat(254)}),
        json!({"owner": 7}),
        // spec.displayName
        json!({"displayName": ""}),
        json!({"displayName": "x".repeat(101)}),
        json!({"displayName": "a\u{202e}b"}),
        json!({"displayName": "a\u{0}b"}),
        json!({"displayName": "a\nb"}),
        json!({"displayName": ["a"]}),
        // spec.suspended
        json!({"suspended": "yes"}),
        json!({"suspended": 1}),
        // spec.identity
        json!({"identity": null}),
        json!({"identity": {}}),
        accounts(json!([])),
        accounts(json!(many(17))),
        accounts(json!([{"name": "A"}])),
        accounts(json!([{"name": ""}])),
        accounts(json!([{"name": "other/bot"}])),
        accounts(json!([{"name": "a"}, {"name": "a"}])),
        accounts(json!(["a"])),
        // spec.capabilities
        json!({"capabilities": null}),
        json!({"capabilities": many(65)}),
        json!({"capabilities": [{}]}),
        json!({"capabilities": ["a.b"]}),
        json!({"capabilities": [{"name": "a"}, {"name": "a"}]}),
        json!({"capabilities": [{"name": "read write"}]}),
        json!({"capabilities": [{"name": "Document.read"}]}),
        json!({"capabilities": [{"name": "*"}]}),
        json!({"capabilities": [{"name": "d\u{43e}c.read"}]}),
        json!({"capabilities": [{"name": "-a"}]}),
        json!({"capabilities": [{"name": "a".repeat(101)}]}),
        json!({"capabilities": [{"name": ""}]}),
        json!({"capabilities": [{"name": "a.b", "approval": "required"}]}),
        json!({"capabilities": [{"name": "a.b", "approval": "Optional"}]}),
        json!({"capabilities": [{"name": "a.b", "approval": true}]}),
        // resources
        resources(json!([])),
        resources(json!(["document"])),
        resources(json!(["document:a/../b"])),
        resources(json!(["document:.."])),
        resources(json!(["document:./a"])),
        resources(json!(["document:a//b"])),
        resources(json!(["document:/a"])),
        resources(json!(["document:a/"])),
        resources(json!(["document:**/a"])),
        resources(json!(["document:a**"])),
        resources(json!(["document:a b"])),
        resources(json!(["document:a\n"])),
        resources(json!(["a:b", "a:b"])),
        resources(json!([format!("a:{}", "b".repeat(255))])),
        resources(json!((0..33).map(|i| format!("a:{i}")).collect::<Vec<_>>())),
        // tokens
        json!({"tokens": {"proofOfPossession": "dpop"}}),
        json!({"tokens": {"proofOfPossession": "MTLS"}}),
        json!({"tokens": {"proofOfPossession": ""}}),
        json!({"tokens": {"proofOfPossession": true}}),
        json!({"tokens": {"expirationSeconds": 0}}),
        json!({"tokens": {"expirationSeconds": 901}}),
        json!({"tokens": {"expirationSeconds": -1}}),
        json!({"tokens": {"expirationSeconds": 1.5}}),
        json!({"tokens": {"expirationSeconds": "300"}}),
        json!({"tokens": {"audiences": many(33)}}),
        json!({"tokens": {"audiences": [{"name": DOCS}, {"name": DOCS}]}}),
        audience(""),
        audience("agent:a/b"),
        audience("user:alice"),
        audience("https://a b"),
        audience("https://\u{e9}"),
        audience(&"a".repeat(257)),
        json!({"tokens": {"audiences": [{"name": DOCS, "signingAlgorithm": "RS256"}]}}),
        json!({"tokens": {"audiences": [{"name": DOCS, "signingAlgorithm": "es256"}]}}),
        json!({"tokens": {"audiences": [{"name": DOCS, "signingAlgorithm": ""}]}}),
    ];
    for spec in bad {
        let refused = dry_run(world, &agent(&namespace, "bot", &spec.clone()));
        let message = refused.expect_err(&format!("{spec} was accepted"));
        assert!(message.contains("spec") || message.contains("strict decoding"), "{spec}: {message}");
    }
}

#[test]
fn a_field_that_does_not_exist_is_refused() {
    let world = World::shared();
    let namespace = world.namespace("unknown");
    for spec in [
        json!({"surprise": true}),
        json!({"capabilities": [{"name": "a.b", "resource": "document:x"}]}),
        json!({"tokens": {"expirationSecond": 1}}),
        json!({"identity": {"serviceAccounts": [{"name": "bot", "namespace": "other"}]}}),
        json!({"delegation": {"depth": 4}}),
    ] {
        let message = dry_run(world, &agent(&namespace, "bot", &spec.clone())).expect_err("unknown");
        assert!(message.contains("unknown field"), "{spec}: {message}");
    }
}

#[test]
fn the_name_of_an_agent_is_a_label() {
    let world = World::shared();
    let namespace = world.namespace("names");
    for name in ["a.b", &"a".repeat(64)] {
        let mut object = agent(&namespace, "x", &json!({}));
        object["metadata"]["name"] = json!(name);
        let message = dry_run(world, &object).expect_err(name);
        assert!(message.contains("RFC 1123 label"), "{message}");
    }
    let mut object = agent(&namespace, "x", &json!({}));
    object["metadata"]["name"] = json!("a".repeat(63));
    dry_run(world, &object).expect("63 characters are allowed");
}

#[test]
fn kubectl_explains_every_field() {
    let world = World::shared();
    for path in [
        "agent",
        "agent.spec",
        "agent.spec.owner",
        "agent.spec.displayName",
        "agent.spec.suspended",
        "agent.spec.identity",
        "agent.spec.identity.serviceAccounts",
        "agent.spec.identity.serviceAccounts.name",
        "agent.spec.capabilities",
        "agent.spec.capabilities.name",
        "agent.spec.capabilities.resources",
        "agent.spec.capabilities.approval",
        "agent.spec.tokens",
        "agent.spec.tokens.expirationSeconds",
        "agent.spec.tokens.proofOfPossession",
        "agent.spec.tokens.audiences",
        "agent.spec.tokens.audiences.name",
        "agent.spec.tokens.audiences.signingAlgorithm",
        "agent.status",
        "agent.status.conditions",
        "agent.status.observedGeneration",
        "agent.status.revocationEpoch",
    ] {
        let text = world.explained(path);
        let description = text.split("DESCRIPTION:").nth(1).unwrap_or_else(|| panic!("{path}: {text}"));
        assert!(!description.contains("<empty>") && description.trim().len() > 30, "{path}: {text}");
    }
}

#[test]
fn agents_are_listed_by_short_name_and_category_with_columns() {
    let world = World::shared();
    let tenant = world.tenant("columns");
    for kind in ["agents", "agent", "ag", "countersign"] {
        let table = world.kubectl().run(&["get", kind, "-n", &tenant.namespace]).expect(kind);
        let mut lines = table.lines();
        let head: Vec<&str> = lines.next().expect("a head").split_whitespace().collect();
        assert_eq!(head, ["NAME", "OWNER", "READY", "REASON", "SUSPENDED", "AGE"], "{kind}");
        assert!(lines.next().expect("a row").contains("team@example.com"), "{table}");
    }
    let by_owner = ["get", "agents", "-n", &tenant.namespace, "--field-selector=spec.owner=team@example.com", "-o", "name"];
    assert_eq!(world.kubectl().run(&by_owner).expect("selectable").trim(), "agent.countersign.dev/bot");
}

#[test]
fn status_says_of_which_generation_it_speaks() {
    let world = World::shared();
    let tenant = world.tenant("conditions");
    tenant.patch(&json!({"spec": {"displayName": "Bot"}}));
    wait_until("the new generation is observed", PATIENCE, || tenant.agent()["status"]["observedGeneration"] == 2);
    let agent = tenant.agent();
    let conditions = agent["status"]["conditions"].as_array().expect("conditions");
    assert_eq!(conditions.len(), 4);
    for (kind, status) in [("Ready", "True"), ("IdentityResolved", "True"), ("Admitted", "True"), ("Suspended", "False")] {
        let condition = conditions.iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("{kind}"));
        assert_eq!((&condition["status"], &condition["observedGeneration"]), (&json!(status), &json!(2)), "{kind}");
    }
}

#[test]
fn an_agent_under_the_default_service_account_draws_a_warning() {
    let world = World::shared();
    let namespace = world.namespace("advice");
    let apply = |account: &str| {
        let spec = json!({"identity": {"serviceAccounts": [{"name": account}]}});
        let manifest = agent(&namespace, "bot", &spec).to_string();
        let arguments = ["apply", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
        world.kubectl().run_with_input(&arguments, &manifest).map_err(|failure| failure.stderr)
    };
    apply("bot").expect("nothing to say");
    let warned = apply("default").expect_err("a warning");
    assert!(warned.contains("Warning:") && warned.contains("a ServiceAccount of its own"), "{warned}");
}
