//! Attacks on people in the portal: other sites' pages that act in their name, stolen cookies and databases, and texts that are more than
//! texts.

use crate::payments::{Asked, asked, kubectl_of};
use crate::portal_browser::Browser;
use crate::world::{DOCS, PATIENCE, World, wait_until};
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};

fn link(asked: &Asked<'_>) -> String {
    format!("/portal/requests/{}/{}", asked.tenant.namespace, asked.name)
}

#[test]
fn a22_nothing_is_decided_by_a_page_that_is_not_the_portals() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-csrf");
    world.approver("bob", &tenant.namespace, &capability);
    let asked = asked(&tenant, &capability);
    let (mut bob, link) = (Browser::of(world, "bob"), link(&asked));
    let other = Browser::of(world, "bob").get(&link).field("form_token");
    let page = bob.get(&link).expect(200);
    // Whoever confirms is told what, for whom and through whom.
    let confirmation = page.element("confirmation");
    assert!(
        confirmation.contains("bot") && confirmation.contains("Pay an invoice") && confirmation.contains("invoice:2026/7"),
        "{confirmation}"
    );
    let (token, digest, here) = (page.field("form_token"), page.field("digest"), world.operator.url());
    assert_ne!(token, other);
    let send = |bob: &mut Browser<'_>, token: &str, headers: &[(&str, &str)]| {
        let form = [("form_token", token), ("digest", digest.as_str()), ("verdict", "Approved")];
        let request = headers.iter().fold(bob.request("POST", &link), |request, (name, value)| request.header(*name, *value));
        bob.send(request.form(&form))
    };
    let same = ("sec-fetch-site", "same-origin");
    for headers in [
        &[][..],
        &[same],
        &[("origin", "null")],
        &[("origin", "null"), same],
        &[("origin", "https://evil.example.com")],
        &[("origin", "https://evil.example.com"), same],
        &[("origin", here.as_str()), ("sec-fetch-site", "cross-site")],
        &[("origin", here.as_str()), ("sec-fetch-site", "same-site")],
        &[("origin", here.as_str()), ("sec-fetch-site", "none")],
    ] {
        let page = send(&mut bob, &token, headers).expect(403);
        assert!(page.element("problem").contains("did not come from a page of the portal"), "{headers:?}");
        assert_eq!(page.record(world)["outcome"], "deny");
    }
    let from_here = [("origin", here.as_str()), same];
    for wrong in ["", "x", other.as_str(), &token[..token.len() - 1]] {
        let page = send(&mut bob, wrong, &from_here).expect(403);
        assert!(page.element("problem").contains("the form is of an earlier session"), "{wrong}");
        assert_eq!(page.record(world)["reason"], "form_token_wrong");
    }
    // A link, a prefetch or an image decides nothing.
    let query = format!("{link}?form_token={token}&digest={digest}&verdict=Approved");
    bob.get(&query).expect(200);
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
        let request = bob.request(method, &link).header("origin", here.as_str());
        bob.send(request).expect(405);
    }
    let request = bob.request("POST", &query).header("origin", here.as_str()).form(&[("form_token", token.as_str())]);
    bob.send(request).expect(400);
    let json: RequestBuilder = bob.request("POST", &link).header("origin", here.as_str()).json(&json!({"verdict": "Approved"}));
    bob.send(json).expect(400);
    let status = asked.status();
    assert_eq!((&status["phase"], &status["approvals"], &status["decision"]), (&json!("Pending"), &json!([]), &Value::Null));
    // With all of it right it is decided, on what was shown and on nothing else.
    let old = format!("sha256:{}", "0".repeat(64));
    let form = [("form_token", token.as_str()), ("digest", old.as_str()), ("verdict", "Approved")];
    let page = bob.post(&link, &form).expect(403);
    assert!(page.element("problem").contains("is not the digest of this request"), "{}", page.words());
    bob.post(&link, &[("form_token", &token), ("verdict", "Approved")]).expect(400);
    assert_eq!(asked.status()["phase"], "Pending");
    assert_eq!(send(&mut bob, &token, &from_here).leads_to(), link);
    asked.reaches("Approved");
}

