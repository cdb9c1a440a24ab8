//! `--service-account-validation=token-review`: the same rules, with the API server as verifier and no watch of Pods.

use crate::support::workload;
use crate::world::{DOCS, World, wait_until};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_token_review_decides_in_place_of_the_watch() {
    let world = World::start(4, &[("serviceAccountValidation", "TokenReview")], &["--service-account-validation=token-review"]);
    let tenant = world.tenant_with("review", &json!({}));
    let reply = world.exchange(&tenant.token).expect(200);
    assert_eq!(world.record_of(&reply)["pod_uid"], tenant.pod_uid);
    let server = world.resource_server(DOCS);
    let issued = reply.text("access_token");
    assert!(world.introspect(&server, &issued).is_active());

    // The operator could not watch Pods here even if it wanted to.
    let rights = world.kubectl().impersonating(
        "system:serviceaccount:countersign-system:countersign",
        &["system:serviceaccounts", "system:authenticated"],
    );
    rights.run(&["auth", "can-i", "watch", "pods", "-A"]).expect_err("no right to watch Pods");

    let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": "pod", "uid": tenant.pod_uid});
    let request = |spec| workload::request_token(&world.kubectl(), &tenant.namespace, "bot", &spec).expect("issued");
    for (spec, reason) in [
        (
            json!({"audiences": ["https://kubernetes.default.svc.cluster.local"], "boundObjectRef": pod}),
            "credential_review_refused",
        ),
        (json!({"audiences": [world.operator.issuer()]}), "credential_claim_refused"),
        (
            json!({"audiences": [world.operator.issuer()], "boundObjectRef": pod, "expirationSeconds": 7200}),
            "credential_claim_refused",
        ),
    ] {
        let reply = world.exchange(&request(spec)).refused(400, "invalid_request");
        assert_eq!(world.record_of(&reply)["reason"], reason);
    }
    let forged = format!("{}A", tenant.token);
    world.exchange(&forged).refused(400, "invalid_request");

    world.kubectl().run(&["delete", "pod", "pod", "-n", &tenant.namespace, "--force", "--grace-period=0"]).expect("deleted");
    // The API server remembers its own success for ten seconds.
    wait_until("the token is refused", Duration::from_secs(20), || world.exchange(&tenant.token).status != 200);
    assert!(world.introspect(&server, &issued).is_active(), "nobody here knows which pods there are");

    // F3: an API server that does not answer is no yes.
    world.cluster.api_server().expect("a cluster that we started").signal("STOP").expect("frozen");
    let start = std::time::Instant::now();
    world.exchange(&tenant.token).refused(503, "temporarily_unavailable");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    world.cluster.api_server().expect("a cluster that we started").signal("CONT").expect("thawed");
}
