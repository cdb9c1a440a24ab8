use super::super::{Claim, ProofKey};
use super::*;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

const NOW: u64 = 1_000_000;
const URL: &str = "https://us/oauth2/token";
const HERE: Expected<'static> = Expected { method: "POST", url: URL, now: NOW };

static KEY: LazyLock<ProofKey> = LazyLock::new(|| ProofKey::generate().expect("a key"));

/// RFC 9449 section 4.1, figure 2.
const FIGURE: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";

/// A good proof with a header and claims that were changed: a member that becomes null is left out.
fn with(header: &Value, claims: &Value) -> String {
    let changed = |mut base: Value, change: &Value| {
        for (name, value) in change.as_object().expect("an object") {
            match value {
                Value::Null => _ = base.as_object_mut().expect("an object").remove(name),
                value => base[name] = value.clone(),
            }
        }
        base
    };
    let good = json!({"jti": "j1", "htm": "POST", "htu": URL, "iat": NOW});
    let plain = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk()});
    KEY.sign(&changed(plain, header), &changed(good, claims)).expect("signed")
}

fn good() -> String {
    with(&json!({}), &json!({}))
}

fn claims(change: &Value) -> Result<Proof, ProofError> {
    Proof::parse(&with(&json!({}), change), &HERE)
}

