//! What was recorded, in the portal: for whoever may read it, and each reading is a record.

use crate::chains::{Team, id_token};
use crate::portal_browser::Browser;
use crate::world::{World, claims};
use serde_json::{Value, json};

/// The last record of a reading by somebody.
fn reading(world: &World, reader: &str, read: &str) -> Option<Value> {
    let lines = world.operator.audit_lines().expect("the audit log");
    lines.into_iter().rev().find(|line| line["event"] == "audit.read" && line["reader"] == reader && line["read"] == read)
}

#[test]
fn who_may_read_the_records_searches_and_traces_them_and_that_is_recorded() {
    let world = World::shared();
    let tenant = world.tenant("portal-audit");
    let access = claims(&tenant.access_token());
    let jti = access["jti"].as_str().expect("a jti");
    // Nobody else is bound to this in the tests of the portal.
    world.bind_everywhere(
        "portal-auditors",
        &json!([{"apiGroups": ["countersign.dev"], "resources": ["auditrecords"], "verbs": ["get"]}]),
        &[crate::world::user("carol")],
    );
    let mut carol = Browser::of(world, "carol");
    let page = carol.search(&format!("/portal/audit?agent={}&event=token.*", tenant.subject()), jti);
    let words = page.words();
    for part in ["token.issue", "granted", jti, "countersign audit query --event='token.*' --agent=agent:"] {
        assert!(words.contains(part), "{part} in {words}");
    }
    let record = reading(world, "carol", "records").expect("a record");
    assert_eq!((&record["outcome"], &record["reason"]), (&json!("allow"), &json!("read")));
    assert_eq!(record["question"], format!("event=token.*&agent={}", tenant.subject()));
    carol.get("/portal/audit").expect(200);
    carol.get("/portal/audit?event=<script>").expect(400);

    let page = carol.get(&format!("/portal/audit/trace?subject={jti}")).expect(200);
    assert!(page.element("answer").contains(&tenant.subject()), "{}", page.words());
    assert!(page.text.contains("<svg") && page.words().contains("token issued") && page.text.contains("id=\"steps\""));
    assert!(reading(world, "carol", "trace").expect("a record")["question"].as_str().is_some_and(|q| q.contains(jti)));
    let page = carol.get("/portal/audit/trace?subject=nobody-has-this").expect(404);
    assert!(page.element("problem").contains("no record knows of that"));
    carol.get("/portal/audit/trace").expect(200);

    // Who may not learns nothing, and the attempt is a record.
    let mut bob = Browser::of(world, "bob");
    for path in [format!("/portal/audit?agent={}", tenant.subject()), format!("/portal/audit/trace?subject={jti}")] {
        let page = bob.get(&path).expect(403);
        assert!(page.element("problem").contains("needs the verb get on auditrecords") && !page.text.contains("<svg"));
    }
    let lines = world.operator.audit_lines().expect("the audit log");
    let refused = lines.iter().filter(|line| line["event"] == "audit.read" && line["reader"] == "bob");
    assert!(refused.into_iter().any(|line| line["reason"] == "reader_not_allowed" && line.get("read").is_none()));
}

#[test]
fn h15_what_was_recorded_is_text_and_nothing_else() {
    let world = World::shared();
    let tenant = world.tenant("portal-audit-xss");
    let evil = "<script>alert(1)</script>\u{202e}";
    let form = [
        ("grant_type", crate::world::TOKEN_EXCHANGE),
        ("subject_token", tenant.token.as_str()),
        ("subject_token_type", crate::world::TYPE_JWT),
        ("audience", evil),
    ];
    world.request(&form).refused(400, "invalid_target");
    let admin = world.cluster.admin_token().expect("an administrator");
    let mut admin = Browser::with_token(world, &admin);
    for path in ["audit?agent", "audit/trace?subject"] {
        let page = admin.search(&format!("/portal/{path}={}", tenant.subject()), "alert(1)");
        assert!(!page.text.contains("<script>") && !page.text.contains('\u{202e}'), "{}", page.text);
        assert!(page.words().contains("alert(1)"), "{}", page.words());
    }
}

#[test]
fn a_chain_is_a_picture_with_what_each_hop_let_go_of() {
    let team = Team::start("portal-chain");
    let called = team.called(&id_token());
    let read = claims(&team.reads("search", &called).expect(200).text("access_token"));
    let admin = team.world.cluster.admin_token().expect("an administrator");
    let mut admin = Browser::with_token(team.world, &admin);
    let page = admin.get(&format!("/portal/audit/trace?subject={}", read["jti"].as_str().expect("a jti"))).expect(200);
    let (_, after) = page.text.split_once("<svg").expect("a picture");
    let picture = after.split("</svg>").next().expect("its end");
    assert_eq!(picture.matches("<rect").count(), 3, "alice, the bot and search: {picture}");
    assert_eq!(picture.matches("class=\"edge\"").count(), 2);
    let dropped: Vec<&str> =
        picture.split("class=\"dropped\"").skip(1).filter_map(|text| text.split_once('>')?.1.split('<').next()).collect();
    assert_eq!(dropped, ["document.write"], "what search does not hold");
    assert!(picture.contains("alice@acme.example") && picture.contains(&format!("{}/search", team.namespace)), "{picture}");
    assert!(page.element("answer").contains("acting for"), "{}", page.words());
}
