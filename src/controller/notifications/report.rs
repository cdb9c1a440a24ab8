//! What became of a notification, shown on the request: a condition and an Event.

use super::Notifications;
use crate::condition::condition;
use crate::controller::writing;
use crate::crd::{CONDITION_NOTIFIED, JitRequest};
use crate::jit::Request;
use crate::store::{Delivery, Outcome, Taken};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource as _;
use kube::api::Api;
use kube::runtime::events::{Event, EventType};
use std::sync::Arc;

/// How often it is tried again when somebody else wrote the request meanwhile.
const ATTEMPTS: usize = 5;
/// Longest message of a condition and of an Event, in characters.
const MESSAGE_MAX: usize = 900;

/// Shows how the request stands with its receivers, after `outcome` of what was `taken`. What fails here is only not shown.
pub(super) async fn report(parts: &Notifications, taken: &Taken, outcome: &Outcome, deliveries: &[Delivery]) {
    let Some((status, reason, message)) = summary(deliveries) else { return };
    let Some(request) = parts.snapshot.request(&taken.subject) else { return };
    // An Event when it arrived, and when it did not for the first or the last time: not for each attempt of a day.
    let is_news = match outcome {
        Outcome::Delivered(_) | Outcome::GivenUp(_) => true,
        Outcome::Again(..) => taken.attempts == 1,
    };
    if is_news {
        let event = Event {
            type_: if status == "True" { EventType::Normal } else { EventType::Warning },
            reason: reason.to_owned(),
            note: Some(message.clone()),
            action: "Notify".to_owned(),
            secondary: None,
        };
        let reference = request.with_status(request.status.clone()).object_ref(&());
        if let Err(error) = parts.events.publish(&event, &reference).await {
            tracing::warn!(request = %request.id, error = %crate::error_chain(&error), "an Event could not be written");
        }
    }
    if let Err(error) = show(parts, request, status, reason, &message).await {
        tracing::warn!(id = %taken.id, error = %crate::error_chain(&error), "what became of a notification could not be shown");
    }
}

/// The status, reason and message of the condition. `None` while some receivers have not been tried and none has failed.
fn summary(deliveries: &[Delivery]) -> Option<(&'static str, &'static str, String)> {
    let list = |chosen: &dyn Fn(&&Delivery) -> bool| {
        let texts = deliveries.iter().filter(chosen).map(|delivery| match &delivery.detail {
            Some(detail) => format!("{} ({detail})", delivery.receiver),
            None => delivery.receiver.clone(),
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    let (given_up, failing) = (list(&|d| d.state == "given_up"), list(&|d| d.state == "waiting" && d.detail.is_some()));
    let bounded = |text: String| crate::readable::shortened(&text, MESSAGE_MAX);
    match (given_up.is_empty(), failing.is_empty()) {
        (false, _) => Some(("False", "NotificationFailed", bounded(format!("not told, and not tried again: {given_up}")))),
        (true, false) => Some(("False", "NotificationDelayed", bounded(format!("not told yet, and tried again: {failing}")))),
        (true, true) if deliveries.iter().any(|d| d.state == "waiting") => None,
        (true, true) => Some(("True", "Notified", bounded(format!("told: {}", list(&|_| true))))),
    }
}

/// Writes the condition, over whatever version there is.
async fn show(parts: &Notifications, request: Arc<Request>, status: &str, reason: &str, message: &str) -> kube::Result<()> {
    let api: Api<JitRequest> = Api::namespaced(parts.client.clone(), &request.id.namespace);
    let mut request = request;
    for _ in 0..ATTEMPTS {
        let before = &request.status.conditions;
        let now = Time(parts.clock.now());
        let told = condition(before, CONDITION_NOTIFIED, status, reason, message, request.generation, now);
        let is_same = |c: &Condition| {
            (&c.type_, &c.status, &c.reason, &c.message) == (&told.type_, &told.status, &told.reason, &told.message)
        };
        if before.iter().any(is_same) {
            return Ok(());
        }
        let mut next = request.status.clone();
        next.conditions = before.iter().filter(|c| c.type_ != CONDITION_NOTIFIED).cloned().chain([told]).collect();
        match api.replace_status(&request.id.name, &writing(), &request.with_status(next)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(error)) if error.is_not_found() => return Ok(()),
            Err(kube::Error::Api(error)) if error.is_conflict() => {
                let Some(stored) = api.get_opt(&request.id.name).await?.and_then(Request::parse) else { return Ok(()) };
                if stored.uid != request.uid {
                    return Ok(());
                }
                request = Arc::new(stored);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_says_who_was_told_and_who_was_not() {
        let delivery = |receiver: &str, state: &str, detail: Option<&str>| Delivery {
            receiver: receiver.to_owned(),
            state: state.to_owned(),
            detail: detail.map(str::to_owned),
        };
        let (done, new) = (delivery("a", "delivered", None), delivery("b", "waiting", None));
        let (late, lost) = (delivery("b", "waiting", Some("status 503")), delivery("c", "given_up", Some("status 410")));
        let said = |deliveries: &[&Delivery]| {
            let deliveries: Vec<Delivery> = deliveries.iter().map(|d| (*d).clone()).collect();
            summary(&deliveries).map(|(status, reason, message)| format!("{status} {reason} {message}"))
        };
        assert_eq!(said(&[&done]).as_deref(), Some("True Notified told: a"));
        assert_eq!(said(&[&done, &new]), None, "the other is being told");
        assert_eq!(
            said(&[&done, &late]).as_deref(),
            Some("False NotificationDelayed not told yet, and tried again: b (status 503)")
        );
        assert_eq!(
            said(&[&late, &lost]).as_deref(),
            Some("False NotificationFailed not told, and not tried again: c (status 410)")
        );
    }
}
