//! Flushes (minor compactions): a frozen memtable becomes a table of level 0.

use std::sync::Arc;

use crate::compaction::rewrite::{Below, Others, Rewrite};
use crate::core::Core;
use crate::manifest::Edit;
use crate::merge::MergingCursor;
use crate::source::Source;
use crate::table_ref::TableRef;
use crate::tables::Tables;
use crate::tree::{Frozen, TreeCore};
use crate::{Error, Result};

/// Flushes the tree's oldest frozen memtable, if it has one.
///
/// # Errors
///
/// Nothing is lost: the memtable stays, and the log with it.
pub(crate) fn flush_oldest(core: &Core, tree: &TreeCore) -> Result<()> {
    let Some(oldest) = tree.state().frozen.last().cloned() else { return Ok(()) };
    // A table must not hold what a power cut takes out of the log, or half a batch would survive.
    core.wait_durable(oldest.redo_point)?;
    let tables =
        write_out(&core.tables, tree, &oldest, core.snapshots.sequences(), &|| core.signals.check())?;
    let bytes: u64 = tables.iter().map(|table| table.record().file_bytes).sum();
    let installed = install(tree, &oldest, &tables).inspect_err(|error| core.poison(error))?;
    if installed {
        core.counters.flushed(bytes);
    } else {
        tables.iter().for_each(|table| table.retire());
    }
    Ok(())
}

/// Writes a frozen memtable to a table of level 0.
pub(crate) fn write_out(
    tables: &Tables,
    tree: &TreeCore,
    frozen: &Frozen,
    snapshots: Vec<u64>,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<Arc<TableRef>>> {
    let rewrite = Rewrite {
        tables,
        format: &tree.format,
        level: 0,
        table_bytes: u64::MAX,
        snapshots,
        below: Below::Anything,
        above: Others::default(),
        operator: &tree.operator,
        value_at: &|key, sequence| tree.value_at(key, sequence),
        keep_decision: None,
        check,
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
