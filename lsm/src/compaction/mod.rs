//! Compactions: fewer tables, sorted deeper, without what is not seen any more.
//!
//! Leveled, as LevelDB and RocksDB do it: level 0 by its number of tables, each
//! deeper one by its bytes. One compaction a tree at a time; the threads work
//! through what is most urgent over all trees, and those that find nothing help
//! with a large one.
//!
//! - [`picker`]: what is most urgent, and which tables it takes. Pure.
//! - [`parts`]: a compaction's key range cut into parts for several threads. Pure.
//! - [`threads`]: how many there are and may be.
//! - [`fold`]: merge operands are folded where it can be done.
//! - [`rewrite`]: which versions and tombstones survive, and the tables written.

mod fold;
mod parts;
pub(crate) mod picker;
#[cfg(test)]
mod picks;
pub(crate) mod rewrite;
pub(crate) mod threads;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::core::Core;
use crate::iter::merge::MergingCursor;
use crate::iter::source::Source;
use crate::manifest::Edit;
use crate::range_tombstone::FragmentedTombstones;
use crate::rate_limit::Urgency;
use crate::sstable::ReadMode;
use crate::tables::table_ref::TableRef;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Error, KeyRange, Result};

use self::picker::{Moment, Pick};
use self::rewrite::{Below, Others, Progress, Rewrite};
use self::threads::Permits;

