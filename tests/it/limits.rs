//! Who asks too much is turned away, and the others are answered.

use crate::crowd;
use crate::observability::watched;
use crate::replicas::replica;
use crate::support::operator::Operator;
use crate::world::{CLIENT_ASSERTION, PATIENCE, Reply, Tenant, wait_until};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Asks `operator` for a token, from an address of this machine.
async fn ask(http: &reqwest::Client, operator: &Operator, credential: &str) -> (u16, Option<String>, Value) {
    let form =
        [("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", credential)];
    let sent = crowd::insist(http.post(format!("{}/oauth2/token", operator.url())).form(&form));
    let reply = sent.await.expect("an answer");
    let after = reply.headers().get("retry-after").map(|after| after.to_str().expect("ASCII").to_owned());
    (reply.status().as_u16(), after, reply.json().await.expect("JSON"))
}

fn http(operator: &Operator, from: &str) -> reqwest::Client {
    let from: IpAddr = from.parse().expect("an address");
    crowd::client(operator).local_address(from).timeout(Duration::from_secs(60)).build().expect("a client")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The records of a reason, those that say of how many included.
fn recorded(operator: &Operator, reason: &str) -> u64 {
    let of = |record: &Value| match record["reason"].as_str() {
        Some(of_one) if of_one == reason => 1,
        _ => record["reasons"]
            .as_str()
            .into_iter()
            .flat_map(|all| all.split(' '))
            .find_map(|part| {
                let (name, count) = part.split_once('=')?;
                (name == reason).then(|| count.parse().expect("a number"))
            })
            .unwrap_or_default(),
    };
    operator.audit_lines().expect("an audit log").iter().map(of).sum()
}

#[test]
fn an_agent_that_asks_too_much_is_turned_away_and_the_others_are_not() {
    let (world, _) = watched();
    let (busy, quiet) = (world.tenant("busy"), world.tenant("quiet"));
    // Started after them, so that it knows them.
    let operator = replica(world, "sparing", &["--agent-requests-per-second=5".to_owned()]);
    let client = http(&operator, "127.0.0.1");
    let runtime = runtime();
    let answers =
        runtime.block_on(async { futures::future::join_all((0..200).map(|_| ask(&client, &operator, &busy.token))).await });
    let turned_away: Vec<_> = answers.iter().filter(|(status, ..)| *status == 429).collect();
    assert!(answers.iter().all(|(status, ..)| matches!(status, 200 | 429)), "{answers:?}");
    assert!(answers.len() - turned_away.len() >= 10, "twice the rate at once");
    assert!(!turned_away.is_empty());
    for (_, after, body) in &turned_away {
        assert_eq!((after.as_deref(), &body["error"]), (Some("1"), &Value::from("temporarily_unavailable")), "{body}");
        assert!(body["error_description"].as_str().is_some_and(|text| text.contains("this agent")));
    }
    let (status, ..) = runtime.block_on(ask(&client, &operator, &quiet.token));
    assert_eq!(status, 200, "another agent at the same address");
    assert_eq!(
        operator.metric("countersign_limited_requests_total{limit=\"agent\"}").expect("a counter"),
        turned_away.len() as u64
    );
    assert_eq!(recorded(&operator, "agent_rate_limited"), turned_away.len() as u64, "each is counted in the ledger");
    wait_until("it may ask again", PATIENCE, || runtime.block_on(ask(&client, &operator, &busy.token)).0 == 200);
}

#[test]
fn h9_a_flood_of_bad_assertions_is_turned_away_before_it_is_read_and_others_are_answered() {
    let (world, _) = watched();
    // Those that are recorded one by one are as few as by default: thousands of writes would be what delays the others.
    let args = ["--source-refusals-per-second=20", "--audit-refusals-per-second=100"].map(str::to_owned);
    let tenant = world.tenant("beside-a-flood");
    let operator = replica(world, "flooded", &args);
    // A signature that has to be verified to be found wrong.
    let mut forged = tenant.token.clone();
    let last = if forged.ends_with('A') { "B" } else { "A" };
    forged.replace_range(forged.len() - 8..forged.len() - 7, last);
    let (flood, healthy) = (http(&operator, "127.0.0.9"), http(&operator, "127.0.0.1"));
    let over = AtomicBool::new(false);
    let (bad, good) = runtime().block_on(async {
        let attack = || async {
            let mut seen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                seen.push(ask(&flood, &operator, &forged).await);
            }
            seen
        };
        let attacks = futures::future::join_all((0..16).map(|_| attack()));
        let works = async {
            let mut seen = Vec::new();
            for _ in 0..200 {
                seen.push(ask(&healthy, &operator, &tenant.token).await.0);
            }
            over.store(true, Ordering::Relaxed);
            seen
        };
        let (bad, good) = futures::join!(attacks, works);
        (bad.into_iter().flatten().collect::<Vec<_>>(), good)
    });
    assert!(good.iter().all(|status| *status == 200), "{good:?}");
    assert!(bad.iter().all(|(status, ..)| matches!(status, 401 | 429)), "{bad:?}");
    let away = bad.iter().filter(|(status, ..)| *status == 429).count();
    assert!(away > 0 && bad.iter().filter(|(status, ..)| *status == 401).count() >= 40);
    let counted = operator.metric("countersign_limited_requests_total{limit=\"source\"}").expect("a counter");
    assert_eq!((counted, recorded(&operator, "source_rate_limited")), (away as u64, away as u64));
    eprintln!("{} requests of the flood, {away} of them not read; {} answered beside them", bad.len(), good.len());
}

