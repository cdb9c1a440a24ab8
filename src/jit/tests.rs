//! The state machine, step by step, and what holds whatever happens.

use super::*;
use crate::agent::{Admission, Granted, RegisteredAgent};
use crate::capability::{Catalogue, Rule, Unusable};
use crate::crd::{Decision, JitRequestStatus, Phase, SigningAlgorithm, User, Verdict};
use crate::decision::world::{self, World};
use crate::dpop::Confirmation;
use crate::grammar::{AgentId, CapabilityName};
use crate::token::Signers;
use serde_json::{Value, json};

/// What the steps need to know.
pub(super) struct Fixture {
    pub agent: RegisteredAgent,
    pub catalogue: Catalogue,
    pub evidence: EvidenceKey,
    chain_owners: Vec<String>,
}

/// The keys that sign.
pub(super) fn signers() -> Signers {
    Signers { eddsa: "k".to_owned(), es256: "k256".to_owned() }
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with_rule(&json!({"approval": {}}))
    }

    pub(super) fn with_rule(spec: &Value) -> Self {
        let name = CapabilityName::parse("payments.authorize").expect("a name");
        let mut catalogue = Catalogue::default();
        let spec = serde_json::from_value(spec.clone()).expect("a spec");
        catalogue.insert(name.clone(), Rule::parse(&spec).map_err(|e| Unusable::Invalid(e.to_string())));
        let agent = world::agent("bot", &[], &["https://pay"]);
        let mut rights = agent.rights.clone().expect("rights");
        rights.capabilities = vec![Granted { name, resources: None, approval_required: true, when: None }];
        let agent = RegisteredAgent {
            id: AgentId::new("payments", "bot").expect("a name"),
            uid: "agent-uid".to_owned(),
            owner: "team-payments@example.com".to_owned(),
            epoch: 4,
            rights: Ok(rights),
            ..agent
        };
        let evidence = EvidenceKey::new(&[7; 32]).expect("a key");
        Self { agent, catalogue, evidence, chain_owners: Vec::new() }
    }

    /// The cluster, as far as redeeming depends on it.
    pub(super) fn world(&self) -> World {
        World { catalogue: self.catalogue.clone(), ..World::of(&[&self.agent]) }
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            agent: Some(&self.agent),
            catalogue: &self.catalogue,
            chain: Ok(&self.chain_owners),
            name_prefixes: &[],
            by_operator: true,
            by_agent: false,
            over_quota: false,
            admitted: Ok(()),
            crowded: false,
            evidence: &self.evidence,
        }
    }

    /// The next status, which there must be.
    #[track_caller]
    fn change(&self, request: &Request, now: i64) -> Change {
        changed(step(request, &self.facts(), now))
    }

    /// A request that waits for a decision.
    fn pending(&self) -> Request {
        let request = request();
        let status = self.change(&request, 1).status;
        assert_eq!(status.phase, Some(Phase::Pending));
        Request { status, ..request }
    }

    /// A request with this decision of that person in it.
    fn decided(&self, verdict: Verdict, username: &str) -> Request {
        let mut request = self.pending();
        request.status.decision = Some(decide(verdict, username));
        request
    }

    /// A request that was approved at 10.
    fn approved(&self) -> Request {
        let request = self.decided(Verdict::Approved, "bob");
        let status = self.change(&request, 10).status;
        assert_eq!(status.phase, Some(Phase::Approved));
        Request { status, ..request }
    }

    fn redeem(&self, request: &Request, now: i64) -> Result<(Change, crate::decision::Redemption), String> {
        match claim(request, &self.evidence, now) {
            Ok(Claim::Redeemable(approval)) => {
                let token = NewToken { jti: "j".to_owned(), signers: signers(), credential_expires_at: 5000, confirmation: None };
                redeem(&approval, &self.agent, &self.world().view(), &self.evidence, token, now).map_err(|denial| denial.message)
            }
            other => Err(format!("{other:?}")),
        }
    }
}

