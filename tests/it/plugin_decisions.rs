//! `kubectl countersign approve`, `deny`, `suspend` and `resume`, on a cluster with MutatingAdmissionPolicy and on one without.

use crate::office::{Office, both_ways, both_ways_alone, create};
use crate::payments::{asked, details};
use crate::plugin::{Following, by_kubectl, command, person, plugin, plugin_binary};
use crate::support::kubectl::Kubectl;
use crate::world::{CHANGED_BY, DOCS, PATIENCE, Stamp, World, wait_until};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};

/// A plugin on a terminal of its own.
struct Terminal {
    following: Following,
    keys: std::process::ChildStdin,
}

impl Terminal {
    /// Python's pty stands between: what is written to it is typed, and what appears is printed.
    fn start(who: &Kubectl, args: &[&str]) -> Self {
        let script = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut python = command(Path::new("python3"), who, "100");
        python.args(["-c", script]).arg(plugin_binary()).args(args).stdin(Stdio::piped());
        let mut keys = None;
        let following = Following::start_with(python, |child: &mut Child| keys = child.stdin.take());
        Self { following, keys: keys.expect("stdin") }
    }

    fn types(&mut self, text: &str) {
        writeln!(self.keys, "{text}").expect("typed");
    }

    /// Waits for its end. Returns its status, and what it printed.
    fn ends(self) -> (Option<i32>, String) {
        let Self { following, keys } = self;
        let (status, lines) = following.ends();
        drop(keys);
        (status, lines.join("\n"))
    }
}

fn status(office: &Office<'_>, name: &str) -> Value {
    office.stored(name)["status"].clone()
}

#[test]
fn a_person_approves_and_denies_and_is_told_what_came_of_it() {
    both_ways("decide", |office| {
        let (bob, namespace) = (office.person("bob"), office.namespace());
        office.ask("yes");
        let said = by_kubectl(&bob, &["approve", "yes", "-n", namespace, "--yes", "--reason", "Goods received."]).expect(0);
        assert!(said.starts_with("bot wants ") && said.contains("digest        sha256:"), "it is shown first: {said}");
        assert!(said.contains(&format!("{namespace}/yes: approved by bob (1/1): the agent can have its token, ")), "{said}");
        let stored = status(office, "yes");
        assert_eq!((&stored["phase"], stored["approvals"].as_array().map(Vec::len)), (&json!("Approved"), Some(1)));
        let approval = &stored["approvals"][0];
        assert_eq!((&approval["by"]["username"], &approval["comment"]), (&json!("bob"), &json!("Goods received.")));
        assert_eq!(office.answered("yes").status, 200, "and the agent has its token");

        office.ask("no");
        let said = plugin(&bob, &["deny", "no", "-n", namespace, "-y", "--reason=Never ordered."]).expect(0);
        assert!(said.contains(&format!("{namespace}/no: denied by bob")), "{said}");
        assert_eq!(office.ended("no", "Denied"), "Denied");
        let again = plugin(&bob, &["approve", "no", "-n", namespace, "--yes"]);
        assert_eq!(again.status, Some(1));
        assert!(again.err.contains("has ended: Denied: the request was denied by bob"), "{}", again.err);

        // Several at once; the status is that of the worst.
        for name in ["a", "b"] {
            office.ask(name);
        }
        let several = plugin(&bob, &["approve", "a", "no", "b", "-n", namespace, "--yes"]);
        assert_eq!(several.status, Some(1), "{}", several.err);
        for name in ["a", "b"] {
            assert!(several.out.contains(&format!("{namespace}/{name}: approved by bob")), "{}", several.out);
        }
        assert!(several.out.contains("no: ") && several.out.contains("has ended"), "{}", several.out);
        let missing = plugin(&bob, &["approve", "missing", "-n", namespace, "--yes"]);
        assert_eq!(missing.status, Some(2), "{}", missing.err);
    });
}

