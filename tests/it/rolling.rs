//! Replicas that come and go while requests are made: whoever asks again once gets an answer.

use crate::crowd;
use crate::replicas::replica;
use crate::support::cluster::ClusterOptions;
use crate::support::operator::Operator;
use crate::world::{CLIENT_ASSERTION, PATIENCE, World, wait_until};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

/// What an upgrade in a cluster uses.
const DELAY: &str = "--shutdown-delay=2";

/// Stands in for the Service: the replicas that are said to be ready, by turns. In a cluster, kube-proxy does that (`make e2e`).
#[derive(Default)]
struct Service {
    ready: RwLock<Vec<String>>,
    next: AtomicUsize,
}

impl Service {
    fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn at(&self, turn: usize) -> String {
        let ready = self.ready.read().expect("a lock");
        ready[turn % ready.len()].clone()
    }

    fn add(&self, operator: &Operator) {
        self.ready.write().expect("a lock").push(operator.url());
    }

    fn remove(&self, operator: &Operator) {
        self.ready.write().expect("a lock").retain(|url| *url != operator.url());
    }
}

/// What came of the requests.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    /// When a request failed at the first try, and was answered at the second.
    again: Vec<Instant>,
    /// Those that failed twice.
    failed: Vec<String>,
}

/// Requests until `over`, each sent once more, to the next replica, if it is not answered, without a pause.
async fn load(http: reqwest::Client, service: Arc<Service>, credential: String, over: Arc<AtomicBool>) -> Tally {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", credential.as_str()),
    ];
    let mut tally = Tally::default();
    while !over.load(Ordering::Relaxed) {
        let turn = service.turn();
        let (service, http, form) = (&service, &http, &form);
        let attempt = |turn: usize| async move {
            let url = service.at(turn);
            let reply = http.post(format!("{url}/oauth2/token")).form(form).send().await.map_err(|e| format!("{url}: {e:?}"))?;
            let status = reply.status();
            let text = reply.text().await.map_err(|e| format!("{url}: {e:?}"))?;
            if status.is_success() { Ok(()) } else { Err(format!("{url}: {status} {text}")) }
        };
        let Err(first) = attempt(turn).await else {
            tally.answered += 1;
            continue;
        };
        match attempt(turn + 1).await {
            Ok(()) => {
                tally.answered += 1;
                tally.again.push(Instant::now());
            }
            Err(second) => tally.failed.push(format!("{first}, then {second}")),
        }
    }
    tally
}

/// Requests of eight clients while `work` is done.
fn under_load(world: &World, service: &Arc<Service>, credential: &str, work: impl FnOnce()) -> Tally {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let over = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..8)
        .map(|_| {
            let http = crowd::client(&world.operator).timeout(Duration::from_secs(10)).build().expect("a client");
            runtime.spawn(load(http, Arc::clone(service), credential.to_owned(), Arc::clone(&over)))
        })
        .collect();
    work();
    over.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for tally in runtime.block_on(futures::future::join_all(loads)) {
        let tally = tally.expect("no panic");
        all.answered += tally.answered;
        all.again.extend(tally.again);
        all.failed.extend(tally.failed);
    }
    all
}

/// A world with three replicas behind a Service; its own operator is not among them.
fn three() -> (World, Vec<Operator>, Arc<Service>) {
    let world = World::start_shareable_on(&ClusterOptions::default(), &[]);
    let replicas: Vec<Operator> = ["one", "two", "three"].map(|name| replica(&world, name, &[DELAY.to_owned()])).into();
    let service = Arc::new(Service::default());
    replicas.iter().for_each(|replica| service.add(replica));
    (world, replicas, service)
}

#[test]
fn p6_replicas_are_killed_and_replaced_under_load_and_no_request_fails_twice() {
    let (world, mut replicas, service) = three();
    let tenant = world.tenant("rolling");
    for operator in &replicas {
        let known = || {
            let form = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", CLIENT_ASSERTION),
                ("client_assertion", tenant.token.as_str()),
            ];
            let sent = world.http.post(format!("{}/oauth2/token", operator.url())).form(&form).send();
            sent.is_ok_and(|reply| reply.status() == 200)
        };
        wait_until("each replica knows the agent", PATIENCE, known);
    }

    // One is killed. Whoever was sent there asks another; the Service hears of it within a second.
    let mut killed_at = Instant::now();
    let victim = replicas.remove(0);
    let killed = under_load(&world, &service, &tenant.token, || {
        std::thread::sleep(Duration::from_millis(500));
        killed_at = Instant::now();
        victim.process().signal("KILL").expect("killed");
        std::thread::sleep(Duration::from_secs(1));
        service.remove(&victim);
        std::thread::sleep(Duration::from_secs(2));
    });
    drop(victim);
    assert_eq!(killed.failed, Vec::<String>::new(), "of {}", killed.answered);
    let last = killed.again.iter().filter_map(|at| at.checked_duration_since(killed_at)).max();
    eprintln!("killed: {} answered, {} at the second try, the last {last:?} after the kill", killed.answered, killed.again.len());
    assert!(!killed.again.is_empty(), "somebody was sent there");

    // All are replaced, one after the other, as a rolling upgrade does: the new one is ready, the old one is told to stop, and the
    // Service hears only then that it is not ready any more.
    let mut young = Vec::new();
    let rolled = under_load(&world, &service, &tenant.token, || {
        for (i, old) in replicas.iter().enumerate() {
            let new = replica(&world, &format!("new-{i}"), &[DELAY.to_owned()]);
            service.add(&new);
            old.process().begin_stop();
            wait_until("it says that it is going", PATIENCE, || old.get("/readyz").is_ok_and(|answer| answer.status == 503));
            let says = old.get("/readyz").expect("an answer while it is going").body;
            assert!(says.contains("about to end"), "{says}");
            // The time that endpoints and kube-proxy take.
            std::thread::sleep(Duration::from_millis(800));
            service.remove(old);
            old.process().wait(PATIENCE).expect("it ends");
            young.push(new);
        }
    });
    eprintln!("rolled: {} answered, {} at the second try", rolled.answered, rolled.again.len());
    assert_eq!(rolled.failed, Vec::<String>::new(), "of {}", rolled.answered);
    assert!(rolled.answered > 100);
}
