//! The revocation feed: what verifiers that work offline are told, how soon, and how fresh it is.

use crate::chains::{Team, id_token};
use crate::payments::send;
use crate::support::cluster::ClusterOptions;
use crate::support::repository;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, Tenant, World, agent, claims, header, insist, stamped, wait_until};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How soon a verifier that follows the stream must know, and a busy machine.
const PROMPTLY: Duration = Duration::from_secs(10);

/// GET /revocations with these headers.
fn get(world: &World, headers: &[(&str, &str)]) -> Response {
    let request = world.http.get(format!("{}/revocations", world.operator.url()));
    insist(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
}

/// The claims of the whole state, which must be served.
fn whole(world: &World) -> Value {
    claims(&get(world, &[]).text().expect("a body"))
}

fn uid(tenant: &Tenant<'_>) -> String {
    tenant.agent()["metadata"]["uid"].as_str().expect("a UID").to_owned()
}

/// A stream of events.
struct Events(BufReader<Response>);

/// One event: its kind, its id, and what it says.
#[derive(Debug)]
struct Event {
    kind: String,
    id: String,
    data: String,
}

impl Events {
    fn open(world: &World) -> Self {
        // No limit in time: a stream goes on.
        let pem = std::fs::read(world.operator.ca_file()).expect("the CA");
        let http = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
            .timeout(None)
            .build()
            .expect("a client");
        let url = format!("{}/revocations", world.operator.url());
        let reply = http.get(url).header("accept", "text/event-stream").send().expect("an answer");
        assert_eq!(reply.status(), 200);
        let says = |name: &str| reply.headers()[name].to_str().expect("ASCII").to_owned();
        assert_eq!((says("content-type").as_str(), says("cache-control").as_str()), ("text/event-stream", "no-store"));
        Self(BufReader::new(reply))
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<Event> {
        let mut event = Event { kind: String::new(), id: String::new(), data: String::new() };
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).is_ok_and(|read| read == 0) {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", kind)) => event.kind = kind.to_owned(),
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("data", data)) => event.data = data.to_owned(),
                _ => return Some(event),
            }
        }
    }
}

#[test]
fn the_feed_lists_what_is_alive_and_says_how_fresh_it_is() {
    let world = World::shared();
    let tenant = world.tenant("feed");
    let before = crate::key_agents::now();
    let reply = get(world, &[]);
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "application/jwt");
    assert_eq!(reply.headers()["cache-control"], "no-cache");
    let tag = reply.headers()["etag"].to_str().expect("ASCII").to_owned();
    let jwt = reply.text().expect("a body");
    let (head, said) = (header(&jwt), claims(&jwt));
    assert_eq!((&head["typ"], &head["alg"]), (&json!("revocations+jwt"), &json!("EdDSA")));
    assert_eq!((&said["iss"], &tag), (&json!(world.operator.issuer()), &format!("\"{}\"", said["id"].as_str().expect("id"))));
    let time = |claim: &str| said[claim].as_u64().expect("a time");
    assert!(time("iat") >= before && time("exp") == time("iat") + 10, "{said}");
    assert!(time("as_of") <= time("iat") && time("as_of") + 11 >= time("iat"), "no older than the view may be: {said}");
    let uid = uid(&tenant);
    assert_eq!(said["agents"][&uid], 0);
    assert!(!jwt.contains(&tenant.namespace) && !said.to_string().contains(&tenant.namespace), "no names");
    // It is no access token, and what is alive is no secret: nobody has to say who asks.
    let form = [("token", jwt.as_str())];
    assert_eq!(send(&world.operator.url(), "/oauth2/revoke", &tenant, &form, &[]).status, 200);
    let metadata: Value = world
        .http
        .get(format!("{}/.well-known/oauth-authorization-server", world.operator.url()))
        .send()
        .and_then(Response::json)
        .expect("the metadata");
    assert_eq!(metadata["countersign_revocations_endpoint"], format!("{}/revocations", world.operator.issuer()));

    tenant.patch(&json!({"spec": {"suspended": true}}));
    wait_until("a suspended agent is not listed", PROMPTLY, || whole(world)["agents"].get(&uid).is_none());
    let post = Reply::from(world.http.post(format!("{}/revocations", world.operator.url())).send().expect("an answer"));
    assert_eq!(post.refused(405, "invalid_request").headers["allow"], "GET, HEAD");
}