#[test]
fn a_request_can_be_named_by_its_uid_and_none_that_only_has_it_for_a_name() {
    let world = World::shared();
    let office = Office::open(world, Stamp::ByPolicy, "uid");
    let (bob, namespace) = (office.person("bob"), office.namespace());
    office.ask("meant");
    let uid = office.stored("meant")["metadata"]["uid"].as_str().expect("a UID").to_owned();
    // The agent knows it too, and asks for something else under that name.
    office.ask(&uid);
    let said = plugin(&bob, &["approve", &uid, "-n", namespace, "--yes"]).expect(0);
    assert!(said.contains(&format!("{namespace}/meant: approved by bob")), "{said}");
    assert_eq!(status(&office, &uid)["phase"], "Pending");
    let unknown = plugin(&bob, &["show", "6f1c0f0e-7c1f-4f0e-9a55-0d7d6f6a2b11", "-n", namespace]);
    assert_eq!((unknown.status, unknown.err.contains("there is no request")), (Some(2), true), "{}", unknown.err);
}

#[test]
fn a_denial_takes_back_an_approval_that_was_not_used() {
    both_ways("takeback", |office| {
        let (alice, bob, namespace) = (office.person("alice"), office.person("bob"), office.namespace());
        office.ask("one");
        plugin(&alice, &["approve", "one", "-n", namespace, "--yes", "--reason", "Fine."]).expect(0);
        plugin(&bob, &["deny", "one", "-n", namespace, "--yes"]).expect(0);
        let approvals = status(office, "one")["approvals"].clone();
        assert_eq!((&approvals[1]["by"]["username"], approvals[1].get("comment")), (&json!("bob"), None), "{approvals}");
        office.answered("one").refused(400, "access_denied");
    });
}

#[test]
fn who_may_not_decide_is_told_why_and_nothing_is_decided() {
    both_ways("may-not", |office| {
        let namespace = office.namespace();
        office.ask("one");
        let refused = by_kubectl(&office.person("carol"), &["approve", "one", "-n", namespace, "--yes"]);
        assert_eq!(refused.status, Some(1), "{}", refused.err);
        assert!(refused.err.contains("may not decide on capability") && refused.err.contains("verb approve"), "{}", refused.err);

        // RBAC would let it, admission does not.
        office.may_approve("bot", &[crate::office::service_account(namespace, "bot")]);
        office.world().bind_cluster_role(
            namespace,
            "bot-status",
            "countersign-approver",
            &[crate::office::service_account(namespace, "bot")],
        );
        wait_until("the right is seen", PATIENCE, || {
            office
                .bot
                .run(&["auth", "can-i", "patch", "jitrequests.countersign.dev", "--subresource=status", "-n", namespace])
                .is_ok()
        });
        let refused = plugin(&office.bot, &["approve", "one", "-n", namespace, "--yes"]);
        assert_eq!(refused.status, Some(1), "{}", refused.err);
        let why = ["a ServiceAccount never approves", "nobody approves a request of their own"];
        assert!(why.iter().any(|why| refused.err.contains(why)), "{}", refused.err);

        let nobody = by_kubectl(&office.person("bob"), &["approve", "one", "-n", namespace]);
        assert_eq!(nobody.status, Some(2), "no terminal, and not told that it is meant: {}", nobody.err);
        assert!(nobody.err.contains("--yes"), "{}", nobody.err);
        let now = status(office, "one");
        assert_eq!((&now["phase"], now.get("decision"), &now["approvals"]), (&json!("Pending"), None, &json!([])));
    });
}

#[test]
fn an_approval_that_does_not_count_is_no_success() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("void");
    tenant.patch(&json!({"spec": {"owner": "bob"}}));
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE).expect("seen");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    let void = plugin(&person(world, "bob"), &["approve", &asked.name, "-n", &tenant.namespace, "--yes"]);
    assert_eq!(void.status, Some(1), "{}", void.err);
    assert!(void.out.contains("the decision of bob does not count: bob owns an agent that asks"), "{}", void.out);
    assert_eq!(asked.status()["phase"], "Pending");
}

