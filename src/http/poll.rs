//! The poll of an agent for the token that it asked a person to approve (CIBA Core section 10.1, poll mode), held until somebody
//! decides.
//!
//! Turning an approval into a token is one write of the request's status over the version that was looked at. Who loses that race
//! gets, within a few seconds, the same token as who won, and never another.

use super::caller::{Presented, check_client_id, identify, identify_again, no_authorization_header, required_client_assertion};
use super::error::{CredentialRole, Refusal};
use super::form::Form;
use super::polls::{TooSoon, Turn};
use super::possession::{Shown, refusal as refusal_of_proof, shown, spend};
use super::swap::{ATTEMPTS, NEWBORN_PATIENCE, Swapped, swap};
use super::token::{PATH, audience, capabilities, reply};
use super::{App, REQUEST_WITHIN, finish, knows, now_if_fresh};
use crate::agent::RegisteredAgent;
use crate::audit::Record;
use crate::controller::jit_request::describe;
use crate::decision::{Decision, Denial, Reason, Redemption, permit_operation, proved};
use crate::dpop::Confirmation;
use crate::identity::Caller;
use crate::jit::{Claim, NewToken, Refused, Request, approvers, claim, redeem};
use crate::token::new_id;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The grant type (CIBA Core section 10.1).
pub(super) const CIBA: &str = "urn:openid:params:grant-type:ciba";
/// How long a poll is held.
const HOLD: Duration = Duration::from_secs(25);

/// A poll: who asks about which request.
pub(super) struct Poll {
    credential: String,
    caller: Caller,
    uid: String,
    shown: Option<Shown>,
    /// Whose turn it is, if nobody has decided yet.
    turn: Option<Turn>,
    hold: Duration,
}

/// Reads a poll and finds its request.
pub(super) async fn begin(app: &Arc<App>, headers: &HeaderMap, form: &Form, record: &mut Record) -> Result<Poll, Refusal> {
    no_authorization_header(headers)?;
    record.text("grant_type", CIBA);
    let credential = required_client_assertion(form)?;
    let uid = form.require("auth_req_id")?;
    let now = now_if_fresh(app)?;
    let shown = shown(app, headers, PATH, now)?;
    let (agent, caller) = identify(app, credential, now, record).await?;
    check_client_id(form.get("client_id")?, &agent, CredentialRole::CLIENT)?;
    let request = app.snapshot.wait_for_request(NEWBORN_PATIENCE, |s| s.request(uid)).await;
    let request = request.filter(|request| is_of(request, &agent)).ok_or_else(unknown)?;
    describe(record, &request);
    same_as_approved(form, &request)?;
    // Said at once, not when somebody has decided.
    proved(&agent, shown.is_some()).map_err(denied)?;
    let undecided = matches!(claim(&request, &app.evidence, seconds(now)), Err(Refused::Pending));
    let turn = match undecided.then(|| app.polls.begin(uid, Instant::now())) {
        None => None,
        Some(Ok(turn)) => Some(turn),
        Some(Err(TooSoon)) => {
            let description = "polled too soon: pause 5 s longer between polls from now on";
            return Err(Refusal::new("slow_down", "slow_down", description));
        }
    };
    // Before it waits: what is held for half a minute would be spent too late.
    spend(app, shown.as_ref(), now).await?;
    // No longer than the question stands, also if nobody gets to write that it has expired.
    let stands = request.question.as_ref().map_or(0, |question| question.decide_by.saturating_sub(seconds(now)));
    let hold = hold(headers).min(Duration::from_secs(u64::try_from(stands).unwrap_or(0)));
    Ok(Poll { credential: credential.token.to_owned(), caller, uid: uid.to_owned(), shown, turn, hold })
}

/// How long the client is willing to wait (RFC 7240 section 4.3), at most [`HOLD`].
fn hold(headers: &HeaderMap) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let wait = preferences.filter_map(|p| p.trim().strip_prefix("wait=")).find_map(|seconds| seconds.trim().parse().ok());
    wait.map_or(HOLD, Duration::from_secs).min(HOLD)
}

