//! `kubectl countersign approve` and `deny`: shows what is asked, asks whether that is meant, and sends one patch, for the digest of what
//! was shown. Whether it counts, the operator says.

use super::failure::{DONE, Failure, NO, worse};
use super::request::{self, Asked};
use super::screen;
use super::session::Session;
use super::show::{look, look_again, requests};
use super::wait::{Patience, WaitArgs};
use crate::cli::whoami;
use crate::crd::{JitRequest, Phase, User, Verdict};
use crate::jit::decision_patch;
use crate::readable::Readable;
use crate::time::Clock;
use clap::Args;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::Value;
use std::io::{self, BufRead as _, IsTerminal as _, Write};

/// What the API server says where a decision may be accepted a moment later.
const RETRY: &str = "retry";

/// Flags of `approve` and `deny`.
#[derive(Debug, Args)]
pub struct DecideArgs {
    /// The requests, by their names or by their UIDs, which are what the agents that asked know.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// A word to whoever reads the decision later.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not ask whether it is meant.
    #[arg(short, long)]
    pub yes: bool,
    /// Whether to wait until the operator has recorded the decision.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Decides on each request. The status is that of the worst.
pub(super) async fn run(
    session: &Session,
    args: &DecideArgs,
    verdict: Verdict,
    clock: Clock,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    if !args.yes && !io::stdin().is_terminal() {
        let problem = "nobody is asked where there is no terminal: look at the request with show, then decide with --yes";
        return Err(Failure::Failed(problem.to_owned()));
    }
    // A cluster without mutating policies wants to read who decides; one that has them writes it itself.
    let by = whoami(&session.client).await?;
    let mut status = DONE;
    for name in &args.names {
        let decided = decide(session, args, name, verdict, &by, clock, out).await;
        status = worse(
            status,
            match decided {
                Ok(status) => status,
                Err(failure) if args.names.len() == 1 || failure.is_closed_pipe() => return Err(failure),
                Err(failure) => {
                    writeln!(out, "{}: {failure}", Readable(name))?;
                    failure.status()
                }
            },
        );
    }
    Ok(status)
}

async fn decide(
    session: &Session,
    args: &DecideArgs,
    name: &str,
    verdict: Verdict,
    by: &User,
    clock: Clock,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let patience = args.wait.begin();
    let asked = ready(session, name, patience).await?;
    writeln!(out, "{}", asked.sheet(screen::width(), clock.now().as_second()))?;
    if asked.is_finished() {
        return Err(Failure::Refused(format!("{} has ended: {}", asked.id(), ended(&asked))));
    }
    let digest = asked.digest().map_err(Failure::Refused)?;
    if !args.yes && !is_meant(verdict, out)? {
        writeln!(out, "nothing was decided")?;
        return Ok(NO);
    }
    let patch = decision_patch(verdict, args.reason.as_deref(), &digest, by);
    let sent = send(session, &asked, &patch, verdict, patience).await?;
    let decision = sent.status.as_ref().and_then(|status| status.decision.as_ref());
    // As it was stamped: with impersonation or a proxy before the API server it may be another name than ours.
    let by = decision.and_then(|decision| decision.by.as_ref()).unwrap_or(by);
    if !args.wait.wait {
        writeln!(out, "{}: {verdict:?} by {}, not recorded yet", asked.id(), Readable(&by.username))?;
        return Ok(DONE);
    }
    let (text, status) = recorded(session, &sent, verdict, by, patience, clock).await?;
    writeln!(out, "{}: {text}", asked.id())?;
    Ok(status)
}

/// The request, once the operator has looked at it.
async fn ready(session: &Session, name: &str, patience: Patience) -> Result<Asked, Failure> {
    loop {
        let (_, asked) = look(session, name).await?;
        if asked.object.status.as_ref().is_some_and(|status| status.phase.is_some()) {
            return Ok(asked);
        }
        patience.pause(|| format!("{}: the operator has not looked at it", asked.id())).await?;
    }
}

/// Why it has ended.
fn ended(asked: &Asked) -> String {
    let why = asked.object.status.as_ref().and_then(|status| status.conditions.iter().find(|c| c.type_ == "Finished"));
    match why.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty()) {
        Some(message) => format!("{}: {}", asked.phase(), Readable(message)),
        None => asked.phase(),
    }
}