#[test]
fn two_persons_must_be_two() {
    let world = World::shared();
    let capability = world.capability(&json!({"approval": {"approvals": 2}}));
    let tenant = world.tenant_with("pair", &json!({"capabilities": [{"name": capability, "approval": "Required"}]}));
    let [alice, bob] = ["alice", "bob"].map(|name| {
        world.approver(name, &tenant.namespace, &capability);
        person(world, name)
    });
    let asked = crate::payments::asked_for(&tenant, &details(&capability, "invoice:2026/7", &json!({})));
    let approve = |who: &Kubectl| plugin(who, &["approve", &asked.name, "-n", &tenant.namespace, "--yes"]);
    assert!(approve(&bob).expect(0).contains("approved by bob (1/2): somebody else must approve it too"));
    let twice = approve(&bob);
    assert_eq!(twice.status, Some(1), "{}", twice.err);
    assert!(twice.out.contains("does not count: this person has approved already"), "{}", twice.out);
    assert!(approve(&alice).expect(0).contains("approved by alice (2/2): the agent can have its token"));
    asked.token();
}

#[test]
fn the_approval_is_for_what_was_shown_and_for_nothing_that_took_its_name() {
    both_ways("swap", |office| {
        let namespace = office.namespace();
        office.ask("pay");
        let shown = status(office, "pay")["digest"].clone();
        let mut terminal = Terminal::start(&office.person("bob"), &["approve", "pay", "-n", namespace]);
        terminal.following.prints(&["token life", "5m at most"]);
        // While somebody reads, the agent withdraws it and asks for something else under the same name.
        office.bot.run(&["delete", "jitrequest", "pay", "-n", namespace]).expect("withdrawn");
        let operation = json!({"capability": office.capability, "audience": DOCS, "parameters": {"amount": 1_000_000}});
        create(&office.bot, &office.object(&office.bot, "pay", &json!({"operation": operation}))).expect("asked");
        office.settled("pay", "Pending");
        let now = status(office, "pay");
        assert_ne!(now["digest"], shown);
        terminal.types("yes");
        let (code, said) = terminal.ends();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("status.decision.digest is not the digest of this request"), "{said}");
        let now = status(office, "pay");
        assert_eq!((&now["phase"], now.get("decision"), &now["approvals"]), (&json!("Pending"), None, &json!([])));
    });
}

#[test]
fn whoever_is_asked_decides_by_the_word_yes_alone() {
    let world = World::shared();
    let office = Office::open(world, Stamp::ByPolicy, "asked");
    office.ask("one");
    let bob = office.person("bob");
    for word in ["y", "no", "YES", ""] {
        let mut terminal = Terminal::start(&bob, &["approve", "one", "-n", office.namespace()]);
        terminal.types(word);
        let (code, said) = terminal.ends();
        assert_eq!(code, Some(1), "{word}: {said}");
        assert!(said.contains("Approve? Type yes: ") && said.contains("nothing was decided"), "{said}");
    }
    assert_eq!(status(&office, "one")["approvals"], json!([]));
    let mut terminal = Terminal::start(&bob, &["deny", "one", "-n", office.namespace()]);
    terminal.types("yes");
    let (code, said) = terminal.ends();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Deny? Type yes: "), "{said}");
    office.settled("one", "Denied");
}

#[test]
fn what_the_operator_has_not_recorded_is_pending_and_others_wait_for_their_turn() {
    both_ways_alone("frozen", |office| {
        let (alice, bob, namespace) = (office.person("alice"), office.person("bob"), office.namespace());
        office.ask("one");
        office.ask("two");
        let ice = office.freeze();
        let late = plugin(&bob, &["approve", "one", "-n", namespace, "--yes", "--timeout=1s"]);
        assert_eq!(late.status, Some(3), "{}", late.err);
        assert!(late.err.contains("the decision is stored, but the operator has not recorded it within 1 s"), "{}", late.err);
        let told = plugin(&bob, &["approve", "two", "-n", namespace, "--yes", "--wait=false"]).expect(0);
        assert!(told.contains("Approved by bob, not recorded yet"), "{told}");
        // Somebody else's turn comes when that is recorded.
        let waits = plugin(&alice, &["approve", "two", "-n", namespace, "--yes", "--timeout=1s"]);
        assert_eq!(waits.status, Some(3), "{}", waits.err);
        let mut second = command(plugin_binary(), &alice, "100");
        second.args(["deny", "one", "-n", namespace, "--yes", "--timeout=60s"]);
        let second = Following::start(second);
        second.prints(&["digest", "sha256:"]);
        drop(ice);
        let (code, lines) = second.ends();
        assert_eq!(code, Some(0), "{lines:?}");
        office.settled("one", "Denied");
        office.settled("two", "Approved");
        assert_eq!(status(office, "two")["approvals"][0]["by"]["username"], "bob");
    });
}

