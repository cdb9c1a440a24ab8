//! Checkpoints: how large a log was and which root it had, in the form of C2SP (<https://c2sp.org/tlog-checkpoint>), signed as a note
//! (<https://c2sp.org/signed-note>) with a key that signs nothing else.

use super::LogId;
use super::tree::Hash;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use std::fmt;
use std::str::FromStr;

/// The type of an Ed25519 key in a verifier key.
const ED25519: u8 = 1;
/// What a line of a signature begins with: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";
/// Longest note, in bytes, and the most signatures in it.
const NOTE_MAX: usize = 64 << 10;
const SIGNATURES_MAX: usize = 100;

/// Why a text is no note, or one that is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the form of a signed note.
    #[error("not a signed note (https://c2sp.org/signed-note): {0}")]
    Malformed(&'static str),
    /// The signed text is no checkpoint.
    #[error("not a checkpoint (https://c2sp.org/tlog-checkpoint): {0}")]
    NoCheckpoint(&'static str),
    /// None of the signatures is by a key that is known.
    #[error("the note is signed by none of the verifier keys that were given")]
    UnknownKey,
    /// A signature that names a known key was not made with it.
    #[error("the signature under {0} is wrong")]
    WrongSignature(String),
}

/// Why a text is no verifier key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a verifier key, which is <name>+<8 hexadecimal digits>+<base64> of an Ed25519 key (https://c2sp.org/signed-note): {0}"
)]
pub struct VkeyError(&'static str);

/// A verifier key: what checkpoints are verified with. Its text form can be given to anyone.
#[derive(Clone, PartialEq, Eq)]
pub struct Vkey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl Vkey {
    fn new(name: &str, key: VerifyingKey) -> Self {
        let bytes = [name.as_bytes(), b"\n", &[ED25519], key.as_bytes()].concat();
        let mut id = [0; 4];
        id.iter_mut().zip(digest(&SHA256, &bytes).as_ref()).for_each(|(to, from)| *to = *from);
        Self { name: name.to_owned(), id, key }
    }

    /// The name of the key: `<host of the issuer URL>/audit`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Vkey {
    type Err = VkeyError;

    fn from_str(text: &str) -> Result<Self, VkeyError> {
        // Base64 may hold a plus.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError("there are not three parts"));
        };
        if !is_key_name(name) {
            return Err(VkeyError("the name is empty, or has a space in it"));
        }
        let key = STANDARD.decode(key).map_err(|_| VkeyError("its third part is not base64"))?;
        let Some((&ED25519, key)) = key.split_first() else { return Err(VkeyError("it is of another type")) };
        let key = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok()).filter(|key| !key.is_weak());
        let vkey = Self::new(name, key.ok_or(VkeyError("its bytes are no key"))?);
        if vkey.hex_id() == id { Ok(vkey) } else { Err(VkeyError("its second part is not the hash of the others")) }
    }
}

impl Vkey {
    fn hex_id(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.id))
    }
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], self.key.as_bytes().as_slice()].concat());
        write!(f, "{}+{}+{key}", self.name, self.hex_id())
    }
}

impl fmt::Debug for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a text can be the name of a key: not empty, without white space and plus.
fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// The key that signs checkpoints. It is wiped from memory when it is dropped, and never shown.
pub struct CheckpointKey {
    host: String,
    key: SigningKey,
}

impl fmt::Debug for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckpointKey").field(&self.vkey()).finish()
    }
}

impl CheckpointKey {
    /// A new private key in PKCS#8 PEM. `None` if the operating system gives no random bytes.
    #[must_use]
    pub fn generate_pem() -> Option<Zeroizing<String>> {
        let mut seed = Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).ok()?;
        SigningKey::from_bytes(&seed).to_pkcs8_pem(LineEnding::LF).ok()
    }

    /// Reads a private key in PKCS#8 PEM. `host` is the host of the issuer URL, from which logs and the key have their names. `None`
    /// if it is no Ed25519 key, or no host.
    #[must_use]
    pub fn from_pem(host: &str, pem: &str) -> Option<Self> {
        let key = SigningKey::from_pkcs8_pem(pem).ok()?;
        is_key_name(host).then(|| Self { host: host.to_owned(), key })
    }

    /// The public half, under its name.
    #[must_use]
    pub fn vkey(&self) -> Vkey {
        Vkey::new(&format!("{}/audit", self.host), self.key.verifying_key())
    }

    /// The signed checkpoint of a log.
    #[must_use]
    pub fn sign(&self, log: &LogId, size: u64, root: &Hash) -> String {
        let text = format!("{}/audit/{log}\n{size}\n{}\n", self.host, STANDARD.encode(root));
        let vkey = self.vkey();
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signature = STANDARD.encode([vkey.id.as_slice(), &signature].concat());
        format!("{text}\n{SIGNATURE}{} {signature}\n", vkey.name)
    }
}

