//! Signatures of Ed25519 that a lenient verifier takes for another's: with S beyond the order of the group, with an R that is written in another
//! way, and with an R of small order.

use crate::key_agents::{Key, header, now};
use crate::world::World;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as B64};
use serde_json::json;

const FORGED: &str = "credential_malformed_or_forged";
const REPLAYED: &str = "credential_replayed";

/// The order of the group of Ed25519 (RFC 8032 section 5.1), little endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0x10,
];

/// The sum, little endian.
fn plus(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let (mut sum, mut carry) = ([0; 32], 0);
    for (out, (a, b)) in sum.iter_mut().zip(a.into_iter().zip(b)) {
        let byte = u16::from(a) + u16::from(b) + carry;
        (*out, carry) = (byte.to_le_bytes()[0], byte >> 8);
    }
    assert_eq!(carry, 0, "it does not fit");
    sum
}

/// The difference, little endian; `None` below zero.
fn minus(a: [u8; 32], b: [u8; 32]) -> Option<[u8; 32]> {
    let (mut difference, mut borrow) = ([0; 32], 0);
    for (out, (a, b)) in difference.iter_mut().zip(a.into_iter().zip(b)) {
        let byte = i16::from(a) - i16::from(b) - borrow;
        (*out, borrow) = (byte.to_le_bytes()[0], i16::from(byte < 0));
    }
    (borrow == 0).then_some(difference)
}

/// `factor` times `number` modulo the order, all little endian.
fn times(factor: &[u8], number: [u8; 32]) -> [u8; 32] {
    let reduced = |n: [u8; 32]| minus(n, L).unwrap_or(n);
    let bits = factor.iter().rev().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    bits.fold([0; 32], |product, bit| {
        let doubled = reduced(plus(product, product));
        if bit { reduced(plus(doubled, number)) } else { doubled }
    })
}

/// The signature whose R is that point of small order: S = k a, which solves the equation of a verifier that multiplies by the cofactor,
/// and of every lenient one if the point is the neutral element. Only who has the private key can make it.
fn signed_with_small_order(key: &Key, r: [u8; 32], message: &[u8]) -> [u8; 64] {
    let sha512 = |data: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, data).as_ref().to_vec();
    let pem = key.private_pem();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(base64).expect("base64");
    let mut scalar = sha512(&der[der.len() - 32..])[..32].to_vec();
    scalar[0] &= 0xf8;
    scalar[31] = scalar[31] & 0x7f | 0x40;
    let mut one = [0; 32];
    one[0] = 1;
    let k = times(&sha512(&[r.as_slice(), &key.bytes(), message].concat()), one);
    [r, times(&scalar, k)].concat().try_into().expect("64 bytes")
}

fn point(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    (bytes[0], bytes[31]) = (first, last);
    bytes
}

#[test]
fn j11_a_signature_has_one_form_and_a_jti_one_use() {
    let agent = World::shared().key_agent("j11");
    let key = ed25519_dalek::VerifyingKey::from_bytes(&agent.key.bytes()).expect("a key");
    let split = |assertion: &str| {
        let (signed, signature) = assertion.rsplit_once('.').expect("a signature");
        let signature: [u8; 64] = B64.decode(signature).expect("base64url").try_into().expect("64 bytes");
        (signed.to_owned(), signature)
    };
    type Forge = fn(&Key, &str, [u8; 64]) -> [u8; 64];
    let malleable: Forge = |_, _, signature| {
        let s = signature[32..].try_into().expect("32 bytes");
        [signature[..32].try_into().expect("32 bytes"), plus(s, L)].concat().try_into().expect("64 bytes")
    };
    let far: Forge = |key, signed, signature| {
        (0..14).fold(signature, |signature, _| {
            let s = signature[32..].try_into().expect("32 bytes");
            _ = (key, signed);
            [signature[..32].try_into().expect("32 bytes"), plus(s, L)].concat().try_into().expect("64 bytes")
        })
    };
    let neutral: Forge = |key, signed, _| signed_with_small_order(key, point(1, 0, 0), signed.as_bytes());
    let neutral_signed: Forge = |key, signed, _| signed_with_small_order(key, point(1, 0, 0x80), signed.as_bytes());
    let neutral_above_p: Forge = |key, signed, _| signed_with_small_order(key, point(0xee, 0xff, 0x7f), signed.as_bytes());
    let neutral_above_p_signed: Forge = |key, signed, _| signed_with_small_order(key, point(0xee, 0xff, 0xff), signed.as_bytes());
    let order_two: Forge = |key, signed, _| signed_with_small_order(key, point(0xec, 0xff, 0x7f), signed.as_bytes());
    let order_four: Forge = |key, signed, _| signed_with_small_order(key, point(0, 0, 0), signed.as_bytes());
    let order_four_above_p: Forge = |key, signed, _| signed_with_small_order(key, point(0xed, 0xff, 0x7f), signed.as_bytes());
    let zero: Forge = |_, _, _| [0; 64];
    for (at, forge) in [
        malleable,
        far,
        neutral,
        neutral_signed,
        neutral_above_p,
        neutral_above_p_signed,
        order_two,
        order_four,
        order_four_above_p,
        zero,
    ]
    .into_iter()
    .enumerate()
    {
        // First the forged one, then the good one; then the other way round.
        for good_first in [false, true] {
            let good = agent.assertion();
            let (signed, signature) = split(&good);
            let forged = forge(&agent.key, &signed, signature);
            if at == 2 {
                let lenient = ed25519_dalek::Signature::from_slice(&forged).expect("64 bytes");
                let verdict = ed25519_dalek::Verifier::verify(&key, signed.as_bytes(), &lenient);
                assert!(verdict.is_ok(), "the signature is not the one that this test wants");
            }
            let forged = format!("{signed}.{}", B64.encode(forged));
            if good_first {
                agent.ask(&good).expect(200);
            }
            agent.refused(&agent.ask(&forged), &forged, FORGED);
            if !good_first {
                agent.ask(&good).expect(200);
                agent.refused(&agent.ask(&forged), &forged, FORGED);
            }
            agent.refused(&agent.ask(&good), &good, REPLAYED);
        }
    }
    // Another text for the same signature, and another signature for the same claims.
    let (good, claims) = (agent.assertion(), agent.claims());
    let stray = |text: &str| {
        let last = text.chars().last().expect("a character");
        let at = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".iter().position(|c| char::from(*c) == last);
        let other = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[at.expect("base64url") | 1];
        format!("{}{}", &text[..text.len() - 1], char::from(other))
    };
    for other in [stray(&good), format!("{good}="), format!("{good}=="), format!("{good}A"), format!("{good} ")] {
        assert_ne!(other, good);
        agent.refused(&agent.ask(&other), &other, FORGED);
    }
    agent.ask(&good).expect(200);
    agent.ask(&agent.key.sign(&header(), &claims)).expect(200);
    for header in
        [json!({"alg": "Ed25519"}), json!({"alg": "EdDSA", "typ": "JWT"}), json!({"alg": "EdDSA", "kid": agent.key.thumbprint()})]
    {
        let again = agent.key.sign(&header, &claims);
        agent.refused(&agent.ask(&again), &again, REPLAYED);
    }
    let mut later = claims.clone();
    (later["iat"], later["exp"]) = (json!(now() + 1), json!(now() + 60));
    let again = agent.key.sign(&header(), &later);
    agent.refused(&agent.ask(&again), &again, REPLAYED);
}
