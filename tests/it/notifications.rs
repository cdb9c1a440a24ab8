//! People are told of requests for approval: real messages, verified by the official library of Standard Webhooks. What stands in for
//! Slack says so itself.

use crate::payments::{Asked, asked};
use crate::support::cluster::ClusterOptions;
use crate::support::operator::OperatorOptions;
use crate::support::postgres::Postgres;
use crate::support::receiver::Receiver;
use crate::world::{PATIENCE, World, wait_until};
use serde_json::{Value, json};

/// An operator that tells these receivers, each of everything.
fn world(receiver: &Receiver, receivers: &[Value]) -> World {
    world_with(receiver, &json!({"receivers": receivers, "routes": to_all(receivers)}))
}

fn to_all(receivers: &[Value]) -> Vec<Value> {
    receivers.iter().map(|receiver| json!({"receiver": receiver["name"]})).collect()
}

fn world_with(receiver: &Receiver, config: &Value) -> World {
    let args = receiver.configure(config).expect("written");
    World::start(4, &[], &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What has arrived at `path`, which must all be whole and ours.
#[track_caller]
fn arrived(receiver: &Receiver, path: &str) -> Vec<Value> {
    let all = receiver.received().expect("lines");
    let at_path: Vec<Value> = all.into_iter().filter(|line| line["path"] == format!("/{path}")).collect();
    for line in &at_path {
        assert_eq!(line["wrong"], Value::Null, "{line}");
    }
    at_path
}

/// Waits for what is said of `request` on `occasion`.
#[track_caller]
fn told(receiver: &Receiver, path: &str, request: &Asked<'_>, occasion: &str) -> Value {
    let id = format!("{}.{occasion}", request.id);
    let find = || arrived(receiver, path).into_iter().find(|line| line["id"] == id.as_str());
    wait_until(&format!("{path} hears {occasion}"), PATIENCE, || find().is_some());
    find().expect("found")["body"].clone()
}

/// The condition that says whether people were told.
fn condition(request: &Asked<'_>) -> Value {
    let conditions = request.status()["conditions"].clone();
    conditions.as_array().into_iter().flatten().find(|c| c["type"] == "Notified").cloned().unwrap_or(Value::Null)
}

#[track_caller]
fn condition_says(request: &Asked<'_>, status: &str, word: &str) {
    wait_until(&format!("Notified is {status}: {word}"), PATIENCE, || {
        let found = condition(request);
        found["status"] == status && found["message"].as_str().is_some_and(|message| message.contains(word))
    });
}

#[test]
fn what_happens_to_a_request_reaches_whom_it_is_for_and_the_request_says_so() {
    let receiver = Receiver::start().expect("a receiver");
    let receivers =
        [receiver.webhook("all", "all"), receiver.webhook("critical", "critical"), receiver.webhook("denials", "denials")];
    let routes = json!([
        {"receiver": "all", "namespaces": ["told-*"]},
        {"receiver": "critical", "minimumRisk": "Critical"},
        {"receiver": "denials", "on": ["Denied"], "capabilities": ["payment-*"]},
    ]);
    let world = world_with(&receiver, &json!({"receivers": receivers, "routes": routes}));
    let name = world.capability(&json!({"headline": "pay {amount} on {id}"}));
    let entry = json!({"name": name, "approval": "Required", "resources": ["invoice:2026/*"]});
    let tenant = world.tenant_with("told", &json!({"capabilities": [entry]}));
    world.approver("bob", &tenant.namespace, &name);
    let first = asked(&tenant, &name);
    let event = told(&receiver, "all", &first, "requested");
    let object = first.object();
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("dev.countersign.jitrequest.requested")));
    assert_eq!(event["source"], world.operator.issuer());
    let data = &event["data"];
    assert_eq!(data["headline"], "bot wants to pay 5 on 2026/7");
    assert_eq!((&data["uid"], &data["phase"]), (&object["metadata"]["uid"], &json!("Pending")));
    assert_eq!((&data["digest"], &data["approvals"]), (&object["status"]["digest"], &json!("0/1")));
    assert_eq!((&data["parameters"], &data["risk"]), (&json!({"amount": 5}), &json!("High")));
    let page = format!("/portal/requests/{}/{}", tenant.namespace, first.name);
    assert!(data["url"].as_str().is_some_and(|url| url.ends_with(&page)), "{data}");
    condition_says(&first, "True", "told: all");
    first.approve("bob");
    let event = told(&receiver, "all", &first, "approved");
    assert_eq!(event["data"]["decisions"][0]["by"], "bob");
    first.token();

    let second = asked(&tenant, &name);
    told(&receiver, "all", &second, "requested");
    second.decide("bob", "Denied").expect("denied");
    let event = told(&receiver, "denials", &second, "denied");
    assert_eq!(event["data"]["message"], "the request was denied by bob");
    told(&receiver, "all", &second, "denied");
    // Withdrawn by deletion, and by the agent.
    let third = asked(&tenant, &name);
    told(&receiver, "all", &third, "requested");
    world.kubectl().run(&["delete", "jitrequest", &third.name, "-n", &tenant.namespace]).expect("deleted");
    told(&receiver, "all", &third, "cancelled");
    assert_eq!(arrived(&receiver, "denials").len(), 1, "its route is for denials");
    assert_eq!(arrived(&receiver, "critical").len(), 0, "nothing was that bad");
    let ids: Vec<Value> = arrived(&receiver, "all").iter().map(|line| line["id"].clone()).collect();
    assert_eq!(ids.len(), 6, "each event once: {ids:?}");
    let events = world.kubectl().get_json(&["get", "events", "-n", &tenant.namespace]).expect("events");
    let notified = |event: &Value| event["reason"] == "Notified" && event["involvedObject"]["name"] == first.name.as_str();
    assert!(events["items"].as_array().expect("items").iter().any(notified), "{events}");
}

