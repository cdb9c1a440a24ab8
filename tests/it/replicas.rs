//! Several operators on one cluster: an approval makes one token, whoever is asked, however often, and whoever dies meanwhile.

use crate::crowd::{connected, insist};
use crate::payments::{Asked, CIBA, asked};
use crate::support::operator::{Operator, OperatorOptions};
use crate::world::{CLIENT_ASSERTION, PATIENCE, Tenant, World, claims, wait_until};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Another replica: same cluster, same issuer.
pub fn replica(world: &World, name: &str, args: &[String]) -> Operator {
    let issuer = Some(world.operator.issuer().to_owned());
    let options = OperatorOptions { name: name.to_owned(), issuer, args: args.to_vec(), ..OperatorOptions::default() };
    world.another(options)
}

/// How often this process came second when an approval was turned into a token.
fn conflicts(operator: &Operator) -> u64 {
    operator.metric("countersign_jit_redeem_conflicts_total").expect("a counter")
}

#[test]
fn a10_a_thousand_parallel_polls_of_two_processes_get_one_token() {
    const POLLS: usize = 1000;
    const ROUNDS: usize = 12;
    // A world of its own: two processes under a thousand connections disturb others.
    let world = World::start_shareable();
    let (tenant, capability) = world.payments_tenant("parallel");
    world.approver("bob", &tenant.namespace, &capability);
    let second = replica(&world, "second", &[]);
    let operators = [&world.operator, &second];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for round in 1.. {
        let asked = asked(&tenant, &capability);
        asked.approve("bob");
        let replies = runtime.block_on(polls(&operators, &tenant, &asked.id, POLLS));
        let tokens: HashSet<&str> =
            replies.iter().filter_map(|(status, body)| (*status == 200).then_some(body["access_token"].as_str()?)).collect();
        let identifiers: HashSet<String> = tokens.iter().map(|token| claims(token)["jti"].to_string()).collect();
        assert_eq!(replies.len(), POLLS);
        assert_eq!((tokens.len(), identifiers.len()), (1, 1), "one token, one jti");
        for (status, body) in &replies {
            // Slow ones come when the ten seconds of redelivery are over, and what cannot be recorded or decided in time is not answered.
            assert!(*status == 200 || *status == 503 || (*status == 400 && body["error"] == "invalid_grant"), "{status} {body}");
        }
        let answered = replies.iter().filter(|(status, _)| *status == 200).count();
        eprintln!("round {round}: {answered} of {POLLS} polls were answered with the token");
        let status = asked.status();
        assert_eq!(identifiers, HashSet::from([status["jti"].to_string()]), "and it is the one that is stored");
        let recorded: HashSet<String> = operators
            .iter()
            .flat_map(|operator| operator.audit_lines().expect("an audit log"))
            .filter(|r| r["jit_request_uid"] == asked.id.as_str() && r["reason"] == "granted")
            .map(|r| r["jti"].to_string())
            .collect();
        assert_eq!(recorded, identifiers, "and the only one in either log");
        let lost = operators.map(conflicts);
        eprintln!("round {round}: races lost by each process so far: {lost:?}");
        if lost.iter().all(|lost| *lost > 0) {
            return;
        }
        assert!(round < ROUNDS, "in {ROUNDS} rounds the processes did not race: {lost:?}");
    }
}

/// Polls so often at once, half at each operator, over connections that are open before.
async fn polls(operators: &[&Operator; 2], tenant: &Tenant<'_>, id: &str, count: usize) -> Vec<(u16, Value)> {
    let urls: Vec<String> = (0..count).map(|i| operators[i % 2].url()).collect();
    let http = connected(operators[0], &urls).await;
    let form = [
        ("grant_type", CIBA),
        ("auth_req_id", id),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", tenant.token.as_str()),
    ];
    let polls = urls.iter().map(|url| {
        // Asking again must not make a second token either.
        let sent = insist(http.post(format!("{url}/oauth2/token")).form(&form));
        async move {
            let reply = sent.await.expect("an answer");
            (reply.status().as_u16(), reply.json().await.expect("JSON"))
        }
    });
    futures::future::join_all(polls).await
}

