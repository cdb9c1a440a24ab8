//! Admission of TrustedIssuers: who may say whose word counts, who may take that back, and who is said to have done it. Each rule is
//! tried on a cluster with MutatingAdmissionPolicy and on one without.

use crate::key_agents::Key;
use crate::office::{create, invalid};
use crate::support::kubectl::Kubectl;
use crate::world::{CHANGED_BY, DOCS, PATIENCE, Stamp, World, forbidden, stamped, user, wait_until, with_members};
use serde_json::{Value, json};

const REFUSED: &str = "it needs verb grant on all capabilities.countersign.dev in the whole cluster";

/// People who may write TrustedIssuers, none of whom any other test knows: `boss` may grant everything everywhere, `writer` nothing,
/// `local` everything in some namespaces, and `named` one capability everywhere.
struct Bureau {
    world: &'static World,
    stamp: Stamp,
    /// Begins every name in it.
    prefix: String,
}

/// Runs `test` on both kinds of clusters.
fn both_ways(purpose: &str, test: impl Fn(&Bureau)) {
    for (world, stamp) in World::both() {
        let bureau = Bureau { world, stamp, prefix: world.namespace(purpose) };
        let prefix = &bureau.prefix;
        let subject = |who: &str| user(&bureau.called(who));
        let rules = json!([{"apiGroups": ["countersign.dev"], "resources": ["trustedissuers", "trustedissuers/status"],
            "verbs": ["get", "list", "create", "update", "patch", "delete", "deletecollection"]}]);
        let all = ["boss", "writer", "local", "named"].map(subject);
        world.bind_everywhere(&format!("{prefix}-write"), &rules, &all);
        let grant = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "verbs": ["grant"]}]);
        world.bind_everywhere(&format!("{prefix}-grant"), &grant, &[subject("boss")]);
        // A namespace is not the cluster, not even the operator's.
        for namespace in [prefix.as_str(), "countersign-system", "default"] {
            world.bind(namespace, &format!("{prefix}-grant"), &grant, &[subject("local")]);
        }
        let one = json!([{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": ["a.read", "*"], "verbs": ["grant"]}]);
        world.bind_everywhere(&format!("{prefix}-one"), &one, &[subject("named")]);
        for (who, what) in [("boss", "capabilities.countersign.dev"), ("named", "capabilities.countersign.dev/a.read")] {
            wait_until("the right is seen", PATIENCE, || bureau.person(who).run(&["auth", "can-i", "grant", what]).is_ok());
        }
        test(&bureau);
    }
}

impl Bureau {
    fn called(&self, who: &str) -> String {
        format!("{}-{who}", self.prefix)
    }

    fn person(&self, who: &str) -> Kubectl {
        self.world.kubectl().impersonating(&self.called(who), &["system:authenticated"])
    }

    fn object(&self, who: &str, spec: &Value) -> Value {
        let mut jwk = Key::new().jwk();
        (jwk["kid"], jwk["alg"]) = (json!("k"), json!("EdDSA"));
        let jwks = json!({"keys": [jwk]}).to_string();
        let url = format!("https://{}.example", self.prefix);
        let usual = json!({"provides": "Workloads", "issuer": {"url": url, "audiences": [DOCS], "jwks": jwks}});
        let object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustedIssuer",
            "metadata": {"name": self.prefix}, "spec": with_members(usual, spec)});
        if self.stamp == Stamp::ByHand { stamped(object, &self.called(who)) } else { object }
    }

    fn create(&self, who: &str) -> Result<String, String> {
        create(&self.person(who), &self.object(who, &json!({})))
    }

    /// Merges `spec`, with the stamp of `who` where people write it.
    fn change(&self, who: &str, spec: &Value) -> Result<String, String> {
        let mut patch = json!({"spec": spec});
        if self.stamp == Stamp::ByHand {
            patch = stamped(patch, &self.called(who));
        }
        self.patch(who, &patch)
    }

    fn patch(&self, who: &str, patch: &Value) -> Result<String, String> {
        let arguments = ["patch", "trustedissuer", &self.prefix, "--type=merge", "-p", &patch.to_string()];
        self.person(who).run(&arguments).map_err(|f| f.stderr)
    }

    fn stored(&self) -> Value {
        self.world.kubectl().get_json(&["get", "trustedissuer", &self.prefix]).expect("the TrustedIssuer")
    }

    fn stamp(&self) -> Value {
        self.stored()["metadata"]["annotations"][CHANGED_BY].clone()
    }

    fn is_ready(&self) {
        let object = format!("trustedissuer/{}", self.prefix);
        self.world.kubectl().wait_for("default", &object, "condition=Ready", PATIENCE).expect("Ready");
    }
}

