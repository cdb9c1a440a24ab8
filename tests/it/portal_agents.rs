//! Agents in the portal: a manifest is shown, with what the API server would say to it, before it is written with the person's own rights.

use crate::portal_browser::Browser;
use crate::world::{DOCS, PATIENCE, World, user, wait_until};
use serde_json::json;

fn may_register(world: &World, name: &str, namespace: &str) {
    let rules = json!([
        {"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "list", "create", "update"]},
        {"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": ["document.read"], "verbs": ["grant"]},
    ]);
    world.bind(namespace, "registers", &rules, &[user(name)]);
    let kubectl = world.cluster.kubectl_as(name).expect("a user");
    wait_until("the right is seen", PATIENCE, || kubectl.run(&["auth", "can-i", "create", "agents", "-n", namespace]).is_ok());
}

/// What stands in the text field with the manifest.
fn manifest(page: &crate::portal_browser::Page) -> String {
    let after = page.text.split_once("name=\"yaml\"").expect("a text field").1.split_once('>').expect("a tag").1;
    let text = after.split("</textarea>").next().expect("text");
    let text =
        text.replace("&#60;", "<").replace("&#62;", ">").replace("&#34;", "\"").replace("&#39;", "'").replace("&#38;", "&");
    // As a browser sends it.
    text.trim_start_matches('\n').replace('\n', "\r\n")
}

#[test]
fn an_agent_is_registered_and_changed_after_it_was_shown() {
    for (world, stamp) in World::both() {
        let namespace = world.namespace("portal-agents");
        may_register(world, "alice", &namespace);
        let mut alice = Browser::of(world, "alice");
        let form = alice.get(&format!("/portal/agents/new?namespace={namespace}")).expect(200);
        assert_eq!(form.field("namespace"), namespace);
        let token = form.field("form_token");
        let filled = |capabilities: &'static str| {
            vec![
                ("form_token", token.clone()),
                ("namespace", namespace.clone()),
                ("name", "bot".to_owned()),
                ("displayName", "Research: \"Bot\"".to_owned()),
                ("owner", "team@example.com".to_owned()),
                ("serviceAccounts", "bot, other".to_owned()),
                ("publicKey", String::new()),
                ("capabilities", capabilities.to_owned()),
                ("audiences", DOCS.to_owned()),
            ]
        };
        let send = |alice: &mut Browser<'_>, path: &str, form: &[(&str, String)]| {
            let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            alice.post(path, &form)
        };
        // What it would be refused for is said before.
        let refused = send(&mut alice, "/portal/agents/review", &filled("payments.authorize")).expect(403);
        assert!(refused.element("problem").contains("needs verb grant"), "{}", refused.words());
        assert!(!refused.text.contains(">Register<"));
        let page = send(&mut alice, "/portal/agents/review", &filled("document.read document:reports/*")).expect(200);
        assert!(
            page.words().contains("The API server would accept this") && page.words().contains("kubectl create -f agent.yaml")
        );
        assert_eq!(page.record(world)["reason"], "would_be_accepted");
        assert!(alice.get(&format!("/portal/agents/{namespace}/bot")).status == 404, "nothing is written");
        let yaml = manifest(&page);
        let done = alice.post("/portal/agents", &[("form_token", &token), ("yaml", &yaml)]);
        assert_eq!(done.leads_to(), format!("/portal/agents/{namespace}/bot"), "{stamp:?}");
        let record = done.record(world);
        assert_eq!(
            (&record["event"], &record["reason"], &record["by"], &record["agent"]),
            (&json!("portal.register"), &json!("registered"), &json!("alice"), &json!(format!("agent:{namespace}/bot")))
        );
        world.kubectl().wait_for(&namespace, "agent/bot", "condition=Ready", PATIENCE).expect("Ready");
        let object = world.kubectl().get_json(&["get", "agent", "bot", "-n", &namespace]).expect("the Agent");
        assert_eq!(object["metadata"]["annotations"]["countersign.dev/changed-by"], "alice");
        assert_eq!(object["spec"]["identity"]["serviceAccounts"], json!([{"name": "bot"}, {"name": "other"}]));
        assert_eq!(object["spec"]["capabilities"], json!([{"name": "document.read", "resources": ["document:reports/*"]}]));
        assert_eq!(object["spec"]["displayName"], "Research: \"Bot\"");
        let page = alice.get(&format!("/portal/agents/{namespace}/bot")).expect(200);
        for part in ["Research: \"Bot\"", "document:reports/*", "team@example.com", "Ready", "kubectl get agent bot"] {
            assert!(page.words().contains(part), "{part} in {}", page.words());
        }
        let list = alice.get(&format!("/portal/agents?namespace={namespace}")).expect(200);
        assert!(list.text.contains(&format!("id=\"agent-{}\"", object["metadata"]["uid"].as_str().expect("a uid"))));
        alice.get("/portal/agents").expect(403);

        // A change, with all that the form for a new one does not know.
        let patch = json!({"spec": {"delegation": {"maxDepth": 3}}}).to_string();
        world.kubectl().run(&["patch", "agent", "bot", "-n", &namespace, "--type=merge", "-p", &patch]).map(drop).unwrap_or_else(
            |_| assert_eq!(stamp, crate::world::Stamp::ByHand, "an administrator need not stamp where a policy does"),
        );
        let change = |alice: &mut Browser<'_>| {
            let page = alice.get(&format!("/portal/agents/{namespace}/bot/edit")).expect(200);
            (page.field("form_token"), manifest(&page).replace("document:reports/*", "document:reports/2026"))
        };
        // The operator may write its status between the reading and the writing: then the version is another.
        wait_until("it is changed", PATIENCE, || {
            let (token, yaml) = change(&mut alice);
            let page = alice.post("/portal/agents/review", &[("form_token", &token), ("yaml", &yaml)]);
            page.status == 200
                && alice.post("/portal/agents", &[("form_token", &token), ("yaml", &manifest(&page))]).status == 303
        });
        let object = world.kubectl().get_json(&["get", "agent", "bot", "-n", &namespace]).expect("the Agent");
        assert_eq!(object["spec"]["capabilities"][0]["resources"], json!(["document:reports/2026"]));
        assert_eq!(object["metadata"]["annotations"]["countersign.dev/changed-by"], "alice");
    }
}

