//! What is decided stays decided: people write decisions and nothing else, in one order only, and not even the administrator turns a
//! status back. Each rule is tried on a cluster with MutatingAdmissionPolicy and on one without.

use crate::office::{Office, both_ways, both_ways_alone, invalid};
use crate::world::forbidden;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NOT_DECISION: &str = "people write 'decision' only";
const THERE_IS_ONE: &str = "there is a decision already";
const TOO_LATE: &str = "only while the request is Pending";
const FORWARD: &str = "status.phase only moves forward";
const FOR_GOOD: &str = "what status says once it says for good";

fn digest(digit: &str) -> String {
    format!("sha256:{}", digit.repeat(64))
}

fn merged(mut status: Value, other: &Value) -> Value {
    for (member, value) in other.as_object().expect("members") {
        status[member] = value.clone();
    }
    status
}

/// Fails if the status of the request is not the same after `attempts`.
#[track_caller]
fn unchanged(office: &Office<'_>, name: &str, attempts: impl FnOnce()) {
    let before = office.stored(name)["status"].clone();
    attempts();
    assert_eq!(office.stored(name)["status"], before);
}

#[test]
fn an_approver_writes_no_field_but_the_decision() {
    both_ways("fields", |office| {
        let alice = office.person("alice");
        office.ask("request");
        let somebody = json!({"username": "alice", "uid": "alice", "groups": []});
        let time = "2026-01-01T00:00:00Z";
        let condition =
            json!({"type": "Approved", "status": "True", "reason": "Forged", "message": "", "lastTransitionTime": time});
        let edits = [
            ("phase", vec![json!("Approved"), json!("Denied"), json!("Expired"), json!("Cancelled"), json!("Revoked")]),
            ("approvals", vec![json!([{"by": somebody, "verdict": "Approved", "at": time}])]),
            ("approvalProgress", vec![json!("1/1"), json!(null)]),
            ("expiresAt", vec![json!("2099-01-01T00:00:00Z"), json!(null)]),
            ("redeemBy", vec![json!("2099-01-01T00:00:00Z")]),
            ("jti", vec![json!("forged")]),
            ("issuedAt", vec![json!(time)]),
            ("tokenExpiresAt", vec![json!("2099-01-01T00:00:00Z")]),
            ("keyId", vec![json!("forged")]),
            ("boundTo", vec![json!("forged")]),
            ("agentEpoch", vec![json!(0)]),
            ("completedAt", vec![json!(time)]),
            ("finishedAt", vec![json!(time)]),
            ("evidence", vec![json!("forged"), json!(null)]),
            ("conditions", vec![json!([condition]), json!([])]),
            ("observedGeneration", vec![json!(7), json!(null)]),
        ];
        unchanged(office, "request", || {
            for (field, values) in &edits {
                for value in values {
                    let edit = json!({*field: value});
                    forbidden(office.patch_status(&alice, "request", &edit), NOT_DECISION);
                    let beside = merged(edit, &json!({"decision": office.decision(&alice, "Approved")}));
                    forbidden(office.patch_status(&alice, "request", &beside), NOT_DECISION);
                }
            }
            // These the schema refuses before admission is asked.
            for (edit, because) in [
                (json!({"digest": digest("0")}), "the digest cannot be changed"),
                (json!({"digest": null}), FOR_GOOD),
                (json!({"agentUid": "forged"}), "the agent cannot be changed"),
                (json!({"agentUid": null}), FOR_GOOD),
                (json!({"phase": "Issued"}), FORWARD),
                (json!({"phase": "Completed"}), FORWARD),
                (json!({"phase": null}), FORWARD),
                (json!(null), "status cannot be removed"),
            ] {
                invalid(office.patch_status(&alice, "request", &edit), because);
            }
        });
        let crd = office.admin().get_json(&["get", "crd", "jitrequests.countersign.dev"]).expect("the definition");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        let fields: BTreeSet<&str> = schema.as_object().expect("fields").keys().map(String::as_str).collect();
        let tried = edits.iter().map(|(field, _)| *field).chain(["decision", "digest", "agentUid"]).collect();
        assert_eq!(fields, tried, "no field was forgotten");
    });
}

