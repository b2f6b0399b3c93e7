//! Trees, their log, and the threads that flush and compact: the public face.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::background::Threads;
use crate::core::Core;
use crate::log_store::LogStore;
use crate::options::Background;
use crate::tree::TreeCore;
use crate::{EngineStats, Options, Result, Snapshot, Tree, TreeFormat, TreeId, WriteBatch, recovery};

/// An open engine. Cheap to clone; the last clone's drop stops its threads.
#[derive(Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

/// What the clones of an engine share.
struct Handle {
    core: Arc<Core>,
    threads: Threads,
}

impl Handle {
    fn close(&self) -> Result<()> {
        let core = &self.core;
        core.log.close();
        core.gate.abandon();
        if core.options.background == Background::Inline {
            // Whether that fails is found below.
            let _synced = core.wait_durable(core.log.applied());
        }
        self.threads.stop(&core.signals);
        core.all_trees().iter().for_each(|tree| tree.end_flushes());
        core.admin.lock().lock = None;
        match core.log.lock().check() {
            Ok(()) | Err(crate::Error::Closed) => Ok(()),
            Err(failed) => Err(failed),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the engine was closed after a failure"
            );
        }
    }
}

/// A batch that is applied and not yet durable.
///
/// Waiting for it, registering a callback or dropping it makes the log sync
/// it. While it is only held nobody is in a hurry, until half of
/// [`Options::log_buffer_bytes_max`] has gathered.
#[must_use = "a batch is acknowledged only once it is durable"]
pub struct Commit {
    sequence: u64,
    core: Arc<Core>,
}

impl Commit {
    /// The last sequence number of the batch.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Waits until the batch is durable and visible to [`Engine::snapshot`]. If
    /// nobody syncs the log just then, the caller's thread does, for everybody.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Poisoned`]: the log failed, and whether the batch will
    /// be there after a reopening is unknown.
    pub fn wait(self) -> Result<()> {
        self.core.wait_durable(self.sequence)
    }

    /// Calls `done` once the batch is durable and visible, or has failed; from
    /// the sync thread, so `done` must be short.
    pub fn on_durable(self, done: impl FnOnce(Result<()>) + Send + 'static) {
        self.core.on_durable(self.sequence, Box::new(done));
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.core.want_durable(self.sequence);
    }
}

impl Engine {
    /// Opens the engine in `dir`, recovering what its log holds. `epoch` must be
    /// greater than that of any opening before.
    ///
    /// # Errors
    ///
    /// - [`crate::Error::Locked`], [`crate::Error::StaleEpoch`],
    ///   [`crate::Error::InvalidOption`]: nothing was changed.
    /// - [`crate::Error::UnknownMergeOperator`]: the options lack what some tree's format names.
    /// - [`crate::Error::Damaged`]: something that was durable is not there or
    ///   does not hold. Nothing was deleted that a recovery could use.
    /// - [`crate::Error::Io`]
    pub fn open(fs: Arc<dyn vfs::FileSystem>, dir: &Path, epoch: u64, options: Options) -> Result<Self> {
        Self::start(recovery::open(fs, dir, epoch, options, None)?)
    }

    /// Opens the engine in `dir` as [`Engine::open`] does, with its commit log in `log`.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::open`], and
    /// - [`crate::Error::Fenced`]: the log was taken over under a greater epoch.
    pub fn open_with_log(
        fs: Arc<dyn vfs::FileSystem>,
        dir: &Path,
        epoch: u64,
        options: Options,
        log: Arc<dyn LogStore>,
    ) -> Result<Self> {
        Self::start(recovery::open(fs, dir, epoch, options, Some(log))?)
    }

    fn start(core: Core) -> Result<Self> {
        let core = Arc::new(core);
        core.after_change();
        core.bound_log();
        let threads = match core.options.background {
            Background::Threads => Threads::start(&core),
            Background::Inline => {
                core.run_inline()?;
                Threads::default()
            }
        };
        core.signals.compaction_due();
        Ok(Self { handle: Arc::new(Handle { core, threads }) })
    }

    /// The trees that exist, in id order.
    pub fn trees(&self) -> Vec<Tree> {
        self.core().all_trees().into_iter().map(|tree| self.handle_of(tree)).collect()
    }

    /// The tree `id`, if it exists.
    pub fn tree(&self, id: TreeId) -> Option<Tree> {
        let tree = self.core().trees.read().get(&id).cloned();
        tree.map(|tree| self.handle_of(tree))
    }

    /// Creates the tree `id`, durably.
    ///
    /// # Errors
    ///
    /// - [`crate::Error::TreeExists`]: it exists, or was dropped of late.
    /// - [`crate::Error::UnknownMergeOperator`]: the options lack the operator that `format` names.
    /// - [`crate::Error::Io`]: it may exist after a reopening.
    pub fn create_tree(&self, id: TreeId, format: TreeFormat) -> Result<Tree> {
        Ok(self.handle_of(self.core().create_tree(id, format)?))
    }

