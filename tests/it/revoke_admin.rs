//! Revocation by whoever holds the RBAC verb `revoke`, with kubectl alone, on a cluster with MutatingAdmissionPolicy and on one without;
//! and by `countersign revoke`.

use crate::chains::Team;
use crate::enforcement::{BINDING, in_force, take_away};
use crate::federation::{Federated, now};
use crate::office::{both_ways_alone, invalid, whoami};
use crate::support::issuer::P256;
use crate::support::kubectl::Kubectl;
use crate::world::{
    CLIENT_ASSERTION, DOCS, PATIENCE, Stamp, TOKEN_EXCHANGE, Tenant, World, binary, claims, forbidden, user, wait_until,
};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const NO_VERB: &str = "may not revoke: it needs verb revoke on";
const ONLY: &str = "people write 'revoke' only, and cannot take it back";
const PROMPTLY: Duration = Duration::from_secs(10);

/// The rights of whoever may write a status, and no right to revoke.
fn status_rights() -> Value {
    json!([{"apiGroups": ["countersign.dev"], "resources": ["agents", "trustedissuers", "agents/status", "trustedissuers/status"],
        "verbs": ["get", "list", "update", "patch"]}])
}

/// Merges `status` into the status of an object: `["agent", "bot", "-n", "ns"]`.
fn patch_status(who: &Kubectl, object: &[&str], status: &Value) -> Result<String, String> {
    let patch = json!({"status": status}).to_string();
    let arguments = [&["patch"], object, &["--subresource=status", "--type=merge", "-p", &patch]].concat();
    who.run(&arguments).map_err(|f| f.stderr)
}

/// Gives an instruction, signed where people sign.
fn revoke(who: &Kubectl, stamp: Stamp, object: &[&str], instruction: &Value) -> Result<String, String> {
    let mut instruction = instruction.clone();
    if stamp == Stamp::ByHand {
        instruction["by"] = whoami(who);
    }
    patch_status(who, object, &json!({"revoke": instruction}))
}

/// Lets `bob` revoke in a namespace and `carol` write statuses there, and waits until the API server knows.
fn people(world: &World, namespace: &str) -> [Kubectl; 2] {
    world.bind_cluster_role(namespace, "revoke", "countersign-revoker", &[user("bob")]);
    world.bind(namespace, "status", &status_rights(), &[user("carol")]);
    let people = ["bob", "carol"].map(|name| world.cluster.kubectl_as(name).expect("a user"));
    for (who, verb) in people.iter().zip(["revoke", "update"]) {
        wait_until("the right is seen", PATIENCE, || {
            who.run(&["auth", "can-i", verb, "agents.countersign.dev", "-n", namespace]).is_ok()
        });
    }
    people
}

fn status_of(world: &World, object: &[&str]) -> Value {
    world.kubectl().get_json(&[&["get"], object].concat()).expect("the object")["status"].clone()
}

/// Waits until the instruction has been carried out. Returns the status.
fn carried_out(world: &World, object: &[&str]) -> Value {
    wait_until("it is carried out", PATIENCE, || status_of(world, object).get("revoke").is_none());
    status_of(world, object)
}

/// Waits for the record of this event about this agent or issuer.
fn record(world: &World, event: &str, field: &str, value: &str) -> Value {
    let mut found = Vec::new();
    wait_until(event, PATIENCE, || {
        let lines = world.operator.audit_lines().expect("the audit log");
        found = lines.into_iter().filter(|r| r["event"] == event && r[field] == value).collect();
        !found.is_empty()
    });
    found.pop().expect("a record")
}

