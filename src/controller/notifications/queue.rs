//! From what is seen of requests to what is queued.

use super::{Notifications, Seen};
use crate::capability::Rule;
use crate::grammar::CapabilityName;
use crate::headline::Wording;
use crate::jit::Request;
use crate::notify::config::Matter;
use crate::notify::{Config, Event, Occasion, Source};
use crate::store::Notice;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// How many are queued by one statement.
const TOGETHER: usize = 64;
/// How soon it is tried again when the database did not answer.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Queues what there is to tell, for ever, and counts it in `queued`.
pub(super) async fn run(
    parts: &Notifications,
    mut seen: UnboundedReceiver<Seen>,
    mut config: watch::Receiver<Arc<Config>>,
    queued: watch::Sender<u64>,
) {
    // What was told last of each request that is there.
    let mut told: HashMap<String, Occasion> = HashMap::new();
    loop {
        let mut notices = Vec::new();
        tokio::select! {
            first = seen.recv() => {
                if first.is_none() {
                    return;
                }
                let mut next = first;
                while let Some(one) = next {
                    look(parts, &config.borrow(), &mut told, one, &mut notices);
                    next = if notices.len() < TOGETHER { seen.try_recv().ok() } else { None };
                }
            }
            Ok(()) = config.changed() => {
                // A receiver that is new hears of what waits for a decision.
                told.clear();
                let current = Arc::clone(&config.borrow_and_update());
                let requests: Vec<Arc<Request>> = parts.snapshot.requests().iter().cloned().collect();
                requests.iter().for_each(|request| told_of(parts, &current, &mut told, request, None, &mut notices));
            }
        }
        while !notices.is_empty() {
            let rest = notices.split_off(notices.len().min(TOGETHER));
            insist(parts, notices).await;
            queued.send_modify(|count| *count = count.wrapping_add(1));
            notices = rest;
        }
    }
}

/// Queues `notices`, however long it takes: what is seen meanwhile waits.
async fn insist(parts: &Notifications, notices: Vec<Notice>) {
    let mut is_logged = false;
    while let Err(error) = parts.store.queue_notices(notices.clone(), parts.clock.now().as_second()).await {
        if !is_logged {
            tracing::warn!(%error, "notifications cannot be queued; they will be");
            is_logged = true;
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

fn look(parts: &Notifications, config: &Config, told: &mut HashMap<String, Occasion>, seen: Seen, notices: &mut Vec<Notice>) {
    match seen {
        Seen::Applied(id) => {
            let request = parts.snapshot.requests().named(&id);
            if let Some(request) = request {
                told_of(parts, config, told, &request, None, notices);
            }
        }
        Seen::Deleted(request) => {
            // To delete a request is to withdraw it.
            if !request.is_finished() && request.status.issued_at.is_none() && request.status.digest.is_some() {
                told_of(parts, config, told, &request, Some(Occasion::Cancelled), notices);
            }
            told.remove(&request.uid);
        }
    }
}

/// What there is to tell of `request` beyond what was told.
fn told_of(
    parts: &Notifications,
    config: &Config,
    told: &mut HashMap<String, Occasion>,
    request: &Request,
    occasion: Option<Occasion>,
    notices: &mut Vec<Notice>,
) {
    let now = parts.clock.now().as_second();
    let Some(occasion) = occasion.or_else(|| Occasion::of(request, now)) else { return };
    if told.get(&request.uid).is_some_and(|last| occasion.ordinal() <= last.ordinal()) {
        return;
    }
    told.insert(request.uid.clone(), occasion);
    let catalogue = parts.snapshot.catalogue();
    let name = CapabilityName::parse(&request.spec.operation.capability).ok();
    let rule: Option<&Rule> = name.and_then(|name| catalogue.get(&name)).and_then(|entry| entry.as_ref().ok());
    let risk = rule.and_then(|rule| rule.risk);
    let matter = Matter { namespace: &request.id.namespace, capability: &request.spec.operation.capability, risk, occasion };
    let receivers = config.told(&matter);
    if receivers.is_empty() {
        return;
    }
    let unsaid = Wording::default();
    let source = Source {
        issuer: &parts.issuer,
        portal: parts.portal.as_deref(),
        wording: rule.map_or(&unsaid, |rule| &rule.wording),
        risk,
    };
    let event = Event::new(request, occasion, &source, now);
    // A struct of texts cannot fail to be JSON.
    let Ok(body) = serde_json::to_string(&event) else { return };
    notices.extend(receivers.into_iter().map(|receiver| Notice {
        receiver: receiver.to_owned(),
        id: event.id.clone(),
        subject: request.uid.clone(),
        ordinal: occasion.ordinal(),
        body: body.clone(),
    }));
}
