//! Requests and approvals that were not written under the admission policies, or not by the operator: what is written meanwhile, or by
//! somebody who may write anything, is not honoured.

use crate::enforcement::{BINDING, in_force, take_away};
use crate::office::{OPERATOR, Office, both_ways, create, whoami};
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, Stamp, World, claims, forbidden, wait_until};
use serde_json::{Value, json};

/// Fails unless the only decision on the request is one that does not count, because nobody can tell who wrote it.
#[track_caller]
fn void(office: &Office<'_>, name: &str) {
    wait_until("the decision is recorded", PATIENCE, || {
        office.stored(name)["status"]["approvals"].as_array().is_some_and(|a| !a.is_empty())
    });
    let status = office.stored(name)["status"].clone();
    let [only] = status["approvals"].as_array().expect("approvals").as_slice() else { panic!("{status}") };
    assert!(only["void"].as_str().is_some_and(|why| why.starts_with("nobody can tell who wrote it")), "{status}");
    assert_eq!((&status["phase"], &status["approvalProgress"]), (&json!("Pending"), &json!("0/1")));
    // Not so soon after another poll as it may.
    let error = office.poll(name).expect(400).text("error");
    assert!(["authorization_pending", "slow_down"].contains(&error.as_str()), "{error}");
}

/// A decision that carol, who may write the status and decide nothing, writes in the name of alice.
fn forged(office: &Office<'_>) -> Value {
    json!({"decision": {"verdict": "Approved", "by": whoami(&office.person("alice"))}})
}

#[test]
fn a4_what_was_written_while_the_policies_were_missing_is_not_honoured_even_when_they_are_back() {
    // Without the policy that would write the truth over the lie.
    let world = World::start(3, &[("admission.mutating", "false")], &[]);
    let office = Office::open(&world, Stamp::ByHand, "meanwhile");
    let (alice, carol) = (office.person("alice"), office.person("carol"));
    for name in ["live", "frozen"] {
        office.ask(name);
    }
    let forged = forged(&office);
    forbidden(office.patch_status(&carol, "live", &forged), "must be your own user name");

    // The status: seen by the operator while the policies are missing, and only when they are back.
    let saved = take_away(&world, BINDING, "countersign-jitrequests-status");
    wait_until("the forged approval is accepted", PATIENCE, || office.patch_status(&carol, "live", &forged).is_ok());
    void(&office, "live");
    let ice = office.freeze();
    office.patch_status(&carol, "frozen", &forged).expect("nobody refuses it");
    world.apply(&saved).expect("restored");
    drop(ice);
    void(&office, "frozen");
    in_force(&world, true);
    for name in ["live", "frozen"] {
        void(&office, name);
        forbidden(office.patch_status(&carol, name, &forged), "must be your own user name");
        // Who may decide decides again.
        office.decide(&alice, name, "Approved").expect("alice may");
        office.settled(name, "Approved");
        let approvals = office.stored(name)["status"]["approvals"].clone();
        assert!(approvals[0]["void"].is_string() && approvals[1].get("void").is_none(), "{approvals}");
    }
    office.answered("live").expect(200);

    // The request itself: made in the name of the operator, for somebody else.
    let saved = take_away(&world, BINDING, "countersign-jitrequests");
    let claim = json!({"requestedBy": {"username": OPERATOR, "groups": []}, "onBehalfOf": {"user": "bob"}});
    let make = |name: &str| create(&office.bot, &office.object(&office.bot, name, &claim));
    wait_until("the forged request is accepted", PATIENCE, || make("made-live").is_ok());
    office.settled("made-live", "Denied");
    let ice = office.freeze();
    make("made-frozen").expect("nobody refuses it");
    world.apply(&saved).expect("restored");
    drop(ice);
    office.settled("made-frozen", "Denied");
    in_force(&world, true);
    for name in ["made-live", "made-frozen"] {
        assert_eq!(office.ended(name, "Denied"), "NotAdmitted");
        assert_eq!(office.answered(name).expect(400).text("error"), "access_denied");
    }
    office.ask("made-after");
}

