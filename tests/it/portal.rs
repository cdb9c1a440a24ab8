//! The portal: people sign in, see what agents ask, and decide, with what their own Kubernetes account may.

use crate::payments::{asked, asked_for, details};
use crate::portal_browser::{Browser, Page};
use crate::world::{PATIENCE, Stamp, World, wait_until};
use serde_json::{Value, json};

/// The page of a request.
fn link(asked: &crate::payments::Asked<'_>) -> String {
    format!("/portal/requests/{}/{}", asked.tenant.namespace, asked.name)
}

/// Fills in the form on the page of a request and sends it.
fn decide(browser: &mut Browser<'_>, link: &str, verdict: &str, comment: &str) -> Page {
    let page = browser.get(link).expect(200);
    let (token, digest) = (page.field("form_token"), page.field("digest"));
    browser.post(link, &[("form_token", &token), ("digest", &digest), ("verdict", verdict), ("comment", comment)])
}

#[test]
fn a_person_signs_in_with_a_token_and_approves_what_waits() {
    for (world, stamp) in World::both() {
        let (tenant, capability) = world.payments_tenant("portal-approve");
        world.approver("bob", &tenant.namespace, &capability);
        let asked = asked(&tenant, &capability);
        let mut bob = Browser::of(world, "bob");
        let inbox = bob.get(&format!("/portal?namespace={}", tenant.namespace)).expect(200);
        assert!(inbox.text.contains("<h1>Requests</h1>") && inbox.text.contains(&format!("id=\"request-{}\"", asked.id)));
        let words = inbox.words();
        for part in
            ["bot wants ", "Pay an invoice", "High risk", "0/1 approvals", "s left", &capability, "kubectl get jitrequests"]
        {
            assert!(words.contains(part), "{part} in {words}");
        }
        let page = bob.get(&link(&asked)).expect(200);
        let words = page.words();
        for part in
            ["invoice:2026/7", "amount", "agent:", "owned by team@example.com", "kubectl patch jitrequest", "Approve", "Deny"]
        {
            assert!(words.contains(part), "{part} in {words}");
        }
        assert_eq!(page.field("digest"), asked.status()["digest"].as_str().expect("a digest"));

        let done = decide(&mut bob, &link(&asked), "Approved", "looked at it");
        assert_eq!(done.leads_to(), link(&asked), "{stamp:?}");
        let record = done.record(world);
        for (field, value) in [
            ("event", json!("portal.decide")),
            ("outcome", json!("allow")),
            ("reason", json!("decided")),
            ("by", json!("bob")),
            ("verdict", json!("Approved")),
            ("jit_request", json!(format!("{}/{}", tenant.namespace, asked.name))),
        ] {
            assert_eq!(record[field], value, "{field}");
        }
        asked.reaches("Approved");
        let approval = &asked.status()["approvals"][0];
        assert_eq!((&approval["by"]["username"], &approval["comment"]), (&json!("bob"), &json!("looked at it")));
        let page = bob.get(&link(&asked)).expect(200);
        assert!(page.words().contains("You approved this.") && page.words().contains("looked at it"), "{}", page.words());
        asked.token();
        if stamp == Stamp::ByHand {
            assert_eq!(approval["by"]["uid"], "bob");
        }
        let page = bob.get(&format!("/portal?namespace={}", tenant.namespace)).expect(200);
        assert!(page.words().contains("Nothing waits for a decision"), "{}", page.words());
    }
}

#[test]
fn a_person_denies_and_it_is_final() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-deny");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    let mut bob = Browser::of(world, "bob");
    assert_eq!(decide(&mut bob, &link(&asked), "Denied", "").leads_to(), link(&asked));
    asked.reaches("Denied");
    let page = bob.get(&link(&asked)).expect(200);
    assert!(page.words().contains("You denied this.") && !page.text.contains("name=\"verdict\""), "{}", page.words());
    let all = bob.get(&format!("/portal?show=all&namespace={}", tenant.namespace)).expect(200);
    assert!(all.text.contains(&format!("id=\"request-{}\"", asked.id)) && all.words().contains("Denied"));
}

#[test]
fn two_persons_approve_on_two_browsers_and_one_person_counts_once() {
    let world = World::shared();
    let (tenant, _) = world.payments_tenant("portal-two");
    let capability = world.capability(&json!({"approval": {"approvals": 2}}));
    tenant.patch(&json!({"spec": {"capabilities": [{"name": capability}]}}));
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE).expect("seen");
    for user in ["bob", "carol"] {
        world.approver(user, &tenant.namespace, &capability);
    }
    let asked = asked(&tenant, &capability);
    let (mut bob, mut carol) = (Browser::of(world, "bob"), Browser::of(world, "carol"));
    decide(&mut bob, &link(&asked), "Approved", "one").leads_to();
    wait_until("one is recorded", PATIENCE, || asked.status()["approvalProgress"] == "1/2");
    assert!(bob.get(&link(&asked)).words().contains("1/2 approvals"));
    decide(&mut bob, &link(&asked), "Approved", "again").leads_to();
    wait_until("it does not count", PATIENCE, || asked.status()["approvals"].as_array().is_some_and(|a| a.len() == 2));
    let page = bob.get(&link(&asked)).expect(200);
    assert!(page.element("mine").contains("Your approval does not count") && page.words().contains("approved already"));
    decide(&mut carol, &link(&asked), "Approved", "two").leads_to();
    asked.reaches("Approved");
}

