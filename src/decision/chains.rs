//! Delegation: what a chain may do, and when it ends.

use super::world::{US, World, agent, capability, granted, token};
use super::*;
use crate::agent::Delegation;
use crate::chain::{IssuerRef, Link, Principal};
use crate::crd;
use crate::grammar::ResourcePattern;
use crate::identity::User;
use crate::issuer::{RegisteredIssuer, UserName};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

/// An agent that the others in `callers` may call, and that may act for everybody at acme.com.
fn member(name: &str, capabilities: &[&str], callers: &[&str]) -> RegisteredAgent {
    let mut agent = agent(name, capabilities, &["https://docs"]);
    let spec = crd::Delegation {
        act_for: vec![crd::ActForEntry {
            issuer: "acme".to_owned(),
            audiences: vec!["app".to_owned()],
            subjects: Some(vec!["*@acme.com".to_owned()]),
            groups: None,
        }],
        callers: callers
            .iter()
            .map(|name| crd::CallerReference { namespace: "research".to_owned(), name: (*name).to_owned() })
            .collect(),
        max_depth: 4,
    };
    let mut object =
        crd::Agent::new(name, serde_json::from_value(json!({"owner": "o", "identity": {}, "capabilities": []})).expect("a spec"));
    object.metadata.namespace = Some("research".to_owned());
    object.spec.delegation = Some(spec);
    let parsed = RegisteredAgent::parse(&object).expect("an agent").rights.expect("rights");
    agent.rights.as_mut().expect("rights").delegation = parsed.delegation;
    agent
}

fn acme(status: &serde_json::Value) -> RegisteredIssuer {
    let object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustedIssuer",
        "metadata": {"name": "acme", "uid": "acme-uid", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"provides": "Users", "issuer": {"url": "https://id.acme.com", "audiences": ["app"], "jwks": "{\"keys\":[]}"},
            "claimMappings": {"username": {"claim": "email", "prefix": "acme:"}}},
        "status": status});
    let mut issuer = RegisteredIssuer::parse(&serde_json::from_value(object).expect("an object"));
    issuer.admission = Admission::Proven;
    issuer
}

fn alice() -> User {
    User {
        issuer: "acme".to_owned(),
        issuer_uid: "acme-uid".to_owned(),
        subject: "s-1".to_owned(),
        name: UserName {
            name: "alice@acme.com".to_owned(),
            kubernetes_name: "acme:alice@acme.com".to_owned(),
            groups: Vec::new(),
        },
        audiences: vec!["app".to_owned()],
        authorized_party: None,
        may_act: None,
        token_id: None,
        issued_at: 900,
        expires_at: 1250,
    }
}

fn ask(scope: Option<&[&str]>, audience: &str) -> Ask {
    let capabilities = scope.map(|names| names.iter().map(|name| capability(name)).collect());
    Ask { capabilities, audience: Some(audience.to_owned()), operation: None }
}

fn with(parent: &Parent) -> Subject {
    Subject::Token(Box::new(parent.clone()))
}

/// Research bot may be called by nobody, search by bot, and reader by search.
struct Office {
    bot: RegisteredAgent,
    search: RegisteredAgent,
    reader: RegisteredAgent,
}

impl Office {
    fn new() -> Self {
        Self {
            bot: member("bot", &["a.read", "a.write", "a.list"], &[]),
            search: member("search", &["a.read", "a.list", "a.index"], &["bot"]),
            reader: member("reader", &["a.read", "a.list"], &["search"]),
        }
    }

    fn world(&self) -> World {
        World::of(&[&self.bot, &self.search, &self.reader]).trusting(acme(&json!({})))
    }

    /// The token with which the bot, acting for Alice, calls search.
    fn called(&self) -> Parent {
        let user = Subject::User(Box::new(alice()));
        let permit = self.world().decide(&self.bot, &user, &ask(None, "agent:research/search"), 2000).expect("called");
        token(&permit, "j1")
    }

