//! The schemas of JitRequests and Capabilities: what the API server refuses, and what it tells.

use crate::office::{Office, create, invalid};
use crate::schema::dry_run;
use crate::world::{DOCS, PATIENCE, Stamp, World};
use serde_json::{Value, json};

/// A JitRequest with members of its spec replaced.
fn request(namespace: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "JitRequest",
        "metadata": {"namespace": namespace, "name": "request"},
        "spec": {"agent": {"name": "bot"}, "operation": {"capability": "a.b", "audience": DOCS}},
    });
    for (member, value) in spec.as_object().expect("members") {
        object["spec"][member] = value.clone();
    }
    object
}

fn capability(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "Capability", "metadata": {"name": name}, "spec": spec})
}

/// Fails unless each of `good` is accepted and each of `bad` refused because of a field below `path`.
fn bounds(make: impl Fn(&Value) -> Value, path: &str, good: &[Value], bad: &[Value]) {
    for spec in good {
        dry_run(World::shared(), &make(spec)).unwrap_or_else(|e| panic!("{spec}: {e}"));
    }
    for spec in bad {
        let message = dry_run(World::shared(), &make(spec)).expect_err(&format!("{spec} was accepted"));
        assert!(message.contains(path) || message.contains("strict decoding"), "{spec}: {message}");
    }
}

/// What hides or reorders the text around it.
const HIDING: [&str; 8] = ["a\nb", "a\tb", "a\u{0}b", "a\u{7f}b", "a\u{85}b", "a\u{202e}b", "a\u{2066}b", "a\u{200b}b"];

#[test]
fn every_field_of_a_request_has_bounds_and_a_type() {
    let namespace = World::shared().namespace("jit-schema");
    let operation = |member: &str, value: Value| {
        let mut operation = json!({"capability": "a.b", "audience": DOCS});
        operation[member] = value;
        json!({"operation": operation})
    };
    let resource = |value: &str| operation("resource", json!(value));
    let behalf = |value: Value| json!({"onBehalfOf": value});
    let chain = |n: usize| (0..n).map(|i| format!("agent:ns/a{i}")).collect::<Vec<_>>();
    let good = [
        json!({}),
        json!({"agent": {"name": "a".repeat(63), "uid": "u".repeat(64)}}),
        operation("capability", json!("a".repeat(100))),
        resource("invoice:INV-7"),
        resource("document:reports/2026/q1.pdf"),
        resource(&format!("a:{}", "b".repeat(254))),
        operation("resource", json!(null)),
        operation("parameters", json!({})),
        operation("parameters", json!({"amount": 500, "to": {"iban": "DE02"}, "tags": [1.5, true, null]})),
        operation("audience", json!("a".repeat(256))),
        behalf(json!({})),
        behalf(json!({"user": "u".repeat(1024), "chain": chain(8)})),
        json!({"justification": "Größe 3 🦀 – pay \"now\" <b>"}),
        json!({"justification": "x".repeat(1000)}),
        json!({"expirationSeconds": 1}),
        json!({"expirationSeconds": 900}),
        json!({"ttlSecondsAfterFinished": 10}),
        json!({"ttlSecondsAfterFinished": 604_800}),
    ];
    let bad = [
        // spec.agent
        json!({"agent": null}),
        json!({"agent": {}}),
        json!({"agent": "bot"}),
        json!({"agent": {"name": ""}}),
        json!({"agent": {"name": "a".repeat(64)}}),
        json!({"agent": {"name": 7}}),
        json!({"agent": {"name": "bot", "uid": ""}}),
        json!({"agent": {"name": "bot", "uid": "u".repeat(65)}}),
        // spec.operation
        json!({"operation": null}),
        json!({"operation": {}}),
        json!({"operation": {"capability": "a.b"}}),
        json!({"operation": {"audience": DOCS}}),
        operation("capability", json!("")),
        operation("capability", json!("a".repeat(101))),
        operation("capability", json!("A.b")),
        operation("capability", json!("a b")),
        operation("capability", json!("a..b")),
        operation("capability", json!("*")),
        operation("capability", json!(["a.b"])),
        operation("capability", json!("\u{430}.b")),
        resource(""),
        resource("document"),
        resource("document:*"),
        resource("document:a/**"),
        resource("document:a//b"),
        resource("document:/a"),
        resource("document:a/"),
        resource("document:a b"),
        resource("document:a\n"),
        resource("Document:a"),
        resource("document:\u{430}"),
        resource(&format!("a:{}", "b".repeat(255))),
        operation("resource", json!(["document:a"])),
        operation("parameters", json!([])),
        operation("parameters", json!("amount=5")),
        operation("parameters", json!(5)),
        operation("audience", json!("")),
        operation("audience", json!("https://a b")),
        operation("audience", json!("https://\u{e9}")),
        operation("audience", json!("a".repeat(257))),
        operation("audience", json!([DOCS])),
        // spec.onBehalfOf
        behalf(json!("alice")),
        behalf(json!({"user": ""})),
        behalf(json!({"user": "u".repeat(1025)})),
        behalf(json!({"chain": "agent:a/b"})),
        behalf(json!({"chain": [""]})),
        behalf(json!({"chain": chain(9)})),
        behalf(json!({"chain": ["a".repeat(201)]})),
        // spec.justification
        json!({"justification": ""}),
        json!({"justification": "x".repeat(1001)}),
        json!({"justification": ["x"]}),
        // spec.expirationSeconds, spec.decideBy, spec.ttlSecondsAfterFinished
        json!({"expirationSeconds": 0}),
        json!({"expirationSeconds": 901}),
        json!({"expirationSeconds": -1}),
        json!({"expirationSeconds": 1.5}),
        json!({"expirationSeconds": "300"}),
        json!({"decideBy": "x".repeat(36)}),
        json!({"decideBy": 0}),
        json!({"ttlSecondsAfterFinished": 9}),
        json!({"ttlSecondsAfterFinished": 604_801}),
        json!({"ttlSecondsAfterFinished": -1}),
        json!({"ttlSecondsAfterFinished": "1h"}),
    ];
    let make = |spec: &Value| request(&namespace, spec);
    bounds(make, "spec", &good, &bad);
    bounds(make, "spec.justification", &[], &HIDING.map(|text| json!({"justification": text})));
}