#[track_caller]
fn changed(step: Step) -> Change {
    match step {
        Step::Write(change) => *change,
        other => panic!("nothing is written: {other:?}"),
    }
}

pub(super) fn decide(verdict: Verdict, username: &str) -> Decision {
    let groups = vec!["system:authenticated".to_owned()];
    let by = User { username: username.to_owned(), uid: Some(format!("uid-of-{username}")), groups };
    Decision { verdict, comment: None, digest: None, by: Some(by) }
}

/// A request that nobody has looked at, made at 0.
pub(super) fn request() -> Request {
    request_with(&json!({}))
}

fn request_with(spec: &Value) -> Request {
    let mut object = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "JitRequest",
        "metadata": {"namespace": "payments", "name": "pay-7", "uid": "request-uid", "resourceVersion": "1", "generation": 1,
            "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {
            "agent": {"name": "bot"},
            "operation": {"capability": "payments.authorize", "resource": "invoice:INV-7", "parameters": {"amount": 500}, "audience": "https://pay"},
            "requestedBy": {"username": "system:serviceaccount:payments:bot"},
        },
    });
    for (member, value) in spec.as_object().expect("members") {
        object["spec"][member] = value.clone();
    }
    Request::parse(serde_json::from_value(object).expect("an object")).expect("a request")
}

/// Alice, through a planner.
fn behalf() -> Value {
    json!({"user": "alice", "chain": ["agent:payments/planner"], "lineage": {
        "user": {"name": "alice", "issuer": "acme", "issuerUid": "i", "epoch": 0},
        "links": [{"uid": "p", "epoch": 0}], "transaction": "t", "ancestors": ["j"]}})
}

#[test]
fn a_request_that_says_less_of_its_callers_than_the_operator_would_is_refused() {
    for (pointer, value) in [
        ("/lineage", json!(null)),
        ("/lineage/links", json!([])),
        ("/chain", json!([])),
        ("/chain", json!(["agent:payments/bot"])),
        ("/chain", json!(["planner"])),
    ] {
        let mut behalf = behalf();
        *behalf.pointer_mut(pointer).expect("a member") = value.clone();
        let request = request_with(&json!({"onBehalfOf": behalf}));
        assert!(matches!(request.question, Err(InvalidRequest::Field(_))), "{pointer} {value}");
    }
}

#[test]
fn the_digest_is_that_of_the_canonical_spec_without_justification_and_requester() {
    let digest = |request: &Request| request.question.as_ref().expect("a question").digest.clone();
    let plain = digest(&request());
    let text = r#"{"agent":{"name":"bot"},"expirationSeconds":300,"operation":{"audience":"https://pay","capability":"payments.authorize","parameters":{"amount":500},"resource":"invoice:INV-7"}}"#;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(plain, format!("sha256:{hex}"));
    for same in [json!({"justification": "x"}), json!({"requestedBy": {"username": "y"}})] {
        assert_eq!(digest(&request_with(&same)), plain, "{same}");
    }
    for other in [
        json!({"expirationSeconds": 301}),
        json!({"agent": {"name": "bot", "uid": "agent-uid"}}),
        json!({"decideBy": "1970-01-01T00:10:00Z"}),
        json!({"ttlSecondsAfterFinished": 60}),
        json!({"onBehalfOf": behalf()}),
        json!({"operation": {"capability": "payments.authorize", "resource": "invoice:INV-7", "parameters": {"amount": 501}, "audience": "https://pay"}}),
    ] {
        assert_ne!(digest(&request_with(&other)), plain, "{other}");
    }
}

