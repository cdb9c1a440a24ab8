//! Token exchange along a chain: for a user, from agent to agent, and what stands against it.

use crate::chains::{ALICE, From, TYPE_ACCESS_TOKEN, TYPE_ID_TOKEN, Team, id_token, trusted_provider};
use crate::forged_tokens::encode;
use crate::signing_keys::signed_with_our_key;
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, TOKEN_EXCHANGE, TYPE_JWT, World, agent, claims, stamped, wait_until};
use serde_json::{Value, json};

#[test]
fn a_token_says_for_whom_and_through_whom_an_agent_acts() {
    let team = Team::start("chain");
    let id_token = id_token();
    let issuer = team.world.operator.issuer();
    let actor = |name: &str| json!({"iss": issuer, "sub": team.subject(name), "sub_profile": "ai_agent"});

    let first = claims(&team.called(&id_token));
    assert_eq!((&first["sub"], &first["client_id"]), (&json!(ALICE), &json!(team.subject("bot"))));
    assert_eq!((&first["aud"], &first["act"]), (&json!(team.subject("search")), &actor("bot")));
    assert_eq!(first["may_act"], json!({"iss": issuer, "sub": team.subject("search")}));
    assert_eq!(first["scope"], "document.read document.write web.search");

    let reply = team.reads("search", &team.called(&id_token)).expect(200);
    assert_eq!(reply.body["issued_token_type"], TYPE_ACCESS_TOKEN);
    let token = reply.text("access_token");
    let second = claims(&token);
    let mut act = actor("search");
    act["act"] = actor("bot");
    assert_eq!((&second["sub"], &second["act"]), (&json!(ALICE), &act), "the newest is outermost");
    assert_eq!((&second["client_id"], &second["aud"]), (&json!(team.subject("search")), &json!(DOCS)));
    assert_eq!(second["scope"], "document.read web.search", "what both hold");
    let limits = json!([{"type": "countersign_capability", "capability": "document.read", "resources": ["document:reports/*"]}]);
    assert_eq!(second["authorization_details"], limits, "the limit of the caller");
    assert!(second.get("may_act").is_none());
    let ends = |claims: &Value| claims["exp"].as_u64().expect("a time");
    assert!(ends(&second) <= ends(&claims(&id_token)).min(second["iat"].as_u64().expect("a time") + 300));

    // One chain: the same transaction, and each token names those from which it descends.
    let called = team.called(&id_token);
    let passed = team.passes_on(&called);
    let third = claims(&team.reads("reader", &passed).expect(200).text("access_token"));
    let (called, passed) = (claims(&called), claims(&passed));
    assert_eq!(third["ancestors"], json!([called["jti"], passed["jti"]]));
    assert_eq!((&called["txn"], &passed["txn"]), (&third["txn"], &third["txn"]));
    assert_ne!(second["txn"], third["txn"], "another chain");
    assert_eq!(
        (third["act"]["act"]["act"]["sub"].as_str(), third["links"].as_array().map(Vec::len)),
        (Some(&*team.subject("bot")), Some(3))
    );

    // The resource server sees the same.
    let server = team.world.resource_server(DOCS);
    let seen = team.world.introspect(&server, &token).expect(200).body;
    assert_eq!((&seen["active"], &seen["username"]), (&json!(true), &json!(ALICE)));
    assert_eq!((&seen["act"], &seen["authorization_details"]), (&act, &limits));
}

#[test]
fn the_record_of_a_delegation_names_the_user_and_the_chain() {
    let team = Team::start("chain-record");
    let called = team.called(&id_token());
    let reply = team.reads("search", &called).expect(200);
    let token = claims(&reply.text("access_token"));
    let record = team.world.record_of(&reply);
    for (field, value) in [
        ("outcome", json!("allow")),
        ("subject", json!(team.subject("search"))),
        ("user", json!(ALICE)),
        ("trusted_issuer", json!("acme-idp")),
        ("chain", json!(format!("{} {}", team.subject("bot"), team.subject("search")))),
        ("txn", token["txn"].clone()),
        ("parent_jti", claims(&called)["jti"].clone()),
        ("ancestors", claims(&called)["jti"].clone()),
        ("jti", token["jti"].clone()),
    ] {
        assert_eq!(record[field], value, "{field} in {record}");
    }
    // So does that of a refusal.
    let record = team.refused(
        team.exchange("search", &From::AccessToken(&called), &[("audience", "https://x")]),
        "invalid_target",
        "audience_not_allowed",
    );
    assert_eq!((&record["user"], &record["parent_jti"]), (&json!(ALICE), &claims(&called)["jti"]));
    assert!(!record.to_string().contains(&called[..40]));
}

