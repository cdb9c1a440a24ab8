//! The records of an append as they are stored. They are much alike, and the fewer bytes a commit has to bring to the disk the sooner it
//! is done: so they are a Zstandard frame (RFC 8878), which `zstd -d` reads. Lines that stand there as they are, which begin with a brace,
//! are read too.

use zstd::bulk::{Compressor, decompress};
use zstd::zstd_safe::get_frame_content_size;

/// Higher ones take longer than the bytes that they save.
const LEVEL: i32 = -1;
/// What a frame begins with (RFC 8878 section 3.1.1).
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Most bytes that a frame may become: more than the records of one append can be.
const UNPACKED_MAX: u64 = 64 << 20;

/// Packs. It keeps what it works with, which is dearer to make than to use.
pub(super) struct Packer(Option<Compressor<'static>>);

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl Packer {
    pub(super) fn new() -> Self {
        Self(Compressor::new(LEVEL).ok())
    }

    /// `lines` as they are stored: what cannot be packed, for lack of memory, as it is.
    pub(super) fn pack(&mut self, lines: &[u8]) -> Vec<u8> {
        let packed = self.0.as_mut().and_then(|packer| packer.compress(lines).ok());
        packed.unwrap_or_else(|| lines.to_vec())
    }
}

/// The lines of what is stored, which may be anything: what is no frame is returned as it is, and is no records then.
pub(super) fn unpack(stored: Vec<u8>) -> Vec<u8> {
    if !stored.starts_with(&MAGIC) {
        return stored;
    }
    let size = get_frame_content_size(&stored).ok().flatten().filter(|size| *size <= UNPACKED_MAX);
    let unpacked = size.and_then(|size| decompress(&stored, usize::try_from(size).ok()?).ok());
    unpacked.unwrap_or(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_stored_in_a_fraction_of_their_length_and_read_as_they_were() {
        let line = |n: usize| format!(r#"{{"log":"0123456789abcdef","seq":{n},"event":"token.issue","outcome":"allow"}}"#) + "\n";
        let mut packer = Packer::new();
        for count in [1, 7, 500] {
            let lines: String = (0..count).map(line).collect();
            let packed = packer.pack(lines.as_bytes());
            assert!(count == 1 || packed.len() * 3 < lines.len(), "{} of {}", packed.len(), lines.len());
            assert_eq!(unpack(packed), lines.as_bytes());
        }
        assert_eq!(unpack(line(1).into_bytes()), line(1).as_bytes(), "lines may stand there as they are");
        assert_eq!(unpack(packer.pack(b"")), b"");
    }

    #[test]
    fn what_is_no_frame_is_returned_as_it_is_and_takes_no_memory() {
        let mut packed = Packer::new().pack(&[b'a'; 4096]);
        // A frame that says it is of 2^62 bytes, and one that is cut.
        let bomb = [&MAGIC[..], &[0xE0], &(1u64 << 62).to_le_bytes(), &[1, 0, 0]].concat();
        assert_eq!(unpack(bomb.clone()), bomb);
        packed.truncate(packed.len() - 1);
        assert_eq!(unpack(packed.clone()), packed);
        assert_eq!(unpack(MAGIC.to_vec()), MAGIC);
        assert_eq!(unpack(Vec::new()), b"");
    }
}
