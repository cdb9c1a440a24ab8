//! The checker finds what it is there to find: each invariant is broken by hand, in what a quiet scenario has left.

use super::drill::check;
use crate::support::directory::Directory;
use serde_json::{Value, json};
use std::path::Path;

/// What the checker reads.
struct Evidence {
    history: Vec<Value>,
    ledger: Value,
    processes: Value,
    log: String,
}

impl Evidence {
    fn read(directory: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a file");
        let json = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
        Self {
            history: text("history.jsonl").lines().map(json).collect(),
            ledger: json(&text("ledger.json")),
            processes: json(&text("processes.json")),
            log: String::new(),
        }
    }

    fn write(&self, directory: &Path) {
        let put = |name: &str, text: String| std::fs::write(directory.join(name), text).expect("written");
        put("history.jsonl", self.history.iter().map(|event| format!("{event}\n")).collect());
        put("ledger.json", self.ledger.to_string());
        put("processes.json", self.processes.to_string());
        std::fs::create_dir(directory.join("logs")).expect("a directory");
        put("logs/one.log", self.log.clone());
    }

    /// The first event of a kind that has this member.
    fn event(&mut self, kind: &str, member: &str) -> &mut Value {
        let found = self.history.iter_mut().find(|event| event["kind"] == kind && !event[member].is_null());
        found.unwrap_or_else(|| panic!("no {kind} with {member}"))
    }

    fn line(&mut self) -> &mut Value {
        let logs = self.ledger["logs"].as_array_mut().expect("logs");
        let log = logs.iter_mut().find(|log| log["lines"].as_array().is_some_and(|lines| lines.len() > 3)).expect("a log");
        &mut log["lines"]
    }
}

/// One way to break what must hold.
type Damage = (&'static str, &'static str, fn(&mut Evidence));

const DAMAGES: &[Damage] = &[
    ("I1", "a token that nobody recorded", |evidence| {
        let mut token = evidence.event("token", "claims").clone();
        token["claims"]["jti"] = json!("unheard-of");
        evidence.history.push(token);
    }),
    ("I1", "a token for another audience than recorded", |evidence| {
        evidence.event("token", "claims")["claims"]["aud"] = json!("https://elsewhere.example");
    }),
    ("I2", "an approval that became two tokens", |evidence| {
        let mut token = evidence.event("token", "request").clone();
        token["claims"]["jti"] = json!("another");
        evidence.history.push(token);
    }),
    ("I2", "an operation that was completed twice", |evidence| {
        let request = evidence.event("token", "request")["request"].clone();
        for _ in 0..2 {
            evidence.history.push(json!({"kind": "complete", "request": request, "status": 200, "sent": 9e15, "at": 9e15}));
        }
    }),
    ("I2", "a token after its operation was completed", |evidence| {
        let request = evidence.event("token", "request")["request"].clone();
        evidence.history.push(json!({"kind": "complete", "request": request, "status": 200, "sent": 1, "at": 2}));
    }),
    ("I2", "a token that nobody approved", |evidence| {
        let request = evidence.event("token", "request")["request"].clone();
        evidence.history.retain(|event| event["kind"] != "approving" || event["request"] != request);
    }),
    ("I3", "an assertion that was accepted twice", |evidence| {
        let token = evidence.event("token", "assertion").clone();
        evidence.history.push(token);
    }),
    ("I4", "a token of an agent that had long been suspended", |evidence| {
        let token = evidence.event("token", "agent").clone();
        let at = token["sent"].as_u64().expect("a time") - 11_000;
        evidence.history.push(json!({"kind": "suspended", "agent": token["agent"], "at": at}));
    }),
    ("I4", "a token that is alive though its agent is suspended", |evidence| {
        evidence.history.push(json!({"kind": "suspended", "agent": "x", "at": 0}));
        evidence
            .history
            .push(json!({"kind": "introspected", "agent": "x", "jti": "j", "active": true, "sent": 11_000, "at": 11_001}));
    }),
    ("I5", "a derived token with more scope", |evidence| {
        let token = evidence.event("token", "parent");
        token["claims"]["scope"] = json!("everything.delete");
    }),
    ("I5", "a derived token that outlives its parent", |evidence| {
        let token = evidence.event("token", "parent");
        token["claims"]["exp"] = json!(token["parent"]["exp"].as_u64().expect("a time") + 1);
    }),
    ("I6", "a derived token without its last link", |evidence| {
        evidence.event("token", "parent")["claims"]["act"] = Value::Null;
    }),
    ("I6", "a derived token that names another agent", |evidence| {
        evidence.event("token", "parent")["claims"]["act"]["sub"] = json!("agent:else/where");
    }),
    ("I7", "a record that was changed", |evidence| {
        let line = &mut evidence.line()[1];
        *line = json!(line.as_str().expect("a line").replacen("\"event\"", "\"Event\"", 1));
    }),
    ("I7", "a record that was removed", |evidence| _ = evidence.line().as_array_mut().expect("lines").remove(1)),
    ("I7", "records in another order", |evidence| evidence.line().as_array_mut().expect("lines").swap(1, 2)),
    ("I7", "a checkpoint with another root", |evidence| {
        let logs = evidence.ledger["logs"].as_array_mut().expect("logs");
        let log = logs.iter_mut().find(|log| log["checkpoints"].as_array().is_some_and(|notes| !notes.is_empty()));
        let note = &mut log.expect("a log with a checkpoint")["checkpoints"][0];
        let mut lines: Vec<String> = note.as_str().expect("a note").split('\n').map(str::to_owned).collect();
        lines[2] = "A".repeat(43) + "=";
        *note = json!(lines.join("\n"));
    }),
    ("I8", "a replica that does not come back", |evidence| evidence.event("well", "what")["ok"] = json!(false)),
    ("I8", "nothing that was tried", |evidence| evidence.history.retain(|event| event["kind"] != "well")),
    ("I9", "memory without bound", |evidence| evidence.processes[0]["resident"] = json!(1 << 30)),
    ("I9", "a panic", |evidence| evidence.log = "thread 'main' panicked at src/main.rs:1:1".to_owned()),
    ("I11", "an older copy of the cluster that nobody noticed", |evidence| {
        evidence.history.push(json!({"kind": "restored", "from": 8e15 - 1.0, "at": 8e15}));
        evidence.history.push(json!({"kind": "old", "what": "a token", "jti": "j", "active": false, "sent": 8e15 + 1.0}));
    }),
    ("I11", "a token that came back to life", |evidence| {
        evidence.history.push(json!({"kind": "old", "what": "a token", "jti": "j", "active": true, "sent": 1}));
    }),
    ("I9", "a token in a log", |evidence| {
        evidence.log = "got eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.AAAA".to_owned();
    }),
];

/// Fails unless the checker finds each kind of damage, in what `directory` holds, and none where there is none.
pub fn every_damage_is_found(directory: &Path) {
    let found = |damage: fn(&mut Evidence)| {
        let mut evidence = Evidence::read(directory);
        damage(&mut evidence);
        let doctored = Directory::temporary().expect("a directory");
        evidence.write(doctored.path());
        check(doctored.path())
    };
    let (text, holds) = found(|_| ());
    assert!(holds, "{text}");
    for (invariant, what, damage) in DAMAGES {
        let (text, holds) = found(*damage);
        let line = text.lines().find(|line| line.trim_start().starts_with(invariant)).unwrap_or_default();
        assert!(!holds && line.contains("BROKEN"), "{what} was not found:\n{text}");
    }
}
