//! One row after another off a cursor over its cells: GC rules hide what is expired, filters
//! take what passes, and both say what need not be looked at.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use row_api::admin::GcRule;

use crate::cell_cursor::CellCursor;
use crate::error::{Error, Result};
use crate::filter::{Column, Filter, LeafStates, Next, Transform};
use crate::group_trees::GroupTrees;
use crate::row::{Cell, Row, Seen};
use crate::schema::{FamilyId, TableSchema};
use crate::{cell_key, gc, limits};

/// Names are cut from buffers, so that few allocations hold many: the first is small, since most reads are of
/// one row, and each next one twice as large, up to this.
const NAMES_BYTES_MIN: usize = 128;
const NAMES_BYTES_MAX: usize = 4 << 10;
/// What looking at a cell counts beyond its value.
const LOOK_BYTES: u64 = 64;

/// Reads rows for one request.
pub(crate) struct RowReader {
    /// By id.
    families: Vec<ReadFamily>,
    filter: Filter,
    transform: Transform,
    states: LeafStates,
    now_us: i64,
    sample_seed: u64,
    looked_at_bytes: u64,
    seen: Seen,
    names: Names,
    row_key: Bytes,
    /// What the row's cell keys start with; empty between ranges.
    row_prefix: Vec<u8>,
    column_prefix: Vec<u8>,
    target: Vec<u8>,
}

struct ReadFamily {
    id: FamilyId,
    name: Arc<str>,
    gc_rule: Option<GcRule>,
    /// Which of the tablet's trees its cells are read in; none where there are none.
    place: Option<usize>,
}

impl RowReader {
    pub(crate) fn new(
        schema: &TableSchema,
        trees: &GroupTrees,
        filter: Filter,
        now_us: i64,
        sample_seed: u64,
    ) -> Self {
        let mut families: Vec<ReadFamily> = schema
            .families
            .iter()
            .map(|(name, family)| ReadFamily {
                id: family.id,
                name: name.as_str().into(),
                gc_rule: family.gc_rule.clone(),
                place: trees.place_of(family.id),
            })
            .collect();
        families.sort_unstable_by_key(|family| family.id);
        Self {
            families,
            transform: filter.transform(),
            filter,
            states: LeafStates::default(),
            now_us,
            sample_seed,
            looked_at_bytes: 0,
            seen: Seen::default(),
            names: Names { buffer: BytesMut::new(), buffer_bytes: NAMES_BYTES_MIN },
            row_key: Bytes::new(),
            row_prefix: Vec::new(),
            column_prefix: Vec::new(),
            target: Vec::new(),
        }
    }

    /// Bytes looked at so far, roughly.
    pub(crate) fn looked_at_bytes(&self) -> u64 {
        self.looked_at_bytes
    }

    /// What it has looked at so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// What the cell keys of the row that was entered last start with.
    pub(crate) fn row_prefix(&self) -> &[u8] {
        &self.row_prefix
    }

    /// Forgets the row that was entered last: the next cursor stands in another range.
    pub(crate) fn forget_row(&mut self) {
        self.row_prefix.clear();
    }

    /// Moves `cursor` past the row that was entered last, if any.
    pub(crate) fn leave_row(&mut self, cursor: &mut CellCursor) -> Result<()> {
        if !self.row_prefix.is_empty() {
            let past = cell_key::into_successor(std::mem::take(&mut self.row_prefix));
            cursor.skip_to(&past)?;
            // Its memory serves the next row.
            self.row_prefix = past;
            self.row_prefix.clear();
        }
        Ok(())
    }

    /// Enters the row that `cursor` stands in; false where it stands nowhere.
    pub(crate) fn enter_row(&mut self, cursor: &CellCursor) -> Result<bool> {
        let Some(key) = cursor.key() else { return Ok(false) };
        self.target.clear();
        let row_end = cell_key::decode_escaped(key, 0, &mut self.target).map_err(|at| bad_key(key, at))?;
        self.row_prefix.clear();
        self.row_prefix.extend_from_slice(&key[..row_end]);
        self.row_key = self.names.cut(&self.target);
        Ok(true)
    }

    /// What the filter leaves of the row that was entered. `cursor` stands on
    /// its first cell, or on its last if `reversed`; afterwards anywhere in the
    /// row or behind it.
    pub(crate) fn read_row(&mut self, cursor: &mut CellCursor, reversed: bool) -> Result<Row> {
        let mut cells = Vec::new();
        self.looked_at_bytes += LOOK_BYTES;
        self.seen.row_count += 1;
        if self.filter.start_row(&mut self.states, &self.row_key, self.sample_seed) {
            if reversed {
                cursor.seek(&self.row_prefix)?;
            }
            self.read_bounds(cursor, &mut cells)?;
        }
        let cells = self.filter.finish_row(&self.row_key, cells, self.sample_seed)?;
        Ok(Row { key: self.row_key.clone(), cells })
    }

