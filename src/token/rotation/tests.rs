use super::*;
use crate::crd::SigningAlgorithm::{ES256, EdDSA};
use proptest::prelude::*;

const DAY: u64 = 86_400;

fn policy() -> RotationPolicy {
    RotationPolicy::new(30 * DAY, DAY).expect("a policy")
}

fn slot(algorithm: SigningAlgorithm, active_from: u64) -> Slot {
    Slot { algorithm, active_from }
}

/// Both algorithms, with the same times.
fn both(times: &[u64]) -> Vec<Slot> {
    SigningAlgorithm::ALL.iter().flat_map(|a| times.iter().map(|t| slot(*a, *t))).collect()
}

#[test]
fn a_key_is_published_for_less_than_half_of_the_time_for_which_it_signs() {
    for (period, ahead) in [(30 * DAY, DAY), (10, 4), (5, 2), (3, 1)] {
        assert!(RotationPolicy::new(period, ahead).is_ok(), "{period} {ahead}");
    }
    for (period, ahead) in [(30 * DAY, 15 * DAY), (10, 5), (4, 2), (3, 2), (10, 0), (0, 0), (1, 1)] {
        assert_eq!(RotationPolicy::new(period, ahead), Err(InvalidPolicy), "{period} {ahead}");
    }
}

#[test]
fn the_published_keys_are_never_kept_until_one_signs_that_is_not_among_them() {
    for (ahead, age) in [(1, 0), (2, 1), (4, 2), (599, 299), (600, 300), (DAY, 300)] {
        assert_eq!(RotationPolicy::new(3 * ahead, ahead).expect("a policy").published_max_age(), age, "{ahead}");
    }
}

#[test]
fn the_key_that_began_last_signs() {
    let keys = [slot(EdDSA, 100), slot(EdDSA, 200), slot(EdDSA, 300), slot(ES256, 250)];
    for (now, eddsa) in [(0, 0), (99, 0), (100, 0), (199, 0), (200, 1), (299, 1), (300, 2), (u64::MAX, 2)] {
        assert_eq!(signer(&keys, |s| *s, EdDSA, now), Some(&keys[eddsa]), "{now}");
        assert_eq!(signer(&keys, |s| *s, ES256, now), Some(&keys[3]), "{now}");
    }
    assert_eq!(signer(&keys[..3], |s| *s, ES256, 1000), None);
}

#[test]
fn what_is_due_is_done_and_nothing_else() {
    let now = 1000 * DAY;
    let next = now + DAY;
    // What is missing signs at once.
    assert_eq!(plan(&[], policy(), now).make, both(&[now]));
    assert_eq!(plan(&[slot(EdDSA, now)], policy(), now).make, [slot(ES256, now)]);
    // A young key is left alone, an old one is followed by one that is published first, however old it is.
    for (age, made) in [(0, false), (DAY, false), (29 * DAY - 1, false), (29 * DAY, true), (30 * DAY, true), (1000 * DAY, true)] {
        let plan = plan(&both(&[now - age]), policy(), now);
        assert_eq!(plan.make, if made { both(&[next]) } else { Vec::new() }, "{age}");
        assert_eq!(plan.remove, [] as [usize; 0]);
    }
    // One that is on its way is followed by none.
    assert!(plan(&both(&[now - 30 * DAY, next]), policy(), now).is_empty());
    // The old one goes when its last token is dead, and no second before.
    for (since, remove) in [(0, false), (KEPT_SECONDS - 1, false), (KEPT_SECONDS, true), (20 * DAY, true)] {
        let plan = plan(&both(&[now - since - 30 * DAY, now - since]), policy(), now);
        assert_eq!(plan.remove, if remove { vec![0, 2] } else { Vec::new() }, "{since}");
        assert!(plan.make.is_empty());
    }
    // Both at once, after a long sleep: the one that signs stays.
    let late = plan(&both(&[now - 100 * DAY, now - 70 * DAY, now - 40 * DAY]), policy(), now);
    assert_eq!((late.remove, late.make), (vec![0, 1, 3, 4], both(&[next])));
}

#[test]
fn a_rotation_can_be_begun_at_any_time_and_only_once() {
    let now = 1000;
    let keys = both(&[900]);
    assert_eq!(plan_now(&keys, 60, now).make, both(&[1060]));
    assert!(plan_now(&both(&[900, 1060]), 60, now).is_empty());
    assert_eq!(plan_now(&both(&[900, 1060]), 60, 1060).make, both(&[1120]));
}

/// A life of the list: several replicas, each with a view of its own that may be old, and a clock that may be off.
#[derive(Debug, Clone)]
enum Happening {
    Later(u32),
    /// So many seconds, in which a replica that sees everything at once does what is due in the second in which it is.
    Watched(usize, u32),
    /// A replica hears how the list is.
    See(usize),
    /// A replica does what is due, on the version that it sees, and writes the result if that is still the version stored. The
    /// write arrives so many seconds after the replica has looked at its clock.
    Reconcile(usize, u8),
    /// A replica issues a token of that life.
    Issue(usize, bool, u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    let life = prop_oneof![3 => Just(900u16), 1 => 1..=900u16];
    prop_oneof![
        2 => (0..70u32).prop_map(Happening::Later),
        1 => (0..6000u32).prop_map(Happening::Later),
        4 => (0..3usize, prop_oneof![0..70u32, 0..2000u32]).prop_map(|(who, seconds)| Happening::Watched(who, seconds)),
        2 => (0..3usize).prop_map(Happening::See),
        2 => (0..3usize, 0..3u8).prop_map(|(who, late)| Happening::Reconcile(who, late)),
        4 => (0..3usize, any::<bool>(), life).prop_map(|(who, es256, life)| Happening::Issue(who, es256, life)),
    ]
}

/// A key as it is remembered, also after it was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    slot: Slot,
    id: usize,
}

