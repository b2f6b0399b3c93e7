//! One key space: what it is made of now, and reading it.
//!
//! A tree is a memtable that takes writes, frozen memtables that wait to be
//! flushed, and a `Version`. The three stand in one `TreeState`, replaced
//! as a whole, so that a reader takes one reference and no lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::core::Core;
use crate::gate::pace::Lane;
use crate::internal_key::LookupKey;
use crate::keep_decision::{KeepDecision, KeepDecisionFactory};
use crate::manifest::{Edit, Manifest};
use crate::memtable::Memtable;
use crate::merge_operator::TreeOperator;
use crate::sstable::{Blocking, FilterHash};
use crate::tables::table_ref::TableRef;
use crate::version::Version;
use crate::{Error, FilterKey, Iter, MergeOperator, Result, Snapshot, TreeFormat, compaction};

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

impl KeyRange {
    /// The keys that start with `prefix`.
    pub fn of_prefix(prefix: &[u8]) -> Self {
        let kept = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
        let mut end = prefix[..kept].to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start: Bytes::copy_from_slice(prefix), end: end.into() }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begins_by(key) && (self.end.is_empty() || *key < *self.end)
    }

    /// Whether it begins at `key` or before.
    #[inline]
    pub(crate) fn begins_by(&self, key: &[u8]) -> bool {
        // To compare no bytes is not free: where `memcmp` is a masked load, a processor may take some hundred
        // cycles to find out that it need not fault at what an empty slice points to.
        self.start.is_empty() || *self.start <= *key
    }

    /// The keys that are in both ranges, if there can be any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.start.clone().max(other.start.clone());
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => self.end.clone().min(other.end.clone()),
        };
        (end.is_empty() || start < end).then_some(Self { start, end })
    }

    /// Whether some key may be in both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        (other.end.is_empty() || self.start < other.end) && (self.end.is_empty() || other.start < self.end)
    }
}

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

/// A memtable that takes no more writes.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(crate) memtable: Arc<Memtable>,
    /// All of the tree's writes up to this sequence number are in it or in what was frozen before.
    pub(crate) redo_point: u64,
    /// Set once it is flushed: the tables that hold the tree up to the redo point and nothing beyond.
    pub(crate) flushed: Arc<OnceLock<Arc<Version>>>,
}

/// What a tree is made of at one moment.
#[derive(Debug)]
pub(crate) struct TreeState {
    pub(crate) active: Arc<Memtable>,
    /// Newest first.
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) version: Arc<Version>,
}

impl TreeState {
    /// The memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|frozen| &frozen.memtable))
    }
}

/// How far flushes of a tree are.
#[derive(Debug, Default)]
struct Progress {
    redo_point: u64,
    /// Flushes that failed so far, and why the last one did.
    failures: u64,
    failure: Option<Arc<Error>>,
    /// Nothing will be flushed any more.
    ended: bool,
}

/// A tree, shared by its handles, the engine and the background threads.
pub(crate) struct TreeCore {
    pub(crate) id: TreeId,
    pub(crate) format: TreeFormat,
    pub(crate) operator: TreeOperator,
    state: ArcSwap<TreeState>,
    /// Held while `state` is replaced.
    changing: Mutex<()>,
    /// None once the tree is dropped.
    manifest: Mutex<Option<Manifest>>,
    keep_decision: Mutex<Option<KeepDecisionFactory>>,
    /// Held by the one compaction that runs.
    pub(crate) compacting: Mutex<()>,
    /// What its writers pass.
    pub(crate) lane: Arc<Lane>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    redo_point: AtomicU64,
}

