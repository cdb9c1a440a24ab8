use super::world::{self, World, capability};
use super::*;
use crate::agent::{InvalidAgent, Rights};
use crate::grammar::ResourcePattern;
use proptest::prelude::*;

fn agent(capabilities: &[&str], audiences: &[&str]) -> RegisteredAgent {
    world::agent("bot", capabilities, audiences)
}

/// Decides at 1000 for an agent that comes for itself with a credential until `until`.
fn decided(agent: &RegisteredAgent, ask: &Ask, until: u64) -> Result<Permit, Denial> {
    World::of(&[agent]).decide(agent, &Subject::Itself, ask, until)
}

fn ask(capabilities: Option<&[&str]>, audience: Option<&str>) -> Ask {
    Ask {
        capabilities: capabilities.map(|c| c.iter().map(|n| capability(n)).collect()),
        audience: audience.map(str::to_owned),
        operation: None,
    }
}

fn reason(decision: Result<Permit, Denial>) -> Option<Reason> {
    decision.err().map(|denial| denial.reason)
}

fn allowed(decision: Result<Permit, Denial>) -> Permit {
    decision.expect("allowed")
}

#[test]
fn an_agent_without_capabilities_is_denied_everything() {
    let nobody = agent(&[], &["https://a"]);
    assert_eq!(reason(decided(&nobody, &Ask::default(), 2000)), Some(Reason::NoCapability));
    assert_eq!(reason(decided(&nobody, &ask(Some(&["a.b"]), None), 2000)), Some(Reason::CapabilityNotGranted));
}

#[test]
fn an_agent_without_audiences_gets_no_token() {
    assert_eq!(reason(decided(&agent(&["a.b"], &[]), &Ask::default(), 2000)), Some(Reason::AudienceAmbiguous));
}

#[test]
fn nothing_said_is_every_capability_for_the_only_audience() {
    let permit = allowed(decided(&agent(&["a.b", "c.d"], &["https://a"]), &Ask::default(), 2000));
    assert_eq!(permit.scope(), "a.b c.d");
    assert_eq!(permit.audience().as_str(), "https://a");
    assert_eq!((permit.issued_at(), permit.expires_at()), (1000, 1300));
}

#[test]
fn the_audience_says_how_the_token_is_signed() {
    let mut agent = agent(&["a.b"], &["https://a", "https://kubernetes"]);
    agent.rights.as_mut().expect("rights").audiences[1].signing_algorithm = SigningAlgorithm::ES256;
    for (audience, algorithm) in [("https://a", SigningAlgorithm::EdDSA), ("https://kubernetes", SigningAlgorithm::ES256)] {
        let permit = allowed(decided(&agent, &ask(None, Some(audience)), 2000));
        assert_eq!(permit.sign_with(), &SignWith::Algorithm(algorithm));
        let keys = crate::token::KeyRing::generate(0).expect("keys");
        let minted = crate::token::mint(&permit, "https://us", &keys, "j".to_owned()).expect("a token");
        assert_eq!(Some(minted.kid.as_str()), keys.signer(algorithm, 1000).map(crate::token::SigningKey::kid));
        let claims = crate::token::verify(&minted.token, "https://us", &keys, 1001);
        assert_eq!(claims, Ok((minted.claims, minted.kid)));
    }
}

#[test]
fn of_several_audiences_one_must_be_named_exactly() {
    let agent = agent(&["a.b"], &["https://api.example", "https://other.example"]);
    assert_eq!(reason(decided(&agent, &Ask::default(), 2000)), Some(Reason::AudienceAmbiguous));
    assert_eq!(reason(decided(&agent, &ask(None, Some("https://other.example")), 2000)), None);
    for other in ["https://api.example.evil", "https://api.example/", "https://API.example", "*", "https://api", ""] {
        assert_eq!(reason(decided(&agent, &ask(None, Some(other)), 2000)), Some(Reason::AudienceNotAllowed), "X2: {other}");
    }
}

#[test]
fn a_token_never_outlives_the_credential() {
    let agent = agent(&["a.b"], &["https://a"]);
    assert_eq!(allowed(decided(&agent, &Ask::default(), 1010)).expires_at(), 1010);
    assert_eq!(reason(decided(&agent, &Ask::default(), 1000)), Some(Reason::CredentialSpent));
    assert_eq!(reason(decided(&agent, &Ask::default(), 997)), Some(Reason::CredentialSpent));
}

#[test]
fn whoever_may_not_act_gets_nothing() {
    let good = agent(&["a.b"], &["https://a"]);
    let invalid = crate::crd::AgentSpec {
        display_name: None,
        owner: "o".to_owned(),
        suspended: false,
        identity: crate::crd::Identity::default(),
        capabilities: vec![],
        delegation: None,
        tokens: Some(crate::crd::Tokens {
            expiration_seconds: 901,
            audiences: vec![],
            proof_of_possession: crate::crd::ProofOfPossession::None,
        }),
    };
    let mut object = crate::crd::Agent::new("bot", invalid);
    object.metadata.namespace = Some("research".to_owned());
    let rights: Result<Rights, InvalidAgent> = RegisteredAgent::parse(&object).expect("named well").rights;
    for (agent, expected) in [
        (RegisteredAgent { deleting: true, ..good.clone() }, Reason::AgentDeleted),
        (RegisteredAgent { suspended: true, ..good.clone() }, Reason::AgentSuspended),
        (RegisteredAgent { admission: Admission::Unproven, ..good.clone() }, Reason::AgentNotAdmitted),
        (RegisteredAgent { admission: Admission::Pending, ..good.clone() }, Reason::AgentPending),
        (RegisteredAgent { rights, ..good }, Reason::AgentInvalid),
    ] {
        assert_eq!(reason(decided(&agent, &Ask::default(), 2000)), Some(expected));
    }
}