#[test]
fn an_agent_that_acts_for_itself_and_calls_another_begins_the_chain() {
    let team = Team::start("chain-itself");
    let called = team.called_by_itself();
    assert!(claims(&called).get("act").is_none());
    let token = claims(&team.reads("search", &called).expect(200).text("access_token"));
    assert_eq!((&token["sub"], &token["client_id"]), (&json!(team.subject("bot")), &json!(team.subject("search"))));
    assert_eq!((&token["act"]["sub"], token["act"].get("act")), (&json!(team.subject("search")), None));
    assert!(token.get("user").is_none());
}

#[test]
fn the_actor_may_also_be_proven_by_an_actor_token() {
    let team = Team::start("actor-token");
    let called = team.called(&id_token());
    let base = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", &called),
        ("subject_token_type", TYPE_ACCESS_TOKEN),
        ("audience", DOCS),
    ];
    let with = |more: &[(&str, &str)]| team.world.request(&[&base, more].concat());
    let actor = |token| [("actor_token", token), ("actor_token_type", TYPE_JWT)];
    let own = team.credential("search");
    assert_eq!(claims(&with(&actor(own)).expect(200).text("access_token"))["client_id"], team.subject("search"));
    let client = [("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", own)];
    with(&[actor(own), client].concat()).expect(200);
    // Two that are not one.
    with(&[actor(team.credential("bot")), client].concat()).refused(401, "invalid_client");
    // Nobody, or somebody else.
    team.refused(with(&[]), "invalid_request", "actor_missing");
    team.refused(with(&actor(team.credential("bot"))), "invalid_request", "subject_not_addressed");
    // Not what it is said to be.
    with(&[("actor_token", own), ("actor_token_type", TYPE_ACCESS_TOKEN)]).refused(400, "invalid_request");
    with(&[("actor_token", own)]).refused(400, "invalid_request");
    with(&[("actor_token_type", TYPE_JWT)]).refused(400, "invalid_request");
    with(&actor(&called)).refused(400, "invalid_request");
}

#[test]
fn x1_what_is_asked_is_granted_whole_or_refused_with_the_term_that_cut_it() {
    let team = Team::start("x1");
    let called = team.called(&id_token());
    let ask = |scope: &str| team.exchange("search", &From::AccessToken(&called), &[("audience", DOCS), ("scope", scope)]);
    assert_eq!(ask("document.read").expect(200).body["scope"], "document.read");
    for (scope, cut) in [
        ("document.index", "not in the scope of the subject token"),
        ("document.write", &*format!("not granted to {}", team.subject("search"))),
        ("document.read document.index", "not in the scope of the subject token"),
        ("nothing.such", "not granted to"),
    ] {
        let reply = ask(scope).refused(400, "invalid_scope");
        assert!(reply.body["error_description"].as_str().expect("a text").contains(cut), "{scope}: {}", reply.body);
    }
    ask("").refused(400, "invalid_scope");
    // A token that was cut down stays cut down.
    let narrow =
        team.exchange("bot", &From::IdToken(&id_token()), &[("audience", &team.subject("search")), ("scope", "web.search")]);
    let reply = team.reads("search", &narrow.expect(200).text("access_token")).expect(200);
    assert_eq!(reply.body["scope"], "web.search");
}

#[test]
fn x2_x3_the_audience_binds_in_an_exchange_as_everywhere() {
    let team = Team::start("x2");
    let called = team.called(&id_token());
    let id_token = id_token();
    for from in [From::AccessToken(&called), From::IdToken(&id_token)] {
        let name = if matches!(from, From::IdToken(_)) { "bot" } else { "search" };
        for audience in [
            "https://docs.acme.com.evil",
            "*",
            "https://docs",
            "agent:",
            "agent:*/*",
            "user:alice",
            &team.subject("none"),
            "agent:a/b/c",
        ] {
            team.exchange(name, &from, &[("audience", audience)]).refused(400, "invalid_target");
        }
        let two = [("audience", DOCS), ("audience", "https://other.example")];
        team.exchange(name, &from, &two).refused(400, "invalid_target");
        team.exchange(name, &from, &[("resource", DOCS)]).expect(200);
    }
    // Whom it does not let call it an agent looks like one that there is not.
    let message = |name: &str| {
        let reply = team.exchange("bot", &From::IdToken(&id_token), &[("audience", &team.subject(name))]);
        reply.refused(400, "invalid_target").text("error_description").replace(&team.subject(name), "X")
    };
    assert_eq!(message("reader"), message("none"));
}

