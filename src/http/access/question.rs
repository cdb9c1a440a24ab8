//! What an AuthZEN request asks, parsed (AuthZEN 1.0 sections 5 to 8).

use crate::decision::{Attempt, Denial, Reason};
use crate::grammar::{AgentId, CapabilityName, Resource};
use crate::json;
use crate::operation::Parameters;
use serde_json::{Map, Value};

/// Most questions in one request.
pub(super) const TOGETHER_MAX: usize = 100;
/// The member of `context` with the access token that an agent has presented.
const TOKEN: &str = "access_token";
/// The member of `context` that says for whom a token would be.
const AUDIENCE: &str = "audience";

/// One question.
#[derive(Debug, Clone)]
pub(in crate::http) struct Question {
    pub(super) subject: Subject,
    pub(super) circumstances: Circumstances,
    /// What is attempted, or why nobody can be allowed that.
    pub(super) attempt: Result<Attempt, Denial>,
}

/// Whom a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// An agent, and the user for whom it would act.
    Agent(AgentId, Option<String>),
    /// A user, through whatever agent the token says.
    User(String),
    /// Nobody whom we know.
    Other,
}

/// What is said beside the operation.
#[derive(Debug, Clone, Default)]
pub(super) struct Circumstances {
    pub(super) token: Option<String>,
    pub(super) audience: Option<String>,
    context: Map<String, Value>,
}

/// The members of a question, each as a whole (section 7.1.1): what an item has takes the place of the default.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    subject: Option<Value>,
    action: Option<Value>,
    resource: Option<Value>,
    context: Option<Value>,
}

/// A question without its action.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) subject: Subject,
    pub(super) circumstances: Circumstances,
    /// On what, if on anything, or why nobody can be allowed anything on that.
    pub(super) resource: Result<Option<Resource>, Denial>,
    pub(super) resource_properties: Map<String, Value>,
}

/// When a batch ends (section 7.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Semantic {
    All,
    FirstDeny,
    FirstPermit,
}

/// Several questions.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) semantic: Semantic,
    /// Each question, or what is wrong with it.
    pub(super) questions: Vec<Result<Question, String>>,
}

/// What is wrong with a request, in a sentence.
type Malformed = String;

impl Members {
    /// Takes them out of `body`.
    pub(super) fn take(body: &mut Map<String, Value>) -> Self {
        let mut take = |name: &str| body.remove(name);
        Self { subject: take("subject"), action: take("action"), resource: take("resource"), context: take("context") }
    }

    fn or(self, defaults: &Self) -> Self {
        let other = |own: Option<Value>, default: &Option<Value>| own.or_else(|| default.clone());
        Self {
            subject: other(self.subject, &defaults.subject),
            action: other(self.action, &defaults.action),
            resource: other(self.resource, &defaults.resource),
            context: other(self.context, &defaults.context),
        }
    }

    /// The question that they make.
    pub(super) fn question(self) -> Result<Question, Malformed> {
        let action = self.action.clone();
        let Beside { subject, circumstances, resource, resource_properties } = self.beside()?;
        let mut action = object(action, "action")?;
        let name = text(&mut action, "action", "name")?;
        let parameters = properties(&mut action, "action")?;
        let parameters = match parameters {
            None => None,
            Some(members) => Some(Parameters::parse(members).map_err(|error| format!("action.properties: {error}"))?),
        };
        let context = circumstances.context.clone();
        for (name, value) in parameters.iter().flat_map(Parameters::members) {
            if context.get(name).is_some_and(|other| !json::same(other, value)) {
                return Err(format!("action.properties and context give {} two values", shown(name)));
            }
        }
        let attempt = CapabilityName::parse(&name)
            .map_err(|error| Denial {
                reason: Reason::CapabilityNotGranted,
                message: format!("action.name is no capability: {error}"),
            })
            .and_then(|capability| Ok(Attempt { capability, resource: resource?, parameters, resource_properties, context }));
        Ok(Question { subject, circumstances, attempt })
    }

    /// Everything but the action.
    pub(super) fn beside(self) -> Result<Beside, Malformed> {
        let subject = Subject::parse(object(self.subject, "subject")?)?;
        // Beyond the standard, which knows no action without a resource: null says that there is none.
        let (resource, resource_properties) = match self.resource {
            Some(Value::Null) => (Ok(None), Map::new()),
            resource => {
                let mut resource = object(resource, "resource")?;
                let (kind, id) = (text(&mut resource, "resource", "type")?, text(&mut resource, "resource", "id")?);
                let properties = properties(&mut resource, "resource")?.unwrap_or_default();
                let parsed = Resource::parse(&format!("{kind}:{id}")).map(Some).map_err(|error| Denial {
                    reason: Reason::ResourceNotGranted,
                    message: format!("resource.type and resource.id name nothing that could be granted: {error}"),
                });
                (parsed, properties)
            }
        };
        let mut context = match self.context {
            None => Map::new(),
            context => object(context, "context")?,
        };
        let mut own = |name: &str| match context.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("context.{name} must be a text")),
        };
        let (token, audience) = (own(TOKEN)?, own(AUDIENCE)?);
        Ok(Beside { subject, circumstances: Circumstances { token, audience, context }, resource, resource_properties })
    }
}

