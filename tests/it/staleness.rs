//! A control plane that freezes: nothing is issued on a view that may be old, and all is well soon after.

use crate::support::process::Guarded;
use crate::world::{DOCS, World, wait_until};
use serde_json::json;
use std::time::Duration;

/// Freezes one process, sees issuing and introspection stop within the bound and return soon after the thaw.
fn freeze(component: impl Fn(&World) -> &Guarded) {
    // A world of its own: nobody else can use it while it is frozen.
    let world = World::start(4, &[], &[]);
    let tenant = world.tenant_with("frozen", &json!({}));
    let server = world.resource_server(DOCS);
    let token = tenant.access_token();
    assert!(world.introspect(&server, &token).is_active());

    component(&world).signal("STOP").expect("frozen");
    // Ten seconds is the bound; the rest is for a busy machine to notice.
    let stopped = wait_until("issuing stops", Duration::from_secs(12), || world.exchange(&tenant.token).status == 503);
    let reply = world.exchange(&tenant.token).refused(503, "temporarily_unavailable");
    assert_eq!(reply.headers["retry-after"], "1");
    let record = world.record_of(&reply);
    assert_eq!((&record["reason"], &record["outcome"]), (&json!("view_stale"), &json!("error")));
    world.introspect(&server, &token).refused(503, "temporarily_unavailable");
    assert_eq!(world.operator.get("/readyz").expect("an answer").status, 503);
    // P7: keys and metadata stay up.
    for path in ["/oauth2/jwks", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/healthz"] {
        let answer = world.http.get(format!("{}{path}", world.operator.url())).send().expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }

    component(&world).signal("CONT").expect("thawed");
    let back = wait_until("issuing is back", Duration::from_secs(5), || world.exchange(&tenant.token).status == 200);
    assert!(world.introspect(&server, &token).is_active());
    eprintln!("issuing stopped {stopped:?} after the freeze and was back {back:?} after the thaw");
}

#[test]
fn a_frozen_api_server_stops_issuing_within_ten_seconds() {
    freeze(|world| world.cluster.api_server().expect("a cluster that we started"));
}

#[test]
fn a_frozen_etcd_stops_issuing_within_ten_seconds() {
    freeze(|world| world.cluster.etcd().expect("a cluster that we started"));
}
