//! One key space: what it is made of now, and reading it.
//!
//! A tree is a memtable that takes writes, frozen memtables that wait to be
//! flushed, and a `Version`. The three stand in one `TreeState`, replaced
//! as a whole, so that a reader takes one reference and no lock.

mod tree_core;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::tree_core::{Frozen, TreeCore, TreeState};
use crate::core::Core;
use crate::internal_key::LookupKey;
use crate::keep_decision::KeepDecision;
use crate::sstable::{Blocking, FilterHash};
use crate::{FilterKey, Iter, KeyRange, Result, Snapshot, TreeFormat, TreeTuning, compaction};

/// A tree's number, never used twice in one engine directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeId(pub u64);

/// Figures of one tree.
#[derive(Clone, Debug, Default)]
pub struct TreeStats {
    /// Bytes of memtables, frozen ones included.
    pub memtable_bytes: u64,
    /// Memtables that wait to be flushed.
    pub frozen_memtable_count: usize,
    /// Bytes of SSTables.
    pub sstable_bytes: u64,
    /// SSTables a level.
    pub level_table_counts: Vec<usize>,
    /// Bytes of SSTables a level.
    pub level_bytes: Vec<u64>,
    /// Entries of SSTables, deletes and shadowed versions included.
    pub entry_count: u64,
    /// Of them, deletes.
    pub tombstone_count: u64,
    /// Of the entries, merge operands.
    pub merge_count: u64,
    /// Writes up to this sequence number are in SSTables.
    pub redo_point: u64,
}

/// One key space of an engine. Cheap to clone. It can be read after the engine
/// is closed. Of a dropped tree some or all of what it held is gone.
#[derive(Clone)]
pub struct Tree {
    tree: Arc<TreeCore>,
    core: Arc<Core>,
}

impl Tree {
    pub(crate) fn new(tree: Arc<TreeCore>, core: Arc<Core>) -> Self {
        Self { tree, core }
    }

    /// The tree's number.
    pub fn id(&self) -> TreeId {
        self.tree.id
    }

    /// What the tree's creation fixed.
    pub fn format(&self) -> &TreeFormat {
        &self.tree.format
    }

    /// The value of `key` at `snapshot`.
    pub fn get(&self, snapshot: &Snapshot, key: &[u8]) -> Result<Option<Bytes>> {
        let key = LookupKey::new(key, snapshot.sequence(), self.tree.format.filter_key);
        self.tree.state().get(&self.tree.operator, &key, Blocking::Allowed)
    }

    /// The value of `key` at `snapshot`, if that can be told from memory alone:
    /// memtables, block cache, and what the system has in memory of the files.
    /// A thread that must not wait tries this first, and leaves [`Tree::get`] to
    /// one that may.
    ///
    /// ```
    /// # fn main() -> lsm::Result<()> {
    /// # let fs = std::sync::Arc::new(vfs::SimulatedFileSystem::new());
    /// # let dir = std::path::Path::new("/data");
    /// # let engine = lsm::Engine::open(fs, dir, 1, lsm::Options::default())?;
    /// # let tree = engine.create_tree(lsm::TreeId(1), lsm::TreeFormat::default())?;
    /// # let snapshot = engine.snapshot();
    /// let value = match tree.try_get(&snapshot, b"key") {
    ///     // Here, say, from another thread.
    ///     Err(lsm::Error::WouldBlock(_)) => std::thread::scope(|pool| {
    ///         pool.spawn(|| tree.get(&snapshot, b"key")).join().expect("no panic")
    ///     })?,
    ///     answer => answer?,
    /// };
    /// # assert_eq!(value, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`](crate::Error::WouldBlock) names the block that is missing.
    pub fn try_get(&self, snapshot: &Snapshot, key: &[u8]) -> Result<Option<Bytes>> {
        let key = LookupKey::new(key, snapshot.sequence(), self.tree.format.filter_key);
        self.tree.state().get(&self.tree.operator, &key, Blocking::Forbidden)
    }

    /// A cursor over `range` at `snapshot`, which need not be kept meanwhile.
    /// Making one never blocks; moving it may.
    pub fn iter(&self, snapshot: &Snapshot, range: KeyRange) -> Iter {
        self.tree.state().iter(&self.tree.operator, snapshot.sequence(), range, None)
    }

    /// A cursor over the keys that start with `prefix`, which must be a whole
    /// filter prefix of the tree's format: tables whose filter lacks it are skipped.
    pub fn iter_prefix(&self, snapshot: &Snapshot, prefix: &[u8]) -> Iter {
        let rule = self.tree.format.filter_key;
        let filter = match rule {
            FilterKey::WholeKey => None,
            FilterKey::ThroughTerminator(_) => Some((prefix, FilterHash::of_key(prefix, rule))),
        };
        self.tree.state().iter(&self.tree.operator, snapshot.sequence(), KeyRange::of_prefix(prefix), filter)
    }

    /// Sets the factory of what compactions from now on keep.
    pub fn set_keep_decision(&self, factory: Arc<dyn Fn() -> Box<dyn KeepDecision> + Send + Sync>) {
        *self.tree.keep_decision.lock() = Some(factory);
    }

    /// Has tables written and kept like this from now on. Those that there are
    /// stay as they are written, and are kept in memory or not as is said here.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption): nothing changed.
    pub fn tune(&self, tuning: TreeTuning) -> Result<()> {
        tuning.check()?;
        self.tree.set_tuning(tuning);
        Ok(())
    }

    /// Reads what is to be kept in memory, as far as there is room. Does nothing
    /// for other trees. What cannot be read is for its readers to report.
    pub fn load(&self) {
        if self.tree.tuning().in_memory {
            let version = Arc::clone(&self.tree.state().version);
            version.tables().for_each(|table| table.load());
        }
    }

    pub(crate) fn state(&self) -> arc_swap::Guard<Arc<TreeState>> {
        self.tree.state()
    }

    /// Writes the memtable out and waits for it.
    ///
    /// # Errors
    ///
    /// - [`Error::Background`](crate::Error::Background): it failed; nothing is lost, and it is tried again.
    /// - [`Error::Closed`](crate::Error::Closed): the engine was closed or the tree dropped.
    /// - [`Error::Poisoned`](crate::Error::Poisoned)
    pub fn flush(&self) -> Result<()> {
        self.core.flush(&self.tree)
    }

    /// Rewrites all of the tree into its lowest level and waits for it.
    ///
    /// # Errors
    ///
    /// As [`Tree::flush`]; nothing is lost by a failure.
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        compaction::compact_all(&self.core, &self.tree)
    }

    /// Figures of the tree now.
    pub fn stats(&self) -> TreeStats {
        let state = self.tree.state();
        let version = &state.version;
        let mut stats = TreeStats {
            memtable_bytes: state.memtables().map(|memtable| memtable.bytes() as u64).sum(),
            frozen_memtable_count: state.frozen.len(),
            redo_point: self.tree.redo_point(),
            ..TreeStats::default()
        };
        for level in 0..=version.deeper_levels().len() {
            stats.level_table_counts.push(version.level(level).len());
            stats.level_bytes.push(version.level_bytes(level));
        }
        stats.sstable_bytes = stats.level_bytes.iter().sum();
        for table in version.tables() {
            stats.entry_count += table.entry_count();
            stats.tombstone_count += table.tombstone_count();
            stats.merge_count += table.merge_count();
        }
        stats
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tree").field(&self.tree.id.0).finish()
    }
}
