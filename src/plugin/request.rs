//! One request for approval, as people see it: what is asked, for whom, under which rule, and what became of it.
//!
//! Everything in it was written by somebody else. Nothing here touches anything: the time is an argument.

use super::screen::{self, duration, wrap};
use crate::crd::{Approval, CapabilitySpec, JitRequest, JitRequestStatus, Phase};
use crate::headline::{Wording, headline};
use crate::jit;
use crate::readable::Readable;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use std::fmt::Write as _;

/// How wide the names of fields are.
const LABEL: usize = 14;

/// What the catalogue says about the capability of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// This.
    Found(Box<CapabilitySpec>),
    /// Nothing.
    Missing,
    /// Whoever asks may not read it.
    Hidden,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The object.
    pub object: JitRequest,
    /// The catalogue's word on its capability.
    pub entry: Entry,
}

/// A text of somebody else.
fn said(text: &str) -> String {
    Readable(text).to_string()
}

impl Asked {
    /// `namespace/name`.
    #[must_use]
    pub fn id(&self) -> String {
        said(&format!("{}/{}", self.namespace(), self.object.name_any()))
    }

    fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// What became of it so far.
    #[must_use]
    pub fn status(&self) -> JitRequestStatus {
        self.object.status.clone().unwrap_or_default()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let phase = self.object.status.as_ref().and_then(|status| status.phase);
        !matches!(phase, None | Some(Phase::Pending | Phase::Approved | Phase::Issued))
    }

    /// What is asked, in a sentence.
    #[must_use]
    pub fn headline(&self) -> String {
        let wording = match &self.entry {
            Entry::Found(spec) => Wording::of(spec),
            Entry::Missing | Entry::Hidden => Wording::default(),
        };
        headline(self.namespace(), &self.object.spec, &wording)
    }

