//! An answer as text for a terminal.

use super::hop::{Event, Hop};
use super::tell::Trace;
use crate::audit::plain::Plain;
use k8s_openapi::jiff::Timestamp;
use std::fmt;

/// An agent's name and subject. Whoever writes an Agent chooses its display name: one that could be read as more than a name is quoted.
pub(super) fn name(display_name: Option<&str>, subject: &str) -> String {
    let is_harmless = |name: &str| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '\'' | '&')) && name.trim() == name
    };
    match display_name {
        None => Plain(subject).to_string(),
        Some(name) if is_harmless(name) => format!("{name} ({})", Plain(subject)),
        Some(name) => format!("\"{}\" ({})", Plain(&name.replace('"', "'")), Plain(subject)),
    }
}

/// A user without what tells users from agents.
pub(super) fn plain_user(user: &str) -> String {
    Plain(user.strip_prefix("user:").unwrap_or(user)).to_string()
}

/// A time as people say it.
pub(super) fn clock(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => format!("on {} UTC", time.strftime("%Y-%m-%d at %H:%M:%S")),
        Err(_) => format!("at an unknown time ({})", Plain(time)),
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sentence in &self.sentences {
            writeln!(f, "{sentence}")?;
        }
        if self.left_out > 0 {
            writeln!(f, "{} older records are left out; audit query shows them.", self.left_out)?;
        }
        for hop in &self.hops {
            writeln!(f)?;
            if let Some(txn) = &hop.txn {
                writeln!(f, "chain {}", Plain(txn))?;
            }
            show(f, hop, "")?;
        }
        if !self.events.is_empty() {
            writeln!(f, "\nalso:")?;
        }
        for event in &self.events {
            writeln!(f, "  {}", line(event))?;
        }
        Ok(())
    }
}

/// One hop and all below it.
fn show(f: &mut fmt::Formatter<'_>, hop: &Hop, indent: &str) -> fmt::Result {
    let outcome = if hop.is_issued() { "token" } else { "refused" };
    let jti = hop.jti.as_deref().map(|jti| format!(" {}", Plain(jti))).unwrap_or_default();
    writeln!(f, "{indent}+- {outcome}{jti}  {}  {} ({})", Plain(&hop.time), Plain(&hop.outcome), Plain(&hop.reason))?;
    let inner = format!("{indent}|  ");
    let agent = hop.agent.as_deref().map_or_else(|| "unknown".to_owned(), |agent| name(hop.agent_name.as_deref(), agent));
    let user = hop.user.as_deref().map(|user| format!(" for {}", plain_user(user))).unwrap_or_default();
    writeln!(f, "{inner}agent: {agent}{user}")?;
    let part = |label: &str, value: &Option<String>| value.as_deref().map(|value| format!("{label} {}", Plain(value)));
    let join = |parts: Vec<Option<String>>| parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let given = join(vec![part("scope", &hop.scope), part("on", &hop.resource), part("audience", &hop.audience)]);
    let expires = hop.expires_at.and_then(|at| Timestamp::from_second(i64::try_from(at).ok()?).ok());
    let signed = join(vec![
        part("signed with key", &hop.key_id),
        part("bound to key", &hop.bound_to),
        expires.map(|at| format!("expires {at}")),
        part("client", &hop.client_address),
    ]);
    let approved =
        join(vec![part("approved by", &hop.approved_by), part("digest", &hop.digest), part("request", &hop.jit_request)]);
    let detail = part("detail:", &hop.detail).unwrap_or_default();
    let introspected = match hop.introspections {
        0 => String::new(),
        n => format!("introspected {n} times"),
    };
    let record = format!("record {}", Plain(&hop.record));
    for text in [given, signed, approved, detail, introspected, record].into_iter().filter(|text| !text.is_empty()) {
        writeln!(f, "{inner}{text}")?;
    }
    for event in &hop.events {
        writeln!(f, "{inner}{}", line(event))?;
    }
    hop.children.iter().try_for_each(|child| show(f, child, &inner))
}

/// One event.
fn line(event: &Event) -> String {
    let part = |before: &str, value: &Option<String>| {
        value.as_deref().map(|value| format!("{before}{}", Plain(value))).unwrap_or_default()
    };
    format!(
        "{}  {}{}{}  {} ({}){}{}  record {}",
        Plain(&event.time),
        Plain(&event.event),
        part(" ", &event.about),
        part(" by ", &event.by),
        Plain(&event.outcome),
        Plain(&event.reason),
        part(": ", &event.detail),
        part(", client ", &event.client_address),
        Plain(&event.record)
    )
}
