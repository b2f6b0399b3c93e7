//! Range tombstones: deletes of all keys from a start on and before an end.

use bytes::Bytes;
use crate::KeyRange;
use crate::error::Damage;

/// One range delete: the writes to keys of `start..end` before `sequence` are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeTombstone {
    /// The first user key.
    pub(crate) start: Bytes,
    /// The first user key that is not deleted any more.
    pub(crate) end: Bytes,
    /// The delete's sequence number.
    pub(crate) sequence: u64,
}

/// A part of the key space and the range deletes that all cover the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    /// The first user key.
    pub(crate) start: &'a [u8],
    /// The first user key past it.
    pub(crate) end: &'a [u8],
    /// Sequence numbers of the deletes, descending, at least one.
    pub(crate) sequences: &'a [u64],
}

/// Range tombstones cut at each other's ends: sorted fragments that do not overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct FragmentedTombstones {}

impl FragmentedTombstones {
    /// Fragments `tombstones`, in any order; those with `start >= end` delete nothing and are left out.
    pub(crate) fn new(tombstones: Vec<RangeTombstone>) -> Self {
        unimplemented!()
    }
    /// Whether there is no fragment.
    pub(crate) fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// How many fragments there are.
    pub(crate) fn len(&self) -> usize {
        unimplemented!()
    }
    /// The fragments in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Fragment<'_>> {
        [].into_iter()
    }
    /// Each (fragment, sequence) as a tombstone, to be fragmented again with others.
    pub(crate) fn tombstones(&self) -> impl Iterator<Item = RangeTombstone> {
        [].into_iter()
    }
    /// The sequence of the newest range delete of `user_key` at or below `at_sequence`.
    pub(crate) fn covering_sequence(&self, user_key: &[u8], at_sequence: u64) -> Option<u64> {
        unimplemented!()
    }
    /// The same fragments with the sequences that `keep` leaves of each (it gets them descending);
    /// fragments left with none are gone.
    pub(crate) fn retain(&self, keep: impl FnMut(&[u64], &mut Vec<u64>)) -> Self {
        unimplemented!()
    }
    /// What of the fragments lies in `range` (an empty end is past every key).
    pub(crate) fn clipped(&self, range: &KeyRange) -> Self {
        unimplemented!()
    }
    /// First start to last end; `None` if there is no fragment.
    pub(crate) fn key_range(&self) -> Option<KeyRange> {
        unimplemented!()
    }
    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
    /// Appends the fragments as they stand in an SSTable.
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        unimplemented!()
    }
    /// The fragments in `bytes`, an SSTable's range tombstone block.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        unimplemented!()
    }
}

/// Asks an `Arc<FragmentedTombstones>` for one key after the other, in either
/// direction; neighbouring keys cost a comparison or two. `Send + 'static`.
#[derive(Clone, Debug)]
pub(crate) struct TombstoneCursor {}

impl TombstoneCursor {
    /// A cursor over `tombstones` that reads at `at_sequence`.
    pub(crate) fn new(tombstones: std::sync::Arc<FragmentedTombstones>, at_sequence: u64) -> Self {
        unimplemented!()
    }
    /// The sequence of the newest visible range delete of `user_key`.
    pub(crate) fn covering_sequence(&mut self, user_key: &[u8]) -> Option<u64> {
        unimplemented!()
    }
    /// The fragment around `user_key`, visible or not: where to jump past it.
    pub(crate) fn fragment(&mut self, user_key: &[u8]) -> Option<Fragment<'_>> {
        unimplemented!()
    }
}

/// The range tombstones of a memtable: a set that grows, fragmented at all times.
#[derive(Debug, Default)]
pub(crate) struct MemtableTombstones {}

impl MemtableTombstones {
    /// A set without tombstones.
    pub(crate) fn new() -> Self {
        Self::default()
    }
    /// Adds the range delete of `start..end` at `sequence`; nothing if `start >= end`.
    pub(crate) fn insert(&self, start: &[u8], end: &[u8], sequence: u64) {
        unimplemented!()
    }
    /// Whether there is none: one atomic load.
    pub(crate) fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// The sequence of the newest range delete of `user_key` at or below `at_sequence`.
    pub(crate) fn covering_sequence(&self, user_key: &[u8], at_sequence: u64) -> Option<u64> {
        unimplemented!()
    }
    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
    /// The set as it is now, for a flush or for a test.
    pub(crate) fn to_fragmented(&self) -> FragmentedTombstones {
        unimplemented!()
    }
}

/// Asks an `Arc<MemtableTombstones>` for one key after the other; remembers
/// the last fragment or gap, which later inserts cannot change at its sequence.
#[derive(Clone, Debug)]
pub(crate) struct MemtableTombstoneCursor {}

impl MemtableTombstoneCursor {
    /// A cursor over `tombstones` that reads at `at_sequence`.
    ///
    /// REQUIRES: every write at or below `at_sequence` is applied already.
    pub(crate) fn new(tombstones: std::sync::Arc<MemtableTombstones>, at_sequence: u64) -> Self {
        unimplemented!()
    }
    /// The sequence of the newest visible range delete of `user_key`.
    pub(crate) fn covering_sequence(&mut self, user_key: &[u8]) -> Option<u64> {
        unimplemented!()
    }
    /// Start and end of the fragment around `user_key`, visible or not: where to jump past it.
    pub(crate) fn fragment(&mut self, user_key: &[u8]) -> Option<(&[u8], &[u8])> {
        unimplemented!()
    }
}
