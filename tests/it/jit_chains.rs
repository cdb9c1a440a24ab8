//! A request for approval on behalf of a user, by an agent that another one called: the person who decides sees for whom and through
//! whom, whoever stands in the chain cannot approve, and the token carries it.

use crate::chains::{ALICE, TYPE_ID_TOKEN, id_token};
use crate::payments::{Asked, answered, details, send};
use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, TOKEN_EXCHANGE, Tenant, World, agent, claims, stamped, wait_until};
use serde_json::{Value, json};

/// A planner that acts for users and may call the payments agent `bot`.
struct Planned {
    tenant: Tenant<'static>,
    capability: String,
    planner: String,
}

impl Planned {
    fn start(purpose: &str) -> Self {
        let world = World::shared();
        let capability = world.capability(&json!({}));
        let namespace = world.namespace(purpose);
        let entry = json!({"name": capability, "approval": "Required", "resources": ["invoice:2026/*"]});
        let callers = json!({"callers": [{"namespace": namespace, "name": "planner"}]});
        let planner = world.workload(&namespace, "planner");
        let act_for = json!({"actFor": [{"issuer": "acme-idp", "audiences": ["research-app"], "subjects": ["*"]}]});
        let spec = json!({"owner": "planners", "capabilities": [{"name": "web.search"}], "delegation": act_for});
        world.apply(&stamped(agent(&namespace, "planner", &spec), "admin")).expect("accepted");
        world.kubectl().wait_for(&namespace, "agent/planner", "condition=Ready", PATIENCE).expect("Ready");
        // A payments agent that shares a standing capability with its caller: without one there is no token to be called with.
        let spec = json!({"capabilities": [entry, {"name": "web.search"}], "delegation": callers});
        let tenant = world.tenant_in(namespace, &spec);
        Self { tenant, capability, planner }
    }

    fn world(&self) -> &'static World {
        self.tenant.world
    }

    fn planner(&self) -> String {
        format!("agent:{}/planner", self.tenant.namespace)
    }

    fn as_planner(&self, form: &[(&str, &str)]) -> Reply {
        let own = [("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", self.planner.as_str())];
        self.world().request(&[&own, form].concat())
    }

    /// The token with which the planner, acting for alice, calls the payments agent.
    fn called(&self) -> String {
        let id_token = id_token();
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", &*id_token),
            ("subject_token_type", TYPE_ID_TOKEN),
            ("audience", &self.tenant.subject()),
        ];
        self.as_planner(&form).expect(200).text("access_token")
    }

    fn ask(&self, hints: &[(&str, &str)], headers: &[(&str, &str)]) -> Reply {
        let details = details(&self.capability, "invoice:2026/7", &json!({"amount": 5})).to_string();
        let form = [&[("authorization_details", details.as_str())], hints].concat();
        send(&self.world().operator.url(), "/oauth2/bc-authorize", &self.tenant, &form, headers)
    }

    /// The payments agent asks for a payment, on behalf of whoever it was called for.
    fn asked(&self, called: &str) -> Asked<'_> {
        let id = self.ask(&[("login_hint_token", called)], &[]).expect(200).text("auth_req_id");
        let asked = Asked::of(&self.tenant, id);
        asked.reaches("Pending");
        asked
    }

    fn patch_planner(&self, patch: &Value) {
        let namespace = &self.tenant.namespace;
        let arguments = ["patch", "agent", "planner", "--namespace", namespace, "--type=merge", "-p", &patch.to_string()];
        self.world().kubectl().run(&arguments).expect("patched");
    }

    fn approver(&self, user: &str) {
        self.world().approver(user, &self.tenant.namespace, &self.capability);
    }
}

#[test]
fn a_request_and_its_token_say_for_whom_and_through_whom() {
    let planned = Planned::start("jit-chain");
    planned.approver("bob");
    let called = planned.called();
    let asked = planned.asked(&called);
    let behalf = asked.object()["spec"]["onBehalfOf"].clone();
    assert_eq!((&behalf["user"], &behalf["chain"]), (&json!("oidc:alice@acme.example"), &json!([planned.planner()])));
    let lineage = &behalf["lineage"];
    assert_eq!((&lineage["transaction"], &lineage["ancestors"]), (&claims(&called)["txn"], &json!([claims(&called)["jti"]])));
    asked.approve("bob");
    let reply = asked.redeemed();
    let token = reply.text("access_token");
    let says = claims(&token);
    assert_eq!((&says["sub"], &says["client_id"]), (&json!(ALICE), &json!(planned.tenant.subject())));
    assert_eq!((&says["act"]["sub"], &says["act"]["act"]["sub"]), (&json!(planned.tenant.subject()), &json!(planned.planner())));
    assert_eq!((&says["txn"], &says["ancestors"]), (&claims(&called)["txn"], &json!([claims(&called)["jti"]])));
    assert_eq!(says["scope"], planned.capability);
    assert_eq!(claims(&asked.token()), says, "delivered again as it was");
    let record = planned.world().record_of(&reply);
    assert_eq!((&record["user"], &record["approved_by"]), (&json!(ALICE), &json!("bob")));
    assert_eq!(record["chain"], format!("{} {}", planned.planner(), planned.tenant.subject()));
    let server = planned.world().resource_server(DOCS);
    let seen = planned.world().introspect(&server, &token).expect(200).body;
    assert_eq!((&seen["active"], &seen["act"]), (&json!(true), &says["act"]));
    assert_eq!(seen["authorization_details"][0]["type"], "countersign_operation");
    asked.complete(&token).expect(200);
    assert!(!planned.world().introspect(&server, &token).is_active());
}

