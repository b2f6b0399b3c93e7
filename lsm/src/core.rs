//! What an engine's handles and threads share: the write path, and who decides
//! that a memtable is frozen.
//!
//! Locks, in the order in which they are taken:
//!
//! 1. `checkpointing`, or a tree's `compacting`: a checkpoint is written; its tables are rewritten or joined
//!    by others.
//! 2. `admin`: trees are created, forked or dropped.
//! 3. the commit log's: a batch is appended and applied, or a memtable frozen.
//! 4. a tree's other ones, and the gate's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::background::Signals;
use crate::batch::Operations;
use crate::commit_log::{Appending, BATCH_BYTES_MAX, Callback, CommitLog, Waited};
use crate::compaction::picker;
use crate::compaction::threads::CompactionThreads;
use crate::file_id::FileIds;
use crate::flush::FlushPace;
use crate::gate::{Lanes, Pressure, Stalls, WriteGate};
use crate::manifest::{Manifest, TreeRecord};
use crate::memtable::Memtable;
use crate::options::Background;
use crate::rate_limit::RateLimit;
use crate::retired::RetiredMemtables;
use crate::snapshot::SnapshotList;
use crate::sstable::ENTRY_BYTES_MAX;
use crate::stats::Counters;
use crate::tables::Tables;
use crate::tree::TreeCore;
use crate::version::{LEVEL_COUNT, Version};
use crate::{Error, Options, Result, TreeFormat, TreeId, WriteBatch, flush, pace};

/// An open engine's insides.
pub(crate) struct Core {
    pub(crate) fs: Arc<dyn vfs::FileSystem>,
    pub(crate) manifests_dir: std::path::PathBuf,
    pub(crate) ids: Arc<FileIds>,
    pub(crate) options: Options,
    pub(crate) tables: Tables,
    pub(crate) log: CommitLog,
    pub(crate) snapshots: SnapshotList,
    pub(crate) gate: WriteGate,
    pub(crate) signals: Signals,
    pub(crate) counters: Counters,
    pub(crate) trees: RwLock<BTreeMap<TreeId, Arc<TreeCore>>>,
    pub(crate) admin: Mutex<Admin>,
    /// Bytes of active memtables, and of frozen ones that no flush has written yet.
    pub(crate) active_bytes: AtomicUsize,
    pub(crate) frozen_bytes: AtomicUsize,
    /// Held while a checkpoint is written.
    pub(crate) checkpointing: Mutex<()>,
    /// Ingests that hold writers back.
    pub(crate) ingests_in_wait: AtomicUsize,
    pub(crate) retired: RetiredMemtables,
    pub(crate) flush_pace: FlushPace,
    pub(crate) lag: Lag,
    pub(crate) compaction_threads: CompactionThreads,
    pub(crate) rate_limit: RateLimit,
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

/// How far compactions of all trees are behind.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// Some tree's lane is not free.
    some_lag: AtomicBool,
    /// Some tree's lane is stopped.
    some_stop: AtomicBool,
    /// Of all trees.
    pub(crate) debt_bytes: AtomicU64,
}

/// What a write adds to a memtable beside its bytes, roughly.
const WRITE_OVERHEAD_BYTES: u64 = 160;

impl Core {
    /// Logs and applies `batch` and returns its last sequence number, waiting
    /// while the gate is closed.
    pub(crate) fn write(&self, mut batch: WriteBatch) -> Result<u64> {
        check_sizes(&batch)?;
        loop {
            self.retry_if_full()?;
            if !self.gate.is_calm() {
                self.catch_up_inline()?;
                self.gate.pass(&self.lanes(&batch)?, pace_bytes(&batch));
            }
            match self.append(batch)? {
                Ok(sequence) => return Ok(sequence),
                Err(refused) => batch = refused,
            }
            // The group is full.
            self.wait_durable(self.log.applied())?;
        }
    }

    /// Logs and applies `batch` and returns its last sequence number, or hands
    /// it back while the gate is closed.
    pub(crate) fn try_write(&self, batch: WriteBatch) -> Result<std::result::Result<u64, WriteBatch>> {
        check_sizes(&batch)?;
        match self.options.background {
            // Who must not wait for that is turned away meanwhile.
            Background::Threads if self.log.is_full() => self.log.turns.want(),
            Background::Threads => {}
            Background::Inline => self.retry_if_full()?,
        }
        if !self.gate.is_calm() {
            self.catch_up_inline()?;
            if !self.gate.try_pass(&self.lanes(&batch)?, pace_bytes(&batch)) {
                return Ok(Err(batch));
            }
        }
        self.append(batch)
    }

    /// Where the disk had no space for the log: tries again, since it may have some by now.
    fn retry_if_full(&self) -> Result<()> {
        if self.log.is_full() { self.wait_durable(self.log.applied()) } else { Ok(()) }
    }