#[test]
fn x5_x14_a_token_is_what_its_type_says_or_nothing() {
    let team = Team::start("x5");
    let (called, id_token) = (team.called(&id_token()), id_token());
    let plain = team.called_by_itself();
    let own = team.credential("search");
    let with = |token: &str, kind: &str| {
        team.world.request(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", token),
            ("subject_token_type", kind),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", own),
            ("audience", DOCS),
        ])
    };
    with(&called, TYPE_ACCESS_TOKEN).expect(200);
    with(&plain, TYPE_ACCESS_TOKEN).expect(200);
    let urn = "urn:ietf:params:oauth:token-type:";
    for (token, kind) in [
        (&*called, TYPE_ID_TOKEN.to_owned()),
        (&*called, TYPE_JWT.to_owned()),
        (&*called, format!("{urn}saml2")),
        (&*called, format!("{urn}refresh_token")),
        (&*called, String::new()),
        (&*id_token, TYPE_ACCESS_TOKEN.to_owned()),
        (&*id_token, TYPE_JWT.to_owned()),
        (own, TYPE_ACCESS_TOKEN.to_owned()),
        (own, TYPE_ID_TOKEN.to_owned()),
    ] {
        with(token, &kind).refused(400, "invalid_request");
    }
    // An access token of the identity provider is none of ours.
    let tokens = trusted_provider().log_in("research-app", "alice").expect("logged in");
    with(&tokens.access_token, TYPE_ACCESS_TOKEN).refused(400, "invalid_request");
    // And what proves a user or a chain proves no client.
    for token in [&called, &id_token] {
        let form =
            [("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", token)];
        team.world.request(&form).refused(401, "invalid_client");
    }
    let kinds = [("requested_token_type", format!("{urn}id_token")), ("requested_token_type", format!("{urn}refresh_token"))];
    for (name, value) in kinds {
        team.exchange("search", &From::AccessToken(&called), &[("audience", DOCS), (name, &value)])
            .refused(400, "invalid_request");
    }
}

#[test]
fn x6_nobody_says_who_acts_for_whom_but_this_service() {
    let team = Team::start("x6");
    let called = team.called(&id_token());
    let act = json!({"sub": team.subject("reader")}).to_string();
    for name in ["act", "may_act", "claims"] {
        let reply = team.exchange("search", &From::AccessToken(&called), &[("audience", DOCS), (name, &act)]);
        team.refused(reply, "invalid_request", "claims_supplied");
    }
    // A claim that was added to a token of ours is a signature that is none.
    let parts: Vec<&str> = called.split('.').collect();
    let mut forged = claims(&called);
    forged["act"] = json!({"iss": team.world.operator.issuer(), "sub": team.subject("reader"), "sub_profile": "ai_agent"});
    let forged = format!("{}.{}.{}", parts[0], encode(&forged), parts[2]);
    team.refused(team.reads("search", &forged), "invalid_request", "subject_token_refused");
}

#[test]
fn x8_agents_do_not_call_one_another_in_a_circle() {
    let team = Team::start("x8");
    let callers: Vec<Value> = ["bot", "search", "reader"].map(|n| json!({"namespace": team.namespace, "name": n})).into();
    for name in ["bot", "search", "reader"] {
        team.patch(name, &json!({"spec": {"delegation": {"callers": callers}}}));
        team.world.kubectl().wait_for(&team.namespace, &format!("agent/{name}"), "condition=Ready", PATIENCE).expect("Ready");
    }
    let id_token = id_token();
    wait_until("the callers are known", PATIENCE, || {
        team.exchange("bot", &From::IdToken(&id_token), &[("audience", &team.subject("reader"))]).status == 200
    });
    let record = team.refused(
        team.exchange("bot", &From::IdToken(&id_token), &[("audience", &team.subject("bot"))]),
        "invalid_request",
        "chain_cycle",
    );
    assert_eq!(record["requested_audience"], team.subject("bot"));
    let called = team.called(&id_token);
    for back in ["bot", "search"] {
        let reply = team.exchange("search", &From::AccessToken(&called), &[("audience", &team.subject(back))]);
        team.refused(reply, "invalid_request", "chain_cycle");
    }
}

