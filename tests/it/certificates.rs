//! The serving certificate: from our own CA, renewed and replaced without a restart.

use crate::support::operator::{Operator, OperatorOptions};
use crate::world::{World, client, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SECRET: [&str; 5] = ["get", "secret", "countersign", "-n", "countersign-system"];

/// The serial number of the certificate that an address serves, as openssl prints it.
fn served(operator: &Operator) -> String {
    let address = operator.url().replace("https://", "");
    let script =
        format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -serial -ext subjectAltName");
    let output = Command::new("sh").args(["-c", &script]).output().expect("openssl");
    String::from_utf8(output.stdout).expect("text")
}

/// Changes the operator's Secret as the administrator.
fn patch_secret(world: &World, kind: &str, patch: &str) {
    let kind = format!("--type={kind}");
    let arguments = ["patch", "secret", "countersign", "-n", "countersign-system", &kind, "-p", patch];
    world.kubectl().run(&arguments).expect("patched");
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_the_operator_makes_is_in_its_secret_and_its_ca_is_published() {
    let world = World::shared();
    let secret = world.kubectl().get_json(&SECRET).expect("the Secret");
    let mut names: Vec<&String> = secret["data"].as_object().expect("data").keys().collect();
    names.sort();
    assert_eq!(names, ["audit-key", "ca.crt", "ca.key", "evidence-key", "signing-keys", "tls.crt", "tls.key"]);
    let config_map =
        world.kubectl().get_json(&["get", "configmap", "countersign", "-n", "countersign-system"]).expect("the ConfigMap");
    let ca = STANDARD.decode(secret["data"]["ca.crt"].as_str().expect("ca.crt")).expect("base64");
    assert_eq!(config_map["data"]["ca.crt"].as_str().expect("ca.crt").as_bytes(), ca);
    assert!(!config_map.to_string().contains("PRIVATE KEY"));
}

#[test]
fn a_lost_certificate_is_made_anew_and_served_without_a_restart() {
    let world = World::start(4, &[], &[]);
    let before = served(&world.operator);
    assert!(before.contains("127.0.0.1"), "the issuer's host is a name in it: {before}");
    let kids: Value =
        world.http.get(format!("{}/oauth2/jwks", world.operator.url())).send().expect("an answer").json().expect("JSON");
    patch_secret(&world, "json", r#"[{"op":"remove","path":"/data/tls.crt"}]"#);
    wait_until("another certificate is served", Duration::from_secs(30), || {
        let now = served(&world.operator);
        now.contains("127.0.0.1") && now != before
    });
    // Signed by the same CA: the client that trusted the first trusts the second.
    let answer = client(&world.operator).get(format!("{}/healthz", world.operator.url())).send().expect("trusted");
    assert_eq!(answer.status(), 200);
    let after: Value =
        world.http.get(format!("{}/oauth2/jwks", world.operator.url())).send().expect("an answer").json().expect("JSON");
    assert_eq!(after, kids, "the signing key stays");
}

#[test]
fn given_files_are_served_and_picked_up_when_they_are_replaced() {
    let world = World::shared();
    let directory = tempfile::tempdir().expect("a directory");
    let issue = |serial: &str| {
        openssl(
            directory.path(),
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                "new.key",
                "-out",
                "new.crt",
                "-days",
                "2",
                "-subj",
                "/CN=given",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-set_serial",
                serial,
            ],
        );
        for file in ["crt", "key"] {
            std::fs::rename(directory.path().join(format!("new.{file}")), directory.path().join(format!("tls.{file}")))
                .expect("renamed");
        }
    };
    issue("1001");
    let flag = |name: &str, file: &str| format!("--{name}={}", directory.path().join(file).display());
    let options = OperatorOptions {
        name: "given-certificate".to_owned(),
        args: vec![flag("tls-cert-file", "tls.crt"), flag("tls-key-file", "tls.key")],
        ..OperatorOptions::default()
    };
    let operator = world.another(options);
    assert!(served(&operator).contains(&format!("serial={:04X}", 1001)), "{}", served(&operator));
    issue("2002");
    wait_until("the new certificate is served", Duration::from_secs(30), || {
        served(&operator).contains(&format!("serial={:04X}", 2002))
    });
    std::fs::write(directory.path().join("tls.crt"), "garbage").expect("written");
    wait_until("it is seen that it cannot be used", Duration::from_secs(30), || {
        operator.process().log().contains("the new serving certificate cannot be used")
    });
    assert!(served(&operator).contains(&format!("serial={:04X}", 2002)), "what cannot be used replaces nothing");
}