#[test]
fn an_unchanged_state_is_confirmed_with_a_signature() {
    // Nobody else changes anything here.
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant("etag");
    let mut tag = String::new();
    // The controllers may still write a status.
    wait_until("nothing changes", PATIENCE, || {
        let reply = get(&world, &[]);
        let before = std::mem::replace(&mut tag, reply.headers()["etag"].to_str().expect("ASCII").to_owned());
        before == tag
    });
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let reply = get(&world, &[("if-none-match", &known)]);
        assert_eq!(reply.status(), 304, "{known}");
        assert_eq!(reply.headers()["etag"], *tag);
        let jwt = reply.headers()["countersign-revocations-heartbeat"].to_str().expect("ASCII").to_owned();
        assert_eq!(header(&jwt)["typ"], "revocations-heartbeat+jwt");
        let said = claims(&jwt);
        assert_eq!(format!("\"{}\"", said["id"].as_str().expect("id")), tag);
        assert!(said["exp"].as_u64() > Some(crate::key_agents::now()) && said.get("agents").is_none(), "{said}");
        assert_eq!(reply.text().expect("no body"), "");
    }
    assert_eq!(get(&world, &[("if-none-match", "\"x\"")]).status(), 200);
    tenant.patch(&json!({"spec": {"suspended": true}}));
    wait_until("another state has another tag", PROMPTLY, || get(&world, &[("if-none-match", &tag)]).status() == 200);
    // A state that comes again has the name that it had.
    let mut states = Vec::new();
    for _ in 0..2 {
        let other = stamped(agent(&tenant.namespace, "other", &json!({})), "admin");
        states.push(whole(&world)["id"].clone());
        world.apply(&other).expect("created");
        wait_until("it is listed", PROMPTLY, || whole(&world)["id"] != states[states.len() - 1]);
        world.kubectl().run(&["delete", "agent", "other", "-n", &tenant.namespace]).expect("deleted");
        wait_until("it is gone", PROMPTLY, || whole(&world)["agents"].as_object().is_some_and(serde_json::Map::is_empty));
    }
    assert_eq!(states[0], states[1]);
}

#[test]
fn the_stream_begins_with_the_state_and_follows_it() {
    let world = World::shared();
    let tenant = world.tenant("stream");
    let uid = uid(&tenant);
    let mut events = Events::open(world);
    let first = events.next().expect("the state");
    assert_eq!((first.kind.as_str(), &header(&first.data)["typ"]), ("snapshot", &json!("revocations+jwt")));
    let mut state = claims(&first.data);
    assert_eq!((&state["agents"][&uid], state["id"].as_str()), (&json!(0), Some(first.id.as_str())));

    let token = claims(&tenant.access_token());
    let revoke = json!({"status": {"revoke": {"token": token["jti"]}}}).to_string();
    let arguments = ["patch", "agent", "bot", "-n", &tenant.namespace, "--subresource=status", "--type=merge", "-p", &revoke];
    let start = Instant::now();
    world.kubectl().run(&arguments).expect("an administrator may");
    let (mut beats, mut heard) = (0, Instant::now());
    let mut apply = |state: &mut Value, event: &Event| {
        assert!(heard.elapsed() < PROMPTLY, "a heartbeat comes at least every second");
        heard = Instant::now();
        let said = claims(&event.data);
        let kinds = [("change", "revocations-change+jwt"), ("heartbeat", "revocations-heartbeat+jwt")];
        assert!(kinds.contains(&(&event.kind, header(&event.data)["typ"].as_str().expect("typ"))), "{event:?}");
        assert!(said["as_of"].as_u64() >= state["as_of"].as_u64() && said["id"] == event.id.as_str(), "{said}");
        let prev = if event.kind == "change" { &said["prev"] } else { &said["id"] };
        assert_eq!(*prev, state["id"], "nothing is left out");
        for member in ["agents", "revoked", "issuers"] {
            for (key, value) in said[member].as_object().into_iter().flatten() {
                state[member][key] = value.clone();
            }
        }
        (state["id"], state["as_of"]) = (said["id"].clone(), said["as_of"].clone());
        beats += usize::from(event.kind == "heartbeat");
        said
    };
    loop {
        let event = events.next().expect("the stream goes on");
        let said = apply(&mut state, &event);
        if !said["revoked"][&uid].is_null() {
            assert_eq!(said["revoked"][&uid], json!([token["jti"]]), "only what changed");
            eprintln!("told {:?} after the instruction was sent", start.elapsed());
            break;
        }
    }
    tenant.patch(&json!({"spec": {"suspended": true}}));
    let gone = |said: &Value| said["agents"].as_object().is_some_and(|agents| agents.get(&uid).is_some_and(Value::is_null));
    loop {
        let event = events.next().expect("the stream goes on");
        if gone(&apply(&mut state, &event)) {
            break;
        }
    }
    for _ in 0..4 {
        let event = events.next().expect("the stream goes on");
        apply(&mut state, &event);
    }
    assert!(beats > 0);
}