/// A note, parsed and not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note<'a> {
    text: &'a str,
    signatures: Vec<(&'a str, [u8; 4], Vec<u8>)>,
}

impl<'a> Note<'a> {
    fn parse(note: &'a str) -> Result<Self, NoteError> {
        let is_plain = |c: char| c == '\n' || c >= ' ';
        if note.len() > NOTE_MAX || !note.chars().all(is_plain) {
            return Err(NoteError::Malformed("it is too long, or has control characters in it"));
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed("there is no blank line before the signatures"))?;
        let (text, signatures) = (note.get(..=at).unwrap_or_default(), note.get(at + 2..).unwrap_or_default());
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed("its last line does not end"))?;
        let signature = |line: &'a str| {
            let (name, signature) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
            let signature = STANDARD.decode(signature).ok()?;
            let (id, signature) = signature.split_first_chunk()?;
            (is_key_name(name) && !signature.is_empty()).then(|| (name, *id, signature.to_vec()))
        };
        let signatures: Option<Vec<_>> = signatures.split('\n').map(signature).collect();
        match signatures {
            Some(signatures) if signatures.len() <= SIGNATURES_MAX => Ok(Self { text, signatures }),
            _ => Err(NoteError::Malformed("a line of a signature has another form, or there are too many")),
        }
    }

    /// The text, if a key in `keys` has signed it. A wrong signature in the name of one of them spoils the note, whatever others say.
    fn open(&self, keys: &[Vkey]) -> Result<&'a str, NoteError> {
        let mut is_signed = false;
        for (name, id, signature) in &self.signatures {
            for key in keys.iter().filter(|key| key.name == *name && key.id == *id) {
                let signature = Signature::from_slice(signature).ok();
                let holds = signature.is_some_and(|signature| key.key.verify_strict(self.text.as_bytes(), &signature).is_ok());
                if !holds {
                    return Err(NoteError::WrongSignature(key.to_string()));
                }
                is_signed = true;
            }
        }
        if is_signed { Ok(self.text) } else { Err(NoteError::UnknownKey) }
    }
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the log is from: `<host of the issuer URL>/audit`.
    pub name: String,
    /// Which log.
    pub log: LogId,
    /// How many records it had.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads a checkpoint and verifies its signature with one of `keys`.
    ///
    /// # Errors
    /// A [`NoteError`].
    pub fn open(note: &str, keys: &[Vkey]) -> Result<Self, NoteError> {
        let checkpoint = Self::parse(Note::parse(note)?.open(keys)?)?;
        // A key speaks for the logs of its own name alone.
        let ours = keys.iter().any(|key| key.name == checkpoint.name);
        if ours { Ok(checkpoint) } else { Err(NoteError::UnknownKey) }
    }

    /// Reads a checkpoint and believes it. For those who only want to know which log it is of.
    ///
    /// # Errors
    /// A [`NoteError`].
    pub fn read_unverified(note: &str) -> Result<Self, NoteError> {
        Self::parse(Note::parse(note)?.text)
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        let (origin, size, root) = (next(), next(), next());
        let (name, log) = origin.rsplit_once('/').ok_or(NoteError::NoCheckpoint("the first line names no log"))?;
        let log = log.parse().map_err(|_| NoteError::NoCheckpoint("the first line names no log"))?;
        let number: Option<u64> = size.parse().ok();
        let number = number.filter(|number| number.to_string() == size);
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        Ok(Self {
            name: name.to_owned(),
            log,
            size: number.ok_or(NoteError::NoCheckpoint("the second line is no number"))?,
            root: root.ok_or(NoteError::NoCheckpoint("the third line is no hash"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of golang.org/x/mod/sumdb/note, note_test.go.
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const SIGNED: &str =
        "PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    const LOG: &str = "0123456789abcdef0123456789abcdef";

    fn key() -> CheckpointKey {
        CheckpointKey::from_pem("id.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key")
    }

    fn log() -> LogId {
        LOG.parse().expect("a name")
    }

    #[test]
    fn a_note_of_the_reference_implementation_opens() {
        let vkey: Vkey = VKEY.parse().expect("a verifier key");
        assert_eq!(vkey.to_string(), VKEY);
        let note = format!("{TEXT}\n{SIGNATURE}{SIGNED}\n");
        assert_eq!(Note::parse(&note).expect("a note").open(std::slice::from_ref(&vkey)), Ok(TEXT));
        let changed = note.replace("cryptography", "cryptographY");
        let opened = Note::parse(&changed).expect("a note").open(std::slice::from_ref(&vkey)).map(str::to_owned);
        assert_eq!(opened, Err(NoteError::WrongSignature(VKEY.to_owned())));
        assert_eq!(Checkpoint::open(&note, &[vkey]), Err(NoteError::NoCheckpoint("the first line names no log")));
    }

    #[test]
    fn the_text_of_a_verifier_key_has_one_form() {
        for at in 0..VKEY.len() {
            let (head, tail) = VKEY.split_at(at);
            for bad in [head, tail.strip_prefix('P').unwrap_or(tail)] {
                assert!(bad.parse::<Vkey>().is_err(), "{bad}");
            }
            let mut changed = VKEY.as_bytes().to_vec();
            changed[at] += 1;
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(changed.parse::<Vkey>().is_err(), "{changed}");
        }
        for bad in [
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ] {
            assert!(bad.parse::<Vkey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_checkpoint_reads_back_under_its_key_alone() {
        let (key, other) = (key(), key());
        let note = key.sign(&log(), 7, &[3; 32]);
        assert!(note.starts_with(&format!("id.example/audit/{LOG}\n7\nAwMD")), "{note}");
        assert!(note.contains("\n\n\u{2014} id.example/audit "), "{note}");
        let checkpoint = Checkpoint { name: "id.example/audit".to_owned(), log: log(), size: 7, root: [3; 32] };
        assert_eq!(Checkpoint::open(&note, &[other.vkey(), key.vkey()]), Ok(checkpoint.clone()));
        assert_eq!(Checkpoint::open(&note, &[key.vkey().to_string().parse().expect("a verifier key")]), Ok(checkpoint));
        assert_eq!(Checkpoint::open(&note, &[other.vkey()]), Err(NoteError::UnknownKey));
        assert_eq!(Checkpoint::open(&note, &[]), Err(NoteError::UnknownKey));
        assert_eq!(Checkpoint::read_unverified(&note).map(|c| c.log), Ok(log()));
        assert!(!format!("{key:?}").contains("SigningKey"));
    }

    #[test]
    fn a_note_that_was_changed_anywhere_does_not_open() {
        let key = key();
        let note = key.sign(&log(), 7, &[3; 32]);
        for (at, c) in note.char_indices() {
            let (head, tail) = note.split_at(at);
            let tail = tail.strip_prefix(c).expect("this character");
            let changed = format!("{head}{}{tail}", if c == 'x' { 'y' } else { 'x' });
            assert!(Checkpoint::open(&changed, &[key.vkey()]).is_err(), "{changed}");
            assert!(Checkpoint::open(head, &[key.vkey()]).is_err(), "{head}");
        }
    }

    #[test]
    fn one_wrong_signature_in_the_name_of_a_known_key_spoils_a_note() {
        let key = key();
        let (note, another) = (key.sign(&log(), 7, &[3; 32]), key.sign(&log(), 8, &[3; 32]));
        let wrong = another.lines().last().expect("a signature");
        let opened = Checkpoint::open(&format!("{note}{wrong}\n"), &[key.vkey()]);
        assert_eq!(opened, Err(NoteError::WrongSignature(key.vkey().to_string())));
        // What somebody else says beside ours is theirs.
        let stranger = self::key().sign(&log(), 7, &[3; 32]);
        let stranger = stranger.lines().last().expect("a signature");
        assert!(Checkpoint::open(&format!("{note}{stranger}\n"), &[key.vkey()]).is_ok());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused_though_it_is_signed() {
        let key = key();
        let name = key.vkey().name;
        let root = STANDARD.encode([0; 32]);
        let sign = |text: &str| {
            let signature = [key.vkey().id.as_slice(), &key.key.sign(text.as_bytes()).to_bytes()].concat();
            format!("{text}\n{SIGNATURE}{name} {}\n", STANDARD.encode(signature))
        };
        let open = |text: &str| Checkpoint::open(&sign(text), &[key.vkey()]);
        assert!(open(&format!("{name}/{LOG}\n0\n{root}\n")).is_ok());
        assert!(open(&format!("{name}/{LOG}\n0\n{root}\nan extension\n")).is_ok());
        for bad in [
            format!("{name}/{LOG}\n00\n{root}\n"),
            format!("{name}/{LOG}\n+1\n{root}\n"),
            format!("{name}/{LOG}\n-1\n{root}\n"),
            format!("{name}/{LOG}\n18446744073709551616\n{root}\n"),
            format!("{name}/{LOG}\n1\n{}\n", STANDARD.encode([0; 31])),
            format!("{name}/{LOG}\n1\n"),
            format!("{name}/\n1\n{root}\n"),
            format!("other.example/audit/{LOG}\n1\n{root}\n"),
            "\n".to_owned(),
        ] {
            assert!(open(&bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,200}", lines in proptest::collection::vec("[\u{2014} a-z0-9/+=\n]{0,40}", 0..6)) {
            for text in [text, lines.join("\n\n")] {
                proptest::prop_assert!(Checkpoint::open(&text, &[key().vkey()]).is_err());
                proptest::prop_assert!(text.parse::<Vkey>().is_err());
            }
        }
    }
}