#[test]
fn the_digest_in_a_decision_is_that_of_the_request() {
    both_ways("digest", |office| {
        let alice = office.person("alice");
        office.ask("request");
        office.ask("other");
        let of = |name: &str| office.stored(name)["status"]["digest"].as_str().expect("a digest").to_owned();
        let decide = |digest: &str, verdict: &str| {
            let decision = merged(office.decision(&alice, verdict), &json!({"digest": digest}));
            office.patch_status(&alice, "request", &json!({"decision": decision}))
        };
        let right = of("request");
        assert_eq!(right, of("other"), "a digest says what is asked, not by which object");
        let (rest, last) = right.split_at(70);
        let differs = format!("{rest}{}", if last == "0" { "1" } else { "0" });
        unchanged(office, "request", || {
            for wrong in [digest("0"), differs] {
                forbidden(decide(&wrong, "Approved"), "is not the digest of this request");
                forbidden(decide(&wrong, "Denied"), "is not the digest of this request");
            }
            for malformed in ["", "sha256:", &right.to_uppercase(), &right.replace("sha256:", "")] {
                invalid(decide(malformed, "Approved"), "status.decision.digest");
            }
        });
        decide(&right, "Approved").expect("the right one");
        office.settled("request", "Approved");
    });
}

#[test]
fn a_decision_waits_for_the_digest() {
    both_ways_alone("early", |office| {
        let alice = office.person("alice");
        let ice = office.freeze();
        office.file(&office.bot, "request", &json!({})).expect("the agent may ask");
        for verdict in ["Approved", "Denied"] {
            forbidden(office.decide(&alice, "request", verdict), "If it was made a moment ago, retry");
        }
        for phase in ["Approved", "Issued", "Completed", "Cancelled"] {
            let begun = json!({"phase": phase, "digest": digest("0")});
            invalid(office.patch_status(&office.admin(), "request", &begun), "a request begins as Pending");
        }
        drop(ice);
        office.settled("request", "Pending");
        office.decide(&alice, "request", "Approved").expect("now there is something to decide on");
        office.settled("request", "Approved");
    });
}

#[test]
fn a_second_decision_waits_until_the_first_is_recorded() {
    both_ways_alone("second", |office| {
        let (alice, bob) = (office.person("alice"), office.person("bob"));
        office.ask("request");
        let ice = office.freeze();
        office.decide(&alice, "request", "Approved").expect("the first");
        unchanged(office, "request", || {
            for who in [&alice, &bob] {
                let other = merged(office.decision(who, "Approved"), &json!({"comment": "yes"}));
                forbidden(office.patch_status(who, "request", &json!({"decision": other})), THERE_IS_ONE);
            }
            // Not even the operator's rights help: a decision leaves only into approvals.
            forbidden(office.patch_status(&office.admin(), "request", &json!({"decision": {"comment": "edited"}})), THERE_IS_ONE);
            invalid(office.patch_status(&alice, "request", &json!({"decision": null})), "a decision cannot be undone");
            invalid(office.patch_status(&office.admin(), "request", &json!({"decision": null})), "a decision cannot be undone");
            let lost = json!({"decision": null, "approvals": [{"by": {"username": "bob"}, "verdict": "Approved", "at": "2026-01-01T00:00:00Z"}]});
            invalid(office.patch_status(&office.admin(), "request", &lost), "a decision cannot be undone");
            invalid(office.patch_status(&office.admin(), "request", &json!(null)), "status cannot be removed");
        });
        drop(ice);
        office.settled("request", "Approved");
        forbidden(office.decide(&bob, "request", "Approved"), TOO_LATE);
    });
}

