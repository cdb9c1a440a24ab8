//! Admission of decisions: who may approve or deny a request, and that nobody passes for somebody else. Each rule is tried on a
//! cluster with MutatingAdmissionPolicy and on one without.

use crate::office::{OPERATOR, Office, both_ways, both_ways_alone, create, service_account, whoami};
use crate::support::kubectl::Kubectl;
use crate::support::workload;
use crate::world::{PATIENCE, Stamp, forbidden, user, wait_until};
use serde_json::{Value, json};

const NEVER: &str = "a ServiceAccount never approves";
const OWN: &str = "nobody approves a request of their own";
const NOT_DECISION: &str = "people write 'decision' only";

/// The decisions that the operator has recorded.
fn approvals(office: &Office<'_>, name: &str) -> Vec<Value> {
    office.stored(name)["status"]["approvals"].as_array().cloned().unwrap_or_default()
}

/// The rights of whoever may write a status, and no right to decide.
fn status_rights() -> Value {
    json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests", "jitrequests/status"], "verbs": ["get", "update", "patch"]}])
}

/// Fails unless the status of the request is as it was at the end of `attempt`, but for what the operator itself reports.
#[track_caller]
fn without_effect(office: &Office<'_>, name: &str, attempt: impl FnOnce()) {
    let before = office.stored(name)["status"].clone();
    attempt();
    assert_eq!(office.stored(name)["status"], before, "it had an effect");
}

#[test]
fn whoever_may_approve_approves_and_is_named() {
    both_ways("approve", |office| {
        let alice = office.person("alice");
        for (name, verdict) in [("yes", "Approved"), ("no", "Denied")] {
            office.ask(name);
            let mut decision = office.decision(&alice, verdict);
            decision["comment"] = json!("seen");
            office.patch_status(&alice, name, &json!({"decision": decision})).expect("alice may");
            office.settled(name, verdict);
            let status = office.stored(name)["status"].clone();
            assert!(status.get("decision").is_none(), "it was moved into approvals: {status}");
            let [approval] = status["approvals"].as_array().expect("approvals").as_slice() else { panic!("{status}") };
            assert_eq!(
                (&approval["by"], &approval["verdict"], &approval["comment"]),
                (&whoami(&alice), &json!(verdict), &json!("seen"))
            );
            assert!(approval.get("void").is_none(), "{approval}");
        }
    });
}

#[test]
fn a_decision_may_come_with_the_whole_status() {
    both_ways("put", |office| {
        let alice = office.person("alice");
        office.ask("request");
        let mut whole = office.stored("request");
        whole["status"]["decision"] = office.decision(&alice, "Approved");
        let put = |object: &Value| {
            let arguments = ["replace", "--raw", &format!("{}/status", office.path("request")), "-f", "-"];
            alice.run_with_input(&arguments, &object.to_string()).map_err(|f| f.stderr)
        };
        let mut more = whole.clone();
        more["status"]["phase"] = json!("Approved");
        forbidden(put(&more), NOT_DECISION);
        let mut less = whole.clone();
        less["status"].as_object_mut().expect("a status").remove("evidence");
        forbidden(put(&less), NOT_DECISION);
        put(&whole).expect("as a client library would write it");
        office.settled("request", "Approved");
    });
}

#[test]
fn somebody_in_as_many_groups_as_the_schema_allows_asks_and_decides() {
    both_ways("groups", |office| {
        let groups: Vec<String> = (0..511).map(|i| format!("group-{i:03}-0123456789-0123456789-012345")).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let alice = office.admin().impersonating("alice", &groups);
        assert_eq!(whoami(&alice)["groups"].as_array().expect("groups").len(), 512, "and system:authenticated");
        office.ask("request");
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests"], "verbs": ["create"]}]);
        office.world().bind(office.namespace(), "alice-files", &rules, &[user("alice")]);
        wait_until("the right is seen", PATIENCE, || {
            !office.file(&alice, "hers", &json!({})).is_err_and(|e| e.contains("cannot create"))
        });
        office.settled("hers", "Denied");
        office.decide(&alice, "request", "Approved").expect("alice may");
        office.settled("request", "Approved");
    });
}