    fn search(&self, scope: Option<&[&str]>) -> Result<Permit, Denial> {
        self.world().decide(&self.search, &with(&self.called()), &ask(scope, "https://docs"), 2000)
    }
}

fn scope(permit: &Permit) -> String {
    permit.scope()
}

#[test]
fn an_agent_called_by_another_carries_the_user_and_the_whole_chain() {
    let office = Office::new();
    let first = office.called();
    assert_eq!(first.may_act, Some(MayAct { iss: Some(US.to_owned()), sub: "agent:research/search".to_owned() }));
    let permit = office.search(None).expect("allowed");
    let chain = permit.chain();
    assert_eq!(chain.subject(), "user:alice@acme.com");
    assert_eq!(chain.subjects(), "agent:research/bot agent:research/search");
    assert_eq!((chain.txn(), chain.ancestors()), ("txn", ["j1".to_owned()].as_slice()));
    assert_eq!(scope(&permit), "a.read a.list", "what both hold");
    assert_eq!(permit.expires_at(), 1250, "no later than the ID token");
    assert_eq!(permit.may_act(), None, "a service may use it, and nobody exchange it");
}

#[test]
fn x1_a_refusal_says_which_term_of_the_intersection_cut_it() {
    let office = Office::new();
    let refused = |scope: &[&str]| office.search(Some(scope)).expect_err("refused");
    for (asked, text) in [
        ("a.index", "not in the scope of the subject token"),
        ("a.write", "not granted to agent:research/search"),
        ("a.none", "not granted to agent:research/search"),
    ] {
        let denial = refused(&["a.read", asked]);
        assert_eq!(denial.reason, Reason::CapabilityNotGranted);
        assert!(denial.message.contains(text) && denial.message.contains(asked), "{}", denial.message);
    }
    // The caller has lost it since, the token says it still: the token is dead, whoever asks for less.
    let mut lost = Office::new();
    let parent = lost.called();
    lost.bot.rights.as_mut().expect("rights").capabilities.retain(|c| c.name.as_str() != "a.list");
    let denial = lost.world().decide(&lost.search, &with(&parent), &ask(Some(&["a.read"]), "https://docs"), 2000);
    assert_eq!(denial.expect_err("refused").reason, Reason::ChainEnded);
    // Nothing at all is left.
    let mut apart = Office::new();
    apart.search.rights.as_mut().expect("rights").capabilities = vec![granted("a.index")];
    let denial = apart.search(None).expect_err("refused");
    assert_eq!(denial.reason, Reason::NoCapability);
    assert!(denial.message.contains("a.index is not in the scope of the subject token"), "{}", denial.message);
}

#[test]
fn resources_are_cut_to_what_all_have() {
    let mut office = Office::new();
    let limit = |agent: &mut RegisteredAgent, patterns: &[&str]| {
        let patterns = patterns.iter().map(|p| ResourcePattern::parse(p).expect("a pattern")).collect();
        agent.rights.as_mut().expect("rights").capabilities[0].resources = Some(patterns);
    };
    limit(&mut office.bot, &["document:reports/*", "document:notes/q1"]);
    limit(&mut office.search, &["document:reports/q3", "document:notes/*", "document:secret/**"]);
    let permit = office.search(Some(&["a.read"])).expect("allowed");
    let resources = permit.capabilities()[0].resources.as_ref().expect("limited");
    assert_eq!(resources.iter().map(ResourcePattern::as_str).collect::<Vec<_>>(), ["document:reports/q3", "document:notes/q1"]);
    limit(&mut office.search, &["document:secret/**"]);
    let denial = office.search(Some(&["a.read"])).expect_err("refused");
    assert!(denial.message.contains("no resource is left of a.read"), "{}", denial.message);
}