#[test]
fn a_second_approval_is_not_lost_behind_the_first() {
    both_ways_alone("lost", |office| {
        let (alice, bob) = (office.person("alice"), office.person("bob"));
        office.ask("request");
        let ice = office.freeze();
        office.decide(&alice, "request", "Approved").expect("the first");
        // The same words, merged into the same words: bob must hear that they were not taken for his.
        forbidden(office.decide(&bob, "request", "Approved"), THERE_IS_ONE);
        drop(ice);
        office.settled("request", "Approved");
    });
}

#[test]
fn a9_a_denial_replaces_an_approval_that_is_not_recorded_and_is_final() {
    both_ways_alone("a9-denial", |office| {
        let (alice, bob, admin) = (office.person("alice"), office.person("bob"), office.admin());
        office.ask("request");
        let ice = office.freeze();
        let approval = merged(office.decision(&alice, "Approved"), &json!({"comment": "fine with me"}));
        office.patch_status(&alice, "request", &json!({"decision": approval})).expect("the first");
        let denial = merged(office.decision(&bob, "Denied"), &json!({"comment": "not with me"}));
        office.patch_status(&bob, "request", &json!({"decision": denial})).expect("a denial wins");
        unchanged(office, "request", || {
            for who in [&alice, &bob] {
                invalid(office.decide(who, "request", "Approved"), "Denied is final");
                let again = merged(office.decision(who, "Denied"), &json!({"comment": "again"}));
                invalid(office.patch_status(who, "request", &json!({"decision": again})), "Denied is final");
            }
            invalid(office.patch_status(&admin, "request", &json!({"decision": {"verdict": "Approved"}})), "Denied is final");
            invalid(office.patch_status(&admin, "request", &json!({"decision": null})), "a decision cannot be undone");
            invalid(office.patch_status(&admin, "request", &json!({"phase": "Approved"})), "Denied is final");
            invalid(office.patch_status(&admin, "request", &json!(null)), "status cannot be removed");
        });
        drop(ice);
        office.settled("request", "Denied");
        let status = office.stored("request")["status"].clone();
        let [only] = status["approvals"].as_array().expect("approvals").as_slice() else { panic!("{status}") };
        assert_eq!(
            (&only["verdict"], &only["by"]["username"], &only["comment"]),
            (&json!("Denied"), &json!("bob"), &json!("not with me"))
        );
        assert_eq!(office.answered("request").expect(400).text("error"), "access_denied");
    });
}

#[test]
fn what_a_person_wrote_is_not_put_into_the_mouth_of_another() {
    both_ways_alone("comment", |office| {
        let (alice, bob) = (office.person("alice"), office.person("bob"));
        office.ask("request");
        let ice = office.freeze();
        let approval = merged(office.decision(&alice, "Approved"), &json!({"comment": "fine with me"}));
        office.patch_status(&alice, "request", &json!({"decision": approval})).expect("the first");
        // The patch of the manual: it names no comment, and a merge keeps what it does not name.
        let merge = office.decide(&bob, "request", "Denied");
        drop(ice);
        if merge.is_ok() {
            office.settled("request", "Denied");
            let approvals = office.stored("request")["status"]["approvals"].clone();
            assert_eq!(approvals[0]["by"]["username"], "bob");
            assert_ne!(approvals[0]["comment"], "fine with me", "bob wrote no such thing");
        }
    });
}