/// The verifier of `tests/clients`, which follows the stream and knows nothing else.
struct Verifier {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Verifier {
    fn start(world: &World) -> Self {
        let mut process = Command::new("node")
            .arg(repository().join("tests/clients/revocations.mjs"))
            .env("COUNTERSIGN_URL", world.operator.url())
            .env("NODE_EXTRA_CA_CERTS", world.operator.ca_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let (input, output) = (process.stdin.take().expect("stdin"), process.stdout.take().expect("stdout"));
        Self { process, input, output: BufReader::new(output) }
    }

    /// What it thinks of a token.
    fn look(&mut self, token: &str) -> Value {
        writeln!(self.input, "{token}").expect("it listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line} (run `make clients` if a package is missing)"))
    }

    #[track_caller]
    fn is_alive(&mut self, token: &str) {
        let mut said = Value::Null;
        wait_until("the verifier knows the token", PATIENCE, || {
            said = self.look(token);
            said["alive"] == true
        });
    }

    /// Waits until it knows that the token is dead. Returns why.
    #[track_caller]
    fn dies(&mut self, what: &str, token: &str) -> String {
        let mut said = Value::Null;
        let took = wait_until(what, PROMPTLY, || {
            said = self.look(token);
            said["alive"] == false
        });
        eprintln!("{what}: the verifier knew after {took:?}");
        said["reason"].as_str().expect("a reason").to_owned()
    }