#[test]
fn a1_no_service_account_approves_whatever_its_rights() {
    both_ways("a1-robots", |office| {
        let namespace = office.namespace();
        office.ask("request");
        workload::create_service_account(&office.admin(), namespace, "other").expect("a ServiceAccount");
        let robots = [
            service_account(namespace, "bot"),
            service_account("countersign-system", "countersign"),
            service_account(namespace, "other"),
            user("system:node:worker"),
        ];
        office.may_approve("robots", &robots);
        office.world().bind(namespace, "status", &status_rights(), &[robots.as_slice(), &[user("frank")]].concat());
        office.may_approve("frank", &[user("frank")]);
        let other = format!("system:serviceaccount:{namespace}:other");
        let as_user = |name: &str, groups: &[&str]| office.admin().impersonating(name, groups);
        without_effect(office, "request", || {
            for robot in [
                // The requester itself, as which it may write the status.
                office.bot.clone(),
                as_user(OPERATOR, &[]),
                as_user(&other, &[]),
                // The name says it also where the groups do not, and the groups also where the name does not.
                as_user(&other, &["system:authenticated"]),
                as_user("system:node:worker", &["system:nodes"]),
                as_user("system:node:worker", &["system:authenticated"]),
                as_user("frank", &["system:serviceaccounts"]),
                as_user("frank", &["system:nodes"]),
            ] {
                forbidden(office.decide(&robot, "request", "Approved"), NEVER);
            }
        });
        office.decide(&as_user("frank", &["system:authenticated"]), "request", "Approved").expect("frank himself may");
        office.settled("request", "Approved");
    });
}

#[test]
fn a1_nobody_approves_what_they_requested() {
    both_ways_alone("a1-own", |office| {
        let (alice, bob) = (office.person("alice"), office.person("bob"));
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests"], "verbs": ["create", "get"]}]);
        office.world().bind(office.namespace(), "people-file", &rules, &[user("alice")]);
        wait_until("the right is seen", PATIENCE, || {
            alice.run(&["auth", "can-i", "create", "jitrequests.countersign.dev", "-n", office.namespace()]).is_ok()
        });
        // The operator denies at once what a person files, and what is denied nobody approves.
        office.file(&alice, "denied", &json!({})).expect("alice may create the object");
        office.settled("denied", "Denied");
        forbidden(office.decide(&alice, "denied", "Approved"), "only while the request is Pending");

        // So that admission alone is left to say no, the administrator takes it in by hand while no operator looks.
        office.may_approve("alias", &[user("alias")]);
        office.world().bind(office.namespace(), "alias-status", &status_rights(), &[user("alias")]);
        let ice = office.freeze();
        let taken_in = json!({"phase": "Pending", "digest": format!("sha256:{}", "0".repeat(64))});
        for name in ["approved-by-bob", "denied-by-alice"] {
            office.file(&alice, name, &json!({})).expect("alice may create the object");
            office.patch_status(&office.admin(), name, &taken_in).expect("the administrator may");
            forbidden(office.decide(&alice, name, "Approved"), OWN);
            // Another name with the same uid is the same person, and so is the same name with another uid or none.
            let disguised = |name: &str| office.admin().impersonating(name, &["system:authenticated"]);
            for somebody in [disguised("alias").with_uid("alice"), disguised("alice").with_uid("other"), disguised("alice")] {
                forbidden(office.decide(&somebody, name, "Approved"), OWN);
            }
        }
        office.decide(&alice, "denied-by-alice", "Denied").expect("to deny is to withdraw");
        office.decide(&bob, "approved-by-bob", "Approved").expect("bob did not ask");
        drop(ice);
        // The operator did not take it in, and says so.
        office.settled("approved-by-bob", "Revoked");
        office.settled("denied-by-alice", "Denied");
    });
}

