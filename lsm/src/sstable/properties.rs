//! What a table says about itself.

use crate::{FilterKey, KeyRange};

/// Figures and bounds of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Smallest user key to just past the largest one, range tombstones included. Never open: a largest
    /// point key `k` ends the range at `k` + one zero byte, a range tombstone at its end.
    pub(crate) key_range: KeyRange,
    /// Point entries: puts and deletes.
    pub(crate) entry_count: u64,
    /// Of them, deletes.
    pub(crate) tombstone_count: u64,
    /// Fragments of range tombstones times their sequences.
    pub(crate) range_tombstone_count: u64,
    /// Bytes of internal keys and values before prefix compression.
    pub(crate) raw_bytes: u64,
    /// Bytes of data blocks as stored.
    pub(crate) data_bytes: u64,
    /// Data blocks.
    pub(crate) data_block_count: u64,
    /// The least sequence number of an entry or range tombstone.
    pub(crate) sequence_min: u64,
    /// The greatest one.
    pub(crate) sequence_max: u64,
    /// What the filters are built over.
    pub(crate) filter_key: FilterKey,
}
