//! Assertions that are not what they say, sent to the running service: their form and their keys. Whatever is wrong, the answer is the same,
//! and the record says what it was. Group J of the catalogue of attacks, for agents with keys of their own.

use crate::key_agents::{Key, KeyAgent, header, signing_input};
use crate::support::trap::Trap;
use crate::world::World;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as B64};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FORGED: &str = "credential_malformed_or_forged";
const UNKNOWN: &str = "credential_key_unknown";
const CLAIM: &str = "credential_claim_refused";

/// Makes the text to send, anew each time.
type Maker<'a> = Box<dyn Fn() -> String + 'a>;

/// `object` with a member before its others, as text: JSON says nothing of one that occurs twice.
pub fn twice(object: &Value, member: &str) -> String {
    format!("{{{member},{}", &object.to_string()[1..])
}

/// A token of these two texts, signed by the agent.
pub fn of_texts(agent: &KeyAgent<'_>, header: &str, claims: &str) -> String {
    agent.key.sign_text(&format!("{}.{}", B64.encode(header), B64.encode(claims)))
}

#[test]
fn j1_an_unsigned_assertion_proves_nothing() {
    let agent = World::shared().key_agent("j1");
    for alg in ["none", "None", "nOnE", "NONE", ""] {
        let unsigned = || signing_input(&json!({"alg": alg, "kid": agent.key.thumbprint()}), &agent.claims());
        agent.refuses(FORGED, || format!("{}.", unsigned()));
        agent.refuses(FORGED, || format!("{}.AA", unsigned()));
        // Signed all the same.
        agent.refuses(FORGED, || agent.key.sign_text(&unsigned()));
    }
    let cut = |assertion: String, keep: usize| {
        let at = assertion.rfind('.').expect("a signature") + 1;
        assertion[..at + keep].to_owned()
    };
    for keep in [0, 1, 2, 84] {
        agent.refuses(FORGED, || cut(agent.assertion(), keep));
    }
    for bytes in [32, 64] {
        agent.refuses_everywhere(FORGED, || cut(agent.assertion(), 0) + &B64.encode(vec![0; bytes]));
    }
    agent.refuses(FORGED, || of_texts(&agent, "{}", &agent.claims().to_string()));
    agent.obtain().expect(200);
}

#[test]
fn j2_no_public_key_is_a_shared_secret() {
    let agent = World::shared().key_agent("j2");
    let jwks = agent.http.get(format!("{}/oauth2/jwks", agent.operator.url())).send().expect("an answer").text().expect("text");
    let parsed: Value = serde_json::from_str(&jwks).expect("JSON");
    let ours = parsed["keys"].as_array().expect("keys").iter().find(|key| key["kty"] == "OKP").expect("a key").clone();
    let raw = B64.decode(ours["x"].as_str().expect("x")).expect("base64url");
    let public = [
        agent.key.bytes().to_vec(),
        agent.key.der(),
        agent.key.pem().into_bytes(),
        agent.key.pem().trim_end().as_bytes().to_vec(),
        agent.key.jwk().to_string().into_bytes(),
        agent.key.jwk()["x"].as_str().expect("x").as_bytes().to_vec(),
        STANDARD.encode(agent.key.bytes()).into_bytes(),
        agent.key.thumbprint().into_bytes(),
        raw.clone(),
        [&agent.key.der()[..12], &raw].concat(),
        jwks.into_bytes(),
        ours.to_string().into_bytes(),
        ours["kid"].as_str().expect("kid").as_bytes().to_vec(),
        Vec::new(),
    ];
    for secret in public {
        for (name, algorithm) in [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
            let mac = |header: &Value, algorithm| {
                let signed = signing_input(header, &agent.claims());
                let mac = jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(&secret), algorithm);
                format!("{signed}.{}", mac.expect("a MAC"))
            };
            agent.refuses(FORGED, || mac(&json!({"alg": name, "kid": agent.key.thumbprint()}), algorithm));
            // The MAC where a signature should be: HS512 is as long as one.
            let reply = agent.ask(&mac(&header(), algorithm));
            assert_eq!((reply.status, agent.record(&reply)["reason"].as_str()), (401, Some(FORGED)));
        }
    }
}