    /// Drops the tree `id` and, once no reader is left, its files. Dropping one that is not there is no error.
    pub fn drop_tree(&self, id: TreeId) -> Result<()> {
        self.core().drop_tree(id)
    }

    /// Logs and applies `batch`, blocking while writes to its trees are stalled
    /// or paced: up to 50 ms where flushes, compactions or syncs lag behind, and
    /// beyond that only once they are at their limits.
    ///
    /// # Durability
    ///
    /// None yet: that is what the [`Commit`] is for.
    ///
    /// # Errors
    ///
    /// Nothing was written by
    /// - [`crate::Error::NoSuchTree`], [`crate::Error::NoMergeOperator`],
    /// - [`crate::Error::BatchTooLarge`], [`crate::Error::EntryTooLarge`],
    /// - [`crate::Error::Poisoned`], [`crate::Error::Closed`].
    pub fn write(&self, batch: WriteBatch) -> Result<Commit> {
        Ok(self.commit(self.core().write(batch)?))
    }

    /// Logs and applies `batch`, or hands it back where [`Engine::write`] would block.
    ///
    /// # Errors
    ///
    /// As [`Engine::write`].
    pub fn try_write(&self, batch: WriteBatch) -> Result<std::result::Result<Commit, WriteBatch>> {
        let written = self.core().try_write(batch)?;
        Ok(written.map(|sequence| self.commit(sequence)))
    }

    /// Calls `ready` once [`Engine::try_write`] would take `batch`, at once if it
    /// would now or one of its trees is gone. Others may write before who is called.
    pub fn on_writable(&self, batch: &WriteBatch, ready: impl FnOnce() + Send + 'static) {
        self.core().on_writable(batch, Box::new(ready));
    }

    /// What is durable now.
    pub fn snapshot(&self) -> Snapshot {
        self.core().snapshots.take(|| self.core().log.durable())
    }

    /// What is applied now, durable or not: for read-modify-writes, whose answer
    /// waits for a [`Commit`] that covers it.
    pub fn applied_snapshot(&self) -> Snapshot {
        self.core().snapshots.take(|| self.core().log.applied())
    }

    /// A commit that is done once everything applied so far is durable.
    pub fn barrier(&self) -> Commit {
        self.commit(self.core().log.applied())
    }

    /// Whether the engine takes writes, as far as is known.
    ///
    /// # Errors
    ///
    /// - [`crate::Error::DiskFull`]: not now.
    /// - [`crate::Error::Poisoned`], [`crate::Error::Fenced`], [`crate::Error::Closed`]: never again.
    pub fn check(&self) -> Result<()> {
        self.core().log.lock().check()
    }

    /// Figures of the engine now.
    pub fn stats(&self) -> EngineStats {
        let core = self.core();
        let log = core.log.figures();
        let (reserved_bytes, block_cache_bytes_max) = core.tables.cache().room();
        let reads = core.tables.cache().reads.counts();
        let mut stats = EngineStats {
            tree_count: core.trees.read().len(),
            active_memtable_bytes: core.active_bytes.load(Ordering::Relaxed) as u64,
            frozen_memtable_bytes: core.frozen_bytes.load(Ordering::Relaxed) as u64,
            log_segment_count: log.segment_count,
            log_bytes: log.bytes,
            block_cache_bytes: core.tables.cache().bytes(),
            kept_block_bytes: core.tables.cache().kept_bytes(),
            level_bytes: core.level_bytes(),
            block_cache_hit_count: reads.block_hits,
            block_cache_miss_count: reads.block_misses,
            filter_check_count: reads.filter_passes + reads.filter_rejections,
            filter_useful_count: reads.filter_rejections,
            compaction_debt_bytes: core.lag.debt_bytes.load(Ordering::Relaxed),
            block_cache_bytes_max,
            reserved_bytes,
            stalls: core.gate.stats(),
            snapshot_count: core.snapshots.len(),
            applied_sequence: core.log.applied(),
            durable_sequence: core.log.durable(),
            ..EngineStats::default()
        };
        core.counters.fill(&mut stats);
        stats
    }

    /// Flushes nothing, syncs the log and stops the threads. Calling it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Poisoned`]: the log had failed; the engine is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    fn commit(&self, sequence: u64) -> Commit {
        Commit { sequence, core: Arc::clone(self.core()) }
    }

    pub(crate) fn handle_of(&self, tree: Arc<TreeCore>) -> Tree {
        Tree::new(tree, Arc::clone(self.core()))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("log", &self.core().log).finish_non_exhaustive()
    }
}
