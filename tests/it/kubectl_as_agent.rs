//! kube-apiserver accepts an agent's token: `examples/kubectl-as-agent`, with its files, on a real API server.

use crate::support::cluster::ClusterOptions;
use crate::support::kubectl::Kubectl;
use crate::support::{repository, workload};
use crate::world::{PATIENCE, TOKEN_EXCHANGE, TYPE_JWT, World, claims, forbidden, header, stamped, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const AUDIENCE: &str = "https://kubernetes.example.com";
const NAMESPACE: &str = "research";

fn example(file: &str) -> String {
    std::fs::read_to_string(repository().join("examples/kubectl-as-agent").join(file)).expect("a file of the example")
}

/// Writes the configuration as a whole, at once: the API server may read it any time.
fn write(path: &Path, config: &Value) {
    let new = path.with_extension("new");
    std::fs::write(&new, config.to_string()).expect("written");
    std::fs::rename(new, path).expect("renamed");
}

/// An agent with this spec in the namespace of the example, and its pod's token.
fn agent(world: &World, name: &str, audience: &Value, capabilities: &Value, expires: u32) -> String {
    let token = world.workload(NAMESPACE, name);
    let spec = json!({
        "capabilities": capabilities,
        "tokens": {"expirationSeconds": expires, "audiences": [audience]},
    });
    world.apply(&stamped(crate::world::agent(NAMESPACE, name, &spec), "admin")).expect("the Agent is accepted");
    world.kubectl().wait_for(NAMESPACE, &format!("agent/{name}"), "condition=Ready", PATIENCE).expect("Ready");
    token
}

/// The access token that `credential` is exchanged for.
fn exchange(world: &World, credential: &str) -> String {
    let form = [("grant_type", TOKEN_EXCHANGE), ("subject_token", credential), ("subject_token_type", TYPE_JWT)];
    world.request(&form).expect(200).text("access_token")
}

/// kubectl with a token of ours, and with nothing else.
fn kubectl(world: &World, name: &str, token: &str) -> Kubectl {
    let kubeconfig = world.cluster.kubeconfig_with_token(name, token).expect("a kubeconfig");
    Kubectl::new(&kubeconfig, world.cluster.directory().path()).itself()
}

/// Whether the API server says that it does not know whose token this is.
fn is_nobody(world: &World, name: &str, token: &str) -> bool {
    match kubectl(world, name, token).run(&["auth", "whoami"]) {
        Ok(_) => false,
        Err(failure) => {
            assert!(failure.stderr.contains("must be logged in") || failure.stderr.contains("Unauthorized"), "{failure}");
            true
        }
    }
}

#[test]
fn kube_apiserver_accepts_an_es256_token_and_kubectl_runs_as_the_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("authentication-config.yaml");
    // The operator is not there yet: the API server reads the file again when it is.
    let mut config: Value = serde_saphyr::from_str(&example("authentication-config.yaml")).expect("YAML");
    let none = json!({"apiVersion": config["apiVersion"], "kind": config["kind"], "jwt": []});
    write(&path, &none);
    let flags = vec![format!("--authentication-config={}", path.display())];
    let options = ClusterOptions { api_server_flags: flags, ..ClusterOptions::default() };
    let world = World::start_on(&options, 4, &[], &["--signing-key-rotation=1h", "--signing-key-publish-ahead=20s"]);
    let issuer = &mut config["jwt"][0]["issuer"];
    issuer["url"] = json!(world.operator.issuer());
    issuer["certificateAuthority"] = json!(std::fs::read_to_string(world.operator.ca_file()).expect("the CA"));
    assert_eq!(issuer["audiences"], json!([AUDIENCE]));
    write(&path, &config);

    // The agent of the example.
    world.kubectl().apply(&example("agent.yaml")).expect("the Agent is accepted");
    world.kubectl().apply(&example("rbac.yaml")).expect("the roles are accepted");
    world.kubectl().wait_for(NAMESPACE, "agent/cluster-bot", "condition=Ready", PATIENCE).expect("Ready");
    let uid = workload::create_pod(&world.kubectl(), NAMESPACE, "cluster-bot", "cluster-bot").expect("a Pod");
    let account = "cluster-bot";
    let credential = workload::pod_token(&world.kubectl(), NAMESPACE, account, account, &uid, world.operator.issuer(), 3600);
    let credential = credential.expect("a token");
    let token = exchange(&world, &credential);
    assert_eq!((&header(&token)["alg"], &claims(&token)["aud"]), (&json!("ES256"), &json!(AUDIENCE)));
    let bot = kubectl(&world, "as-the-agent", &token);
    wait_until("the API server has read its configuration", Duration::from_secs(120), || bot.run(&["auth", "whoami"]).is_ok());

    // It is who it should be.
    let info = bot.get_json(&["auth", "whoami"]).expect("everybody may ask")["status"]["userInfo"].clone();
    assert_eq!(info["username"], "countersign:agent:research/cluster-bot");
    assert_eq!(info["uid"], claims(&token)["agent_uid"]);
    assert_eq!(info["groups"], json!(["countersign:agents", "system:authenticated"]));
    assert_eq!(info["extra"]["countersign.dev/token-id"], json!([claims(&token)["jti"]]));
    let printed = bot.run(&["auth", "whoami"]).expect("everybody may ask");
    assert!(printed.contains("countersign:agent:research/cluster-bot"), "{printed}");
    // RBAC knows it, and nothing beyond what is bound to it.
    bot.run(&["get", "configmaps", "-n", NAMESPACE]).expect("what is bound to it works");
    for (verb, resource, namespace) in
        [("get", "secrets", NAMESPACE), ("get", "configmaps", "default"), ("delete", "configmaps", NAMESPACE)]
    {
        let arguments = [verb, resource, "-n", namespace, if verb == "delete" { "--all" } else { "-o=name" }];
        let refused = bot.run(&arguments).map_err(|f| f.stderr);
        if verb == "get" {
            forbidden(refused, "User \"countersign:agent:research/cluster-bot\" cannot list");
        } else {
            forbidden(refused, "cannot delete");
        }
    }

    // What is not for it is nobody's, whoever signed it.
    let access = json!([{"name": "kubernetes.access"}]);
    let es256 = |name: &str| json!({"name": name, "signingAlgorithm": "ES256"});
    let refused = [
        ("eddsa", json!({"name": AUDIENCE}), access.clone()),
        ("other-audience", es256("https://other.example.com"), access.clone()),
        ("no-capability", es256(AUDIENCE), json!([{"name": "document.read"}])),
        ("limited", es256(AUDIENCE), json!([{"name": "kubernetes.access", "resources": ["namespace:research"]}])),
    ];
    for (name, audience, capabilities) in refused {
        let token = exchange(&world, &agent(&world, name, &audience, &capabilities, 300));
        assert!(is_nobody(&world, name, &token), "{name}");
    }
    // One of which nothing but the signature is wrong.
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let flipped: String = signature.chars().rev().collect();
    assert!(is_nobody(&world, "forged", &format!("{signed}.{flipped}")));

    // Alive it is accepted, and soon after its end it is not: the API server remembers what it accepted for 10 s.
    let brief = exchange(&world, &agent(&world, "brief", &es256(AUDIENCE), &access, 30));
    assert!(!is_nobody(&world, "brief", &brief));
    wait_until("it has expired", Duration::from_secs(90), || is_nobody(&world, "brief", &brief));
    assert!(bot.run(&["auth", "whoami"]).is_ok(), "the other still counts");

    // The keys rotate, and it does not notice.
    let kid = |token: &str| header(token)["kid"].clone();
    let rotate = |arguments: &[&str]| crate::signing_keys::rotate(world.cluster.kubeconfig(), arguments).expect("rotated");
    rotate(&["--keep-old", "--signing-key-publish-ahead=20s"]);
    let mut next = token.clone();
    wait_until("the next key signs", Duration::from_secs(60), || {
        next = exchange(&world, &credential);
        kid(&next) != kid(&token)
    });
    assert!(!is_nobody(&world, "next", &next), "it has the key that signs now");
    assert!(bot.run(&["auth", "whoami"]).is_ok(), "and the one that signed before");

    // In an emergency it drops the old ones when it has met a new one.
    rotate(&[]);
    let mut new = next.clone();
    wait_until("a new key signs", PATIENCE, || {
        new = exchange(&world, &credential);
        ![kid(&token), kid(&next)].contains(&kid(&new))
    });
    assert!(!is_nobody(&world, "new", &new));
    for (name, old) in [("old", &token), ("old-next", &next)] {
        wait_until("it is refused", Duration::from_secs(60), || is_nobody(&world, name, old));
    }
}
