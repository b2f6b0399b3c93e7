//! The first bytes of a volume file: which volume it is, and under which format.
//!
//! | OFFSET | SIZE | FIELD                                        |
//! |--------|------|----------------------------------------------|
//! | 0      | 8    | magic, `HAYVOLUM`                            |
//! | 8      | 4    | format version, 1                            |
//! | 12     | 4    | logical volume                               |
//! | 16     | 8    | physical volume: random, given at creation   |
//! | 24     | 8    | created, ms since 1970                       |
//! | 32     | 28   | reserved, zero                               |
//! | 60     | 4    | crc32c of bytes 0 to 60                      |
//!
//! Little-endian. The physical volume's number tells one file from another of
//! the same logical volume; needles and the index file are bound to it.

use crate::photo_id::VolumeId;

const MAGIC: [u8; 8] = *b"HAYVOLUM";
const FORMAT_VERSION: u32 = 1;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const LOGICAL_AT: usize = VERSION_AT + 4;
const PHYSICAL_AT: usize = LOGICAL_AT + 4;
const CREATED_AT: usize = PHYSICAL_AT + 8;
const RESERVED_AT: usize = CREATED_AT + 8;
const CHECKSUM_AT: usize = RESERVED_AT + 28;
/// Bytes of a superblock; the first needle follows.
pub const SUPERBLOCK_BYTES: usize = CHECKSUM_AT + 4;
const _: () = assert!(SUPERBLOCK_BYTES == 64);

/// What a volume file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The logical volume it is a replica of.
    pub logical_volume: VolumeId,
    /// The file's own number.
    pub physical_volume: u64,
    /// When it was created, ms since 1970.
    pub created_ms: u64,
}

/// Why bytes are no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockDamage {
    /// The magic or the checksum is wrong.
    #[error("the superblock is damaged")]
    Damaged,
    /// A version that this program does not know.
    #[error("the format version is {found}, and this program reads {FORMAT_VERSION}")]
    Version {
        /// The version there.
        found: u32,
    },
}

impl Superblock {
    /// What the checksums of this volume's needles begin at.
    pub fn checksum_seed(&self) -> u32 {
        crc32c::crc32c(&self.physical_volume.to_le_bytes())
    }

    /// The superblock's bytes.
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[MAGIC_AT..VERSION_AT].copy_from_slice(&MAGIC);
        bytes[VERSION_AT..LOGICAL_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[LOGICAL_AT..PHYSICAL_AT].copy_from_slice(&self.logical_volume.0.to_le_bytes());
        bytes[PHYSICAL_AT..CREATED_AT].copy_from_slice(&self.physical_volume.to_le_bytes());
        bytes[CREATED_AT..RESERVED_AT].copy_from_slice(&self.created_ms.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Takes a superblock.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, SuperblockDamage> {
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        if bytes[..VERSION_AT] != MAGIC || bytes[CHECKSUM_AT..] != checksum.to_le_bytes() {
            return Err(SuperblockDamage::Damaged);
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if word(VERSION_AT) != FORMAT_VERSION {
            return Err(SuperblockDamage::Version { found: word(VERSION_AT) });
        }
        if bytes[RESERVED_AT..CHECKSUM_AT].iter().any(|byte| *byte != 0) {
            return Err(SuperblockDamage::Damaged);
        }
        Ok(Self {
            logical_volume: VolumeId(word(LOGICAL_AT)),
            physical_volume: long(PHYSICAL_AT),
            created_ms: long(CREATED_AT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPERBLOCK: Superblock = Superblock {
        logical_volume: VolumeId(7),
        physical_volume: 0x0102_0304_0506_0708,
        created_ms: 1_800_000_000_000,
    };

    #[test]
    fn the_bytes_are_pinned() {
        let golden = include_bytes!("../tests/golden/superblock.bin");
        assert_eq!(&SUPERBLOCK.encode(), golden);
        assert_eq!(Superblock::decode(golden), Ok(SUPERBLOCK));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut bytes = SUPERBLOCK.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}
