//! How fast a ledger is verified: what `countersign audit verify` does, on records as the token service writes them, without the time
//! that a database takes.

use countersign::audit::ledger::log::Log;
use countersign::audit::ledger::note::CheckpointKey;
use countersign::audit::ledger::verify::{Row, Segment, Verdict, Verification};
use serde_json::{Value, json};
use std::time::Instant;

/// How many records, how many in one append, and how often there is a checkpoint.
const RECORDS: usize = 400_000;
const TOGETHER: usize = 16;
const CHECKPOINT: usize = 1000;

/// Verifies once, and says how fast that was.
pub fn run() -> Value {
    let key = CheckpointKey::from_pem("id.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key");
    let id = countersign::audit::ledger::LogId::random().expect("random bytes");
    let members = json!({
        "event": "token.issue", "outcome": "allow", "reason": "granted", "request_id": "kP5bM0cS9T7m6vTzDq2X4w", "client_address": "10.0.0.1",
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "service_account": "system:serviceaccount:research:bot",
        "service_account_uid": "7f1c7a5e-6a8f-4c0e-9a53-52a1d3a4b0c1", "pod": "bot-6f8c9d7b5-x2x9z", "pod_uid": "0a4ad3a6-9d55-4f3e-8f0e-3a4c9c1d2b7e",
        "credential_id": "c5c8a7d2-1f0b-4b55-a4b4-7c1f7d6e5a4b", "subject": "agent:research/bot", "agent_uid": "e1d2c3b4-a5f6-4789-9abc-def012345678",
        "agent_generation": 3, "audience": "https://docs.example.com", "scope": "document.read web.search", "jti": "2kNH8sEeo4q87IoRXJR1zA",
        "key_id": "hu1neY94ZLVkwJhAWbYuJqWNpuheKjep_unJz0NlTZY", "issued_at": 1_795_521_902, "expires_at": 1_795_522_202,
    });
    let members = members.to_string().split_off(1).into_bytes();
    let mut log = Log::new(id.clone(), None);
    let (mut batches, mut notes) = (Vec::new(), Vec::new());
    let now = countersign::time::Clock::system().now();
    while batches.len() * TOGETHER < RECORDS {
        let batch = log.batch([members.as_slice(); TOGETHER], now);
        log.take_in(&batch);
        if batches.len() * TOGETHER % CHECKPOINT < TOGETHER {
            notes.push(key.sign(&id, batch.head.size, &batch.head.root));
        }
        batches.push(batch);
    }
    let head = batches.last().expect("a batch").head.clone();
    let bytes: usize = batches.iter().map(|batch| batch.body.len()).sum();

    let begun = Instant::now();
    let mut verification = Verification::new(vec![key.vkey()]);
    notes.iter().for_each(|note| verification.published(note));
    let row = Row { size: head.size, root: head.root, sealed_by: None, is_archived: false };
    let mut check = verification.log(id, Some(row));
    for batch in &batches {
        check.segment(&Segment { first: batch.first, count: TOGETHER as u64, body: &batch.body, hashes: Some(&batch.hashes) });
    }
    verification.done(check);
    let report = verification.finish();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(report.verdict(), Verdict::Clean, "{report}");
    json!({
        "bench": "verify",
        "records": report.records(),
        "bytes_per_record": bytes / RECORDS,
        "checkpoints": notes.len(),
        "records_per_second": (report.records() as f64 / seconds).round(),
    })
}