#[test]
fn whoever_may_revoke_ends_a_token_a_chain_or_all_and_is_named() {
    for (world, stamp) in World::both() {
        let (tenant, server) = (world.tenant("revoke"), world.resource_server(DOCS));
        let [bob, _] = people(world, &tenant.namespace);
        let bot = ["agent", "bot", "-n", &tenant.namespace];
        let tokens = [(); 4].map(|()| tenant.access_token());
        let said = |i: usize, claim: &str| claims(&tokens[i])[claim].as_str().expect("a text").to_owned();
        let alive = || tokens.iter().map(|token| world.introspect(&server, token).is_active()).collect::<Vec<_>>();
        let about = |event: &str| record(world, event, "subject", &tenant.subject());

        revoke(&bob, stamp, &bot, &json!({"token": said(0, "jti"), "reason": "leaked in a ticket"})).expect("bob may");
        wait_until("one is dead", PROMPTLY, || alive() == [false, true, true, true]);
        let status = carried_out(world, &bot);
        assert_eq!(status["revokedTokens"][0]["id"], said(0, "jti"));
        let told = about("token.revoked");
        assert_eq!((&told["revoked_by"], &told["jti"]), (&json!("bob"), &json!(said(0, "jti"))));
        assert_eq!((&told["revocation_reason"], &told["outcome"]), (&json!("leaked in a ticket"), &json!("allow")));
        assert!(told.get("revoked_by_unproven").is_none(), "{told}");

        revoke(&bob, stamp, &bot, &json!({"chain": said(1, "txn")})).expect("bob may");
        wait_until("and another", PROMPTLY, || alive() == [false, false, true, true]);
        assert_eq!(carried_out(world, &bot)["revokedTokens"].as_array().map(Vec::len), Some(2));
        assert_eq!(about("chain.revoked")["txn"], said(1, "txn"));

        revoke(&bob, stamp, &bot, &json!({"all": true})).expect("bob may");
        wait_until("and all", PROMPTLY, || alive() == [false; 4]);
        let status = carried_out(world, &bot);
        assert_eq!((&status["revocationEpoch"], status.get("revokedTokens")), (&json!(1), None));
        assert_eq!(about("agent.revoked")["revoked_by"], "bob");
        assert!(world.introspect(&server, &tenant.access_token()).is_active(), "the agent itself goes on");
    }
}

#[test]
fn r12_a_chain_that_is_revoked_at_its_first_agent_is_dead_in_all_of_its_agents() {
    let team = Team::start("chain");
    let (world, server) = (team.world, team.world.resource_server(DOCS));
    let (called, beside) = (team.called_by_itself(), team.called_by_itself());
    let found = team.reads("search", &called).expect(200).text("access_token");
    let passed_on = team.passes_on(&called);
    let txn = claims(&called)["txn"].clone();
    assert_eq!(claims(&passed_on)["txn"], txn);
    let alive = || {
        [("search", &called), ("reader", &passed_on), ("", &found), ("search", &beside)].map(|(name, token)| {
            let bearer = if name.is_empty() { &*server } else { team.credential(name) };
            world.introspect(bearer, token).is_active()
        })
    };
    assert_eq!(alive(), [true; 4]);
    let bot = ["agent", "bot", "-n", &team.namespace];
    revoke(&world.kubectl(), Stamp::ByPolicy, &bot, &json!({"chain": txn})).expect("an administrator may");
    wait_until("the chain is dead, and no other", PROMPTLY, || alive() == [false, false, false, true]);
    let reply = team.reads("search", &called);
    team.refused(reply, "invalid_request", "chain_ended");
}

