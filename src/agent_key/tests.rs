use super::*;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

const WYCHEPROOF: &str = include_str!("../../tests/vectors/wycheproof_ed25519_test.json");
const RFC_8037: &str = include_str!("../../tests/vectors/rfc8037.json");
const RSA: &str = include_str!("../../tests/vectors/other_keys/rsa.pem");
const RSA_PKCS1: &str = include_str!("../../tests/vectors/other_keys/rsa_pkcs1.pem");
const P256: &str = include_str!("../../tests/vectors/other_keys/p256.pem");
const ED448: &str = include_str!("../../tests/vectors/other_keys/ed448.pem");
const X25519: &str = include_str!("../../tests/vectors/other_keys/x25519.pem");

/// Of the key in RFC 8037 appendix A.2.
const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
pub(super) const PEM: &str =
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
const THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

/// The group's order, little endian.
const L: [u8; 32] = hex32("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");

const fn hex32(text: &str) -> [u8; 32] {
    const fn nibble(c: u8) -> u8 {
        if c <= b'9' { c - b'0' } else { c - b'a' + 10 }
    }
    let (text, mut bytes, mut at) = (text.as_bytes(), [0; 32], 0);
    assert!(text.len() == 64);
    while at < 32 {
        bytes[at] = nibble(text[2 * at]) * 16 + nibble(text[2 * at + 1]);
        at += 1;
    }
    bytes
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("hex");
    text.as_bytes().chunks(2).map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).expect("a byte")).collect()
}

fn refusal(text: &str) -> AgentKeyError {
    AgentKey::parse(text).expect_err("accepted")
}

/// A JWK with the members `changes` beside or instead of those of a good one; null takes one away.
fn jwk(changes: &Value) -> String {
    let mut jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": X});
    for (name, value) in changes.as_object().expect("an object") {
        jwk[name] = value.clone();
    }
    jwk.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    jwk.to_string()
}

/// `bytes` as a key, once as PEM and once as JWK, which must agree.
fn parse_bytes(bytes: &[u8; 32]) -> Result<AgentKey, AgentKeyError> {
    let pem = AgentKey::parse(&pem::write("PUBLIC KEY", &[SPKI_PREFIX.as_slice(), bytes].concat()));
    assert_eq!(pem, AgentKey::parse(&jwk(&json!({"x": URL_SAFE_NO_PAD.encode(bytes)}))));
    pem
}

#[test]
fn every_case_of_wycheproof_comes_out_as_it_says() {
    let file: Value = serde_json::from_str(WYCHEPROOF).expect("JSON");
    let mut cases = 0;
    for group in file["testGroups"].as_array().expect("groups") {
        let key = AgentKey::parse(group["publicKeyPem"].as_str().expect("PEM")).expect("a key");
        assert_eq!(AgentKey::parse(&group["publicKeyJwk"].to_string()).as_ref(), Ok(&key));
        for case in group["tests"].as_array().expect("tests") {
            let verified = key.verify(&hex(case["msg"].as_str().expect("hex")), &hex(case["sig"].as_str().expect("hex")));
            let wanted = match case["result"].as_str().expect("a result") {
                "valid" => true,
                "invalid" => false,
                other => panic!("nobody has decided what {other} means here"),
            };
            assert_eq!(verified, wanted, "J11: case {} {}", case["tcId"], case["flags"]);
            cases += 1;
        }
    }
    assert_eq!(cases, file["numberOfTests"], "not every case was run");
}

#[test]
fn the_examples_of_rfc_8037_come_out_as_it_says() {
    let rfc: Value = serde_json::from_str(RFC_8037).expect("JSON");
    let bytes = |text: &Value| URL_SAFE_NO_PAD.decode(text.as_str().expect("text")).expect("base64url");
    assert_eq!(refusal(&rfc["A.1 private key"].to_string()), AgentKeyError::PrivateKey);

    let public = AgentKey::parse(&rfc["A.2 public key"].to_string()).expect("a key");
    assert_eq!(public.thumbprint(), rfc["A.3 thumbprint"]);

    let secret = pem::write("PRIVATE KEY", &[&secret::PKCS8_PREFIX, bytes(&rfc["A.1 private key"]["d"]).as_slice()].concat());
    let secret = AgentSecretKey::from_pem(&secret).expect("a key");
    assert_eq!(secret.public(), public);
    let (signed, signature) = (rfc["A.4 signed"].as_str().expect("text").as_bytes(), bytes(&rfc["A.4 signature"]));
    assert_eq!(secret.sign(signed).as_slice(), signature);
    assert!(public.verify(signed, &signature));
}

