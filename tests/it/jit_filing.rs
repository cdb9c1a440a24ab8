//! Admission of requests: who is said to have asked, for whom, until when, and that a question never changes. Each rule is tried on a
//! cluster with MutatingAdmissionPolicy and on one without.

use crate::office::{OPERATOR, Office, both_ways, create, invalid, whoami};
use crate::support::workload;
use crate::world::{DOCS, PATIENCE, Stamp, World, agent, forbidden, stamped, user, wait_until};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const NOT_YOU: &str = "spec.requestedBy must be the user name, uid and groups of the user who makes the request";

/// Lets alice create requests, and edit those that are there.
fn alice_may_file(office: &Office<'_>) {
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["jitrequests"], "verbs": ["create", "update", "patch"]}]);
    office.world().bind(office.namespace(), "alice-files", &rules, &[user("alice")]);
    let question = ["auth", "can-i", "create", "jitrequests.countersign.dev", "-n", office.namespace()];
    wait_until("the right is seen", PATIENCE, || office.person("alice").run(&question).is_ok());
}

/// A time that many seconds from now.
fn from_now(seconds: i64) -> Timestamp {
    Timestamp::now().saturating_add(SignedDuration::from_secs(seconds)).expect("a time")
}

#[test]
fn a4_a_request_is_signed_with_the_name_of_who_makes_it() {
    both_ways("a4-asks", |office| {
        let truth = whoami(&office.bot);
        let but = |field: &str, value: Value| {
            let mut by = truth.clone();
            by[field] = value;
            by
        };
        let more = [truth["groups"].as_array().expect("groups").as_slice(), &[json!("system:masters")]].concat();
        let lies = [
            but("username", json!(OPERATOR)),
            but("username", json!("alice")),
            but("uid", json!("another")),
            but("groups", json!(["system:authenticated"])),
            but("groups", json!(more)),
            json!({"username": truth["username"]}),
            json!({"username": OPERATOR, "groups": ["system:serviceaccounts", "system:authenticated"]}),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let name = format!("request-{index}");
            let filed = office.file(&office.bot, &name, &json!({"requestedBy": lie}));
            match office.stamp {
                Stamp::ByPolicy => {
                    filed.expect("what is written there is overwritten");
                    assert_eq!(office.stored(&name)["spec"]["requestedBy"], truth, "{lie}");
                }
                Stamp::ByHand => forbidden(filed, NOT_YOU),
            }
        }
        let mut unsigned = office.object(&office.bot, "unsigned", &json!({}));
        unsigned["spec"].as_object_mut().expect("a spec").remove("requestedBy");
        match office.stamp {
            Stamp::ByPolicy => assert_eq!(
                create(&office.bot, &unsigned).map(|_| office.stored("unsigned")["spec"]["requestedBy"].clone()),
                Ok(truth)
            ),
            Stamp::ByHand => forbidden(create(&office.bot, &unsigned), NOT_YOU),
        }
    });
}

#[test]
fn k3_an_agent_asks_for_itself_only_and_people_do_not_ask() {
    both_ways("k3-asks", |office| {
        let namespace = office.namespace();
        workload::create_service_account(&office.admin(), namespace, "rival").expect("a ServiceAccount");
        let rival = json!({"capabilities": [{"name": office.capability, "approval": "Required"}]});
        office.world().apply(&stamped(agent(namespace, "rival", &rival), "admin")).expect("another Agent");
        office.admin().wait_for(namespace, "agent/rival", "condition=Ready", PATIENCE).expect("it is Ready");
        alice_may_file(office);
        office.file(&office.bot, "for-rival", &json!({"agent": {"name": "rival"}})).expect("admission cannot look Agents up");
        office.file(&office.person("alice"), "by-alice", &json!({})).expect("nor that");
        office.file(&office.admin(), "by-admin", &json!({})).expect("nor that");
        for name in ["for-rival", "by-alice", "by-admin"] {
            assert_eq!(office.ended(name, "Denied"), "RequesterNotAgent");
        }
        office.ask("for-itself");
    });
}

