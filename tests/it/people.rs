//! People who log in at their organisation's identity provider, as the portal lets them: what kube-apiserver makes of their ID tokens.

use crate::organisation::{CLIENT, Organisation, PREFIX, group};
use crate::payments::asked;
use crate::support::kubectl::Kubectl;
use crate::world::{claims, forbidden};
use serde_json::json;

/// Reads the requests of a namespace.
fn list(who: &Kubectl, namespace: &str) -> Result<String, String> {
    who.run(&["get", "jitrequests", "-n", namespace, "-o=name"]).map_err(|failure| failure.stderr)
}

#[test]
fn the_id_token_of_somebody_who_logged_in_to_the_portal_reads_and_decides_what_rbac_lets_them() {
    let organisation = Organisation::shared();
    let world = &organisation.world;
    let (tenant, capability) = world.payments_tenant("id-token");
    let namespace = &tenant.namespace;
    let asked = asked(&tenant, &capability);
    world.approvers("treasury", &[group("treasury")], namespace, &capability);

    let dana = organisation.person("dana");
    let info = dana.get_json(&["auth", "whoami"]).expect("everybody may ask")["status"]["userInfo"].clone();
    assert_eq!(info["username"], json!(format!("{PREFIX}dana@acme.example")));
    assert_eq!(info["groups"], json!(["oidc:treasury", "oidc:staff", "system:authenticated"]));
    assert_eq!(list(&dana, namespace).expect("the group may").trim(), format!("jitrequest.countersign.dev/{}", asked.name));
    forbidden(list(&dana, "default"), "cannot list");
    forbidden(list(&organisation.person("alice"), namespace), "cannot list");

    let patch = json!({"status": {"decision": {"verdict": "Approved", "comment": "looked at it"}}}).to_string();
    let arguments = ["patch", "jit", &asked.name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &patch];
    dana.run(&arguments).expect("she decides");
    asked.reaches("Approved");
    assert_eq!(asked.status()["approvals"][0]["by"]["username"], info["username"]);
    asked.token();
}

#[test]
fn an_id_token_for_another_application_or_of_an_unverified_address_is_nobodys() {
    let organisation = Organisation::shared();
    let whoami = |name: &str, token: &str| {
        organisation.kubectl_with(name, token).run(&["auth", "whoami"]).map_err(|failure| failure.stderr)
    };
    let good = organisation.id_token("dana");
    assert_eq!(claims(&good)["aud"], CLIENT);
    whoami("good", &good).expect("it is known");
    let (signed, signature) = good.rsplit_once('.').expect("a signature");
    let reversed: String = signature.chars().rev().collect();
    for (what, token) in [
        ("for another application", organisation.provider.log_in("research-app", "dana").expect("logged in").id_token),
        ("not verified", organisation.id_token("mallory")),
        ("without an address", organisation.id_token("bob")),
        ("forged", format!("{signed}.{reversed}")),
    ] {
        let complaint = whoami("bad", &token).expect_err(what);
        assert!(complaint.contains("must be logged in") || complaint.contains("Unauthorized"), "{what}: {complaint}");
    }
    let eve = whoami("eve", &organisation.id_token("eve")).expect("she is somebody");
    assert!(eve.contains("oidc:system:admin") && eve.contains("oidc:system:masters"), "but not who she says: {eve}");
}