    /// Reads the columns that the filter can depend on.
    fn read_bounds(&mut self, cursor: &mut CellCursor, cells: &mut Vec<Cell>) -> Result<()> {
        let filter = self.filter.clone();
        let mut bytes = 0;
        for bounds in filter.bounds().ranges() {
            self.target.clear();
            self.target.extend_from_slice(&self.row_prefix);
            self.target.extend_from_slice(&bounds.start);
            cursor.skip_to(&self.target)?;
            while let Some(suffix) = cursor.key().and_then(|key| key.strip_prefix(&self.row_prefix[..])) {
                if !bounds.end.is_empty() && suffix >= &bounds.end[..] {
                    break;
                }
                if self.read_column(cursor, cells, &mut bytes)? == Next::Row {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads the column that `cursor` stands in and moves behind it, unless the
    /// row is finished.
    fn read_column(
        &mut self,
        cursor: &mut CellCursor,
        cells: &mut Vec<Cell>,
        bytes: &mut usize,
    ) -> Result<Next> {
        let Some(key) = cursor.key() else { return Ok(Next::Row) };
        let family_at = self.row_prefix.len();
        let family_id = cell_key::family_at_offset(key, family_at).ok_or_else(|| bad_key(key, family_at))?;
        let qualifier_at = family_at + cell_key::FAMILY_BYTES;
        self.column_prefix.clear();
        let Ok(family) = self.families.binary_search_by_key(&family_id, |family| family.id) else {
            // A dropped family, whose cells no compaction has met yet.
            self.column_prefix.extend_from_slice(&key[..qualifier_at]);
            return self.skip_prefix(cursor);
        };
        if self.families[family].place != Some(cursor.place()) {
            // The family was moved to another tree, and no compaction has met what it left behind.
            self.column_prefix.extend_from_slice(&key[..qualifier_at]);
            return self.skip_here(cursor);
        }
        self.target.clear();
        let column_end =
            cell_key::decode_escaped(key, qualifier_at, &mut self.target).map_err(|at| bad_key(key, at))?;
        self.column_prefix.extend_from_slice(&key[..column_end]);
        let column = Column { family: family_id, qualifier: &self.target };
        if !self.filter.start_column(&mut self.states, column) {
            return self.skip_prefix(cursor);
        }
        let mut qualifier = None;
        let mut newer_count = 0;
        while let Some(key) = cursor.key() {
            let Some(timestamp) = key.strip_prefix(&self.column_prefix[..]) else {
                return Ok(Next::Column);
            };
            let family = &self.families[family];
            if family.place != Some(cursor.place()) {
                // As above: the same column in another tree.
                cursor.skip_here(&cell_key::into_successor(self.column_prefix.clone()))?;
                continue;
            }
            let timestamp_us =
                cell_key::decode_timestamp(timestamp).ok_or_else(|| bad_key(key, column_end))?;
            let value = cursor.iter().value();
            self.looked_at_bytes += LOOK_BYTES + value.len() as u64;
            let rule = family.gc_rule.as_ref();
            if rule.is_some_and(|rule| gc::is_garbage(rule, newer_count, timestamp_us, self.now_us)) {
                return self.skip_prefix(cursor);
            }
            newer_count += 1;
            self.seen.cell_count += 1;
            let verdict = self.filter.judge(&mut self.states, timestamp_us, value);
            if verdict.take {
                let cell = Cell {
                    family_id,
                    family: family.name.clone(),
                    qualifier: qualifier.get_or_insert_with(|| self.names.cut(&self.target)).clone(),
                    timestamp_us,
                    value: if self.transform.strip_value {
                        Bytes::new()
                    } else {
                        cursor.iter().value_bytes()
                    },
                    label: self.transform.label.clone(),
                };
                *bytes += cell.bytes();
                cells.push(cell);
                if *bytes > limits::ROW_BYTES_MAX {
                    let row_key = self.row_key.clone();
                    return Err(Error::RowTooLarge { row_key, bytes_max: limits::ROW_BYTES_MAX });
                }
            }
            match verdict.next {
                Next::Cell => cursor.next()?,
                Next::Column => return self.skip_prefix(cursor),
                Next::Row => return Ok(Next::Row),
            }
        }
        Ok(Next::Row)
    }

    /// Moves `cursor`, in its current tree alone, behind all keys that start with what is in `column_prefix`.
    fn skip_here(&mut self, cursor: &mut CellCursor) -> Result<Next> {
        self.column_prefix = cell_key::into_successor(std::mem::take(&mut self.column_prefix));
        cursor.skip_here(&self.column_prefix)?;
        Ok(Next::Column)
    }

    /// Moves `cursor` behind all keys that start with what is in `column_prefix`.
    fn skip_prefix(&mut self, cursor: &mut CellCursor) -> Result<Next> {
        self.column_prefix = cell_key::into_successor(std::mem::take(&mut self.column_prefix));
        cursor.skip_to(&self.column_prefix)?;
        Ok(Next::Column)
    }
}

/// What names are cut from.
struct Names {
    buffer: BytesMut,
    /// The next buffer's size.
    buffer_bytes: usize,
}

impl Names {
    /// `name` as shared bytes.
    fn cut(&mut self, name: &[u8]) -> Bytes {
        if self.buffer.capacity() < name.len() {
            self.buffer = BytesMut::with_capacity(self.buffer_bytes.max(name.len()));
            self.buffer_bytes = (self.buffer_bytes * 2).min(NAMES_BYTES_MAX);
        }
        self.buffer.extend_from_slice(name);
        self.buffer.split().freeze()
    }
}

fn bad_key(key: &[u8], offset: usize) -> Error {
    Error::CorruptKey(cell_key::BadCellKey { offset, found: key.to_vec() })
}