#[test]
fn every_field_of_a_capability_has_bounds_and_a_type() {
    let approval = |value: Value| json!({"approval": value});
    let good = [
        json!({}),
        json!({"title": "Zahlung – Größe 3 🦀"}),
        json!({"title": "x".repeat(100), "description": "x".repeat(2000)}),
        json!({"headline": "pay {amount} {currency} on {id} to {to.iban}"}),
        json!({"headline": "x".repeat(200)}),
        json!({"description": "first\nsecond"}),
        json!({"risk": "Low"}),
        json!({"risk": "Medium"}),
        json!({"risk": "High"}),
        json!({"risk": "Critical"}),
        approval(json!({})),
        approval(json!({"required": false, "approvals": 1, "subjectMayApprove": true, "maxExpirationSeconds": 1})),
        approval(json!({"required": true, "approvals": 2, "maxExpirationSeconds": 900})),
        json!({"parameterSchema": {}}),
        json!({"parameterSchema": {"type": "object", "properties": {"amount": {"type": "number"}}}}),
    ];
    let bad = [
        json!(null),
        json!({"title": ""}),
        json!({"title": "x".repeat(101)}),
        json!({"title": 7}),
        json!({"headline": ""}),
        json!({"headline": "x".repeat(201)}),
        json!({"headline": "pay {amount"}),
        json!({"headline": "pay amount}"}),
        json!({"headline": "pay {}"}),
        json!({"headline": "pay {a b}"}),
        json!({"headline": "pay {{amount}}"}),
        json!({"description": ""}),
        json!({"description": "x".repeat(2001)}),
        json!({"description": ["x"]}),
        json!({"risk": "low"}),
        json!({"risk": ""}),
        json!({"risk": "Extreme"}),
        json!({"risk": 3}),
        approval(json!(true)),
        approval(json!({"required": "yes"})),
        approval(json!({"approvals": 0})),
        approval(json!({"approvals": 3})),
        approval(json!({"approvals": -1})),
        approval(json!({"approvals": 1.5})),
        approval(json!({"approvals": "2"})),
        approval(json!({"subjectMayApprove": 1})),
        approval(json!({"maxExpirationSeconds": 0})),
        approval(json!({"maxExpirationSeconds": 901})),
        approval(json!({"maxExpirationSeconds": -1})),
        json!({"parameterSchema": true}),
        json!({"parameterSchema": []}),
        json!({"parameterSchema": "{}"}),
    ];
    bounds(|spec| capability("schema.test", spec), "spec", &good, &bad);
    bounds(|spec| capability("schema.test", spec), "spec.title", &[], &HIDING.map(|text| json!({"title": text})));
    bounds(|spec| capability("schema.test", spec), "spec.headline", &[], &HIDING.map(|text| json!({"headline": text})));
    let named = |name: &str| dry_run(World::shared(), &capability(name, &json!({})));
    named(&"a".repeat(100)).expect("100 characters are allowed");
    for name in ["a".repeat(101).as_str(), "A.b", "a_b", "a..b", "-a", "a b", "*"] {
        let message = named(name).expect_err(name);
        assert!(message.contains("metadata.name") || message.contains("at most 100 characters"), "{name}: {message}");
    }
}