#[test]
fn a1_being_able_to_write_a_status_is_not_being_able_to_revoke_and_revoking_is_all_that_bob_can() {
    for (world, stamp) in World::both() {
        let tenant = world.tenant("denied");
        let [bob, carol] = people(world, &tenant.namespace);
        let bot = ["agent", "bot", "-n", &tenant.namespace];
        let before = status_of(world, &bot);
        let everything = json!({"all": true});
        forbidden(revoke(&carol, stamp, &bot, &everything), NO_VERB);
        forbidden(revoke(&world.kubectl().impersonating("mallory", &[]), stamp, &bot, &everything), "cannot");
        for more in [
            json!({"revocationEpoch": 7}),
            json!({"revokedTokens": [{"id": "x", "expiresAt": "2030-01-01T00:00:00Z"}]}),
            json!({"observedGeneration": 9}),
            json!({"conditions": []}),
            json!({"keyThumbprints": ["x"]}),
        ] {
            forbidden(patch_status(&bob, &bot, &more), ONLY);
            forbidden(patch_status(&carol, &bot, &more), ONLY);
            let mut both = more.clone();
            both["revoke"] = json!({"all": true, "by": whoami(&bob)});
            forbidden(patch_status(&bob, &bot, &both), ONLY);
        }
        // Whoever passes for somebody else is found out, or overwritten.
        let forged = patch_status(&bob, &bot, &json!({"revoke": {"token": "none", "by": whoami(&carol)}}));
        match stamp {
            Stamp::ByPolicy => {
                forged.expect("what is written there is overwritten");
                carried_out(world, &bot);
                assert_eq!(record(world, "token.revoked", "subject", &tenant.subject())["revoked_by"], "bob");
            }
            Stamp::ByHand => {
                forbidden(forged, "status.revoke.by must be your own");
                forbidden(patch_status(&bob, &bot, &json!({"revoke": {"token": "none"}})), "status.revoke.by must be your own");
            }
        }
        assert_eq!(status_of(world, &bot)["revocationEpoch"], before["revocationEpoch"]);
        // Bob may revoke here, and not elsewhere, nor users.
        let other = world.tenant("elsewhere");
        forbidden(revoke(&bob, stamp, &["agent", "bot", "-n", &other.namespace], &everything), "cannot");
        let issuer = Federated::apart(world, "not-hers");
        issuer.trust(&json!({}));
        forbidden(revoke(&bob, stamp, &["trustedissuer", &issuer.name], &json!({"allUsers": true})), "cannot");
    }
}

#[test]
fn an_instruction_is_in_force_before_it_is_carried_out_and_cannot_be_taken_back() {
    both_ways_alone("revoke-frozen", |office| {
        let (world, stamp, namespace) = (office.world(), office.stamp, office.namespace());
        let [bob, carol] = people(world, namespace);
        let bot = ["agent", "bot", "-n", namespace];
        let admin = world.kubectl();
        let ice = office.freeze();
        revoke(&bob, stamp, &bot, &json!({"all": true})).expect("bob may");
        let given = status_of(world, &bot)["revoke"].clone();
        assert_eq!((&given["by"]["username"], &given["all"]), (&json!("bob"), &json!(true)));
        let retry = "cannot be changed or taken back: retry once the operator has carried it out";
        for who in [&bob, &carol, &admin] {
            invalid(patch_status(who, &bot, &json!({"revoke": null})), retry);
            invalid(revoke(who, stamp, &bot, &json!({"all": true, "reason": "another"})), retry);
        }
        invalid(revoke(&bob, stamp, &bot, &json!({"token": "x"})), "exactly one of all, token and chain");
        for undoing in [json!({"revoke": null}), json!({"revoke": null, "revocationEpoch": 0})] {
            invalid(patch_status(&admin, &bot, &undoing), "taken back");
        }
        let gone =
            admin.run(&[&["patch"], &bot[..], &["--subresource=status", "--type=merge", "-p", r#"{"status":null}"#]].concat());
        invalid(gone.map_err(|f| f.stderr), "taken back");
        drop(ice);
        assert_eq!(carried_out(world, &bot)["revocationEpoch"], 1);
    });
}

#[test]
fn without_the_policies_an_instruction_counts_all_the_same_and_nobody_is_said_to_have_given_it() {
    let world = World::start(4, &[], &[]);
    let (tenant, server) = (world.tenant("unproven"), world.resource_server(DOCS));
    let [_, carol] = people(&world, &tenant.namespace);
    let token = tenant.access_token();
    let saved = take_away(&world, BINDING, "countersign-agents-status");
    let bot = ["agent", "bot", "-n", &tenant.namespace];
    // The API server takes a moment to see that the policy is gone.
    let by = json!({"username": "alice", "groups": []});
    wait_until("nobody stops carol", PATIENCE, || {
        patch_status(&carol, &bot, &json!({"revoke": {"all": true, "by": by}})).is_ok()
    });
    wait_until("it only stops, so it counts", PROMPTLY, || !world.introspect(&server, &token).is_active());
    assert_eq!(carried_out(&world, &bot)["revocationEpoch"], 1);
    let told = record(&world, "agent.revoked", "subject", &tenant.subject());
    assert!(told["revoked_by_unproven"].as_str().is_some_and(|why| why.len() > 10), "{told}");
    world.apply(&saved).expect("restored");
    in_force(&world, true);
    assert!(world.introspect(&server, &tenant.access_token()).is_active(), "the agent's own admission is not in doubt");
}

/// An issuer of users, and an agent that acts for them.
pub struct Users<'a> {
    issuer: Federated<'a>,
    tenant: Tenant<'a>,
    server: String,
}

impl<'a> Users<'a> {
    pub fn start(world: &'a World, purpose: &str) -> Self {
        let issuer = Federated::apart(world, purpose);
        let mapping = json!({"username": {"claim": "email"}});
        issuer.trust(&json!({"provides": "Users", "issuer": {"audiences": ["app"]}, "claimMappings": mapping}));
        issuer.is_ready();
        let act_for = json!([{"issuer": issuer.name, "audiences": ["app"], "subjects": ["*"]}]);
        let tenant = world.tenant_with(purpose, &json!({"delegation": {"actFor": act_for}}));
        Self { issuer, tenant, server: world.resource_server(DOCS) }
    }

    /// The name of the issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer.name
    }

    /// The agent's token for this user, who has just signed in; `None` if it is refused.
    fn token_for(&self, name: &str) -> Option<String> {
        let now = now();
        let email = format!("{name}@acme.example");
        let id_token = json!({"iss": self.issuer.issuer.url(), "sub": name, "aud": "app", "iat": now, "exp": now + 300,
            "email": email, "email_verified": true});
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", &*self.issuer.token_of(P256, &id_token)),
            ("subject_token_type", crate::chains::TYPE_ID_TOKEN),
            ("client_assertion_type", CLIENT_ASSERTION),
            ("client_assertion", &*self.tenant.token),
        ];
        let reply = self.tenant.world.request(&form);
        reply.body["access_token"].as_str().map(str::to_owned)
    }

    /// The same, once an ID token is young enough.
    pub fn signed_in(&self, name: &str) -> String {
        let mut token = None;
        wait_until("the user is served again", PATIENCE, || {
            token = self.token_for(name);
            token.is_some()
        });
        token.expect("a token")
    }

    fn alive(&self, tokens: &[&String]) -> Vec<bool> {
        tokens.iter().map(|token| self.tenant.world.introspect(&self.server, token).is_active()).collect()
    }
}

