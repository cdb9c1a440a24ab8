//! On whose behalf, and through whom: the chain of agents that called one another, as tokens and requests for approval carry it.
//!
//! Pure data. Only this service extends a chain, and only at its end: what stands in it is never dropped, reordered or replaced.

use crate::agent::DEPTH_MAX;
use crate::grammar::AgentId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use uuid::Uuid;

/// A chain: the user at its beginning, if there is one, the agents in the order in which they called one another, and the tokens
/// that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    user: Option<Principal>,
    links: Vec<Link>,
    txn: String,
    ancestors: Vec<String>,
}

/// A user on whose behalf a chain acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name, as in `user:<name>`.
    pub name: String,
    /// The TrustedIssuer that vouched.
    pub issuer: IssuerRef,
    /// The revocation count of the user.
    pub epoch: i64,
}

/// One registration of a TrustedIssuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRef {
    /// Its name.
    pub name: String,
    /// UID of the object.
    pub uid: String,
}

/// One agent of a chain, as it stood when it got its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Which agent.
    pub agent: AgentId,
    /// UID of its registration.
    pub uid: String,
    /// Its revocation epoch. Everything that descends from it lives only while they are equal.
    pub epoch: i64,
    /// How it proved who it was, as far as that can end by itself.
    pub proof: Proof,
}

impl Link {
    /// UID of the pod that proved to be the agent, if it was one.
    #[must_use]
    pub const fn pod(&self) -> Option<Uuid> {
        match self.proof {
            Proof::ServiceAccount { pod, .. } => pod,
            Proof::Unsaid | Proof::Key(_) | Proof::Issuer(..) => None,
        }
    }
}

/// How an agent proved who it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proof {
    /// It is not kept.
    #[default]
    Unsaid,
    /// With a ServiceAccount in its namespace.
    ServiceAccount {
        /// Its name.
        name: String,
        /// UID of the pod to which the credential was bound, if it was to one.
        pod: Option<Uuid>,
    },
    /// With its own key of this thumbprint.
    Key(String),
    /// By the word of a TrustedIssuer, for the subject of this digest ([`subject_digest`]).
    Issuer(IssuerRef, String),
}

/// The first 128 bits of the SHA-256 of a subject, in base64url: a token says which it was, and not to everybody who that is.
#[must_use]
pub fn subject_digest(subject: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, subject.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.as_ref().get(..16).unwrap_or_default())
}

impl Chain {
    /// A chain begins: with one agent, for a user or for itself. `txn` must never have been used.
    #[must_use]
    pub fn begin(user: Option<Principal>, first: Link, txn: String) -> Self {
        Self { user, links: vec![first], txn, ancestors: Vec::new() }
    }

    /// Puts a chain together that was written down before. `None` if it is none that could have been: no agent, more than there may be,
    /// one of them twice, or more tokens than agents.
    #[must_use]
    pub fn read(user: Option<Principal>, links: Vec<Link>, txn: String, ancestors: Vec<String>) -> Option<Self> {
        let unique = links.iter().enumerate().all(|(i, link)| links.iter().skip(i + 1).all(|other| other.agent != link.agent));
        let bounded = (1..=DEPTH_MAX).contains(&links.len()) && ancestors.len() <= DEPTH_MAX;
        (unique && bounded).then_some(Self { user, links, txn, ancestors })
    }

    /// The chain with one more agent at its end, which was called with the token `parent`.
    #[must_use]
    pub fn extended(&self, parent: &str, next: Link) -> Self {
        let mut chain = self.clone();
        chain.links.push(next);
        chain.ancestors.push(parent.to_owned());
        chain
    }

    /// The user on whose behalf all of it happens.
    #[must_use]
    pub const fn user(&self) -> Option<&Principal> {
        self.user.as_ref()
    }

    /// The agents, first the one that began.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The agent that acts now, the last one.
    #[must_use]
    pub fn acting(&self) -> Option<&Link> {
        self.links.last()
    }

    /// The identifier of the chain, the same in all its tokens.
    #[must_use]
    pub fn txn(&self) -> &str {
        &self.txn
    }

    /// The identifiers of the tokens from which this one descends, first the one that began.
    #[must_use]
    pub fn ancestors(&self) -> &[String] {
        &self.ancestors
    }

    /// How many agents there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.links.len()
    }

    /// Whether the agent stands in it.
    #[must_use]
    pub fn contains(&self, agent: &AgentId) -> bool {
        self.links.iter().any(|link| link.agent == *agent)
    }

    /// Whom tokens of this chain are about (`sub`): the user, else the agent that began.
    #[must_use]
    pub fn subject(&self) -> String {
        match (&self.user, self.links.first()) {
            (Some(user), _) => user.to_string(),
            (None, Some(first)) => first.agent.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Those who act for the subject (`act`), the first of them first: all agents if there is a user, else all but the one that began.
    pub fn actors(&self) -> impl DoubleEndedIterator<Item = &Link> {
        self.links.iter().skip(usize::from(self.user.is_none()))
    }

    /// The subjects of the agents, for records.
    #[must_use]
    pub fn subjects(&self) -> String {
        self.links.iter().map(|link| link.agent.to_string()).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user:{}", self.name)
    }
}

/// Who alone may act with a token (`may_act`, RFC 8693 section 4.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MayAct {
    /// The issuer that knows the actor by that subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The subject of the actor.
    pub sub: String,
}

