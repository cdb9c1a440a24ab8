//! Documents that are wrong, each in one way, and each such that a careless reader would take from it the keys that are right.

use serde_json::{Value, json};

use super::behaviour::Behaviour;

/// Key sets that must not be used, by what is wrong with them.
pub fn key_sets() -> Vec<(&'static str, Behaviour)> {
    let each_key = |change: fn(&mut Value)| {
        Behaviour::altered(move |mut set| {
            for key in keys(&mut set) {
                change(key);
            }
            set
        })
    };
    vec![
        ("10,000 keys", Behaviour::altered(|set| many_keys(set, 10_000))),
        ("33 keys", Behaviour::altered(|set| many_keys(set, 33))),
        ("a private member d", each_key(|key| key["d"] = json!("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"))),
        ("each kid twice, the right key first", Behaviour::altered(|set| twice(set, true))),
        ("each kid twice, the right key last", Behaviour::altered(|set| twice(set, false))),
        ("keys for encryption", each_key(|key| key["use"] = json!("enc"))),
        ("keys for operations other than verifying", each_key(|key| key["key_ops"] = json!(["encrypt"]))),
        ("symmetric keys", each_key(|key| *key = json!({"kty": "oct", "kid": key["kid"], "k": "c2VjcmV0", "alg": "HS256"}))),
        ("keys for another algorithm", each_key(|key| key["alg"] = json!("PS512"))),
        ("no keys", Behaviour::Text(r#"{"keys":[]}"#.to_owned())),
        ("keys that are no list", Behaviour::altered(|set| json!({"keys": {"0": set["keys"][0]}}))),
        ("a list and no object", Behaviour::altered(|set| set["keys"].clone())),
        ("nothing", Behaviour::Text(String::new())),
        ("no JSON", Behaviour::Text("<html>sign in</html>".to_owned())),
        ("two documents", Behaviour::Text(r#"{"keys":[]} {"keys":[]}"#.to_owned())),
        ("members that occur twice", Behaviour::Text(r#"{"keys":[],"keys":[]}"#.to_owned())),
        ("deep nesting", Behaviour::Text(format!("{{\"keys\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000)))),
    ]
}

/// Discovery documents that must not be used, by what is wrong with them. `elsewhere` is an origin that nobody must visit:
/// `https://host:port`.
pub fn discoveries(elsewhere: &str) -> Vec<(&'static str, Behaviour)> {
    let with = |member: &'static str, value: Value| {
        Behaviour::altered(move |mut document| {
            document[member] = value.clone();
            document
        })
    };
    let append = |member: &'static str, suffix: &'static str| {
        Behaviour::altered(move |mut document| {
            document[member] = json!(format!("{}{suffix}", document[member].as_str().unwrap_or_default()));
            document
        })
    };
    let without_tls = elsewhere.replace("https://", "http://");
    vec![
        ("another issuer", with("issuer", json!("https://issuer.example"))),
        ("the issuer with a slash", append("issuer", "/")),
        ("no issuer", with("issuer", Value::Null)),
        ("keys on another origin", with("jwks_uri", json!(format!("{elsewhere}/keys")))),
        ("keys without TLS", with("jwks_uri", json!(format!("{without_tls}/keys")))),
        ("keys in a file", with("jwks_uri", json!("file:///etc/passwd"))),
        ("keys at the metadata service", with("jwks_uri", json!("http://169.254.169.254/latest/meta-data/"))),
        ("no address of keys", with("jwks_uri", Value::Null)),
        ("a relative address of keys", with("jwks_uri", json!("/keys"))),
        ("no JSON", Behaviour::Text("<html>sign in</html>".to_owned())),
        ("members that occur twice", Behaviour::Text(format!(r#"{{"jwks_uri":"{elsewhere}/a","jwks_uri":"{elsewhere}/b"}}"#))),
        ("a redirect", Behaviour::Redirect(format!("{elsewhere}/redirected"))),
    ]
}

/// An error whose body holds `secret`, control characters, what moves a terminal's cursor, and 200 KiB.
pub fn error(secret: &str) -> Behaviour {
    let filling = "x".repeat(200 << 10);
    Behaviour::Status(500, format!("{secret}\r\nSet-Cookie: a=b\r\n\u{1b}[2J\u{1b}[31m\u{202e}{secret}\0{filling}{secret}"))
}

fn keys(set: &mut Value) -> impl Iterator<Item = &mut Value> {
    set.get_mut("keys").and_then(Value::as_array_mut).into_iter().flatten()
}

/// The right keys first, then copies of the last under other names.
fn many_keys(mut set: Value, count: usize) -> Value {
    if let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut)
        && let Some(last) = keys.last().cloned()
    {
        for number in keys.len()..count {
            let mut key = last.clone();
            key["kid"] = json!(format!("filling-{number}"));
            keys.push(key);
        }
    }
    set
}

/// Every kid twice, once with the right key and once with that of another kid.
fn twice(mut set: Value, right_first: bool) -> Value {
    if let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut) {
        let mut names: Vec<Value> = keys.iter().map(|key| key["kid"].clone()).collect();
        names.rotate_left(1);
        let mut wrong = keys.clone();
        for (key, name) in wrong.iter_mut().zip(names) {
            key["kid"] = name;
        }
        let at = if right_first { keys.len() } else { 0 };
        keys.splice(at..at, wrong);
    }
    set
}
