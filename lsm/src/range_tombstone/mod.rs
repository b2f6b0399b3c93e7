//! Range tombstones: deletes of all keys from a start on and before an end.
//!
//! A read asks which range delete covers a key. So that this is one binary
//! search, tombstones are kept fragmented: cut at each other's ends into
//! sorted pieces that do not overlap, each with the sequence numbers of all
//! deletes that cover it (RocksDB, "DeleteRange: A New Native RocksDB
//! Operation", 2018; Pebble, `internal/keyspan`).
//!
//! - [`fragmented`]: an immutable set, as SSTables and compactions have it.
//! - [`memtable`]: a set that grows and stays fragmented.
//!
//! A tombstone deletes the writes with sequence numbers below its own. Those of a
//! table from outside have one number, and its tombstones spare its writes.

pub(crate) mod fragmented;
pub(crate) mod memtable;

use bytes::Bytes;

pub(crate) use fragmented::{FragmentedTombstones, TombstoneCursor};
pub(crate) use memtable::{MemtableTombstoneCursor, MemtableTombstones};

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

/// The greatest of `sequences`, which descend, that is at most `at_sequence`.
fn newest_at(sequences: &[u64], at_sequence: u64) -> Option<u64> {
    let newer = sequences.partition_point(|&sequence| sequence > at_sequence);
    sequences.get(newer).copied()
}