#[test]
fn r4_a_user_is_revoked_alone_or_with_all_and_the_higher_count_holds() {
    for (world, stamp) in World::both() {
        let users = Users::start(world, "users-revoked");
        let issuer = ["trustedissuer", &users.issuer.name];
        world.bind_everywhere(
            "revoke-users",
            &json!([
                {"apiGroups": ["countersign.dev"], "resources": ["trustedissuers"], "verbs": ["get", "revoke"]},
                {"apiGroups": ["countersign.dev"], "resources": ["trustedissuers/status"], "verbs": ["get", "patch"]},
            ]),
            &[user("uma")],
        );
        let uma = world.kubectl().impersonating("uma", &[]);
        wait_until("the right is seen", PATIENCE, || {
            uma.run(&["auth", "can-i", "revoke", "trustedissuers.countersign.dev"]).is_ok()
        });
        let [alice, bob] = ["alice", "bob"].map(|name| users.signed_in(name));
        let by_itself = users.tenant.access_token();
        assert_eq!(users.alive(&[&alice, &bob, &by_itself]), [true; 3]);

        revoke(&uma, stamp, &issuer, &json!({"user": "alice@acme.example", "reason": "left"})).expect("uma may");
        wait_until("alice's are dead", PROMPTLY, || users.alive(&[&alice, &bob, &by_itself]) == [false, true, true]);
        assert_eq!(users.token_for("alice"), None, "her ID token may be from before");
        let status = carried_out(world, &issuer);
        assert_eq!((&status["usersEpoch"], &status["revokedUsers"][0]["epoch"]), (&json!(0), &json!(1)));
        let told = record(world, "user.revoked", "trusted_issuer", &users.issuer.name);
        assert_eq!((&told["revoked_by"], &told["user"]), (&json!("uma"), &json!("user:alice@acme.example")));
        let alice_again = users.signed_in("alice");
        assert_eq!(claims(&alice_again)["user"]["epoch"], 1);
        assert_eq!(users.alive(&[&alice, &alice_again]), [false, true]);

        revoke(&uma, stamp, &issuer, &json!({"allUsers": true})).expect("uma may");
        let all = [&alice, &alice_again, &bob, &by_itself];
        wait_until("all users' are dead", PROMPTLY, || users.alive(&all) == [false, false, false, true]);
        let status = carried_out(world, &issuer);
        assert_eq!((&status["usersEpoch"], status.get("revokedUsers")), (&json!(2), None));
        let bob_again = users.signed_in("bob");
        assert_eq!(claims(&bob_again)["user"]["epoch"], 2);

        // The user's own count above that of all, and the other way round.
        revoke(&uma, stamp, &issuer, &json!({"user": "bob@acme.example"})).expect("uma may");
        wait_until("bob's is dead", PROMPTLY, || users.alive(&[&bob_again]) == [false]);
        let status = carried_out(world, &issuer);
        assert_eq!((&status["usersEpoch"], &status["revokedUsers"][0]["epoch"]), (&json!(2), &json!(3)));
        assert_eq!(claims(&users.signed_in("bob"))["user"]["epoch"], 3);
        forbidden(patch_status(&uma, &issuer, &json!({"usersEpoch": 9})), ONLY);
    }
}

