//! What was used, revoked or decided is forgotten where an older copy takes the place of what knew it: a cluster that was restored, or a
//! standby that had not heard of the last commits. `tests/it/faults/restored.rs` does that to etcd itself.

use crate::audited::Ledger;
use crate::databases::block_on;
use crate::payments::{asked, docs_server};
use crate::support::cluster::ClusterOptions;
use crate::support::install::{NAMESPACE, RELEASE};
use crate::support::postgres::Postgres;
use crate::world::{PATIENCE, World, wait_until};
use serde_json::{Value, json};

/// Has the Lease say that it was written as often as in an older copy.
fn forgets(world: &World) {
    let patch = json!({"metadata": {"annotations": {"countersign.dev/writes": "0"}}}).to_string();
    world.kubectl().run(&["patch", "lease", RELEASE, "--namespace", NAMESPACE, "--type=merge", "-p", &patch]).expect("patched");
}

fn signing_keys(world: &World) -> Value {
    world.kubectl().get_json(&["get", "secret", RELEASE, "--namespace", NAMESPACE]).expect("the Secret")["data"].clone()
}

#[test]
fn in_an_older_copy_of_the_cluster_no_token_and_no_approval_from_before_counts() {
    let mut world = World::start(4, &[], &[]);
    let before = signing_keys(&world);
    let (namespace, capability, credential, token, server, name) = {
        let (payer, capability) = world.payments_tenant("older");
        world.approver("bob", &payer.namespace, &capability);
        let tenant = world.tenant("older-too");
        let token = world.exchange(&tenant.token).expect(200).text("access_token");
        let server = docs_server(&world);
        assert!(world.introspect(&server, &token).is_active());
        let request = asked(&payer, &capability);
        request.approve("bob");
        (payer.namespace.clone(), capability, tenant.token, token, server, request.name)
    };
    forgets(&world);
    world.operator.process().wait(PATIENCE).expect("it ends");
    assert!(world.operator.process().log().contains("an older copy of etcd was put in its place"));
    world.restart().expect("it starts again");
    assert!(!world.introspect(&server, &token).is_active());
    let phase = || world.kubectl().get_json(&["get", "jit", &name, "-n", &namespace]).expect("it")["status"]["phase"].clone();
    wait_until("the approval has ended", PATIENCE, || phase() == "Revoked");
    let after = signing_keys(&world);
    for (item, is_kept) in [("signing-keys", false), ("evidence-key", false), ("audit-key", true), ("ca.crt", true)] {
        assert_eq!(before[item] == after[item], is_kept, "{item}");
        assert!(after[item].is_string(), "{item}");
    }
    let lines = world.operator.audit_lines().expect("the audit log");
    let found: Vec<&Value> = lines.iter().filter(|record| record["event"] == "cluster.restored").collect();
    let [found] = found[..] else { panic!("{found:?}") };
    assert_eq!((&found["outcome"], &found["found_writes"]), (&json!("error"), &json!(0)));
    assert!(found["expected_writes"].as_u64().is_some_and(|writes| writes > 0), "{found}");
    // And everything goes on.
    let token = world.exchange(&credential).expect(200).text("access_token");
    assert!(world.introspect(&server, &token).is_active());
    let payer = world.tenant_with("older-again", &json!({"capabilities": [{"name": capability, "approval": "Required"}]}));
    world.approver("bob", &payer.namespace, &capability);
    let request = asked(&payer, &capability);
    request.approve("bob");
    request.token();
}

#[test]
fn an_operator_that_was_down_meanwhile_hears_of_an_older_copy_from_its_database() {
    let mut world = World::start(4, &[], &[]);
    let token = {
        let tenant = world.tenant("down");
        world.exchange(&tenant.token).expect(200).text("access_token")
    };
    let server = docs_server(&world);
    world.operator.process().begin_stop();
    world.operator.process().wait(PATIENCE).expect("it ends");
    forgets(&world);
    let refused = world.restart().expect_err("what it read at first may be from before").to_string();
    assert!(refused.contains("an older copy of etcd was put in its place"), "{refused}");
    world.restart().expect("it starts again");
    assert!(!world.introspect(&server, &token).is_active());
}

#[test]
fn p13_a_failover_to_a_standby_that_lacks_the_last_commits_is_recorded_and_gives_nothing_a_second_time() {
    let postgres = Postgres::start().expect("a server");
    let url = postgres.database().expect("a database");
    let world = World::start_on_both(&ClusterOptions::default(), url.clone());
    let agent = world.key_agent("failover");
    postgres.follow(false).expect("a standby");
    postgres.part().expect("cut off");
    let used: Vec<String> = (0..3).map(|_| agent.assertion()).collect();
    for assertion in &used {
        agent.ask(assertion).expect(200);
    }
    postgres.succeed().expect("the standby is there");
    assert_eq!(agent.ask(&agent.assertion()).status, 503, "a standby takes no writes");
    postgres.promote().expect("promoted");
    let none_again = || {
        for assertion in &used {
            let reply = agent.ask(assertion);
            assert!(matches!(reply.status, 401 | 503), "an assertion counted twice: {} {}", reply.status, reply.body);
        }
    };
    // From the first moment at which anything is answered.
    wait_until("the database is there", PATIENCE, || {
        none_again();
        agent.ask(&agent.assertion()).status == 200
    });
    none_again();
    assert_eq!(world.operator.metric("countersign_ledger_discontinuities_total").expect("a metric"), 1);
    let ledger = block_on(Ledger::read(&url));
    let found = ledger.records().find(|record| record["event"] == "ledger.discontinuity").expect("a record");
    assert_eq!(found["outcome"], "error", "{found}");
}
