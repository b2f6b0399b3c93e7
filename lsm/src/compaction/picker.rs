//! Which tables a compaction takes.

use std::sync::Arc;

use crate::table_ref::TableRef;
use crate::version::{LEVEL_COUNT, Version, overlapping};
use crate::{KeyRange, Options};

/// The inputs of a compaction and where its output goes.
#[derive(Debug)]
pub(crate) struct Pick {
    /// Of each level, the tables taken, in the version's order.
    pub(crate) inputs: [Vec<Arc<TableRef>>; LEVEL_COUNT],
    pub(crate) output_level: usize,
    /// The tables can go there as they are.
    pub(crate) is_move: bool,
}

impl Pick {
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableRef>> {
        self.inputs.iter().flatten()
    }
}

/// The level that most needs a compaction and how much, in per cent of its
/// bound; none if all are within theirs.
pub(crate) fn urgency(version: &Version, options: &Options) -> Option<(u64, usize)> {
    let l0 = (version.level(0).len() as u64).saturating_mul(100) / options.l0_compaction_trigger as u64;
    let mut target = options.level_bytes_base;
    let mut most = (l0, 0);
    for level in 1..LEVEL_COUNT - 1 {
        let percent = version.level_bytes(level).saturating_mul(100) / target;
        if percent > most.0 {
            most = (percent, level);
        }
        target = target.saturating_mul(options.level_ratio);
    }
    Some(most).filter(|(percent, level)| *percent >= if *level == 0 { 100 } else { 101 })
}

/// Bytes that compactions would have to rewrite until every level is within its
/// bound, roughly: what is too much in one level is merged into the next, and
/// with its like there. (After RocksDB's `EstimateCompactionBytesNeeded`.)
pub(crate) fn debt_bytes(version: &Version, options: &Options) -> u64 {
    let mut target = options.level_bytes_base;
    let (mut debt, mut carried) = (0_u64, 0_u64);
    if version.level(0).len() >= options.l0_compaction_trigger {
        carried = version.level_bytes(0);
        debt += carried + version.level_bytes(1);
    }
    for level in 1..LEVEL_COUNT - 1 {
        let bytes = version.level_bytes(level) + carried;
        carried = bytes.saturating_sub(target);
        if carried > 0 {
            let below = u128::from(version.level_bytes(level + 1));
            let merged = u128::from(carried) * below / u128::from(bytes);
            debt += carried + u64::try_from(merged).unwrap_or(u64::MAX);
        }
        target = target.saturating_mul(options.level_ratio);
    }
    debt
}

/// The compaction that is due in this version.
pub(crate) fn pick(version: &Version, options: &Options) -> Option<Pick> {
    let (_, level) = urgency(version, options)?;
    let upper = if level == 0 { version.level(0).to_vec() } else { vec![least_overlap(version, level)?] };
    let output_level = level + 1;
    let lower = version.overlapping(output_level, &hull(&upper)?).to_vec();
    let is_move = lower.is_empty() && are_disjoint(&upper) && !has_work(version, &upper, output_level);
    let mut inputs: [Vec<Arc<TableRef>>; LEVEL_COUNT] = Default::default();
    inputs[level] = upper;
    inputs[output_level] = lower;
    Some(Pick { inputs, output_level, is_move })
}

/// The compaction of all tables into the lowest level that has any, but not level 0; none if there is no table.
pub(crate) fn pick_all(version: &Version) -> Option<Pick> {
    let lowest = (0..LEVEL_COUNT).rev().find(|level| !version.level(*level).is_empty())?;
    let inputs = std::array::from_fn(|level| version.level(level).to_vec());
    Some(Pick { inputs, output_level: lowest.max(1), is_move: false })
}

/// The table of `level` that makes the least of the next level be rewritten for its size, and what its
/// rewriting sets free.
fn least_overlap(version: &Version, level: usize) -> Option<Arc<TableRef>> {
    let cost = |table: &Arc<TableRef>| {
        let lower = version.overlapping(level + 1, table.key_range());
        let bytes: u64 = lower.iter().map(|table| table.bytes()).sum();
        bytes.saturating_mul(1000) / (table.bytes() + table.garbage_bytes()).max(1)
    };
    version.level(level).iter().min_by_key(|table| cost(table)).cloned()
}

/// From the first key of any of `tables` to past the last one.
fn hull(tables: &[Arc<TableRef>]) -> Option<KeyRange> {
    let start = tables.iter().map(|table| &table.key_range().start).min()?.clone();
    let end = tables.iter().map(|table| &table.key_range().end).max()?.clone();
    Some(KeyRange { start, end })
}

fn are_disjoint(tables: &[Arc<TableRef>]) -> bool {
    let mut ranges: Vec<_> = tables.iter().map(|table| table.key_range()).collect();
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    ranges.is_sorted_by(|a, b| a.end <= b.start)
}

/// Whether some of `tables` is mostly what nobody sees: what no tree names any more, or deletes that a
/// rewrite into `level` could drop, since nothing is below.
fn has_work(version: &Version, tables: &[Arc<TableRef>], level: usize) -> bool {
    let is_lowest = |table: &TableRef| {
        version.deeper_levels()[level..]
            .iter()
            .all(|deeper| overlapping(deeper, table.key_range()).is_empty())
    };
    tables
        .iter()
        .any(|table| table.garbage_bytes() > table.bytes() || (table.has_tombstones() && is_lowest(table)))
}