impl TreeCore {
    /// A tree with the operator that its format names.
    pub(crate) fn new(
        manifest: Manifest,
        version: Version,
        operator: Option<Arc<dyn MergeOperator>>,
    ) -> Self {
        let record = manifest.record();
        let redo_point = record.redo_point;
        let state =
            TreeState { active: Arc::new(Memtable::new()), frozen: Vec::new(), version: Arc::new(version) };
        Self {
            id: record.tree,
            format: record.format.clone(),
            operator: TreeOperator::new(record.tree, operator),
            state: ArcSwap::from_pointee(state),
            changing: Mutex::new(()),
            keep_decision: Mutex::new(None),
            compacting: Mutex::new(()),
            lane: Arc::default(),
            progress: Mutex::new(Progress { redo_point, ..Progress::default() }),
            progressed: Condvar::new(),
            redo_point: AtomicU64::new(redo_point),
            manifest: Mutex::new(Some(manifest)),
        }
    }

    pub(crate) fn state(&self) -> arc_swap::Guard<Arc<TreeState>> {
        self.state.load()
    }

    /// Writes up to here are in tables.
    pub(crate) fn redo_point(&self) -> u64 {
        self.redo_point.load(Ordering::Acquire)
    }

    /// The value of `user_key` at `sequence`, for folding operands onto it.
    pub(crate) fn value_at(&self, user_key: &[u8], sequence: u64) -> Result<Option<Bytes>> {
        let key = LookupKey::new(user_key, sequence, self.format.filter_key);
        self.state().get(&self.operator, &key, Blocking::Allowed)
    }

    pub(crate) fn keep_decision(&self) -> Option<Box<dyn KeepDecision>> {
        let factory = self.keep_decision.lock().clone();
        factory.map(|factory| factory())
    }

    fn change(&self, change: impl FnOnce(&TreeState) -> TreeState) {
        let _changing = self.changing.lock();
        let state = change(&self.state.load());
        self.state.store(Arc::new(state));
    }

    /// Puts a new memtable in place of the active one.
    ///
    /// REQUIRES: the caller holds the log's lock, and all up to `redo_point` is applied.
    pub(crate) fn freeze(&self, redo_point: u64) {
        self.change(|state| {
            let memtable = Arc::clone(&state.active);
            let frozen = Frozen { memtable, redo_point, flushed: Arc::default() };
            TreeState {
                active: Arc::new(Memtable::new()),
                frozen: std::iter::once(frozen).chain(state.frozen.iter().cloned()).collect(),
                version: Arc::clone(&state.version),
            }
        });
    }

    /// Makes `edit` durable and then visible, with `added` the tables that it
    /// adds; `flushed` is the frozen memtable that they hold. False if the
    /// tree was dropped meanwhile: then the tables are of no use.
    ///
    /// # Errors
    ///
    /// - [`Error::DiskFull`]: nothing was changed.
    /// - After any other one the manifest is in an unknown state: the engine must not write any more.
    pub(crate) fn install(
        &self,
        edit: &Edit,
        added: &[Arc<TableRef>],
        flushed: Option<&Arc<Memtable>>,
    ) -> Result<bool> {
        let mut manifest = self.manifest.lock();
        let Some(manifest) = manifest.as_mut() else { return Ok(false) };
        manifest.append(edit)?;
        let mut before = None;
        self.change(|state| {
            before = Some(Arc::clone(&state.version));
            let version = Arc::new(state.version.changed(&edit.removed, added));
            let is_flushed =
                |frozen: &Frozen| flushed.is_some_and(|flushed| Arc::ptr_eq(flushed, &frozen.memtable));
            let (flushed, frozen): (Vec<_>, _) = state.frozen.iter().cloned().partition(is_flushed);
            for frozen in flushed {
                // Nobody else sets it.
                _ = frozen.flushed.set(Arc::clone(&version));
            }
            TreeState { active: Arc::clone(&state.active), frozen, version }
        });
        let stays = |table: &TableRef| added.iter().any(|added| added.id() == table.id());
        let before = before.expect("the state was changed");
        for table in before.tables().filter(|table| edit.removed.contains(&table.id()) && !stays(table)) {
            table.retire();
        }
        if edit.redo_point > 0 {
            self.redo_point.fetch_max(edit.redo_point, Ordering::AcqRel);
            let mut progress = self.progress.lock();
            progress.redo_point = progress.redo_point.max(edit.redo_point);
            self.progressed.notify_all();
        }
        Ok(true)
    }