#[test]
fn a_request_is_taken_in_or_refused_at_once() {
    let fixture = Fixture::new();
    let pending = fixture.pending().status;
    assert_eq!(pending.digest, request().question.ok().map(|q| q.digest));
    assert_eq!((pending.agent_uid.as_deref(), pending.approval_progress.as_deref()), (Some("agent-uid"), Some("0/1")));

    let refused = |request: &Request, facts: &Facts<'_>| {
        let change = changed(step(request, facts, 1));
        assert_eq!(change.status.phase, Some(Phase::Denied), "{}", change.message);
        assert!(change.status.finished_at.is_some() && change.status.evidence.is_none());
        change.reason
    };
    let facts = fixture.facts();
    let plain = request();
    assert_eq!(refused(&plain, &Facts { admitted: Err("no policies".to_owned()), ..facts.clone() }), Why::NotAdmitted);
    assert_eq!(refused(&plain, &Facts { by_operator: false, ..facts.clone() }), Why::RequesterNotAgent);
    let behalf = request_with(&json!({"onBehalfOf": behalf()}));
    assert_eq!(refused(&behalf, &Facts { by_operator: false, by_agent: true, ..facts.clone() }), Why::RequesterNotAgent);
    assert_eq!(refused(&plain, &Facts { agent: None, ..facts.clone() }), Why::NotAllowed);
    assert_eq!(refused(&plain, &Facts { over_quota: true, ..facts.clone() }), Why::TooManyRequests);
    assert_eq!(
        refused(
            &plain,
            &Facts { chain: Err(crate::decision::Denial::new(crate::decision::Reason::AgentUnknown, "gone")), ..facts.clone() }
        ),
        Why::NotAllowed
    );
    let suspended = RegisteredAgent { suspended: true, ..fixture.agent.clone() };
    assert_eq!(refused(&plain, &Facts { agent: Some(&suspended), ..facts.clone() }), Why::NotAllowed);
    let namesake = request_with(&json!({"agent": {"name": "bot", "uid": "another"}}));
    assert_eq!(refused(&namesake, &facts), Why::NotAllowed);
    for (spec, why) in [
        (json!({"decideBy": "9999-01-01T00:00:00Z"}), Why::InvalidRequest),
        (json!({"decideBy": "1970-01-08T00:00:01Z"}), Why::InvalidRequest),
        (json!({"decideBy": "1970-01-01T00:10:00"}), Why::InvalidRequest),
        (json!({"decideBy": "1970-01-01T00:10:60Z"}), Why::InvalidRequest),
        (json!({"decideBy": "P1Y"}), Why::InvalidRequest),
        (json!({"decideBy": "0"}), Why::InvalidRequest),
        (json!({"decideBy": "-5"}), Why::InvalidRequest),
        (json!({"expirationSeconds": 901}), Why::InvalidRequest),
        (json!({"expirationSeconds": 0}), Why::InvalidRequest),
        (
            json!({"operation": {"capability": "payments.authorize", "parameters": {"\u{430}mount": 1}, "audience": "https://pay"}}),
            Why::InvalidRequest,
        ),
        (
            json!({"operation": {"capability": "payments.authorize", "resource": "invoice:*", "audience": "https://pay"}}),
            Why::InvalidRequest,
        ),
        (json!({"operation": {"capability": "other", "audience": "https://pay"}}), Why::NotAllowed),
        (json!({"operation": {"capability": "payments.authorize", "audience": "https://other"}}), Why::NotAllowed),
    ] {
        assert_eq!(refused(&request_with(&spec), &facts), why, "a14, a18: {spec}");
    }
    let late = changed(step(&request_with(&json!({"decideBy": "1970-01-01T00:00:01Z"})), &facts, 1));
    assert_eq!(late.status.phase, Some(Phase::Expired));
    let unjudged = RegisteredAgent { admission: Admission::Pending, ..fixture.agent.clone() };
    assert_eq!(step(&plain, &Facts { agent: Some(&unjudged), ..facts }, 1), Step::Wait(2), "the agent is being judged");
}

