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
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use vfs::Access;

use crate::block_cache::BlockCache;
use crate::file_id::FileId;
use crate::manifest::{LEVEL_MAX, TableRecord};
use crate::sstable::Table;
use crate::{KeyRange, Result};

/// Levels of a tree.
pub(crate) const LEVEL_COUNT: usize = LEVEL_MAX + 1;

/// The extension of an SSTable's name.
pub(crate) const TABLE_EXTENSION: &str = "sst";

/// Deletes tables that nothing names any more.
#[derive(Debug)]
pub(crate) struct Sweeper {
    fs: Arc<dyn vfs::FileSystem>,
    dir: PathBuf,
    doomed: Mutex<Vec<FileId>>,
}

impl Sweeper {
    pub(crate) fn new(fs: Arc<dyn vfs::FileSystem>, dir: &Path) -> Self {
        Self { fs, dir: dir.to_owned(), doomed: Mutex::default() }
    }

    /// Deletes what was released since the last call. What cannot be deleted
    /// now is left to the next opening.
    pub(crate) fn sweep(&self) {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        for id in doomed {
            self.remove(id);
        }
    }

    /// Deletes the tables in the directory that are not in `named`: what a
    /// crash left of flushes and compactions.
    pub(crate) fn sweep_orphans(&self, named: &HashSet<FileId>) -> Result<()> {
        for name in self.fs.list(&self.dir)? {
            if let Some(id) = FileId::parse(&name, TABLE_EXTENSION).filter(|id| !named.contains(id)) {
                self.remove(id);
            }
        }
        Ok(())
    }

    /// Deletes the table `id`, which no manifest names.
    pub(crate) fn remove(&self, id: FileId) {
        if let Err(error) = self.fs.remove(&id.path(&self.dir, TABLE_EXTENSION)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete an obsolete table");
        }
    }
}

/// An open table's file, deleted after its last user once it is obsolete.
struct TableFile {
    id: FileId,
    table: Arc<Table>,
    obsolete: AtomicBool,
    sweeper: Arc<Sweeper>,
}

impl Drop for TableFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.sweeper.doomed.lock().push(self.id);
        }
    }
}

/// A table as a version refers to it.
pub(crate) struct TableRef {
    record: TableRecord,
    file: Arc<TableFile>,
}

impl TableRef {
    /// Opens the table that `record` names, in the sweeper's directory.
    pub(crate) fn open(
        record: TableRecord,
        sweeper: &Arc<Sweeper>,
        cache: &Arc<BlockCache>,
    ) -> Result<Arc<Self>> {
        let path = record.id.path(&sweeper.dir, TABLE_EXTENSION);
        let file = sweeper.fs.open(&path, Access::Read)?;
        let table = Table::open(file, &path, Arc::clone(cache))?;
        Ok(Self::new(record, table, sweeper))
    }

    pub(crate) fn new(record: TableRecord, table: Arc<Table>, sweeper: &Arc<Sweeper>) -> Arc<Self> {
        let obsolete = AtomicBool::new(false);
        let file = Arc::new(TableFile { id: record.id, table, obsolete, sweeper: Arc::clone(sweeper) });
        Arc::new(Self { record, file })
    }

    /// The same table at another level.
    pub(crate) fn moved(&self, level: usize) -> Arc<Self> {
        Arc::new(Self { record: TableRecord { level, ..self.record.clone() }, file: Arc::clone(&self.file) })
    }

    /// Says that no manifest names the table any more.
    pub(crate) fn retire(&self) {
        self.file.obsolete.store(true, Ordering::Release);
    }

    pub(crate) fn record(&self) -> &TableRecord {
        &self.record
    }

    pub(crate) fn id(&self) -> FileId {
        self.record.id
    }

    pub(crate) fn key_range(&self) -> &KeyRange {
        &self.record.key_range
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.file.table
    }

    /// Whether the table holds deletes of any kind.
    pub(crate) fn has_tombstones(&self) -> bool {
        let properties = self.table().properties();
        properties.tombstone_count > 0 || properties.range_tombstone_count > 0
    }
}

impl fmt::Debug for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// The tables of a tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    levels: [Vec<Arc<TableRef>>; LEVEL_COUNT],
}

impl Version {
    /// The version of these tables, in any order.
    pub(crate) fn new(tables: impl IntoIterator<Item = Arc<TableRef>>) -> Self {
        let mut levels: [Vec<Arc<TableRef>>; LEVEL_COUNT] = Default::default();
        for table in tables {
            levels[table.record.level].push(table);
        }
        let (l0, deeper) = levels.split_first_mut().expect("there are levels");
        l0.sort_by_key(|table| std::cmp::Reverse((table.record.sequence_max, table.id())));
        for level in deeper {
            level.sort_by(|a, b| a.key_range().start.cmp(&b.key_range().start));
            debug_assert!(level.is_sorted_by(|a, b| a.key_range().end <= b.key_range().start));
        }
        Self { levels }
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

    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.levels[level].iter().map(|table| table.record.file_bytes).sum()
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