#[test]
fn a22_nobody_is_signed_in_or_out_by_another_site() {
    let world = World::shared();
    let token = world.cluster.token("carol").expect("a user");
    let mut browser = Browser::new(world);
    for origin in ["null", "https://evil.example.com"] {
        let request = browser.request("POST", "/portal/sign-in").header("origin", origin).form(&[("token", token.as_str())]);
        browser.send(request).expect(403);
    }
    assert!(browser.cookies.is_empty());
    let mut carol = Browser::of(world, "carol");
    let (here, form) = (world.operator.url(), carol.get("/portal").field("form_token"));
    let request = carol.request("POST", "/portal/sign-out").header("origin", "null").form(&[("form_token", form.as_str())]);
    carol.send(request).expect(403);
    let request = carol.request("POST", "/portal/sign-out").header("origin", here.as_str()).form(&[("form_token", "x")]);
    carol.send(request).expect(403);
    carol.get("/portal/sign-out").expect(405);
    carol.get("/portal").expect(403);
}

#[test]
fn a_stolen_cookie_is_worth_nothing_after_the_sign_out() {
    let world = World::shared();
    let mut bob = Browser::of(world, "bob");
    let mut thief = Browser::new(world);
    thief.cookies = bob.cookies.clone();
    // Signing in again makes another session, and ends this one.
    let token = world.cluster.token("bob").expect("a user");
    bob.post("/portal/sign-in", &[("token", &token), ("next", "/portal")]).leads_to();
    assert_ne!(bob.cookies, thief.cookies);
    assert!(thief.get("/portal").leads_to().starts_with("/portal/sign-in"));
    thief.cookies = bob.cookies.clone();
    assert_eq!(thief.get("/portal").status, 403, "bob may not list everywhere");
    let form = bob.get("/portal").field("form_token");
    let page = bob.post("/portal/sign-out", &[("form_token", &form)]);
    assert_eq!((page.leads_to(), bob.cookies.len()), ("/portal/sign-in", 0));
    let record = page.record(world);
    assert_eq!(
        (&record["event"], &record["outcome"], &record["by"]),
        (&json!("portal.sign_out"), &json!("allow"), &json!("bob"))
    );
    assert!(thief.get("/portal").leads_to().starts_with("/portal/sign-in"));
    thief.post("/portal/requests/a/b", &[("form_token", &form)]).expect(401);
    // A cookie that is no secret of ours, or is there twice.
    for cookie in ["", "x", "AAAA", &"A".repeat(43), "__Host-countersign-session"] {
        thief.cookies.insert("__Host-countersign-session".to_owned(), cookie.to_owned());
        assert!(thief.get("/portal").leads_to().starts_with("/portal/sign-in"), "{cookie}");
    }
}

#[test]
fn a_session_is_on_every_replica_until_it_is_ended_on_one() {
    let world = World::shared();
    let other = world.another(crate::support::operator::OperatorOptions { name: "portal-two".to_owned(), ..Default::default() });
    let mut bob = Browser::of(world, "bob");
    let mut there = Browser::at(world, other.url());
    there.cookies = bob.cookies.clone();
    there.get("/portal").expect(403);
    let form = bob.get("/portal").field("form_token");
    bob.post("/portal/sign-out", &[("form_token", &form)]).leads_to();
    assert!(there.get("/portal").leads_to().starts_with("/portal/sign-in"));
}

