use super::*;
use crate::token::rotation::KEPT_SECONDS;

const DAY: u64 = 86_400;
const NOW: u64 = 1_000 * DAY;

fn policy() -> RotationPolicy {
    RotationPolicy::new(30 * DAY, DAY).expect("a policy")
}

/// As earlier versions wrote it.
fn old_pem() -> Vec<u8> {
    use ed25519_dalek::pkcs8::EncodePrivateKey as _;
    let pem = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).to_pkcs8_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF);
    pem.expect("PEM").as_bytes().to_vec()
}

fn data(items: &[(&str, Vec<u8>)]) -> Data {
    items.iter().map(|(name, value)| ((*name).to_owned(), ByteString(value.clone()))).collect()
}

fn kids(ring: &KeyRing) -> Vec<String> {
    ring.keys().map(|key| key.kid().to_owned()).collect()
}

fn ring(data: &Data) -> KeyRing {
    stored(data).expect("readable").expect("keys")
}

#[test]
fn an_empty_secret_gets_keys_that_sign_at_once_and_no_more() {
    let mut data = Data::new();
    assert!(complete(&mut data, policy(), NOW).expect("made"));
    assert_eq!(data.keys().collect::<Vec<_>>(), [SIGNING_KEYS]);
    assert!(ring(&data).is_complete());
    let before = data.clone();
    assert!(!complete(&mut data, policy(), NOW + DAY).expect("nothing to do"));
    assert_eq!(data, before);
}

#[test]
fn an_upgrade_keeps_the_old_key_and_removes_the_old_item() {
    let mut data = data(&[(SIGNING_KEY, old_pem())]);
    let old = kids(&ring(&data));
    assert!(complete(&mut data, policy(), NOW).expect("taken over"));
    assert!(!data.contains_key(SIGNING_KEY));
    let ring = ring(&data);
    assert!(old.iter().all(|kid| ring.find(kid).is_some()));
    assert_eq!(ring.signer(Default::default(), NOW).map(SigningKey::kid), old.first().map(String::as_str));
}

#[test]
fn the_old_item_never_comes_back_beside_new_keys() {
    let mut data = Data::new();
    complete(&mut data, policy(), NOW).expect("made");
    let before = kids(&ring(&data));
    data.insert(SIGNING_KEY.to_owned(), ByteString(old_pem()));
    assert!(complete(&mut data, policy(), NOW).expect("removed"));
    assert_eq!((kids(&ring(&data)), data.contains_key(SIGNING_KEY)), (before, false));
}

#[test]
fn what_cannot_be_read_is_never_overwritten() {
    for items in [
        vec![(SIGNING_KEYS, b"garbage".to_vec())],
        vec![(SIGNING_KEYS, Vec::new())],
        vec![(SIGNING_KEYS, b"[{}]".to_vec()), (SIGNING_KEY, old_pem())],
        vec![(SIGNING_KEY, b"garbage".to_vec())],
    ] {
        let mut data = data(&items);
        let before = data.clone();
        assert!(complete(&mut data, policy(), NOW).is_err());
        assert_eq!(data, before);
    }
}

#[test]
fn a_change_says_whether_it_was_a_rotation() {
    let first = KeyRing::generate(NOW).expect("keys");
    assert_eq!(Change::between(&first, &first, NOW), None);
    let of = |before: &KeyRing, after: &KeyRing, now| {
        let change = Change::between(before, after, now).expect("a change");
        (change.added.len(), change.removed.len(), change.reason)
    };
    assert_eq!(of(&KeyRing::default(), &first, NOW), (2, 0, "started"));
    let due = NOW + 29 * DAY;
    let second = first.rotated(policy(), due).expect("keys").expect("due");
    assert_eq!(of(&first, &second, due), (2, 0, "rotated"));
    let over = due + DAY + KEPT_SECONDS;
    let third = second.rotated(policy(), over).expect("keys").expect("due");
    assert_eq!(of(&second, &third, over), (0, 2, "rotated"));
    // The same keys taken away a minute too early, or all at once.
    assert_eq!(of(&second, &third, over - 60), (0, 2, "replaced"));
    assert_eq!(of(&second, &KeyRing::generate(NOW).expect("keys"), due), (2, 4, "replaced"));
}