    /// Ends it. Fails unless it is content.
    fn end(self) {
        let Self { mut process, input, .. } = self;
        drop(input);
        assert!(process.wait().expect("it ends").success());
    }
}

#[test]
fn r12_a_verifier_that_works_offline_knows_within_a_second() {
    let world = World::shared();
    let mut verifier = Verifier::start(world);
    let team = Team::start("offline");
    let id_token = id_token();
    let tokens = || {
        let called = team.called(&id_token);
        let found = team.reads("search", &called).expect(200).text("access_token");
        (called, found)
    };
    let revoke = |name: &str, token: &str| {
        let form = [("token", token), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", team.credential(name))];
        world.post("/oauth2/revoke", &form).expect(200);
    };
    let instruct = |name: &str, revoke: Value| {
        let patch = json!({"status": {"revoke": revoke}}).to_string();
        let arguments = ["patch", "agent", name, "-n", &team.namespace, "--subresource=status", "--type=merge", "-p", &patch];
        world.kubectl().run(&arguments).expect("an administrator may");
    };
    let (called, found) = tokens();
    let (beside, _) = tokens();
    verifier.is_alive(&called);
    verifier.is_alive(&found);
    revoke("bot", &called);
    assert_eq!(verifier.dies("the token above it was given up", &found), "it is revoked");
    verifier.dies("it was given up", &called);
    verifier.is_alive(&beside);

    let (called, found) = tokens();
    verifier.is_alive(&found);
    instruct("bot", json!({"chain": claims(&called)["txn"]}));
    verifier.dies("the chain was revoked", &found);

    let (called, found) = tokens();
    verifier.is_alive(&found);
    instruct("search", json!({"all": true}));
    assert!(verifier.dies("all tokens of an agent were revoked", &found).contains("/search are dead"));
    verifier.is_alive(&called);

    team.patch("bot", &json!({"spec": {"suspended": true}}));
    verifier.dies("the first agent was suspended", &called);
    verifier.end();
}

#[test]
fn r4_a_verifier_that_works_offline_knows_which_users_are_revoked() {
    let world = World::shared();
    let users = crate::revoke_admin::Users::start(world, "offline-users");
    let mut verifier = Verifier::start(world);
    let [alice, bob] = ["alice", "bob"].map(|name| users.signed_in(name));
    verifier.is_alive(&alice);
    verifier.is_alive(&bob);
    let instruct = |revoke: Value| {
        let patch = json!({"status": {"revoke": revoke}}).to_string();
        let arguments = ["patch", "trustedissuer", users.issuer(), "--subresource=status", "--type=merge", "-p", &patch];
        world.kubectl().run(&arguments).expect("an administrator may");
    };
    instruct(json!({"user": "alice@acme.example"}));
    assert_eq!(verifier.dies("a user was revoked", &alice), "the tokens of the user are revoked");
    verifier.is_alive(&bob);
    let again = users.signed_in("alice");
    verifier.is_alive(&again);
    let said = whole(world).to_string();
    assert!(!said.contains("alice"), "a public list names nobody");
    instruct(json!({"allUsers": true}));
    verifier.dies("all users were revoked", &bob);
    verifier.dies("all users were revoked, whatever their own counts", &again);
    let last = users.signed_in("bob");
    verifier.is_alive(&last);
    world.kubectl().run(&["delete", "trustedissuer", users.issuer()]).expect("deleted");
    assert!(verifier.dies("the issuer was deleted", &last).contains("not trusted any more"));
    verifier.end();
}

#[test]
fn the_page_shows_the_verifier_that_the_tests_run() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).expect("a file");
    let verifier = read("tests/clients/revocation-feed.mjs");
    assert!(read("docs/revocation.md").contains(&format!("```js\n{verifier}```\n")), "docs/revocation.md is behind");
}

#[test]
fn a_view_that_is_too_old_is_not_signed_and_ends_every_stream() {
    // A world of its own: its API server is frozen.
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant("stale");
    let token = tenant.access_token();
    let mut verifier = Verifier::start(&world);
    verifier.is_alive(&token);
    let mut events = Events::open(&world);
    assert_eq!(events.next().expect("the state").kind, "snapshot");
    let api_server = world.cluster.api_server().expect("a cluster that we started");
    api_server.signal("STOP").expect("frozen");
    let last = loop {
        let event = events.next().expect("it says why it ends");
        match event.kind.as_str() {
            "heartbeat" | "change" => {
                let said = claims(&event.data);
                let time = |claim: &str| said[claim].as_u64().expect("a time");
                assert!(time("as_of") + 11 >= time("iat"), "{said}");
            }
            other => break other.to_owned(),
        }
    };
    assert_eq!(last, "stale");
    assert!(events.next().is_none(), "and then it ends");
    let reply = Reply::from(get(&world, &[])).refused(503, "temporarily_unavailable");
    assert_eq!(reply.headers["retry-after"], "1");
    Reply::from(get(&world, &[("accept", "text/event-stream")])).refused(503, "temporarily_unavailable");
    Reply::from(get(&world, &[("if-none-match", "*")])).refused(503, "temporarily_unavailable");
    assert!(verifier.dies("nobody can tell", &token).contains("older than it says"));
    api_server.signal("CONT").expect("thawed");
    verifier.is_alive(&token);
    verifier.end();
}

#[test]
fn a_stream_ends_when_the_operator_does() {
    let world = World::start(4, &[], &[]);
    let mut events = Events::open(&world);
    assert_eq!(events.next().expect("the state").kind, "snapshot");
    let start = Instant::now();
    world.operator.process().begin_stop();
    while events.next().is_some() {}
    assert!(start.elapsed() < PROMPTLY, "{:?}", start.elapsed());
}