#[test]
fn x11_a_chain_is_no_longer_than_the_strictest_of_its_agents_allows() {
    let team = Team::start("x11");
    let id_token = id_token();
    let called = team.called(&id_token);
    team.reads("reader", &team.passes_on(&called)).expect(200);
    team.patch("bot", &json!({"spec": {"delegation": {"maxDepth": 2}}}));
    wait_until("the limit is known", PATIENCE, || {
        let reply = team.exchange("search", &From::AccessToken(&called), &[("audience", &team.subject("reader"))]);
        reply.status == 400 && team.world.record_of(&reply)["reason"] == "chain_too_deep"
    });
    team.reads("search", &called).expect(200);
    // More than eight nobody can allow, and a depth of a thousand is read no further than it has to be.
    let refused = team.world.kubectl().run(&[
        "patch",
        "agent",
        "bot",
        "-n",
        &team.namespace,
        "--type=merge",
        "-p",
        r#"{"spec":{"delegation":{"maxDepth":9}}}"#,
    ]);
    assert!(refused.expect_err("refused").stderr.contains("maxDepth"));
    let parts: Vec<&str> = called.split('.').collect();
    let deep = format!("{}{}{}", r#"{"act":"#.repeat(1000), "{}", "}".repeat(1000));
    let token = format!("{}.{}.{}", parts[0], base64_of(&deep), parts[2]);
    team.refused(team.reads("search", &token), "invalid_request", "subject_token_refused");
    let bomb = format!("{}.{}.{}", parts[0], base64_of(&"[".repeat(5000)), parts[2]);
    team.refused(team.reads("search", &bomb), "invalid_request", "subject_token_refused");
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn x15_the_namespace_is_part_of_who_calls_and_is_called() {
    let (team, namesakes) = (Team::start("x15-a"), Team::start("x15-b"));
    let called = team.called(&id_token());
    namesakes.refused(namesakes.reads("search", &called), "invalid_request", "subject_not_addressed");
    // The bot of the other namespace is not among the callers of this search.
    let reply = namesakes.exchange("bot", &From::IdToken(&id_token()), &[("audience", &team.subject("search"))]);
    reply.refused(400, "invalid_target");
    // An agent that was deleted and registered anew is another one, also to the chains of the first.
    let token = team.reads("search", &called).expect(200).text("access_token");
    let server = team.world.resource_server(DOCS);
    assert!(team.world.introspect(&server, &token).is_active());
    let bot = team.world.kubectl().get_json(&["get", "agent", "bot", "-n", &team.namespace]).expect("the Agent");
    team.world.kubectl().run(&["delete", "agent", "bot", "-n", &team.namespace]).expect("deleted");
    team.world.apply(&stamped(agent(&team.namespace, "bot", &bot["spec"]), "admin")).expect("anew");
    team.world.kubectl().wait_for(&team.namespace, "agent/bot", "condition=Ready", PATIENCE).expect("Ready");
    team.refused(team.reads("search", &called), "invalid_request", "chain_ended");
    assert!(!team.world.introspect(&server, &token).is_active());
}

#[test]
fn x16_x18_a_token_is_worth_something_to_whom_it_is_for() {
    let team = Team::start("x16");
    let called = team.called(&id_token());
    for other in ["bot", "reader"] {
        let record = team.refused(team.reads(other, &called), "invalid_request", "subject_not_addressed");
        assert!(record.get("user").is_none(), "not even the record says more: {record}");
    }
    // A token for a service is exchanged by nobody.
    let read = team.reads("search", &called).expect(200).text("access_token");
    for name in ["bot", "search", "reader"] {
        team.refused(team.reads(name, &read), "invalid_request", "subject_not_addressed");
    }
    // The agent that was called sees what it was given; whoever else asks sees nothing.
    let seen = team.world.introspect(team.credential("search"), &called).expect(200).body;
    assert_eq!((&seen["active"], &seen["sub"]), (&json!(true), &json!(ALICE)));
    for other in [team.credential("bot"), team.credential("reader"), &team.world.resource_server(DOCS)] {
        assert_eq!(team.world.introspect(other, &called).expect(200).body, json!({"active": false}));
    }
}

#[test]
fn x19_one_token_exchanged_many_times_at_once_makes_as_many_chains_and_all_of_them_die() {
    let team = Team::start("x19");
    let called = team.called(&id_token());
    let replies: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..25).map(|_| team.reads("search", &called)).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    });
    let tokens: Vec<String> = replies.into_iter().map(|reply| reply.expect(200).text("access_token")).collect();
    let jtis: std::collections::HashSet<String> = tokens.iter().map(|token| claims(token)["jti"].to_string()).collect();
    assert_eq!(jtis.len(), 200);
    let parent = claims(&called);
    assert!(
        tokens
            .iter()
            .map(|token| claims(token))
            .all(|token| token["ancestors"] == json!([parent["jti"]]) && token["txn"] == parent["txn"])
    );
    team.patch("bot", &json!({"spec": {"suspended": true}}));
    let server = team.world.resource_server(DOCS);
    wait_until("the last of them is dead", PATIENCE, || !team.world.introspect(&server, &tokens[199]).is_active());
    assert!(tokens.iter().all(|token| !team.world.introspect(&server, token).is_active()));
    team.refused(team.reads("search", &called), "invalid_request", "chain_ended");
}

