use super::*;
use crate::crd::SigningAlgorithm::{ES256, EdDSA};
use crate::identity::jws::Unverified;
use crate::public_key::PublicKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde_json::{Value, json};

/// As earlier versions made it.
fn old_pem() -> String {
    ed25519_dalek::SigningKey::from_bytes(&[7; 32]).to_pkcs8_pem(LineEnding::LF).expect("PEM").to_string()
}

fn kids(ring: &KeyRing) -> Vec<&str> {
    ring.keys().map(SigningKey::kid).collect()
}

#[test]
fn j18_every_key_signs_what_its_published_half_verifies_and_no_other() {
    let (ring, others) = (KeyRing::generate(5).expect("keys"), KeyRing::generate(5).expect("keys"));
    assert_eq!(ring.slots(), SigningAlgorithm::ALL.map(|algorithm| Slot { algorithm, active_from: 5 }));
    let published: Value = serde_json::to_value(ring.jwks()).expect("JSON");
    for (key, jwk) in ring.keys().zip(published["keys"].as_array().expect("keys")) {
        let token = key.sign("at+jwt", &json!({"a": 1})).expect("a token");
        let parts: Vec<&str> = token.split('.').collect();
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).expect("base64url")).expect("JSON");
        let algorithm = key.slot().algorithm.as_str();
        assert_eq!(header, json!({"alg": algorithm, "kid": key.kid(), "typ": "at+jwt"}));
        assert_eq!((&jwk["alg"], &jwk["kid"], &jwk["use"]), (&json!(algorithm), &json!(key.kid()), &json!("sig")));
        assert!(jwk.get("d").is_none(), "only the public half");
        // As somebody else reads the published key.
        let theirs: Jwk = serde_json::from_value(jwk.clone()).expect("a JWK");
        assert_eq!(theirs.thumbprint(ThumbprintHash::SHA256).as_deref(), Ok(key.kid()));
        let (signed, signature) = token.rsplit_once('.').expect("a JWS");
        let read = DecodingKey::from_jwk(&theirs).expect("a key");
        let algorithm = key.verifier().algorithm();
        assert_eq!(jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &read, algorithm), Ok(true));
        let verify = |key: &PublicKey| Unverified::parse(&token).expect("JWS").verify(key);
        assert!(verify(key.verifier()).is_ok());
        for other in ring.keys().chain(others.keys()).filter(|other| other.kid() != key.kid()) {
            assert!(verify(other.verifier()).is_err());
        }
        // RFC 7518 section 3.4: two numbers of fixed length, no DER.
        assert_eq!(URL_SAFE_NO_PAD.decode(parts[2]).expect("base64url").len(), 64);
    }
}

#[test]
fn a_ring_is_read_back_as_it_was_written() {
    let first = KeyRing::generate(100).expect("keys");
    let ring = first.begun(10, 200).expect("keys").expect("a next key");
    let again = KeyRing::from_json(&ring.to_json().expect("JSON")).expect("a ring");
    assert_eq!((kids(&again), again.slots()), (kids(&ring), ring.slots()));
    assert!(again.begun(10, 200).expect("keys").is_none());
    // Whatever the order in which they are stored.
    let mut stored: Vec<Value> = serde_json::from_slice(&ring.to_json().expect("JSON")).expect("a list");
    stored.reverse();
    let again = KeyRing::from_json(&serde_json::to_vec(&stored).expect("JSON")).expect("a ring");
    assert_eq!(kids(&again), kids(&ring));
    for (now, ring) in [(200, &first), (209, &first), (210, &ring)] {
        let last = ring.keys().filter(|key| key.slot().algorithm == ES256).last().expect("a key");
        assert_eq!(again.signer(ES256, now).map(SigningKey::kid), Some(last.kid()), "{now}");
    }
}

#[test]
fn the_key_of_earlier_versions_is_the_first_of_the_ring() {
    let ring = KeyRing::of_one(old_pem()).expect("a ring");
    assert_eq!(ring.slots(), [Slot { algorithm: EdDSA, active_from: 0 }]);
    assert!(!ring.is_complete());
    let policy = RotationPolicy::new(100, 10).expect("a policy");
    let rotated = ring.rotated(policy, 1000).expect("keys").expect("ES256 is missing, and the old key is old");
    assert!(rotated.is_complete());
    assert_eq!(rotated.signer(EdDSA, 1000).map(SigningKey::kid), Some(kids(&ring)[0]), "it still signs");
    assert_eq!(
        rotated.slots()[1..],
        [Slot { algorithm: EdDSA, active_from: 1010 }, Slot { algorithm: ES256, active_from: 1000 }]
    );
    for bad in ["", "garbage", &old_pem().replace("PRIVATE KEY", "PUBLIC KEY"), &old_pem().replace('M', "N")] {
        assert_eq!(KeyRing::of_one(bad.to_owned()).err(), Some(KeyError::Malformed { number: 1, algorithm: EdDSA }), "{bad}");
    }
}

#[test]
fn a_list_that_is_not_whole_is_refused_and_nothing_of_it_repeated() {
    let stored: Value = serde_json::from_slice(&KeyRing::generate(5).expect("keys").to_json().expect("JSON")).expect("JSON");
    let with = |pointer: &str, value: Value| {
        let mut stored = stored.clone();
        *stored.pointer_mut(pointer).expect("a member") = value;
        stored.to_string()
    };
    let malformed = |number, algorithm| KeyError::Malformed { number, algorithm };
    let eddsa = stored[0]["pem"].clone();
    for (text, error) in [
        (with("/1/pem", json!("garbage")), malformed(2, ES256)),
        (with("/0/alg", json!("ES256")), malformed(1, ES256)),
        (with("/1/pem", eddsa), malformed(2, ES256)),
        (json!([stored[0], stored[1], stored[1]]).to_string(), KeyError::Twice(String::new())),
    ] {
        let found = KeyRing::from_json(text.as_bytes()).expect_err("it was accepted");
        assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&error), "{found}");
        assert!(matches!(found, KeyError::Twice(_)) || found == error, "{found}");
    }
    let secret = "a-secret-that-nobody-may-see";
    let mut member = stored.clone();
    member[0]["kid"] = json!(secret);
    for text in [
        String::new(),
        "{}".to_owned(),
        json!([{}]).to_string(),
        json!(secret).to_string(),
        json!([secret]).to_string(),
        with("/0/alg", json!(secret)),
        with("/0/alg", json!("HS256")),
        with("/0/active_from", json!(secret)),
        with("/0/active_from", json!(-1)),
        with("/0/pem", json!([secret])),
        member.to_string(),
        stored.to_string().replacen("\"alg\":", "\"alg\":\"EdDSA\",\"alg\":", 1),
    ] {
        let error = KeyRing::from_json(text.as_bytes()).expect_err("it was accepted");
        assert!(matches!(error, KeyError::List { .. }), "{text}: {error}");
        assert!(!error.to_string().contains(secret), "{error}");
    }
    assert_eq!(KeyRing::from_json(b"[]").expect("no key is a list").slots(), []);
}
