//! `countersign can`: may this agent do this, and which rule says so? On the cluster or on files, with the rules of the token service.

use super::objects::{Objects, Source, SourceError};
use crate::agent::RegisteredAgent;
use crate::decision::{Attempt, Claimed, Denial, Query, Step, evaluate, explain, requestable};
use crate::grammar::{AgentId, CapabilityName, GrammarError, Resource};
use crate::json::{self, put};
use crate::operation::{InvalidOperation, Parameters};
use crate::token::OPERATION_DETAILS;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Flags of `can`.
#[derive(Debug, Args)]
pub struct CanArgs {
    /// The Agent that acts: namespace/name.
    #[arg(value_parser = super::agent_id, value_name = "NAMESPACE/NAME")]
    pub agent: AgentId,
    /// What it would do.
    #[command(flatten)]
    pub question: Question,
    /// The agents through which it was called, first the one that began. May be given several times.
    #[arg(long, value_parser = super::agent_id, value_name = "NAMESPACE/NAME")]
    pub via: Vec<AgentId>,
    /// Where the objects come from.
    #[command(flatten)]
    pub source: Source,
}

/// What an agent would do, for whom, and how the answer is printed.
#[derive(Debug, Args)]
pub struct Question {
    /// The capability, for example document.read.
    pub capability: String,
    /// The resource, for example document:reports/q3.
    pub resource: Option<String>,
    /// The parameters of the operation, as a JSON object.
    #[arg(long, value_name = "JSON")]
    pub parameters: Option<String>,
    /// What else is known of the circumstances, as a JSON object.
    #[arg(long, value_name = "JSON")]
    pub context: Option<String>,
    /// The user for whom it would act.
    #[arg(long = "for", value_name = "USER")]
    pub user: Option<String>,
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CanError {
    /// There are no objects to decide on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] GrammarError),
    /// A flag is no JSON object.
    #[error("--{0} must be a JSON object: {1}")]
    Json(&'static str, String),
    /// The parameters are none that an operation can have.
    #[error("--parameters: {0}")]
    Parameters(#[from] InvalidOperation),
}

/// Answers. The status is 0 for yes and 1 for no.
///
/// # Errors
/// A [`CanError`]: nobody can tell.
pub async fn run(args: &CanArgs, now: u64) -> Result<(String, u8), CanError> {
    args.question.answer(&args.agent, &args.via, Objects::load(&args.source), now).await
}

impl Question {
    /// Answers for `agent`, called through the agents `via`, on these objects, which are only fetched if the question is one.
    ///
    /// # Errors
    /// A [`CanError`]: nobody can tell.
    pub async fn answer(
        &self,
        agent: &AgentId,
        via: &[AgentId],
        objects: impl Future<Output = Result<Objects, SourceError>>,
        now: u64,
    ) -> Result<(String, u8), CanError> {
        let attempt = Attempt {
            capability: CapabilityName::parse(&self.capability)?,
            resource: self.resource.as_deref().map(Resource::parse).transpose()?,
            parameters: object("parameters", self.parameters.as_deref())?.map(Parameters::parse).transpose()?,
            resource_properties: Map::new(),
            context: object("context", self.context.as_deref())?.unwrap_or_default(),
        };
        let objects = objects.await?;
        Ok(answer(self, via.iter().chain([agent]), &attempt, &objects, now))
    }
}

fn object(flag: &'static str, text: Option<&str>) -> Result<Option<Map<String, Value>>, CanError> {
    let parse = |text: &str| json::parse_object(text.as_bytes()).map_err(|error| CanError::Json(flag, error.to_string()));
    text.map(parse).transpose()
}

fn answer<'a>(
    question: &Question,
    chain: impl Iterator<Item = &'a AgentId>,
    attempt: &Attempt,
    objects: &Objects,
    now: u64,
) -> (String, u8) {
    let view = objects.view();
    let found: Result<Vec<_>, _> = chain.map(|id| view.agents.look_up(id).map(|agent| &**agent).ok_or(id)).collect();
    let agents: Vec<&RegisteredAgent> = match found {
        Ok(agents) => agents,
        Err(id) => {
            let message = format!("no Agent {id} is registered");
            return match question.output {
                Output::Text => (format!("no: {message}\n"), 1),
                Output::Json => {
                    (format!("{}\n", json!({"decision": false, "reason": {"code": "agent_unknown", "message": message}})), 1)
                }
            };
        }
    };
    let user = question.user.as_deref().map(|user| user.strip_prefix("user:").unwrap_or(user));
    let query = Query { claimed: Claimed::Name(&agents, user), attempt };
    let decision = evaluate(query, &view, now);
    let steps = explain(&agents, user, attempt, &view);
    let request = decision.is_err().then(|| requestable(query, None, &view)).flatten();
    let details = request.map(|operation| {
        let mut details = json!(operation.to_spec());
        put(&mut details, "type", json!(OPERATION_DETAILS));
        details
    });
    let text = match question.output {
        Output::Text => text(&decision, &steps, details.as_ref()),
        Output::Json => format!("{:#}\n", shown(&decision, &steps, details)),
    };
    (text, u8::from(decision.is_err()))
}

fn text(decision: &Result<(), Denial>, steps: &[Step], details: Option<&Value>) -> String {
    let mut text = match decision {
        Ok(()) => "yes\n".to_owned(),
        Err(denial) => {
            format!("no: {}\n\n  reason  {}\n  rule    {}\n", denial.message, denial.reason.code(), denial.reason.rule())
        }
    };
    let mut agent = None;
    for step in steps {
        if agent != Some(&step.agent) {
            agent = Some(&step.agent);
            // Writing into a String cannot fail.
            _ = write!(text, "\n{}\n", step.agent);
        }
        _ = match &step.verdict {
            Ok(by) => writeln!(text, "  {:<11} yes  {by}", step.rule),
            Err(denial) => writeln!(text, "  {:<11} no   {}", step.rule, denial.message),
        };
    }
    if let Some(details) = details {
        _ = write!(
            text,
            "\nA person can approve exactly this. Ask at /oauth2/bc-authorize with authorization_details:\n  [{details}]\n"
        );
    }
    text
}

fn shown(decision: &Result<(), Denial>, steps: &[Step], details: Option<Value>) -> Value {
    let reason = |denial: &Denial| json!({"code": denial.reason.code(), "message": denial.message, "rule": denial.reason.rule()});
    let step = |step: &Step| match &step.verdict {
        Ok(by) => json!({"agent": step.agent.to_string(), "rule": step.rule, "verdict": true, "message": by}),
        Err(denial) => json!({"agent": step.agent.to_string(), "rule": step.rule, "verdict": false, "message": denial.message,
            "code": denial.reason.code()}),
    };
    let mut shown = json!({"decision": decision.is_ok(), "steps": steps.iter().map(step).collect::<Vec<_>>()});
    if let Err(denial) = decision {
        put(&mut shown, "reason", reason(denial));
        put(&mut shown, "requestable", json!(details.is_some()));
    }
    if let Some(details) = details {
        put(&mut shown, "authorization_details", json!([details]));
    }
    shown
}
