//! Sending to one receiver.

use super::{Notifications, lease, report};
use crate::notify::config::{Receiver, Target, Token};
use crate::notify::slack::{self, Posted};
use crate::notify::{Event, envelope, next_attempt};
use crate::outbound;
use crate::store::{Attempt, Delivery, Outcome, Taken};
use aws_lc_rs::rand;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use ipnet::IpNet;
use reqwest::{Client, Response, StatusCode, Url, header};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many are sent to one receiver at once.
const AT_ONCE: usize = 8;
/// How long one attempt may take.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// For how long one that was taken is not given out again, in seconds: longer than an attempt takes with all that belongs to it. This long
/// after its sender died it is sent again.
const TAKEN_SECONDS: i64 = 30;
/// For how long it is tried to note what became of an attempt: what is not noted is sent again.
const NOTE_WITHIN: Duration = Duration::from_secs(15);
/// How soon that is tried again.
const NOTE_AGAIN: Duration = Duration::from_millis(250);
/// How often it is looked whether something is due again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest answer of Slack, in bytes.
const ANSWER_MAX: usize = 64 << 10;
/// Where the administrator says which networks that are not public may be connected to.
const ALLOWED_IN: &str = "the receiver's allowedNetworks";

/// What became of an attempt, before anybody knows when the next is.
enum Sent {
    Delivered(Option<String>),
    /// Not now; and how long the receiver asks to be left alone, in seconds.
    Failed(String, Option<i64>),
    /// Never.
    Refused(String),
}

/// Sends to one receiver.
pub(super) struct Worker {
    parts: Notifications,
    name: Arc<str>,
    target: Target,
    networks: Arc<[IpNet]>,
    client: Result<Client, String>,
}

impl Worker {
    pub(super) fn new(parts: Notifications, name: &str, receiver: Receiver) -> Self {
        let networks: Arc<[IpNet]> = receiver.allowed_networks.into();
        let authority = receiver.certificate_authority.as_deref().map(|pem| (pem, "the receiver's certificateAuthority"));
        let client = outbound::client(authority, Arc::clone(&networks), ALLOWED_IN, SEND_WITHIN);
        if let Err(error) = &client {
            tracing::error!(receiver = name, %error, "nothing can be sent to this receiver");
        }
        Self { parts, name: name.into(), target: receiver.target, networks, client }
    }