#[test]
fn there_are_only_so_many_streams_and_one_that_ends_makes_room() {
    // A world of its own: nobody else can follow the stream.
    let world = World::start(4, &[], &[]);
    let mut open: Vec<Events> = (0..256).map(|_| Events::open(&world)).collect();
    let refused = Reply::from(get(&world, &[("accept", "text/event-stream")])).refused(503, "temporarily_unavailable");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(get(&world, &[]).status(), 200, "the state itself is there for everybody");
    open.pop();
    wait_until("there is room", PATIENCE, || get_status_of_stream(&world) == 200);
}

/// The status with which a stream is answered; it is not read.
fn get_status_of_stream(world: &World) -> u16 {
    get(world, &[("accept", "text/event-stream")]).status().as_u16()
}

#[test]
fn r9_what_was_deleted_while_nobody_watched_is_dead_after_a_compaction() {
    // Watches go to etcd itself, which forgets what was a second ago: a watch that was away is told 410 Gone.
    let flags = ["--etcd-compaction-interval=1s", "--watch-cache=false"].map(str::to_owned);
    let options = ClusterOptions { api_server_flags: flags.into(), ..ClusterOptions::default() };
    let world = World::start_on(&options, 4, &[], &["--staleness-bound=5"]);
    let server = world.resource_server(DOCS);
    let (deleted, suspended, kept) = (world.tenant("deleted"), world.tenant("suspended"), world.tenant("kept"));
    // Each list that is read anew has to be confirmed first, and here watches are broken off all the time.
    let tokens = [&deleted, &suspended, &kept].map(|tenant| {
        let mut token = None;
        wait_until("there is a token", PATIENCE, || {
            token = world.exchange(&tenant.token).body["access_token"].as_str().map(str::to_owned);
            token.is_some()
        });
        token.expect("a token")
    });
    let uids = [&deleted, &suspended, &kept].map(uid);
    let process = world.operator.process();
    process.signal("STOP").expect("frozen");
    let frozen = Instant::now();
    world.kubectl().run(&["delete", "agent", "bot", "-n", &deleted.namespace]).expect("deleted");
    suspended.patch(&json!({"spec": {"suspended": true}}));
    let list = "/apis/countersign.dev/v1alpha1/agents";
    let now = world.kubectl().run(&["get", "--raw", list]).expect("a list");
    let now: Value = serde_json::from_str(&now).expect("JSON");
    let then =
        format!("{list}?resourceVersionMatch=Exact&resourceVersion={}", now["metadata"]["resourceVersion"].as_str().expect("it"));
    wait_until("etcd has forgotten it", PATIENCE, || {
        world.kubectl().run(&["get", "--raw", &then]).is_err_and(|failure| failure.stderr.contains("too old"))
    });
    // What it saw last may be taken for true as long as the view is young enough; here it is too old when the process goes on.
    std::thread::sleep(Duration::from_secs(6).saturating_sub(frozen.elapsed()));
    process.signal("CONT").expect("thawed");
    let mut answers = 0;
    wait_until("it answers again", PATIENCE, || {
        let replies = [&tokens[0], &tokens[1], &tokens[2]].map(|token| world.introspect(&server, token));
        let state = get(&world, &[]);
        if state.status() == 200 {
            let said = claims(&state.text().expect("a body"));
            assert!(
                said["agents"].get(&uids[0]).is_none() && said["agents"].get(&uids[1]).is_none(),
                "it never vouches for the dead"
            );
        }
        for dead in &replies[..2] {
            assert!(dead.status == 503 || !dead.is_active(), "nor is it taken for alive");
        }
        answers += usize::from(replies[2].status == 200 && replies[2].is_active());
        answers > 3
    });
    wait_until("it vouches for the living", PATIENCE, || {
        let state = get(&world, &[]);
        state.status() == 200 && claims(&state.text().expect("a body"))["agents"].get(&uids[2]).is_some()
    });
}