#[test]
fn saying_whose_word_counts_needs_grant_on_all_capabilities_in_the_whole_cluster() {
    both_ways("issuer", |bureau| {
        for who in ["writer", "local", "named"] {
            forbidden(bureau.create(who), REFUSED);
            // Suspended from the first it would only have to be resumed; but it is somebody's word that it is wanted.
            let object = bureau.object(who, &json!({"suspended": true}));
            forbidden(create(&bureau.person(who), &object), REFUSED);
        }
        let nobody = bureau.world.kubectl().impersonating(&bureau.called("nobody"), &["system:authenticated"]);
        forbidden(create(&nobody, &bureau.object("nobody", &json!({}))), "cannot create");
        bureau.create("boss").expect("the boss may");
        assert_eq!(bureau.stamp(), bureau.called("boss"));
        bureau.is_ready();
        let issuer = |changes: Value| json!({"issuer": changes});
        let changes = [
            json!({"provides": "Users", "claimMappings": {"username": {"claim": "sub"}}}),
            json!({"maxTokenLifetimeSeconds": 86_400}),
            json!({"maxTokenLifetimeSeconds": 60}),
            json!({"claimValidationRules": [{"expression": "true"}]}),
            issuer(json!({"url": "https://evil.example"})),
            issuer(json!({"audiences": [DOCS, "everybody"]})),
            issuer(json!({"audiences": ["everybody"]})),
            issuer(json!({"jwks": "{\"keys\":[]}"})),
            issuer(json!({"jwks": null, "jwksURL": "https://evil.example/keys"})),
            issuer(json!({"jwks": null, "jwksURL": null, "discoveryURL": "https://evil.example/"})),
            issuer(json!({"jwks": null, "discoveryURL": null})),
            issuer(json!({"allowedNetworks": ["10.0.0.0/8"]})),
            issuer(json!({"signingAlgorithms": ["RS256"]})),
            issuer(json!({"keysMaxAgeSeconds": 86_400})),
            issuer(json!({"certificateAuthority": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"})),
        ];
        let generation = bureau.stored()["metadata"]["generation"].clone();
        for (at, change) in changes.iter().enumerate() {
            for who in &["writer", "local", "named"][..if at % 5 == 0 { 3 } else { 1 }] {
                forbidden(bureau.change(who, change), REFUSED);
                // Not behind a suspension either, which he may set.
                forbidden(bureau.change(who, &with_members(change.clone(), &json!({"suspended": true}))), REFUSED);
            }
        }
        let object = bureau.object("writer", &json!({"maxTokenLifetimeSeconds": 86_400})).to_string();
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        for arguments in [&apply[..], &["replace", "-f", "-"], &["apply", "-f", "-"]] {
            forbidden(bureau.person("writer").run_with_input(arguments, &object).map_err(|f| f.stderr), REFUSED);
        }
        assert_eq!(
            (bureau.stored()["metadata"]["generation"].clone(), bureau.stamp()),
            (generation, json!(bureau.called("boss")))
        );
        for change in &changes[1..] {
            bureau.change("boss", change).expect("the boss may");
        }
    });
}

#[test]
fn suspending_and_deleting_need_no_grant_but_resuming_does() {
    both_ways("issuer-suspended", |bureau| {
        bureau.create("boss").expect("the boss may");
        bureau.is_ready();
        bureau.change("writer", &json!({"suspended": true})).expect("anyone who may write it may stop it");
        assert_eq!(bureau.stamp(), bureau.called("writer"));
        let stopped = ["wait", "--for=condition=Ready=False", "--timeout=30s", &format!("trustedissuer/{}", bureau.prefix)];
        bureau.world.kubectl().run(&stopped).expect("it is stopped");
        for change in [json!({"suspended": false}), json!({"suspended": null}), json!({"maxTokenLifetimeSeconds": 60})] {
            for who in ["writer", "local", "named"] {
                forbidden(bureau.change(who, &change), REFUSED);
            }
        }
        // What it says when it is resumed cannot be changed while it is not looked at.
        forbidden(bureau.change("writer", &json!({"suspended": true, "issuer": {"audiences": ["everybody"]}})), REFUSED);
        bureau.change("boss", &json!({"suspended": false})).expect("the boss may");
        bureau.is_ready();
        for arguments in
            [&["delete", "trustedissuer", &bureau.prefix][..], &["delete", "trustedissuer", &bureau.prefix, "--ignore-not-found"]]
        {
            bureau.person("writer").run(arguments).expect("anyone who may delete it may");
        }
        forbidden(bureau.create("writer"), REFUSED);
        wait_until("its life is recorded", PATIENCE, || {
            let records = bureau.world.operator.audit_lines().expect("the audit log");
            records.iter().any(|r| r["trusted_issuer"] == bureau.prefix.as_str() && r["event"] == "trusted_issuer.deleted")
        });
        let records = bureau.world.operator.audit_lines().expect("the audit log");
        let of =
            |event: &str| records.iter().filter(|r| r["trusted_issuer"] == bureau.prefix.as_str() && r["event"] == event).count();
        assert!(of("trusted_issuer.changed") >= 1 && of("trusted_issuer.suspended") >= 1, "made, stopped and resumed");
        let suspended =
            records.iter().find(|r| r["trusted_issuer"] == bureau.prefix.as_str() && r["event"] == "trusted_issuer.suspended");
        assert_eq!(suspended.expect("a record")["changed_by"], bureau.called("writer"));
    });
}

#[test]
fn the_stamp_names_who_said_it_and_cannot_be_forged() {
    both_ways("issuer-stamp", |bureau| {
        bureau.create("boss").expect("the boss may");
        let boss = json!(bureau.called("boss"));
        let forged = json!({"metadata": {"annotations": {CHANGED_BY: boss}}, "spec": {"suspended": true}});
        match (bureau.stamp, bureau.patch("writer", &forged)) {
            (Stamp::ByPolicy, Ok(_)) => assert_eq!(bureau.stamp(), bureau.called("writer"), "the forged stamp was overwritten"),
            (Stamp::ByHand, refused) => forbidden(refused, &format!("must be \"{}\"", bureau.called("writer"))),
            (Stamp::ByPolicy, Err(error)) => panic!("{error}"),
        }
        bureau.change("boss", &json!({"suspended": false, "maxTokenLifetimeSeconds": 120})).expect("the boss may");
        for stamp in [json!(bureau.called("writer")), json!(null), json!("")] {
            match (bureau.stamp, bureau.patch("writer", &json!({"metadata": {"annotations": {CHANGED_BY: stamp}}}))) {
                (Stamp::ByPolicy, Ok(_)) => {}
                (Stamp::ByHand, refused) => forbidden(refused, "leave it as it is"),
                (Stamp::ByPolicy, Err(error)) => panic!("{error}"),
            }
            assert_eq!(bureau.stamp(), boss, "who wrote the spec stays known");
        }
        bureau.patch("writer", &json!({"metadata": {"labels": {"team": "x"}}})).expect("labelling needs no grant and no stamp");
        assert_eq!(bureau.stamp(), boss);
    });
}

#[test]
fn the_status_of_an_issuer_is_written_by_the_operator_alone() {
    both_ways("issuer-status", |bureau| {
        bureau.create("boss").expect("the boss may");
        bureau.is_ready();
        let generation = bureau.stored()["metadata"]["generation"].clone();
        let admitted = json!([{"type": "Admitted", "status": "True", "reason": "Forged", "message": "", "observedGeneration": generation,
            "lastTransitionTime": "2026-11-24T00:00:00Z"}]);
        for who in ["boss", "writer"] {
            for status in [json!({"conditions": admitted}), json!({"conditions": []}), json!({"keys": ["x"]}), json!(null)] {
                let patch = json!({"status": status}).to_string();
                let arguments = ["patch", "trustedissuer", &bureau.prefix, "--subresource=status", "--type=merge", "-p", &patch];
                let result = bureau.person(who).run(&arguments).map_err(|f| f.stderr);
                match status {
                    // Nobody can, because the counts in it only grow.
                    Value::Null => invalid(result, "usersEpoch only grows"),
                    _ => forbidden(result, "of the status of trustedissuers people write 'revoke' only"),
                }
            }
        }
        bureau.patch("writer", &json!({"status": {"keys": ["x"]}})).expect("the main resource ignores status");
        assert_eq!(bureau.stored()["status"]["keys"], json!(["k"]));
        let mut forged = bureau.object("boss", &json!({}));
        (forged["metadata"]["name"], forged["spec"]["issuer"]["url"]) =
            (json!(format!("{}-2", bureau.prefix)), json!("https://two.example"));
        forged["status"] = json!({"conditions": admitted, "keys": ["x"]});
        create(&bureau.person("boss"), &forged).expect("the boss may");
        let name = format!("trustedissuer/{}-2", bureau.prefix);
        let admitted = ["wait", "--for=jsonpath={.status.observedGeneration}=1", "--timeout=30s", &name];
        bureau.world.kubectl().run(&admitted).expect("judged");
        let stored = bureau.world.kubectl().get_json(&["get", "trustedissuer", &format!("{}-2", bureau.prefix)]).expect("stored");
        assert_eq!(stored["status"]["keys"], json!(["k"]));
        assert!(!stored["status"].to_string().contains("Forged"), "{}", stored["status"]);
    });
}
