//! What an engine's handles and threads share: the write path, and who decides
//! that a memtable is frozen.
//!
//! Locks, in the order in which they are taken:
//!
//! 1. `admin`: trees are created or dropped.
//! 2. the commit log's: a batch is appended and applied, or a memtable frozen.
//! 3. a tree's, and the gate's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::background::Signals;
use crate::batch::Operations;
use crate::commit_log::{Appending, BATCH_BYTES_MAX, Callback, CommitLog, Waited};
use crate::file_id::FileIds;
use crate::gate::{Stalls, WriteGate};
use crate::internal_key::Kind;
use crate::manifest::{Manifest, TreeRecord};
use crate::memtable::Memtable;
use crate::options::Background;
use crate::snapshot::SnapshotList;
use crate::sstable::ENTRY_BYTES_MAX;
use crate::stats::Counters;
use crate::tables::Tables;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Error, Options, Result, TreeFormat, TreeId, WriteBatch, flush};

/// An open engine's insides.
pub(crate) struct Core {
    pub(crate) fs: Arc<dyn vfs::FileSystem>,
    pub(crate) manifests_dir: std::path::PathBuf,
    pub(crate) ids: Arc<FileIds>,
    pub(crate) options: Options,
    pub(crate) tables: Tables,
    pub(crate) log: CommitLog,
    pub(crate) snapshots: Arc<SnapshotList>,
    pub(crate) gate: WriteGate,
    pub(crate) signals: Signals,
    pub(crate) counters: Counters,
    pub(crate) trees: RwLock<BTreeMap<TreeId, Arc<TreeCore>>>,
    pub(crate) admin: Mutex<Admin>,
    /// Bytes of active memtables, and of frozen ones that no flush has written yet.
    pub(crate) active_bytes: AtomicUsize,
    pub(crate) frozen_bytes: AtomicUsize,
    /// The most tables that any tree has in level 0.
    pub(crate) l0_tables: AtomicUsize,
    /// Ingests that hold writers back.
    pub(crate) ingests_in_wait: AtomicUsize,
    /// Held while background work is done in a caller's thread.
    pub(crate) running_inline: Mutex<()>,
}

/// What creating and dropping trees needs.
pub(crate) struct Admin {
    /// Manifests of dropped trees: kept while the log may hold writes to them.
    pub(crate) dropped: Vec<Manifest>,
    /// Held as long as the engine is open.
    pub(crate) lock: Option<Box<dyn vfs::FileLock>>,
}

impl Core {
    /// Logs and applies `batch` and returns its last sequence number, or hands
    /// it back while the gate is closed.
    pub(crate) fn try_write(&self, batch: WriteBatch) -> Result<std::result::Result<u64, WriteBatch>> {
        if batch.bytes() > BATCH_BYTES_MAX {
            return Err(Error::BatchTooLarge { bytes: batch.bytes(), bytes_max: BATCH_BYTES_MAX });
        }
        if batch.entry_bytes() > ENTRY_BYTES_MAX {
            return Err(Error::EntryTooLarge { bytes: batch.entry_bytes(), bytes_max: ENTRY_BYTES_MAX });
        }
        if batch.is_empty() {
            return Ok(Ok(self.log.applied()));
        }
        if !self.gate.is_open() {
            if self.options.background == Background::Inline {
                self.run_inline()?;
            }
            if !self.gate.is_open() {
                return Ok(Err(batch));
            }
        }
        let last_sequence = {
            let mut appending = self.log.lock();
            appending.check()?;
            if !appending.has_room_for(batch.bytes()) {
                return Ok(Err(batch));
            }
            let trees = self.find_all(batch.trees())?;
            for merged in batch.merged_trees() {
                let tree = trees.iter().find(|tree| tree.id == *merged).expect("it is one of the trees");
                tree.operator.required()?;
            }
            let count = batch.len() as u64;
            let first_sequence = appending.append(batch.encoded(), batch.len());
            let bytes: usize = apply(&trees, batch, first_sequence);
            appending.publish();
            let active_bytes = self.active_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
            if active_bytes >= self.options.memtable_bytes_max / 2 {
                self.freeze_largest(&appending);
            }
            first_sequence + count - 1
        };
        if self.stalls() != Stalls::default() {
            self.update_gate();
        }
        // Commits that are held and not waited for must not close the gate for good.
        if self.log.gathered_bytes() >= self.options.log_buffer_bytes_max / 2 {
            self.log.turns.want();
        }
        if self.options.background == Background::Inline {
            self.run_inline()?;
        }
        Ok(Ok(last_sequence))
    }