#[test]
fn the_proof_of_the_standard_is_good_for_its_endpoint_and_its_minute() {
    let at = |url, now| Proof::parse(FIGURE, &Expected { method: "POST", url, now });
    let proof = at("https://server.example.com/token", 1_562_262_616).expect("good");
    assert_eq!(proof.thumbprint(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    assert_eq!((proof.jti(), proof.nonce(), proof.issued_at()), ("-BwC3ESc6acc2lTc", None, 1_562_262_616));
    assert!(at("https://server.example.com/token", 1_562_262_616 + 66).is_err());
    assert!(at("https://server.example.com/tokens", 1_562_262_616).is_err());
}

#[test]
fn a_proof_that_we_make_is_one_that_we_take() {
    let claim = Claim { method: "POST", url: "https://us/oauth2/token?a#b", nonce: Some("n"), access_token: Some("t"), now: NOW };
    let proof = Proof::parse(&KEY.prove(&claim).expect("signed"), &HERE).expect("good");
    assert_eq!((proof.nonce(), proof.expires_at()), (Some("n"), NOW + 65));
    assert_eq!(proof.confirmation().jkt, Proof::parse(&good(), &HERE).expect("good").thumbprint(), "the same key");
    // RFC 9449 section 7.1, with the token of its figure 12.
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    let made = KEY.prove(&Claim { access_token: Some(token), ..claim }).expect("signed");
    let payload = URL_SAFE_NO_PAD.decode(made.split('.').nth(1).expect("claims")).expect("base64url");
    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(payload["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
}

#[test]
fn a_proof_is_for_one_method_url_and_minute() {
    for good in [
        json!({}),
        json!({"iat": NOW - 60}),
        json!({"iat": NOW - 65}),
        json!({"iat": NOW + 5}),
        json!({"exp": NOW + 1, "nbf": NOW}),
        json!({"htu": "https://US:443/oauth2/token?x=y"}),
        json!({"jti": "j".repeat(128)}),
        json!({"ath": "of another use"}),
        json!({"nonce": "n"}),
    ] {
        assert!(claims(&good).is_ok(), "{good}");
    }
    for bad in [
        json!({"htm": null}),
        json!({"htm": "GET"}),
        json!({"htm": "post"}),
        json!({"htm": ["POST"]}),
        json!({"htu": null}),
        json!({"htu": "https://us/oauth2/introspect"}),
        json!({"htu": "https://other/oauth2/token"}),
        json!({"htu": [URL]}),
        json!({"iat": null}),
        json!({"iat": NOW - 66}),
        json!({"iat": NOW + 6}),
        json!({"iat": NOW.to_string()}),
        json!({"iat": 1_000_000.5}),
        json!({"iat": -1}),
        json!({"iat": u64::MAX}),
        json!({"exp": NOW - 5}),
        json!({"exp": "soon"}),
        json!({"nbf": NOW + 6}),
        json!({"nbf": -1}),
        json!({"jti": null}),
        json!({"jti": ""}),
        json!({"jti": 7}),
        json!({"jti": "j".repeat(129)}),
        json!({"jti": "a\u{0}"}),
        json!({"nonce": 7}),
        json!({"nonce": ["n"]}),
    ] {
        assert!(matches!(claims(&bad), Err(ProofError::Claim(_))), "{bad}");
    }
}

#[test]
fn j1_j2_j3_a_proof_is_signed_by_the_key_that_it_shows() {
    for alg in ["none", "None", "", "HS256", "PS256", "ES512", "es256"] {
        let proof = with(&json!({"alg": alg}), &json!({}));
        assert_eq!(Proof::parse(&proof, &HERE), Err(ProofError::Jws(JwsError::Algorithm)), "{alg}");
    }
    for alg in ["ES384", "RS256", "EdDSA"] {
        assert!(matches!(Proof::parse(&with(&json!({"alg": alg}), &json!({})), &HERE), Err(ProofError::Key(_))), "{alg}");
    }
    let other = ProofKey::generate().expect("a key");
    let forged = with(&json!({"jwk": other.jwk()}), &json!({}));
    assert_eq!(Proof::parse(&forged, &HERE), Err(ProofError::Jws(JwsError::Signature)));
    let mut private = KEY.jwk().clone();
    private["d"] = json!("AA");
    assert!(matches!(Proof::parse(&with(&json!({"jwk": private}), &json!({})), &HERE), Err(ProofError::Key(_))));
    for jwk in [json!(null), json!("x"), json!([]), json!({"keys": [KEY.jwk()]}), json!({})] {
        assert!(Proof::parse(&with(&json!({"jwk": jwk}), &json!({})), &HERE).is_err(), "{jwk}");
    }
    let unsigned = good();
    let (signed, _) = unsigned.rsplit_once('.').expect("three parts");
    assert!(Proof::parse(&format!("{signed}."), &HERE).is_err());
}

#[test]
fn j14_nothing_but_a_proof_is_a_proof() {
    for typ in [json!(null), json!("jwt"), json!("at+jwt"), json!("dpop"), json!("dpop+jwt "), json!("dpop-jwt"), json!(7)] {
        assert!(Proof::parse(&with(&json!({"typ": typ}), &json!({})), &HERE).is_err(), "{typ}");
    }
    for typ in ["DPoP+JWT", "application/dpop+jwt"] {
        assert!(Proof::parse(&with(&json!({"typ": typ}), &json!({})), &HERE).is_ok(), "{typ}");
    }
    assert!(Unverified::parse(&good()).is_err(), "and it is no other token");
}

#[test]
fn j5_j6_j13_a_header_has_nothing_that_is_not_understood() {
    for header in [
        json!({"crit": ["b64"]}),
        json!({"b64": false}),
        json!({"jku": "https://evil.example"}),
        json!({"x5u": "https://evil.example"}),
        json!({"x5c": ["MII"]}),
        json!({"zip": "DEF"}),
        json!({"nonce": "n"}),
    ] {
        assert_eq!(Proof::parse(&with(&header, &json!({})), &HERE), Err(ProofError::Jws(JwsError::Header)), "{header}");
    }
    let twice = |header: &str, claims: &str| {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        Proof::parse(&format!("{}.{}.c2ln", part(header), part(claims)), &HERE)
    };
    let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk()}).to_string();
    let again = header.replacen('{', &format!(r#"{{"jwk":{},"#, KEY.jwk()), 1);
    assert_eq!(twice(&again, "{}"), Err(ProofError::Jws(JwsError::Header)));
    assert_eq!(twice(&header, r#"{"jti":"a","jti":"b"}"#), Err(ProofError::Jws(JwsError::Payload)));
    assert_eq!(Proof::parse(&"a".repeat(9000), &HERE), Err(ProofError::Jws(JwsError::TooLong)));
}

#[test]
fn every_algorithm_that_is_announced_is_read() {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())});
    for alg in ALGORITHMS {
        let header = json!({"typ": "dpop+jwt", "alg": alg, "jwk": jwk});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&json!({"jti": "j", "htm": "POST", "htu": URL, "iat": NOW})));
        let proof = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())));
        let read = Proof::parse(&proof, &HERE);
        match alg {
            "EdDSA" | "Ed25519" => assert!(read.is_ok(), "{alg}: {read:?}"),
            _ => assert!(matches!(read, Err(ProofError::Key(_))), "{alg}: {read:?}"),
        }
    }
}

proptest! {
    /// J11: no proof becomes another one by the change of a character.
    #[test]
    fn j11_a_proof_of_which_a_character_was_changed_is_none(at in 0usize..10_000, other in "[A-Za-z0-9_.=-]") {
        let proof = good();
        let (before, behind) = proof.split_at(at % proof.len());
        prop_assume!(!behind.starts_with(&other));
        let changed = format!("{before}{other}{}", behind.get(1..).expect("ASCII"));
        prop_assert!(Proof::parse(&changed, &HERE).is_err(), "{changed}");
        prop_assert!(Proof::parse(before, &HERE).is_err());
        let longer = format!("{before}{other}{behind}");
        prop_assert!(Proof::parse(&longer, &HERE).is_err(), "{longer}");
    }

    #[test]
    fn no_text_is_read_with_a_panic(text in "\\PC{0,200}") {
        prop_assert!(Proof::parse(&text, &HERE).is_err());
    }
}
