//! The Merkle tree over the records of a log (RFC 6962 section 2.1): its root, and proofs that a record is in it and that one tree
//! is the beginning of another.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A hash of the tree (SHA-256).
pub type Hash = [u8; 32];

/// The hash of a record: SHA-256(0x00 || record).
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(record);
    array(context.finish().as_ref())
}

/// The hash of an inner node: SHA-256(0x01 || left || right).
fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    array(digest(&SHA256, &bytes).as_ref())
}

fn array(digest: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest);
    hash
}

/// A tree that grows. It holds the roots of its full subtrees alone, at most 64 hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    size: u64,
    /// The roots of the full subtrees, the largest first: one for each bit that is set in `size`.
    subtrees: Vec<Hash>,
}

impl Tree {
    /// The tree without any record.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, subtrees: Vec::new() }
    }

    /// The tree over these leaf hashes.
    #[must_use]
    pub fn of(leaves: &[Hash]) -> Self {
        let mut tree = Self::new();
        leaves.iter().for_each(|leaf| tree.append(*leaf));
        tree
    }

    /// Appends a record by its leaf hash.
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            // There is one subtree for each bit that is set.
            let Some(left) = self.subtrees.pop() else { break };
            hash = node(&left, &hash);
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// How many records it holds.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(last) = subtrees.next() else { return array(digest(&SHA256, b"").as_ref()) };
        subtrees.fold(*last, |right, left| node(left, &right))
    }
}

