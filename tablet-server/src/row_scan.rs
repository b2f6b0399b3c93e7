//! Rows of one tree at one moment, in bounded batches.

use std::sync::Arc;

use bytes::Bytes;
use lsm::{Snapshot, Tree};

use crate::error::Result;
use crate::filter::Filter;
use crate::row::Row;
use crate::row_set::RowSet;
use crate::schema::TableSchema;

/// How a scan reads.
#[derive(Clone, Debug, Default)]
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
pub struct RowScan {}

/// What one step of a scan gives.
#[derive(Clone, Debug, Default)]
pub struct ScanBatch {
    /// Rows, in the order of the scan.
    pub rows: Vec<Row>,
    /// The last row looked at, where it lies beyond the last of `rows` because
    /// filters left nothing of it.
    pub last_scanned_row_key: Option<Bytes>,
    /// Whether the scan is complete.
    pub done: bool,
}

impl RowScan {
    /// A scan of `rows`, clipped to the tree's tablet by the caller.
    pub fn new(
        _tree: &Tree,
        _snapshot: &Snapshot,
        _schema: Arc<TableSchema>,
        _rows: RowSet,
        _filter: Filter,
        _options: ScanOptions,
    ) -> Self {
        unimplemented!()
    }

    /// Reads on until rows of about `budget_bytes` are there, as many bytes have
    /// been looked at in vain, or the scan is complete. One row may exceed the budget.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::error::Error); the scan is over.
    pub fn next_rows(&mut self, _budget_bytes: usize) -> Result<ScanBatch> {
        unimplemented!()
    }
}

/// The row `row_key`, if `filter` leaves any cell of it.
///
/// # Errors
///
/// [`Error`](crate::error::Error).
pub fn read_row(
    _tree: &Tree,
    _snapshot: &Snapshot,
    _schema: &Arc<TableSchema>,
    _row_key: &[u8],
    _filter: &Filter,
    _options: &ScanOptions,
) -> Result<Option<Row>> {
    unimplemented!()
}