    pub(crate) fn find_all(&self, ids: &[TreeId]) -> Result<SmallVec<[Arc<TreeCore>; 4]>> {
        let trees = self.trees.read();
        ids.iter().map(|id| trees.get(id).cloned().ok_or(Error::NoSuchTree(*id))).collect()
    }

    /// The trees that exist, in id order.
    pub(crate) fn all_trees(&self) -> Vec<Arc<TreeCore>> {
        self.trees.read().values().cloned().collect()
    }

    /// Creates a tree, durably.
    pub(crate) fn create_tree(&self, id: TreeId, format: TreeFormat) -> Result<Arc<TreeCore>> {
        let admin = self.admin.lock();
        self.log.lock().check()?;
        self.check_new(&admin, id)?;
        let operator = self.options.merge_operator(id, &format)?;
        // Whatever the log holds so far is not this tree's.
        let redo_point = self.log.applied();
        let record = TreeRecord { tree: id, format, redo_point, dropped_at: None, tables: BTreeMap::new() };
        let tree = Arc::new(TreeCore::new(self.create_manifest(record)?, Version::default(), operator));
        self.trees.write().insert(id, Arc::clone(&tree));
        Ok(tree)
    }

    /// Writes the first manifest of a tree.
    pub(crate) fn create_manifest(&self, record: TreeRecord) -> Result<Manifest> {
        Manifest::create(Arc::clone(&self.fs), &self.manifests_dir, Arc::clone(&self.ids), record)
    }

    /// Fails if there is a tree `id`, or the log may still know one.
    pub(crate) fn check_new(&self, admin: &Admin, id: TreeId) -> Result<()> {
        let was_dropped = admin.dropped.iter().any(|manifest| manifest.record().tree == id);
        if was_dropped || self.trees.read().contains_key(&id) { Err(Error::TreeExists(id)) } else { Ok(()) }
    }

    /// Drops a tree, durably; its files go with their last readers.
    pub(crate) fn drop_tree(&self, id: TreeId) -> Result<()> {
        let mut admin = self.admin.lock();
        let (tree, dropped_at) = {
            let appending = self.log.lock();
            appending.check()?;
            let Some(tree) = self.trees.write().remove(&id) else { return Ok(()) };
            // No write to it comes after this one.
            (tree, self.log.applied())
        };
        let manifest = tree.drop_at(dropped_at).inspect_err(|error| self.poison(error))?;
        admin.dropped.extend(manifest);
        drop(admin);
        self.tables.sweeper().sweep();
        self.after_change();
        Ok(())
    }

    /// Counts the bytes of all memtables anew.
    fn recount(&self, _appending: &Appending<'_>) {
        let (mut active_bytes, mut frozen_bytes) = (0, 0);
        for tree in self.trees.read().values() {
            let state = tree.state();
            active_bytes += state.active.bytes();
            frozen_bytes += state.frozen.iter().map(|frozen| frozen.memtable.bytes()).sum::<usize>();
        }
        self.active_bytes.store(active_bytes, Ordering::Release);
        self.frozen_bytes.store(frozen_bytes, Ordering::Release);
    }

    /// Freezes the largest active memtable, to be flushed.
    fn freeze_largest(&self, appending: &Appending<'_>) {
        let largest = self.trees.read().values().max_by_key(|tree| tree.state().active.bytes()).cloned();
        if let Some(largest) = largest {
            self.freeze(&largest, appending);
        }
    }

    /// Freezes a tree's active memtable, to be flushed. Returns the redo point to wait for.
    pub(crate) fn freeze(&self, tree: &Arc<TreeCore>, appending: &Appending<'_>) -> u64 {
        let state = tree.state();
        if state.active.is_empty() {
            return state.frozen.first().map_or(0, |newest| newest.redo_point);
        }
        drop(state);
        let redo_point = self.log.applied();
        tree.freeze(redo_point);
        self.recount(appending);
        self.signals.queue_flush(Arc::clone(tree));
        redo_point
    }

    /// Freezes and flushes a tree, and waits for it.
    pub(crate) fn flush(&self, tree: &Arc<TreeCore>) -> Result<()> {
        let redo_point = {
            let appending = self.log.lock();
            appending.check()?;
            if !self.trees.read().contains_key(&tree.id) {
                return Err(Error::NoSuchTree(tree.id));
            }
            self.freeze(tree, &appending)
        };
        if self.options.background == Background::Inline {
            self.run_inline()?;
        }
        tree.wait_for_flush(redo_point)
    }