#[test]
fn j3_a_key_of_an_agent_serves_one_algorithm() {
    let agent = World::shared().key_agent("j3");
    for alg in [
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "Ed448",
        "eddsa",
        "EDDSA",
        "ed25519",
        "EdDSA ",
        "ML-DSA-44",
        "RSA-OAEP",
    ] {
        agent.refuses(FORGED, || agent.assertion_under(&json!({"alg": alg})));
        agent.refuses(FORGED, || agent.assertion_under(&json!({"alg": alg, "kid": agent.key.thumbprint()})));
    }
    for alg in [Value::Null, json!(7), json!(["EdDSA"]), json!({"EdDSA": 1})] {
        agent.refuses(FORGED, || agent.assertion_under(&json!({"alg": alg})));
    }
    // Rightly signed, with another kind of key.
    let [p256, rsa] = [
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    ]
    .map(|args| {
        String::from_utf8(std::process::Command::new("openssl").args(args).output().expect("openssl").stdout).expect("PEM")
    });
    let keys = [
        (EncodingKey::from_ec_pem(p256.as_bytes()).expect("a key"), Algorithm::ES256, "ES256"),
        (EncodingKey::from_rsa_pem(rsa.as_bytes()).expect("a key"), Algorithm::RS256, "RS256"),
    ];
    for (key, algorithm, alg) in keys {
        for alg in [alg, "EdDSA"] {
            agent.refuses(FORGED, || {
                let signed = signing_input(&json!({"alg": alg}), &agent.claims());
                format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).expect("a signature"))
            });
        }
    }
}

#[test]
fn j4_a_key_that_comes_with_an_assertion_is_not_used() {
    let agent = World::shared().key_agent("j4");
    let attacker = agent.with(&Arc::new(Key::new()));
    let (jwk, thumbprint) = (attacker.key.jwk(), attacker.key.thumbprint());
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jwk", json!(jwk.to_string())),
        ("x5c", json!([STANDARD.encode(attacker.key.der())])),
        ("jwks", json!({"keys": [jwk]})),
        ("cnf", json!({"jwk": jwk})),
        ("jkt", json!(thumbprint)),
    ] {
        let mut header = header();
        header[name] = value;
        attacker.refuses(FORGED, || attacker.assertion_under(&header));
        header["kid"] = json!(thumbprint);
        attacker.refuses(FORGED, || attacker.assertion_under(&header));
    }
    attacker.refuses_everywhere(UNKNOWN, || attacker.assertion_under(&json!({"alg": "EdDSA", "kid": thumbprint})));
    attacker.refuses_everywhere(FORGED, || attacker.assertion());
    let named = json!({"alg": "EdDSA", "kid": agent.key.thumbprint()});
    attacker.refuses(FORGED, || attacker.assertion_under(&named));
    // In the claims it is nothing.
    let claims = json!({"jwk": jwk, "sub_jwk": jwk, "cnf": {"jwk": jwk}, "jwks": {"keys": [jwk]}});
    attacker.refuses(FORGED, || attacker.assertion_with(&claims));
    agent.ask(&agent.assertion_with(&claims)).expect(200);
    agent.ask(&agent.assertion_under(&named)).expect(200);
}

