//! What a merging cursor merges: memtables, single SSTables, and the tables of
//! a level one behind the other; and the range tombstones of each.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::Result;
use crate::internal_key;
use crate::iter::part_cursor::PartCursor;
use crate::memtable::folded_values::FoldedValues;
use crate::memtable::{Memtable, MemtableCursor};
use crate::range_tombstone::{MemtableTombstoneCursor, TombstoneCursor};
use crate::sstable::{Blocking, ReadMode};
use crate::tables::table_ref::TableRef;
use crate::version::containing;

/// A cursor over puts, deletes and merges by internal key. Fresh, it stands nowhere.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are tables, and a step should follow no pointer")]
pub(crate) enum Source {
    Memtable(MemtableCursor),
    /// Tables that are sorted and disjoint; a table of level 0 stands alone.
    Tables(LevelCursor),
}

/// Calls the same method of whichever cursor it is.
macro_rules! dispatch {
    ($source:expr, $cursor:ident => $table:expr, $memtable:expr) => {
        match $source {
            Source::Memtable($cursor) => $memtable,
            Source::Tables($cursor) => $table,
        }
    };
}

impl Source {
    pub(crate) fn memtable(memtable: &Arc<Memtable>) -> Self {
        Self::Memtable(memtable.cursor())
    }

    pub(crate) fn table(table: &Arc<TableRef>, mode: ReadMode) -> Self {
        Self::level(SmallVec::from_elem(Arc::clone(table), 1), mode)
    }

    /// REQUIRES: `tables` are sorted and disjoint.
    pub(crate) fn level(tables: SmallVec<[Arc<TableRef>; 1]>, mode: ReadMode) -> Self {
        Self::Tables(LevelCursor { tables, mode, blocking: Blocking::Allowed, at: 0, cursor: None })
    }

    /// Whether moves from now on may wait for the disk. Once they may not, it has to be sought first.
    pub(crate) fn set_blocking(&mut self, blocking: Blocking) {
        if let Self::Tables(cursor) = self {
            cursor.blocking = blocking;
            if let Some(cursor) = &mut cursor.cursor {
                cursor.set_blocking(blocking);
            }
        }
    }

    /// What readers have folded, of a memtable.
    pub(crate) fn folded(&self) -> Option<&FoldedValues> {
        match self {
            Self::Memtable(cursor) => Some(cursor.folded()),
            Self::Tables(_) => None,
        }
    }

    pub(crate) fn seek_to_first(&mut self) -> Result<bool> {
        dispatch!(self, cursor => cursor.seek_to_first(), Ok(cursor.seek_to_first()))
    }

    pub(crate) fn seek_to_last(&mut self) -> Result<bool> {
        dispatch!(self, cursor => cursor.seek_to_last(), Ok(cursor.seek_to_last()))
    }

    /// Moves to the first entry at or after the encoded internal key.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> Result<bool> {
        dispatch!(self, cursor => cursor.seek(internal_key), Ok(cursor.seek(internal_key)))
    }

    /// Moves to the last entry before the encoded internal key.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> Result<bool> {
        dispatch!(self, cursor => cursor.seek_before(internal_key), Ok(cursor.seek_before(internal_key)))
    }

    /// REQUIRES: it stands on an entry.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool> {
        dispatch!(self, cursor => cursor.next(), Ok(cursor.next()))
    }

    /// REQUIRES: it stands on an entry.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool> {
        dispatch!(self, cursor => cursor.prev(), Ok(cursor.prev()))
    }

    /// Whether the entry before the current one is known to be of another user key; cheap, and may not know.
    #[inline]
    pub(crate) fn is_newest_of_key(&self) -> bool {
        dispatch!(self, cursor => cursor.current().is_newest_of_key(), cursor.is_newest_of_key())
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        dispatch!(self, cursor => cursor.key(), cursor.key())
    }

    pub(crate) fn value(&self) -> &[u8] {
        dispatch!(self, cursor => cursor.value(), cursor.value())
    }

    pub(crate) fn value_bytes(&self) -> Bytes {
        dispatch!(self, cursor => cursor.value_bytes(), cursor.value_bytes())
    }
}

/// A cursor over the tables of a level, which opens one after the other.
#[derive(Debug)]
pub(crate) struct LevelCursor {
    /// Held, so that their files stay.
    tables: SmallVec<[Arc<TableRef>; 1]>,
    mode: ReadMode,
    blocking: Blocking,
    /// The table that `cursor` reads.
    at: usize,
    cursor: Option<PartCursor>,
}

impl LevelCursor {
    fn seek_to_first(&mut self) -> Result<bool> {
        self.first_from(0)
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.last_until(self.tables.len())
    }

    fn seek(&mut self, internal_key: &[u8]) -> Result<bool> {
        let user_key = internal_key::user_key(internal_key);
        let at = self.tables.partition_point(|table| *table.key_range().end <= *user_key);
        let Some(cursor) = self.open(at) else { return Ok(false) };
        if cursor.seek(internal_key)? { Ok(true) } else { self.first_from(at + 1) }
    }