    /// Freezes the trees that pin the oldest segment while the log takes more than it may.
    pub(crate) fn bound_log(&self) {
        if self.log.figures().bytes <= self.options.log_bytes_max {
            return;
        }
        let Some(oldest_end) = self.log.oldest_sealed_end() else { return };
        let appending = self.log.lock();
        let trees = self.all_trees();
        for tree in trees.iter().filter(|tree| tree.state().active.first_sequence() <= oldest_end) {
            self.freeze(tree, &appending);
        }
    }

    /// Takes the turn that the caller was given: writes and syncs what has
    /// gathered in the log, and passes the turn on.
    pub(crate) fn take_turn(&self) -> Result<()> {
        self.log.turns.begin();
        let synced = self.log.sync_gathered();
        let bytes = synced.as_ref().map_or(0, |synced| synced.bytes);
        self.log.turns.pass_on(self.pace(bytes as u64));
        let synced = synced.inspect_err(|_| self.gate.abandon())?;
        if bytes > 0 {
            self.counters.synced(bytes);
        }
        if !self.gate.is_open() {
            self.update_gate();
        }
        if synced.rotated {
            self.bound_log();
        }
        if synced.half_full {
            match self.options.background {
                Background::Threads => self.signals.want_segment(),
                Background::Inline => self.prepare_segment(),
            }
        }
        Ok(())
    }

    /// Prepares the log's next segment.
    pub(crate) fn prepare_segment(&self) {
        if let Err(error) = self.log.prepare_segment() {
            // Whoever needs the segment will meet the same failure, or none.
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot prepare a segment of the log");
        }
    }

    /// Waits until `sequence` is durable, which the caller's thread sees to if nobody else does already.
    pub(crate) fn wait_durable(&self, sequence: u64) -> Result<()> {
        while self.log.turns.wait(sequence)? == Waited::Lead {
            self.take_turn()?;
        }
        Ok(())
    }

    /// Calls `done` once `sequence` is durable, or never will be.
    pub(crate) fn on_durable(&self, sequence: u64, done: Callback) {
        self.log.turns.on_durable(sequence, done);
        if self.options.background == Background::Inline {
            // The outcome goes to `done`.
            let _told = self.wait_durable(sequence);
            self.log.turns.call_back();
        }
    }

    /// Sees to it that `sequence`, which nobody waits for, becomes durable soon.
    pub(crate) fn want_durable(&self, sequence: u64) {
        if self.log.durable() < sequence {
            self.log.turns.want();
        }
    }

    /// After the engine's files are in an unknown state: no more writes.
    pub(crate) fn poison(&self, cause: &Error) {
        self.log.poison(cause);
        self.gate.abandon();
    }

    fn stalls(&self) -> Stalls {
        let memtables = self.active_bytes.load(Ordering::Acquire) + self.frozen_bytes.load(Ordering::Acquire);
        Stalls::default()
            .and(Stalls::MEMTABLES, memtables >= self.options.memtable_bytes_max)
            .and(Stalls::L0, self.l0_tables.load(Ordering::Acquire) >= self.options.l0_stop)
            .and(Stalls::INGEST, self.ingests_in_wait.load(Ordering::Acquire) > 0)
            .and(Stalls::LOG, self.log.gathered_bytes() >= self.options.log_buffer_bytes_max)
    }

    /// Opens or closes the gate as things are now.
    pub(crate) fn update_gate(&self) {
        self.gate.update(|| self.stalls());
    }

