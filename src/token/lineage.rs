//! The chain as claims: `sub`, `act` (RFC 8693 section 4.1), and what is ours beside them.

use super::AccessClaims;
use crate::agent::DEPTH_MAX;
use crate::chain::{Chain, IssuerRef, Link as ChainLink, Principal, Proof};
use crate::grammar::AgentId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `sub_profile` of an agent (draft-mcguinness-oauth-actor-profile).
const AI_AGENT: &str = "ai_agent";

/// Who acts (RFC 8693 section 4.1): the newest outermost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Who knows the actor by that subject: this service.
    pub iss: String,
    /// `agent:<namespace>/<name>`.
    pub sub: String,
    /// What kind of actor.
    pub sub_profile: String,
    /// Who called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Self>>,
}

/// One agent on which a token depends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its subject.
    pub sub: String,
    /// UID of its registration.
    pub agent_uid: String,
    /// Its `revocationEpoch` when the token was issued. The token lives only while they are equal.
    pub epoch: i64,
    /// The ServiceAccount with which it proved itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sa: Option<String>,
    /// UID of the pod to which its credential was bound. The token of the agent that acts lives only while the pod does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Uuid>,
    /// The thumbprint of the key with which it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The TrustedIssuer that vouched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerRef>,
    /// The digest of the subject for which it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// The user on whom a token depends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLink {
    /// The TrustedIssuer that vouched for the user.
    pub issuer: IssuerRef,
    /// The user's revocation count when the chain began. The token lives only while they are equal.
    pub epoch: i64,
}

impl AccessClaims {
    /// The chain; `None` if the claims do not fit each other: it is not what we would have written.
    #[must_use]
    pub fn chain(&self) -> Option<Chain> {
        let user = match (&self.user, self.sub.strip_prefix("user:")) {
            (Some(user), Some(name)) => Some(Principal { name: name.to_owned(), issuer: user.issuer.clone(), epoch: user.epoch }),
            (None, None) => None,
            _ => return None,
        };
        let links = self.links.iter().map(Link::read).collect::<Option<Vec<_>>>()?;
        let chain = Chain::read(user, links, self.txn.clone(), self.ancestors.clone())?;
        let acting = chain.acting()?;
        let fits = chain.subject() == self.sub
            && self.act == act(&chain, &self.iss)
            && acting.agent.to_string() == self.client_id
            && acting.uid == self.agent_uid;
        fits.then_some(chain)
    }
}

/// Who acts for the subject of `chain`, all of them known by `issuer`.
pub(super) fn act(chain: &Chain, issuer: &str) -> Option<Actor> {
    chain.actors().take(DEPTH_MAX).fold(None, |before, link| {
        let (iss, sub, sub_profile) = (issuer.to_owned(), link.agent.to_string(), AI_AGENT.to_owned());
        Some(Actor { iss, sub, sub_profile, act: before.map(Box::new) })
    })
}

pub(super) fn links(chain: &Chain) -> Vec<Link> {
    chain.links().iter().map(Link::write).collect()
}

pub(super) fn user(chain: &Chain) -> Option<UserLink> {
    chain.user().map(|user| UserLink { issuer: user.issuer.clone(), epoch: user.epoch })
}

impl Link {
    fn write(link: &ChainLink) -> Self {
        let (mut sa, mut pod, mut key, mut issuer, mut subject) = (None, None, None, None, None);
        match &link.proof {
            Proof::Unsaid => {}
            Proof::ServiceAccount { name, pod: uid } => (sa, pod) = (Some(name.clone()), *uid),
            Proof::Key(thumbprint) => key = Some(thumbprint.clone()),
            Proof::Issuer(by, digest) => (issuer, subject) = (Some(by.clone()), Some(digest.clone())),
        }
        Self { sub: link.agent.to_string(), agent_uid: link.uid.clone(), epoch: link.epoch, sa, pod, key, issuer, subject }
    }

