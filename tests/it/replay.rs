//! One assertion is one request: however many replicas are asked at once, however they die, and whatever becomes of the database.

use crate::crowd::{connected, insist};
use crate::key_agents::{KeyAgent, record};
use crate::support::operator::{Operator, OperatorOptions};
use crate::support::postgres::Postgres;
use crate::world::{CLIENT_ASSERTION, PATIENCE, Reply, World, binary, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Within which the store answers or gives up is 1.5 s; the rest is for a busy machine.
const BOUND: Duration = Duration::from_millis(3000);

/// An operator of that name for the issuer of the first. It has the database of the world, if that can be shared, else its own file.
fn options(world: &World, name: &str) -> OperatorOptions {
    OperatorOptions { name: name.to_owned(), issuer: Some(world.operator.issuer().to_owned()), ..OperatorOptions::default() }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Sends one assertion so often at once, in turn to each of the operators, over connections that are open before, and does
/// `meanwhile` when all are on their way. What had no answer is not among the replies.
fn at_once(operators: &[&Operator], assertion: &str, count: usize, meanwhile: impl FnOnce()) -> Vec<(u16, Value)> {
    let urls: Vec<String> = (0..count).map(|i| operators[i % operators.len()].url()).collect();
    let form =
        [("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", assertion)];
    let runtime = runtime();
    let http = runtime.block_on(connected(operators[0], &urls));
    let requests = urls.iter().map(|url| {
        let sent = insist(http.post(format!("{url}/oauth2/token")).form(&form));
        runtime.spawn(async move {
            let reply = sent.await.ok()?;
            Some((reply.status().as_u16(), reply.json().await.ok()?))
        })
    });
    let requests: Vec<_> = requests.collect();
    meanwhile();
    let replies = runtime.block_on(futures::future::join_all(requests));
    replies.into_iter().filter_map(|reply| reply.expect("a task")).collect()
}

/// How many were answered with a token. Every other reply must be a refusal, or say that nobody can tell.
fn tokens(replies: &[(u16, Value)]) -> usize {
    for (status, body) in replies {
        let refused = *status == 401 && body["error"] == "invalid_client";
        let unavailable = *status == 503 && body["error"] == "temporarily_unavailable";
        assert!((*status == 200 && body["access_token"].is_string()) || refused || unavailable, "{status} {body}");
        assert!(*status == 200 || body.get("access_token").is_none(), "{status} {body}");
    }
    replies.iter().filter(|(status, _)| *status == 200).count()
}

/// How many tokens were recorded as issued on this assertion, in the logs of these operators.
fn issued(operators: &[&Operator], assertion: &str) -> usize {
    let jti = crate::world::claims(assertion)["jti"].clone();
    let records = operators.iter().flat_map(|operator| operator.audit_lines().expect("an audit log"));
    records.filter(|r| r["event"] == "token.issue" && r["reason"] == "granted" && r["credential_id"] == jti).count()
}

/// Fails unless exactly one of so many requests made a token. Its reply may be lost with a connection that ends; whoever asks again then
/// is refused.
#[track_caller]
fn makes_one_token(operators: &[&Operator], assertion: &str, replies: &[(u16, Value)], requests: usize) {
    assert!(replies.len() * 100 >= requests * 95, "{} of {requests} were answered", replies.len());
    assert_eq!(issued(operators, assertion), 1, "one is recorded");
    let tokens = tokens(replies);
    assert!(tokens <= 1, "{tokens} tokens");
}

/// Fails unless the assertion is refused because it was used.
#[track_caller]
fn is_used_up(agent: &KeyAgent<'_>, assertion: &str) {
    agent.refused(&agent.ask(assertion), assertion, "credential_replayed");
}

#[test]
fn a_thousand_requests_with_one_assertion_at_two_replicas_make_one_token_and_none_after_both_were_killed() {
    const REQUESTS: usize = 1000;
    const ROUNDS: usize = 3;
    let world = World::start_shareable();
    let agent = world.key_agent("replay");
    let mut replicas = ["first", "second"].map(|name| world.another(options(&world, name)));
    // The two that are to be killed; the one of the world stays out of it.
    for round in 1..=ROUNDS {
        let both = replicas.each_ref();
        let assertion = agent.assertion();
        let replies = at_once(&both, &assertion, REQUESTS, || {});
        makes_one_token(&both, &assertion, &replies, REQUESTS);
        let unavailable = replies.iter().filter(|(status, _)| *status == 503).count();
        eprintln!("round {round}: {} answers, 1 token, {unavailable} times nobody could tell", replies.len());
        both.iter().for_each(|replica| is_used_up(&agent.at(replica), &assertion));

        both.iter().for_each(|replica| replica.process().signal("KILL").expect("killed"));
        drop(replicas);
        replicas = ["first", "second"].map(|name| world.another(options(&world, name)));
        let both = replicas.each_ref();
        both.iter().for_each(|replica| is_used_up(&agent.at(replica), &assertion));
        assert_eq!(tokens(&at_once(&both, &assertion, 100, || {})), 0, "round {round}: after a restart");
        assert_eq!(issued(&both, &assertion), 1);
        both.iter().for_each(|replica| _ = agent.at(replica).obtain().expect(200));
    }
}

#[test]
fn p5_kill_9_amid_requests_on_postgresql_never_makes_a_second_token() {
    let world = World::start_shareable();
    let agent = world.key_agent("killed");
    let start = || world.another(options(&world, "victim"));
    killed_amid_requests(&agent, Some(&world.operator), &start);
}

#[test]
fn p5_kill_9_amid_requests_on_sqlite_never_makes_a_second_token() {
    let world = World::start(4, &[], &[]);
    let agent = world.key_agent("killed");
    // The same name: the same directory, and so the same database. One process at a time.
    world.operator.process().signal("KILL").expect("killed");
    world.operator.process().wait(PATIENCE).expect("it ends");
    let start = || Operator::start(&world.cluster, binary(), &options(&world, "operator")).expect("it starts again");
    killed_amid_requests(&agent, None, &start);
}

/// Kills a replica again and again while it works on one assertion, which `other` is asked too.
fn killed_amid_requests(agent: &KeyAgent<'_>, other: Option<&Operator>, start: &dyn Fn() -> Operator) {
    const ROUNDS: u64 = 4;
    const REQUESTS: usize = 200;
    let mut victim = start();
    let (mut before, mut none) = (0, 0);
    for round in 0..ROUNDS {
        let assertion = agent.assertion();
        let operators: Vec<&Operator> = [&victim].into_iter().chain(other).collect();
        // From before the first is looked at until most are answered.
        let replies = at_once(&operators, &assertion, REQUESTS, || {
            std::thread::sleep(Duration::from_millis(round * round * 8));
            victim.process().signal("KILL").expect("killed");
        });
        let first = tokens(&replies);
        drop(victim);
        victim = start();
        let operators: Vec<&Operator> = [&victim].into_iter().chain(other).collect();
        let replies = at_once(&operators, &assertion, 50, || {});
        let second = tokens(&replies);
        assert!(first + second <= 1, "round {round}: {first} tokens, and {second} after the restart");
        assert!(issued(&operators, &assertion) <= 1, "round {round}: in the logs of both");
        // By now it is used up, whoever was the one.
        is_used_up(&agent.at(&victim), &assertion);
        agent.at(&victim).obtain().expect(200);
        before += first;
        none += usize::from(first + second == 0);
    }
    eprintln!("{ROUNDS} kills: {before} tokens before one, {none} assertions used up without a token");
}

#[test]
fn p5_a_thousand_requests_on_sqlite_make_one_token_and_none_after_a_kill() {
    const REQUESTS: usize = 1000;
    let world = World::start(4, &[], &[]);
    let agent = world.key_agent("sqlite");
    let assertion = agent.assertion();
    let replies = at_once(&[&world.operator], &assertion, REQUESTS, || {});
    makes_one_token(&[&world.operator], &assertion, &replies, REQUESTS);
    world.operator.process().signal("KILL").expect("killed");
    world.operator.process().wait(PATIENCE).expect("it ends");
    let again = Operator::start(&world.cluster, binary(), &options(&world, "operator")).expect("it starts again");
    is_used_up(&agent.at(&again), &assertion);
    assert_eq!(tokens(&at_once(&[&again], &assertion, 100, || {})), 0);
    assert_eq!(issued(&[&again], &assertion), 1);
    agent.at(&again).obtain().expect(200);
}

/// A refusal because nobody can tell whether the assertion was used.
#[track_caller]
fn nobody_can_tell(agent: &KeyAgent<'_>, assertion: &str, limit: Duration) {
    let reply = without_database(agent, assertion, limit);
    assert_eq!(record(agent.operator, &reply)["reason"], "credential_check_unavailable");
}

/// The same while there is no database, where not even the refusal can be recorded.
#[track_caller]
fn without_database(agent: &KeyAgent<'_>, assertion: &str, limit: Duration) -> Reply {
    let begun = Instant::now();
    let reply = agent.ask(assertion).refused(503, "temporarily_unavailable");
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    assert_eq!(reply.headers["retry-after"], "1");
    crate::key_agents::is_kept_nowhere(agent.operator, assertion);
    reply
}

#[test]
fn a_frozen_postgresql_means_no_token_within_two_seconds_and_passes() {
    let server = Postgres::start().expect("a server");
    let world = World::start_on_database(server.database().expect("a database"));
    let (agent, tenant) = (world.key_agent("frozen"), world.tenant("frozen-account"));
    for round in 0..2 {
        let used = agent.assertion();
        agent.ask(&used).expect(200);
        let frozen = server.freeze().expect("frozen");
        let during: Vec<String> = (0..5).map(|_| agent.assertion()).collect();
        let longest = during.iter().map(|assertion| {
            let begun = Instant::now();
            without_database(&agent, assertion, BOUND);
            begun.elapsed()
        });
        let longest = longest.max().expect("some");
        eprintln!("round {round}: refused after {longest:?} at most");
        without_database(&agent, &used, BOUND);
        // Many at once wait no longer.
        let mut begun = Instant::now();
        let replies = at_once(&[&world.operator], &during[0], 200, || begun = Instant::now());
        assert!(replies.len() >= 190 && tokens(&replies) == 0, "{} answers", replies.len());
        assert!(replies.iter().all(|(status, _)| *status == 503));
        assert!(begun.elapsed() < 2 * BOUND, "{:?}", begun.elapsed());
        let stranger = agent.with(&std::sync::Arc::new(crate::key_agents::Key::new()));
        // Nothing is issued that cannot be recorded, and nobody is refused unrecorded: not a stranger, nor who needs no assertion (L1).
        stranger.ask(&stranger.assertion()).refused(503, "temporarily_unavailable");
        world.exchange(&tenant.token).refused(503, "temporarily_unavailable");

        drop(frozen);
        wait_until("it recovers", PATIENCE, || agent.obtain().status == 200);
        is_used_up(&agent, &used);
        // Of what had no answer nobody knew whether it was used; by now it is known, and it counts at most once.
        for assertion in &during {
            let first = agent.ask(assertion);
            assert!(first.status == 200 || first.status == 401, "{:?}", first.body);
            assert!(issued(&[&world.operator], assertion) <= 1);
            is_used_up(&agent, assertion);
        }
    }
}

#[test]
fn a_crashed_postgresql_forgets_nothing() {
    let server = Postgres::start().expect("a server");
    let world = World::start_on_database(server.database().expect("a database"));
    let agent = world.key_agent("crashed");
    let used: Vec<String> = (0..20).map(|_| agent.assertion()).collect();
    for assertion in &used {
        agent.ask(assertion).expect(200);
    }
    server.kill().expect("killed");
    without_database(&agent, &used[0], BOUND);
    without_database(&agent, &agent.assertion(), BOUND);
    server.resume().expect("it starts again");
    wait_until("it recovers", PATIENCE, || agent.obtain().status == 200);
    for assertion in &used {
        is_used_up(&agent, assertion);
    }
}

#[test]
fn a_new_database_takes_no_assertion_that_may_be_older_than_it() {
    let server = Postgres::shared();
    let world = World::start_on_database(server.database().expect("a database"));
    let agent = world.key_agent("new");
    let (used, unused) = (agent.assertion(), agent.assertion());
    agent.ask(&used).expect(200);
    world.operator.process().signal("KILL").expect("killed");
    world.operator.process().wait(PATIENCE).expect("it ends");

    // As when somebody deletes the volume, or restores nothing.
    let options = OperatorOptions { database: Some(server.database().expect("a database")), ..options(&world, "new") };
    let operator = Operator::start(&world.cluster, binary(), &options).expect("it starts");
    let agent = agent.at(&operator);
    for assertion in [&used, &unused] {
        nobody_can_tell(&agent, assertion, BOUND);
    }
    let now = crate::key_agents::now();
    // What does not say when it was issued counts as issued as early as it can have been.
    for changes in
        [serde_json::json!({"iat": null, "exp": now + 40}), serde_json::json!({"iat": null, "nbf": now, "exp": now + 40})]
    {
        nobody_can_tell(&agent, &agent.assertion_with(&changes), BOUND);
    }
    // One that is refused for another reason is refused for that.
    agent.refuses("credential_claim_refused", || agent.assertion_with(&serde_json::json!({"aud": "https://other.example.com"})));
    let took = wait_until("it takes a new one", PATIENCE, || {
        let reply: Reply = agent.obtain();
        assert!(reply.status == 200 || reply.status == 503, "{:?}", reply.body);
        reply.status == 200
    });
    eprintln!("the first new assertion was taken {took:?} after the start");
    for assertion in [&used, &unused] {
        nobody_can_tell(&agent, assertion, BOUND);
    }
}

#[test]
fn a_database_that_takes_the_place_of_another_takes_no_assertion_that_the_other_may_have_seen() {
    let server = Postgres::shared();
    let world = World::start_on_database(server.database().expect("a database"));
    let agent = world.key_agent("swapped");
    world.operator.process().signal("KILL").expect("killed");
    world.operator.process().wait(PATIENCE).expect("it ends");
    let options = OperatorOptions { database: Some(server.database().expect("a database")), ..options(&world, "other") };
    let other = Operator::start(&world.cluster, binary(), &options).expect("it starts");
    agent.at(&other).is_served();
    let used = agent.at(&other).assertion();
    agent.at(&other).ask(&used).expect(200);
    other.process().signal("KILL").expect("killed");
    drop(other);
    // As when a restore is undone: the first database is older than every assertion, and has not seen those of meanwhile.
    let back = world.another(self::options(&world, "back"));
    nobody_can_tell(&agent.at(&back), &used, BOUND);
    wait_until("it takes a new one", PATIENCE, || agent.at(&back).obtain().status == 200);
    nobody_can_tell(&agent.at(&back), &used, BOUND);
}