#[test]
fn a4_an_approval_forged_while_the_view_of_the_cluster_was_stale_is_not_honoured_either() {
    let world = World::start(3, &[("admission.mutating", "false")], &[]);
    let office = Office::open(&world, Stamp::ByHand, "stale");
    office.ask("request");
    // Without its heartbeat the operator knows that its view is old and moves nothing on. The policies it still looks at.
    let role = |patch: &str| {
        let arguments = ["patch", "role", "countersign", "-n", "countersign-system", "--type=json", "-p", patch];
        world.kubectl().run(&arguments).expect("an administrator may");
    };
    let rules =
        world.kubectl().get_json(&["get", "role", "countersign", "-n", "countersign-system"]).expect("the Role")["rules"].clone();
    let index = rules.as_array().expect("rules").iter().position(|rule| rule["resources"] == json!(["leases"])).expect("leases");
    role(&format!(r#"[{{"op":"remove","path":"/rules/{index}"}}]"#));
    let ready = |status: u16| {
        wait_until(&format!("readyz says {status}"), PATIENCE, || world.operator.get("/readyz").is_ok_and(|r| r.status == status))
    };
    ready(503);

    let saved = take_away(&world, BINDING, "countersign-jitrequests-status");
    let (carol, forged) = (office.person("carol"), forged(&office));
    wait_until("the forged approval is accepted", PATIENCE, || office.patch_status(&carol, "request", &forged).is_ok());
    world.apply(&saved).expect("restored");
    in_force(&world, true);
    assert!(office.stored("request")["status"]["decision"].is_object(), "the operator has not moved it");

    role(&format!(r#"[{{"op":"add","path":"/rules/-","value":{}}}]"#, rules[index]));
    ready(200);
    void(&office, "request");
}

#[test]
fn while_the_policies_are_missing_nothing_is_filed_and_no_approval_becomes_a_token() {
    let world = World::start(4, &[], &[]);
    let office = Office::open(&world, Stamp::ByPolicy, "missing");
    office.ask("approved");
    office.decide(&office.person("alice"), "approved", "Approved").expect("alice may");
    office.settled("approved", "Approved");
    let details = json!([{"type": "countersign_operation", "capability": office.capability, "audience": DOCS}]).to_string();
    let file = || -> Reply {
        world.post(
            "/oauth2/bc-authorize",
            &[
                ("client_assertion_type", CLIENT_ASSERTION),
                ("client_assertion", &office.tenant.token),
                ("login_hint", &office.tenant.subject()),
                ("authorization_details", &details),
            ],
        )
    };
    file().expect(200);
    let count = || world.kubectl().run(&["get", "jit", "-n", office.namespace(), "-o", "name"]).expect("a list").lines().count();
    assert_eq!(count(), 2);
    for name in ["countersign-jitrequests", "countersign-jitrequests-status"] {
        let saved = take_away(&world, BINDING, name);
        for reply in [office.poll("approved"), file()] {
            let reply = reply.refused(503, "temporarily_unavailable");
            assert_eq!(world.record_of(&reply)["reason"], "policies_not_in_force");
        }
        assert_eq!((count(), &office.stored("approved")["status"]["phase"]), (2, &json!("Approved")));
        world.apply(&saved).expect("restored");
        in_force(&world, true);
    }
    office.answered("approved").expect(200);
    file().expect(200);
    assert_eq!(count(), 3);
}

/// Fails unless the request came to nothing because its status is not the operator's, and somebody is told.
#[track_caller]
fn evidence_missing(office: &Office<'_>, name: &str) {
    let reply = office.poll(name);
    assert_ne!(reply.status, 200, "{name}: {:?}", reply.body);
    assert_eq!(office.ended(name, "Revoked"), "EvidenceMissing", "{name}");
    assert_eq!(office.answered(name).expect(400).text("error"), "access_denied", "{name}");
    let event = format!("--field-selector=reason=EvidenceMissing,type=Warning,regarding.name={name}");
    wait_until("an Event says so", PATIENCE, || {
        let events = office.admin().run(&["get", "events.v1.events.k8s.io", "-n", office.namespace(), &event, "-o", "name"]);
        events.is_ok_and(|events| !events.trim().is_empty())
    });
}

#[test]
fn a19_an_approval_that_the_operator_did_not_record_yields_no_token() {
    both_ways("a19", |office| {
        let (alice, bob, admin) = (office.person("alice"), office.person("bob"), office.admin());
        let write = |name: &str, status: &Value| {
            office.patch_status(&admin, name, status).unwrap_or_else(|e| panic!("{name}: {e}"));
            evidence_missing(office, name);
        };
        let approve = |name: &str| {
            office.ask(name);
            office.decide(&alice, name, "Approved").expect("alice may");
            office.settled(name, "Approved");
        };
        // All of it by hand: with the evidence of before, with none, with nonsense, and with that of an approval of the same.
        approve("real");
        let real = office.stored("real")["status"].clone();
        let approval = json!({"by": whoami(&alice), "verdict": "Approved", "at": "2026-01-01T00:00:00Z"});
        let later = "2099-01-01T00:00:00Z";
        let forged = json!({"phase": "Approved", "approvals": [approval], "approvalProgress": "1/1", "redeemBy": later, "expiresAt": later});
        for (name, evidence) in [("kept", None), ("removed", Some(json!(null))), ("nonsense", Some(json!("A".repeat(43))))] {
            office.ask(name);
            let mut status = forged.clone();
            evidence.into_iter().for_each(|evidence| status["evidence"] = evidence);
            write(name, &status);
        }
        // The phase alone.
        office.ask("phase");
        write("phase", &json!({"phase": "Approved"}));
        office.ask("copied");
        let mut copied = real.clone();
        copied.as_object_mut().expect("a status").retain(|field, _| !["digest", "agentUid"].contains(&field.as_str()));
        write("copied", &copied);
        // An approval too many, while it waits for the second and when it has been approved.
        office.ask("pending");
        write("pending", &json!({"approvals": [approval], "approvalProgress": "1/1"}));
        approve("altered");
        let mut another = office.stored("altered")["status"]["approvals"].as_array().expect("approvals").clone();
        another.push(json!({"by": whoami(&bob), "verdict": "Approved", "at": "2026-01-01T00:00:00Z"}));
        write("altered", &json!({"approvals": another}));
        // Who approved, put into other groups.
        approve("regrouped");
        let mut regrouped = office.stored("regrouped")["status"]["approvals"].clone();
        regrouped[0]["by"]["groups"] = json!(["system:masters"]);
        write("regrouped", &json!({"approvals": regrouped}));

        assert_eq!(claims(&office.answered("real").expect(200).text("access_token"))["scope"], office.capability.as_str());
    });
}

#[test]
fn a19_a_decision_that_does_not_count_cannot_be_made_to_count() {
    both_ways("a19-void", |office| {
        office.tenant.patch(&json!({"spec": {"owner": "bob"}}));
        office
            .admin()
            .wait_for(office.namespace(), "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE)
            .expect("judged");
        office.ask("request");
        office.decide(&office.person("bob"), "request", "Approved").expect("admission cannot know who owns the agent");
        wait_until("the decision is recorded", PATIENCE, || {
            office.stored("request")["status"]["approvals"][0]["void"].is_string()
        });
        let mut approvals = office.stored("request")["status"]["approvals"].clone();
        approvals[0].as_object_mut().expect("an approval").remove("void");
        let counted =
            json!({"phase": "Approved", "approvals": approvals, "approvalProgress": "1/1", "redeemBy": "2099-01-01T00:00:00Z"});
        office.patch_status(&office.admin(), "request", &counted).expect("an administrator may write anything");
        evidence_missing(office, "request");
    });
}

#[test]
fn a19_what_was_forged_is_not_called_approved_afterwards() {
    both_ways("a19-condition", |office| {
        office.ask("request");
        let condition = json!({"type": "Approved", "status": "True", "reason": "Approved", "message": "approved by alice", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let forged = json!({"phase": "Approved", "redeemBy": "2099-01-01T00:00:00Z", "conditions": [condition]});
        office.patch_status(&office.admin(), "request", &forged).expect("an administrator may write anything");
        evidence_missing(office, "request");
        let conditions = office.stored("request")["status"]["conditions"].clone();
        let approved = conditions.as_array().expect("conditions").iter().find(|c| c["type"] == "Approved").expect("Approved");
        assert_eq!(approved["status"], "False", "it ended without an approval: {approved}");
    });
}
