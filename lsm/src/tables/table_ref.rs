//! SSTables as trees refer to them: a file, and the part of it that is a tree's.
//!
//! Several trees may name one file, each the keys within bounds of its own; so
//! a tree is forked without rewriting anything. Each manifest that names a file
//! is counted; once none does and the last reader has let go, the file is the
//! `sweeper`'s.
//!
//! What lies outside the bounds is as if it were not there, and a sequence
//! number that the manifest assigns stands in place of those stored: cursors,
//! tombstones and figures here see to that, and nobody looks past them into a
//! table that a tree holds.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::file_id::FileId;
use crate::internal_key::LookupKey;
use crate::iter::part_cursor::{Part, PartCursor};
use crate::manifest::TableRecord;
use crate::range_tombstone::FragmentedTombstones;
use crate::sstable::{Blocking, FilterHash, Found, ReadMode, Table};
use crate::tables::sweeper::Sweeper;
use crate::{KeyRange, Result};

/// An open table's file, shared by all that refer to it.
struct TableFile {
    id: FileId,
    table: Arc<Table>,
    /// Manifests that name it, or are about to.
    manifests: AtomicUsize,
    sweeper: Arc<Sweeper>,
}

impl Drop for TableFile {
    fn drop(&mut self) {
        if self.manifests.load(Ordering::Acquire) == 0 {
            self.sweeper.release(self.id);
        }
    }
}

/// A table as a version refers to it.
pub(crate) struct TableRef {
    record: TableRecord,
    file: Arc<TableFile>,
    /// Whether the bounds are narrower than what the file holds.
    is_clipped: bool,
    /// Those within the bounds, under the sequence number that is assigned if there is one.
    tombstones: Arc<FragmentedTombstones>,
    /// About how much of the file is within the bounds.
    bytes: u64,
}

impl TableRef {
    /// A table that one manifest names or is about to.
    pub(crate) fn new(record: TableRecord, table: Arc<Table>, sweeper: &Arc<Sweeper>) -> Arc<Self> {
        let (id, manifests) = (record.id, AtomicUsize::new(1));
        Self::of(record, Arc::new(TableFile { id, table, manifests, sweeper: Arc::clone(sweeper) }))
    }

    fn of(record: TableRecord, file: Arc<TableFile>) -> Arc<Self> {
        let table = &file.table;
        let whole = &table.properties().key_range;
        let is_clipped = record.key_range.start > whole.start || record.key_range.end < whole.end;
        let mut tombstones = Arc::clone(table.range_tombstones());
        let mut bytes = record.file_bytes;
        if is_clipped {
            tombstones = Arc::new(tombstones.clipped(&record.key_range));
            // Damage is for who reads the table to report.
            bytes = table.approximate_bytes(&record.key_range).unwrap_or(bytes);
        }
        if let Some(sequence) = record.assigned_sequence {
            tombstones = Arc::new(tombstones.under(sequence));
        }
        Arc::new(Self { record, file, is_clipped, tombstones, bytes })
    }

    /// The same table at another level of the same tree.
    pub(crate) fn moved(&self, level: usize) -> Arc<Self> {
        Arc::new(Self {
            record: TableRecord { level, ..self.record.clone() },
            file: Arc::clone(&self.file),
            is_clipped: self.is_clipped,
            tombstones: Arc::clone(&self.tombstones),
            bytes: self.bytes,
        })
    }

    /// The part of the table in `range`, for one more manifest to name; none if there is no such part.
    pub(crate) fn clipped(&self, range: &KeyRange) -> Option<Arc<Self>> {
        let key_range = self.record.key_range.intersection(range)?;
        Some(self.shared(TableRecord { key_range, ..self.record.clone() }))
    }

    /// The same file as one more manifest names it, by `record`.
    pub(crate) fn shared(&self, record: TableRecord) -> Arc<Self> {
        self.file.manifests.fetch_add(1, Ordering::AcqRel);
        Self::of(record, Arc::clone(&self.file))
    }

    /// Says that one manifest does not name the table any more.
    pub(crate) fn retire(&self) {
        let before = self.file.manifests.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a manifest lets go of a table once");
    }

    /// Keeps the file's blocks in memory from now on, or lets go of them.
    pub(crate) fn set_kept(&self, is_kept: bool) {
        self.file.table.set_kept(is_kept);
    }