#[test]
fn a2_the_main_resource_carries_no_decision() {
    both_ways("a2-main", |office| {
        let alice = office.person("alice");
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests", "jitrequests/scale"], "verbs": ["create", "update", "patch", "delete", "deletecollection"]}]);
        office.world().bind(office.namespace(), "write", &rules, &[user("alice"), service_account(office.namespace(), "bot")]);
        office.ask("request");
        let stored = office.stored("request");
        let mut forged = stored.clone();
        forged["metadata"].as_object_mut().expect("metadata").retain(|field, _| ["name", "namespace"].contains(&field.as_str()));
        forged["status"]["phase"] = json!("Approved");
        forged["status"]["decision"] = office.decision(&alice, "Approved");
        let namespace = ["-n", office.namespace()];
        let run = |arguments: &[&str], input: &Value| alice.run_with_input(arguments, &input.to_string()).map_err(|f| f.stderr);
        wait_until("alice's right is seen", PATIENCE, || {
            run(&["auth", "can-i", "update", "jitrequests.countersign.dev", namespace[0], namespace[1]], &json!(null)).is_ok()
        });
        without_effect(office, "request", || {
            run(&["replace", "-f", "-"], &forged).expect("a PUT without effect");
            let status = json!({"status": forged["status"]}).to_string();
            run(&["patch", "jit", "request", namespace[0], namespace[1], "--type=merge", "-p", &status], &json!(null))
                .expect("a PATCH without effect");
            run(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &forged).expect("an apply without effect");
            let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 1}});
            let error = run(&["replace", "--raw", &format!("{}/scale", office.path("request")), "-f", "-"], &scale)
                .expect_err("there is none");
            assert!(error.contains("NotFound") || error.contains("could not find the requested resource"), "{error}");
        });
        office.decide(&alice, "request", "Approved").expect("that is how");
        office.settled("request", "Approved");

        // A namesake inherits nothing, and nothing is created with a status.
        run(&["delete", "--raw", office.path("").trim_end_matches('/')], &json!(null)).expect("alice may delete all");
        wait_until("all are gone", PATIENCE, || {
            office.admin().run(&["get", "jit", namespace[0], namespace[1], "-o", "name"]).expect("a list").trim().is_empty()
        });
        let mut again = office.object(&office.bot, "request", &json!({}));
        again["status"] = forged["status"].clone();
        create(&office.bot, &again).expect("the agent may ask again");
        office.settled("request", "Pending");
        let fresh = office.stored("request");
        assert_ne!(fresh["metadata"]["uid"], stored["metadata"]["uid"]);
        assert_eq!((&fresh["status"]["approvalProgress"], approvals(office, "request")), (&json!("0/1"), Vec::new()));
        assert!(fresh["status"].get("decision").is_none(), "{fresh}");
    });
}

#[test]
fn a2_server_side_apply_on_the_status_is_held_to_the_same_rules() {
    both_ways("a2-apply", |office| {
        let (alice, carol) = (office.person("alice"), office.person("carol"));
        office.ask("request");
        let apply = |who: &Kubectl, status: Value| {
            let mut object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "JitRequest", "metadata": {"namespace": office.namespace(), "name": "request"}});
            object["status"] = status;
            let arguments =
                ["apply", "--server-side", "--subresource=status", "--force-conflicts", "--validate=false", "-f", "-"];
            who.run_with_input(&arguments, &object.to_string()).map_err(|f| f.stderr)
        };
        without_effect(office, "request", || {
            forbidden(apply(&alice, json!({"phase": "Approved"})), NOT_DECISION);
            let with_phase = json!({"phase": "Approved", "decision": office.decision(&alice, "Approved")});
            forbidden(apply(&alice, with_phase), NOT_DECISION);
            let with_approval =
                json!({"approvals": [{"by": whoami(&alice), "verdict": "Approved", "at": "2026-01-01T00:00:00Z"}]});
            forbidden(apply(&alice, with_approval), NOT_DECISION);
            forbidden(apply(&carol, json!({"decision": office.decision(&carol, "Approved")})), "may not decide");
        });
        apply(&alice, json!({"decision": office.decision(&alice, "Approved")})).expect("a decision and nothing else");
        office.settled("request", "Approved");
    });
}

#[test]
fn a4_a_decision_is_signed_with_the_name_of_who_makes_it() {
    both_ways("a4-by", |office| {
        let alice = office.person("alice");
        let truth = whoami(&alice);
        let but = |field: &str, value: Value| {
            let mut by = truth.clone();
            by[field] = value;
            by
        };
        let groups = truth["groups"].as_array().expect("groups").clone();
        assert!(groups.len() > 1, "{truth}");
        let more = [groups.as_slice(), &[json!("system:masters")]].concat();
        let lies = [
            but("username", json!("bob")),
            but("username", json!("Alice")),
            but("uid", json!("bob")),
            but("uid", json!("")),
            but("groups", json!(groups[1..])),
            but("groups", json!([])),
            but("groups", json!(more)),
            json!({"username": "alice"}),
            whoami(&office.person("bob")),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let name = format!("request-{index}");
            office.ask(&name);
            let forged = office.patch_status(&alice, &name, &json!({"decision": {"verdict": "Approved", "by": lie}}));
            match office.stamp {
                Stamp::ByPolicy => {
                    forged.expect("what is written there is overwritten");
                    office.settled(&name, "Approved");
                    assert_eq!(approvals(office, &name)[0]["by"], truth, "{lie}");
                }
                Stamp::ByHand => {
                    forbidden(forged, "must be your own user name, uid and groups");
                    assert_eq!(office.stored(&name)["status"]["phase"], "Pending", "{lie}");
                }
            }
        }
        if office.stamp == Stamp::ByHand {
            let unsigned = office.patch_status(&alice, "request-0", &json!({"decision": {"verdict": "Approved"}}));
            forbidden(unsigned, "must be your own user name, uid and groups");
            let reversed: Vec<&Value> = groups.iter().rev().collect();
            let signed = json!({"decision": {"verdict": "Approved", "by": but("groups", json!(reversed))}});
            office.patch_status(&alice, "request-0", &signed).expect("the order of groups means nothing");
            office.settled("request-0", "Approved");
        }
    });
}