#[test]
fn x16_a_token_is_exchanged_by_whom_it_is_for_and_by_nobody_else() {
    let office = Office::new();
    let world = office.world();
    let called = office.called();
    let reason =
        |agent, parent: &Parent| world.decide(agent, &with(parent), &ask(None, "https://docs"), 2000).err().map(|d| d.reason);
    assert_eq!(reason(&office.search, &called), None);
    assert_eq!(reason(&office.reader, &called), Some(Reason::SubjectNotAddressed));
    assert_eq!(reason(&office.bot, &called), Some(Reason::SubjectNotAddressed));
    for audience in ["https://docs", "agent:research/search2", "agent:research/searc", "agent:other/search", ""] {
        let other = Parent { audience: audience.to_owned(), ..called.clone() };
        assert_eq!(reason(&office.search, &other), Some(Reason::SubjectNotAddressed), "{audience}");
    }
    let other = Parent { may_act: Some(MayAct { iss: None, sub: "agent:research/reader".to_owned() }), ..called };
    assert_eq!(reason(&office.search, &other), Some(Reason::ActorNotAllowed), "X10");
}

#[test]
fn x8_agents_do_not_call_one_another_in_a_circle() {
    let mut office = Office::new();
    office.bot.rights.as_mut().expect("rights").delegation.callers = vec![office.search.id.clone(), office.bot.id.clone()];
    let world = office.world();
    let called = office.called();
    let denied = |agent, subject: &Subject, audience| {
        world.decide(agent, subject, &ask(None, audience), 2000).expect_err("refused").reason
    };
    assert_eq!(denied(&office.search, &with(&called), "agent:research/bot"), Reason::ChainCycle, "A, B, A");
    assert_eq!(denied(&office.bot, &Subject::Itself, "agent:research/bot"), Reason::ChainCycle, "A, A");
    let forged = Parent { audience: "agent:research/bot".to_owned(), may_act: None, ..called };
    assert_eq!(denied(&office.bot, &with(&forged), "https://docs"), Reason::ChainCycle);
}

#[test]
fn an_agent_is_called_by_those_that_it_names() {
    let office = Office::new();
    let world = office.world();
    let denied = |agent, audience| world.decide(agent, &Subject::Itself, &ask(None, audience), 2000).expect_err("refused");
    let stranger = denied(&office.reader, "agent:research/search");
    assert_eq!(stranger.reason, Reason::AudienceNotAllowed);
    let unknown = denied(&office.reader, "agent:research/none");
    assert_eq!(
        stranger.message.replace("research/search", "research/none"),
        unknown.message,
        "whether there is such an agent is not told"
    );
    let mut changed = Office::new();
    let called = changed.called();
    changed.search.rights.as_mut().expect("rights").delegation.callers.clear();
    let denial = changed.world().decide(&changed.search, &with(&called), &ask(None, "https://docs"), 2000);
    assert_eq!(denial.expect_err("refused").reason, Reason::CallerNotAllowed);
}

#[test]
fn without_a_user_the_agent_that_began_is_the_subject() {
    let office = Office::new();
    let world = office.world();
    let permit = world.decide(&office.bot, &Subject::Itself, &ask(None, "agent:research/search"), 2000).expect("called");
    let permit = world.decide(&office.search, &with(&token(&permit, "j1")), &ask(None, "https://docs"), 2000).expect("allowed");
    assert_eq!((permit.chain().subject().as_str(), permit.chain().actors().count()), ("agent:research/bot", 1));
}

#[test]
fn x11_the_strictest_agent_says_how_many_there_may_be() {
    let depth = |office: &mut Office, limits: [usize; 3]| {
        for (agent, limit) in [&mut office.bot, &mut office.search, &mut office.reader].into_iter().zip(limits) {
            agent.rights.as_mut().expect("rights").delegation.max_depth = limit;
        }
        let world = office.world();
        let bot = world.decide(&office.bot, &Subject::Itself, &ask(None, "agent:research/search"), 2000)?;
        let search = world.decide(&office.search, &with(&token(&bot, "j1")), &ask(None, "agent:research/reader"), 2000)?;
        world.decide(&office.reader, &with(&token(&search, "j2")), &ask(None, "https://docs"), 2000).map(|p| p.chain().depth())
    };
    let mut office = Office::new();
    assert_eq!(depth(&mut office, [3, 3, 3]).expect("allowed"), 3);
    for limits in [[2, 4, 4], [4, 2, 4], [4, 4, 2], [1, 4, 4]] {
        assert_eq!(depth(&mut office, limits).expect_err("refused").reason, Reason::ChainTooDeep, "{limits:?}");
    }
}