    /// After a tree's tables or memtables changed: gives back log segments,
    /// tables and manifests that nothing needs, and writers their way.
    pub(crate) fn after_change(&self) {
        let trees = self.all_trees();
        let l0_tables = trees.iter().map(|tree| tree.state().version.level(0).len()).max().unwrap_or(0);
        self.l0_tables.store(l0_tables, Ordering::Release);
        self.recount(&self.log.lock());
        self.update_gate();
        let oldest = trees.iter().map(|tree| tree.oldest_unflushed()).min().unwrap_or(u64::MAX);
        let released = self.log.release_before(oldest).and_then(|()| self.forget_dropped());
        if let Err(error) = released {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot remove what is not needed any more"
            );
        }
    }

    /// Removes the manifests of dropped trees that the log holds no write to.
    pub(crate) fn forget_dropped(&self) -> Result<()> {
        let first_sequence = self.log.figures().first_sequence;
        // A tree that is being dropped looks after this itself.
        let Some(mut admin) = self.admin.try_lock() else { return Ok(()) };
        let is_past =
            |manifest: &Manifest| manifest.record().dropped_at.is_some_and(|at| at < first_sequence);
        let past: Vec<_> = admin.dropped.extract_if(.., |manifest| is_past(manifest)).collect();
        past.into_iter().try_for_each(Manifest::remove)
    }

    /// How long the log rests after a group of `bytes`, so that compactions
    /// keep up: nothing below `l0_slowdown`, then ever more.
    pub(crate) fn pace(&self, bytes: u64) -> Duration {
        /// At the beginning of the slope; proportionally less towards `l0_stop`.
        const BYTES_PER_S: u64 = 64 << 20;
        let options = &self.options;
        let l0_tables = self.l0_tables.load(Ordering::Acquire).min(options.l0_stop);
        if l0_tables < options.l0_slowdown {
            return Duration::ZERO;
        }
        let slope = (options.l0_stop - options.l0_slowdown) as u64;
        let left = (options.l0_stop - l0_tables).max(1) as u64;
        let us = bytes.saturating_mul(1_000_000) / (BYTES_PER_S * left / slope).max(1);
        Duration::from_micros(us).min(Duration::from_millis(100))
    }

    /// Does all background work that is due, in the caller's thread.
    pub(crate) fn run_inline(&self) -> Result<()> {
        // A commit's callback may write, and come back here: the outer call does its work too.
        let Some(_running) = self.running_inline.try_lock() else { return Ok(()) };
        if self.log.gathered_bytes() >= self.options.log_buffer_bytes_max {
            self.wait_durable(self.log.applied())?;
        }
        while let Some(tree) = self.signals.take_flush() {
            flush::flush_oldest(self, &tree).inspect_err(|_| self.signals.return_flush(tree))?;
            self.after_change();
        }
        while crate::compaction::compact_most_urgent(self)? {
            self.after_change();
        }
        self.tables.sweeper().sweep();
        self.update_gate();
        Ok(())
    }
}

/// Applies a batch to the trees it writes to, given in the batch's order.
/// Returns by how many bytes memtables grew.
fn apply(trees: &[Arc<TreeCore>], batch: WriteBatch, first_sequence: u64) -> usize {
    if let [tree] = trees {
        let state = tree.state();
        let encoded = batch.into_encoded();
        return apply_whole(&state.active, encoded, first_sequence);
    }
    let ids: SmallVec<[TreeId; 4]> = batch.trees().into();
    let encoded = batch.into_encoded();
    trees
        .iter()
        .zip(ids)
        .map(|(tree, id)| apply_part(&tree.state().active, id, &encoded, first_sequence))
        .sum()
}

/// Applies a batch that writes to one tree only: its buffer becomes the memtable's.
pub(crate) fn apply_whole(memtable: &Memtable, encoded: Vec<u8>, first_sequence: u64) -> usize {
    let before = memtable.bytes();
    let _guard = crossbeam_epoch::pin();
    memtable.charge_buffer(encoded.capacity());
    let encoded = Bytes::from(encoded);
    for (sequence, operation) in (first_sequence..).zip(Operations::new(&encoded)) {
        let operation = operation.expect("batches are encoded by this crate, and verified by a recovery");
        let (key, value) = (encoded.slice(operation.key), encoded.slice(operation.value));
        memtable.insert(key, sequence, operation.kind, value);
    }
    memtable.bytes() - before
}

/// Applies what a batch writes to the tree `id`. The bytes are copied, so that
/// the memtable of a tree which is flushed seldom does not keep those of others.
pub(crate) fn apply_part(memtable: &Memtable, id: TreeId, encoded: &[u8], first_sequence: u64) -> usize {
    let before = memtable.bytes();
    let _guard = crossbeam_epoch::pin();
    let mut copied = Vec::new();
    let mut writes: SmallVec<[(u64, Kind, usize, usize); 8]> = SmallVec::new();
    for (sequence, operation) in (first_sequence..).zip(Operations::new(encoded)) {
        let operation = operation.expect("batches are encoded by this crate, and verified by a recovery");
        if operation.tree == id {
            copied.extend_from_slice(&encoded[operation.key.clone()]);
            copied.extend_from_slice(&encoded[operation.value.clone()]);
            writes.push((sequence, operation.kind, operation.key.len(), operation.value.len()));
        }
    }
    copied.shrink_to_fit();
    memtable.charge_buffer(copied.capacity());
    let mut rest = Bytes::from(copied);
    for (sequence, kind, key_bytes, value_bytes) in writes {
        let key = rest.split_to(key_bytes);
        let value = rest.split_to(value_bytes);
        memtable.insert(key, sequence, kind, value);
    }
    memtable.bytes() - before
}