#[test]
fn x20_nothing_of_an_id_token_but_who_it_is_goes_into_a_chain() {
    let team = Team::start("x20");
    let known: std::collections::HashSet<&str> = [
        "iss",
        "sub",
        "aud",
        "client_id",
        "act",
        "may_act",
        "iat",
        "exp",
        "jti",
        "scope",
        "authorization_details",
        "agent_uid",
        "links",
        "user",
        "txn",
        "ancestors",
    ]
    .into();
    let token = claims(&team.called(&id_token()));
    assert!(token.as_object().expect("claims").keys().all(|name| known.contains(name.as_str())), "{token}");
    for (name, value) in [("acr_values", "high"), ("auth_time", "1"), ("jit_request", "x")] {
        let reply = team.exchange("bot", &From::IdToken(&id_token()), &[("audience", DOCS), (name, value)]).expect(200);
        assert!(claims(&reply.text("access_token")).get(name).is_none());
    }
}

#[test]
fn a_caller_that_is_taken_off_the_list_calls_no_more() {
    let team = Team::start("callers");
    let called = team.called(&id_token());
    let token = team.reads("search", &called).expect(200).text("access_token");
    let server = team.world.resource_server(DOCS);
    assert!(team.world.introspect(&server, &token).is_active());
    team.patch("search", &json!({"spec": {"delegation": {"callers": []}}}));
    wait_until("what it was given is dead", PATIENCE, || !team.world.introspect(&server, &token).is_active());
    team.refused(team.reads("search", &called), "invalid_request", "caller_not_allowed");
    team.exchange("bot", &From::IdToken(&id_token()), &[("audience", &team.subject("search"))]).refused(400, "invalid_target");
}

#[test]
fn an_agent_acts_for_the_users_that_its_administrator_says() {
    let team = Team::start("act-for");
    let alice = |application: &str| trusted_provider().log_in(application, "alice").expect("logged in").id_token;
    let acts = |token: &str| team.exchange("bot", &From::IdToken(token), &[("audience", DOCS)]);
    acts(&alice("research-app")).expect(200);
    team.refused(acts(&alice("modern-app")), "invalid_request", "delegation_not_granted");
    // Not the search tool, which acts for no user by itself.
    let reply = team.exchange("search", &From::IdToken(&alice("research-app")), &[("audience", DOCS)]);
    team.refused(reply, "invalid_request", "delegation_not_granted");
    let settings = [
        (json!([{"issuer": "acme-idp", "audiences": ["research-app"], "groups": ["oidc:research"]}]), true),
        (json!([{"issuer": "acme-idp", "audiences": ["research-app"], "groups": ["research"]}]), false),
        (
            json!([{"issuer": "acme-idp", "audiences": ["research-app"], "subjects": ["bob*"], "groups": ["oidc:research"]}]),
            false,
        ),
        (json!([{"issuer": "other-idp", "audiences": ["research-app"], "subjects": ["*"]}]), false),
        (json!([{"issuer": "acme-idp", "audiences": ["modern-app"], "subjects": ["*"]}]), false),
        (json!([]), false),
    ];
    for (act_for, good) in settings {
        team.patch("bot", &json!({"spec": {"delegation": {"actFor": act_for}}}));
        team.world.kubectl().wait_for(&team.namespace, "agent/bot", "condition=Ready", PATIENCE).expect("Ready");
        let token = alice("research-app");
        wait_until(&format!("{act_for}: {good}"), PATIENCE, || (acts(&token).status == 200) == good);
    }
}