#[test]
fn of_two_who_approve_at_once_one_waits_for_its_turn_and_both_count() {
    both_ways_alone("turns", |office| {
        let (alice, bob, namespace) = (office.person("alice"), office.person("bob"), office.namespace());
        let patch =
            json!({"spec": {"approval": {"approvals": 2}}, "metadata": {"annotations": {CHANGED_BY: "admin"}}}).to_string();
        office.admin().run(&["patch", "capability", &office.capability, "--type=merge", "-p", &patch]).expect("two must approve");
        let object = format!("capability/{}", office.capability);
        office.admin().wait_for("default", &object, "condition=Ready", PATIENCE).expect("the rule is in force");
        office.ask("pair");
        assert_eq!(status(office, "pair")["approvalProgress"], "0/2");
        let ice = office.freeze();
        plugin(&bob, &["approve", "pair", "-n", namespace, "--yes", "--wait=false"]).expect(0);
        let mut second = command(plugin_binary(), &alice, "100");
        second.args(["approve", "pair", "-n", namespace, "--yes", "--timeout=90s"]);
        let second = Following::start(second);
        second.prints(&["Approved by bob, which the operator has not recorded yet"]);
        drop(ice);
        let (code, lines) = second.ends();
        assert_eq!(code, Some(0), "{lines:#?}");
        assert!(lines.last().is_some_and(|line| line.contains("approved by alice (2/2)")), "{lines:#?}");
    });
}

#[test]
fn agents_are_suspended_and_resumed_by_whoever_may_and_the_stamp_says_who() {
    for (world, _) in World::both() {
        let tenant = world.tenant("suspend");
        let rules = json!([
            {"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "list", "patch"]},
            {"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "verbs": ["grant"]},
        ]);
        world.bind(&tenant.namespace, "suspender", &rules, &[crate::world::user("bob")]);
        let bob = person(world, "bob");
        let can = ["auth", "can-i", "patch", "agents.countersign.dev", "-n", &tenant.namespace];
        wait_until("the right is seen", PATIENCE, || bob.run(&can).is_ok());
        let token = tenant.access_token();
        let name = format!("{}/bot", tenant.namespace);
        let listed = by_kubectl(&bob, &["agents", "-n", &tenant.namespace]).expect(0);
        assert!(
            listed.contains("bot") && listed.contains("document.read, web.search") && listed.contains("team@example.com"),
            "{listed}"
        );

        let json = plugin(&bob, &["agents", "-n", &tenant.namespace, "-o", "json"]).expect(0);
        let list: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&list["kind"], &list["items"][0]["spec"]), (&json!("List"), &tenant.agent()["spec"]));

        assert!(
            by_kubectl(&bob, &["suspend", "bot", "-n", &tenant.namespace]).expect(0).contains("is suspended: it gets no token")
        );
        assert_eq!(tenant.agent()["metadata"]["annotations"][CHANGED_BY], "bob");
        assert_eq!(tenant.agent()["spec"]["suspended"], true);
        let server = world.resource_server(DOCS);
        wait_until("its token is dead", PATIENCE, || !world.introspect(&server, &token).is_active());
        assert!(plugin(&bob, &["suspend", &name]).expect(0).contains("is suspended already"));
        // The condition is written after the token is dead.
        wait_until("it is listed as suspended", PATIENCE, || {
            plugin(&bob, &["agents", "-n", &tenant.namespace]).expect(0).contains("no (Suspended)")
        });

        assert!(plugin(&bob, &["resume", &name]).expect(0).contains("goes on"));
        wait_until("it gets tokens", PATIENCE, || world.exchange(&tenant.token).status == 200);
        assert!(!world.introspect(&server, &token).is_active(), "what was dead stays dead");
        let refused = plugin(&person(world, "carol"), &["suspend", &name]);
        assert_eq!(refused.status, Some(1), "{}", refused.err);
        assert!(refused.err.contains("forbidden"), "{}", refused.err);
        assert_eq!(plugin(&bob, &["suspend", "nobody", "-n", &tenant.namespace]).status, Some(2));
    }
}
