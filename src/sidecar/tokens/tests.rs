use super::*;
use axum::http::StatusCode;
use serde_json::json;

fn held(asked_at: Instant) -> Held {
    let token = AccessToken::of(&json!({"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 300}));
    Held::new(Arc::new(token.expect("a token")), asked_at, Duration::from_secs(60), 128)
}

fn refused(status: u16, error: &str) -> NoToken {
    let members = json!({"error": error}).as_object().cloned().unwrap_or_default();
    let status = StatusCode::from_u16(status).expect("a status");
    NoToken::Refused(Arc::new(Answer { status, members, request_id: None, retry_after: None, nonce: None }))
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn a_token_is_handed_out_while_the_token_service_is_down_and_not_asked_for_at_each_request() {
    let (mut state, start) = (State::default(), Instant::now());
    assert!(matches!(state.next(start, false), Next::Ask));
    state.take(Ok(held(start)), start).expect("a token");
    assert!(matches!(state.next(after(start, 30), false), Next::Hand(_)));
    assert!(matches!(state.next(after(start, 70), false), Next::HandAndAsk(_)));
    for why in [NoToken::Unanswered("down".into()), refused(503, "temporarily_unavailable"), refused(429, "slow_down")] {
        let again = state.take(Err(why), after(start, 130)).expect("the one that is held");
        assert_eq!(again.1.as_secs(), 170);
        assert!(matches!(state.next(after(start, 130), false), Next::Hand(_)), "not at each request");
        assert!(matches!(state.next(after(start, 146), false), Next::Ask), "but again");
    }
    // Until it ends.
    assert!(state.take(Err(refused(503, "temporarily_unavailable")), after(start, 296)).is_err());
    assert!(matches!(state.next(after(start, 296), false), Next::Refuse(_)));
    assert!(matches!(state.next(after(start, 298), false), Next::Ask), "whoever has none does not wait long");
}

#[test]
fn a_refusal_ends_the_token_that_is_held_at_once() {
    for why in [
        refused(401, "invalid_client"),
        refused(400, "invalid_scope"),
        refused(400, "invalid_target"),
        refused(403, "access_denied"),
    ] {
        let (mut state, start) = (State::default(), Instant::now());
        state.take(Ok(held(start)), start).expect("a token");
        assert!(state.take(Err(why.clone()), after(start, 60)).is_err());
        assert!(matches!(state.next(after(start, 60), false), Next::Refuse(_)), "a client in a loop is told what is known");
        assert!(matches!(state.next(after(start, 61), false), Next::Ask));
        assert_eq!(why.is_of_credential(), matches!(&why, NoToken::Refused(a) if a.error() == Some("invalid_client")));
    }
}

#[test]
fn one_who_demands_a_new_token_gets_one_at_most_each_second() {
    let (mut state, start) = (State::default(), Instant::now());
    state.take(Ok(held(start)), start).expect("a token");
    assert!(matches!(state.next(start, true), Next::Hand(_)));
    assert!(matches!(state.next(after(start, 2), true), Next::Ask));
    assert!(matches!(state.next(after(start, 2), false), Next::Hand(_)));
}

#[test]
fn whoever_waited_for_a_question_shares_its_answer() {
    let (mut state, start) = (State::default(), Instant::now());
    assert!(state.since(start, start).is_none());
    state.take(Ok(held(after(start, 1))), after(start, 1)).expect("a token");
    assert!(state.since(start, after(start, 1)).is_some_and(|shared| shared.is_ok()));
    assert!(state.since(after(start, 2), after(start, 2)).is_none(), "an earlier one is none");
    assert!(state.take(Err(refused(400, "invalid_scope")), after(start, 3)).is_err());
    assert!(state.since(after(start, 2), after(start, 3)).is_some_and(|shared| shared.is_err()));
}

#[test]
fn a_token_is_found_by_whom_it_is_for_and_by_whom_it_stands_for() {
    let wanted = |audience: &str, subject: Option<(&str, &str)>| Wanted {
        target: Target { audience: Some(audience.to_owned()), scope: None },
        subject: subject.map(|(token, kind)| Subject { token: token.to_owned(), kind: kind.to_owned() }),
    };
    let keys = [
        wanted("a", None).key(),
        wanted("b", None).key(),
        wanted("a", Some(("t", "k"))).key(),
        wanted("a", Some(("u", "k"))).key(),
        wanted("a", Some(("t", "l"))).key(),
    ];
    let different: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(wanted("a", Some(("t", "k"))).key(), wanted("a", Some(("t", "k"))).key());
}

#[tokio::test]
async fn the_number_of_tokens_is_bounded() {
    let authority = super::super::Authority::Pem(String::new());
    let upstream = Arc::new(Upstream::new("https://127.0.0.1:1".to_owned(), "/nonexistent".into(), authority));
    let tokens = Arc::new(Tokens::new(upstream, Arc::default(), Duration::from_secs(60)));
    for i in 0..2 * HELD_MAX {
        let target = Target { audience: Some(i.to_string()), scope: None };
        tokens.entry(&Wanted { target, subject: None }, Instant::now());
    }
    assert_eq!(tokens.entries().len(), HELD_MAX);
    let last = Target { audience: Some((2 * HELD_MAX - 1).to_string()), scope: None };
    assert!(tokens.entries().contains_key(&(last, None)), "the one that was wanted last is there");
}
