//! From records to an answer.

use super::hop::{Event, Hop};
use super::show::{clock, name, plain_user};
use super::{Entry, Subject};
use crate::audit::plain::Plain;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many sentences an answer about an agent or a user has.
const SENTENCES_MAX: usize = 20;
/// How deep tokens are shown below one another. No chain is that long.
const DEPTH_MAX: usize = 32;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// What was asked about.
    pub subject: String,
    /// Who did what for whom, in words. Everything from outside is escaped.
    pub sentences: Vec<String>,
    /// The tokens, and below each what was obtained with it. Texts are as they were recorded.
    pub hops: Vec<Hop>,
    /// What else happened, in order: requests and their decisions, revocations, the life of agents.
    pub events: Vec<Event>,
    /// How many older records were left out.
    pub left_out: u64,
}

/// What agents were called, by subject: when, which registration, and the name.
#[derive(Default)]
struct Names<'a>(BTreeMap<&'a str, Vec<(&'a str, &'a str, &'a str)>>);

impl<'a> Names<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut names = Self::default();
        for entry in entries.iter().filter(|entry| entry.event().starts_with("agent.")) {
            if let Some(name) = entry.find("display_name") {
                let at = (entry.time(), entry.text("agent_uid"), name);
                names.0.entry(entry.text("subject")).or_default().push(at);
            }
        }
        names
    }

    /// What an agent was called at `time`: the registration `uid`, if that is known.
    fn at(&self, subject: &str, uid: Option<&str>, time: &str) -> Option<&'a str> {
        let known = self.0.get(subject)?.iter().filter(|(_, of, _)| uid.is_none_or(|uid| uid == *of));
        // RFC 3339 in UTC with milliseconds: the order of the texts is that of the times.
        let before = known.clone().rfind(|(at, ..)| *at <= time);
        before.or_else(|| known.clone().next()).map(|(.., name)| *name)
    }
}

/// What `entries`, in the order of time, say about `subject`.
pub(super) fn tell(subject: &Subject, entries: &[Entry], left_out: u64) -> Option<Trace> {
    let names = Names::of(entries);
    let mut hops: Vec<Hop> = Vec::new();
    let mut by_jti: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.event() == "token.issue") {
        let agent_name = names.at(entry.text("subject"), entry.find("agent_uid"), entry.time()).map(str::to_owned);
        let hop = Hop::of(entry, agent_name);
        match entry.find("jti").filter(|_| entry.is_allowed()) {
            // An approved token may be handed out again within seconds of the first time; that is recorded again.
            Some(jti) => match by_jti.get(jti).and_then(|index| hops.get_mut(*index)) {
                Some(first) => first.events.push(Event::of(entry)),
                None => {
                    by_jti.insert(jti, hops.len());
                    hops.push(hop);
                }
            },
            None => hops.push(hop),
        }
    }
    let mut events = Vec::new();
    let agents: BTreeSet<&str> = entries.iter().filter(|e| e.event() == "token.issue").flat_map(agents_in).collect();
    for entry in entries.iter().filter(|entry| entry.event() != "token.issue") {
        let token = entry.find("jti").and_then(|jti| by_jti.get(jti)).and_then(|index| hops.get_mut(*index));
        match (entry.event(), token) {
            ("token.introspect", Some(hop)) => hop.introspections = hop.introspections.saturating_add(1),
            ("token.introspect", None) => {}
            (event, Some(hop)) if !event.starts_with("jit.") => hop.events.push(Event::of(entry)),
            (event, _) if event.starts_with("agent.") && !is_of_interest(entry, subject, &agents) => {}
            _ => events.push(Event::of(entry)),
        }
    }
    if hops.is_empty() && events.is_empty() {
        return None;
    }
    let sentences = sentences(subject, &hops, &events, &names);
    Some(Trace { subject: subject.as_str().to_owned(), sentences, hops: grow(hops), events, left_out })
}

/// The agents of a token request.
fn agents_in(entry: &Entry) -> impl Iterator<Item = &str> {
    entry.find("subject").into_iter().chain(entry.words("chain"))
}