    /// Keeps the file's blocks in memory, and reads those within the bounds, as far as there is room.
    pub(crate) fn load(&self) {
        self.file.table.set_kept(true);
        let mut cursor = self.cursor(ReadMode::Scan);
        // Each block that is entered stays. Damage is for who reads the table to report.
        let mut is_on = cursor.seek_to_first();
        while is_on.is_ok_and(|is_on| is_on) && self.file.table.keeps_more() {
            is_on = cursor.next();
        }
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

    /// Bytes of the file within the bounds, roughly; all of them if nothing is clipped off.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the file that a rewrite of this tree's part would set free: what is outside the bounds and
    /// no other tree's. Zero for a table that is shared: its other users' parts are not known here.
    pub(crate) fn garbage_bytes(&self) -> u64 {
        if self.is_shared() { 0 } else { self.record.file_bytes.saturating_sub(self.bytes) }
    }

    /// Whether other trees name the file, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.file.manifests.load(Ordering::Acquire) > 1
    }

    /// Entries within the bounds, roughly.
    pub(crate) fn entry_count(&self) -> u64 {
        self.share_of(self.file.table.properties().entry_count)
    }

    /// Of them deletes, roughly, and range deletes.
    pub(crate) fn tombstone_count(&self) -> u64 {
        let properties = self.file.table.properties();
        if !self.is_clipped {
            return properties.tombstone_count + properties.range_tombstone_count;
        }
        let range_tombstones: usize = self.tombstones.iter().map(|fragment| fragment.sequences.len()).sum();
        self.share_of(properties.tombstone_count) + range_tombstones as u64
    }

    /// Of the entries merge operands, roughly.
    pub(crate) fn merge_count(&self) -> u64 {
        self.share_of(self.file.table.properties().merge_count)
    }

    /// Whether the table may hold deletes of any kind.
    pub(crate) fn has_tombstones(&self) -> bool {
        self.file.table.properties().tombstone_count > 0 || !self.tombstones.is_empty()
    }

    fn share_of(&self, count: u64) -> u64 {
        if !self.is_clipped {
            return count;
        }
        let share = u128::from(count) * u128::from(self.bytes) / u128::from(self.record.file_bytes.max(1));
        u64::try_from(share).unwrap_or(count)
    }

    /// The range tombstones, which no filter speaks for.
    pub(crate) fn range_tombstones(&self) -> &Arc<FragmentedTombstones> {
        &self.tombstones
    }

    /// Whether there may be point entries with the filter key of `key`, which `hash` was made of.
    pub(crate) fn may_contain(&self, key: &[u8], hash: FilterHash) -> bool {
        self.file.table.may_contain(key, hash)
    }

    /// The newest put, delete or merge of the key at or below its sequence. Range tombstones are not looked at.
    ///
    /// REQUIRES: the key is within the bounds.
    pub(crate) fn get(&self, key: &LookupKey, blocking: Blocking) -> Result<Option<Found>> {
        match self.record.assigned_sequence {
            None => self.file.table.get(key, blocking),
            Some(sequence) if sequence > key.sequence() => Ok(None),
            Some(sequence) => {
                let found = self.file.table.get(key, blocking)?;
                Ok(found.map(|found| Found { sequence, ..found }))
            }
        }
    }

    /// Shows `take` the puts, deletes and merges of the key at or below its sequence, newest first, until it breaks.
    ///
    /// REQUIRES: the key is within the bounds.
    pub(crate) fn visit(
        &self,
        key: &LookupKey,
        blocking: Blocking,
        take: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        match self.record.assigned_sequence {
            None => self.file.table.visit(key, blocking, take),
            Some(_) => Ok(self.get(key, blocking)?.map_or(ControlFlow::Continue(()), take)),
        }
    }

    /// A cursor over the point entries.
    pub(crate) fn cursor(&self, mode: ReadMode) -> PartCursor {
        let assigned_sequence = self.record.assigned_sequence;
        let is_as_it_stands = !self.is_clipped && assigned_sequence.is_none();
        let part = (!is_as_it_stands).then(|| Part::new(self.record.key_range.clone(), assigned_sequence));
        PartCursor::new(self.file.table.cursor(mode), part)
    }

    /// Bytes of the part in `range`, roughly.
    pub(crate) fn approximate_bytes(&self, range: &KeyRange) -> Result<u64> {
        match self.record.key_range.intersection(range) {
            None => Ok(0),
            Some(part) if part == self.record.key_range => Ok(self.bytes),
            Some(part) => self.file.table.approximate_bytes(&part),
        }
    }

    /// Tells `emit` how much of the part lies in `range` and where: an internal key at or after each stretch
    /// of `step` bytes or more, and before the next one.
    pub(crate) fn weigh(&self, range: &KeyRange, step: u64, emit: &mut dyn FnMut(&[u8], u64)) -> Result<()> {
        let part = self.record.key_range.intersection(range);
        part.map_or(Ok(()), |part| self.file.table.weigh(&part, step, emit))
    }
}

impl fmt::Debug for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}
