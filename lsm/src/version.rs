//! Versions: the SSTables that make up a tree at one moment.
//!
//! A version never changes; flushes and compactions put a new one in its
//! place. Readers hold the tables they read from, so that a table outlives
//! every version that names it for as long as somebody looks into it.
//!
//! # Invariants
//!
//! - Level 0 holds what flushes wrote, newest first; ranges overlap, sequence
//!   numbers do not.
//! - Tables of a deeper level are sorted and their key ranges do not overlap.
//! - For any one key, what stands in a level is newer than what stands in a
//!   deeper one.

use std::collections::HashSet;
use std::sync::Arc;

use crate::KeyRange;
use crate::file_id::FileId;
use crate::manifest::LEVEL_MAX;
use crate::tables::table_ref::TableRef;

/// Levels of a tree.
pub(crate) const LEVEL_COUNT: usize = LEVEL_MAX + 1;

/// The tables of a tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    levels: [Vec<Arc<TableRef>>; LEVEL_COUNT],
    level_bytes: [u64; LEVEL_COUNT],
}

impl Version {
    /// The version of these tables, in any order.
    pub(crate) fn new(tables: impl IntoIterator<Item = Arc<TableRef>>) -> Self {
        let mut levels: [Vec<Arc<TableRef>>; LEVEL_COUNT] = Default::default();
        for table in tables {
            levels[table.record().level].push(table);
        }
        let (l0, deeper) = levels.split_first_mut().expect("there are levels");
        l0.sort_by_key(|table| std::cmp::Reverse((table.record().sequence_max, table.id())));
        for level in deeper {
            level.sort_by(|a, b| a.key_range().start.cmp(&b.key_range().start));
            debug_assert!(level.is_sorted_by(|a, b| a.key_range().end <= b.key_range().start));
        }
        let bytes = |tables: &Vec<Arc<TableRef>>| tables.iter().map(|table| table.bytes()).sum();
        Self { level_bytes: levels.each_ref().map(bytes), levels }
    }

    /// The version without `removed` and with `added`.
    pub(crate) fn changed(&self, removed: &[FileId], added: &[Arc<TableRef>]) -> Self {
        let removed: HashSet<_> = removed.iter().collect();
        let kept = self.tables().filter(|table| !removed.contains(&table.id()));
        Self::new(kept.chain(added).cloned())
    }

    /// All tables, level by level.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableRef>> {
        self.levels.iter().flatten()
    }

    /// The tables of a level, in the order of the invariants above.
    pub(crate) fn level(&self, level: usize) -> &[Arc<TableRef>] {
        &self.levels[level]
    }

    /// The levels below 0.
    pub(crate) fn deeper_levels(&self) -> &[Vec<Arc<TableRef>>] {
        &self.levels[1..]
    }

    /// Bytes of a level's tables within their bounds.
    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.level_bytes[level]
    }

    /// The deepest level down to which nothing stands at or above it that holds keys of `range`; 0 if there
    /// is none such.
    pub(crate) fn lowest_free_level(&self, range: &KeyRange) -> usize {
        if self.level(0).iter().any(|table| table.key_range().overlaps(range)) {
            return 0;
        }
        (1..LEVEL_COUNT).take_while(|level| self.overlapping(*level, range).is_empty()).last().unwrap_or(0)
    }

    /// The tables of a level other than 0 that hold keys of `range`.
    pub(crate) fn overlapping(&self, level: usize, range: &KeyRange) -> &[Arc<TableRef>] {
        overlapping(&self.levels[level], range)
    }
}

/// Those of `tables`, sorted and disjoint, that hold keys of `range`.
pub(crate) fn overlapping<'a>(tables: &'a [Arc<TableRef>], range: &KeyRange) -> &'a [Arc<TableRef>] {
    let first = tables.partition_point(|table| table.key_range().end <= range.start);
    let count =
        tables[first..].partition_point(|table| range.end.is_empty() || table.key_range().start < range.end);
    &tables[first..first + count]
}

/// The one of `tables`, sorted and disjoint, whose range `key` is in.
pub(crate) fn containing<'a>(tables: &'a [Arc<TableRef>], key: &[u8]) -> Option<&'a Arc<TableRef>> {
    let at = tables.partition_point(|table| *table.key_range().end <= *key);
    tables.get(at).filter(|table| *table.key_range().start <= *key)
}