/// Whether an event in the life of an agent belongs to an answer: all of it if the agent was asked about, else what ended it.
fn is_of_interest(entry: &Entry, subject: &Subject, agents: &BTreeSet<&str>) -> bool {
    match subject {
        Subject::Agent(agent) => entry.text("subject") == agent,
        _ => agents.contains(entry.text("subject")) && !matches!(entry.event(), "agent.registered" | "agent.changed"),
    }
}

/// Puts each token below the one with which it was obtained. None is lost, whatever their records say of their parents.
fn grow(hops: Vec<Hop>) -> Vec<Hop> {
    let index: BTreeMap<String, usize> = hops.iter().enumerate().filter_map(|(i, hop)| Some((hop.jti.clone()?, i))).collect();
    let parent = |hop: &Hop| hop.parent_jti.as_ref().and_then(|jti| index.get(jti)).copied();
    // A parent is older than its child, and a chain is short; where a record says otherwise, its token stands alone.
    let mut parents: Vec<Option<usize>> = Vec::with_capacity(hops.len());
    let mut depths: Vec<usize> = Vec::with_capacity(hops.len());
    for hop in &hops {
        let above = parent(hop).and_then(|p| Some((p, depths.get(p)?.saturating_add(1)))).filter(|(_, depth)| *depth < DEPTH_MAX);
        parents.push(above.map(|(parent, _)| parent));
        depths.push(above.map_or(0, |(_, depth)| depth));
    }
    // Later ones first: what was obtained with a token is complete before it is put below that.
    let mut slots: Vec<Option<Hop>> = hops.into_iter().map(Some).collect();
    for (i, parent) in parents.iter().enumerate().rev() {
        let Some(parent) = parent else { continue };
        let child = slots.get_mut(i).and_then(Option::take);
        if let (Some(child), Some(Some(parent))) = (child, slots.get_mut(*parent)) {
            parent.children.insert(0, child);
        }
    }
    slots.into_iter().flatten().collect()
}

/// The answer in words.
fn sentences(subject: &Subject, hops: &[Hop], events: &[Event], names: &Names<'_>) -> Vec<String> {
    let told = |hop: &Hop| sentence(hop, names);
    match subject {
        Subject::Id(id) => {
            if let Some(hop) = hops.iter().find(|hop| hop.jti.as_ref() == Some(id)) {
                return vec![told(hop)].into_iter().chain(ends(hop, events)).collect();
            }
            let filed = events.iter().find(|event| event.event.starts_with("jit."));
            let asked = filed.into_iter().filter_map(|_| request(events));
            asked.chain(hops.iter().take(SENTENCES_MAX).map(told)).collect()
        }
        Subject::Agent(_) | Subject::User(_) => {
            let own = |hop: &&Hop| !matches!(subject, Subject::Agent(agent) if hop.agent.as_ref() != Some(agent));
            let issued = hops.iter().filter(own).filter(|hop| hop.is_issued()).count();
            let refused = hops.iter().filter(own).count().saturating_sub(issued);
            let others = hops.len().saturating_sub(issued).saturating_sub(refused);
            let whose = match subject {
                Subject::Agent(agent) => name(names.at(agent, None, "~"), agent),
                _ => format!("agents acting for {}", plain_user(subject.as_str())),
            };
            let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
            let mut summary = format!(
                "In the records for {whose}: {}, {}",
                count(issued, "token issued", "tokens issued"),
                count(refused, "request refused", "requests refused")
            );
            if others > 0 {
                summary.push_str(&format!(", and {} of others", count(others, "request", "requests")));
            }
            summary.push('.');
            let latest = hops.iter().rev().take(SENTENCES_MAX).map(told);
            std::iter::once(summary).chain(latest).collect()
        }
    }
}