/// Does the compaction that is most urgent over all trees; false if none is due
/// or as many threads compact as may.
///
/// # Errors
///
/// Nothing is lost; what was written of the output is deleted.
pub(crate) fn compact_most_urgent(core: &Core, is_idle: bool) -> Result<bool> {
    let Some(permits) = core.compaction_threads.take(1) else { return Ok(false) };
    let moment = Moment { oldest_snapshot: core.snapshots.sequences().first().copied(), is_idle };
    let trees = core.all_trees().into_iter();
    let due = |tree: &TreeCore| picker::due(&tree.state().version, &core.options, moment);
    let mut due_trees: Vec<_> = trees.filter_map(|tree| due(&tree).map(|due| (due.percent, tree))).collect();
    due_trees.sort_by_key(|(percent, _)| std::cmp::Reverse(*percent));
    for (_, tree) in due_trees {
        // Somebody compacts that one already.
        let Some(_compacting) = tree.compacting.try_lock() else { continue };
        let version = Arc::clone(&tree.state().version);
        let due = picker::due(&version, &core.options, moment);
        if let Some(pick) = due.and_then(|due| picker::pick(&version, due)) {
            // Whoever else compacts may find something in another tree.
            core.signals.compaction_due();
            run(core, &tree, &version, &pick, permits)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rewrites all tables of a tree into its lowest level, in the caller's thread
/// and, as far as they are free, others that compact.
pub(crate) fn compact_all(core: &Core, tree: &TreeCore) -> Result<()> {
    {
        let _compacting = tree.compacting.lock();
        let version = Arc::clone(&tree.state().version);
        if let Some(pick) = picker::pick_all(&version) {
            run(core, tree, &version, &pick, core.compaction_threads.none())?;
        }
    }
    core.after_change();
    core.signals.compaction_due();
    core.tables.sweeper().sweep();
    Ok(())
}

fn run(core: &Core, tree: &TreeCore, version: &Version, pick: &Pick, permits: Permits<'_>) -> Result<()> {
    let added = if pick.is_move {
        pick.tables().map(|table| table.moved(pick.output_level)).collect()
    } else {
        Compaction { core, tree, version, pick }.run(permits)?
    };
    let edit = Edit {
        removed: pick.tables().map(|table| table.id()).collect(),
        added: added.iter().map(|table| table.record().clone()).collect(),
        ..Edit::default()
    };
    let installed = tree.install(&edit, &added, None);
    if matches!(installed, Ok(false) | Err(Error::DiskFull)) && !pick.is_move {
        added.iter().for_each(|table| table.retire());
    }
    installed.inspect_err(|error| core.edit_failed(error))?;
    if pick.is_move {
        core.counters.moved();
    } else {
        core.counters.compacted(pick.bytes(), added.iter().map(|table| table.bytes()).sum());
    }
    Ok(())
}

/// A compaction that writes tables.
struct Compaction<'a> {
    core: &'a Core,
    tree: &'a TreeCore,
    version: &'a Version,
    pick: &'a Pick,
}

impl Compaction<'_> {
    /// Writes the tables, in several threads where it pays and they are free.
    fn run(&self, mut permits: Permits<'_>) -> Result<Vec<Arc<TableRef>>> {
        let snapshots = self.core.snapshots.sequences();
        let tombstones =
            FragmentedTombstones::merge(self.pick.tables().map(|table| &**table.range_tombstones()));
        let tables = self.tables_to_read(&tombstones, &snapshots);
        let bytes: u64 = tables.iter().map(|table| table.bytes()).sum();
        // Less than a table is not worth a thread.
        let part_count_max =
            usize::try_from(bytes / self.core.tables.table_bytes.max(1)).unwrap_or(usize::MAX).max(1);
        permits.extend(part_count_max);
        let parts = parts::split(&tables, permits.count().max(1));
        let rewrite =
            |part: &KeyRange| self.rewrite(part, &tables, snapshots.clone(), &tombstones.clipped(part));
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let (first, others) = parts.split_first().expect("there is a part");
            let others: Vec<_> = others.iter().map(|part| scope.spawn(|| rewrite(part))).collect();
            let first = rewrite(first);
            let others =
                others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            std::iter::once(first).chain(others).collect()
        });
        let (written, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        let written: Vec<_> = written.into_iter().flatten().flatten().collect();
        match failed.into_iter().find_map(Result::err) {
            None => Ok(written),
            Some(error) => {
                written.iter().for_each(|table| table.retire());
                Err(error)
            }
        }
    }

    /// The inputs without those of which range deletes leave nothing that anybody sees.
    fn tables_to_read(&self, tombstones: &FragmentedTombstones, snapshots: &[u64]) -> Vec<Arc<TableRef>> {
        // Older snapshots might see what the newer deletes hide.
        let at_sequence = snapshots.first().copied().unwrap_or(u64::MAX);
        let is_read = |table: &&Arc<TableRef>| {
            !tombstones.cover(table.key_range(), table.record().sequence_max, at_sequence)
        };
        self.pick.tables().filter(is_read).cloned().collect()
    }

    /// Writes the tables of one part.
    fn rewrite(
        &self,
        part: &KeyRange,
        tables: &[Arc<TableRef>],
        snapshots: Vec<u64>,
        tombstones: &FragmentedTombstones,
    ) -> Result<Vec<Arc<TableRef>>> {
        let Self { core, tree, version, pick } = self;
        let tables = tables.iter().filter(|table| table.key_range().overlaps(part));
        let mut deeper: BTreeMap<usize, SmallVec<[Arc<TableRef>; 1]>> = BTreeMap::new();
        let mut sources = Vec::new();
        for table in tables {
            match table.record().level {
                0 => sources.push(Source::table(table, ReadMode::Compaction)),
                level => deeper.entry(level).or_default().push(Arc::clone(table)),
            }
        }
        sources.extend(deeper.into_values().map(|tables| Source::level(tables, ReadMode::Compaction)));
        let _buffers = core
            .tables
            .cache()
            .reserve(rewrite::buffer_bytes(sources.len(), tree.block_bytes(&core.options)));
        let reported_bytes = Cell::new(0);
        let rewrite = Rewrite {
            tables: &core.tables,
            format: &tree.format,
            tuning: tree.tuning(),
            level: pick.output_level,
            range: part.clone(),
            table_bytes: core.tables.table_bytes,
            snapshots,
            below: Below::levels(version, pick.output_level),
            above: Others::newer(version, &pick.inputs),
            operator: &tree.operator,
            value_at: &|key, sequence| tree.value_at(key, sequence),
            keep_decision: tree.keep_decision(),
            report: &|progress: Progress| {
                let bytes = progress.written_bytes - reported_bytes.replace(progress.written_bytes);
                core.rate_limit.spend(bytes, Urgency::Compaction, &core.signals)
            },
        };
        rewrite.run(MergingCursor::new(sources), tombstones)
    }
}