#[test]
fn the_arabic_letter_mark_is_a_text_direction_character_like_the_others() {
    let namespace = World::shared().namespace("arabic");
    let text = "a\u{61c}b";
    bounds(|spec| request(&namespace, spec), "spec.justification", &[], &[json!({"justification": text})]);
    bounds(|spec| capability("schema.test", spec), "spec.title", &[], &[json!({"title": text})]);
}

#[test]
fn a_field_that_does_not_exist_is_refused() {
    let namespace = World::shared().namespace("jit-unknown");
    let requests = [
        json!({"surprise": true}),
        json!({"agent": {"name": "bot", "namespace": "other"}}),
        json!({"operation": {"capability": "a.b", "audience": DOCS, "resources": ["a:b"]}}),
        json!({"onBehalfOf": {"users": ["a"]}}),
        json!({"requestedBy": {"username": "a", "extra": {}}}),
        json!({"expirationSecond": 1}),
        json!({"approvals": []}),
        json!({"decision": {"verdict": "Approved"}}),
    ];
    let capabilities = [
        json!({"surprise": true}),
        json!({"approvals": 2}),
        json!({"approval": {"approval": 2}}),
        json!({"approval": {"require": false}}),
        json!({"parametersSchema": {}}),
    ];
    let objects =
        requests.iter().map(|spec| request(&namespace, spec)).chain(capabilities.iter().map(|spec| capability("a.b", spec)));
    for object in objects {
        let message = dry_run(World::shared(), &object).expect_err("unknown");
        assert!(message.contains("unknown field"), "{object}: {message}");
    }
}

#[test]
fn every_field_of_a_decision_has_bounds_and_a_type() {
    let office = Office::open(World::shared(), Stamp::ByPolicy, "decision-schema");
    let alice = office.person("alice");
    office.ask("request");
    for bad in [
        json!({"verdict": "approved"}),
        json!({"verdict": "Maybe"}),
        json!({"verdict": "Pending"}),
        json!({"verdict": ""}),
        json!({"verdict": true}),
        json!({"verdict": ["Approved"]}),
        json!({"comment": "no verdict"}),
        json!({}),
        json!("Approved"),
        json!([{"verdict": "Approved"}]),
        json!({"verdict": "Approved", "comment": "x".repeat(1001)}),
        json!({"verdict": "Approved", "comment": 7}),
        json!({"verdict": "Approved", "digest": "sha256:short"}),
        json!({"verdict": "Approved", "digest": 7}),
    ] {
        invalid(office.patch_status(&alice, "request", &json!({"decision": bad})), "decision");
    }
    let longest = json!({"verdict": "Approved", "comment": "ü".repeat(1000)});
    office.patch_status(&alice, "request", &json!({"decision": longest})).expect("1,000 characters are allowed");
    office.settled("request", "Approved");
}

#[test]
fn kubectl_explains_every_field_of_both_kinds() {
    let world = World::shared();
    for (kind, some) in [
        (
            "jitrequest",
            ["spec.operation.parameters", "spec.onBehalfOf.chain", "status.approvals.by.groups", "status.decision.verdict"],
        ),
        ("capability", ["spec.title", "spec.approval.subjectMayApprove", "spec.parameterSchema", "status.conditions"]),
    ] {
        let plural = if kind == "capability" { "capabilities" } else { "jitrequests" };
        let crd = world.kubectl().get_json(&["get", "crd", &format!("{plural}.countersign.dev")]).expect("the definition");
        let mut fields = vec![kind.to_owned()];
        for part in ["spec", "status"] {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part];
            collect(&format!("{kind}.{part}"), schema, &mut fields);
        }
        for field in some {
            assert!(fields.contains(&format!("{kind}.{field}")), "{field} is not among {fields:?}");
        }
        for field in fields {
            let text = world.explained(&field);
            let description = text.split("DESCRIPTION:").nth(1).unwrap_or_else(|| panic!("{field}: {text}"));
            let description = description.split("FIELDS:").next().unwrap_or_default().trim();
            assert!(!description.contains("<empty>") && description.len() >= 4, "{field}: {text}");
        }
    }
}

#[test]
fn the_manual_of_an_optional_choice_is_that_of_the_field() {
    for (field, says) in [
        ("agent.spec.capabilities.approval", "needs 'grant' on the name"),
        ("capability.spec.risk", "By itself it changes no decision"),
    ] {
        let text = World::shared().explained(field);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(says), "{field}: {text}");
    }
}

