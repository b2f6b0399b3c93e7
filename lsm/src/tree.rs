//! One key space.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Iter, Result, Snapshot};

/// A tree's number, never used twice in one engine directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeId(pub u64);

/// Keys from `start` on and before `end`; an empty `end` is past every key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key that is not in the range any more, or empty.
    pub end: Bytes,
}

/// What a compaction does with a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keeps it.
    Keep,
    /// Drops it, as a delete would.
    Drop,
}

/// Decides, key by key in order, what a compaction keeps; one instance a compaction.
pub trait KeepDecision: Send {
    /// Called for each key that is neither deleted nor held by a snapshot.
    fn decide(&mut self, key: &[u8], value: &[u8]) -> Decision;
}

/// Figures of one tree.
#[derive(Clone, Debug, Default)]
pub struct TreeStats {
    /// Bytes of memtables, frozen ones included.
    pub memtable_bytes: u64,
    /// Bytes of SSTables.
    pub sstable_bytes: u64,
    /// SSTables a level.
    pub level_table_counts: Vec<usize>,
}

/// One key space of an engine. Cheap to clone.
#[derive(Clone)]
pub struct Tree {}

impl Tree {
    /// The tree's number.
    pub fn id(&self) -> TreeId {
        unimplemented!()
    }
    /// The value of `key` at `snapshot`.
    pub fn get(&self, _snapshot: &Snapshot, _key: &[u8]) -> Result<Option<Bytes>> {
        unimplemented!()
    }
    /// A cursor over `range` at `snapshot`.
    pub fn iter(&self, _snapshot: &Snapshot, _range: KeyRange) -> Iter {
        unimplemented!()
    }
    /// A cursor over the keys that start with `prefix`, which must be a whole
    /// filter prefix of the tree's format: tables whose filter lacks it are skipped.
    pub fn iter_prefix(&self, _snapshot: &Snapshot, _prefix: &[u8]) -> Iter {
        unimplemented!()
    }
    /// Sets the factory of what compactions from now on keep.
    pub fn set_keep_decision(&self, _factory: Arc<dyn Fn() -> Box<dyn KeepDecision> + Send + Sync>) {
        unimplemented!()
    }
    /// Bytes on disk and in memory below `range`, roughly.
    pub fn approximate_bytes(&self, _range: &KeyRange) -> u64 {
        unimplemented!()
    }
    /// Writes the memtable out and waits for it.
    pub fn flush(&self) -> Result<()> {
        unimplemented!()
    }
    /// Rewrites all of the tree into its lowest level and waits for it.
    pub fn compact(&self) -> Result<()> {
        unimplemented!()
    }
    /// Figures of the tree now.
    pub fn stats(&self) -> TreeStats {
        unimplemented!()
    }
}
