//! `/api/v1/agents`: registering agents over HTTP, with what the caller's own Kubernetes credential may.

use crate::world::{DOCS, PATIENCE, Reply, World, user, wait_until};
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};

/// Somebody who calls the API with a token of theirs.
struct Client<'a> {
    world: &'a World,
    token: String,
}

impl<'a> Client<'a> {
    fn of(world: &'a World, name: &str) -> Self {
        Self { world, token: world.cluster.token(name).expect("a user") }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().expect("a method");
        self.world.http.request(method, format!("{}/api/v1/agents{path}", self.world.operator.url())).bearer_auth(&self.token)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.request(method, path).json(body).send().expect("an answer").into()
    }

    fn get(&self, path: &str) -> Reply {
        self.request("GET", path).send().expect("an answer").into()
    }
}

fn spec(capabilities: &Value) -> Value {
    json!({"owner": "team@example.com", "identity": {"serviceAccounts": [{"name": "bot"}]}, "capabilities": capabilities,
        "tokens": {"audiences": [{"name": DOCS}]}})
}

/// Lets a user write Agents in a namespace, and grant one capability there.
fn may_register(world: &World, name: &str, namespace: &str, capability: &str) {
    let rules = json!([
        {"apiGroups": ["countersign.dev"], "resources": ["agents"], "verbs": ["get", "list", "create", "update", "delete"]},
        {"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [capability], "verbs": ["grant"]},
    ]);
    world.bind(namespace, "registers", &rules, &[user(name)]);
    let kubectl = world.cluster.kubectl_as(name).expect("a user");
    wait_until("the right is seen", PATIENCE, || kubectl.run(&["auth", "can-i", "create", "agents", "-n", namespace]).is_ok());
}

#[test]
fn an_agent_is_registered_read_replaced_and_removed() {
    for (world, stamp) in World::both() {
        let namespace = world.namespace("registration");
        may_register(world, "alice", &namespace, "document.read");
        let alice = Client::of(world, "alice");
        let capabilities = json!([{"name": "document.read"}]);
        let body = json!({"namespace": namespace, "name": "bot", "labels": {"team": "a"}, "spec": spec(&capabilities)});
        let made = alice.send("POST", "", &body).expect(201);
        let path = format!("/{namespace}/bot");
        assert_eq!(made.headers["location"], format!("/api/v1/agents{path}"));
        let record = world.record_of(&made);
        for (field, value) in [
            ("event", json!("registration.create")),
            ("outcome", json!("allow")),
            ("by", json!("alice")),
            ("agent", json!(format!("agent:{namespace}/bot"))),
        ] {
            assert_eq!(record[field], value, "{field} {stamp:?}");
        }
        world.kubectl().wait_for(&namespace, "agent/bot", "condition=Ready", PATIENCE).expect("Ready");
        let read = alice.get(&path).expect(200);
        let version = read.text("resourceVersion");
        assert_eq!(read.headers["etag"], format!("\"{version}\""));
        assert_eq!((&read.body["uid"], &read.body["labels"]), (&made.body["uid"], &json!({"team": "a"})));
        assert_eq!(read.body["annotations"]["countersign.dev/changed-by"], "alice");
        assert_eq!(read.body["status"]["conditions"].as_array().map(Vec::is_empty), Some(false));
        let listed = alice.get(&format!("?namespace={namespace}")).expect(200);
        assert_eq!(
            (listed.body["items"].as_array().map(Vec::len), &listed.body["items"][0]["uid"]),
            (Some(1), &made.body["uid"])
        );

        // The version that was read, by ETag or in the body, and no other.
        let narrower = json!({"spec": spec(&json!([]))});
        alice.send("PUT", &path, &narrower).refused(428, "invalid_request");
        let replace = |version: &str, body: &Value| -> Reply {
            alice.request("PUT", &path).header("if-match", format!("\"{version}\"")).json(body).send().expect("an answer").into()
        };
        replace("1", &narrower).refused(412, "conflict");
        let replaced = replace(&version, &narrower).expect(200);
        assert_eq!((&replaced.body["spec"]["capabilities"], &replaced.body["labels"]), (&json!([]), &json!({"team": "a"})));
        replace(&version, &narrower).refused(412, "conflict");
        // The operator writes the status, which makes another version.
        let seen = "jsonpath={.status.observedGeneration}=2";
        world.kubectl().wait_for(&namespace, "agent/bot", seen, PATIENCE).expect("seen");
        // As it is: nobody has written it anew. The defaults of the schema make no difference.
        let version = alice.get(&path).expect(200).text("resourceVersion");
        let mut same = narrower.clone();
        same["resourceVersion"] = json!(version);
        same["labels"] = json!({});
        let replaced = alice.send("PUT", &path, &same).expect(200);
        assert_eq!((&replaced.body["labels"], &replaced.body["generation"]), (&Value::Null, &json!(2)));
        same["uid"] = json!("another");
        same["resourceVersion"] = replaced.body["resourceVersion"].clone();
        alice.send("PUT", &path, &same).refused(409, "conflict");
        let version = alice.get(&path).expect(200).text("resourceVersion");
        let delete = |version: &str| -> Reply {
            alice.request("DELETE", &path).header("if-match", format!("\"{version}\"")).send().expect("an answer").into()
        };
        delete("1").refused(409, "conflict");
        assert_eq!(delete(&version).status, 204);
        alice.get(&path).refused(404, "not_found");
    }
}

#[test]
fn the_callers_own_credential_decides_and_nothing_is_bypassed() {
    let world = World::shared();
    let namespace = world.namespace("registration-rights");
    may_register(world, "alice", &namespace, "document.read");
    let (alice, bob) = (Client::of(world, "alice"), Client::of(world, "bob"));
    let body = |capability: &str| json!({"namespace": namespace, "name": "bot", "spec": spec(&json!([{"name": capability}]))});
    let refused = alice.send("POST", "", &body("payments.authorize")).refused(403, "access_denied");
    assert!(refused.text("error_description").contains("needs verb grant on capabilities.countersign.dev/payments.authorize"));
    assert_eq!(world.record_of(&refused)["reason"], "api_server_forbidden");
    let refused = bob.send("POST", "", &body("document.read")).refused(403, "access_denied");
    assert!(refused.text("error_description").contains("bob") && world.record_of(&refused)["by"] == "bob");
    alice.get("").refused(403, "access_denied");
    bob.get(&format!("?namespace={namespace}")).refused(403, "access_denied");
    bob.get(&format!("/{namespace}/bot")).refused(403, "access_denied");
    // The stamp is that of whoever writes, whatever they say.
    let mut forged = body("document.read");
    forged["annotations"] = json!({"countersign.dev/changed-by": "admin"});
    let made = alice.send("POST", "", &forged).expect(201);
    assert_eq!(made.body["annotations"]["countersign.dev/changed-by"], "alice");
    alice.send("POST", "", &forged).refused(409, "conflict");
    let path = format!("/{namespace}/bot");
    let widened =
        json!({"spec": spec(&json!([{"name": "payments.authorize"}])), "resourceVersion": made.text("resourceVersion")});
    // The operator may have written the status meanwhile.
    wait_until("it is refused for what it adds", PATIENCE, || {
        let mut widened = widened.clone();
        widened["resourceVersion"] = json!(alice.get(&path).expect(200).text("resourceVersion"));
        alice.send("PUT", &path, &widened).status == 403
    });
    bob.request("DELETE", &path).send().map(Reply::from).expect("an answer").refused(403, "access_denied");
}

#[test]
fn whoever_shows_no_kubernetes_token_is_nobody() {
    let world = World::shared();
    let tenant = world.tenant("registration-nobody");
    let access = tenant.access_token();
    let url = format!("{}/api/v1/agents", world.operator.url());
    let without = Reply::from(world.http.get(&url).send().expect("an answer")).refused(401, "invalid_token");
    assert_eq!(without.headers["www-authenticate"], "Bearer realm=\"countersign\"");
    for token in ["x", "a.b.c", tenant.token.as_str(), access.as_str()] {
        let refused = Client { world, token: token.to_owned() }.get("").refused(401, "invalid_token");
        assert_eq!(world.record_of(&refused)["reason"], "credential_review_refused");
    }
    let basic = world.http.get(&url).basic_auth("admin", Some("admin")).send().expect("an answer");
    Reply::from(basic).refused(401, "invalid_client");
}

#[test]
fn h6_what_could_be_meant_in_two_ways_is_refused() {
    let world = World::shared();
    let namespace = world.namespace("registration-strict");
    let admin = Client { world, token: world.cluster.admin_token().expect("an administrator") };
    let good = json!({"namespace": namespace, "name": "bot", "spec": spec(&json!([]))}).to_string();
    let post = |body: &str| -> Reply {
        admin
            .request("POST", "")
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .expect("an answer")
            .into()
    };
    for bad in [
        good.replacen("\"name\"", "\"name\":\"x\",\"name\"", 1),
        good.replace("\"owner\"", "\"owner\":\"x\",\"owner\""),
        good.replace("\"spec\"", "\"metadata\":{},\"spec\""),
        good.replace("bot\",\"namespace", "../bot\",\"namespace"),
        format!("{good}{good}"),
        good.replace("\"owner\"", "\"ownr\":\"x\",\"owner\""),
    ] {
        let refused = post(&bad).refused(400, "invalid_request");
        assert_eq!(world.record_of(&refused)["outcome"], "deny", "{bad}");
    }
    post(&good.replace("team@example.com", "")).refused(422, "invalid_object");
    admin.request("POST", "").body(good.clone()).send().map(Reply::from).expect("an answer").refused(400, "invalid_request");
    for (method, path, status, error) in [
        ("GET", "?namespace=..", 400, "invalid_request"),
        ("GET", "?limit=0", 400, "invalid_request"),
        ("GET", "?limit=1&limit=2", 400, "invalid_request"),
        ("GET", "?continue=x", 400, "invalid_request"),
        ("GET", "?watch=1", 400, "invalid_request"),
        ("GET", "/a/B", 404, "not_found"),
        ("GET", "/..%2f/x", 404, "not_found"),
        ("GET", "/a/b/status", 404, "invalid_request"),
        ("PATCH", "/a/b", 405, "invalid_request"),
        ("PUT", "", 405, "invalid_request"),
        ("POST", "/a/b", 405, "invalid_request"),
    ] {
        admin.request(method, path).send().map(Reply::from).expect("an answer").refused(status, error);
    }
    let tagged = |tag: &str| admin.request("DELETE", "/a/b").header("if-match", tag).send().map(Reply::from).expect("an answer");
    for tag in ["*", "1", "\"1\", \"2\"", "W/\"1\""] {
        tagged(tag).refused(400, "invalid_request");
    }
    assert_eq!(post(&good).status, 201);
}

#[test]
fn a_list_comes_in_pages() {
    let world = World::shared();
    let namespace = world.namespace("registration-pages");
    let admin = Client { world, token: world.cluster.admin_token().expect("an administrator") };
    for name in ["a", "b", "c"] {
        admin.send("POST", "", &json!({"namespace": namespace, "name": name, "spec": spec(&json!([]))})).expect(201);
    }
    let (mut names, mut rest) = (Vec::new(), String::new());
    loop {
        let page = admin.get(&format!("?namespace={namespace}&limit=2{rest}")).expect(200).body;
        names.extend(
            page["items"].as_array().expect("items").iter().map(|item| item["name"].as_str().expect("a name").to_owned()),
        );
        let Some(more) = page["continue"].as_str() else { break };
        rest = format!("&continue={}", percent_encoding::utf8_percent_encode(more, percent_encoding::NON_ALPHANUMERIC));
    }
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn the_description_is_of_what_there_is_and_its_schemas_are_those_of_the_definition() {
    let world = World::shared();
    let url = world.operator.url();
    let reply = Reply::from(world.http.get(format!("{url}/api/v1/openapi.json")).send().expect("an answer")).expect(200);
    let document = &reply.body;
    assert_eq!((&document["openapi"], &document["servers"][0]["url"]), (&json!("3.1.0"), &json!(world.operator.issuer())));
    let text = std::process::Command::new(crate::world::binary()).args(["crds", "agents"]).output().expect("it runs").stdout;
    let definition: Value = serde_saphyr::from_str(std::str::from_utf8(&text).expect("UTF-8")).expect("YAML");
    let properties = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for (name, part) in [("AgentSpec", "spec"), ("AgentStatus", "status")] {
        assert_eq!(document["components"]["schemas"][name], properties[part], "{name}");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().expect("a pointer")) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    // Every operation is there, and no other.
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{namespace}", "a").replace("{name}", "b");
        for method in ["get", "post", "put", "delete", "patch"] {
            let request = world.http.request(method.to_uppercase().parse().expect("a method"), format!("{url}{path}"));
            let status = request.send().expect("an answer").status().as_u16();
            let expected = match item.get(method) {
                Some(operation) if operation["security"] == json!([]) => 200,
                Some(_) => 401,
                None => 405,
            };
            operations += u32::from(expected != 405);
            assert_eq!(status, expected, "{method} {path}");
        }
    }
    assert_eq!(operations, 6);
}