/// Keeps everybody from writing records, by a lock on their table: whoever has an outcome keeps its reply. Gone when dropped.
struct Dam(tokio::runtime::Runtime, Option<PgConnection>);

impl Dam {
    fn new(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(world.database()).await.expect("a connection");
            sqlx::raw_sql("BEGIN; LOCK TABLE segments IN SHARE MODE").execute(&mut connection).await.expect("locked");
            connection
        });
        Self(runtime, Some(connection))
    }
}

impl Drop for Dam {
    fn drop(&mut self) {
        if let Some(connection) = self.1.take() {
            self.0.block_on(connection.close()).expect("closed");
        }
    }
}

#[test]
fn a11_kill_9_between_the_write_and_the_reply_neither_burns_nor_doubles_an_approval() {
    const KILLS: usize = 50;
    let world = World::start_shareable();
    let (tenant, capability) = world.payments_tenant("killed");
    world.approver("bob", &tenant.namespace, &capability);
    let mut victim = replica(&world, "victim", &[]);
    for kill in 0..KILLS {
        let asked = asked(&tenant, &capability);
        asked.approve("bob");
        let dam = Dam::new(&world);
        let url = victim.url();
        let stored = std::thread::scope(|scope| {
            let poll = scope.spawn(|| poll_until_death(&tenant, &asked, &url));
            // The write is done, the record is not, so the reply is not.
            let status = wait_for_issue(&asked);
            victim.process().signal("KILL").expect("killed");
            let reply = poll.join().expect("a thread");
            assert!(reply.is_none(), "kill {kill}: the reply had left: {reply:?}");
            status
        });
        drop((dam, victim));
        // Even: the other replica is asked. Odd: the one that was killed, started anew.
        let asked_anew = Instant::now();
        if kill % 2 == 0 {
            let token = asked.token();
            check(kill, &token, &stored);
            victim = replica(&world, "victim", &[]);
        } else {
            victim = replica(&world, "victim", &[]);
            let reply = asked.poll_at(&victim.url(), "0");
            if asked_anew.elapsed() < Duration::from_secs(8) {
                check(kill, &reply.expect(200).text("access_token"), &stored);
            }
        }
        let status = asked.status();
        assert_eq!((&status["jti"], &status["phase"]), (&stored["jti"], &"Issued".into()), "kill {kill}");
        asked.revoke(&asked_token(&asked, &stored)).expect(200);
    }
}

/// Anything that names the request, to end it so that the agent may ask again.
fn asked_token(asked: &Asked<'_>, _stored: &Value) -> String {
    asked.poll().body["access_token"].as_str().unwrap_or("unknown").to_owned()
}

fn check(kill: usize, token: &str, stored: &Value) {
    let claims = claims(token);
    assert_eq!(claims["jti"], stored["jti"], "kill {kill}: it is the one token");
    assert_eq!(claims["iat"].as_i64(), time(&stored["issuedAt"]), "kill {kill}: unchanged");
    assert_eq!(claims["exp"].as_i64(), time(&stored["tokenExpiresAt"]), "kill {kill}: unchanged");
}

fn time(text: &Value) -> Option<i64> {
    text.as_str()?.parse::<k8s_openapi::jiff::Timestamp>().ok().map(k8s_openapi::jiff::Timestamp::as_second)
}

/// Polls a process that dies: the reply, if one came all the same.
fn poll_until_death(tenant: &Tenant<'_>, asked: &Asked<'_>, url: &str) -> Option<u16> {
    let form = [
        ("grant_type", CIBA),
        ("auth_req_id", asked.id.as_str()),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", tenant.token.as_str()),
    ];
    tenant.world.http.post(format!("{url}/oauth2/token")).form(&form).send().ok().map(|reply| reply.status().as_u16())
}

fn wait_for_issue(asked: &Asked<'_>) -> Value {
    let mut status = Value::Null;
    wait_until("the token is fixed", PATIENCE, || {
        status = asked.status();
        status["phase"] == "Issued"
    });
    status
}