impl MayAct {
    /// Reads the claim of somebody else's token.
    ///
    /// # Errors
    /// If it is anything but an object with one `sub` and at most an `iss`: what is not understood allows nobody.
    pub fn parse(claim: &Value) -> Result<Self, &'static str> {
        let only = |members: &serde_json::Map<String, Value>| members.keys().all(|name| name == "sub" || name == "iss");
        let claim = claim.as_object().filter(|members| only(members)).ok_or("may_act is not an object with sub and iss only")?;
        let iss = match claim.get("iss") {
            None => None,
            Some(Value::String(iss)) => Some(iss.clone()),
            Some(_) => return Err("iss in may_act is not a text"),
        };
        let sub = claim.get("sub").and_then(Value::as_str).ok_or("may_act has no sub, or one that is not a text")?;
        Ok(Self { iss, sub: sub.to_owned() })
    }

    /// Whether it names `agent`, which `issuer`, this service, knows by its subject.
    #[must_use]
    pub fn names(&self, agent: &AgentId, issuer: &str) -> bool {
        self.sub == agent.to_string() && self.iss.as_deref().is_none_or(|iss| iss == issuer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn link(name: &str) -> Link {
        let agent = AgentId::new("ns", name).expect("an agent");
        Link { agent, uid: format!("uid-{name}"), epoch: 0, proof: Proof::Unsaid }
    }

    fn alice() -> Principal {
        let issuer = IssuerRef { name: "acme".to_owned(), uid: "u".to_owned() };
        Principal { name: "alice".to_owned(), issuer, epoch: 0 }
    }

    #[test]
    fn with_a_user_every_agent_acts_and_without_one_all_but_the_first() {
        let names = |chain: &Chain| chain.actors().map(|l| l.agent.name().to_owned()).collect::<Vec<_>>().join(" ");
        for (user, subject, actors) in [(Some(alice()), "user:alice", "a b"), (None, "agent:ns/a", "b")] {
            let chain = Chain::begin(user, link("a"), "t".to_owned()).extended("j1", link("b"));
            assert_eq!((chain.subject().as_str(), names(&chain).as_str()), (subject, actors));
        }
    }

    #[test]
    fn x8_x11_a_chain_with_an_agent_twice_or_too_many_is_none() {
        let read = |names: &[&str]| Chain::read(None, names.iter().map(|n| link(n)).collect(), String::new(), vec![]);
        assert!(read(&["a", "b", "c"]).is_some());
        assert!(read(&[]).is_none() && read(&["a", "b", "a"]).is_none() && read(&["a", "a"]).is_none());
        let names: Vec<String> = (0..9).map(|i| format!("a{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(read(&names[..8]).is_some() && read(&names).is_none());
    }

    #[test]
    fn x10_may_act_that_is_not_understood_is_refused() {
        let agent = AgentId::new("ns", "a").expect("an agent");
        let names = |claim: Value| MayAct::parse(&claim).map(|may| may.names(&agent, "https://us"));
        assert_eq!(names(json!({"sub": "agent:ns/a"})), Ok(true));
        assert_eq!(names(json!({"sub": "agent:ns/a", "iss": "https://us"})), Ok(true));
        for other in [json!({"sub": "agent:ns/b"}), json!({"sub": "agent:ns/a", "iss": "https://other"}), json!({"sub": ""})] {
            assert_eq!(names(other.clone()), Ok(false), "{other}");
        }
        for bad in [
            json!({"sub": ["agent:ns/a"]}),
            json!({"sub": "agent:ns/a", "may_act": {"sub": "agent:ns/a"}}),
            json!({"act": {"sub": "agent:ns/a"}}),
            json!(["agent:ns/a"]),
            json!("agent:ns/a"),
            json!(null),
            json!({"sub": "agent:ns/a", "iss": 7}),
            json!({}),
        ] {
            assert!(names(bad.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        /// X7: a chain is that of the subject with one agent at its end, and nothing of it is lost.
        #[test]
        fn x7_to_extend_a_chain_changes_nothing_that_was_in_it(depth in 1usize..8) {
            let mut chain = Chain::begin(Some(alice()), link("a0"), "t".to_owned());
            for i in 1..depth {
                chain = chain.extended(&format!("j{i}"), link(&format!("a{i}")));
            }
            let longer = chain.extended("j", link("last"));
            prop_assert_eq!(longer.depth(), chain.depth() + 1);
            prop_assert_eq!(&longer.links()[..depth], chain.links());
            prop_assert_eq!((longer.txn(), longer.user()), (chain.txn(), chain.user()));
            prop_assert_eq!(&longer.ancestors()[..depth - 1], chain.ancestors());
            prop_assert_eq!(longer.ancestors().last().map(String::as_str), Some("j"));
        }
    }
}
