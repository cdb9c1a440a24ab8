use super::*;
use crate::agent::{InvalidAgent, Rights};
use crate::grammar::ResourcePattern;
use proptest::prelude::*;

fn capability(name: &str) -> CapabilityName {
    CapabilityName::parse(name).expect("a capability name")
}

fn agent(capabilities: &[&str], audiences: &[&str]) -> RegisteredAgent {
    let granted = |name: &&str| Granted { name: capability(name), resources: None, approval_required: false };
    RegisteredAgent {
        id: AgentId::new("research", "bot").expect("valid"),
        uid: "uid-1".to_owned(),
        generation: 1,
        created: 0,
        deleting: false,
        owner: "team@example.com".to_owned(),
        suspended: false,
        epoch: 3,
        admission: Admission::Proven,
        service_accounts: vec!["bot".to_owned()],
        rights: Ok(Rights {
            capabilities: capabilities.iter().map(granted).collect(),
            audiences: audiences.iter().map(|a| Audience::parse(a).expect("an audience")).collect(),
            expiration_seconds: 300,
        }),
    }
}

fn ask(capabilities: Option<&[&str]>, audience: Option<&str>) -> Ask {
    Ask { capabilities: capabilities.map(|c| c.iter().map(|n| capability(n)).collect()), audience: audience.map(str::to_owned) }
}

fn reason(decision: Decision) -> Option<Reason> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial.reason),
    }
}

fn allowed(decision: Decision) -> Permit {
    match decision {
        Decision::Allow(permit) => permit,
        Decision::Deny(denial) => panic!("denied: {denial:?}"),
    }
}

#[test]
fn an_agent_without_capabilities_is_denied_everything() {
    let nobody = agent(&[], &["https://a"]);
    assert_eq!(reason(decide(&nobody, &Catalogue::default(), &Ask::default(), 2000, 1000)), Some(Reason::NoCapability));
    assert_eq!(
        reason(decide(&nobody, &Catalogue::default(), &ask(Some(&["a.b"]), None), 2000, 1000)),
        Some(Reason::CapabilityNotGranted)
    );
}

#[test]
fn an_agent_without_audiences_gets_no_token() {
    assert_eq!(
        reason(decide(&agent(&["a.b"], &[]), &Catalogue::default(), &Ask::default(), 2000, 1000)),
        Some(Reason::AudienceAmbiguous)
    );
}

#[test]
fn nothing_said_is_every_capability_for_the_only_audience() {
    let permit = allowed(decide(&agent(&["a.b", "c.d"], &["https://a"]), &Catalogue::default(), &Ask::default(), 2000, 1000));
    assert_eq!(permit.scope(), "a.b c.d");
    assert_eq!(permit.audience().as_str(), "https://a");
    assert_eq!((permit.issued_at(), permit.expires_at(), permit.epoch()), (1000, 1300, 3));
}

#[test]
fn of_several_audiences_one_must_be_named_exactly() {
    let agent = agent(&["a.b"], &["https://api.example", "https://other.example"]);
    assert_eq!(reason(decide(&agent, &Catalogue::default(), &Ask::default(), 2000, 1000)), Some(Reason::AudienceAmbiguous));
    assert_eq!(reason(decide(&agent, &Catalogue::default(), &ask(None, Some("https://other.example")), 2000, 1000)), None);
    for other in ["https://api.example.evil", "https://api.example/", "https://API.example", "*", "https://api", ""] {
        assert_eq!(
            reason(decide(&agent, &Catalogue::default(), &ask(None, Some(other)), 2000, 1000)),
            Some(Reason::AudienceNotAllowed),
            "X2: {other}"
        );
    }
}

#[test]
fn a_token_never_outlives_the_credential() {
    let agent = agent(&["a.b"], &["https://a"]);
    assert_eq!(allowed(decide(&agent, &Catalogue::default(), &Ask::default(), 1010, 1000)).expires_at(), 1010);
    assert_eq!(reason(decide(&agent, &Catalogue::default(), &Ask::default(), 1000, 1000)), Some(Reason::CredentialSpent));
    assert_eq!(reason(decide(&agent, &Catalogue::default(), &Ask::default(), 997, 1000)), Some(Reason::CredentialSpent));
}

#[test]
fn whoever_may_not_act_gets_nothing() {
    let good = agent(&["a.b"], &["https://a"]);
    let invalid = crate::crd::AgentSpec {
        display_name: None,
        owner: "o".to_owned(),
        suspended: false,
        identity: crate::crd::Identity { service_accounts: vec![] },
        capabilities: vec![],
        tokens: Some(crate::crd::Tokens { expiration_seconds: 901, audiences: vec![] }),
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
        assert_eq!(reason(decide(&agent, &Catalogue::default(), &Ask::default(), 2000, 1000)), Some(expected));
    }
}

#[test]
fn an_issued_token_stands_only_while_all_of_it_is_still_held() {
    let agent = agent(&["a.b", "c.d"], &["https://a"]);
    let whole = [Granted { name: capability("a.b"), resources: None, approval_required: false }];
    let issued = Issued { agent_uid: "uid-1", epoch: 3, capabilities: &whole, audience: "https://a" };
    let ended = |agent: &RegisteredAgent| still_stands(agent, &Catalogue::default(), &issued).err().map(|d| d.reason);
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
        rights: super::tests::agent(capabilities, audiences).rights,
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
    let permit = allowed(decide(&agent, &Catalogue::default(), &ask(Some(&["c.d"]), None), 2000, 1000));
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
        match decide(&agent, &Catalogue::default(), &ask(asked_names.as_deref(), None), 1000 + left, 1000) {
            Decision::Allow(permit) => {
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
            Decision::Deny(_) => {
                let all_held = asked_names.as_ref().is_none_or(|a| a.iter().all(|n| held.contains(*n)));
                prop_assert!(held.is_empty() || !all_held || left == 0);
            }
        }
    }
}
