//! How an SSTable lies on disk: its parts, the envelope of a block, the footer.
//!
//! ```text
//! data block, ...          internal keys and values           block.rs
//!   among them, as they fill up:
//!   index partition, ...   where the data blocks are          block_index.rs
//!   filter partition, ...  which keys there are               filter.rs
//! filter index             where the filter partitions are    filter.rs
//! range tombstone block    absent if there are none           range_tombstone.rs
//! top index                where the data blocks or           block_index.rs
//!                          the index partitions are
//! properties block                                            properties.rs
//! footer
//! ```
//!
//! All integers are little-endian. The scheme is LevelDB's (`table_format.md`);
//! the footer names each part directly where LevelDB goes through a metaindex.
//!
//! # Block on disk
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       n     stored bytes; under LZ4 a u32 with the decoded length, then an LZ4 block
//! n       1     compression: 1 raw, 2 LZ4
//! n+1     4     crc32 (IEEE) of the n + 1 bytes before
//! ```
//!
//! # Block handle, in the footer
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       8     offset of the block in the file
//! 8       4     n, its stored bytes; offset and n are zero where the block is absent
//! ```
//!
//! # Footer, the last 64 bytes
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       12    handle of the properties block
//! 12      12    handle of the top index
//! 24      12    handle of the filter index
//! 36      12    handle of the range tombstone block
//! 48      1     format version: 3; 2 before there were tags and filters of kind 2, 1 before there were
//!               merge operands
//! 49      1     index levels: 1, the top index names data blocks; 2, it names partitions
//! 50      2     reserved, zero
//! 52      4     crc32 of bytes 0..52
//! 56      8     magic, "HAYLOFTS"
//! ```
//!
//! Invariant: nothing of a block is looked at before its checksum held.

use bytes::Bytes;

use super::Compression;
use crate::error::Damage;

/// Where a block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockHandle {
    /// Bytes from the start of the file.
    pub(crate) offset: u64,
    /// Stored bytes, without the block trailer.
    pub(crate) stored_bytes: u32,
}

/// Bytes behind a block's stored bytes.
pub(crate) const BLOCK_TRAILER_BYTES: usize = COMPRESSION_BYTES + CRC_BYTES;
const COMPRESSION_BYTES: usize = 1;
const CRC_BYTES: usize = 4;
const _: () = assert!(BLOCK_TRAILER_BYTES == 5);

/// The most bytes that a decoded block has. Writers refuse entries near it.
pub(crate) const BLOCK_BYTES_MAX: usize = 1 << 30;

/// LZ4 cannot make more than this of a byte; a block that claims more lies.
const LZ4_RATIO_MAX: usize = 255;
const LZ4_LENGTH_BYTES: usize = 4;

const HANDLE_BYTES: usize = 12;
const PROPERTIES_OFFSET: usize = 0;
const INDEX_OFFSET: usize = PROPERTIES_OFFSET + HANDLE_BYTES;
const FILTER_OFFSET: usize = INDEX_OFFSET + HANDLE_BYTES;
const TOMBSTONES_OFFSET: usize = FILTER_OFFSET + HANDLE_BYTES;
const VERSION_OFFSET: usize = TOMBSTONES_OFFSET + HANDLE_BYTES;
const LEVELS_OFFSET: usize = VERSION_OFFSET + 1;
const RESERVED_OFFSET: usize = LEVELS_OFFSET + 1;
const FOOTER_CRC_OFFSET: usize = RESERVED_OFFSET + 2;
const MAGIC_OFFSET: usize = FOOTER_CRC_OFFSET + CRC_BYTES;
/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: usize = MAGIC_OFFSET + MAGIC.len();
const _: () = assert!(FOOTER_BYTES == 64);

const MAGIC: [u8; 8] = *b"HAYLOFTS";

/// How a table is laid out. What is written is of the newest; each is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum FormatVersion {
    /// Without merge operands and their count.
    V1 = 1,
    /// With them.
    V2 = 2,
    /// And with tags in data blocks, and filters of kind 2.
    V3 = 3,
}

impl FormatVersion {
    /// What is written.
    pub(crate) const NEWEST: Self = Self::V3;

    fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }
}

impl Compression {
    /// The tag of a compression.
    pub(super) fn tag(self) -> u8 {
        match self {
            Self::Raw => 1,
            Self::Lz4 => 2,
        }
    }

    /// The compression with this tag, if there is one.
    pub(super) fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Raw),
            2 => Some(Self::Lz4),
            _ => None,
        }
    }
}

impl BlockHandle {
    /// Whether it stands for no block.
    pub(crate) fn is_absent(self) -> bool {
        self == Self::default()
    }

    /// The block with its trailer, in a file whose blocks end at `blocks_end`.
    pub(crate) fn range(self, blocks_end: usize) -> Result<std::ops::Range<usize>, Damage> {
        let start = usize::try_from(self.offset).ok();
        let end = start.and_then(|start| start.checked_add(self.stored_bytes as usize + BLOCK_TRAILER_BYTES));
        match (start, end) {
            (Some(start), Some(end)) if end <= blocks_end => Ok(start..end),
            _ => Err(Damage("a block handle points out of the file")),
        }
    }