#[test]
fn a_delegation_is_written_by_whoever_may_grant_all_that_the_agent_holds() {
    for (world, _) in World::both() {
        let namespace = world.namespace("grant-delegation");
        let rules = json!([
            {"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "create", "update", "patch"]},
            {"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": ["web.search"], "verbs": ["grant"]},
        ]);
        world.bind(&namespace, "writer", &rules, &[crate::world::user("carol")]);
        let object = agent(&namespace, "bot", &json!({"capabilities": [{"name": "web.search"}, {"name": "document.read"}]}));
        world.apply(&stamped(object, "admin")).expect("accepted");
        let carol = world.kubectl().impersonating("carol", &[]);
        let annotations = json!({"annotations": {"countersign.dev/changed-by": "carol"}});
        let patch = |spec: Value| {
            let patch = json!({"metadata": annotations, "spec": spec}).to_string();
            carol
                .run(&["patch", "agent", "bot", "-n", &namespace, "--type=merge", "-p", &patch])
                .map_err(|failure| failure.stderr)
        };
        let caller = json!({"delegation": {"callers": [{"namespace": namespace, "name": "evil"}]}});
        crate::world::forbidden(patch(caller.clone()), "may not grant capability");
        let user = json!({"delegation": {"actFor": [{"issuer": "i", "audiences": ["a"], "subjects": ["*"]}]}});
        crate::world::forbidden(patch(user), "may not grant capability");
        // With nothing beyond what she may grant, she may.
        patch(json!({"capabilities": [{"name": "web.search"}]})).expect("to narrow needs nothing");
        patch(caller).expect("she may grant all that is left");
        for (bad, text) in [
            (json!({"actFor": [{"issuer": "i", "audiences": ["a"]}]}), "say for which users"),
            (json!({"actFor": [{"issuer": "i", "audiences": [], "subjects": ["*"]}]}), "audiences"),
            (json!({"maxDepth": 0}), "maxDepth"),
            (json!({"callers": [{"namespace": "A", "name": "b"}]}), "RFC 1123"),
            (json!({"callers": [{"name": "b"}]}), "namespace"),
        ] {
            let refused = patch(json!({"delegation": bad})).expect_err("refused");
            assert!(refused.contains(text), "{bad}: {refused}");
        }
        patch(json!({"capabilities": [{"name": "web.search"}], "delegation": null})).expect("to take it away needs nothing");
    }
}

#[test]
fn x10_may_act_says_who_alone_may_act_for_the_user() {
    use crate::federation::{Federated, now};
    let world = World::shared();
    let spec = json!({
        "provides": "Users",
        "issuer": {"audiences": ["app"]},
        "claimMappings": {"username": {"claim": "email", "prefix": "x10:"}},
    });
    let idp = Federated::apart(world, "x10");
    idp.trust(&spec);
    idp.is_ready();
    let act_for = json!([{"issuer": idp.name, "audiences": ["app"], "subjects": ["*"]}]);
    let tenant = world.tenant_with("x10", &json!({"delegation": {"actFor": act_for}}));
    let us = world.operator.issuer();
    let act = |change: &dyn Fn(&mut Value)| {
        let mut token = json!({"iss": idp.issuer.url(), "sub": "1", "email": "dora@acme.example", "aud": "app", "iat": now(), "exp": now() + 300});
        change(&mut token);
        let token = idp.token_of(crate::support::issuer::RSA, &token);
        let reply = world.request(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", &token),
            ("subject_token_type", TYPE_ID_TOKEN),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", &tenant.token),
        ]);
        (reply.status, world.record_of(&reply)["reason"].clone())
    };
    let may_act = |claim: Value| act(&|token| token["may_act"] = claim.clone());
    assert_eq!(act(&|_| {}), (200, json!("granted")));
    for good in [json!({"sub": tenant.subject()}), json!({"sub": tenant.subject(), "iss": us})] {
        assert_eq!(may_act(good), (200, json!("granted")));
    }
    for other in [json!({"sub": "agent:x/y"}), json!({"sub": tenant.subject(), "iss": "https://other"}), json!({"sub": "app"})] {
        assert_eq!(may_act(other), (400, json!("actor_not_allowed")));
    }
    for bad in [
        json!({"sub": [tenant.subject()]}),
        json!([{"sub": tenant.subject()}]),
        json!({"sub": tenant.subject(), "may_act": {"sub": tenant.subject()}}),
        json!(tenant.subject()),
        json!({}),
        Value::Null,
    ] {
        assert_eq!(may_act(bad), (400, json!("credential_claim_refused")));
    }
    // An ID token that is a delegation itself, or too old, or not for the application.
    assert_eq!(act(&|token| token["act"] = json!({"sub": "x"})), (400, json!("credential_claim_refused")));
    assert_eq!(act(&|token| token["iat"] = json!(now() - 620)), (400, json!("delegation_not_granted")));
    assert_eq!(act(&|token| token["aud"] = json!("other")), (400, json!("credential_claim_refused")));
    // The issuer is not trusted any more: what it vouched for ends (F15, R2).
    let token = idp.token_of(crate::support::issuer::RSA, &json!({"iss": idp.issuer.url(), "sub": "1", "email": "dora@acme.example", "aud": "app", "iat": now(), "exp": now() + 300}));
    let acting = world.request(&[
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", &token),
        ("subject_token_type", TYPE_ID_TOKEN),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", &tenant.token),
    ]);
    let acting = acting.expect(200).text("access_token");
    let server = world.resource_server(DOCS);
    assert!(world.introspect(&server, &acting).is_active());
    idp.patch(&json!({"spec": {"suspended": true}}));
    wait_until("it is dead", PATIENCE, || !world.introspect(&server, &acting).is_active());
}