#[derive(Debug, Clone, Default)]
struct Replica {
    keys: Vec<Key>,
    version: usize,
    seen: u64,
}

#[derive(Debug)]
struct Token {
    key: Key,
    expires: u64,
}

#[derive(Debug, Default)]
struct Life {
    now: u64,
    stored: Vec<Key>,
    version: usize,
    /// When each key was written, by number; 0 for those that sign at once.
    written: Vec<u64>,
    replicas: [Replica; 3],
    tokens: Vec<Token>,
}

fn slots(keys: &[Key]) -> Vec<Slot> {
    keys.iter().map(|key| key.slot).collect()
}

impl Life {
    fn see(&mut self, who: usize) {
        self.replicas[who] = Replica { keys: self.stored.clone(), version: self.version, seen: self.now };
    }

    fn reconcile(&mut self, who: usize, policy: RotationPolicy, skew: i64, late: u64) {
        let plan = plan(&slots(&self.replicas[who].keys), policy, self.now.saturating_add_signed(skew));
        self.now += late;
        if plan.is_empty() || self.replicas[who].version != self.version {
            return;
        }
        let mut index = 0;
        self.stored.retain(|_| {
            index += 1;
            !plan.remove.contains(&(index - 1))
        });
        let at_once = self.version == 0;
        for slot in plan.make {
            self.stored.push(Key { slot, id: self.written.len() });
            self.written.push(if at_once { 0 } else { self.now });
        }
        self.stored.sort();
        self.version += 1;
        self.see(who);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// In whatever order replicas look and write, however late, with views up to a minute old and clocks up to 5 s off: there is always
    /// exactly one key that signs, no key signs before it has been published, and none goes before its last token is dead.
    #[test]
    fn no_token_loses_its_key(
        (period, ahead) in prop_oneof![4..200u64, 120..4000u64].prop_flat_map(|period| (Just(period), 1..period.div_ceil(2))),
        skews in proptest::array::uniform3(prop_oneof![Just(-5), Just(0), Just(5)]),
        happenings in proptest::collection::vec(happening(), 1..120),
    ) {
        const STALE: u64 = 60;
        let policy = RotationPolicy::new(period, ahead).expect("a policy");
        let mut life = Life { now: 1_000_000, ..Life::default() };
        for happening in happenings {
            match happening {
                Happening::Later(seconds) => life.now += u64::from(seconds),
                Happening::Watched(who, seconds) => {
                    let until = life.now + u64::from(seconds);
                    loop {
                        life.see(who);
                        let due = next_due(&slots(&life.stored), policy).saturating_add_signed(-skews[who]).max(life.now);
                        if due > until {
                            break;
                        }
                        life.now = due;
                        life.reconcile(who, policy, skews[who], 0);
                    }
                    life.now = until;
                }
                Happening::See(who) => life.see(who),
                Happening::Reconcile(who, late) => life.reconcile(who, policy, skews[who], late.into()),
                Happening::Issue(who, es256, seconds) => {
                    let replica = &life.replicas[who];
                    if life.now - replica.seen > STALE || replica.keys.is_empty() {
                        continue;
                    }
                    let algorithm = if es256 { ES256 } else { EdDSA };
                    let clock = life.now.saturating_add_signed(skews[who]);
                    let key = *signer(&replica.keys, |key| key.slot, algorithm, clock).expect("one that signs");
                    prop_assert_eq!(key.slot.algorithm, algorithm);
                    // 5 s ahead here, 5 s behind there, and 2 s until it was written.
                    let published = life.now - life.written[key.id];
                    prop_assert!(published + 12 >= ahead, "published for {} s of {}", published, ahead);
                    life.tokens.push(Token { key, expires: clock + u64::from(seconds) });
                }
            }
            for algorithm in SigningAlgorithm::ALL {
                let signs = life.stored.iter().any(|k| k.slot.algorithm == algorithm);
                prop_assert!(life.version == 0 || signs, "no key of {:?}", algorithm);
            }
            let now = life.now;
            life.tokens.retain(|token| token.expires + 5 > now);
            for token in &life.tokens {
                prop_assert!(life.stored.contains(&token.key), "at {} {:?} has lost its key: {:?}", now, token, life.stored);
            }
        }
    }

    /// Before it says so nothing is due, and then something is; and when that is done, the next time is later.
    #[test]
    fn it_is_known_when_something_is_due(times in proptest::collection::btree_set(0..100_000u64, 0..5), wait in 0..10_000u64) {
        let policy = RotationPolicy::new(3000, 600).expect("a policy");
        let keys = both(&times.into_iter().collect::<Vec<_>>());
        let due = next_due(&keys, policy);
        prop_assert!(due == 0 || plan(&keys, policy, due - 1).is_empty());
        let now = due + wait;
        let plan = plan(&keys, policy, now);
        prop_assert!(!plan.is_empty());
        let mut after: Vec<Slot> =
            keys.iter().enumerate().filter(|(i, _)| !plan.remove.contains(i)).map(|(_, slot)| *slot).collect();
        after.extend(plan.make);
        after.sort();
        prop_assert!(next_due(&after, policy) > now);
    }
}
