//! Introspection (RFC 7662): only for whom a token is for, and only if RBAC says so.

use crate::world::{CLIENT_ASSERTION, DOCS, PATIENCE, Reply, World, claims, wait_until};
use serde_json::json;

#[test]
fn a_resource_server_learns_what_a_token_says() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("introspect"), world.resource_server(DOCS));
    let token = tenant.access_token();
    let reply = world.introspect(&server, &token);
    assert!(reply.is_active());
    assert_eq!(reply.headers["cache-control"], "no-store");
    let says = claims(&token);
    for claim in ["iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "agent_uid", "links", "authorization_details"] {
        assert_eq!(reply.body[claim], says[claim], "{claim}");
    }
    assert_eq!(reply.body["token_type"], "Bearer");
    let record = world.record_of(&reply);
    assert_eq!((&record["outcome"], &record["jti"]), (&json!("allow"), &says["jti"]));
}

#[test]
fn a_resource_server_may_also_authenticate_by_client_assertion() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("introspect-assertion"), world.resource_server(DOCS));
    let token = tenant.access_token();
    let form = [
        ("token", token.as_str()),
        ("token_type_hint", "access_token"),
        ("client_assertion_type", CLIENT_ASSERTION),
        ("client_assertion", server.as_str()),
    ];
    assert!(world.post("/oauth2/introspect", &form).is_active());
    let both = world.http.post(format!("{}/oauth2/introspect", world.operator.url())).bearer_auth(&server).form(&form).send();
    Reply::from(both.expect("an answer")).refused(400, "invalid_request");
}

#[test]
fn x18_to_everybody_else_every_token_is_inactive() {
    let world = World::shared();
    let (tenant, other) = (world.tenant("introspect-other"), world.resource_server("https://other.example.com"));
    let token = tenant.access_token();
    let reply = world.introspect(&other, &token);
    assert!(!reply.is_active());
    assert_eq!(world.record_of(&reply)["reason"], "caller_may_not_introspect");
    assert!(!world.introspect(&tenant.token, &token).is_active(), "nor to the agent itself, without the verb");
}

#[test]
fn a_token_that_is_not_alive_is_inactive_and_never_an_error() {
    let world = World::shared();
    let (tenant, server) = (world.tenant("introspect-dead"), world.resource_server(DOCS));
    let token = tenant.access_token();
    let (head, rest) = token.split_once('.').expect("a JWT");
    let (body, signature) = rest.split_once('.').expect("a JWT");
    let flipped = if signature.starts_with('A') { signature.replacen('A', "B", 1) } else { format!("A{}", &signature[1..]) };
    for dead in [
        "x".to_owned(),
        "a.b.c".to_owned(),
        "z".repeat(9000),
        format!("{head}.{body}.{flipped}"),
        format!("{token} "),
        server.clone(),
    ] {
        let reply = world.introspect(&server, &dead);
        assert!(!reply.is_active());
        assert_eq!(world.record_of(&reply)["outcome"], "deny");
    }
}

#[test]
fn a_caller_must_say_who_it_is() {
    let world = World::shared();
    let tenant = world.tenant("introspect-caller");
    let token = tenant.access_token();
    let nobody = world.post("/oauth2/introspect", &[("token", &token)]).refused(401, "invalid_client");
    assert!(nobody.headers.contains_key("www-authenticate"));
    for bearer in ["x", token.as_str(), ""] {
        let url = format!("{}/oauth2/introspect", world.operator.url());
        let reply = world.http.post(url).header("authorization", format!("Bearer {bearer}")).form(&[("token", &token)]).send();
        let reply = Reply::from(reply.expect("an answer")).refused(401, "invalid_client");
        assert!(reply.headers.contains_key("www-authenticate"), "RFC 6750 section 3");
        assert_eq!(world.record_of(&reply)["outcome"], "deny");
    }
    let server = world.resource_server(DOCS);
    let missing =
        world.http.post(format!("{}/oauth2/introspect", world.operator.url())).bearer_auth(&server).form(&[("x", "y")]).send();
    Reply::from(missing.expect("an answer")).refused(400, "invalid_request");
}

#[test]
fn a_right_that_is_taken_away_is_gone_within_seconds() {
    let world = World::shared();
    let tenant = world.tenant("introspect-unbound");
    let namespace = world.namespace("unbound");
    let bearer = world.workload(&namespace, "server");
    let token = tenant.access_token();
    assert!(!world.introspect(&bearer, &token).is_active());
    let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["audiences"], "verbs": ["introspect"]}]);
    world.bind(&namespace, "r", &rules, &[json!({"kind": "ServiceAccount", "name": "server", "namespace": namespace})]);
    wait_until("the right is seen", PATIENCE, || world.introspect(&bearer, &token).is_active());
    world.kubectl().run(&["delete", "rolebinding", "r", "-n", &namespace]).expect("deleted");
    wait_until("the right is gone", PATIENCE, || !world.introspect(&bearer, &token).is_active());
}