#[test]
fn whoever_may_not_approve_is_told_why_in_the_words_of_who_refuses() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-own");
    tenant.patch(&json!({"spec": {"owner": "bob"}}));
    world.kubectl().wait_for(&tenant.namespace, "agent/bot", "jsonpath={.status.observedGeneration}=2", PATIENCE).expect("seen");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    // The owner: the operator refuses.
    let mut bob = Browser::of(world, "bob");
    let page = bob.get(&link(&asked)).expect(200);
    assert!(page.words().contains("bob owns agent:"), "{}", page.words());
    decide(&mut bob, &link(&asked), "Approved", "").leads_to();
    wait_until("it does not count", PATIENCE, || asked.status()["approvals"].as_array().is_some_and(|a| a.len() == 1));
    assert!(bob.get(&link(&asked)).element("mine").contains("owns an agent that asks"));
    // Who may look and not decide: the API server refuses.
    let subject = [crate::world::user("carol")];
    world.bind_cluster_role(&tenant.namespace, "looks", "countersign-approver", &subject);
    let mut carol = Browser::of(world, "carol");
    let page = carol.get(&link(&asked)).expect(200);
    assert!(page.words().contains("You may not decide on this: it needs the verb approve"), "{}", page.words());
    let refused = decide(&mut carol, &link(&asked), "Approved", "").expect(403);
    let needed = format!("it needs verb approve on capabilities.countersign.dev/{capability}");
    assert!(refused.element("problem").contains(&needed), "{}", refused.element("problem"));
    let record = refused.record(world);
    assert_eq!(
        (&record["outcome"], &record["reason"], &record["by"]),
        (&json!("deny"), &json!("api_server_forbidden"), &json!("carol"))
    );
    // A ServiceAccount may look, and never approves.
    let account = json!({"kind": "ServiceAccount", "name": "bot", "namespace": tenant.namespace});
    world.bind_cluster_role(&tenant.namespace, "looks-too", "countersign-approver", std::slice::from_ref(&account));
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [capability], "verbs": ["approve"]}]);
    world.bind(&tenant.namespace, "approves-too", &rules, &[account]);
    let token = world.kubectl().run(&["create", "token", "bot", "-n", &tenant.namespace]).expect("a token");
    let mut bot = Browser::with_token(world, token.trim());
    let refused = decide(&mut bot, &link(&asked), "Approved", "").expect(403);
    assert!(refused.element("problem").contains("a ServiceAccount never approves"), "{}", refused.words());
    assert_eq!(asked.status()["phase"], "Pending");
}

#[test]
fn who_may_not_list_everywhere_is_told_so_and_names_a_namespace() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-place");
    world.approver("alice", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    let mut alice = Browser::of(world, "alice");
    let page = alice.get("/portal").expect(403);
    assert!(page.element("problem").contains("cannot list resource \"jitrequests\""), "{}", page.words());
    assert!(page.text.contains("name=\"namespace\""));
    let page = alice.get(&format!("/portal?namespace={}", tenant.namespace)).expect(200);
    assert!(page.text.contains(&asked.id));
    assert!(page.text.contains(&format!("href=\"/portal/agents?namespace={}\"", tenant.namespace)), "links keep it");
    let elsewhere = world.namespace("portal-elsewhere");
    alice.get(&format!("/portal?namespace={elsewhere}")).expect(403);
    let page = alice.get(&format!("/portal/requests/{elsewhere}/x")).expect(403);
    assert!(page.element("problem").contains("cannot get resource"), "{}", page.words());
    let page = alice.get(&format!("/portal/requests/{}/none", tenant.namespace)).expect(404);
    assert!(page.element("problem").contains("not found"), "{}", page.words());
    for bad in ["/portal/requests/..%2f/x", "/portal/requests/A/x", "/portal/nothing", "/portal/requests/a"] {
        alice.get(bad).expect(404);
    }
    alice.get("/portal?namespace=..").expect(400);
}

#[test]
fn a_page_follows_what_happens() {
    use std::io::Read as _;
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-live");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    let bob = Browser::of(world, "bob");
    let listen = |path: &str| {
        let mut stream = bob.request("GET", path).send().expect("an answer");
        assert_eq!(
            (stream.status().as_u16(), stream.headers()["content-type"].to_str().expect("text")),
            (200, "text/event-stream")
        );
        std::thread::spawn(move || {
            let mut text = [0; 64];
            let read = stream.read(&mut text).expect("an event");
            String::from_utf8_lossy(&text[..read]).into_owned()
        })
    };
    let one = listen(&format!("/portal/events{}", link(&asked).trim_start_matches("/portal")));
    let all = listen(&format!("/portal/events/requests?namespace={}", tenant.namespace));
    asked.decide("bob", "Denied").expect("denied");
    for heard in [one, all] {
        assert_eq!(heard.join().expect("heard"), "event: changed\ndata: changed\n\n");
    }
    // Nobody takes the places of all.
    let path = format!("/portal/events/requests?namespace={}", tenant.namespace);
    let mut greedy = Browser::of(world, "bob");
    let streams: Vec<_> = (0..12).map(|_| greedy.request("GET", &path).send().expect("an answer")).collect();
    assert!(streams.iter().all(|stream| stream.status() == 200));
    greedy.get(&path).expect(503);
    drop(streams);
    wait_until("a place is free again", PATIENCE, || greedy.request("GET", &path).send().expect("an answer").status() == 200);
    // Who may not look may not listen.
    let mut carol = Browser::of(world, "carol");
    carol.get(&format!("/portal/events/requests?namespace={}", tenant.namespace)).expect(403);
    let mut nobody = Browser::new(world);
    nobody.get("/portal/events/requests").expect(401);
}