#[test]
fn j5_nothing_that_an_assertion_names_is_fetched() {
    let agent = World::shared().key_agent("j5");
    let trap = Trap::set().expect("a port");
    let attacker = agent.with(&Arc::new(Key::new()));
    for scheme in ["https", "http"] {
        let url = format!("{scheme}://{}/jwks", trap.address());
        for target in [url.as_str(), "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "//127.0.0.1/x"] {
            for member in ["jku", "x5u"] {
                for signer in [&agent, &attacker] {
                    let mut header = header();
                    header[member] = json!(target);
                    signer.refuses(FORGED, || signer.assertion_under(&header));
                }
            }
            let kid = json!({"alg": "EdDSA", "kid": target});
            agent.refuses(UNKNOWN, || agent.assertion_under(&kid));
            // What is known as an agent is compared, anything else is an issuer that nobody trusts, and none is visited.
            agent.refuses("credential_issuer_unknown", || agent.assertion_with(&json!({"iss": target, "sub": target})));
            agent.refuses(CLAIM, || agent.assertion_with(&json!({"sub": target})));
            agent.ask(&agent.assertion_with(&json!({"jku": target, "jwks_uri": target}))).expect(200);
            // Who acts for whom is nobody's to say but ours (X6).
            agent.refuses(CLAIM, || agent.assertion_with(&json!({"act": {"iss": target, "sub": "x"}})));
            let form =
                [("grant_type", "client_credentials"), ("client_id", target), ("request_uri", target), ("jwks_uri", target)];
            agent.call("/oauth2/token", &form).refused(401, "invalid_client");
        }
    }
    assert_eq!(trap.caught().expect("the trap"), [""; 0], "the operator connected to an address from an assertion");
}

#[test]
fn j6_a_kid_is_a_name_and_nothing_more() {
    let world = World::shared();
    let [agent, other] = ["j6", "j6-other"].map(|purpose| world.key_agent(purpose));
    let long = "k".repeat(4096);
    for (kid, reason) in [
        (json!("../../dev/null"), UNKNOWN),
        (json!("'OR/**/1=1--"), UNKNOWN),
        (json!("${jndi:ldap://127.0.0.1/a}"), UNKNOWN),
        (json!(other.key.thumbprint()), UNKNOWN),
        (json!(agent.key.thumbprint().to_lowercase()), UNKNOWN),
        (json!("*"), UNKNOWN),
        (json!("k".repeat(128)), UNKNOWN),
        (json!("k".repeat(129)), FORGED),
        (json!(long), FORGED),
        (json!("' OR 1=1--"), FORGED),
        (json!("a\0b"), FORGED),
        (json!("a\r\nSet-Cookie: x"), FORGED),
        (json!("a\u{202e}b"), FORGED),
        (json!("\u{e9}"), FORGED),
        (json!(""), FORGED),
        (json!(format!("{} ", agent.key.thumbprint())), FORGED),
        (json!(7), FORGED),
        (json!([agent.key.thumbprint()]), FORGED),
        (Value::Null, FORGED),
    ] {
        agent.refuses(reason, || agent.assertion_under(&json!({"alg": "EdDSA", "kid": kid})));
    }
    let records = agent.operator.audit_text().expect("the audit log");
    assert!(!records.contains(&long) && !agent.operator.process().log().contains(&long), "a long kid is kept");
    // A kid is looked up among the agent's own keys: that of another opens nothing, whoever signs.
    let forged = other.key.sign(&json!({"alg": "EdDSA", "kid": other.key.thumbprint()}), &agent.claims());
    agent.refuses_everywhere(UNKNOWN, || forged.clone());
}

