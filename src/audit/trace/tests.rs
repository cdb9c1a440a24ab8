use super::*;
use serde_json::{Value, json};

/// A ledger of these records, a second apart from 12:00:00 on.
fn ledger(records: &[Value]) -> Vec<Entry> {
    let mut ledger = Vec::new();
    for (seq, record) in (0u64..).zip(records) {
        let mut line = json!({"time": format!("2026-11-24T12:{:02}:{:02}.000Z", seq / 60, seq % 60), "outcome": "allow", "reason": "granted"});
        for (name, value) in record.as_object().expect("members") {
            line[name] = value.clone();
        }
        ledger.push(Entry::read("l", seq, line.to_string().as_bytes()));
    }
    ledger
}

fn page(entries: Vec<Entry>) -> Page {
    Page { entries, next: Cursor::default(), is_more: false }
}

/// The answer about `subject`, gathered as from a database.
fn trace(records: &[Value], subject: &str) -> Option<Trace> {
    let ledger = ledger(records);
    let mut gathering = Gathering::new(Subject::parse(subject).expect("a subject"), None).expect("a search");
    while let Some((search, _)) = gathering.next_search() {
        gathering.take(page(ledger.iter().filter(|entry| search.matches(entry)).cloned().collect()));
    }
    gathering.finish()
}

/// Alice → Research Bot → Search Tool, as the token service records it.
fn chain() -> Vec<Value> {
    vec![
        json!({"event": "agent.registered", "subject": "agent:research/research-bot", "agent_uid": "u1", "display_name": "Research Bot", "changed_by": "admin"}),
        json!({"event": "agent.registered", "subject": "agent:research/search-tool", "agent_uid": "u2", "display_name": "Search Tool", "changed_by": "admin"}),
        json!({"event": "token.issue", "subject": "agent:research/research-bot", "agent_uid": "u1", "user": "user:alice@acme.com", "chain": "agent:research/research-bot",
            "txn": "t1", "jti": "j1", "scope": "document.read", "audience": "agent:research/search-tool", "key_id": "k1", "client_address": "10.0.0.1", "expires_at": 1_795_521_902}),
        json!({"event": "token.issue", "subject": "agent:research/search-tool", "agent_uid": "u2", "user": "user:alice@acme.com",
            "chain": "agent:research/research-bot agent:research/search-tool", "txn": "t1", "jti": "j2", "parent_jti": "j1", "ancestors": "j1", "scope": "document.read",
            "audience": "https://docs.acme.com", "key_id": "k1", "client_address": "10.0.0.2"}),
        json!({"event": "token.introspect", "reason": "active", "subject": "user:alice@acme.com", "jti": "j2"}),
        json!({"event": "token.issue", "outcome": "deny", "reason": "capability_not_granted", "subject": "agent:research/search-tool", "parent_jti": "j1", "txn": "t1",
            "requested_scope": "payments.authorize", "detail": "not granted"}),
        json!({"event": "token.issue", "subject": "agent:other/bot", "jti": "j9", "scope": "web.search", "audience": "https://x"}),
        json!({"event": "agent.suspended", "subject": "agent:research/research-bot", "agent_uid": "u1", "display_name": "Research Bot", "changed_by": "bob"}),
        json!({"event": "audit.read", "trace": "j2", "reader": "carol"}),
    ]
}

#[test]
fn a_tree_is_a_line_for_each_token_below_that_from_which_it_came() {
    let trace = trace(&chain(), "j2").expect("an answer");
    assert_eq!(
        trace.tree().to_string(),
        "chain t1\nalice@acme.com\n  Research Bot (agent:research/research-bot)  token j1  document.read  expires 2026-11-24T12:05:02Z\n  \
         +- Search Tool (agent:research/search-tool)  token j2  document.read\n  \
         +- Search Tool (agent:research/search-tool)  deny (capability_not_granted)\n"
    );
}

