//! Mutations of one row: checked as a whole first, then encoded as one batch.

use bytes::Bytes;
use lsm::{TreeId, WriteBatch};
use row_api::data;
use tonic::Status;

use crate::schema::TableSchema;

/// Checked mutations of one row, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMutations {
    row_key: Bytes,
}

impl RowMutations {
    /// Checks `mutations`, which stand at `field`, against the limits and the schema.
    ///
    /// # Errors
    ///
    /// - INVALID_ARGUMENT: a limit, a timestamp, a missing field.
    /// - NOT_FOUND: a family that the table does not have.
    /// - UNIMPLEMENTED: an aggregate mutation.
    pub fn check(
        _schema: &TableSchema,
        _field: &str,
        _row_key: Bytes,
        _mutations: Vec<data::Mutation>,
    ) -> Result<Self, Status> {
        unimplemented!()
    }

    /// The row.
    pub fn row_key(&self) -> &Bytes {
        &self.row_key
    }

    /// Whether a cell gets the server's clock: such a row must not be sent twice.
    pub fn uses_server_clock(&self) -> bool {
        unimplemented!()
    }

    /// Adds the writes to `batch`. Cells without a timestamp of their own get `now_us`.
    pub fn encode(&self, _tree: TreeId, _now_us: i64, _batch: &mut WriteBatch) {
        unimplemented!()
    }
}