#[test]
fn j9_an_assertion_that_says_two_things_is_refused() {
    let agent = World::shared().key_agent("j9");
    let subject = agent.subject();
    for (member, in_header) in [
        (r#""alg":"none""#.to_owned(), true),
        (r#""alg":"EdDSA""#.to_owned(), true),
        (r#""\u0061lg":"EdDSA""#.to_owned(), true),
        (format!(r#""sub":"{subject}""#), false),
        (r#""sub":"agent:a/b""#.to_owned(), false),
        (r#""\u0073ub":"agent:a/b""#.to_owned(), false),
        (format!(r#""iss":"{subject}""#), false),
        (r#""i\u0073s":"agent:a/b""#.to_owned(), false),
        (format!(r#""aud":"{}""#, agent.operator.issuer()), false),
        (r#""exp":9999999999"#.to_owned(), false),
        (r#""jti":"twice""#.to_owned(), false),
        (r#""x":{"y":[{"z":1,"\u007a":2}]}"#.to_owned(), false),
    ] {
        agent.refuses(FORGED, || match in_header {
            true => of_texts(&agent, &twice(&header(), &member), &agent.claims().to_string()),
            false => of_texts(&agent, &header().to_string(), &twice(&agent.claims(), &member)),
        });
    }
    for (header, tail) in [
        (format!("{} ", header()), ""),
        (format!("\u{feff}{}", header()), "x"),
        (header().to_string(), " 1"),
        (header().to_string(), "{}"),
        (header().to_string(), "\u{0}"),
    ] {
        let claims = || format!("{}{tail}", agent.claims());
        match tail {
            // White space is JSON.
            "" => _ = agent.ask(&of_texts(&agent, &header, &claims())).expect(200),
            _ => agent.refuses(FORGED, || of_texts(&agent, &header, &claims())),
        }
    }
    for claims in ["[]", "\"agent\"", "null", "7", ""] {
        agent.refuses(FORGED, || of_texts(&agent, &header().to_string(), claims));
    }
    let deep = |levels: usize| format!("\"x\":{}1{}", "[".repeat(levels), "]".repeat(levels));
    agent.refuses(FORGED, || of_texts(&agent, &header().to_string(), &twice(&agent.claims(), &deep(1000))));
}

#[test]
fn j13_only_a_compact_signed_jwt_is_looked_at() {
    let agent = World::shared().key_agent("j13");
    let split = |assertion: &str| assertion.split('.').map(str::to_owned).collect::<Vec<_>>();
    let flattened = || {
        let parts = split(&agent.assertion());
        json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string()
    };
    let general = || {
        let parts = split(&agent.assertion());
        json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]}).to_string()
    };
    let encrypted = |header: Value| format!("{}.a.b.c.d", B64.encode(header.to_string()));
    let under = |name: &str, value: Value| {
        let mut header = header();
        header[name] = value;
        agent.assertion_under(&header)
    };
    // A second of zeros, deflated: 15 bytes that become a mebibyte. Nobody inflates them.
    let bomb = [&[0x78, 0x9c][..], &[0xed, 0xc1, 0x01, 0x01, 0, 0, 0, 0x80, 0x90, 0xfe, 0xaf, 0xee, 0x08], &[0; 1000]].concat();
    let all: [(&str, Maker<'_>); 18] = [
        ("flattened", Box::new(flattened)),
        ("general", Box::new(general)),
        (
            "PBES2",
            Box::new(|| encrypted(json!({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2s": "AA", "p2c": 2_147_483_647}))),
        ),
        ("dir", Box::new(|| encrypted(json!({"alg": "dir", "enc": "A128CBC-HS256", "zip": "DEF"})))),
        ("RSA1_5", Box::new(|| encrypted(json!({"alg": "RSA1_5", "enc": "A128GCM"})))),
        ("zip", Box::new(|| under("zip", json!("DEF")))),
        (
            "a bomb",
            Box::new(|| agent.key.sign_text(&format!("{}.{}", B64.encode(r#"{"alg":"EdDSA","zip":"DEF"}"#), B64.encode(&bomb)))),
        ),
        ("p2c", Box::new(|| under("p2c", json!(2_147_483_647)))),
        ("enc", Box::new(|| under("enc", json!("A128GCM")))),
        ("crit", Box::new(|| under("crit", json!(["exp"])))),
        ("an empty crit", Box::new(|| under("crit", json!([])))),
        ("b64", Box::new(|| under("b64", json!(false)))),
        ("nested", Box::new(|| under("cty", json!("JWT")))),
        (
            "nested in the payload",
            Box::new(|| agent.key.sign_text(&format!("{}.{}", B64.encode(header().to_string()), B64.encode(agent.assertion())))),
        ),
        ("four parts", Box::new(|| format!("{}.{}", agent.assertion(), B64.encode("x")))),
        ("two signatures", Box::new(|| format!("{}~{}", agent.assertion(), agent.assertion()))),
        ("a scheme", Box::new(|| format!("Bearer {}", agent.assertion()))),
        ("too long", Box::new(|| agent.assertion_with(&json!({"x": "x".repeat(6200)})))),
    ];
    for (name, make) in all {
        let begun = Instant::now();
        agent.refuses(FORGED, make);
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
    }
    agent.ask(&agent.assertion_with(&json!({"x": "x".repeat(5400)}))).expect(200);
}