/// A poll may repeat what was approved, and not ask for anything else.
fn same_as_approved(form: &Form, request: &Request) -> Result<(), Refusal> {
    let operation = &request.spec.operation;
    if capabilities(form)?.is_some_and(|asked| asked.iter().any(|c| c.as_str() != operation.capability)) {
        let description = "scope may be left out; if it is sent, it must be the capability that was asked for";
        return Err(Refusal::new("invalid_scope", "scope_not_approved", description));
    }
    if audience(form)?.is_some_and(|asked| asked != operation.audience) {
        let description = "audience may be left out; if it is sent, it must be the one that was asked for";
        return Err(Refusal::new("invalid_target", "audience_not_approved", description));
    }
    if form.raw("authorization_details").is_some() {
        let description =
            "what was asked for at /oauth2/bc-authorize is what is approved: authorization_details cannot be sent again";
        return Err(Refusal::new("invalid_authorization_details", "authorization_details_repeated", description));
    }
    Ok(())
}

/// Waits for the decision if there is none, then answers.
pub(super) async fn answer(app: Arc<App>, mut poll: Poll, record: Record) -> Response {
    if poll.turn.as_ref().is_some_and(Turn::may_wait) {
        let decided = app.snapshot.wait_for_request(poll.hold, |snapshot| {
            let now = seconds(app.clock.seconds());
            match snapshot.request(&poll.uid) {
                Some(request) => (!matches!(claim(&request, &app.evidence, now), Err(Refused::Pending))).then_some(()),
                None => Some(()),
            }
        });
        let mut shutdown = app.shutdown.clone();
        tokio::select! {
            _ = decided => {}
            // Told to stop: whoever waits asks the next process.
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }
    poll.turn = None;
    // In a task of its own: if the client hangs up in the middle, what was begun is finished and recorded all the same.
    let work = async move {
        let mut record = record;
        let result = match tokio::time::timeout(REQUEST_WITHIN, conclude(&app, &poll, &mut record)).await {
            Ok(result) => result,
            Err(_) => Err(Refusal::unavailable("request_timeout", "the API server was too slow")),
        };
        finish(&app, record, result).await
    };
    match tokio::spawn(work).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a poll was not finished");
            axum::response::IntoResponse::into_response(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// Answers a poll from what is known now. The caller is verified again: it may have waited for half a minute.
async fn conclude(app: &App, poll: &Poll, record: &mut Record) -> Result<Response, Refusal> {
    let waits = |request: &Request| {
        let now = seconds(app.clock.seconds());
        matches!(claim(request, &app.evidence, now), Ok(Claim::Redeemable(_)))
    };
    // Before anything is looked at, so that nothing is older than the write that follows from it.
    let _alone = match app.snapshot.request(&poll.uid).is_some_and(|request| waits(&request)) {
        true => Some(app.polls.alone(&poll.uid).await),
        false => None,
    };
    let now = now_if_fresh(app)?;
    let credential = Presented { token: &poll.credential, role: CredentialRole::CLIENT };
    // The record has it from the first time.
    let (agent, caller) = identify_again(app, credential, &poll.caller, now, &mut record.clone()).await?;
    let request = app.snapshot.request(&poll.uid).filter(|request| is_of(request, &agent)).ok_or_else(unknown)?;
    let confirmation = poll.shown.as_ref().map(Shown::confirmation);
    let (request, redemption) = redemption(app, request, &agent, &caller, confirmation.as_ref(), now).await?;
    record.text("approved_by", approvers(&request).map(|by| by.username.as_str()).collect::<Vec<_>>().join(" "));
    if redemption.confirmation != confirmation {
        // There is one token, and it is bound as it was when it was issued a moment ago.
        let description = "the token of this request was issued to the holder of another key, or of none";
        return Err(refusal_of_proof("dpop_key_mismatch", description));
    }
    // Another replica may have fixed it, with a key that has come to us since. One that was taken away signs nothing any more.
    let known = knows(app, &redemption.key_id).await?;
    let (Some(jti), true) = (request.status.jti.clone(), known) else {
        return Err(spent("the key that signed the token is not in use any more"));
    };
    let decision = permit_operation(&agent, &app.snapshot.view().as_view(), &redemption, now);
    let permit = match decision {
        Decision::Allow(permit) => permit,
        Decision::Deny(denial) => return Err(denied(denial)),
    };
    let mut response = reply(app, &permit, jti, None, now, record)?;
    if let Some(shown) = &poll.shown {
        shown.renew(&mut response);
    }
    Ok(response)
}

/// What was approved is not allowed any more, or nobody can tell yet.
fn denied(denial: Denial) -> Refusal {
    let code = denial.reason.code();
    if denial.reason.is_passing() {
        return Refusal::unavailable(code, denial.message);
    }
    if denial.reason == Reason::PossessionUnproved {
        return refusal_of_proof(code, denial.message);
    }
    Refusal::new("access_denied", code, denial.message)
}

/// The one token of the request: turned from its approval now, or a moment ago by somebody who may have been us.
async fn redemption(
    app: &App,
    mut request: Arc<Request>,
    agent: &RegisteredAgent,
    caller: &Caller,
    confirmation: Option<&Confirmation>,
    now: u64,
) -> Result<(Arc<Request>, Redemption), Refusal> {
    for _ in 0..ATTEMPTS {
        let current = Arc::clone(&request);
        match claim(&current, &app.evidence, seconds(now)) {
            Err(refused) => return Err(refusal(refused, &current)),
            Ok(Claim::Again(redemption)) => return Ok((current, *redemption)),
            Ok(Claim::Redeemable(approval)) => {
                if !app.policies.in_force() {
                    let detail = "the admission policies are not in force: nobody can tell who approved what";
                    return Err(Refusal::unavailable("policies_not_in_force", detail));
                }
                for approver in approvers(&current) {
                    let capability = &approval.question().operation.capability;
                    if !app.authority.may_still_approve(approver, capability, &current).await? {
                        let description = "somebody who approved has lost the right to since";
                        return Err(Refusal::new("access_denied", "approver_lost_right", description));
                    }
                }
                let jti = new_id().map_err(|e| Refusal::unavailable("signing_failed", e.to_string()))?;
                let signers = app.keys.current().signers(now);
                let signers = signers.map_err(|e| Refusal::unavailable("signing_failed", e.to_string()))?;
                let token =
                    NewToken { jti, signers, credential_expires_at: caller.expires_at(), confirmation: confirmation.cloned() };
                let redeemed = redeem(&approval, agent, &app.snapshot.view().as_view(), &app.evidence, token, seconds(now));
                let (change, redemption) = redeemed.map_err(denied)?;
                match swap(app, &current, change).await? {
                    Swapped::Done(stored) => return Ok((stored, redemption)),
                    Swapped::Lost(theirs) => {
                        app.metrics.redeem_conflict();
                        request = theirs;
                    }
                    Swapped::Gone => return Err(unknown()),
                }
            }
        }
    }
    Err(Refusal::unavailable("request_contended", "the request kept changing"))
}

/// Whether `request` was made by this very agent. Until the operator has looked at it only its name says so.
pub(super) fn is_of(request: &Request, agent: &RegisteredAgent) -> bool {
    let meant = request.status.agent_uid.as_deref().or(request.spec.agent.uid.as_deref());
    request.agent().is_some_and(|id| id == agent.id) && meant.is_none_or(|uid| uid == agent.uid)
}

pub(super) fn seconds(now: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Unknown, another agent's, or gone: one answer for all of them (CIBA Core section 11).
fn unknown() -> Refusal {
    let description = "auth_req_id is not that of a request of this agent which waits for its token";
    Refusal::new("invalid_grant", "request_unknown", description)
}

fn spent(description: &str) -> Refusal {
    Refusal::new("invalid_grant", "request_spent", description)
}

/// Why there is no token, as CIBA says it.
fn refusal(refused: Refused, request: &Request) -> Refusal {
    match refused {
        Refused::Pending => Refusal::new("authorization_pending", "authorization_pending", "nobody has decided yet: poll again"),
        Refused::Denied => {
            let why = request.why_not().unwrap_or_else(|| "the request was withdrawn, or ended after it was approved".to_owned());
            Refusal::new("access_denied", "request_denied", why)
        }
        Refused::Expired => {
            Refusal::new("expired_token", "request_expired", "the request has expired: file another if it is still needed")
        }
        Refused::Spent => spent("the one token of this request was issued, or the request was ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_how_long_it_waits() {
        let of = |values: &[&str]| {
            hold(&values.iter().map(|v| (axum::http::HeaderName::from_static("prefer"), v.parse().expect("a value"))).collect())
        };
        assert_eq!(of(&[]), HOLD);
        assert_eq!(of(&["wait=0"]), Duration::ZERO);
        assert_eq!(of(&["respond-async, wait=5"]), Duration::from_secs(5));
        assert_eq!(of(&["wait=600"]), HOLD);
        assert_eq!(of(&["wait=-1", "wait=x"]), HOLD);
    }
}