#[test]
fn an_approval_can_be_taken_back_until_the_token_is_issued() {
    both_ways("taken-back", |office| {
        let (alice, bob) = (office.person("alice"), office.person("bob"));
        for name in ["denied", "issued"] {
            office.ask(name);
            office.decide(&alice, name, "Approved").expect("alice may");
            office.settled(name, "Approved");
            forbidden(office.decide(&bob, name, "Approved"), TOO_LATE);
        }
        forbidden(office.decide(&office.person("carol"), "denied", "Denied"), "may not decide");
        office.decide(&bob, "denied", "Denied").expect("it is not too late");
        office.settled("denied", "Denied");
        assert_eq!(office.answered("denied").expect(400).text("error"), "access_denied");
        let token = office.answered("issued").expect(200).text("access_token");
        let ended = |name: &str| {
            for who in [&alice, &bob] {
                forbidden(office.decide(who, name, "Denied"), TOO_LATE);
                forbidden(office.decide(who, name, "Approved"), TOO_LATE);
            }
        };
        unchanged(office, "issued", || ended("issued"));
        unchanged(office, "denied", || ended("denied"));
        let form = [("token", token.as_str())];
        let reply = office
            .world()
            .http
            .post(format!("{}/jit/complete", office.world().operator.url()))
            .bearer_auth(&office.tenant.token)
            .form(&form)
            .send();
        assert_eq!(reply.expect("an answer").status(), 200);
        office.settled("issued", "Completed");
        unchanged(office, "issued", || ended("issued"));
    });
}

#[test]
fn not_even_the_administrator_turns_a_request_back() {
    both_ways("back", |office| {
        let (alice, admin) = (office.person("alice"), office.admin());
        let refused = |name: &str, edits: Vec<(Value, &str)>| {
            unchanged(office, name, || {
                edits.into_iter().for_each(|(edit, because)| invalid(office.patch_status(&admin, name, &edit), because))
            });
        };
        let always = || {
            vec![
                (json!(null), "status cannot be removed"),
                (json!({"phase": null}), FORWARD),
                (json!({"phase": "Pending"}), FORWARD),
                (json!({"digest": digest("0")}), "the digest cannot be changed"),
                (json!({"digest": null}), FOR_GOOD),
                (json!({"agentUid": "another"}), "the agent cannot be changed"),
                (json!({"agentUid": null}), FOR_GOOD),
                (json!({"approvals": []}), "status.approvals only grows"),
                (json!({"approvals": null}), "status.approvals only grows"),
                (
                    json!({"approvals": [{"by": {"username": "bob"}, "verdict": "Denied", "at": "2026-01-01T00:00:00Z"}]}),
                    "status.approvals only grows",
                ),
            ]
        };
        let phases = |phases: &[&str]| phases.iter().map(|phase| (json!({"phase": phase}), FORWARD)).collect::<Vec<_>>();
        office.ask("denied");
        office.decide(&alice, "denied", "Denied").expect("alice may");
        office.settled("denied", "Denied");
        let everything = ["Approved", "Expired", "Cancelled", "Issued", "Completed", "Revoked"];
        refused(
            "denied",
            [
                always(),
                phases(&everything),
                vec![
                    (json!({"finishedAt": null}), FOR_GOOD),
                    (json!({"finishedAt": "2099-01-01T00:00:00Z"}), "finishedAt cannot be changed"),
                ],
            ]
            .concat(),
        );
        forbidden(office.decide(&admin, "denied", "Approved"), TOO_LATE);

        office.ask("issued");
        office.decide(&alice, "issued", "Approved").expect("alice may");
        office.settled("issued", "Approved");
        refused("issued", [always(), phases(&["Completed"])].concat());
        invalid(office.patch_status(&admin, "issued", &json!({"phase": "Issued"})), "an issued request names its token");
        office.answered("issued").expect(200);
        let fixed = ["jti", "issuedAt", "tokenExpiresAt", "keyId", "agentEpoch", "redeemBy"];
        let removed = fixed.map(|field| (json!({field: null}), FOR_GOOD)).to_vec();
        let changed = [
            ("jti", json!("x")),
            ("keyId", json!("x")),
            ("agentEpoch", json!(7)),
            ("issuedAt", json!("2099-01-01T00:00:00Z")),
            ("tokenExpiresAt", json!("2099-01-01T00:00:00Z")),
            ("redeemBy", json!("2099-01-01T00:00:00Z")),
        ];
        let changed = changed.map(|(field, value)| (json!({field: value}), "cannot be changed")).to_vec();
        refused("issued", [always(), phases(&["Approved", "Denied", "Cancelled"]), removed, changed].concat());
    });
}