    fn encode(self) -> [u8; HANDLE_BYTES] {
        let mut bytes = [0; HANDLE_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes
    }

    fn decode(footer: &[u8; FOOTER_BYTES], at: usize) -> Self {
        Self {
            offset: u64::from_le_bytes(array(footer, at)),
            stored_bytes: u32::from_le_bytes(array(footer, at + 8)),
        }
    }
}

/// The `N` bytes from `at` on. REQUIRES: there are as many.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// The end of a table's file: where its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) version: FormatVersion,
    pub(crate) properties: BlockHandle,
    pub(crate) index: BlockHandle,
    pub(crate) filter: BlockHandle,
    pub(crate) tombstones: BlockHandle,
    /// 1 or 2.
    pub(crate) index_levels: u8,
}

impl Footer {
    /// The footer's bytes.
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        let handles = [
            (PROPERTIES_OFFSET, self.properties),
            (INDEX_OFFSET, self.index),
            (FILTER_OFFSET, self.filter),
            (TOMBSTONES_OFFSET, self.tombstones),
        ];
        for (at, handle) in handles {
            bytes[at..at + HANDLE_BYTES].copy_from_slice(&handle.encode());
        }
        bytes[VERSION_OFFSET] = self.version as u8;
        bytes[LEVELS_OFFSET] = self.index_levels;
        bytes[MAGIC_OFFSET..].copy_from_slice(&MAGIC);
        Self::restore_checksum(&mut bytes);
        bytes
    }

    /// Makes the checksum in a footer's `bytes` that of the other fields.
    pub(crate) fn restore_checksum(bytes: &mut [u8; FOOTER_BYTES]) {
        let crc = crc32fast::hash(&bytes[..FOOTER_CRC_OFFSET]);
        bytes[FOOTER_CRC_OFFSET..MAGIC_OFFSET].copy_from_slice(&crc.to_le_bytes());
    }

    /// The footer in `bytes`.
    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Self, Damage> {
        if bytes[MAGIC_OFFSET..] != MAGIC {
            return Err(Damage("this is no SSTable: its last bytes are not the magic"));
        }
        if crc32fast::hash(&bytes[..FOOTER_CRC_OFFSET]) != u32::from_le_bytes(array(bytes, FOOTER_CRC_OFFSET))
        {
            return Err(Damage("the footer's checksum does not hold"));
        }
        let version =
            FormatVersion::from_tag(bytes[VERSION_OFFSET]).ok_or(Damage("the format version is unknown"))?;
        let index_levels = bytes[LEVELS_OFFSET];
        if !matches!(index_levels, 1 | 2) {
            return Err(Damage("the number of index levels is neither 1 nor 2"));
        }
        if bytes[RESERVED_OFFSET..FOOTER_CRC_OFFSET] != [0; 2] {
            return Err(Damage("reserved bytes of the footer are not zero"));
        }
        Ok(Self {
            version,
            properties: BlockHandle::decode(bytes, PROPERTIES_OFFSET),
            index: BlockHandle::decode(bytes, INDEX_OFFSET),
            filter: BlockHandle::decode(bytes, FILTER_OFFSET),
            tombstones: BlockHandle::decode(bytes, TOMBSTONES_OFFSET),
            index_levels,
        })
    }
}

/// Puts blocks into their envelope; keeps the compressor's tables from one to the next.
pub(crate) struct BlockSealer {
    table: lz4_flex::block::CompressTable,
    compressed: Vec<u8>,
}

impl BlockSealer {
    pub(crate) fn new() -> Self {
        Self { table: lz4_flex::block::CompressTable::default(), compressed: Vec::new() }
    }

    /// Appends `block` with its trailer to `output`, compressed if that is asked for and saves an
    /// eighth; returns the stored bytes and how they are stored.
    ///
    /// REQUIRES: `block` has at most [`BLOCK_BYTES_MAX`] bytes.
    pub(crate) fn seal(
        &mut self,
        block: &[u8],
        wish: Compression,
        output: &mut Vec<u8>,
    ) -> (u32, Compression) {
        let len = u32::try_from(block.len()).expect("blocks are bounded");
        let start = output.len();
        let mut compression = Compression::Raw;
        if wish == Compression::Lz4 && block.len() >= 32 {
            let compressed_bytes_max = lz4_flex::block::get_maximum_output_size(block.len());
            if self.compressed.len() < compressed_bytes_max {
                self.compressed.resize(compressed_bytes_max, 0);
            }
            let compressed =
                lz4_flex::block::compress_into_with_table(block, &mut self.compressed, &mut self.table)
                    .expect("the buffer has room for the worst case");
            if compressed + LZ4_LENGTH_BYTES <= block.len() - block.len() / 8 {
                compression = Compression::Lz4;
                output.extend_from_slice(&len.to_le_bytes());
                output.extend_from_slice(&self.compressed[..compressed]);
            }
        }
        if compression == Compression::Raw {
            output.extend_from_slice(block);
        }
        let stored_bytes = u32::try_from(output.len() - start).expect("no longer than the block");
        output.push(compression.tag());
        let crc = crc32fast::hash(&output[start..]);
        output.extend_from_slice(&crc.to_le_bytes());
        (stored_bytes, compression)
    }
}