    /// Marks the tree dropped in its manifest and gives that up. `None` if it is dropped already.
    ///
    /// # Errors
    ///
    /// As those of [`TreeCore::install`].
    pub(crate) fn drop_at(&self, sequence: u64) -> Result<Option<Manifest>> {
        let mut slot = self.manifest.lock();
        let Some(manifest) = slot.as_mut() else { return Ok(None) };
        manifest.append(&Edit { dropped_at: Some(sequence), ..Edit::default() })?;
        let manifest = slot.take();
        drop(slot);
        for table in self.state().version.tables() {
            table.retire();
        }
        self.change(|state| TreeState {
            active: Arc::clone(&state.active),
            frozen: state.frozen.clone(),
            version: Arc::new(Version::default()),
        });
        self.end_flushes();
        Ok(manifest)
    }

    /// Tells those who wait for a flush that it failed.
    pub(crate) fn flush_failed(&self, error: Arc<Error>) {
        let mut progress = self.progress.lock();
        progress.failures += 1;
        progress.failure = Some(error);
        self.progressed.notify_all();
    }

    /// Tells those who wait for a flush that there will be none.
    pub(crate) fn end_flushes(&self) {
        self.progress.lock().ended = true;
        self.progressed.notify_all();
    }

    /// Waits until the redo point is at least `redo_point`.
    pub(crate) fn wait_for_flush(&self, redo_point: u64) -> Result<()> {
        let mut progress = self.progress.lock();
        let failures = progress.failures;
        loop {
            if progress.redo_point >= redo_point {
                return Ok(());
            }
            if progress.failures > failures {
                let failure = progress.failure.clone().expect("there was a failure");
                return Err(Error::Background(failure));
            }
            if progress.ended {
                return Err(Error::Closed);
            }
            self.progressed.wait(&mut progress);
        }
    }

    /// The least sequence number that is in a memtable; [`u64::MAX`] if none is.
    pub(crate) fn oldest_unflushed(&self) -> u64 {
        let state = self.state();
        state.memtables().map(|memtable| memtable.first_sequence()).min().unwrap_or(u64::MAX)
    }
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
    /// [`Error::WouldBlock`] names the block that is missing.
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

    pub(crate) fn state(&self) -> arc_swap::Guard<Arc<TreeState>> {
        self.tree.state()
    }

    /// Writes the memtable out and waits for it.
    ///
    /// # Errors
    ///
    /// - [`Error::Background`]: it failed; nothing is lost, and it is tried again.
    /// - [`Error::Closed`]: the engine was closed or the tree dropped.
    /// - [`Error::Poisoned`]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange { start: Bytes::from_static(start.as_bytes()), end: Bytes::from_static(end.as_bytes()) }
    }

    #[test]
    fn an_empty_end_is_past_every_key() {
        assert!(range("b", "").contains(b"\xff"));
        assert!(!range("b", "").contains(b"a"));
        assert!(!range("b", "c").contains(b"c"));
        assert!(range("b", "").overlaps(&range("", "c")));
        assert!(!range("b", "c").overlaps(&range("c", "")));
    }

    #[test]
    fn an_intersection_is_what_is_in_both() {
        assert_eq!(range("a", "m").intersection(&range("c", "")), Some(range("c", "m")));
        assert_eq!(range("a", "").intersection(&range("c", "")), Some(range("c", "")));
        assert_eq!(range("a", "c").intersection(&range("b", "z")), Some(range("b", "c")));
        assert_eq!(range("a", "c").intersection(&range("c", "z")), None);
    }

    #[test]
    fn the_range_of_a_prefix_ends_at_its_successor() {
        assert_eq!(KeyRange::of_prefix(b"ab"), range("ab", "ac"));
        assert_eq!(KeyRange::of_prefix(b"a\xff\xff").end, "b");
        assert_eq!(KeyRange::of_prefix(b"\xff").end, "");
        assert_eq!(KeyRange::of_prefix(b"").end, "");
    }
}