#[test]
fn a_capability_without_a_rule_or_with_one_that_cannot_be_read_denies() {
    let mut fixture = Fixture::new();
    fixture.catalogue = Catalogue::default();
    assert_eq!(fixture.change(&request(), 1).reason, Why::NotAllowed);
    let name = CapabilityName::parse("payments.authorize").expect("a name");
    fixture.catalogue.insert(name, Err(Unusable::Pending));
    assert_eq!(step(&request(), &fixture.facts(), 1), Step::Wait(2), "it is being looked at");
    let fixture = Fixture::with_rule(&json!({"parameterSchema": {"type": "elephant"}}));
    let change = fixture.change(&request(), 1);
    assert!(change.reason == Why::NotAllowed && change.message.contains("cannot be enforced"), "{}", change.message);
}

#[test]
fn a15_approvals_that_do_not_count_are_recorded_and_change_nothing() {
    let mut fixture = Fixture::new();
    fixture.chain_owners = vec!["planners".to_owned()];
    let void = |request: &Request, fixture: &Fixture| {
        let change = fixture.change(request, 10);
        assert_eq!((change.status.phase, change.reason), (Some(Phase::Pending), Why::DecisionVoid), "{}", change.message);
        assert!(change.status.decision.is_none() && change.warning);
        assert!(change.status.approval_progress.as_deref().is_some_and(|p| p.starts_with('0')));
        change.status.approvals.last().and_then(|a| a.void.clone()).expect("a reason")
    };
    let mut request = fixture.pending();
    for username in [
        "system:serviceaccount:payments:other",
        "system:node:a",
        "team-payments@example.com",
        "oidc:Team-Payments@example.com",
        "https://idp#team-payments@example.com",
        "planners",
    ] {
        request.status.decision = Some(decide(Verdict::Approved, username));
        void(&request, &fixture);
    }
    for group in ["team-payments@example.com", "oidc:team-payments@example.com", "planners", "system:serviceaccounts"] {
        let mut decision = decide(Verdict::Approved, "bob");
        decision.by.as_mut().expect("a user").groups.push(group.to_owned());
        request.status.decision = Some(decision);
        void(&request, &fixture);
    }
    request.status.decision = Some(Decision { by: None, ..decide(Verdict::Approved, "bob") });
    assert!(void(&request, &fixture).contains("whose"));
    let digest = Some(format!("sha256:{}", "0".repeat(64)));
    request.status.decision = Some(Decision { digest, ..decide(Verdict::Approved, "bob") });
    assert!(void(&request, &fixture).contains("digest"));
    request.status.decision = Some(decide(Verdict::Approved, "bob"));
    let facts = Facts { admitted: Err("the policies were missing".to_owned()), ..fixture.facts() };
    assert_eq!(changed(step(&request, &facts, 10)).reason, Why::DecisionVoid);
}

#[test]
fn nobody_approves_a_request_of_their_own_or_on_their_own_behalf() {
    let fixture = Fixture::new();
    let ask = |spec: Value, fixture: &Fixture| {
        let request = request_with(&spec);
        let status = fixture.change(&request, 1).status;
        let mut request = Request { status, ..request };
        request.status.decision = Some(decide(Verdict::Approved, "alice"));
        fixture.change(&request, 10)
    };
    let own = ask(json!({"requestedBy": {"username": "somebody", "uid": "uid-of-alice"}}), &fixture);
    assert_eq!(own.reason, Why::DecisionVoid, "the same uid is the same person");
    let behalf = json!({"onBehalfOf": behalf()});
    assert_eq!(ask(behalf.clone(), &fixture).reason, Why::DecisionVoid);
    let lenient = Fixture::with_rule(&json!({"approval": {"subjectMayApprove": true}}));
    assert_eq!(ask(behalf, &lenient).reason, Why::Approved);
}

