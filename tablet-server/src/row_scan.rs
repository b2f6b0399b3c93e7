//! Rows of one tablet at one moment, in bounded batches.
//!
//! A scan holds one cursor, over the trees of those locality groups that its
//! filter can let something through of. Rows come in the order of their keys or
//! against it; within a row the order is always that of the cells' keys, which is the
//! order in which families were created, qualifiers, newest first.

use std::sync::Arc;

use bytes::Bytes;
use lsm::Snapshot;

use crate::cell_cursor::CellCursor;
use crate::cell_key;
use crate::error::Result;
use crate::filter::Filter;
use crate::group_trees::{GroupTrees, TreeSet};
use crate::row::{Row, Seen};
use crate::row_reader::RowReader;
use crate::row_set::{RowRange, RowSet};
use crate::schema::TableSchema;

/// How many times its budget a step may look at without returning a row.
const LOOK_FACTOR: usize = 8;

/// How a scan reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScanOptions {
    /// Whether rows come in descending order of their keys.
    pub reversed: bool,
    /// Rows to return at most.
    pub rows_limit: Option<u64>,
    /// The time that GC rules are judged at, µs.
    pub now_us: i64,
    /// Decides which rows a sample filter takes.
    pub sample_seed: u64,
}

/// A scan that goes on where its last batch ended. Synchronous and `Send`; it
/// pins the snapshot until dropped.
pub struct RowScan {
    trees: Arc<GroupTrees>,
    /// Those that it looks into.
    needed: TreeSet,
    snapshot: Snapshot,
    /// What is still to read; the range being read is gone already.
    ranges: std::vec::IntoIter<RowRange>,
    reversed: bool,
    rows_left: Option<u64>,
    reader: RowReader,
    cursor: Option<CellCursor>,
}

/// What one step of a scan gives.
#[derive(Clone, Debug, Default)]
pub struct ScanBatch {
    /// Rows, in the order of the scan.
    pub rows: Vec<Row>,
    /// The last row looked at, where it lies beyond the last of `rows` because
    /// filters left nothing of it.
    pub last_scanned_row_key: Option<Bytes>,
    /// What the step looked at, `rows` included.
    pub seen: Seen,
    /// Whether the scan is complete.
    pub done: bool,
}

impl RowScan {
    /// A scan of `rows`, clipped to the trees' tablet by the caller.
    pub fn new(
        trees: &Arc<GroupTrees>,
        snapshot: &Snapshot,
        schema: &TableSchema,
        rows: RowSet,
        filter: Filter,
        options: ScanOptions,
    ) -> Self {
        Self {
            trees: Arc::clone(trees),
            needed: trees.needed(schema, &filter),
            snapshot: snapshot.clone(),
            ranges: rows.into_ranges().into_iter(),
            reversed: options.reversed,
            rows_left: options.rows_limit,
            reader: RowReader::new(schema, trees, filter, options.now_us, options.sample_seed),
            cursor: None,
        }
    }

    /// Reads on until rows of about `budget_bytes` are there, several times as
    /// much has been looked at in vain, or the scan is complete. One row may
    /// exceed the budget.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::error::Error); the scan is over.
    pub fn next_rows(&mut self, budget_bytes: usize) -> Result<ScanBatch> {
        let mut batch = ScanBatch::default();
        let before = self.reader.seen();
        let mut row_bytes = 0;
        let look_bytes_max = self.reader.looked_at_bytes() + budget_bytes.saturating_mul(LOOK_FACTOR) as u64;
        while row_bytes < budget_bytes && self.reader.looked_at_bytes() < look_bytes_max {
            if self.rows_left == Some(0) || !self.enter_row()? {
                batch.done = true;
                break;
            }
            let Some(cursor) = &mut self.cursor else { continue };
            let row = self.reader.read_row(cursor, self.reversed)?;
            if self.reversed {
                cursor.seek_before(self.reader.row_prefix())?;
            }
            if row.cells.is_empty() {
                batch.last_scanned_row_key = Some(row.key);
                continue;
            }
            row_bytes += row.bytes();
            if let Some(left) = &mut self.rows_left {
                *left -= 1;
            }
            batch.last_scanned_row_key = None;
            batch.rows.push(row);
        }
        batch.seen = self.reader.seen().since(before);
        Ok(batch)
    }

    /// Moves on to the next row that has cells stored, and has the reader enter
    /// it; false where there is none.
    fn enter_row(&mut self) -> Result<bool> {
        loop {
            if let Some(cursor) = &mut self.cursor {
                if !self.reversed {
                    self.reader.leave_row(cursor)?;
                }
                if self.reader.enter_row(cursor)? {
                    return Ok(true);
                }
            }
            let range = if self.reversed { self.ranges.next_back() } else { self.ranges.next() };
            let Some(range) = range else {
                self.cursor = None;
                return Ok(false);
            };
            self.reader.forget_row();
            self.cursor = self.open(&range)?;
        }
    }

    /// A cursor at the first cell of the range, or the last if reversed; none where no tree is needed.
    fn open(&self, range: &RowRange) -> Result<Option<CellCursor>> {
        let row_prefix = range.as_single().map(|row_key| cell_key::row_prefix(row_key));
        let iters = self.needed.places().map(|place| {
            let tree = self.trees.at(place);
            let iter = match &row_prefix {
                Some(row_prefix) => tree.iter_prefix(&self.snapshot, row_prefix),
                None => tree.iter(&self.snapshot, range.cell_keys()),
            };
            (place, iter)
        });
        if self.reversed { CellCursor::at_last(iters) } else { CellCursor::at_first(iters) }
    }
}

/// The row `row_key`, if `filter` leaves any cell of it.
///
/// # Errors
///
/// [`Error`](crate::error::Error).
pub fn read_row(
    trees: &Arc<GroupTrees>,
    snapshot: &Snapshot,
    schema: &TableSchema,
    row_key: &[u8],
    filter: &Filter,
    options: &ScanOptions,
) -> Result<Option<Row>> {
    let rows = RowSet::single(Bytes::copy_from_slice(row_key));
    let options = ScanOptions { reversed: false, ..*options };
    let mut scan = RowScan::new(trees, snapshot, schema, rows, filter.clone(), options);
    Ok(scan.next_rows(1)?.rows.pop())
}