#[test]
fn a22_a_manifest_is_written_by_the_person_and_by_no_other_page() {
    let world = World::shared();
    let namespace = world.namespace("portal-agents-csrf");
    may_register(world, "alice", &namespace);
    let mut alice = Browser::of(world, "alice");
    let token = alice.get("/portal/agents/new").expect(200).field("form_token");
    let yaml = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Agent\nmetadata: {{namespace: {namespace}, name: bot}}\nspec:\n  owner: a\n  \
         identity: {{serviceAccounts: [{{name: bot}}]}}\n  capabilities: []\n"
    );
    let here = world.operator.url();
    for (origin, token) in [("null", token.as_str()), ("https://evil.example.com", token.as_str()), (here.as_str(), "x")] {
        let request = alice.request("POST", "/portal/agents").header("origin", origin);
        let page = alice.send(request.form(&[("form_token", token), ("yaml", yaml.as_str())])).expect(403);
        assert_eq!(page.record(world)["outcome"], "deny");
    }
    for bad in ["", "a: &a [*a, *a]", "kind: Secret", &yaml.replace("capabilities: []", "capabilities: []\n  capabilties: []")] {
        alice.post("/portal/agents", &[("form_token", &token), ("yaml", bad)]).expect(400);
    }
    alice.get(&format!("/portal/agents?form_token={token}&yaml=x")).expect(403);
    alice.get(&format!("/portal/agents/{namespace}/bot")).expect(404);
    // What nobody sees is pointed out.
    let hidden = yaml.replace("owner: a", "owner: \"a\u{202e}b\"");
    let page = alice.post("/portal/agents/review", &[("form_token", &token), ("yaml", &hidden)]);
    assert!(page.element("hidden").contains("U+202E"), "{}", page.words());
    assert_eq!(alice.post("/portal/agents", &[("form_token", &token), ("yaml", &yaml)]).status, 303);
}