/// A user, and an agent of the same namespace that was registered for this and called.
fn behalf(office: &Office<'_>, user: &str) -> Value {
    let namespace = office.namespace();
    workload::create_service_account(&office.admin(), namespace, "planner").expect("a ServiceAccount");
    office.world().apply(&stamped(agent(namespace, "planner", &json!({})), "admin")).expect("another Agent");
    office.admin().wait_for(namespace, "agent/planner", "condition=Ready", PATIENCE).expect("it is Ready");
    let planner = office.admin().get_json(&["get", "agent", "planner", "-n", namespace]).expect("the Agent");
    let link = json!({"uid": planner["metadata"]["uid"], "epoch": 0});
    json!({"user": user, "chain": [format!("agent:{namespace}/planner")],
        "lineage": {"links": [link], "transaction": "t", "ancestors": ["j"]}})
}

#[test]
fn only_the_operator_says_on_whose_behalf_an_agent_asks() {
    both_ways("behalf", |office| {
        alice_may_file(office);
        let (alice, operator) = (office.person("alice"), office.admin().impersonating(OPERATOR, &[]));
        for behalf in [json!({"user": "bob"}), json!({"chain": [office.tenant.subject()]}), json!({})] {
            let spec = json!({"onBehalfOf": behalf});
            for who in [&alice, &office.bot] {
                forbidden(office.file(who, "request", &spec), "only the operator may set spec.onBehalfOf");
            }
        }
        let behalf = json!({"onBehalfOf": behalf(office, "bob")});
        office.file(&operator, "request", &behalf).expect("the operator may");
        office.settled("request", "Pending");
        // An administrator holds every verb, also that of the operator, and is not the operator for all that.
        office.file(&office.admin(), "by-admin", &behalf).expect("admission sees the verb");
        assert_eq!(office.ended("by-admin", "Denied"), "RequesterNotAgent");
    });
}