#[test]
fn two_persons_are_two_persons() {
    let fixture = Fixture::with_rule(&json!({"approval": {"approvals": 2}}));
    let mut request = fixture.decided(Verdict::Approved, "bob");
    let first = fixture.change(&request, 10);
    assert_eq!((first.status.phase, first.reason), (Some(Phase::Pending), Why::ApprovedByOne));
    assert_eq!(first.status.approval_progress.as_deref(), Some("1/2"));
    request.status = first.status;
    for again in ["bob", "oidc:BOB"] {
        let mut twice = request.clone();
        twice.status.decision = Some(decide(Verdict::Approved, again));
        assert_eq!(fixture.change(&twice, 11).reason, Why::DecisionVoid, "a15: {again}");
    }
    let mut denied = request.clone();
    denied.status.decision = Some(decide(Verdict::Denied, "carol"));
    assert_eq!(fixture.change(&denied, 11).status.phase, Some(Phase::Denied), "a9: deny wins");
    request.status.decision = Some(decide(Verdict::Approved, "carol"));
    let second = fixture.change(&request, 12);
    assert_eq!((second.status.phase, second.status.approval_progress.as_deref()), (Some(Phase::Approved), Some("2/2")));
}

#[test]
fn a_rule_that_was_tightened_after_the_approval_revokes_it() {
    let request = Fixture::new().approved();
    let two = Fixture::with_rule(&json!({"approval": {"approvals": 2}}));
    assert!(two.redeem(&request, 20).expect_err("one is not enough").contains("tightened"));
    assert_eq!(two.change(&request, 20).status.phase, Some(Phase::Revoked));
    let schema = Fixture::with_rule(&json!({"approval": {}, "parameterSchema": {"properties": {"amount": {"maximum": 100}}}}));
    assert!(schema.redeem(&request, 20).is_err());
    assert_eq!(schema.change(&request, 20).reason, Why::NoLongerAllowed);
}

#[test]
fn a9_a_denial_wins_until_the_token_is_issued() {
    let fixture = Fixture::new();
    let denied = fixture.change(&fixture.decided(Verdict::Denied, "bob"), 10);
    assert_eq!(denied.status.phase, Some(Phase::Denied));
    assert_eq!(denied.status.approvals.len(), 1);
    let mut request = fixture.approved();
    request.status.decision = Some(decide(Verdict::Denied, "carol"));
    assert_eq!(claim(&request, &fixture.evidence, 11).err(), Some(Refused::Denied), "also before the controller has seen it");
    assert_eq!(fixture.change(&request, 11).status.phase, Some(Phase::Denied));
    let facts = Facts { admitted: Err("the policies were missing".to_owned()), ..fixture.facts() };
    assert_eq!(changed(step(&request, &facts, 11)).status.phase, Some(Phase::Denied), "a no needs no proof");
    assert_eq!(cancel(&request, 11), Err(Some(Phase::Approved)), "nor is it undone by withdrawing");
}

#[test]
fn a13_what_has_run_out_has_run_out() {
    let fixture = Fixture::new();
    let pending = fixture.decided(Verdict::Approved, "bob");
    assert_eq!(fixture.change(&pending, 599).status.phase, Some(Phase::Approved));
    assert_eq!(fixture.change(&pending, 600).status.phase, Some(Phase::Expired), "also if somebody approved meanwhile");
    let approved = fixture.approved();
    assert_eq!(step(&approved, &fixture.facts(), 609), Step::Wait(610));
    assert!(fixture.redeem(&approved, 609).is_ok());
    assert_eq!(claim(&approved, &fixture.evidence, 610).err(), Some(Refused::Expired));
    assert_eq!(fixture.change(&approved, 610).status.phase, Some(Phase::Expired));
    let (issued, _) = fixture.redeem(&approved, 20).expect("redeemed");
    let issued = Request { status: issued.status, ..approved };
    assert_eq!(fixture.change(&issued, 320).status.phase, Some(Phase::Expired));
    let expired = Request { status: fixture.change(&issued, 320).status, ..issued };
    assert_eq!(claim(&expired, &fixture.evidence, 321).err(), Some(Refused::Spent));
    assert_eq!(step(&expired, &fixture.facts(), 321), Step::Wait(320 + 3600));
    assert_eq!(step(&expired, &fixture.facts(), 320 + 3600), Step::Remove);
    assert_eq!(step(&expired, &Facts { crowded: true, ..fixture.facts() }, 321), Step::Remove);
}