#[test]
fn without_scripts_a_page_loads_itself_again_if_that_is_wanted() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-plain");
    world.approver("bob", &tenant.namespace, &capability);
    let mut bob = Browser::of(world, "bob");
    let place = format!("/portal?namespace={}", tenant.namespace);
    let page = bob.get(&place).expect(200);
    assert!(!page.text.contains("http-equiv=\"refresh\"") && page.text.contains("refresh=15"));
    assert!(bob.get(&format!("{place}&refresh=15")).expect(200).text.contains("http-equiv=\"refresh\" content=\"15\""));
    let page = bob.get(&place).expect(200);
    let (_, rest) = page.text.split_once("/portal/assets/").expect("style");
    let version = rest.split('/').next().expect("a version").to_owned();
    for name in ["portal.css", "htmx.js", "sse.js"] {
        let asset = Browser::new(world).get(&format!("/portal/assets/{version}/{name}")).expect(200);
        assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
    }
    Browser::new(world).get(&format!("/portal/assets/{version}/other")).expect(404);
    Browser::new(world).get("/portal/assets/0/portal.css").expect(404);
}

#[test]
fn who_is_not_signed_in_is_led_to_the_sign_in_and_back() {
    let world = World::shared();
    let mut nobody = Browser::new(world);
    let wanted = "/portal/requests/a/b?refresh=15";
    let to = nobody.get(wanted).leads_to().to_owned();
    assert!(to.starts_with("/portal/sign-in?next=%2Fportal%2Frequests"), "{to}");
    let form = nobody.get(&to).expect(200);
    assert_eq!(form.field("next"), wanted);
    assert!(form.text.contains("autocomplete=\"off\""));
    let token = world.cluster.token("bob").expect("a user");
    let page = nobody.post("/portal/sign-in", &[("token", &format!("{token}\r\n")), ("next", wanted)]);
    assert_eq!(page.leads_to(), wanted);
    let record = page.record(world);
    assert_eq!(
        (&record["event"], &record["outcome"], &record["by"], &record["signed_in_with"]),
        (&json!("portal.sign_in"), &json!("allow"), &json!("bob"), &json!("token"))
    );
    // A token that is none, of nobody, or for somebody else.
    let tenant = world.tenant("portal-tokens");
    let access = tenant.access_token();
    for bad in ["x", "a.b.c", "two words", tenant.token.as_str(), access.as_str()] {
        let mut stranger = Browser::new(world);
        let page = stranger.post("/portal/sign-in", &[("token", bad), ("next", wanted)]).expect(401);
        assert!(page.element("problem").contains("the token was not accepted"), "{}", page.words());
        assert!(stranger.cookies.is_empty() && page.field("next") == wanted);
        assert!(bad.len() < 10 || !page.text.contains(bad), "what was pasted is not repeated");
        assert_eq!(page.record(world)["outcome"], "deny");
    }
    let record: Value = Browser::new(world).post("/portal/sign-in", &[("next", wanted)]).expect(400).record(world);
    assert_eq!(record["reason"], "request_malformed");
}

#[test]
fn the_portal_can_be_switched_off() {
    let options = crate::support::operator::OperatorOptions {
        name: "no-portal".to_owned(),
        args: vec!["--portal=false".to_owned()],
        ..Default::default()
    };
    let operator = World::shared().another(options);
    let http = crate::world::client(&operator);
    for path in ["/portal", "/portal/", "/portal/sign-in", "/portal/assets/0/portal.css"] {
        assert_eq!(http.get(format!("{}{path}", operator.url())).send().expect("an answer").status(), 404, "{path}");
    }
}

#[test]
fn what_an_agent_asks_is_shown_with_every_parameter() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-parameters");
    world.approver("bob", &tenant.namespace, &capability);
    let parameters = json!({"amount": 500, "to": {"iban": "DE02", "name": "Jürgen"}, "tags": ["a", "b"], "urgent": true});
    let asked = asked_for(&tenant, &details(&capability, "invoice:2026/7", &parameters));
    let words = Browser::of(world, "bob").get(&link(&asked)).expect(200).words();
    for part in ["to.iban", "DE02", "Jürgen", "[\"a\",\"b\"]", "true", "500"] {
        assert!(words.contains(part), "{part} in {words}");
    }
}