#[test]
fn p8_nobody_in_the_chain_approves() {
    let planned = Planned::start("jit-chain-self");
    let asked = planned.asked(&planned.called());
    let (world, namespace) = (planned.world(), &planned.tenant.namespace);
    for person in ["oidc:alice@acme.example", "planners", "team@example.com", "bob"] {
        planned.approver(person);
    }
    // The user, the owner of the agent that called, the owner of the agent that asks.
    for (count, person) in ["oidc:alice@acme.example", "planners", "team@example.com"].into_iter().enumerate() {
        let patch = json!({"status": {"decision": {"verdict": "Approved"}}}).to_string();
        let arguments = ["patch", "jit", &asked.name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &patch];
        world.kubectl().impersonating(person, &["system:authenticated"]).run(&arguments).expect("admission cannot see it");
        wait_until("it is taken in and does not count", PATIENCE, || {
            let status = asked.status();
            let last = status["approvals"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
            status["approvals"].as_array().is_some_and(|all| all.len() == count + 1) && last["void"].is_string()
        });
        assert_eq!(asked.status()["phase"], "Pending", "{person}");
    }
    asked.approve("bob");
}

#[test]
fn a_chain_that_ends_takes_its_requests_and_their_tokens_along() {
    let planned = Planned::start("jit-chain-end");
    planned.approver("bob");
    let server = planned.world().resource_server(DOCS);
    let pending = planned.asked(&planned.called());
    let approved = planned.asked(&planned.called());
    approved.approve("bob");
    let issued = planned.asked(&planned.called());
    issued.approve("bob");
    let token = issued.token();
    assert!(planned.world().introspect(&server, &token).is_active());
    planned.patch_planner(&json!({"spec": {"suspended": true}}));
    wait_until("the token is dead", PATIENCE, || !planned.world().introspect(&server, &token).is_active());
    for asked in [&pending, &approved, &issued] {
        asked.reaches("Revoked");
    }
    answered(|| approved.poll()).refused(400, "access_denied");
    let late = planned.called_while_suspended();
    late.refused(401, "invalid_client");
}

impl Planned {
    fn called_while_suspended(&self) -> Reply {
        let id_token = id_token();
        let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", &*id_token), ("subject_token_type", TYPE_ID_TOKEN)];
        self.as_planner(&[&form[..], &[("audience", &*self.tenant.subject())]].concat())
    }
}

#[test]
fn exactly_one_hint_says_on_whose_behalf_and_it_must_be_a_token_for_the_agent() {
    let planned = Planned::start("jit-hints");
    let called = planned.called();
    let own = planned.tenant.subject();
    for hints in [&[("login_hint_token", &*called), ("login_hint", &*own)][..], &[], &[("id_token_hint", &*called)]] {
        planned.ask(hints, &[]).refused(400, "invalid_request");
    }
    let hint = |token: &str| planned.ask(&[("login_hint_token", token)], &[]);
    // Nothing that is no access token of ours.
    for bad in [&*id_token(), &*planned.planner, "a.b.c", &called[..called.len() - 4]] {
        hint(bad).refused(400, "expired_login_hint_token");
    }
    // One for somebody else.
    let plain = planned.tenant.access_token();
    hint(&plain).refused(400, "invalid_request");
    // With the right one it works, and a key makes it one request however often the agent is called.
    let key = [("idempotency-key", "one")];
    let first = planned.ask(&[("login_hint_token", &*called)], &key).expect(200).text("auth_req_id");
    assert_eq!(planned.ask(&[("login_hint_token", &*called)], &key).expect(200).text("auth_req_id"), first);
    planned.ask(&[("login_hint", &*own)], &key).refused(400, "invalid_request");
    planned.ask(&[("login_hint_token", &*planned.called())], &key).refused(400, "invalid_request");
}

#[test]
fn a22_whoever_confirms_in_the_portal_is_told_for_whom_and_through_whom() {
    let planned = Planned::start("chain-portal");
    let (world, namespace) = (planned.world(), &planned.tenant.namespace);
    world.approver("bob", namespace, &planned.capability);
    let asked = planned.asked(&planned.called());
    let mut bob = crate::portal_browser::Browser::of(world, "bob");
    let link = format!("/portal/requests/{namespace}/{}", asked.name);
    let page = bob.get(&link).expect(200);
    let confirmation = page.element("confirmation");
    let way = format!("oidc:alice@acme.example → {} → {}", planned.planner(), planned.tenant.subject());
    assert!(confirmation.contains(&way) && confirmation.contains("invoice:2026/7"), "{confirmation}");
    assert!(
        page.words().contains("acting for oidc:alice@acme.example") && page.words().contains("owned by planners"),
        "{}",
        page.words()
    );
    let form = [("form_token", page.field("form_token")), ("digest", page.field("digest")), ("verdict", "Approved".to_owned())];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(bob.post(&link, &form).leads_to(), link);
    asked.reaches("Approved");
}
