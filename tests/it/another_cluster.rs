//! `examples/federation/cluster.yaml`, with a second real API server that issues the tokens.

use crate::federation::{LOOPBACK, accepted, condition, ready};
use crate::federation_examples::objects;
use crate::forged_tokens::refused_everywhere;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::workload;
use crate::world::{PATIENCE, World, wait_until};
use serde_json::{Value, json};

#[test]
fn another_cluster_vouches_for_a_pod() {
    let world = World::shared();
    let options = ClusterOptions {
        controller_manager: false,
        api_server_flags: vec!["--service-account-issuer=https://127.0.0.1:{port}".to_owned()],
        ..ClusterOptions::default()
    };
    let west = Cluster::start_another(&options).expect("a second cluster");
    let kubectl = west.kubectl();
    let discovery = ["create", "clusterrolebinding", "issuer-discovery", "--group=system:unauthenticated"];
    let role = "--clusterrole=system:service-account-issuer-discovery";
    kubectl.run(&[&discovery[..], &[role]].concat()).expect("anonymous discovery");
    workload::create_namespace(&kubectl, "research").expect("a namespace");
    let uid = workload::create_service_account(&kubectl, "research", "research-bot").expect("a ServiceAccount");
    let pod_uid = workload::create_pod(&kubectl, "research", "pod", "research-bot").expect("a Pod");

    let mut objects = objects("cluster");
    let ours = world.operator.issuer();
    for object in &mut objects {
        match object["kind"].as_str().expect("a kind") {
            "TrustedIssuer" => {
                let issuer = &mut object["spec"]["issuer"];
                issuer["url"] = json!(west.server());
                issuer["jwksURL"] = json!(format!("{}/openid/v1/jwks", west.server()));
                issuer["audiences"] = json!([ours]);
                issuer["certificateAuthority"] = json!(west.ca_pem().expect("a CA"));
                issuer["allowedNetworks"] = json!([LOOPBACK]);
            }
            "Agent" => object["spec"]["identity"]["federated"][0]["claims"]["/kubernetes.io/serviceaccount/uid"] = json!(uid),
            _ => {}
        }
        world.apply(object).expect("applied");
    }
    ready(world, "cluster-west");
    let agent = "agent:research/research-on-west";
    world.kubectl().wait_for("research", "agent/research-on-west", "condition=Ready", PATIENCE).expect("the Agent is Ready");
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": "pod", "uid": pod_uid});
    let token = |account: &str, spec: Value| workload::request_token(&kubectl, "research", account, &spec).expect("a token");
    let good = || token("research-bot", json!({"audiences": [ours], "boundObjectRef": pod}));
    accepted(world, &good(), agent);

    let refused = |token: &str, reason: &str| refused_everywhere(world, token, reason);
    refused(&token("research-bot", json!({"audiences": [ours]})), "credential_claim_refused");
    refused(&token("research-bot", json!({"audiences": [], "boundObjectRef": pod})), "credential_claim_refused");
    refused(
        &token("research-bot", json!({"audiences": [format!("{ours}/")], "boundObjectRef": pod})),
        "credential_claim_refused",
    );
    let long = json!({"audiences": [ours], "boundObjectRef": pod, "expirationSeconds": 7200});
    refused(&token("research-bot", long), "credential_claim_refused");
    workload::create_service_account(&kubectl, "research", "other-bot").expect("a ServiceAccount");
    let other_uid = workload::create_pod(&kubectl, "research", "other", "other-bot").expect("a Pod");
    let other = json!({"kind": "Pod", "apiVersion": "v1", "name": "other", "uid": other_uid});
    refused(&token("other-bot", json!({"audiences": [ours], "boundObjectRef": other})), "agent_unknown");

    // The same names in this cluster are somebody else.
    workload::create_service_account(&world.kubectl(), "research", "research-bot").expect("a ServiceAccount");
    let ours_uid = workload::create_pod(&world.kubectl(), "research", "pod", "research-bot").expect("a Pod");
    let spec =
        json!({"audiences": [ours], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "pod", "uid": ours_uid}});
    let of_this_cluster = workload::request_token(&world.kubectl(), "research", "research-bot", &spec).expect("a token");
    refused(&of_this_cluster, "agent_unknown");

    // An account that is made anew under the same name is another.
    kubectl.run(&["delete", "pod", "pod", "--namespace=research", "--force"]).expect("deleted");
    kubectl.run(&["delete", "serviceaccount", "research-bot", "--namespace=research"]).expect("deleted");
    workload::create_service_account(&kubectl, "research", "research-bot").expect("a ServiceAccount");
    let new_uid = workload::create_pod(&kubectl, "research", "pod", "research-bot").expect("a Pod");
    let anew = json!({"audiences": [ours], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "pod", "uid": new_uid}});
    refused(&token("research-bot", anew.clone()), "agent_unknown");
    let claims = json!({"spec": {"identity": {"federated": [{"issuer": "cluster-west", "subject": "system:serviceaccount:research:research-bot"}]}}});
    let patch = ["patch", "agent", "research-on-west", "-n", "research", "--type=merge", "-p", &claims.to_string()];
    world.kubectl().run(&patch).expect("patched");
    let found = || world.exchange(&token("research-bot", anew.clone())).status == 200;
    wait_until("without the uid it is the same", PATIENCE, found);

    // Discovery finds the same keys: this API server names its own address.
    world
        .kubectl()
        .run(&["patch", "trustedissuer", "cluster-west", "--type=merge", "-p", r#"{"spec":{"issuer":{"jwksURL":null}}}"#])
        .expect("patched");
    wait_until("the keys are fetched by discovery", PATIENCE, found);
    assert_eq!(condition(world, "cluster-west", "KeysFetched")["status"], "True");
    world.kubectl().run(&["delete", "trustedissuer", "cluster-west"]).expect("deleted");
}