    fn read(&self) -> Option<ChainLink> {
        let proof = match (&self.sa, self.pod, &self.key, &self.issuer, &self.subject) {
            (None, None, None, None, None) => Proof::Unsaid,
            (Some(name), pod, None, None, None) => Proof::ServiceAccount { name: name.clone(), pod },
            (None, None, Some(thumbprint), None, None) => Proof::Key(thumbprint.clone()),
            (None, None, None, Some(issuer), Some(subject)) => Proof::Issuer(issuer.clone(), subject.clone()),
            _ => return None,
        };
        Some(ChainLink { agent: AgentId::parse(&self.sub).ok()?, uid: self.agent_uid.clone(), epoch: self.epoch, proof })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn link(name: &str, proof: Proof) -> ChainLink {
        ChainLink { agent: AgentId::new("ns", name).expect("an agent"), uid: format!("uid-{name}"), epoch: 1, proof }
    }

    fn claims(user: bool) -> AccessClaims {
        let issuer = IssuerRef { name: "acme".to_owned(), uid: "i".to_owned() };
        let alice = Principal { name: "alice".to_owned(), issuer: issuer.clone(), epoch: 0 };
        let chain = Chain::begin(user.then_some(alice), link("a", Proof::Issuer(issuer, "d".to_owned())), "t".to_owned())
            .extended("j1", link("b", Proof::Key("k".to_owned())))
            .extended("j2", link("c", Proof::ServiceAccount { name: "s".to_owned(), pod: Some(Uuid::from_u128(1)) }));
        let claims = json!({"iss": "https://us", "sub": chain.subject(), "aud": "x", "client_id": "agent:ns/c", "iat": 1, "exp": 2,
            "jti": "j", "scope": "a", "agent_uid": "uid-c", "links": links(&chain), "act": act(&chain, "https://us"),
            "user": user.then(|| super::user(&chain)), "txn": chain.txn(), "ancestors": chain.ancestors()});
        serde_json::from_value(claims).expect("claims")
    }

    #[test]
    fn the_newest_actor_is_outermost() {
        let shown = |user| serde_json::to_value(claims(user).act).expect("JSON");
        let actor = |name: &str, act: Option<Value>| {
            let mut actor = json!({"iss": "https://us", "sub": format!("agent:ns/{name}"), "sub_profile": "ai_agent"});
            if let Some(act) = act {
                actor["act"] = act;
            }
            actor
        };
        assert_eq!(shown(true), actor("c", Some(actor("b", Some(actor("a", None))))));
        assert_eq!(shown(false), actor("c", Some(actor("b", None))), "who began is the subject");
    }

    #[test]
    fn x6_x7_a_chain_that_its_claims_do_not_agree_on_is_none() {
        for user in [true, false] {
            let good = claims(user);
            let chain = good.chain().expect("a chain");
            assert_eq!((chain.depth(), links(&chain), act(&chain, "https://us")), (3, good.links.clone(), good.act.clone()));
            let mut spoilt: Vec<AccessClaims> = Vec::new();
            let mut spoil = |change: &dyn Fn(&mut AccessClaims)| {
                let mut claims = good.clone();
                change(&mut claims);
                spoilt.push(claims);
            };
            spoil(&|c| c.act = None);
            spoil(&|c| c.act = c.act.take().and_then(|a| a.act).map(|a| *a));
            spoil(&|c| c.links.swap(0, 1));
            spoil(&|c| _ = c.links.remove(0));
            spoil(&|c| c.links.push(c.links[0].clone()));
            spoil(&|c| c.links.clear());
            spoil(&|c| c.sub = "agent:ns/b".to_owned());
            spoil(&|c| c.sub = "user:bob@x".replace("bob@x", ""));
            spoil(&|c| c.client_id = "agent:ns/a".to_owned());
            spoil(&|c| c.agent_uid = "uid-a".to_owned());
            spoil(&|c| c.links[2].key = Some("k".to_owned()));
            spoil(&|c| c.links[1].pod = Some(Uuid::from_u128(1)));
            spoil(&|c| c.iss = "https://other".to_owned());
            spoil(&|c| c.user = if c.user.is_some() { None } else { claims(true).user });
            for claims in spoilt {
                // A user of another name is a matter of the signature, not of the form.
                assert!(claims.chain().is_none() || claims.sub == "user:", "{claims:?}");
            }
        }
    }
}