#[test]
fn a6_writing_the_status_is_not_deciding() {
    both_ways("a6", |office| {
        let namespace = office.namespace();
        office.ask("request");
        let elsewhere = office.world().namespace("a6-elsewhere");
        let approve = |name: &str| json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [name], "verbs": ["approve"]}]);
        let all = |resources: &[&str]| json!([{"apiGroups": ["countersign.dev"], "resources": resources, "verbs": ["*"]}]);
        let users = ["erin", "grace", "heidi", "ivan", "judy"].map(user);
        office.world().bind(namespace, "status", &status_rights(), &users);
        // On another capability, in another namespace, another verb, everything on the status, everything on requests.
        office.world().bind(namespace, "erin", &approve("another.capability"), &[user("erin")]);
        office.world().bind(&elsewhere, "grace", &approve(&office.capability), &[user("grace")]);
        let grant = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [office.capability], "verbs": ["grant", "update"]}]);
        office.world().bind(namespace, "heidi", &grant, &[user("heidi")]);
        office.world().bind(namespace, "ivan", &all(&["jitrequests/status"]), &[user("ivan")]);
        office.world().bind(namespace, "judy", &all(&["jitrequests", "jitrequests/status"]), &[user("judy")]);
        wait_until("the rights are seen", PATIENCE, || {
            office
                .admin()
                .impersonating("judy", &[])
                .run(&["auth", "can-i", "operate", "jitrequests.countersign.dev", "-n", namespace])
                .is_ok()
        });
        let rule = |who: &str| {
            let name = &office.capability;
            format!(
                "user \"{who}\" may not decide on capability \"{name}\" in namespace \"{namespace}\": it needs verb approve on capabilities.countersign.dev/{name}"
            )
        };
        without_effect(office, "request", || {
            forbidden(office.decide(&office.person("carol"), "request", "Approved"), &rule("carol"));
            for name in ["erin", "grace", "heidi", "ivan", "judy"] {
                let somebody = office.admin().impersonating(name, &["system:authenticated"]);
                for verdict in ["Approved", "Denied"] {
                    forbidden(office.decide(&somebody, "request", verdict), &rule(name));
                }
            }
            let ivan = office.admin().impersonating("ivan", &["system:authenticated"]);
            forbidden(office.patch_status(&ivan, "request", &json!({"phase": "Approved"})), NOT_DECISION);
        });
        // Without a right to the subresource the verb is worth nothing either.
        office.may_approve("kate", &[user("kate")]);
        let kate = office.admin().impersonating("kate", &["system:authenticated"]);
        forbidden(office.decide(&kate, "request", "Approved"), "cannot");
        office.world().bind(namespace, "kate-status", &status_rights(), &[user("kate")]);
        wait_until("kate may", PATIENCE, || office.decide(&kate, "request", "Approved").is_ok());
        office.settled("request", "Approved");
    });
}

#[test]
fn c9_impersonation_counts_as_the_impersonated() {
    both_ways("c9-decide", |office| {
        office.ask("request");
        let groups = ["countersign:testers", "system:authenticated"];
        let carol = office.admin().impersonating("carol", &groups);
        forbidden(office.decide(&carol, "request", "Approved"), "user \"carol\" may not decide");
        let alice = office.admin().impersonating("alice", &groups);
        office.decide(&alice, "request", "Approved").expect("alice may");
        office.settled("request", "Approved");
        let by = &approvals(office, "request")[0]["by"];
        assert_eq!((&by["username"], &by["groups"]), (&json!("alice"), &json!(groups)), "not the administrator's");
    });
}
