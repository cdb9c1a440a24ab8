//! One decision, however it is asked for: by obtaining a token for an operation, or by asking whether it may be done, by name or with the
//! token.

use super::world::{World, agent};
use super::*;
use crate::agent::Condition;
use crate::capability::{Rule, Unusable};
use crate::grammar::{Resource, ResourcePattern};
use crate::operation::Parameters;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, json};

const CAPABILITIES: [&str; 3] = ["document.read", "document.delete", "payments.authorize"];
const RESOURCES: [&str; 4] = ["document:reports/q3", "document:drafts/a", "invoice:INV-7", "document:reports/q3/notes"];
const PATTERNS: [&str; 5] = ["document:**", "document:reports/*", "document:*/q3", "invoice:INV-*", "document:drafts/a"];
const CONDITIONS: [&str; 8] = [
    "context.amount < 1000",
    "resource.type == 'document'",
    "chain.depth == 1",
    "agent.namespace == 'research' && subject.type == 'agent'",
    "!has(context.amount) || context.amount <= 10",
    "action.name.startsWith('document.')",
    "context.amount +",
    "'agent:research/first' in chain.agents",
];

#[derive(Debug, Clone)]
struct Entry {
    name: &'static str,
    resources: Option<Vec<&'static str>>,
    when: Option<&'static str>,
    approval: bool,
}

fn entry() -> impl Strategy<Value = Entry> {
    let resources = prop::option::of(prop::collection::vec(select(&PATTERNS[..]), 1..3));
    let when = prop::option::weighted(0.4, select(&CONDITIONS[..]));
    (select(&CAPABILITIES[..]), resources, when, prop::bool::weighted(0.15)).prop_map(|(name, resources, when, approval)| Entry {
        name,
        resources,
        when,
        approval,
    })
}

fn registered(name: &str, entries: &[Entry], callers: &[&str], suspended: bool) -> RegisteredAgent {
    let mut agent = agent(name, &[], &["https://docs"]);
    agent.suspended = suspended;
    let rights = agent.rights.as_mut().expect("rights");
    rights.delegation.callers = callers.iter().map(|name| AgentId::new("research", name).expect("an agent")).collect();
    for entry in entries {
        let name = CapabilityName::parse(entry.name).expect("a name");
        if rights.capabilities.iter().all(|held| held.name != name) {
            let patterns = |list: &Vec<&str>| list.iter().map(|p| ResourcePattern::parse(p).expect("a pattern")).collect();
            rights.capabilities.push(Granted {
                name,
                resources: entry.resources.as_ref().map(patterns),
                approval_required: entry.approval,
                when: entry.when.map(Condition::parse),
            });
        }
    }
    agent
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let amount = prop::option::of(select(&[5_u32, 10, 999, 1000][..]));
    (select(&CAPABILITIES[..]), select(&RESOURCES[..]), amount).prop_map(|(name, resource, amount)| {
        let members = amount.map(|amount| Map::from_iter([("amount".to_owned(), json!(amount))]));
        Attempt {
            capability: CapabilityName::parse(name).expect("a name"),
            resource: Some(Resource::parse(resource).expect("a resource")),
            parameters: members.map(|members| Parameters::parse(members).expect("parameters")),
            resource_properties: Map::new(),
            context: Map::new(),
        }
    })
}

fn world(first: &[Entry], second: &[Entry], suspended: bool, schema: bool, guarded: bool) -> World {
    let mut world = World::of(&[&registered("first", first, &[], suspended), &registered("second", second, &["first"], false)]);
    let mut rule = |name: &str, spec: serde_json::Value| {
        let spec = serde_json::from_value(spec).expect("a spec");
        let rule = Rule::parse(&spec).map_err(|error| Unusable::Invalid(error.to_string()));
        world.catalogue.insert(CapabilityName::parse(name).expect("a name"), rule);
    };
    if schema {
        rule("payments.authorize", json!({"parameterSchema": {"required": ["amount"]}}));
    }
    if guarded {
        rule("document.delete", json!({"approval": {}}));
    }
    world
}

fn issued(permit: &Permit) -> Result<(), Denial> {
    let operation = &permit.operation().expect("one operation").operation;
    let issued = Issued {
        jti: "jti",
        chain: permit.chain(),
        grants: Grants::Operation(operation),
        audience: permit.audience().as_str(),
        is_bound: false,
    };
    WORLD.with_borrow(|world| {
        evaluate(Query { claimed: Claimed::Token(issued), attempt: &Attempt::of(operation) }, &world.view(), 1000)
    })
}

