//! What holds whatever happens to a request, in whatever order.

use super::tests::{Fixture, decide, request, signers};
use super::*;
use crate::crd::{JitRequestStatus, Phase, Verdict};
use proptest::prelude::*;
use serde_json::json;

/// Something that happens to a request.
#[derive(Debug, Clone)]
enum Happening {
    Decide(Verdict, u8),
    Step,
    Redeem,
    Complete,
    Cancel,
    Later(u16),
    Suspend,
    Resume,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (prop_oneof![4 => Just(Verdict::Approved), 1 => Just(Verdict::Denied)], 0..4u8)
            .prop_map(|(v, who)| Happening::Decide(v, who)),
        Just(Happening::Step),
        Just(Happening::Step),
        Just(Happening::Redeem),
        Just(Happening::Complete),
        Just(Happening::Cancel),
        (0..400u16).prop_map(Happening::Later),
        Just(Happening::Suspend),
        Just(Happening::Resume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: there is one token at most, only after enough different persons approved and nobody denied, and
    /// what is said for good stays said.
    #[test]
    fn whatever_happens_a_request_only_moves_forward(persons in 1..=2usize, happenings in proptest::collection::vec(happening(), 1..40)) {
        let mut fixture = Fixture::with_rule(&json!({"approval": {"approvals": persons}}));
        let mut request = request();
        let (mut now, mut tokens) = (1i64, std::collections::HashSet::new());
        for (n, happening) in happenings.into_iter().enumerate() {
            let before = request.status.clone();
            match happening {
                Happening::Decide(verdict, who) => {
                    // As admission lets it through.
                    let may = match (before.phase, &before.decision, verdict) {
                        (Some(Phase::Pending), None, _) => true,
                        (Some(Phase::Approved), None, Verdict::Denied) => true,
                        (Some(Phase::Pending | Phase::Approved), Some(d), Verdict::Denied) => d.verdict == Verdict::Approved,
                        _ => false,
                    };
                    if may {
                        let names = ["bob", "carol", "BOB", "team-payments@example.com"];
                        request.status.decision = Some(decide(verdict, names[usize::from(who)]));
                    }
                }
                Happening::Step => if let Step::Write(change) = step(&request, &fixture.facts(), now) { request.status = change.status },
                Happening::Redeem => {
                    if let Ok(Claim::Redeemable(approval)) = claim(&request, &fixture.evidence, now) {
                        let token = NewToken { jti: format!("j{n}"), signers: signers(), credential_expires_at: 100_000, confirmation: None };
                        if let Ok((change, _)) = redeem(&approval, &fixture.agent, &fixture.world().view(), &fixture.evidence, token, now) {
                            prop_assert!(before.decision.as_ref().is_none_or(|d| d.verdict != Verdict::Denied));
                            let people: std::collections::HashSet<String> = before.approvals.iter()
                                .filter(|a| a.void.is_none() && a.verdict == Verdict::Approved).map(|a| a.by.username.to_lowercase()).collect();
                            prop_assert!(people.len() >= persons && !people.contains("team-payments@example.com"));
                            prop_assert!(!fixture.agent.suspended);
                            tokens.insert(change.status.jti.clone());
                            request.status = change.status;
                        }
                    }
                }
                Happening::Complete => if let Some(jti) = before.jti.clone() && let Ok(change) = complete(&request, &jti, now) { request.status = change.status },
                Happening::Cancel => if let Ok(change) = cancel(&request, now) { request.status = change.status },
                Happening::Later(seconds) => now += i64::from(seconds),
                Happening::Suspend => { fixture.agent.suspended = true; fixture.agent.epoch += 1; }
                Happening::Resume => fixture.agent.suspended = false,
            }
            let after = &request.status;
            prop_assert!(tokens.len() <= 1);
            prop_assert!(before.jti.is_none() || before.jti == after.jti);
            prop_assert!(before.digest.is_none() || before.digest == after.digest);
            prop_assert!(before.approvals.iter().all(|a| after.approvals.contains(a)));
            let finished = |s: &JitRequestStatus| Request { status: s.clone(), ..request.clone() }.is_finished();
            prop_assert!(!finished(&before) || before == *after, "a finished request does not change");
        }
    }
}