#[test]
fn a14_a_question_stands_until_a_real_time_within_seven_days() {
    both_ways("a14-time", |office| {
        const DAY: i64 = 86_400;
        let soon = from_now(600).to_string();
        let prefix = &soon[..17];
        let bad = [
            // No zone, no time, no date; durations; nothing.
            soon.trim_end_matches('Z').to_owned(),
            soon[..10].to_owned(),
            soon[11..].to_owned(),
            format!("{}-", soon.trim_end_matches('Z')),
            "P1Y".to_owned(),
            "PT10M".to_owned(),
            "10m".to_owned(),
            "0".to_owned(),
            "-1".to_owned(),
            "1700000000".to_owned(),
            String::new(),
            " ".to_owned(),
            "now".to_owned(),
            // The past, and too far.
            from_now(-1).to_string(),
            from_now(-DAY).to_string(),
            "1970-01-01T00:00:00Z".to_owned(),
            "0000-01-01T00:00:00Z".to_owned(),
            from_now(8 * DAY).to_string(),
            from_now(7 * DAY + 60).to_string(),
            "9999-12-31T23:59:59Z".to_owned(),
            "99999-01-01T00:00:00Z".to_owned(),
            // No such time.
            format!("{prefix}60Z"),
            "2016-12-31T23:59:60Z".to_owned(),
            soon.replacen('T', "t", 1),
            soon.replacen('T', " ", 1),
            soon.replace('Z', "z"),
            soon.replace('Z', "+99:99"),
            soon.replace('Z', "+0000"),
            soon.replace('Z', " UTC"),
            format!("{}T24:00:00Z", &soon[..10]),
            format!("{}T23:60:00Z", &soon[..10]),
            format!("{}-13-01T00:00:00Z", &soon[..4]),
            format!("{}-02-30T00:00:00Z", &soon[..4]),
            format!(" {soon}"),
            format!("{soon}\n"),
            format!("{prefix}00.0000000001Z"),
        ];
        for (index, time) in bad.iter().enumerate() {
            let refused = office.file(&office.bot, &format!("bad-{index}"), &json!({"decideBy": time}));
            let message = refused.expect_err(&format!("{time:?} was accepted"));
            assert!(message.contains("decideBy"), "{time:?}: {message}");
        }
        for (index, time) in [json!(600), json!(["2026-01-01T00:00:00Z"]), json!({})].into_iter().enumerate() {
            invalid(office.file(&office.bot, &format!("type-{index}"), &json!({"decideBy": time})), "spec.decideBy");
        }
        let zoned = Timestamp::now().saturating_add(SignedDuration::from_secs(DAY)).expect("a time").to_string();
        let good = [
            from_now(60).to_string(),
            from_now(7 * DAY - 60).to_string(),
            format!("{}+02:00", &zoned[..19]),
            format!("{}-11:30", &zoned[..19]),
            format!("{}.5Z", &zoned[..19]),
        ];
        for (index, time) in good.iter().enumerate() {
            let name = format!("good-{index}");
            office.file(&office.bot, &name, &json!({"decideBy": time})).unwrap_or_else(|e| panic!("{time:?}: {e}"));
            office.settled(&name, "Pending");
            let expires =
                office.stored(&name)["status"]["expiresAt"].as_str().expect("a time").parse::<Timestamp>().expect("RFC 3339");
            assert_eq!(expires.as_second(), time.parse::<Timestamp>().expect("RFC 3339").as_second(), "{time}");
        }
        for seconds in [json!(0), json!(-1), json!(901), json!(1.5), json!("300"), json!(i64::MAX)] {
            invalid(office.file(&office.bot, "life", &json!({"expirationSeconds": seconds})), "spec.expirationSeconds");
        }
        for (index, seconds) in [1, 900].into_iter().enumerate() {
            office
                .file(&office.bot, &format!("life-{index}"), &json!({"expirationSeconds": seconds}))
                .expect("the bounds themselves");
        }
    });
}