impl Circumstances {
    /// What an attempt knows of them.
    pub(super) const fn context(&self) -> &Map<String, Value> {
        &self.context
    }
}

impl Subject {
    fn parse(mut members: Map<String, Value>) -> Result<Self, Malformed> {
        let (kind, id) = (text(&mut members, "subject", "type")?, text(&mut members, "subject", "id")?);
        let behalf = properties(&mut members, "subject")?.and_then(|mut properties| properties.remove("on_behalf_of"));
        let behalf = match behalf {
            None => None,
            Some(Value::String(user)) => Some(user.strip_prefix("user:").unwrap_or(&user).to_owned()),
            Some(_) => return Err("subject.properties.on_behalf_of must be a text".to_owned()),
        };
        Ok(match kind.as_str() {
            "agent" => AgentId::parse_short(&id).map_or(Self::Other, |agent| Self::Agent(agent, behalf)),
            "user" => Self::User(id.strip_prefix("user:").unwrap_or(&id).to_owned()),
            _ => Self::Other,
        })
    }
}

impl Batch {
    /// Reads a batch. `None` if it has no items, and is one question (section 7.1).
    pub(super) fn take(body: &mut Map<String, Value>) -> Result<Option<Self>, Malformed> {
        let semantic = match body.remove("options") {
            None => Semantic::All,
            Some(Value::Object(mut options)) => Semantic::parse(options.remove("evaluations_semantic").as_ref())?,
            Some(_) => return Err("options must be an object".to_owned()),
        };
        let items = match body.remove("evaluations") {
            None => return Ok(None),
            Some(Value::Array(items)) if items.is_empty() => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(_) => return Err("evaluations must be an array".to_owned()),
        };
        if items.len() > TOGETHER_MAX {
            return Err(format!("evaluations has {} items, and at most {TOGETHER_MAX} are answered at once", items.len()));
        }
        let defaults = Members::take(body);
        let question = |item: Value| match item {
            Value::Object(mut members) => Members::take(&mut members).or(&defaults).question(),
            _ => Err("an item of evaluations must be an object".to_owned()),
        };
        Ok(Some(Self { semantic, questions: items.into_iter().map(question).collect() }))
    }
}

impl Semantic {
    fn parse(value: Option<&Value>) -> Result<Self, Malformed> {
        match value.map(Value::as_str) {
            None | Some(Some("execute_all")) => Ok(Self::All),
            Some(Some("deny_on_first_deny")) => Ok(Self::FirstDeny),
            Some(Some("permit_on_first_permit")) => Ok(Self::FirstPermit),
            _ => Err("options.evaluations_semantic must be execute_all, deny_on_first_deny or permit_on_first_permit".to_owned()),
        }
    }

    /// Whether an answer is the last.
    pub(super) const fn ends_with(self, decision: bool) -> bool {
        matches!((self, decision), (Self::FirstDeny, false) | (Self::FirstPermit, true))
    }
}

fn object(value: Option<Value>, name: &str) -> Result<Map<String, Value>, Malformed> {
    match value {
        Some(Value::Object(members)) => Ok(members),
        Some(_) => Err(format!("{name} must be an object")),
        None => Err(format!("{name} is missing: a question has a subject, an action and a resource")),
    }
}

fn text(members: &mut Map<String, Value>, of: &str, name: &str) -> Result<String, Malformed> {
    match members.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) => Err(format!("{of}.{name} is empty")),
        Some(_) => Err(format!("{of}.{name} must be a text")),
        None => Err(format!("{of}.{name} is missing")),
    }
}

