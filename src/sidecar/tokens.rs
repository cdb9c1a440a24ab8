//! The tokens that are held: one for each audience and scope that were asked for, and for each token that was exchanged.
//!
//! However many ask at once, one question goes to the token service. While it does not answer, a token that still lives is handed out; once
//! it refuses, nothing is.

use super::answer::{AccessToken, Answer, NoToken};
use super::held::{Held, Plan};
use super::upstream::{Asked, Unanswered, Upstream};
use super::whoami::OwnName;
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many tokens are held. The one that was not wanted for the longest time goes first.
const HELD_MAX: usize = 128;
/// How long somebody waits for a token service that does not answer, without a token to have instead, and with one.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WITH_TOKEN: Duration = Duration::from_secs(1);
/// For how long a refusal is repeated without asking again, and a token given out although a new one is demanded.
const REPEAT: Duration = Duration::from_secs(1);
/// After how long a token service that did not answer is asked again. It doubles with each attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest it grows.
const PAUSE_MAX: Duration = Duration::from_secs(15);

const CLIENT_CREDENTIALS: &str = "client_credentials";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// For whom a token is, and for what. What is left out is the token service's choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) audience: Option<String>,
    pub(super) scope: Option<String>,
}

/// A token that stands for whoever called the agent, or for a user.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) token: String,
    pub(super) kind: String,
}

/// A request for a token.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) target: Target,
    pub(super) subject: Option<Subject>,
}

/// By what a token is found again. Of a token that was exchanged only the digest is kept.
type Key = (Target, Option<[u8; 32]>);

impl Wanted {
    fn key(&self) -> Key {
        let digest = self.subject.as_ref().map(|subject| {
            let hash = digest(&SHA256, format!("{} {}", subject.kind, subject.token).as_bytes());
            hash.as_ref().try_into().unwrap_or_default()
        });
        (self.target.clone(), digest)
    }

    fn asked(&self) -> Asked {
        let mut parameters = match &self.subject {
            None => vec![("grant_type", CLIENT_CREDENTIALS)],
            Some(Subject { token, kind }) => {
                vec![("grant_type", TOKEN_EXCHANGE), ("subject_token", token.as_str()), ("subject_token_type", kind.as_str())]
            }
        };
        parameters.extend(self.target.audience.as_deref().map(|audience| ("audience", audience)));
        parameters.extend(self.target.scope.as_deref().map(|scope| ("scope", scope)));
        Asked::form("/oauth2/token", &parameters)
    }
}

/// A token, and how long it lives yet.
pub(super) type Grant = (Arc<AccessToken>, Duration);

/// The tokens.
pub(super) struct Tokens {
    upstream: Arc<Upstream>,
    name: Arc<OwnName>,
    max_age: Duration,
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
}

#[derive(Default)]
struct Entry {
    state: Mutex<State>,
    /// Whoever asks the token service holds it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// What came of the last question, and when.
    last: Option<(Instant, Option<NoToken>)>,
    /// Not asked again before.
    not_before: Option<Instant>,
    /// How often there was no answer.
    unanswered: u32,
    wanted_at: Option<Instant>,
}

/// What follows from what is held.
enum Next {
    Hand(Grant),
    HandAndAsk(Grant),
    Ask,
    Refuse(NoToken),
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&self, now: Instant, demands_new: bool) -> Next {
        let may_ask = self.not_before.is_none_or(|time| now >= time);
        let held = self.held.as_ref().map(|held| (held.plan(now), held));
        match held {
            Some((plan, held)) if plan != Plan::Ended => {
                let is_new = !demands_new || held.is_younger_than(REPEAT, now);
                match plan {
                    _ if !may_ask => Next::Hand(held.grant(now)),
                    Plan::Hand if is_new => Next::Hand(held.grant(now)),
                    Plan::HandAndAsk if is_new => Next::HandAndAsk(held.grant(now)),
                    _ => Next::Ask,
                }
            }
            _ => match &self.last {
                Some((_, Some(why))) if !may_ask => Next::Refuse(why.clone()),
                _ => Next::Ask,
            },
        }
    }

    /// What came of a question that was asked since `time`.
    fn since(&self, time: Instant, now: Instant) -> Option<Result<Grant, NoToken>> {
        match self.last.as_ref().filter(|(at, _)| *at >= time)? {
            (_, None) => self.held.as_ref().filter(|held| held.plan(now) != Plan::Ended).map(|held| Ok(held.grant(now))),
            (_, Some(why)) => Some(self.or_held(why.clone(), now)),
        }
    }

    /// The token that is held, if it still lives and nobody has said no.
    fn or_held(&self, why: NoToken, now: Instant) -> Result<Grant, NoToken> {
        let held = self.held.as_ref().filter(|held| held.plan(now) != Plan::Ended);
        held.map(|held| held.grant(now)).ok_or(why)
    }

    fn take(&mut self, outcome: Result<Held, NoToken>, now: Instant) -> Result<Grant, NoToken> {
        match outcome {
            Ok(held) => {
                let grant = held.grant(now);
                *self = Self { held: Some(held), last: Some((now, None)), wanted_at: self.wanted_at, ..Self::default() };
                Ok(grant)
            }
            Err(why) => {
                self.last = Some((now, Some(why.clone())));
                if why.is_passing() {
                    self.unanswered = self.unanswered.saturating_add(1);
                    let pause = (PAUSE * 2_u32.saturating_pow(self.unanswered.min(8))).min(PAUSE_MAX);
                    // Somebody who has no token waits for one no longer than somebody who asks for the first time.
                    let has_token = self.held.as_ref().is_some_and(|held| held.plan(now) != Plan::Ended);
                    self.not_before = Some(now + if has_token { pause } else { pause.min(REPEAT) });
                } else {
                    self.held = None;
                    self.unanswered = 0;
                    self.not_before = Some(now + REPEAT);
                }
                self.or_held(why, now)
            }
        }
    }
}

