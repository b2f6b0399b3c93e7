//! Pressure: how much waits to be flushed, compacted or synced, for the gate to hold writers back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use crate::commit_log::Appending;
use crate::compaction::picker;
use crate::gate::pace;
use crate::gate::{Pressure, Stalls};
use crate::options::Background;
use crate::tree::TreeCore;
use crate::version::LEVEL_COUNT;

impl Core {
    /// Counts the bytes of all memtables anew.
    pub(super) fn recount(&self, _appending: &Appending<'_>) {
        let (mut active_bytes, mut frozen_bytes) = (0, 0);
        for tree in self.trees.read().values() {
            let state = tree.state();
            active_bytes += state.active.bytes();
            frozen_bytes += state.frozen.iter().map(|frozen| frozen.memtable.bytes()).sum::<usize>();
        }
        self.active_bytes.store(active_bytes, Ordering::Release);
        self.frozen_bytes.store(frozen_bytes, Ordering::Release);
    }

    /// Bytes of memtables: active ones, frozen ones, and those that a flush is about to free.
    pub(super) fn memtable_bytes(&self) -> usize {
        let live = self.active_bytes.load(Ordering::Acquire) + self.frozen_bytes.load(Ordering::Acquire);
        live + self.retired.fresh_bytes()
    }

    pub(super) fn stalls(&self) -> Stalls {
        Stalls::default()
            .and(Stalls::MEMTABLES, self.memtable_bytes() >= self.options.memtable_bytes_max)
            .and(Stalls::COMPACTIONS, self.lag.some_stop.load(Ordering::Acquire))
            .and(Stalls::INGEST, self.ingests_in_wait.load(Ordering::Acquire) > 0)
            .and(Stalls::LOG, self.syncable_bytes() >= self.options.log_buffer_bytes_max)
    }

    /// Bytes that wait for the next sync, and not for space on the disk: those hold nobody back, who would be
    /// turned away after all.
    pub(super) fn syncable_bytes(&self) -> usize {
        if self.log.is_full() { 0 } else { self.log.gathered_bytes() }
    }

    /// Whether the pace may have to change with what was written.
    pub(super) fn may_lag(&self) -> bool {
        self.frozen_bytes.load(Ordering::Acquire) > 0
            || self.syncable_bytes() >= self.options.log_buffer_bytes_max / 2
    }

    pub(super) fn pressure(&self) -> Pressure {
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
    pub(super) fn update_lanes(&self, trees: &[Arc<TreeCore>]) {
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
}