fn properties(members: &mut Map<String, Value>, of: &str) -> Result<Option<Map<String, Value>>, Malformed> {
    match members.remove("properties") {
        None => Ok(None),
        Some(Value::Object(properties)) => Ok(Some(properties)),
        Some(_) => Err(format!("{of}.properties must be an object")),
    }
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(body: Value) -> Result<Question, Malformed> {
        match body {
            Value::Object(mut body) => Members::take(&mut body).question(),
            other => panic!("{other} is no object"),
        }
    }

    fn good() -> Value {
        json!({"subject": {"type": "agent", "id": "research/bot"}, "action": {"name": "document.read", "properties": {"amount": 5}},
            "resource": {"type": "document", "id": "reports/q3"}, "context": {"access_token": "x.y.z", "ip": "::1", "amount": 5.0}, "extra": 1})
    }

    #[test]
    fn a_question_is_read_member_by_member() {
        let read = question(good()).expect("a question");
        assert_eq!(read.subject, Subject::Agent(AgentId::new("research", "bot").expect("an agent"), None));
        let attempt = read.attempt.expect("an attempt");
        assert_eq!(attempt.resource.expect("a resource").as_str(), "document:reports/q3");
        assert_eq!(read.circumstances.token.as_deref(), Some("x.y.z"));
        assert!(!attempt.context.contains_key("access_token") && attempt.context.contains_key("ip"));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_said() {
        for (pointer, value, says) in [
            ("/subject", json!(null), "subject must be an object"),
            ("/subject/type", json!(5), "subject.type must be a text"),
            ("/subject/id", json!(""), "subject.id is empty"),
            ("/action", json!([]), "action must be an object"),
            ("/action/name", json!(null), "action.name must be a text"),
            ("/action/properties", json!("x"), "action.properties must be an object"),
            ("/action/properties/amount", json!(6), "two values"),
            ("/resource", json!("document:x"), "resource must be an object"),
            ("/resource/id", json!(7), "resource.id must be a text"),
            ("/context", json!([]), "context must be an object"),
            ("/context/access_token", json!({}), "context.access_token must be a text"),
        ] {
            let mut body = good();
            *body.pointer_mut(pointer).expect("a member") = value;
            let error = question(body).expect_err(pointer);
            assert!(error.contains(says), "{pointer}: {error}");
        }
        let mut body = good();
        body["resource"] = json!(null);
        assert_eq!(question(body).expect("null is no resource").attempt.expect("an attempt").resource, None);
        for name in ["subject", "action", "resource"] {
            let mut body = good();
            _ = body.as_object_mut().expect("an object").remove(name);
            assert!(question(body).expect_err(name).starts_with(&format!("{name} is missing")));
        }
    }

    #[test]
    fn c2_c3_names_that_could_never_be_granted_are_denied_not_repaired() {
        for (pointer, value) in [
            ("/action/name", "document.read "),
            ("/action/name", "Document.read"),
            ("/action/name", "d\u{43e}cument.read"),
            ("/action/name", "document.read document.write"),
            ("/resource/id", "reports/../secret"),
            ("/resource/id", "*"),
            ("/resource/id", "reports/q3\n"),
            ("/resource/id", "reports//q3"),
            ("/resource/type", "Document"),
        ] {
            let mut body = good();
            *body.pointer_mut(pointer).expect("a member") = json!(value);
            assert!(question(body).expect("well formed").attempt.is_err(), "{pointer} {value}");
        }
    }

    #[test]
    fn an_item_takes_the_place_of_a_default_as_a_whole() {
        let body = json!({"subject": {"type": "agent", "id": "a/b"}, "action": {"name": "x", "properties": {"n": 1}},
            "resource": {"type": "d", "id": "1"}, "evaluations": [{}, {"action": {"name": "y"}}, {"resource": 5}, 7]});
        let Value::Object(mut body) = body else { panic!("no object") };
        let batch = Batch::take(&mut body).expect("a batch").expect("items");
        assert_eq!(batch.semantic, Semantic::All);
        let read: Vec<_> = batch.questions.iter().map(|q| q.as_ref().map(|q| q.attempt.clone().expect("an attempt"))).collect();
        assert!(read[0].as_ref().is_ok_and(|a| a.parameters.is_some()));
        assert!(read[1].as_ref().is_ok_and(|a| a.parameters.is_none() && a.capability.as_str() == "y"));
        assert!(read[2].is_err() && read[3].is_err());
    }

    #[test]
    fn a_batch_is_bounded_and_its_semantic_known() {
        let batch = |body: Value| match body {
            Value::Object(mut body) => Batch::take(&mut body),
            other => panic!("{other} is no object"),
        };
        assert!(batch(json!({"evaluations": vec![json!({}); 101]})).is_err());
        assert!(batch(json!({"evaluations": {}})).is_err());
        assert!(batch(json!({"evaluations": [{}], "options": {"evaluations_semantic": "maybe"}})).is_err());
        assert!(batch(json!({"evaluations": [{}], "options": []})).is_err());
        assert!(batch(json!({"evaluations": []})).expect("one question").is_none());
        let semantic = |name: &str| {
            batch(json!({"evaluations": [{}], "options": {"evaluations_semantic": name}}))
                .expect("a batch")
                .expect("items")
                .semantic
        };
        assert!(semantic("deny_on_first_deny").ends_with(false) && !semantic("deny_on_first_deny").ends_with(true));
        assert!(semantic("permit_on_first_permit").ends_with(true) && !semantic("execute_all").ends_with(false));
    }
}