#[test]
fn what_was_asked_cannot_be_changed() {
    both_ways("immutable", |office| {
        const CANNOT: &str = "spec cannot be changed";
        alice_may_file(office);
        let optional = json!({
            "justification": "because", "decideBy": from_now(3600).to_string(), "ttlSecondsAfterFinished": 600,
            "onBehalfOf": behalf(office, "carol"), "expirationSeconds": 120,
            "operation": {"capability": office.capability, "audience": DOCS, "resource": "invoice:7", "parameters": {"amount": 5}},
        });
        let operator = office.admin().impersonating(OPERATOR, &[]);
        office.file(&operator, "full", &optional).expect("with everything");
        office.file(&operator, "bare", &json!({})).expect("with nothing");
        let patch = |who: &str, name: &str, kind: &str, patch: &Value| {
            let who = if who == "admin" { office.admin() } else { office.person(who) };
            who.run(&["patch", "jit", name, "-n", office.namespace(), kind, "-p", &patch.to_string()]).map_err(|f| f.stderr)
        };
        let merge = |who: &str, name: &str, spec: &Value| patch(who, name, "--type=merge", &json!({"spec": spec}));
        for name in ["full", "bare"] {
            office.settled(name, "Pending");
        }
        let before = ["full", "bare"].map(|name| office.stored(name)["spec"].clone());
        for who in ["alice", "admin"] {
            // Set where there was nothing, removed where there was something: together they would be a change in two steps.
            for field in ["justification", "decideBy", "ttlSecondsAfterFinished", "onBehalfOf"] {
                invalid(merge(who, "bare", &json!({field: optional[field]})), CANNOT);
                invalid(merge(who, "full", &json!({field: null})), CANNOT);
            }
            for field in ["resource", "parameters"] {
                invalid(merge(who, "bare", &json!({"operation": {field: optional["operation"][field]}})), CANNOT);
                invalid(merge(who, "full", &json!({"operation": {field: null}})), CANNOT);
            }
            for changed in [
                json!({"justification": "because of that"}),
                json!({"decideBy": from_now(7200).to_string()}),
                json!({"ttlSecondsAfterFinished": 601}),
                json!({"onBehalfOf": {"user": "bob"}}),
                json!({"onBehalfOf": {"chain": [office.tenant.subject()]}}),
                json!({"expirationSeconds": 121}),
                json!({"expirationSeconds": null}),
                json!({"agent": {"uid": "x"}}),
                json!({"agent": {"name": "rival"}}),
                json!({"operation": {"capability": "another"}}),
                json!({"operation": {"audience": "https://other.example"}}),
                json!({"operation": {"resource": "invoice:8"}}),
                json!({"operation": {"parameters": {"amount": 6}}}),
                json!({"operation": {"parameters": {"to": "mallory"}}}),
                json!({"requestedBy": {"username": who}}),
                json!({"requestedBy": null}),
            ] {
                invalid(merge(who, "full", &changed), CANNOT);
            }
            let replace = json!([{"op": "replace", "path": "/spec/operation/parameters/amount", "value": 6}]);
            invalid(patch(who, "full", "--type=json", &replace), CANNOT);
            let mut put = office.stored("full");
            put["spec"]["operation"]["parameters"]["amount"] = json!(6);
            put["metadata"].as_object_mut().expect("metadata").remove("managedFields");
            let person = if who == "admin" { office.admin() } else { office.person(who) };
            invalid(person.run_with_input(&["replace", "-f", "-"], &put.to_string()).map_err(|f| f.stderr), CANNOT);
            put["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
            invalid(
                person
                    .run_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &put.to_string())
                    .map_err(|f| f.stderr),
                CANNOT,
            );
            // Through the subresource the spec is out of reach.
            let through = json!({"spec": {"justification": "through status"}}).to_string();
            let status =
                ["patch", "jit", "full", "-n", office.namespace(), "--subresource=status", "--type=merge", "-p", &through];
            person.run(&status).expect("it has no effect");
        }
        patch("alice", "full", "--type=merge", &json!({"metadata": {"labels": {"ticket": "7"}}}))
            .expect("a label is no question");
        assert_eq!(["full", "bare"].map(|name| office.stored(name)["spec"].clone()), before);
    });
}

/// Parameters that nest so many levels deep.
pub fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({"a": inner}))
}

#[test]
fn parameters_beyond_the_limits_are_denied() {
    let office = Office::open(World::shared(), Stamp::ByPolicy, "parameters");
    let ask = |name: &str, parameters: &Value| {
        let operation = json!({"capability": office.capability, "audience": DOCS, "parameters": parameters});
        office.file(&office.bot, name, &json!({"operation": operation})).unwrap_or_else(|e| panic!("{parameters}: {e}"));
    };
    for (index, good) in [json!({}), json!({"amount": 500, "to": {"name": "Jürgen 🦀"}}), nested(8)].iter().enumerate() {
        let name = format!("good-{index}");
        ask(&name, good);
        office.settled(&name, "Pending");
    }
    for (index, bad) in [
        json!({"a": "x".repeat(4096)}),
        json!({"\u{430}mount": 5}),
        json!({"": 5}),
        json!({"amount": 9_007_199_254_740_993_u64}),
        json!({"to": "a\u{202e}b"}),
        json!({"to": "a\nb"}),
        json!({"amount": {"$serde_json::private::Number": "5"}}),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("bad-{index}");
        ask(&name, bad);
        assert_eq!(office.ended(&name, "Denied"), "InvalidRequest", "{bad}");
    }
    for levels in [9, 16, 17, 64, 500] {
        let operation = json!({"capability": office.capability, "audience": DOCS, "parameters": nested(levels)});
        forbidden(office.file(&office.bot, "deep", &json!({"operation": operation})), "deeper than 8 levels");
    }
}