#[test]
fn a_second_person_is_called_and_chat_shows_one_message_for_one_request() {
    let receiver = Receiver::start().expect("a receiver");
    let world = world(&receiver, &[receiver.webhook("all", "all"), receiver.slack("chat")]);
    let name = world.capability(&json!({"approval": {"approvals": 2}}));
    let tenant = world.tenant_with("chat", &json!({"capabilities": [{"name": name, "approval": "Required"}]}));
    for person in ["bob", "carol"] {
        world.approver(person, &tenant.namespace, &name);
    }
    let request = asked(&tenant, &name);
    let calls = || {
        receiver
            .received()
            .expect("lines")
            .into_iter()
            .filter(|line| line["path"].as_str().is_some_and(|p| p.starts_with("/slack")))
    };
    wait_until("it is posted", PATIENCE, || calls().count() == 1);
    request.decide("bob", "Approved").expect("approved");
    let event = told(&receiver, "all", &request, "approved-by-one");
    assert_eq!(event["data"]["approvals"], "1/2");
    wait_until("it is updated", PATIENCE, || calls().count() == 2);
    request.approve("carol");
    wait_until("it is updated again", PATIENCE, || calls().count() == 3);
    let calls: Vec<Value> = calls().collect();
    let paths: Vec<&Value> = calls.iter().map(|call| &call["path"]).collect();
    assert_eq!(paths, ["/slack/chat.postMessage", "/slack/chat.update", "/slack/chat.update"]);
    assert_eq!(calls[1]["body"]["ts"], calls[2]["body"]["ts"], "the same message");
    let said: Vec<String> =
        calls.iter().map(|call| call["body"]["blocks"][0]["text"]["text"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(said, ["Approval needed (0/2)", "Approval needed (1/2)", "Approved"]);
    condition_says(&request, "True", "told: all, chat");
}

#[test]
fn what_does_not_arrive_is_sent_again_and_a_receiver_that_hangs_or_lies_delays_no_other() {
    let receiver = Receiver::start().expect("a receiver");
    let mut closed = receiver.webhook("closed", "closed");
    closed["allowedNetworks"] = json!([]);
    let mut stranger = receiver.webhook("stranger", "stranger");
    stranger["certificateAuthority"] = Value::Null;
    let receivers = [
        receiver.webhook("hangs", "hang"),
        receiver.webhook("never-ends", "endless"),
        receiver.webhook("redirects", "redirect"),
        receiver.webhook("well", "well"),
        receiver.webhook("flaky", "flaky"),
        receiver.webhook("gone", "gone"),
        closed,
        stranger,
    ];
    let world = world(&receiver, &receivers);
    let (tenant, name) = world.payments_tenant("lost");
    let request = asked(&tenant, &name);
    told(&receiver, "well", &request, "requested");
    told(&receiver, "endless", &request, "requested");
    wait_until("the flaky one has it twice", PATIENCE, || arrived(&receiver, "flaky").len() == 2);
    let flaky = arrived(&receiver, "flaky");
    assert_eq!(
        (&flaky[0]["id"], &flaky[0]["body"]),
        (&flaky[1]["id"], &flaky[1]["body"]),
        "the same message under the same identifier"
    );
    // Of all that is wrong the worst is said: what is not tried again.
    condition_says(&request, "False", "not tried again: gone (it answers with status 410: gone)");
    let log = || world.operator.process().log();
    for (name, why) in [
        ("hangs", "no answer within 10 s"),
        ("redirects", "status 307, and redirects are not followed"),
        ("closed", "not public"),
        ("stranger", "certificate"),
    ] {
        let says = |line: &str| line.contains(&format!("\"receiver\":\"{name}\"")) && line.contains(why);
        wait_until(&format!("the log says of {name}: {why}"), PATIENCE, || log().lines().any(says));
    }
    let paths: Vec<String> = receiver.received().expect("lines").iter().map(|line| line["path"].to_string()).collect();
    for never in ["/verified", "/closed", "/stranger"] {
        assert!(!paths.iter().any(|path| path.contains(never)), "{never}: {paths:?}");
    }
    let metrics = world.operator.get("/metrics").expect("metrics").body;
    assert!(metrics.contains("countersign_notifications_total{receiver=\"well\",outcome=\"delivered\"} 1"), "{metrics}");
    assert!(!log().contains("whsec_") && !log().contains("whsk_") && !log().contains("xoxb"), "no secret is logged");
    // The agent is not kept waiting by any of this.
    world.approver("bob", &tenant.namespace, &name);
    request.approve("bob");
    request.token();
}

#[test]
fn a_configuration_that_is_replaced_takes_effect_and_one_that_cannot_be_meant_changes_nothing() {
    let receiver = Receiver::start().expect("a receiver");
    let world = world(&receiver, &[receiver.webhook("first", "first")]);
    let (tenant, name) = world.payments_tenant("reload");
    let request = asked(&tenant, &name);
    told(&receiver, "first", &request, "requested");
    let wrong = json!({"receivers": [receiver.webhook("second", "second")], "routes": [{"receiver": "third"}]});
    receiver.configure(&wrong).expect("written");
    wait_until("it says so", PATIENCE, || world.operator.process().log().contains("no receiver"));
    let other = asked(&tenant, &name);
    told(&receiver, "first", &other, "requested");
    let receivers = [receiver.webhook("second", "second")];
    receiver.configure(&json!({"receivers": receivers, "routes": to_all(&receivers)})).expect("written");
    // The new one hears of what waits for a decision, too.
    for request in [&request, &other] {
        told(&receiver, "second", request, "requested");
    }
    let last = asked(&tenant, &name);
    told(&receiver, "second", &last, "requested");
    assert_eq!(arrived(&receiver, "first").len(), 2);
}

#[test]
fn an_operator_does_not_start_with_a_configuration_that_cannot_be_meant() {
    let receiver = Receiver::start().expect("a receiver");
    let args = receiver.configure(&json!({"receivers": [], "routes": [{"receiver": "nobody"}]})).expect("written");
    let output = std::process::Command::new(crate::world::binary())
        .args(["serve", "--issuer=https://countersign.test", "--namespace=x", "--database=sqlite:///nonexistent/countersign.db"])
        .args(&args)
        .env_clear()
        .output()
        .expect("it runs");
    assert!(!output.status.success());
}

#[test]
fn p6_kill_9_of_the_sender_with_500_queued_loses_none_and_sends_none_more_than_twice() {
    let receiver = Receiver::start().expect("a receiver");
    let receivers: Vec<Value> = (0..20).map(|n| receiver.webhook(&format!("slow-{n}"), &format!("slow/{n}"))).collect();
    let config = json!({"receivers": receivers, "routes": to_all(&receivers)});
    let args = receiver.configure(&config).expect("written");
    let world = World::start_shareable_on(&ClusterOptions::default(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let options = OperatorOptions {
        name: "other".to_owned(),
        issuer: Some(world.operator.issuer().to_owned()),
        args,
        ..OperatorOptions::default()
    };
    let other = world.another(options);
    let (tenant, name) = world.payments_tenant("many");
    let requests: Vec<Asked<'_>> = (0..25).map(|_| asked(&tenant, &name)).collect();
    let count = || receiver.received().expect("lines").len();
    wait_until("some have arrived", PATIENCE, || count() >= 40);
    let lease = world
        .kubectl()
        .get_json(&["get", "lease", "countersign-notifier", "-n", crate::support::install::NAMESPACE])
        .expect("the Lease");
    let holder = lease["spec"]["holderIdentity"].as_str().expect("a holder").to_owned();
    let dead = if holder.ends_with(&format!("-{}", other.process().pid())) { &other } else { &world.operator };
    dead.process().signal("KILL").expect("killed");
    let at_death = count();
    assert!(at_death < 500, "{at_death} had arrived before the sender died: nothing is shown by this");
    let seen = || {
        let mut seen: std::collections::HashMap<(String, String), u32> = std::collections::HashMap::new();
        for line in receiver.received().expect("lines") {
            assert_eq!(line["wrong"], Value::Null, "{line}");
            *seen.entry((line["path"].to_string(), line["id"].to_string())).or_default() += 1;
        }
        seen
    };
    wait_until("all have arrived", PATIENCE * 4, || seen().len() == requests.len() * receivers.len());
    // What the dead one had sent and not noted is sent again; only then is it over.
    let waiting = "SELECT count(*) FROM notices WHERE state = 'waiting'";
    wait_until("nothing waits", PATIENCE * 3, || {
        Postgres::shared().sql(world.database(), waiting).expect("a number").trim() == "0"
    });
    let seen = seen();
    // On a machine so busy that an answer took longer than a sender waits, that too is a reason to send again; the log says so.
    let logs = [world.operator.process().log(), other.process().log()].concat();
    for ((path, id), times) in &seen {
        let (name, id) = (path.trim_matches('"').replace("/slow/", "\"slow-"), id.trim_matches('"'));
        let failed = |line: &&str| line.contains("did not arrive") && line.contains(&format!("{name}\"")) && line.contains(id);
        let failures = u32::try_from(logs.lines().filter(failed).count()).expect("few");
        assert!(*times <= 2 + failures, "{path} has {id} {times} times, and {failures} attempts failed");
    }
    let twice = seen.values().filter(|times| **times == 2).count();
    eprintln!("{at_death} of 500 had arrived when the sender was killed; {twice} arrived twice, none more often, none never");
}