#[test]
fn a_key_is_the_same_key_however_people_paste_it() {
    let key = AgentKey::parse(PEM).expect("a key");
    assert_eq!(key.to_pem(), PEM);
    assert_eq!(key.thumbprint(), THUMBPRINT);
    assert!(is_kid(key.thumbprint()));
    for text in [
        PEM.trim_end(),
        &PEM.replace('\n', "\r\n"),
        &jwk(&json!({})),
        &format!("{}\n", jwk(&json!({"kid": "2026-11", "use": "sig", "alg": "EdDSA", "key_ops": ["verify"]}))),
        &format!("{}\r\n", jwk(&json!({"alg": "Ed25519", "ext": true, "key_ops": ["sign", "verify"]}))),
        &format!("{{\n  \"kty\": \"OKP\",\n  \"crv\": \"Ed25519\",\n  \"x\": \"{X}\"\n}}\n"),
    ] {
        assert_eq!(AgentKey::parse(text).as_ref(), Ok(&key), "{text}");
    }
}

#[test]
fn a_private_key_is_called_one_in_whatever_form_it_comes() {
    let secret = AgentSecretKey::generate().expect("a key").to_pem();
    let d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    for text in [
        secret.as_str(),
        &format!("{PEM}{}", *secret),
        &format!("{}{PEM}", *secret),
        &format!("my key:\n{}", *secret),
        &secret.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        &secret.replace("PRIVATE", "OPENSSH PRIVATE"),
        &secret.replace("PRIVATE", "EC PRIVATE"),
        &jwk(&json!({"d": d})),
        &jwk(&json!({"d": d, "use": "enc"})),
        &jwk(&json!({"kty": "RSA", "d": d, "p": d})),
        &jwk(&json!({"kty": "oct", "k": d, "x": null})),
        &json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": X, "d": d}]}).to_string(),
        &jwk(&json!({"d": d})).replace('}', ""),
    ] {
        assert_eq!(refusal(text), AgentKeyError::PrivateKey, "{text}");
    }
    let message = AgentKeyError::PrivateKey.to_string();
    assert!(message.contains("this is the private key") && message.contains("treat it as leaked"), "{message}");
}

#[test]
fn only_ed25519_keys_are_keys() {
    for (text, kind) in [(RSA, "RSA"), (P256, "EC"), (ED448, "Ed448"), (X25519, "X25519")] {
        assert_eq!(refusal(text), AgentKeyError::NotEd25519(kind));
    }
    for (changes, kind) in [
        (json!({"kty": "RSA", "n": X, "e": "AQAB"}), "RSA"),
        (json!({"kty": "EC", "crv": "P-256", "y": X}), "EC"),
        (json!({"kty": "EC"}), "EC"),
        (json!({"crv": "Ed448"}), "Ed448"),
        (json!({"crv": "X25519"}), "X25519"),
        (json!({"crv": "X448"}), "X448"),
    ] {
        assert_eq!(refusal(&jwk(&changes)), AgentKeyError::NotEd25519(kind));
    }
    for changes in [
        json!({"kty": null}),
        json!({"crv": null}),
        json!({"crv": "ed25519"}),
        json!({"kty": "okp"}),
        json!({"kty": ["OKP"]}),
        json!({"kty": "AKP"}),
    ] {
        assert!(matches!(refusal(&jwk(&changes)), AgentKeyError::NotEd25519(_)), "{changes}");
    }
}