#[test]
fn r4_no_count_of_an_issuer_goes_back_whoever_writes_it() {
    let world = World::shared();
    let issuer = Federated::apart(world, "counts");
    issuer
        .trust(&json!({"provides": "Users", "issuer": {"audiences": ["app"]}, "claimMappings": {"username": {"claim": "sub"}}}));
    issuer.is_ready();
    let object = ["trustedissuer", &issuer.name];
    let admin = world.kubectl();
    let listed = |name: &str, epoch: i64, at: &str| json!({"name": name, "epoch": epoch, "at": at});
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    let set = |status: Value| patch_status(&admin, &object, &status);
    set(json!({"usersEpoch": 2, "usersRevokedAt": late, "revokedUsers": [listed("a", 5, late), listed("b", 3, late)]}))
        .expect("upwards");
    let only_grows = "only grows";
    for back in [
        json!({"usersEpoch": 1}),
        json!({"usersEpoch": null}),
        json!({"usersEpoch": 4}),
        json!({"usersRevokedAt": early}),
        json!({"usersRevokedAt": null}),
        json!({"revokedUsers": []}),
        json!({"revokedUsers": [listed("a", 5, late)]}),
        json!({"revokedUsers": [listed("a", 4, late), listed("b", 3, late)]}),
        json!({"revokedUsers": [listed("a", 5, early), listed("b", 3, late)]}),
        json!({"revokedUsers": [listed("c", 5, late), listed("b", 3, late)]}),
    ] {
        invalid(set(back), only_grows);
    }
    let removed =
        admin.run(&[&["patch"], &object[..], &["--subresource=status", "--type=merge", "-p", r#"{"status":null}"#]].concat());
    invalid(removed.map_err(|f| f.stderr), only_grows);
    set(json!({"revokedUsers": [listed("a", 6, late), listed("b", 3, late), listed("c", 3, early)]})).expect("upwards");
    set(json!({"usersEpoch": 7, "revokedUsers": []})).expect("beyond all of them");
    set(json!({"revokedUsers": (0..256).map(|i| listed(&format!("u{i}"), 8, late)).collect::<Vec<_>>()}))
        .expect("as many as there may be");
    set(json!({"revokedUsers": (0..256).map(|i| listed(&format!("u{i}"), 9, late)).collect::<Vec<_>>()}))
        .expect("within the cost of a rule");
}

#[test]
fn an_instruction_says_one_thing() {
    let world = World::shared();
    let tenant = world.tenant("shape");
    let (admin, bot) = (world.kubectl(), ["agent", "bot", "-n", &tenant.namespace]);
    let dry = |object: &[&str], instruction: Value| {
        let patch = json!({"status": {"revoke": instruction}}).to_string();
        let arguments =
            [&["patch"], object, &["--subresource=status", "--type=merge", "--dry-run=server", "-p", &patch]].concat();
        admin.run(&arguments).map_err(|f| f.stderr)
    };
    for good in [json!({"all": true}), json!({"token": "-a_Z9"}), json!({"chain": "t".repeat(64), "reason": "r".repeat(256)})] {
        dry(&bot, good).expect("well-formed");
    }
    for bad in [
        json!({}),
        json!({"all": false}),
        json!({"all": true, "token": "x"}),
        json!({"token": "x", "chain": "y"}),
        json!({"token": ""}),
        json!({"token": "x y"}),
        json!({"token": "t".repeat(65)}),
        json!({"chain": "a.b"}),
        json!({"all": "yes"}),
        json!({"all": true, "reason": ""}),
        json!({"all": true, "reason": "a\nb"}),
        json!({"all": true, "reason": "a\u{202e}b"}),
        json!({"all": true, "reason": "r".repeat(257)}),
    ] {
        invalid(dry(&bot, bad), "status.revoke");
    }
    let issuer = Federated::apart(world, "shape");
    issuer.trust(&json!({}));
    let object = ["trustedissuer", &issuer.name];
    for good in [json!({"user": "alice@acme.com"}), json!({"allUsers": true, "reason": "drill"})] {
        dry(&object, good).expect("well-formed");
    }
    for bad in [
        json!({}),
        json!({"allUsers": false}),
        json!({"user": "a", "allUsers": true}),
        json!({"user": ""}),
        json!({"user": "a\u{202e}b"}),
        json!({"user": "u".repeat(254)}),
    ] {
        invalid(dry(&object, bad), "status.revoke");
    }
}

/// Runs `countersign revoke` as a user. Returns whether it succeeded, and what it says.
fn command(who: &Kubectl, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binary())
        .arg("revoke")
        .args(arguments)
        .env_clear()
        .env("KUBECONFIG", who.kubeconfig())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

#[test]
fn the_command_revokes_waits_and_says_what_died() {
    for (world, _) in World::both() {
        let users = Users::start(world, "command");
        let (tenant, server) = (&users.tenant, &users.server);
        let [bob, carol] = people(world, &tenant.namespace);
        let admin = world.kubectl();
        let name = format!("{}/bot", tenant.namespace);
        let alive = |token: &str| world.introspect(server, token).is_active();
        let tokens = [(); 3].map(|()| tenant.access_token());
        let of = |i: usize, claim: &str| claims(&tokens[i])[claim].as_str().expect("a text").to_owned();
        let (jti, txn) = (of(0, "jti"), of(1, "txn"));
        for (arguments, dead) in
            [(["--token", &*jti], &tokens[..1]), (["--chain", &*txn], &tokens[..2]), (["--all", "--reason=drill"], &tokens[..])]
        {
            let (done, said) = command(&bob, &[&["--agent", &name], &arguments[..]].concat());
            assert!(done && said.contains("dead") && said.contains(&name), "{said}");
            // It has been carried out; the watch shows it a moment later at most.
            wait_until("they are dead", PROMPTLY, || !dead.iter().any(|token| alive(token)));
        }
        assert_eq!(record(world, "agent.revoked", "subject", &tenant.subject())["revocation_reason"], "drill");
        let token = users.signed_in("alice");
        let issuer = ["--issuer", &*users.issuer.name];
        let (done, said) = command(&admin, &[&issuer[..], &["--user", "alice@acme.example"]].concat());
        assert!(done && said.contains("user:alice@acme.example"), "{said}");
        wait_until("it is dead", PROMPTLY, || !alive(&token));
        assert!(command(&admin, &[&issuer[..], &["--all-users"]].concat()).0);

        for (who, arguments, because) in [
            (&carol, vec!["--agent", &name, "--all"], NO_VERB),
            (&bob, vec!["--agent", &name, "--all", "--reason", "a\nb"], "reason must not contain"),
            (&bob, vec![issuer[0], issuer[1], "--all-users"], "cannot"),
            (&admin, vec!["--agent", "default/nobody", "--all"], "there is no Agent nobody"),
            (&admin, vec!["--issuer", "nobody", "--all-users"], "there is no TrustedIssuer nobody"),
            (&admin, vec!["--agent", "nobody", "--all"], "must be namespace/name"),
            (&admin, vec!["--agent", &name], "required"),
            (&admin, vec!["--all"], "required"),
            (&admin, vec!["--agent", &name, "--all", "--token", "x"], "cannot be used with"),
            (&admin, vec!["--agent", &name, "--user", "alice"], "cannot be used with"),
            (&admin, vec!["--issuer", "x", "--token", "y"], "cannot be used with"),
            (&admin, vec!["--agent", &name, "--issuer", "x", "--all"], "cannot be used with"),
        ] {
            let (done, said) = command(who, &arguments);
            assert!(!done && said.contains(because), "{arguments:?}: {said}");
        }
    }
}

/// What is lost, and how.
type Loss<'a, T> = (&'a str, &'a dyn Fn(&T));

#[test]
fn r2_whatever_an_agent_of_a_chain_loses_ends_what_was_issued_through_it() {
    let server = World::shared().resource_server(DOCS);
    let losses: [Loss<'_, Team<'_>>; 7] = [
        ("the first agent is deleted", &|team| delete(team, &["agent", "bot"])),
        ("the second agent is deleted", &|team| delete(team, &["agent", "search"])),
        ("the first agent is suspended", &|team| team.patch("bot", &json!({"spec": {"suspended": true}}))),
        ("a caller is removed", &|team| team.patch("search", &json!({"spec": {"delegation": {"callers": []}}}))),
        ("a capability is removed", &|team| team.patch("bot", &json!({"spec": {"capabilities": [{"name": "web.search"}]}}))),
        ("the credential is removed", &|team| {
            let identity = json!({"serviceAccounts": [{"name": "another"}]});
            team.patch("bot", &json!({"spec": {"identity": identity}}));
        }),
        ("the namespace is deleted", &|team| {
            team.world.kubectl().run(&["delete", "namespace", &team.namespace, "--wait=false"]).expect("deleted");
        }),
    ];
    for (loss, lose) in losses {
        let team = Team::start("loss");
        let called = team.called_by_itself();
        let found = team.exchange(
            "search",
            &crate::chains::From::AccessToken(&called),
            &[("audience", DOCS), ("scope", "document.read")],
        );
        let found = found.expect(200).text("access_token");
        assert!(team.world.introspect(&server, &found).is_active(), "{loss}");
        lose(&team);
        // The namespace controller needs a moment of its own.
        let took = wait_until(loss, PATIENCE, || !team.world.introspect(&server, &found).is_active());
        eprintln!("{loss}: dead after {took:?}");
    }
}

fn delete(team: &Team<'_>, what: &[&str]) {
    team.world.kubectl().run(&[&["delete", "-n", &team.namespace, "--wait=false"], what].concat()).expect("deleted");
}

#[test]
fn r2_an_issuer_that_is_suspended_or_deleted_and_a_user_no_longer_acted_for_end_what_they_began() {
    let world = World::shared();
    let losses: [Loss<'_, Users<'_>>; 3] = [
        ("the issuer is suspended", &|users| users.issuer.patch(&json!({"spec": {"suspended": true}}))),
        ("the issuer is deleted", &|users| users.issuer.remove()),
        ("actFor is removed", &|users| users.tenant.patch(&json!({"spec": {"delegation": {"actFor": []}}}))),
    ];
    for (loss, lose) in losses {
        let users = Users::start(world, "issuer-loss");
        let token = users.signed_in("alice");
        assert_eq!(users.alive(&[&token]), [true], "{loss}");
        lose(&users);
        wait_until(loss, PROMPTLY, || users.alive(&[&token]) == [false]);
    }
}