    fn seek_before(&mut self, internal_key: &[u8]) -> Result<bool> {
        let user_key = internal_key::user_key(internal_key);
        let until = self.tables.partition_point(|table| *table.key_range().start <= *user_key);
        let Some(at) = until.checked_sub(1) else {
            self.cursor = None;
            return Ok(false);
        };
        let cursor = self.open(at).expect("there is such a table");
        if cursor.seek_before(internal_key)? { Ok(true) } else { self.last_until(at) }
    }

    fn next(&mut self) -> Result<bool> {
        if self.current_mut().next()? { Ok(true) } else { self.first_from(self.at + 1) }
    }

    fn prev(&mut self) -> Result<bool> {
        if self.current_mut().prev()? { Ok(true) } else { self.last_until(self.at) }
    }

    fn key(&self) -> &[u8] {
        self.current().key()
    }

    fn value(&self) -> &[u8] {
        self.current().value()
    }

    fn value_bytes(&self) -> Bytes {
        self.current().value_bytes()
    }

    fn current(&self) -> &PartCursor {
        self.cursor.as_ref().expect("the cursor stands on an entry")
    }

    fn current_mut(&mut self) -> &mut PartCursor {
        self.cursor.as_mut().expect("the cursor stands on an entry")
    }

    /// The cursor of the table `at`, if there is such a table; the open one if it is its.
    fn open(&mut self, at: usize) -> Option<&mut PartCursor> {
        if self.cursor.is_none() || self.at != at {
            self.at = at;
            self.cursor = self.tables.get(at).map(|table| {
                let mut cursor = table.cursor(self.mode);
                cursor.set_blocking(self.blocking);
                cursor
            });
        }
        self.cursor.as_mut()
    }

    /// Moves to the first entry in the tables from `at` on; those of range tombstones alone have none.
    fn first_from(&mut self, mut at: usize) -> Result<bool> {
        while let Some(cursor) = self.open(at) {
            if cursor.seek_to_first()? {
                return Ok(true);
            }
            at += 1;
        }
        Ok(false)
    }

    /// Moves to the last entry in the tables before `until`.
    fn last_until(&mut self, until: usize) -> Result<bool> {
        for at in (0..until).rev() {
            if self.open(at).expect("there is such a table").seek_to_last()? {
                return Ok(true);
            }
        }
        self.cursor = None;
        Ok(false)
    }
}

/// The range tombstones of one source, asked for one key after the other.
#[derive(Debug)]
pub(crate) enum SourceTombstones {
    Memtable(MemtableTombstoneCursor),
    Table(TombstoneCursor),
    Level(LevelTombstones),
}

impl SourceTombstones {
    pub(crate) fn memtable(memtable: &Memtable, sequence: u64) -> Option<Self> {
        let tombstones = memtable.tombstones();
        let some = !tombstones.is_empty();
        some.then(|| Self::Memtable(MemtableTombstoneCursor::new(Arc::clone(tombstones), sequence)))
    }

    pub(crate) fn table(table: &TableRef, sequence: u64) -> Option<Self> {
        let tombstones = table.range_tombstones();
        let some = !tombstones.is_empty();
        some.then(|| Self::Table(TombstoneCursor::new(Arc::clone(tombstones), sequence)))
    }

    /// REQUIRES: `tables` are sorted and disjoint.
    pub(crate) fn level(tables: &[Arc<TableRef>], sequence: u64) -> Option<Self> {
        let with_tombstones = tables.iter().filter(|table| !table.range_tombstones().is_empty());
        let tables: Vec<_> = with_tombstones.cloned().collect();
        let some = !tables.is_empty();
        some.then(|| Self::Level(LevelTombstones { tables, sequence, current: None }))
    }

    /// The sequence number of the newest visible range delete of `user_key`.
    pub(crate) fn covering_sequence(&mut self, user_key: &[u8]) -> Option<u64> {
        match self {
            Self::Memtable(cursor) => cursor.covering_sequence(user_key),
            Self::Table(cursor) => cursor.covering_sequence(user_key),
            Self::Level(level) => level.at(user_key)?.covering_sequence(user_key),
        }
    }

    /// Start and end of the fragment around `user_key`, to jump past it.
    pub(crate) fn fragment(&mut self, user_key: &[u8]) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Memtable(cursor) => cursor.fragment(user_key),
            Self::Table(cursor) => cursor.fragment(user_key).map(|fragment| (fragment.start, fragment.end)),
            Self::Level(level) => {
                level.at(user_key)?.fragment(user_key).map(|fragment| (fragment.start, fragment.end))
            }
        }
    }
}

/// The range tombstones of a level's tables.
#[derive(Debug)]
pub(crate) struct LevelTombstones {
    /// Those tables that have some.
    tables: Vec<Arc<TableRef>>,
    sequence: u64,
    /// The table asked last.
    current: Option<(Arc<TableRef>, TombstoneCursor)>,
}

impl LevelTombstones {
    /// The tombstones of the table whose range `user_key` is in.
    fn at(&mut self, user_key: &[u8]) -> Option<&mut TombstoneCursor> {
        let stays = self.current.as_ref().is_some_and(|(table, _)| table.key_range().contains(user_key));
        if !stays {
            let table = containing(&self.tables, user_key)?;
            let cursor = TombstoneCursor::new(Arc::clone(table.range_tombstones()), self.sequence);
            self.current = Some((Arc::clone(table), cursor));
        }
        self.current.as_mut().map(|(_, cursor)| cursor)
    }
}