#[test]
fn a_token_lives_as_long_as_the_strictest_says() {
    let life = |fixture: &Fixture, seconds: u32, credential: u64| {
        let request = request_with(&json!({"expirationSeconds": seconds}));
        let request = Request { status: fixture.change(&request, 1).status, ..request };
        let mut request = Request { ..request };
        request.status.decision = Some(decide(Verdict::Approved, "bob"));
        let request = Request { status: fixture.change(&request, 10).status, ..request };
        let Ok(Claim::Redeemable(approval)) = claim(&request, &fixture.evidence, 20) else { panic!("no claim") };
        let token = NewToken { jti: "j".to_owned(), signers: signers(), credential_expires_at: credential, confirmation: None };
        redeem(&approval, &fixture.agent, &fixture.world().view(), &fixture.evidence, token, 20)
            .map(|(_, r)| r.expires_at - r.issued_at)
            .ok()
    };
    let plain = Fixture::new();
    assert_eq!(life(&plain, 100, 5000), Some(100));
    assert_eq!(life(&plain, 900, 5000), Some(300), "the Agent says 300");
    assert_eq!(life(&Fixture::with_rule(&json!({"approval": {"maxExpirationSeconds": 60}})), 900, 5000), Some(60));
    assert_eq!(life(&plain, 900, 50), Some(30), "the credential ends");
    assert_eq!(life(&plain, 900, 20), None);
}

#[test]
fn a11_the_token_is_handed_out_again_for_ten_seconds_and_is_the_same() {
    let fixture = Fixture::new();
    let approved = fixture.approved();
    let (change, first) = fixture.redeem(&approved, 20).expect("redeemed");
    let issued = Request { status: change.status, ..approved };
    for now in [20, 25, 30] {
        let again = redelivery(&issued, &fixture.evidence, now).expect("again");
        assert_eq!((again.issued_at, again.expires_at, &again.chain), (first.issued_at, first.expires_at, &first.chain));
        assert_eq!(again.key_id, first.key_id, "signed by the very key, however many there are by now");
    }
    assert_eq!(first.key_id, "k");
    assert!(redelivery(&issued, &fixture.evidence, 31).is_none());
    assert_eq!(claim(&issued, &fixture.evidence, 31).err(), Some(Refused::Spent));
    assert!(fixture.redeem(&issued, 21).is_err(), "there is no second");
}

#[test]
fn the_token_is_bound_to_the_key_that_was_shown_when_it_was_issued_and_to_no_other_again() {
    let mut fixture = Fixture::new();
    fixture.agent.rights.as_mut().expect("rights").possession_required = true;
    let approved = fixture.approved();
    assert!(fixture.redeem(&approved, 20).is_err_and(|why| why.contains("DPoP")), "the approval is not spent on a token without");
    let Ok(Claim::Redeemable(approval)) = claim(&approved, &fixture.evidence, 20) else { panic!("no claim") };
    let shown = Some(Confirmation { jkt: "thumbprint".to_owned() });
    let token = NewToken { jti: "j".to_owned(), signers: signers(), credential_expires_at: 5000, confirmation: shown.clone() };
    let (change, first) =
        redeem(&approval, &fixture.agent, &fixture.world().view(), &fixture.evidence, token, 20).expect("redeemed");
    let mut issued = Request { status: change.status, ..approved.clone() };
    assert_eq!((&first.confirmation, issued.status.bound_to.as_deref()), (&shown, Some("thumbprint")));
    assert_eq!(redelivery(&issued, &fixture.evidence, 25).expect("again").confirmation, shown);
    for other in [None, Some("another".to_owned())] {
        issued.status.bound_to = other;
        assert!(redelivery(&issued, &fixture.evidence, 25).is_none(), "it is attested");
    }
}

