//! What a tree's handles, the engine and its threads share of it: its state, replaced as a whole, and its manifest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::TreeId;
use crate::gate::pace::Lane;
use crate::internal_key::LookupKey;
use crate::keep_decision::{KeepDecision, KeepDecisionFactory};
use crate::manifest::{Edit, Manifest};
use crate::memtable::Memtable;
use crate::merge_operator::TreeOperator;
use crate::sstable::Blocking;
use crate::tables::table_ref::TableRef;
use crate::version::Version;
use crate::{Error, MergeOperator, Options, Result, TreeFormat, TreeTuning};

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
    tuning: Mutex<TreeTuning>,
    pub(super) keep_decision: Mutex<Option<KeepDecisionFactory>>,
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
            tuning: Mutex::default(),
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

    /// How tables are written and kept now.
    pub(crate) fn tuning(&self) -> TreeTuning {
        *self.tuning.lock()
    }

    /// Bytes of the data blocks of new tables.
    pub(crate) fn block_bytes(&self, options: &Options) -> usize {
        self.tuning().block_bytes.unwrap_or(options.block_bytes)
    }

    /// Writes and keeps tables like this from now on.
    pub(super) fn set_tuning(&self, tuning: TreeTuning) {
        *self.tuning.lock() = tuning;
        self.state().version.tables().for_each(|table| table.set_kept(tuning.in_memory));
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
        if self.tuning().in_memory {
            // Before anybody reads them: who reads what is in memory is not to wait for the disk.
            added.iter().for_each(|table| table.load());
        }
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