#[test]
fn an_issued_token_stands_only_while_all_of_it_is_still_held() {
    let agent = agent(&["a.b", "c.d"], &["https://a"]);
    let whole = [world::granted("a.b")];
    let chain = allowed(decided(&agent, &ask(Some(&["a.b"]), None), 2000)).chain().clone();
    let issued = Issued { jti: "j", chain: &chain, grants: Grants::Capabilities(&whole), audience: "https://a", is_bound: false };
    let ended = |agent: &RegisteredAgent| stands(&issued, &World::of(&[agent]).view(), 1000).err().map(|d| d.reason);
    assert_eq!(ended(&agent), None);
    assert_eq!(ended(&RegisteredAgent { uid: "uid-2".to_owned(), ..agent.clone() }), Some(Reason::Revoked));
    assert_eq!(ended(&RegisteredAgent { epoch: 4, ..agent.clone() }), Some(Reason::Revoked));
    assert_eq!(ended(&RegisteredAgent { epoch: 2, ..agent.clone() }), Some(Reason::Revoked));
    assert_eq!(ended(&RegisteredAgent { suspended: true, ..agent.clone() }), Some(Reason::AgentSuspended));
    assert_eq!(
        ended(&RegisteredAgent { suspended: true, admission: Admission::Pending, ..agent.clone() }),
        Some(Reason::AgentSuspended)
    );
    assert_eq!(ended(&RegisteredAgent { deleting: true, ..agent.clone() }), Some(Reason::AgentDeleted));
    assert_eq!(ended(&RegisteredAgent { admission: Admission::Unproven, ..agent.clone() }), Some(Reason::AgentNotAdmitted));
    assert_eq!(ended(&RegisteredAgent { admission: Admission::Pending, ..agent.clone() }), None);
    let narrowed = |capabilities: &[&str], audiences: &[&str]| RegisteredAgent {
        rights: world::agent("bot", capabilities, audiences).rights,
        ..agent.clone()
    };
    assert_eq!(ended(&narrowed(&["c.d"], &["https://a"])), Some(Reason::CapabilityNotGranted));
    assert_eq!(ended(&narrowed(&["a.b"], &["https://b"])), Some(Reason::AudienceNotAllowed));
    let mut limited = agent.clone();
    if let Ok(rights) = &mut limited.rights {
        rights.capabilities[0].resources = Some(vec![ResourcePattern::parse("document:a").expect("a resource")]);
    }
    assert_eq!(ended(&limited), Some(Reason::CapabilityNotGranted), "limited to fewer resources since");
}

#[test]
fn the_resources_of_a_capability_go_with_it() {
    let mut agent = agent(&["a.b", "c.d"], &["https://a"]);
    let limit = vec![ResourcePattern::parse("document:reports/*").expect("a resource")];
    if let Ok(rights) = &mut agent.rights {
        rights.capabilities[1].resources = Some(limit.clone());
    }
    let permit = allowed(decided(&agent, &ask(Some(&["c.d"]), None), 2000));
    assert_eq!(permit.capabilities()[0].resources.as_ref(), Some(&limit));
}

proptest! {
    /// What is granted is what was asked, each once, and nothing that the agent does not hold.
    #[test]
    fn a_permit_is_never_wider_than_the_agent_or_the_ask(
        held in proptest::collection::btree_set("[a-d]{1,2}", 0..6),
        asked in proptest::option::of(proptest::collection::vec("[a-d]{1,2}", 1..6)),
        life in 1u32..=900, left in 0u64..1000,
    ) {
        let names: Vec<&str> = held.iter().map(String::as_str).collect();
        let mut agent = agent(&names, &["https://a"]);
        if let Ok(rights) = &mut agent.rights { rights.expiration_seconds = life; }
        let asked_names: Option<Vec<&str>> = asked.as_ref().map(|a| a.iter().map(String::as_str).collect());
        match decided(&agent, &ask(asked_names.as_deref(), None), 1000 + left) {
            Ok(permit) => {
                let granted: Vec<&str> = permit.capabilities().iter().map(|c| c.name.as_str()).collect();
                let mut unique = granted.clone();
                unique.sort_unstable();
                unique.dedup();
                prop_assert_eq!(unique.len(), granted.len());
                prop_assert!(granted.iter().all(|g| held.contains(*g)));
                if let Some(asked) = &asked_names {
                    prop_assert!(asked.iter().all(|a| granted.contains(a)) && granted.iter().all(|g| asked.contains(g)));
                }
                prop_assert!(permit.expires_at() > 1000 && permit.expires_at() <= 1000 + left.min(life.into()));
            }
            Err(_) => {
                let all_held = asked_names.as_ref().is_none_or(|a| a.iter().all(|n| held.contains(*n)));
                prop_assert!(held.is_empty() || !all_held || left == 0);
            }
        }
    }
}