#[test]
fn an_agent_acts_for_the_users_that_it_may_act_for() {
    let office = Office::new();
    let denied = |world: &World, user: User| {
        world.decide(&office.bot, &Subject::User(Box::new(user)), &ask(None, "https://docs"), 2000).err().map(|d| d.reason)
    };
    let world = office.world();
    assert_eq!(denied(&world, alice()), None);
    let mut eve = alice();
    eve.name.name = "eve@evil.com".to_owned();
    assert_eq!(denied(&world, eve), Some(Reason::DelegationNotGranted));
    let other = MayAct { iss: None, sub: "agent:research/search".to_owned() };
    assert_eq!(denied(&world, User { may_act: Some(other), ..alice() }), Some(Reason::ActorNotAllowed), "X10");
    assert_eq!(denied(&world, User { expires_at: 1000, ..alice() }), Some(Reason::CredentialSpent));
    assert_eq!(denied(&world, User { issuer_uid: "another".to_owned(), ..alice() }), Some(Reason::UserRevoked));
    let revoked = json!({"revokedUsers": [{"name": "alice@acme.com", "epoch": 1, "at": "1970-01-01T00:15:00Z"}]});
    let world = office.world().trusting(acme(&revoked));
    assert_eq!(denied(&world, alice()), Some(Reason::UserRevoked), "the ID token is from before");
    assert_eq!(denied(&world, User { issued_at: 906, ..alice() }), None, "and this one is not");
    let nobody = agent("bot", &["a.read"], &["https://docs"]);
    let world = World::of(&[&nobody]).trusting(acme(&json!({})));
    let user = Subject::User(Box::new(alice()));
    let denial = world.decide(&nobody, &user, &ask(None, "https://docs"), 2000).expect_err("refused");
    assert_eq!(denial.reason, Reason::DelegationNotGranted);
}

#[test]
fn r12_whatever_ends_one_agent_of_a_chain_ends_the_chain() {
    let office = Office::new();
    let permit = office.search(None).expect("allowed");
    let chain = permit.chain().clone();
    let issued = Issued {
        jti: "j2",
        chain: &chain,
        grants: Grants::Capabilities(permit.capabilities()),
        audience: "https://docs",
        is_bound: false,
    };
    let ended = |change: &dyn Fn(&mut Office)| {
        let mut office = Office::new();
        change(&mut office);
        stands(&issued, &office.world().view(), 1000).err().map(|denial| denial.reason)
    };
    assert_eq!(ended(&|_| {}), None);
    assert_eq!(ended(&|o| o.bot.suspended = true), Some(Reason::AgentSuspended));
    assert_eq!(ended(&|o| o.bot.deleting = true), Some(Reason::AgentDeleted));
    assert_eq!(ended(&|o| o.bot.epoch += 1), Some(Reason::Revoked));
    assert_eq!(ended(&|o| o.bot.uid = "again".to_owned()), Some(Reason::Revoked));
    assert_eq!(ended(&|o| o.search.epoch -= 1), Some(Reason::Revoked));
    for id in ["j1", "j2", "txn"] {
        assert_eq!(ended(&|o| _ = o.bot.revoked.insert(id.to_owned(), 0)), Some(Reason::Revoked), "{id}");
        assert_eq!(ended(&|o| _ = o.search.revoked.insert(id.to_owned(), 0)), Some(Reason::Revoked), "{id}");
    }
    assert_eq!(ended(&|o| _ = o.bot.revoked.insert("another".to_owned(), 0)), None);
    assert_eq!(ended(&|o| o.bot.rights.as_mut().expect("rights").capabilities.clear()), Some(Reason::CapabilityNotGranted));
    assert_eq!(ended(&|o| o.search.rights.as_mut().expect("rights").delegation.callers.clear()), Some(Reason::CallerNotAllowed));
    let none = Delegation { act_for: vec![], callers: vec![], max_depth: 4 };
    assert_eq!(ended(&|o| o.bot.rights.as_mut().expect("rights").delegation = none.clone()), Some(Reason::DelegationNotGranted));
    assert_eq!(ended(&|o| o.bot.rights.as_mut().expect("rights").delegation.max_depth = 1), Some(Reason::ChainTooDeep));
    let by_issuer = |issuer| stands(&issued, &office.world().trusting(issuer).view(), 1000).err().map(|denial| denial.reason);
    assert_eq!(by_issuer(RegisteredIssuer { stopped: true, ..acme(&json!({})) }), Some(Reason::UserRevoked));
    assert_eq!(by_issuer(RegisteredIssuer { uid: "again".to_owned(), ..acme(&json!({})) }), Some(Reason::UserRevoked));
    assert_eq!(by_issuer(acme(&json!({"usersEpoch": 1}))), Some(Reason::UserRevoked));
    let bob = json!({"revokedUsers": [{"name": "bob@acme.com", "epoch": 1, "at": "1970-01-01T00:15:00Z"}]});
    assert_eq!(by_issuer(acme(&bob)), None);
}

