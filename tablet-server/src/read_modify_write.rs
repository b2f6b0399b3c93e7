//! ReadModifyWriteRow: appends and increments over the newest cells of a row.

use std::sync::Arc;

use bytes::Bytes;
use lsm::{Snapshot, Tree, WriteBatch};
use row_api::data;
use tonic::Status;

use crate::error::Result;
use crate::schema::TableSchema;

/// A checked ReadModifyWriteRow.
#[derive(Clone, Debug)]
pub struct ReadModifyWrite {
    row_key: Bytes,
}

impl ReadModifyWrite {
    /// Checks the request's rules.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, NOT_FOUND for a family that the table does not have.
    pub fn check(
        _schema: &TableSchema,
        _row_key: Bytes,
        _rules: Vec<data::ReadModifyWriteRule>,
    ) -> std::result::Result<Self, Status> {
        unimplemented!()
    }

    /// The row.
    pub fn row_key(&self) -> &Bytes {
        &self.row_key
    }

    /// Reads the row at `snapshot`, adds the new cells to `batch`, and gives
    /// them as the answer's row. The caller holds the row's lock, exclusive.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::error::Error); nothing was added to `batch`.
    pub fn apply(
        &self,
        _tree: &Tree,
        _snapshot: &Snapshot,
        _schema: &Arc<TableSchema>,
        _now_us: i64,
        _batch: &mut WriteBatch,
    ) -> Result<data::Row> {
        unimplemented!()
    }
}
