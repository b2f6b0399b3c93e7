//! CheckAndMutateRow: mutations that depend on what a filter finds in the row.

use std::sync::Arc;

use bytes::Bytes;
use lsm::{Snapshot, Tree};
use row_api::data;
use tonic::Status;

use crate::error::Result;
use crate::mutation::RowMutations;
use crate::row_scan::ScanOptions;
use crate::schema::TableSchema;

/// A checked CheckAndMutateRow.
#[derive(Clone, Debug)]
pub struct CheckAndMutate {
    row_key: Bytes,
}

impl CheckAndMutate {
    /// Checks row key, predicate and both lists of mutations.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, NOT_FOUND for a family that the table does not have.
    pub fn check(
        _schema: &TableSchema,
        _request: data::CheckAndMutateRowRequest,
    ) -> std::result::Result<Self, Status> {
        unimplemented!()
    }

    /// The row.
    pub fn row_key(&self) -> &Bytes {
        &self.row_key
    }

    /// Whether the predicate yields a cell at `snapshot`.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::error::Error).
    pub fn matches(
        &self,
        _tree: &Tree,
        _snapshot: &Snapshot,
        _schema: &Arc<TableSchema>,
        _options: &ScanOptions,
    ) -> Result<bool> {
        unimplemented!()
    }

    /// What to apply then: none where the request has no mutations for this case.
    pub fn mutations(&self, _matched: bool) -> Option<&RowMutations> {
        unimplemented!()
    }
}