impl std::fmt::Debug for BlockSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockSealer").finish_non_exhaustive()
    }
}

/// Verifies a block with its trailer, as it stands on disk.
pub(crate) fn verify(sealed: &[u8]) -> Result<(), Damage> {
    let Some((checked, crc)) = sealed.split_last_chunk::<CRC_BYTES>() else {
        return Err(Damage("a block is too short for its trailer"));
    };
    if checked.is_empty() || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
        return Err(Damage("a block's checksum does not hold"));
    }
    Ok(())
}

/// The decoded bytes of a block that [`verify`] passed, and how they were
/// stored; raw ones are a slice of `sealed`.
pub(crate) fn unseal(sealed: &Bytes) -> Result<(Bytes, Compression), Damage> {
    let stored_bytes = sealed
        .len()
        .checked_sub(BLOCK_TRAILER_BYTES)
        .ok_or(Damage("a block is too short for its trailer"))?;
    match Compression::from_tag(sealed[stored_bytes]) {
        Some(Compression::Raw) => Ok((sealed.slice(..stored_bytes), Compression::Raw)),
        Some(Compression::Lz4) => Ok((decompress(&sealed[..stored_bytes])?.into(), Compression::Lz4)),
        None => Err(Damage("a block's compression is unknown")),
    }
}

fn decompress(stored: &[u8]) -> Result<Vec<u8>, Damage> {
    let (len, compressed) =
        stored.split_first_chunk::<LZ4_LENGTH_BYTES>().ok_or(Damage("an LZ4 block lacks its length"))?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > BLOCK_BYTES_MAX || len > compressed.len().saturating_mul(LZ4_RATIO_MAX) {
        return Err(Damage("an LZ4 block claims to be longer than it can be"));
    }
    let mut block = vec![0; len];
    match lz4_flex::block::decompress_into(compressed, &mut block) {
        Ok(decoded) if decoded == len => Ok(block),
        _ => Err(Damage("an LZ4 block does not decode to its length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_and_are_compressed_only_where_that_saves_an_eighth() {
        let mut random = crate::sstable::testing::Random::new(1);
        let noise: Vec<u8> = (0..1_000).map(|_| random.byte()).collect();
        let mut nearly_noise = noise.clone();
        nearly_noise[..100].fill(7);
        for (block, wish, expected) in [
            (&[][..], Compression::Lz4, Compression::Raw),
            (&[7; 1_000], Compression::Raw, Compression::Raw),
            (&[7; 1_000], Compression::Lz4, Compression::Lz4),
            (&noise, Compression::Lz4, Compression::Raw),
            (&nearly_noise, Compression::Lz4, Compression::Raw),
        ] {
            let mut sealed = b"before".to_vec();
            let (stored_bytes, compression) = BlockSealer::new().seal(block, wish, &mut sealed);
            assert_eq!(compression, expected);
            let sealed = Bytes::from(sealed).slice(6..);
            assert_eq!(sealed.len(), stored_bytes as usize + BLOCK_TRAILER_BYTES);
            assert_eq!(verify(&sealed), Ok(()));
            assert_eq!(unseal(&sealed), Ok((Bytes::copy_from_slice(block), compression)));
        }
    }

    #[test]
    fn lies_about_a_decoded_length_are_refused_before_memory_is_taken() {
        for claimed in [0, 99, 101, u32::MAX] {
            let mut sealed = Vec::new();
            BlockSealer::new().seal(&[7; 100], Compression::Lz4, &mut sealed);
            sealed[..4].copy_from_slice(&u32::to_le_bytes(claimed));
            assert!(unseal(&Bytes::from(sealed)).is_err(), "{claimed}");
        }
    }

    #[test]
    fn a_footer_of_another_version_or_with_reserved_bits_is_refused() {
        let footer = Footer {
            version: FormatVersion::NEWEST,
            properties: BlockHandle { offset: 1, stored_bytes: 2 },
            index: BlockHandle { offset: 3, stored_bytes: 4 },
            filter: BlockHandle::default(),
            tombstones: BlockHandle { offset: u64::MAX, stored_bytes: u32::MAX },
            index_levels: 2,
        };
        assert_eq!(Footer::decode(&footer.encode()), Ok(footer));
        assert!(footer.tombstones.range(usize::MAX).is_err());
        for (at, byte) in [
            (VERSION_OFFSET, 0),
            (VERSION_OFFSET, 4),
            (LEVELS_OFFSET, 0),
            (LEVELS_OFFSET, 3),
            (RESERVED_OFFSET, 1),
        ] {
            let mut bytes = footer.encode();
            bytes[at] = byte;
            Footer::restore_checksum(&mut bytes);
            assert!(Footer::decode(&bytes).is_err(), "{at}");
        }
    }
}