/// The paths of all fields below `schema`, but those of conditions, which are Kubernetes' own.
fn collect(path: &str, schema: &Value, fields: &mut Vec<String>) {
    fields.push(path.to_owned());
    let schema = schema.get("items").unwrap_or(schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten().filter(|_| !path.ends_with(".conditions")) {
        collect(&format!("{path}.{name}"), field, fields);
    }
}

#[test]
fn requests_are_listed_by_short_name_and_category_with_columns() {
    let office = Office::open(World::shared(), Stamp::ByPolicy, "jit-columns");
    let operation = json!({"capability": office.capability, "audience": DOCS, "resource": "invoice:7"});
    office.file(&office.bot, "first", &json!({"operation": operation})).expect("the agent may ask");
    office.ask("second");
    office.settled("first", "Pending");
    let (kubectl, namespace) = (office.admin(), office.namespace());
    let list = |arguments: &[&str]| kubectl.run(&[&["get"], arguments, &["-n", namespace]].concat()).expect("a list");
    for kind in ["jitrequests", "jitrequest", "jit", "countersign"] {
        let table = list(&[kind]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let head = lines.iter().position(|line| line.contains(&"CAPABILITY")).unwrap_or_else(|| panic!("{kind}: {table}"));
        assert_eq!(lines[head], ["NAME", "AGENT", "CAPABILITY", "RESOURCE", "PHASE", "APPROVALS", "EXPIRES", "AGE"], "{kind}");
        let row = &lines[head + 1];
        assert!(row[0].ends_with("first"), "{table}");
        assert_eq!(row[1..6], ["bot", &office.capability, "invoice:7", "Pending", "0/1"], "{table}");
        assert_eq!(row[6], office.stored("first")["status"]["expiresAt"], "{table}");
    }
    office.decide(&office.person("alice"), "second", "Approved").expect("alice may");
    let waited =
        kubectl.run(&["wait", "--for=condition=Approved", "jit/second", "-n", namespace, "--timeout=30s"]).expect("approved");
    assert!(waited.contains("condition met"), "{waited}");
    let finished = kubectl.run(&["wait", "--for=condition=Finished=False", "jit/second", "-n", namespace, "--timeout=30s"]);
    assert!(finished.is_ok(), "an approval that waits has not ended");
    let selected = |selector: &str| {
        let selector = format!("--field-selector={selector}");
        list(&["jit", &selector, "-o", "name"])
            .lines()
            .map(|l| l.rsplit('/').next().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(selected("status.phase=Pending"), ["first"]);
    assert_eq!(selected("status.phase=Approved"), ["second"]);
    assert_eq!(selected("status.phase!=Approved,spec.agent.name=bot"), ["first"]);
    assert_eq!(selected("spec.agent.name=bot"), ["first", "second"]);
    assert_eq!(selected("spec.agent.name=other"), [""; 0]);
    assert_eq!(selected(&format!("spec.operation.capability={}", office.capability)), ["first", "second"]);
    assert_eq!(selected("spec.operation.capability=a.b"), [""; 0]);
    office.decide(&office.person("bob"), "second", "Denied").expect("bob may");
    kubectl.wait_for(namespace, "jit/second", "condition=Approved=False", PATIENCE).expect("taken back");
    kubectl.wait_for(namespace, "jit/second", "condition=Finished", PATIENCE).expect("ended");
}

#[test]
fn capabilities_are_listed_by_short_name_with_columns() {
    let world = World::shared();
    let name = format!("{}.pay", world.namespace("cap-columns"));
    let spec = json!({"title": "Payments", "risk": "Critical", "approval": {"approvals": 2}});
    create(&world.kubectl(), &capability(&name, &spec)).expect("created");
    world.kubectl().wait_for("default", &format!("cap/{name}"), "condition=Ready", PATIENCE).expect("the rule is in force");
    for kind in ["capabilities", "capability", "cap"] {
        let table = world.kubectl().run(&["get", kind, &name]).expect(kind);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "TITLE", "RISK", "APPROVAL", "PERSONS", "READY", "AGE"], "{table}");
        assert_eq!(lines[1][..6], [name.as_str(), "Payments", "Critical", "true", "2", "True"], "{table}");
    }
    let category = world.kubectl().run(&["get", "countersign", "-o", "name"]).expect("the category");
    assert!(category.contains(&format!("capability.countersign.dev/{name}")), "{category}");
    let risky = |risk: &str| {
        world.kubectl().run(&["get", "cap", &format!("--field-selector=spec.risk={risk}"), "-o", "name"]).expect("selectable")
    };
    assert!(risky("Critical").contains(&name) && !risky("Low").contains(&name));
    let stored = world.kubectl().get_json(&["get", "cap", &name]).expect("the Capability");
    assert_eq!(
        (&stored["status"]["observedGeneration"], &stored["status"]["conditions"][0]["observedGeneration"]),
        (&json!(1), &json!(1))
    );
}