#[test]
fn a_stolen_database_opens_no_session_and_holds_no_token() {
    let mut world = World::start(4, &[], &[]);
    let token = world.cluster.token("bob").expect("a user");
    let cookie = {
        let mut bob = Browser::of(&world, "bob");
        bob.get("/portal").expect(403);
        bob.cookies["__Host-countersign-session"].clone()
    };
    let directory = world.operator.audit_log().parent().expect("a directory").to_owned();
    let holds = |text: &str| {
        ["countersign.db", "countersign.db-wal"].iter().any(|file| {
            let bytes = std::fs::read(directory.join(file)).unwrap_or_default();
            bytes.windows(text.len()).any(|part| part == text.as_bytes())
        })
    };
    assert!(holds("CREATE TABLE sessions"), "this is the database");
    assert!(!holds(&token) && !holds(&cookie), "neither the token nor the cookie is in it");
    let log = world.operator.process().log();
    assert!(!log.contains(&token) && !log.contains(&cookie) && !world.operator.audit_text().expect("records").contains(&cookie));
    // It outlives a restart, for whoever has the cookie.
    world.restart().expect("restarted");
    let mut bob = Browser::new(&world);
    bob.cookies.insert("__Host-countersign-session".to_owned(), cookie);
    bob.get("/portal").expect(403);
}

#[test]
fn h15_what_agents_write_is_text_and_nothing_else() {
    let world = World::shared();
    let (tenant, capability) = world.payments_tenant("portal-xss");
    world.approver("bob", &tenant.namespace, &capability);
    let evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\" onload=\"alert(1)' {{7*7}}";
    let object = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "JitRequest",
        "metadata": {"name": "evil", "namespace": tenant.namespace},
        "spec": {
            "agent": {"name": "bot"},
            "operation": {"capability": capability, "resource": "invoice:2026/8", "audience": DOCS,
                "parameters": {"note": evil, "nested": {"x": [evil]}}},
            "justification": format!("{evil}javascript:alert(1)"),
        },
    });
    kubectl_of(&tenant).apply(&object.to_string()).expect("the agent may make it");
    let waits = || tenant.requests().iter().any(|request| request["status"]["phase"] == "Pending");
    wait_until("it waits", PATIENCE, waits);
    let mut bob = Browser::of(world, "bob");
    for path in [
        format!("/portal?namespace={}", tenant.namespace),
        format!("/portal/requests/{}/evil", tenant.namespace),
        "/portal?namespace=%3Cscript%3Ealert(1)%3C%2Fscript%3E".to_owned(),
        "/portal/%3Cscript%3Ealert(1)".to_owned(),
    ] {
        let page = bob.get(&path);
        assert!(
            !page.text.contains("<script>") && !page.text.contains("<img") && !page.text.contains("onload=\"alert"),
            "{}",
            page.text
        );
        // Every script and every address is ours.
        for part in page.text.split("src=\"").skip(1).chain(page.text.split("href=\"").skip(1)) {
            assert!(part.starts_with("/portal") || part.starts_with("#main") || part.starts_with("data:,\""), "{part}");
        }
    }
    let page = bob.get(&format!("/portal/requests/{}/evil", tenant.namespace)).expect(200);
    assert!(page.words().contains(evil), "it is shown as it was written: {}", page.words());
    let page = bob.get("/portal/sign-in?next=%22%3E%3Cscript%3Ealert(1)").expect(200);
    assert_eq!(page.field("next"), "/portal");
}

#[test]
fn l9_neither_token_nor_cookie_is_in_any_record_or_log() {
    let world = World::shared();
    let token = world.kubectl().run(&["create", "token", "default", "-n", "default"]).expect("a token").trim().to_owned();
    let mut account = Browser::with_token(world, &token);
    account.get("/portal");
    account.get(&format!("/portal?namespace={token}")).expect(400);
    account.get(&format!("/portal/{token}")).expect(404);
    let mut stranger = Browser::new(world);
    stranger.post("/portal/sign-in", &[("token", &format!("{token}x"))]).expect(401);
    stranger.post("/portal/sign-in", &[("token", ""), ("next", &token)]).expect(400);
    let (records, log) = (world.operator.audit_text().expect("the audit log"), world.operator.process().log());
    let signature = token.rsplit('.').next().expect("a signature");
    for secret in [signature, account.cookies["__Host-countersign-session"].as_str()] {
        assert!(!records.contains(secret) && !log.contains(secret));
    }
}