    /// Takes the log's lock, where the log takes batches.
    pub(crate) fn lock_log(&self) -> Result<Appending<'_>> {
        self.retry_if_full()?;
        let appending = self.log.lock();
        appending.check()?;
        Ok(appending)
    }

    /// Does what keeps the gate closed, if that is the caller's work.
    fn catch_up_inline(&self) -> Result<()> {
        if self.options.background == Background::Inline { self.run_inline() } else { Ok(()) }
    }

    /// The lanes of the trees that `batch` writes to.
    fn lanes(&self, batch: &WriteBatch) -> Result<Lanes> {
        Ok(self.find_all(batch.trees())?.iter().map(|tree| Arc::clone(&tree.lane)).collect())
    }

    /// Calls `ready` once `batch` can be written, at once if it can now or never will.
    pub(crate) fn on_writable(&self, batch: &WriteBatch, ready: Box<dyn FnOnce() + Send>) {
        match self.lanes(batch) {
            Ok(lanes) => self.gate.on_open(lanes, ready),
            Err(_) => ready(),
        }
    }

    /// Logs and applies `batch`, or hands it back where the log's group is full.
    fn append(&self, batch: WriteBatch) -> Result<std::result::Result<u64, WriteBatch>> {
        if batch.is_empty() {
            return Ok(Ok(self.log.applied()));
        }
        let (last_sequence, is_step) = {
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
            let bytes: usize = apply(&trees, &batch, first_sequence);
            appending.publish();
            let active_bytes = self.active_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
            if active_bytes >= self.options.memtable_bytes_max / 2 {
                self.freeze_largest(&appending);
            }
            (first_sequence + count - 1, active_bytes % PACE_STEP_BYTES < bytes)
        };
        if self.stalls() != Stalls::default() || (is_step && self.may_lag()) {
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
        drop(self.lock_log()?);
        self.check_new(&admin, id)?;
        let operator = self.options.merge_operator(id, &format)?;
        // Whatever the log holds so far is not this tree's. A redo point is durable in the log before it
        // stands in a manifest, so that a recovery can tell when the log has lost its end.
        let redo_point = self.log.applied();
        self.wait_durable(redo_point)?;
        let record = TreeRecord { tree: id, format, redo_point, dropped_at: None, tables: BTreeMap::new() };
        let tree = Arc::new(TreeCore::new(self.create_manifest(record)?, Version::default(), operator));
        self.trees.write().insert(id, Arc::clone(&tree));
        Ok(tree)
    }

    /// Takes the log's lock, when the log takes batches and has room for a marker of the tree `id`.
    pub(crate) fn lock_log_with_room(&self, id: TreeId) -> Result<Appending<'_>> {
        let marker_bytes = WriteBatch::marker(id).bytes();
        loop {
            let appending = self.lock_log()?;
            if appending.has_room_for(marker_bytes) {
                return Ok(appending);
            }
            drop(appending);
            self.wait_durable(self.log.applied())?;
        }
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
            let _appending = self.lock_log()?;
            let Some(tree) = self.trees.write().remove(&id) else { return Ok(()) };
            // No write to it comes after this one.
            (tree, self.log.applied())
        };
        let manifest = tree.drop_at(dropped_at).inspect_err(|error| {
            if let Error::DiskFull = error {
                self.trees.write().insert(id, Arc::clone(&tree));
            }
            self.edit_failed(error);
        })?;
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

    /// Takes a memtable that is flushed from its tree's to those that are to be freed.
    pub(crate) fn retire(&self, memtable: Arc<Memtable>) {
        let appending = self.log.lock();
        self.retired.add(memtable);
        self.recount(&appending);
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
            let appending = self.lock_log()?;
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
        if let Err(Error::DiskFull) = synced {
            self.log.turns.turn_away();
            // Who waits at the gate for the group to be synced is to find out, too.
            self.update_gate();
            return Err(Error::DiskFull);
        }
        self.log.turns.pass_on();
        let synced = synced.inspect_err(|_| self.gate.abandon())?;
        if bytes > 0 {
            self.counters.synced(bytes);
        }
        if !self.gate.is_calm() {
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

    /// After an edit of a manifest failed: no more writes, unless it is known that nothing was changed.
    pub(crate) fn edit_failed(&self, cause: &Error) {
        if !matches!(cause, Error::DiskFull) {
            self.log.poison(cause);
            self.gate.abandon();
        }
    }

    /// Bytes of memtables: active ones, frozen ones, and those that a flush is about to free.
    fn memtable_bytes(&self) -> usize {
        let live = self.active_bytes.load(Ordering::Acquire) + self.frozen_bytes.load(Ordering::Acquire);
        live + self.retired.fresh_bytes()
    }

    fn stalls(&self) -> Stalls {
        Stalls::default()
            .and(Stalls::MEMTABLES, self.memtable_bytes() >= self.options.memtable_bytes_max)
            .and(Stalls::COMPACTIONS, self.lag.some_stop.load(Ordering::Acquire))
            .and(Stalls::INGEST, self.ingests_in_wait.load(Ordering::Acquire) > 0)
            .and(Stalls::LOG, self.syncable_bytes() >= self.options.log_buffer_bytes_max)
    }

    /// Bytes that wait for the next sync, and not for space on the disk: those hold nobody back, who would be
    /// turned away after all.
    fn syncable_bytes(&self) -> usize {
        if self.log.is_full() { 0 } else { self.log.gathered_bytes() }
    }

    /// Whether the pace may have to change with what was written.
    fn may_lag(&self) -> bool {
        self.frozen_bytes.load(Ordering::Acquire) > 0
            || self.syncable_bytes() >= self.options.log_buffer_bytes_max / 2
    }

    fn pressure(&self) -> Pressure {
        let stalls = self.stalls();
        if self.options.background == Background::Inline {
            // Whoever writes has done the work before: nothing lags.
            return Pressure { stalls, bytes_per_s: pace::UNLIMITED, trees_lag: false };
        }
        let room = self.options.memtable_bytes_max.saturating_sub(self.memtable_bytes());
        let unflushed = self.frozen_bytes.load(Ordering::Acquire);
        let unflushed = unflushed.saturating_sub(self.flush_pace.done_bytes());
        let of_memtables = pace::of_memtables(room, unflushed, self.flush_pace.bytes_per_s());
        let of_log = pace::of_log(self.syncable_bytes(), &self.options);
        let trees_lag = self.lag.some_lag.load(Ordering::Acquire);
        Pressure { stalls, bytes_per_s: of_memtables.min(of_log), trees_lag }
    }

    /// Opens or closes the gate, or sets its pace, as things are now.
    pub(crate) fn update_gate(&self) {
        self.gate.update(|| self.pressure());
    }

    /// Bytes of tables a level, of all trees.
    pub(crate) fn level_bytes(&self) -> Vec<u64> {
        let trees = self.all_trees();
        (0..LEVEL_COUNT)
            .map(|level| trees.iter().map(|tree| tree.state().version.level_bytes(level)).sum())
            .collect()
    }

    /// Sets the lanes of `trees`, which are all there are, as their compactions are now.
    fn update_lanes(&self, trees: &[Arc<TreeCore>]) {
        let options = &self.options;
        let (mut debt_bytes, mut some_lag, mut some_stop) = (0_u64, false, false);
        for tree in trees {
            let version = Arc::clone(&tree.state().version);
            let (l0_tables, debt) = (version.level(0).len(), picker::debt_bytes(&version, options));
            let is_stopped = pace::is_tree_stopped(l0_tables, debt, options);
            tree.lane.set(is_stopped, pace::of_tree(l0_tables, debt, options));
            debt_bytes += debt;
            some_stop |= is_stopped;
            some_lag |= !tree.lane.is_free();
        }
        self.lag.debt_bytes.store(debt_bytes, Ordering::Relaxed);
        self.lag.some_stop.store(some_stop, Ordering::Release);
        self.lag.some_lag.store(some_lag, Ordering::Release);
    }

    /// After a tree's tables or memtables changed: gives back log segments,
    /// tables and manifests that nothing needs, and writers their way.
    pub(crate) fn after_change(&self) {
        let trees = self.all_trees();
        self.recount(&self.log.lock());
        self.gate.update(|| {
            self.update_lanes(&trees);
            self.pressure()
        });
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
        while crate::compaction::compact_most_urgent(self, false)? {
            self.after_change();
        }
        self.retired.free(self.tables.cache());
        self.tables.sweeper().sweep();
        self.update_gate();
        Ok(())
    }
}

/// The pace is looked at anew each time memtables have grown by so much.
const PACE_STEP_BYTES: usize = 16 << 10;

/// What `batch` adds to memtables, roughly.
fn pace_bytes(batch: &WriteBatch) -> u64 {
    batch.bytes() as u64 + batch.len() as u64 * WRITE_OVERHEAD_BYTES
}

/// Refuses a batch that is larger than what can be logged or stored.
fn check_sizes(batch: &WriteBatch) -> Result<()> {
    if batch.bytes() > BATCH_BYTES_MAX {
        return Err(Error::BatchTooLarge { bytes: batch.bytes(), bytes_max: BATCH_BYTES_MAX });
    }
    if batch.entry_bytes() > ENTRY_BYTES_MAX {
        return Err(Error::EntryTooLarge { bytes: batch.entry_bytes(), bytes_max: ENTRY_BYTES_MAX });
    }
    Ok(())
}

/// Applies a batch to the trees it writes to, given in the batch's order.
/// Returns by how many bytes memtables grew.
fn apply(trees: &[Arc<TreeCore>], batch: &WriteBatch, first_sequence: u64) -> usize {
    let parts = trees.iter().zip(batch.trees());
    parts.map(|(tree, id)| apply_part(&tree.state().active, *id, batch.encoded(), first_sequence)).sum()
}

/// Applies what a batch writes to the tree `id`. Returns by how many bytes the memtable grew.
pub(crate) fn apply_part(memtable: &Memtable, id: TreeId, encoded: &[u8], first_sequence: u64) -> usize {
    let before = memtable.bytes();
    for (sequence, operation) in (first_sequence..).zip(Operations::new(encoded)) {
        let operation = operation.expect("batches are encoded by this crate, and verified by a recovery");
        if operation.tree == id {
            let (key, value) = (&encoded[operation.key], &encoded[operation.value]);
            memtable.insert(key, sequence, operation.kind, value);
        }
    }
    memtable.bytes() - before
}
