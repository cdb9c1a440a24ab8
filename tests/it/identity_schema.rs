//! The schemas of an Agent's identity and of TrustedIssuers: what the API server refuses, and with which words.

use crate::key_agents::{Key, unique};
use crate::schema::dry_run;
use crate::world::{DOCS, PATIENCE, World, agent, with_members};
use serde_json::{Value, json};

/// An Agent whose identity is this.
fn with_identity(namespace: &str, identity: &Value) -> Value {
    agent(namespace, "bot", &json!({"identity": identity}))
}

#[track_caller]
fn accepted(object: &Value, about: &Value) {
    dry_run(World::shared(), object).unwrap_or_else(|error| panic!("{about}: {error}"));
}

/// Fails unless the schema refuses it and says this.
#[track_caller]
fn refused(object: &Value, about: &Value, because: &str) {
    let message = dry_run(World::shared(), object).expect_err(&format!("{about} was accepted"));
    assert!(message.contains("is invalid") || message.contains("strict decoding"), "{about}: {message}");
    assert!(message.contains(because), "{about}: {message}");
}

#[test]
fn an_identity_has_one_way_at_least_and_each_way_its_bounds() {
    let namespace = World::shared().namespace("identity");
    let pem = Key::new().pem();
    let key = |changes: Value| json!({"keys": [with_members(json!({"publicKey": pem}), &changes)]});
    let accounts = |n: usize| (0..n).map(|i| json!({"name": format!("sa{i}")})).collect::<Vec<_>>();
    let pems = |n: usize| (0..n).map(|_| json!({"publicKey": Key::new().pem()})).collect::<Vec<_>>();
    let identities = |n: usize| (0..n).map(|i| json!({"issuer": "i", "subject": format!("s{i}")})).collect::<Vec<_>>();
    let federated = |changes: Value| json!({"federated": [with_members(json!({"issuer": "i", "subject": "s"}), &changes)]});
    let claims = |n: usize| (0..n).map(|i| (format!("c{i}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    for identity in [
        json!({"keys": [{"publicKey": pem}]}),
        json!({"federated": [{"issuer": "i", "subject": "s"}]}),
        json!({"serviceAccounts": accounts(16), "keys": pems(8), "federated": identities(16)}),
        json!({"serviceAccounts": [], "keys": pems(1), "federated": []}),
        key(json!({"kid": "a"})),
        key(json!({"kid": "Laptop_2026-11.v2"})),
        key(json!({"kid": "-"})),
        key(json!({"kid": "k".repeat(64)})),
        key(json!({"notAfter": "2026-11-24T00:00:00Z"})),
        key(json!({"notAfter": "2026-11-24T00:00:00.5+02:00"})),
        key(json!({"publicKey": Key::new().jwk().to_string()})),
        key(json!({"publicKey": serde_json::to_string_pretty(&Key::new().jwk()).expect("JSON")})),
        key(json!({"publicKey": format!("{{{}", "x".repeat(1023))})),
        federated(json!({"subject": "s".repeat(512), "issuer": "aws.prod"})),
        federated(json!({"subject": "arn:aws:iam::123456789012:role/Größe *?[]"})),
        federated(json!({"claims": claims(16)})),
        federated(json!({"claims": {"/google/compute_engine/project_id": "p", "https://sts.amazonaws.com/": "v".repeat(512)}})),
    ] {
        accepted(&with_identity(&namespace, &identity), &identity);
    }
    let none = "an agent needs at least one way to prove who it is: serviceAccounts, keys or federated";
    for (identity, because) in [
        (json!({}), none),
        (json!({"serviceAccounts": [], "keys": [], "federated": []}), none),
        (json!({"keys": []}), none),
        (json!(null), "identity"),
        (json!({"keys": pems(9)}), "must have at most 8 items"),
        (json!({"serviceAccounts": accounts(17)}), "must have at most 16 items"),
        (json!({"federated": identities(17)}), "must have at most 16 items"),
        (json!({"passwords": ["x"]}), "unknown field"),
        (json!({"keys": [{}]}), "publicKey"),
        (json!({"keys": [pem]}), "keys[0]"),
        (json!({"keys": {"publicKey": pem}}), "keys"),
        (key(json!({"alg": "EdDSA"})), "unknown field"),
        (key(json!({"kid": ""})), "kid"),
        (key(json!({"kid": "k".repeat(65)})), "kid"),
        (key(json!({"kid": "a b"})), "kid"),
        (key(json!({"kid": "a/b"})), "kid"),
        (key(json!({"kid": "a\n"})), "kid"),
        (key(json!({"kid": "a\u{0}"})), "kid"),
        (key(json!({"kid": "schl\u{fc}ssel"})), "kid"),
        (key(json!({"kid": 2026})), "kid"),
        (key(json!({"notAfter": "2026-11-24"})), "notAfter"),
        (key(json!({"notAfter": "2026-11-24T00:00:00"})), "notAfter"),
        (key(json!({"notAfter": "2026-02-30T00:00:00Z"})), "notAfter"),
        (key(json!({"notAfter": "2016-12-31T23:59:60Z"})), "notAfter"),
        (key(json!({"notAfter": "tomorrow"})), "notAfter"),
        (key(json!({"notAfter": "90d"})), "notAfter"),
        (key(json!({"notAfter": ""})), "notAfter"),
        (key(json!({"notAfter": 1_795_478_400})), "notAfter"),
        (federated(json!({"subject": ""})), "subject"),
        (federated(json!({"subject": null})), "subject"),
        (federated(json!({"subject": 7})), "subject"),
        (federated(json!({"subject": ["s"]})), "subject"),
        (federated(json!({"subject": "s".repeat(513)})), "subject"),
        (federated(json!({"subject": "a\nb"})), "a subject has no control characters"),
        (federated(json!({"subject": "a\tb"})), "a subject has no control characters"),
        (federated(json!({"subject": "\u{0}"})), "a subject has no control characters"),
        (federated(json!({"subject": "a\u{1f}"})), "a subject has no control characters"),
        (federated(json!({"subject": "a\u{7f}b"})), "a subject has no control characters"),
        (federated(json!({"issuer": null})), "issuer"),
        (federated(json!({"issuer": ""})), "issuer"),
        (federated(json!({"issuer": "https://i"})), "issuer"),
        (federated(json!({"issuer": "I"})), "issuer"),
        (federated(json!({"claims": claims(17)})), "claims"),
        (federated(json!({"claims": {"a": ""}})), "claims"),
        (federated(json!({"claims": {"a": "v".repeat(513)}})), "claims"),
        (federated(json!({"claims": {"a": 7}})), "claims"),
        (federated(json!({"claims": {"a": ["v"]}})), "claims"),
        (federated(json!({"claims": ["a"]})), "claims"),
        (federated(json!({"subjectPrefix": "s"})), "unknown field"),
    ] {
        refused(&with_identity(&namespace, &identity), &identity, because);
    }
    let shape = "publicKey is PEM that begins with '-----BEGIN PUBLIC KEY-----', or a JWK as a JSON object";
    for (public, because) in [
        (json!(" ".to_owned() + &pem), shape),
        (json!(pem.replace("PUBLIC KEY", "CERTIFICATE")), shape),
        (json!(pem.replace("PUBLIC KEY", "RSA PUBLIC KEY")), shape),
        (json!(format!("[{}]", Key::new().jwk())), shape),
        (json!(Key::new().thumbprint()), shape),
        (json!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"), shape),
        (json!("https://keys.example.com/jwks"), shape),
        (json!(format!("\n{}", Key::new().jwk())), shape),
        (json!(""), "publicKey"),
        (json!(format!("{{{}", "x".repeat(1024))), "publicKey"),
        (json!(Key::new().jwk()), "publicKey"),
        (json!([pem]), "publicKey"),
        (json!(null), "publicKey"),
    ] {
        refused(&with_identity(&namespace, &key(json!({"publicKey": public}))), &public, because);
    }
}

#[test]
fn a_private_key_is_refused_and_called_one_by_every_way_of_writing() {
    let world = World::shared();
    let namespace = world.namespace("private");
    let key = Key::new();
    let (private, jwk) = (key.private_pem(), key.jwk().to_string());
    let with_d = |member: &str| jwk.replacen('{', &format!("{{{member}\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\","), 1);
    let why = "this is a private key: nobody but the agent may have it, so it is worthless now; make another and paste only the public key";
    let all = [
        private.clone(),
        private.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        private.replace("PRIVATE", "OPENSSH PRIVATE"),
        private.replace("PRIVATE", "EC PRIVATE"),
        format!("{}{private}", key.pem()),
        format!("{private}{}", key.pem()),
        with_d("\"d\":"),
        with_d("\"d\" :"),
        with_d("\"d\"\n:"),
        with_d("\"d\" \t\r\n \t:"),
        with_d("\n  \"d\"   :\n"),
        json!({"keys": [{"d": "x"}]}).to_string(),
    ];
    for text in &all {
        let object = with_identity(&namespace, &json!({"keys": [{"publicKey": text}]}));
        refused(&object, &json!(text), why);
    }
    // What only looks like one.
    for good in [jwk.replacen('{', "{\"kid\":\"d\",", 1), jwk.replacen('{', "{\"kid\":\"d:\",\"id\":\"x\",", 1)] {
        accepted(&with_identity(&namespace, &json!({"keys": [{"publicKey": good}]})), &json!(good));
    }

    let kubectl = world.kubectl();
    let agent = world.key_agent("private-update");
    for text in [&private, &all[9]] {
        let spec = json!({"identity": {"keys": [{"publicKey": text}]}});
        let patch = json!({"spec": spec}).to_string();
        let merge = ["patch", "agent", "bot", "-n", &agent.namespace, "--type=merge", "--patch-file=/dev/stdin"];
        let json_patch = json!([{"op": "add", "path": "/spec/identity/keys/-", "value": {"publicKey": text}}]).to_string();
        let by_json = ["patch", "agent", "bot", "-n", &agent.namespace, "--type=json", "--patch-file=/dev/stdin"];
        let object = crate::world::agent(&agent.namespace, "bot", &spec).to_string();
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        for (arguments, input) in
            [(&merge[..], &patch), (&by_json, &json_patch), (&apply, &object), (&["replace", "-f", "-"], &object)]
        {
            let message = kubectl.run_with_input(arguments, input).expect_err("a private key").stderr;
            assert!(message.contains(why), "{arguments:?}: {message}");
        }
    }
    assert_eq!(agent.stored()["metadata"]["generation"], 1);
    agent.obtain().expect(200);
}

/// A TrustedIssuer for workloads whose keys are in it, with members of its spec replaced.
fn issuer(spec: &Value) -> Value {
    let usual = json!({"provides": "Workloads", "issuer": {"url": "https://issuer.example", "audiences": [DOCS]}});
    let name = format!("schema-{}", unique().to_lowercase().replace('_', "a").trim_matches('-'));
    json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustedIssuer", "metadata": {"name": name}, "spec": with_members(usual, spec)})
}

#[test]
fn every_rule_of_a_trusted_issuer_accepts_and_refuses() {
    let of =
        |changes: Value| json!({"issuer": with_members(json!({"url": "https://issuer.example", "audiences": [DOCS]}), &changes)});
    let url = |url: &str| of(json!({"url": url}));
    let users = |mappings: Value| json!({"provides": "Users", "claimMappings": mappings});
    let username = |mapping: Value| users(json!({"username": mapping}));
    let groups = |mapping: Value| users(json!({"username": {"claim": "sub"}, "groups": mapping}));
    let rule = |rule: Value| json!({"claimValidationRules": [rule]});
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let spiffe = |changes: Value| with_members(of(with_members(json!({"url": "spiffe://prod.example"}), &changes)), &json!({}));
    let many = |n: usize| (0..n).map(|i| format!("https://a{i}.example")).collect::<Vec<_>>();
    let networks = |n: usize| (0..n).map(|i| format!("10.{i}.0.0/16")).collect::<Vec<_>>();
    let mapping = "a mapping has either claim and prefix, or expression";
    // One that is accepted, one that is not, and why.
    for (good, bad, because) in [
        (json!({}), json!({"provides": "Everything"}), "provides"),
        (json!({"suspended": true}), json!({"suspended": "yes"}), "suspended"),
        (
            json!({"provides": "Workloads"}),
            json!({"claimMappings": {"username": {"claim": "sub"}}}),
            "claimMappings map users and are only for provides: Users",
        ),
        (username(json!({"claim": "sub"})), json!({"provides": "Users"}), "provides: Users needs claimMappings.username"),
        (
            spiffe(json!({"jwks": "{}"})),
            with_members(spiffe(json!({"jwks": "{}"})), &users(json!({"username": {"claim": "sub"}}))),
            "users come from an https issuer",
        ),
        (
            of(json!({"discoveryURL": "https://d.example/x"})),
            of(json!({"discoveryURL": "https://d.example/x", "jwksURL": "https://d.example/y"})),
            "of discoveryURL, jwksURL and jwks at most one can be set",
        ),
        (
            of(json!({"jwks": "{}"})),
            of(json!({"jwks": "{}", "jwksURL": "https://d.example/y"})),
            "of discoveryURL, jwksURL and jwks at most one can be set",
        ),
        (
            of(json!({"jwksURL": "https://d.example/y"})),
            of(json!({"jwks": "{}", "discoveryURL": "https://d.example/y"})),
            "of discoveryURL, jwksURL and jwks at most one can be set",
        ),
        (spiffe(json!({"jwksURL": "https://bundle.example"})), spiffe(json!({})), "a SPIFFE trust domain has no discovery"),
        (
            spiffe(json!({"jwks": "{}"})),
            spiffe(json!({"discoveryURL": "https://bundle.example"})),
            "a SPIFFE trust domain has no discovery",
        ),
        (
            of(json!({"certificateAuthority": pem})),
            of(json!({"certificateAuthority": "MIIB"})),
            "certificateAuthority is certificates in PEM",
        ),
        (
            of(json!({"certificateAuthority": format!("{pem}{pem}")})),
            of(json!({"certificateAuthority": format!("{pem}-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")})),
            "certificateAuthority is certificates in PEM",
        ),
        (
            of(json!({"discoveryURL": "https://d.example/.well-known/x?y=z"})),
            of(json!({"discoveryURL": "http://d.example"})),
            "discoveryURL is an https URL",
        ),
        (of(json!({"jwksURL": "https://d.example:8443/"})), of(json!({"jwksURL": "https://d ex/"})), "jwksURL is an https URL"),
        (of(json!({"jwksURL": "https://[2001:db8::1]/"})), of(json!({"jwksURL": "file:///etc/keys"})), "jwksURL is an https URL"),
        (
            rule(json!({"claim": "org", "requiredValue": "o"})),
            rule(json!({"claim": "org"})),
            "claim and requiredValue go together",
        ),
        (
            rule(json!({"expression": "claims.a == 'b'"})),
            rule(json!({"expression": "true", "requiredValue": "o"})),
            "claim and requiredValue go together",
        ),
        (
            rule(json!({"expression": "true", "message": "no"})),
            rule(json!({"claim": "org", "requiredValue": "o", "message": "no"})),
            "message goes with expression",
        ),
        (
            rule(json!({"expression": "true"})),
            rule(json!({"claim": "org", "requiredValue": "o", "expression": "true"})),
            "a rule has either claim and requiredValue, or expression",
        ),
        (
            rule(json!({"expression": "x".repeat(1024)})),
            rule(json!({})),
            "a rule has either claim and requiredValue, or expression",
        ),
        (username(json!({"claim": "sub", "prefix": "oidc:"})), username(json!({})), mapping),
        (username(json!({"claim": "sub", "prefix": ""})), username(json!({"claim": "sub", "expression": "claims.sub"})), mapping),
        (
            username(json!({"expression": "claims.sub"})),
            username(json!({"expression": "claims.sub", "prefix": "oidc:"})),
            mapping,
        ),
        (
            username(json!({"expression": "claims.email_verified ? claims.email : ''"})),
            username(json!({"expression": "claims.email"})),
            "an expression that uses claims.email must also look at claims.email_verified",
        ),
        (groups(json!({"claim": "groups", "prefix": "oidc:"})), groups(json!({})), mapping),
        (
            groups(json!({"expression": "claims.groups"})),
            groups(json!({"claim": "groups", "expression": "claims.groups"})),
            mapping,
        ),
        (groups(json!({"claim": "groups"})), groups(json!({"expression": "claims.groups", "prefix": "oidc:"})), mapping),
        (of(json!({"audiences": many(16)})), of(json!({"audiences": many(17)})), "audiences"),
        (of(json!({"audiences": ["a"]})), of(json!({"audiences": []})), "audiences"),
        (of(json!({"audiences": ["a", "b"]})), of(json!({"audiences": ["a", "a"]})), "audiences"),
        (of(json!({"audiences": ["a".repeat(256)]})), of(json!({"audiences": ["a b"]})), "audiences"),
        (of(json!({"allowedNetworks": networks(16)})), of(json!({"allowedNetworks": networks(17)})), "allowedNetworks"),
        (of(json!({"allowedNetworks": ["2001:db8::/32"]})), of(json!({"allowedNetworks": ["10.0.0.1"]})), "allowedNetworks"),
        (of(json!({"allowedNetworks": ["127.0.0.1/32"]})), of(json!({"allowedNetworks": ["localhost/8"]})), "allowedNetworks"),
        (
            of(json!({"signingAlgorithms": ["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"]})),
            of(json!({"signingAlgorithms": ["HS256"]})),
            "signingAlgorithms",
        ),
        (of(json!({"signingAlgorithms": ["EdDSA"]})), of(json!({"signingAlgorithms": ["none"]})), "signingAlgorithms"),
        (of(json!({"signingAlgorithms": ["ES256"]})), of(json!({"signingAlgorithms": []})), "signingAlgorithms"),
        (of(json!({"keysMaxAgeSeconds": 20})), of(json!({"keysMaxAgeSeconds": 19})), "keysMaxAgeSeconds"),
        (of(json!({"keysMaxAgeSeconds": 86_400})), of(json!({"keysMaxAgeSeconds": 86_401})), "keysMaxAgeSeconds"),
        (json!({"maxTokenLifetimeSeconds": 60}), json!({"maxTokenLifetimeSeconds": 59}), "maxTokenLifetimeSeconds"),
        (json!({"maxTokenLifetimeSeconds": 90_000}), json!({"maxTokenLifetimeSeconds": 90_001}), "maxTokenLifetimeSeconds"),
        (of(json!({"jwks": "j".repeat(65_536)})), of(json!({"jwks": "j".repeat(65_537)})), "jwks"),
        (
            json!({"claimValidationRules": vec![json!({"expression": "true"}); 16]}),
            json!({"claimValidationRules": vec![json!({"expression": "true"}); 17]}),
            "claimValidationRules",
        ),
        (url("https://issuer.example"), json!({"issuer": {"audiences": [DOCS]}}), "url"),
        (url("https://issuer.example/"), url(""), "url"),
        (json!({}), json!({"discovery": true}), "unknown field"),
    ] {
        accepted(&issuer(&good), &good);
        refused(&issuer(&bad), &bad, because);
    }
    for good in ["https://i.example:8443/a/b", "https://127.0.0.1:6443", "https://[::1]:6443/x"] {
        accepted(&issuer(&url(good)), &json!(good));
    }
    // F10
    let shape = "url is https://host[:port][/path] without user, query and fragment, or spiffe://trust-domain";
    for bad in [
        "http://issuer.example",
        "HTTPS://issuer.example",
        "https://",
        "https:///x",
        "https://good@evil.example",
        "https://a:b@evil.example",
        "https://issuer.example?x",
        "https://issuer.example/a?x",
        "https://issuer.example#x",
        "https://issuer.example/a#x",
        "https://issuer example",
        " https://issuer.example",
        "https://issuer.example/a b",
        "https://issuer.example\n",
        "issuer.example",
        "spiffe://PROD",
        "spiffe://prod/a",
        "spiffe://",
        "file:///etc/passwd",
        "javascript:alert(1)",
    ] {
        let message = dry_run(World::shared(), &issuer(&url(bad))).expect_err(&format!("{bad:?} was accepted"));
        assert!(message.contains(shape) || message.contains("url is not a URL"), "{bad:?}: {message}");
    }
}

#[test]
fn kubectl_explains_and_lists_identities_and_issuers() {
    let world = World::shared();
    for path in [
        "agent.spec.identity.keys",
        "agent.spec.identity.keys.kid",
        "agent.spec.identity.keys.publicKey",
        "agent.spec.identity.keys.notAfter",
        "agent.spec.identity.federated",
        "agent.spec.identity.federated.issuer",
        "agent.spec.identity.federated.subject",
        "agent.spec.identity.federated.claims",
        "agent.status.keyThumbprints",
        "trustedissuer",
        "trustedissuer.spec",
        "trustedissuer.spec.provides",
        "trustedissuer.spec.suspended",
        "trustedissuer.spec.maxTokenLifetimeSeconds",
        "trustedissuer.spec.issuer.url",
        "trustedissuer.spec.issuer.audiences",
        "trustedissuer.spec.issuer.discoveryURL",
        "trustedissuer.spec.issuer.jwksURL",
        "trustedissuer.spec.issuer.jwks",
        "trustedissuer.spec.issuer.certificateAuthority",
        "trustedissuer.spec.issuer.allowedNetworks",
        "trustedissuer.spec.issuer.signingAlgorithms",
        "trustedissuer.spec.issuer.keysMaxAgeSeconds",
        "trustedissuer.spec.claimValidationRules.expression",
        "trustedissuer.spec.claimMappings.username.claim",
        "trustedissuer.spec.claimMappings.username.prefix",
        "trustedissuer.spec.claimMappings.groups",
        "trustedissuer.status.conditions",
        "trustedissuer.status.keysFetchedAt",
        "trustedissuer.status.keys",
    ] {
        let text = world.explained(path);
        let description = text.split("DESCRIPTION:").nth(1).unwrap_or_else(|| panic!("{path}: {text}"));
        assert!(!description.contains("<empty>") && description.trim().len() > 25, "{path}: {text}");
    }
    let mut jwk = Key::new().jwk();
    (jwk["kid"], jwk["alg"]) = (json!("k-1"), json!("EdDSA"));
    let keys = json!({"keys": [jwk]}).to_string();
    let name = world.namespace("listed");
    let mut object = issuer(&json!({"issuer": {"url": format!("https://{name}.example"), "audiences": [DOCS], "jwks": keys}}));
    object["metadata"]["name"] = json!(name);
    world.apply(&object).expect("accepted");
    world.kubectl().wait_for("default", &format!("trustedissuer/{name}"), "condition=Ready", PATIENCE).expect("Ready");
    for kind in ["trustedissuers", "trustedissuer", "ti", "countersign"] {
        let table = world.kubectl().run(&["get", kind]).expect(kind);
        let row = table.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{kind}: {table}"));
        assert!(row.contains("Workloads") && row.contains("True"), "{row}");
    }
    let table = world.kubectl().run(&["get", "ti", &name]).expect("a table");
    let head: Vec<&str> = table.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(head, ["NAME", "PROVIDES", "ISSUER", "READY", "REASON", "KEYS", "AGE"]);
    let status = world.kubectl().get_json(&["get", "ti", &name]).expect("the issuer")["status"].clone();
    assert_eq!(status["keys"], json!(["k-1"]));
    assert_eq!(status["observedGeneration"], 1);
}
