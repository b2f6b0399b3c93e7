//! Compactions: fewer tables, sorted deeper, without what is not seen any more.
//!
//! Leveled, as LevelDB and RocksDB do it: level 0 by its number of tables, each
//! deeper one by its bytes. One compaction a tree at a time; one thread works
//! through what is most urgent over all trees.
//!
//! - [`picker`]: what is most urgent, and which tables it takes. Pure.
//! - [`fold`]: merge operands are folded where it can be done.
//! - [`rewrite`]: which versions and tombstones survive, and the tables written.

mod fold;
pub(crate) mod picker;
pub(crate) mod rewrite;

use std::sync::Arc;

use crate::core::Core;
use crate::manifest::Edit;
use crate::merge::MergingCursor;
use crate::range_tombstone::FragmentedTombstones;
use crate::source::Source;
use crate::sstable::ReadMode;
use crate::table_ref::TableRef;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Error, Result};

use self::picker::Pick;
use self::rewrite::{Below, Others, Rewrite};

/// Does the compaction that is most urgent over all trees; false if none is due.
///
/// # Errors
///
/// Nothing is lost; what was written of the output is deleted.
pub(crate) fn compact_most_urgent(core: &Core) -> Result<bool> {
    let mut trees: Vec<_> = core.all_trees();
    trees.retain(|tree| picker::urgency(&tree.state().version, &core.options).is_some());
    trees.sort_by_cached_key(|tree| {
        let urgency = picker::urgency(&tree.state().version, &core.options);
        std::cmp::Reverse(urgency.map_or(0, |(percent, _)| percent))
    });
    for tree in trees {
        // Somebody compacts that one already.
        let Some(_compacting) = tree.compacting.try_lock() else { continue };
        let version = Arc::clone(&tree.state().version);
        if let Some(pick) = picker::pick(&version, &core.options) {
            run(core, &tree, &version, &pick)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rewrites all tables of a tree into its lowest level.
pub(crate) fn compact_all(core: &Core, tree: &TreeCore) -> Result<()> {
    {
        let _compacting = tree.compacting.lock();
        let version = Arc::clone(&tree.state().version);
        if let Some(pick) = picker::pick_all(&version) {
            run(core, tree, &version, &pick)?;
        }
    }
    core.after_change();
    core.tables.sweeper().sweep();
    Ok(())
}

fn run(core: &Core, tree: &TreeCore, version: &Version, pick: &Pick) -> Result<()> {
    let added = if pick.is_move {
        pick.tables().map(|table| table.moved(pick.output_level)).collect()
    } else {
        rewrite(core, tree, version, pick)?
    };
    let edit = Edit {
        removed: pick.tables().map(|table| table.id()).collect(),
        added: added.iter().map(|table| table.record().clone()).collect(),
        ..Edit::default()
    };
    let installed = tree.install(&edit, &added, None).inspect_err(|error| core.poison(error))?;
    if !installed && !pick.is_move {
        added.iter().for_each(|table| table.retire());
    }
    let bytes = |tables: &[Arc<TableRef>]| tables.iter().map(|table| table.bytes()).sum::<u64>();
    if pick.is_move {
        core.counters.moved();
    } else {
        core.counters.compacted(pick.inputs.iter().map(|tables| bytes(tables)).sum(), bytes(&added));
    }
    Ok(())
}

fn rewrite(
    core: &Core,
    tree: &TreeCore,
    version: &Version,
    pick: &Pick,
) -> Result<Vec<Arc<TableRef>>, Error> {
    let mut sources = Vec::new();
    for (level, tables) in pick.inputs.iter().enumerate().filter(|(_, tables)| !tables.is_empty()) {
        if level == 0 {
            sources.extend(tables.iter().map(|table| Source::table(table, ReadMode::Compaction)));
        } else {
            sources.push(Source::level(tables.as_slice().into(), ReadMode::Compaction));
        }
    }
    let tombstones = FragmentedTombstones::merge(pick.tables().map(|table| &**table.range_tombstones()));
    let _buffers =
        core.tables.cache().reserve(rewrite::buffer_bytes(sources.len(), core.options.block_bytes));
    let rewrite = Rewrite {
        tables: &core.tables,
        format: &tree.format,
        level: pick.output_level,
        table_bytes: core.tables.table_bytes,
        snapshots: core.snapshots.sequences(),
        below: Below::levels(version, pick.output_level),
        above: Others::newer(version, &pick.inputs),
        operator: &tree.operator,
        value_at: &|key, sequence| tree.value_at(key, sequence),
        keep_decision: tree.keep_decision(),
        report: &|_| core.signals.check(),
    };
    rewrite.run(MergingCursor::new(sources), &tombstones)
}