#[test]
fn x6_x7_x17_what_our_own_key_signed_is_refused_if_we_would_not_have_written_it() {
    let team = Team::start("x17");
    let called = team.called(&id_token());
    let signed = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims(&called);
        change(&mut claims);
        signed_with_our_key(team.world, &called, &claims)
    };
    team.reads("search", &signed(&|_| {})).expect(200);
    let server = team.credential("search");
    let refused = |what: &str, token: &str| {
        let record = team.world.record_of(&team.reads("search", token).refused(400, "invalid_request"));
        assert!(record["reason"] == "subject_token_refused" || record["reason"] == "subject_not_addressed", "{what}: {record}");
        assert!(!team.world.introspect(server, token).is_active(), "{what}");
    };
    // An installation with a copy of our Secret, and another URL.
    refused("another issuer", &signed(&|c| c["iss"] = json!("https://staging.example")));
    refused("a slash more", &signed(&|c| c["iss"] = json!(format!("{}/", c["iss"].as_str().expect("a text")))));
    // A chain that was cut, turned around, or grafted onto somebody else.
    refused("no actor", &signed(&|c| c["act"] = Value::Null));
    refused("another actor", &signed(&|c| c["act"]["sub"] = json!(team.subject("reader"))));
    refused("an actor more", &signed(&|c| c["act"]["act"] = c["act"].clone()));
    refused("no links", &signed(&|c| c["links"] = json!([])));
    refused("a link twice", &signed(&|c| c["links"] = json!([c["links"][0], c["links"][0]])));
    refused("another client", &signed(&|c| c["client_id"] = json!(team.subject("reader"))));
    refused("an agent as the user", &signed(&|c| c["sub"] = json!(team.subject("reader"))));
    refused("no user", &signed(&|c| _ = c.as_object_mut().expect("claims").remove("user")));
    let nine: Vec<String> = (0..9).map(|i| format!("j{i}")).collect();
    refused("too many ancestors", &signed(&|c| c["ancestors"] = json!(nine)));
    let deep = (0..60).fold(Value::Null, |act, _| json!({"iss": "x", "sub": "y", "sub_profile": "z", "act": act}));
    refused("sixty actors", &signed(&|c| c["act"] = deep.clone()));
    // It was for one of several: nobody knows which.
    refused("two audiences", &signed(&|c| c["aud"] = json!([c["aud"], "https://docs"])));
}