    /// Sends what is queued while the Lease is held, until told to stop. What is under way then is brought to its end.
    pub(super) async fn run(
        self,
        mut wake: watch::Receiver<u64>,
        mut leads: watch::Receiver<Option<Instant>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut running = FuturesUnordered::new();
        loop {
            let is_stopped = *stop.borrow();
            if is_stopped && running.is_empty() {
                return;
            }
            let room = AT_ONCE.saturating_sub(running.len());
            if room > 0 && !is_stopped && lease::is_held(&leads) {
                wake.mark_unchanged();
                running.extend(self.take(room).await.into_iter().map(|taken| self.attempt(taken)));
            }
            tokio::select! {
                Some(()) = running.next() => {}
                Ok(()) = wake.changed(), if running.len() < AT_ONCE => {}
                Ok(()) = leads.changed() => {}
                Ok(()) = stop.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn take(&self, room: usize) -> Vec<Taken> {
        let now = self.parts.clock.now().as_second();
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        match self.parts.store.take_notices(&self.name, now, now.saturating_add(TAKEN_SECONDS), limit).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(receiver = %self.name, %error, "notifications cannot be taken from the queue");
                Vec::new()
            }
        }
    }

    /// Sends one, and notes what became of it.
    async fn attempt(&self, taken: Taken) {
        let sent = match tokio::time::timeout(SEND_WITHIN, self.send(&taken)).await {
            Ok(sent) => sent,
            Err(_) => Sent::Failed(format!("no answer within {} s", SEND_WITHIN.as_secs()), None),
        };
        let now = self.parts.clock.now().as_second();
        let outcome = match sent {
            Sent::Delivered(reference) => Outcome::Delivered(reference),
            Sent::Failed(why, asked) => {
                let mut spread = [0_u8];
                // Without random bytes it comes at the same time as others.
                _ = rand::fill(&mut spread);
                let [spread] = spread;
                match next_attempt(taken.created_at, taken.attempts, now, asked, spread) {
                    Some(at) => Outcome::Again(why, at),
                    None => Outcome::GivenUp(why),
                }
            }
            Sent::Refused(why) => Outcome::GivenUp(why),
        };
        let word = match &outcome {
            Outcome::Delivered(_) => "delivered",
            Outcome::Again(why, _) => {
                tracing::warn!(receiver = %self.name, id = %taken.id, attempt = taken.attempts, %why, "a notification did not arrive; it is sent again");
                "failed"
            }
            Outcome::GivenUp(why) => {
                tracing::error!(receiver = %self.name, id = %taken.id, attempts = taken.attempts, %why, "a notification is given up");
                "given_up"
            }
        };
        self.parts.metrics.notification(&self.name, word);
        let attempt = Attempt {
            receiver: self.name.to_string(),
            id: taken.id.clone(),
            attempts: taken.attempts,
            subject: taken.subject.clone(),
            ordinal: taken.ordinal,
        };
        match tokio::time::timeout(NOTE_WITHIN, self.note(attempt, &outcome)).await {
            Ok(deliveries) => report::report(&self.parts, &taken, &outcome, &deliveries).await,
            Err(_) => {
                tracing::warn!(receiver = %self.name, id = %taken.id, "what became of a notification cannot be noted; it is sent again");
            }
        }
    }

    /// Notes what became of an attempt, however often the database must be asked: to note it twice changes nothing.
    async fn note(&self, attempt: Attempt, outcome: &Outcome) -> Vec<Delivery> {
        loop {
            match self.parts.store.settle_notice(attempt.clone(), outcome.clone()).await {
                Ok(deliveries) => return deliveries,
                Err(_) => tokio::time::sleep(NOTE_AGAIN).await,
            }
        }
    }

    async fn send(&self, taken: &Taken) -> Sent {
        let client = match &self.client {
            Ok(client) => client,
            Err(why) => return Sent::Failed(why.clone(), None),
        };
        match &self.target {
            Target::Webhook { url, secrets } => self.post(client, url, secrets, taken).await,
            Target::Slack { api, channel, token } => self.chat(client, api, channel, token, taken).await,
        }
    }

    /// An event in its envelope. Only the status of the answer is looked at.
    async fn post(&self, client: &Client, url: &Url, secrets: &[envelope::Secret], taken: &Taken) -> Sent {
        if outbound::check(url, &self.networks, ALLOWED_IN).is_err() {
            return Sent::Failed(format!("its address is not public: if it is right, allow its network in {ALLOWED_IN}"), None);
        }
        let timestamp = self.parts.clock.now().as_second();
        let request = client
            .post(url.clone())
            .header(header::CONTENT_TYPE, crate::notify::CONTENT_TYPE)
            .header(envelope::ID, &taken.id)
            .header(envelope::TIMESTAMP, timestamp)
            .header(envelope::SIGNATURE, envelope::signatures(secrets, &taken.id, timestamp, &taken.body))
            .body(taken.body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Sent::Delivered(None),
            // Standard Webhooks: the receiver wants no more of these.
            Ok(answer) if answer.status() == StatusCode::GONE => Sent::Refused("it answers with status 410: gone".to_owned()),
            Ok(answer) => failed(&answer),
            Err(error) => Sent::Failed(crate::error_chain(&error.without_url()), None),
        }
    }

    async fn chat(&self, client: &Client, api: &Url, channel: &str, token: &Token, taken: &Taken) -> Sent {
        let Ok(event) = serde_json::from_str::<Event>(&taken.body) else {
            return Sent::Refused("the queued event cannot be read: it was queued by another version".to_owned());
        };
        let posted = taken.reference.as_deref().and_then(Posted::parse);
        let (method, body) = slack::call(&event, channel, posted.as_ref());
        let Ok(url) = Url::parse(&format!("{}/{method}", api.as_str().trim_end_matches('/'))) else {
            return Sent::Refused("its address cannot be used".to_owned());
        };
        if let Err(why) = outbound::check(&url, &self.networks, ALLOWED_IN) {
            return Sent::Failed(why, None);
        }
        let request = client
            .post(url)
            .bearer_auth(&token.0)
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body.to_string());
        let mut answer = match request.send().await {
            Ok(answer) if answer.status() == StatusCode::OK => answer,
            Ok(answer) => return failed(&answer),
            Err(error) => return Sent::Failed(crate::error_chain(&error.without_url()), None),
        };
        let mut text = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if text.len() + chunk.len() <= ANSWER_MAX => text.extend_from_slice(&chunk),
                Ok(Some(_)) => return Sent::Failed("its answer is too long".to_owned(), None),
                Ok(None) => break,
                Err(error) => return Sent::Failed(crate::error_chain(&error.without_url()), None),
            }
        }
        match Posted::of_answer(&text) {
            Ok(posted) => Sent::Delivered(Some(posted.reference())),
            // Somebody deleted it: there is nothing to bring up to date.
            Err(why) if why.ends_with("message_not_found") => Sent::Refused(why),
            Err(why) => Sent::Failed(why, None),
        }
    }
}

/// An answer that says no. Redirects are not followed: a receiver does not choose where else the event goes.
fn failed(answer: &Response) -> Sent {
    let asked = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let status = answer.status();
    let why = match status.is_redirection() {
        true => format!("it answers with status {}, and redirects are not followed", status.as_u16()),
        false => format!("it answers with status {}", status.as_u16()),
    };
    Sent::Failed(why, asked)
}