thread_local! {
    static WORLD: std::cell::RefCell<World> = std::cell::RefCell::default();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_token_is_issued_for_an_operation_exactly_if_a_check_allows_it(
        first in prop::collection::vec(entry(), 0..4),
        second in prop::collection::vec(entry(), 0..4),
        suspended in prop::bool::weighted(0.1),
        schema in any::<bool>(),
        guarded in any::<bool>(),
        attempt in attempt(),
    ) {
        let world = world(&first, &second, suspended, schema, guarded);
        let agent = world.agents.get(&AgentId::new("research", "first").expect("an agent")).expect("there");
        let ask = Ask { capabilities: None, audience: None, operation: Some(attempt.clone()) };
        let token = world.decide(&agent, &Subject::Itself, &ask, 2000);
        let path = [&*agent];
        let query = Query { claimed: Claimed::Name(&path, None), attempt: &attempt };
        let checked = evaluate(query, &world.view(), 1000);
        let explained = explain(&path, None, &attempt, &world.view());
        prop_assert_eq!(checked.is_ok(), explained.iter().all(|step| step.verdict.is_ok()));
        match (&token, &checked) {
            (Ok(permit), Ok(())) => {
                WORLD.set(world);
                prop_assert_eq!(issued(permit), Ok(()), "its own token does not allow it");
            }
            (Err(one), Err(other)) => prop_assert_eq!(one.reason, other.reason, "{} {}", one.message, other.message),
            _ => prop_assert!(false, "{token:?} {checked:?}"),
        }
    }

    #[test]
    fn what_a_chain_may_do_is_the_same_however_it_is_asked(
        first in prop::collection::vec(entry(), 0..4),
        second in prop::collection::vec(entry(), 0..4),
        schema in any::<bool>(),
        guarded in any::<bool>(),
        attempt in attempt(),
    ) {
        let world = world(&first, &second, false, schema, guarded);
        let get = |name: &str| world.agents.get(&AgentId::new("research", name).expect("an agent")).expect("there");
        let (one, two) = (get("first"), get("second"));
        let path = [&*one, &*two];
        let checked = evaluate(Query { claimed: Claimed::Name(&path, None), attempt: &attempt }, &world.view(), 1000);
        let call = Ask { capabilities: None, audience: Some("agent:research/second".to_owned()), operation: None };
        let Ok(called) = world.decide(&one, &Subject::Itself, &call, 2000) else { return Ok(()) };
        let parent = Parent {
            jti: "parent".to_owned(),
            chain: called.chain().clone(),
            capabilities: called.capabilities().to_vec(),
            audience: called.audience().as_str().to_owned(),
            may_act: called.may_act().cloned(),
            expires_at: 2000,
            is_bound: false,
        };
        let ask = Ask { capabilities: None, audience: Some("https://docs".to_owned()), operation: Some(attempt.clone()) };
        let token = world.decide(&two, &Subject::Token(Box::new(parent.clone())), &ask, 2000);
        match token {
            Ok(permit) => {
                prop_assert_eq!(checked, Ok(()), "a token was issued for what a check denies");
                WORLD.set(world);
                prop_assert_eq!(issued(&permit), Ok(()));
            }
            // The token with which it was called may lack what a condition made depend on the operation.
            Err(denial) => prop_assert!(
                checked.is_err() || !parent.capabilities.iter().any(|c| c.name == attempt.capability && c.allows(attempt.resource.as_ref())),
                "{denial:?}"
            ),
        }
    }
}

#[test]
fn an_operation_in_a_token_is_that_and_nothing_else() {
    let world = World::of(&[&registered(
        "first",
        &[Entry { name: "document.read", resources: None, when: None, approval: false }],
        &[],
        false,
    )]);
    let agent = world.agents.get(&AgentId::new("research", "first").expect("an agent")).expect("there");
    let attempt = |resource: &str, members: serde_json::Value| Attempt {
        capability: CapabilityName::parse("document.read").expect("a name"),
        resource: Some(Resource::parse(resource).expect("a resource")),
        parameters: members.as_object().filter(|m| !m.is_empty()).map(|m| Parameters::parse(m.clone()).expect("parameters")),
        resource_properties: Map::new(),
        context: Map::new(),
    };
    let asked = attempt("document:a", json!({"pages": 5}));
    let ask = Ask { capabilities: None, audience: None, operation: Some(asked.clone()) };
    let permit = world.decide(&agent, &Subject::Itself, &ask, 2000).expect("permitted");
    assert_eq!(permit.scope(), "document.read");
    let operation = &permit.operation().expect("an operation").operation;
    assert_eq!(is_that(operation, &asked), Ok(()));
    assert_eq!(is_that(operation, &attempt("document:a", json!({"pages": 5.0}))), Ok(()), "the same number");
    let beside = Attempt {
        context: Map::from_iter([("pages".to_owned(), json!(5)), ("ip".to_owned(), json!("::1"))]),
        ..attempt("document:a", json!({}))
    };
    assert_eq!(is_that(operation, &beside), Ok(()), "said beside");
    for other in [
        attempt("document:b", json!({"pages": 5})),
        attempt("document:a", json!({"pages": 6})),
        attempt("document:a", json!({})),
        attempt("document:a", json!({"pages": 5, "more": 1})),
        Attempt { resource: None, ..asked.clone() },
        Attempt { capability: CapabilityName::parse("document.delete").expect("a name"), ..asked.clone() },
    ] {
        assert_eq!(is_that(operation, &other).map_err(|denial| denial.reason), Err(Reason::OperationMismatch), "{other:?}");
    }
    let for_agent = Ask { audience: Some("agent:research/second".to_owned()), ..ask };
    let world = World::of(&[&agent, &registered("second", &[], &["first"], false)]);
    let denied = world.decide(&agent, &Subject::Itself, &for_agent, 2000).expect_err("no agent could use it");
    assert_eq!(denied.reason, Reason::AudienceNotAllowed);
}