#[test]
fn r2_a_token_ends_with_what_its_agent_proved_itself_with() {
    let listed = agent("bot", &["a.read"], &["https://docs"]);
    let ended = |proof: Proof, world: &World| {
        let link = Link { agent: listed.id.clone(), uid: listed.uid.clone(), epoch: 3, proof };
        chain_stands(&Chain::begin(None, link, "t".to_owned()), None, &world.view(), 1000).err().map(|denial| denial.reason)
    };
    let world = World::of(&[&listed]);
    let account = |name: &str| Proof::ServiceAccount { name: name.to_owned(), pod: None };
    assert_eq!(ended(account("bot"), &world), None);
    assert_eq!(ended(account("other"), &world), Some(Reason::ProofEnded));
    assert_eq!(ended(Proof::Key("thumbprint".to_owned()), &world), Some(Reason::ProofEnded));
    let issuer = IssuerRef { name: "acme".to_owned(), uid: "acme-uid".to_owned() };
    let by = |subject: &str| Proof::Issuer(issuer.clone(), crate::chain::subject_digest(subject));
    assert_eq!(ended(by("w-1"), &world), Some(Reason::ProofEnded));
    let mut federated = listed.clone();
    let entry = json!({"federated": [{"issuer": "acme", "subject": "w-1"}]});
    federated.credentials = credentials(&entry);
    let trusted = World::of(&[&federated]).trusting(acme(&json!({})));
    assert_eq!(ended(by("w-1"), &trusted), None);
    assert_eq!(ended(by("w-2"), &trusted), Some(Reason::ProofEnded), "another subject of the same issuer");
    assert_eq!(ended(by("w-1"), &World::of(&[&federated])), Some(Reason::ProofEnded), "nobody trusts the issuer any more");
}

#[test]
fn a_token_ends_with_the_pod_to_which_it_was_given_and_not_with_those_that_called_it() {
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let office = Office::new();
    let ended = |world: &World, of: &[(&str, Uuid)]| {
        let mut links = of.iter().map(|(name, pod)| Link {
            agent: AgentId::new("research", name).expect("an agent"),
            uid: format!("uid-{name}"),
            epoch: 3,
            proof: Proof::ServiceAccount { name: (*name).to_owned(), pod: Some(*pod) },
        });
        let chain = Chain::begin(None, links.next().expect("one"), "t".to_owned());
        let chain = links.fold(chain, |chain, link| chain.extended("j1", link));
        chain_stands(&chain, None, &world.view(), 1000).err().map(|denial| denial.reason)
    };
    let mut world = office.world();
    assert_eq!(ended(&world, &[("bot", a)]), None, "nobody watches pods here");
    world.pods.begin();
    world.pods.listed(a, false);
    assert_eq!(ended(&world, &[("bot", a)]), None, "the list is not complete");
    world.pods.complete();
    assert_eq!(ended(&world, &[("bot", a)]), None);
    assert_eq!(ended(&world, &[("bot", b)]), Some(Reason::ProofEnded));
    assert_eq!(ended(&world, &[("bot", b), ("search", a)]), None, "what a pod asked of another is still to be done");
    assert_eq!(ended(&world, &[("bot", a), ("search", b)]), Some(Reason::ProofEnded));
    world.pods.applied(a, true);
    assert_eq!(ended(&world, &[("bot", a)]), Some(Reason::ProofEnded), "F6: it is being deleted");
}