/// Asks whether it is meant. Whatever is not "yes" is no.
fn is_meant(verdict: Verdict, out: &mut dyn Write) -> Result<bool, Failure> {
    let question = match verdict {
        Verdict::Approved => "Approve?",
        Verdict::Denied => "Deny?",
    };
    write!(out, "{question} Type yes: ")?;
    out.flush()?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format!("the answer cannot be read: {error}")))?;
    Ok(answer.trim() == "yes")
}

/// Sends the patch; again where the API server says so. Returns the request as it is then.
async fn send(
    session: &Session,
    asked: &Asked,
    patch: &Value,
    verdict: Verdict,
    patience: Patience,
) -> Result<JitRequest, Failure> {
    let api: Api<JitRequest> = Api::namespaced(session.client.clone(), session.namespace()?);
    let name = asked.object.name_any();
    loop {
        let refused = match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(sent) => return Ok(sent),
            Err(refused) => refused,
        };
        let may_pass = matches!(&refused, kube::Error::Api(status) if status.is_forbidden() && status.message.contains(RETRY));
        if !may_pass || !is_open(session, asked, verdict).await? {
            return Err(refused.into());
        }
        patience.pause(|| format!("{}: another decision on it was not recorded", asked.id())).await?;
    }
}

/// Whether the very same request can still be decided.
async fn is_open(session: &Session, asked: &Asked, verdict: Verdict) -> Result<bool, Failure> {
    let found = requests(session)?.get_opt(&asked.object.name_any()).await?;
    let Some(found) = found.filter(|found| found.uid() == asked.object.uid()) else { return Ok(false) };
    let phase = found.typed::<JitRequest>().and_then(|found| found.status?.phase);
    Ok(phase == Some(Phase::Pending) || (phase == Some(Phase::Approved) && verdict == Verdict::Denied))
}

/// Waits until the operator has recorded the decision. Returns what came of it.
async fn recorded(
    session: &Session,
    sent: &JitRequest,
    verdict: Verdict,
    by: &User,
    patience: Patience,
    clock: Clock,
) -> Result<(String, u8), Failure> {
    let before = sent.status.as_ref().map_or(0, |status| status.approvals.len());
    loop {
        let Ok((_, asked)) = look_again(session, &sent.name_any()).await else {
            return Ok(("it is gone: the agent withdrew it".to_owned(), NO));
        };
        if asked.object.uid() != sent.uid() {
            return Ok(("it is gone, and another has its name: nothing was decided on that".to_owned(), NO));
        }
        let status = asked.status();
        let ours = status.approvals.iter().skip(before).find(|a| a.by.username == by.username && a.verdict == verdict);
        if let Some(ours) = ours {
            return Ok(match (&ours.void, verdict) {
                (Some(void), _) => (format!("the decision of {} does not count: {}", Readable(&by.username), Readable(void)), NO),
                (None, Verdict::Denied) => (format!("denied by {}", Readable(&by.username)), DONE),
                (None, Verdict::Approved) => (approved(&asked, by, clock.now().as_second()), DONE),
            });
        }
        let waits = status
            .decision
            .as_ref()
            .is_some_and(|d| d.verdict == verdict && d.by.as_ref().is_some_and(|d| d.username == by.username));
        if !waits || asked.is_finished() {
            let last = status.approvals.last().map(request::decision).map(|last| format!("; {last}")).unwrap_or_default();
            return Ok((format!("the decision was not recorded: the request is {}{last}", ended(&asked)), NO));
        }
        patience.pause(|| format!("{}: the decision is stored, but the operator has not recorded it", asked.id())).await?;
    }
}

/// What an approval led to.
fn approved(asked: &Asked, by: &User, now: i64) -> String {
    let (by, count) = (Readable(&by.username), asked.approvals());
    match asked.status().phase {
        Some(Phase::Pending) => format!("approved by {by} ({count}): somebody else must approve it too"),
        Some(Phase::Approved) => {
            format!("approved by {by} ({count}): the agent can have its token, {} from now at the latest", asked.left(now))
        }
        _ => format!("approved by {by} ({count}): it is {} by now", asked.phase()),
    }
}