#[test]
fn l10_nothing_in_a_tree_acts_on_a_terminal() {
    let evil = "\u{1b}[2J\n\u{202e}";
    let records = [
        json!({"event": "token.issue", "subject": evil, "user": evil, "txn": evil, "jti": "j", "scope": evil, "approved_by": evil}),
    ];
    let tree = trace(&records, "j").expect("an answer").tree().to_string();
    assert!(tree.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')), "{tree:?}");
    assert_eq!(tree.lines().count(), 3, "{tree}");
}

#[test]
fn who_really_did_this_is_one_sentence() {
    let trace = trace(&chain(), "j2").expect("an answer");
    assert_eq!(
        trace.sentences[0],
        "Search Tool (agent:research/search-tool), called by Research Bot (agent:research/research-bot), acting for alice@acme.com, \
         got a token for document.read at https://docs.acme.com on 2026-11-24 at 12:00:03 UTC."
    );
    assert_eq!(trace.sentences[1], "agent:research/research-bot was suspended by bob on 2026-11-24 at 12:00:07 UTC.");
    assert_eq!(trace.sentences.len(), 2);
}

#[test]
fn the_tree_has_each_hop_below_the_one_that_it_came_of_and_refusals_too() {
    for subject in ["j1", "j2", "t1", "user:alice@acme.com"] {
        let trace = trace(&chain(), subject).expect("an answer");
        let [root] = trace.hops.as_slice() else { panic!("one root: {:?}", trace.hops) };
        let below: Vec<_> = root.children.iter().map(|hop| (hop.jti.as_deref(), hop.reason.as_str())).collect();
        // The refusal names no user: a user's own records do not have it.
        let expected: &[_] = match subject {
            "user:alice@acme.com" => &[(Some("j2"), "granted")],
            _ => &[(Some("j2"), "granted"), (None, "capability_not_granted")],
        };
        assert_eq!((root.jti.as_deref(), below.as_slice()), (Some("j1"), expected), "{subject}");
        let text = trace.to_string();
        for part in [
            "chain t1",
            "+- token j1  2026-11-24T12:00:02.000Z  allow (granted)",
            "|  +- token j2",
            "signed with key k1",
            "client 10.0.0.2",
            "record l/3",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    let trace = trace(&chain(), "j2").expect("an answer");
    assert_eq!(trace.hops[0].children[0].introspections, 1);
    assert!(trace.to_string().contains("introspected 1 times"));
    assert!(!trace.to_string().contains("audit.read"), "reading the ledger is no part of the story");
}

#[test]
fn an_agent_is_told_with_its_life_its_tokens_and_its_refusals() {
    let trace = trace(&chain(), "agent:research/search-tool").expect("an answer");
    assert_eq!(
        trace.sentences[0],
        "In the records for Search Tool (agent:research/search-tool): 1 token issued, 1 request refused, and 1 request of others."
    );
    assert!(
        trace.sentences[1].contains(
            "was refused a token for payments.authorize on 2026-11-24 at 12:00:05 UTC: capability_not_granted (not granted)."
        ),
        "{:?}",
        trace.sentences
    );
    assert!(trace.events.iter().any(|event| event.event == "agent.registered" && event.by.as_deref() == Some("admin")));
}

#[test]
fn a_request_is_told_from_its_filing_to_its_completion() {
    let of_request = |event: &str, more: Value| {
        let mut record = json!({"event": event, "jit_request": "payments/pay-7", "jit_request_uid": "r7", "agent": "agent:payments/bot", "capability": "payments.authorize",
            "resource": "invoice:INV-7", "digest": "sha256:abc"});
        more.as_object().expect("members").iter().for_each(|(name, value)| record[name] = value.clone());
        record
    };
    let records = [
        of_request("jit.file", json!({"subject": "agent:payments/bot", "reason": "filed"})),
        of_request("jit.requested", json!({"reason": "requested"})),
        of_request("jit.approved", json!({"by": "bob", "reason": "approved"})),
        of_request(
            "token.issue",
            json!({"subject": "agent:payments/bot", "jti": "j7", "approved_by": "bob", "scope": "payments.authorize", "audience": "https://pay.acme.com"}),
        ),
        of_request(
            "token.issue",
            json!({"subject": "agent:payments/bot", "jti": "j7", "approved_by": "bob", "scope": "payments.authorize", "audience": "https://pay.acme.com"}),
        ),
        of_request("jit.complete", json!({"subject": "agent:payments/bot", "jti": "j7", "reason": "completed"})),
    ];
    for subject in ["r7", "payments/pay-7"] {
        let trace = trace(&records, subject).expect("an answer");
        assert_eq!(
            trace.sentences,
            [
                "Request payments/pay-7: filed on 2026-11-24 at 12:00:00 UTC, requested on 2026-11-24 at 12:00:01 UTC, approved by bob on 2026-11-24 at 12:00:02 UTC, \
                 reported as done on 2026-11-24 at 12:00:05 UTC.",
                "agent:payments/bot, acting for itself, got a token for payments.authorize on invoice:INV-7 at https://pay.acme.com on 2026-11-24 at 12:00:03 UTC; \
                 it was approved by bob (digest sha256:abc)."
            ]
        );
        assert_eq!(trace.hops.len(), 1, "a token that is handed out again is one token");
    }
    let trace = trace(&records, "j7").expect("an answer");
    assert_eq!(trace.sentences[1], "The operation was reported as done on 2026-11-24 at 12:00:05 UTC.");
}

#[test]
fn revocations_are_told() {
    let token = json!({"event": "token.issue", "subject": "agent:a/b", "user": "user:alice", "txn": "t", "jti": "j", "chain": "agent:a/b", "scope": "x", "audience": "https://x"});
    for (revocation, told) in [
        (json!({"event": "token.revoke", "jti": "j", "revoked_by": "bob"}), "It was revoked by bob"),
        (
            json!({"event": "agent.revoked", "subject": "agent:a/b", "revoked_by": "bob"}),
            "All tokens of agent:a/b were revoked by bob",
        ),
        (json!({"event": "user.revoked", "user": "user:alice", "revoked_by": "bob"}), "All tokens for alice were revoked by bob"),
        (json!({"event": "chain.revoked", "txn": "t", "revoked_by": "bob"}), "The whole chain was revoked by bob"),
    ] {
        let subject = if revocation["event"] == "user.revoked" { "user:alice" } else { "j" };
        let trace = trace(&[token.clone(), revocation.clone()], subject).expect("an answer");
        let text = trace.to_string();
        assert!(text.contains(told) || subject != "j" && text.contains("user.revoked user:alice by bob"), "{told}: {text}");
    }
    // One that was refused has ended nothing.
    let refused = json!({"event": "token.revoke", "jti": "j", "outcome": "deny", "reason": "token_of_another_agent"});
    assert_eq!(trace(&[token, refused], "j").expect("an answer").sentences.len(), 1);
}

#[test]
fn l10_nothing_that_was_recorded_reaches_the_terminal_as_it_was() {
    let hostile = "\u{1b}]0;x\u{7}\u{202e}\r\n\u{2028}\u{9b}31m";
    let record = |event: &str| {
        let mut record = json!({"event": event});
        for name in [
            "subject",
            "display_name",
            "user",
            "chain",
            "txn",
            "scope",
            "audience",
            "resource",
            "key_id",
            "bound_to",
            "client_address",
            "approved_by",
            "digest",
            "jit_request",
            "detail",
            "changed_by",
            "parent_jti",
            "time",
            "reason",
            "outcome",
        ] {
            record[name] = json!(format!("{hostile}{name}"));
        }
        record
    };
    let mut issued = record("token.issue");
    issued["outcome"] = json!("allow");
    issued["jti"] = json!("j");
    let mut suspended = record("agent.suspended");
    suspended["jti"] = json!("j");
    suspended["outcome"] = json!("allow");
    let mut refused = record("token.issue");
    refused["credential_id"] = json!("j");
    let text = trace(&[issued, suspended, refused, record("jit.approved")], "j").expect("an answer").to_string();
    assert!(text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')), "{text}");
    assert!(text.contains(r"\u{1b}]0;x\u{7}\u{202e}\u{d}\u{a}\u{2028}\u{9b}31mscope"), "{text}");
}

#[test]
fn a_display_name_cannot_tell_a_story_of_its_own() {
    let named = |name: &str| {
        let records = [
            json!({"event": "agent.registered", "subject": "agent:a/b", "display_name": name}),
            json!({"event": "token.issue", "subject": "agent:a/b", "jti": "j", "scope": "x", "audience": "https://x"}),
        ];
        trace(&records, "j").expect("an answer").sentences[0].clone()
    };
    assert!(named("Bot").starts_with("Bot (agent:a/b), acting for itself,"));
    let forged = named("Bot (agent:a/root), acting for alice, \"x");
    assert!(forged.starts_with("\"Bot (agent:a/root), acting for alice, 'x\" (agent:a/b), acting for itself,"), "{forged}");
}

#[test]
fn an_agent_is_called_what_it_was_called_then() {
    let records = [
        json!({"event": "agent.registered", "subject": "agent:a/b", "agent_uid": "1", "display_name": "Old"}),
        json!({"event": "token.issue", "subject": "agent:a/b", "agent_uid": "1", "jti": "j1"}),
        json!({"event": "agent.changed", "subject": "agent:a/b", "agent_uid": "1", "display_name": "New"}),
        json!({"event": "token.issue", "subject": "agent:a/b", "agent_uid": "1", "jti": "j2"}),
        json!({"event": "agent.registered", "subject": "agent:a/b", "agent_uid": "2", "display_name": "Another"}),
        json!({"event": "token.issue", "subject": "agent:a/b", "agent_uid": "1", "jti": "j3"}),
    ];
    for (jti, name) in [("j1", "Old"), ("j2", "New"), ("j3", "New")] {
        assert!(trace(&records, jti).expect("an answer").sentences[0].starts_with(&format!("{name} (agent:a/b)")), "{jti}");
    }
}

#[test]
fn records_that_name_each_other_as_parents_are_all_shown() {
    let token = |jti: &str, parent: &str| json!({"event": "token.issue", "subject": "agent:a/b", "txn": "t", "jti": jti, "parent_jti": parent});
    let looped = trace(&[token("a", "b"), token("b", "a"), token("c", "c")], "t").expect("an answer");
    fn count(hops: &[Hop]) -> usize {
        hops.iter().map(|hop| 1 + count(&hop.children)).sum()
    }
    assert_eq!(count(&looped.hops), 3);
    let long: Vec<Value> = (0..500).map(|i| token(&format!("j{i}"), &format!("j{}", i - 1))).collect();
    assert_eq!(count(&trace(&long, "t").expect("an answer").hops), 500);
}

#[test]
fn of_too_many_records_the_newest_are_told_and_the_rest_is_counted() {
    let records: Vec<Value> = (0..RECORDS_MAX + 10)
        .map(|_| json!({"event": "token.issue", "subject": "agent:a/b", "outcome": "deny", "reason": "x"}))
        .collect();
    let mut ledger = ledger(&records);
    // Times with an hour, for so many.
    for (i, entry) in ledger.iter_mut().enumerate() {
        let line = json!({"time": format!("2026-11-24T{:02}:{:02}:{:02}.000Z", i / 3600, i / 60 % 60, i % 60), "event": "token.issue", "subject": "agent:a/b", "outcome": "deny", "reason": "x"});
        *entry = Entry::read("l", i as u64, line.to_string().as_bytes());
    }
    let mut gathering = Gathering::new(Subject::parse("agent:a/b").expect("a subject"), None).expect("a search");
    gathering.take(page(ledger));
    let trace = gathering.finish().expect("an answer");
    assert_eq!((trace.left_out, trace.hops.len()), (10, RECORDS_MAX));
    assert_eq!(trace.hops[0].record, "l/10");
}

#[test]
fn what_no_record_knows_has_no_answer() {
    assert_eq!(trace(&chain(), "unknown"), None);
    assert_eq!(trace(&chain(), "agent:research/nobody"), None);
    assert_eq!(trace(&[], "j1"), None);
    for bad in ["", "agent:", "agent:a", "agent:A/b", "user:", "a b", "a\u{1b}", "a\nb", &"x".repeat(513)] {
        assert_eq!(Subject::parse(bad), Err(SubjectError), "{bad:?}");
    }
}
