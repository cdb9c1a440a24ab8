//! A proof that a record is in a log, for somebody who has nothing but the verifier key: in the form of C2SP
//! (<https://c2sp.org/tlog-proof>), with the record itself as its extra data.

use super::note::{Checkpoint, NoteError, Vkey};
use super::tree::{Hash, inclusion_proof, leaf_hash, verify_inclusion};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// What a proof begins with.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Most hashes in a proof: no tree is deeper.
const HASHES_MAX: usize = 64;
/// Longest proof, in bytes.
const PROOF_MAX: usize = 256 << 10;

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not the form of a proof.
    #[error("not a proof (https://c2sp.org/tlog-proof): {0}")]
    Malformed(&'static str),
    /// Its checkpoint is not to be believed.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
    /// The hashes do not lead from the record to the root.
    #[error("the record is not the one that stands there in the log: the hashes lead to another root than the signed one")]
    NotIncluded,
    /// The record says that it is another.
    #[error("the record names another log or number than the proof")]
    OtherRecord,
    /// There is no such record under the checkpoint.
    #[error("the checkpoint does not cover the record yet: try again some seconds later")]
    NotCovered,
    /// What is stored does not fit together, so that no proof can be made.
    #[error("the ledger was changed: {0}; run countersign audit verify")]
    Damaged(&'static str),
}

/// A record and what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    record: Vec<u8>,
    index: u64,
    hashes: Vec<Hash>,
    note: String,
}

/// What a proof has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The record.
    pub record: Vec<u8>,
    /// Its number.
    pub index: u64,
    /// The signed checkpoint that covers it.
    pub checkpoint: Checkpoint,
}

impl Proof {
    /// Proves that `record` stands at `index` under the checkpoint in `note`. `leaves` are the leaf hashes of the log, at least as many
    /// as the checkpoint covers.
    ///
    /// # Errors
    /// [`ProofError::NotCovered`], or [`ProofError::Damaged`] if record, hashes and checkpoint do not fit each other.
    pub fn make(record: &[u8], index: u64, leaves: &[Hash], note: &str) -> Result<Self, ProofError> {
        let checkpoint = Checkpoint::read_unverified(note)?;
        if checkpoint.size <= index {
            return Err(ProofError::NotCovered);
        }
        let size = usize::try_from(checkpoint.size).ok();
        let leaves = size.and_then(|size| leaves.get(..size)).ok_or(ProofError::Damaged("records are missing"))?;
        let hashes = inclusion_proof(leaves, index).ok_or(ProofError::NotCovered)?;
        if !verify_inclusion(&leaf_hash(record), index, checkpoint.size, &hashes, &checkpoint.root) {
            return Err(ProofError::Damaged("the record and the checkpoint do not fit each other"));
        }
        Ok(Self { record: record.to_vec(), index, hashes, note: note.to_owned() })
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let malformed = ProofError::Malformed;
        if text.len() > PROOF_MAX {
            return Err(malformed("it is too long"));
        }
        let (head, note) = text.split_once("\n\n").ok_or(malformed("there is no blank line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(malformed("it does not begin with c2sp.org/tlog-proof@v1"));
        }
        let record = lines.next().and_then(|line| line.strip_prefix("extra "));
        let record = record.and_then(|record| STANDARD.decode(record).ok());
        let record = record.ok_or(malformed("its second line does not hold the record: extra <base64>"))?;
        let number = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = number.and_then(|number| number.parse::<u64>().ok()).filter(|index| number == Some(&index.to_string()));
        let index = index.ok_or(malformed("its third line is not the number of the record: index <number>"))?;
        let hash = |line: &str| STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok());
        let hashes: Option<Vec<Hash>> = lines.map(hash).collect();
        let hashes =
            hashes.filter(|hashes| hashes.len() <= HASHES_MAX).ok_or(malformed("a line that should be a hash is none"))?;
        Ok(Self { record, index, hashes, note: note.to_owned() })
    }