fn credentials(identity: &serde_json::Value) -> crate::agent::Credentials {
    let spec = json!({"owner": "o", "identity": identity, "capabilities": []});
    let mut object = crd::Agent::new("bot", serde_json::from_value(spec).expect("a spec"));
    object.metadata.namespace = Some("research".to_owned());
    RegisteredAgent::parse(&object).expect("an agent").credentials
}

proptest! {
    /// I5, I6: along any chain scope and life only shrink, the chain grows by one, and nothing in it changes.
    #[test]
    fn a_chain_is_never_wider_than_any_agent_in_it(
        held in proptest::collection::vec(proptest::collection::btree_set("[a-d]", 1..5), 2..5),
        asked in proptest::option::of(proptest::collection::vec("[a-d]", 1..3)),
        lives in proptest::collection::vec(1u32..=900, 5),
        user_until in 1001u64..3000,
    ) {
        let agents: Vec<RegisteredAgent> = held.iter().enumerate().map(|(i, names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let caller = i.checked_sub(1).map(|before| format!("a{before}"));
            let callers: Vec<&str> = caller.iter().map(String::as_str).collect();
            let mut agent = member(&format!("a{i}"), &names, &callers);
            agent.rights.as_mut().expect("rights").expiration_seconds = lives[i];
            agent
        }).collect();
        let world = World::of(&agents.iter().collect::<Vec<_>>()).trusting(acme(&json!({})));
        let mut subject = Subject::User(Box::new(User { expires_at: user_until, ..alice() }));
        let (mut until, mut before) = (user_until, None::<Permit>);
        for (i, agent) in agents.iter().enumerate() {
            let last = i + 1 == agents.len();
            let audience = if last { "https://docs".to_owned() } else { format!("agent:research/a{}", i + 1) };
            let names: Option<Vec<&str>> = asked.as_ref().map(|names| names.iter().map(String::as_str).collect());
            let Ok(permit) = world.decide(agent, &subject, &ask(names.as_deref(), &audience), 5000) else {
                // Refused: some agent so far does not hold all that was asked, or they have nothing in common.
                let common = |name: &str| held[..=i].iter().all(|names| names.contains(name));
                prop_assert!(asked.as_ref().map_or_else(|| !["a", "b", "c", "d"].iter().any(|n| common(n)), |a| !a.iter().all(|n| common(n))));
                return Ok(());
            };
            let scope: Vec<&str> = permit.capabilities().iter().map(|c| c.name.as_str()).collect();
            prop_assert!(scope.iter().all(|name| held[..=i].iter().all(|names| names.contains(*name))));
            prop_assert!(permit.expires_at() <= until && permit.expires_at() <= 1000 + u64::from(lives[i]));
            prop_assert_eq!(permit.chain().depth(), i + 1);
            if let Some(before) = &before {
                prop_assert_eq!(&permit.chain().links()[..i], before.chain().links());
                prop_assert!(scope.iter().all(|name| before.capabilities().iter().any(|c| c.name.as_str() == *name)));
            }
            prop_assert_eq!(permit.chain().user().map(Principal::to_string), Some("user:alice@acme.com".to_owned()));
            until = permit.expires_at();
            subject = with(&token(&permit, &format!("j{i}")));
            before = Some(permit);
        }
    }
}