/// The proof that the record `index` is in the tree over `leaves` (RFC 6962 section 2.1.1), its lowest hash first. `None` if there is
/// no such record.
#[must_use]
pub fn inclusion_proof(leaves: &[Hash], index: u64) -> Option<Vec<Hash>> {
    let mut index = usize::try_from(index).ok().filter(|index| *index < leaves.len())?;
    let (mut part, mut proof) = (leaves, Vec::new());
    while part.len() > 1 {
        let (left, right) = halves(part);
        if index < left.len() {
            proof.push(Tree::of(right).root());
            part = left;
        } else {
            proof.push(Tree::of(left).root());
            index -= left.len();
            part = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// Whether `proof` shows that the leaf hash `leaf` is record `index` of the tree of `size` records with this root (RFC 9162 section
/// 2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = node(sibling, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The proof that the tree over the first `old` of `leaves` is the beginning of the one over all (RFC 6962 section 2.1.2). `None` if
/// there are fewer. It is empty for an old tree without records, and for one that is the same.
#[must_use]
pub fn consistency_proof(leaves: &[Hash], old: u64) -> Option<Vec<Hash>> {
    let mut old = usize::try_from(old).ok().filter(|old| *old <= leaves.len())?;
    let (mut part, mut proof, mut is_whole) = (leaves, Vec::new(), true);
    if old == 0 {
        return Some(proof);
    }
    while old < part.len() {
        let (left, right) = halves(part);
        if old <= left.len() {
            proof.push(Tree::of(right).root());
            part = left;
        } else {
            proof.push(Tree::of(left).root());
            old -= left.len();
            part = right;
            is_whole = false;
        }
    }
    if !is_whole {
        proof.push(Tree::of(part).root());
    }
    proof.reverse();
    Some(proof)
}

/// Whether `proof` shows that the tree of `old` records is the beginning of that of `new` (RFC 9162 section 2.1.4.2). A tree is given
/// by its size and its root.
#[must_use]
pub fn verify_consistency((old, old_root): (u64, &Hash), (new, new_root): (u64, &Hash), proof: &[Hash]) -> bool {
    if old >= new {
        return old == new && proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == Tree::new().root();
    }
    let (mut place, mut last) = (old - 1, new - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    // A full old tree is a node of the new one, and not in the proof.
    let (first, rest) = match proof.split_first() {
        Some(_) if old.is_power_of_two() => (old_root, proof),
        Some(split) => split,
        None => return false,
    };
    let (mut of_old, mut of_new) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            of_old = node(hash, &of_old);
            of_new = node(hash, &of_new);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            of_new = node(&of_new, hash);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old_root && of_new == *new_root
}

/// The two parts of a tree of at least two records: the left one is full, and as large as it can be.
fn halves(leaves: &[Hash]) -> (&[Hash], &[Hash]) {
    let left = leaves.len().next_power_of_two() / 2;
    leaves.split_at_checked(left).unwrap_or((leaves, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The records and roots of the reference implementation (certificate-transparency, merkletree/merkle_tree_test.cc).
    const RECORDS: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(hex.get(at..at + 2).expect("two digits"), 16).expect("hex"))
            .collect()
    }

    fn hash(hex: &str) -> Hash {
        bytes(hex).try_into().expect("32 bytes")
    }

    fn reference_leaves() -> Vec<Hash> {
        RECORDS.map(|record| leaf_hash(&bytes(record))).into()
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(format!("record {number}").as_bytes())).collect()
    }

    /// RFC 6962 section 2.1, word by word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => hash(ROOTS[0]),
            [one] => *one,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let leaves = reference_leaves();
        let mut tree = Tree::new();
        for (size, root) in ROOTS.iter().enumerate() {
            assert_eq!((tree.size(), tree.root()), (size as u64, hash(root)), "{size}");
            leaves.get(size).iter().for_each(|leaf| tree.append(**leaf));
        }
    }

    #[test]
    fn proofs_are_those_of_the_reference_implementation() {
        let leaves = reference_leaves();
        assert_eq!(inclusion_proof(&leaves[..3], 2), Some(vec![hash(ROOTS[2])]));
        let six_to_eight = [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(consistency_proof(&leaves, 6), Some(six_to_eight.map(hash).into()));
        let two_to_five = [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ];
        assert_eq!(consistency_proof(&leaves[..5], 2), Some(two_to_five.map(hash).into()));
    }

    #[test]
    fn every_record_of_every_small_tree_has_a_proof_that_shows_nothing_else() {
        for size in 1..=33u64 {
            let leaves = leaves(size as usize);
            let root = naive_root(&leaves);
            for index in 0..size {
                let leaf = &leaves[index as usize];
                let proof = inclusion_proof(&leaves, index).expect("a proof");
                assert!(verify_inclusion(leaf, index, size, &proof, &root), "{index} of {size}");
                for other in (0..=size + 1).filter(|other| *other != index) {
                    assert!(!verify_inclusion(leaf, other, size, &proof, &root), "{index} of {size} as {other}");
                }
                let longer = [proof.as_slice(), &[root]].concat();
                assert!(!verify_inclusion(leaf, index, size, &longer, &root));
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!verify_inclusion(leaf, index, size, shorter, &root));
                }
            }
            assert_eq!(inclusion_proof(&leaves, size), None);
        }
    }

    #[test]
    fn every_small_tree_is_shown_to_be_the_beginning_of_every_larger_one_and_of_no_other() {
        let all = leaves(33);
        for new in 0..=33usize {
            let new_root = naive_root(&all[..new]);
            for old in 0..=new {
                let old_root = naive_root(&all[..old]);
                let proof = consistency_proof(&all[..new], old as u64).expect("a proof");
                let holds = |old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                    verify_consistency((old as u64, old_root), (new as u64, new_root), proof)
                };
                assert!(holds(&old_root, &new_root, &proof), "{old} of {new}");
                let strange = [7; 32];
                assert!(!holds(&strange, &new_root, &proof), "{old} of {new}");
                // Nothing at all is the beginning of anything.
                assert!(old == 0 && new > 0 || !holds(&old_root, &strange, &proof), "{old} of {new}");
                assert!(!holds(&old_root, &new_root, &[proof.as_slice(), &[strange]].concat()), "{old} of {new}");
                for at in 0..proof.len() {
                    let mut bent = proof.clone();
                    bent[at] = strange;
                    assert!(!holds(&old_root, &new_root, &bent), "{old} of {new}");
                }
            }
            assert_eq!(consistency_proof(&all[..new], new as u64 + 1), None);
            assert!(!verify_consistency((new as u64 + 1, &new_root), (new as u64, &new_root), &[]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Appending one by one gives the tree that RFC 6962 describes, and proofs about it hold.
        #[test]
        fn a_tree_that_grew_is_the_one_that_the_rfc_describes(size in 1..3000usize, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let leaves = leaves(size);
            let (index, old) = (a.index(size) as u64, b.index(size + 1));
            let root = Tree::of(&leaves).root();
            prop_assert_eq!(root, naive_root(&leaves));
            let proof = inclusion_proof(&leaves, index).expect("a proof");
            prop_assert!(verify_inclusion(&leaves[index as usize], index, size as u64, &proof, &root));
            let mut tree = Tree::of(&leaves[..old]);
            let old_root = tree.root();
            let proof = consistency_proof(&leaves, old as u64).expect("a proof");
            prop_assert!(verify_consistency((old as u64, &old_root), (size as u64, &root), &proof));
            leaves[old..].iter().for_each(|leaf| tree.append(*leaf));
            prop_assert_eq!(tree.root(), root);
        }

        #[test]
        fn no_proof_makes_the_verification_panic(
            (index, old, new) in any::<(u64, u64, u64)>(),
            proof in prop::collection::vec(any::<Hash>(), 0..80),
            root in any::<Hash>(),
        ) {
            prop_assert!(!verify_inclusion(&root, index, new, &proof, &[9; 32]));
            prop_assert!(!verify_consistency((old, &root), (new, &[9; 32]), &proof) || old == 0);
        }
    }
}
