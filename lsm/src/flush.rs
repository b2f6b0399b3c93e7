//! Flushes (minor compactions): a frozen memtable becomes a table of level 0.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::compaction::rewrite::{Below, Others, Progress, Rewrite, buffer_bytes};
use crate::core::Core;
use crate::iter::merge::MergingCursor;
use crate::iter::source::Source;
use crate::manifest::Edit;
use crate::rate_limit::Urgency;
use crate::tables::Tables;
use crate::tables::table_ref::TableRef;
use crate::tree::{Frozen, TreeCore};
use crate::{Error, KeyRange, Result};

/// How far the flush that runs is and how fast flushes are: what writers are paced by.
#[derive(Debug)]
pub(crate) struct FlushPace {
    /// Of the memtable that is being flushed, bytes done.
    done_bytes: AtomicUsize,
    /// Bytes of memtables a second.
    bytes_per_s: AtomicU64,
}

impl Default for FlushPace {
    fn default() -> Self {
        /// Assumed until there was a flush.
        const BYTES_PER_S: u64 = 64 << 20;
        Self { done_bytes: AtomicUsize::new(0), bytes_per_s: AtomicU64::new(BYTES_PER_S) }
    }
}

impl FlushPace {
    pub(crate) fn done_bytes(&self) -> usize {
        self.done_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s.load(Ordering::Relaxed)
    }

    /// Says that so many of a memtable's entries are written.
    fn advance(&self, memtable_bytes: usize, entry_count: usize, written_count: u64) {
        /// The rest is the sync of table and manifest, and giving back the memory.
        const PERCENT_OF_WRITING: usize = 85;
        let entry_count = entry_count.max(1);
        let written_count = usize::try_from(written_count).unwrap_or(usize::MAX).min(entry_count);
        let percent = written_count.saturating_mul(PERCENT_OF_WRITING) / entry_count;
        self.done_bytes.store(memtable_bytes / 100 * percent, Ordering::Relaxed);
    }

    /// Says that the memtable is flushed and no flush runs.
    fn finished(&self, memtable_bytes: usize, took: Duration) {
        /// Less tells nothing of a pace.
        const BYTES_MIN: usize = 1 << 20;
        self.done_bytes.store(0, Ordering::Relaxed);
        if memtable_bytes >= BYTES_MIN {
            let bytes_per_s = memtable_bytes as u128 * 1_000_000 / took.as_micros().max(1);
            let bytes_per_s = u64::try_from(bytes_per_s).unwrap_or(u64::MAX);
            self.bytes_per_s.store(self.bytes_per_s() / 2 + bytes_per_s / 2, Ordering::Relaxed);
        }
    }
}

/// Flushes the tree's oldest frozen memtable, if it has one.
///
/// # Errors
///
/// Nothing is lost: the memtable stays, and the log with it.
pub(crate) fn flush_oldest(core: &Core, tree: &TreeCore) -> Result<()> {
    let Some(oldest) = tree.state().frozen.last().cloned() else { return Ok(()) };
    // A table must not hold what a power cut takes out of the log, or half a batch would survive.
    core.wait_durable(oldest.redo_point)?;
    let started = Instant::now();
    let (memtable_bytes, entry_count) = (oldest.memtable.bytes(), oldest.memtable.entry_count());
    let spent_bytes = Cell::new(0);
    let report = |progress: Progress| {
        let bytes = progress.written_bytes - spent_bytes.replace(progress.written_bytes);
        core.rate_limit.spend(bytes, Urgency::Flush, &core.signals)?;
        core.flush_pace.advance(memtable_bytes, entry_count, progress.entry_count);
        core.update_gate();
        Ok(())
    };
    let tables = write_out(&core.tables, tree, &oldest, core.snapshots.sequences(), &report)?;
    let bytes: u64 = tables.iter().map(|table| table.record().file_bytes).sum();
    let installed = install(tree, &oldest, &tables);
    if let Ok(false) | Err(Error::DiskFull) = installed {
        tables.iter().for_each(|table| table.retire());
    }
    if installed.inspect_err(|error| core.edit_failed(error))? {
        core.counters.flushed(bytes);
    }
    core.retire(oldest.memtable);
    core.retired.free(core.tables.cache());
    core.flush_pace.finished(memtable_bytes, started.elapsed());
    Ok(())
}

/// Writes a frozen memtable to a table of level 0.
pub(crate) fn write_out(
    tables: &Tables,
    tree: &TreeCore,
    frozen: &Frozen,
    snapshots: Vec<u64>,
    report: &dyn Fn(Progress) -> Result<()>,
) -> Result<Vec<Arc<TableRef>>> {
    let _buffers = tables.cache().reserve(buffer_bytes(0, 0));
    let rewrite = Rewrite {
        tables,
        format: &tree.format,
        tuning: tree.tuning(),
        level: 0,
        range: KeyRange::default(),
        table_bytes: u64::MAX,
        snapshots,
        below: Below::Anything,
        above: Others::default(),
        operator: &tree.operator,
        value_at: &|key, sequence| tree.value_at(key, sequence),
        keep_decision: None,
        report,
    };
    let merged = MergingCursor::new(vec![Source::memtable(&frozen.memtable)]);
    rewrite.run(merged, &frozen.memtable.tombstones().to_fragmented())
}

/// Puts a flushed memtable's tables in its place. False if the tree was dropped.
pub(crate) fn install(tree: &TreeCore, flushed: &Frozen, tables: &[Arc<TableRef>]) -> Result<bool, Error> {
    let added = tables.iter().map(|table| table.record().clone()).collect();
    let edit = Edit { redo_point: flushed.redo_point, added, ..Edit::default() };
    tree.install(&edit, tables, Some(&flushed.memtable))
}