#[test]
fn the_audience_says_with_which_algorithm_the_token_is_signed() {
    let mut fixture = Fixture::new();
    fixture.agent.rights.as_mut().expect("rights").audiences[0].signing_algorithm = SigningAlgorithm::ES256;
    let (change, redemption) = fixture.redeem(&fixture.approved(), 20).expect("redeemed");
    assert_eq!((redemption.key_id.as_str(), change.status.key_id.as_deref()), ("k256", Some("k256")));
    // The token was made. What the audience says later is for later ones.
    fixture.agent.rights.as_mut().expect("rights").audiences[0].signing_algorithm = SigningAlgorithm::EdDSA;
    let issued = Request { status: change.status, ..fixture.approved() };
    assert_eq!(redelivery(&issued, &fixture.evidence, 25).expect("again").key_id, "k256");
}

#[test]
fn an_agent_that_was_stopped_gets_nothing_and_loses_what_it_has() {
    let mut fixture = Fixture::new();
    let approved = fixture.approved();
    let issued = Request { status: fixture.redeem(&approved, 20).expect("redeemed").0.status, ..approved.clone() };
    fixture.agent.epoch += 1;
    assert_eq!(fixture.change(&issued, 21).status.phase, Some(Phase::Revoked), "its tokens were revoked");
    fixture.agent.suspended = true;
    assert!(fixture.redeem(&approved, 21).is_err());
    for request in [fixture.change(&approved, 21), fixture.change(&issued, 21)] {
        assert_eq!(request.status.phase, Some(Phase::Revoked));
    }
    let facts = Facts { agent: None, ..fixture.facts() };
    assert_eq!(changed(step(&approved, &facts, 21)).status.phase, Some(Phase::Revoked));
}

#[test]
fn a19_a_status_that_the_operator_did_not_write_is_not_honoured() {
    let fixture = Fixture::new();
    let forge = |edit: &dyn Fn(&mut JitRequestStatus)| {
        let mut request = fixture.approved();
        edit(&mut request.status);
        assert_eq!(claim(&request, &fixture.evidence, 20).err(), Some(Refused::Spent));
        let change = fixture.change(&request, 20);
        assert_eq!((change.status.phase, change.reason), (Some(Phase::Revoked), Why::EvidenceMissing));
    };
    forge(&|status| status.evidence = None);
    forge(&|status| status.evidence = Some("AAAA".to_owned()));
    forge(&|status| status.digest = Some(format!("sha256:{}", "0".repeat(64))));
    forge(&|status| status.approvals[0].by.username = "mallory".to_owned());
    forge(&|status| status.approvals.clear());
    forge(&|status| status.agent_uid = Some("another".to_owned()));
    forge(&|status| status.phase = Some(Phase::Issued));
    // What is fixed when the token is issued is attested too.
    let issue = |edit: &dyn Fn(&mut JitRequestStatus)| {
        let approved = fixture.approved();
        let mut issued = Request { status: fixture.redeem(&approved, 20).expect("redeemed").0.status, ..approved };
        assert!(redelivery(&issued, &fixture.evidence, 21).is_some());
        edit(&mut issued.status);
        assert!(redelivery(&issued, &fixture.evidence, 21).is_none());
        assert_eq!(fixture.change(&issued, 21).reason, Why::EvidenceMissing);
    };
    issue(&|status| status.jti = Some("forged".to_owned()));
    issue(&|status| status.token_expires_at = Some(super::status::time(2_000_000_000)));
    issue(&|status| status.issued_at = Some(super::status::time(21)));
    issue(&|status| status.key_id = Some("another".to_owned()));
    issue(&|status| status.bound_to = Some("another".to_owned()));
    issue(&|status| status.phase = Some(Phase::Approved));
    issue(&|status| status.phase = Some(Phase::Pending));
    let mut skipped = fixture.approved();
    skipped.status = JitRequestStatus {
        phase: Some(Phase::Issued),
        jti: Some("forged".to_owned()),
        issued_at: Some(super::status::time(20)),
        token_expires_at: Some(super::status::time(2_000_000_000)),
        key_id: Some("k".to_owned()),
        agent_epoch: Some(4),
        ..skipped.status
    };
    assert_eq!(claim(&skipped, &fixture.evidence, 21).err(), Some(Refused::Spent), "approved truly, issued by hand");
    let other = EvidenceKey::new(&[8; 32]).expect("a key");
    assert_eq!(claim(&fixture.approved(), &other, 20).err(), Some(Refused::Spent), "evidence of another installation");
    let mut moved = fixture.approved();
    moved.uid = "another-request".to_owned();
    assert_eq!(claim(&moved, &fixture.evidence, 20).err(), Some(Refused::Spent), "evidence of another request");
    assert!(EvidenceKey::new(&[7; 31]).is_none());
    let mut pending = fixture.pending();
    pending.status.phase = Some(Phase::Approved);
    assert!(fixture.redeem(&pending, 20).is_err(), "a phase alone is no approval");
    let change = fixture.change(&pending, 20);
    assert_eq!((change.status.phase, change.reason), (Some(Phase::Revoked), Why::EvidenceMissing), "nor is it one that ran out");
}