/// One token, in words.
fn sentence(hop: &Hop, names: &Names<'_>) -> String {
    let who = match &hop.agent {
        Some(agent) => name(hop.agent_name.as_deref(), agent),
        None => format!("Somebody at {}", Plain(hop.client_address.as_deref().unwrap_or("an unknown address"))),
    };
    let mut text = who;
    let callers = hop.chain.iter().rev().skip_while(|link| Some(*link) == hop.agent.as_ref());
    for caller in callers {
        text.push_str(", called by ");
        text.push_str(&name(names.at(caller, None, &hop.time), caller));
    }
    match (&hop.user, hop.chain.len()) {
        (Some(user), _) => text.push_str(&format!(", acting for {},", plain_user(user))),
        (None, 2..) => text.push_str(", acting for no user,"),
        (None, _) if hop.agent.is_some() => text.push_str(", acting for itself,"),
        (None, _) => {}
    }
    let scope = hop.scope.as_deref().map(|scope| format!(" for {}", Plain(scope))).unwrap_or_default();
    let resource = hop.resource.as_deref().map(|resource| format!(" on {}", Plain(resource))).unwrap_or_default();
    let audience = hop.audience.as_deref().map(|audience| format!(" at {}", Plain(audience))).unwrap_or_default();
    let what = format!("a token{scope}{resource}{audience} {}", clock(&hop.time));
    if hop.is_issued() {
        text.push_str(&format!(" got {what}"));
    } else {
        let detail = hop.detail.as_deref().map(|detail| format!(" ({})", Plain(detail))).unwrap_or_default();
        text.push_str(&format!(" was refused {what}: {}{detail}", Plain(&hop.reason)));
    }
    if let Some(by) = &hop.approved_by {
        let digest = hop.digest.as_deref().map(|digest| format!(" (digest {})", Plain(digest))).unwrap_or_default();
        text.push_str(&format!("; it was approved by {}{digest}", Plain(&by.replace(' ', " and "))));
    }
    text.push('.');
    text
}

/// What has ended a token, in words.
fn ends(hop: &Hop, events: &[Event]) -> Vec<String> {
    let concerned = |event: &&Event| {
        let about = event.about.as_ref();
        event.time >= hop.time && about.is_some_and(|about| hop.agent.as_ref() == Some(about) || hop.chain.contains(about))
            || about.is_some() && [&hop.txn, &hop.user, &hop.jit_request].contains(&&event.about)
    };
    let ended = |event: &&Event| {
        event.outcome == "allow"
            && (matches!(event.event.as_str(), "token.revoke" | "jit.complete" | "jit.completed" | "jit.revoked")
                || event.event.ends_with(".revoked")
                || matches!(event.event.as_str(), "agent.suspended" | "agent.deleted"))
    };
    let later = hop.events.iter().chain(events.iter().filter(concerned)).filter(ended);
    let mut told = BTreeSet::new();
    later
        .filter(|event| told.insert((event.event.clone(), event.about.clone())))
        .map(|event| {
            let by = event.by.as_deref().map(|by| format!(" by {}", Plain(by))).unwrap_or_default();
            let what = match event.event.as_str() {
                "agent.suspended" => format!("{} was suspended", Plain(event.about.as_deref().unwrap_or("the agent"))),
                "agent.deleted" => format!("{} was deleted", Plain(event.about.as_deref().unwrap_or("the agent"))),
                "agent.revoked" => format!("All tokens of {} were revoked", Plain(event.about.as_deref().unwrap_or("the agent"))),
                "user.revoked" => format!("All tokens for {} were revoked", plain_user(event.about.as_deref().unwrap_or("user"))),
                "chain.revoked" => "The whole chain was revoked".to_owned(),
                "jit.complete" | "jit.completed" => "The operation was reported as done".to_owned(),
                _ => "It was revoked".to_owned(),
            };
            format!("{what}{by} {}.", clock(&event.time))
        })
        .collect()
}

/// A request for approval, in words.
fn request(events: &[Event]) -> Option<String> {
    let of_request = || events.iter().filter(|event| event.event.starts_with("jit."));
    let first = of_request().next()?;
    let steps = of_request().map(|event| {
        let by = event.by.as_deref().map(|by| format!(" by {}", Plain(by))).unwrap_or_default();
        let what = event.event.strip_prefix("jit.").unwrap_or(&event.event);
        let what = match what {
            "file" | "requested" if event.outcome != "allow" => "filing refused",
            "file" => "filed",
            "decision" => "a decision taken in",
            "complete" if event.outcome != "allow" => "completion refused",
            "complete" => "reported as done",
            other => other,
        };
        format!("{}{by} {}", Plain(what), clock(&event.time))
    });
    let steps: Vec<String> = steps.collect();
    let about = first.about.as_deref().unwrap_or("unknown");
    Some(format!("Request {}: {}.", Plain(about), steps.join(", ")))
}