    /// How bad misuse would be.
    #[must_use]
    pub fn risk(&self) -> String {
        match &self.entry {
            Entry::Found(spec) => spec.risk.map_or_else(|| "-".to_owned(), |risk| format!("{risk:?}")),
            Entry::Missing => "-".to_owned(),
            Entry::Hidden => "?".to_owned(),
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> String {
        match &self.object.status {
            Some(JitRequestStatus { phase: Some(phase), .. }) => format!("{phase:?}"),
            _ => "New".to_owned(),
        }
    }

    /// How many have approved, of how many.
    #[must_use]
    pub fn approvals(&self) -> String {
        said(self.object.status.as_ref().and_then(|status| status.approval_progress.as_deref()).unwrap_or("-"))
    }

    /// When the phase ends by itself, in seconds since the epoch.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        self.object.status.as_ref().and_then(|status| status.expires_at.as_ref()).map(|at| at.0.as_second())
    }

    /// How long that is from `now`.
    #[must_use]
    pub fn left(&self, now: i64) -> String {
        self.expires().map_or_else(|| "-".to_owned(), |at| duration(at.saturating_sub(now)))
    }

    /// The digest of what is shown, computed here.
    fn own_digest(&self) -> Option<String> {
        Some(jit::Request::parse(self.object.clone())?.question.ok()?.digest)
    }

    /// The digest that a decision is for.
    ///
    /// # Errors
    /// Why nobody should decide: there is none, or it is not that of what is shown.
    pub fn digest(&self) -> Result<String, String> {
        let stored = self.object.status.as_ref().and_then(|status| status.digest.clone());
        let stored = stored.ok_or_else(|| format!("{}: the operator has not looked at it yet: is it running?", self.id()))?;
        match self.own_digest() {
            Some(own) if own == stored => Ok(stored),
            _ => Err(format!(
                "{}: the digest in its status is not that of what it asks: somebody else than the operator wrote one of them, or \
                 this version of kubectl-countersign does not know all of it. Nothing was decided",
                self.id()
            )),
        }
    }

    /// What is asked, with all that a person needs to decide on it, in lines of at most `width` columns.
    #[must_use]
    pub fn sheet(&self, width: usize, now: i64) -> String {
        let (spec, operation) = (&self.object.spec, &self.object.spec.operation);
        let mut sheet = Sheet::new(width);
        sheet.paragraph(&self.headline());
        sheet.text.push('\n');
        sheet.field("request", &self.id());
        sheet.field("phase", &self.standing(now));
        sheet.field("agent", &said(&format!("agent:{}/{}", self.namespace(), spec.agent.name)));
        if let Some(behalf) = &spec.on_behalf_of {
            for caller in behalf.chain.iter().rev() {
                sheet.field("called by", &said(caller));
            }
            sheet.field("acting for", &behalf.user.as_deref().map_or_else(|| "no user".to_owned(), said));
        }
        sheet.field("capability", &said(&operation.capability));
        match &self.entry {
            Entry::Found(entry) => {
                for text in [&entry.title, &entry.description].into_iter().flatten() {
                    sheet.more(&said(text));
                }
                sheet.field("risk", &self.risk());
            }
            Entry::Missing => sheet.more("(the catalogue has no entry for it)"),
            Entry::Hidden => sheet.more("(you may not read the catalogue)"),
        }
        sheet.field("resource", &operation.resource.as_deref().map_or_else(|| "none".to_owned(), said));
        match &operation.parameters {
            Some(parameters) if !parameters.is_empty() => {
                for (at, (name, value)) in parameters.iter().enumerate() {
                    sheet.field(if at == 0 { "parameters" } else { "" }, &format!("{}: {}", said(name), screen::json(value)));
                }
            }
            _ => sheet.field("parameters", "none"),
        }
        sheet.field("audience", &said(&operation.audience));
        sheet.field("token life", &format!("{} at most", duration(spec.expiration_seconds.into())));
        let requester = spec.requested_by.as_ref().map_or_else(|| "unknown".to_owned(), |by| said(&by.username));
        sheet.field("requested by", &requester);
        match self.object.status.as_ref().and_then(|status| status.digest.as_deref()) {
            None => sheet.field("digest", "none yet: the operator has not looked at it"),
            Some(digest) if self.own_digest().as_deref() == Some(digest) => sheet.field("digest", &said(digest)),
            Some(digest) => {
                sheet.field("digest", &said(digest));
                sheet.more("which is NOT that of what is shown here");
            }
        }
        match &spec.justification {
            Some(words) => sheet.quote("In the agent's own words, which prove nothing:", &said(words)),
            None => sheet.paragraph("The agent gives no reason."),
        }
        self.decisions(&mut sheet);
        sheet.text
    }

    fn standing(&self, now: i64) -> String {
        let mut text = self.phase();
        if let Some(at) = &self.object.status.as_ref().and_then(|status| status.expires_at.clone()) {
            let left = at.0.as_second().saturating_sub(now);
            let left = if left > 0 { format!("{} left", duration(left)) } else { "over".to_owned() };
            _ = write!(text, ", until {} ({left})", at.0);
        }
        _ = write!(text, ", approvals {}", self.approvals());
        text
    }

    fn decisions(&self, sheet: &mut Sheet) {
        let status = self.status();
        if status.approvals.is_empty() && status.decision.is_none() {
            return;
        }
        sheet.paragraph("Decisions:");
        for approval in &status.approvals {
            sheet.item(&decision(approval));
        }
        if let Some(decision) = &status.decision {
            let by = decision.by.as_ref().map_or("somebody", |by| by.username.as_str());
            sheet.item(&format!("{:?} by {}, which the operator has not recorded yet", decision.verdict, said(by)));
        }
    }

    /// What happened when, and how to decide with kubectl alone.
    #[must_use]
    pub fn story(&self, width: usize) -> String {
        let mut sheet = Sheet::new(width);
        sheet.paragraph("What happened:");
        for (at, what) in self.timeline() {
            sheet.item(&format!("{}  {what}", at.0));
        }
        if let (false, Ok(digest)) = (self.is_finished(), self.digest()) {
            let patch = serde_json::json!({"status": {"decision": {"verdict": "Approved", "digest": digest}}});
            sheet.paragraph("The same as approving it, with kubectl alone:");
            // Names that a shell could take for something else are none that the API server takes.
            sheet.verbatim(&format!(
                "kubectl patch jitrequest {} -n {} --subresource=status --type=merge -p '{patch}'",
                said(&self.object.name_any()),
                said(self.namespace()),
            ));
        }
        sheet.text
    }

    fn timeline(&self) -> Vec<(Time, String)> {
        let status = self.status();
        let mut events: Vec<(Time, String)> = Vec::new();
        let requester = self.object.spec.requested_by.as_ref().map_or("somebody", |by| by.username.as_str());
        events.extend(self.object.creation_timestamp().map(|at| (at, format!("requested by {}", said(requester)))));
        events.extend(status.approvals.iter().map(|a| (a.at.clone(), format!("{:?} by {}", a.verdict, said(&a.by.username)))));
        // One that is not true says only what has not happened.
        let conditions =
            status.conditions.iter().filter(|condition| condition.status != "False" || condition.type_ == "Approved");
        events.extend(conditions.map(|condition| {
            let what = format!("{}: {} ({})", said(&condition.type_), said(&condition.message), said(&condition.reason));
            (condition.last_transition_time.clone(), what)
        }));
        let token = status.jti.as_deref().map_or_else(String::new, |jti| format!(" {}", said(jti)));
        events.extend(status.issued_at.map(|at| (at, format!("the token{token} was issued"))));
        events.extend(status.completed_at.map(|at| (at, "the operation was reported as done".to_owned())));
        events.sort_by_key(|(at, _)| at.0);
        events
    }
}

/// A decision that was recorded.
#[must_use]
pub fn decision(approval: &Approval) -> String {
    let mut text = format!("{}  {:?} by {}", approval.at.0, approval.verdict, said(&approval.by.username));
    if let Some(comment) = &approval.comment {
        _ = write!(text, ": \"{}\"", said(comment));
    }
    if let Some(void) = &approval.void {
        _ = write!(text, "; does not count: {}", said(void));
    }
    text
}

/// Text in paragraphs and fields.
struct Sheet {
    text: String,
    width: usize,
}

impl Sheet {
    const fn new(width: usize) -> Self {
        Self { text: String::new(), width }
    }

