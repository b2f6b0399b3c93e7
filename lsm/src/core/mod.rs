//! What an engine's handles and threads share.
//!
//! - [`writing`]: a batch's way through the gate and the log to memtables.
//! - [`syncing`]: who makes the log durable, and who waits for it.
//! - [`freezing`]: which memtables are flushed, and when.
//! - [`pressure`]: how much waits, for the gate to hold writers back.
//!
//! Locks, in the order in which they are taken:
//!
//! 1. `checkpointing`, or a tree's `compacting`: a checkpoint is written; its tables are rewritten or joined
//!    by others.
//! 2. `admin`: trees are created, forked or dropped.
//! 3. the commit log's: a batch is appended and applied, or a memtable frozen.
//! 4. a tree's other ones, and the gate's.

mod freezing;
mod pressure;
mod syncing;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

pub(crate) use self::writing::apply_part;
use crate::background::Signals;
use crate::commit_log::CommitLog;
use crate::compaction::threads::CompactionThreads;
use crate::file_id::FileIds;
use crate::flush::FlushPace;
use crate::gate::WriteGate;
use crate::manifest::{Manifest, TreeRecord};
use crate::memtable::retired::RetiredMemtables;
use crate::rate_limit::RateLimit;
use crate::snapshot::SnapshotList;
use crate::stats::Counters;
use crate::tables::Tables;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Error, Options, Result, TreeFormat, TreeId, flush};

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

impl Core {
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

    /// After an edit of a manifest failed: no more writes, unless it is known that nothing was changed.
    pub(crate) fn edit_failed(&self, cause: &Error) {
        if !matches!(cause, Error::DiskFull) {
            self.log.poison(cause);
            self.gate.abandon();
        }
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
