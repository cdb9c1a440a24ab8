//! The message in Slack: `chat.postMessage` when an agent asks, `chat.update` of that message with what became of it.
//!
//! Texts of agents and people are shown as plain text, in which Slack reads no markup, mention or link; what would act on the reader is
//! escaped before.

use super::event::Event;
use crate::crd::{Phase, Risk, Verdict};
use crate::readable::{Readable, shortened};
use serde_json::{Value, json};

/// Longest text of a section, in characters; Slack takes 3,000.
const TEXT_MAX: usize = 2800;
/// Longest value of a field, in characters; Slack takes 2,000.
const FIELD_MAX: usize = 1500;
/// Longest text for where no blocks are shown, in characters.
const FALLBACK_MAX: usize = 500;

/// What is known of a message that was posted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The channel.
    pub channel: String,
    /// Its time, by which Slack knows it.
    pub ts: String,
}

impl Posted {
    /// As it is stored.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{} {}", self.channel, self.ts)
    }

    /// Reads what is stored.
    #[must_use]
    pub fn parse(reference: &str) -> Option<Self> {
        let (channel, ts) = reference.split_once(' ')?;
        Some(Self { channel: channel.to_owned(), ts: ts.to_owned() })
    }

    /// What Slack answers (<https://docs.slack.dev/reference/methods/chat.postMessage>).
    ///
    /// # Errors
    /// Slack's own word for what is wrong, if it is one.
    pub fn of_answer(answer: &[u8]) -> Result<Self, String> {
        let answer: Value = serde_json::from_slice(answer).map_err(|_| "the answer is no JSON".to_owned())?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        if answer.get("ok") != Some(&Value::Bool(true)) {
            let word = text("error");
            let is_word = !word.is_empty() && word.len() < 64 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            return Err(if is_word { format!("Slack says {word}") } else { "Slack says no, and not why".to_owned() });
        }
        let is_known =
            |text: &str| !text.is_empty() && text.len() < 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
        match (text("channel"), text("ts")) {
            (channel, ts) if is_known(channel) && is_known(ts) => Ok(Self { channel: channel.to_owned(), ts: ts.to_owned() }),
            _ => Err("Slack's answer names no message".to_owned()),
        }
    }
}

/// The method and the body of the call that shows `event`: a new message in `channel`, or in place of the one that was `posted`.
#[must_use]
pub fn call(event: &Event, channel: &str, posted: Option<&Posted>) -> (&'static str, Value) {
    let data = &event.data;
    // This one text Slack reads as markup.
    let text = shortened(&data.headline, FALLBACK_MAX).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut blocks = vec![
        json!({"type": "header", "text": plain(&state(event), 150)}),
        json!({"type": "section", "text": plain(&data.headline, TEXT_MAX)}),
    ];
    let fields: Vec<Value> =
        facts(event).into_iter().map(|(name, value)| plain(&format!("{name}: {value}"), FIELD_MAX)).collect();
    blocks.extend(fields.chunks(10).map(|fields| json!({"type": "section", "fields": fields})));
    if let Some(parameters) = data.parameters.as_ref().filter(|parameters| !parameters.is_empty()) {
        let lines: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let lines: Vec<String> = lines.iter().map(|line| Readable(line).to_string()).collect();
        blocks.push(json!({"type": "section", "text": plain(&lines.join("\n"), TEXT_MAX)}));
    }
    if let Some(justification) = &data.justification {
        let said = format!("The agent says (this proves nothing): {}", Readable(justification));
        blocks.push(json!({"type": "context", "elements": [plain(&said, FIELD_MAX)]}));
    }
    for decided in &data.decisions {
        let verdict = match decided.verdict {
            Verdict::Approved => "Approved",
            Verdict::Denied => "Denied",
        };
        let void = decided.void.as_deref().map(|void| format!(" (does not count: {})", Readable(void))).unwrap_or_default();
        let comment = decided.comment.as_deref().map(|comment| format!(": {}", Readable(comment))).unwrap_or_default();
        let said = format!("{verdict} by {}{void}{comment}", Readable(&decided.by));
        blocks.push(json!({"type": "context", "elements": [plain(&said, FIELD_MAX)]}));
    }
    if let Some(url) = data.url.as_ref().filter(|_| data.phase == Some(Phase::Pending)) {
        blocks.push(json!({"type": "actions", "elements": [
            {"type": "button", "text": plain("Look and decide", 75), "url": url, "action_id": "open", "style": "primary"}]}));
    }
    blocks.push(json!({"type": "context", "elements": [plain(&Readable(&data.command).to_string(), FIELD_MAX)]}));
    let blocks: Vec<Value> = blocks.into_iter().take(50).collect();
    match posted {
        None => (
            "chat.postMessage",
            json!({"channel": channel, "text": text, "blocks": blocks, "unfurl_links": false, "unfurl_media": false}),
        ),
        Some(posted) => ("chat.update", json!({"channel": posted.channel, "ts": posted.ts, "text": text, "blocks": blocks})),
    }
}