#[test]
fn a_token_is_completed_once_and_only_by_its_own_name() {
    let fixture = Fixture::new();
    let approved = fixture.approved();
    assert_eq!(complete(&approved, "j", 20), Err(Some(Phase::Approved)));
    let issued = Request { status: fixture.redeem(&approved, 20).expect("redeemed").0.status, ..approved };
    assert_eq!(complete(&issued, "other", 21), Err(Some(Phase::Issued)));
    assert_eq!(cancel(&issued, 21), Err(Some(Phase::Issued)));
    let done = complete(&issued, "j", 21).expect("completed");
    assert_eq!(done.status.phase, Some(Phase::Completed));
    let done = Request { status: done.status, ..issued };
    assert_eq!(complete(&done, "j", 22), Err(Some(Phase::Completed)));
    assert_eq!(claim(&done, &fixture.evidence, 22).err(), Some(Refused::Spent));
    let conditions: Vec<_> =
        done.status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect();
    assert_eq!(conditions, [("Approved", "True", "Approved"), ("Finished", "True", "Completed")]);
}

#[test]
fn what_is_withdrawn_is_over() {
    let fixture = Fixture::new();
    assert_eq!(cancel(&request(), 1), Err(None), "nobody has looked at it yet");
    for request in [fixture.pending(), fixture.approved()] {
        let cancelled = cancel(&request, 20).expect("withdrawn");
        assert_eq!(cancelled.status.phase, Some(Phase::Cancelled));
        let cancelled = Request { status: cancelled.status, ..request };
        assert_eq!(claim(&cancelled, &fixture.evidence, 20).err(), Some(Refused::Denied));
        let deleted = Request { deleting: true, ..fixture.approved() };
        assert_eq!(claim(&deleted, &fixture.evidence, 20).err(), Some(Refused::Denied));
    }
}

#[test]
fn decisions_that_do_not_count_are_bounded() {
    let fixture = Fixture::new();
    let mut request = fixture.pending();
    for _ in 0..8 {
        request.status.decision = Some(decide(Verdict::Approved, "team-payments@example.com"));
        request.status = fixture.change(&request, 10).status;
        assert_eq!(request.status.phase, Some(Phase::Pending));
    }
    request.status.decision = Some(decide(Verdict::Approved, "bob"));
    let change = fixture.change(&request, 10);
    assert_eq!((change.status.phase, change.reason), (Some(Phase::Denied), Why::TooManyDecisions));
}
