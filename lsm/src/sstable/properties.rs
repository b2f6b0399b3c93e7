//! What a table says about itself: its properties block, stored raw.
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       8     entries: puts, deletes and merge operands
//! 8       8     of them, deletes
//! 16      8     range tombstones: fragments times their sequences
//! 24      8     bytes of internal keys and values before prefix compression
//! 32      8     bytes of data blocks as stored
//! 40      8     data blocks
//! 48      8     least sequence number; zero in an empty table
//! 56      8     greatest sequence number
//! 64      1     filter key: 1 whole key, 2 through a terminator
//! 65      2     the terminator; zero under a whole key
//! 67      1     reserved, zero
//! 68      4     n, length of the key range's start
//! 72      4     m, length of its end
//! 76      n     start
//! 76+n    m     end
//! 76+n+m  8     of the entries, merge operands; absent under format version 1
//! ```

use bytes::Bytes;

use super::format::FormatVersion;
use crate::error::Damage;
use crate::{FilterKey, KeyRange};

const COUNTS: usize = 8;
const FILTER_KEY_OFFSET: usize = COUNTS * 8;
const TERMINATOR_OFFSET: usize = FILTER_KEY_OFFSET + 1;
const RESERVED_OFFSET: usize = TERMINATOR_OFFSET + 2;
const START_BYTES_OFFSET: usize = RESERVED_OFFSET + 1;
const END_BYTES_OFFSET: usize = START_BYTES_OFFSET + 4;
const HEAD_BYTES: usize = END_BYTES_OFFSET + 4;
const _: () = assert!(HEAD_BYTES == 76);

const TAG_WHOLE_KEY: u8 = 1;
const TAG_THROUGH_TERMINATOR: u8 = 2;

/// Figures and bounds of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Smallest user key to just past the largest one, range tombstones included. Never open: a largest
    /// point key `k` ends the range at `k` + one zero byte, a range tombstone at its end.
    pub(crate) key_range: KeyRange,
    /// Point entries: puts, deletes and merge operands.
    pub(crate) entry_count: u64,
    /// Of them, deletes.
    pub(crate) tombstone_count: u64,
    /// Of the point entries, merge operands.
    pub(crate) merge_count: u64,
    /// Fragments of range tombstones times their sequences.
    pub(crate) range_tombstone_count: u64,
    /// Bytes of internal keys and values before prefix compression.
    pub(crate) raw_bytes: u64,
    /// Bytes of data blocks as stored.
    pub(crate) data_bytes: u64,
    /// Data blocks.
    pub(crate) data_block_count: u64,
    /// The least sequence number of an entry or range tombstone; zero in an empty table.
    pub(crate) sequence_min: u64,
    /// The greatest one.
    pub(crate) sequence_max: u64,
    /// What the filters are built over.
    pub(crate) filter_key: FilterKey,
}

impl Properties {
    /// Appends the properties block.
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        let counts: [u64; COUNTS] = [
            self.entry_count,
            self.tombstone_count,
            self.range_tombstone_count,
            self.raw_bytes,
            self.data_bytes,
            self.data_block_count,
            self.sequence_min,
            self.sequence_max,
        ];
        for count in counts {
            buffer.extend_from_slice(&count.to_le_bytes());
        }
        match self.filter_key {
            FilterKey::WholeKey => buffer.extend_from_slice(&[TAG_WHOLE_KEY, 0, 0, 0]),
            FilterKey::ThroughTerminator([a, b]) => {
                buffer.extend_from_slice(&[TAG_THROUGH_TERMINATOR, a, b, 0]);
            }
        }
        for key in [&self.key_range.start, &self.key_range.end] {
            let len = u32::try_from(key.len()).expect("keys are bounded");
            buffer.extend_from_slice(&len.to_le_bytes());
        }
        buffer.extend_from_slice(&self.key_range.start);
        buffer.extend_from_slice(&self.key_range.end);
        buffer.extend_from_slice(&self.merge_count.to_le_bytes());
    }

    /// The properties in `bytes`, the properties block of a table of format `version`.
    pub(crate) fn decode(bytes: &[u8], version: FormatVersion) -> Result<Self, Damage> {
        const CUT: Damage = Damage("the properties block is cut off");
        let (head, mut keys) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(CUT)?;
        let mut merge_count = 0;
        if version >= FormatVersion::V2 {
            let (rest, count) = keys.split_last_chunk().ok_or(CUT)?;
            (keys, merge_count) = (rest, u64::from_le_bytes(*count));
        }
        let (chunks, _) = head.as_chunks::<8>();
        let [
            entry_count,
            tombstone_count,
            range_tombstone_count,
            raw_bytes,
            data_bytes,
            data_block_count,
            sequence_min,
            sequence_max,
        ] = std::array::from_fn::<u64, COUNTS, _>(|i| u64::from_le_bytes(chunks[i]));
        let filter_key = match head[FILTER_KEY_OFFSET..START_BYTES_OFFSET] {
            [TAG_WHOLE_KEY, 0, 0, 0] => FilterKey::WholeKey,
            [TAG_THROUGH_TERMINATOR, a, b, 0] => FilterKey::ThroughTerminator([a, b]),
            _ => return Err(Damage("the filter key rule is unknown")),
        };
        let len =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (start_bytes, end_bytes) = (len(START_BYTES_OFFSET), len(END_BYTES_OFFSET));
        if start_bytes.checked_add(end_bytes) != Some(keys.len()) {
            return Err(Damage("the properties block does not end with its keys"));
        }
        let (start, end) = keys.split_at(start_bytes);
        let key_range = KeyRange { start: Bytes::copy_from_slice(start), end: Bytes::copy_from_slice(end) };
        if key_range.start >= key_range.end && (entry_count, range_tombstone_count) != (0, 0) {
            return Err(Damage("the properties' key range is upside down"));
        }
        Ok(Self {
            key_range,
            entry_count,
            tombstone_count,
            merge_count,
            range_tombstone_count,
            raw_bytes,
            data_bytes,
            data_block_count,
            sequence_min,
            sequence_max,
            filter_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_and_other_lengths_and_tags_are_refused() {
        for filter_key in [FilterKey::WholeKey, FilterKey::ThroughTerminator([0, 1])] {
            let properties = Properties {
                key_range: KeyRange { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"zz\0") },
                entry_count: 1,
                tombstone_count: 2,
                merge_count: 9,
                range_tombstone_count: 3,
                raw_bytes: 4,
                data_bytes: 5,
                data_block_count: 6,
                sequence_min: 7,
                sequence_max: 8,
                filter_key,
            };
            let mut block = Vec::new();
            properties.encode(&mut block);
            let v1 = &block[..block.len() - 8];
            assert_eq!(
                Properties::decode(v1, FormatVersion::V1),
                Ok(Properties { merge_count: 0, ..properties.clone() })
            );
            assert_eq!(Properties::decode(&block, FormatVersion::V2), Ok(properties));
            for end in 0..block.len() {
                assert!(Properties::decode(&block[..end], FormatVersion::V2).is_err());
            }
            for (at, byte) in [(64, 0), (64, 3), (67, 1), (68, 9), (75, 0xff)] {
                let mut forged = block.clone();
                forged[at] = byte;
                assert!(Properties::decode(&forged, FormatVersion::V2).is_err(), "{at}");
            }
        }
    }
}