    /// What this proves to somebody who trusts `keys`.
    ///
    /// # Errors
    /// A [`ProofError`] if it proves nothing.
    pub fn verify(&self, keys: &[Vkey]) -> Result<Proven, ProofError> {
        let checkpoint = Checkpoint::open(&self.note, keys)?;
        if !verify_inclusion(&leaf_hash(&self.record), self.index, checkpoint.size, &self.hashes, &checkpoint.root) {
            return Err(ProofError::NotIncluded);
        }
        let begins = format!("{{\"log\":\"{}\",\"seq\":{},", checkpoint.log, self.index);
        if !self.record.starts_with(begins.as_bytes()) {
            return Err(ProofError::OtherRecord);
        }
        Ok(Proven { record: self.record.clone(), index: self.index, checkpoint })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nextra {}\nindex {}", STANDARD.encode(&self.record), self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.note)
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogId;
    use super::super::note::CheckpointKey;
    use super::super::tree::Tree;
    use super::*;

    fn key() -> CheckpointKey {
        CheckpointKey::from_pem("id.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key")
    }

    fn log() -> LogId {
        "0123456789abcdef0123456789abcdef".parse().expect("a name")
    }

    fn ledger(size: u64) -> (Vec<String>, Vec<Hash>) {
        let record = |seq| format!("{{\"log\":\"{}\",\"seq\":{seq},\"time\":\"t\"}}", log());
        let records: Vec<String> = (0..size).map(record).collect();
        let leaves = records.iter().map(|record| leaf_hash(record.as_bytes())).collect();
        (records, leaves)
    }

    #[test]
    fn a_proof_convinces_whoever_has_the_key_and_nobody_of_anything_else() {
        let key = key();
        for size in [1, 2, 7, 64, 100] {
            let (records, leaves) = ledger(size + 5);
            let root = Tree::of(&leaves[..size as usize]).root();
            let note = key.sign(&log(), size, &root);
            for index in [0, size / 2, size - 1] {
                let record = records[index as usize].as_bytes();
                let text = Proof::make(record, index, &leaves, &note).expect("a proof").to_string();
                let proof = Proof::parse(&text).expect("reads back");
                assert_eq!(proof.to_string(), text);
                let proven = proof.verify(&[key.vkey()]).expect("proven");
                assert_eq!((proven.record.as_slice(), proven.index, proven.checkpoint.size), (record, index, size));
                assert_eq!(proof.verify(&[self::key().vkey()]), Err(ProofError::Checkpoint(NoteError::UnknownKey)));
                let other = Proof { record: b"another".to_vec(), ..proof.clone() };
                assert_eq!(other.verify(&[key.vkey()]), Err(ProofError::NotIncluded));
                let other = Proof { index: index + 1, ..proof };
                assert!(other.verify(&[key.vkey()]).is_err());
            }
            assert_eq!(Proof::make(b"x", size, &leaves, &note), Err(ProofError::NotCovered));
            assert!(matches!(Proof::make(b"x", 0, &leaves, &note), Err(ProofError::Damaged(_))));
            assert!(matches!(Proof::make(records[0].as_bytes(), 0, &leaves[..0], &note), Err(ProofError::Damaged(_))));
        }
    }

    #[test]
    fn a_record_cannot_be_proved_in_the_place_of_another() {
        let key = key();
        let record = format!("{{\"log\":\"{}\",\"seq\":1,\"time\":\"t\"}}", log());
        let leaf = leaf_hash(record.as_bytes());
        let note = key.sign(&log(), 1, &leaf);
        let proof = Proof::make(record.as_bytes(), 0, &[leaf], &note).expect("it is in the tree");
        assert_eq!(proof.verify(&[key.vkey()]), Err(ProofError::OtherRecord));
    }

    proptest::proptest! {
        #[test]
        fn l5_no_character_of_a_proof_can_be_another(at in proptest::prelude::any::<proptest::sample::Index>(), to in 0u8..128) {
            let key = key();
            let (records, leaves) = ledger(20);
            let note = key.sign(&log(), 20, &Tree::of(&leaves).root());
            let text = Proof::make(records[7].as_bytes(), 7, &leaves, &note).expect("a proof").to_string();
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
            let holds = Proof::parse(&changed).and_then(|proof| proof.verify(&[key.vkey()])).is_ok();
            proptest::prop_assert_eq!(holds, changed == text, "{}", changed);
        }
    }
}