/// The headline's headline: where the request stands.
fn state(event: &Event) -> String {
    let data = &event.data;
    let progress = data.approvals.as_deref().unwrap_or("0/1");
    match data.phase {
        Some(Phase::Pending) if event.kind.ends_with(".cancelled") => "Withdrawn".to_owned(),
        Some(Phase::Pending) => format!("Approval needed ({progress})"),
        Some(Phase::Approved | Phase::Issued | Phase::Completed) => "Approved".to_owned(),
        Some(Phase::Denied) => "Denied".to_owned(),
        Some(Phase::Expired) => "Expired".to_owned(),
        Some(Phase::Cancelled) => "Withdrawn".to_owned(),
        Some(Phase::Revoked) => "Revoked".to_owned(),
        None => "New".to_owned(),
    }
}

/// What is worth knowing beside the sentence.
fn facts(event: &Event) -> Vec<(&'static str, String)> {
    let data = &event.data;
    let risk = data.risk.map(|risk| match risk {
        Risk::Low => "low",
        Risk::Medium => "medium",
        Risk::High => "high",
        Risk::Critical => "critical",
    });
    let facts = [
        ("Agent", Some(data.agent.clone())),
        ("For", data.user.clone()),
        ("Called by", (!data.chain.is_empty()).then(|| data.chain.join(", "))),
        ("Capability", Some(data.capability.clone())),
        ("Resource", data.resource.clone()),
        ("Audience", Some(data.audience.clone())),
        ("Risk", risk.map(str::to_owned)),
        ("Until", data.expires_at.clone()),
        ("Digest", data.digest.clone()),
        ("Now", (!data.message.is_empty()).then(|| data.message.clone())),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, Readable(&value?).to_string()))).collect()
}

/// Plain text in a block.
fn plain(text: &str, max: usize) -> Value {
    json!({"type": "plain_text", "text": shortened(text, max), "emoji": false})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headline::Wording;
    use crate::jit::Request;
    use crate::notify::{Occasion, Source};

    fn event(justification: &str, occasion: Occasion) -> Event {
        let request = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "JitRequest",
            "metadata": {"name": "pay-7", "namespace": "payments", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-11-27T00:00:00Z"},
            "spec": {"agent": {"name": "payments-bot"}, "justification": justification, "operation": {"capability": "payments.authorize",
                "resource": "invoice:INV-7", "parameters": {"amount": 500, "to": "<!channel> *now*"}, "audience": "https://pay.acme.com"}},
            "status": {"phase": "Pending", "digest": "sha256:00", "approvalProgress": "0/1"},
        }));
        let request = Request::parse(request.expect("a request")).expect("a request");
        let source = Source {
            issuer: "https://countersign.agents.svc",
            portal: Some("https://countersign.acme.com/portal"),
            wording: &Wording::default(),
            risk: Some(Risk::High),
        };
        Event::new(&request, occasion, &source, 1_800_000_000)
    }

    /// Every text in the blocks.
    fn texts(value: &Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(members) if members.contains_key("type") && members.contains_key("emoji") => found.push(value.clone()),
            Value::Object(members) => members.values().for_each(|value| texts(value, found)),
            Value::Array(items) => items.iter().for_each(|value| texts(value, found)),
            _ => {}
        }
    }

    #[test]
    fn h15_what_an_agent_says_is_plain_text_in_chat() {
        let hostile = format!("<!channel> <https://evil.example|here> *bold* \u{202e}\u{1b}[31m{}", "x".repeat(5000));
        let (method, body) = call(&event(&hostile, Occasion::Requested), "C1", None);
        assert_eq!((method, &body["channel"]), ("chat.postMessage", &json!("C1")));
        assert!(!body["text"].as_str().expect("text").contains(['<', '>']), "{body}");
        let mut found = Vec::new();
        texts(&body["blocks"], &mut found);
        assert!(found.len() > 8, "{body}");
        for text in found {
            assert_eq!(text["type"], "plain_text");
            let text = text["text"].as_str().expect("text");
            assert!(text.chars().count() <= 3000 && !text.contains(['\u{202e}', '\u{1b}']), "{text}");
        }
        let button =
            body["blocks"].as_array().expect("blocks").iter().find(|block| block["type"] == "actions").expect("a button");
        assert_eq!(button["elements"][0]["url"], "https://countersign.acme.com/portal/requests/payments/pay-7");
    }

    #[test]
    fn a_message_is_updated_where_it_is() {
        let posted = Posted::of_answer(br#"{"ok":true,"channel":"C1","ts":"17.5"}"#).expect("posted");
        let posted = Posted::parse(&posted.reference()).expect("the same");
        let (method, body) = call(&event("x", Occasion::Cancelled), "C2", Some(&posted));
        assert_eq!((method, &body["channel"], &body["ts"]), ("chat.update", &json!("C1"), &json!("17.5")));
        assert!(body.to_string().contains("Withdrawn") || body.to_string().contains("Approval needed"));
        for (answer, word) in [
            (r#"{"ok":false,"error":"channel_not_found"}"#, "channel_not_found"),
            (r#"{"ok":false,"error":"<script>"}"#, "not why"),
            (r#"{"ok":true}"#, "no message"),
            (r#"{"ok":true,"channel":"C 1","ts":"1"}"#, "no message"),
            ("<html>", "no JSON"),
        ] {
            let error = Posted::of_answer(answer.as_bytes()).expect_err(answer);
            assert!(error.contains(word), "{error}");
        }
    }
}
