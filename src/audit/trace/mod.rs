//! Who really did this? Records in, an answer out: as a sentence, and as a tree of what led to what.
//!
//! [`Gathering`] says which records are needed, as long as there is one that leads to more; [`Trace`] is what they say.

mod hop;
mod show;
mod tell;
mod tree;

pub use hop::{Event, Hop};

/// The hop of one record of a token request, for tests of what is made of hops.
#[cfg(test)]
pub(crate) fn hop_of(entry: &Entry) -> Hop {
    Hop::of(entry, None)
}
pub use tell::Trace;
pub use tree::Tree;

use super::scan::{Cursor, Page};
use super::{Entry, Filter, FilterError};
use crate::grammar::AgentId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Longest subject, in bytes.
const SUBJECT_MAX: usize = 512;
/// How many texts one search looks for.
const TOGETHER: usize = 64;
/// How many texts are looked for in all. A chain has at most eight agents, and a token at most as many ancestors.
const TERMS_MAX: usize = 2048;
/// How many records an answer is made of. Of more, the newest.
const RECORDS_MAX: usize = 5000;
/// Reading the ledger is recorded too, and is no part of what was read about.
const READING: &str = "audit.read";

/// Why there can be no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the jti of a token, agent:<namespace>/<name>, user:<name>, the UID or <namespace>/<name> of a JitRequest, or the txn of a chain"
)]
pub struct SubjectError;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An agent, `agent:<namespace>/<name>`.
    Agent(String),
    /// A user, `user:<name>`.
    User(String),
    /// A token by its jti, a chain by its txn, or a JitRequest by its UID or `<namespace>/<name>`.
    Id(String),
}

impl Subject {
    /// Parses what somebody asks about.
    ///
    /// # Errors
    /// [`SubjectError`] if it is nothing that a record could name.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        if text.is_empty() || text.len() > SUBJECT_MAX || text.chars().any(char::is_control) {
            return Err(SubjectError);
        }
        match (text.starts_with("agent:"), text.strip_prefix("user:")) {
            (true, _) => AgentId::parse(text).map(|_| Self::Agent(text.to_owned())).map_err(|_| SubjectError),
            (_, Some("")) => Err(SubjectError),
            (_, Some(_)) => Ok(Self::User(text.to_owned())),
            (false, None) if text.contains(' ') => Err(SubjectError),
            (false, None) => Ok(Self::Id(text.to_owned())),
        }
    }

    /// As it was asked.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Agent(text) | Self::User(text) | Self::Id(text) => text,
        }
    }
}

/// Gathers the records of an answer.
#[derive(Debug)]
pub struct Gathering {
    subject: Subject,
    /// From when on, if not from the beginning.
    since: Option<String>,
    /// What is being looked for, and how far that is.
    search: Option<(Filter, Cursor)>,
    /// What was looked for, or will be.
    terms: BTreeSet<String>,
    to_ask: VecDeque<String>,
    /// Whose names are needed.
    agents: BTreeSet<String>,
    agents_to_ask: VecDeque<String>,
    /// By time, log and number.
    entries: BTreeMap<(String, String, u64), Entry>,
    left_out: u64,
}

impl Gathering {
    /// Begins. `since` is a time from which on records are looked at (RFC 3339).
    ///
    /// # Errors
    /// If it is no time.
    pub fn new(subject: Subject, since: Option<&str>) -> Result<Self, FilterError> {
        let term = subject.as_str().to_owned();
        since.map(|since| Filter::default().with("since", since)).transpose()?;
        Ok(Self {
            subject,
            since: since.map(str::to_owned),
            search: None,
            terms: BTreeSet::from([term.clone()]),
            to_ask: VecDeque::from([term]),
            agents: BTreeSet::new(),
            agents_to_ask: VecDeque::new(),
            entries: BTreeMap::new(),
            left_out: 0,
        })
    }

    /// Which records are wanted next, and from where on: a [page](crate::audit::scan::page) of those is to be [taken](Self::take).
    /// `None` at the end.
    pub fn next_search(&mut self) -> Option<(Filter, Cursor)> {
        if self.search.is_none() {
            let filter = if !self.to_ask.is_empty() {
                Filter::mentioning(self.to_ask.drain(..self.to_ask.len().min(TOGETHER)))
            } else if !self.agents_to_ask.is_empty() {
                // What an agent was called was recorded whenever it was registered: before the first record of the story.
                let agents = self.agents_to_ask.drain(..self.agents_to_ask.len().min(TOGETHER));
                Filter::mentioning(agents).with("event", "agent.*").ok()?
            } else {
                return None;
            };
            let is_of_agents = filter.parameters().iter().any(|(name, _)| *name == "event");
            let filter = match &self.since {
                Some(since) if !is_of_agents => filter.with("since", since).ok()?,
                _ => filter,
            };
            self.search = Some((filter, Cursor::default()));
        }
        self.search.clone()
    }

    /// Takes a page of what was wanted.
    pub fn take(&mut self, page: Page) {
        page.entries.into_iter().for_each(|entry| self.keep(entry));
        self.search = self.search.take().filter(|_| page.is_more).map(|(filter, _)| (filter, page.next));
    }

    fn keep(&mut self, entry: Entry) {
        if entry.event() == READING {
            return;
        }
        let leads = matches!(self.subject, Subject::Id(_)) && leads_on(&entry);
        if leads {
            let one = ["jti", "txn", "parent_jti", "jit_request_uid"].into_iter().filter_map(|name| entry.find(name));
            for term in one.chain(entry.words("ancestors")) {
                if self.terms.len() < TERMS_MAX && self.terms.insert(term.to_owned()) {
                    self.to_ask.push_back(term.to_owned());
                }
            }
        }
        let named = ["subject", "agent"].into_iter().filter_map(|name| entry.find(name)).chain(entry.words("chain"));
        for agent in named.filter(|text| text.starts_with("agent:")) {
            if self.agents.len() < TERMS_MAX && self.agents.insert(agent.to_owned()) {
                self.agents_to_ask.push_back(agent.to_owned());
            }
        }
        self.entries.insert((entry.time().to_owned(), entry.log().to_owned(), entry.seq()), entry);
        if self.entries.len() > RECORDS_MAX {
            self.entries.pop_first();
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// The answer, `None` if no record knows of the subject.
    #[must_use]
    pub fn finish(self) -> Option<Trace> {
        let entries: Vec<Entry> = self.entries.into_values().collect();
        tell::tell(&self.subject, &entries, self.left_out)
    }
}

/// Whether what a record names belongs to the same story.
fn leads_on(entry: &Entry) -> bool {
    let event = entry.event();
    event == "token.issue" || event == "token.revoke" || event.starts_with("jit.")
}

#[cfg(test)]
mod tests;