    /// Lines, each behind `lead`; the first behind `first`.
    fn lines(&mut self, first: &str, lead: &str, text: &str) {
        for (at, line) in wrap(text, self.width.saturating_sub(lead.len())).iter().enumerate() {
            let line = format!("{}{line}", if at == 0 { first } else { lead });
            _ = writeln!(self.text, "{}", line.trim_end());
        }
    }

    /// Behind an empty line, unless it is the first.
    fn paragraph(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.lines("", "", text);
    }

    fn field(&mut self, name: &str, text: &str) {
        self.lines(&format!("{name:<LABEL$}"), &" ".repeat(LABEL), text);
    }

    fn more(&mut self, text: &str) {
        self.field("", text);
    }

    fn item(&mut self, text: &str) {
        self.lines("  ", "      ", text);
    }

    /// Somebody else's words, with a bar before each line, so that none of them passes for ours.
    fn quote(&mut self, head: &str, text: &str) {
        self.paragraph(head);
        self.lines("  | ", "  | ", text);
    }

    /// Not wrapped, so that it can be copied.
    fn verbatim(&mut self, text: &str) {
        _ = writeln!(self.text, "  {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use unicode_width::UnicodeWidthStr as _;

    const NOW: i64 = 1_795_500_000;

    fn asked(spec: &Value, status: &Value) -> Asked {
        let mut whole = json!({"agent": {"name": "bot"}, "operation": {"capability": "pay", "audience": "https://a"}});
        for (name, value) in spec.as_object().expect("members") {
            whole[name] = value.clone();
        }
        let object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "JitRequest", "spec": whole, "status": status,
            "metadata": {"namespace": "n", "name": "pay-7", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-11-24T12:00:00Z"}});
        Asked { object: serde_json::from_value(object).expect("a request"), entry: Entry::Missing }
    }

    #[test]
    fn h15_no_text_of_the_agent_leaves_its_place() {
        let evil = "\u{1b}[2J\u{1b}[H approved\r\n\u{202e}phase  Completed\n\ndigest        sha256:0000";
        let mut asked = asked(
            &json!({"justification": format!("{evil}{}", "long ".repeat(200)), "requestedBy": {"username": evil},
                "onBehalfOf": {"user": evil, "chain": [evil]},
                "operation": {"capability": evil, "resource": evil, "audience": evil, "parameters": {evil: evil, "deep": [{"x": evil}]}}}),
            &json!({"digest": evil, "approvalProgress": evil, "conditions": [{"type": evil, "status": "True", "reason": evil, "message": evil,
                "lastTransitionTime": "2026-11-24T12:00:00Z"}],
                "approvals": [{"by": {"username": evil}, "verdict": "Approved", "comment": evil, "void": evil, "at": "2026-11-24T12:00:00Z"}]}),
        );
        asked.entry = Entry::Found(Box::new(CapabilitySpec {
            title: Some(evil.to_owned()),
            description: Some(evil.to_owned()),
            headline: Some(evil.to_owned()),
            ..CapabilitySpec::default()
        }));
        for width in [0, 40, 100] {
            let shown = format!("{}{}", asked.sheet(width, NOW), asked.story(width));
            let acts = |c: char| c != '\n' && (c.is_control() || crate::readable::is_invisible(c));
            assert!(!shown.contains(acts), "{shown:?}");
            assert!(!shown.lines().any(|line| line.starts_with("digest        sha256:0")), "{shown}");
            assert!(shown.lines().all(|line| line.width() <= width.max(34) || line.contains("kubectl patch")), "{shown}");
            assert_eq!(shown.lines().filter(|line| line.starts_with("phase")).count(), 1, "{shown}");
        }
    }

    #[test]
    fn what_is_decided_on_is_what_is_shown() {
        let empty = asked(&json!({}), &json!({}));
        assert!(empty.digest().expect_err("no digest").contains("has not looked at it yet"));
        let digest = empty.own_digest().expect("a digest");
        let good = asked(&json!({}), &json!({"digest": digest}));
        assert_eq!(good.digest().as_ref(), Ok(&digest));
        let forged = asked(&json!({"expirationSeconds": 900}), &json!({"digest": digest}));
        assert!(forged.digest().expect_err("another").contains("is not that of what it asks"));
        assert!(forged.sheet(100, NOW).contains("which is NOT that of what is shown here"));
    }

    #[test]
    fn all_that_is_asked_is_shown() {
        let operation = json!({"capability": "pay", "resource": "invoice:7", "audience": "https://a",
            "parameters": {"amount": 500, "to": {"iban": "DE02", "lines": [1, 2, 3]}}});
        let asked = asked(
            &json!({"operation": operation, "expirationSeconds": 120, "justification": "It is due.",
                "onBehalfOf": {"user": "alice", "chain": ["agent:x/planner"]}}),
            &json!({"phase": "Pending", "approvalProgress": "1/2", "expiresAt": "2026-11-24T06:20:00Z",
                "approvals": [{"by": {"username": "bob"}, "verdict": "Approved", "comment": "ok", "at": "2026-11-24T12:00:00Z"},
                    {"by": {"username": "carol"}, "verdict": "Approved", "void": "carol owns an agent that asks", "at": "2026-11-24T12:00:01Z"}]}),
        );
        let shown = asked.sheet(100, NOW);
        for line in [
            "phase         Pending, until 2026-11-24T06:20:00Z (20m left), approvals 1/2",
            "called by     agent:x/planner",
            "acting for    alice",
            "resource      invoice:7",
            "parameters    amount: 500",
            "              to: {\"iban\":\"DE02\",\"lines\":[1,2,3]}",
            "token life    2m at most",
            "  | It is due.",
            "  2026-11-24T12:00:00Z  Approved by bob: \"ok\"",
            "  2026-11-24T12:00:01Z  Approved by carol; does not count: carol owns an agent that asks",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n\n{shown}");
        }
    }
}