#[test]
fn h11_no_header_makes_a_flood_come_from_elsewhere() {
    let (world, _) = watched();
    let operator = replica(world, "spoofed", &["--source-refusals-per-second=5".to_owned()]);
    let client = http(&operator, "127.0.0.7");
    let statuses: Vec<u16> = runtime().block_on(async {
        let sent = (0..200).map(|i| {
            let other = format!("10.0.{}.{}", i / 250, i % 250);
            let request = client.post(format!("{}/oauth2/token", operator.url())).form(&[("grant_type", "x")]);
            let headers = ["x-forwarded-for", "x-real-ip", "forwarded", "x-client-ip", "true-client-ip"];
            let request = headers.into_iter().fold(request, |request, name| request.header(name, &other));
            async { crowd::insist(request).await.expect("an answer").status().as_u16() }
        });
        futures::future::join_all(sent).await
    });
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[test]
fn a_resource_server_has_a_limit_of_its_own() {
    let (world, _) = watched();
    let args = ["--agent-requests-per-second=5", "--resource-server-requests-per-second=50"].map(str::to_owned);
    let operator = replica(world, "introspected", &args);
    let tenant: Tenant<'_> = world.tenant("introspected");
    let server = world.resource_server(crate::world::DOCS);
    let token = tenant.access_token();
    let introspect = || {
        let sent = world.http.post(format!("{}/oauth2/introspect", operator.url())).bearer_auth(&server);
        Reply::from(sent.form(&[("token", token.as_str())]).send().expect("an answer"))
    };
    wait_until("the replica has seen the token's agent", PATIENCE, || introspect().is_active());
    // More than an agent may, one after the other.
    for _ in 0..30 {
        assert!(introspect().is_active());
    }
    let client = http(&operator, "127.0.0.1");
    let statuses: Vec<u16> = runtime().block_on(async {
        let sent = (0..400).map(|_| {
            let request = client.post(format!("{}/oauth2/introspect", operator.url())).bearer_auth(&server);
            let request = request.form(&[("token", token.as_str())]);
            async { crowd::insist(request).await.expect("an answer").status().as_u16() }
        });
        futures::future::join_all(sent).await
    });
    // So many at once may also be more than the API server, which is asked for this, answers in time.
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429 | 503)) && statuses.contains(&429), "{statuses:?}");
}