#[test]
fn a_jwk_is_for_verifying_signatures_and_says_one_thing() {
    for purpose in [json!("enc"), json!("SIG"), json!(""), json!(["sig"])] {
        assert_eq!(refusal(&jwk(&json!({"use": purpose}))), AgentKeyError::Use);
    }
    for alg in [json!("none"), json!("HS256"), json!("RS256"), json!("eddsa"), json!("Ed448"), json!(7)] {
        assert_eq!(refusal(&jwk(&json!({"alg": alg}))), AgentKeyError::Algorithm);
    }
    for operations in [json!([]), json!(["sign"]), json!("verify"), json!(["verify", "verify"]), json!(["verify", 1]), json!({})]
    {
        assert_eq!(refusal(&jwk(&json!({"key_ops": operations}))), AgentKeyError::Operations);
    }
    assert_eq!(refusal(&json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": X}]}).to_string()), AgentKeyError::KeySet);
    let good = jwk(&json!({}));
    for bad in [
        &good.replace("{\"", r#"{"x":"AA","#),
        &good.replace('{', r#"{"\u0078":"AA","#),
        &good.replace('{', r#"{"use":"sig","use":"sig","#),
        &format!("{good}{good}"),
        &format!("{good}\n\n"),
        &format!("{good} "),
        &good.replace('}', ""),
        "{",
    ] {
        assert!(matches!(refusal(bad), AgentKeyError::MalformedJwk(_)), "J9: {bad}");
    }
    let message = refusal(&good.replace('{', r#"{"\u0078":"AA","#)).to_string();
    assert!(message.contains("a member occurs twice"), "{message}");
}

#[test]
fn the_coordinate_is_32_bytes_in_canonical_base64url() {
    for x in [
        json!(null),
        json!(7),
        json!(""),
        json!(X.trim_end_matches('o')),
        json!(format!("{X}A")),
        json!(format!("{X}AAA")),
        json!(format!("{X}=")),
        json!(format!(" {X}")),
        json!(format!("{X}\n")),
        // The last character holds four bits; the two behind them must be zero.
        json!(X.replace("URo", "URp")),
        json!(X.replace('_', "/")),
        json!(STANDARD.encode([0xff; 32])),
    ] {
        assert_eq!(refusal(&jwk(&json!({"x": x}))), AgentKeyError::Coordinate, "{x}");
    }
}

#[test]
fn one_pem_block_stands_alone() {
    assert_eq!(refusal(&format!("{PEM}{PEM}")), AgentKeyError::SeveralBlocks);
    assert_eq!(refusal(&format!("{PEM}\n{RSA}")), AgentKeyError::SeveralBlocks);
    for text in [format!("{PEM}\n"), format!("{PEM}# mine\n"), format!("# mine\n{PEM}"), format!("\n{PEM}"), format!(" {PEM}")] {
        assert_eq!(refusal(&text), AgentKeyError::TextAroundPem, "{text:?}");
    }
    for text in ["", "\n", "ssh-ed25519 AAAA", X, "null", "[]", &format!(" {}", jwk(&json!({})))] {
        assert_eq!(refusal(text), AgentKeyError::Unrecognised, "{text:?}");
    }
    for text in [
        RSA_PKCS1,
        &PEM.replace("PUBLIC KEY", "CERTIFICATE"),
        &PEM.replace("PUBLIC KEY", "public key"),
        &PEM.replace("PUBLIC", " PUBLIC"),
    ] {
        assert_eq!(refusal(text), AgentKeyError::PemLabel, "{text}");
    }
    let halves = PEM.replace("VS/7", "VS/7\n");
    for text in [
        &halves,
        // What YAML makes of it without '|'.
        &PEM.replace('\n', " "),
        &PEM.replace('\n', ""),
        &PEM.replace('\n', "\n\n"),
        &PEM.replace('\n', "\r"),
        &PEM.replace('\n', " \n"),
        &PEM.replace("-----\nM", "-----\nProc-Type: 4\n\nM"),
        &PEM.replace("END PUBLIC", "END  PUBLIC"),
        &PEM.replace("-----END PUBLIC KEY-----", ""),
        &PEM.replace("URo=", "URo"),
        &PEM.replace("URo=", "URp="),
        &PEM.replace("URo=", "URo=="),
        &PEM.replace("/", "_"),
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----x",
    ] {
        assert_eq!(refusal(text), AgentKeyError::MalformedPem, "{text:?}");
    }
    assert_eq!(refusal(&format!("{}{PEM}", " ".repeat(KEY_TEXT_MAX))), AgentKeyError::TooLong);
}

#[test]
fn a_key_has_one_der_form() {
    let key = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let der = |bytes: &[&[u8]]| pem::write("PUBLIC KEY", &bytes.concat()).to_string();
    assert!(AgentKey::parse(&der(&[&SPKI_PREFIX, &key])).is_ok());
    for text in [
        der(&[&[0]]),
        // 31 and 33 bytes, a NULL where RFC 8410 wants no parameters, a bit that is unused, a long form of a length, data behind.
        der(&[&hex("3029300506032b6570032000"), &key[..31]]),
        der(&[&hex("302b300506032b6570032200"), &key, &[0]]),
        der(&[&hex("302c300706032b65700500032100"), &key]),
        der(&[&hex("302a300506032b6570032101"), &key]),
        der(&[&hex("30812a300506032b6570032100"), &key]),
        der(&[&SPKI_PREFIX, &key, &[0]]),
    ] {
        assert_eq!(refusal(&text), AgentKeyError::MalformedSpki, "{text}");
    }
}

/// The eight points of small order in their canonical encodings.
pub(super) const SMALL_ORDER: [[u8; 32]; 8] = [
    hex32("0100000000000000000000000000000000000000000000000000000000000000"),
    hex32("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex32("0000000000000000000000000000000000000000000000000000000000000000"),
    hex32("0000000000000000000000000000000000000000000000000000000000000080"),
    hex32("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    hex32("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    hex32("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    hex32("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
];

#[test]
fn a_point_of_small_order_is_no_key() {
    for bytes in SMALL_ORDER {
        assert_eq!(parse_bytes(&bytes), Err(AgentKeyError::SmallOrder), "{bytes:02x?}");
    }
}

#[test]
fn a_point_with_a_part_of_small_order_is_no_key() {
    let point = |bytes: &[u8; 32]| VerifyingKey::from_bytes(bytes).expect("a point").to_edwards();
    for small in &SMALL_ORDER[1..] {
        let good = AgentSecretKey::generate().expect("a key").public();
        let mixed = VerifyingKey::from(good.verifier.to_edwards() + point(small)).to_bytes();
        assert_eq!(parse_bytes(&mixed), Err(AgentKeyError::MixedOrder), "{mixed:02x?}");
    }
}

#[test]
fn a_point_has_one_encoding() {
    // y is p, p + 1, … p + 18, which stands for 0 … 18, with both signs of x.
    let mut points = 0;
    for k in 0..=18u8 {
        for sign in [0, 0x80] {
            let mut low = [0; 32];
            (low[0], low[31]) = (k, sign);
            let mut high = [0xff; 32];
            (high[0], high[31]) = (0xed + k, 0x7f | sign);
            let is_point = parse_bytes(&low) != Err(AgentKeyError::NotAPoint);
            points += u8::from(is_point);
            let wanted = if is_point { AgentKeyError::NonCanonical } else { AgentKeyError::NotAPoint };
            assert_eq!(parse_bytes(&high), Err(wanted), "{high:02x?}");
        }
    }
    assert!(points > 10, "{points} points are no test");
    // x is zero and has no sign.
    for bytes in [SMALL_ORDER[0], SMALL_ORDER[1]] {
        let mut signed = bytes;
        signed[31] |= 0x80;
        assert_eq!(parse_bytes(&signed), Err(AgentKeyError::NonCanonical), "{signed:02x?}");
    }
}

#[test]
fn what_is_no_point_is_no_key() {
    let mut bytes = [0; 32];
    bytes[0] = 2;
    assert_eq!(parse_bytes(&bytes), Err(AgentKeyError::NotAPoint));
}

#[test]
fn j11_a_signature_has_one_form() {
    let secret = AgentSecretKey::generate().expect("a key");
    let (public, message) = (secret.public(), b"pay 500".as_slice());
    let good = secret.sign(message);
    assert!(public.verify(message, &good));
    assert!(!public.verify(b"pay 501", &good));
    // S + L, S + 2 L, … as long as it fits.
    let mut signature = good;
    for times in 1..=14 {
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(L) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert_eq!(carry, 0, "S + {times} L does not fit");
        assert!(!public.verify(message, &signature), "S + {times} L was accepted");
    }
    for length in [0, 1, 32, 63] {
        assert!(!public.verify(message, &good[..length]), "{length} bytes were accepted");
    }
    assert!(!public.verify(message, &[good.as_slice(), &[0]].concat()));
    assert!(!public.verify(message, &good.repeat(2)));
}

#[test]
fn j11_a_signature_whose_r_has_small_order_is_none() {
    // Made by hand with R the neutral element and S = k a, which solves the equation: whoever has the key can make it. A lenient
    // verifier accepts it beside the ordinary one.
    let public = parse_bytes(&hex32("ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c")).expect("a key");
    let s = hex32("2d4b1cea44ec816d2223ede5356ceb0ca61f91d8e88298ece7aff56c3ecf710b");
    let signature = [SMALL_ORDER[0], s].concat();
    let lenient =
        ed25519_dalek::Verifier::verify(&public.verifier, b"pay 500", &Signature::from_slice(&signature).expect("64 bytes"));
    assert!(lenient.is_ok(), "the signature is not the one that this test wants");
    assert!(!public.verify(b"pay 500", &signature));
}

proptest! {
    // RUSTSEC-2022-0093: a signer that takes the public half from elsewhere gives its secret away. There is no way to give ours one.
    #[test]
    fn j18_a_signature_is_made_with_a_whole_pair_and_verifies_under_its_public_half_alone(message in proptest::collection::vec(any::<u8>(), 0..64)) {
        let (one, other) = (AgentSecretKey::generate().expect("a key"), AgentSecretKey::generate().expect("a key"));
        let signature = one.sign(&message);
        prop_assert!(one.public().verify(&message, &signature));
        prop_assert!(!other.public().verify(&message, &signature));
    }

    #[test]
    fn the_check_of_a_kid_agrees_with_the_pattern_of_the_schema(kid in "[A-Za-z0-9._-]{0,66}[/ \n\u{e9}]?") {
        let pattern = regex_lite::Regex::new(KID_PATTERN).expect("a pattern");
        prop_assert_eq!(is_kid(&kid), pattern.is_match(&kid), "{:?}", kid);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "(?s).{0,200}") {
        _ = AgentKey::parse(&text);
        _ = AgentSecretKey::from_pem(&text);
    }

    #[test]
    fn no_text_that_is_nearly_a_key_makes_the_parsers_panic(
        label in "(PUBLIC|PRIVATE) KEY", body in "[A-Za-z0-9+/=\r\n\u{e9}-]{0,140}", end in "(\r?\n)?", x in ".{0,48}", name in "[a-z_]{1,7}"
    ) {
        let pem = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----{end}");
        _ = AgentKey::parse(&pem);
        _ = AgentSecretKey::from_pem(&pem);
        _ = AgentKey::parse(&jwk(&json!({name: x.clone()})));
        _ = AgentKey::parse(&jwk(&json!({"x": x})));
    }

    #[test]
    fn no_der_makes_the_parsers_panic(der in proptest::collection::vec(any::<u8>(), 0..80)) {
        for prefix in [&[], SPKI_PREFIX.as_slice(), &SPKI_PREFIX[..9], &secret::PKCS8_PREFIX] {
            let der = [prefix, &der].concat();
            _ = AgentKey::parse(&pem::write("PUBLIC KEY", &der));
            _ = AgentSecretKey::from_pem(&pem::write("PRIVATE KEY", &der));
        }
    }

    #[test]
    fn another_text_is_another_key(at in 0..PEM.len() - 1, character in "[ -~\n]") {
        let mut text = PEM.to_owned();
        text.replace_range(at..=at, &character);
        if text != PEM && let Ok(key) = AgentKey::parse(&text) {
            prop_assert_ne!(key.thumbprint(), THUMBPRINT);
        }
    }
}
