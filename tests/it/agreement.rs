//! Token issue, evaluation, batch and question in words give one answer for one operation: agents, policies and operations by chance, on the
//! running service. The same rules without HTTP have a property test of their own beside the code.

use crate::world::{JWT_BEARER, Reply, World};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// Verbs and nouns that make the names of capabilities, and what an operation is done to.
const VERBS: [&str; 4] = ["read", "delete", "approve", "publish"];
const NOUNS: [&str; 3] = ["report", "invoice", "contract"];
const IDS: [&str; 4] = ["Q3", "INV-7", "drafts/A-1", "2026/X-2"];
const PATTERNS: [&str; 4] = ["*", "**", "INV-*", "drafts/*"];
const CONDITIONS: [&str; 5] = [
    "chain.depth == 1",
    "resource.id.startsWith('I')",
    "has(context.amount) && context.amount < 100",
    "context.amount < 100",
    "agent.name ==",
];
/// How many agents there are, and how many operations each is asked about.
const AGENTS: usize = 8;
const OPERATIONS: usize = 24;

#[derive(Debug, Clone)]
struct Operation {
    verb: &'static str,
    noun: &'static str,
    id: &'static str,
    amount: Option<u32>,
}

impl Operation {
    fn capability(&self) -> String {
        format!("{}.{}", self.noun, self.verb)
    }

    fn parameters(&self) -> Option<Value> {
        self.amount.map(|amount| json!({"amount": amount, "currency": "EUR"}))
    }

    fn question(&self) -> String {
        let amount = self.amount.map(|amount| format!(" for {amount} EUR")).unwrap_or_default();
        format!("Can I {} {} {}{amount}?", self.verb, self.noun, self.id)
    }

    fn evaluation(&self, subject: &str) -> Value {
        let mut action = json!({"name": self.capability()});
        if let Some(parameters) = self.parameters() {
            action["properties"] = parameters;
        }
        json!({"subject": {"type": "agent", "id": subject}, "action": action, "resource": {"type": self.noun, "id": self.id}})
    }

    fn details(&self) -> String {
        let mut details = json!({"type": "countersign_operation", "capability": self.capability(), "resource": format!("{}:{}", self.noun, self.id)});
        if let Some(parameters) = self.parameters() {
            details["parameters"] = parameters;
        }
        json!([details]).to_string()
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    (select(&VERBS[..]), select(&NOUNS[..]), select(&IDS[..]), prop::option::of(select(&[5_u32, 99, 100][..])))
        .prop_map(|(verb, noun, id, amount)| Operation { verb, noun, id, amount })
}

fn capabilities() -> impl Strategy<Value = Value> {
    let entry = (
        select(&VERBS[..]),
        select(&NOUNS[..]),
        prop::option::of(select(&PATTERNS[..])),
        prop::option::weighted(0.5, select(&CONDITIONS[..])),
    );
    prop::collection::vec(entry, 3..9).prop_map(|entries| {
        let mut list: Vec<Value> = Vec::new();
        for (verb, noun, pattern, when) in entries {
            let name = format!("{noun}.{verb}");
            if list.iter().any(|held| held["name"] == name.as_str()) {
                continue;
            }
            let mut held = json!({"name": name});
            if let Some(pattern) = pattern {
                held["resources"] = json!([format!("{noun}:{pattern}")]);
            }
            if let Some(when) = when {
                held["when"] = json!(when);
            }
            list.push(held);
        }
        json!(list)
    })
}

#[test]
fn one_operation_has_one_answer_however_it_is_asked_for() {
    let world = World::shared();
    let mut runner = TestRunner::deterministic();
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..AGENTS {
        let held = capabilities().new_tree(&mut runner).expect("capabilities").current();
        // Ready is false where a condition is none, and the rest of the agent works all the same.
        let bot = world.tenant("agreement");
        bot.patch(&json!({"spec": {"capabilities": held}}));
        let kubectl = world.kubectl();
        let generation = bot.agent()["metadata"]["generation"].clone();
        crate::world::wait_until("the generation is judged", crate::world::PATIENCE, || {
            bot.agent()["status"]["observedGeneration"] == generation
        });
        drop(kubectl);
        let post = |path: &str, body: &Value| -> Value {
            let url = format!("{}{path}", world.operator.url());
            Reply::from(world.http.post(url).bearer_auth(&bot.token).json(body).send().expect("an answer")).expect(200).body
        };
        let operations: Vec<Operation> =
            (0..OPERATIONS).map(|_| operation().new_tree(&mut runner).expect("an operation").current()).collect();
        let items: Vec<Value> = operations.iter().map(|operation| operation.evaluation(&bot.subject())).collect();
        let batch = post("/access/v1/evaluations", &json!({"evaluations": items}));
        for (index, operation) in operations.iter().enumerate() {
            let single = post("/access/v1/evaluation", &items[index]);
            let decision = single["decision"].as_bool().expect("a decision");
            let code = &single["context"]["reason"]["code"];
            let shown = format!("{operation:?} {held}: {single}");
            assert_eq!(batch["evaluations"][index]["decision"], decision, "the batch: {shown}");
            assert_eq!(&batch["evaluations"][index]["context"]["reason"]["code"], code, "the batch: {shown}");
            let asked = post("/ask", &json!({"question": operation.question()}));
            let read = &asked["interpretation"][0];
            // A capability that nobody has heard of is no word: then it is not read, and denied.
            if read["capability"] == operation.capability().as_str() {
                assert_eq!(read["resource"], format!("{}:{}", operation.noun, operation.id), "{asked}");
                assert_eq!((&asked["decision"], &read["reason"]["code"]), (&json!(decision), code), "in words: {shown} {asked}");
            } else {
                assert_eq!((&asked["decision"], decision), (&json!(false), false), "not read: {shown} {asked}");
            }
            let form =
                [("grant_type", JWT_BEARER), ("assertion", bot.token.as_str()), ("authorization_details", &operation.details())];
            let token = world.request(&form);
            assert_eq!(token.status == 200, decision, "the token: {shown} {:?}", token.body);
            if decision { allowed += 1 } else { denied += 1 }
        }
    }
    assert!(allowed >= 10 && denied >= 50, "{allowed} allowed, {denied} denied: chance does not try much");
}