impl Tokens {
    pub(super) fn new(upstream: Arc<Upstream>, name: Arc<OwnName>, max_age: Duration) -> Self {
        Self { upstream, name, max_age, entries: Mutex::default() }
    }

    /// A token. One who `demands_new` gets none that is held, unless it was issued this moment or nobody answers.
    pub(super) async fn get(self: &Arc<Self>, wanted: Wanted, demands_new: bool) -> Result<Grant, NoToken> {
        let arrived = Instant::now();
        let entry = self.entry(&wanted, arrived);
        let next = entry.state().next(arrived, demands_new);
        match next {
            Next::Hand(grant) => Ok(grant),
            Next::Refuse(why) => Err(why),
            Next::HandAndAsk(grant) => {
                if let Ok(turn) = Arc::clone(&entry.turn).try_lock_owned() {
                    let tokens = Arc::clone(self);
                    tokio::spawn(async move {
                        _ = tokens.ask(&entry, &wanted).await;
                        drop(turn);
                    });
                }
                Ok(grant)
            }
            Next::Ask => {
                let turn = Arc::clone(&entry.turn).lock_owned().await;
                let concluded = entry.state().since(arrived, Instant::now());
                if let Some(concluded) = concluded {
                    return concluded;
                }
                // In a task of its own: whoever hangs up does not take the answer from those that wait behind.
                let tokens = Arc::clone(self);
                let asking = tokio::spawn(async move {
                    let outcome = tokens.ask(&entry, &wanted).await;
                    drop(turn);
                    outcome
                });
                asking.await.unwrap_or_else(|_| Err(NoToken::Unanswered("the question was not asked to its end".into())))
            }
        }
    }

    /// Asks the token service, and keeps what it says.
    async fn ask(&self, entry: &Entry, wanted: &Wanted) -> Result<Grant, NoToken> {
        let has_token = entry.state().held.as_ref().is_some_and(|held| held.plan(Instant::now()) != Plan::Ended);
        let patience = if has_token { PATIENCE_WITH_TOKEN } else { PATIENCE };
        let asked = wanted.asked();
        let (until, mut asked_at) = (Instant::now() + patience, Instant::now());
        // Each attempt has its own beginning: a token lives from when it was asked for, at the latest.
        let mut answer = self.upstream.ask(&asked).await;
        let mut pause = Duration::from_millis(100);
        while is_passing(&answer) && Instant::now() + pause < until {
            tokio::time::sleep(pause).await;
            pause *= 2;
            asked_at = Instant::now();
            answer = self.upstream.ask(&asked).await;
        }
        let outcome = read(answer).map(|token| {
            if wanted.subject.is_none() {
                self.name.learn(token.text());
            }
            Held::new(Arc::new(token), asked_at, self.max_age, jitter())
        });
        let target = &wanted.target;
        match &outcome {
            Ok(held) => tracing::debug!(audience = target.audience, scope = held.grant(asked_at).0.scope(), "a token was issued"),
            Err(why) => tracing::warn!(audience = target.audience, scope = target.scope, %why, "no token was issued"),
        }
        if outcome.as_ref().is_err_and(NoToken::is_of_credential) {
            self.drop_all();
        }
        entry.state().take(outcome, Instant::now())
    }

    /// The agent is not accepted any more: no token of it is worth anything.
    fn drop_all(&self) {
        let entries: Vec<Arc<Entry>> = self.entries().values().cloned().collect();
        for entry in entries {
            entry.state().held = None;
        }
    }

    fn entry(&self, wanted: &Wanted, now: Instant) -> Arc<Entry> {
        let mut entries = self.entries();
        let key = wanted.key();
        if !entries.contains_key(&key) && entries.len() >= HELD_MAX {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.state().wanted_at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                entries.remove(&oldest);
            }
        }
        let entry = Arc::clone(entries.entry(key).or_default());
        entry.state().wanted_at = Some(now);
        entry
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_passing(answer: &Result<Answer, Unanswered>) -> bool {
    answer.as_ref().map_or(true, Answer::is_passing)
}

/// The token in an answer.
pub(super) fn read(answer: Result<Answer, Unanswered>) -> Result<AccessToken, NoToken> {
    let answer = answer.map_err(|unanswered| NoToken::Unanswered(unanswered.why.into()))?;
    if !answer.status.is_success() {
        return Err(NoToken::Refused(Arc::new(answer)));
    }
    AccessToken::parse(answer.members).map_err(|why| NoToken::Unanswered(why.into()))
}

/// A number that no other sidecar is likely to have drawn. Without random bytes all would ask at once, and no harm done.
fn jitter() -> u8 {
    let mut byte = [128];
    _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    byte
}

#[cfg(test)]
#[path = "tokens/tests.rs"]
mod tests;
